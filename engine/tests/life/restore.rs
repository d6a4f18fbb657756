//! Rule 3 after a restore from backup: what State gives up, what goes on, and what is stopped by name.

use crate::support;

use muster_common::{AttemptNo, GangId, JobId, Token};
use muster_engine::command::{ConfigChange, HeldToken, Occupied, ReportBody};
use muster_engine::desired::{Phase, desired};
use muster_engine::state::node::{DeviceState, Liveness};
use muster_engine::{Command, Response, State};
use support::*;

fn gang_of(cluster: &mut Cluster, nodes: u32, per_node: u32) -> GangId {
    GangId::new(cluster.submit(scheduling(nodes, per_node)), 0)
}

fn restore(c: &mut Cluster) {
    let response = c.respond(Command::Configure { change: Box::new(ConfigChange::Restore), by: principal() });
    assert_eq!(response, Response::Done);
    c.state.check().unwrap();
}

/// The agent of a node comes again, and says what it holds.
fn comes_again(c: &mut Cluster, node: &str, devices: usize, held: Vec<HeldToken>) {
    let mut again = registration(node, devices);
    again.held = held;
    // As of every process whose store was made when it first started.
    again.store_lost = true;
    assert!(matches!(c.respond(Command::RegisterNode(Box::new(again))), Response::Registered { .. }));
    c.state.check().unwrap();
}

fn held(c: &Cluster, gang: GangId, live: Option<Occupied>) -> HeldToken {
    let (attempt, token) = c.token(gang);
    HeldToken { gang, attempt, token, live }
}

fn on(slot: u16) -> Option<Occupied> {
    Some(Occupied { devices: vec![(slot, 1000)], grace_ms: 700, ..Occupied::default() })
}

/// Of a job that the backup does not know.
fn unknown(slot: u16) -> HeldToken {
    let token = Token { generation: 1, index: 9_000 };
    HeldToken { gang: GangId::new(JobId(8_999), 0), attempt: AttemptNo(1), token, live: on(slot) }
}

#[test]
fn rule_3_a_restore_raises_the_generation_of_every_later_token_and_of_no_earlier_one() {
    let mut c = Cluster::new(2, 1);
    let old = gang_of(&mut c, 1, 1);
    c.start(old);
    let before = c.token(old).1;
    restore(&mut c);
    assert_eq!((c.token(old).1, c.state.cluster().generation), (before, 2));
    comes_again(&mut c, "n1", 1, vec![]);
    let new = gang_of(&mut c, 1, 1);
    c.place(new);
    assert!(c.token(new).1 > before && c.token(new).1.generation == 2);
}

#[test]
fn a_restore_changes_the_generation_and_what_the_backup_cannot_know_and_nothing_else() {
    let mut c = Cluster::new(2, 2);
    let gang = gang_of(&mut c, 2, 1);
    c.start(gang);
    gang_of(&mut c, 2, 2);
    let by = principal();
    let (hash, expires_at) = (Default::default(), c.state.now().plus_ms(1_000));
    c.apply(Command::IssueToken { hash, node: None, expires_at, by });
    let before = c.state.clone();
    restore(&mut c);
    let after = &c.state;
    assert!(before.jobs().values().eq(after.jobs().values()) && before.gangs().values().eq(after.gangs().values()));
    assert!(*before.usage().payers() == *after.usage().payers());
    assert_eq!(before.timers().count(), after.timers().count() + 1);
    assert!(before.policy() == after.policy() && before.settings() == after.settings());
    assert_eq!(
        (before.cluster().generation + 1, &before.cluster().id),
        (after.cluster().generation, &after.cluster().id)
    );
    assert!(after.tokens().is_empty(), "a token that may have been used opens nothing");
    for (was, is) in before.nodes().values().zip(after.nodes().values()) {
        assert!(matches!(is.liveness, Liveness::Silent { .. }) && is.from_backup, "{}", is.name);
        let mut same = is.clone();
        (same.liveness, same.from_backup) = (was.liveness, was.from_backup);
        assert_eq!(*was, same);
    }
    let back = State::decode(&after.encode()).unwrap();
    assert_eq!(back.hash(), after.hash());
}

#[test]
fn nothing_is_placed_on_a_node_until_its_agent_has_said_what_it_holds() {
    let mut c = Cluster::new(1, 2);
    restore(&mut c);
    let gang = gang_of(&mut c, 1, 1);
    assert!(c.naive_placement(gang).is_none_or(|placement| {
        let plan = c.plan(vec![muster_engine::command::PlanStep::Place(placement)]);
        matches!(c.respond(plan), Response::Plan { accepted: 0, .. })
    }));
    comes_again(&mut c, "n0", 2, vec![]);
    c.place(gang);
}

