//! What a gang may wish of its nodes: several groups, segments, spread, preferred labels and data, whole
//! nodes, instances, and machines that lost a link.

use crate::plan_support;
use crate::property;

use muster_common::job::{GroupRequest, RanksPerNode, Scheduling};
use muster_common::node::{Inventory, Link};
use muster_common::resources::Share;
use muster_common::topology::TopologyMode::{Preferred, Required};
use muster_common::topology::{LabelWish, SegmentRequest, SpreadRequest, TopologyRequest};
use muster_common::{GangId, NodeId};
use muster_engine::command::{Command, Submit};
use muster_engine::outcome::{Refusal, Response};
use muster_engine::plan::explain::{Reason, explain};
use muster_engine::plan::never::fits_ever;
use muster_engine::policy::{DeviceChoice, Domains, Policy, Score};
use muster_engine::{Memo, desired};
use plan_support::*;
use property::cases;
use proptest::prelude::*;

fn group(called: &str, count: muster_common::job::Count) -> GroupRequest {
    GroupRequest { name: name(called), ..GroupRequest::of(count) }
}

fn groups(groups: Vec<GroupRequest>) -> Scheduling {
    Scheduling { groups, ..job(nodes(1, 0)) }
}

fn level(level: &str) -> TopologyRequest {
    TopologyRequest { level: name(level), mode: Required, at_most: 1 }
}

fn segments(mut job: Scheduling, level: &str, nodes: u32, apart: bool) -> Scheduling {
    job.groups[0].segment = Some(SegmentRequest { level: name(level), nodes, apart });
    job
}

fn spread(mut job: Scheduling, level: &str, nodes: u32) -> Scheduling {
    job.groups[0].spread = Some(SpreadRequest { level: name(level), nodes });
    job
}

fn prefers(label: &str, value: Option<&str>, weight: u16) -> LabelWish {
    LabelWish { label: name(label), value: value.map(str::to_owned), weight }
}

/// Leaves of the given sizes, with eight devices on each node.
fn leaves(sizes: &[usize]) -> (Cluster, Vec<Vec<NodeId>>) {
    let mut cluster = Cluster::new(Policy::default());
    cluster.fabric(&["pod", "leaf"]);
    let leaf = |(at, size): (usize, &usize)| {
        (0..*size)
            .map(|n| cluster.node(&format!("l{at}-{n}"), inventory("H100", 8, &["p", &format!("l{at}")])))
            .collect()
    };
    let all = sizes.iter().enumerate().map(leaf).collect();
    (cluster, all)
}

fn node_ids(cluster: &Cluster, gang: GangId) -> Vec<NodeId> {
    cluster.held(gang).into_iter().map(|(node, _)| node).collect()
}

/// Nodes of a gang in each leaf.
fn per_leaf(cluster: &Cluster, leaves: &[Vec<NodeId>], gang: GangId) -> Vec<usize> {
    let held = node_ids(cluster, gang);
    leaves.iter().map(|leaf| held.iter().filter(|node| leaf.contains(node)).count()).collect()
}

fn blockers(cluster: &Cluster, gang: GangId) -> Vec<Reason> {
    let explained = explain(&cluster.player.state, &mut Memo::default(), gang, cluster.now()).unwrap();
    explained.blockers.iter().map(|blocker| blocker.reason).collect()
}

