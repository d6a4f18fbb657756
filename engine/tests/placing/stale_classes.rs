//! A class of machines that is gone still sizes `node_then_level`: a kept memo decides other than a fresh one.
use crate::plan_support;
use muster_engine::policy::{Domains, Policy};
use muster_engine::{Memo, cycle};
use plan_support::*;

#[test]
fn machines_that_are_gone_size_nothing() {
    let mut cluster = Cluster::new(Policy { domains: Domains::NodeThenLevel, ..Policy::default() });
    cluster.node("big", inventory("H100", 16, &[]));
    cluster.node("small", inventory("H100", 8, &[]));
    cluster.decide();
    // The idle machine comes back with half of its devices.
    cluster.node("big", inventory("H100", 8, &[]));
    let gang = cluster.submit(job(total(16)));
    let now = cluster.now();
    let fresh = cycle(&cluster.player.state, &mut Memo::default(), now);
    let kept = cycle(&cluster.player.state, &mut cluster.player.memo, now);
    assert_eq!(kept.commands, fresh.commands, "a thrown-away memo changes nothing");
    cluster.decide();
    assert_eq!(cluster.held(gang).len(), 2);
}

#[test]
fn a_device_that_is_split_is_none_of_a_whole_node() {
    let mut cluster = Cluster::new(Policy { domains: Domains::NodeThenLevel, ..Policy::default() });
    for node in ["a", "b"] {
        let mut machine = inventory("H100", 10, &[]);
        for slot in 8..10 {
            (machine.devices[slot].model, machine.devices[slot].parent) = (name("H100-3g.40gb"), Some(0));
        }
        cluster.node(node, machine);
    }
    let gang = cluster.submit(job(total(14)));
    cluster.decide();
    assert_eq!(cluster.held(gang).len(), 2, "seven of each");
}
