//! What every reader gathers: the jobs kept, and an account of all other rows.

use super::{BAD_ROWS_NAMED_MAX, BadRow, Card, JOBS_MAX, Noted, Trace, TraceJob};
use std::collections::BTreeMap;

/// Rows read so far.
pub(crate) struct Rows {
    format: &'static str,
    jobs: Vec<TraceJob>,
    jobs_max: usize,
    rows: u64,
    dropped: Vec<Noted>,
    changed: Vec<Noted>,
    /// Line on which each job id was seen.
    ids: BTreeMap<String, u64>,
    pub(super) bad_rows: u64,
    /// The first [`BAD_ROWS_NAMED_MAX`].
    pub(super) bad: Vec<BadRow>,
    pub(super) recorded_devices: Option<u32>,
    /// Rows with an earlier submit time than the row before.
    unsorted: u64,
}

/// What a row turned out to be.
pub(crate) enum Row {
    Job(Box<TraceJob>),
    Dropped(&'static str),
}

impl Row {
    pub(crate) fn job(job: TraceJob) -> Self {
        Row::Job(Box::new(job))
    }
}

impl Rows {
    pub(crate) fn new(format: &'static str) -> Self {
        Self {
            format,
            jobs: Vec::new(),
            jobs_max: JOBS_MAX,
            rows: 0,
            dropped: Vec::new(),
            changed: Vec::new(),
            ids: BTreeMap::new(),
            bad_rows: 0,
            bad: Vec::new(),
            recorded_devices: None,
            unsorted: 0,
        }
    }

    /// # Errors
    /// When there are more jobs than a run can hold.
    pub(crate) fn add(&mut self, line: u64, row: Result<Row, String>) -> Result<(), String> {
        self.rows += 1;
        match row {
            Ok(Row::Dropped(why)) => note(&mut self.dropped, line, why),
            Ok(Row::Job(job)) => match self.ids.get(&job.id) {
                Some(first) => self.add_bad(line, format!("job id {} was used on line {first}", job.id)),
                None if self.jobs.len() >= self.jobs_max => {
                    return Err(format!("more than {} jobs; cut it into parts", self.jobs_max));
                }
                None => {
                    self.ids.insert(job.id.clone(), line);
                    self.unsorted += u64::from(self.jobs.last().is_some_and(|last| last.submit_ms > job.submit_ms));
                    self.jobs.push(*job);
                }
            },
            Err(why) => self.add_bad(line, why),
        }
        Ok(())
    }

    pub(crate) fn changed(&mut self, line: u64, why: &'static str) {
        note(&mut self.changed, line, why);
    }

    fn add_bad(&mut self, line: u64, why: String) {
        self.bad_rows += 1;
        if self.bad.len() < BAD_ROWS_NAMED_MAX {
            self.bad.push(BadRow { line, why });
        }
    }

    pub(crate) fn into_trace(mut self) -> Trace {
        self.jobs.sort_by_key(|job| job.submit_ms);
        let mut card = Card {
            format: self.format,
            rows: self.rows,
            jobs: 0,
            dropped: self.dropped,
            changed: self.changed,
            bad_rows: self.bad_rows,
            bad: self.bad,
            recorded_devices: self.recorded_devices,
            unsorted_rows: self.unsorted,
            first_submit_s: 0.0,
            last_submit_s: 0.0,
            span_s: 0.0,
            device_s: 0.0,
            mean_devices: 0.0,
            largest_job_devices: 0,
        };
        card.measure(&self.jobs);
        Trace { jobs: self.jobs, card }
    }
}

fn note(notes: &mut Vec<Noted>, line: u64, why: &'static str) {
    match notes.iter_mut().find(|noted| noted.why == why) {
        Some(noted) => noted.rows += 1,
        None => notes.push(Noted { why, rows: 1, first_line: line }),
    }
}

impl Card {
    /// Fills in what follows from the jobs that take part.
    pub(super) fn measure(&mut self, jobs: &[TraceJob]) {
        let first_ms = jobs.first().map_or(0, |job| job.submit_ms);
        let last_ms = jobs.last().map_or(0, |job| job.submit_ms);
        let device_ms: u128 = jobs.iter().map(TraceJob::device_ms).sum();
        self.jobs = jobs.len() as u64;
        self.first_submit_s = first_ms as f64 / 1000.0;
        self.last_submit_s = last_ms as f64 / 1000.0;
        self.span_s = (last_ms - first_ms) as f64 / 1000.0;
        self.device_s = device_ms as f64 / 1000.0;
        self.mean_devices = if self.span_s > 0.0 { self.device_s / self.span_s } else { 0.0 };
        self.largest_job_devices = jobs.iter().map(|job| job.devices).max().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_jobs_than_a_run_can_hold_are_refused() {
        let mut rows = Rows::new("many");
        assert_eq!(rows.jobs_max, JOBS_MAX);
        rows.jobs_max = 2;
        let job = |id: &str| Ok(Row::job(TraceJob { id: id.into(), ..TraceJob::default() }));
        for row in [job("a"), job("b"), job("b"), Ok(Row::Dropped("run time 0")), Err("broken".into())] {
            assert_eq!(rows.add(1, row), Ok(()), "a row that is no further job takes no room");
        }
        assert!(rows.add(6, job("c")).unwrap_err().contains("more than 2 jobs"));
        let card = rows.into_trace().card;
        assert_eq!((card.jobs, card.bad_rows), (2, 2));
    }
}
