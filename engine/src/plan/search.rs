//! The search for one group of a gang: scopes that its topology allows, the best first; in each, the
//! nodes; on each, the devices.

use super::cells::Cut;
use super::devices;
use super::feasible::{amount_on, check_topology, device_allowed, labels_match, per_node_max, total_allowed};
use super::fill::Kind;
use super::ledger::{ClassId, DomainId, Ledger, NodeView, ROOT};
use super::scope::{self, Scope};
use crate::command::PlacedPart;
use crate::policy::{DeviceChoice, Domains, Policy};
use muster_common::job::GroupRequest;
use muster_common::node::Device;
use muster_common::topology::FabricSpec;
use muster_common::{GangId, Name, NodeId};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Whole nodes, with the devices each gives.
pub type Picked = Vec<(NodeId, u32)>;

/// Most placements that are compared where one would do.
pub const COMPARED_MAX: usize = 4;
/// Apart from the draws of nodes.
const BY_CHANCE: u64 = 0x5eed;
/// Placements are compared for gangs of up to so many nodes, or devices of a total.
pub const GATHERED_MAX: u64 = 64;

/// What is searched on, for all groups of a gang alike.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    pub ledger: &'a Ledger,
    pub fabric: &'a FabricSpec,
    pub policy: &'a Policy,
    /// Nodes the gang keeps off.
    pub excluded: &'a [NodeId],
    /// Nodes of the gang's other groups.
    pub taken: &'a BTreeSet<NodeId>,
    /// For who asks chance.
    pub gang: GangId,
}

/// The models a group may get at once.
#[derive(Debug, Clone, Copy)]
pub enum Models<'a> {
    Any,
    One(&'a Name),
    Mixed(&'a [Name]),
}

/// The search for one group and one choice of models.
pub struct Search<'a> {
    pub ledger: &'a Ledger,
    pub fabric: &'a FabricSpec,
    pub policy: &'a Policy,
    pub ground: Ground<'a>,
    pub group: &'a GroupRequest,
    pub models: Models<'a>,
    pub classes: Vec<ClassId>,
    /// By place in `classes`: how much its labels are preferred.
    pub weights: Vec<u32>,
    pub kind: Kind,
    pub cut: Option<Cut>,
}

impl<'a> Search<'a> {
    /// `None` when no node can be meant, or too few in the base.
    pub fn new(ground: Ground<'a>, group: &'a GroupRequest, models: Models<'a>, base: &Scope) -> Option<Self> {
        let search = Self::of(ground, group, models);
        let room: u64 = base.bases.iter().map(|&domain| search.bound(domain)).sum();
        (room >= search.kind.need()).then_some(search)
    }

    /// Whatever is free.
    pub fn of(ground: Ground<'a>, group: &'a GroupRequest, models: Models<'a>) -> Self {
        let Ground { ledger, fabric, policy, .. } = ground;
        let kind = Kind::of(group);
        let all = 0..ledger.classes().len();
        let classes: Vec<ClassId> = all.filter(|&class| is_meant(ledger, group, models, &kind, class)).collect();
        let weight = |class: &ClassId| {
            let holds = group.prefers.iter().filter(|wish| wish.holds(&ledger.classes()[*class].labels));
            holds.map(|wish| u32::from(wish.weight)).sum()
        };
        let weights = classes.iter().map(weight).collect();
        let cut = Cut::of(group, fabric);
        Self { ledger, fabric, policy, ground, group, models, classes, weights, kind, cut }
    }

    /// How often the group fits a domain, in thousandths and at most.
    pub fn room_in(&self, domain: DomainId) -> u64 {
        self.bound(domain) * 1000 / self.kind.need().max(1)
    }

    /// Parts of the group inside the base.
    pub fn parts_in(&self, base: &Scope, number: u16, steps: &mut u64) -> Option<Vec<PlacedPart>> {
        let picked = self.run(base, steps)?;
        Some(self.parts(picked, number, steps))
    }

