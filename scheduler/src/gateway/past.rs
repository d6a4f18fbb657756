//! What history tells of one job: ended gangs, attempts, and the end.

use crate::history::HistoryStore;
use crate::records::{self, Recorded};
use muster_common::job::{Launch, Scheduling};
use muster_common::{JobId, Name, Time};
use muster_engine::Event;
use muster_engine::command::Principal;
use muster_engine::state::gang::{AttemptRecord, End};
use muster_engine::state::job::{JobRecord, Tally};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// One job's past, by ordinal where it concerns a gang.
#[derive(Debug, Clone, Default)]
pub struct Past {
    /// Everything that history tells was read. Else attempts and ends are missing, and what is not here may have been.
    pub whole: bool,
    pub ended: Option<Ended>,
    pub gangs: BTreeMap<u32, GangPast>,
    /// Who cancelled the whole job, and why.
    pub cancelled: Option<(Principal, String)>,
    /// The oldest first.
    pub edits: Vec<Edited>,
}

/// One edit of the job.
#[derive(Debug, Clone)]
pub struct Edited {
    pub at: Time,
    /// The revision it made.
    pub revision: u32,
    pub by: Principal,
    pub renamed: Option<(Name, Name)>,
    pub before: Arc<Scheduling>,
    pub after: Arc<Scheduling>,
    pub launch: bool,
}

/// A job that has left State.
#[derive(Debug, Clone)]
pub struct Ended {
    pub record: Arc<JobRecord>,
    pub scheduling: Arc<Scheduling>,
    pub launch: Arc<Launch>,
    pub end: End,
    pub tally: Tally,
    pub at: Time,
}

#[derive(Debug, Clone, Default)]
pub struct GangPast {
    /// The oldest first.
    pub attempts: Vec<Arc<AttemptRecord>>,
    pub end: Option<(End, Time)>,
    /// When it was queued again for the last time.
    pub queued_at: Option<Time>,
    /// Why it was cancelled by itself.
    pub cancelled: Option<(Principal, String)>,
}

impl Past {
    /// From everything that history tells of the job.
    pub fn of(history: &HistoryStore, job: JobId) -> io::Result<Self> {
        // Before anything is read: what is lacking may come in between.
        let gaps = history.gaps()?;
        let (mut past, mut last) = (Self::default(), 0);
        records::visit_job(history, job, |recorded| {
            last = recorded.index;
            past.take(recorded);
        })?;
        let to = if past.ended.is_some() { last } else { u64::MAX };
        past.whole = !gaps.iter().any(|gap| gap.to >= job.0 && gap.from <= to);
        Ok(past)
    }

    /// From everything that happened to the job, in order.
    pub fn gather(events: &[Recorded]) -> Self {
        let mut past = Self { whole: true, ..Self::default() };
        events.iter().for_each(|recorded| past.take(recorded));
        past
    }

    fn take(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::AttemptEnded { gang, record } => self.gang(gang.ordinal).attempts.push(record.clone()),
            Event::GangQueued { gang, .. } => self.gang(gang.ordinal).queued_at = Some(recorded.at),
            Event::GangEnded { gang, end } => self.gang(gang.ordinal).end = Some((*end, recorded.at)),
            Event::JobCancelled { ordinal: Some(ordinal), by, reason, .. } => {
                self.gang(*ordinal).cancelled = Some((by.clone(), reason.clone()));
            }
            Event::JobCancelled { ordinal: None, by, reason, .. } => {
                self.cancelled = Some((by.clone(), reason.clone()));
            }
            Event::JobEdited { revision, by, renamed, before, after, launch, .. } => self.edits.push(Edited {
                at: recorded.at,
                revision: *revision,
                by: by.clone(),
                renamed: renamed.clone(),
                before: before.clone(),
                after: after.clone(),
                launch: *launch,
            }),
            Event::JobEnded { record, scheduling, launch, end, tally, at } => {
                self.ended = Some(Ended {
                    record: record.clone(),
                    scheduling: scheduling.clone(),
                    launch: launch.clone(),
                    end: *end,
                    tally: *tally,
                    at: *at,
                });
            }
            _ => {}
        }
    }

    fn gang(&mut self, ordinal: u32) -> &mut GangPast {
        self.gangs.entry(ordinal).or_default()
    }

    /// The job of an event that says a job ended, for lists that need no more of it.
    pub fn of_end(event: &Event) -> Option<(JobId, Self)> {
        let Event::JobEnded { record, .. } = event else { return None };
        let recorded = Recorded { index: 0, ordinal: 0, at: Time::ZERO, event: event.clone() };
        Some((record.id, Self { whole: false, ..Self::gather(&[recorded]) }))
    }
}
