//! The log engine on disk: the `raft-log` crate, a checksummed write-ahead log with one flush worker.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::codeq::{Decode, Encode};
use raft_log::{RaftLog, Types};

use super::engine::{EngineState, LogEngine, OnDurable, Record};
use super::types::{LogPos, SavedVote};

/// A body longer than this is damage: no caller may append one.
const BODY_BYTES_MAX: u32 = 16 << 20;
const READ_BUFFER_BYTES: usize = 1 << 20;

/// How much the engine keeps in memory and in one file.
#[derive(Clone, Copy, Debug)]
pub struct RaftLogLimits {
    /// A file of the log is closed when it is this long. Files are removed whole, once every entry in them is purged.
    pub file_bytes: usize,
    /// The tail of the log kept in memory, so that replication does not read the disk.
    pub cache_bytes: usize,
    /// How long a sync waits for more writes to share it, in microseconds.
    pub group_wait_us: u64,
}

impl Default for RaftLogLimits {
    fn default() -> Self {
        RaftLogLimits { file_bytes: 16 << 20, cache_bytes: 32 << 20, group_wait_us: 100 }
    }
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the log in {} is in use by another process; stop that server first", dir.display())]
    InUse {
        /// The folder of the log.
        dir: PathBuf,
    },
    /// Bytes that were once durable cannot be read back.
    #[error(
        "the log in {} is damaged: {cause}; nothing was changed. This server's promises are lost with it: \
         remove it from the cluster and add it again under a new id, with an empty folder", dir.display()
    )]
    Damaged {
        /// The folder of the log.
        dir: PathBuf,
        /// What was found.
        cause: io::Error,
    },
    /// The folder itself cannot be used.
    #[error("the log in {} cannot be opened: {cause}", dir.display())]
    Io {
        /// The folder of the log.
        dir: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// A log on disk. A failed sync is final: every later write fails as well.
pub struct RaftLogEngine {
    log: RaftLog<Words>,
}

impl RaftLogEngine {
    /// Opens the log in `dir`, which must exist. A write torn by a crash at the very end is dropped; any other damage is
    /// refused and left as it is.
    pub fn open(dir: &Path, limits: RaftLogLimits) -> Result<Self, OpenError> {
        let Some(text) = dir.to_str() else {
            let cause = io::Error::new(io::ErrorKind::InvalidInput, "its path is not UTF-8");
            return Err(OpenError::Io { dir: dir.to_owned(), cause });
        };
        let mut config = raft_log::Config::new(text);
        config.wal.read_buffer_size = Some(READ_BUFFER_BYTES);
        config.wal.chunk_max_size = Some(limits.file_bytes);
        config.wal.flush_batch_wait = Some(Duration::from_micros(limits.group_wait_us));
        config.log_cache_capacity = Some(limits.cache_bytes);
        let log = RaftLog::open(Arc::new(config)).map_err(|cause| match cause.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse { dir: dir.to_owned() },
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => OpenError::Io { dir: dir.to_owned(), cause },
            _ => OpenError::Damaged { dir: dir.to_owned(), cause },
        })?;
        Ok(RaftLogEngine { log })
    }
}

impl LogEngine for RaftLogEngine {
    fn state(&self) -> EngineState {
        let state = self.log.log_state();
        EngineState {
            vote: state.vote().copied(),
            committed: state.committed().copied(),
            purged: state.purged().copied(),
            last: state.last().copied(),
        }
    }

    fn save_vote(&mut self, vote: SavedVote, done: OnDurable) -> io::Result<()> {
        self.log.save_vote(vote)?;
        self.log.flush(true, Some(Durable(done)))
    }

    fn append(&mut self, records: Vec<Record>, done: OnDurable) -> io::Result<()> {
        self.log.append(records.into_iter().map(|record| (record.pos, Body(record.body))))?;
        self.log.flush(true, Some(Durable(done)))
    }

    fn truncate_after(&mut self, keep: Option<LogPos>) -> io::Result<()> {
        if keep >= self.log.log_state().last().copied() {
            return Ok(());
        }
        // Durable with the next append, which stands behind it in the same file; until then the old tail may come back,
        // and Raft would remove it again.
        self.log.truncate(keep.map_or(0, |pos| pos.index + 1))?;
        self.log.flush(false, None)
    }

    fn purge(&mut self, upto: LogPos) -> io::Result<()> {
        self.log.purge(upto)?;
        // Files are only unlinked behind a synced purge record.
        self.log.flush(true, None)
    }

    fn save_committed(&mut self, upto: LogPos) -> io::Result<()> {
        self.log.commit(upto)?;
        self.log.flush(false, None)
    }

    fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut bytes = 0;
        for item in self.log.read(from, to.max(from)) {
            let (pos, Body(body)) = item?;
            bytes += body.len().max(1);
            records.push(Record { pos, body });
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(records)
    }
}

/// The crate's type parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Words;

impl Types for Words {
    type LogId = LogPos;
    type LogPayload = Body;
    type Vote = SavedVote;
    type Callback = Durable;
    type UserData = u64;

    fn log_index(log_id: &LogPos) -> u64 {
        log_id.index
    }

    fn payload_size(payload: &Body) -> u64 {
        payload.0.len() as u64
    }
}

struct Durable(OnDurable);

impl raft_log::Callback for Durable {
    fn send(self, result: Result<(), io::Error>) {
        self.0.report(result);
    }
}

#[derive(Clone, Debug)]
struct Body(Bytes);

/// Mixed into the second copy of a body's length.
const LENGTH_MASK: u32 = 0x5EED_1065;

impl Encode for Body {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        let length = u32::try_from(self.0.len()).ok().filter(|length| *length <= BODY_BYTES_MAX);
        let Some(length) = length else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a log entry is longer than the log can hold"));
        };
        w.write_all(&length.to_be_bytes())?;
        // The length comes before the record's checksum. Were it trusted alone, a damaged one would read beyond the end
        // of the file, look like a torn last write, and be cut off together with every entry behind it.
        w.write_all(&(length ^ LENGTH_MASK).to_be_bytes())?;
        w.write_all(&self.0)?;
        Ok(8 + self.0.len())
    }
}

impl Decode for Body {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let length = read_u32(&mut r)?;
        if read_u32(&mut r)? ^ LENGTH_MASK != length || length > BODY_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the length of a log entry is damaged"));
        }
        let mut bytes = vec![0; length as usize];
        r.read_exact(&mut bytes)?;
        Ok(Body(bytes.into()))
    }
}

impl Encode for LogPos {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        w.write_all(&self.term.to_be_bytes())?;
        w.write_all(&self.index.to_be_bytes())?;
        Ok(16)
    }
}

impl Decode for LogPos {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        Ok(LogPos { term: read_u64(&mut r)?, index: read_u64(&mut r)? })
    }
}

impl Encode for SavedVote {
    fn encode<W: Write>(&self, mut w: W) -> io::Result<usize> {
        w.write_all(&self.term.to_be_bytes())?;
        w.write_all(&self.server.to_be_bytes())?;
        w.write_all(&[u8::from(self.committed)])?;
        Ok(17)
    }
}

impl Decode for SavedVote {
    fn decode<R: Read>(mut r: R) -> io::Result<Self> {
        let (term, server) = (read_u64(&mut r)?, read_u64(&mut r)?);
        let mut committed = [0];
        r.read_exact(&mut committed)?;
        match committed[0] {
            0 | 1 => Ok(SavedVote { term, server, committed: committed[0] == 1 }),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a vote is damaged")),
        }
    }
}

fn read_u32(r: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    r.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn read_u64(r: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    r.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests;
