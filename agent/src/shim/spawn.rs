//! Starts processes below a shim: the first process of a PID namespace, and the ranks.

use super::pump::{Pump, set_nonblocking, stream_file};
use super::wire::{MARKER, RankSpec, Spec};
use muster_runtime::clock::{Clock, SystemClock};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Tells a re-executed shim that it is the first process of a PID namespace.
pub const INIT_MARK: &str = "MUSTER_SHIM_INIT";

/// Number of the capability that namespaces take.
const CAP_SYS_ADMIN: u32 = 21;
/// What `getppid` says when the parent is outside the PID namespace.
const OUTSIDE: i32 = 0;
/// The first process's word that `/proc` is its namespace's own.
const OWN_PROC: [u8; 1] = *b"p";
const REAP_NAP_MS: u64 = 1_000;
const LEAVE_NAP_MS: u64 = 10;
/// Told to the first process: end once it is alone. Every other word is the end of the lease.
const LEAVE: u64 = 0;
/// So long after the lease's end the first process no longer counts on the shim.
const SHIM_LATE_MS: u64 = 1_000;
/// Files a rank may have open, and a shim, which has four for each rank.
const OPEN_FILES: u64 = 1_048_576;

/// The first process of the ranks' PID namespace.
pub struct Init {
    pub child: Child,
    /// What it is told. While it is open and has not said [`LEAVE`], the process stays even when nothing else is in the
    /// namespace.
    hold: Option<ChildStdin>,
    /// The mount namespace in which `/proc` shows the PID namespace; ranks enter it.
    mounts: Option<OwnedFd>,
}

impl Init {
    /// Lets the process end as soon as it is alone.
    pub fn leave_when_alone(&self) {
        self.say(LEAVE);
    }

    /// Tells the process when the lease ends. It keeps it too: a disk or a file server may hold up the shim.
    pub fn keep(&self, deadline_ms: u64) {
        self.say(deadline_ms.max(LEAVE + 1));
    }

    fn say(&self, word: u64) {
        if let Some(hold) = &self.hold {
            // So short a write is whole or not at all. A process that takes none is dead, or ends by what it heard last.
            let _ = nix::unistd::write(hold, &word.to_le_bytes());
        }
    }
}

/// As many open files as a rank may have, where this process is allowed them. What starts an agent may have left it few.
pub fn raise_open_files() {
    // SAFETY: it only has pointers to locals of its own.
    unsafe { set_limit(libc::RLIMIT_NOFILE, OPEN_FILES) };
}

/// Without the right to make a PID namespace, a user namespace of one's own gives it. Ids stay as
/// they are. Must be called before the process has a second thread; a refusal changes nothing.
pub fn gain_namespace_rights() -> io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    if effective & (1 << CAP_SYS_ADMIN) != 0 {
        return Ok(());
    }
    // SAFETY: system calls without pointers.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: as above.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER) } != 0 {
        return Err(io::Error::last_os_error());
    }
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Moves all later children into a new PID namespace and starts its first process: this same
/// binary with the same arguments, told by [`INIT_MARK`]. `deadline_ms` is the end of the lease.
///
/// Errors: the kernel's refusal (not root, or namespaces switched off).
pub fn start_init(marker: &str, deadline_ms: u64) -> io::Result<Init> {
    // SAFETY: a system call without pointers.
    if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1));
    command.env_clear().env(INIT_MARK, "1").env(MARKER, marker);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    // Mounted before the program starts: a user that is not root loses the right to it then.
    // SAFETY: both make system calls only, none of which allocates or locks.
    unsafe {
        command.pre_exec(|| {
            mount_own_proc();
            die_with_parent(OUTSIDE)
        })
    };
    let mut child = command.spawn()?;
    let hold = child.stdin.take();
    if let Some(hold) = &hold {
        set_nonblocking(hold)?;
    }
    let mut word = [0];
    let answered = child.stdout.take().map(|mut answer| answer.read_exact(&mut word));
    let mounts = match answered {
        Some(Ok(())) if word == OWN_PROC => Some(File::open(format!("/proc/{}/ns/mnt", child.id()))?.into()),
        _ => None,
    };
    let init = Init { child, hold, mounts };
    init.keep(deadline_ms);
    Ok(init)
}

/// The life of the namespace's first process: reap orphans; end when the shim has let go and no
/// child is left, or when the lease is over and the shim has not ended everything. Its death, for
/// whatever reason, kills the whole namespace. Past its start it touches no file: nothing holds it up.
pub fn init_main() -> ! {
    block_signals(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]);
    let has_own_proc = std::fs::read_link("/proc/self").is_ok_and(|own| own.as_os_str() == "1");
    let word = if has_own_proc { OWN_PROC } else { *b"-" };
    // A shim that no longer listens is a shim that died, and this process dies with it.
    let _ = io::stdout().write_all(&word).and_then(|()| io::stdout().flush());
    let (mut leaves, mut deadline_ms) = (false, u64::MAX);
    loop {
        let reaped = super::tree::reap();
        let left_ms = deadline_ms.saturating_add(SHIM_LATE_MS).saturating_sub(SystemClock.boottime_ms());
        if left_ms == 0 || leaves && reaped.empty {
            std::process::exit(0);
        }
        // Orphans' corpses may wait for the nap's end.
        let nap_ms = if leaves { LEAVE_NAP_MS } else { REAP_NAP_MS };
        match next_word(nap_ms.min(left_ms)) {
            Some(LEAVE) => leaves = true,
            Some(end_ms) => deadline_ms = end_ms,
            None => {}
        }
    }
}