    /// The narrowest placement in any of the scopes comes before a wider one in the best of them.
    fn run(&self, base: &Scope, steps: &mut u64) -> Option<Picked> {
        let wish = scope::Wish::of(self.group, self.fabric);
        let scopes = self.scopes(base, &wish);
        let mut first = |find: &dyn Fn(&Scope, &mut u64) -> Option<Picked>| {
            scopes.iter().find_map(|scope| self.checked(find(scope, steps)))
        };
        if wish.one_node {
            return first(&|scope, steps| self.one_node(scope, steps));
        }
        if self.compares(&wish) {
            return first(&|scope, steps| self.cheapest(scope, &wish, steps));
        }
        let lowest = self.policy.domains == Domains::LowestFit;
        if lowest
            && self.kind.fits_one_node()
            && let Some(picked) = first(&|scope, steps| self.one_node(scope, steps))
        {
            return Some(picked);
        }
        let levels = scopes.first().map(|scope| wish.levels(self.fabric, scope, self.ledger, lowest));
        for level in levels.unwrap_or_default() {
            if let Some(picked) = scopes.iter().find_map(|scope| self.at_level(scope, level, steps)) {
                return Some(picked);
            }
        }
        let mut first = |find: &dyn Fn(&Scope, &mut u64) -> Option<Picked>| {
            scopes.iter().find_map(|scope| self.checked(find(scope, steps)))
        };
        match wish.few {
            Some(level) => first(&|scope, steps| self.some_domains(scope, level, steps)),
            None => first(&|scope, steps| self.fill(scope, steps)),
        }
    }

    /// In one domain of the level, or in as few as are preferred. Of the fullest domains that hold the group,
    /// the one where it crosses the fewest switches.
    fn at_level(&self, scope: &Scope, level: scope::Level, steps: &mut u64) -> Option<Picked> {
        // No narrower domain holds it, so it is in two of each level below at least.
        let fewest = 1 + 2 * (self.fabric.trees[level.tree].levels.len() - level.depth);
        let mut best: Option<(usize, Picked)> = None;
        let most = if self.kind.need() <= GATHERED_MAX { COMPARED_MAX } else { 1 };
        let mut made = 0;
        for narrow in self.narrowed(scope, level.tree, level.depth) {
            let Some(picked) = self.checked(self.fill(&narrow, steps)) else { continue };
            made += 1;
            if most == 1 {
                return Some(picked);
            }
            let switches = self.switches(&picked, level.tree);
            if best.as_ref().is_none_or(|(known, _)| switches < *known) {
                best = Some((switches, picked));
            }
            if made >= most || best.as_ref().is_some_and(|(known, _)| *known <= fewest) {
                break;
            }
        }
        match best {
            Some((_, picked)) => Some(picked),
            None if level.at_most > 1 => self.checked(self.some_domains(scope, level, steps)),
            None => None,
        }
    }

    /// Domains that the nodes touch, from the narrowest that holds them all downwards.
    pub fn switches(&self, picked: &Picked, tree: usize) -> usize {
        if picked.len() < 2 {
            return 1;
        }
        let levels = self.fabric.trees[tree].levels.len();
        let of_tree = |domain: &&DomainId| {
            let view = self.ledger.domain_view(**domain);
            view.tree == tree && view.depth > 0
        };
        let path = |(id, _): &(NodeId, u32)| self.view(*id).facts.domains.iter().filter(of_tree).copied().collect();
        let paths: Vec<Vec<DomainId>> = picked.iter().map(path).collect();
        let domains = |depth: usize| {
            // A node whose place does not go so far down is in the last domain that it names.
            let mut domains: Vec<Option<&DomainId>> =
                paths.iter().map(|path| path[..depth.min(path.len())].last()).collect();
            domains.sort_unstable();
            domains.dedup();
            domains.len()
        };
        1 + (1..=levels).map(domains).filter(|&domains| domains > 1).sum::<usize>()
    }

    /// The widest scopes that the required levels allow, the fullest sufficient one first.
    fn scopes(&self, base: &Scope, wish: &scope::Wish) -> Vec<Scope> {
        let mut scopes = vec![base.clone()];
        for &(tree, depth) in &wish.homes {
            scopes = scopes.iter().flat_map(|scope| self.narrowed(scope, tree, depth)).collect();
        }
        scopes
    }

