//! Real shim processes: what survives, what is killed, what is recorded.

use muster_agent::shim::machine::{Phase, RankExit};
use muster_agent::shim::pump::{dropped_file, part_file, stream_file};
use muster_agent::shim::socket::short_path;
use muster_agent::shim::wire::{self, RankSpec, Released, Request, Spec, Status};
use muster_common::job::LogLimits;
use muster_runtime::clock::{Clock, SystemClock, boot_id};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);
const LONG_MS: u64 = 600_000;

/// Awaits a condition; fails with `what` when it does not come.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "waited in vain for: {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

struct Rig {
    folder: tempfile::TempDir,
    shim: Child,
    client: Client,
}

struct Client {
    stream: UnixStream,
    unread: Vec<u8>,
}

impl Client {
    fn connect(dir: &Path) -> Self {
        let folder = File::open(dir).expect("the allocation's folder");
        let stream = until("the shim's socket", || UnixStream::connect(short_path(&folder)).ok());
        stream.set_read_timeout(Some(LIMIT)).expect("a real socket");
        Self { stream, unread: Vec::new() }
    }

    /// Of a shim that may have ended already.
    fn dead_end() -> Self {
        Self { stream: UnixStream::pair().expect("a pair").0, unread: Vec::new() }
    }

    fn send(&mut self, request: &Request) {
        self.stream.write_all(&wire::encode(request).expect("small")).expect("the shim listens");
    }

    /// The next status; `None` once the shim has ended.
    fn next(&mut self) -> Option<Status> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(status) = wire::decode(&mut self.unread).expect("whole frames") {
                return Some(status);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no status came: {error}"),
            }
        }
    }

    fn await_status(&mut self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        self.send(&Request::Status);
        loop {
            let status = self.next().unwrap_or_else(|| panic!("the shim ended before: {what}"));
            if wanted(&status) {
                return status;
            }
        }
    }
}

impl Rig {
    fn start(script: &str, ranks: u32, change: impl FnOnce(&mut Spec)) -> Self {
        let mut rig = Self::start_alone(script, ranks, change);
        rig.client = Client::connect(rig.dir());
        rig
    }

    fn start_alone(script: &str, ranks: u32, change: impl FnOnce(&mut Spec)) -> Self {
        let folder = tempfile::tempdir().expect("a temp folder");
        let dir = folder.path();
        let mut spec = Spec {
            version: wire::VERSION,
            marker: format!("test/{}", dir.display()),
            boot_id: boot_id().expect("Linux has one"),
            deadline_ms: SystemClock.boottime_ms() + LONG_MS,
            log_dir: dir.join("logs"),
            logs: LogLimits::default(),
            workdir: dir.join("work"),
            make_workdir: true,
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            ranks: (0..ranks)
                .map(|rank| RankSpec { rank, env: BTreeMap::from([("RANK".to_owned(), rank.to_string())]) })
                .collect(),
            pid_namespace: true,
        };
        change(&mut spec);
        fs::write(dir.join(wire::SPEC_FILE), serde_json::to_vec(&spec).expect("plain data")).expect("written");
        let shim = spawn_shim(dir);
        Self { folder, shim, client: Client::dead_end() }
    }

    /// Past the barrier.
    fn running(script: &str, ranks: u32, change: impl FnOnce(&mut Spec)) -> Self {
        let mut rig = Self::start(script, ranks, change);
        rig.client.await_status("the barrier", |status| status.phase == Phase::Barrier);
        rig.client.send(&Request::Go);
        rig.client.await_status("the start", |status| status.spawned);
        rig
    }

    fn dir(&self) -> &Path {
        self.folder.path()
    }

    fn stream(&self, rank: u32, stream: &str) -> PathBuf {
        stream_file(&self.dir().join("logs"), rank, stream)
    }

    fn output(&self, rank: u32) -> String {
        fs::read_to_string(self.stream(rank, "out")).unwrap_or_default()
    }

    fn released(&mut self) -> Released {
        let path = self.dir().join(wire::RELEASED_FILE);
        let released = until("released.json", || serde_json::from_slice(&fs::read(&path).ok()?).ok());
        assert!(until("the shim's end", || self.shim.try_wait().expect("ours")).success());
        released
    }

