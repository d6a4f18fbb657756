//! What users of other schedulers complained of, as far as placement goes: one test for each public issue,
//! named after it, on the situation it tells of.

use crate::plan_support;

use muster_common::job::{GroupRequest, Scheduling};
use muster_common::resources::Share;
use muster_common::topology::TopologyMode::Required;
use muster_common::topology::TopologyRequest;
use muster_common::{GangId, NodeId};
use muster_engine::Memo;
use muster_engine::command::{Cancel, Command, ConfigChange, Principal};
use muster_engine::plan::explain::{Reason, explain};
use muster_engine::plan::never::fits_ever;
use muster_engine::policy::Policy;
use plan_support::blocks::{blocks, per_block, segments};
use plan_support::*;

fn node_ids(cluster: &Cluster, gang: GangId) -> Vec<NodeId> {
    cluster.held(gang).into_iter().map(|(node, _)| node).collect()
}

fn reasons(cluster: &Cluster, gang: GangId) -> Vec<Reason> {
    let explained = explain(&cluster.player.state, &mut Memo::default(), gang, cluster.now()).unwrap();
    explained.blockers.iter().map(|blocker| blocker.reason).collect()
}

fn cancel(cluster: &mut Cluster, gang: GangId) {
    let by = Principal("test".into());
    cluster.commit(Command::Cancel(Cancel { job: gang.job, ordinal: None, reason: String::new(), by }));
    cluster.run();
}

/// SchedMD/slurm PR 225: after an unchanged assignment of nodes to blocks was applied again, segment rules were
/// silently off, and 36 nodes in segments of 12 became 17 + 17 + 2.
#[test]
fn slurm_pr225_segments_of_twelve_stay_three_times_twelve() {
    let (mut cluster, all) = blocks(&[17, 17, 18], 4);
    cluster.commit(configure(ConfigChange::Fabric(fabric(&["block"]))));
    for (at, block) in all.iter().enumerate() {
        for n in 0..block.len() {
            cluster.commit(register(&format!("b{at}-{n:02}"), inventory("GB200", 4, &[&format!("b{at}")])));
        }
    }
    let gang = cluster.submit(segments(job(nodes(36, 4)), 12, false));
    cluster.decide();
    assert_eq!(per_block(&cluster, &all, gang), [12, 12, 12]);
}

/// NVIDIA-NeMo/RL 1421: "Requires a way to control segment setting for NVL72 system": 16 of the 18 trays of each
/// rack, and two to spare.
#[test]
fn nemo_rl_1421_sixteen_of_eighteen_trays_of_each_rack() {
    let (mut cluster, all) = blocks(&[18, 18, 18], 4);
    let gang = cluster.submit(segments(job(nodes(48, 4)), 16, false));
    cluster.decide();
    assert_eq!(per_block(&cluster, &all, gang), [16, 16, 16]);
    let second = cluster.submit(segments(job(nodes(6, 4)), 2, false));
    cluster.decide();
    assert_eq!(per_block(&cluster, &all, second), [2, 2, 2], "what is left of each rack is of use");
}

/// nebius/soperator 801: jobs on a block topology stay inside one block when one holds them.
#[test]
fn soperator_801_what_one_block_holds_stays_in_one_block() {
    let (mut cluster, all) = blocks(&[18, 18], 4);
    let first = cluster.submit(job(nodes(10, 4)));
    let second = cluster.submit(job(nodes(12, 4)));
    let third = cluster.submit(job(nodes(8, 4)));
    cluster.decide();
    let of = |gang| per_block(&cluster, &all, gang);
    assert_eq!((of(first), of(second), of(third)), (vec![10, 0], vec![0, 12], vec![8, 0]));
}

/// NVIDIA/KAI-Scheduler 577: a gang for one NVLink domain of GB200 trays.
#[test]
fn kai_577_a_compute_domain_is_one_rack() {
    let (mut cluster, all) = blocks(&[18, 18], 4);
    cluster.submit(job(nodes(1, 4)));
    cluster.decide();
    let whole = cluster.submit(within(job(nodes(18, 4)), "block", Required, 1));
    cluster.decide();
    assert_eq!(per_block(&cluster, &all, whole), [0, 18]);
}

/// ray-project/kuberay 4843: sub-groups of one gang, block by block.
#[test]
fn kuberay_4843_groups_of_one_gang_share_a_block() {
    let (mut cluster, all) = blocks(&[3, 6], 4);
    let group = |called: &str, count| GroupRequest { name: name(called), ..GroupRequest::of(count) };
    let groups = vec![group("head", nodes(1, 1)), group("workers", nodes(4, 4))];
    let together = vec![TopologyRequest { level: name("block"), mode: Required, at_most: 1 }];
    let gang = cluster.submit(Scheduling { groups, together, ..job(nodes(1, 1)) });
    cluster.decide();
    assert_eq!(per_block(&cluster, &all, gang), [0, 5]);
}

