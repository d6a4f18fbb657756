//! Writing a backup.

use super::frame::{FrameWriter, HEAD, HISTORY, STATE};
use super::{Head, Page, Row};
use crate::history::HistoryStore;
use muster_engine::State;
use std::io::{self, Write};

/// Bytes of compressed state in one frame.
const PART_BYTES: usize = 1 << 20;
/// Records of history in one frame, at most about.
const PAGE_RECORDS: usize = 4_096;
const ZSTD_LEVEL: i32 = 3;

/// Writes State and the history through its index; returns how many records of history that were.
///
/// # Errors
/// The writer's, or a history that lacks something: then another server has to be asked.
pub fn write(out: impl Write, head: &Head, state: &State, history: &HistoryStore) -> io::Result<u64> {
    let mut frames = FrameWriter::begin(out)?;
    frames.frame(HEAD, &serde_json::to_vec(head)?)?;
    let packed = zstd::encode_all(&state.encode()[..], ZSTD_LEVEL)?;
    for part in packed.chunks(PART_BYTES) {
        frames.frame(STATE, part)?;
    }
    drop(packed);
    let mut records = 0;
    let mut from = head.history_from;
    while from <= head.index {
        let page = history.page(from, head.index, PAGE_RECORDS)?;
        let page = page.ok_or_else(|| io::Error::other(format!("the history of entry {from} is not here")))?;
        records += page.records.len() as u64;
        from = page.through + 1;
        let page = Page { through: page.through, records: page.records.into_iter().map(row).collect() };
        let bytes = postcard::to_stdvec(&page).map_err(io::Error::other)?;
        frames.frame(HISTORY, &zstd::encode_all(&bytes[..], ZSTD_LEVEL)?)?;
    }
    if history.floor()? != head.history_from {
        return Err(io::Error::other("history was shortened meanwhile; try again"));
    }
    frames.end(records)?;
    Ok(records)
}

fn row((index, record): (u64, crate::history::Record)) -> Row {
    Row { index, ordinal: record.ordinal, kind: record.kind, job: record.job, bytes: record.bytes.to_vec() }
}
