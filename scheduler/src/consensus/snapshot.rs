//! Snapshots as files: written aside, synced, renamed; checked in full before use; two kept.
//!
//! Layout: `MSTRSNAP`, version (u16), head length (u32), head (postcard), CRC-32 of all that (u32), the state compressed
//! by zstd, and the SHA-256 of everything before it. Integers are little-endian.

mod probe;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::types::{LogPos, SnapshotMeta, StoredMembership};

pub use probe::SnapshotProbe;

const MAGIC: &[u8; 8] = b"MSTRSNAP";
const VERSION: u16 = 1;
const FIXED_BYTES: usize = 14;
const CRC_BYTES: usize = 4;
const SHA_BYTES: usize = 32;
const HEAD_BYTES_MAX: usize = 1 << 20;
const ZSTD_LEVEL: i32 = 1;
/// A snapshot longer than this, compressed or not, is refused.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 8 << 30;
/// Snapshots kept, so that a damaged newest one has a fallback.
const KEPT: usize = 2;
const EXTENSION: &str = "snap";

/// Why a snapshot file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The system failed us.
    #[error("snapshot {}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file is not what was written.
    #[error("snapshot {} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A later build of muster wrote it in a format that this one does not know.
    #[error(
        "snapshot {} has format {version}, and this muster knows formats up to {}; run the version of muster that wrote it; \
         the file was not changed", path.display(), VERSION
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u16,
    },
    /// No usable snapshot reaches the beginning of the log.
    #[error(
        "the log in {} begins behind entry {purged}, but the newest usable snapshot ends at {found}. This server's state \
         cannot be rebuilt: remove it from the cluster and add it again under a new id, with an empty folder", dir.display()
    )]
    Gap {
        /// The folder of the snapshots.
        dir: PathBuf,
        /// The last purged entry.
        purged: LogPos,
        /// Where the newest usable snapshot ends, in words.
        found: String,
    },
}

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> Self {
        io::Error::other(error)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    last: Option<LogPos>,
    membership_at: Option<LogPos>,
    /// postcard of the membership.
    membership: Vec<u8>,
    /// Length of the state before compression.
    raw_bytes: u64,
    /// Length of the compressed state.
    body_bytes: u64,
}

/// An open snapshot file. The handle stays good when the file is removed.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    file: Arc<File>,
    head: Arc<Head>,
    body_at: u64,
    file_bytes: u64,
    /// Of one that came in and was not adopted: its file goes with the last handle.
    unadopted: Option<Arc<Unadopted>>,
}

/// A file that is removed in the end, unless it was renamed before.
#[derive(Debug)]
struct Unadopted(PathBuf);

impl Drop for Unadopted {
    fn drop(&mut self) {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), %error, "an unused snapshot stays until the next start");
            }
            _ => {}
        }
    }
}

impl SnapshotFile {
    /// Length of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The last log entry whose effects are inside; none for a snapshot of an empty state.
    pub fn last(&self) -> Option<LogPos> {
        self.head.last
    }

    /// Reads part of the file, for sending it.
    pub(crate) fn read_at(&self, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.file_bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut part = vec![0; bytes.min(left)];
        self.file.read_exact_at(&mut part, at)?;
        Ok(part)
    }

    pub(crate) fn meta(&self) -> Result<SnapshotMeta, SnapshotError> {
        let membership =
            postcard::from_bytes(&self.head.membership).map_err(|error| self.damaged(error.to_string()))?;
        let at = self.head.membership_at.map(LogPos::log_id);
        Ok(SnapshotMeta {
            last_log_id: self.head.last.map(LogPos::log_id),
            last_membership: StoredMembership::new(at, membership),
        })
    }

    /// The state inside.
    pub(crate) fn state(&self) -> Result<Vec<u8>, SnapshotError> {
        let body = Part { file: &self.file, at: self.body_at, left: self.head.body_bytes };
        let limit = self.head.raw_bytes;
        let mut state = Vec::with_capacity(usize::try_from(limit.min(64 << 20)).unwrap_or(0));
        let decoder = zstd::stream::read::Decoder::new(body).map_err(|cause| self.io(cause))?;
        decoder.take(limit + 1).read_to_end(&mut state).map_err(|error| self.damaged(error.to_string()))?;
        if state.len() as u64 != limit {
            return Err(self.damaged(format!("the state has not the {limit} bytes its head names")));
        }
        Ok(state)
    }