/// kubernetes-sigs/kueue 5243: a workload for one host was admitted because quota and sums allowed it, and no host
/// could hold it.
#[test]
fn kueue_5243_free_in_pieces_is_not_free_on_one_host() {
    let (mut cluster, all) = blocks(&[2], 8);
    let small: Vec<GangId> = (0..2).map(|_| cluster.submit(job(nodes(1, 5)))).collect();
    cluster.decide();
    let host = cluster.submit(within(job(total(6)), "node", Required, 1));
    cluster.decide();
    assert_eq!(cluster.held(host), [], "three and three are free");
    assert!(reasons(&cluster, host).contains(&Reason::Topology));
    cancel(&mut cluster, small[1]);
    assert_eq!(node_ids(&cluster, host), [all[0][1]]);
}

/// kubernetes-sigs/kueue 4329: small work scattered over nodes keeps whole-node work out.
#[test]
fn kueue_4329_small_work_gathers_and_leaves_nodes_whole() {
    let (mut cluster, _) = blocks(&[4], 8);
    (0..16).for_each(|_| _ = cluster.submit(job(nodes(1, 1))));
    let big = cluster.submit(job(nodes(2, 8)));
    cluster.decide();
    assert_eq!(cluster.held(big).len(), 2, "sixteen small ones are on two nodes");
}

/// kubernetes-sigs/kueue 12478: a required level is required.
#[test]
fn kueue_12478_a_required_level_is_never_forced() {
    let (mut cluster, _) = blocks(&[2, 2], 8);
    (0..2).for_each(|_| _ = cluster.submit(within(job(nodes(1, 8)), "block", Required, 1)));
    cluster.decide();
    // Both are in one block, so that the other is whole.
    let fits = cluster.submit(within(job(nodes(2, 8)), "block", Required, 1));
    let waits = cluster.submit(within(job(nodes(2, 8)), "block", Required, 1));
    cluster.decide();
    assert_eq!((cluster.held(fits).len(), cluster.held(waits).len()), (2, 0));
}

/// volcano-sh/volcano 665: the sum of what is free says that the gang fits; node by node it does not.
#[test]
fn volcano_665_a_sum_is_not_a_fit() {
    let (mut cluster, _) = blocks(&[2], 8);
    (0..2).for_each(|_| _ = cluster.submit(job(nodes(1, 5))));
    cluster.decide();
    let gang = cluster.submit(job(nodes(3, 2)));
    let little = cluster.submit(job(nodes(1, 3)));
    cluster.decide();
    assert_eq!(cluster.held(gang), [], "six are free, two on no third node");
    assert!(fits_ever(&cluster.player.state, &job(nodes(3, 2))).is_err());
    assert_eq!(cluster.held(little).len(), 1, "it holds nothing while it waits");
}

/// Project-HAMi/volcano-vgpu-device-plugin 116: two gangs each hold a part and wait for the rest.
#[test]
fn hami_116_two_gangs_never_hold_half_each() {
    let (mut cluster, _) = blocks(&[3], 8);
    let (one, other) = (cluster.submit(job(nodes(2, 8))), cluster.submit(job(nodes(2, 8))));
    cluster.decide();
    assert_eq!((cluster.held(one).len(), cluster.held(other).len()), (2, 0));
}

/// NVIDIA/KAI-Scheduler 1598: GPUs of one NUMA node for those who need several.
#[test]
fn kai_1598_gpus_of_one_numa_node() {
    let mut cluster = Cluster::new(Policy::default());
    let mut machine = inventory("H100", 8, &[]);
    for (slot, device) in machine.devices.iter_mut().enumerate() {
        device.numa = Some((slot % 2) as u16);
    }
    cluster.node("n", machine);
    let four = cluster.submit(job(nodes(1, 4)));
    cluster.decide();
    assert_eq!(cluster.held(four)[0].1, [0, 2, 4, 6], "whatever the order of their numbers");
}

/// NVIDIA/KAI-Scheduler 848: several workloads on a node that is full.
#[test]
fn kai_848_a_full_node_gets_no_more() {
    let (mut cluster, _) = blocks(&[2], 8);
    let gangs: Vec<GangId> = (0..5).map(|_| cluster.submit(job(nodes(1, 8)))).collect();
    cluster.decide();
    cluster.decide();
    assert_eq!(gangs.iter().filter(|gang| !cluster.held(**gang).is_empty()).count(), 2);
    assert!(gangs.iter().all(|gang| cluster.player.state.parked(*gang).is_none()), "and nothing was tried in vain");
}

/// dstackai/dstack 2650: nodes that are shared in parts cannot serve multi-node runs.
#[test]
fn dstack_2650_parts_of_nodes_serve_gangs_of_several_nodes() {
    let (mut cluster, all) = blocks(&[2], 8);
    let one = cluster.submit(job(nodes(2, 4)));
    let other = cluster.submit(job(nodes(2, 4)));
    cluster.decide();
    assert_eq!(node_ids(&cluster, one), all[0]);
    assert_eq!(node_ids(&cluster, other), all[0]);
    let mut half = job(nodes(2, 2));
    half.groups[0].share = Share(500);
    cancel(&mut cluster, other);
    let shares: Vec<GangId> = (0..4).map(|_| cluster.submit(half.clone())).collect();
    cluster.decide();
    assert!(shares.iter().all(|gang| cluster.held(*gang).len() == 2), "two on each device of what was given back");
}

