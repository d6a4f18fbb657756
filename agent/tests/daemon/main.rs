//! A whole agent with real shims, real files and a real TLS stream, against a leader that does what
//! the test says.

mod leader;

use leader::{Leader, authority};
use muster_agent::{AgentError, Config};
use muster_common::Name;
use muster_proto::agent as wire;
use muster_runtime::shutdown::Shutdown;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use wire::Phase::{Prepare, Run, Stop};
use wire::server_message::Body as ToAgent;

const LIMIT: Duration = Duration::from_secs(30);
const NODE: &str = "n1";

struct Rig {
    folder: tempfile::TempDir,
    leader: Leader,
    config: Config,
    agent: Option<(Shutdown, JoinHandle<Result<(), AgentError>>)>,
}

/// Awaits a condition; fails with `what` when it does not come.
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Rig {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temp folder");
        let authority = authority(NODE, &folder.path().join("identity"));
        let leader = Leader::start(&authority).await;
        let mut config = Config::new(vec![leader.address.clone()], Name::literal(NODE), folder.path().to_owned());
        config.devices = "simulated:dgx-h100".to_owned();
        config.address = Some("127.0.0.1".to_owned());
        config.shim_command = Some(vec![env!("CARGO_BIN_EXE_muster-shim").to_owned()]);
        let mut rig = Self { folder, leader, config, agent: None };
        rig.start_agent().await;
        rig
    }

    /// Waits for the agent's hello.
    async fn start_agent(&mut self) {
        let before = self.leader.with(|world| world.hellos.len());
        let shutdown = Shutdown::new();
        let task = tokio::spawn(muster_agent::run(self.config.clone(), shutdown.clone()));
        self.agent = Some((shutdown, task));
        until("a hello", || self.leader.with(|world| world.hellos.len() > before).then_some(())).await;
    }

    async fn stop_agent(&mut self) {
        let (shutdown, task) = self.agent.take().expect("it runs");
        shutdown.trigger();
        task.await.expect("no panic").expect("a clean end");
    }

    fn allocation(&self, job: u64, index: u64, phase: wire::Phase, script: &str) -> wire::Allocation {
        self.allocation_on([0, 1], job, index, phase, script)
    }

    fn allocation_on(
        &self,
        slots: [u32; 2],
        job: u64,
        index: u64,
        phase: wire::Phase,
        script: &str,
    ) -> wire::Allocation {
        let hello = self.leader.with(|world| world.hellos.last().cloned()).expect("it joined");
        let devices = hello.inventory.expect("always there").devices;
        let share = |slot: u32| wire::DeviceShare { slot, uuid: devices[slot as usize].uuid.clone(), milli: 1000 };
        wire::Allocation {
            gang: Some(wire::Gang { job, ordinal: 0 }),
            attempt: 1,
            token: Some(wire::Token { generation: 1, index }),
            phase: phase.into(),
            devices: slots.map(share).to_vec(),
            ranks: 2,
            world_size: 2,
            peers: vec![wire::Peer {
                node_name: NODE.into(),
                address: "127.0.0.1".into(),
                devices: 2,
                ranks: 2,
                group: 0,
            }],
            master_port: 20_000,
            launch_hash: self.leader.launch(script).into(),
            stop_grace_ms: 5_000,
            lease_ms: 60_000,
            ..Default::default()
        }
    }

    async fn await_told(&self, wanted: &[&str]) {
        let all = |told: &[String]| wanted.iter().all(|want| told.iter().any(|got| got.starts_with(want)));
        until(&format!("{wanted:?}"), || all(&self.leader.told()).then_some(())).await;
    }

    /// Gang `job` runs `script` on two ranks.
    async fn running(&self, job: u64, index: u64, script: &str) {
        self.leader.desire(index + 1, vec![self.allocation(job, index, Prepare, script)]);
        self.await_told(&[&format!("{job}:prepared")]).await;
        self.leader.desire(index + 2, vec![self.allocation(job, index, Run, script)]);
    }

    /// The only attempt's folder below `logs` or `output`.
    fn attempt(&self, kind: &str, job: u64) -> PathBuf {
        let gang = self.folder.path().join(kind).join(format!("{job}_0"));
        let first = fs::read_dir(&gang).into_iter().flatten().flatten().next();
        first.map_or_else(|| gang.join("none-yet"), |entry| entry.path())
    }

    fn log(&self, job: u64, rank: u32) -> PathBuf {
        self.attempt("logs", job).join(format!("rank-{rank}.out"))
    }

    async fn await_log(&self, job: u64, rank: u32, wanted: &str) {
        let path = self.log(job, rank);
        until(wanted, || fs::read_to_string(&path).ok()?.contains(wanted).then_some(())).await;
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Shims would otherwise live as long as their leases.
        for pid in marked(self.folder.path()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Shims of this test: they name its folder in their command line.
fn marked(folder: &Path) -> BTreeSet<i32> {
    let folder = folder.display().to_string();
    let names_it = |pid: i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&folder))
    };
    let pids = fs::read_dir("/proc").expect("there").flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| names_it(*pid)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_goes_from_preparation_to_release_over_the_wire() {
    let rig = Rig::start().await;
    let script = "echo rank $RANK of $WORLD_SIZE at $MASTER_ADDR:$MASTER_PORT sees $CUDA_VISIBLE_DEVICES; exit $RANK";
    rig.running(1, 50, script).await;
    rig.await_told(&["1:exited(0,0,0)", "1:exited(1,1,0)"]).await;
    assert!(!rig.leader.told().iter().any(|told| told.contains("released")), "a release nobody asked for");
    rig.leader.desire(60, vec![rig.allocation(1, 50, Stop, script)]);
    rig.await_told(&["1:released(false)"]).await;
    let text = fs::read_to_string(rig.log(1, 1)).expect("a log");
    assert!(text.starts_with("rank 1 of 2 at 127.0.0.1:20000 sees GPU-"), "{text}");
    rig.leader.desire(61, Vec::new());
    let left = rig.folder.path().join("allocations");
    until("the folder's end", || (fs::read_dir(&left).ok()?.count() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_a_rank_says_is_complete_is_told() {
    let rig = Rig::start().await;
    rig.running(1, 50, "test $RANK = 1 || touch $MUSTER_CHECKPOINT_FILE; sleep 60").await;
    rig.await_told(&["1:checkpointed"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_11_ranks_outlive_their_agent_and_the_next_one_learns_all() {
    let mut rig = Rig::start().await;
    let script = "echo up; until [ -e go-on ]; do sleep 0.02; done; echo done; exit $((RANK + 3))";
    rig.leader.with(|world| world.acknowledge = false);
    rig.running(1, 50, script).await;
    rig.await_log(1, 1, "up").await;
    rig.stop_agent().await;
    fs::write(rig.attempt("output", 1).join("go-on"), "").expect("written");
    rig.await_log(1, 0, "done").await;
    rig.await_log(1, 1, "done").await;
    rig.start_agent().await;
    rig.await_told(&["1:exited(0,3,0)", "1:exited(1,4,0)"]).await;
    let (first, last) = rig.leader.with(|world| (world.hellos[0].clone(), world.hellos.last().cloned().expect("one")));
    assert_eq!(first.store_id, last.store_id);
    assert_ne!(first.instance, last.instance);
    assert!(!last.store_lost);
    assert_eq!(last.held.len(), 1);
    let twice = rig.leader.with(|world| world.arrivals.get(&1).copied());
    assert!(twice >= Some(2), "an unacknowledged report was not told again");
}

/// An operator moves allocations to `/run` and restarts the agent while ranks run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_11_ranks_are_found_after_the_runtime_folder_was_set() {
    the_runtime_folder_moves(None, Some("run")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_11_ranks_are_found_after_the_runtime_folder_was_moved() {
    the_runtime_folder_moves(Some("run-1"), Some("run-2")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_11_ranks_are_found_after_the_runtime_folder_is_no_longer_set() {
    the_runtime_folder_moves(Some("run-1"), None).await;
}

/// Ranks start under one setting and end under the other.
async fn the_runtime_folder_moves(before: Option<&str>, after: Option<&str>) {
    let mut rig = Rig::start().await;
    let place = |named: Option<&str>| named.map(|named| rig.folder.path().join(named));
    let (before, after) = (place(before), place(after));
    if before.is_some() {
        rig.stop_agent().await;
        rig.config.runtime_dir = before.clone();
        rig.start_agent().await;
    }
    let script = "echo up; until [ -e go-on ]; do sleep 0.02; done; exit $((RANK + 3))";
    rig.running(1, 50, script).await;
    rig.await_log(1, 1, "up").await;
    rig.stop_agent().await;
    rig.config.runtime_dir = after.clone();
    rig.start_agent().await;
    let [before, after] = [before, after].map(|named| named.unwrap_or_else(|| rig.folder.path().to_owned()));
    let second = |phase| rig.allocation_on([2, 3], 2, 55, phase, "exit 7");
    rig.leader.desire(60, vec![rig.allocation(1, 50, Run, script), second(Prepare)]);
    rig.await_told(&["2:prepared"]).await;
    assert_eq!(fs::read_dir(after.join("allocations")).expect("the new one's place").count(), 1);
    fs::write(rig.attempt("output", 1).join("go-on"), "").expect("written");
    rig.await_told(&["1:exited(0,3,0)", "1:exited(1,4,0)"]).await;
    rig.leader.desire(70, vec![rig.allocation(1, 50, Stop, script), second(Stop)]);
    rig.await_told(&["1:released(false)", "2:released(false)"]).await;
    rig.leader.desire(71, Vec::new());
    for place in [before, after] {
        let left = place.join("allocations");
        until("the folder's end", || (fs::read_dir(&left).ok()?.count() == 0).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempts_number_that_restored_servers_give_again_runs_beside_what_it_left_behind() {
    let rig = Rig::start().await;
    let told = |what: &str| rig.leader.told().iter().filter(|told| told.starts_with(what)).count();
    for (times, index) in [(1, 50), (2, 70)] {
        rig.running(1, index, "echo here").await;
        until("the ends of both ranks", || (told("1:exited") == 2 * times).then_some(())).await;
        rig.leader.desire(index + 3, vec![rig.allocation(1, index, Stop, "echo here")]);
        until("the release", || (told("1:released") == times).then_some(())).await;
    }
    let ends = rig.leader.told();
    assert_eq!((told("1:exited(0,0,0)"), told("1:exited(1,0,0)")), (2, 2), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_5b_reports_are_told_again_in_every_session_until_acknowledged() {
    let rig = Rig::start().await;
    rig.leader.with(|world| world.acknowledge = false);
    rig.running(1, 50, "exit 0").await;
    rig.await_told(&["1:exited(0,0,0)", "1:exited(1,0,0)"]).await;
    let before = rig.leader.with(|world| world.arrivals.clone());
    rig.leader.hang_up();
    let again = || {
        let now = rig.leader.with(|world| world.arrivals.clone());
        before.iter().all(|(number, times)| now.get(number) > Some(times)).then_some(())
    };
    until("every report again", again).await;
    rig.leader.with(|world| world.acknowledge = true);
    rig.leader.desire(60, vec![rig.allocation(1, 50, Stop, "exit 0")]);
    rig.await_told(&["1:released(false)"]).await;
    let sessions = rig.leader.with(|world| world.hellos.len());
    rig.leader.hang_up();
    let next = || rig.leader.with(|world| world.hellos.get(sessions).cloned());
    let hello = until("the next session", next).await;
    let last = rig.leader.with(|world| world.reports.last_key_value().map(|(number, _)| *number)).expect("some");
    assert_eq!(hello.first_report, last + 1, "acknowledged reports were kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_8b_a_lost_store_is_swept_after_before_anything_counts_as_released() {
    let mut rig = Rig::start().await;
    let script = "echo up; exec sleep 600";
    rig.running(1, 50, script).await;
    for rank in 0..2 {
        rig.await_log(1, rank, "up").await;
    }
    let shims = marked(rig.folder.path());
    assert!(!shims.is_empty());
    rig.stop_agent().await;
    assert_eq!(marked(rig.folder.path()), shims, "the agent's end took its shim along");
    fs::write(rig.folder.path().join("store"), b"garbage").expect("damaged");
    rig.leader.with(|world| world.extend = false);
    rig.leader.desire(60, vec![rig.allocation(1, 50, Stop, script)]);
    rig.start_agent().await;
    let hello = rig.leader.with(|world| world.hellos.last().cloned()).expect("one");
    assert!(hello.store_lost && hello.held.is_empty(), "{hello:?}");
    rig.await_told(&["1:released(false)"]).await;
    assert_eq!(marked(rig.folder.path()), BTreeSet::new(), "released while its processes lived");
    assert!(rig.folder.path().join("store.damaged-1").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_killed_for_good_is_reported_as_gone_only_when_nothing_is_left() {
    let rig = Rig::start().await;
    rig.running(1, 50, "echo up; exec sleep 600").await;
    rig.await_log(1, 0, "up").await;
    for pid in marked(rig.folder.path()) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("ours");
    }
    rig.await_told(&["1:released(false)"]).await;
    assert_eq!(marked(rig.folder.path()), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_lead_is_left_for_the_one_that_does() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let authority = authority(NODE, &folder.path().join("identity"));
    let (follower, leader) = (Leader::start(&authority).await, Leader::start(&authority).await);
    follower.with(|world| world.redirect_to = Some(leader.address.clone()));
    let dead = "127.0.0.1:9".to_owned();
    let mut config = Config::new(vec![dead, follower.address.clone()], Name::literal(NODE), folder.path().to_owned());
    config.devices = "none".to_owned();
    config.address = Some("127.0.0.1".to_owned());
    let shutdown = Shutdown::new();
    let agent = tokio::spawn(muster_agent::run(config, shutdown.clone()));
    until("the leader's hello", || leader.with(|world| world.hellos.first().cloned())).await;
    shutdown.trigger();
    agent.await.expect("no panic").expect("a clean end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_cluster_is_not_joined() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let own = Leader::start(&authority(NODE, &folder.path().join("identity"))).await;
    let other = tempfile::tempdir().expect("a temp folder");
    let stranger = Leader::start(&authority(NODE, other.path())).await;
    let servers = vec![stranger.address.clone(), own.address.clone()];
    let mut config = Config::new(servers, Name::literal(NODE), folder.path().to_owned());
    config.devices = "none".to_owned();
    config.address = Some("127.0.0.1".to_owned());
    let shutdown = Shutdown::new();
    let agent = tokio::spawn(muster_agent::run(config, shutdown.clone()));
    until("its own leader's hello", || own.with(|world| world.hellos.first().cloned())).await;
    assert_eq!(stranger.with(|world| world.hellos.len()), 0, "the stranger, tried first, was told something");
    shutdown.trigger();
    agent.await.expect("no panic").expect("a clean end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_stream_live_and_end_with_the_attempt() {
    let rig = Rig::start().await;
    let script = "echo first; until [ -e go-on ]; do sleep 0.02; done; echo last";
    rig.running(1, 50, script).await;
    rig.await_log(1, 1, "first").await;
    let request = wire::LogRequest {
        request: 9,
        gang: Some(wire::Gang { job: 1, ordinal: 0 }),
        attempt: 1,
        ranks: vec![1],
        follow: true,
        ..Default::default()
    };
    rig.leader.tell(ToAgent::Log(request));
    let text = || {
        rig.leader.with(|world| {
            world.chunks.iter().map(|chunk| String::from_utf8_lossy(&chunk.data).into_owned()).collect::<String>()
        })
    };
    until("the first line", || text().contains("first").then_some(())).await;
    fs::write(rig.attempt("output", 1).join("go-on"), "").expect("written");
    let end = until("the end", || rig.leader.with(|world| world.chunks.iter().find(|chunk| chunk.end).cloned())).await;
    assert_eq!((end.error.as_str(), text().as_str()), ("", "first\nlast\n"));
    assert!(rig.leader.with(|world| world.chunks.iter().all(|chunk| chunk.end || chunk.rank == 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launch_part_that_is_not_what_its_name_says_is_never_run() {
    let rig = Rig::start().await;
    let allocation = rig.allocation(1, 50, Prepare, "echo right");
    let wrong = rig.leader.launch("echo wrong");
    rig.leader.with(|world| {
        let bytes = world.launches[&wrong].clone();
        world.launches.insert(allocation.launch_hash.to_vec(), bytes);
    });
    rig.leader.desire(51, vec![allocation.clone()]);
    until("more fetches", || rig.leader.with(|world| world.fetches > 2).then_some(())).await;
    assert_eq!(rig.leader.told(), [""; 0], "a tampered launch part was prepared");
    let right = rig.leader.launch("echo right");
    assert_eq!(right, allocation.launch_hash.to_vec());
    rig.await_told(&["1:prepared"]).await;
}

/// Nobody listens for datagrams, or only for those of another release: the stream carries all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_datagrams_that_get_through_renewals_and_telemetry_go_over_the_stream() {
    let dead = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound").port().into();
    let nobody = wire::Datagrams { port: dead, oldest_version: 1, newest_version: 1 };
    let newer = wire::Datagrams { oldest_version: 7, newest_version: 9, ..nobody };
    for offered in [None, Some(newer), Some(nobody)] {
        let rig = Rig::start().await;
        rig.leader.with(|world| (world.datagrams, world.telemetry) = (offered, None));
        rig.leader.hang_up();
        until("the next hello", || rig.leader.with(|world| (world.hellos.len() > 1).then_some(()))).await;
        let before = rig.leader.with(|world| world.renewals);
        let renewed = || rig.leader.with(|world| (world.renewals > before + 20).then_some(()));
        until(&format!("renewals with {offered:?}"), renewed).await;
        assert_eq!(rig.leader.with(|world| world.hellos.len()), 2, "the session broke");
        let telemetry = until("telemetry", || rig.leader.with(|world| world.telemetry.clone())).await;
        assert_eq!(telemetry.samples.len(), 8, "one of each device");
    }
}

#[tokio::test]
async fn an_agent_says_what_it_lacks() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let config = Config::new(vec!["127.0.0.1:9".to_owned()], Name::literal(NODE), folder.path().to_owned());
    let error = muster_agent::run(config.clone(), Shutdown::new()).await.expect_err("no identity");
    assert!(error.to_string().contains("muster agent join"), "{error}");
    authority("another", &folder.path().join("identity"));
    let error = muster_agent::run(config, Shutdown::new()).await.expect_err("another's identity");
    assert!(matches!(error, AgentError::WrongName { .. }), "{error}");
}
