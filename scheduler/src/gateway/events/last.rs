//! The last events that match: looked for from the newest back, a page at a time, so that nobody who wants to read waits
//! for all of it, and only as far as a list looks.

use super::{Filter, Sender};
use crate::gateway::ended::Depth;
use crate::gateway::{Inner, errors};
use crate::history::{Gap, HistoryStore, Place};
use crate::records::{self, Recorded};
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use std::sync::Arc;

/// Records looked at under one reader's permit; a page is bounded by bytes too.
const PAGE: usize = 2_000;

/// A look back, and how far it came.
pub(super) struct Search {
    filter: Filter,
    limit: usize,
    depth: Depth,
    applied: u64,
    /// What history lacked before anything was read of it: it may be fetched meanwhile.
    gaps: Option<Vec<Gap>>,
    /// All from here on has been looked at.
    at: Place,
    looked: usize,
    bytes: usize,
    /// The newest first.
    found: Vec<Recorded>,
    /// There is nothing further back.
    over: bool,
}

impl Search {
    /// For at most `limit` events of the entries through `applied`.
    pub(super) fn new(filter: Filter, limit: usize, applied: u64, depth: Depth) -> Self {
        let at = (applied.saturating_add(1), 0);
        Self { filter, limit, depth, applied, gaps: None, at, looked: 0, bytes: 0, found: Vec::new(), over: false }
    }

    fn is_done(&self) -> bool {
        self.over || self.found.len() >= self.limit || self.is_too_far()
    }

    fn is_too_far(&self) -> bool {
        self.looked >= self.depth.records || self.bytes >= self.depth.bytes
    }

    /// Looks at one page more.
    fn step(&mut self, history: &HistoryStore) -> Result<(), ErrorInfo> {
        if self.gaps.is_none() {
            self.gaps = Some(history.gaps().map_err(errors::history)?);
        }
        let most = PAGE.min(self.depth.records - self.looked);
        let page = match &self.filter.job {
            Some((job, _)) => history.job_back(job.0, self.at, most),
            None => history.read_back(self.at, most),
        };
        let page = page.map_err(errors::history)?;
        self.over = page.is_empty();
        for (index, record) in page {
            self.at = (index, record.ordinal);
            self.looked += 1;
            self.bytes += record.bytes.len();
            let recorded = records::decode(index, &record).map_err(errors::history)?;
            if self.filter.takes(&recorded.event) {
                self.found.push(recorded);
            }
            if self.found.len() >= self.limit {
                break;
            }
        }
        Ok(())
    }

    /// What was found, the oldest first, and the error to end with where more may be further back.
    fn told(mut self, history: &HistoryStore) -> Result<Found, ErrorInfo> {
        // What is told has no hole in it, nor behind it.
        let looked_from = match &self.filter.job {
            _ if !self.over => self.at.0,
            Some((job, _)) => job.0,
            None => 0,
        };
        let first = self.found.last().map_or(looked_from, |first| first.index);
        let from = first.max(history.floor().map_err(errors::history)?);
        errors::check_gaps(self.gaps.as_deref().unwrap_or_default(), from, self.applied)?;
        errors::check_history(history, from, self.applied)?;
        let cut = (!self.over && self.found.len() < self.limit).then(|| cut(self.looked, self.at.0));
        self.found.reverse();
        Ok(Found { events: self.found, cut })
    }
}

/// Nothing is left out without a word.
fn cut(looked: usize, index: u64) -> ErrorInfo {
    let message = format!(
        "only the last {looked} events were looked through, back to index {index}; there may be more that match before"
    );
    ErrorInfo::new(ErrorCode::LimitReached, message)
        .hint("look from the oldest on: `muster events --from 1`, or from another index, with the same filter")
}

/// What a look back found.
pub(super) struct Found {
    /// The oldest first.
    pub(super) events: Vec<Recorded>,
    /// Set when it did not look at everything.
    pub(super) cut: Option<ErrorInfo>,
}

