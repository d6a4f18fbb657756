//! Ended jobs in history, from the newest back.

use super::errors;
use super::past::Past;
use crate::history::HistoryStore;
use crate::records::{self, Recorded};
use muster_common::{JobId, Name};
use muster_proto::convert::error::ErrorInfo;
use std::ops::ControlFlow;

/// Log index, and the place among the entry's events: one entry may end many jobs.
pub(super) type EventId = (u64, u32);

/// Log entries looked at in one step back.
const STEP: u64 = 4096;
/// Records looked at before a reader gives up or goes on with another page.
const RECORDS_MAX: usize = 200_000;

/// Shows each end before an event, the newest first, until `visit` breaks. Returns where to go on
/// when it broke, or when so much was looked at that this call had better end.
pub(super) fn newest_first(
    history: &HistoryStore,
    before: EventId,
    mut visit: impl FnMut(JobId, Past) -> Result<ControlFlow<()>, ErrorInfo>,
) -> Result<Option<EventId>, ErrorInfo> {
    let floor = history.floor().map_err(errors::history)?.max(1);
    let mut high = before.0 + 1;
    let mut looked = 0;
    while high > floor {
        let low = high.saturating_sub(STEP).max(floor);
        let window = window(history, low, high)?;
        looked += window.len();
        for recorded in window.iter().rev().filter(|recorded| (recorded.index, recorded.ordinal) < before) {
            let Some((id, past)) = Past::of_end(&recorded.event) else { continue };
            if visit(id, past)?.is_break() {
                return Ok(Some((recorded.index, recorded.ordinal + 1)));
            }
        }
        high = low;
        if looked >= RECORDS_MAX {
            return Ok((high > floor).then_some((high, 0)));
        }
    }
    Ok(None)
}

/// The job that ended last under a name, among those that ended lately.
pub(super) fn newest_named(history: &HistoryStore, applied: u64, name: &Name) -> Result<Option<JobId>, ErrorInfo> {
    let mut found = None;
    newest_first(history, (applied + 1, 0), |id, past| {
        let named = past.ended.is_some_and(|end| end.record.name == *name);
        Ok(match named {
            true => {
                found = Some(id);
                ControlFlow::Break(())
            }
            false => ControlFlow::Continue(()),
        })
    })?;
    Ok(found)
}

/// Every event of the entries `low..high`.
fn window(history: &HistoryStore, low: u64, high: u64) -> Result<Vec<Recorded>, ErrorInfo> {
    let mut all = Vec::new();
    let mut from = low;
    while from < high {
        let part = records::range(history, from, STEP as usize).map_err(errors::history)?;
        let Some(last) = part.last().map(|recorded| recorded.index) else { break };
        all.extend(part.into_iter().filter(|recorded| recorded.index < high));
        from = last + 1;
    }
    Ok(all)
}
