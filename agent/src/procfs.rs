//! Reads `/proc`: who runs, since when, as whose child, and with which mark.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

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
    pub threads: u32,
    pub start_ticks: u64,
}

impl Stat {
    /// Whether nothing of it runs. One whose first thread alone has ended is called a zombie, too.
    fn is_over(&self) -> bool {
        matches!(self.state, 'X' | 'x') || self.state == 'Z' && self.threads <= 1
    }
}

/// `None` when there is no such process (any more). Errors: it cannot be looked at, from which nothing follows.
pub fn stat(pid: u32) -> io::Result<Option<Stat>> {
    let Some(bytes) = shown(fs::read(format!("/proc/{pid}/stat")))? else { return Ok(None) };
    // A process may give itself a name that is no text.
    let stat = parse_stat(&String::from_utf8_lossy(&bytes));
    stat.map(Some)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("the stat of process {pid} is torn")))
}

/// `None` where the process is to blame: it is gone, another user's, or has given up the memory that was asked for.
/// Errors: all else, such as a lack of files or of memory on this side.
fn shown<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(seen) => Ok(Some(seen)),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH | libc::EACCES | libc::EPERM | libc::EIO) => Ok(None),
            _ => Err(error),
        },
    }
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name in parentheses may hold spaces and parentheses itself.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        threads: fields.get(17)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// Every PID of the machine. Errors: the table cannot be read, from which nothing follows about who runs.
pub fn pids() -> io::Result<Vec<u32>> {
    pids_in(Path::new("/proc"))
}

