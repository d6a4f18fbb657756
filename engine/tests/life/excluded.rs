//! A gang that keeps off nodes where it failed says nothing of others, and holds nobody up for ever.

use crate::support;
use muster_common::GangId;
use muster_engine::Command;
use muster_engine::command::{ConfigChange, Exit};
use muster_engine::policy::{Admission, Policy};
use support::*;

fn failed_on_the_only_node(c: &mut Cluster) -> GangId {
    let mut wish = scheduling(1, 8);
    wish.retry.app = 3;
    wish.retry.exclude_failed_node = true;
    wish.limits.time_ms = Some(3_600_000);
    let gang = GangId::new(c.submit(wish), 0);
    c.start(gang);
    let node = c.parts(gang)[0];
    c.exit(gang, node, 0, Exit::Code(1));
    c.release_all(gang);
    c.pass(1_000_000);
    c.expire();
    assert_eq!(c.state.gang(gang).unwrap().excluded, [node]);
    gang
}

/// It finds no room for itself, and others that ask for the same do.
#[test]
fn a_gang_that_keeps_off_a_node_takes_no_booking_from_others_that_ask_for_the_same() {
    let mut c = Cluster::new(1, 8);
    failed_on_the_only_node(&mut c);
    let mut holder = scheduling(1, 1);
    holder.limits.time_ms = Some(3_600_000);
    let holder = GangId::new(c.submit(holder), 0);
    c.start(holder);
    let mut same = scheduling(1, 8);
    same.limits.time_ms = Some(3_600_000);
    let second = GangId::new(c.submit(same), 0);
    c.decide();
    let mut filler = scheduling(1, 1);
    filler.limits.time_ms = Some(36_000_000);
    let filler = GangId::new(c.submit(filler), 0);
    c.decide();
    assert!(c.state.reservations().contains_key(&second), "it fits when the holder is gone");
    assert!(c.state.gang(filler).is_none(), "a filler that runs on beyond that start does not begin");
}

/// Under a strict order too.
#[test]
fn nobody_waits_behind_a_gang_that_failed_wherever_it_fits() {
    let mut c = Cluster::new(1, 8);
    let policy = Policy { admission: Admission::HeadOfLine { sticky: false }, ..Policy::default() };
    c.apply(Command::Configure { change: Box::new(ConfigChange::Policy(policy)), by: principal() });
    failed_on_the_only_node(&mut c);
    let other = GangId::new(c.submit(scheduling(1, 8)), 0);
    c.decide();
    assert!(c.state.gang(other).is_some(), "nobody waits behind what never can run here");
}
