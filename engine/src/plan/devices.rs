//! Which devices inside a node: the set with the best links, leaving the best for those who come
//! later; or simply the lowest slots.

use super::ledger::NodeView;
use crate::policy::DeviceChoice;
use muster_common::node::Inventory;

/// Above this many candidates sets are grown greedily instead of enumerated.
const EXACT_MAX: usize = 16;

/// `count` of the `candidates` (slots in ascending order), in slot order. On a machine that is cut into
/// islands they are of one island.
pub fn choose(view: &NodeView, candidates: &[u16], count: usize, choice: DeviceChoice, steps: &mut u64) -> Vec<u16> {
    *steps += 1;
    let facts = &view.facts;
    let whole = facts.islands.cut.is_empty();
    if count == 0 || whole && (choice == DeviceChoice::FirstFit || count >= candidates.len() || facts.even_links) {
        return candidates.iter().take(count).copied().collect();
    }
    if candidates.len() <= EXACT_MAX {
        return best_set(&Table::of(view, candidates), candidates, count, steps);
    }
    let on = |island: &Vec<u16>| candidates.iter().copied().filter(|slot| island.contains(slot)).collect::<Vec<u16>>();
    let enough = facts.islands.cut.iter().map(on).filter(|slots| slots.len() >= count);
    let candidates = enough.min_by_key(Vec::len).unwrap_or_else(|| candidates.to_vec());
    grown_set(&facts.inventory, &candidates, count)
}

fn quality(inventory: &Inventory, a: u16, b: u16) -> u32 {
    inventory.links.get(usize::from(a)).and_then(|row| row.get(usize::from(b))).map_or(0, |link| link.quality())
}

/// What a set is judged by, the better the larger: the sum over its pairs, its worst pair, its pairs on
/// one NUMA node, its different nearest NICs; then the same of the pairs that stay free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Merit {
    sum: u32,
    worst: u32,
    near: u32,
    nics: u32,
    left: u32,
    left_near: u32,
}

/// What is to be known of the candidates, by their place in the list.
struct Table {
    quality: Vec<Vec<u32>>,
    near: Vec<Vec<bool>>,
    /// Nearest NICs as bits, by the order in which they were first named.
    nics: Vec<u64>,
    /// Sets that may be chosen from, as bits; empty = any.
    islands: Vec<u32>,
}

impl Table {
    fn of(view: &NodeView, candidates: &[u16]) -> Self {
        let inventory = &view.facts.inventory;
        let numa = |slot: u16| inventory.devices[usize::from(slot)].numa;
        let mut names: Vec<&String> = Vec::new();
        let mut nics = Vec::new();
        for &slot in candidates {
            let mut bits = 0u64;
            for nic in &inventory.devices[usize::from(slot)].nearest_nics {
                let at = names.iter().position(|known| *known == nic).unwrap_or_else(|| {
                    names.push(nic);
                    names.len() - 1
                });
                bits |= 1 << at.min(63);
            }
            nics.push(bits);
        }
        let bits = |island: &Vec<u16>| -> u32 {
            candidates.iter().enumerate().filter(|(_, slot)| island.contains(slot)).map(|(at, _)| 1 << at).sum()
        };
        let islands: Vec<u32> = view.facts.islands.cut.iter().map(bits).collect();
        let all = if candidates.len() >= 32 { u32::MAX } else { (1 << candidates.len()) - 1 };
        let outside = all & !islands.iter().fold(0, |known, island| known | island);
        Self {
            quality: candidates
                .iter()
                .map(|&a| candidates.iter().map(|&b| quality(inventory, a, b)).collect())
                .collect(),
            near: candidates
                .iter()
                .map(|&a| candidates.iter().map(|&b| numa(a).is_some() && numa(a) == numa(b)).collect())
                .collect(),
            nics,
            islands: if islands.is_empty() { islands } else { islands.into_iter().chain([outside]).collect() },
        }
    }

    fn admits(&self, set: u32) -> bool {
        self.islands.is_empty() || self.islands.iter().any(|island| set & !island == 0)
    }
}

