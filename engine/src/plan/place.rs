//! Where a gang goes: scopes that its topology allows, the best first; in each, the nodes; on each,
//! the devices. Pure: reads the ledger, changes nothing.

use super::feasible::{amount_on, check_topology, per_node_max, total_allowed};
use super::fill::Kind;
use super::ledger::{ClassId, DomainId, Ledger, NodeView, ROOT};
use super::scope::{self, Scope};
use super::{devices, feasible};
use crate::command::PlacedPart;
use crate::policy::{Domains, Policy};
use muster_common::job::GroupRequest;
use muster_common::topology::FabricSpec;
use muster_common::{Name, NodeId};

/// One gang's wish and what its earlier attempts rule out.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub group: &'a GroupRequest,
    pub excluded: &'a [NodeId],
}

/// Whole nodes, with the devices each gives.
pub type Picked = Vec<(NodeId, u32)>;

/// The search for one gang and one acceptable model.
pub struct Search<'a> {
    pub ledger: &'a Ledger,
    pub fabric: &'a FabricSpec,
    pub policy: &'a Policy,
    pub group: &'a GroupRequest,
    pub excluded: &'a [NodeId],
    pub model: Option<&'a Name>,
    pub classes: Vec<ClassId>,
    pub kind: Kind,
}

/// A placement on what is free now, in rank order; `None` when there is none.
pub fn place(
    ledger: &Ledger,
    fabric: &FabricSpec,
    policy: &Policy,
    request: Request,
    steps: &mut u64,
) -> Option<Vec<PlacedPart>> {
    *steps += 1;
    let any = [None];
    let models: Vec<Option<&Name>> = request.group.models.iter().map(Some).collect();
    let models = if models.is_empty() { any.as_slice() } else { models.as_slice() };
    models.iter().find_map(|&model| {
        let search = Search::new(ledger, fabric, policy, request, model)?;
        let picked = search.run(steps)?;
        Some(search.parts(picked, steps))
    })
}

impl<'a> Search<'a> {
    fn new(
        ledger: &'a Ledger,
        fabric: &'a FabricSpec,
        policy: &'a Policy,
        request: Request<'a>,
        model: Option<&'a Name>,
    ) -> Option<Self> {
        let Request { group, excluded } = request;
        let kind = Kind::of(group);
        let has_model = |class: ClassId| match model {
            Some(model) if kind != Kind::CpuOnly { nodes: kind.need() as u32 } => {
                ledger.classes()[class].devices.iter().any(|device| device.model == *model)
            }
            _ => true,
        };
        let classes: Vec<ClassId> = (0..ledger.classes().len())
            .filter(|&class| feasible::labels_match(group, &ledger.classes()[class]) && has_model(class))
            .collect();
        let search = Self { ledger, fabric, policy, group, excluded, model, classes, kind };
        (search.bound(ROOT) >= search.kind.need()).then_some(search)
    }

    fn run(&self, steps: &mut u64) -> Option<Picked> {
        let wish = scope::Wish::of(self.group, self.fabric);
        for scope in self.scopes(&wish) {
            if let Some(picked) = self.in_scope(&scope, &wish, steps) {
                return Some(picked);
            }
        }
        None
    }

    /// The widest scopes that the required levels allow, the fullest sufficient one first.
    fn scopes(&self, wish: &scope::Wish) -> Vec<Scope> {
        let mut scopes = vec![Scope::default()];
        for &(tree, depth) in &wish.homes {
            scopes = scopes.iter().flat_map(|scope| self.narrowed(scope, tree, depth)).collect();
        }
        scopes
    }

    /// A scope cut down to each domain of a level that may hold the gang.
    pub fn narrowed(&self, scope: &Scope, tree: usize, depth: usize) -> Vec<Scope> {
        let mut found: Vec<(u64, DomainId)> = self
            .ledger
            .domains_at(tree, depth)
            .filter(|&domain| scope.admits(self.ledger, domain))
            .map(|domain| (self.bound(domain), domain))
            .filter(|(bound, _)| *bound >= self.kind.need())
            .collect();
        found.sort_by(|a, b| (a.0, self.path(a.1)).cmp(&(b.0, self.path(b.1))));
        found.into_iter().map(|(_, domain)| scope.narrow(self.ledger, domain)).collect()
    }

