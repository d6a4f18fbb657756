//! Writing a backup.

use super::{DECISIONS, HEAD, HISTORY, Head, MAGIC, Page, Row, STATE, VERSION_DECISIONS, VERSION_PLAIN};
use crate::decisions;
use crate::framed::{FrameWriter, packed};
use crate::history::HistoryStore;
use muster_engine::State;
use std::io::{self, Write};
use std::path::PathBuf;

/// Records of history in one frame, at most about.
const PAGE_RECORDS: usize = 4_096;

/// Takes one part of a decision log, with its kind.
pub type Take<'a> = &'a mut dyn FnMut(u8, &[u8]) -> io::Result<()>;
/// Hands on each part of a decision log.
pub type Decisions<'a> = &'a dyn Fn(Take<'_>) -> io::Result<()>;

/// The parts of a decision log's files, as `DecisionLog::written` names them. A log that cannot be read says so in the backup and does not keep it from being made.
pub fn decision_files(files: io::Result<Vec<PathBuf>>) -> impl Fn(Take<'_>) -> io::Result<()> {
    move |show: Take<'_>| {
        let files = match &files {
            Ok(files) => files,
            Err(error) => return show(decisions::DAMAGED, error.to_string().as_bytes()),
        };
        for (at, path) in files.iter().enumerate() {
            decisions::each_part(path, at + 1 == files.len(), &mut *show)?;
        }
        Ok(())
    }
}

/// Writes State and the history through its index, and the decision log if it is given; returns how many records of
/// history that were.
///
/// # Errors
/// The writer's, or a history that lacks something: then another server has to be asked.
pub fn write(
    out: impl Write,
    head: &Head,
    state: &State,
    history: &HistoryStore,
    decisions: Option<Decisions<'_>>,
) -> io::Result<u64> {
    let version = if decisions.is_some() { VERSION_DECISIONS } else { VERSION_PLAIN };
    let mut frames = FrameWriter::begin(out, MAGIC, version)?;
    frames.frame(HEAD, &serde_json::to_vec(head)?)?;
    frames.state(STATE, &packed(&state.encode())?)?;
    let mut records = 0;
    let mut from = head.history_from;
    while from <= head.index {
        let page = history.page(from, head.index, PAGE_RECORDS)?;
        let page = page.ok_or_else(|| io::Error::other(format!("the history of entry {from} is not here")))?;
        records += page.records.len() as u64;
        from = page.through + 1;
        let page = Page { through: page.through, records: page.records.into_iter().map(row).collect() };
        let bytes = postcard::to_stdvec(&page).map_err(io::Error::other)?;
        frames.frame(HISTORY, &packed(&bytes)?)?;
    }
    if history.floor()? != head.history_from {
        return Err(io::Error::other("history was shortened meanwhile; try again"));
    }
    if let Some(decisions) = decisions {
        decisions(&mut |kind, payload| frames.frame(DECISIONS, &[&[kind], payload].concat()))?;
    }
    frames.end(records)?;
    Ok(records)
}

fn row((index, record): (u64, crate::history::Record)) -> Row {
    Row { index, ordinal: record.ordinal, kind: record.kind, job: record.job, bytes: record.bytes.to_vec() }
}
