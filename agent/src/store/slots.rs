//! One value in one file, replaced in place: two slots that take turns, each with its number and a checksum, so that a write
//! that was cut off leaves the value before it. A change costs one write and one sync of data that has its place already.
//!
//! ```text
//! 0         head: magic, size of a slot, number of the newest value known to be synced, checksum
//! 4096      slot 0: magic, format version, number, length, bytes, checksum of all of that
//! + size    slot 1
//! ```
//!
//! The head tells a write that was cut off from a value that was safe once and is damaged: it is written, unsynced, after
//! each sync, so whatever number it shows was on disk. If neither slot has that number or a higher one, the value is lost,
//! and an older one is not offered in its place.

use muster_runtime::durable::{self, DurableError};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

const HEAD_MAGIC: [u8; 4] = *b"MSTH";
const SLOT_MAGIC: [u8; 4] = *b"MSTS";
const HEAD_BYTES: usize = 4 + 8 + 8 + CRC_BYTES;
const CRC_BYTES: usize = 4;
/// Magic, version, number, length.
const SLOT_HEAD_BYTES: usize = 4 + 1 + 8 + 8;
/// Where the slots begin: a page of its own for the head, so that no slot's write touches it.
const SLOTS_AT: u64 = 4096;
/// The smallest slot.
const SLOT_BYTES_MIN: u64 = 64 * 1024;

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// It is there, and its newest value is not.
    #[error("{} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
}

/// A value as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub version: u8,
    pub bytes: Vec<u8>,
}

/// The open file. One writer at a time.
#[derive(Debug)]
pub struct SlotFile {
    path: PathBuf,
    file: File,
    slot_bytes: u64,
    /// Of the newest value.
    number: u64,
}

impl SlotFile {
    /// Makes or replaces the file, with one value in it. Durable once it returns.
    pub fn create(path: &Path, version: u8, bytes: &[u8]) -> Result<Self, DurableError> {
        Self::create_numbered(path, 1, version, bytes)
    }

    fn create_numbered(path: &Path, number: u64, version: u8, bytes: &[u8]) -> Result<Self, DurableError> {
        let (slot_bytes, whole) = lay_out(number, version, bytes);
        durable::write_private(path, &whole)?;
        let file = open(path)?;
        Ok(Self { path: path.to_owned(), file, slot_bytes, number })
    }

    /// Reads the newest value; one above `limit_bytes` counts as damage.
    pub fn open(path: &Path, limit_bytes: u64) -> Result<(Self, Value), SlotError> {
        let file_limit =
            SLOTS_AT + 2 * (limit_bytes + SLOT_HEAD_BYTES as u64).next_power_of_two().max(SLOT_BYTES_MIN) * 2;
        let whole = durable::read_limited(path, file_limit)?;
        let damaged = |why: String| SlotError::Damaged { path: path.to_owned(), why };
        let head = read_head(&whole);
        // Without its head the file's own size says where slots are.
        let slot_bytes = head.map_or((whole.len() as u64).saturating_sub(SLOTS_AT) / 2, |(slot_bytes, _)| slot_bytes);
        let found = [0, 1].map(|slot| {
            let found = read_slot(&whole, slot_at(slot_bytes, slot), slot_bytes);
            // No writer put a value into the other's slot, or counted so far.
            found.filter(|(number, _)| number % 2 == slot && *number < u64::MAX / 2)
        });
        let whole_slots = found.iter().flatten().count();
        let newest = found.into_iter().flatten().max_by_key(|(number, _)| *number);
        let (number, value) = newest.ok_or_else(|| damaged("neither of its two slots is whole".to_owned()))?;
        match head {
            Some((_, synced)) if number < synced => {
                return Err(damaged(format!("value {synced} was synced, and {number} is the newest that is whole")));
            }
            None if whole_slots < 2 => {
                return Err(damaged("neither its head nor one of its slots is whole".to_owned()));
            }
            _ => {}
        }
        Ok((Self { path: path.to_owned(), file: open(path)?, slot_bytes, number }, value))
    }

