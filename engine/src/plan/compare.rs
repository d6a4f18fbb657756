//! Under `topology_cost` several placements are made and the cheapest is taken: time lost to distance, by the
//! communication the job declares, against nodes that are left stranded in domains it breaks into.

use super::fill::Kind;
use super::ledger::{DomainId, NodeView};
use super::scope::{Scope, Wish};
use super::search::{Picked, Search};
use crate::policy::Score;
use muster_common::cost::{Bandwidth, all_reduce_s, slowdown};
use muster_common::node::Link;
use std::collections::{BTreeMap, BTreeSet};

/// Any payload will do: only the ratio of times counts.
const PAYLOAD_BYTES: f64 = 1e9;

impl Search<'_> {
    /// Does the policy weigh placements of this group against each other? What the job itself requires of
    /// its topology is not weighed.
    pub fn compares(&self, wish: &Wish) -> bool {
        self.policy.score == Score::TopologyCost && self.cut.is_none() && !wish.one_node && wish.few.is_none()
    }

    /// The best placement of each level, the narrowest first, the whole scope, and one made of leftovers.
    pub fn cheapest(&self, scope: &Scope, wish: &Wish, steps: &mut u64) -> Option<Picked> {
        let mut made: Vec<Picked> = Vec::new();
        made.extend(self.kind.fits_one_node().then(|| self.one_node(scope, steps)).flatten());
        for level in wish.levels(self.fabric, scope, self.ledger, true) {
            let narrowed = self.narrowed(scope, level.tree, level.depth);
            made.extend(narrowed.iter().find_map(|narrow| self.fill(narrow, steps)));
        }
        made.extend(self.fill(scope, steps));
        made.extend(self.of_leftovers(scope, wish, steps));
        made.retain(|picked| self.is_allowed(picked));
        let best = made.iter().map(|picked| self.longest(picked, 0).0).fold(f64::INFINITY, f64::min);
        let costs: Vec<u64> = made.iter().map(|picked| ordered(self.cost(picked, best))).collect();
        let at = (0..made.len()).min_by_key(|&at| (costs[at], at))?;
        Some(made.swap_remove(at))
    }

    /// From the domains of the narrowest level that have the least to give, all of it.
    fn of_leftovers(&self, scope: &Scope, wish: &Wish, steps: &mut u64) -> Option<Picked> {
        if matches!(self.kind, Kind::Total(_)) {
            return None;
        }
        let level = wish.levels(self.fabric, scope, self.ledger, true).into_iter().next()?;
        let domains = self.ledger.domains_at(level.tree, level.depth);
        let mut left: Vec<(u64, DomainId)> = domains
            .filter(|&domain| scope.admits(self.ledger, domain))
            .map(|domain| (self.bound(domain), domain))
            .filter(|(bound, _)| *bound > 0)
            .collect();
        left.sort_by(|a, b| (a.0, self.path(a.1)).cmp(&(b.0, self.path(b.1))));
        let mut picked = Picked::new();
        for (_, domain) in left {
            let wanted = self.kind.need() as usize - picked.len();
            picked.extend(self.candidates(&scope.narrow(self.ledger, domain), wanted, steps));
            if picked.len() as u64 == self.kind.need() {
                return Some(picked);
            }
        }
        None
    }

    /// In nodes: those lost to slowness while it runs, and those stranded.
    fn cost(&self, picked: &Picked, best: f64) -> f64 {
        let belief = &self.policy.cost;
        let percent = self.group.communication_percent.map_or(belief.communication_percent, u32::from);
        let (time, nodes) = self.longest(picked, self.crossed(picked));
        let ratio = if best > 0.0 { time / best } else { 1.0 };
        let slower = (slowdown(f64::from(percent) / 100.0, ratio) - 1.0) * nodes;
        slower + f64::from(belief.stranded_percent) / 100.0 * self.stranded(picked)
    }

    /// Seconds of an all-reduce on the slowest of the nodes, and their number. `percent` of the network is lost.
    fn longest(&self, picked: &Picked, lost_percent: u32) -> (f64, f64) {
        let nodes = picked.len() as u32;
        let seconds = |&(id, devices): &(muster_common::NodeId, u32)| {
            let view = self.view(id);
            let bandwidth = self.bandwidth(view);
            let between = bandwidth.between * f64::from(100 - lost_percent.min(99)) / 100.0;
            all_reduce_s(PAYLOAD_BYTES, nodes, devices, Bandwidth { between, ..bandwidth })
        };
        (picked.iter().map(seconds).fold(0.0, f64::max), f64::from(nodes))
    }

    fn bandwidth(&self, view: &NodeView) -> Bandwidth {
        let (belief, inventory) = (&self.policy.cost, &view.facts.inventory);
        let nvlink = inventory.links.iter().flatten().any(|link| matches!(link, Link::NvLink(_)));
        let inside = if nvlink { belief.nvlink_gbytes } else { belief.pcie_gbytes };
        let compute = inventory.nics.iter().filter(|nic| nic.compute);
        let rate: f64 = compute.map(|nic| f64::from(nic.rate_gbps) * 1e9 / 8.0).sum();
        let devices = inventory.devices.len().max(1) as f64;
        let between = if rate > 0.0 { rate / devices } else { f64::from(belief.network_gbytes) * 1e9 };
        Bandwidth { inside: f64::from(inside) * 1e9, between }
    }

    /// Percent of the network that is lost on the way up to the domain that holds all nodes: levels multiply.
    fn crossed(&self, picked: &Picked) -> u32 {
        let (Some(tree), belief) = (self.fabric.trees.first(), &self.policy.cost) else { return 0 };
        let paths: Vec<_> = picked.iter().map(|(id, _)| self.view(*id).facts.inventory.place.get(&tree.name)).collect();
        let mut left = 1.0;
        for (at, level) in tree.levels.iter().enumerate() {
            let domains: BTreeSet<_> =
                paths.iter().map(|path| path.map(|path| &path[..path.len().min(at + 1)])).collect();
            if domains.len() > 1 {
                let percent = belief.crossing_percent.get(level).copied().unwrap_or(belief.other_crossing_percent);
                left *= f64::from(percent) / 100.0;
            }
        }
        100 - (left * 100.0) as u32
    }

    /// Nodes that stay free in domains of the narrowest level that the placement breaks into.
    fn stranded(&self, picked: &Picked) -> f64 {
        let Some(tree) = self.fabric.trees.first() else { return 0.0 };
        let mut taken: BTreeMap<DomainId, u64> = BTreeMap::new();
        for (id, _) in picked {
            let path = self.view(*id).facts.inventory.place.get(&tree.name);
            let domain = path.and_then(|path| self.ledger.domain_at(0, path));
            domain.into_iter().for_each(|domain| *taken.entry(domain).or_default() += 1);
        }
        taken.into_iter().map(|(domain, taken)| self.nodes_in(domain).saturating_sub(taken) as f64).sum()
    }

    /// Nodes of a domain that could serve the group.
    fn nodes_in(&self, domain: DomainId) -> u64 {
        let least = match &self.kind {
            Kind::Whole { per_node, .. } => *per_node,
            _ => 1,
        };
        self.classes
            .iter()
            .filter_map(|&class| self.ledger.pool(domain, class))
            .map(|pool| pool.nodes_with(least))
            .sum()
    }
}

/// The bits of a number that is not below 0, in its order. NaN, which no cost can be, would stand last.
fn ordered(cost: f64) -> u64 {
    debug_assert!(cost >= 0.0, "a cost is not negative: {cost}");
    cost.to_bits()
}
