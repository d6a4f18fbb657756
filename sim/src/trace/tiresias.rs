//! The job list of the Tiresias simulator, also used by others: a CSV with a header that names at
//! least `job_id`, `num_gpu`, `submit_time` and `duration`; times in seconds. Other columns are
//! not read. Requested time is the duration: the format has no estimates.

use super::TraceJob;
use super::rows::{Row, Rows, devices, milliseconds, submit_ms, whole};
use csv::StringRecord;

struct Columns {
    id: usize,
    devices: usize,
    submit: usize,
    duration: usize,
}

pub(super) fn parse(text: &str) -> Result<Rows, String> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| format!("the header cannot be read: {error}"))?.clone();
    let columns = Columns {
        id: column(&header, "job_id")?,
        devices: column(&header, "num_gpu")?,
        submit: column(&header, "submit_time")?,
        duration: column(&header, "duration")?,
    };
    let mut rows = Rows::new("tiresias");
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let row = if record.len() == header.len() {
            parse_row(&columns, &record)
        } else {
            Err(format!("{} fields instead of {}", record.len(), header.len()))
        };
        rows.add(line, row);
    }
    Ok(rows)
}

fn column(header: &StringRecord, name: &str) -> Result<usize, String> {
    header.iter().position(|field| field == name).ok_or_else(|| {
        let found: Vec<&str> = header.iter().take(20).collect();
        format!(
            "there is no column `{name}`; there is: {}. A job list needs job_id, num_gpu, submit_time and duration",
            found.join(", ")
        )
    })
}

fn parse_row(columns: &Columns, record: &StringRecord) -> Result<Row, String> {
    let id = &record[columns.id];
    if id.is_empty() || id.len() > 63 {
        return Err("job_id must have from 1 to 63 characters".into());
    }
    let count = whole("num_gpu", &record[columns.devices])?;
    let submit_ms = submit_ms(&record[columns.submit])?;
    let run_ms = milliseconds("duration", &record[columns.duration])?;
    if count == 0 {
        return Ok(Row::Dropped("no devices"));
    }
    if run_ms == 0 {
        return Ok(Row::Dropped("run time 0"));
    }
    let run_ms = u64::try_from(run_ms).map_err(|_| format!("duration {} is negative", run_ms / 1000))?;
    Ok(Row::Job(TraceJob { id: id.to_owned(), submit_ms, run_ms, requested_ms: run_ms, devices: devices(count)? }))
}