/// At least one set must be admitted.
fn best_set(table: &Table, candidates: &[u16], count: usize, steps: &mut u64) -> Vec<u16> {
    let n = candidates.len();
    let mut best: Option<(Merit, u32)> = None;
    // Sets of `count` bits in ascending order of their number (Gosper's step).
    let mut set: u32 = (1 << count) - 1;
    while set < 1 << n {
        *steps += 1;
        if table.admits(set) {
            let merit = merit(table, set);
            let better = best.is_none_or(|(known, at)| merit > known || (merit == known && lower_slots(set, at)));
            if better {
                best = Some((merit, set));
            }
        }
        let lowest = set & set.wrapping_neg();
        let ripple = set + lowest;
        set = (((ripple ^ set) >> 2) / lowest) | ripple;
    }
    let (_, set) = best.expect("an island holds them");
    (0..n).filter(|bit| set >> bit & 1 == 1).map(|bit| candidates[bit]).collect()
}

fn merit(table: &Table, set: u32) -> Merit {
    let mut merit = Merit { sum: 0, worst: u32::MAX, near: 0, nics: 0, left: 0, left_near: 0 };
    let mut nics = 0u64;
    for (a, row) in table.quality.iter().enumerate() {
        nics |= if set >> a & 1 == 1 { table.nics[a] } else { 0 };
        for (b, quality) in row.iter().enumerate().skip(a + 1) {
            let near = u32::from(table.near[a][b]);
            match (set >> a & 1, set >> b & 1) {
                (1, 1) => {
                    merit.sum += quality;
                    merit.worst = merit.worst.min(*quality);
                    merit.near += near;
                }
                (0, 0) => {
                    merit.left += quality;
                    merit.left_near += near;
                }
                _ => {}
            }
        }
    }
    merit.nics = nics.count_ones();
    merit
}

/// Of two different sets of equal size, the one with the lowest slot that only one of them has.
fn lower_slots(a: u32, b: u32) -> bool {
    let different = a ^ b;
    a & (different & different.wrapping_neg()) != 0
}