    fn path(&self, domain: DomainId) -> &[Name] {
        &self.ledger.domain_view(domain).path
    }

    fn in_scope(&self, scope: &Scope, wish: &scope::Wish, steps: &mut u64) -> Option<Picked> {
        if wish.one_node {
            return self.checked(self.one_node(scope, steps));
        }
        let lowest = self.policy.domains == Domains::LowestFit;
        if lowest
            && self.kind.fits_one_node()
            && let Some(picked) = self.checked(self.one_node(scope, steps))
        {
            return Some(picked);
        }
        for level in wish.levels(self.fabric, scope, self.ledger, lowest) {
            for narrow in self.narrowed(scope, level.tree, level.depth) {
                if let Some(picked) = self.checked(self.fill(&narrow, steps)) {
                    return Some(picked);
                }
            }
            if level.at_most > 1 {
                let some = self.some_domains(scope, level, steps);
                if let Some(picked) = self.checked(some) {
                    return Some(picked);
                }
            }
        }
        match wish.few {
            Some(level) => self.checked(self.some_domains(scope, level, steps)),
            None => self.checked(self.fill(scope, steps)),
        }
    }

    /// At most so many domains of a level: the roomiest ones, and for the rest the least sufficient.
    fn some_domains(&self, scope: &Scope, level: scope::Level, steps: &mut u64) -> Option<Picked> {
        let mut left: Vec<(u64, DomainId)> = self
            .ledger
            .domains_at(level.tree, level.depth)
            .filter(|&domain| scope.admits(self.ledger, domain))
            .map(|domain| (self.bound(domain), domain))
            .filter(|(bound, _)| *bound > 0)
            .collect();
        left.sort_by(|a, b| (a.0, self.path(b.1)).cmp(&(b.0, self.path(a.1))));
        let mut wanted = self.kind.need();
        let mut chosen = Vec::new();
        while wanted > 0 && (chosen.len() as u32) < level.at_most {
            let enough = left.partition_point(|(bound, _)| *bound < wanted);
            let at = if enough < left.len() { enough } else { left.len().checked_sub(1)? };
            let (bound, domain) = left.remove(at);
            wanted = wanted.saturating_sub(bound);
            chosen.push(domain);
        }
        if wanted > 0 {
            return None;
        }
        self.fill(&scope.among(self.ledger, chosen), steps)
    }

    /// The last word on topology and shape is the predicate that `apply` uses.
    fn checked(&self, picked: Option<Picked>) -> Option<Picked> {
        let picked = picked?;
        let nodes = picked.iter().map(|(id, _)| (*id, &*self.view(*id).facts.inventory));
        check_topology(self.group, self.fabric, nodes).ok()?;
        if let Kind::Total(total) = &self.kind {
            let taken: Vec<u32> = picked.iter().map(|(_, devices)| *devices).collect();
            return total_allowed(total, &taken).then_some(picked);
        }
        Some(picked)
    }

    pub fn view(&self, id: NodeId) -> &NodeView {
        self.ledger.node(id).expect("a pool's node is in the ledger")
    }

    /// No more than this can be had in a domain; exact but for CPU, memory, names and mixed models.
    pub fn bound(&self, domain: DomainId) -> u64 {
        let pools = self.classes.iter().filter_map(|&class| self.ledger.pool(domain, class));
        match &self.kind {
            Kind::Whole { per_node, .. } => pools.map(|pool| pool.nodes_with(*per_node)).sum(),
            Kind::Total(total) if per_node_max(total) == 1 => pools.map(|pool| pool.nodes_with(1)).sum(),
            Kind::Total(_) => pools.map(|pool| pool.free_sum).sum(),
            Kind::Shared { .. } | Kind::CpuOnly { .. } => pools.map(|pool| pool.by_free.len() as u64).sum(),
        }
    }

