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

/// What a part on one node typically asks for, with probabilities that sum to 1.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Workload {
    shapes: Vec<(Typical, f64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Typical {
    group: GroupRequest,
    devices: u32,
}

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
        let mut covered = 0.0;
        let mut shapes = Vec::new();
        for (typical, count) in by_count.into_iter().take(SHAPES_MAX) {
            if covered >= COVER * all {
                break;
            }
            covered += count as f64;
            shapes.push((typical, count as f64));
        }
        shapes.iter_mut().for_each(|(_, weight)| *weight /= covered);
        Self { shapes }
    }

    /// Free thousandths of the node that the typical part cannot use, on average.
    pub fn fragment(&self, view: &NodeView, free: &[u16], amount: Amount) -> f64 {
        let all: f64 = free.iter().map(|&milli| f64::from(milli)).sum();
        let lost = |typical: &Typical| match self.fits(typical, view, free, amount) {
            false => all,
            true => free.iter().filter(|&&milli| milli < typical.milli()).map(|&milli| f64::from(milli)).sum(),
        };
        self.shapes.iter().map(|(typical, weight)| weight * lost(typical)).sum()
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
        // Half the time 400 are lost on a whole device, three in ten times 400 on a half, else all of it.
        assert!((fragment(&[1000, 400], 8000) - (0.5 * 400.0 + 0.3 * 400.0 + 0.2 * 1400.0)).abs() < 1e-9);
        assert!((fragment(&[600, 600], 8000) - (0.5 * 1200.0 + 0.2 * 1200.0)).abs() < 1e-9);
        assert_eq!(fragment(&[1000, 400], 0), 1400.0, "without CPU nothing can be used");
        assert_eq!(fragment(&[0, 0], 8000), 0.0);
    }

    #[test]
    fn rare_shapes_are_left_out() {
        let mut state = State::new("test");
        std::sync::Arc::make_mut(&mut state.policy).workload =
            (1..=64).map(|gpus| shape(gpus, 1000, if gpus == 1 { 1960 } else { 1 })).collect();
        assert_eq!(Workload::of(&state).shapes.len(), 1, "one covers more than 95 % and has all the weight");
        assert_eq!(Workload::of(&state).shapes[0].1, 1.0);
        assert_eq!(Workload::of(&State::new("empty")), Workload::default());
    }
}
