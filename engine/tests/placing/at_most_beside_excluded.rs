//! `at_most` above 1 picks its domains by devices alone: one whose nodes are excluded (or lack CPU, or failed the
//! gang before) is picked, and nothing else is tried.
use crate::plan_support;
use muster_common::topology::SegmentRequest;
use muster_common::topology::TopologyMode::Required;
use muster_engine::plan::never::fits_ever;
use muster_engine::policy::Policy;
use plan_support::*;

fn three_leaves() -> Cluster {
    let mut cluster = Cluster::new(Policy::default());
    cluster.fabric(&["leaf"]);
    for leaf in ["l0", "l1", "l2"] {
        for at in 0..2 {
            cluster.node(&format!("{leaf}-{at}"), inventory("H100", 8, &[leaf]));
        }
    }
    cluster
}

#[test]
fn two_of_three_leaves_are_found_when_the_first_is_excluded() {
    let mut cluster = three_leaves();
    let mut wish = within(job(nodes(4, 8)), "leaf", Required, 2);
    wish.groups[0].exclude = vec![name("l0-0"), name("l0-1")];
    assert!(fits_ever(&cluster.player.state, &wish).is_ok(), "l1 and l2 hold it");
    let gang = cluster.submit(wish);
    cluster.decide();
    assert_eq!(cluster.held(gang).len(), 4);
}

#[test]
fn two_of_three_leaves_are_found_when_the_first_lacks_cpu() {
    let mut cluster = three_leaves();
    for _ in 0..2 {
        // One CPU: eight devices with their CPUs in proportion no longer fit beside it.
        let mut small = job(nodes(1, 0));
        small.groups[0].exclude = ["l1-0", "l1-1", "l2-0", "l2-1"].map(name).to_vec();
        small.groups[0].cpu_milli_per_node = Some(40_000);
        cluster.submit(small);
    }
    cluster.decide();
    let gang = cluster.submit(within(job(nodes(4, 8)), "leaf", Required, 2));
    cluster.decide();
    assert_eq!(cluster.held(gang).len(), 4);
}

#[test]
fn a_total_and_segments_are_found_beside_what_is_excluded() {
    let mut cluster = three_leaves();
    let mut wish = within(job(total(32)), "leaf", Required, 2);
    wish.groups[0].exclude = vec![name("l0-0"), name("l0-1")];
    assert!(fits_ever(&cluster.player.state, &wish).is_ok());
    let mut wish = within(job(nodes(4, 8)), "leaf", Required, 2);
    wish.groups[0].exclude = vec![name("l0-0")];
    wish.groups[0].segment = Some(SegmentRequest { level: name("leaf"), nodes: 2, apart: false });
    let gang = cluster.submit(wish);
    cluster.decide();
    assert_eq!(cluster.held(gang).len(), 4);
}

#[test]
fn what_no_two_leaves_hold_is_still_found_nowhere() {
    let cluster = three_leaves();
    let mut wish = within(job(nodes(4, 8)), "leaf", Required, 2);
    wish.groups[0].exclude = ["l0-0", "l1-0"].map(name).to_vec();
    assert!(fits_ever(&cluster.player.state, &wish).is_err());
}
