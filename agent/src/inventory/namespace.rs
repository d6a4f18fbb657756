//! Whether ranks can be put into a PID namespace, which the kernel empties when its first process dies.

/// True when a child of this process may make a PID namespace, as root or through a user namespace.
///
/// Tried in a forked child rather than guessed from ids: containers, security modules and sysctls each
/// have their own say. Costs one fork; leaves nothing behind.
pub fn pid_namespace_permitted() -> bool {
    try_unshare(libc::CLONE_NEWPID) || try_unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID)
}

fn try_unshare(flags: libc::c_int) -> bool {
    // SAFETY: between fork and _exit the child makes two system calls and touches no memory, lock or
    // allocator, so the state of the parent's other threads does not matter.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            let refused = libc::unshare(flags) != 0;
            libc::_exit(i32::from(refused));
        }
    }
    if child < 0 {
        return false;
    }
    let mut status = 0;
    loop {
        // SAFETY: waits for the one child made above; `status` is valid for writes.
        let waited = unsafe { libc::waitpid(child, &mut status, 0) };
        if waited == child {
            return libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
        }
        // Somebody else reaped it, or a signal came: only the latter is worth another try.
        if std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn asking_twice_gives_the_same_answer() {
        assert_eq!(super::pid_namespace_permitted(), super::pid_namespace_permitted());
    }
}
