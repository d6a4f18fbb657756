//! Submits, run times, failures and cancellations, out of events.

use crate::trace::{RecordedEnd, Rows, Trace, TraceJob, rows::Row};
use crate::world::planned::{Cancellation, UserFailure};
use muster_common::job::{Count, Scheduling};
use muster_common::time::SECOND_MS;
use muster_common::{GangId, JobId, Name, Time};
use muster_engine::State;
use muster_engine::command::Exit;
use muster_engine::outcome::Event;
use muster_engine::state::gang::{Attempt, AttemptRecord, Cause, End};
use muster_engine::state::job::JobRecord;
use std::collections::BTreeMap;
use std::sync::Arc;

const NOT_ENDED: &str = "had not ended: runs as long as its user expected, or as it had run when that is longer";
const OUTRAN: &str = "has run longer than its user expected, or nobody said: runs as long again as it has";
const BEFORE: &str = "submitted before the time asked for: here at its beginning, with what was left to run";
const ATTEMPTS: &str = "had several attempts: runs as long as the last of them";
const NEVER_RAN: &str = "cancelled before it ran: would have run until then";
const ELEMENTS: &str = "elements of an array are jobs of their own, without the array's limits";
const WAITED: &str = "waited for other jobs: here it does not";
const HELD: &str = "was held for a while: here it is not";
const UNKNOWN: &str = "has not run, and nobody said how long it would";
const CANCELLED_ELEMENT: &str = "an element of an array that was cancelled before it ran";
const EMPTY: &str = "never came to run";

/// How a gang ran last.
#[derive(Debug, Clone, Copy)]
struct Ran {
    started: Time,
    /// When its work ended, released or not.
    until: Time,
}

#[derive(Debug, Clone, Default)]
struct GangNote {
    first_start: Option<Time>,
    last: Option<Ran>,
    attempts: u32,
    failures: u32,
    first_failure: Option<(u64, i32)>,
    end: Option<(End, Time)>,
    ended: bool,
}

impl GangNote {
    /// Unless that was before the stretch: there everything begins anew. `now`: of the attempt that goes on.
    fn first_start(&self, now: Option<Time>, from: Time) -> Option<u64> {
        self.first_start.or(now).filter(|at| *at >= from).map(|at| at.0)
    }
}

#[derive(Debug, Clone, Default)]
struct JobNote {
    gangs: BTreeMap<u32, GangNote>,
    cancelled_at: Option<Time>,
    held: bool,
}

/// A job as far as it is known.
struct Known<'a> {
    record: &'a JobRecord,
    scheduling: &'a Scheduling,
    note: JobNote,
    /// When the history ends, of a job that has not.
    live_at: Option<Time>,
    end: Option<(End, Time)>,
}

/// One line of the trace to be, with where it stands among those of one moment.
struct Line {
    running_before: bool,
    id: GangId,
    job: TraceJob,
    changed: Vec<&'static str>,
}

#[derive(Debug)]
pub(super) struct Jobs {
    from: Time,
    notes: BTreeMap<JobId, JobNote>,
    lines: Vec<Line>,
    dropped: Vec<&'static str>,
    cancellations: Vec<Cancellation>,
    failures: Vec<UserFailure>,
    start_ms: Vec<u64>,
    stop_ms: Vec<u64>,
    preempted: u64,
    lost: u64,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.id.fmt(f)
    }
}

pub(super) struct Gathered {
    pub trace: Trace,
    pub cancellations: Vec<Cancellation>,
    pub failures: Vec<UserFailure>,
    /// Medians.
    pub start_ms: u64,
    pub stop_ms: u64,
    pub not_modelled: Vec<String>,
}

impl Jobs {
    pub fn new(from: Time) -> Self {
        Self {
            from,
            notes: BTreeMap::new(),
            lines: Vec::new(),
            dropped: Vec::new(),
            cancellations: Vec::new(),
            failures: Vec::new(),
            start_ms: Vec::new(),
            stop_ms: Vec::new(),
            preempted: 0,
            lost: 0,
        }
    }

    pub fn event(&mut self, at: Time, event: &Event) {
        match event {
            Event::JobSubmitted { job, .. } => drop(self.notes.entry(*job).or_default()),
            Event::JobHeld { job, .. } => self.notes.entry(*job).or_default().held = true,
            Event::JobCancelled { job, ordinal: None, .. } => {
                self.notes.entry(*job).or_default().cancelled_at.get_or_insert(at);
            }
            Event::AttemptEnded { gang, record } => self.attempt_ended(*gang, record),
            Event::GangEnded { gang, end } => {
                let note = self.notes.entry(gang.job).or_default().gangs.entry(gang.ordinal).or_default();
                (note.end, note.ended) = (Some((*end, at)), true);
            }
            Event::JobEnded { record, scheduling, end, .. } => {
                let note = self.notes.remove(&record.id).unwrap_or_default();
                let known = Known { record, scheduling, note, live_at: None, end: Some((*end, at)) };
                self.job(&known, &BTreeMap::new());
            }
            _ => {}
        }
    }

