//! Which devices inside a node: the set with the best links, leaving the best for those who come
//! later; or simply the lowest slots.

use super::ledger::NodeView;
use crate::policy::DeviceChoice;
use muster_common::node::Inventory;

/// Above this many candidates sets are grown greedily instead of enumerated.
const EXACT_MAX: usize = 16;

/// `count` of the `candidates` (slots in ascending order), in slot order.
pub fn choose(view: &NodeView, candidates: &[u16], count: usize, choice: DeviceChoice, steps: &mut u64) -> Vec<u16> {
    *steps += 1;
    if choice == DeviceChoice::FirstFit || count >= candidates.len() || count == 0 || view.facts.even_links {
        return candidates.iter().take(count).copied().collect();
    }
    let inventory = &view.facts.inventory;
    if candidates.len() <= EXACT_MAX {
        return best_set(inventory, candidates, count, steps);
    }
    grown_set(inventory, candidates, count)
}

fn quality(inventory: &Inventory, a: u16, b: u16) -> u32 {
    inventory.links.get(usize::from(a)).and_then(|row| row.get(usize::from(b))).map_or(0, |link| link.quality())
}

/// What a set is judged by, the better the larger: the sum over its pairs, its worst pair, and the
/// sum over the pairs that stay free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Merit {
    sum: u32,
    worst: u32,
    left: u32,
}

fn best_set(inventory: &Inventory, candidates: &[u16], count: usize, steps: &mut u64) -> Vec<u16> {
    let n = candidates.len();
    let table: Vec<Vec<u32>> =
        candidates.iter().map(|&a| candidates.iter().map(|&b| quality(inventory, a, b)).collect()).collect();
    let mut best: Option<(Merit, u32)> = None;
    // Sets of `count` bits in ascending order of their number (Gosper's step).
    let mut set: u32 = (1 << count) - 1;
    while set < 1 << n {
        *steps += 1;
        let merit = merit(&table, set);
        let better = best.is_none_or(|(known, at)| merit > known || (merit == known && lower_slots(set, at)));
        if better {
            best = Some((merit, set));
        }
        let lowest = set & set.wrapping_neg();
        let ripple = set + lowest;
        set = (((ripple ^ set) >> 2) / lowest) | ripple;
    }
    let (_, set) = best.expect("there is at least one set");
    (0..n).filter(|bit| set >> bit & 1 == 1).map(|bit| candidates[bit]).collect()
}

fn merit(table: &[Vec<u32>], set: u32) -> Merit {
    let mut merit = Merit { sum: 0, worst: u32::MAX, left: 0 };
    for (a, row) in table.iter().enumerate() {
        for (b, quality) in row.iter().enumerate().skip(a + 1) {
            match (set >> a & 1, set >> b & 1) {
                (1, 1) => {
                    merit.sum += quality;
                    merit.worst = merit.worst.min(*quality);
                }
                (0, 0) => merit.left += quality,
                _ => {}
            }
        }
    }
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
                let link = [Link::NvLink(18), Link::Pix, Link::Node, Link::Sys][usize::from(*seed)];
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
