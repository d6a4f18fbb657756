//! Machines that answer every question about what they are alike, and how many nodes are of each such class.

use super::ledger::ClassId;
use muster_common::node::{Device, Inventory};
use std::sync::Arc;

#[derive(Debug, Clone, Default)]
pub struct Classes {
    /// By class. One without nodes keeps its place.
    inventories: Vec<Arc<Inventory>>,
    sorts: Vec<Vec<Sort>>,
    nodes: Vec<usize>,
    largest: Largest,
}

/// Devices of one model, whole ones or instances.
#[derive(Debug, Clone)]
struct Sort {
    /// Of one of them.
    slot: usize,
    /// Those that are not split into instances.
    usable: u32,
}

/// The most that any machine of the cluster has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Largest {
    pub cpu_milli: u64,
    /// Apart from those that are split into instances.
    pub devices: u32,
}

impl Classes {
    pub fn inventories(&self) -> &[Arc<Inventory>] {
        &self.inventories
    }

    pub fn class_of(&mut self, inventory: &Arc<Inventory>) -> ClassId {
        if let Some(class) = self.inventories.iter().position(|known| same_class(known, inventory)) {
            return class;
        }
        self.sorts.push(sorts_of(inventory));
        self.inventories.push(inventory.clone());
        self.nodes.push(0);
        self.nodes.len() - 1
    }

    /// A node of the class is there now.
    pub fn join(&mut self, class: ClassId) {
        self.nodes[class] += 1;
        if self.nodes[class] == 1 {
            self.largest = self.largest.or(self.size_of(class));
        }
    }

    /// A node of the class is gone. Classes that nobody is of any more must not count: a fresh ledger lacks them.
    pub fn leave(&mut self, class: ClassId) {
        self.nodes[class] -= 1;
        if self.nodes[class] == 0 {
            let there = (0..self.nodes.len()).filter(|&class| self.nodes[class] > 0);
            self.largest = there.fold(Largest::default(), |largest, class| largest.or(self.size_of(class)));
        }
    }

    pub fn largest(&self) -> Largest {
        self.largest
    }

    /// One device of each sort that machines of a class have.
    pub fn sorts(&self, class: ClassId) -> impl Iterator<Item = &Device> {
        self.sorts[class].iter().map(move |sort| &self.inventories[class].devices[sort.slot])
    }

    /// Usable devices of the wanted sorts that a machine of the class has, if there is one.
    pub fn usable(&self, class: ClassId, wants: impl Fn(&Device) -> bool) -> u32 {
        if self.nodes[class] == 0 {
            return 0;
        }
        let wanted = self.sorts[class].iter().filter(|sort| wants(&self.inventories[class].devices[sort.slot]));
        wanted.map(|sort| sort.usable).sum()
    }

    fn size_of(&self, class: ClassId) -> Largest {
        let devices = self.sorts[class].iter().map(|sort| sort.usable).sum();
        Largest { cpu_milli: self.inventories[class].cpu_milli, devices }
    }
}

impl Largest {
    fn or(self, other: Self) -> Self {
        Self { cpu_milli: self.cpu_milli.max(other.cpu_milli), devices: self.devices.max(other.devices) }
    }
}

fn sorts_of(inventory: &Inventory) -> Vec<Sort> {
    let devices = &inventory.devices;
    let same = |a: &Device, b: &Device| a.model == b.model && a.parent.is_some() == b.parent.is_some();
    let is_new = |slot: &usize| !devices[..*slot].iter().any(|other| same(other, &devices[*slot]));
    let usable = |slot: usize| inventory.usable().filter(|(_, device)| same(device, &devices[slot])).count() as u32;
    (0..devices.len()).filter(is_new).map(|slot| Sort { slot, usable: usable(slot) }).collect()
}

/// Nodes of one class answer every question about what they are alike.
pub fn same_class(a: &Inventory, b: &Inventory) -> bool {
    a.cpu_milli == b.cpu_milli
        && a.memory_bytes == b.memory_bytes
        && a.labels == b.labels
        && a.devices.len() == b.devices.len()
        && a.devices.iter().zip(&b.devices).all(|(a, b)| a.model == b.model && a.parent == b.parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixtures::inventory_with_links;

    #[test]
    fn who_is_gone_is_not_the_largest() {
        let machine = |devices: usize| Arc::new(inventory_with_links(vec![Vec::new(); devices]));
        let mut classes = Classes::default();
        let (small, large) = (classes.class_of(&machine(8)), classes.class_of(&machine(16)));
        [small, large, large].into_iter().for_each(|class| classes.join(class));
        classes.leave(large);
        assert_eq!((classes.largest().devices, classes.usable(large, |_| true)), (16, 16));
        classes.leave(large);
        assert_eq!((classes.largest().devices, classes.usable(large, |_| true)), (8, 0));
        classes.join(large);
        assert_eq!(classes.largest().devices, 16);
    }
}
