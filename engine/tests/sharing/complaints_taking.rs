//! What users of other schedulers complain about in public, played here: preemption, reclaim and lost
//! nodes. Each test has the number of the issue or pull request it is taken from.

use crate::plan_support;
use crate::taking_support;

use muster_common::topology::TopologyMode::Required;
use muster_common::{GangId, NodeId};
use muster_engine::command::Command;
use muster_engine::policy::{Policy, Preempt};
use muster_engine::state::reservation::ReservationKind;
use plan_support::{inventory, name, nodes, total, within};
use taking_support::*;

/// Only on nodes with these names, of two racks of two.
fn on(mut job: muster_common::job::Scheduling, only: &[&str]) -> muster_common::job::Scheduling {
    let all = ["r0n0", "r0n1", "r1n0", "r1n1"];
    job.groups[0].exclude = all.iter().filter(|node| !only.contains(*node)).map(|node| name(node)).collect();
    job
}

fn in_a_rack(count: u32) -> muster_common::job::Scheduling {
    within(forever(nodes(count, 8)), "rack", Required, 1)
}

fn low(node: &str) -> muster_common::job::Scheduling {
    class(on(forever(nodes(1, 8)), &[node]), "low")
}

fn lose(cluster: &mut Cluster, node: NodeId) {
    let epoch = cluster.player.state.node(node).unwrap().epoch;
    let term = cluster.player.state.applied_term();
    cluster.commit(Command::NodeSilent { node, epoch, term });
    cluster.commit(Command::NodeFenced { node, epoch, term, waited_ms: 600_000 });
}

/// Two racks of two nodes; red borrows all of blue's half.
fn borrowed() -> (Cluster, Vec<Vec<NodeId>>, Vec<GangId>) {
    let mut cluster = Cluster::new(Policy::default());
    let racks = cluster.racks(2, 2, 8);
    cluster.organise(vec![account("red", None, (16, None, None)), account("blue", None, (16, None, None))]);
    let mut red = Vec::new();
    // The two that lose least stand in different racks.
    for node in ["r0n0", "r1n0", "r1n1", "r0n1"] {
        red.push(cluster.submit(charged(on(forever(nodes(1, 8)), &[node]), "red")));
        cluster.pass(1000);
    }
    (cluster, racks, red)
}

/// The plan frees GPUs scattered over domains, topology refuses, and nothing happens.
#[test]
fn kueue_10815_fair_reclaim_agrees_with_the_topology() {
    let (mut cluster, racks, red) = borrowed();
    let blue = cluster.submit(charged(in_a_rack(2), "blue"));
    assert!(cluster.runs(blue));
    assert!(racks.contains(&cluster.nodes_of(blue)), "one rack");
    assert_eq!(red.iter().filter(|gang| cluster.runs(**gang)).count(), 2, "no more than that rack's");
}

/// Required topology: free room and victims of one domain count together.
#[test]
fn kueue_12478_free_room_and_victims_of_one_domain_add_up() {
    let mut cluster = Cluster::new(preempting());
    let racks = cluster.racks(2, 2, 8);
    let lows: Vec<GangId> = ["r0n0", "r1n0", "r1n1"].iter().map(|node| cluster.submit(low(node))).collect();
    let high = cluster.submit(class(in_a_rack(2), "high"));
    assert_eq!(cluster.nodes_of(high), racks[0]);
    assert_eq!(cluster.stopped(), [lows[0]]);
}

/// Topology together with cohorts and preemption.
#[test]
fn kueue_3761_lent_quota_comes_back_as_a_whole_domain() {
    let (mut cluster, racks, _) = borrowed();
    let first = cluster.submit(charged(within(forever(total(16)), "rack", Required, 1), "blue"));
    assert!(racks.contains(&cluster.nodes_of(first)));
    let beyond = cluster.submit(charged(in_a_rack(2), "blue"));
    cluster.pass(100);
    assert!(!cluster.runs(beyond), "its quota is used up, so it takes nothing");
    assert_eq!(cluster.stopped().len(), 2);
}

