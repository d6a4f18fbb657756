//! The check: may work that stays take these devices, or would somebody then lack a cell it owns?

use super::assign::{Kind, Owner, Whose, assign, missing, strictly_lost};
use super::{Held, NODES, OfModel, Owed, Standing, Which, devices_of, shared};
use crate::command::PlacedPart;
use crate::state::State;
use muster_common::job::Scheduling;
use muster_common::topology::FabricSpec;
use muster_common::{GangId, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most classes of domains of which it is asked at a time whether something may be taken there.
const ASKED_MAX: usize = 1024;

/// Devices of one model on one node that somebody would take, or, below 0, let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Take {
    model: usize,
    pub node: NodeId,
    pub(super) devices: i32,
    /// For whose work; `None` = of somebody who owns no cells of the model.
    whose: Option<Whose>,
}

impl Owed {
    /// What parts of a gang take of models of which cells are owned. A device that somebody has for good is as
    /// taken as it can be, unless that one leaves, or shares it: then it changes hands.
    pub fn takes(&self, state: &State, scheduling: &Scheduling, parts: &[PlacedPart]) -> Vec<Take> {
        let whose = self.whose_all(scheduling, state.fabric());
        let mut takes = Vec::new();
        for part in parts {
            let Some(node) = state.node(part.node) else { continue };
            for (model, known) in self.models.iter().enumerate() {
                let slots = devices_of(&node.inventory, &known.name);
                let mut taken: BTreeMap<Option<Whose>, i32> = BTreeMap::new();
                for slot in slots.filter(|slot| part.devices.iter().any(|(other, _)| usize::from(*other) == *slot)) {
                    let before = self.held(state, model, node, slot, Which::All);
                    let after = match self.held(state, model, node, slot, Which::Staying) {
                        Held::InTime => whose[model],
                        Held::By(other) => shared(other, whose[model]),
                        Held::Lost => continue,
                    };
                    match before {
                        Held::By(known) if known == after => continue,
                        Held::By(known) => *taken.entry(known).or_default() -= 1,
                        Held::InTime | Held::Lost => {}
                    }
                    *taken.entry(after).or_default() += 1;
                }
                let take = |(whose, devices)| Take { model, node: part.node, devices, whose };
                takes.extend(taken.into_iter().filter(|(_, devices)| *devices != 0).map(take));
            }
        }
        takes
    }

    /// Work that stays takes these (`sign` 1), or lets go of them again (-1).
    pub fn hold(&mut self, take: Take, sign: i32) {
        self.barred_each_way.clear();
        self.try_hold(take, sign);
    }

    pub(super) fn try_hold(&mut self, take: Take, sign: i32) {
        if let Some(model) = self.models.get_mut(take.model) {
            model.hold(take.node, take.whose, sign * take.devices);
        }
    }

    /// Does everybody still have the cells that can be had now, if a gang takes these? Also if others start elsewhere than
    /// on what is kept for them.
    pub fn admits(&mut self, gang: GangId, takes: &[Take]) -> bool {
        self.each_way(gang, |owed| owed.admits_so(takes))
    }

    fn admits_so(&mut self, takes: &[Take]) -> bool {
        (0..self.models.len()).all(|at| {
            let of_model: Vec<Take> = takes.iter().filter(|take| take.model == at).copied().collect();
            of_model.is_empty() || self.models[at].admits(&of_model)
        })
    }

    /// The first of them that somebody would lack a cell for.
    pub fn first_refused(&mut self, gang: GangId, takes: &[Take]) -> Option<usize> {
        if self.admits(gang, takes) {
            return None;
        }
        let (mut good, mut bad) = (0, takes.len());
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if self.admits(gang, &takes[..middle]) { good = middle } else { bad = middle }
        }
        Some(bad - 1)
    }

    /// Nodes of which a gang may take nothing for good.
    pub fn barred(&mut self, gang: GangId, scheduling: &Scheduling, fabric: &FabricSpec) -> BTreeSet<NodeId> {
        let key = (self.kept.contains_key(&gang).then_some(gang), self.whose_all(scheduling, fabric));
        if let Some(known) = self.barred_each_way.get(&key) {
            return known.clone();
        }
        let mut all = BTreeSet::new();
        self.each_way(gang, |owed| {
            let barred = |model: &mut OfModel| model.barred(model.whose(scheduling, fabric));
            owed.models.iter_mut().for_each(|model| all.extend(barred(model).iter().copied()));
            true
        });
        if !self.kept.is_empty() {
            self.barred_each_way.insert(key, all.clone());
        }
        all
    }

    fn whose_all(&self, scheduling: &Scheduling, fabric: &FabricSpec) -> Vec<Option<Whose>> {
        self.models.iter().map(|model| model.whose(scheduling, fabric)).collect()
    }

    /// Forgets what was found out for its own sake: what a cycle spends is the same whatever was asked before.
    pub fn begin_cycle(&mut self) {
        self.models.iter_mut().for_each(|model| (model.known.barred, model.work) = Default::default());
    }

    /// Domains that were looked at since this was last asked.
    pub fn worked(&mut self) -> u64 {
        self.models.iter_mut().map(|model| std::mem::take(&mut model.work)).sum()
    }

    /// Whole nodes beside one in the narrowest domain that counts.
    pub fn beside(&self, take: Take) -> Vec<NodeId> {
        let Some(model) = self.models.get(take.model) else { return Vec::new() };
        let Some(bottom) = model.nodes.get(&take.node).map(|on| on.bottom) else { return Vec::new() };
        let whole = |on: &super::OnNode| on.bottom == bottom && on.standing(model.gpus) != Standing::Nobodys;
        model.nodes.iter().filter(|(_, on)| whole(on)).map(|(id, _)| *id).collect()
    }

    /// Cells that cannot be had because of others' work or of the hardware, over all.
    pub fn lost(&mut self) -> u64 {
        self.models.iter_mut().map(|model| model.outlook_now().lost_of_others()).sum()
    }
}

