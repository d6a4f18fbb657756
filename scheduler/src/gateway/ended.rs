//! Ended jobs in history, from the newest back.

use super::errors;
use super::past::Past;
use super::roles::Caller;
use crate::history::{HistoryStore, Place};
use crate::records;
use muster_common::{JobId, Name};
use muster_proto::convert::error::ErrorInfo;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Records held at a time; a page is bounded by bytes too.
const PAGE: usize = 512;
/// The end of a job is among the last so many records of it.
const END_WITHIN: usize = 16;

/// How far back one call looks, whatever it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Depth {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Depth {
    /// Of a list: what is further back is on its next page.
    pub(super) const LIST: Self = Self { records: 200_000, bytes: 256 << 20 };
    /// Of a name, which any call may give: what ended longer ago is found by its id.
    pub(super) const NAME: Self = Self { records: 20_000, bytes: 32 << 20 };
}

/// Shows each end before a place, the newest first, until `visit` breaks. Returns where to go on
/// when it broke, or when so much was looked at that this call had better end.
pub(super) fn newest_first(
    history: &HistoryStore,
    before: Place,
    depth: Depth,
    mut visit: impl FnMut(JobId, Past) -> Result<ControlFlow<()>, ErrorInfo>,
) -> Result<Option<Place>, ErrorInfo> {
    let (mut at, mut looked, mut bytes) = (before, 0, 0);
    while looked < depth.records && bytes < depth.bytes {
        let page = history.read_back(at, PAGE.min(depth.records - looked)).map_err(errors::history)?;
        if page.is_empty() {
            return Ok(None);
        }
        for (index, record) in page {
            at = (index, record.ordinal);
            looked += 1;
            bytes += record.bytes.len();
            let recorded = records::decode(index, &record).map_err(errors::history)?;
            let Some((id, past)) = Past::of_end(&recorded.event) else { continue };
            if visit(id, past)?.is_break() {
                return Ok(Some((index, record.ordinal + 1)));
            }
        }
    }
    Ok(Some(at))
}

/// How a job ended, without what its gangs tell. `None`: history does not say that it has.
pub(super) fn end_of(history: &HistoryStore, job: JobId) -> Result<Option<Past>, ErrorInfo> {
    // Mostly the very last that is told of it.
    for most in [1, END_WITHIN] {
        for (index, record) in history.job_back(job.0, (u64::MAX, 0), most).map_err(errors::history)? {
            let recorded = records::decode(index, &record).map_err(errors::history)?;
            if let Some((_, past)) = Past::of_end(&recorded.event) {
                return Ok(Some(past));
            }
        }
    }
    Ok(None)
}

/// The jobs that ended last under a name.
#[derive(Debug, Default)]
pub(super) struct Latest {
    /// The caller's own.
    pub(super) own: Option<JobId>,
    pub(super) others: Option<JobId>,
}

/// Those of each name, among the jobs that ended lately: one look back for all of them.
pub(super) fn newest_named(
    history: &HistoryStore,
    before: Place,
    caller: &Caller,
    names: &BTreeSet<Name>,
) -> Result<BTreeMap<Name, Latest>, ErrorInfo> {
    let mut found: BTreeMap<Name, Latest> = BTreeMap::new();
    // Another's job is no end of the search: the caller's own may be further back.
    let mut open = names.len();
    if open == 0 {
        return Ok(found);
    }
    newest_first(history, before, Depth::NAME, |id, past| {
        let record = past.ended.map(|end| end.record).filter(|record| names.contains(&record.name));
        let Some(record) = record else { return Ok(ControlFlow::Continue(())) };
        let latest = found.entry(record.name.clone()).or_default();
        if !caller.owns(&record.principal) {
            latest.others.get_or_insert(id);
        } else if latest.own.is_none() {
            latest.own = Some(id);
            open -= 1;
        }
        Ok(if open == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::fixture::Cluster;

    #[test]
    fn one_call_looks_back_only_so_far_and_the_next_goes_on_where_it_ended() {
        let mut cluster = Cluster::new(0, 0);
        let mut ended: Vec<JobId> =
            (0..20).map(|n| cluster.end("alice", &format!(r#"{{"name":"job-{n}","gang":{{"run":"x"}}}}"#))).collect();
        ended.reverse();
        let history = cluster.history();
        let record_bytes = cluster.history().read_back((u64::MAX, 0), 1).unwrap()[0].1.bytes.len();
        let few = Depth { records: 7, bytes: usize::MAX };
        let small = Depth { records: usize::MAX, bytes: record_bytes };
        for (depth, most) in [(few, 7), (small, PAGE), (Depth::LIST, 20)] {
            let (mut seen, mut before) = (Vec::new(), Some((u64::MAX, 0)));
            while let Some(from) = before {
                let earlier = seen.len();
                before = newest_first(&history, from, depth, |id, _| {
                    seen.push(id);
                    Ok(ControlFlow::Continue(()))
                })
                .unwrap();
                assert!(seen.len() - earlier <= most, "{depth:?}: {seen:?}");
            }
            assert_eq!(seen, ended, "{depth:?}");
        }
    }
}