fn refusal(cluster: &mut Cluster, scheduling: Scheduling) -> String {
    let Command::Submit(submit) = submit("refused", scheduling) else { unreachable!() };
    let entry = muster_engine::Entry {
        index: cluster.player.state.applied_index() + 1,
        term: 1,
        at: cluster.now(),
        command: Command::Submit(Box::new(Submit { ..*submit })),
    };
    match muster_engine::apply(&mut cluster.player.state.clone(), &entry).response {
        Response::Refused(Refusal::Invalid(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_gang_of_several_groups_starts_whole_with_ranks_group_by_group() {
    let mut cluster = Cluster::new(Policy::default());
    let gpu = [cluster.node("g0", inventory("H100", 8, &[])), cluster.node("g1", inventory("H100", 8, &[]))];
    let cpu = cluster.node("c0", inventory("H100", 0, &[]));
    let trainer = GroupRequest { ranks: RanksPerNode::PerDevice, ..group("trainer", nodes(2, 8)) };
    let gang = cluster.submit(groups(vec![group("driver", nodes(1, 0)), trainer]));
    cluster.decide();
    let attempt = cluster.player.state.gang(gang).unwrap().current().unwrap().clone();
    let parts: Vec<_> = attempt.parts.iter().map(|part| (part.group, part.node, part.rank_base, part.ranks)).collect();
    assert_eq!(parts, [(0, cpu, 0, 1), (1, gpu[0], 1, 8), (1, gpu[1], 9, 8)]);
    assert_eq!(attempt.world_size, 17);
    let run = desired(&cluster.player.state, gpu[1]).parts[0].run.clone().unwrap();
    assert_eq!((run.node_rank, run.rank_base, run.world_size), (2, 9, 17));
    assert_eq!(run.peers.iter().map(|peer| peer.group).collect::<Vec<_>>(), [0, 1, 1]);
}

#[test]
fn when_one_group_finds_no_room_none_starts() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.nodes(3, 8);
    let gang = cluster.submit(groups(vec![group("a", nodes(2, 8)), group("b", nodes(1, 8))]));
    let other = cluster.submit(groups(vec![group("a", nodes(2, 8)), group("b", nodes(1, 1))]));
    cluster.decide();
    assert_eq!(cluster.held(gang).len(), 3);
    assert_eq!(cluster.held(other), []);
    assert_eq!(blockers(&cluster, other), [Reason::Nodes, Reason::Nodes]);
}

#[test]
fn a_group_that_is_free_to_go_anywhere_leaves_the_only_place_to_the_other() {
    let mut cluster = Cluster::new(Policy::default());
    let mut fast = inventory("H100", 8, &[]);
    fast.labels.insert(name("disk"), "nvme".into());
    let only = cluster.node("a-first", fast);
    let plain = cluster.node("b-second", inventory("H100", 8, &[]));
    let mut marked = group("marked", nodes(1, 8));
    marked.labels.insert(name("disk"), "nvme".into());
    let gang = cluster.submit(groups(vec![group("free", nodes(1, 8)), marked]));
    cluster.decide();
    assert_eq!(node_ids(&cluster, gang), [plain, only]);
}

#[test]
fn groups_together_share_one_domain_and_else_the_lowest_that_holds_all() {
    let (mut cluster, leaf) = leaves(&[2, 4, 4]);
    let both = || groups(vec![group("a", nodes(2, 8)), group("b", nodes(1, 8))]);
    let wish = cluster.submit(Scheduling { together: vec![level("leaf")], ..both() });
    cluster.decide();
    assert_eq!(per_leaf(&cluster, &leaf, wish), [0, 3, 0], "leaf 0 holds each group, not both");
    let free = cluster.submit(both());
    cluster.decide();
    assert_eq!(per_leaf(&cluster, &leaf, free), [0, 0, 3], "nobody asked, and one leaf is nearest");
    let waits = cluster.submit(Scheduling { together: vec![level("leaf")], ..both() });
    let spreads = cluster.submit(both());
    cluster.decide();
    assert_eq!(cluster.held(waits), []);
    assert_eq!(per_leaf(&cluster, &leaf, spreads), [2, 1, 0]);
}

#[test]
fn groups_of_different_models_meet_in_one_leaf() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.fabric(&["leaf"]);
    let mut at = |node: &str, model: &str, leaf: &str| cluster.node(node, inventory(model, 8, &[leaf]));
    at("x", "H100", "l0");
    let (train, serve) = (at("t", "H100", "l1"), at("s", "L40S", "l1"));
    at("y", "L40S", "l2");
    let of = |called, model| GroupRequest { models: vec![name(model)], ..group(called, nodes(1, 8)) };
    let gang = cluster.submit(groups(vec![of("train", "H100"), of("serve", "L40S")]));
    cluster.decide();
    assert_eq!(node_ids(&cluster, gang), [train, serve]);
}

#[test]
fn what_groups_cannot_mean_is_refused() {
    let (mut cluster, _) = leaves(&[2]);
    let two = |called: [&str; 2]| groups(called.map(|called| group(called, nodes(1, 1))).to_vec());
    assert!(refusal(&mut cluster, two(["a", "a"])).contains("two groups `a`"));
    assert!(refusal(&mut cluster, groups(vec![])).contains("from 1 to 32 groups"));
    let on_node = Scheduling { together: vec![level("node")], ..two(["a", "b"]) };
    assert!(refusal(&mut cluster, on_node).contains("each node serves one group"));
    let wide = TopologyRequest { at_most: 2, ..level("leaf") };
    assert!(refusal(&mut cluster, Scheduling { together: vec![wide], ..two(["a", "b"]) }).contains("one domain"));
    let bad = groups(vec![group("a", nodes(1, 1)), group("b", nodes(0, 1))]);
    assert!(refusal(&mut cluster, bad).starts_with("group `b`: "));
    let odd = segments(job(nodes(5, 8)), "leaf", 2, false);
    assert_eq!(refusal(&mut cluster, odd), "5 nodes cannot be cut into segments of 2");
    let both = spread(segments(job(nodes(4, 8)), "leaf", 2, false), "leaf", 1);
    assert!(refusal(&mut cluster, both).contains("contradict"));
    assert!(refusal(&mut cluster, segments(job(total(8)), "leaf", 2, false)).contains("a number of nodes"));
    assert!(refusal(&mut cluster, segments(job(nodes(2, 8)), "rack", 2, false)).contains("no topology level `rack`"));
}

#[test]
fn segments_lie_in_one_domain_each() {
    let (mut cluster, leaf) = leaves(&[3, 3, 5]);
    let gang = cluster.submit(segments(job(nodes(6, 8)), "leaf", 2, false));
    cluster.decide();
    assert_eq!(per_leaf(&cluster, &leaf, gang), [2, 0, 4], "two fit leaf 2, and one the lowest leaf that holds it");
    let ranks = cluster.held(gang);
    let leaf_of = |node: &NodeId| leaf.iter().position(|nodes| nodes.contains(node)).unwrap();
    let order: Vec<usize> = ranks.iter().map(|(node, _)| leaf_of(node)).collect();
    assert_eq!(order, [0, 0, 2, 2, 2, 2], "ranks of a segment are neighbours");
    let waits = cluster.submit(segments(job(nodes(4, 8)), "leaf", 2, false));
    cluster.decide();
    assert_eq!(cluster.held(waits), [], "five are free: one, three and one");
    assert!(blockers(&cluster, waits).contains(&Reason::Topology));
}

#[test]
fn segments_apart_take_a_domain_each() {
    let (mut cluster, leaf) = leaves(&[4, 4, 4]);
    let gang = cluster.submit(segments(job(nodes(6, 8)), "leaf", 2, true));
    cluster.decide();
    assert_eq!(per_leaf(&cluster, &leaf, gang), [2, 2, 2]);
    let never = segments(job(nodes(8, 8)), "leaf", 2, true);
    let why = fits_ever(&cluster.player.state, &never).unwrap_err();
    assert!(why.what.contains("segments of 2 inside level `leaf`, each in a domain of its own"), "{why}");
}

#[test]
fn a_segment_of_another_tree_is_cut_there() {
    let mut cluster = Cluster::new(Policy::default());
    let mut spec = fabric(&["leaf"]);
    spec.trees.push(muster_common::topology::TreeSpec { name: name("nvlink"), levels: vec![name("nvl72")] });
    cluster.commit(configure(muster_engine::command::ConfigChange::Fabric(spec)));
    // Racks 0 and 1 stand across both leaves.
    let mut ids = Vec::new();
    for at in 0..8 {
        let mut machine = inventory("GB200", 4, &[["a", "b"][at % 2]]);
        machine.place.insert(name("nvlink"), vec![name(["r0", "r1"][at / 4])]);
        ids.push(cluster.node(&format!("n{at}"), machine));
    }
    let gang = cluster.submit(segments(job(nodes(6, 4)), "nvl72", 3, false));
    cluster.decide();
    let held = node_ids(&cluster, gang);
    let racks: Vec<usize> = held.iter().map(|node| ids.iter().position(|id| id == node).unwrap() / 4).collect();
    assert_eq!(racks, [0, 0, 0, 1, 1, 1]);
}

#[test]
fn spread_bounds_what_one_domain_can_take_down() {
    let (mut cluster, leaf) = leaves(&[4, 4, 4]);
    let two = cluster.submit(spread(job(nodes(2, 8)), "leaf", 1));
    cluster.decide();
    assert_eq!(per_leaf(&cluster, &leaf, two).iter().max(), Some(&1));
    let five = cluster.submit(spread(job(nodes(5, 8)), "leaf", 2));
    cluster.decide();
    assert_eq!(per_leaf(&cluster, &leaf, five).iter().max(), Some(&2));
    let why = fits_ever(&cluster.player.state, &spread(job(nodes(4, 8)), "leaf", 1)).unwrap_err();
    assert!(why.what.contains("at most 1 in one domain of level `leaf`"), "{why}");
}

#[test]
fn preferred_labels_and_data_are_taken_while_they_last() {
    let (mut cluster, _) = leaves(&[0]);
    let mut at = |node: &str, labels: &[(&str, &str)]| {
        let mut machine = inventory("H100", 8, &["p", "l0"]);
        machine.labels = labels.iter().map(|(key, value)| (name(key), (*value).to_owned())).collect();
        cluster.node(node, machine)
    };
    let plain = at("a", &[]);
    let disk = at("b", &[("disk", "nvme")]);
    let data = at("c", &[("data.imagenet", "v2"), ("disk", "sata")]);
    let both = at("d", &[("data.imagenet", ""), ("disk", "nvme")]);
    let mut wish = job(nodes(1, 8));
    wish.groups[0].prefers = vec![prefers("data.imagenet", None, 10), prefers("disk", Some("nvme"), 3)];
    let gangs: Vec<GangId> = (0..4).map(|_| cluster.submit(wish.clone())).collect();
    cluster.decide();
    let got: Vec<NodeId> = gangs.iter().map(|gang| node_ids(&cluster, *gang)[0]).collect();
    assert_eq!(got, [both, data, disk, plain]);
}

#[test]
fn of_two_leaves_the_one_with_the_data_is_taken() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.fabric(&["leaf"]);
    for at in 0..6 {
        let mut machine = inventory("H100", 8, &[["a", "b", "c"][at / 2]]);
        if at >= 4 {
            machine.labels.insert(name("data.web"), "1".into());
        }
        cluster.node(&format!("n{at}"), machine);
    }
    let mut wish = job(nodes(2, 8));
    wish.groups[0].prefers = vec![prefers("data.web", None, 1)];
    let gang = cluster.submit(wish);
    cluster.decide();
    let state = &cluster.player.state;
    assert!(node_ids(&cluster, gang).iter().all(|node| state.node(*node).unwrap().inventory.labels.len() == 1));
}

#[test]
fn an_exclusive_gang_has_its_nodes_alone() {
    let mut cluster = Cluster::new(Policy::default());
    let all = cluster.nodes(2, 8);
    let small = cluster.submit(job(nodes(1, 1)));
    let mut whole = job(nodes(1, 4));
    whole.groups[0].exclusive = true;
    let first = cluster.submit(whole.clone());
    let second = cluster.submit(whole);
    cluster.decide();
    assert_eq!((node_ids(&cluster, small), node_ids(&cluster, first)), (vec![all[0]], vec![all[1]]));
    assert_eq!(cluster.held(second), []);
    assert!(blockers(&cluster, second).contains(&Reason::CpuMemory));
    let another = cluster.submit(job(nodes(1, 4)));
    let no_room = cluster.submit(job(nodes(1, 4)));
    cluster.decide();
    assert_eq!(node_ids(&cluster, another), [all[0]]);
    assert_eq!(cluster.held(no_room), [], "four devices of the exclusive node are idle, and nobody else's");
}

#[test]
fn one_model_for_a_group_unless_it_takes_a_mixture() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.node("old", inventory("A100", 8, &[]));
    cluster.node("new", inventory("H100", 8, &[]));
    let mut wish = job(nodes(2, 8));
    wish.groups[0].models = vec![name("H100"), name("A100")];
    let waits = cluster.submit(wish.clone());
    cluster.decide();
    assert_eq!(cluster.held(waits), []);
    wish.groups[0].mixed_models = true;
    let starts = cluster.submit(wish);
    cluster.decide();
    assert_eq!(cluster.held(starts).len(), 2);
}

