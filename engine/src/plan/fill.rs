//! Which nodes of a scope: best fit, spread, or the lowest ids.

use super::feasible::{domain_of, per_node_max};
use super::ledger::{DomainId, NodeView};
use super::pool::Pool;
use super::scope::Scope;
use super::score::per_level;
use super::search::{COMPARED_MAX, GATHERED_MAX, Picked, Search};
use crate::policy::{Domains, Score};
use muster_common::NodeId;
use muster_common::job::{Count, DeviceTotal, GroupRequest};
use muster_common::node::Device;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// The four ways in which a gang takes nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Whole { nodes: u32, per_node: u32 },
    Shared { nodes: u32, per_node: u32 },
    CpuOnly { nodes: u32 },
    Total(DeviceTotal),
}

impl Kind {
    pub fn of(group: &GroupRequest) -> Self {
        match &group.count {
            Count::Nodes { nodes, per_node: 0 } => Kind::CpuOnly { nodes: *nodes },
            Count::Nodes { nodes, per_node } if group.share.is_whole() => {
                Kind::Whole { nodes: *nodes, per_node: *per_node }
            }
            Count::Nodes { nodes, per_node } => Kind::Shared { nodes: *nodes, per_node: *per_node },
            Count::Total(total) => Kind::Total(*total),
        }
    }

    /// In the unit of [`Search::bound`]: nodes, or devices of a total.
    pub fn need(&self) -> u64 {
        match self {
            Kind::Whole { nodes, .. } | Kind::Shared { nodes, .. } | Kind::CpuOnly { nodes } => u64::from(*nodes),
            Kind::Total(total) => u64::from(total.devices),
        }
    }

    pub fn fits_one_node(&self) -> bool {
        match self {
            Kind::Total(total) => total.devices <= per_node_max(total),
            other => other.need() == 1,
        }
    }
}

