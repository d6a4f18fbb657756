//! The job list of the Tiresias simulator, also used by others: a CSV with a header that names at
//! least `job_id`, `num_gpu`, `submit_time` and `duration`; times in seconds. Requested time is the
//! duration: the format has no estimates.

use super::TraceJob;
use super::fields::{devices, duration_ms, id, submit_ms, whole};
use super::rows::{Row, Rows};
use super::table::{self, Layout};
use std::io::BufRead;

const LAYOUT: Layout = Layout {
    format: "tiresias",
    delimiter: b',',
    required: &["job_id", "num_gpu", "submit_time", "duration"],
    optional: &[],
};

pub(super) fn parse(input: &mut dyn BufRead) -> Result<Rows, String> {
    table::read(&LAYOUT, input, |_, _, fields| {
        let id = id(fields.get("job_id"))?;
        let count = whole("num_gpu", fields.get("num_gpu"))?;
        let submit_ms = submit_ms(fields.get("submit_time"))?;
        let run_ms = duration_ms("duration", fields.get("duration"))?;
        if count == 0 {
            return Ok(Row::Dropped("no devices"));
        }
        if run_ms == 0 {
            return Ok(Row::Dropped("run time 0"));
        }
        let devices = devices(count)?;
        Ok(Row::job(TraceJob { id, submit_ms, run_ms, requested_ms: run_ms, devices, ..TraceJob::default() }))
    })
}