    fn attempt_ended(&mut self, gang: GangId, record: &Arc<AttemptRecord>) {
        let attempt = &record.attempt;
        let note = self.notes.entry(gang.job).or_default().gangs.entry(gang.ordinal).or_default();
        let Some(started) = attempt.started_at else { return };
        let until = attempt.stopping_at.unwrap_or(record.ended_at);
        note.first_start.get_or_insert(started);
        note.last = Some(Ran { started, until });
        note.attempts += 1;
        // What failed before the stretch does not fail in it again.
        if let Cause::RankFailed { exit, .. } = &record.cause
            && until > self.from
        {
            note.failures += 1;
            let code = match exit {
                Exit::Code(code) => *code,
                Exit::Signal(_) | Exit::Unknown => 1,
            };
            note.first_failure.get_or_insert((until.since_ms(started.max(self.from)), code));
        }
        if record.ended_at < self.from {
            return;
        }
        self.preempted += u64::from(matches!(record.cause, Cause::Preempted { .. } | Cause::Drained { .. }));
        self.lost += u64::from(record.cause.blame() == muster_engine::state::gang::Blame::Infra);
        self.start_ms.push(started.since_ms(attempt.placed_at));
        self.stop_ms.push(record.ended_at.since_ms(until));
    }

    /// Jobs that State still holds.
    pub fn still_there(&mut self, state: &State) {
        let mut current: BTreeMap<JobId, BTreeMap<u32, Attempt>> = BTreeMap::new();
        for gang in state.gangs().values() {
            if let Some(attempt) = gang.current() {
                current.entry(gang.id.job).or_default().insert(gang.id.ordinal, attempt.clone());
            }
        }
        for record in state.jobs().values() {
            let note = self.notes.remove(&record.id).unwrap_or_default();
            let scheduling = state.scheduling(record).clone();
            let live_at = Some(state.now());
            let known = Known { record, scheduling: &scheduling, note, live_at, end: None };
            let runs = current.remove(&record.id).unwrap_or_default();
            self.job(&known, &runs);
        }
    }

    /// One job, gang by gang; `runs`: the attempts that go on.
    fn job(&mut self, known: &Known<'_>, runs: &BTreeMap<u32, Attempt>) {
        if known.end.is_some_and(|(_, at)| at <= self.from) {
            return;
        }
        for ordinal in 0..known.scheduling.gangs() {
            let note = known.note.gangs.get(&ordinal).cloned().unwrap_or_default();
            if note.end.is_some_and(|(_, at)| at <= self.from) {
                continue;
            }
            match self.line(known, ordinal, &note, runs.get(&ordinal)) {
                Ok(line) => self.lines.push(line),
                Err(why) => self.dropped.push(why),
            }
        }
    }

