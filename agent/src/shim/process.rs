//! The shim's process: one loop over the machine, the children, the socket and the clock. Single
//! threaded but for the log pump, and it waits for nothing but `poll`, its files and the start of
//! programs. For as long as those hold it up, the namespace's first process keeps the lease.

use super::machine::{Action, Event, Failure, Machine, Phase, RankExit, step};
use super::pump::Pump;
use super::socket::Socket;
use super::spawn::{self, Init};
use super::tree;
use super::wire::{self, Released, Request, Spec, Status};
use crate::procfs::ProcessIdentity;
use muster_runtime::clock::{Clock, SystemClock, boot_id};
use muster_runtime::durable;
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The loop looks at the clock at least this often: `poll` does not count suspended time.
const NAP_MS: u64 = 1_000;
/// After the last process is gone, what is still in the pipes has so long to reach the files.
const LOGS_SETTLE_MS: u64 = 5_000;
/// Tries at the last record, one a second: a full disk may empty.
const RECORD_TRIES: u32 = 60;
/// Said on standard output by a shim that listens.
const READY: &[u8] = b".";
/// Grace when a shim itself is told to end (machine shutdown).
const OWN_STOP_GRACE_MS: u64 = 10_000;

/// Why a shim could not do its work. It ends before any rank runs.
#[derive(Debug, thiserror::Error)]
enum ShimError {
    #[error("cannot read {}: {why}", path.display())]
    Spec { path: PathBuf, why: String },
    #[error("{} belongs to boot {want}, this is boot {have}", path.display())]
    OtherBoot { path: PathBuf, want: String, have: String },
    #[error("{} has been used by a shim already", path.display())]
    Used { path: PathBuf },
    #[error("cannot {doing}: {cause}")]
    Io { doing: &'static str, cause: io::Error },
    #[error(transparent)]
    Durable(#[from] durable::DurableError),
}

fn io_error(doing: &'static str) -> impl FnOnce(io::Error) -> ShimError {
    move |cause| ShimError::Io { doing, cause }
}

/// The whole life of a shim in `dir`, an allocation's folder with a `spec.json`.
///
/// Call it from the main thread of a process that has no other threads: ranks are tied to the
/// life of the calling thread, and signals are taken by it alone.
pub fn shim_main(dir: &Path) -> ExitCode {
    spawn::keep_inherited_files_to_self();
    // Started through an open file it would be named by that file's number. A name is for people only.
    let _ = nix::sys::prctl::set_name(c"muster-shim");
    if std::env::var_os(spawn::INIT_MARK).is_some() {
        spawn::init_main();
    }
    match Shim::start(dir).and_then(Shim::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is the allocation's shim.log.
            eprintln!("muster shim: {error}");
            ExitCode::FAILURE
        }
    }
}

struct RunningRank {
    rank: u32,
    started_ms: u64,
}

struct Shim {
    dir: PathBuf,
    spec: Spec,
    boot_id: String,
    machine: Machine,
    /// By PID.
    running: BTreeMap<u32, RunningRank>,
    init: Option<Init>,
    weak_fencing: bool,
    pump: Pump,
    socket: Socket,
    signals: nix::sys::signalfd::SignalFd,
    /// Held for life: a folder has one shim.
    _lock: Flock<fs::File>,
}

impl Shim {
    fn start(dir: &Path) -> Result<Self, ShimError> {
        let boot_id = boot_id().map_err(io_error("read the boot id"))?;
        let spec = read_spec(dir, &boot_id)?;
        let lock = lock(dir)?;
        spawn::raise_open_files();
        // Fails only when this already is a session's leader, which is as good.
        let _ = nix::unistd::setsid();
        nix::sys::prctl::set_child_subreaper(true).map_err(|e| io_error("become a subreaper")(e.into()))?;
        spawn::block_signals(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP]);
        let signals = open_signals().map_err(io_error("open a signal descriptor"))?;
        // A refusal shows when the PID namespace is made, and is reported as weak fencing.
        let _ = spec.pid_namespace.then(spawn::gain_namespace_rights);
        let pump = Pump::start().map_err(io_error("start the log pump"))?;
        let own = ProcessIdentity::of(std::process::id(), &boot_id)
            .and_then(|own| own.ok_or_else(|| io::Error::other("/proc is not there")))
            .map_err(io_error("read its own start time"))?;
        let identity = serde_json::to_vec(&own).expect("plain data encodes");
        durable::write_for_boot(&dir.join(wire::IDENTITY_FILE), &identity)?;
        let init = if spec.pid_namespace { spawn::start_init(&spec.marker, spec.deadline_ms).ok() } else { None };
        // Bound last: who can connect can rely on the identity and on the fencing that is reported.
        let socket = Socket::bind(dir).map_err(io_error("bind its socket"))?;
        // For the agent that waits to connect; one that has gone away needs no word.
        let _ = io::stdout().write_all(READY).and_then(|()| io::stdout().flush());
        let machine = Machine::new(spec.ranks.iter().map(|rank| rank.rank), spec.deadline_ms);
        let (dir, running, weak_fencing) = (dir.to_owned(), BTreeMap::new(), init.is_none());
        Ok(Self { dir, spec, boot_id, machine, running, init, weak_fencing, pump, socket, signals, _lock: lock })
    }