    /// Opens a file and checks every byte of it; first that this build knows its format.
    pub(crate) fn open(path: &Path) -> Result<Self, SnapshotError> {
        let failed = |cause| SnapshotError::Io { path: path.to_owned(), cause };
        let damaged = |why: &str| SnapshotError::Damaged { path: path.to_owned(), why: why.to_owned() };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let file_bytes = metadata.len();
        let of_wrong_length = || damaged(&format!("it has {file_bytes} bytes"));
        if file_bytes < (FIXED_BYTES + CRC_BYTES + SHA_BYTES) as u64 {
            return Err(of_wrong_length());
        }
        let mut fixed = [0; FIXED_BYTES];
        file.read_exact_at(&mut fixed, 0).map_err(failed)?;
        if &fixed[..8] != MAGIC {
            return Err(damaged("it does not begin like a snapshot"));
        }
        let version = u16::from_le_bytes([fixed[8], fixed[9]]);
        fixed[8..10].copy_from_slice(&VERSION.to_le_bytes());
        let head = sound_head(&file, &fixed, file_bytes).map_err(failed)?;
        if version != VERSION {
            // A head that is sound under our own version had another one by damage.
            let newer = version > VERSION && head.is_err();
            let path = path.to_owned();
            return Err(if newer { SnapshotError::Newer { path, version } } else { damaged("its version is wrong") });
        }
        if file_bytes > SNAPSHOT_BYTES_MAX {
            return Err(of_wrong_length());
        }
        let head = head.map_err(damaged)?;
        let head_bytes = head.len();
        let head: Head = postcard::from_bytes(&head).map_err(|error| damaged(&error.to_string()))?;
        let body_at = (FIXED_BYTES + head_bytes + CRC_BYTES) as u64;
        if body_at.saturating_add(head.body_bytes).saturating_add(SHA_BYTES as u64) != file_bytes
            || head.raw_bytes > SNAPSHOT_BYTES_MAX
        {
            return Err(damaged("its length is not the one its head names"));
        }
        let mut sha = [0; SHA_BYTES];
        file.read_exact_at(&mut sha, file_bytes - SHA_BYTES as u64).map_err(failed)?;
        let mut digest = Sha256::new();
        let mut whole = Part { file: &file, at: 0, left: file_bytes - SHA_BYTES as u64 };
        io::copy(&mut whole, &mut digest).map_err(failed)?;
        if digest.finalize()[..] != sha[..] {
            return Err(damaged("its checksum is wrong"));
        }
        let (path, file, head) = (path.to_owned(), Arc::new(file), Arc::new(head));
        Ok(SnapshotFile { path, file, head, body_at, file_bytes, unadopted: None })
    }

    fn damaged(&self, why: String) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.clone(), why }
    }

    fn io(&self, cause: io::Error) -> SnapshotError {
        SnapshotError::Io { path: self.path.clone(), cause }
    }
}

/// The encoded head behind `fixed`, or what is wrong with it.
fn sound_head(file: &File, fixed: &[u8; FIXED_BYTES], file_bytes: u64) -> io::Result<Result<Vec<u8>, &'static str>> {
    let head_bytes = u32::from_le_bytes([fixed[10], fixed[11], fixed[12], fixed[13]]) as usize;
    if head_bytes > HEAD_BYTES_MAX || (FIXED_BYTES + head_bytes + CRC_BYTES + SHA_BYTES) as u64 > file_bytes {
        return Ok(Err("its head is longer than the file"));
    }
    let mut head = vec![0; head_bytes + CRC_BYTES];
    file.read_exact_at(&mut head, FIXED_BYTES as u64)?;
    let crc = head.split_off(head_bytes);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(fixed);
    hasher.update(&head);
    let sound = hasher.finalize().to_le_bytes()[..] == crc[..];
    Ok(if sound { Ok(head) } else { Err("the checksum of its head is wrong") })
}

/// A stretch of a file as a reader, without moving the file's own cursor.
struct Part<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += got as u64;
        self.left -= got as u64;
        Ok(got)
    }
}

