//! Cells that accounts own, and whether they can have them: counts by domain, kept up with what runs. See ADR 7.

pub mod assign;
mod beside;
mod guard;
mod search;
mod shape;
mod tell;
mod views;

pub use beside::{BeyondCells, beside};
pub use guard::Take;
pub use shape::{Hard, entitled, entitled_again, within};
pub use tell::{CellsOf, cells_of, told};

use crate::organisation::{CellQuota, Organisation};
use crate::state::State;
use crate::state::gang::GangState;
use crate::state::node::{DeviceState, NodeRecord};
use assign::{Bottom, Kind, Outlook, Owner, Whose, assign};
use muster_common::job::Scheduling;
use muster_common::node::Inventory;
use muster_common::topology::FabricSpec;
use muster_common::{GangId, Name, NodeId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use views::Known;

/// Depth of single nodes.
const NODES: usize = 0;

#[derive(Debug, Clone, Default)]
pub struct Owed {
    /// By name. Empty = nobody owns cells, and nothing is checked.
    models: Vec<OfModel>,
    in_time: InTime,
    /// Gangs that are to be stopped, beside those that end already.
    gone: BTreeSet<GangId>,
    /// What is kept for gangs on devices that others hold still, and will only slowly leave.
    kept: BTreeMap<GangId, Vec<Take>>,
    /// Nodes closed to somebody's work in any of these ways, while anything is kept and that is known.
    barred_each_way: BTreeMap<Asker, BTreeSet<NodeId>>,
}

/// The gang, if something is kept for it, and whose work it is of each model.
type Asker = (Option<GangId>, Vec<Option<Whose>>);

/// What can be stopped soon enough for those who are promised their own within a time.
#[derive(Debug, Clone, Copy, Default)]
pub struct InTime {
    /// Its longest grace; `None` = nobody is promised a time.
    grace_max_ms: Option<i64>,
}

impl InTime {
    pub fn of(state: &State) -> Self {
        Self::under(state, state.accounts().document())
    }

    /// Time is spent on the shortest run that policy leaves alone, on the grace, and on killing what is left.
    fn under(state: &State, document: &Organisation) -> Self {
        let min_run_ms = state.policy().taking.reclaim.min_run_ms.saturating_add(state.settings().kill_bound_ms);
        let left = |within: u64| i64::try_from(within).unwrap_or(i64::MAX).saturating_sub_unsigned(min_run_ms);
        Self { grace_max_ms: document.reclaim_within_ms().map(left) }
    }

    /// May what runs so not be stopped, or not soon enough?
    pub fn is_firm(self, scheduling: &Scheduling) -> bool {
        let grace_ms = i64::try_from(scheduling.checkpoint.grace_ms).unwrap_or(i64::MAX);
        !scheduling.preemptible || self.grace_max_ms.is_some_and(|most| grace_ms > most)
    }
}

/// The cells of one model and what there is to make them of.
#[derive(Debug, Clone)]
struct OfModel {
    name: Name,
    /// Devices on each node of a cell.
    gpus: i32,
    /// Its tree, where a level of one is named.
    tree: Option<usize>,
    kinds: Vec<Kind>,
    /// Who owns cells, by account: itself or the next above it.
    owners: BTreeMap<Name, Owner>,
    bottoms: Vec<Bottom>,
    /// For each of them, nodes that are whole when all work of owners has ended.
    at_last: Vec<u32>,
    /// By path, of the narrowest level that is named; without one, and for nodes that have no place, the first.
    paths: BTreeMap<Vec<Name>, usize>,
    nodes: BTreeMap<NodeId, OnNode>,
    known: Known,
    /// Domains that were looked at, since somebody asked.
    work: u64,
}

/// Devices of the model on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OnNode {
    bottom: usize,
    open: bool,
    /// Free, or held by what can be stopped in time. Kept twice over, it is below 0.
    free: i32,
    /// Held by work of an owner that cannot.
    own: Vec<(Whose, i32)>,
}

/// Whose cell a node can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Nobodys,
    Anybodys,
    Only(Whose),
}

impl OnNode {
    fn standing(&self, gpus: i32) -> Standing {
        if self.free >= gpus {
            return Standing::Anybodys;
        }
        let sum = |owner: Owner| -> i32 {
            self.own.iter().filter(|((other, _), _)| *other == owner).map(|(_, held)| held).sum()
        };
        let most = self.own.iter().map(|((owner, _), _)| (sum(*owner), Reverse(*owner))).max();
        let Some((held, Reverse(owner))) = most.filter(|(held, _)| *held > 0) else { return Standing::Nobodys };
        // Where work of several kinds is, the widest has a claim on the node.
        let kind = self.own.iter().filter(|((other, _), _)| *other == owner).map(|((_, kind), _)| *kind).min();
        match kind {
            Some(kind) if self.free.max(0) + held >= gpus => Standing::Only((owner, kind)),
            _ => Standing::Nobodys,
        }
    }

