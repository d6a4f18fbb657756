//! How much of a node's free devices the typical workload could not use (Weng et al., "Beware of
//! Fragmentation", ATC'23, with the semantics of its published simulator).

use super::feasible::{amount_on, device_allowed, labels_match};
use super::ledger::NodeView;
use crate::policy::TypicalShape;
use crate::state::State;
use muster_common::job::{Count, GroupRequest};
use muster_common::resources::{Amount, Share};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Shapes are taken, the most frequent first, until they cover this part of the workload.
const COVER: f64 = 0.95;
const SHAPES_MAX: usize = 64;
/// No shape counts for more, so that sums over a node of thousands of devices stay whole numbers.
const COUNT_MAX: u64 = 1 << 32;

/// What a part on one node typically asks for, and how often.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Workload {
    /// By share.
    shapes: Vec<Shape>,
    /// How often all of them come.
    covered: u64,
}

#[derive(Debug, Clone, PartialEq)]
struct Shape {
    typical: Typical,
    count: u64,
    /// Any devices of any node will do, with so much CPU and memory beside them.
    plain: Option<Amount>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Typical {
    group: GroupRequest,
    devices: u32,
}

/// Devices of which the free shares are sorted without asking for memory.
const FEW: usize = 16;

impl Workload {
    /// The policy's, or that of the jobs in State.
    pub fn of(state: &State) -> Self {
        let declared = &state.policy().workload;
        let mut counts: BTreeMap<Typical, u64> = BTreeMap::new();
        if declared.is_empty() {
            for interned in state.schedulings.values() {
                let gangs = interned.count.saturating_mul(u64::from(interned.scheduling.gangs()));
                for group in &interned.scheduling.groups {
                    let (typical, parts) = typical(group);
                    let count = counts.entry(typical).or_default();
                    *count = count.saturating_add(gangs.saturating_mul(parts));
                }
            }
        } else {
            for shape in declared {
                *counts.entry(declared_shape(shape)).or_default() += u64::from(shape.weight);
            }
        }
        Self::covering(counts)
    }

    fn covering(counts: BTreeMap<Typical, u64>) -> Self {
        let all: f64 = counts.values().map(|&count| count as f64).sum();
        let mut by_count: Vec<(Typical, u64)> = counts.into_iter().collect();
        by_count.sort_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
        let mut workload = Self::default();
        for (typical, count) in by_count.into_iter().take(SHAPES_MAX) {
            if workload.covered as f64 >= COVER * all {
                break;
            }
            let count = count.min(COUNT_MAX);
            workload.covered += count;
            workload.shapes.push(Shape { plain: typical.plain(), typical, count });
        }
        workload.shapes.sort_by_key(|shape| shape.typical.milli());
        workload
    }

    /// How often the shapes come, all together: what [`Self::fragment`] is to be divided by.
    pub fn covered(&self) -> u64 {
        self.covered
    }

    /// Free thousandths of the node that the typical part cannot use, summed over as many parts as are
    /// covered. Whole numbers, so that equal nodes are equal to the last digit.
    pub fn fragment(&self, view: &NodeView, free: &[u16], amount: Amount) -> u64 {
        let (mut few, mut many) = ([0u16; FEW], Vec::new());
        let sorted = if free.len() <= FEW {
            &mut few[..free.len()]
        } else {
            many.resize(free.len(), 0u16);
            &mut many[..]
        };
        sorted.copy_from_slice(free);
        sorted.sort_unstable();
        let all: u64 = sorted.iter().map(|&milli| u64::from(milli)).sum();
        // Shapes come by share, so what is too small for one is too small for the next.
        let (mut at, mut small, mut sum) = (0, 0u64, 0u64);
        for shape in &self.shapes {
            while let Some(&milli) = sorted.get(at).filter(|milli| **milli < shape.typical.milli()) {
                (at, small) = (at + 1, small + u64::from(milli));
            }
            let devices = shape.typical.devices as usize;
            let fits = match shape.plain {
                Some(wants) if !view.facts.varied => {
                    devices > 0 && sorted.len() - at >= devices && amount.covers(&wants)
                }
                _ => self.fits(&shape.typical, view, free, amount),
            };
            sum += shape.count * if fits { small } else { all };
        }
        sum
    }