impl OfModel {
    /// An owner's small jobs keep off its own wide cells while it has smaller ones for them. That keeps nobody else from
    /// theirs: how others' work could lie in their cells is not asked.
    fn admits(&mut self, takes: &[Take]) -> bool {
        let owners: BTreeSet<Owner> =
            takes.iter().filter(|take| take.devices > 0).filter_map(|take| Some(take.whose?.0)).collect();
        let strict_before: Vec<Arc<Vec<u32>>> = owners.iter().map(|owner| self.known_strictly(*owner)).collect();
        let before = self.outlook_now();
        let known = std::mem::take(&mut self.known);
        let mut changed = false;
        for take in takes {
            changed |= self.hold(take.node, take.whose, take.devices);
        }
        let good = !changed || {
            let most = missing(&self.kinds, &before.at_least);
            let after = assign(&self.kinds, &self.bottoms, &self.at_last, most);
            let no_more =
                |after: &[u32], before: &[u32]| after.iter().zip(before).all(|(after, before)| after <= before);
            let strictly = |(owner, before): (&Owner, &Arc<Vec<u32>>)| {
                no_more(&strictly_lost(&self.kinds, &self.bottoms, *owner), before)
            };
            no_more(&after.lost(), &before.lost()) && owners.iter().zip(&strict_before).all(strictly)
        };
        self.work += self.kinds.iter().map(|kind| kind.domains.len() as u64).sum::<u64>() * u64::from(changed);
        takes.iter().for_each(|take| _ = self.hold(take.node, take.whose, -take.devices));
        self.known = known;
        good
    }

    fn known_strictly(&mut self, owner: Owner) -> Arc<Vec<u32>> {
        let known = self.known.strict.get(&owner).cloned();
        let lost = known.unwrap_or_else(|| Arc::new(strictly_lost(&self.kinds, &self.bottoms, owner)));
        self.known.strict.insert(owner, lost.clone());
        lost
    }

    fn barred(&mut self, whose: Option<Whose>) -> Arc<Vec<NodeId>> {
        let known = self.known.barred.get(&whose).cloned();
        let found = known.unwrap_or_else(|| Arc::new(self.find_barred(whose)));
        self.known.barred.insert(whose, found.clone());
        found
    }

    fn find_barred(&mut self, whose: Option<Whose>) -> Vec<NodeId> {
        let classes = self.classes();
        let mut known: BTreeMap<(usize, Change), bool> = BTreeMap::new();
        let mut barred = Vec::new();
        let nodes: Vec<(NodeId, usize, Change)> = self
            .nodes
            .iter()
            .filter_map(|(id, on)| Some((*id, classes[on.bottom], self.change_of(on, whose)?)))
            .collect();
        for (node, class, change) in nodes {
            let is_barred = match known.get(&(class, change)) {
                Some(is_barred) => *is_barred,
                // Those beyond stay open: what is placed there is checked all the same.
                None if known.len() >= ASKED_MAX => continue,
                None => {
                    let found = !self.admits(&[Take { model: 0, node, devices: 1, whose }]);
                    known.insert((class, change), found);
                    found
                }
            };
            if is_barred {
                barred.push(node);
            }
        }
        barred
    }

    /// Domains of the narrowest level by what is in them and beside them in each wider one: what happens in one is what
    /// happens in another of its class.
    fn classes(&self) -> Vec<usize> {
        let own = self.bottoms.iter().zip(&self.at_last);
        let mut classes = numbered(own);
        let mut depths: Vec<&Kind> = self.kinds.iter().filter(|kind| kind.depth != NODES).collect();
        depths.dedup_by_key(|kind| kind.depth);
        for kind in depths.into_iter().rev() {
            let mut beside: Vec<Vec<usize>> = vec![Vec::new(); classes.len()];
            for members in &kind.domains {
                let mut all: Vec<usize> = members.iter().map(|at| classes[*at]).collect();
                all.sort_unstable();
                members.iter().for_each(|at| beside[*at].clone_from(&all));
            }
            classes = numbered(beside.into_iter().zip(classes));
        }
        classes
    }

    /// What it makes of a node when one device of it is taken for good.
    fn change_of(&self, on: &super::OnNode, whose: Option<Whose>) -> Option<Change> {
        let before = on.counts(self.gpus);
        let mut then = on.clone();
        then.change(whose, 1);
        let after = then.counts(self.gpus);
        (before != after).then_some((before, after))
    }
}

type Change = ((Standing, bool), (Standing, bool));

/// Equal ones have the same number.
fn numbered<T: Ord>(all: impl Iterator<Item = T>) -> Vec<usize> {
    let mut numbers: BTreeMap<T, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for one in all {
        let next = numbers.len();
        found.push(*numbers.entry(one).or_insert(next));
    }
    found
}