    /// Whose cell it can be in, and whether it is whole when all work of owners has ended.
    fn counts(&self, gpus: i32) -> (Standing, bool) {
        let held: i32 = self.own.iter().map(|(_, held)| held).sum();
        (self.standing(gpus), self.open && self.free + held >= gpus)
    }

    fn change(&mut self, whose: Option<Whose>, devices: i32) {
        self.free -= devices;
        let Some(whose) = whose else { return };
        match self.own.iter_mut().find(|(other, _)| *other == whose) {
            Some((_, held)) => *held += devices,
            None => self.own.push((whose, devices)),
        }
        self.own.retain(|(_, held)| *held != 0);
    }
}

impl Owed {
    pub fn of(state: &State) -> Self {
        Self::under(state, state.accounts().document(), state.fabric())
    }

    /// As it would be with another document, or another fabric.
    pub fn under(state: &State, document: &Organisation, fabric: &FabricSpec) -> Self {
        let mut owed = Self::empty(state, document, fabric);
        if owed.is_on() {
            state.nodes().values().for_each(|node| owed.put(state, fabric, node));
        }
        owed
    }

    /// As if all that is known were in order and nothing ran.
    pub fn at_best(state: &State, document: &Organisation, fabric: &FabricSpec) -> Self {
        let mut owed = Self::empty(state, document, fabric);
        for (id, node) in state.nodes().iter() {
            for model in &mut owed.models {
                let free = devices_of(&node.inventory, &model.name).count() as i32;
                let bottom = model.bottom_of(&node.inventory, fabric);
                model.list(*id, OnNode { bottom, open: true, free, own: Vec::new() });
            }
        }
        owed
    }

    fn empty(state: &State, document: &Organisation, fabric: &FabricSpec) -> Self {
        let in_time = InTime::under(state, document);
        let names: BTreeSet<&Name> =
            document.accounts.iter().flat_map(|account| &account.cells).map(|cells| &cells.model).collect();
        let models = names.into_iter().map(|name| OfModel::new(name, state, document, fabric)).collect();
        Self { models, in_time, gone: BTreeSet::new(), kept: BTreeMap::new(), barred_each_way: BTreeMap::new() }
    }

    pub fn is_on(&self) -> bool {
        !self.models.is_empty()
    }

    /// May what runs so not be stopped, or not soon enough for those who are promised their own?
    pub fn is_firm(&self, scheduling: &Scheduling) -> bool {
        self.in_time.is_firm(scheduling)
    }

    /// Who owns the cells of a model that an account's work uses.
    pub fn owner_of(&self, model: &Name, account: &Name) -> Option<Owner> {
        self.models.iter().find(|known| known.name == *model)?.owners.get(account).copied()
    }

    /// Does an account's work use cells that somebody owns?
    pub fn knows(&self, account: &Name) -> bool {
        self.models.iter().any(|model| model.owners.contains_key(account))
    }

    /// Does work of both use cells of the same owner, of any model?
    pub fn have_one_owner(&self, one: &Name, other: &Name) -> bool {
        let same = |model: &OfModel| {
            let owner = model.owners.get(one);
            owner.is_some() && owner == model.owners.get(other)
        };
        self.models.iter().any(same)
    }

    /// Finds out now what can be had, for those who ask often.
    pub fn settle(&mut self) {
        self.models.iter_mut().for_each(|model| _ = model.outlook_now());
    }

    /// Takes over what State says of a node now.
    pub fn refresh(&mut self, state: &State, id: NodeId) {
        if !self.is_on() {
            return;
        }
        self.models.iter_mut().for_each(|model| model.forget(id));
        if let Some(node) = state.node(id) {
            self.put(state, state.fabric(), node);
        }
    }

    fn put(&mut self, state: &State, fabric: &FabricSpec, node: &NodeRecord) {
        for at in 0..self.models.len() {
            let bottom = self.models[at].bottom_of(&node.inventory, fabric);
            // One that sleeps can be had when it is back.
            let there = node.is_in_service();
            let mut on = OnNode { bottom, open: there, free: 0, own: Vec::new() };
            for slot in devices_of(&node.inventory, &self.models[at].name) {
                match self.held(state, at, node, slot, Which::All) {
                    Held::InTime => on.free += i32::from(there),
                    Held::By(Some(whose)) => {
                        on.free += 1;
                        on.change(Some(whose), 1);
                    }
                    Held::By(None) | Held::Lost => {}
                }
            }
            self.models[at].list(node.id, on);
        }
    }