    /// Ends the shim at the barrier and takes away its traces, so that another one can take its place.
    fn clear(&mut self) {
        self.shim.kill().expect("ours");
        self.shim.wait().expect("ours");
        for leftover in [wire::IDENTITY_FILE, wire::SOCKET_FILE, wire::LOCK_FILE] {
            let _ = fs::remove_file(self.dir().join(leftover));
        }
        for leftover in ["logs", "work"] {
            let _ = fs::remove_dir_all(self.dir().join(leftover));
        }
    }

    /// To the shim alone.
    fn signal_shim(&self, signal: Signal) {
        kill(Pid::from_raw(self.shim.id() as i32), signal).expect("ours");
    }

    /// A PID that a rank wrote into its work folder, as the machine numbers it.
    fn machine_pid(&self, mark: &str) -> u32 {
        until(mark, || pid_with_mark(mark))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Everything below dies with it.
        let _ = self.shim.kill();
        let _ = self.shim.wait();
    }
}

fn spawn_shim(dir: &Path) -> Child {
    let log = File::create(dir.join("shim.log")).expect("made");
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster-shim"));
    command.arg("--dir").arg(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("the shim starts")
}

/// Looks at the machine's own process table for a command line that ends in `mark`.
fn pid_with_mark(mark: &str) -> Option<u32> {
    fs::read_dir("/proc").expect("there").flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<_> = line.split(|&byte| byte == 0).collect();
        words.contains(&mark.as_bytes()).then_some(pid)
    })
}

fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

/// A duration for `sleep` that no other test uses, to find the process by.
fn sleep_mark(test: u32) -> String {
    format!("{}.{test:04}", 1000 + std::process::id() % 1000)
}

#[test]
fn exit_codes_and_signals_are_recorded_durably() {
    let script = "echo to-out; echo to-err >&2; case $RANK in 0) exit 0;; 1) exit 7;; 2) kill -9 $$;; esac";
    let mut rig = Rig::running(script, 3, |_| {});
    let released = rig.released();
    let ends: Vec<_> = released.exits.iter().map(|exit| (exit.rank, exit.code, exit.signal)).collect();
    assert_eq!(ends, [(0, 0, 0), (1, 7, 0), (2, 137, 9)]);
    assert!(!released.lease_expired);
    for (rank, code, _) in ends {
        let file = fs::read(rig.dir().join(wire::exit_file(rank))).expect("written");
        let exit: RankExit = serde_json::from_slice(&file).expect("whole");
        assert_eq!((exit.rank, exit.code), (rank, code));
        assert_eq!(rig.output(rank), "to-out\n");
        assert_eq!(fs::read_to_string(rig.stream(rank, "err")).expect("there"), "to-err\n");
    }
}

#[test]
fn rule_11_ranks_go_on_when_the_agents_connection_dies_and_a_new_one_adopts_them() {
    let mut rig = Rig::running("until [ -e go-on ]; do sleep 0.01; done; echo done", 2, |_| {});
    rig.client = Client::connect(rig.dir());
    let status = rig.client.await_status("the same ranks", |_| true);
    assert_eq!((status.phase, status.exits.len()), (Phase::Running, 0));
    fs::write(rig.dir().join("work/go-on"), "").expect("written");
    let released = rig.released();
    assert!(released.exits.iter().all(|exit| exit.code == 0), "{released:?}");
    assert_eq!(rig.output(1), "done\n");
}

#[test]
fn rule_4c_nothing_runs_at_the_barrier() {
    let mut rig = Rig::start("echo ran", 1, |_| {});
    rig.client.await_status("the barrier", |status| status.phase == Phase::Barrier);
    assert!(!rig.stream(0, "out").exists());
    rig.client.send(&Request::Stop { signal: None, grace_ms: LONG_MS });
    assert!(rig.released().exits.is_empty());
    assert!(!rig.stream(0, "out").exists(), "a rank ran without a start");
}

