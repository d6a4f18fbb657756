//! Which jobs are arrays, for texts about jobs that State has forgotten.

use super::ended::end_of;
use super::{Inner, errors};
use crate::history::HistoryStore;
use crate::records::{self, Recorded, job_of};
use muster_common::JobId;
use muster_engine::{Event, State};
use muster_proto::convert::error::ErrorInfo;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Jobs remembered; beyond them everything is forgotten and asked again.
const JOBS_MAX: usize = 10_000;
/// Jobs that history is asked about under one reader's permit.
const ASKED_AT_ONCE: usize = 256;
/// Records of a job looked at in the entry that made it.
const FIRST_RECORDS: usize = 16;

#[derive(Default)]
pub struct Arrays(BTreeMap<JobId, bool>);

impl Arrays {
    /// Is the event's job an array? `false` of those never met.
    pub fn has(&self, event: &Event) -> bool {
        job_of(event).and_then(|job| self.0.get(&job)).copied().unwrap_or(false)
    }

    /// Takes in what State and the events themselves tell. Returns the jobs that neither knows.
    pub fn learn(&mut self, state: &State, events: &[Recorded]) -> BTreeSet<JobId> {
        if self.0.len() > JOBS_MAX {
            self.0.clear();
        }
        let mut unknown = BTreeSet::new();
        for recorded in events {
            let Some(job) = job_of(&recorded.event) else { continue };
            let told =
                told(&recorded.event).or_else(|| state.job(job).map(|record| state.scheduling(record).array.is_some()));
            match told {
                Some(array) => drop(self.0.insert(job, array)),
                None if self.0.contains_key(&job) => {}
                None => {
                    unknown.insert(job);
                }
            }
        }
        unknown.retain(|job| !self.0.contains_key(job));
        unknown
    }

    /// As [`Arrays::learn`], and asks history about the rest. Gives the events back.
    pub async fn meet(
        &mut self,
        inner: &Arc<Inner>,
        state: &Arc<State>,
        events: Vec<Recorded>,
    ) -> Result<Vec<Recorded>, ErrorInfo> {
        let (mut arrays, state) = (std::mem::take(self), state.clone());
        let learnt = inner.reading(move |inner| {
            let mut unknown = arrays.learn(&state, &events);
            arrays.ask(&inner.ctx.history, &mut unknown)?;
            Ok((arrays, unknown, events))
        });
        let (mut arrays, mut unknown, events) = learnt.await?;
        while !unknown.is_empty() {
            let asked = inner.reading(move |inner| {
                arrays.ask(&inner.ctx.history, &mut unknown)?;
                Ok((arrays, unknown))
            });
            (arrays, unknown) = asked.await?;
        }
        *self = arrays;
        Ok(events)
    }

    /// Asks history about some of the jobs, and takes them out.
    fn ask(&mut self, history: &HistoryStore, unknown: &mut BTreeSet<JobId>) -> Result<(), ErrorInfo> {
        for _ in 0..ASKED_AT_ONCE {
            let Some(job) = unknown.pop_first() else { break };
            self.0.insert(job, recall(history, job)?);
        }
        Ok(())
    }
}

/// What one event says of it.
fn told(event: &Event) -> Option<bool> {
    match event {
        Event::JobEnded { scheduling, .. } => Some(scheduling.array.is_some()),
        Event::JobSubmitted { gangs, .. } if *gangs > 1 => Some(true),
        _ => None,
    }
}