    /// Replaces the value. Durable once it returns; after an error it is one of the two, and the file must not be used on.
    pub fn write(&mut self, version: u8, bytes: &[u8]) -> Result<(), DurableError> {
        let framed = frame(self.number + 1, version, bytes);
        if framed.len() as u64 > self.slot_bytes {
            *self = Self::create_numbered(&self.path, self.number + 1, version, bytes)?;
            return Ok(());
        }
        let failed = |cause: io::Error| DurableError::Io { path: self.path.clone(), doing: "write", cause };
        self.check_place().map_err(failed)?;
        self.file.write_all_at(&framed, slot_at(self.slot_bytes, self.number + 1)).map_err(failed)?;
        self.file.sync_data().map_err(failed)?;
        self.number += 1;
        // Goes to disk with the next value, or when the system finds time.
        self.file.write_all_at(&head(self.slot_bytes, self.number), 0).map_err(failed)
    }
}

impl SlotFile {
    /// A file that somebody removed or replaced takes writes as before, and nobody will ever read them.
    fn check_place(&self) -> io::Result<()> {
        let (there, ours) = (std::fs::symlink_metadata(&self.path)?, self.file.metadata()?);
        if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) {
            return Ok(());
        }
        Err(io::Error::other("another file has taken its place"))
    }
}

/// A new file with one value, and the size of its slots.
pub(crate) fn lay_out(number: u64, version: u8, bytes: &[u8]) -> (u64, Vec<u8>) {
    let framed = frame(number, version, bytes);
    let slot_bytes = (framed.len() as u64 * 2).next_power_of_two().max(SLOT_BYTES_MIN);
    let mut whole = head(slot_bytes, number).to_vec();
    whole.resize((SLOTS_AT + 2 * slot_bytes) as usize, 0);
    let at = slot_at(slot_bytes, number) as usize;
    whole[at..at + framed.len()].copy_from_slice(&framed);
    (slot_bytes, whole)
}

fn open(path: &Path) -> Result<File, DurableError> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map_err(|cause| DurableError::Io { path: path.to_owned(), doing: "open", cause })
}

fn slot_at(slot_bytes: u64, number: u64) -> u64 {
    SLOTS_AT.saturating_add(number % 2 * slot_bytes)
}

fn head(slot_bytes: u64, synced: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&HEAD_MAGIC);
    head[4..12].copy_from_slice(&slot_bytes.to_le_bytes());
    head[12..20].copy_from_slice(&synced.to_le_bytes());
    let crc = crc32fast::hash(&head[..20]);
    head[20..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Size of a slot and the newest synced number.
fn read_head(whole: &[u8]) -> Option<(u64, u64)> {
    let have: [u8; HEAD_BYTES] = whole.get(..HEAD_BYTES)?.try_into().ok()?;
    let (slot_bytes, synced) = (read_u64(&have[4..])?, read_u64(&have[12..])?);
    (head(slot_bytes, synced) == have).then_some((slot_bytes, synced))
}

fn frame(number: u64, version: u8, bytes: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(SLOT_HEAD_BYTES + bytes.len() + CRC_BYTES);
    framed.extend_from_slice(&SLOT_MAGIC);
    framed.push(version);
    framed.extend_from_slice(&number.to_le_bytes());
    framed.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    framed.extend_from_slice(bytes);
    framed.extend_from_slice(&crc32fast::hash(&framed).to_le_bytes());
    framed
}

/// Number and value of the slot at `at`, if it is whole.
fn read_slot(whole: &[u8], at: u64, slot_bytes: u64) -> Option<(u64, Value)> {
    let slot = whole.get(usize::try_from(at).ok()?..)?;
    let slot = &slot[..slot.len().min(usize::try_from(slot_bytes).ok()?)];
    if !slot.starts_with(&SLOT_MAGIC) {
        return None;
    }
    let length = usize::try_from(read_u64(slot.get(13..)?)?).ok()?;
    let end = SLOT_HEAD_BYTES.checked_add(length)?;
    let crc = slot.get(end..end.checked_add(CRC_BYTES)?)?;
    if crc32fast::hash(&slot[..end]).to_le_bytes() != crc {
        return None;
    }
    let value = Value { version: slot[4], bytes: slot[SLOT_HEAD_BYTES..end].to_vec() };
    Some((read_u64(&slot[5..])?, value))
}

fn read_u64(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