fn lease_kills_all(pid_namespace: bool, test: u32) {
    let mark = sleep_mark(test);
    // The second sleep leaves its parent, its session and its environment's company.
    let script = format!("trap '' TERM; (setsid sleep {mark}1 >/dev/null 2>&1 &) & sleep {mark}2");
    let mut rig = Rig::running(&script, 1, |spec| {
        spec.pid_namespace = pid_namespace;
        spec.deadline_ms = SystemClock.boottime_ms() + 1_500;
    });
    let pids = [rig.machine_pid(&format!("{mark}1")), rig.machine_pid(&format!("{mark}2"))];
    let end_ms = rig.client.await_status("a lease", |_| true).deadline_ms;
    let released = rig.released();
    assert!(SystemClock.boottime_ms() >= end_ms, "killed before its time");
    assert!(released.lease_expired);
    assert!(released.exits.iter().all(|exit| exit.signal == 9 && exit.why.contains("lease")), "{released:?}");
    assert!(pids.iter().all(|&pid| !is_alive(pid)), "a process outlived the lease");
}

#[test]
fn rule_9a_the_lease_kills_a_double_forked_daemon_too() {
    lease_kills_all(true, 1);
}

#[test]
fn rule_9a_without_a_pid_namespace_the_lease_kills_it_as_well() {
    lease_kills_all(false, 2);
}

/// Held up by a disk or a file server a shim looks at no clock; one that is stopped stands for it. Returns the ends of its
/// ranks, or nothing where only the shim keeps the lease.
fn ends_of_a_shim_that_is_held_up(ranks: u32, test: u32) -> Vec<RankExit> {
    let mark = sleep_mark(test);
    let mut rig = Rig::start(&format!("trap '' TERM; sleep {mark}; :"), ranks, |spec| {
        spec.deadline_ms = SystemClock.boottime_ms() + 6_000;
    });
    let status = rig.client.await_status("the barrier", |status| status.phase == Phase::Barrier);
    if status.weak_fencing {
        println!("left out: without a PID namespace there is only the shim");
        return Vec::new();
    }
    rig.client.send(&Request::Go);
    let pid = rig.machine_pid(&mark);
    rig.signal_shim(Signal::SIGSTOP);
    assert!(SystemClock.boottime_ms() < status.deadline_ms, "this machine is too slow for the test");
    until("the rank's death", || (!is_alive(pid)).then_some(()));
    assert!(SystemClock.boottime_ms() >= status.deadline_ms, "killed before its time");
    rig.signal_shim(Signal::SIGCONT);
    let released = rig.released();
    assert!(released.lease_expired);
    assert_eq!(released.exits.len(), ranks as usize);
    released.exits
}

#[test]
fn rule_9a_the_lease_kills_while_the_shim_itself_is_held_up() {
    let exits = ends_of_a_shim_that_is_held_up(1, 5);
    assert!(exits.iter().all(|exit| exit.why.contains("lease")), "{exits:?}");
}

/// Held up while it starts them, some run and some are still to start: none of these ends is the job's fault.
#[test]
fn rule_9a_the_lease_ends_the_start_of_a_shim_that_is_held_up() {
    let exits = ends_of_a_shim_that_is_held_up(100, 6);
    assert!(exits.iter().all(|exit| exit.why.contains("lease")), "{exits:?}");
}

#[test]
fn an_extension_reaches_all_who_keep_the_lease() {
    let mark = sleep_mark(7);
    let deadline_ms = SystemClock.boottime_ms() + 6_000;
    let mut rig = Rig::running(&format!("sleep {mark}; :"), 1, |spec| spec.deadline_ms = deadline_ms);
    let pid = rig.machine_pid(&mark);
    rig.client.send(&Request::Extend { deadline_ms: deadline_ms + LONG_MS });
    rig.client.await_status("the new end", |status| status.deadline_ms > deadline_ms);
    until("the first lease's end", || (SystemClock.boottime_ms() > deadline_ms + 3_000).then_some(()));
    assert!(is_alive(pid), "a rank was killed at an end that was moved");
}

