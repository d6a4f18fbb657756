//! Bytes and lengths.

use crate::calls::sync::recorded_at_once;
use crate::record::Event;
use crate::watch::{Watch, look, watch};
use libc::{iovec, off_t, size_t, ssize_t};
use std::ffi::{c_char, c_int, c_void};

/// Where a write goes.
#[derive(Clone, Copy)]
enum At {
    Cursor,
    Offset(off_t),
}

/// Writes, and records as many bytes as the system took.
unsafe fn write_recorded(fd: c_int, parts: &[iovec], at: At, call: impl FnOnce() -> ssize_t) -> ssize_t {
    let watched = look(fd).and_then(|_| watch()).and_then(|watch| watch.id_of(fd).map(|id| (watch, id)));
    let Some((mut watch, id)) = watched else {
        return call();
    };
    let wrote = call();
    let Some(count) = usize::try_from(wrote).ok().filter(|count| *count > 0) else {
        return wrote;
    };
    let flags = unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_GETFL) } as c_int;
    let end = match at {
        _ if flags & libc::O_APPEND != 0 => look(fd).map_or(0, |(_, length)| length),
        At::Offset(offset) => u64::try_from(offset).unwrap_or(0) + count as u64,
        At::Cursor => {
            let cursor = unsafe { libc::syscall(libc::SYS_lseek, fd, 0, libc::SEEK_CUR) };
            u64::try_from(cursor).unwrap_or(0)
        }
    };
    let bytes = unsafe { joined(parts, count) };
    watch.put(&Event::Written { id, offset: end - count as u64, bytes: &bytes });
    // O_SYNC contains the bit of O_DSYNC; either brings data and length to the disk.
    if flags & libc::O_DSYNC != 0 {
        recorded_at_once(&mut watch, id);
    }
    wrote
}

unsafe fn joined(parts: &[iovec], count: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count);
    for part in parts {
        let take = part.iov_len.min(count - bytes.len());
        // SAFETY: the caller of the C function promises readable parts.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(part.iov_base.cast::<u8>(), take) });
        if bytes.len() == count {
            break;
        }
    }
    bytes
}

fn one(buffer: *const c_void, count: size_t) -> [iovec; 1] {
    [iovec { iov_base: buffer.cast_mut(), iov_len: count }]
}

unsafe fn parts_of<'a>(parts: *const iovec, count: c_int) -> &'a [iovec] {
    match usize::try_from(count) {
        Ok(count) if count > 0 && !parts.is_null() => unsafe { std::slice::from_raw_parts(parts, count) },
        _ => &[],
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, count: size_t) -> ssize_t {
    let call = || unsafe { libc::syscall(libc::SYS_write, fd, buffer, count) as ssize_t };
    unsafe { write_recorded(fd, &one(buffer, count), At::Cursor, call) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    let call = || unsafe { libc::syscall(libc::SYS_writev, fd, parts, count) as ssize_t };
    unsafe { write_recorded(fd, parts_of(parts, count), At::Cursor, call) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite(fd: c_int, buffer: *const c_void, count: size_t, offset: off_t) -> ssize_t {
    let call = || unsafe { libc::syscall(libc::SYS_pwrite64, fd, buffer, count, offset) as ssize_t };
    unsafe { write_recorded(fd, &one(buffer, count), At::Offset(offset), call) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, buffer: *const c_void, count: size_t, offset: off_t) -> ssize_t {
    unsafe { pwrite(fd, buffer, count, offset) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwritev(fd: c_int, parts: *const iovec, count: c_int, offset: off_t) -> ssize_t {
    // The system call takes the offset in two halves; a 64-bit kernel reads all of it from the first.
    let call = || unsafe { libc::syscall(libc::SYS_pwritev, fd, parts, count, offset, 0) as ssize_t };
    unsafe { write_recorded(fd, parts_of(parts, count), At::Offset(offset), call) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwritev64(fd: c_int, parts: *const iovec, count: c_int, offset: off_t) -> ssize_t {
    unsafe { pwritev(fd, parts, count, offset) }
}

fn length_set(watch: &Watch, id: Option<u64>, length: off_t) {
    if let (Some(id), Ok(length)) = (id, u64::try_from(length)) {
        watch.put(&Event::Length { id, length });
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate(fd: c_int, length: off_t) -> c_int {
    let watch = watch();
    let code = unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) as c_int };
    if let Some(watch) = watch.filter(|_| code == 0) {
        length_set(&watch, watch.id_of(fd), length);
    }
    code
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate64(fd: c_int, length: off_t) -> c_int {
    unsafe { ftruncate(fd, length) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn truncate(path: *const c_char, length: off_t) -> c_int {
    let watch = watch();
    let code = unsafe { libc::syscall(libc::SYS_truncate, path, length) as c_int };
    if let Some(watch) = watch.filter(|_| code == 0) {
        length_set(&watch, unsafe { watch.id_at(libc::AT_FDCWD, path) }, length);
    }
    code
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn truncate64(path: *const c_char, length: off_t) -> c_int {
    unsafe { truncate(path, length) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fallocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
    let watch = watch();
    let before = look(fd).map_or(0, |(_, length)| length);
    let code = unsafe { libc::syscall(libc::SYS_fallocate, fd, mode, offset, length) as c_int };
    let Some(watch) = watch.filter(|_| code == 0) else {
        return code;
    };
    let Some(id) = watch.id_of(fd) else { return code };
    match mode {
        0 => {
            if let Some(after) = look(fd).map(|(_, length)| length).filter(|after| *after != before) {
                watch.put(&Event::Length { id, length: after });
            }
        }
        // Room without a length changes nothing that can be read.
        libc::FALLOC_FL_KEEP_SIZE => {}
        _ => watch.put(&Event::Unseen { what: b"fallocate that moves or zeroes bytes" }),
    }
    code
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fallocate64(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
    unsafe { fallocate(fd, mode, offset, length) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_fallocate(fd: c_int, offset: off_t, length: off_t) -> c_int {
    match unsafe { fallocate(fd, 0, offset, length) } {
        0 => 0,
        _ => unsafe { *libc::__errno_location() },
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_fallocate64(fd: c_int, offset: off_t, length: off_t) -> c_int {
    unsafe { posix_fallocate(fd, offset, length) }
}