/// Eight devices of which the first is cut into seven instances.
fn with_instances() -> Inventory {
    let mut machine = inventory("H100", 15, &[]);
    for device in &mut machine.devices[8..] {
        (device.model, device.parent) = (name("H100-1g.10gb"), Some(0));
    }
    machine
}

#[test]
fn an_instance_goes_to_who_names_it_and_its_parent_to_nobody() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.node("n", with_instances());
    let of = |model: Option<&str>, devices| {
        let mut wish = job(nodes(1, devices));
        wish.groups[0].models = model.into_iter().map(name).collect();
        wish.groups[0].cpu_milli_per_node = Some(1000);
        wish
    };
    let whole = cluster.submit(of(None, 7));
    let eighth = cluster.submit(of(Some("H100"), 1));
    let slices: Vec<GangId> = (0..4).map(|_| cluster.submit(of(Some("H100-1g.10gb"), 2))).collect();
    cluster.decide();
    assert_eq!(cluster.held(whole)[0].1, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(cluster.held(eighth), [], "the eighth is in pieces");
    assert_eq!(slices.iter().filter(|gang| !cluster.held(**gang).is_empty()).count(), 3);
    assert!(fits_ever(&cluster.player.state, &of(Some("H100"), 8)).is_err());
}

/// A B200 machine whose GPU 2 lost NVLink.
fn seven_and_one() -> Inventory {
    let mut machine = inventory("B200", 8, &[]);
    for at in 0..8 {
        if at != 2 {
            (machine.links[2][at], machine.links[at][2]) = (Link::Sys, Link::Sys);
        }
    }
    machine
}

