//! The domain and the first choice of victims in it, by what can be seen without a placement.

use super::{Offers, Price, Taken};
use crate::plan::feasible::{amount_on, device_allowed, node_allowed};
use crate::plan::ledger::{DomainId, Facts, Ledger, NodeView};
use crate::plan::round::Round;
use crate::plan::waiting::Item;
use crate::policy::Domains;
use crate::state::node::{DeviceState, NodeRecord};
use muster_common::job::{Count, GroupRequest};
use muster_common::resources::Amount;
use muster_common::topology::TopologyMode;
use muster_common::{DeviceId, GangId, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Domains in which the exact search is tried, of one level.
const DOMAINS_MAX: usize = 4;

/// In what a gang counts its need.
#[derive(Debug, Clone, Copy)]
enum Unit {
    /// Nodes with so many devices of which so much is free.
    Nodes {
        per_node: u32,
        milli: u16,
    },
    Devices,
}

/// Whom it takes to win something.
#[derive(Debug)]
struct Bundle {
    node: NodeId,
    victims: Vec<GangId>,
    gives: u64,
    /// The highest rank of a victim, and what all of them lose.
    rank: i64,
    loss: u128,
}

impl Bundle {
    fn of(node: NodeId, victims: Vec<GangId>, gives: u64, offers: &Offers) -> Self {
        let prices = || victims.iter().map(|gang| offers.prices.get(gang).copied().unwrap_or(Price::NOTHING));
        let rank = prices().map(|price| price.rank).max().unwrap_or(i64::MIN);
        let loss = prices().map(|price| u128::from(price.loss)).sum();
        Self { node, victims, gives, rank, loss }
    }
}

/// What could be had in one domain.
#[derive(Debug, Default)]
struct Yield<'s> {
    /// Free without anybody's end.
    free: u64,
    bundles: Vec<&'s Bundle>,
}

/// A node that the gang may use, and what could be had there: the same in whatever domain it is looked at.
struct Sight {
    facts: Arc<Facts>,
    gives: Option<(u64, Vec<Bundle>)>,
}

/// One or several domains that a gang must be inside of, or one node.
type Key = Vec<u64>;

#[derive(Debug)]
struct Candidate {
    price: Price,
    key: Key,
    victims: Vec<GangId>,
    /// Others in the same domain, should the first not be enough.
    rest: Vec<GangId>,
}