    fn run(mut self) -> Result<(), ShimError> {
        let checked = check(&self.spec);
        self.handle(Event::Checked(checked))?;
        while self.machine.phase != Phase::Dead {
            self.reap()?;
            self.handle(Event::Tick)?;
            if self.machine.phase == Phase::Dead {
                break;
            }
            self.wait();
            let mut signalled = false;
            while let Ok(Some(info)) = self.signals.read_signal() {
                signalled |= info.ssi_signo != libc::SIGCHLD as u32;
            }
            if signalled {
                self.handle(Event::Stop { signal: None, grace_ms: OWN_STOP_GRACE_MS })?;
            }
            for request in self.socket.take_requests() {
                self.handle_request(request)?;
            }
            if self.socket.take_lost() {
                self.handle(Event::AgentGone)?;
            }
        }
        Ok(())
    }

    fn status(&self) -> Status {
        Status::of(&self.machine, self.weak_fencing)
    }

    fn handle_request(&mut self, request: Request) -> Result<(), ShimError> {
        match request {
            Request::Status => self.socket.publish(&self.status()),
            Request::Go => self.handle(Event::Go)?,
            Request::Stop { signal, grace_ms } => self.handle(Event::Stop { signal, grace_ms })?,
            Request::Extend { deadline_ms } => {
                self.handle(Event::LeaseExtended { deadline_ms })?;
                if let Some(init) = &self.init {
                    init.keep(self.machine.deadline_ms);
                }
                self.persist_lease();
            }
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), ShimError> {
        let before = self.machine.clone();
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in step(&mut self.machine, SystemClock.boottime_ms(), event) {
                self.perform(action, &mut events)?;
            }
        }
        if self.machine != before {
            self.socket.publish(&self.status());
        }
        Ok(())
    }

    fn perform(&mut self, action: Action, events: &mut Vec<Event>) -> Result<(), ShimError> {
        match action {
            Action::Spawn => self.spawn_ranks(events),
            Action::Signal(signal) => {
                for &pid in self.running.keys() {
                    // Not reaped yet, so the PID and its group are still this rank's.
                    // SAFETY: a system call without pointers.
                    unsafe { libc::kill(-(pid as i32), signal) };
                }
            }
            Action::Drain => {
                if let Some(init) = &self.init {
                    init.leave_when_alone();
                }
            }
            Action::KillTree => {
                if let Some(init) = &mut self.init {
                    // Not reaped yet, so the PID is still its own; fails only when it is dead already.
                    let _ = init.child.kill();
                }
                // In a namespace the kernel ends all with its first process; a look at every process of the
                // machine would find nothing more.
                if self.weak_fencing {
                    tree::kill_descendants(&self.boot_id);
                }
            }
            Action::WriteExit(exit) => {
                let path = self.dir.join(wire::exit_file(exit.rank));
                let bytes = serde_json::to_vec(&exit).expect("plain data encodes");
                if let Err(error) = durable::write_for_boot(&path, &bytes) {
                    // Ending here would kill the other ranks; the status and the last record have it too.
                    eprintln!("muster shim: {error}");
                }
            }
            Action::WriteReleased { lease_expired } => self.write_released(lease_expired)?,
        }
        Ok(())
    }

    fn spawn_ranks(&mut self, events: &mut Vec<Event>) {
        let deadline_ms = self.machine.deadline_ms;
        for rank in &self.spec.ranks {
            let failed =
                |code, signal, why| Event::RankExited(RankExit { rank: rank.rank, code, signal, why, wall_ms: 0 });
            let started_ms = SystemClock.boottime_ms();
            // The start of another rank took so long. The machine says of it why it ended, as of those that did start.
            if started_ms >= deadline_ms {
                events.push(failed(128 + libc::SIGKILL, libc::SIGKILL as u32, String::new()));
                continue;
            }
            match spawn::start_rank(&self.spec, rank, self.init.as_ref(), &self.pump) {
                Ok(child) => {
                    self.running.insert(child.id(), RunningRank { rank: rank.rank, started_ms });
                }
                // Past the lease there is no namespace any more to start it in.
                Err(_) if SystemClock.boottime_ms() >= deadline_ms => {
                    events.push(failed(128 + libc::SIGKILL, libc::SIGKILL as u32, String::new()));
                }
                Err(error) => {
                    // The codes a shell gives for the same.
                    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
                    let program = self.spec.argv.first().map_or("", String::as_str);
                    let why = format!("cannot start `{program}`: {error}");
                    events.push(failed(code, 0, why));
                }
            }
        }
        // Whatever happens now, the pump is only given these pipes.
        let _ = self.pump.finish();
    }

