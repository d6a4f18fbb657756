//! Log engines with a known flaw, and one without: what the images must miss, and must not.
//!
//! A file of frames `length(4) crc(4) payload`, synced before each acknowledgement; the vote is a file of its own, written
//! aside, synced and renamed; a purge writes the log anew in the same way.

use super::preload::fail_next_sync;
use anyhow::Context;
use bytes::Bytes;
use muster_scheduler::consensus::{EngineState, LogEngine, LogPos, OnDurable, Record, SavedVote};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// Nothing is ever synced.
    NoSync,
    /// The vote's file is renamed into place without having been synced.
    VoteUnsynced,
    /// Files are synced and renamed, and their folder is not synced.
    RenameWithoutFolderSync,
    /// The disk fails a sync now and then, and the engine simply syncs again.
    RetryAfterFailedSync,
}

/// With [`Flaw::RetryAfterFailedSync`]: of so many syncs of the log, one fails.
const SYNCS_TO_A_FAILURE: u64 = 5;

#[derive(Serialize, Deserialize)]
enum Frame {
    Entry { pos: LogPos, body: Vec<u8> },
    Truncate(Option<LogPos>),
    Purge(LogPos),
    Committed(LogPos),
}

pub struct Planted {
    dir: PathBuf,
    flaw: Flaw,
    log: File,
    syncs: u64,
    state: EngineState,
    entries: BTreeMap<u64, Record>,
}

const LOG: &str = "log";
const VOTE: &str = "vote";

impl Planted {
    pub fn open(dir: &Path, flaw: Flaw) -> anyhow::Result<Self> {
        let path = dir.join(LOG);
        if !path.exists() {
            let made = File::create(&path)?;
            if flaw != Flaw::NoSync {
                made.sync_all()?;
                File::open(dir)?.sync_all()?;
            }
        }
        let log = OpenOptions::new().append(true).read(true).open(&path)?;
        let mut planted = Planted {
            dir: dir.to_owned(),
            flaw,
            log,
            syncs: 0,
            state: EngineState::default(),
            entries: BTreeMap::new(),
        };
        let bytes = fs::read(&path)?;
        let mut rest = &bytes[..];
        while let Some((payload, later)) = frame(rest) {
            planted.take_in(serde_json::from_slice(payload).context("a frame is malformed")?);
            rest = later;
        }
        if !rest.is_empty() {
            // A torn end.
            planted.log.set_len((bytes.len() - rest.len()) as u64)?;
            planted.sync_log()?;
        }
        match fs::read(dir.join(VOTE)) {
            Ok(bytes) => {
                let (payload, _) = frame(&bytes).context("the vote is malformed")?;
                planted.state.vote = serde_json::from_slice(payload)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        Ok(planted)
    }

    fn take_in(&mut self, frame: Frame) {
        match frame {
            Frame::Entry { pos, body } => {
                self.entries.insert(pos.index, Record { pos, body: Bytes::from(body) });
                self.state.last = Some(pos);
            }
            Frame::Truncate(keep) => {
                self.entries.split_off(&keep.map_or(0, |pos| pos.index + 1));
                if self.state.last > keep {
                    self.state.last = keep.max(self.state.purged);
                }
            }
            Frame::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.state.purged = self.state.purged.max(Some(upto));
                self.state.last = self.state.last.max(Some(upto));
            }
            Frame::Committed(upto) => self.state.committed = Some(upto),
        }
    }

    fn put(&mut self, frames: Vec<Frame>) -> io::Result<()> {
        let bytes: Vec<u8> = frames.iter().flat_map(framed).collect();
        self.log.write_all(&bytes)?;
        frames.into_iter().for_each(|frame| self.take_in(frame));
        Ok(())
    }

    fn sync_log(&mut self) -> io::Result<()> {
        self.syncs += 1;
        match self.flaw {
            Flaw::NoSync => Ok(()),
            Flaw::RetryAfterFailedSync => {
                if self.syncs.is_multiple_of(SYNCS_TO_A_FAILURE) {
                    fail_next_sync()?;
                }
                self.log.sync_data().or_else(|_| self.log.sync_data())
            }
            Flaw::None | Flaw::VoteUnsynced | Flaw::RenameWithoutFolderSync => self.log.sync_data(),
        }
    }

    /// Puts a file in the place of another.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let aside = self.dir.join(format!("{name}.new"));
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        if self.flaw != Flaw::NoSync && !(self.flaw == Flaw::VoteUnsynced && name == VOTE) {
            file.sync_all()?;
        }
        fs::rename(&aside, self.dir.join(name))?;
        if !matches!(self.flaw, Flaw::NoSync | Flaw::RenameWithoutFolderSync) {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }
}

fn framed<T: Serialize>(value: &T) -> Vec<u8> {
    let payload = serde_json::to_vec(value).expect("numbers and bytes always encode");
    let length = u32::try_from(payload.len()).expect("frames are small");
    let mut whole = length.to_le_bytes().to_vec();
    whole.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    whole.extend_from_slice(&payload);
    whole
}

/// The first whole frame and what follows it.
fn frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
    let payload = bytes.get(8..8 + length)?;
    (length > 0 && crc32fast::hash(payload) == crc).then(|| (payload, &bytes[8 + length..]))
}

impl LogEngine for Planted {
    fn state(&self) -> EngineState {
        self.state
    }

    fn save_vote(&mut self, vote: SavedVote, done: OnDurable) -> io::Result<()> {
        self.sync_log()?;
        self.replace(VOTE, &framed(&Some(vote)))?;
        self.state.vote = Some(vote);
        done.report(Ok(()));
        Ok(())
    }

    fn append(&mut self, records: Vec<Record>, done: OnDurable) -> io::Result<()> {
        let entry = |record: Record| Frame::Entry { pos: record.pos, body: record.body.to_vec() };
        self.put(records.into_iter().map(entry).collect())?;
        done.report(self.sync_log());
        Ok(())
    }

    fn truncate_after(&mut self, keep: Option<LogPos>, done: OnDurable) -> io::Result<()> {
        self.put(vec![Frame::Truncate(keep)])?;
        done.report(self.sync_log());
        Ok(())
    }

    fn purge(&mut self, upto: LogPos) -> io::Result<()> {
        self.take_in(Frame::Purge(upto));
        let purged = self.state.purged.map(Frame::Purge);
        let committed = self.state.committed.map(Frame::Committed);
        let entries = self.entries.values().map(|record| Frame::Entry { pos: record.pos, body: record.body.to_vec() });
        let bytes: Vec<u8> = purged.into_iter().chain(committed).chain(entries).flat_map(|f| framed(&f)).collect();
        self.replace(LOG, &bytes)?;
        self.log = OpenOptions::new().append(true).read(true).open(self.dir.join(LOG))?;
        Ok(())
    }

    fn save_committed(&mut self, upto: LogPos) -> io::Result<()> {
        self.put(vec![Frame::Committed(upto)])
    }

    fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Record>> {
        let mut bytes = 0;
        let entries = self.entries.range(from..to.max(from)).map(|(_, record)| record.clone());
        Ok(entries
            .take_while(|record: &Record| {
                let room = bytes == 0 || bytes < max_bytes;
                bytes += record.body.len().max(1);
                room
            })
            .collect())
    }
}