    /// A scope cut down to each domain of a level that may hold the gang.
    pub fn narrowed(&self, scope: &Scope, tree: usize, depth: usize) -> Vec<Scope> {
        let mut found: Vec<(Reverse<u64>, u64, DomainId)> = self
            .ledger
            .domains_at(tree, depth)
            .filter(|&domain| scope.admits(self.ledger, domain))
            .map(|domain| (Reverse(self.preferred_in(domain)), self.bound(domain), domain))
            .filter(|(_, bound, _)| *bound >= self.kind.need())
            .collect();
        found.sort_by(|a, b| (a.0, a.1, self.path(a.2)).cmp(&(b.0, b.1, self.path(b.2))));
        found.into_iter().map(|(.., domain)| scope.narrow(self.ledger, domain)).collect()
    }

    /// The weight of preferred labels that the group could have in a domain.
    fn preferred_in(&self, domain: DomainId) -> u64 {
        if self.group.prefers.is_empty() {
            return 0;
        }
        let mut have: Vec<(u32, u64)> = (0..self.classes.len())
            .map(|at| (self.weights[at], self.bound_of(domain, self.classes[at])))
            .filter(|(weight, bound)| *weight > 0 && *bound > 0)
            .collect();
        have.sort_unstable_by_key(|&(weight, _)| Reverse(weight));
        let (mut wanted, mut sum) = (self.kind.need(), 0);
        for (weight, bound) in have {
            let here = bound.min(wanted);
            sum += here * u64::from(weight);
            wanted -= here;
        }
        sum
    }

    pub fn weight_of(&self, view: &NodeView) -> u32 {
        if self.group.prefers.is_empty() {
            return 0;
        }
        self.classes.iter().position(|&class| class == view.facts.class).map_or(0, |at| self.weights[at])
    }

    pub fn path(&self, domain: DomainId) -> &[Name] {
        &self.ledger.domain_view(domain).path
    }

    /// At most so many domains of a level: those that seem the roomiest. Where too few of their nodes serve the
    /// group, once more by those that do: they are looked at one by one.
    fn some_domains(&self, scope: &Scope, level: scope::Level, steps: &mut u64) -> Option<Picked> {
        let domains = self.ledger.domains_at(level.tree, level.depth);
        let seeming: Vec<(u64, DomainId)> = domains
            .filter(|&domain| scope.admits(self.ledger, domain))
            .map(|domain| (self.room(scope, domain), domain))
            .filter(|(room, _)| *room > 0)
            .collect();
        let (first, missing) = self.roomiest(seeming.clone(), level.at_most);
        if missing > 0 {
            return None;
        }
        let found = self.checked(self.fill(&scope.among(self.ledger, first.clone()), steps));
        if found.is_some() {
            return found;
        }
        let mut real = seeming;
        real.iter_mut().for_each(|(room, domain)| *room = self.real_room(&scope.narrow(self.ledger, *domain), steps));
        real.retain(|(room, _)| *room > 0);
        let (second, missing) = self.roomiest(real, level.at_most);
        // The remainder of a total is for a node that has too little for a step.
        let odd = match &self.kind {
            Kind::Total(total) => u64::from(total.step) + u64::from(total.per_node_min),
            _ => 1,
        };
        if missing >= odd || second == first {
            return None;
        }
        self.fill(&scope.among(self.ledger, second), steps)
    }

    /// Of domains with so much room the roomiest ones, and for the rest the least sufficient. What they lack comes
    /// second.
    fn roomiest(&self, mut left: Vec<(u64, DomainId)>, at_most: u32) -> (Vec<DomainId>, u64) {
        left.sort_by(|a, b| (a.0, self.path(b.1)).cmp(&(b.0, self.path(a.1))));
        let mut wanted = self.kind.need();
        let mut chosen = Vec::new();
        while wanted > 0 && !left.is_empty() && (chosen.len() as u32) < at_most {
            let enough = left.partition_point(|(room, _)| *room < wanted);
            let (room, domain) = left.remove(enough.min(left.len() - 1));
            wanted = wanted.saturating_sub(room);
            chosen.push(domain);
        }
        (chosen, wanted)
    }

    /// The last word on topology and shape is the predicate that `apply` uses.
    fn checked(&self, picked: Option<Picked>) -> Option<Picked> {
        picked.filter(|picked| self.is_allowed(picked))
    }

    pub fn is_allowed(&self, picked: &Picked) -> bool {
        let nodes = picked.iter().map(|(id, _)| (*id, &*self.view(*id).facts.inventory));
        if check_topology(self.group, self.fabric, nodes).is_err() {
            return false;
        }
        let Kind::Total(total) = &self.kind else { return true };
        let taken: Vec<u32> = picked.iter().map(|(_, devices)| *devices).collect();
        total_allowed(total, &taken)
    }

