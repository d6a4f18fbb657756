//! Ways to write that the record cannot follow. They work as ever, and the record says that it is not whole.

use crate::record::Event;
use crate::watch::watch;
use libc::{off_t, size_t, ssize_t};
use std::ffi::{c_int, c_uint, c_void};

fn unseen(fd: c_int, what: &[u8]) {
    if let Some(watch) = watch()
        && watch.id_of(fd).is_some()
    {
        watch.put(&Event::Unseen { what });
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    address: *mut c_void,
    length: size_t,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    if fd >= 0 && flags & libc::MAP_TYPE != libc::MAP_PRIVATE && protection & libc::PROT_WRITE != 0 {
        unseen(fd, b"a shared writable map of a file");
    }
    unsafe { libc::syscall(libc::SYS_mmap, address, length, protection, flags, fd, offset) as *mut c_void }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    address: *mut c_void,
    length: size_t,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    unsafe { mmap(address, length, protection, flags, fd, offset) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn copy_file_range(
    from: c_int,
    from_offset: *mut off_t,
    to: c_int,
    to_offset: *mut off_t,
    length: size_t,
    flags: c_uint,
) -> ssize_t {
    unseen(to, b"copy_file_range");
    unsafe { libc::syscall(libc::SYS_copy_file_range, from, from_offset, to, to_offset, length, flags) as ssize_t }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendfile(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    unseen(to, b"sendfile");
    unsafe { libc::syscall(libc::SYS_sendfile, to, from, offset, count) as ssize_t }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendfile64(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    unsafe { sendfile(to, from, offset, count) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn splice(
    from: c_int,
    from_offset: *mut off_t,
    to: c_int,
    to_offset: *mut off_t,
    length: size_t,
    flags: c_uint,
) -> ssize_t {
    unseen(to, b"splice");
    unsafe { libc::syscall(libc::SYS_splice, from, from_offset, to, to_offset, length, flags) as ssize_t }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwritev2(
    fd: c_int,
    parts: *const libc::iovec,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    unseen(fd, b"pwritev2");
    unsafe { libc::syscall(libc::SYS_pwritev2, fd, parts, count, offset, 0, flags) as ssize_t }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwritev64v2(
    fd: c_int,
    parts: *const libc::iovec,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    unsafe { pwritev2(fd, parts, count, offset, flags) }
}
