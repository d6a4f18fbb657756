//! Gangs: what is known of one element, live or ended.

use super::words::{cause_text, cause_word, plain};
use super::{attempt, exit};
use crate::gateway::subject::Subject;
use muster_common::Time;
use muster_engine::state::gang::{Attempt, AttemptRecord, Cause, End, GangState};
use muster_proto::client as pb;
use std::sync::Arc;

/// Most gangs of one job that are shown.
pub const GANGS_MAX: usize = 1000;

/// What a gang comes down to in one line.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    pub state: &'static str,
    pub end: Option<End>,
    /// The one now, or the last; 0 before the first.
    pub attempt: u32,
    pub started_at: Option<Time>,
    pub ended_at: Option<Time>,
    pub cause: String,
    pub cause_text: String,
    pub exit_code: Option<i32>,
    pub nodes: Vec<String>,
}

/// One line about a gang of the job.
pub fn facts(subject: &Subject, ordinal: u32) -> Facts {
    let state = &subject.state;
    if let Some(gang) = subject.state.gang(subject.gang_id(ordinal)).filter(|_| subject.end.is_none()) {
        let cause = match &gang.state {
            GangState::Stopping(_, cause) => Some(&**cause),
            _ => None,
        };
        return Facts {
            state: gang.state.word(),
            attempt: gang.attempt.0,
            started_at: gang.current().and_then(|attempt| attempt.started_at),
            cause: cause.map(cause_word).unwrap_or_default().into(),
            cause_text: cause.map(|cause| plain(&cause_text(state, cause))).unwrap_or_default(),
            nodes: gang.current().map(|current: &Attempt| attempt::nodes(state, current)).unwrap_or_default(),
            ..Facts::default()
        };
    }
    if subject.end.is_none() && subject.record.unstarted.contains(ordinal) {
        return Facts { state: "QUEUED", ..Facts::default() };
    }
    ended(subject, ordinal)
}

fn ended(subject: &Subject, ordinal: u32) -> Facts {
    let (end, at) = end_of(subject, ordinal);
    let attempts = subject.ended_attempts(ordinal);
    let last: Option<&Arc<AttemptRecord>> = attempts.last();
    let (cause, cause_text) = end_cause(subject, ordinal, end, last.map(|record| &**record));
    Facts {
        state: end.word(),
        end: Some(end),
        attempt: last.map_or(0, |record| record.attempt.number.0),
        started_at: last.and_then(|record| record.attempt.started_at),
        ended_at: at,
        cause,
        cause_text,
        exit_code: exit::of_gang(end, last.map(|record| &**record)),
        nodes: Vec::new(),
    }
}

/// How and when a gang ended. One that never had a record left no event: it was given up with the job.
pub fn end_of(subject: &Subject, ordinal: u32) -> (End, Option<Time>) {
    let told = subject.past.gangs.get(&ordinal);
    if let Some((end, at)) = told.and_then(|gang| gang.end) {
        return (end, Some(at));
    }
    let job_at = subject.end.map(|(_, at)| at);
    if told.is_some_and(|gang| gang.cancelled.is_some()) || subject.past.cancelled.is_some() {
        return (End::Cancelled, job_at);
    }
    let timed_out = subject.past.gangs.values().filter(|gang| gang.end.is_some_and(|end| end.0 == End::TimedOut));
    let given_up = subject.tally().timed_out as usize > timed_out.count();
    (if given_up { End::TimedOut } else { End::Cancelled }, job_at)
}

/// The cause of a gang's end, which need not be the cause of its last attempt's.
fn end_cause(subject: &Subject, ordinal: u32, end: End, last: Option<&AttemptRecord>) -> (String, String) {
    let attempts_own = last.filter(|record| match end {
        End::Cancelled => matches!(record.cause, Cause::Cancelled { .. }),
        End::TimedOut => record.cause == Cause::TimeLimit,
        End::Succeeded | End::Failed => true,
    });
    if let Some(record) = attempts_own {
        let text = plain(&cause_text(&subject.state, &record.cause));
        return (cause_word(&record.cause).into(), with_budget(text, end, &record.cause));
    }
    match end {
        End::TimedOut => ("wait_limit".into(), "it waited longer than its limit".into()),
        End::Cancelled => {
            let own = subject.past.gangs.get(&ordinal).and_then(|gang| gang.cancelled.as_ref());
            let text = match own.or(subject.past.cancelled.as_ref()) {
                Some((by, reason)) if reason.is_empty() => format!("cancelled by {}", by.0),
                Some((by, reason)) => format!("cancelled by {}: {reason}", by.0),
                // Who cancelled it would be there.
                None if !subject.past.whole => return Default::default(),
                None => "given up after other elements failed".into(),
            };
            ("cancelled".into(), plain(&text))
        }
        End::Succeeded | End::Failed => (String::new(), String::new()),
    }
}