#[test]
fn a_machine_that_lost_a_link_is_seven_and_one() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.node("hurt", seven_and_one());
    let eight = job(nodes(1, 8));
    assert!(fits_ever(&cluster.player.state, &eight).is_err(), "its eight devices are not joined");
    let one = cluster.submit(job(nodes(1, 1)));
    let seven = cluster.submit(job(nodes(1, 7)));
    cluster.decide();
    assert_eq!(cluster.held(one)[0].1, [2], "the lonely one, so that seven stay together");
    assert_eq!(cluster.held(seven)[0].1, [0, 1, 3, 4, 5, 6, 7]);
    let sound = cluster.node("sound", inventory("B200", 8, &[]));
    let gang = cluster.submit(eight);
    cluster.decide();
    assert_eq!(node_ids(&cluster, gang), [sound]);
}

#[test]
fn two_on_a_hurt_machine_never_span_the_gap() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.node("hurt", seven_and_one());
    let gangs: Vec<GangId> = (0..4).map(|_| cluster.submit(job(nodes(1, 2)))).collect();
    cluster.decide();
    let held: Vec<_> = gangs.iter().flat_map(|gang| cluster.held(*gang)).collect();
    assert_eq!(held.len(), 3, "of seven, three pairs");
    assert!(held.iter().all(|(_, slots)| !slots.contains(&2)));
}

