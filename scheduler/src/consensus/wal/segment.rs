//! The files of the log. Each begins with a header that carries all that the log remembers besides its entries, so that
//! older files can be removed as soon as no entry in them is needed.
//!
//! A file appears under its name only when its header is durable: written aside, synced, renamed, folder synced.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

use super::sector::{le_u32, le_u64};
use crate::consensus::engine::EngineState;
use crate::consensus::types::{LogPos, SavedVote};

/// Room for the header; batches begin behind it.
pub(crate) const HEADER_BYTES: usize = 4096;
const MAGIC: [u8; 8] = *b"MUSTRWAL";
const VERSION: u8 = 1;
/// Bytes of the header that mean something: the rest is zeros.
const FIELDS_BYTES: usize = 8 + 1 + 8 + 8 + 8 + STATE_BYTES + 4;
const STATE_BYTES: usize = 1 + 17 + 3 * 17;
const SUFFIX: &str = ".wal";
const ASIDE: &str = "next.tmp";

/// Why a file of the log cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// What is wrong with its content.
    Damaged(&'static str),
    /// It has a format that this build does not know.
    Newer(u8),
    Io(io::Error),
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        Unusable::Io(error)
    }
}

/// What stands at the beginning of a file of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Counted up by every new file, also across restarts.
    pub number: u64,
    /// The file before it; 0 for the first of all.
    pub previous: u64,
    /// The batch that comes first in it. A batch of that number or above in an older file was never completed.
    pub first_batch: u64,
    /// What the log remembered when the file was made.
    pub state: EngineState,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        for word in [self.number, self.previous, self.first_batch] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let vote = self.state.vote.unwrap_or_default();
        bytes.push(u8::from(self.state.vote.is_some()));
        bytes.extend_from_slice(&vote.term.to_le_bytes());
        bytes.extend_from_slice(&vote.server.to_le_bytes());
        bytes.push(u8::from(vote.committed));
        for pos in [self.state.committed, self.state.purged, self.state.last] {
            let LogPos { term, index } = pos.unwrap_or_default();
            bytes.push(u8::from(pos.is_some()));
            bytes.extend_from_slice(&term.to_le_bytes());
            bytes.extend_from_slice(&index.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        debug_assert_eq!(bytes.len(), FIELDS_BYTES);
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Header, Unusable> {
        let cut_off = Unusable::Damaged("its header is cut off");
        let (fields, padding) = bytes.split_at_checked(FIELDS_BYTES).ok_or(cut_off)?;
        if fields[..8] != MAGIC {
            return Err(Unusable::Damaged("it does not begin like a file of the log"));
        }
        let (covered, crc) = fields.split_at(FIELDS_BYTES - 4);
        let mut hasher = crc32fast::Hasher::new();
        for part in [&covered[..8], &[VERSION], &covered[9..]] {
            hasher.update(part);
        }
        let sound = hasher.finalize() == le_u32(crc) && padding.iter().all(|byte| *byte == 0);
        // A header that is sound under our own version had another one by damage.
        if fields[8] > VERSION && !sound {
            return Err(Unusable::Newer(fields[8]));
        }
        if fields[8] != VERSION || !sound {
            return Err(Unusable::Damaged("the checksum of its header is wrong"));
        }
        let state = &fields[33..];
        let vote = (state[0] == 1).then(|| SavedVote {
            term: le_u64(&state[1..]),
            server: le_u64(&state[9..]),
            committed: state[17] == 1,
        });
        let pos = |at: usize| {
            (state[at] == 1).then(|| LogPos { term: le_u64(&state[at + 1..]), index: le_u64(&state[at + 9..]) })
        };
        Ok(Header {
            number: le_u64(&fields[9..]),
            previous: le_u64(&fields[17..]),
            first_batch: le_u64(&fields[25..]),
            state: EngineState { vote, committed: pos(18), purged: pos(35), last: pos(52) },
        })
    }
}

/// An open file of the log.
pub(crate) struct Segment {
    pub header: Header,
    pub file: File,
    pub path: PathBuf,
    /// Its length; space is taken when it is made, so that a full disk is met there and not in the middle of a batch.
    pub bytes: u64,
}

/// Makes the next file of the log, durably.
pub(crate) fn create(dir: &Path, header: Header, bytes: u64) -> io::Result<Segment> {
    let aside = dir.join(ASIDE);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    reserve(&file, bytes)?;
    file.write_all_at(&header.encode(), 0)?;
    file.sync_all()?;
    let path = dir.join(format!("{:020}{SUFFIX}", header.number));
    fs::rename(&aside, &path)?;
    sync_folder(dir)?;
    Ok(Segment { header, file, path, bytes })
}

fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    let length = i64::try_from(bytes).map_err(|_| io::Error::other("a file of the log that long is impossible"))?;
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(()),
        // Some file systems cannot; there a full disk shows later.
        Err(nix::errno::Errno::EOPNOTSUPP) => file.set_len(bytes),
        Err(error) => Err(error.into()),
    }
}

/// Opens an existing file.
pub(crate) fn open(path: &Path, number: u64) -> Result<Segment, Unusable> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let bytes = file.metadata()?.len();
    let mut head = vec![0; HEADER_BYTES];
    if bytes < HEADER_BYTES as u64 {
        return Err(Unusable::Damaged("it is shorter than its header"));
    }
    file.read_exact_at(&mut head, 0)?;
    let header = Header::decode(&head)?;
    if header.number != number {
        return Err(Unusable::Damaged("its name is another file's"));
    }
    Ok(Segment { header, file, path: path.to_owned(), bytes })
}

/// Files with their numbers.
pub(crate) type Files = Vec<(u64, PathBuf)>;

/// The files of the log by number, oldest first, and what a crash left of a file in the making.
pub(crate) fn list(dir: &Path) -> io::Result<(Files, Option<PathBuf>)> {
    let (mut found, mut unfinished) = (Vec::new(), None);
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name == ASIDE {
            unfinished = Some(path);
        } else if let Some(number) = name.strip_suffix(SUFFIX).and_then(|stem| stem.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok((found, unfinished))
}

pub(crate) fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Gives a header that a test has changed its right checksum.
#[cfg(test)]
pub(crate) fn seal_again(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let crc_at = FIELDS_BYTES - 4;
    let crc = crc32fast::hash(&bytes[..crc_at]).to_le_bytes();
    bytes[crc_at..FIELDS_BYTES].copy_from_slice(&crc);
    fs::write(path, bytes).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back_and_every_flipped_byte_is_noticed() {
        let pos = |index| Some(LogPos { term: 2, index });
        let vote = Some(SavedVote { term: 5, committed: true, server: 3 });
        let state = EngineState { vote, committed: pos(7), purged: None, last: pos(9) };
        let header = Header { number: 4, previous: 3, first_batch: 77, state };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes).unwrap(), header);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(matches!(Header::decode(&damaged), Err(Unusable::Damaged(_))), "byte {at}");
        }
    }
}