#[test]
fn an_extension_moves_the_end_and_is_noted() {
    let mut rig = Rig::running("sleep 600", 1, |spec| spec.deadline_ms = SystemClock.boottime_ms() + 30_000);
    let deadline_ms = SystemClock.boottime_ms() + LONG_MS;
    rig.client.send(&Request::Extend { deadline_ms });
    rig.client.await_status("the new end", |status| status.deadline_ms == deadline_ms);
    let noted = until("lease.json", || fs::read(rig.dir().join(wire::LEASE_FILE)).ok());
    let noted: wire::Lease = serde_json::from_slice(&noted).expect("whole");
    assert_eq!((noted.deadline_ms, noted.boot_id), (deadline_ms, boot_id().expect("Linux has one")));
}

fn ranks_die_with_the_shim(pid_namespace: bool, test: u32) {
    let mark = sleep_mark(test);
    let mut rig = Rig::running(&format!("exec sleep {mark}"), 1, |spec| spec.pid_namespace = pid_namespace);
    let pid = rig.machine_pid(&mark);
    let status = rig.client.await_status("a status", |_| true);
    assert!(!pid_namespace || !status.weak_fencing || !nix::unistd::geteuid().is_root());
    rig.shim.kill().expect("ours");
    rig.shim.wait().expect("ours");
    until("the rank's death", || (!is_alive(pid)).then_some(()));
}

#[test]
fn rule_9c_ranks_die_with_their_shim() {
    ranks_die_with_the_shim(true, 3);
}

#[test]
fn rule_9c_ranks_die_with_their_shim_without_a_pid_namespace() {
    ranks_die_with_the_shim(false, 4);
}

#[test]
fn a_stop_is_term_then_grace_then_kill() {
    let script = "trap 'echo saved; exit 3' TERM; if [ $RANK = 1 ]; then trap '' TERM; fi; echo up; \
                  while :; do sleep 0.01; done";
    let mut rig = Rig::running(script, 2, |_| {});
    for rank in 0..2 {
        until("both ranks", || rig.output(rank).contains("up").then_some(()));
    }
    let begun = Instant::now();
    rig.client.send(&Request::Stop { signal: None, grace_ms: 700 });
    let released = rig.released();
    let ends: Vec<_> = released.exits.iter().map(|exit| (exit.code, exit.signal)).collect();
    assert_eq!(ends, [(3, 0), (137, 9)], "{}", rig.output(0));
    assert!(begun.elapsed() >= Duration::from_millis(700), "killed within the grace");
    assert_eq!(rig.output(0), "up\nsaved\n");
}

#[test]
fn logs_keep_their_limit_and_drop_the_oldest() {
    let script = "i=0; while [ $i -lt 1000 ]; do echo line-$i-of-a-thousand; i=$((i+1)); done";
    let limits = LogLimits { file_bytes: 1_000, files: 3 };
    let mut rig = Rig::running(script, 1, |spec| spec.logs = limits);
    rig.released();
    let stream = rig.stream(0, "out");
    assert!(rig.output(0).ends_with("line-999-of-a-thousand\n"));
    let dropped: u64 = fs::read_to_string(dropped_file(&stream)).expect("counted").parse().expect("a number");
    let first_kept = dropped / limits.file_bytes;
    assert!(!part_file(&stream, first_kept - 1).exists());
    let whole: String = (0..1000).map(|i| format!("line-{i}-of-a-thousand\n")).collect();
    let kept: String = (first_kept..first_kept + 2)
        .map(|k| fs::read_to_string(part_file(&stream, k)).expect("kept"))
        .chain([rig.output(0)])
        .collect();
    assert_eq!(kept, whole[dropped as usize..], "what is kept is not the end of what was written");
}

#[test]
fn what_cannot_start_is_said_before_or_as_an_exit() {
    let mut missing = Rig::start_alone("true", 1, |spec| {
        (spec.workdir, spec.make_workdir) = ("/no/such/folder".into(), false);
    });
    let failure = missing.released().failure.expect("a failure");
    assert!(!failure.infra && failure.why.contains("/no/such/folder"), "{failure:?}");

    let mut unknown = Rig::running("", 1, |spec| spec.argv = vec!["no-such-program-anywhere".to_owned()]);
    let exits = unknown.released().exits;
    assert_eq!(exits[0].code, 127);
    assert!(exits[0].why.contains("no-such-program-anywhere"), "{exits:?}");
}