impl Search<'_> {
    /// Nodes of a scope that together hold the gang.
    pub fn fill(&self, scope: &Scope, steps: &mut u64) -> Option<Picked> {
        if let Some(cut) = self.cut {
            return self.in_cells(scope, cut, steps);
        }
        match (self.policy.domains, &self.kind) {
            (_, Kind::Shared { .. } | Kind::CpuOnly { .. }) => self.flat(scope, self.kind.need(), steps),
            (Domains::Anywhere, _) => self.lowest_ids(scope, steps),
            (Domains::NodeThenLevel, Kind::Total(total)) => self.whole_nodes_and_rest(scope, total, steps),
            (Domains::LowestFit, _) if self.gathers() && scope.bases.len() == 1 => self
                .gathered(scope, scope.bases[0], self.kind.need(), steps)
                .filter(|picked| self.is_whole(picked))
                .or_else(|| self.flat(scope, self.kind.need(), steps)),
            _ => self.flat(scope, self.kind.need(), steps),
        }
    }

    /// Few sub-domains matter more than which nodes.
    pub fn gathers(&self) -> bool {
        matches!(self.policy.score, Score::BestFit | Score::TopologyCost) && self.group.prefers.is_empty()
    }

    fn is_whole(&self, picked: &Picked) -> bool {
        match &self.kind {
            Kind::Total(total) => {
                super::feasible::total_allowed(total, &picked.iter().map(|(_, devices)| *devices).collect::<Vec<_>>())
            }
            _ => picked.len() as u64 == self.kind.need(),
        }
    }

    /// As few sub-domains as will do: the roomiest whole ones, the rest in the least sufficient one; of several
    /// such, where fewer switches are crossed.
    pub fn gathered(&self, scope: &Scope, domain: DomainId, need: u64, steps: &mut u64) -> Option<Picked> {
        let view = self.ledger.domain_view(domain);
        let tree = if view.depth > 0 { view.tree } else { 0 };
        let path = |id: &DomainId| &self.ledger.domain_view(*id).path;
        let mut left: Vec<(u64, DomainId)> = view
            .children
            .iter()
            .filter(|&&child| self.ledger.domain_view(child).tree == tree)
            .map(|&child| (self.bound(child), child))
            .filter(|(bound, _)| *bound > 0)
            .collect();
        if let [(bound, child)] = left[..]
            && bound >= need
            && let Some(picked) = self.gathered(scope, child, need, steps)
        {
            return Some(picked);
        }
        if left.len() < 2 {
            return self.flat(&Scope { bases: vec![domain], filters: scope.filters.clone() }, need, steps);
        }
        left.sort_by(|a, b| (a.0, path(&a.1)).cmp(&(b.0, path(&b.1))));
        let mut picked = Vec::new();
        let mut wanted = need;
        while wanted > 0 {
            let least = left.iter().map(|(bound, _)| *bound).find(|bound| *bound >= wanted);
            let from = least.or(left.last().map(|(bound, _)| *bound))?;
            let from = left.partition_point(|(bound, _)| *bound < from);
            // What is compared grows with every level, so only small gangs can afford it.
            let most = if wanted <= GATHERED_MAX { COMPARED_MAX } else { 1 };
            let mut best: Option<(usize, usize, Picked)> = None;
            for (at, &(bound, child)) in left.iter().enumerate().skip(from).take(most) {
                let Some(here) = self.gathered(scope, child, bound.min(wanted), steps) else { continue };
                let switches = if most > 1 { self.switches(&here, tree) } else { 1 };
                if best.as_ref().is_none_or(|(known, ..)| switches < *known) {
                    best = Some((switches, at, here));
                }
                // There is no better one.
                if switches == 1 {
                    break;
                }
            }
            let (_, at, here) = best?;
            let (bound, _) = left.remove(at);
            picked.extend(here);
            wanted -= bound.min(wanted);
        }
        Some(picked)
    }

    /// By free devices alone, wherever in the scope.
    fn flat(&self, scope: &Scope, need: u64, steps: &mut u64) -> Option<Picked> {
        match &self.kind {
            Kind::Total(total) => self.flat_total(scope, &DeviceTotal { devices: need as u32, ..*total }, steps),
            _ => {
                let found = self.candidates(scope, need as usize, steps);
                (found.len() as u64 == need).then_some(found)
            }
        }
    }

    /// The best nodes of a scope, at most so many. Not for totals.
    pub fn candidates(&self, scope: &Scope, count: usize, steps: &mut u64) -> Picked {
        match &self.kind {
            Kind::Whole { per_node, .. } => {
                let found = self.sufficient(scope, count, *per_node, steps);
                found.into_iter().map(|id| (id, *per_node)).collect()
            }
            Kind::Shared { per_node, .. } => self.shared(scope, count, *per_node, steps),
            Kind::CpuOnly { .. } => self.cpu_only(scope, count, steps),
            Kind::Total(_) => Picked::new(),
        }
    }

    /// As [`Search::room`], by the nodes that serve the group: none that are excluded, taken, outside, or short of
    /// CPU or memory. Of totals whole steps only.
    pub fn real_room(&self, scope: &Scope, steps: &mut u64) -> u64 {
        if let Kind::Total(total) = &self.kind {
            let max = per_node_max(total).min(total.devices);
            let mut room = 0;
            for (_, id) in self.pools(scope).flat_map(|pool| pool.having(1)) {
                let view = self.view(id);
                let devices = if scope.holds(view) { self.gives_up_to(view, max, steps) } else { 0 };
                room += u64::from(whole_steps(devices, total));
            }
            return room;
        }
        let bound: u64 = scope.bases.iter().map(|&base| self.bound(base)).sum();
        let serving = self.candidates(scope, bound as usize, steps);
        let (level, unit, most) = match (&self.group.segment, &self.group.spread) {
            (Some(cut), _) => (&cut.level, cut.nodes.max(1), if cut.apart { cut.nodes } else { u32::MAX }),
            (None, Some(cut)) => (&cut.level, 1, cut.nodes),
            (None, None) => return serving.len() as u64,
        };
        let mut by_domain: BTreeMap<_, u32> = BTreeMap::new();
        for (id, _) in serving {
            let domain = domain_of(self.fabric, level.as_str(), id, &self.view(id).facts.inventory);
            domain.into_iter().for_each(|domain| *by_domain.entry(domain).or_default() += 1);
        }
        by_domain.values().map(|nodes| u64::from((nodes - nodes % unit).min(most))).sum()
    }

    fn pools<'s>(&'s self, scope: &'s Scope) -> impl Iterator<Item = &'s Pool> + 's {
        scope
            .bases
            .iter()
            .flat_map(move |&base| self.classes.iter().filter_map(move |&class| self.ledger.pool(base, class)))
    }

    /// Nodes that give at least `devices`, the best first, a few from each pool.
    fn sufficient(&self, scope: &Scope, count: usize, devices: u32, steps: &mut u64) -> Vec<NodeId> {
        let mut found: Vec<(Reverse<u32>, u64, NodeId)> = Vec::new();
        for pool in self.pools(scope) {
            let mut fits = |id: NodeId| {
                let view = self.view(id);
                scope.holds(view) && self.gives(view, devices, steps)
            };
            let having = pool.having(devices);
            let ids: Vec<NodeId> = match self.policy.score {
                Score::Spread => having.map(|(_, id)| id).filter(|&id| fits(id)).collect(),
                _ if self.is_scored() => per_level(having, self.looked_at(count), fits),
                _ => having.map(|(_, id)| id).filter(|&id| fits(id)).take(count).collect(),
            };
            found.extend(ids.into_iter().map(|id| {
                let view = self.view(id);
                (Reverse(self.weight_of(view)), self.rank(view, devices), id)
            }));
        }
        found.sort_unstable();
        found.truncate(count);
        found.into_iter().map(|(.., id)| id).collect()
    }

    fn flat_nodes(&self, scope: &Scope, nodes: usize, per_node: u32, steps: &mut u64) -> Option<Picked> {
        let found = self.sufficient(scope, nodes, per_node, steps);
        (found.len() == nodes).then(|| found.into_iter().map(|id| (id, per_node)).collect())
    }

    /// One node for all of it, or nothing.
    pub fn one_node(&self, scope: &Scope, steps: &mut u64) -> Option<Picked> {
        match &self.kind {
            Kind::Total(total) if self.kind.fits_one_node() => self.flat_nodes(scope, 1, total.devices, steps),
            Kind::Total(_) => None,
            other if other.need() == 1 => self.fill(scope, steps),
            _ => None,
        }
    }

    /// As few nodes as will do: the roomiest first, the rest on the least sufficient one.
    fn flat_total(&self, scope: &Scope, total: &DeviceTotal, steps: &mut u64) -> Option<Picked> {
        let max = per_node_max(total);
        let mut picked = Vec::new();
        let mut used = BTreeSet::new();
        let mut roomy: Vec<(u32, NodeId)> = self.pools(scope).flat_map(|pool| pool.having(1)).collect();
        roomy.sort_unstable_by_key(|&(free, id)| (Reverse(self.weight_of(self.view(id))), Reverse(free), id));
        let mut left = total.devices;
        let mut tried = 0;
        let mut roomy = roomy.into_iter().peekable();
        while left > 0 {
            let most = roomy.peek().map_or(0, |(free, _)| *free);
            if left <= max && left <= most && left != tried {
                tried = left;
                let last = self.sufficient(scope, used.len() + 1, left, steps);
                if let Some(id) = last.into_iter().find(|id| !used.contains(id)) {
                    picked.push((id, left));
                    return Some(picked);
                }
            }
            let (_, id) = roomy.next()?;
            let view = self.view(id);
            let devices = if scope.holds(view) { self.gives_up_to(view, max.min(left), steps) } else { 0 };
            let devices = whole_steps(devices, total);
            if devices > 0 {
                used.insert(id);
                picked.push((id, devices));
                left -= devices;
            }
        }
        Some(picked)
    }

    /// Any free devices: nodes by id.
    fn lowest_ids(&self, scope: &Scope, steps: &mut u64) -> Option<Picked> {
        let inside = |view: &NodeView| {
            scope.holds(view)
                && scope.bases.iter().any(|&base| view.is_in(base))
                && self.classes.contains(&view.facts.class)
        };
        let mut left = self.kind.need();
        let mut picked = Vec::new();
        let mut odd: Option<NodeId> = None;
        for &id in self.ledger.with_free() {
            let view = self.view(id);
            if !inside(view) {
                continue;
            }
            let devices = match &self.kind {
                Kind::Whole { per_node, .. } if self.gives(view, *per_node, steps) => *per_node,
                Kind::Total(total) => {
                    let most = per_node_max(total).min(left.min(u64::from(u32::MAX)) as u32);
                    let devices = self.gives_up_to(view, most, steps);
                    if u64::from(devices) < left && whole_steps(devices, total) == 0 && devices > 0 {
                        odd = odd.or(Some(id));
                    }
                    if u64::from(devices) == left { devices } else { whole_steps(devices, total) }
                }
                _ => 0,
            };
            if devices > 0 {
                picked.push((id, devices));
                left -= if matches!(self.kind, Kind::Total(_)) { u64::from(devices) } else { 1 };
            }
            if left == 0 {
                return Some(picked);
            }
        }
        // A remainder may still fit on a node that was too small for a whole step.
        let id = odd?;
        let fits = matches!(self.kind, Kind::Total(_)) && self.gives(self.view(id), left as u32, steps);
        fits.then(|| {
            picked.push((id, left as u32));
            picked
        })
    }

    /// One node if it fits on one; else wholly free nodes, and one node for the remainder.
    fn whole_nodes_and_rest(&self, scope: &Scope, total: &DeviceTotal, steps: &mut u64) -> Option<Picked> {
        let wants = |device: &Device| self.wants(device);
        let sizes = self.classes.iter().map(|&class| self.ledger.classes.usable(class, wants));
        let size = sizes.max()?.min(per_node_max(total)).max(1);
        let (nodes, rest) = (total.devices / size, total.devices % size);
        let mut picked = self.flat_nodes_of(scope, nodes as usize, size, steps)?;
        if rest > 0 {
            let last = self.sufficient(scope, picked.len() + 1, rest, steps);
            let id = last.into_iter().find(|id| picked.iter().all(|(other, _)| other != id))?;
            picked.push((id, rest));
        }
        Some(picked)
    }

    fn flat_nodes_of(&self, scope: &Scope, nodes: usize, size: u32, steps: &mut u64) -> Option<Picked> {
        if nodes == 0 { Some(Vec::new()) } else { self.flat_nodes(scope, nodes, size, steps) }
    }

    /// Shares go where the least sufficient share is free, so that whole devices stay whole.
    fn shared(&self, scope: &Scope, count: usize, per_node: u32, steps: &mut u64) -> Picked {
        let milli = self.group.share.0;
        let mut candidates: BTreeSet<NodeId> = self.ledger.partial().clone();
        for pool in self.pools(scope) {
            let unbroken = pool.having(per_node);
            let fits =
                |id: NodeId| scope.holds(self.view(id)) && self.gives_shares(self.view(id), per_node, milli, &mut 0);
            match self.is_scored() {
                true => candidates.extend(per_level(unbroken, self.looked_at(count), fits)),
                false => candidates.extend(unbroken.map(|(_, id)| id).filter(|&id| fits(id)).take(count)),
            }
        }
        let mut found = Vec::new();
        for id in candidates {
            let view = self.view(id);
            let inside = scope.bases.iter().any(|&base| view.is_in(base)) && self.classes.contains(&view.facts.class);
            if !inside || !scope.holds(view) {
                continue;
            }
            let rank = if self.is_scored() {
                self.gives_shares(view, per_node, milli, steps).then(|| self.rank(view, per_node))
            } else {
                let left = |slot: &u16| u64::from(view.free[usize::from(*slot)] - milli);
                let slots = self.shared_slots(view, per_node, milli, steps);
                slots.map(|slots| slots.iter().map(left).sum())
            };
            let whole = if self.is_scored() { 0 } else { view.whole };
            found.extend(rank.map(|rank| (Reverse(self.weight_of(view)), rank, whole, id)));
        }
        found.sort_unstable();
        found.truncate(count);
        found.into_iter().map(|(.., id)| (id, per_node)).collect()
    }

    /// Nodes with the fewest devices first, then those with the least sufficient CPU.
    fn cpu_only(&self, scope: &Scope, count: usize, steps: &mut u64) -> Picked {
        let mut found: Vec<(Reverse<u32>, usize, u64, NodeId)> = Vec::new();
        for (_, id) in self.pools(scope).flat_map(|pool| pool.having(0)) {
            let view = self.view(id);
            if scope.holds(view) && self.gives(view, 0, steps) {
                let free = view.amount.cpu_milli;
                let (devices, key) = match self.policy.score {
                    Score::Spread => (view.facts.inventory.devices.len(), u64::MAX - free),
                    _ if self.is_scored() => (0, self.rank(view, 0)),
                    _ => (view.facts.inventory.devices.len(), free),
                };
                found.push((Reverse(self.weight_of(view)), devices, key, id));
            }
        }
        found.sort_unstable();
        found.truncate(count);
        found.into_iter().map(|(.., id)| (id, 0)).collect()
    }
}

/// The largest number of devices a node may give that is whole steps and at least the minimum.
fn whole_steps(devices: u32, total: &DeviceTotal) -> u32 {
    let devices = devices - devices % total.step.max(1);
    if devices >= total.per_node_min { devices } else { 0 }
}
