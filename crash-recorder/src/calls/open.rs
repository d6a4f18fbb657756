//! Opening and creating files.

use crate::record::Event;
use crate::watch::{look, watch};
use libc::mode_t;
use std::ffi::{c_char, c_int};

unsafe fn raw(dir_fd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    unsafe { libc::syscall(libc::SYS_openat, dir_fd, path, flags, mode) as c_int }
}

unsafe fn exists(dir_fd: c_int, path: *const c_char) -> bool {
    unsafe { libc::syscall(libc::SYS_faccessat, dir_fd, path, libc::F_OK) == 0 }
}

unsafe fn open_recorded(dir_fd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    let Some(mut watch) = watch() else {
        return unsafe { raw(dir_fd, path, flags, mode) };
    };
    let below = unsafe { watch.below(dir_fd, path) };
    let Some(below) = below else {
        let fd = unsafe { raw(dir_fd, path, flags, mode) };
        if fd >= 0 {
            watch.opened(fd, None);
        }
        return fd;
    };
    if flags & libc::O_TMPFILE == libc::O_TMPFILE {
        watch.put(&Event::Unseen { what: b"open with O_TMPFILE" });
    }
    let was_there = unsafe { exists(dir_fd, path) };
    let fd = unsafe { raw(dir_fd, path, flags, mode) };
    if fd < 0 {
        return fd;
    }
    if !was_there && flags & libc::O_CREAT != 0 {
        watch.created(fd, &below);
        return fd;
    }
    watch.opened(fd, Some(&below));
    if flags & libc::O_TRUNC != 0
        && let Some(id) = watch.id_of(fd)
        && look(fd).is_some_and(|(_, length)| length == 0)
    {
        watch.put(&Event::Length { id, length: 0 });
    }
    fd
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    unsafe { open_recorded(libc::AT_FDCWD, path, flags, mode) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    unsafe { open_recorded(libc::AT_FDCWD, path, flags, mode) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat(dir_fd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    unsafe { open_recorded(dir_fd, path, flags, mode) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat64(dir_fd: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    unsafe { open_recorded(dir_fd, path, flags, mode) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn creat(path: *const c_char, mode: mode_t) -> c_int {
    let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
    unsafe { open_recorded(libc::AT_FDCWD, path, flags, mode) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn creat64(path: *const c_char, mode: mode_t) -> c_int {
    unsafe { creat(path, mode) }
}