#[test]
fn an_agent_is_told_of_the_nearest_nics_and_numa_nodes() {
    let mut cluster = Cluster::new(Policy::default());
    let mut machine = inventory("H100", 8, &[]);
    for (slot, device) in machine.devices.iter_mut().enumerate() {
        device.numa = Some((slot / 4) as u16);
        device.nearest_nics = vec![format!("mlx5_{slot}")];
    }
    let node = cluster.node("n", machine);
    let first = cluster.submit(job(nodes(1, 3)));
    let second = cluster.submit(job(nodes(1, 4)));
    cluster.decide();
    assert_eq!(
        (cluster.held(first)[0].1.clone(), cluster.held(second)[0].1.clone()),
        (vec![0, 1, 2], vec![4, 5, 6, 7])
    );
    let told = desired(&cluster.player.state, node);
    let run = told.parts.iter().find(|part| part.gang == second).unwrap().run.clone().unwrap();
    assert_eq!(run.numa, [1]);
    assert_eq!(run.nics, ["mlx5_4", "mlx5_5", "mlx5_6", "mlx5_7"]);
}

/// A wish by numbers, on a fabric of pods, leaves and racks.
fn random_wish(seed: [u8; 8]) -> Scheduling {
    let [shape, a, b, odd, second, cut, count, extra] = seed.map(u32::from);
    let mut wish = exact(nodes(1 + a % 4, 1 + b % 4), 5 + u64::from(extra % 20));
    let group = &mut wish.groups[0];
    match cut % 8 {
        0 => {
            group.count = nodes((1 + count % 2) * (1 + a % 2), 1 + b % 4);
            group.segment = Some(SegmentRequest { level: name("leaf"), nodes: 1 + a % 2, apart: extra % 2 == 0 });
        }
        1 => group.spread = Some(SpreadRequest { level: name(["pod", "leaf"][(a % 2) as usize]), nodes: 1 + b % 2 }),
        2 => group.topology.push(TopologyRequest { level: name("leaf"), mode: Required, at_most: 1 + a % 2 }),
        3 => group.topology.push(TopologyRequest { level: name("pod"), mode: Preferred, at_most: 1 }),
        4 => {
            group.count = nodes(2 * (1 + a % 2), 1 + b % 2);
            group.segment = Some(SegmentRequest { level: name("rack"), nodes: 2, apart: false });
        }
        5 => group.count = total(1 + a % 9),
        _ => {}
    }
    match odd % 8 {
        0 => group.models = vec![name("A100"), name("H100")],
        1 => (group.models, group.mixed_models) = (vec![name("A100"), name("H100")], true),
        2 => group.exclusive = true,
        3 if cut % 8 != 5 => group.share = Share(250 + 250 * (b % 4) as u16),
        4 => group.prefers = vec![prefers("disk", None, 5), prefers("data.x", Some("1"), 7)],
        5 => group.count = if cut % 8 == 5 { group.count.clone() } else { nodes(group_nodes(group), 0) },
        _ => {}
    }
    if group.exclusive && !group.share.is_whole() {
        group.exclusive = false;
    }
    for at in 0..second % 3 {
        let more = GroupRequest {
            name: name(&format!("g{at}")),
            ranks: RanksPerNode::PerDevice,
            models: if shape % 5 == 0 { vec![name("H100")] } else { Vec::new() },
            ..GroupRequest::of(nodes(1 + (a + at) % 2, (b + at) % 5))
        };
        wish.groups.push(more);
    }
    if shape % 4 == 0 {
        wish.together.push(level(["pod", "leaf"][(shape / 4 % 2) as usize]));
    }
    wish
}

