//! Small files that survive a power cut: written aside, synced, renamed, and the folder synced. All calls block.
//!
//! Beside them the same for what means nothing after a power cut (`write_for_boot`, `make_folder`): other processes see it
//! whole or not at all, and nobody waits for the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 4] = *b"MSTR";
/// Magic, version byte, payload length.
const HEADER_BYTES: usize = 4 + 1 + 8;
const CRC_BYTES: usize = 4;
const PUBLIC_MODE: u32 = 0o644;
const PRIVATE_MODE: u32 = 0o600;

/// Why a durable file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// There is no such file.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("no permission to {doing} {}; check its owner and mode", path.display())]
    Denied {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
    },
    /// Any other fault of the disk or file system.
    #[error("cannot {doing} {}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// Larger than the reader allows.
    #[error("{} is larger than the limit of {limit_bytes} bytes", path.display())]
    TooBig {
        /// The file.
        path: PathBuf,
        /// The reader's limit.
        limit_bytes: u64,
    },
    /// The file ends early or goes on too long: a write that was not finished, or a copy cut short.
    #[error("{} is torn: {have_bytes} bytes where {want_bytes} belong; restore it from a good copy", path.display())]
    Torn {
        /// The file.
        path: PathBuf,
        /// Bytes it should have.
        want_bytes: u64,
        /// Bytes it has.
        have_bytes: u64,
    },
    /// Its content is not what was written.
    #[error("{} is damaged: {why}; restore it from a good copy", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
}

impl DurableError {
    /// Whether the file simply is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    /// Whether a folder's sync failed because nothing can be made in it: it is another owner's, or of a file system that is
    /// only read or has nothing to sync. So we made nothing there that would wait for a sync.
    fn is_of_foreign_folder(&self) -> bool {
        match self {
            Self::Denied { .. } => true,
            Self::Io { cause, .. } => {
                matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::ReadOnlyFilesystem)
            }
            _ => false,
        }
    }

    fn from_io(path: &Path, doing: &'static str, cause: io::Error) -> Self {
        let path = path.to_owned();
        match cause.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::PermissionDenied => Self::Denied { path, doing },
            _ => Self::Io { path, doing, cause },
        }
    }
}

/// What a sealed file held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The writer's format version.
    pub version: u8,
    /// The payload.
    pub bytes: Vec<u8>,
}

/// Replaces `path` by `bytes` (mode 0644): afterwards the file is wholly old or wholly new, and new once this returns.
/// One writer per path at a time: the file written aside has a fixed name.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    replace(path, bytes, PUBLIC_MODE)
}

/// Like [`write_atomic`], readable by its owner only (mode 0600) from the first byte on.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    replace(path, bytes, PRIVATE_MODE)
}

/// Like [`write_private`], for readers of this boot only: nothing is synced, so a power cut may leave the old file, the new
/// one, or one that is torn.
pub fn write_for_boot(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let failed = |cause| DurableError::from_io(path, "write", cause);
    let (aside, mut file) = create_aside(path, PRIVATE_MODE).map_err(failed)?;
    file.write_all(bytes).and_then(|()| fs::rename(&aside, path)).map_err(failed)
}

/// Writes `bytes` with a version, a length and a checksum (mode 0600), so that a reader can tell damage from absence.
pub fn write_sealed(path: &Path, version: u8, bytes: &[u8]) -> Result<(), DurableError> {
    let mut whole = Vec::with_capacity(HEADER_BYTES + bytes.len() + CRC_BYTES);
    whole.extend_from_slice(&MAGIC);
    whole.push(version);
    whole.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    whole.extend_from_slice(bytes);
    whole.extend_from_slice(&crc32fast::hash(&whole).to_le_bytes());
    replace(path, &whole, PRIVATE_MODE)
}