    pub fn view(&self, id: NodeId) -> &NodeView {
        self.ledger.node(id).expect("a pool's node is in the ledger")
    }

    /// No more than this can be had in a domain; exact but for CPU, memory, names and mixed models.
    pub fn bound(&self, domain: DomainId) -> u64 {
        self.classes.iter().map(|&class| self.bound_of(domain, class)).sum()
    }

    fn bound_of(&self, domain: DomainId, class: ClassId) -> u64 {
        bound_of(self.ledger, &self.kind, domain, class)
    }

    /// Is the node one that the gang may use at all, whatever is free there?
    pub fn may_use(&self, view: &NodeView) -> bool {
        view.open
            && view.ports > 0
            && !self.ground.excluded.contains(&view.facts.id)
            && !self.ground.taken.contains(&view.facts.id)
            && !self.group.exclude.contains(&view.facts.name)
    }

    pub fn wants(&self, device: &Device) -> bool {
        wanted(self.group, self.models, device)
    }

    /// Wholly free slots of the wanted models.
    pub fn free_slots(&self, view: &NodeView) -> Vec<u16> {
        let devices = &view.facts.inventory.devices;
        let wanted = |slot: usize| view.free[slot] == 1000 && self.wants(&devices[slot]);
        (0..view.free.len()).filter(|&slot| wanted(slot)).map(|slot| slot as u16).collect()
    }

    /// Can the node give so many whole devices, with the CPU and memory that go with them?
    pub fn gives(&self, view: &NodeView, devices: u32, steps: &mut u64) -> bool {
        *steps += 1;
        let free = match view.facts.varied {
            true => view.facts.islands.most(&self.free_slots(view)),
            false => view.whole,
        };
        free >= devices
            && self.may_use(view)
            && view.amount.covers(&amount_on(self.group, &view.facts.inventory, devices))
    }

    /// The most whole devices the node can give, up to `most`.
    pub fn gives_up_to(&self, view: &NodeView, most: u32, steps: &mut u64) -> u32 {
        let most = most.min(view.whole);
        (1..=most).rev().find(|&devices| self.gives(view, devices, steps)).unwrap_or(0)
    }

    /// Can the node give so many shares of different devices, with the CPU and memory that go with them?
    pub fn gives_shares(&self, view: &NodeView, count: u32, milli: u16, steps: &mut u64) -> bool {
        *steps += 1;
        let devices = &view.facts.inventory.devices;
        let enough = |slot: &usize| view.free[*slot] >= milli && self.wants(&devices[*slot]);
        self.may_use(view)
            && (0..view.free.len()).filter(enough).take(count as usize).count() == count as usize
            && (view.facts.islands.cut.is_empty() || !self.share_sets(view, count, milli).is_empty())
            && view.amount.covers(&amount_on(self.group, &view.facts.inventory, count))
    }

    /// The slots with the least sufficient share, or as the policy chooses devices; `None` = too few.
    pub fn shared_slots(&self, view: &NodeView, count: u32, milli: u16, steps: &mut u64) -> Option<Vec<u16>> {
        if !self.gives_shares(view, count, milli, steps) {
            return None;
        }
        if let Some(mut slots) = self.fgd_slots(view, count) {
            slots.sort_unstable();
            return Some(slots);
        }
        let rank = |slot: u16| match self.policy.device {
            DeviceChoice::ByChance => self.chance(BY_CHANCE, u64::from(slot)),
            _ => u64::from(view.free[usize::from(slot)]),
        };
        let best_of = |set: Vec<u16>| {
            let mut slots: Vec<(u64, u16)> = set.into_iter().map(|slot| (rank(slot), slot)).collect();
            slots.sort_unstable();
            slots.truncate(count as usize);
            slots
        };
        let best = self.share_sets(view, count, milli).into_iter().map(best_of).min()?;
        let mut chosen: Vec<u16> = best.into_iter().map(|(_, slot)| slot).collect();
        chosen.sort_unstable();
        Some(chosen)
    }