    fn line(
        &mut self,
        known: &Known<'_>,
        ordinal: u32,
        note: &GangNote,
        runs: Option<&Attempt>,
    ) -> Result<Line, &'static str> {
        let (record, scheduling) = (known.record, known.scheduling);
        let mut changed = Vec::new();
        let limits = &scheduling.limits;
        let expected_ms = limits.expected_ms.or(limits.time_ms);
        let goes_on = runs.and_then(|attempt| Some((attempt.started_at?, attempt.stopping_at)));
        let is_live = known.live_at.is_some() && !note.ended;
        let ran = match (goes_on, known.live_at) {
            (Some((started, stopping)), Some(now)) => Some(Ran { started, until: stopping.unwrap_or(now) }),
            _ => note.last.filter(|_| !is_live),
        };
        let cancelled_at = known.note.cancelled_at.filter(|_| !is_live || runs.is_some());
        let mut run_ms = match ran {
            Some(ran) => ran.until.since_ms(ran.started.max(self.from)).max(1),
            None => self.never_ran(known, note, expected_ms)?,
        };
        if ran.is_none() && !is_live {
            changed.push(NEVER_RAN);
        }
        let had_run_ms = ran.map_or(0, |ran| self.from.since_ms(ran.started));
        if is_live {
            let (left_ms, why) = self.left(known, had_run_ms, expected_ms);
            changed.push(why);
            run_ms = run_ms.max(left_ms);
        }
        if record.submitted_at < self.from {
            changed.push(BEFORE);
        }
        let several = [
            (note.attempts > 1, ATTEMPTS),
            (scheduling.array.is_some(), ELEMENTS),
            (!scheduling.after.is_none(), WAITED),
            (known.note.held, HELD),
        ];
        changed.extend(several.into_iter().filter(|(is, _)| *is).map(|(_, why)| why));
        // A run lets these start at once: what really was says nothing about it.
        let starts_alike = scheduling.after.is_none() && !known.note.held;
        let first_start = note.first_start(goes_on.map(|(started, _)| started), self.from);
        let gang = GangId::new(record.id, ordinal);
        let id = if scheduling.array.is_some() { gang.to_string() } else { record.id.to_string() };
        let end = note.end.or(known.end).map(|(end, _)| end);
        let recorded_end = recorded(end);
        self.note_ends(&id, note, end, cancelled_at);
        let mut asked = Scheduling { array: None, ..scheduling.clone() };
        for limit_ms in [&mut asked.limits.expected_ms, &mut asked.limits.time_ms].into_iter().flatten() {
            *limit_ms = limit_ms.saturating_sub(had_run_ms).max(1);
        }
        if recorded_end == RecordedEnd::Cancelled {
            // It was given up, so it is not tried again.
            asked.retry.app = 0;
        }
        let job = TraceJob {
            submit_ms: record.submitted_at.max(self.from).0,
            user: Some(record.principal.0.to_string()),
            name: Some(record.name.clone()),
            recorded_end,
            recorded_start_ms: first_start.filter(|_| starts_alike),
            ..described(id, run_ms, expected_ms, asked)
        };
        let running_before = ran.is_some_and(|ran| ran.started < self.from);
        Ok(Line { running_before, id: gang, job, changed })
    }

    /// How long a job that has not ended still runs.
    fn left(&self, known: &Known<'_>, had_run_ms: u64, expected_ms: Option<u64>) -> (u64, &'static str) {
        match expected_ms.unwrap_or(0).saturating_sub(had_run_ms) {
            // Of a stretch that is over at once, what it ran in it says nothing.
            0 if had_run_ms > 0 && known.live_at == Some(self.from) => (had_run_ms, OUTRAN),
            left_ms => (left_ms, NOT_ENDED),
        }
    }

    /// How long it would have run, as far as anybody knows.
    fn never_ran(&self, known: &Known<'_>, note: &GangNote, expected_ms: Option<u64>) -> Result<u64, &'static str> {
        let ended = note.end.or(known.end);
        match ended {
            None => expected_ms.ok_or(UNKNOWN),
            Some(_) if known.scheduling.array.is_some() => Err(CANCELLED_ELEMENT),
            Some((End::Cancelled | End::TimedOut, at)) => {
                let waited_ms = at.since_ms(known.record.submitted_at.max(self.from)).max(1);
                Ok(expected_ms.map_or(waited_ms, |expected_ms| expected_ms.min(waited_ms)).max(1))
            }
            Some(_) => Err(EMPTY),
        }
    }

    /// Failures before the last attempt, and a cancellation at its time.
    fn note_ends(&mut self, id: &str, note: &GangNote, end: Option<End>, cancelled_at: Option<Time>) {
        if let Some(at) = cancelled_at.filter(|at| *at >= self.from) {
            self.cancellations.push(Cancellation { job: id.to_owned(), at_s: at.0.div_ceil(SECOND_MS) });
        }
        if let Some((after_ms, exit)) = note.first_failure.filter(|_| end == Some(End::Succeeded)) {
            let after_s = after_ms.div_ceil(SECOND_MS);
            self.failures.push(UserFailure { job: id.to_owned(), after_s, attempts: note.failures, exit });
        }
    }

    pub fn finish(mut self) -> Result<Gathered, String> {
        self.lines.sort_by_key(|line| (line.job.submit_ms, !line.running_before, line.id));
        let mut rows = Rows::new("cluster");
        let mut number = 0;
        for line in self.lines {
            number += 1;
            for why in line.changed {
                rows.changed(number, why);
            }
            rows.add(number, Ok(Row::job(line.job)))?;
        }
        for why in self.dropped {
            number += 1;
            rows.add(number, Ok(Row::Dropped(why)))?;
        }
        let mut not_modelled = Vec::new();
        if self.preempted > 0 {
            let what = "attempts were stopped for others or for a drain; a run decides that anew";
            not_modelled.push(format!("{} {what}", self.preempted));
        }
        if self.lost > 0 {
            let what = "attempts were lost to machines; a run loses work only to the outages, and all that an attempt had done";
            not_modelled.push(format!("{} {what}", self.lost));
        }
        Ok(Gathered {
            trace: rows.into_trace(),
            cancellations: self.cancellations,
            failures: self.failures,
            start_ms: median(self.start_ms),
            stop_ms: median(self.stop_ms),
            not_modelled,
        })
    }
}

/// The part of a line that follows from what was asked for.
fn described(id: String, run_ms: u64, expected_ms: Option<u64>, scheduling: Scheduling) -> TraceJob {
    // Of all others `scheduling` tells it.
    let share_milli = match scheduling.groups.as_slice() {
        [group] if group.count == (Count::Nodes { nodes: 1, per_node: 1 }) => group.share.0,
        _ => 1000,
    };
    let models: Vec<Name> = scheduling.groups.first().map_or_else(Vec::new, |group| group.models.clone());
    TraceJob {
        id,
        run_ms,
        requested_ms: expected_ms.unwrap_or(run_ms),
        devices: u32::try_from(scheduling.devices()).unwrap_or(u32::MAX),
        share_milli,
        models,
        account: Some(scheduling.account.clone()),
        scheduling: Some(Box::new(scheduling)),
        ..TraceJob::default()
    }
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

fn recorded(end: Option<End>) -> RecordedEnd {
    match end {
        None => RecordedEnd::Unknown,
        Some(End::Succeeded) => RecordedEnd::Succeeded,
        Some(End::Failed | End::TimedOut) => RecordedEnd::Failed,
        Some(End::Cancelled) => RecordedEnd::Cancelled,
    }
}
