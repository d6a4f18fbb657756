//! Shares of devices that NVLink no longer joins are given to one part.
use crate::plan_support;
use muster_common::node::Link;
use muster_common::resources::Share;
use muster_engine::policy::Policy;
use plan_support::*;

#[test]
fn shares_on_a_hurt_machine_never_span_the_gap() {
    let mut machine = inventory("B200", 8, &[]);
    for at in (0..8).filter(|at| *at != 2) {
        (machine.links[2][at], machine.links[at][2]) = (Link::Sys, Link::Sys);
    }
    let mut cluster = Cluster::new(Policy::default());
    cluster.node("hurt", machine);
    let mut wish = job(nodes(1, 3));
    wish.groups[0].share = Share(500);
    let gang = cluster.submit(wish);
    cluster.decide();
    let held = cluster.held(gang);
    assert_eq!(held.len(), 1, "three of the seven would do");
    assert!(!held[0].1.contains(&2), "the lonely one is given with others: {:?}", held[0].1);
}

/// The other half of the same: what waits for an idle machine gets it as soon as somebody is on it.
#[test]
fn eight_shares_wait_or_start_whoever_is_beside_them() {
    let starts = |beside: bool| {
        let mut machine = inventory("B200", 8, &[]);
        for at in (0..8).filter(|at| *at != 2) {
            (machine.links[2][at], machine.links[at][2]) = (Link::Sys, Link::Sys);
        }
        let mut cluster = Cluster::new(Policy::default());
        cluster.node("hurt", machine);
        let wish = |devices, milli| {
            let mut wish = job(nodes(1, devices));
            wish.groups[0].share = Share(milli);
            wish.groups[0].cpu_milli_per_node = Some(1000);
            wish
        };
        if beside {
            cluster.submit(wish(1, 100));
            cluster.decide();
        }
        let gang = cluster.submit(wish(8, 500));
        cluster.decide();
        !cluster.held(gang).is_empty()
    };
    assert_eq!(starts(false), starts(true));
}