/// Looks until enough is found, nothing is left, or it is too far. `None`: the reader has left.
pub(super) async fn look_back(
    inner: &Arc<Inner>,
    sender: &Sender,
    mut search: Search,
) -> Result<Option<Found>, ErrorInfo> {
    while !search.is_done() {
        if sender.is_closed() {
            return Ok(None);
        }
        let step = inner.reading(move |inner| {
            search.step(&inner.ctx.history)?;
            Ok(search)
        });
        search = step.await?;
    }
    inner.reading(move |inner| search.told(&inner.ctx.history).map(Some)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::READERS_MAX;
    use crate::gateway::tests::fixture::Cluster;
    use crate::gateway::tests::server::{Server, within};
    use muster_common::JobId;
    use tokio::sync::mpsc;

    const JOB: &str = r#"{"name":"train","gang":{"run":"x"}}"#;

    fn of(job: Option<JobId>, kinds: &[&str]) -> Filter {
        let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        Filter { kinds, job: job.map(|job| (job, None)), node: None }
    }

    fn looked(history: &HistoryStore, mut search: Search) -> Found {
        while !search.is_done() {
            search.step(history).unwrap();
        }
        search.told(history).unwrap()
    }

    #[test]
    fn of_one_job_only_its_own_records_are_read_however_long_history_is() {
        let mut cluster = Cluster::new(0, 0);
        let job = cluster.end("alice", JOB);
        for _ in 0..200 {
            cluster.end("bob", JOB);
        }
        let own: Vec<Recorded> =
            cluster.events.iter().filter(|one| records::job_of(&one.event) == Some(job)).cloned().collect();
        let (rows, history) = cluster.history_on_rows();
        let search = Search::new(of(Some(job), &[]), 1000, cluster.state.applied_index(), Depth::LIST);
        let found = looked(&history, search);
        assert!(found.events == own && own.len() >= 2, "{} of {}", found.events.len(), own.len());
        assert!(found.cut.is_none(), "nothing was left out");
        assert_eq!(rows.read_back(), own.len() as u64);
    }

    #[test]
    fn the_last_events_that_match_come_in_order_and_none_of_later_entries() {
        let mut cluster = Cluster::new(0, 0);
        let jobs: Vec<JobId> = (0..20).map(|_| cluster.end("alice", JOB)).collect();
        let applied = cluster.state.applied_index();
        cluster.end("alice", JOB);
        let history = cluster.history();
        let search = Search::new(of(None, &["job_ended"]), 3, applied, Depth::LIST);
        let found = looked(&history, search);
        let ended: Vec<JobId> = found.events.iter().filter_map(|one| records::job_of(&one.event)).collect();
        assert_eq!(ended, jobs[17..]);
        assert!(found.cut.is_none(), "all that was asked for is told");
    }

    #[test]
    fn a_look_back_ends_where_a_list_would_and_says_so() {
        let mut cluster = Cluster::new(0, 0);
        let jobs: Vec<JobId> = (0..20).map(|_| cluster.end("alice", JOB)).collect();
        let (history, applied) = (cluster.history(), cluster.state.applied_index());
        let few = Depth { records: 10, bytes: usize::MAX };
        let small = Depth { records: usize::MAX, bytes: 1 };
        for (depth, job) in [(few, None), (small, None), (small, Some(jobs[0]))] {
            // Of no kind that there is here.
            let kinds: &[&str] = &["node_silent"];
            let mut search = Search::new(of(job, kinds), 1000, applied, depth);
            search.step(&history).unwrap();
            assert!(search.is_done(), "{depth:?} goes on");
            let found = search.told(&history).unwrap();
            assert_eq!((found.events.len(), found.cut.map(|cut| cut.code)), (0, Some(ErrorCode::LimitReached)));
        }
        let found = looked(&history, Search::new(of(None, &["node_silent"]), 1000, applied, Depth::LIST));
        assert_eq!((found.events.len(), found.cut.map(|cut| cut.code)), (0, None), "all was looked at");
    }

    #[test]
    fn what_history_lacks_behind_the_first_event_told_is_an_error_even_if_it_is_fetched_meanwhile() {
        let mut cluster = Cluster::new(0, 0);
        cluster.end("alice", JOB);
        let (history, applied) = (cluster.history(), cluster.state.applied_index());
        let search = || Search::new(of(None, &[]), 1000, applied + 5, Depth::LIST);
        assert!(!looked(&history, search()).events.is_empty());
        history.note_restore(applied + 5).unwrap();
        let mut with_hole = search();
        with_hole.step(&history).unwrap();
        for gap in history.gaps().unwrap() {
            history.fill(gap, gap.to, &[]).unwrap();
        }
        assert_eq!(with_hole.told(&history).err().unwrap().code, ErrorCode::Unavailable);
        assert!(!looked(&history, search()).events.is_empty(), "whole again");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_has_left_is_not_looked_for_any_more() {
        let server = Server::start(0).await;
        let inner = &server.gateway.inner;
        // With these no step is ever made.
        let _others = inner.readers.acquire_many(READERS_MAX as u32).await.unwrap();
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        let search = Search::new(of(None, &[]), 1000, server.ctx.view().applied_index(), Depth::LIST);
        assert!(within("an end", look_back(inner, &sender, search)).await.unwrap().is_none());
    }
}