impl Round<'_> {
    /// The cheapest victims in the cheapest domain, proven to make room.
    pub(super) fn choose(
        &mut self,
        gang: GangId,
        item: &Item,
        offers: &Offers,
        avoid: &BTreeSet<NodeId>,
    ) -> Option<Taken> {
        let need = need(item);
        let mut sights = self.sights(gang, item, avoid);
        for levels in self.level_choices(item) {
            let mut found: Vec<Candidate> = self
                .yields(item, offers, &levels, &mut sights)
                .into_iter()
                .filter_map(|(key, found)| candidate(key, found, need, offers))
                .collect();
            found.sort_by(|a, b| (a.price, a.victims.len(), &a.key).cmp(&(b.price, b.victims.len(), &b.key)));
            // Where enough seems free, something else than devices was in the way when it was tried: such domains are
            // many where they are any, and leave the others their turn.
            let mut tried = [0; 2];
            for candidate in found.into_iter().filter(|found| !found.victims.is_empty() || !found.rest.is_empty()) {
                let tried = &mut tried[usize::from(candidate.victims.is_empty())];
                *tried += 1;
                if *tried > DOMAINS_MAX {
                    continue;
                }
                let taken = self.trimmed(gang, item, offers, avoid, candidate.victims, candidate.rest);
                if let Some(taken) = taken.and_then(|taken| self.if_all_have_places(gang, offers, taken)) {
                    return Some(taken);
                }
            }
        }
        None
    }

    /// Sets of levels, each of which the gang would be in one domain of; the first that will do.
    fn level_choices(&self, item: &Item) -> Vec<Vec<Within>> {
        let fabric = self.state.fabric();
        let mut homes: BTreeMap<usize, usize> = BTreeMap::new();
        let of_groups = item.scheduling.groups.iter().flat_map(|group| &group.topology);
        let requests = of_groups.chain(&item.scheduling.together);
        for request in requests.filter(|request| request.mode == TopologyMode::Required && request.at_most <= 1) {
            if request.level.as_str() == "node" {
                return vec![vec![Within::Node]];
            }
            if let Some((tree, depth)) = fabric.find_level(request.level.as_str()) {
                let known = homes.entry(tree).or_default();
                *known = (*known).max(depth);
            }
        }
        if !homes.is_empty() {
            return vec![homes.into_iter().map(|(tree, depth)| Within::Domain { tree, depth }).collect()];
        }
        let mut choices = Vec::new();
        if self.state.policy().domains == Domains::LowestFit {
            let depths = fabric.trees.first().map_or(0, |tree| tree.levels.len());
            choices.extend((1..=depths).rev().map(|depth| vec![Within::Domain { tree: 0, depth }]));
        }
        choices.push(Vec::new());
        choices
    }

    fn sights(&self, gang: GangId, item: &Item, avoid: &BTreeSet<NodeId>) -> Vec<Sight> {
        let groups = &item.scheduling.groups;
        let excluded = self.excluded(gang);
        let may_use = |view: &&NodeView| {
            let facts = &view.facts;
            let allowed = |group: &GroupRequest| node_allowed(group, &facts.name, &facts.inventory);
            view.open && !avoid.contains(&facts.id) && !excluded.contains(&facts.id) && groups.iter().any(allowed)
        };
        let views = self.ledger.nodes().filter(may_use);
        views.map(|view| Sight { facts: view.facts.clone(), gives: None }).collect()
    }

    fn yields<'s>(
        &mut self,
        item: &Item,
        offers: &Offers,
        levels: &[Within],
        sights: &'s mut [Sight],
    ) -> BTreeMap<Key, Yield<'s>> {
        let (groups, unit) = (&item.scheduling.groups, unit(item));
        let mut yields: BTreeMap<Key, Yield> = BTreeMap::new();
        for Sight { facts, gives } in sights {
            let Some(key) = key_of(self.ledger, facts, levels) else { continue };
            let (Some(view), Some(record)) = (self.ledger.node(facts.id), self.state.node(facts.id)) else { continue };
            self.spent += 1;
            let (free, bundles) = gives.get_or_insert_with(|| {
                let node = OnNode { round: self, view, record, offers, meant: OnNode::meant(view, groups) };
                match unit {
                    Unit::Nodes { per_node, milli } => node.as_a_whole(&groups[0], per_node, milli),
                    Unit::Devices => node.by_device(),
                }
            });
            let found = yields.entry(key).or_default();
            found.free += *free;
            found.bundles.extend(bundles.iter());
        }
        yields
    }
}

/// What a gang must be in one of.
#[derive(Debug, Clone, Copy)]
enum Within {
    Domain { tree: usize, depth: usize },
    Node,
}

fn need(item: &Item) -> u64 {
    match item.scheduling.groups.as_slice() {
        [GroupRequest { count: Count::Nodes { nodes, .. }, .. }] => u64::from(*nodes),
        _ => item.scheduling.devices(),
    }
}

fn unit(item: &Item) -> Unit {
    match item.scheduling.groups.as_slice() {
        [GroupRequest { count: Count::Nodes { per_node, .. }, share, .. }] => {
            Unit::Nodes { per_node: *per_node, milli: share.0.min(1000) }
        }
        _ => Unit::Devices,
    }
}