/// The preemptor hops to another domain in each cycle and wastes evictions.
#[test]
fn kueue_pr15036_a_preemptor_stays_with_the_domain_it_chose() {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(2, 2, 8);
    cluster.watch.release_ms = 30_000;
    ["r0n0", "r0n1", "r1n0", "r1n1"].iter().for_each(|node| assert!(cluster.submit(low(node)).job.0 > 0));
    cluster.pass(10);
    let high = cluster.submit(class(in_a_rack(2), "high"));
    let kept = cluster.kept(high, ReservationKind::Victims).unwrap().clone();
    for _ in 0..5 {
        cluster.pass(5);
        cluster.only_submit(class(forever(nodes(1, 8)), "high"));
        assert_eq!(cluster.kept(high, ReservationKind::Victims), Some(&kept));
    }
    cluster.pass(10);
    assert!(cluster.runs(high));
    let chosen: Vec<NodeId> = kept.witness.iter().map(|device| device.node).collect();
    assert!(cluster.nodes_of(high).iter().all(|node| chosen.contains(node)));
}

/// Quota freed before the processes are gone.
#[test]
fn kueue_pr15661_quota_counts_until_the_processes_are_gone() {
    let (mut cluster, _, _) = borrowed();
    cluster.watch.release_ms = 60_000;
    let blue = cluster.submit(charged(in_a_rack(2), "blue"));
    cluster.pass(30);
    let other = cluster.submit(charged(forever(nodes(1, 8)), "red"));
    assert!(!cluster.runs(blue) && !cluster.runs(other));
    cluster.pass(31);
    assert!(cluster.runs(blue) && !cluster.runs(other));
}

/// One pod from each of ten jobs kills ten jobs.
#[test]
fn volcano_4607_a_gang_is_stopped_whole_so_few_gangs_are() {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(5, 4, 8);
    let lows: Vec<GangId> = (0..10).map(|_| cluster.submit(class(forever(nodes(2, 8)), "low"))).collect();
    assert!(lows.iter().all(|gang| cluster.runs(*gang)));
    let high = cluster.submit(class(forever(nodes(4, 8)), "high"));
    assert!(cluster.runs(high));
    assert_eq!(cluster.stopped().len(), 2);
}

/// Preemption does not work well when the preemptor is a gang: part of it is served, none of it runs.
#[test]
fn volcano_3291_for_a_gang_that_does_not_fit_whole_nobody_is_stopped() {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(1, 3, 8);
    let mut firm = class(forever(nodes(1, 8)), "low");
    firm.preemptible = false;
    cluster.submit(firm);
    (0..2).for_each(|_| assert!(cluster.submit(class(forever(nodes(1, 8)), "low")).job.0 > 0));
    let high = cluster.submit(class(forever(nodes(3, 8)), "high"));
    cluster.pass(100);
    assert!(!cluster.runs(high) && cluster.stopped().is_empty());
}

/// Preemption that knows the network topology.
#[test]
fn volcano_4374_of_several_domains_the_cheapest_one_is_taken() {
    let mut cluster = Cluster::new(preempting());
    let racks = cluster.racks(2, 2, 8);
    for node in ["r0n0", "r0n1"] {
        cluster.submit(low(node));
    }
    cluster.pass(5000);
    for node in ["r1n0", "r1n1"] {
        cluster.submit(low(node));
    }
    cluster.pass(10);
    let high = cluster.submit(class(in_a_rack(2), "high"));
    assert_eq!(cluster.nodes_of(high), racks[1]);
}

/// A gang that lost a node is stuck behind fresh jobs once capacity comes back.
#[test]
fn volcano_5805_a_wounded_gang_comes_before_fresh_jobs() {
    let mut cluster = Cluster::new(Policy::default());
    let racks = cluster.racks(1, 2, 8);
    let wide = cluster.submit(forever(nodes(2, 8)));
    lose(&mut cluster, racks[0][1]);
    cluster.decide();
    (0..5).for_each(|_| assert!(cluster.submit(class(forever(nodes(1, 8)), "high")).job.0 > 0));
    cluster.pass(10);
    assert!(!cluster.runs(wide));
    cluster.node("mended", inventory("H100", 8, &["r0"]));
    cluster.decide();
    assert!(cluster.runs(wide));
}

/// A gang that requires one domain cannot preempt a fully packed one.
#[test]
fn kai_1591_a_full_domain_is_considered() {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(1, 2, 8);
    let packed: Vec<GangId> = (0..4).map(|_| cluster.submit(class(forever(nodes(1, 4)), "low"))).collect();
    assert!(packed.iter().all(|gang| cluster.runs(*gang)));
    let high = cluster.submit(class(in_a_rack(2), "high"));
    assert!(cluster.runs(high));
    assert_eq!(cluster.stopped().len(), 4);
}