    /// Slots with such a share free: all of a sound machine; of one that is cut those of each island that has as
    /// many as one part wants.
    pub fn share_sets(&self, view: &NodeView, count: u32, milli: u16) -> Vec<Vec<u16>> {
        let devices = &view.facts.inventory.devices;
        let enough = |slot: &usize| view.free[*slot] >= milli && self.wants(&devices[*slot]);
        let slots: Vec<u16> = (0..view.free.len()).filter(enough).map(|slot| slot as u16).collect();
        let cut = &view.facts.islands.cut;
        if cut.is_empty() {
            return vec![slots];
        }
        let on = |island: &Vec<u16>| slots.iter().copied().filter(|slot| island.contains(slot)).collect::<Vec<u16>>();
        let mut sets: Vec<Vec<u16>> = cut.iter().map(on).collect();
        sets.push(slots.iter().copied().filter(|slot| !cut.iter().any(|island| island.contains(slot))).collect());
        sets.retain(|set| set.len() >= count as usize);
        sets
    }

    /// Parts in rank order: nodes by their place in the first tree (with segments: the segments' tree), so
    /// that hosts of one leaf are neighbours; devices by slot, so that local rank i is on rail i.
    fn parts(&self, mut picked: Picked, number: u16, steps: &mut u64) -> Vec<PlacedPart> {
        let tree = self.cut.as_ref().map_or(0, |cut| cut.tree);
        let tree = self.fabric.trees.get(tree).map(|tree| &tree.name);
        if let [(id, count)] = picked[..] {
            return vec![self.part(id, count, number, steps)];
        }
        picked.sort_by_cached_key(|(id, _)| {
            let facts = &self.view(*id).facts;
            (tree.and_then(|tree| facts.inventory.place.get(tree)), &facts.name, facts.id)
        });
        picked.into_iter().map(|(id, count)| self.part(id, count, number, steps)).collect()
    }

    fn part(&self, id: NodeId, count: u32, number: u16, steps: &mut u64) -> PlacedPart {
        self.part_on(self.view(id), count, number, steps)
    }

    /// A part on a node, be it as the ledger has it or as it will be.
    pub fn part_on(&self, view: &NodeView, count: u32, number: u16, steps: &mut u64) -> PlacedPart {
        let milli = self.group.share.0.min(1000);
        let slots = match self.kind {
            Kind::CpuOnly { .. } => Vec::new(),
            Kind::Shared { .. } => self.shared_slots(view, count, milli, steps).unwrap_or_default(),
            _ => devices::choose(view, &self.free_slots(view), count as usize, self.policy.device, steps),
        };
        PlacedPart {
            group: number,
            node: view.facts.id,
            epoch: view.facts.epoch,
            devices: slots.into_iter().map(|slot| (slot, milli)).collect(),
            amount: amount_on(self.group, &view.facts.inventory, count),
        }
    }
}

fn bound_of(ledger: &Ledger, kind: &Kind, domain: DomainId, class: ClassId) -> u64 {
    let Some(pool) = ledger.pool(domain, class) else { return 0 };
    match kind {
        Kind::Whole { per_node, .. } => pool.nodes_with(*per_node),
        Kind::Total(total) if per_node_max(total) == 1 => pool.nodes_with(1),
        Kind::Total(_) => pool.free_sum(),
        Kind::Shared { .. } | Kind::CpuOnly { .. } => pool.len(),
    }
}

/// May nodes of a class serve the group?
fn is_meant(ledger: &Ledger, group: &GroupRequest, models: Models, kind: &Kind, class: ClassId) -> bool {
    let cpu_only = matches!(kind, Kind::CpuOnly { .. });
    labels_match(group, &ledger.classes()[class])
        && (cpu_only || ledger.sorts(class).any(|device| wanted(group, models, device)))
}

/// Is there too little in all of the cluster, so that [`Search::new`] would find nothing to search?
pub fn is_short(ledger: &Ledger, group: &GroupRequest, models: Models) -> bool {
    let kind = Kind::of(group);
    let meant = (0..ledger.classes().len()).filter(|&class| is_meant(ledger, group, models, &kind, class));
    meant.map(|class| bound_of(ledger, &kind, ROOT, class)).sum::<u64>() < kind.need()
}

fn wanted(group: &GroupRequest, models: Models, device: &Device) -> bool {
    match models {
        Models::Any => device_allowed(group, device),
        Models::One(model) => device.model == *model,
        Models::Mixed(models) => models.contains(&device.model),
    }
}