fn group_nodes(group: &GroupRequest) -> u32 {
    match group.count {
        muster_common::job::Count::Nodes { nodes, .. } => nodes,
        muster_common::job::Count::Total(_) => 1,
    }
}

fn random_cluster(policy: Policy, machines: &[[u8; 4]]) -> Cluster {
    let mut cluster = Cluster::new(policy);
    let mut spec = fabric(&["pod", "leaf"]);
    spec.trees.push(muster_common::topology::TreeSpec { name: name("nvlink"), levels: vec![name("rack")] });
    cluster.commit(configure(muster_engine::command::ConfigChange::Fabric(spec)));
    for (at, [place, kind, label, rack]) in machines.iter().enumerate() {
        let path = ["p0/a", "p0/b", "p1/a", "p1/b"][usize::from(place % 4)];
        let path: Vec<&str> = path.split('/').collect();
        let model = if kind % 3 == 0 { "A100" } else { "H100" };
        let mut machine = inventory(model, 1 + usize::from(kind % 4), &path);
        match kind % 7 {
            0 => machine.devices.iter_mut().skip(1).for_each(|device| device.parent = Some(0)),
            1 => machine.links.iter_mut().for_each(|row| row[0] = Link::Sys),
            _ => {}
        }
        if kind % 7 == 1 {
            machine.links[0].iter_mut().for_each(|link| *link = Link::Sys);
        }
        if label % 2 == 0 {
            machine.labels.insert(name("disk"), "nvme".into());
        }
        if label % 3 == 0 {
            machine.labels.insert(name("data.x"), (label % 2).to_string());
        }
        if rack % 4 != 3 {
            machine.place.insert(name("nvlink"), vec![name(&format!("r{}", rack % 3))]);
        }
        cluster.node(&format!("n{at}"), machine);
    }
    cluster
}

