//! Reading a backup: every byte is checked before anything of it is believed.

use super::{BackupError, DECISIONS, HEAD, HISTORY, Head, MAGIC, Page, STATE, VERSION_DECISIONS, VERSION_PLAIN};
use crate::decisions::{Chapter, Chapters};
use crate::framed::{Broken, END, FrameReader, STATE_BYTES_MAX, unpacked};
use crate::history::Record;
use crate::records::{self, Recorded};
use muster_engine::State;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// A page of history, uncompressed, is not longer than this.
const PAGE_BYTES_MAX: u64 = 256 << 20;

/// What a whole backup holds.
#[derive(Debug)]
pub struct Inspected {
    pub head: Head,
    pub state: State,
    /// Records of history.
    pub records: u64,
    /// Of the decision log, compressed.
    pub decision_bytes: u64,
    pub file_bytes: u64,
}

/// Reads a whole backup and checks it: each part, the whole, the state against its hash, the history for gaps.
///
/// # Errors
/// What is wrong with it.
pub fn inspect(path: &Path) -> Result<Inspected, BackupError> {
    each_page(path, |_| Ok(()))
}

/// The same, and shows every event of the history in order. What was shown before an error is not to be believed.
///
/// # Errors
/// What is wrong with it, or a record of another version.
pub fn events(path: &Path, mut show: impl FnMut(&Recorded)) -> Result<Inspected, BackupError> {
    each_page(path, |page: Page| {
        for row in page.records {
            let index = row.index;
            let recorded = records::decode(index, &Record::from(row));
            show(&recorded.map_err(|cause| BackupError::Io { path: path.to_owned(), cause })?);
        }
        Ok(())
    })
}

/// The same, and shows the decision log in order: nothing, when the backup was made without.
///
/// # Errors
/// What is wrong with it.
pub fn decisions(path: &Path, mut show: impl FnMut(Chapter)) -> Result<Inspected, BackupError> {
    let mut chapters = Chapters::default();
    each_part(path, |part| {
        if let Part::Decisions(payload) = part
            && let Some((kind, payload)) = payload.split_first()
        {
            chapters.part(*kind, payload, &mut show);
        }
        Ok(())
    })
}

/// What a backup holds besides its State.
enum Part<'a> {
    Page(Page),
    Decisions(&'a [u8]),
}

/// The same, and shows every page of history in order.
pub(super) fn each_page(
    path: &Path,
    mut show: impl FnMut(Page) -> Result<(), BackupError>,
) -> Result<Inspected, BackupError> {
    each_part(path, |part| match part {
        Part::Page(page) => show(page),
        Part::Decisions(_) => Ok(()),
    })
}

/// The same, and shows every part. What was shown before an error is not to be believed.
fn each_part(path: &Path, mut show: impl FnMut(Part<'_>) -> Result<(), BackupError>) -> Result<Inspected, BackupError> {
    let file = File::open(path).map_err(|cause| BackupError::Io { path: path.to_owned(), cause })?;
    let failed = |broken: Broken, at: u64| match broken {
        Broken::Io(cause) => BackupError::Io { path: path.to_owned(), cause },
        Broken::Cut => BackupError::Cut { path: path.to_owned(), bytes: at },
        Broken::NotOurs => BackupError::NotABackup { path: path.to_owned() },
        Broken::Version(found) => BackupError::Version { path: path.to_owned(), found, known: VERSION_DECISIONS },
        Broken::Damaged(why) => BackupError::Damaged { path: path.to_owned(), at, why },
    };
    let frames = FrameReader::begin(BufReader::new(file), MAGIC, VERSION_PLAIN..=VERSION_DECISIONS);
    let mut frames = frames.map_err(|broken| failed(broken, 0))?;
    let next = |frames: &mut FrameReader<_>| frames.next().map_err(|broken| failed(broken, frames.at));
    let damaged = |at: u64, why: &str| BackupError::Damaged { path: path.to_owned(), at, why: why.to_owned() };

    let (kind, payload) = next(&mut frames)?;
    let head: Option<Head> = serde_json::from_slice(&payload).ok().filter(|_| kind == HEAD);
    let head = head.ok_or_else(|| damaged(frames.at, "its head cannot be read"))?;
    let mut packed = Vec::new();
    let (mut kind, mut payload) = next(&mut frames)?;
    while kind == STATE {
        packed.extend_from_slice(&payload);
        (kind, payload) = next(&mut frames)?;
    }
    let state = state_of(&packed, &head).map_err(|why| damaged(frames.at, &why))?;
    drop(packed);
    let (mut from, mut records) = (head.history_from, 0);
    while kind == HISTORY {
        let page = page_of(&payload).filter(|page| is_next(page, from, &head));
        let page = page.ok_or_else(|| damaged(frames.at, "a page of history is not the next one"))?;
        (from, records) = (page.through + 1, records + page.records.len() as u64);
        show(Part::Page(page))?;
        (kind, payload) = next(&mut frames)?;
    }
    let mut decision_bytes = 0;
    while kind == DECISIONS {
        decision_bytes += payload.len() as u64;
        show(Part::Decisions(&payload))?;
        (kind, payload) = next(&mut frames)?;
    }
    let counted = payload.first_chunk().map(|count| u64::from_le_bytes(*count));
    if kind != END || counted != Some(records) || from <= head.index {
        return Err(damaged(frames.at, "its history is not whole"));
    }
    Ok(Inspected { head, state, records, decision_bytes, file_bytes: frames.at })
}

fn state_of(packed: &[u8], head: &Head) -> Result<State, String> {
    let bytes = unpacked(packed, STATE_BYTES_MAX).ok_or("the state cannot be unpacked")?;
    let state = State::decode(&bytes)?;
    let same = state.hash().to_string() == head.state_hash && state.applied_index() == head.index;
    if same { Ok(state) } else { Err("the state is not the one its head names".to_owned()) }
}

fn page_of(payload: &[u8]) -> Option<Page> {
    postcard::from_bytes(&unpacked(payload, PAGE_BYTES_MAX)?).ok()
}

fn is_next(page: &Page, from: u64, head: &Head) -> bool {
    let inside = |index: u64| from <= index && index <= page.through;
    from <= page.through && page.through <= head.index && page.records.iter().all(|row| inside(row.index))
}