/// Users want running training left where it is.
#[test]
fn kai_146_nothing_is_moved_to_make_room() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.racks(1, 2, 8);
    let small: Vec<GangId> =
        ["r0n0", "r0n1"].iter().map(|node| cluster.submit(on(forever(nodes(1, 2)), &[node]))).collect();
    let wide = cluster.submit(class(forever(nodes(1, 8)), "high"));
    cluster.pass(10_000);
    assert!(!cluster.runs(wide) && small.iter().all(|gang| cluster.runs(*gang)));
}

/// Two half groups wait for each other for ever after nodes are lost.
#[test]
fn ray_65147_two_gangs_that_lost_a_node_do_not_block_each_other() {
    let mut cluster = Cluster::new(Policy::default());
    let racks = cluster.racks(2, 2, 8);
    let gangs = [cluster.submit(in_a_rack(2)), cluster.submit(in_a_rack(2))];
    lose(&mut cluster, racks[0][0]);
    lose(&mut cluster, racks[1][0]);
    cluster.decide();
    assert!(gangs.iter().all(|gang| !cluster.runs(*gang)));
    cluster.pass(301);
    assert!(cluster.player.state.reservations().is_empty(), "what they kept is everybody's again");
    cluster.node("new", inventory("H100", 8, &["r0"]));
    cluster.decide();
    assert_eq!(gangs.iter().filter(|gang| cluster.runs(**gang)).count(), 1);
}

/// The loss of one node starts the whole cluster of nodes anew.
#[test]
fn skypilot_3907_the_healthy_nodes_of_a_gang_stay_with_it() {
    let mut cluster = Cluster::new(Policy::default());
    let racks = cluster.racks(2, 4, 8);
    let wide = cluster.submit(in_a_rack(3));
    let before = cluster.nodes_of(wide);
    let home = racks.iter().find(|rack| rack.contains(&before[0])).unwrap();
    let spare = *home.iter().find(|node| !before.contains(node)).unwrap();
    lose(&mut cluster, before[0]);
    cluster.pass(10);
    assert_eq!(cluster.nodes_of(wide), [spare, before[1], before[2]]);
}

/// Instant fairness wastes work; preemption needs a rate.
#[test]
fn armada_pr5073_preemption_has_a_rate() {
    let mut cluster = Cluster::new(with(Preempt { per_hour: 1, ..Preempt::default() }));
    cluster.racks(1, 4, 8);
    (0..4).for_each(|_| assert!(cluster.submit(class(forever(nodes(1, 8)), "low")).job.0 > 0));
    (0..4).for_each(|_| assert!(cluster.submit(class(forever(nodes(1, 8)), "high")).job.0 > 0));
    cluster.pass(3000);
    assert_eq!(cluster.stopped().len(), 1);
}

/// What was preempted is not started again when there is room.
#[test]
fn nomad_9890_a_preempted_job_runs_again_when_there_is_room() {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(1, 1, 8);
    let low = cluster.submit(class(forever(nodes(1, 8)), "low"));
    let mut high = class(forever(nodes(1, 8)), "high");
    high.limits.exact_ms = Some(60_000);
    cluster.submit(high);
    assert!(!cluster.runs(low));
    cluster.pass(61);
    assert!(cluster.runs(low));
}

/// Batch jobs are not preempted although others of a higher priority wait.
#[test]
fn nomad_16232_small_jobs_of_a_low_class_make_room() {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(1, 1, 8);
    let small: Vec<GangId> = (0..8).map(|_| cluster.submit(class(forever(total(1)), "low"))).collect();
    let high = cluster.submit(class(forever(total(3)), "high"));
    assert!(cluster.runs(high));
    assert_eq!(small.iter().filter(|gang| cluster.runs(**gang)).count(), 5);
}

/// One-GPU jobs keep multi-GPU jobs from starting.
#[test]
fn slurm_cbio_20_one_gpu_jobs_do_not_keep_a_whole_node_job_out() {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(1, 2, 4);
    (0..6).for_each(|_| assert!(cluster.submit(class(forever(total(1)), "low")).job.0 > 0));
    let whole = cluster.submit(forever(nodes(1, 4)));
    assert!(cluster.runs(whole));
    assert!(cluster.stopped().len() <= 4);
    // More of them come all the time; none of them takes the node from it.
    (0..6).for_each(|_| assert!(cluster.submit(class(forever(total(1)), "low")).job.0 > 0));
    cluster.pass(1000);
    assert!(cluster.runs(whole));
}
