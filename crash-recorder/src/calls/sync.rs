//! Syncs. The lock is not held while the disk works: other threads write meanwhile, and what they write is not covered.

use crate::record::{EVERYTHING, Event};
use crate::watch::{Watch, watch};
use libc::{c_uint, off_t, size_t};
use std::ffi::{c_int, c_void};

unsafe fn sync_recorded(id_of: impl FnOnce(&Watch) -> Option<u64>, call: impl FnOnce() -> c_int) -> c_int {
    let began = watch().and_then(|mut watch| {
        let id = id_of(&watch)?;
        let token = watch.next_token();
        watch.put(&Event::SyncBegan { token, id });
        Some((token, watch.takes_failure()))
    });
    let Some((token, fails)) = began else { return call() };
    let code = if fails { -1 } else { call() };
    if let Some(watch) = watch() {
        watch.put(&Event::SyncEnded { token, good: code == 0 });
    }
    if fails {
        unsafe { *libc::__errno_location() = libc::EIO };
    }
    code
}

/// A write through a handle that syncs by itself.
pub fn recorded_at_once(watch: &mut Watch, id: u64) {
    let token = watch.next_token();
    watch.put(&Event::SyncBegan { token, id });
    watch.put(&Event::SyncEnded { token, good: true });
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    let call = || unsafe { libc::syscall(libc::SYS_fsync, fd) as c_int };
    unsafe { sync_recorded(|watch| watch.id_of(fd), call) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    let call = || unsafe { libc::syscall(libc::SYS_fdatasync, fd) as c_int };
    unsafe { sync_recorded(|watch| watch.id_of(fd), call) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn syncfs(fd: c_int) -> c_int {
    let call = || unsafe { libc::syscall(libc::SYS_syncfs, fd) as c_int };
    unsafe { sync_recorded(|watch| watch.id_of(fd).map(|_| EVERYTHING), call) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sync() {
    let call = || unsafe { libc::syscall(libc::SYS_sync) as c_int };
    unsafe { sync_recorded(|_| Some(EVERYTHING), call) };
}

/// Shared writable maps of watched files are refused in the record, so there is nothing to cover.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msync(address: *mut c_void, length: size_t, flags: c_int) -> c_int {
    unsafe { libc::syscall(libc::SYS_msync, address, length, flags) as c_int }
}

/// Starts writeback and neither flushes the disk's cache nor commits lengths: worth nothing after a power cut.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sync_file_range(fd: c_int, offset: off_t, length: off_t, flags: c_uint) -> c_int {
    unsafe { libc::syscall(libc::SYS_sync_file_range, fd, offset, length, flags) as c_int }
}