#[test]
fn what_the_backup_knows_and_the_agent_still_holds_goes_on() {
    let mut c = Cluster::new(1, 1);
    let gang = gang_of(&mut c, 1, 1);
    c.start(gang);
    restore(&mut c);
    let held = held(&c, gang, on(0));
    comes_again(&mut c, "n0", 1, vec![held]);
    let desired = desired(&c.state, c.node(0));
    assert_eq!((c.word(gang), desired.parts.len(), desired.parts[0].phase), ("RUNNING", 1, Phase::Run));
    assert_eq!(desired.generation, 2);
}

#[test]
fn what_the_backup_knows_and_the_agent_no_longer_holds_is_tried_again() {
    let mut c = Cluster::new(1, 1);
    let gang = gang_of(&mut c, 1, 1);
    c.start(gang);
    restore(&mut c);
    comes_again(&mut c, "n0", 1, vec![]);
    assert_eq!(c.word(gang), "QUEUED");
    assert!(c.state.node(c.node(0)).unwrap().devices[0].is_free());
}

#[test]
fn what_the_backup_does_not_know_is_stopped_by_its_token_and_its_devices_are_unknown_until_it_is_gone() {
    let mut c = Cluster::new(1, 2);
    restore(&mut c);
    let foreign = unknown(1);
    comes_again(&mut c, "n0", 2, vec![foreign.clone()]);
    let node = c.node(0);
    let parts = desired(&c.state, node).parts;
    assert_eq!(parts.len(), 1);
    let stop = (parts[0].gang, parts[0].token, parts[0].phase, parts[0].stop.grace_ms);
    assert_eq!(stop, (foreign.gang, foreign.token, Phase::Stop, 700));
    let devices = |c: &Cluster| c.state.node(node).unwrap().devices.clone();
    assert!(devices(&c)[0].is_free() && matches!(devices(&c)[1], DeviceState::Unknown { .. }));
    // Said again by the next process of the agent, it is still one thing to stop.
    comes_again(&mut c, "n0", 2, vec![foreign.clone()]);
    assert_eq!(desired(&c.state, node).parts.len(), 1);
    c.report_as(node, foreign.gang, (foreign.attempt, foreign.token), ReportBody::Released { lease_expired: false });
    assert!(devices(&c).iter().all(DeviceState::is_free));
    assert!(desired(&c.state, node).parts.is_empty());
    c.state.check().unwrap();
}

#[test]
fn what_is_proven_gone_is_not_stopped_once_more() {
    let mut c = Cluster::new(1, 1);
    restore(&mut c);
    comes_again(&mut c, "n0", 1, vec![HeldToken { live: None, ..unknown(0) }]);
    assert!(desired(&c.state, c.node(0)).parts.is_empty());
}

#[test]
fn an_agent_that_claims_what_cannot_be_breaks_nothing() {
    let mut c = Cluster::new(1, 2);
    let gang = gang_of(&mut c, 1, 1);
    c.start(gang);
    restore(&mut c);
    let slot = c.state.gang(gang).unwrap().current().unwrap().parts[0].devices[0].0;
    let whole = |slot| (slot, 1000);
    let huge =
        Occupied { devices: vec![whole(slot), whole(77), whole(1 - slot), whole(1 - slot)], ..Occupied::default() };
    let huge = Occupied { amount: c.state.node(c.node(0)).unwrap().inventory.amount(), ..huge };
    let known = held(&c, gang, on(slot));
    comes_again(&mut c, "n0", 2, vec![known, HeldToken { live: Some(huge), ..unknown(0) }]);
    assert_eq!(c.word(gang), "RUNNING");
}

#[test]
fn a_generation_that_an_agent_has_seen_is_never_used_again() {
    let mut c = Cluster::new(1, 1);
    let raise =
        |above| Command::Configure { change: Box::new(ConfigChange::RaiseGeneration { above }), by: principal() };
    assert_eq!(c.respond(raise(4)), Response::Done);
    assert_eq!(c.state.cluster().generation, 5);
    assert_eq!(c.respond(raise(4)), Response::Noop);
    assert!(matches!(c.respond(raise(u32::MAX)), Response::Refused(_)));
    assert_eq!(c.state.cluster().generation, 5);
}