/// The same of a table elsewhere.
pub fn pids_in(proc_root: &Path) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir(proc_root)? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// The value of an environment variable as the process was started with it. For a moment after a
/// program is executed the kernel shows none. Errors: it cannot be looked at, from which nothing follows.
pub fn started_with(pid: u32, variable: &str) -> io::Result<Option<String>> {
    let environ = shown(fs::read(format!("/proc/{pid}/environ")))?.unwrap_or_default();
    if !environ.is_empty() {
        return Ok(find_variable(&environ, variable));
    }
    // Without its first thread a process shows nothing itself, but its other threads do.
    if !stat(pid)?.is_some_and(|stat| stat.state == 'Z' && !stat.is_over()) {
        return Ok(None);
    }
    let Some(threads) = shown(fs::read_dir(format!("/proc/{pid}/task")))? else { return Ok(None) };
    for thread in threads {
        let Some(thread) = shown(thread)? else { break };
        let environ = shown(fs::read(thread.path().join("environ")))?.unwrap_or_default();
        if let Some(value) = find_variable(&environ, variable) {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn find_variable(environ: &[u8], variable: &str) -> Option<String> {
    environ.split(|&byte| byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(variable.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// All processes below `roots` (not the roots), from one look at the process table. With an error these are not all: some
/// could not be looked at.
pub fn descendants(roots: &BTreeSet<u32>) -> (BTreeSet<u32>, Option<io::Error>) {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut unseen = None;
    let pids = pids().unwrap_or_else(|error| {
        unseen = Some(error);
        Vec::new()
    });
    for pid in pids {
        match stat(pid) {
            Ok(Some(stat)) => children.entry(stat.parent).or_default().push(pid),
            Ok(None) => {}
            Err(error) => unseen = Some(error),
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
    (found, unseen)
}

/// A handle on the process that has this PID now; `None` when it is gone.
pub fn open(pid: u32, boot_id: &str) -> io::Result<Option<PidFd>> {
    match ProcessIdentity::of(pid, boot_id)? {
        Some(identity) => identity.open(boot_id),
        None => Ok(None),
    }
}

/// A random id from the kernel: 36 characters, unique among all that anyone draws.
pub fn random_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

impl ProcessIdentity {
    /// The process that has this PID now.
    pub fn of(pid: u32, boot_id: &str) -> io::Result<Option<Self>> {
        let identity = |stat: Stat| Self { pid, start_ticks: stat.start_ticks, boot_id: boot_id.to_owned() };
        Ok(stat(pid)?.map(identity))
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
        let is_same = |stat: Stat| stat.start_ticks == self.start_ticks && !stat.is_over();
        Ok(stat(self.pid)?.is_some_and(is_same).then_some(handle))
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
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    const BOOT: &str = "this-boot";

    #[test]
    fn a_stat_line_is_read_past_a_name_with_parentheses() {
        let line = "77 (a b) c) S 12 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        assert_eq!(parse_stat(line), Some(Stat { parent: 12, state: 'S', threads: 1, start_ticks: 4242 }));
        assert_eq!(parse_stat("77 (a"), None);
    }

    #[test]
    fn a_recycled_pid_is_never_signalled() {
        let mut child = Command::new("/bin/sleep").arg("60").stdout(Stdio::null()).spawn().expect("sleep runs");
        let right = ProcessIdentity::of(child.id(), BOOT).expect("looked at").expect("it runs");
        let recycled = ProcessIdentity { start_ticks: right.start_ticks - 1, ..right.clone() };
        assert!(recycled.open(BOOT).expect("looked at").is_none(), "another process's PID was opened");
        assert!(right.open("another-boot").expect("looked at").is_none(), "a PID of another boot was opened");
        let innocent = stat(child.id()).expect("looked at");
        assert!(innocent.is_some_and(|stat| stat.state != 'Z'), "the innocent process was signalled");
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
        let found = (0..1_000_000).find_map(|_| started_with(child.id(), "MUSTER_MARK_TEST").expect("looked at"));
        assert_eq!(found.as_deref(), Some("here"));
        let (below, unseen) = descendants(&BTreeSet::from([std::process::id()]));
        assert!(below.contains(&child.id()) && unseen.is_none(), "{unseen:?}");
        child.kill().expect("ours");
        child.wait().expect("ours");
    }

    #[test]
    fn only_what_the_process_is_to_blame_for_counts_as_nothing_shown() {
        let fault = |number| shown::<()>(Err(io::Error::from_raw_os_error(number)));
        for gone_or_hidden in [libc::ENOENT, libc::ESRCH, libc::EACCES, libc::EPERM, libc::EIO] {
            assert!(fault(gone_or_hidden).expect("known").is_none());
        }
        for nothing_known in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            fault(nothing_known).expect_err("a lack of our own says nothing about the process");
        }
        let folder = tempfile::tempdir().expect("a temp folder");
        pids_in(&folder.path().join("gone")).expect_err("a table that is not there says nothing about who runs");
    }

    #[test]
    fn a_process_whose_name_is_no_text_is_seen() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let program = folder.path().join(OsStr::from_bytes(b"\xff\xfe"));
        std::os::unix::fs::symlink("/bin/sleep", &program).expect("made");
        let mut child = Command::new(&program).arg0("sleep").arg("60").spawn().expect("sleep runs");
        let seen = stat(child.id());
        child.kill().expect("ours");
        child.wait().expect("ours");
        assert_eq!(seen.expect("looked at").map(|stat| stat.parent), Some(std::process::id()));
    }

    extern "C" fn wait_for_ever(_: *mut libc::c_void) -> libc::c_int {
        loop {
            // SAFETY: a system call without pointers.
            unsafe { libc::pause() };
        }
    }

    /// A child of which only its second thread is left.
    fn without_its_first_thread() -> u32 {
        const STACK_BYTES: usize = 64 * 1024;
        // A number of 16 bytes has the alignment that a stack wants.
        let stack = Box::leak(vec![0_u128; STACK_BYTES / 16].into_boxed_slice());
        let flags = libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD
            | libc::CLONE_SYSVSEM;
        // SAFETY: the child makes system calls only; in its copy of the memory the stack is its second thread's alone.
        let child = unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::clone(wait_for_ever, stack.as_mut_ptr_range().end.cast(), flags, std::ptr::null_mut());
                libc::syscall(libc::SYS_exit, 0);
            }
            child
        };
        u32::try_from(child).expect("forked")
    }

    #[test]
    fn rule_8_a_process_without_its_first_thread_is_found_and_can_be_killed() {
        let pid = without_its_first_thread();
        let look = || stat(pid).expect("looked at").expect("not waited for yet");
        while look().state != 'Z' {
            std::thread::yield_now();
        }
        let identity = ProcessIdentity::of(pid, BOOT).expect("looked at").expect("it runs");
        let (variable, value) = std::env::vars().find(|(_, value)| !value.is_empty()).expect("an environment");
        let seen = started_with(pid, &variable).expect("looked at");
        let handle = identity.open(BOOT).expect("looked at");
        let killed = handle.map(|handle| handle.signal(libc::SIGKILL).expect("allowed"));
        // SAFETY: our own child, not waited for yet: whatever was seen above, it goes.
        unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        assert_eq!(seen, Some(value), "its mark is not seen");
        assert_eq!(killed, Some(true), "it runs and counts as gone");
        while look().threads > 1 {
            std::thread::yield_now();
        }
        assert!(identity.open(BOOT).expect("looked at").is_none(), "a corpse counts as running");
        // SAFETY: null is allowed for the status.
        unsafe { libc::waitpid(pid as i32, std::ptr::null_mut(), 0) };
    }
}
