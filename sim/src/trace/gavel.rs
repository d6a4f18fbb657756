//! A trace of Gavel (OSDI 2020): ten fields with tabs between them, no header. Run times follow
//! from steps and a table of throughputs; a job may run on every model that the table has for it,
//! the fastest first.

use super::fields::{devices, name, short, submit_ms, whole};
use super::input::each_line;
use super::rows::{Row, Rows};
use super::throughputs::Throughputs;
use super::{TraceJob, Work};
use std::io::BufRead;

const FIELDS: usize = 10;

pub(super) fn parse(input: &mut dyn BufRead, table: Option<&Throughputs>) -> Result<Rows, String> {
    let table = table.ok_or("its jobs are counted in steps; name a table of throughputs with `--throughputs FILE`")?;
    let mut rows = Rows::new("gavel");
    each_line(input, |number, line| {
        let row = match line {
            Ok("") => return Ok(()),
            Ok(line) => row(number, line, table),
            Err(why) => Err(why),
        };
        rows.add(number, row)
    })?;
    Ok(rows)
}

fn row(number: u64, line: &str, table: &Throughputs) -> Result<Row, String> {
    let fields: Vec<&str> = line.split('\t').collect();
    if fields.len() != FIELDS {
        return Err(format!("{} fields instead of {FIELDS}", fields.len()));
    }
    let steps = whole("total steps", fields[5])?;
    let count = devices(whole("scale factor", fields[6])?)?;
    let submit_ms = submit_ms(fields[9])?;
    let steps = u64::try_from(steps).map_err(|_| "total steps is negative".to_owned())?;
    if steps == 0 {
        return Ok(Row::Dropped("run time 0"));
    }
    let work = Work { kind: format!("('{}', {count})", fields[0]), steps };
    let fastest = table.fastest(&work);
    let Some(&(_, run_ms)) = fastest.first() else {
        return Err(format!("the table has no throughput of `{}` on {count} devices", short(fields[0])));
    };
    Ok(Row::job(TraceJob {
        id: number.to_string(),
        submit_ms,
        run_ms,
        requested_ms: run_ms,
        devices: count,
        models: fastest.iter().filter_map(|(model, _)| name(model)).collect(),
        work: Some(work),
        ..TraceJob::default()
    }))
}
