//! Names in folders.

use crate::record::Event;
use crate::watch::watch;
use libc::{c_uint, mode_t};
use std::ffi::{c_char, c_int};

const HERE: c_int = libc::AT_FDCWD;

unsafe fn rename_recorded(
    from_fd: c_int,
    from: *const c_char,
    to_fd: c_int,
    to: *const c_char,
    flags: c_uint,
) -> c_int {
    let call = || unsafe { libc::syscall(libc::SYS_renameat2, from_fd, from, to_fd, to, flags) as c_int };
    let Some(watch) = watch() else { return call() };
    let (below_from, below_to) = unsafe { (watch.below(from_fd, from), watch.below(to_fd, to)) };
    let code = call();
    match (code, below_from, below_to) {
        (0, Some(from), Some(to)) if flags & libc::RENAME_EXCHANGE == 0 => {
            watch.put(&Event::Renamed { from: &from, to: &to });
        }
        (0, None, None) => {}
        (0, ..) => watch.put(&Event::Unseen { what: b"a rename that exchanges, or that crosses the folder's edge" }),
        _ => {}
    }
    code
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    unsafe { rename_recorded(HERE, from, HERE, to, 0) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn renameat(from_fd: c_int, from: *const c_char, to_fd: c_int, to: *const c_char) -> c_int {
    unsafe { rename_recorded(from_fd, from, to_fd, to, 0) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn renameat2(
    from_fd: c_int,
    from: *const c_char,
    to_fd: c_int,
    to: *const c_char,
    flags: c_uint,
) -> c_int {
    unsafe { rename_recorded(from_fd, from, to_fd, to, flags) }
}

unsafe fn remove_recorded(dir_fd: c_int, path: *const c_char, flags: c_int) -> c_int {
    let call = || unsafe { libc::syscall(libc::SYS_unlinkat, dir_fd, path, flags) as c_int };
    let Some(watch) = watch() else { return call() };
    let below = unsafe { watch.below(dir_fd, path) };
    let code = call();
    if let (0, Some(path)) = (code, below) {
        watch.put(&Event::Removed { path: &path });
    }
    code
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    unsafe { remove_recorded(HERE, path, 0) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlinkat(dir_fd: c_int, path: *const c_char, flags: c_int) -> c_int {
    unsafe { remove_recorded(dir_fd, path, flags) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmdir(path: *const c_char) -> c_int {
    unsafe { remove_recorded(HERE, path, libc::AT_REMOVEDIR) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn remove(path: *const c_char) -> c_int {
    let file = unsafe { remove_recorded(HERE, path, 0) };
    let is_folder = file != 0 && unsafe { *libc::__errno_location() } == libc::EISDIR;
    if is_folder { unsafe { remove_recorded(HERE, path, libc::AT_REMOVEDIR) } } else { file }
}

unsafe fn folder_recorded(dir_fd: c_int, path: *const c_char, mode: mode_t) -> c_int {
    let call = || unsafe { libc::syscall(libc::SYS_mkdirat, dir_fd, path, mode) as c_int };
    let Some(mut watch) = watch() else { return call() };
    let below = unsafe { watch.below(dir_fd, path) };
    let code = call();
    if let (0, Some(below)) = (code, below) {
        unsafe { watch.folder_created(dir_fd, path, &below) };
    }
    code
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    unsafe { folder_recorded(HERE, path, mode) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mkdirat(dir_fd: c_int, path: *const c_char, mode: mode_t) -> c_int {
    unsafe { folder_recorded(dir_fd, path, mode) }
}

unsafe fn link_recorded(from_fd: c_int, from: *const c_char, to_fd: c_int, to: *const c_char, flags: c_int) -> c_int {
    let call = || unsafe { libc::syscall(libc::SYS_linkat, from_fd, from, to_fd, to, flags) as c_int };
    let Some(watch) = watch() else { return call() };
    let (below_from, below_to) = unsafe { (watch.below(from_fd, from), watch.below(to_fd, to)) };
    let code = call();
    match (code, below_from, below_to) {
        (0, Some(from), Some(to)) => watch.put(&Event::Linked { from: &from, to: &to }),
        (0, None, Some(_)) => watch.put(&Event::Unseen { what: b"a link to something outside the folder" }),
        _ => {}
    }
    code
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn link(from: *const c_char, to: *const c_char) -> c_int {
    unsafe { link_recorded(HERE, from, HERE, to, 0) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn linkat(
    from_fd: c_int,
    from: *const c_char,
    to_fd: c_int,
    to: *const c_char,
    flags: c_int,
) -> c_int {
    unsafe { link_recorded(from_fd, from, to_fd, to, flags) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn symlink(target: *const c_char, path: *const c_char) -> c_int {
    unsafe { symlinkat(target, HERE, path) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn symlinkat(target: *const c_char, dir_fd: c_int, path: *const c_char) -> c_int {
    let code = unsafe { libc::syscall(libc::SYS_symlinkat, target, dir_fd, path) as c_int };
    if let Some(watch) = watch().filter(|_| code == 0)
        && unsafe { watch.below(dir_fd, path) }.is_some()
    {
        watch.put(&Event::Unseen { what: b"a symbolic link" });
    }
    code
}