fn key_of(ledger: &Ledger, facts: &Facts, levels: &[Within]) -> Option<Key> {
    let in_level = |within: &Within| match *within {
        Within::Node => Some(facts.id.0),
        Within::Domain { tree, depth } => {
            let is_it = |domain: &&DomainId| {
                let known = ledger.domain_view(**domain);
                known.depth == depth && known.tree == tree
            };
            facts.domains.iter().find(is_it).map(|domain| *domain as u64)
        }
    };
    levels.iter().map(in_level).collect()
}

/// One node and who could go from it.
struct OnNode<'r, 'a> {
    round: &'r Round<'a>,
    view: &'r NodeView,
    record: &'r NodeRecord,
    offers: &'r Offers,
    /// By slot: a device of which some group may have any.
    meant: Vec<bool>,
}

impl OnNode<'_, '_> {
    fn meant(view: &NodeView, groups: &[GroupRequest]) -> Vec<bool> {
        let devices = view.facts.inventory.devices.iter();
        devices.map(|device| groups.iter().any(|group| device_allowed(group, device))).collect()
    }

    /// Gangs on the node that may go, the cheapest first.
    fn candidates(&self) -> Vec<GangId> {
        let known = |gang: &&GangId| self.offers.prices.contains_key(gang) || self.offers.leaving.contains(gang);
        let mut found: Vec<GangId> = self.record.gangs.iter().filter(known).copied().collect();
        found.sort_by_key(|gang| (self.offers.prices.get(gang).copied().unwrap_or(Price::NOTHING), *gang));
        found
    }

    /// Devices of which so much is free once these gangs are gone.
    fn devices_without(&self, gone: &[GangId], milli: u16) -> u32 {
        if gone.is_empty() && self.view.free.iter().all(|free| *free < milli) {
            return 0;
        }
        let enough = |slot: &usize| {
            let device = DeviceId { node: self.record.id, slot: *slot as u16 };
            let given: u16 = match self.record.devices.get(*slot) {
                Some(DeviceState::Ok(holders)) if !gone.is_empty() && self.view.facts.usable[*slot] => {
                    holders.iter().filter(|holder| gone.contains(&holder.gang)).map(|holder| holder.milli).sum()
                }
                _ => 0,
            };
            let given = if given > 0 && self.round.taking.masked_slots.contains(&device) { 0 } else { given };
            self.view.free[*slot] + given >= milli
        };
        (0..self.view.free.len()).filter(|slot| self.meant[*slot]).filter(enough).count() as u32
    }

    /// The whole node, for who wants whole parts of nodes.
    fn as_a_whole(&self, group: &GroupRequest, per_node: u32, milli: u16) -> (u64, Vec<Bundle>) {
        if group.exclusive {
            let free = self.record.gangs.is_empty() && self.devices_without(&[], milli) >= per_node;
            return if free { (1, Vec::new()) } else { self.emptied(per_node, milli) };
        }
        let need = amount_on(group, &self.view.facts.inventory, per_node);
        let enough =
            |gone: &[GangId]| self.devices_without(gone, milli) >= per_node && self.amount_without(gone).covers(&need);
        if enough(&[]) {
            return (1, Vec::new());
        }
        let mut gone: Vec<GangId> = Vec::new();
        for gang in self.candidates() {
            // Of CPU and memory alone it gives something only where they are missing.
            let gives = milli < 1000 || !self.holds_nothing(gang) || !self.amount_without(&gone).covers(&need);
            gone.extend(gives.then_some(gang));
            if gives && enough(&gone) {
                break;
            }
        }
        if !enough(&gone) {
            return (0, Vec::new());
        }
        // The dearest first, whoever is not needed after all.
        for gang in gone.clone().into_iter().rev() {
            let without: Vec<GangId> = gone.iter().filter(|other| **other != gang).copied().collect();
            if enough(&without) {
                gone = without;
            }
        }
        (0, vec![Bundle::of(self.record.id, gone, 1, self.offers)])
    }

