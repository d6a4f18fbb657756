//! Placements against the best there is, found by trying every set of nodes of small fabrics.
//!
//! What is compared is the size of the tree of switches that joins a gang's nodes (the domains it touches, at
//! every level below the narrowest one that holds it all): what its traffic crosses. Then, what is left over
//! on the nodes it breaks into.

use crate::plan_support;

use muster_common::NodeId;
use muster_common::job::{GroupRequest, Scheduling};
use muster_common::topology::TopologyMode::{Preferred, Required};
use muster_common::topology::{SegmentRequest, SpreadRequest, TopologyRequest};
use muster_engine::policy::Policy;
use plan_support::*;
use std::collections::{BTreeMap, BTreeSet};

/// Never more switches than this many times the fewest.
const BOUND: f64 = 1.5;
/// Equal in so many of a hundred cases.
const EQUAL_PERCENT: f64 = 95.0;
const CASES: u64 = 1_500;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n) as usize
    }
}

#[derive(Debug, Clone)]
struct Machine {
    id: NodeId,
    path: Vec<String>,
    devices: u32,
}

/// Switches of the tree that joins the nodes, then devices left over.
type Cost = (usize, u32);

fn domains(machines: &[&Machine], depth: usize) -> usize {
    machines.iter().map(|machine| &machine.path[..depth]).collect::<BTreeSet<_>>().len()
}

fn switches(machines: &[&Machine]) -> usize {
    (1..=machines[0].path.len()).map(|depth| domains(machines, depth)).filter(|&domains| domains > 1).sum::<usize>() + 1
}

fn per_domain(machines: &[&Machine], depth: usize) -> Vec<u32> {
    let mut counts: BTreeMap<&[String], u32> = BTreeMap::new();
    machines.iter().for_each(|machine| *counts.entry(&machine.path[..depth]).or_default() += 1);
    counts.into_values().collect()
}

fn depth_of(level: &str) -> usize {
    ["pod", "block", "leaf"].iter().position(|known| *known == level).unwrap() + 1
}

/// Is a set of nodes what the group asks for?
fn allowed(group: &GroupRequest, machines: &[&Machine]) -> bool {
    let required = group.topology.iter().filter(|wish| wish.mode == Required);
    let topology = |wish: &TopologyRequest| domains(machines, depth_of(wish.level.as_str())) <= wish.at_most as usize;
    let segments = group.segment.as_ref().is_none_or(|segment| {
        let whole = |&count: &u32| if segment.apart { count == segment.nodes } else { count % segment.nodes == 0 };
        per_domain(machines, depth_of(segment.level.as_str())).iter().all(whole)
    });
    let spread = group.spread.as_ref().is_none_or(|spread| {
        per_domain(machines, depth_of(spread.level.as_str())).iter().all(|&count| count <= spread.nodes)
    });
    required.clone().all(topology) && segments && spread
}

fn shape(group: &GroupRequest) -> (usize, u32) {
    match group.count {
        muster_common::job::Count::Nodes { nodes, per_node } => (nodes as usize, per_node),
        muster_common::job::Count::Total(_) => unreachable!("only numbers of nodes are drawn"),
    }
}

/// Every set of nodes of one group, apart from those that are taken.
fn sets<'m>(group: &GroupRequest, machines: &'m [Machine], taken: u32) -> Vec<(u32, Vec<&'m Machine>)> {
    let (nodes, per_node) = shape(group);
    let fits = |set: &u32| set.count_ones() as usize == nodes && set & taken == 0;
    let chosen = |set: u32| -> Vec<&Machine> {
        (0..machines.len()).filter(|at| set >> at & 1 == 1).map(|at| &machines[at]).collect()
    };
    let all = (0u32..1 << machines.len()).filter(fits).map(|set| (set, chosen(set)));
    all.filter(|(_, of)| of.iter().all(|machine| machine.devices >= per_node) && allowed(group, of)).collect()
}

fn cost(of: &[&Machine], job: &Scheduling) -> Cost {
    let devices: u32 = of.iter().map(|machine| machine.devices).sum();
    (switches(of), devices - job.devices() as u32)
}

