//! What is watched: the folder, the files met below it, and the one lock that gives all events an order.

use crate::paths;
use crate::record::{Event, Record};
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;
use std::sync::{Mutex, MutexGuard, OnceLock};

/// A file as the system numbers it; the number is used again after the last name and handle are gone.
type Inode = (u64, u64);

pub struct Watch {
    folder: Vec<u8>,
    fail_sync: Option<CString>,
    record: Record,
    ids: HashMap<Inode, u64>,
    next_id: u64,
    next_token: u64,
}

/// The watch, locked; none when nothing is watched.
pub fn watch() -> Option<MutexGuard<'static, Watch>> {
    static WATCH: OnceLock<Option<Mutex<Watch>>> = OnceLock::new();
    let watch = WATCH.get_or_init(|| Watch::from_environment().map(Mutex::new)).as_ref()?;
    Some(watch.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

impl Watch {
    fn from_environment() -> Option<Self> {
        let folder = std::env::var_os("MUSTER_CRASH_DIR")?.into_vec();
        let variable = |name| CString::new(std::env::var_os(name)?.into_vec()).ok();
        let Some(record) = variable("MUSTER_CRASH_RECORD").and_then(|path| Record::open(&path)) else {
            eprintln!("crash-recorder: MUSTER_CRASH_RECORD names no file that can be written");
            std::process::abort();
        };
        let fail_sync = variable("MUSTER_CRASH_FAIL_SYNC");
        Some(Watch { folder, fail_sync, record, ids: HashMap::new(), next_id: 0, next_token: 0 })
    }

    pub fn put(&self, event: &Event<'_>) {
        self.record.put(event);
    }

    /// The path below the folder; empty for the folder itself.
    pub unsafe fn below(&self, dir_fd: c_int, name: *const c_char) -> Option<Vec<u8>> {
        // SAFETY: as the caller promises.
        let path = unsafe { paths::absolute(dir_fd, name) }?;
        self.relative(&path)
    }

    fn relative(&self, path: &[u8]) -> Option<Vec<u8>> {
        match path.strip_prefix(&self.folder[..])? {
            b"" => Some(Vec::new()),
            [b'/', rest @ ..] => Some(rest.to_vec()),
            _ => None,
        }
    }

    /// Gives a file that was just created an id of its own.
    pub fn created(&mut self, fd: c_int, path: &[u8]) {
        let Some((inode, _)) = look(fd) else { return };
        let id = self.new_id(inode);
        self.put(&Event::Created { id, path });
    }

    /// The same for a folder, by its path.
    pub unsafe fn folder_created(&mut self, dir_fd: c_int, name: *const c_char, path: &[u8]) {
        let flags = libc::O_DIRECTORY | libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: as the caller promises.
        let fd = unsafe { libc::syscall(libc::SYS_openat, dir_fd, name, flags, 0) } as c_int;
        if let Some((inode, _)) = look(fd) {
            let id = self.new_id(inode);
            self.put(&Event::Folder { id, path });
        }
        // SAFETY: our own descriptor.
        unsafe { libc::syscall(libc::SYS_close, fd) };
    }

    /// An existing file was opened: below the folder it gets an id at first sight; elsewhere a number used again is forgotten.
    pub fn opened(&mut self, fd: c_int, path: Option<&[u8]>) {
        let Some((inode, _)) = look(fd) else { return };
        match path {
            Some(path) if !self.ids.contains_key(&inode) => {
                let id = self.new_id(inode);
                self.put(&Event::Known { id, path });
            }
            Some(_) => {}
            None => drop(self.ids.remove(&inode)),
        }
    }

    fn new_id(&mut self, inode: Inode) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.ids.insert(inode, id);
        id
    }

    /// The id of a watched file.
    pub fn id_of(&self, fd: c_int) -> Option<u64> {
        let (inode, _) = look(fd)?;
        self.ids.get(&inode).copied()
    }

    /// The id of a watched file by its path.
    pub unsafe fn id_at(&self, dir_fd: c_int, name: *const c_char) -> Option<u64> {
        let mut stat = MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: as the caller promises; the buffer is a `stat`.
        let stat = unsafe {
            let code = libc::syscall(libc::SYS_newfstatat, dir_fd, name, stat.as_mut_ptr(), 0);
            (code == 0).then(|| stat.assume_init())
        }?;
        self.ids.get(&(stat.st_dev, stat.st_ino)).copied()
    }

    pub fn next_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Whether a test has asked for the next sync to fail; asks only once.
    pub fn takes_failure(&self) -> bool {
        let Some(path) = &self.fail_sync else { return false };
        // SAFETY: a C string that lives through the call.
        unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path.as_ptr(), 0) == 0 }
    }
}

/// The number and length of a regular file or folder.
pub fn look(fd: c_int) -> Option<(Inode, u64)> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the buffer is a `stat`.
    let stat = unsafe {
        let code = libc::syscall(libc::SYS_fstat, fd, stat.as_mut_ptr());
        (code == 0).then(|| stat.assume_init())
    }?;
    let kind = stat.st_mode & libc::S_IFMT;
    let kept = kind == libc::S_IFREG || kind == libc::S_IFDIR;
    kept.then(|| ((stat.st_dev, stat.st_ino), u64::try_from(stat.st_size).unwrap_or(0)))
}