/// Shares of three devices of a machine that has two that belong together: a start was foreseen for it.
#[test]
fn nobody_waits_behind_what_a_hurt_machine_can_never_hold() {
    let mut cluster = random_cluster(Policy::default(), &[[0, 2, 0, 0], [0, 106, 0, 0]]);
    let never = random_wish([5, 181, 22, 91, 108, 14, 0, 0]);
    assert_eq!((never.groups[0].count.clone(), never.groups[0].share.0), (nodes(2, 3), 750));
    let never = cluster.submit(never);
    let fits = cluster.submit(random_wish([0, 252, 21, 0, 0, 0, 0, 0]));
    cluster.decide();
    assert!(!cluster.held(fits).is_empty() && cluster.held(never).is_empty());
}

proptest! {
    #![proptest_config(cases(400))]
    /// Whatever is wished on whatever fabric: no plan is refused by the state it was made from, every
    /// invariant holds, and two clusters decide alike.
    #[test]
    fn every_wish_is_met_as_asked_or_waits(
        machines in proptest::collection::vec(any::<[u8; 4]>(), 1..14),
        wishes in proptest::collection::vec(any::<[u8; 8]>(), 1..12),
        score in 0usize..SCORES.len(),
        domains in 0usize..3,
        fgd in any::<bool>(),
    ) {
        let domains = [Domains::LowestFit, Domains::NodeThenLevel, Domains::Anywhere][domains];
        let play = || {
            let device = if fgd { DeviceChoice::FgdBest } else { DeviceChoice::Links };
            let policy = Policy { score: SCORES[score], domains, device, ..Policy::default() };
            let mut cluster = random_cluster(policy, &machines);
            cluster.seen.lenient = true;
            for (at, seed) in wishes.iter().enumerate() {
                cluster.submit_at(1 + at as u64 / 3, random_wish(*seed));
            }
            cluster.run();
            cluster
        };
        let (one, other) = (play(), play());
        prop_assert_eq!(&one.seen.starts, &other.seen.starts);
        // What is left waits because this cluster can never hold it.
        for job in one.player.state.jobs().values() {
            let fits = fits_ever(&one.player.state, one.player.state.scheduling(job));
            prop_assert!(fits.is_err(), "{:?} waits on an empty cluster", one.player.state.scheduling(job).groups);
        }
    }
}

const SCORES: [Score; 8] = [
    Score::BestFit,
    Score::Spread,
    Score::Pack,
    Score::LeastLeft,
    Score::Clustering,
    Score::Fgd,
    Score::TopologyCost,
    Score::Random { seed: 7 },
];
