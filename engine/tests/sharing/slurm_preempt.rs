//! Slurm's preemption, on the examples of its own guide (peers: SchedMD/slurm, doc/html/preempt.shtml): as many victims
//! as are needed, free nodes first, requeued and run again; what exits during its grace counts as preempted.

use crate::plan_support;
use crate::taking_support;

use muster_common::GangId;
use muster_engine::command::{Exit, ReportBody};
use plan_support::{exact, nodes};
use taking_support::*;

/// Five nodes, and one-node jobs of 300 s of the lower class.
fn five(jobs: usize) -> (Cluster, Vec<GangId>) {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(1, 5, 8);
    let low = (0..jobs).map(|_| cluster.submit(class(exact(nodes(1, 8), 300), "low"))).collect();
    cluster.pass(27);
    (cluster, low)
}

fn running(cluster: &Cluster, gangs: &[GangId]) -> usize {
    gangs.iter().filter(|gang| cluster.runs(**gang)).count()
}

/// "A Simple Example": jobs 485 to 489, and 490 on three nodes for 30 s.
#[test]
fn slurm_three_of_five_are_preempted_and_run_again() {
    let (mut cluster, low) = five(5);
    assert_eq!(running(&cluster, &low), 5);
    let high = cluster.submit(class(exact(nodes(3, 8), 30), "high"));
    assert!(cluster.runs(high));
    assert_eq!((cluster.stopped().len(), running(&cluster, &low)), (3, 2));
    cluster.pass(100);
    assert_eq!(running(&cluster, &low), 5, "the job of the higher class has ended");
    assert_eq!(cluster.stopped().len(), 3, "each once");
}

/// "Future Ideas": jobs 17 to 19 on nodes 1 to 3, and job 20 on three nodes: "It would be more ideal if the job were
/// placed on nodes n[3-5]".
#[test]
fn slurm_idle_nodes_are_taken_before_anybody_is_preempted() {
    let (mut cluster, low) = five(3);
    let high = cluster.submit(class(exact(nodes(3, 8), 20), "high"));
    assert!(cluster.runs(high));
    assert_eq!((cluster.stopped().len(), running(&cluster, &low)), (1, 2));
}

/// Whatever its exit says: it is requeued, though it may not be tried again after a failure.
#[test]
fn slurm_what_fails_during_its_grace_is_preempted_all_the_same() {
    let (mut cluster, low) = five(5);
    cluster.watch.release_ms = 20_000;
    let high = cluster.submit(class(exact(nodes(3, 8), 30), "high"));
    let victim = cluster.stopped()[0];
    assert!(low.contains(&victim));
    cluster.report(victim, ReportBody::Exited { rank: 0, exit: Exit::Code(1), why: String::new() });
    cluster.pass(21);
    assert!(cluster.runs(high));
    assert!(cluster.player.state.job(victim.job).is_some(), "it has not failed");
    cluster.pass(100);
    assert!(cluster.runs(victim));
}