/// By the job's end, else by its submission, which is in the entry that made it: a large array has a million records in
/// between.
fn recall(history: &HistoryStore, job: JobId) -> Result<bool, ErrorInfo> {
    if let Some(ended) = end_of(history, job)?.and_then(|past| past.ended) {
        return Ok(ended.scheduling.array.is_some());
    }
    let behind = (job.0.saturating_add(1), 0);
    for (index, record) in history.job_back(job.0, behind, FIRST_RECORDS).map_err(errors::history)? {
        let recorded = records::decode(index, &record).map_err(errors::history)?;
        if let Some(array) = told(&recorded.event) {
            return Ok(array);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::READERS_MAX;
    use crate::gateway::tests::fixture::{Cluster, principal};
    use crate::gateway::tests::server::{Server, within};
    use muster_engine::Command;
    use muster_engine::command::Cancel;

    const ARRAY: &str = r#"{"name":"sweep","array":{"range":"0-99"},"gang":{"run":"x"}}"#;
    const PLAIN: &str = r#"{"name":"train","gang":{"run":"x"}}"#;

    /// Ends the elements of a new array one by one.
    fn end_each(cluster: &mut Cluster) -> JobId {
        let job = cluster.submit("alice", ARRAY);
        for ordinal in 0..100 {
            let by = principal("alice");
            cluster.apply(Command::Cancel(Cancel { job, ordinal: Some(ordinal), reason: String::new(), by }));
        }
        job
    }

    #[test]
    fn of_a_forgotten_job_history_reads_only_what_tells_whether_it_was_an_array() {
        let mut cluster = Cluster::new(0, 0);
        let (array, plain) = (end_each(&mut cluster), cluster.end("alice", PLAIN));
        let (rows, history) = cluster.history_on_rows();
        assert_eq!((recall(&history, array).unwrap(), recall(&history, plain).unwrap()), (true, false));
        assert_eq!(rows.read_back(), 2, "the end of each tells");

        // As when the end is in a gap.
        cluster.events.retain(|recorded| !matches!(recorded.event, Event::JobEnded { .. }));
        let (rows, history) = cluster.history_on_rows();
        assert!(recall(&history, array).unwrap());
        assert!(rows.read_back() < 20, "{} rows read", rows.read_back());
        assert!(!recall(&history, JobId(u64::MAX)).unwrap(), "of a job nobody has had");
    }

    #[test]
    fn many_jobs_that_nobody_knows_are_asked_about_a_few_at_a_time() {
        let history = HistoryStore::open_memory(Default::default()).unwrap();
        let mut unknown: BTreeSet<JobId> = (1..=ASKED_AT_ONCE as u64 + 10).map(JobId).collect();
        let mut arrays = Arrays::default();
        arrays.ask(&history, &mut unknown).unwrap();
        assert_eq!((arrays.0.len(), unknown.len()), (ASKED_AT_ONCE, 10));
        arrays.ask(&history, &mut unknown).unwrap();
        assert_eq!((arrays.0.len(), unknown.len()), (ASKED_AT_ONCE + 10, 0));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn history_is_asked_about_arrays_under_a_readers_permit() {
        let server = Server::start(0).await;
        let mut cluster = Cluster::new(0, 0);
        let array = end_each(&mut cluster);
        let (ends, events): (Vec<Recorded>, Vec<Recorded>) =
            cluster.events.iter().cloned().partition(|recorded| told(&recorded.event).is_some());
        let ends: Vec<Event> = ends.into_iter().map(|recorded| recorded.event).collect();
        server.ctx.history.append(1_000_000, &records::encode(cluster.at, &ends).unwrap()).unwrap();
        // What is done aside would be done at once, and the first poll would have the answer.
        muster_runtime::aside::at_once_on_this_thread();
        let inner = &server.gateway.inner;
        let others = inner.readers.acquire_many(READERS_MAX as u32).await.unwrap();
        let (mut arrays, state) = (Arrays::default(), Arc::new(cluster.state.clone()));
        {
            let mut met = std::pin::pin!(arrays.meet(inner, &state, events.clone()));
            assert!(futures::poll!(&mut met).is_pending(), "asked without a reader's permit");
            drop(others);
            assert!(within("what history tells", met).await.unwrap() == events, "other events came back");
        }
        let of_array: Vec<&Recorded> = events.iter().filter(|one| job_of(&one.event) == Some(array)).collect();
        assert!(of_array.len() >= 100 && of_array.iter().all(|one| arrays.has(&one.event)));
    }
}