/// The snapshots of one server.
#[derive(Clone)]
pub struct SnapshotStore {
    dir: PathBuf,
    /// Usable ones, oldest first.
    kept: Arc<Mutex<Vec<SnapshotFile>>>,
}

impl SnapshotStore {
    /// Opens the folder, which must exist. Unfinished files are removed; damaged ones are renamed and reported, those that
    /// cannot be read are left and reported, and an older one is used if the log still begins inside it.
    pub(crate) fn open(dir: &Path, purged: Option<LogPos>) -> Result<Self, SnapshotError> {
        let failed = |cause| SnapshotError::Io { path: dir.to_owned(), cause };
        let (mut kept, mut unfinished, mut damaged, mut unreadable) = (Vec::new(), Vec::new(), Vec::new(), None);
        for entry in fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("tmp") => unfinished.push(path),
                Some(EXTENSION) => match SnapshotFile::open(&path) {
                    Ok(file) => kept.push(file),
                    Err(SnapshotError::Damaged { path, why }) => damaged.push((path, why)),
                    Err(error @ SnapshotError::Io { .. }) => {
                        tracing::error!(%error, "left a snapshot that cannot be read");
                        unreadable = Some(error);
                    }
                    Err(error) => return Err(error),
                },
                _ => {}
            }
        }
        // Only now: a folder with a file of a newer format is left as it was found.
        for path in unfinished {
            fs::remove_file(&path).map_err(failed)?;
        }
        for (path, why) in damaged {
            tracing::error!(path = %path.display(), why, "moved a damaged snapshot aside");
            fs::rename(&path, path.with_extension("damaged")).map_err(failed)?;
        }
        kept.sort_by_key(|file| file.head.last);
        let newest = kept.last().and_then(SnapshotFile::last);
        let short = purged.filter(|purged| newest.is_none_or(|last| last.index < purged.index));
        // The disk may yet give it back.
        if let Some(error) = unreadable.filter(|_| short.is_some() || kept.is_empty()) {
            return Err(error);
        }
        if let Some(purged) = short {
            let found = newest.map_or("nothing".to_owned(), |last| format!("entry {last}"));
            return Err(SnapshotError::Gap { dir: dir.to_owned(), purged, found });
        }
        // Who published the newest may have been killed before its name was durable, and the log will be purged up to it.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        Ok(SnapshotStore { dir: dir.to_owned(), kept: Arc::new(Mutex::new(kept)) })
    }

    /// The newest snapshot.
    pub(crate) fn newest(&self) -> Option<SnapshotFile> {
        self.lock().last().cloned()
    }

    /// The last entry in the oldest snapshot kept, once there are two: the log must reach back to it.
    pub(crate) fn fallback(&self) -> Option<LogPos> {
        let kept = self.lock();
        if kept.len() < KEPT { None } else { kept[0].head.last }
    }

    /// Writes and publishes a snapshot of `state`.
    pub(crate) fn write(&self, meta: &SnapshotMeta, state: &[u8]) -> Result<SnapshotFile, SnapshotError> {
        let path = self.scratch("new");
        let failed = |cause| SnapshotError::Io { path: path.clone(), cause };
        let body = zstd::encode_all(state, ZSTD_LEVEL).map_err(failed)?;
        let membership = postcard::to_stdvec(meta.last_membership.membership());
        let head = Head {
            last: LogPos::of_opt(meta.last_log_id.as_ref()),
            membership_at: LogPos::of_opt(meta.last_membership.log_id().as_ref()),
            membership: membership.expect("a membership of numbers and strings always encodes"),
            raw_bytes: state.len() as u64,
            body_bytes: body.len() as u64,
        };
        let bytes = frame(&head, &body);
        let mut file = File::create(&path).map_err(failed)?;
        file.write_all(&bytes).map_err(failed)?;
        drop(file);
        let file = self.publish(&path)?;
        self.keep(file.clone(), KEPT)?;
        Ok(file)
    }

    /// Begins a snapshot that arrives in parts.
    pub(crate) fn receive(&self, file_bytes: u64) -> Result<Incoming, SnapshotError> {
        let path = self.scratch(&format!("incoming-{}", uuid::Uuid::new_v4().simple()));
        let failed = |cause| SnapshotError::Io { path: path.clone(), cause };
        if file_bytes > SNAPSHOT_BYTES_MAX {
            let why = format!("{file_bytes} bytes are announced; the limit is {SNAPSHOT_BYTES_MAX}");
            return Err(SnapshotError::Damaged { path, why });
        }
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
        Ok(Incoming { path, file, want: file_bytes, got: 0, whole: false })
    }

    /// Makes a checked snapshot the only one of this store; one of another store is copied.
    pub(crate) fn adopt(&self, snapshot: &SnapshotFile) -> Result<SnapshotFile, SnapshotError> {
        let own = snapshot.path.parent() == Some(self.dir.as_path());
        if own && snapshot.path.extension().is_some_and(|extension| extension == EXTENSION) {
            return Ok(snapshot.clone());
        }
        let path = if own { snapshot.path.clone() } else { self.scratch("copy") };
        if !own {
            let failed = |cause| SnapshotError::Io { path: path.clone(), cause };
            let mut copy = File::create(&path).map_err(failed)?;
            let mut source = Part { file: &snapshot.file, at: 0, left: snapshot.file_bytes };
            io::copy(&mut source, &mut copy).map_err(failed)?;
        }
        let file = self.publish(&path)?;
        // The log between an older snapshot and this one is gone, so an older one is of no use.
        self.keep(file.clone(), 1)?;
        Ok(file)
    }

    fn scratch(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.tmp"))
    }

    /// Sync, check, rename, sync the folder: afterwards the snapshot is there for good.
    fn publish(&self, scratch: &Path) -> Result<SnapshotFile, SnapshotError> {
        let failed = |cause| SnapshotError::Io { path: scratch.to_owned(), cause };
        let mut snapshot = SnapshotFile::open(scratch)?;
        OpenOptions::new().write(true).open(scratch).and_then(|file| file.sync_all()).map_err(failed)?;
        let name = match snapshot.head.last {
            Some(last) => format!("snapshot-{:020}-{:020}.{EXTENSION}", last.term, last.index),
            None => format!("snapshot-empty.{EXTENSION}"),
        };
        snapshot.path = self.dir.join(name);
        fs::rename(scratch, &snapshot.path).map_err(failed)?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        Ok(snapshot)
    }

    fn keep(&self, newest: SnapshotFile, count: usize) -> Result<(), SnapshotError> {
        let mut kept = self.lock();
        kept.retain(|file| file.path != newest.path);
        kept.push(newest);
        kept.sort_by_key(|file| file.head.last);
        while kept.len() > count {
            let oldest = kept.remove(0);
            fs::remove_file(&oldest.path).map_err(|cause| oldest.io(cause))?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SnapshotFile>> {
        self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn frame(head: &Head, body: &[u8]) -> Vec<u8> {
    let head = postcard::to_stdvec(head).expect("numbers and bytes always encode");
    let mut bytes = Vec::with_capacity(FIXED_BYTES + head.len() + CRC_BYTES + body.len() + SHA_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(head.len()).expect("a head is far below 4 GiB").to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend_from_slice(body);
    let sha = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sha);
    bytes
}

/// A snapshot on its way in. Dropped before [`Incoming::finish`], it leaves nothing behind.
pub(crate) struct Incoming {
    path: PathBuf,
    file: File,
    want: u64,
    got: u64,
    whole: bool,
}

impl Incoming {
    pub(crate) fn write(&mut self, part: &[u8]) -> Result<(), SnapshotError> {
        self.got += part.len() as u64;
        if self.got > self.want {
            return Err(self.damaged(format!("more than the announced {} bytes came", self.want)));
        }
        self.file.write_all(part).map_err(|cause| SnapshotError::Io { path: self.path.clone(), cause })
    }

    /// Checks what came. The file still has to be adopted; otherwise it goes with the last handle.
    pub(crate) fn finish(mut self) -> Result<SnapshotFile, SnapshotError> {
        if self.got != self.want {
            return Err(self.damaged(format!("{} of {} bytes came", self.got, self.want)));
        }
        let mut snapshot = SnapshotFile::open(&self.path)?;
        snapshot.unadopted = Some(Arc::new(Unadopted(self.path.clone())));
        self.whole = true;
        Ok(snapshot)
    }

    fn damaged(&self, why: String) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.clone(), why }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.whole
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished snapshot stays until the next start");
        }
    }
}

#[cfg(test)]
mod tests;
