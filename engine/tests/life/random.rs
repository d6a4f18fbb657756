//! Random commands against State: no invariant breaks, nothing panics, and a snapshot with the tail
//! of the log gives the same state as the whole log.

use crate::property;
use crate::support;

use muster_common::{GangId, Time};
use muster_engine::{Command, Entry, State, apply};
use property::cases;
use proptest::prelude::*;
use support::steps::{Op, random_scheduling, step};
use support::*;

fn replayed(log: &[Entry]) -> State {
    let mut state = State::new("test");
    for entry in log {
        apply(&mut state, entry);
    }
    state
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn no_sequence_of_commands_breaks_an_invariant(
        ops in proptest::collection::vec(any::<Op>(), 1..120),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut cluster = Cluster::new(3, 3);
        for op in ops {
            step(&mut cluster, op);
        }
        let cut = cut.index(cluster.log.len());
        let mut restored = State::decode(&replayed(&cluster.log[..cut]).encode()).unwrap();
        for entry in &cluster.log[cut..] {
            apply(&mut restored, entry);
        }
        prop_assert_eq!(restored.hash(), cluster.state.hash());
    }
}

/// 300 unless MUSTER_CASES says otherwise.
#[test]
fn time_that_jumps_to_the_end_of_its_range_never_overflows() {
    let mut cluster = Cluster::new(1, 1);
    let gang = GangId::new(cluster.submit(random_scheduling(0, 1, 1)), 0);
    cluster.start(gang);
    cluster.at = Time(u64::MAX);
    cluster.apply(Command::AdvanceTime { to: Time(u64::MAX) });
    cluster.expire();
    assert_eq!(cluster.word(gang), "STOPPING");
}

#[test]
fn a_gang_placed_at_the_end_of_time_has_no_deadline_to_miss() {
    let mut cluster = Cluster::new(1, 1);
    let gang = GangId::new(cluster.submit(random_scheduling(0, 1, 1)), 0);
    cluster.apply(Command::AdvanceTime { to: Time(u64::MAX) });
    cluster.place(gang);
    assert_eq!(cluster.word(gang), "STARTING");
}