    /// Is the node one that the gang may use at all, whatever is free there?
    pub fn may_use(&self, view: &NodeView) -> bool {
        view.open
            && view.ports > 0
            && !self.excluded.contains(&view.facts.id)
            && !self.group.exclude.contains(&view.facts.name)
    }

    /// Wholly free slots of the wanted model.
    fn free_slots(&self, view: &NodeView) -> Vec<u16> {
        let devices = &view.facts.inventory.devices;
        let wanted = |slot: usize| self.model.is_none_or(|model| devices[slot].model == *model);
        (0..view.free.len()).filter(|&slot| view.free[slot] == 1000 && wanted(slot)).map(|slot| slot as u16).collect()
    }

    fn mixed(&self, view: &NodeView) -> bool {
        self.model.is_some_and(|model| view.facts.inventory.devices.iter().any(|device| device.model != *model))
    }

    /// Can the node give so many whole devices, with the CPU and memory that go with them?
    pub fn gives(&self, view: &NodeView, devices: u32, steps: &mut u64) -> bool {
        *steps += 1;
        let free = if self.mixed(view) { self.free_slots(view).len() as u32 } else { view.whole };
        free >= devices
            && self.may_use(view)
            && view.amount.covers(&amount_on(self.group, &view.facts.inventory, devices))
    }

    /// The most whole devices the node can give, up to `most`.
    pub fn gives_up_to(&self, view: &NodeView, most: u32, steps: &mut u64) -> u32 {
        let most = most.min(view.whole);
        (1..=most).rev().find(|&devices| self.gives(view, devices, steps)).unwrap_or(0)
    }

    /// The slots with the least sufficient share, or `None`.
    pub fn shared_slots(&self, view: &NodeView, count: u32, milli: u16, steps: &mut u64) -> Option<Vec<u16>> {
        *steps += 1;
        let devices = &view.facts.inventory.devices;
        let wanted = |slot: usize| self.model.is_none_or(|model| devices[slot].model == *model);
        let mut slots: Vec<(u16, u16)> = (0..view.free.len())
            .filter(|&slot| view.free[slot] >= milli && wanted(slot))
            .map(|slot| (view.free[slot], slot as u16))
            .collect();
        let enough = slots.len() as u64 >= u64::from(count)
            && self.may_use(view)
            && view.amount.covers(&amount_on(self.group, &view.facts.inventory, count));
        if !enough {
            return None;
        }
        slots.sort_unstable();
        let mut chosen: Vec<u16> = slots.into_iter().take(count as usize).map(|(_, slot)| slot).collect();
        chosen.sort_unstable();
        Some(chosen)
    }

    /// Parts in rank order: nodes by their place in the first tree, so that hosts of one leaf are
    /// neighbours; devices by slot, so that local rank i is on rail i.
    fn parts(&self, mut picked: Picked, steps: &mut u64) -> Vec<PlacedPart> {
        let tree = self.fabric.trees.first().map(|tree| &tree.name);
        picked.sort_by(|(a, _), (b, _)| {
            let (a, b) = (&self.view(*a).facts, &self.view(*b).facts);
            let place = |facts: &super::ledger::Facts| tree.and_then(|tree| facts.inventory.place.get(tree)).cloned();
            (place(a), &a.name, a.id).cmp(&(place(b), &b.name, b.id))
        });
        picked.into_iter().map(|(id, count)| self.part(id, count, steps)).collect()
    }

    fn part(&self, id: NodeId, count: u32, steps: &mut u64) -> PlacedPart {
        let view = self.view(id);
        let milli = self.group.share.0.min(1000);
        let slots = match self.kind {
            Kind::CpuOnly { .. } => Vec::new(),
            Kind::Shared { .. } => self.shared_slots(view, count, milli, steps).unwrap_or_default(),
            _ => devices::choose(view, &self.free_slots(view), count as usize, self.policy.device, steps),
        };
        PlacedPart {
            node: id,
            epoch: view.facts.epoch,
            devices: slots.into_iter().map(|slot| (slot, milli)).collect(),
            amount: amount_on(self.group, &view.facts.inventory, count),
        }
    }
}
