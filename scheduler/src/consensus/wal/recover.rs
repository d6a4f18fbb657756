//! Opening a log: what was durable comes back, a write that a crash tore is dropped, and damage is refused.
//!
//! The writer never begins a batch before the one before it is synced. So only the very last batch can be torn; and
//! whatever a later batch or file stands behind was synced, and must be whole.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use bytes::Bytes;

use super::error::OpenError;
use super::index::{Index, Place};
use super::record::{Change, Unread, read_all};
use super::sector::{self, SECTOR_BYTES, Sector};
use super::segment::{self, HEADER_BYTES, Segment, Unusable};
use super::spans::Spans;
use crate::consensus::types::LogPos;

/// A log as it was found.
pub(crate) struct Recovered {
    pub index: Index,
    pub spans: Spans,
    /// Oldest first.
    pub segments: Vec<Segment>,
    /// The batch to be written next.
    pub next_batch: u64,
    /// Whether the last file holds nothing yet, so that it can be written from its beginning.
    pub last_is_empty: bool,
}

/// What is wrong, told without the folder.
enum Fault {
    Damage(String),
    Newer(String),
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}

fn told_of(path: &Path, what: impl std::fmt::Display) -> String {
    format!("{}: {what}", path.file_name().unwrap_or_default().to_string_lossy())
}

fn damage(path: &Path, why: impl std::fmt::Display) -> Fault {
    Fault::Damage(told_of(path, why))
}

/// Reads the log in `dir`. Changes nothing but what is known to be left over.
pub(crate) fn recover(dir: &Path, cache_bytes: usize) -> Result<Recovered, OpenError> {
    read_chain(dir, cache_bytes).map_err(|fault| match fault {
        Fault::Damage(what) => OpenError::Damaged { dir: dir.to_owned(), what },
        Fault::Newer(what) => OpenError::Newer { dir: dir.to_owned(), what },
        Fault::Io(cause) => OpenError::Io { dir: dir.to_owned(), cause },
    })
}

fn read_chain(dir: &Path, cache_bytes: usize) -> Result<Recovered, Fault> {
    let (files, unfinished) = segment::list(dir)?;
    let (segments, left_over) = chain(files)?;
    let mut replay = Replay::new(cache_bytes, segments.first());
    for (at, segment) in segments.iter().enumerate() {
        replay.segment(segment, segments.get(at + 1).map(|next| next.header.first_batch))?;
    }
    if let Some(last) = segments.last() {
        replay.check_whole(&last.path)?;
        // A killed process leaves its last batch in the page cache, and so does a failed sync, whose pages then pass for
        // written: a sync would not look at them again. Written once more, the disk takes them or says no.
        if let Some((offset, batch)) = &replay.last_batch {
            last.file.write_all_at(batch, *offset)?;
        }
        last.file.sync_data()?;
    }
    // Only now: a log that is refused is left as it was found.
    for path in left_over.into_iter().chain(unfinished) {
        fs::remove_file(path)?;
    }
    let Replay { index, spans, next_batch, last_is_empty, .. } = replay;
    Ok(Recovered { index, spans, segments, next_batch, last_is_empty })
}

/// Follows the files back from the newest. Where the one before is gone, everything older is what a purge had begun to remove.
fn chain(mut files: segment::Files) -> Result<(Vec<Segment>, Vec<PathBuf>), Fault> {
    let mut segments = Vec::new();
    let mut wanted = files.last().map_or(0, |(number, _)| *number);
    while let Some((number, path)) = files.pop_if(|(number, _)| *number == wanted) {
        let segment = segment::open(&path, number).map_err(|fault| match fault {
            Unusable::Damaged(why) => damage(&path, why),
            Unusable::Newer(version) => Fault::Newer(told_of(&path, format!("its format is {version}"))),
            Unusable::Io(error) => Fault::Io(error),
        })?;
        wanted = segment.header.previous;
        segments.push(segment);
    }
    segments.reverse();
    Ok((segments, files.into_iter().map(|(_, path)| path).collect()))
}

struct Replay {
    index: Index,
    spans: Spans,
    next_batch: u64,
    last_is_empty: bool,
    /// Where the last batch of the last file begins, and its bytes: the only ones that may not be on the disk.
    last_batch: Option<(u64, Bytes)>,
    /// Entries up to here are in no file and must turn out to be purged.
    absent_upto: Option<LogPos>,
}

