use super::*;
use crate::assignment::tests::assignment;
use crate::store::{test_exit, test_held};
use muster_proto::agent::Phase::{self, Forget, Prepare, Run, Stop};

const AT: Position = Position { generation: 1, term: 3, applied_index: 100 };

/// A node with devices GPU-0 to GPU-3, all at rest.
struct Node {
    cluster_id: Option<&'static str>,
    seen: Position,
    ledger: Ledger,
    held: BTreeMap<Key, Held>,
    ends: Ends,
    progress: BTreeMap<Key, Progress>,
    swept: bool,
    has_lease: bool,
    foreign: BTreeMap<u16, Option<u32>>,
    unacknowledged: BTreeSet<Key>,
}

impl Node {
    fn idle() -> Self {
        Self {
            cluster_id: Some("c"),
            seen: AT,
            ledger: Ledger::default(),
            held: BTreeMap::new(),
            ends: Ends::default(),
            progress: BTreeMap::new(),
            swept: true,
            has_lease: true,
            foreign: BTreeMap::new(),
            unacknowledged: BTreeSet::new(),
        }
    }

    fn with(mut self, job: u64, index: u64, slots: &[u32], progress: Progress) -> Self {
        let (key, mut held) = test_held(job, index, slots);
        held.gone = progress == Progress::Gone;
        self.ledger.accept(key, &held.run);
        self.held.insert(key, held);
        self.progress.insert(key, progress);
        self
    }

    fn steps(&self, desired: &Desired) -> Vec<String> {
        let devices: Vec<String> = (0..4).map(|slot| format!("GPU-{slot}")).collect();
        let observed = Observed {
            cluster_id: self.cluster_id,
            seen: self.seen,
            ledger: &self.ledger,
            held: &self.held,
            ends: &self.ends,
            progress: &self.progress,
            swept: self.swept,
            has_lease: self.has_lease,
            devices: &devices,
            foreign: &self.foreign,
            unacknowledged: &self.unacknowledged,
        };
        reconcile(desired, &observed).iter().map(word).collect()
    }
}

/// `accept 1`, `refuse 2: reason`, ...
fn word(step: &Step<'_>) -> String {
    match step {
        Step::Accept(assignment, _) => format!("accept {}", assignment.key.gang.job),
        Step::Refuse(assignment, why) => {
            let why = format!("{why:?}");
            format!("refuse {}: {}", assignment.key.gang.job, why.split([' ', '{']).next().unwrap_or_default())
        }
        Step::Go(key) => format!("go {}", key.gang.job),
        Step::Stop(assignment) => format!("stop {}", assignment.key.gang.job),
        Step::ConfirmReleased(assignment) => format!("released {}", assignment.key.gang.job),
        Step::TellEnd(key) => format!("tell {}", key.gang.job),
        Step::Forget(key) => format!("forget {}", key.gang.job),
    }
}

fn desired(assignments: &[(u64, u64, Phase, &[u32])]) -> Desired {
    Desired {
        cluster_id: "c".to_owned(),
        position: AT,
        epoch: 1,
        assignments: assignments
            .iter()
            .map(|(job, index, phase, slots)| assignment(*job, *index, *phase, slots))
            .collect(),
    }
}

#[test]
fn an_allocation_is_prepared_started_and_stopped() {
    let wanted = |phase| desired(&[(1, 50, phase, &[0, 1])]);
    assert_eq!(Node::idle().steps(&wanted(Prepare)), ["accept 1"]);
    let table: [(Phase, Progress, &[&str]); 8] = [
        (Prepare, Progress::Preparing, &[]),
        (Prepare, Progress::Barrier, &[]),
        (Run, Progress::Preparing, &[]),
        (Run, Progress::Barrier, &["go 1"]),
        (Run, Progress::Running, &[]),
        (Run, Progress::Gone, &[]),
        (Stop, Progress::Running, &["stop 1"]),
        (Stop, Progress::Gone, &["stop 1"]),
    ];
    for (phase, progress, expected) in table {
        let node = Node::idle().with(1, 50, &[0, 1], progress);
        assert_eq!(node.steps(&wanted(phase)), expected, "{phase:?} while {progress:?}");
    }
}

#[test]
fn rule_10c_an_older_desired_state_and_another_clusters_are_ignored() {
    let node = Node::idle().with(1, 50, &[0], Progress::Running);
    let mut wanted = desired(&[(1, 50, Stop, &[0]), (2, 60, Prepare, &[1])]);
    assert_eq!(node.steps(&wanted), ["stop 1", "accept 2"]);
    for older in [
        Position { generation: 0, ..AT },
        Position { term: AT.term - 1, applied_index: 9_999, ..AT },
        Position { applied_index: AT.applied_index - 1, ..AT },
    ] {
        wanted.position = older;
        assert_eq!(node.steps(&wanted), [""; 0], "{older:?}");
    }
    wanted.position = AT;
    wanted.cluster_id = "other".to_owned();
    assert_eq!(node.steps(&wanted), [""; 0]);
}

