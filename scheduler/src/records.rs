//! Events as history keeps them.

use crate::history::{HistoryStore, Record};
use muster_common::{JobId, Time};
use muster_engine::Event;
use muster_engine::state::FORMAT;
use serde::{Deserialize, Serialize};
use std::io;

/// One event with its place: an event's id is (index, ordinal).
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub index: u64,
    pub ordinal: u32,
    pub at: Time,
    pub event: Event,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    at: Time,
    event: Event,
}

/// The job an event is about, for the index by job.
pub fn job_of(event: &Event) -> Option<JobId> {
    match event {
        Event::JobSubmitted { job, .. }
        | Event::JobHeld { job, .. }
        | Event::JobCancelled { job, .. }
        | Event::DependencyBroken { job, .. }
        | Event::JobEdited { job, .. } => Some(*job),
        Event::GangPlaced { gang, .. }
        | Event::GangStarted { gang, .. }
        | Event::RankExited { gang, .. }
        | Event::GangStopping { gang, .. }
        | Event::AttemptEnded { gang, .. }
        | Event::GangQueued { gang, .. }
        | Event::GangEnded { gang, .. }
        | Event::Reserved { gang, .. }
        | Event::NodesRequested { gang, .. }
        | Event::Unreserved { gang } => Some(gang.job),
        Event::JobEnded { record, .. } => Some(record.id),
        _ => None,
    }
}

/// The records of one entry's events.
pub fn encode(at: Time, events: &[Event]) -> io::Result<Vec<Record>> {
    events.iter().enumerate().map(|(ordinal, event)| encode_one(at, ordinal as u32, event)).collect()
}

fn encode_one(at: Time, ordinal: u32, event: &Event) -> io::Result<Record> {
    let stored = Stored { at, event: event.clone() };
    let bytes = postcard::to_stdvec(&stored).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Record { ordinal, kind: FORMAT, job: job_of(event).map(|job| job.0), bytes: bytes.into() })
}

/// Reads one record.
///
/// # Errors
/// A format or content this version does not know.
pub fn decode(index: u64, record: &Record) -> io::Result<Recorded> {
    if record.kind != FORMAT {
        return Err(io::Error::other(format!("history has a record of format {} at index {index}", record.kind)));
    }
    let Stored { at, event } = postcard::from_bytes(&record.bytes)
        .map_err(|error| io::Error::other(format!("history at index {index}: {error}")))?;
    Ok(Recorded { index, ordinal: record.ordinal, at, event })
}

/// Shows everything that happened to a job, in order.
pub fn visit_job(history: &HistoryStore, job: JobId, mut visit: impl FnMut(&Recorded)) -> io::Result<()> {
    history.visit_job(job.0, |index, record| {
        visit(&decode(index, record)?);
        Ok(())
    })
}

/// Events from an index on, at most `limit`.
pub fn range(history: &HistoryStore, from_index: u64, limit: usize) -> io::Result<Vec<Recorded>> {
    history.read_range(from_index, limit)?.iter().map(|(index, record)| decode(*index, record)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::fixture::{Cluster, START};
    use muster_common::GangId;
    use muster_engine::command::Exit;
    use muster_engine::state::gang::{AttemptRecord, Cause};
    use std::sync::Arc;

    /// What cannot be kept stops every server, and again whenever one is started.
    #[test]
    fn the_end_of_an_attempt_of_two_million_ranks_is_kept() {
        let mut cluster = Cluster::new(1, 1);
        let job = cluster.submit("alice", r#"{"gang":{"nodes":1,"gpus_per_node":1,"run":"x"}}"#);
        let gang = GangId::new(job, 0);
        cluster.start(gang);
        let mut attempt = cluster.state.gang(gang).unwrap().current().unwrap().clone();
        attempt.parts[0].exits = vec![Some(Exit::Signal(15)); 1024];
        attempt.parts = vec![attempt.parts.remove(0); 2048];
        let record = Arc::new(AttemptRecord { attempt, cause: Cause::Completed, ended_at: START, device_ms: 0 });
        let event = Event::AttemptEnded { gang, record };
        let history = cluster.history();
        let index = cluster.state.applied_index() + 1;
        history.append(index, &encode(START, std::slice::from_ref(&event)).unwrap()).unwrap();
        let page = history.page(index, index, 1).unwrap().unwrap();
        assert!(decode(index, &page.records[0].1).unwrap().event == event, "it reads back as another");
    }
}
