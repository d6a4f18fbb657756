//! Reads `/proc`: who runs, since when, as whose child, and with which mark.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Names one process of one boot for good: a PID alone is used again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub pid: u32,
    /// Clock ticks from the boot to its start (field 22 of its `stat`).
    pub start_ticks: u64,
    pub boot_id: String,
}

/// The parts of `/proc/<pid>/stat` we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub parent: u32,
    pub state: char,
    pub start_ticks: u64,
}

/// `None` when there is no such process (any more).
pub fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name in parentheses may hold spaces and parentheses itself.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// Every PID of the machine.
pub fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The value of an environment variable as the process was started with it. For a moment after a
/// program is executed the kernel shows none.
pub fn started_with(pid: u32, variable: &str) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environ.split(|&byte| byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(variable.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// All processes below `roots` (not the roots), from one look at the process table.
pub fn descendants(roots: &BTreeSet<u32>) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in pids() {
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut open: Vec<u32> = roots.iter().copied().collect();
    while let Some(pid) = open.pop() {
        for &child in children.get(&pid).map_or(&[][..], Vec::as_slice) {
            if found.insert(child) {
                open.push(child);
            }
        }
    }
    found
}

/// A random id from the kernel: 36 characters, unique among all that anyone draws.
pub fn random_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

impl ProcessIdentity {
    /// The process that has this PID now.
    pub fn of(pid: u32, boot_id: &str) -> Option<Self> {
        let start_ticks = stat(pid)?.start_ticks;
        Some(Self { pid, start_ticks, boot_id: boot_id.to_owned() })
    }

    /// A handle on exactly this process; `None` when it is gone, even if another one has its PID.
    ///
    /// The identity is checked *after* the handle is open: from then on the handle can only mean
    /// the process that was checked, whatever becomes of the PID.
    pub fn open(&self, boot_id: &str) -> io::Result<Option<PidFd>> {
        if self.boot_id != boot_id {
            return Ok(None);
        }
        let Some(handle) = PidFd::open(self.pid)? else { return Ok(None) };
        match stat(self.pid) {
            Some(stat) if stat.start_ticks == self.start_ticks && stat.state != 'Z' => Ok(Some(handle)),
            _ => Ok(None),
        }
    }
}

/// A kernel handle on one process.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    fn open(pid: u32) -> io::Result<Option<Self>> {
        // SAFETY: a system call without pointers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) };
        }
        // SAFETY: the kernel has just given us this descriptor, close-on-exec, and nobody else has it.
        Ok(Some(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) })))
    }

    /// False when the process is gone already.
    pub fn signal(&self, signal: i32) -> io::Result<bool> {
        // SAFETY: the null pointer asks for the default siginfo.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if result == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ESRCH) { Ok(false) } else { Err(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    const BOOT: &str = "this-boot";

    #[test]
    fn a_stat_line_is_read_past_a_name_with_parentheses() {
        let line = "77 (a b) c) S 12 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        assert_eq!(parse_stat(line), Some(Stat { parent: 12, state: 'S', start_ticks: 4242 }));
        assert_eq!(parse_stat("77 (a"), None);
    }

    #[test]
    fn a_recycled_pid_is_never_signalled() {
        let mut child = Command::new("/bin/sleep").arg("60").stdout(Stdio::null()).spawn().expect("sleep runs");
        let right = ProcessIdentity::of(child.id(), BOOT).expect("it runs");
        let recycled = ProcessIdentity { start_ticks: right.start_ticks - 1, ..right.clone() };
        assert!(recycled.open(BOOT).expect("looked at").is_none(), "another process's PID was opened");
        assert!(right.open("another-boot").expect("looked at").is_none(), "a PID of another boot was opened");
        assert!(stat(child.id()).is_some_and(|stat| stat.state != 'Z'), "the innocent process was signalled");
        let handle = right.open(BOOT).expect("looked at").expect("it runs");
        assert!(handle.signal(libc::SIGKILL).expect("allowed"));
        child.wait().expect("ours");
        assert!(!handle.signal(libc::SIGKILL).expect("gone"));
        assert!(right.open(BOOT).expect("looked at").is_none());
    }

    #[test]
    fn the_mark_of_a_process_is_found() {
        let mut child =
            Command::new("/bin/sleep").arg("60").env("MUSTER_MARK_TEST", "here").spawn().expect("sleep runs");
        // The kernel shows a new program's environment a moment after it lets the parent go on.
        let found = (0..1_000_000).find_map(|_| started_with(child.id(), "MUSTER_MARK_TEST"));
        assert_eq!(found.as_deref(), Some("here"));
        assert!(descendants(&BTreeSet::from([std::process::id()])).contains(&child.id()));
        child.kill().expect("ours");
        child.wait().expect("ours");
    }
}