/// Reads what [`write_sealed`] wrote; a payload above `limit_bytes` is refused.
pub fn read_sealed(path: &Path, limit_bytes: u64) -> Result<Sealed, DurableError> {
    let frame_bytes = (HEADER_BYTES + CRC_BYTES) as u64;
    let whole = read_limited(path, limit_bytes.saturating_add(frame_bytes))?;
    let have_bytes = whole.len() as u64;
    let damaged = |why| DurableError::Damaged { path: path.to_owned(), why };
    if !whole.starts_with(&MAGIC[..whole.len().min(MAGIC.len())]) {
        return Err(damaged("it does not begin as a sealed file does"));
    }
    let torn = |want_bytes| DurableError::Torn { path: path.to_owned(), want_bytes, have_bytes };
    if have_bytes < frame_bytes {
        return Err(torn(frame_bytes));
    }
    let mut length = [0; 8];
    length.copy_from_slice(&whole[5..HEADER_BYTES]);
    let want_bytes = u64::from_le_bytes(length).saturating_add(frame_bytes);
    if want_bytes != have_bytes {
        return Err(torn(want_bytes));
    }
    let (body, crc) = whole.split_at(whole.len() - CRC_BYTES);
    if crc32fast::hash(body).to_le_bytes() != crc {
        return Err(damaged("its checksum does not match its content"));
    }
    Ok(Sealed { version: whole[4], bytes: body[HEADER_BYTES..].to_vec() })
}

/// Reads a whole file of at most `limit_bytes`.
pub fn read_limited(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, DurableError> {
    let failed = |cause| DurableError::from_io(path, "read", cause);
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(DurableError::TooBig { path: path.to_owned(), limit_bytes });
    }
    Ok(bytes)
}

/// Makes a folder (mode 0700) and its missing parents, each synced into its parent. An existing folder is left as it is, and
/// synced into its parent as well: who made it may have been killed before that.
pub fn create_folder(path: &Path) -> Result<(), DurableError> {
    make_with_parents(path, &mut |parent| sync_folder(parent))
}

/// Like [`create_folder`], but nothing is synced: a power cut may take the folder away.
pub fn make_folder(path: &Path) -> Result<(), DurableError> {
    make_with_parents(path, &mut |_| Ok(()))
}

fn make_with_parents(
    path: &Path,
    settle: &mut dyn FnMut(&Path) -> Result<(), DurableError>,
) -> Result<(), DurableError> {
    let failed = |cause| DurableError::from_io(path, "create the folder", cause);
    let parent = folder_of(path);
    if path.is_dir() {
        return match settle(parent) {
            Err(error) if error.is_of_foreign_folder() => Ok(()),
            settled => settled,
        };
    }
    if parent != path {
        make_with_parents(parent, settle)?;
    }
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)?,
        // Another thread may have made it between the look and the call.
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(cause) => return Err(failed(cause)),
    }
    settle(parent)
}

/// Renames `from` to `to` in one folder: afterwards `to` is wholly old or wholly new, and new for good once this returns.
pub fn put_in_place(from: &Path, to: &Path) -> Result<(), DurableError> {
    fs::rename(from, to).map_err(|cause| DurableError::from_io(from, "rename", cause))?;
    sync_folder(folder_of(to))
}

/// Removes a file for good; one that is not there is no error.
pub fn remove(path: &Path) -> Result<(), DurableError> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(folder_of(path)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(DurableError::from_io(path, "remove", cause)),
    }
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DurableError> {
    let failed = |cause| DurableError::from_io(path, "write", cause);
    let (aside, mut file) = create_aside(path, mode).map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.and_then(|()| fs::rename(&aside, path)).map_err(failed)?;
    sync_folder(folder_of(path))
}