    /// Takes a gang for one that leaves, or no longer. True when that is new.
    pub fn set_gone(&mut self, gang: GangId, gone: bool) -> bool {
        if gone { self.gone.insert(gang) } else { self.gone.remove(&gang) }
    }

    fn leaves(&self, state: &State, gang: GangId) -> bool {
        self.gone.contains(&gang)
            || state.gang(gang).is_some_and(|record| matches!(record.state, GangState::Stopping(..)))
    }

    fn held(&self, state: &State, model: usize, node: &NodeRecord, slot: usize, which: Which) -> Held {
        let Some(DeviceState::Ok(holders)) = node.devices.get(slot) else { return Held::Lost };
        let mut whose: Option<Option<Whose>> = None;
        for holder in holders.iter().filter(|holder| which == Which::All || !self.leaves(state, holder.gang)) {
            let Some(scheduling) = state.scheduling_of(holder.gang) else { return Held::By(None) };
            if !self.is_firm(scheduling) {
                continue;
            }
            let new = self.models[model].whose(scheduling, state.fabric());
            whose = Some(whose.map_or(new, |known| shared(known, new)));
        }
        whose.map_or(Held::InTime, Held::By)
    }
}

/// Whose a device is that two have shares of: of one owner's work the wider kind has it.
fn shared(one: Option<Whose>, other: Option<Whose>) -> Option<Whose> {
    match (one, other) {
        (Some((owner, kind)), Some((other, wider))) if owner == other => Some((owner, kind.min(wider))),
        _ => None,
    }
}

/// Whose hold on a device counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    /// Of those that do not leave.
    Staying,
}

/// What is in the way on a device.
enum Held {
    /// Nothing, or what can be stopped in time.
    InTime,
    /// Work that cannot, of one owner; `None` = of somebody else, or of several.
    By(Option<Whose>),
    Lost,
}

/// Slots of a model that may be placed on.
fn devices_of<'a>(inventory: &'a Inventory, model: &'a Name) -> impl Iterator<Item = usize> + 'a {
    let of_model = inventory.usable().filter(move |(_, device)| device.model == *model);
    of_model.map(|(slot, _)| usize::from(slot))
}

/// How many devices of a model the known nodes have that have any.
pub fn node_sizes(state: &State, model: &Name) -> BTreeSet<u32> {
    let sizes = state.nodes().values().map(|node| devices_of(&node.inventory, model).count() as u32);
    sizes.filter(|size| *size > 0).collect()
}

impl OfModel {
    fn new(name: &Name, state: &State, document: &Organisation, fabric: &FabricSpec) -> Self {
        let mut gpus = 1;
        let mut tree = None;
        let mut owned: BTreeMap<(bool, usize, Reverse<u32>), BTreeMap<Owner, u32>> = BTreeMap::new();
        for (owner, account) in (0..).zip(&document.accounts) {
            for cells in account.cells.iter().filter(|cells| cells.model == *name) {
                gpus = cells.gpus.min(i32::MAX as u32) as i32;
                let depth = depth_of(cells, fabric);
                let found = fabric.find_level(cells.level.as_str()).filter(|_| depth != NODES);
                tree = tree.or(found.map(|(tree, _)| tree));
                let key = (depth == NODES, depth, Reverse(cells.nodes));
                *owned.entry(key).or_default().entry(owner).or_default() += cells.number;
            }
        }
        let mut kinds = Vec::new();
        for ((_, depth, Reverse(nodes)), owned) in owned {
            kinds.push(Kind { depth, nodes, owned: owned.into_iter().collect(), domains: Vec::new() });
        }
        let mut model = Self {
            name: name.clone(),
            gpus,
            tree,
            kinds,
            owners: owners(name, document),
            bottoms: vec![Bottom::default()],
            at_last: Vec::new(),
            paths: BTreeMap::new(),
            nodes: BTreeMap::new(),
            known: Known::default(),
            work: 0,
        };
        model.lay_out(state, fabric);
        model
    }