/// What the shim says within `nap_ms`. The pipe's end lets go as well.
fn next_word(nap_ms: u64) -> Option<u64> {
    let mut hold = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd and its count.
    if unsafe { libc::poll(&mut hold, 1, nap_ms as i32) } <= 0 {
        return None;
    }
    let mut word = [0; 8];
    match nix::unistd::read(io::stdin(), &mut word) {
        Ok(8) => Some(u64::from_le_bytes(word)),
        Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => None,
        _ => {
            // A pipe that has ended is ready at once, each time.
            std::thread::sleep(std::time::Duration::from_millis(LEAVE_NAP_MS));
            Some(LEAVE)
        }
    }
}

/// Gives the namespace a `/proc` of its own, so that programs find themselves under the PID they
/// know. Where the kernel refuses, they see the machine's.
fn mount_own_proc() {
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: the strings are literals that end in NUL; null is allowed where given.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS) != 0
            || libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_SLAVE, std::ptr::null()) != 0
        {
            return;
        }
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), flags, std::ptr::null());
    }
}

/// Starts one rank with its output on the pump.
///
/// Errors: the program cannot be executed, or its log files cannot be made.
pub fn start_rank(spec: &Spec, rank: &RankSpec, init: Option<&Init>, pump: &Pump) -> io::Result<Child> {
    let (program, arguments) = spec.argv.split_first().ok_or_else(|| io::Error::other("the command is empty"))?;
    let (out_read, out_write) = io::pipe()?;
    let (err_read, err_write) = io::pipe()?;
    for (pipe, stream) in [(out_read, "out"), (err_read, "err")] {
        let path = stream_file(&spec.log_dir, rank.rank, stream);
        let explain = |error: io::Error| io::Error::other(format!("its log {}: {error}", path.display()));
        pump.add(OwnedFd::from(pipe), path.clone(), spec.logs).map_err(explain)?;
    }
    let workdir = CString::new(spec.workdir.as_os_str().as_encoded_bytes())?;
    let mounts = init.and_then(|init| init.mounts.as_ref()).map(AsRawFd::as_raw_fd);
    let parent = if init.is_some() { OUTSIDE } else { std::process::id() as i32 };
    let mut command = Command::new(program);
    command.args(arguments);
    command.env_clear().envs(&spec.env).envs(&rank.env).env(MARKER, &spec.marker);
    command.stdin(Stdio::null()).stdout(out_write).stderr(err_write);
    // SAFETY: `prepare_rank` makes system calls only, none of which allocates or locks.
    unsafe { command.pre_exec(move || prepare_rank(mounts, &workdir, parent)) };
    command.spawn()
}

/// In the child, before the program: its namespace and folder, a group of its own to be signalled
/// as one, clean signals, sane limits, and death with the shim.
fn prepare_rank(mounts: Option<i32>, workdir: &CStr, parent: i32) -> io::Result<()> {
    // SAFETY: plain system calls; the pointers are to locals that live long enough.
    unsafe {
        if let Some(mounts) = mounts
            && libc::setns(mounts, libc::CLONE_NEWNS) != 0
        {
            return Err(io::Error::last_os_error());
        }
        if libc::chdir(workdir.as_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::setsid();
        libc::umask(0o022);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE] {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        set_limit(libc::RLIMIT_CORE, 0);
        set_limit(libc::RLIMIT_NOFILE, OPEN_FILES);
        // RDMA registers memory; without the right to raise it the system's limit stays.
        set_limit(libc::RLIMIT_MEMLOCK, libc::RLIM_INFINITY);
    }
    die_with_parent(parent)
}

/// Raises a limit to `wanted` where allowed, else as far as its hard end.
unsafe fn set_limit(which: libc::__rlimit_resource_t, wanted: u64) {
    // SAFETY: the pointers are to locals that live through the calls.
    unsafe {
        let whole = libc::rlimit { rlim_cur: wanted, rlim_max: wanted };
        if libc::setrlimit(which, &whole) == 0 {
            return;
        }
        let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        if libc::getrlimit(which, &mut now) == 0 {
            now.rlim_cur = now.rlim_max.min(wanted);
            libc::setrlimit(which, &now);
        }
    }
}

/// SIGKILL when the starting thread ends: the main thread of a shim, so the shim itself. A parent
/// that died before the call is noticed by no longer being `parent`.
fn die_with_parent(parent: i32) -> io::Result<()> {
    // SAFETY: system calls without pointers.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::getppid() != parent {
            libc::_exit(127);
        }
    }
    Ok(())
}

/// Whatever files the agent or its starter left open: no rank gets them.
pub fn keep_inherited_files_to_self() {
    // SAFETY: a system call without pointers. An old kernel refuses it, which only loses the care.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Keeps signals pending for this thread and those it starts.
pub fn block_signals(signals: &[i32]) {
    // SAFETY: the set is a local, made empty before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for &signal in signals {
            libc::sigaddset(&mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}