    /// CPU and memory that are free once these gangs are gone.
    fn amount_without(&self, gone: &[GangId]) -> Amount {
        let part = |gang: &GangId| {
            let attempt = self.round.state.gang(*gang)?.current()?;
            Some(attempt.parts[attempt.part_on(self.record.id)?].amount)
        };
        gone.iter().filter_map(part).fold(self.view.amount, |sum, amount| sum.plus(&amount))
    }

    /// For who wants nobody beside it.
    fn emptied(&self, per_node: u32, milli: u16) -> (u64, Vec<Bundle>) {
        let victims = self.candidates();
        let enough = victims.len() == self.record.gangs.len() && self.devices_without(&victims, milli) >= per_node;
        (0, enough.then(|| Bundle::of(self.record.id, victims, 1, self.offers)).into_iter().collect())
    }

    fn holds_nothing(&self, gang: GangId) -> bool {
        self.record.devices.iter().all(|device| device.holders().iter().all(|holder| holder.gang != gang))
    }

    /// Devices of the node one by one, for who wants any of them.
    fn by_device(&self) -> (u64, Vec<Bundle>) {
        let free = self.devices_without(&[], 1000);
        let bundle = |gang: GangId| {
            let gives = u64::from(self.devices_without(&[gang], 1000) - free);
            // Who holds none may hold the CPU and the memory that they are of no use without.
            (gives > 0 || self.holds_nothing(gang)).then(|| Bundle::of(self.record.id, vec![gang], gives, self.offers))
        };
        (u64::from(free), self.candidates().into_iter().filter_map(bundle).collect())
    }
}

impl Price {
    /// Of what goes anyway.
    pub const NOTHING: Price = Price { rank: i64::MIN, loss: 0 };
}

/// The cheapest bundles that give enough, by rank first and by loss for each unit won.
fn candidate(key: Key, found: Yield, need: u64, offers: &Offers) -> Option<Candidate> {
    let price = |gang: &GangId| offers.prices.get(gang).copied().unwrap_or(Price::NOTHING);
    if found.free + found.bundles.iter().map(|bundle| bundle.gives).sum::<u64>() < need {
        return None;
    }
    // What one gang's end gives in the whole domain counts for it, up to what is needed.
    let mut alone: BTreeMap<GangId, u64> = BTreeMap::new();
    for bundle in &found.bundles {
        if let [gang] = bundle.victims.as_slice() {
            *alone.entry(*gang).or_default() += bundle.gives;
        }
    }
    let missing = need.saturating_sub(found.free).max(1);
    let worth = |bundle: &Bundle| {
        let gives = match bundle.victims.as_slice() {
            [gang] => alone.get(gang).copied().unwrap_or(1),
            _ => bundle.gives,
        };
        (bundle.rank, bundle.loss * 1024 / u128::from(gives.clamp(1, missing)))
    };
    let mut order: Vec<_> = found.bundles.iter().map(|bundle| (worth(bundle), bundle)).collect();
    order.sort_by(|a, b| (a.0, &a.1.victims, a.1.node).cmp(&(b.0, &b.1.victims, b.1.node)));
    let mut chosen: BTreeSet<GangId> = BTreeSet::new();
    let mut rest: BTreeSet<GangId> = BTreeSet::new();
    let mut have = found.free;
    for (_, bundle) in &order {
        if have < need && bundle.gives > 0 {
            have += bundle.gives;
            chosen.extend(&bundle.victims);
        } else {
            rest.extend(&bundle.victims);
        }
    }
    rest.retain(|gang| !chosen.contains(gang));
    let to_stop = |gang: &&GangId| !offers.leaving.contains(gang);
    if have < need || chosen.iter().filter(to_stop).count() > offers.victims_max {
        return None;
    }
    let rank = chosen.iter().map(|gang| price(gang).rank).max().unwrap_or(i64::MIN);
    let loss = chosen.iter().map(|gang| price(gang).loss).fold(0, u64::saturating_add);
    let victims = chosen.into_iter().collect();
    Some(Candidate { price: Price { rank, loss }, key, victims, rest: rest.into_iter().collect() })
}
