//! Where a gang goes: all of its groups, or none. Pure: reads the ledger, changes nothing.
//!
//! Groups are placed one after the other on different nodes, the tightest first; one that finds no room
//! beside the others goes before them and all are tried again. A gang of several groups is tried in the
//! narrowest domains first, as one of a single group is.

use super::ledger::{DomainId, Ledger};
use super::scope::{self, Scope};
use super::search::{Ground, Models, Search};
use crate::command::PlacedPart;
use crate::policy::{Domains, Policy, Score};
use muster_common::job::{GroupRequest, Scheduling};
use muster_common::topology::{FabricSpec, TopologyRequest};
use muster_common::{GangId, Name, NodeId};
use std::collections::BTreeSet;

/// One gang's wish and what its earlier attempts rule out.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub groups: &'a [GroupRequest],
    pub together: &'a [TopologyRequest],
    pub excluded: &'a [NodeId],
    /// For who asks chance.
    pub gang: GangId,
}

impl<'a> Request<'a> {
    pub fn of(scheduling: &'a Scheduling, excluded: &'a [NodeId]) -> Self {
        let Scheduling { groups, together, .. } = scheduling;
        Self { groups, together, excluded, gang: GangId::default() }
    }

    pub fn for_gang(self, gang: GangId) -> Self {
        Self { gang, ..self }
    }
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
    let found = find(Gang { ledger, fabric, policy, request }, steps);
    // Chance may set groups in each other's way. One draw is everybody's, so that what fits at all is not left to chance.
    let fixed = request.for_gang(GangId::default());
    match policy.score {
        Score::Random { .. } if found.is_none() && request.gang != fixed.gang => {
            find(Gang { ledger, fabric, policy, request: fixed }, steps)
        }
        _ => found,
    }
}

fn find(gang: Gang, steps: &mut u64) -> Option<Vec<PlacedPart>> {
    let request = gang.request;
    if let ([group], []) = (request.groups, request.together) {
        return gang.group(group, 0, &Scope::default(), &BTreeSet::new(), steps);
    }
    gang.bases(steps).into_iter().find_map(|base| gang.all_groups(&base, steps))
}

#[derive(Clone, Copy)]
struct Gang<'a> {
    ledger: &'a Ledger,
    fabric: &'a FabricSpec,
    policy: &'a Policy,
    request: Request<'a>,
}

