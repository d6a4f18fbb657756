//! Random commands against State: no invariant breaks, nothing panics, and a snapshot with the tail
//! of the log gives the same state as the whole log.

use crate::property;
use crate::support;

use muster_common::{GangId, Time};
use muster_engine::command::ConfigChange;
use muster_engine::plan::empty::Empty;
use muster_engine::plan::never::{fits_ever, fits_on};
use muster_engine::{Command, Entry, State, apply};
use property::cases;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::HashSet;
use std::mem::discriminant;
use std::sync::Arc;
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

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn an_emptied_cluster_that_was_kept_answers_as_a_new_one(ops in proptest::collection::vec(any::<Op>(), 1..80)) {
        let mut cluster = Cluster::new(3, 3);
        let mut kept = Empty::of(&cluster.state);
        for op in ops {
            step(&mut cluster, op);
            if !kept.is_of(&cluster.state) {
                kept = Empty::of(&cluster.state);
            }
            for asked in [(1, 1), (1, 3), (2, 2), (3, 3), (4, 1)].map(|(nodes, each)| scheduling(nodes, each)) {
                prop_assert_eq!(fits_on(&cluster.state, &asked, kept.ledger()), fits_ever(&cluster.state, &asked));
            }
        }
    }
}

#[test]
fn what_starts_and_ends_does_not_make_an_emptied_cluster_a_new_one() {
    let mut cluster = Cluster::new(3, 3);
    let mut kept = Empty::of(&cluster.state);
    let gang = GangId::new(cluster.submit(scheduling(2, 3)), 0);
    cluster.start(gang);
    assert!(kept.is_of(&cluster.state));
    cluster.release_all(gang);
    assert!(kept.is_of(&cluster.state));
    let change = Box::new(ConfigChange::Organisation(Arc::default()));
    cluster.apply(Command::Configure { change, by: principal() });
    assert!(!kept.is_of(&cluster.state), "prices may be others");
    kept = Empty::of(&cluster.state);
    cluster.apply(Command::RegisterNode(Box::new(registration("another", 8))));
    assert!(!kept.is_of(&cluster.state));
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
