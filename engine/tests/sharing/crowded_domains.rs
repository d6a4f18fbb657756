//! The domains that are tried are not used up by those in which nobody can be stopped, and CPU is taken back as well.

use crate::plan_support;
use crate::taking_support;

use muster_common::job::Scheduling;
use muster_common::topology::TopologyMode::Required;
use muster_engine::organisation::CellQuota;
use muster_engine::policy::Policy;
use plan_support::{name, nodes, within};
use taking_support::*;

/// One node of each rack has free GPUs and no CPU; only in the last can anybody be stopped. With three such racks the
/// preemption is found, with four it never is.
fn preempts_beside(racks_without_cpu: usize) -> bool {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(racks_without_cpu + 1, 1, 8);
    let low = cluster.submit(class(forever(nodes(1, 8)), "low"));
    assert!(cluster.runs(low));
    for _ in 0..racks_without_cpu {
        let mut hog = Scheduling { preemptible: false, ..forever(nodes(1, 0)) };
        hog.groups[0].cpu_milli_per_node = Some(60_000);
        let hog = cluster.submit(hog);
        assert!(cluster.runs(hog));
    }
    let high = cluster.submit(within(class(forever(nodes(1, 8)), "high"), "rack", Required, 1));
    cluster.pass(600);
    cluster.runs(high)
}

#[test]
fn free_domains_that_do_not_do_leave_room_for_those_with_victims() {
    assert!(preempts_beside(3));
    assert!(preempts_beside(4));
}

/// A borrower of one GPU with all the CPU of a node.
fn greedy(account: &str) -> Scheduling {
    let mut job = charged(forever(nodes(1, 1)), account);
    job.groups[0].cpu_milli_per_node = Some(64_000);
    job
}

#[test]
fn an_owner_of_a_cell_has_its_cpu_back_too() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.racks(1, 1, 8);
    let mut owner = account("vision", None, (8, None, None));
    owner.reclaim_within_ms = Some(120_000);
    owner.cells = vec![CellQuota { model: name("H100"), level: name("node"), nodes: 1, gpus: 8, number: 1 }];
    cluster.organise(vec![owner, account("rest", None, (0, None, None))]);
    let rest = cluster.submit(greedy("rest"));
    assert!(cluster.runs(rest));
    // With nodes(1, 8) this passes: one GPU is missing then.
    let vision = cluster.submit(charged(forever(nodes(1, 4)), "vision"));
    cluster.pass(120);
    assert!(cluster.runs(vision), "within its shape");
}

#[test]
fn an_owner_by_number_has_its_cpu_back_too() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.racks(1, 1, 8);
    cluster.organise(vec![account("blue", None, (8, None, None)), account("red", None, (0, None, None))]);
    let red = cluster.submit(greedy("red"));
    assert!(cluster.runs(red));
    let blue = cluster.submit(charged(forever(nodes(1, 4)), "blue"));
    cluster.pass(600);
    assert!(cluster.runs(blue));
}