    /// The domains of every level at which cells are owned.
    fn lay_out(&mut self, state: &State, fabric: &FabricSpec) {
        let deepest = self.kinds.iter().map(|kind| kind.depth).max().unwrap_or(NODES);
        let spec = self.tree.and_then(|tree| fabric.trees.get(tree)).filter(|_| deepest > NODES);
        let places = state.nodes().values().filter_map(|node| node.inventory.place.get(&spec?.name));
        let paths: BTreeSet<&[Name]> = places.filter_map(|path| path.get(..deepest)).collect();
        for path in paths {
            self.paths.insert(path.to_vec(), self.bottoms.len());
            self.bottoms.push(Bottom::default());
        }
        self.at_last = vec![0; self.bottoms.len()];
        for kind in &mut self.kinds {
            if kind.depth == NODES {
                kind.domains = vec![(0..self.bottoms.len()).collect()];
                continue;
            }
            let mut domains: BTreeMap<&[Name], Vec<usize>> = BTreeMap::new();
            for (path, bottom) in &self.paths {
                domains.entry(&path[..kind.depth]).or_default().push(*bottom);
            }
            kind.domains = domains.into_values().collect();
        }
    }

    fn bottom_of(&self, inventory: &Inventory, fabric: &FabricSpec) -> usize {
        let deepest = self.kinds.iter().map(|kind| kind.depth).max().unwrap_or(NODES);
        let spec = self.tree.and_then(|tree| fabric.trees.get(tree));
        let path = spec.and_then(|spec| inventory.place.get(&spec.name)?.get(..deepest));
        path.filter(|_| deepest > NODES).and_then(|path| self.paths.get(path)).copied().unwrap_or(0)
    }

    fn list(&mut self, id: NodeId, on: OnNode) {
        self.count(on.bottom, on.counts(self.gpus), 1);
        self.nodes.insert(id, on);
    }

    fn forget(&mut self, id: NodeId) {
        if let Some(on) = self.nodes.remove(&id) {
            self.count(on.bottom, on.counts(self.gpus), -1);
        }
    }

    fn count(&mut self, bottom: usize, (now, at_last): (Standing, bool), more: i32) {
        if at_last {
            self.at_last[bottom] = self.at_last[bottom].saturating_add_signed(more);
        }
        let bottom = &mut self.bottoms[bottom];
        match now {
            Standing::Nobodys if !at_last => return,
            Standing::Nobodys => {}
            Standing::Anybodys => bottom.free = bottom.free.saturating_add_signed(more),
            Standing::Only(whose) => bottom.change_own(whose, more),
        }
        self.known = Known::default();
    }

    /// Devices of a node that are taken by work that stays, or given back. True when that makes a difference to
    /// whole nodes.
    fn hold(&mut self, id: NodeId, whose: Option<Whose>, devices: i32) -> bool {
        let Some(on) = self.nodes.get_mut(&id) else { return false };
        self.known.barred.clear();
        let before = on.counts(self.gpus);
        on.change(whose, devices);
        let (bottom, after) = (on.bottom, on.counts(self.gpus));
        if before == after {
            return false;
        }
        self.count(bottom, before, -1);
        self.count(bottom, after, 1);
        true
    }

    /// The kind of a line of cells, by number.
    fn kind_of(&self, cells: &CellQuota, fabric: &FabricSpec) -> Option<usize> {
        let depth = depth_of(cells, fabric);
        self.kinds.iter().position(|kind| kind.depth == depth && kind.nodes == cells.nodes)
    }

    fn outlook(&self) -> Outlook {
        assign(&self.kinds, &self.bottoms, &self.at_last, u64::MAX)
    }

    /// The same, found only once while nothing changes.
    fn outlook_now(&mut self) -> Arc<Outlook> {
        let known = self.known.outlook.take().unwrap_or_else(|| Arc::new(self.outlook()));
        self.known.outlook = Some(known.clone());
        known
    }
}

fn depth_of(cells: &CellQuota, fabric: &FabricSpec) -> usize {
    let level = cells.level.as_str();
    fabric.find_level(level).filter(|_| level != "node").map_or(NODES, |(_, depth)| depth)
}

/// For each account, who owns cells of a model: itself, or the next above it that does.
fn owners(model: &Name, document: &Organisation) -> BTreeMap<Name, Owner> {
    let at: BTreeMap<&Name, usize> =
        document.accounts.iter().enumerate().map(|(at, account)| (&account.name, at)).collect();
    let owns = |at: &usize| document.accounts[*at].cells.iter().any(|cells| cells.model == *model);
    let next = |place: &usize| document.accounts[*place].parent.as_ref().and_then(|parent| at.get(parent).copied());
    let owner = |place: usize| std::iter::successors(Some(place), next).find(owns);
    (0..document.accounts.len())
        .filter_map(|place| Some((document.accounts[place].name.clone(), owner(place)? as Owner)))
        .collect()
}
