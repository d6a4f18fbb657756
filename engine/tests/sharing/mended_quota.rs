//! A mended wounded gang is held to its account's quota as a whole, not for the missing nodes alone.

use crate::plan_support;
use crate::taking_support;

use muster_common::job::Scheduling;
use muster_engine::command::{Command, NodeAction, Principal};
use muster_engine::policy::Policy;
use plan_support::*;
use taking_support::{Cluster, account, charged, forever};

#[test]
fn a_replacement_does_not_take_a_wounded_gang_beyond_its_accounts_quota() {
    for preemptible in [true, false] {
        let mut cluster = Cluster::new(Policy::default());
        let racks = cluster.racks(1, 4, 8);
        for small in ["s0", "s1"] {
            cluster.node(small, inventory("H100", 4, &["r0"]));
        }
        cluster.organise(vec![account("lab", None, (32, Some(0), None)), account("own", None, (8, None, None))]);
        let of = |count| Scheduling { preemptible, ..charged(forever(count), "lab") };
        let wide = cluster.submit(of(nodes(4, 8)));
        assert!(cluster.runs(wide));
        let action = NodeAction::Drain { reason: "fan".into(), deadline_ms: Some(0) };
        cluster.commit(Command::NodeAdmin { node: racks[0][1], action, by: Principal("op".into()) });
        cluster.pass(10);
        assert!(!cluster.runs(wide), "it keeps three nodes, 24 GPUs of 32");
        let beside = cluster.submit(of(nodes(2, 4)));
        assert!(cluster.runs(beside), "24 kept and 8 are the 32 of the account");
        cluster.node("new", inventory("H100", 8, &["r0"]));
        cluster.decide();
        assert!(!cluster.runs(wide), "32 + 8 GPUs of an account that owns 32 and may borrow none");
    }
}