impl Replay {
    fn new(cache_bytes: usize, first: Option<&Segment>) -> Self {
        let mut index = Index::new(cache_bytes);
        index.state = first.map(|first| first.header.state).unwrap_or_default();
        let absent_upto = index.state.last;
        let next_batch = first.map_or(1, |first| first.header.first_batch);
        Replay { index, spans: Spans::default(), next_batch, last_is_empty: true, last_batch: None, absent_upto }
    }

    /// Reads one file. `until` is the first batch of the next one, if there is a next one.
    fn segment(&mut self, segment: &Segment, until: Option<u64>) -> Result<(), Fault> {
        let header = segment.header;
        if header.first_batch != self.next_batch || header.state != self.index.state {
            return Err(damage(&segment.path, "its header does not continue the file before it"));
        }
        self.index.has_file(header.number, Arc::new(segment.file.try_clone()?));
        let mut bytes = vec![0; usize::try_from(segment.bytes).unwrap_or(usize::MAX) - HEADER_BYTES];
        segment.file.read_exact_at(&mut bytes, HEADER_BYTES as u64)?;
        let bytes = Bytes::from(bytes);
        self.last_batch = None;
        let mut at = 0;
        while until.is_none_or(|until| self.next_batch < until) {
            match batch_at(header.number, self.next_batch, &bytes[at..]) {
                Some((payload, length)) => {
                    let offset = (HEADER_BYTES + at) as u64;
                    self.batch(segment, offset, payload)?;
                    self.last_batch = Some((offset, bytes.slice(at..at + length)));
                    at += length;
                }
                None if until.is_some() => {
                    let why = format!("batch {} is damaged, and later files follow", self.next_batch);
                    return Err(damage(&segment.path, why));
                }
                None => {
                    self.tail(segment, &bytes[at..])?;
                    self.last_is_empty = at == 0 && bytes.iter().all(|byte| *byte == 0);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn batch(&mut self, segment: &Segment, offset: u64, payload: Vec<u8>) -> Result<(), Fault> {
        let (number, batch) = (segment.header.number, self.next_batch);
        let bad = |why: &str| damage(&segment.path, format!("batch {batch}: {why}"));
        let changes = read_all(&Bytes::from(payload)).map_err(|unread| match unread {
            Unread::Malformed => bad("a change in it cannot be read"),
            Unread::Newer(kind) => {
                let what = format!("batch {batch}: a change in it is of kind {kind}");
                Fault::Newer(told_of(&segment.path, what))
            }
        })?;
        for (change, body) in changes {
            let state = &self.index.state;
            match &change {
                Change::Entry(record) if !record.pos.may_follow(state.last) => return Err(bad("an entry is missing")),
                Change::Truncate(keep) => self.absent_upto = self.absent_upto.min(*keep),
                _ => {}
            }
            self.index.apply(&change, Some(Place { segment: number, batch, offset, body }));
            self.spans.apply(&change, number);
        }
        self.next_batch += 1;
        Ok(())
    }

    /// No whole batch comes next: the end of the log, a torn last batch, or damage.
    fn tail(&self, segment: &Segment, rest: &[u8]) -> Result<(), Fault> {
        for (at, bytes) in rest.chunks_exact(SECTOR_BYTES).enumerate() {
            match sector::read(segment.header.number, bytes) {
                Sector::Unwritten => {}
                Sector::Written { batch, .. } if batch == self.next_batch => {}
                Sector::Written { batch, .. } => {
                    let why = format!("batch {} is damaged or missing before batch {batch}", self.next_batch);
                    return Err(damage(&segment.path, why));
                }
                Sector::Damaged => {
                    let why = format!("sector {at} behind batch {} is damaged", self.next_batch - 1);
                    return Err(damage(&segment.path, why));
                }
            }
        }
        Ok(())
    }

    fn check_whole(&self, path: &Path) -> Result<(), Fault> {
        match self.absent_upto {
            Some(absent) if self.index.state.purged.is_none_or(|purged| purged.index < absent.index) => {
                Err(damage(path, format!("the files before it are missing, and entries up to {absent} with them")))
            }
            _ => Ok(()),
        }
    }
}

/// The payload of the batch that begins here, if it is whole, and its length on disk.
fn batch_at(segment: u64, wanted: u64, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut payload = Vec::new();
    for (at, bytes) in bytes.chunks_exact(SECTOR_BYTES).enumerate() {
        let Sector::Written { batch, ordinal, last, data } = sector::read(segment, bytes) else { return None };
        if batch != wanted || usize::from(ordinal) != at {
            return None;
        }
        payload.extend_from_slice(data);
        if last {
            return Some((payload, (at + 1) * SECTOR_BYTES));
        }
    }
    None
}