/// The best placement of all groups; `None` when there is none.
fn best(job: &Scheduling, machines: &[Machine]) -> Option<Cost> {
    let mut all: Vec<(u32, Vec<&Machine>)> = vec![(0, Vec::new())];
    for group in &job.groups {
        let mut more = Vec::new();
        for (taken, before) in all {
            for (set, of) in sets(group, machines, taken) {
                more.push((taken | set, before.iter().copied().chain(of).collect()));
            }
        }
        all = more;
    }
    let together = |of: &Vec<&Machine>| job.together.iter().all(|wish| domains(of, depth_of(wish.level.as_str())) == 1);
    all.into_iter().filter(|(_, of)| together(of)).map(|(_, of)| cost(&of, job)).min()
}

fn draw_fabric(dice: &mut Dice, cluster: &mut Cluster) -> Vec<Machine> {
    cluster.fabric(&["pod", "block", "leaf"]);
    let count = 3 + dice.below(8);
    (0..count)
        .map(|at| {
            let path =
                vec![format!("p{}", dice.below(2)), format!("b{}", dice.below(2)), format!("l{}", dice.below(3))];
            let devices = 1 + dice.below(8) as u32;
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            let id = cluster.node(&format!("n{at:02}"), inventory("H100", devices as usize, &names));
            Machine { id, path, devices }
        })
        .collect()
}

fn draw_job(dice: &mut Dice) -> Scheduling {
    let level = |dice: &mut Dice| name(["pod", "block", "leaf"][dice.below(3)]);
    let mut wish = job(nodes(1 + dice.below(5) as u32, 1 + dice.below(8) as u32));
    let per_node = shape(&wish.groups[0]).1;
    let group = &mut wish.groups[0];
    match dice.below(8) {
        0 => {
            let at_most = 1 + dice.below(2) as u32;
            group.topology.push(TopologyRequest { level: level(dice), mode: Required, at_most });
        }
        1 => group.topology.push(TopologyRequest { level: level(dice), mode: Preferred, at_most: 1 }),
        2 => {
            let size = 1 + dice.below(2) as u32;
            group.count = nodes(size * (1 + dice.below(3) as u32), per_node);
            group.segment = Some(SegmentRequest { level: level(dice), nodes: size, apart: dice.below(3) == 0 });
        }
        3 => group.spread = Some(SpreadRequest { level: level(dice), nodes: 1 + dice.below(2) as u32 }),
        4 => {
            group.count = nodes(1 + dice.below(3) as u32, per_node);
            let count = nodes(1 + dice.below(2) as u32, 1 + dice.below(8) as u32);
            wish.groups.push(GroupRequest { name: name("second"), ..GroupRequest::of(count) });
            if dice.below(2) == 0 {
                wish.together.push(TopologyRequest { level: level(dice), mode: Required, at_most: 1 });
            }
        }
        _ => {}
    }
    wish
}

#[test]
fn a_placement_is_the_best_there_is_or_nearly_so() {
    let (mut placed, mut equal, mut tight, mut worst) = (0u32, 0u32, 0u32, 1.0f64);
    for seed in 0..CASES {
        let mut dice = Dice(seed);
        let mut cluster = Cluster::new(Policy::default());
        let machines = draw_fabric(&mut dice, &mut cluster);
        let wish = draw_job(&mut dice);
        let optimum = best(&wish, &machines);
        let gang = cluster.submit(wish.clone());
        cluster.decide();
        let held = cluster.held(gang);
        let Some(optimum) = optimum else {
            assert_eq!(held, [], "seed {seed}: placed where nothing fits");
            continue;
        };
        assert!(!held.is_empty(), "seed {seed}: {wish:?} fits {machines:?} and waits");
        let of: Vec<&Machine> =
            held.iter().map(|(id, _)| machines.iter().find(|machine| machine.id == *id).unwrap()).collect();
        let ours = cost(&of, &wish);
        let ratio = ours.0 as f64 / optimum.0 as f64;
        assert!(ratio <= BOUND, "seed {seed}: {ours:?} instead of {optimum:?}: {of:?} for {wish:?} on {machines:?}");
        placed += 1;
        equal += u32::from(ours.0 == optimum.0);
        tight += u32::from(ours == optimum);
        worst = worst.max(ratio);
    }
    let percent = |part: u32| 100.0 * f64::from(part) / f64::from(placed);
    println!(
        "{placed} placements: as few switches as possible in {:.2} %, and as little left over too in {:.2} %; at worst {worst:.2} times as many switches",
        percent(equal),
        percent(tight)
    );
    assert!(placed > CASES as u32 / 3, "too few cases fit to say anything: {placed}");
    assert!(percent(equal) >= EQUAL_PERCENT, "{:.2} %", percent(equal));
}
