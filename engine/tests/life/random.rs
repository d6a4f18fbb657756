//! Random commands against State: no invariant breaks, nothing panics, and a snapshot with the tail
//! of the log gives the same state as the whole log.

use crate::property;
use crate::support;

use muster_common::{GangId, Time};
use muster_engine::{Command, Entry, State, apply};
use property::cases;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::HashSet;
use std::mem::discriminant;
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

/// What the random steps never make, no property speaks of.
#[test]
fn every_command_and_every_change_of_the_configuration_is_among_the_steps() {
    let mut runner = TestRunner::deterministic();
    let (mut commands, mut changes) = (HashSet::new(), HashSet::new());
    for _ in 0..200 {
        let ops = proptest::collection::vec(any::<Op>(), 120).new_tree(&mut runner).unwrap().current();
        let mut cluster = Cluster::new(3, 3);
        ops.into_iter().for_each(|op| step(&mut cluster, op));
        commands.extend(cluster.log.iter().map(|entry| discriminant(&entry.command)));
        changes.extend(cluster.log.iter().filter_map(|entry| match &entry.command {
            Command::Configure { change, .. } => Some(discriminant(&**change)),
            _ => None,
        }));
        if (commands.len(), changes.len()) == (22, 13) {
            return;
        }
    }
    panic!("{} kinds of commands and {} kinds of changes were made", commands.len(), changes.len());
}

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