    fn reap(&mut self) -> Result<(), ShimError> {
        let reaped = tree::reap();
        for ended in reaped.ended {
            // Its PID may be another's from here on.
            self.init.take_if(|init| init.child.id() == ended.pid);
            if let Some(rank) = self.running.remove(&ended.pid) {
                let wall_ms = SystemClock.boottime_ms().saturating_sub(rank.started_ms);
                let exit =
                    RankExit { rank: rank.rank, code: ended.code, signal: ended.signal, why: String::new(), wall_ms };
                self.handle(Event::RankExited(exit))?;
            }
        }
        if reaped.empty && self.running.is_empty() {
            self.handle(Event::TreeEmpty)?;
        }
        Ok(())
    }

    fn write_released(&self, lease_expired: bool) -> Result<(), ShimError> {
        if self.machine.spawned {
            let until_ms = SystemClock.boottime_ms() + LOGS_SETTLE_MS;
            while !self.pump.is_finished() && SystemClock.boottime_ms() < until_ms {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        let exits = self.machine.ranks.values().flatten().cloned().collect();
        let released = Released { lease_expired, failure: self.machine.failure.clone(), exits };
        let bytes = serde_json::to_vec(&released).expect("plain data encodes");
        let path = self.dir.join(wire::RELEASED_FILE);
        for _ in 0..RECORD_TRIES {
            match durable::write_for_boot(&path, &bytes) {
                Ok(()) => return Ok(()),
                Err(error) => eprintln!("muster shim: {error}; trying again"),
            }
            std::thread::sleep(std::time::Duration::from_millis(NAP_MS));
        }
        Ok(durable::write_for_boot(&path, &bytes)?)
    }

    /// For people and tools that look. The machine in memory is what kills.
    fn persist_lease(&self) {
        let lease = wire::Lease { boot_id: self.boot_id.clone(), deadline_ms: self.machine.deadline_ms };
        let aside = self.dir.join("lease.json.new");
        let written = fs::write(&aside, serde_json::to_vec(&lease).expect("plain data encodes"))
            .and_then(|()| fs::rename(&aside, self.dir.join(wire::LEASE_FILE)));
        if let Err(error) = written {
            eprintln!("muster shim: cannot note the lease: {error}");
        }
    }

    fn wait(&mut self) {
        use std::os::fd::AsRawFd;
        let now_ms = SystemClock.boottime_ms();
        let due_ms = self.machine.next_deadline_ms().unwrap_or(u64::MAX).saturating_sub(now_ms);
        // While ending, orphans may become ours and end without a signal that tells.
        let ending = matches!(self.machine.phase, Phase::Stopping { .. } | Phase::Killing { .. });
        let nap_ms = due_ms.min(if ending { 20 } else { NAP_MS });
        let mut polled = vec![libc::pollfd { fd: self.signals.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        self.socket.add_to_poll(&mut polled);
        // SAFETY: the pointer and the length are those of a live vector. An error (EINTR) only means
        // an earlier look.
        unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, nap_ms as i32) };
    }
}

fn read_spec(dir: &Path, boot_id: &str) -> Result<Spec, ShimError> {
    let path = dir.join(wire::SPEC_FILE);
    let bytes = durable::read_limited(&path, wire::FRAME_BYTES_MAX as u64)?;
    let spec: Spec = serde_json::from_slice(&bytes)
        .map_err(|error| ShimError::Spec { path: path.clone(), why: error.to_string() })?;
    if spec.version != wire::VERSION {
        let why = format!("it is of version {}, this binary knows {}", spec.version, wire::VERSION);
        return Err(ShimError::Spec { path, why });
    }
    if spec.boot_id != boot_id {
        return Err(ShimError::OtherBoot { path, want: spec.boot_id, have: boot_id.to_owned() });
    }
    Ok(spec)
}

fn lock(dir: &Path) -> Result<Flock<fs::File>, ShimError> {
    let used = || ShimError::Used { path: dir.to_owned() };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(wire::LOCK_FILE));
    let file = file.map_err(io_error("open its lock"))?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| used())?;
    // A second life could not know what the first one left running.
    if dir.join(wire::IDENTITY_FILE).exists() {
        return Err(used());
    }
    Ok(lock)
}

fn open_signals() -> io::Result<nix::sys::signalfd::SignalFd> {
    use nix::sys::signal::{SigSet, Signal};
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// What can be known to fail before the barrier, so that no gang starts for it.
fn check(spec: &Spec) -> Result<(), Failure> {
    let infra = |why: String| Failure { infra: true, why };
    let job = |why: String| Failure { infra: false, why };
    durable::make_folder(&spec.log_dir).map_err(|error| infra(error.to_string()))?;
    if spec.make_workdir {
        durable::make_folder(&spec.workdir).map_err(|error| infra(error.to_string()))?;
    }
    if !spec.workdir.is_dir() {
        return Err(job(format!("the working directory {} is not on this node", spec.workdir.display())));
    }
    let program = spec.argv.first().ok_or_else(|| job("the command is empty".to_owned()))?;
    if program.contains('/') && !is_executable(&spec.workdir.join(program)) {
        return Err(job(format!("`{program}` is not an executable file on this node")));
    }
    Ok(())
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}
