//! Standard Workload Format 2: 18 fields a line, `;` before comments and header fields.
//!
//! Rules, as the simulators that users compare with apply them: a run time of 0 is dropped, a
//! negative one becomes 10 s; processors are the larger of allocated and requested; a requested
//! time of -1 becomes the run time; without `MaxProcs` the machine has `MaxNodes` processors.

use super::fields::{devices, milliseconds, name, submit_ms, whole};
use super::input::each_line;
use super::rows::{Row, Rows};
use super::{RecordedEnd, TraceJob};
use std::io::BufRead;

const FIELDS: usize = 18;
/// Stands in for a run time that is not known.
const UNKNOWN_RUN_MS: i64 = 10_000;

pub(super) fn parse(input: &mut dyn BufRead) -> Result<Rows, String> {
    let mut rows = Rows::new("swf");
    let (mut procs, mut nodes) = (None, None);
    each_line(input, |number, line| {
        let row = match line {
            Ok("") => return Ok(()),
            Ok(line) => match line.strip_prefix(';') {
                Some(comment) => {
                    procs = procs.or_else(|| header(comment, "MaxProcs"));
                    nodes = nodes.or_else(|| header(comment, "MaxNodes"));
                    return Ok(());
                }
                None => parse_row(&mut rows, number, line),
            },
            Err(why) => Err(why),
        };
        rows.add(number, row)
    })?;
    rows.recorded_devices = procs.or(nodes);
    Ok(rows)
}

/// `MaxNodes: 256`; -1 stands for unknown and is no number of ours.
fn header(comment: &str, key: &str) -> Option<u32> {
    let (name, value) = comment.split_once(':')?;
    (name.trim() == key).then(|| value.trim().parse().ok())?
}

fn parse_row(rows: &mut Rows, number: u64, line: &str) -> Result<Row, String> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    if fields.len() != FIELDS {
        return Err(format!("{} fields instead of {FIELDS}", fields.len()));
    }
    let id = whole("job number", fields[0])?;
    let submit_ms = submit_ms(fields[1])?;
    let mut run_ms = milliseconds("run time", fields[3])?;
    let allocated = whole("allocated processors", fields[4])?;
    let asked = whole("requested processors", fields[7])?;
    let mut requested_ms = milliseconds("requested time", fields[8])?;
    if run_ms == 0 {
        return Ok(Row::Dropped("run time 0"));
    }
    let devices = devices(allocated.max(asked))?;
    if run_ms < 0 {
        rows.changed(number, "negative run time became 10 s");
        run_ms = UNKNOWN_RUN_MS;
    }
    if requested_ms < 0 {
        rows.changed(number, "requested time was not recorded; it became the run time");
        requested_ms = run_ms;
    }
    Ok(Row::job(TraceJob {
        id: id.to_string(),
        submit_ms,
        run_ms: run_ms.unsigned_abs(),
        requested_ms: requested_ms.unsigned_abs(),
        devices,
        // -1 stands for unknown.
        user: Some(fields[11]).filter(|user| *user != "-1").map(str::to_owned),
        account: Some(fields[12]).filter(|group| *group != "-1").and_then(name),
        recorded_end: match fields[10] {
            "1" => RecordedEnd::Succeeded,
            "0" => RecordedEnd::Failed,
            "5" => RecordedEnd::Cancelled,
            _ => RecordedEnd::Unknown,
        },
        ..TraceJob::default()
    }))
}
