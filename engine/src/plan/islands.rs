//! Which devices of a node reach each other over NVLink, where some of them no longer do.
//!
//! A sound machine is even: one island, or several of one size (bridged pairs, two boards). A B200 that
//! lost its fabric on one GPU is 7 + 1, and is used as what it is: no gang's part spans the gap.

use muster_common::node::{Inventory, Link};
use std::collections::BTreeSet;

/// Whole devices, MIG instances left out, cut along missing links.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Islands {
    /// Slots in ascending order. Empty on a sound machine: then nothing is cut.
    pub cut: Vec<Vec<u16>>,
}

impl Islands {
    /// Do these slots reach each other?
    pub fn holds_in_one(&self, slots: &BTreeSet<u16>) -> bool {
        let touched = self.cut.iter().filter(|island| island.iter().any(|slot| slots.contains(slot)));
        touched.count() <= 1
    }

    /// The most of these slots (in ascending order) that one part may have: all of them on a sound
    /// machine, those of the largest island else.
    pub fn most(&self, slots: &[u16]) -> u32 {
        if self.cut.is_empty() {
            return slots.len() as u32;
        }
        let on = |island: &Vec<u16>| slots.iter().filter(|slot| island.contains(slot)).count();
        let outside = slots.iter().filter(|slot| !self.cut.iter().any(|island| island.contains(slot))).count();
        self.cut.iter().map(on).max().unwrap_or(0).max(outside) as u32
    }
}

/// Islands of a machine, when they are not all of one size.
pub fn of(inventory: &Inventory) -> Islands {
    let devices = &inventory.devices;
    let split: BTreeSet<u16> = devices.iter().filter_map(|device| device.parent).collect();
    let whole: Vec<u16> = (0..devices.len() as u16)
        .filter(|slot| devices[usize::from(*slot)].parent.is_none() && !split.contains(slot))
        .collect();
    let mut islands: Vec<Vec<u16>> = Vec::new();
    let mut left: BTreeSet<u16> = whole.iter().copied().collect();
    while let Some(first) = left.pop_first() {
        let mut island = vec![first];
        let mut at = 0;
        while at < island.len() {
            let joined: Vec<u16> = left.iter().copied().filter(|&slot| nvlink(inventory, island[at], slot)).collect();
            joined.iter().for_each(|slot| _ = left.remove(slot));
            island.extend(joined);
            at += 1;
        }
        island.sort_unstable();
        islands.push(island);
    }
    let uneven = islands.windows(2).any(|pair| pair[0].len() != pair[1].len());
    Islands { cut: if uneven { islands } else { Vec::new() } }
}

fn nvlink(inventory: &Inventory, a: u16, b: u16) -> bool {
    let link = |a: u16, b: u16| inventory.links.get(usize::from(a)).and_then(|row| row.get(usize::from(b)));
    matches!(link(a, b), Some(Link::NvLink(_))) || matches!(link(b, a), Some(Link::NvLink(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixtures::inventory_with_links;

    fn machine(joined: impl Fn(usize, usize) -> bool) -> Inventory {
        let link = |a: usize, b: usize| match (a == b, joined(a, b)) {
            (true, _) => Link::Same,
            (false, true) => Link::NvLink(18),
            (false, false) => Link::Sys,
        };
        inventory_with_links((0..8).map(|a| (0..8).map(|b| link(a, b)).collect()).collect())
    }

    #[test]
    fn even_machines_are_not_cut() {
        assert_eq!(of(&machine(|_, _| true)), Islands::default());
        assert_eq!(of(&machine(|_, _| false)), Islands::default());
        assert_eq!(of(&machine(|a, b| a / 2 == b / 2)), Islands::default(), "bridged pairs are made that way");
    }

    #[test]
    fn a_lost_fabric_is_seven_and_one() {
        let islands = of(&machine(|a, b| a != 2 && b != 2));
        assert_eq!(islands.cut, [vec![0, 1, 3, 4, 5, 6, 7], vec![2]]);
        assert_eq!(islands.most(&[0, 1, 2, 3]), 3);
        assert_eq!(islands.most(&[2]), 1);
        assert!(islands.holds_in_one(&BTreeSet::from([0, 7])) && !islands.holds_in_one(&BTreeSet::from([2, 3])));
    }
}