/// A fault that is not the job's ends it only when its retries are used up.
fn with_budget(text: String, end: End, cause: &Cause) -> String {
    use muster_engine::state::gang::Blame;
    if end == End::Failed && cause.blame() == Blame::Infra {
        return format!("{text}; its retries after such faults are used up");
    }
    text
}

/// One gang with its attempts; `only` picks one of them.
pub fn render(subject: &Subject, ordinal: u32, only: Option<u32>) -> pb::Gang {
    let facts = facts(subject, ordinal);
    let state = &subject.state;
    let live = state.gang(subject.gang_id(ordinal)).filter(|_| subject.end.is_none());
    let ended = subject.ended_attempts(ordinal);
    let mut attempts: Vec<pb::Attempt> = ended.iter().map(|record| attempt::ended(state, record)).collect();
    attempts.extend(live.and_then(|gang| attempt::current(state, &gang.state, subject.now)));
    attempts.retain(|attempt| only.is_none_or(|number| attempt.number == number));
    let requeued = subject.past.gangs.get(&ordinal).and_then(|gang| gang.queued_at);
    let queued_at = live.map(|gang| gang.queued_at).or(requeued).unwrap_or(subject.record.submitted_at);
    let not_before = match live.map(|gang| &gang.state) {
        Some(GangState::Queued { not_before }) if *not_before > subject.now => Some(not_before.0),
        _ => None,
    };
    let excluded = live.map_or(&[][..], |gang| &gang.excluded);
    pb::Gang {
        ordinal,
        state: facts.state.into(),
        attempt: facts.attempt,
        queued_at_ms: queued_at.0,
        not_before_ms: not_before,
        infra_retries_used: live.map_or_else(|| used(&ended, true), |gang| gang.infra_used),
        app_retries_used: live.map_or_else(|| used(&ended, false), |gang| gang.app_used),
        preemptions: live.map_or_else(|| preempted(&ended), |gang| gang.preempted),
        excluded_nodes: excluded.iter().map(|node| super::words::node_name(state, *node)).collect(),
        attempts,
    }
}

/// Device-milliseconds of its ended attempts and of the one now.
pub fn charged_ms(subject: &Subject, ordinal: u32) -> u64 {
    let ended = subject.ended_attempts(ordinal);
    let last = ended.last().map_or(0, |record| record.attempt.number.0);
    let live = subject.state.gang(subject.gang_id(ordinal)).filter(|_| subject.end.is_none());
    // History may be a moment ahead of this view, and know its end already.
    let current = live.and_then(|gang| gang.current()).filter(|attempt| attempt.number.0 > last);
    let held = current.map_or(0, |attempt| attempt::held_ms(attempt, subject.now));
    ended.iter().map(|record| record.device_ms).fold(held, u64::saturating_add)
}

/// For how long its ended attempts ran.
pub fn ran_ms(subject: &Subject, ordinal: u32) -> u64 {
    let live = subject.state.gang(subject.gang_id(ordinal)).filter(|_| subject.end.is_none());
    let current = live.and_then(|gang| gang.current()).map_or(u32::MAX, |attempt| attempt.number.0);
    let ended = subject.ended_attempts(ordinal).into_iter().filter(|record| record.attempt.number.0 < current);
    ended.filter_map(|record| ran(&record)).map(|(from, until)| until.since_ms(from)).fold(0, u64::saturating_add)
}

/// From when until when an attempt ran, if it ever started.
pub fn ran(record: &AttemptRecord) -> Option<(Time, Time)> {
    record.attempt.started_at.map(|started| (started, record.ended_at))
}

/// Retries after faults of one kind: every such attempt but one that was the last.
fn used(ended: &[Arc<AttemptRecord>], infra: bool) -> u32 {
    use muster_engine::state::gang::Blame;
    let wanted = if infra { Blame::Infra } else { Blame::App };
    let retried = ended.split_last().map_or(&[][..], |(_, rest)| rest);
    retried.iter().filter(|record| record.cause.blame() == wanted).count() as u32
}

fn preempted(ended: &[Arc<AttemptRecord>]) -> u32 {
    let moved = |record: &&Arc<AttemptRecord>| matches!(record.cause, Cause::Preempted { .. } | Cause::Drained { .. });
    ended.iter().filter(moved).count() as u32
}