/// Starts with the best pair (or the lowest slot) and adds what joins the set best.
fn grown_set(inventory: &Inventory, candidates: &[u16], count: usize) -> Vec<u16> {
    let mut best_pair = (0, candidates[0], candidates[0]);
    for (at, &a) in candidates.iter().enumerate() {
        for &b in &candidates[at + 1..] {
            if quality(inventory, a, b) > best_pair.0 {
                best_pair = (quality(inventory, a, b), a, b);
            }
        }
    }
    let mut set = vec![best_pair.1];
    while set.len() < count {
        let joined = |slot: u16| set.iter().map(|&other| quality(inventory, slot, other)).sum::<u32>();
        let rest = candidates.iter().filter(|slot| !set.contains(slot));
        let next = rest.copied().max_by_key(|&slot| (joined(slot), std::cmp::Reverse(slot)));
        set.push(next.expect("fewer are wanted than there are"));
    }
    set.sort_unstable();
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixtures::{inventory_with_links, view_of};
    use muster_common::node::Link;
    use proptest::prelude::*;

    fn pick(links: Vec<Vec<Link>>, free: &[u16], count: usize) -> Vec<u16> {
        choose(&view_of(inventory_with_links(links)), free, count, DeviceChoice::Links, &mut 0)
    }

    /// Two NVLink bridges (0-3, 1-2) in a box where everything else crosses sockets.
    fn bridged() -> Vec<Vec<Link>> {
        let link = |a: u16, b: u16| match (a.min(b), a.max(b)) {
            _ if a == b => Link::Same,
            (0, 3) | (1, 2) => Link::NvLink(12),
            (0, 1) => Link::Pix,
            _ => Link::Sys,
        };
        (0..4).map(|a| (0..4).map(|b| link(a, b)).collect()).collect()
    }

    #[test]
    fn a_pair_takes_a_bridge_and_leaves_a_bridge() {
        assert_eq!(pick(bridged(), &[0, 1, 2, 3], 2), [0, 3]);
        assert_eq!(pick(bridged(), &[0, 1, 2], 2), [1, 2]);
    }

    #[test]
    fn one_device_is_taken_where_it_breaks_no_bridge() {
        assert_eq!(pick(bridged(), &[0, 1, 2], 1), [0]);
        assert_eq!(pick(bridged(), &[0, 2, 3], 1), [2]);
    }

    /// Two sockets of four devices, everything joined alike.
    fn two_sockets() -> NodeView {
        let link = |a, b| if a == b { Link::Same } else { Link::NvLink(18) };
        let mut machine = inventory_with_links((0..8).map(|a| (0..8).map(|b| link(a, b)).collect()).collect());
        for (slot, device) in machine.devices.iter_mut().enumerate() {
            device.numa = Some((slot / 4) as u16);
            device.nearest_nics = vec![format!("mlx5_{}", slot / 2)];
        }
        view_of(machine)
    }

    #[test]
    fn devices_of_one_numa_node_are_nearer_than_others() {
        let pick = |free: &[u16], count| choose(&two_sockets(), free, count, DeviceChoice::Links, &mut 0);
        assert_eq!(pick(&[3, 4, 5, 6], 2), [4, 6], "one socket, and a NIC for each");
        assert_eq!(pick(&[0, 1, 2, 3, 4, 5, 6, 7], 4), [0, 1, 2, 3]);
        assert_eq!(pick(&[0, 4, 5, 6, 7], 1), [0], "four on one socket stay together");
    }

    #[test]
    fn a_machine_that_lost_a_link_is_used_as_seven_and_one() {
        let joined = |a: usize, b: usize| a != 2 && b != 2;
        let link = |a, b| {
            if a == b {
                Link::Same
            } else if joined(a, b) {
                Link::NvLink(18)
            } else {
                Link::Sys
            }
        };
        let links: Vec<Vec<Link>> = (0..8).map(|a| (0..8).map(|b| link(a, b)).collect()).collect();
        assert_eq!(pick(links.clone(), &[0, 1, 2, 3, 4, 5, 6, 7], 1), [2]);
        assert_eq!(pick(links.clone(), &[0, 1, 2, 3, 4, 5, 6, 7], 7), [0, 1, 3, 4, 5, 6, 7]);
        assert_eq!(pick(links.clone(), &[0, 2, 3], 2), [0, 3]);
        let first_fit = choose(&view_of(inventory_with_links(links)), &[1, 2, 3], 2, DeviceChoice::FirstFit, &mut 0);
        assert_eq!(first_fit, [1, 3], "no choice spans the gap");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn no_other_set_has_better_links(
            seeds in proptest::collection::vec(0u8..4, 28),
            count in 1usize..8,
        ) {
            let mut links = vec![vec![Link::Same; 8]; 8];
            let pairs = (0..8usize).flat_map(|a| (a + 1..8).map(move |b| (a, b)));
            for ((a, b), seed) in pairs.zip(&seeds) {
                let link = [Link::Pix, Link::Pxb, Link::Node, Link::Sys][usize::from(*seed)];
                links[a][b] = link;
                links[b][a] = link;
            }
            let sum = |set: &[u16]| -> u32 {
                set.iter().flat_map(|&a| set.iter().map(move |&b| (a, b)))
                    .filter(|(a, b)| a < b)
                    .map(|(a, b)| links[usize::from(a)][usize::from(b)].quality()).sum()
            };
            let chosen = pick(links.clone(), &[0, 1, 2, 3, 4, 5, 6, 7], count);
            prop_assert_eq!(chosen.len(), count);
            for set in 0u32..256 {
                if set.count_ones() as usize == count {
                    let slots: Vec<u16> = (0..8).filter(|bit| set >> bit & 1 == 1).collect();
                    prop_assert!(sum(&slots) <= sum(&chosen));
                }
            }
        }
    }
}
