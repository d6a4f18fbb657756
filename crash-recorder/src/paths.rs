//! Where a path of a call leads, as far as text can tell.

use std::ffi::{CStr, c_char, c_int};

/// The absolute path, without `.` and `..`, of a name as a call gives it. None for a null pointer.
pub unsafe fn absolute(dir_fd: c_int, name: *const c_char) -> Option<Vec<u8>> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller of the C function promises a C string.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    if name.first() == Some(&b'/') {
        return Some(normal(name));
    }
    let mut whole = match dir_fd {
        libc::AT_FDCWD => link(c"/proc/self/cwd")?,
        fd => of_fd(fd)?,
    };
    whole.push(b'/');
    whole.extend_from_slice(name);
    Some(normal(&whole))
}

/// The path behind a descriptor.
pub fn of_fd(fd: c_int) -> Option<Vec<u8>> {
    link(&std::ffi::CString::new(format!("/proc/self/fd/{fd}")).ok()?)
}

fn link(path: &CStr) -> Option<Vec<u8>> {
    let mut target = vec![0; libc::PATH_MAX as usize];
    // SAFETY: a C string and a buffer of the length said.
    let length = unsafe {
        libc::syscall(libc::SYS_readlinkat, libc::AT_FDCWD, path.as_ptr(), target.as_mut_ptr(), target.len())
    };
    target.truncate(usize::try_from(length).ok()?);
    Some(target)
}

fn normal(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut whole = Vec::new();
    for part in parts {
        whole.push(b'/');
        whole.extend_from_slice(part);
    }
    whole
}