    /// A shape without devices uses none, so all of them are lost on it.
    fn fits(&self, typical: &Typical, view: &NodeView, free: &[u16], amount: Amount) -> bool {
        let inventory = &view.facts.inventory;
        let usable =
            |slot: usize| free[slot] >= typical.milli() && device_allowed(&typical.group, &inventory.devices[slot]);
        typical.devices > 0
            && labels_match(&typical.group, inventory)
            && amount.covers(&amount_on(&typical.group, inventory, typical.devices))
            && (0..free.len()).filter(|&slot| usable(slot)).count() >= typical.devices as usize
    }
}

impl Typical {
    fn milli(&self) -> u16 {
        self.group.share.0.min(1000)
    }

    fn plain(&self) -> Option<Amount> {
        let group = &self.group;
        let any = group.models.is_empty() && group.labels.is_empty() && !group.exclusive;
        let cpu_milli = group.cpu_milli_per_node.filter(|_| any)?;
        Some(Amount { cpu_milli, memory_bytes: group.memory_bytes_per_node.unwrap_or(0) })
    }
}

/// What matters of a group on one node, and how many such parts it has.
fn typical(group: &GroupRequest) -> (Typical, u64) {
    let (devices, parts) = match &group.count {
        Count::Nodes { nodes, per_node } => (*per_node, u64::from(*nodes)),
        Count::Total(total) => (total.per_node_min.max(1).min(total.devices), u64::from(total.devices)),
    };
    let plain = GroupRequest {
        models: group.models.clone(),
        share: group.share,
        cpu_milli_per_node: group.cpu_milli_per_node,
        memory_bytes_per_node: group.memory_bytes_per_node,
        labels: group.labels.clone(),
        ranks: group.ranks,
        ..GroupRequest::of(Count::Nodes { nodes: 1, per_node: devices })
    };
    (Typical { group: plain, devices }, parts)
}

fn declared_shape(shape: &TypicalShape) -> Typical {
    let group = GroupRequest {
        models: shape.models.clone(),
        share: Share(shape.share_milli),
        cpu_milli_per_node: shape.cpu_milli,
        memory_bytes_per_node: Some(shape.memory_bytes).filter(|bytes| *bytes > 0),
        ..GroupRequest::of(Count::Nodes { nodes: 1, per_node: shape.gpus })
    };
    Typical { group, devices: shape.gpus }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixtures::{inventory_with_links, view_of};
    use muster_common::node::Link;

    fn shape(gpus: u32, share_milli: u16, weight: u32) -> TypicalShape {
        TypicalShape { gpus, share_milli, cpu_milli: Some(1000), memory_bytes: 0, models: Vec::new(), weight }
    }

    #[test]
    fn a_fragment_is_what_the_typical_part_cannot_use() {
        let mut state = State::new("test");
        std::sync::Arc::make_mut(&mut state.policy).workload =
            vec![shape(1, 1000, 50), shape(1, 500, 30), shape(0, 1000, 20)];
        let workload = Workload::of(&state);
        let link = |a, b| if a == b { Link::Same } else { Link::Sys };
        let view = view_of(inventory_with_links((0..2).map(|a| (0..2).map(|b| link(a, b)).collect()).collect()));
        let fragment = |free: &[u16], cpu_milli| workload.fragment(&view, free, Amount { cpu_milli, memory_bytes: 0 });
        assert_eq!(workload.covered(), 100);
        // 50 times 400 are lost on a whole device, 30 times 400 on a half, else all of it.
        assert_eq!(fragment(&[1000, 400], 8000), 50 * 400 + 30 * 400 + 20 * 1400);
        assert_eq!(fragment(&[600, 600], 8000), 50 * 1200 + 20 * 1200);
        assert_eq!(fragment(&[1000, 400], 0), 100 * 1400, "without CPU nothing can be used");
        assert_eq!(fragment(&[0, 0], 8000), 0);
    }

    #[test]
    fn rare_shapes_are_left_out() {
        let mut state = State::new("test");
        std::sync::Arc::make_mut(&mut state.policy).workload =
            (1..=64).map(|gpus| shape(gpus, 1000, if gpus == 1 { 1960 } else { 1 })).collect();
        assert_eq!(Workload::of(&state).shapes.len(), 1, "one covers more than 95 % and has all the weight");
        assert_eq!(Workload::of(&state).covered(), 1960);
        assert_eq!(Workload::of(&State::new("empty")), Workload::default());
    }
}
