//! Ends and proves empty the process tree below a shim.
//!
//! In a PID namespace the kernel does it: killing the namespace's first process kills all, and that
//! process cannot be reaped before the last of them is gone. Without one, the shim is the subreaper
//! of everything below it, so walking its descendants until there are no children left does it.

use crate::procfs;
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeSet;

/// One reaped child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub pid: u32,
    pub code: i32,
    /// 0 = none.
    pub signal: u32,
}

/// What a round of reaping found.
pub struct Reaped {
    pub ended: Vec<Ended>,
    /// True when there is no child left, and so no descendant: every orphan below a shim becomes
    /// the child of its namespace's first process or of the shim itself.
    pub empty: bool,
}

/// Reaps all that has ended, without waiting.
pub fn reap() -> Reaped {
    let mut ended = Vec::new();
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => ended.push(Ended { pid: pid.as_raw() as u32, code, signal: 0 }),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                let signal = signal as i32;
                ended.push(Ended { pid: pid.as_raw() as u32, code: 128 + signal, signal: signal as u32 });
            }
            Ok(WaitStatus::StillAlive) => return Reaped { ended, empty: false },
            Err(Errno::ECHILD) => return Reaped { ended, empty: true },
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return Reaped { ended, empty: false },
        }
    }
}

/// SIGKILL to everything below this process. One look may miss what is being forked or cannot be
/// looked at: the caller repeats until [`reap`] says empty.
pub fn kill_descendants(boot_id: &str) {
    let (below, _) = procfs::descendants(&BTreeSet::from([std::process::id()]));
    for pid in below {
        // A failure leaves the process to the next round.
        if let Ok(Some(handle)) = procfs::open(pid, boot_id) {
            let _ = handle.signal(libc::SIGKILL);
        }
    }
}