#[test]
fn rule_10a_absence_never_stops() {
    for progress in [Progress::Preparing, Progress::Barrier, Progress::Running, Progress::Ending] {
        let node = Node::idle().with(1, 50, &[0], progress);
        assert_eq!(node.steps(&desired(&[])), [""; 0], "{progress:?}");
    }
}

#[test]
fn rule_10b_a_stop_from_a_server_that_does_not_know_the_token_is_ignored() {
    let node = Node::idle().with(1, 101, &[0], Progress::Running);
    assert_eq!(node.steps(&desired(&[(1, 101, Stop, &[0])])), [""; 0]);
}

#[test]
fn rule_4b_a_device_is_prepared_only_when_its_last_holder_is_proven_gone() {
    let wanted = desired(&[(2, 60, Prepare, &[0])]);
    for progress in [Progress::Preparing, Progress::Running, Progress::Ending] {
        let node = Node::idle().with(1, 50, &[0, 1], progress);
        assert_eq!(node.steps(&wanted), [""; 0], "{progress:?}");
    }
    let node = Node::idle().with(1, 50, &[0, 1], Progress::Gone);
    assert_eq!(node.steps(&wanted), ["accept 2"]);
    let node = Node::idle().with(1, 50, &[1], Progress::Running);
    assert_eq!(node.steps(&wanted), ["accept 2"], "another device's holder is no obstacle");
}

#[test]
fn nothing_is_prepared_before_the_sweep_or_without_a_lease() {
    let wanted = desired(&[(2, 60, Prepare, &[0])]);
    let (mut unswept, mut leaseless) = (Node::idle(), Node::idle());
    unswept.swept = false;
    leaseless.has_lease = false;
    assert_eq!(unswept.steps(&wanted), [""; 0]);
    assert_eq!(leaseless.steps(&wanted), [""; 0]);
}

#[test]
fn what_must_not_run_is_refused_with_its_reason() {
    let mut stale = Node::idle().with(1, 90, &[0], Progress::Gone);
    assert_eq!(stale.steps(&desired(&[(2, 60, Prepare, &[0])])), ["refuse 2: Lower"]);
    assert_eq!(Node::idle().steps(&desired(&[(2, 60, Run, &[0])])), ["refuse 2: NeverPrepared"]);
    assert_eq!(Node::idle().steps(&desired(&[(2, 60, Prepare, &[7])])), ["refuse 2: OtherDevice"]);
    stale = Node::idle().with(1, 50, &[0], Progress::Barrier);
    assert_eq!(stale.steps(&desired(&[(1, 50, Run, &[1])])), ["refuse 1: OtherContent"]);
    let mut busy = Node::idle();
    busy.foreign.insert(0, Some(4242));
    assert_eq!(busy.steps(&desired(&[(2, 60, Prepare, &[0])])), ["refuse 2: DeviceBusy"]);
    busy.foreign.insert(0, None);
    assert_eq!(busy.steps(&desired(&[(2, 60, Prepare, &[0])])), ["refuse 2: DeviceUnknown"]);
}

#[test]
fn what_cannot_be_read_is_refused_with_what_is_wrong_in_it() {
    use muster_proto::agent as wire;
    let part = wire::Allocation { ranks: 0, ..crate::assignment::tests::allocation(2, 60, Prepare, &[1]) };
    let position = wire::Position { generation: 1, term: 3, applied_index: 100 };
    let wanted = wire::Desired { cluster_id: "c".into(), position: Some(position), epoch: 1, allocations: vec![part] };
    let wanted = Desired::try_from(wanted).expect("the rest is valid");
    assert_eq!(Node::idle().steps(&wanted), ["refuse 2: Unreadable"]);
    let why = wanted.assignments[0].unreadable.as_deref().expect("it says why");
    assert!(why.contains("ranks"), "{why}");
}