/// dstackai/dstack 2221: a fleet with too few instances is chosen.
#[test]
fn dstack_2221_a_block_with_too_few_nodes_is_passed_over() {
    let (mut cluster, all) = blocks(&[2, 3, 5], 8);
    let gang = cluster.submit(within(job(nodes(4, 8)), "block", Required, 1));
    cluster.decide();
    assert_eq!(per_block(&cluster, &all, gang), [0, 0, 4]);
}

/// dstackai/dstack 3114: several tasks on one instance.
#[test]
fn dstack_3114_one_node_runs_several_jobs() {
    let (mut cluster, all) = blocks(&[1], 8);
    let gangs: Vec<GangId> = [3, 2, 2, 1].map(|gpus| cluster.submit(job(nodes(1, gpus)))).to_vec();
    cluster.decide();
    assert!(gangs.iter().all(|gang| node_ids(&cluster, *gang) == all[0]));
}

/// hashicorp/nomad 11467: multi-instance GPUs are not seen.
#[test]
fn nomad_11467_mig_instances_are_devices_with_a_parent() {
    let mut cluster = Cluster::new(Policy::default());
    let mut machine = inventory("A100", 4, &[]);
    for device in &mut machine.devices[2..] {
        (device.model, device.parent) = (name("A100-3g.20gb"), Some(1));
    }
    cluster.node("n", machine);
    let of = |model: &str| {
        let mut wish = job(nodes(1, 1));
        wish.groups[0].models = vec![name(model)];
        wish
    };
    let gangs: Vec<GangId> = ["A100-3g.20gb", "A100-3g.20gb", "A100-3g.20gb", "A100", "A100"]
        .map(|model| cluster.submit(of(model)))
        .to_vec();
    cluster.decide();
    let held: Vec<Vec<u16>> = gangs.iter().map(|gang| cluster.held(*gang).concat_slots()).collect();
    assert_eq!(held, [vec![2], vec![3], vec![], vec![0], vec![]], "never an instance and its parent");
}

trait Slots {
    fn concat_slots(self) -> Vec<u16>;
}

impl Slots for Vec<(NodeId, Vec<u16>)> {
    fn concat_slots(self) -> Vec<u16> {
        self.into_iter().flat_map(|(_, slots)| slots).collect()
    }
}

/// ray-project/ray 18835: nobody says that a placement group can never be had.
#[test]
fn ray_18835_what_can_never_fit_is_told_with_numbers() {
    let (cluster, _) = blocks(&[2, 2], 8);
    let why = |wish: Scheduling| fits_ever(&cluster.player.state, &wish).unwrap_err().to_string();
    assert_eq!(why(job(nodes(1, 16))), "16 devices on one node; the largest node has 8");
    assert!(why(job(nodes(5, 8))).contains("32"), "{}", why(job(nodes(5, 8))));
    assert!(why(within(job(nodes(3, 8)), "block", Required, 1)).contains("no domain of that level is large enough"));
    let group = |called: &str, count| GroupRequest { name: name(called), ..GroupRequest::of(count) };
    let two = |b| Scheduling { groups: vec![group("a", nodes(3, 8)), group("b", b)], ..job(nodes(1, 1)) };
    assert!(why(two(nodes(1, 9))).contains("group `b`"));
    assert!(why(two(nodes(2, 8))).contains("2 groups at once"));
}

/// ray-project/ray 20968: a group that could not be had is forgotten when the cluster grows.
#[test]
fn ray_20968_what_did_not_fit_starts_when_the_cluster_grows() {
    let (mut cluster, _) = blocks(&[2], 8);
    let gang = cluster.submit(job(nodes(3, 8)));
    cluster.decide();
    assert_eq!(cluster.held(gang), []);
    assert_eq!(reasons(&cluster, gang).first(), Some(&Reason::NeverFits));
    cluster.node("late", inventory("GB200", 8, &["b9"]));
    cluster.decide();
    assert_eq!(cluster.held(gang).len(), 3);
}

/// cBio/cbio-cluster 20: one-GPU jobs keep multi-GPU jobs from starting.
#[test]
fn cbio_20_one_gpu_jobs_leave_room_for_large_ones() {
    let (mut cluster, all) = blocks(&[3], 8);
    let small: Vec<GangId> = (0..20).map(|_| cluster.submit(job(nodes(1, 1)))).collect();
    cluster.decide();
    // Every second one ends; newcomers close the gaps before they open a node.
    small.iter().step_by(2).for_each(|gang| cancel(&mut cluster, *gang));
    (0..6).for_each(|_| _ = cluster.submit(job(nodes(1, 1))));
    cluster.decide();
    let used = |node: &NodeId| cluster.player.state.node(*node).unwrap().gangs.len();
    let mut counts: Vec<usize> = all[0].iter().map(used).collect();
    counts.sort_unstable();
    assert_eq!(counts.iter().sum::<usize>(), 16);
    assert_eq!(counts, [2, 6, 8], "the fullest node first");
}