#[test]
fn a_folder_has_one_shim_for_ever() {
    let mut rig = Rig::running("sleep 600", 1, |_| {});
    let second = until("the second shim's end", {
        let mut second = spawn_shim(rig.dir());
        move || second.try_wait().expect("ours")
    });
    assert!(!second.success());
    rig.client.await_status("the first one unharmed", |status| status.phase == Phase::Running);
    rig.client.send(&Request::Stop { signal: None, grace_ms: 0 });
    rig.released();
    let third = until("the third shim's end", {
        let mut third = spawn_shim(rig.dir());
        move || third.try_wait().expect("ours")
    });
    assert!(!third.success(), "a used folder was used again");
}

#[test]
fn a_rank_finds_itself_in_proc_and_has_no_open_files_of_ours() {
    let script = "[ \"$(readlink /proc/self)\" -gt 0 ] && grep -q . /proc/$$/comm && cat /proc/$$/comm; ls /proc/$$/fd";
    let mut rig = Rig::running(script, 1, |_| {});
    rig.released();
    assert_eq!(rig.output(0), "sh\n0\n1\n2\n");
}

/// User and group of the test below.
const NOBODY: u32 = 65_534;

#[test]
fn an_ordinary_user_gets_a_pid_namespace_too() {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    if !nix::unistd::geteuid().is_root() {
        println!("left out: the other tests of this file already run as an ordinary user");
        return;
    }
    let user_namespaces = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    if user_namespaces.trim() == "0" {
        println!("left out: this kernel allows no user namespaces");
        return;
    }
    let mut rig = Rig::start_alone("", 1, |spec| {
        spec.argv[2] = "id -u; cat /proc/$$/comm; readlink /proc/self >own; exit 0".to_owned();
    });
    // The shim of the rig is root's: take its place, under a binary that anyone may run.
    rig.clear();
    let shim = rig.dir().join("muster-shim");
    fs::copy(env!("CARGO_BIN_EXE_muster-shim"), &shim).expect("copied");
    fs::set_permissions(&shim, fs::Permissions::from_mode(0o755)).expect("set");
    for path in [rig.dir().to_owned(), rig.dir().join(wire::SPEC_FILE)] {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    let mut command = Command::new(&shim);
    command.arg("--dir").arg(rig.dir()).stdin(Stdio::null()).uid(NOBODY).gid(NOBODY);
    rig.shim = command.spawn().expect("the shim starts");
    rig.client = Client::connect(rig.dir());
    let status = rig.client.await_status("the barrier", |status| status.phase == Phase::Barrier);
    assert!(!status.weak_fencing, "an ordinary user's fencing is weak");
    rig.client.send(&Request::Go);
    rig.released();
    assert_eq!(rig.output(0), format!("{NOBODY}\nsh\n"));
}

#[test]
fn a_shim_has_files_enough_for_its_ranks_however_few_it_was_started_with() {
    // All of them stay, and with them the files that the shim has for each.
    let mut rig = Rig::start_alone("until [ -e go-on ]; do sleep 0.05; done", 40, |_| {});
    // The shim of the rig has this process's limit: take its place under a lower one.
    rig.clear();
    let mut command = Command::new("/bin/sh");
    let with_few = "ulimit -S -n 64 && exec \"$0\" --dir \"$1\"";
    command.args(["-c", with_few, env!("CARGO_BIN_EXE_muster-shim")]).arg(rig.dir());
    rig.shim = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the shim starts");
    rig.client = Client::connect(rig.dir());
    rig.client.await_status("the barrier", |status| status.phase == Phase::Barrier);
    rig.client.send(&Request::Go);
    rig.client.await_status("the start", |status| status.spawned);
    fs::write(rig.dir().join("work/go-on"), "").expect("written");
    let exits = rig.released().exits;
    assert!(exits.len() == 40 && exits.iter().all(|exit| exit.code == 0), "{exits:?}");
}