impl<'a> Gang<'a> {
    fn ground<'t>(&self, taken: &'t BTreeSet<NodeId>) -> Ground<'t>
    where
        'a: 't,
    {
        let Gang { ledger, fabric, policy, request } = *self;
        Ground { ledger, fabric, policy, excluded: request.excluded, taken, gang: request.gang }
    }

    /// One group: the first of its models that fits; a mixture after all of them alone.
    fn group(
        &self,
        group: &GroupRequest,
        number: u16,
        base: &Scope,
        taken: &BTreeSet<NodeId>,
        steps: &mut u64,
    ) -> Option<Vec<PlacedPart>> {
        models_of(group, self.ledger)
            .into_iter()
            .find_map(|models| Search::new(self.ground(taken), group, models, base)?.parts_in(base, number, steps))
    }

    /// How many times over the roomiest choice of models of a group fits a domain, at most; `None` = not once.
    fn slack(&self, group: &GroupRequest, domain: DomainId) -> Option<u64> {
        let (base, none) = (Scope { bases: vec![domain], filters: Vec::new() }, BTreeSet::new());
        let bound = |models| Some(Search::new(self.ground(&none), group, models, &base)?.room_in(domain));
        models_of(group, self.ledger).into_iter().filter_map(bound).max()
    }

    /// Scopes for the gang as a whole: inside each level that it requires, the narrowest domains first.
    fn bases(&self, steps: &mut u64) -> Vec<Scope> {
        let homes = scope::homes(self.request.together, self.fabric);
        let mut bases = vec![Scope::default()];
        for &(tree, depth) in &homes {
            bases = bases.iter().flat_map(|base| self.narrowed(base, tree, depth, steps)).collect();
        }
        if self.policy.domains != Domains::LowestFit {
            return bases;
        }
        let (tree, from) = homes.first().copied().unwrap_or((0, 0));
        let levels = self.fabric.trees.get(tree).map_or(0, |tree| tree.levels.len());
        let mut all = Vec::new();
        for depth in (from + 1..=levels).rev() {
            all.extend(bases.iter().flat_map(|base| self.narrowed(base, tree, depth, steps)));
        }
        all.extend(bases);
        all
    }

    /// The domains of a level inside a scope that could hold every group, the fullest first.
    fn narrowed(&self, scope: &Scope, tree: usize, depth: usize, steps: &mut u64) -> Vec<Scope> {
        let inside = self.ledger.domains_at(tree, depth).filter(|&domain| scope.admits(self.ledger, domain));
        let mut found: Vec<(u64, DomainId)> = inside
            .filter_map(|domain| {
                *steps += 1;
                let slack: Option<Vec<u64>> =
                    self.request.groups.iter().map(|group| self.slack(group, domain)).collect();
                Some((slack?.into_iter().sum(), domain))
            })
            .collect();
        let path = |domain: DomainId| &self.ledger.domain_view(domain).path;
        found.sort_by(|a, b| (a.0, path(a.1)).cmp(&(b.0, path(b.1))));
        found.into_iter().map(|(_, domain)| scope.narrow(self.ledger, domain)).collect()
    }

    fn all_groups(&self, base: &Scope, steps: &mut u64) -> Option<Vec<PlacedPart>> {
        let groups = self.request.groups;
        let tightness =
            |number: &usize| base.bases.iter().map(|&domain| self.slack(&groups[*number], domain)).max().flatten();
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by_key(|number| (tightness(number), *number));
        let mut moved: BTreeSet<usize> = BTreeSet::new();
        loop {
            match self.in_turn(&order, base, steps) {
                Ok(parts) => return Some(parts),
                // Nothing was before it, or it has been before all others already.
                Err(0) => return None,
                Err(at) if !moved.insert(order[at]) => return None,
                Err(at) => order[..=at].rotate_right(1),
            }
        }
    }

    /// # Errors
    /// The place in the order of the first group that found no room.
    fn in_turn(&self, order: &[usize], base: &Scope, steps: &mut u64) -> Result<Vec<PlacedPart>, usize> {
        let mut taken: BTreeSet<NodeId> = BTreeSet::new();
        let mut parts: Vec<Vec<PlacedPart>> = vec![Vec::new(); order.len()];
        for (at, &number) in order.iter().enumerate() {
            let group = &self.request.groups[number];
            let placed = self.group(group, number as u16, base, &taken, steps).ok_or(at)?;
            taken.extend(placed.iter().map(|part| part.node));
            parts[number] = placed;
        }
        Ok(parts.into_iter().flatten().collect())
    }
}

/// What is tried in turn: as the group prefers, or by price where the policy says so.
pub(super) fn models_of<'a>(group: &'a GroupRequest, ledger: &'a Ledger) -> Vec<Models<'a>> {
    let mut named: Vec<&Name> = group.models.iter().collect();
    if let Some(prices) = ledger.prices().filter(|_| group.devices() > 0) {
        if named.is_empty() {
            let devices = (0..ledger.classes().len()).flat_map(|class| ledger.sorts(class));
            let whole = devices.filter(|device| device.parent.is_none());
            named = whole.map(|device| &device.model).collect::<BTreeSet<_>>().into_iter().collect();
        }
        named.sort_by_key(|model| prices.price_of(model));
    }
    let mut choices: Vec<Models> = named.into_iter().map(Models::One).collect();
    if group.models.is_empty() {
        choices.push(Models::Any);
    } else if group.mixed_models && choices.len() > 1 {
        choices.push(Models::Mixed(&group.models));
    }
    choices
}