/// The file that will be renamed to `path`, and its own path.
fn create_aside(path: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    // A leftover of a crash may have another mode, so it is never written into.
    match fs::remove_file(&aside) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
    Ok((aside, file))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

fn sync_folder(folder: &Path) -> Result<(), DurableError> {
    let synced = File::open(folder).and_then(|opened| opened.sync_all());
    synced.map_err(|cause| DurableError::from_io(folder, "sync the folder", cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1_024;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("written").permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_aside() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let path = folder.path().join("a/b/value");
        create_folder(path.parent().expect("has one")).expect("created");
        fs::write(path.with_file_name("value.new"), "left by a crash").expect("written");
        write_atomic(&path, b"one").expect("first");
        write_private(&path, b"two").expect("second");
        assert_eq!(read_limited(&path, LIMIT).expect("read"), b"two");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(folder.path().join("a/b")).expect("listed").count(), 1);
        remove(&path).expect("removed");
        remove(&path).expect("gone already");
        assert!(read_limited(&path, LIMIT).expect_err("gone").is_missing());
        assert!(matches!(write_atomic(&folder.path().join("no/x"), b""), Err(DurableError::Missing { .. })));
    }

    #[test]
    fn a_folder_found_there_is_synced_into_its_parent_like_a_new_one() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let (old, new) = (folder.path().join("old"), folder.path().join("old/a/b"));
        fs::create_dir(&old).expect("created");
        let mut synced = Vec::new();
        let mut settle = |parent: &Path| -> Result<(), DurableError> {
            synced.push(parent.to_owned());
            Ok(())
        };
        make_with_parents(&old, &mut settle).expect("it is there");
        make_with_parents(&new, &mut settle).expect("made");
        let (top, a) = (folder.path().to_owned(), old.join("a"));
        assert_eq!(synced, [top.clone(), top, old, a]);
    }

    #[test]
    fn a_parent_in_which_we_could_make_nothing_need_not_be_synced_and_a_failed_disk_is_told_of() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let settled = |errno| {
            let failed = |parent: &Path| DurableError::from_io(parent, "sync", io::Error::from_raw_os_error(errno));
            make_with_parents(folder.path(), &mut |parent| Err(failed(parent)))
        };
        let (denied, no_sync, read_only, failed) = (13, 22, 30, 5);
        assert!([denied, no_sync, read_only].into_iter().all(|errno| settled(errno).is_ok()));
        assert!(matches!(settled(failed), Err(DurableError::Io { .. })));
    }

    #[test]
    fn what_is_for_this_boot_is_replaced_whole_and_private_too() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let path = folder.path().join("a/b/value");
        make_folder(path.parent().expect("has one")).expect("made");
        assert_eq!(mode(path.parent().expect("has one")), 0o700);
        fs::write(path.with_file_name("value.new"), "left by a crash").expect("written");
        for text in [b"one".as_slice(), b"three"] {
            write_for_boot(&path, text).expect("written");
            assert_eq!((read_limited(&path, LIMIT).expect("read"), mode(&path)), (text.to_vec(), 0o600));
        }
        assert_eq!(fs::read_dir(folder.path().join("a/b")).expect("listed").count(), 1);
    }

    #[test]
    fn every_cut_is_torn_and_every_flipped_bit_is_noticed() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let path = folder.path().join("sealed");
        assert!(read_sealed(&path, LIMIT).expect_err("absent").is_missing());
        write_sealed(&path, 3, b"precious").expect("written");
        let whole = Sealed { version: 3, bytes: b"precious".to_vec() };
        assert_eq!(read_sealed(&path, LIMIT).expect("read"), whole);
        let good = fs::read(&path).expect("read");
        for cut in 0..good.len() {
            fs::write(&path, &good[..cut]).expect("cut");
            let seen = read_sealed(&path, LIMIT).expect_err("cut short");
            assert!(matches!(seen, DurableError::Torn { .. }), "cut at {cut}: {seen}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).expect("flipped");
            let seen = read_sealed(&path, LIMIT).expect_err("flipped");
            assert!(matches!(seen, DurableError::Torn { .. } | DurableError::Damaged { .. }), "bit {bit}: {seen}");
        }
    }

    #[test]
    fn a_file_over_the_limit_is_refused_without_reading_it_all() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let path = folder.path().join("big");
        write_atomic(&path, &[0; 11]).expect("written");
        assert!(matches!(read_limited(&path, 10), Err(DurableError::TooBig { limit_bytes: 10, .. })));
        assert_eq!(read_limited(&path, 11).expect("just fits").len(), 11);
    }
}