#[test]
fn a_device_is_the_one_with_its_uuid_whatever_slot_a_server_keeps_it_in() {
    let mut wanted = desired(&[(2, 60, Prepare, &[3])]);
    wanted.assignments[0].run.as_mut().expect("it runs").devices[0].uuid = "GPU-1".to_owned();
    let mut node = Node::idle();
    assert_eq!(node.steps(&wanted), ["accept 2"]);
    node.foreign.insert(1, Some(4242));
    assert_eq!(node.steps(&wanted), ["refuse 2: DeviceBusy"]);
    wanted.assignments[0].wanted = Wanted::Stop;
    assert_eq!(node.steps(&wanted), [""; 0], "a process is on the device");
    node.foreign = BTreeMap::from([(3, Some(4242))]);
    assert_eq!(node.steps(&wanted), ["released 2"], "the process is on another");
    wanted.assignments[0].run.as_mut().expect("it runs").devices[0].uuid = "GPU-9".to_owned();
    assert_eq!(node.steps(&wanted), [""; 0], "of a device that is not here nothing is known");
}

#[test]
fn rule_8d_an_unknown_token_is_released_only_when_swept_and_empty() {
    let wanted = desired(&[(5, 40, Stop, &[2])]);
    assert_eq!(Node::idle().steps(&wanted), ["released 5"]);
    let mut node = Node::idle();
    node.foreign.insert(2, Some(4242));
    assert_eq!(node.steps(&wanted), [""; 0], "a process is on the device");
    node = Node::idle();
    node.swept = false;
    assert_eq!(node.steps(&wanted), [""; 0], "not swept");
    let node = Node::idle().with(4, 30, &[2], Progress::Ending);
    assert_eq!(node.steps(&wanted), [""; 0], "another holder is not gone");
    let mut unknown_devices = desired(&[(5, 40, Stop, &[])]);
    unknown_devices.assignments[0].run = None;
    assert_eq!(node.steps(&unknown_devices), ["released 5"], "another gang's devices are its own");
    let node = Node::idle().with(5, 30, &[2], Progress::Ending);
    assert_eq!(node.steps(&unknown_devices), [""; 0], "an earlier attempt is not gone");
}

#[test]
fn rule_3b_what_has_ended_never_runs_again_and_its_end_is_told_to_who_asks() {
    let (key, mut held) = test_held(1, 50, &[0]);
    held.gone = true;
    held.exits = (2..4).map(|rank| (rank, test_exit(rank, 0))).collect();
    let mut node = Node::idle();
    node.ends.note(key, &held);
    for phase in [Prepare, Run] {
        assert_eq!(node.steps(&desired(&[(1, 50, phase, &[0])])), ["tell 1"], "{phase:?}");
    }
    assert_eq!(node.steps(&desired(&[(1, 50, Stop, &[0])])), ["released 1"]);
    assert_eq!(node.steps(&desired(&[])), [""; 0], "nobody asks");
    assert_eq!(node.steps(&desired(&[(1, 60, Prepare, &[0])])), ["accept 1"], "a later attempt");
    let mut older = desired(&[(1, 50, Run, &[0])]);
    older.position.generation = 0;
    assert_eq!(node.steps(&older), [""; 0], "an older server");
}

#[test]
fn rule_8d_a_stop_of_what_has_ended_is_confirmed_although_its_device_has_vanished() {
    let wanted = desired(&[(1, 50, Stop, &[0, 7])]);
    let mut node = Node::idle();
    assert_eq!(node.steps(&wanted), [""; 0], "of what this store does not remember nothing is known");
    let (key, mut held) = test_held(1, 50, &[0, 7]);
    held.gone = true;
    held.exits = (2..4).map(|rank| (rank, test_exit(rank, 0))).collect();
    node.ends.note(key, &held);
    assert_eq!(node.steps(&wanted), ["released 1"]);
    node.foreign.insert(0, Some(4242));
    assert_eq!(node.steps(&wanted), [""; 0], "a process is on the device that is left");
    node.foreign.clear();
    assert_eq!(node.steps(&desired(&[(1, 60, Stop, &[0, 7])])), [""; 0], "the end of one attempt is not another's");
    node.swept = false;
    assert_eq!(node.steps(&wanted), [""; 0], "not swept");
}

#[test]
fn what_is_told_and_acknowledged_is_forgotten_once_no_server_names_it() {
    let mut node = Node::idle().with(1, 50, &[0], Progress::Gone);
    assert_eq!(node.steps(&desired(&[])), [""; 0], "its release was never told");
    let key = *node.held.keys().next().expect("one");
    node.held.get_mut(&key).expect("one").released_reported = true;
    node.unacknowledged.insert(key);
    assert_eq!(node.steps(&desired(&[])), [""; 0], "nobody has acknowledged it");
    node.unacknowledged.clear();
    assert_eq!(node.steps(&desired(&[(1, 50, Stop, &[0])])), ["stop 1"], "a server still asks");
    assert_eq!(node.steps(&desired(&[])), ["forget 1"]);
    assert_eq!(node.steps(&desired(&[(1, 50, Forget, &[0])])), ["forget 1"]);
}
