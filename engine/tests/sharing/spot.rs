//! Machines for what may be stopped, and labels that a job keeps off.

use crate::plan_support;
use crate::taking_support::charged;

use muster_common::job::Scheduling;
use muster_common::{GangId, NodeId};
use muster_engine::Memo;
use muster_engine::command::ConfigChange;
use muster_engine::organisation::Organisation;
use muster_engine::plan::explain::{Reason, explain};
use muster_engine::policy::Policy;
use plan_support::*;
use std::sync::Arc;

/// A spot machine and one of our own; spot is for what may be stopped.
fn cluster() -> (Cluster, NodeId, NodeId) {
    let mut cluster = Cluster::new(Policy::default());
    let preemptible_only = [(name("contract"), "spot".to_owned())].into();
    let document = Organisation { preemptible_only, ..Organisation::default() };
    cluster.commit(configure(ConfigChange::Organisation(Arc::new(document))));
    let mut spot = inventory("H100", 8, &[]);
    spot.labels.insert(name("contract"), "spot".to_owned());
    let spot = cluster.node("n0", spot);
    let own = cluster.node("n1", inventory("H100", 8, &[]));
    (cluster, spot, own)
}

fn wish(devices: u32, preemptible: bool) -> Scheduling {
    Scheduling { preemptible, ..charged(exact(nodes(1, devices), 100), "default") }
}

fn node_of(cluster: &Cluster, gang: GangId) -> Option<NodeId> {
    cluster.held(gang).first().map(|(node, _)| *node)
}

#[test]
fn what_may_not_be_stopped_keeps_off_machines_for_the_rest_and_says_so() {
    let (mut cluster, spot, own) = cluster();
    let [first, firm, other] = [wish(8, false), wish(8, false), wish(8, true)].map(|wish| cluster.submit(wish));
    cluster.decide();
    assert_eq!([first, firm, other].map(|gang| node_of(&cluster, gang)), [Some(own), None, Some(spot)]);
    let found = explain(&cluster.player.state, &mut Memo::default(), firm, cluster.now()).unwrap();
    assert!(found.blockers.iter().all(|blocker| blocker.reason != Reason::NeverFits), "{found:?}");
    cluster.run();
    assert_eq!(cluster.start_s(firm), Some(100), "after the first, on the machine of our own");
}

#[test]
fn a_spot_machine_that_is_free_is_told_as_one_to_keep_off() {
    let (mut cluster, _, _) = cluster();
    cluster.submit(wish(8, false));
    let firm = cluster.submit(wish(8, false));
    cluster.decide();
    let found = explain(&cluster.player.state, &mut Memo::default(), firm, cluster.now()).unwrap();
    let label = found.blockers.iter().find(|blocker| blocker.reason == Reason::Label);
    let detail = label.map(|blocker| blocker.detail.as_str());
    assert_eq!(detail, Some("what is free carries a label to keep off: contract=spot"), "{found:?}");
}

#[test]
fn a_job_keeps_off_labels_of_its_own_choice() {
    let (mut cluster, _, own) = cluster();
    let mut picky = wish(4, true);
    picky.groups[0].avoid.insert(name("contract"), "spot".to_owned());
    let gangs = [picky.clone(), picky].map(|wish| cluster.submit(wish));
    cluster.decide();
    assert_eq!(gangs.map(|gang| node_of(&cluster, gang)), [Some(own), Some(own)]);
}
