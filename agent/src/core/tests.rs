//! The centre with its runners and pretended shims, under a clock moved by hand.

use super::*;
use crate::assignment::{Assignment, tests::assignment};
use crate::config::Config;
use crate::device::{SimulatedControl, SimulatedProbe};
use crate::launcher::InProcess;
use crate::launches::{Launches, tests::put};
use crate::paths::Paths;
use crate::shim::machine::Phase as ShimPhase;
use crate::store::test_held;
use muster_common::job::Hash;
use muster_common::{JobId, Name, Token};
use muster_proto::agent::Phase::{self, Prepare, Run, Stop};
use muster_runtime::clock::{ManualClock, ManualTime};
use std::path::Path;
use std::time::Duration;

mod devices;

const LEASE_MS: u64 = 60_000;
const KILL_BOUND_MS: u64 = 5_000;

struct Rig {
    folder: tempfile::TempDir,
    time: ManualTime,
    launcher: InProcess,
    probe: SimulatedControl,
    core: CoreHandle,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<Result<(), CoreError>>,
    applied_index: u64,
    generation: u32,
}

/// Awaits a condition while tasks go on; real time only bounds a failure.
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..4_000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("waited in vain for: {what}");
}

impl Rig {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temp folder");
        let time = ManualTime::new(0);
        time.advance(1_000_000);
        let launcher = InProcess::new(Arc::new(time.clock()));
        Self::start_in(folder, time, launcher, "boot-1").await
    }

    async fn start_in(folder: tempfile::TempDir, time: ManualTime, launcher: InProcess, boot_id: &str) -> Self {
        let probe = SimulatedProbe::new("dgx-h100", None, "n").expect("a fixture");
        let control = probe.control();
        let devices = Devices::new(Box::new(probe), (0..8).map(|slot| format!("GPU-{slot}")).collect());
        Self::start_with(folder, time, launcher, boot_id, devices, control).await
    }

    async fn start_with(
        folder: tempfile::TempDir,
        time: ManualTime,
        launcher: InProcess,
        boot_id: &str,
        devices: Devices,
        probe: SimulatedControl,
    ) -> Self {
        let clock: ManualClock = time.clock();
        let config = Config::new(vec!["a:1".to_owned()], Name::literal("n"), folder.path().to_owned());
        let paths = Paths::of(&config);
        let workplace = Workplace {
            launches: Launches::new(paths.launches(), watch::channel(None).1),
            paths,
            boot_id: boot_id.to_owned(),
            pid_namespace: false,
            around: crate::env::Surroundings::default(),
        };
        let (core, handle) = Core::new(CoreParts {
            store: Store::open(folder.path(), || "store-1".to_owned()).expect("usable"),
            workplace,
            launcher: Arc::new(launcher.clone()),
            devices,
            clock: Arc::new(clock),
            kill_bound_ms: KILL_BOUND_MS,
            kept_logs: 10,
        });
        let shutdown = Shutdown::new();
        let task = tokio::spawn(core.run(shutdown.clone()));
        Self { folder, time, launcher, probe, core: handle, shutdown, task, applied_index: 1_000, generation: 1 }
    }

    /// The agent dies; shims and files stay.
    async fn restart(self, boot_id: &str) -> Self {
        self.shutdown.trigger();
        self.task.await.expect("no panic").expect("a clean end");
        let (applied_index, generation) = (self.applied_index, self.generation);
        let rig = Self::start_in(self.folder, self.time, self.launcher, boot_id).await;
        Self { applied_index, generation, ..rig }
    }

    fn launch(&self, kind: &str) -> Hash {
        put(&self.folder.path().join("launches"), kind, None)
    }

    /// Work of gang `job` that does `kind`.
    fn work(&self, job: u64, index: u64, phase: Phase, slots: &[u32], kind: &str) -> Assignment {
        let mut assignment = assignment(job, index, phase, slots);
        if let Some(run) = &mut assignment.run {
            run.launch = self.launch(kind);
            run.lease_ms = LEASE_MS;
        }
        assignment.stop = StopRulesFor::default().0;
        assignment
    }

    async fn desire(&mut self, assignments: Vec<Assignment>) {
        self.applied_index += 1;
        let Self { generation, applied_index, .. } = *self;
        let position = Position { generation, term: 1, applied_index };
        let desired = Desired { cluster_id: "c".to_owned(), position, epoch: 1, assignments };
        self.core.desired(desired).await.expect("the centre lives");
    }

    async fn renew(&self) {
        use muster_runtime::clock::Clock;
        self.core.lease_extended(self.time.clock().boottime_ms()).await.expect("the centre lives");
    }

    /// Every report so far, as `job:what`.
    fn reports(&self) -> Vec<String> {
        let word = |report: &Report| {
            let what = format!("{:?}", report.body);
            let what = what.split([' ', '(', '{']).next().unwrap_or_default().to_lowercase();
            format!("{}:{what}", report.key.map_or(0, |key| key.gang.job.0))
        };
        self.core.pending.borrow().values().map(word).collect()
    }

    async fn await_report(&self, wanted: &str) {
        until(wanted, || self.reports().iter().any(|report| report == wanted).then_some(())).await;
    }

    fn dir(&self, assignment: &Assignment) -> std::path::PathBuf {
        self.folder.path().join("allocations").join(assignment.key.to_string())
    }

    async fn running(&mut self, job: u64, index: u64, slots: &[u32], kind: &str) -> Assignment {
        let work = self.work(job, index, Prepare, slots, kind);
        self.renew().await;
        self.desire(vec![work.clone()]).await;
        self.await_report(&format!("{job}:prepared")).await;
        self.desire(vec![self.work(job, index, Run, slots, kind)]).await;
        self.await_report(&format!("{job}:started")).await;
        work
    }

    async fn acknowledge_all(&self) {
        let last = self.core.pending.borrow().last_key_value().map(|(number, _)| *number);
        self.core.acknowledged(last.expect("something was reported")).await.expect("the centre lives");
        until("the acknowledgement", || self.reports().is_empty().then_some(())).await;
    }

    /// Lets everything that is due without more time happen.
    async fn settle(&self) {
        for _ in 0..20 {
            self.core.introduce().await.expect("the centre lives");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

struct StopRulesFor(crate::assignment::StopRules);

impl Default for StopRulesFor {
    fn default() -> Self {
        Self(crate::assignment::StopRules { signal: None, grace_ms: 10_000, cause: "test".to_owned() })
    }
}

fn store_on_disk(dir: &Path) -> Store {
    let copy = tempfile::tempdir().expect("a temp folder");
    std::fs::copy(dir.join("store"), copy.path().join("store")).expect("it is there");
    Store::open(copy.path(), || "x".to_owned()).expect("usable")
}

#[tokio::test]
async fn a_gangs_part_goes_from_preparation_to_release() {
    let mut rig = Rig::start().await;
    rig.running(1, 50, &[0, 1], "run").await;
    rig.desire(vec![rig.work(1, 50, Stop, &[0, 1], "run")]).await;
    rig.await_report("1:released").await;
    assert_eq!(rig.reports(), ["1:prepared", "1:started", "1:exited", "1:exited", "1:released"]);
    let last = rig.core.introduce().await.expect("lives").first_report + 4;
    rig.core.acknowledged(last).await.expect("lives");
    rig.desire(Vec::new()).await;
    rig.settle().await;
    assert_eq!(rig.core.introduce().await.expect("lives").held, []);
}

#[tokio::test]
async fn an_end_that_restored_servers_do_not_know_is_told_again_and_only_told() {
    let mut rig = Rig::start().await;
    let work = rig.running(1, 50, &[0], "run").await;
    for rank in [2, 3] {
        rig.launcher.end_rank(&rig.dir(&work), rank, 0);
    }
    until("the end", || rig.core.live.borrow().is_empty().then_some(())).await;
    rig.desire(vec![rig.work(1, 50, Stop, &[0], "run")]).await;
    rig.await_report("1:released").await;
    rig.acknowledge_all().await;
    rig.desire(Vec::new()).await;
    rig.settle().await;
    let mut rig = rig.restart("boot-1").await;
    rig.renew().await;
    assert_eq!(rig.core.introduce().await.expect("lives").held, [(work.key, "ended", None)]);
    let again = ["1:prepared", "1:exited", "1:exited"];
    rig.generation = 2;
    for _ in 0..2 {
        rig.desire(vec![rig.work(1, 50, Run, &[0], "run")]).await;
        rig.settle().await;
        assert_eq!(rig.reports(), again);
    }
    rig.acknowledge_all().await;
    rig.desire(vec![rig.work(1, 50, Run, &[0], "run")]).await;
    rig.settle().await;
    assert_eq!(rig.reports(), [""; 0], "others of the gang are awaited");
    rig.generation = 3;
    rig.desire(vec![rig.work(1, 50, Run, &[0], "run")]).await;
    rig.settle().await;
    assert_eq!(rig.reports(), again, "restored a second time");
    rig.desire(vec![rig.work(1, 50, Stop, &[0], "run")]).await;
    rig.await_report("1:released").await;
}

#[tokio::test]
async fn rule_4a_the_record_is_on_disk_before_anything_is_created() {
    let mut rig = Rig::start().await;
    rig.renew().await;
    // The leader and the registration are known and saved: only the acceptance is left to write.
    rig.desire(Vec::new()).await;
    rig.settle().await;
    // A store that cannot be written any more: the state folder's file name is taken by a folder.
    let path = rig.folder.path().join("store");
    std::fs::remove_file(&path).expect("it was there");
    std::fs::create_dir_all(path.join("in-the-way")).expect("made");
    let work = rig.work(1, 50, Prepare, &[0], "run");
    rig.desire(vec![work]).await;
    assert!((&mut rig.task).await.expect("no panic").is_err(), "it went on without a record");
    assert_eq!(rig.launcher.started(), Vec::<std::path::PathBuf>::new(), "a shim was started without a record");
}

#[tokio::test]
async fn rule_6e_the_first_deadline_is_the_lease_the_node_already_has() {
    let mut rig = Rig::start().await;
    rig.renew().await;
    rig.time.advance(20_000);
    let work = rig.work(1, 50, Prepare, &[0], "run");
    rig.desire(vec![work.clone()]).await;
    rig.await_report("1:prepared").await;
    let store = store_on_disk(rig.folder.path());
    let held = store.held().get(&work.key).expect("recorded");
    assert_eq!((held.first_deadline_ms, held.boot_id.as_str()), (1_000_000 + LEASE_MS, "boot-1"));
    assert_eq!(held.run.devices[0].uuid, "GPU-0");
}

#[tokio::test]
async fn rule_6a_the_lease_counts_from_when_the_renewal_was_sent() {
    let mut rig = Rig::start().await;
    let work = rig.running(1, 50, &[0], "run").await;
    rig.time.advance(20_000);
    let sent_ms = 1_010_000;
    rig.core.lease_extended(sent_ms).await.expect("lives");
    let deadline = |rig: &Rig| rig.launcher.status(&rig.dir(&work)).expect("a shim").deadline_ms;
    until("the new end", || (deadline(&rig) > 1_000_000 + LEASE_MS).then_some(())).await;
    assert_eq!(deadline(&rig), sent_ms + LEASE_MS, "the lease does not count from the sending");
    rig.core.lease_extended(sent_ms - 5_000).await.expect("lives");
    rig.settle().await;
    assert_eq!(deadline(&rig), sent_ms + LEASE_MS, "an older renewal took effect");
}

#[tokio::test]
async fn nothing_is_prepared_before_a_leader_has_acknowledged_a_renewal() {
    let mut rig = Rig::start().await;
    rig.desire(vec![rig.work(1, 50, Prepare, &[0], "run")]).await;
    rig.settle().await;
    assert_eq!(rig.reports(), [""; 0]);
    rig.renew().await;
    rig.await_report("1:prepared").await;
}

#[tokio::test]
async fn nothing_begins_under_a_lease_that_is_over_or_nearly_so() {
    let mut rig = Rig::start().await;
    rig.renew().await;
    rig.settle().await;
    rig.time.advance(LEASE_MS - 1);
    rig.desire(vec![rig.work(1, 50, Prepare, &[0], "run")]).await;
    for _ in 0..2 {
        rig.settle().await;
        assert_eq!(rig.reports(), [""; 0]);
        assert_eq!(rig.launcher.started(), Vec::<std::path::PathBuf>::new());
        rig.time.advance(LEASE_MS);
        rig.desire(vec![rig.work(1, 50, Prepare, &[0], "run")]).await;
    }
    rig.renew().await;
    rig.await_report("1:prepared").await;
}

#[tokio::test]
async fn a_lease_that_was_changed_holds_for_what_runs_from_the_next_renewal_on() {
    let mut rig = Rig::start().await;
    let work = rig.running(1, 50, &[0], "run").await;
    let deadline = |rig: &Rig| rig.launcher.status(&rig.dir(&work)).expect("a shim").deadline_ms;
    for (lease_ms, after_ms) in [(2 * LEASE_MS, 1_000), (LEASE_MS / 2, 2 * LEASE_MS - 10_000)] {
        let mut again = rig.work(1, 50, Run, &[0], "run");
        again.run.as_mut().expect("it runs").lease_ms = lease_ms;
        rig.desire(vec![again]).await;
        rig.settle().await;
        rig.time.advance(after_ms);
        rig.renew().await;
        let end_ms = rig.time.now_ms() + lease_ms;
        until("the other lease", || (deadline(&rig) == end_ms).then_some(())).await;
    }
}

#[tokio::test]
async fn rule_9a_without_renewals_everything_ends_and_says_why() {
    let mut rig = Rig::start().await;
    rig.running(1, 50, &[0], "stubborn").await;
    rig.time.advance(LEASE_MS);
    rig.await_report("1:released").await;
    let pending = rig.core.pending.borrow().clone();
    assert!(pending.values().any(|report| report.body == ReportBody::Released { lease_expired: true }));
    let exited = |report: &&Report| matches!(report.body, ReportBody::Exited(_));
    assert_eq!(pending.values().find(exited), None, "what the lease killed is reported as the job's own end");
}

#[tokio::test]
async fn rule_11_an_agent_restart_re_adopts_and_never_extends_the_lease() {
    let mut rig = Rig::start().await;
    let work = rig.running(1, 50, &[0], "run").await;
    rig.time.advance(10_000);
    let mut rig = rig.restart("boot-1").await;
    rig.settle().await;
    let status = rig.launcher.status(&rig.dir(&work)).expect("the shim lived on");
    assert_eq!((status.phase, status.deadline_ms), (ShimPhase::Running, 1_000_000 + LEASE_MS));
    let held = rig.core.introduce().await.expect("lives").held;
    let told: Vec<_> = held.iter().map(|(key, word, live)| (*key, *word, live.is_some())).collect();
    assert_eq!(told, [(work.key, "running", true)]);
    assert_eq!(rig.reports(), ["1:prepared", "1:started"], "known facts were reported again, or lost");
    rig.launcher.end_rank(&rig.dir(&work), 2, 7);
    rig.await_report("1:exited").await;
    rig.desire(vec![rig.work(1, 50, Stop, &[0], "run")]).await;
    rig.await_report("1:released").await;
}

#[tokio::test]
async fn rule_9b_an_agent_restart_does_not_extend_a_lease() {
    let mut rig = Rig::start().await;
    let work = rig.running(1, 50, &[0], "stubborn").await;
    rig.time.advance(LEASE_MS - 1);
    let rig = rig.restart("boot-1").await;
    until("adoption", || rig.core.live.borrow().contains(&work.key).then_some(())).await;
    rig.settle().await;
    let status = rig.launcher.status(&rig.dir(&work)).expect("the shim lived on");
    assert_eq!((status.phase, status.deadline_ms), (ShimPhase::Running, 1_000_000 + LEASE_MS));
    rig.time.advance(1);
    rig.await_report("1:released").await;
}

#[tokio::test]
async fn ends_that_nobody_saw_are_learned_after_a_restart() {
    let mut rig = Rig::start().await;
    let work = rig.running(1, 50, &[0], "run").await;
    rig.shutdown.trigger();
    (&mut rig.task).await.expect("no panic").expect("a clean end");
    rig.launcher.end_rank(&rig.dir(&work), 2, 0);
    rig.launcher.end_rank(&rig.dir(&work), 3, 9);
    let rig = Rig::start_in(rig.folder, rig.time, rig.launcher, "boot-1").await;
    rig.await_report("1:exited").await;
    until("the end", || rig.core.live.borrow().is_empty().then_some(())).await;
    assert_eq!(rig.reports(), ["1:prepared", "1:started", "1:exited", "1:exited"], "a release nobody asked for");
}

#[tokio::test]
async fn a_reboot_is_the_evidence_that_nothing_is_left() {
    let mut rig = Rig::start().await;
    rig.running(1, 50, &[0], "run").await;
    let rig = rig.restart("boot-2").await;
    rig.await_report("1:released").await;
}

#[tokio::test]
async fn a_vanished_shim_is_swept_after_and_released() {
    let mut rig = Rig::start().await;
    let work = rig.running(1, 50, &[0], "run").await;
    rig.launcher.vanish(&rig.dir(&work));
    rig.await_report("1:released").await;
}

#[tokio::test]
async fn rule_8d_a_release_waits_for_the_devices_too() {
    let mut rig = Rig::start().await;
    rig.running(1, 50, &[0, 1], "run").await;
    rig.probe.set_processes(1, vec![4242]);
    rig.desire(vec![rig.work(1, 50, Stop, &[0, 1], "run")]).await;
    rig.await_report("1:exited").await;
    rig.settle().await;
    assert!(!rig.reports().contains(&"1:released".to_owned()), "released with a process on its device");
    rig.probe.set_processes(1, Vec::new());
    rig.time.advance(100);
    rig.await_report("1:released").await;
}

#[tokio::test]
async fn rule_12_a_leftover_that_survives_sigkill_quarantines_what_is_idle_and_starts_nothing() {
    let mut rig = Rig::start().await;
    rig.running(1, 50, &[0, 1], "unkillable").await;
    std::fs::remove_file(rig.folder.path().join("store")).expect("the store was there");
    let mut rig = rig.restart("boot-1").await;
    let faults = |rig: &Rig| rig.reports().iter().filter(|report| *report == "0:devicefault").count();
    rig.settle().await;
    assert_eq!(faults(&rig), 0, "given up before the kill bound");
    for _ in 0..12 {
        rig.settle().await;
        rig.time.advance(500);
    }
    until("every device in quarantine", || (faults(&rig) == 8).then_some(())).await;
    rig.renew().await;
    rig.desire(vec![rig.work(2, 60, Prepare, &[5], "run")]).await;
    for _ in 0..12 {
        rig.settle().await;
        rig.time.advance(500);
    }
    let reports = rig.reports();
    assert_eq!(faults(&rig), 8, "told once: {reports:?}");
    assert!(!reports.iter().any(|report| report.starts_with("2:")), "{reports:?}");
}

#[tokio::test]
async fn rule_12_what_survives_sigkill_quarantines_its_devices_and_is_never_reused_on_a_timer() {
    let mut rig = Rig::start().await;
    let work = rig.running(1, 50, &[0, 1], "unkillable").await;
    let mut stop = rig.work(1, 50, Stop, &[0, 1], "unkillable");
    stop.stop.grace_ms = 0;
    rig.desire(vec![stop.clone()]).await;
    until("the kill", || {
        let status = rig.launcher.status(&rig.dir(&work)).expect("a shim");
        matches!(status.phase, ShimPhase::Killing { .. }).then_some(())
    })
    .await;
    for _ in 0..12 {
        rig.settle().await;
        rig.time.advance(500);
    }
    rig.await_report("1:quarantined").await;
    rig.desire(vec![stop, rig.work(2, 60, Prepare, &[1], "run")]).await;
    rig.time.advance(LEASE_MS);
    rig.settle().await;
    let reports = rig.reports();
    assert_eq!(reports.iter().filter(|report| *report == "1:quarantined").count(), 1, "{reports:?}");
    assert!(!reports.iter().any(|report| report == "1:released" || report.starts_with("2:")), "{reports:?}");
}

#[tokio::test]
async fn a_refusal_is_told_once_and_spends_the_token() {
    let mut rig = Rig::start().await;
    rig.renew().await;
    for _ in 0..3 {
        rig.desire(vec![rig.work(1, 50, Run, &[0], "run")]).await;
    }
    rig.await_report("1:failed").await;
    rig.settle().await;
    assert_eq!(rig.reports(), ["1:failed"]);
    let again = rig.work(1, 50, Prepare, &[0], "run");
    let store = store_on_disk(rig.folder.path());
    let checked = store.ledger().check(&again, again.run.as_ref().expect("it runs"));
    assert!(checked.is_err(), "a refused token is open");
}

#[tokio::test]
async fn the_next_holder_waits_until_the_last_one_is_gone() {
    let mut rig = Rig::start().await;
    rig.running(1, 50, &[0, 1], "stubborn").await;
    let stop = rig.work(1, 50, Stop, &[0, 1], "stubborn");
    rig.desire(vec![stop.clone(), rig.work(2, 60, Prepare, &[0], "run")]).await;
    rig.settle().await;
    assert_eq!(rig.reports(), ["1:prepared", "1:started"]);
    rig.time.advance(10_000);
    rig.await_report("2:prepared").await;
    let reports = rig.reports();
    let at = |what: &str| reports.iter().position(|report| report == what).expect("reported");
    assert!(at("1:released") < at("2:prepared"), "{reports:?}");
}

#[tokio::test]
async fn another_clusters_server_is_not_joined() {
    let rig = Rig::start().await;
    assert!(rig.core.joined("c".to_owned(), Vec::new()).await.expect("lives"));
    assert!(!rig.core.joined("d".to_owned(), Vec::new()).await.expect("lives"));
}

#[tokio::test]
async fn what_an_old_store_names_but_no_shim_answers_for_is_released() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let mut store = Store::open(folder.path(), || "s".to_owned()).expect("usable");
    let (key, mut held) = test_held(9, 50, &[0]);
    held.boot_id = "boot-1".to_owned();
    store.accept(key, held);
    store.save().expect("saved");
    let time = ManualTime::new(0);
    let launcher = InProcess::new(Arc::new(time.clock()));
    let rig = Rig::start_in(folder, time, launcher, "boot-1").await;
    rig.await_report("9:released").await;
    assert_eq!(key.gang.job, JobId(9));
    assert_eq!(key.token, Token { generation: 1, index: 50 });
}
