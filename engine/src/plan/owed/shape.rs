//! Is a gang within its account's shape? Asked of the account's cells as if they were a cluster of their own:
//! what its own work uses is cut out of the smallest that will do, and the gang must fit in what is left. It must
//! also fit in what can be had of them as that work lies: small jobs may have begun wider cells than they need.

use super::assign::{ANY, KindAt, Owner, Whose};
use super::{NODES, OfModel, Owed};
use crate::organisation::Organisation;
use crate::plan::scope;
use muster_common::job::{Count, GroupRequest, Scheduling};
use muster_common::topology::{FabricSpec, TopologyMode};
use muster_common::{GangId, Name};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Whole nodes and a rest of devices, all in one domain of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wish {
    nodes: u32,
    rest: u32,
    /// 0 = wherever they are.
    depth: usize,
}

/// An account's cells that are not taken yet.
#[derive(Debug, Clone, Default)]
struct Left {
    gpus: u32,
    /// By nodes and depth: how many.
    cells: BTreeMap<(u32, usize), u32>,
    /// Devices left on nodes that are begun.
    begun: Vec<u32>,
    /// Devices that are owned without a shape.
    loose: u64,
}

impl Left {
    fn put(&mut self, cells: (u32, usize), number: u32) {
        if number > 0 && cells.0 > 0 {
            *self.cells.entry(cells).or_default() += number;
        }
    }

    /// Cuts it out, if there is room.
    fn take(&mut self, wish: Wish, may_be_loose: bool) -> bool {
        let devices = u64::from(wish.nodes) * u64::from(self.gpus) + u64::from(wish.rest);
        if may_be_loose && wish.nodes == 0 && self.loose >= devices {
            self.loose -= devices;
            return true;
        }
        let begun = (0..self.begun.len()).filter(|&at| self.begun[at] >= wish.rest).min_by_key(|&at| self.begun[at]);
        if wish.nodes == 0
            && let Some(at) = begun
        {
            self.begun[at] -= wish.rest;
            return true;
        }
        let nodes = wish.nodes + u32::from(wish.rest > 0);
        let cut = match self.smallest(nodes, wish.depth) {
            Some(cell) => self.cut(cell, nodes),
            None if wish.depth == NODES => self.gather(nodes),
            None => false,
        };
        if cut && wish.rest > 0 {
            self.begun.push(self.gpus - wish.rest);
        }
        if !cut && may_be_loose && self.loose >= devices {
            self.loose -= devices;
            return true;
        }
        cut
    }

    /// The smallest cell with so many nodes that is as narrow as asked.
    fn smallest(&self, nodes: u32, depth: usize) -> Option<(u32, usize)> {
        let narrow = |cell: &(u32, usize)| nodes == 1 || cell.1 != NODES && cell.1 >= depth;
        self.cells.keys().find(|cell| cell.0 >= nodes && narrow(cell)).copied()
    }

    fn cut(&mut self, cell: (u32, usize), nodes: u32) -> bool {
        let Some(number) = self.cells.get_mut(&cell) else { return false };
        *number -= 1;
        if *number == 0 {
            self.cells.remove(&cell);
        }
        if cell.0 > nodes {
            *self.cells.entry((cell.0 - nodes, cell.1)).or_default() += 1;
        }
        true
    }

    /// Out of several cells, the smallest first.
    fn gather(&mut self, mut nodes: u32) -> bool {
        let have: u64 = self.cells.iter().map(|((nodes, _), number)| u64::from(*nodes) * u64::from(*number)).sum();
        if have < u64::from(nodes) {
            return false;
        }
        while nodes > 0 {
            let Some(cell) = self.cells.keys().next().copied() else { return false };
            let here = cell.0.min(nodes);
            self.cut(cell, here);
            nodes -= here;
        }
        true
    }
}

/// What is left beside an account's own work, seen in both ways.
#[derive(Debug, Clone)]
struct Room {
    /// All its cells that are not lost, as if its work lay in them as closely as it can.
    shape: Left,
    /// Those that can be had where its work is now, and what is left of those in use.
    place: Left,
}

impl Room {
    /// Beside work that stays.
    fn beside<'a>(
        model: &OfModel,
        owner: Owner,
        document: &Organisation,
        fabric: &FabricSpec,
        firm: impl Iterator<Item = &'a Scheduling>,
    ) -> Self {
        let mut shape = Left { gpus: model.gpus.unsigned_abs(), ..Left::default() };
        let mut place = shape.clone();
        let mut shaped = 0;
        let outlook = model.known.outlook.clone().unwrap_or_else(|| Arc::new(model.outlook()));
        for (at, kind) in model.kinds.iter().enumerate() {
            let Some(line) = kind.owned.iter().position(|(other, _)| *other == owner) else { continue };
            let (owned, had) = (kind.owned[line].1, outlook.had(at, line));
            shaped += u64::from(owned) * u64::from(kind.nodes) * u64::from(shape.gpus);
            // Whoever would take what is lost from another owner would be stopped for that one in turn, for ever.
            shape.put((kind.nodes, kind.depth), owned.saturating_sub(had.lost));
            place.put((kind.nodes, kind.depth), had.obtainable);
            // A cell in use lacks one node at least.
            let most = kind.nodes.saturating_sub(1).max(1);
            place.put((most, kind.depth), had.spare / most);
            place.put((had.spare % most, kind.depth), 1);
        }
        let account = &document.accounts[usize::from(owner)];
        let nominal = account.quota.get(&model.name).map_or(0, |quota| u64::from(quota.nominal));
        shape.loose = nominal.saturating_sub(shaped);
        firm.for_each(|own| _ = shape.take(use_of(own, model, fabric), true));
        (place.begun, place.loose) = (shape.begun.clone(), shape.loose);
        Self { shape, place }
    }

    /// Cuts it out, as far as there is room.
    fn take(&mut self, wish: Wish) {
        self.shape.take(wish, true);
        self.place.take(wish, true);
    }

    /// Is there a cell for it? For what stays and runs already only its shape is asked: it is in its place.
    fn holds(&self, wish: Wish, has_its_place: bool) -> bool {
        self.shape.clone().take(wish, false) && (has_its_place || self.place.clone().take(wish, false))
    }
}

/// What asks for more than nodes and a level uses as many nodes somewhere.
fn use_of(scheduling: &Scheduling, model: &OfModel, fabric: &FabricSpec) -> Wish {
    let devices = u32::try_from(scheduling.devices()).unwrap_or(u32::MAX);
    let gpus = model.gpus.unsigned_abs().max(1);
    let anywhere = Wish { nodes: devices / gpus, rest: devices % gpus, depth: NODES };
    wish(scheduling, model, fabric).unwrap_or(anywhere)
}

/// What a gang asks of one model's cells; `None` = more than the number of nodes and a level.
fn wish(scheduling: &Scheduling, model: &OfModel, fabric: &FabricSpec) -> Option<Wish> {
    let [group] = scheduling.groups.as_slice() else { return None };
    let gpus = model.gpus.unsigned_abs();
    let plain =
        group.labels.is_empty() && group.exclude.is_empty() && group.segment.is_none() && group.spread.is_none();
    if !plain || !(group.models.is_empty() || group.models.contains(&model.name)) {
        return None;
    }
    let (nodes, rest) = match &group.count {
        Count::Nodes { per_node, .. } if *per_node == 0 || *per_node > gpus => return None,
        Count::Nodes { nodes: 1, per_node } if *per_node < gpus => (0, *per_node),
        Count::Nodes { nodes, .. } => (*nodes, 0),
        Count::Total(total) => (total.devices / gpus, total.devices % gpus),
    };
    if group.exclusive && rest > 0 {
        return None;
    }
    Some(Wish { nodes, rest, depth: depth(group, scheduling, model, fabric, nodes + rest.min(1))? })
}

/// How narrow a domain it needs; `None` = of another tree, or of several levels.
fn depth(
    group: &GroupRequest,
    scheduling: &Scheduling,
    model: &OfModel,
    fabric: &FabricSpec,
    nodes: u32,
) -> Option<usize> {
    let requests: Vec<_> = group.topology.iter().chain(&scheduling.together).cloned().collect();
    let required = || requests.iter().filter(|request| request.mode == TopologyMode::Required);
    if required().any(|request| request.at_most > 1 || request.level.as_str() == "node" && nodes > 1) {
        return None;
    }
    match scope::homes(&requests, fabric).as_slice() {
        [] => Some(NODES),
        [(tree, depth)] if model.tree == Some(*tree) => Some(*depth),
        _ if nodes == 1 => Some(NODES),
        _ => None,
    }
}

/// Models of whose cells an account has enough left for a gang, beside what runs on its cells already.
pub fn entitled<'a>(
    owed: &Owed,
    document: &Organisation,
    fabric: &FabricSpec,
    asked: &Scheduling,
    running: impl Iterator<Item = (GangId, &'a Scheduling)> + Clone,
) -> Vec<Name> {
    beside(owed, (document, fabric), (asked, false), running)
}

/// The same of a gang that runs, once it has been stopped, beside the others.
pub fn entitled_again<'a>(
    owed: &Owed,
    document: &Organisation,
    fabric: &FabricSpec,
    asked: &Scheduling,
    others: impl Iterator<Item = (GangId, &'a Scheduling)> + Clone,
) -> Vec<Name> {
    beside(owed, (document, fabric), (asked, owed.is_firm(asked)), others)
}

fn beside<'a>(
    owed: &Owed,
    (document, fabric): (&Organisation, &FabricSpec),
    (asked, has_its_place): (&Scheduling, bool),
    running: impl Iterator<Item = (GangId, &'a Scheduling)> + Clone,
) -> Vec<Name> {
    let mut models = Vec::new();
    for model in &owed.models {
        let Some(&owner) = model.owners.get(&asked.account) else { continue };
        let Some(wanted) = wish(asked, model, fabric) else { continue };
        let own = running.clone().map(|(_, own)| own).filter(|own| model.owners.get(&own.account) == Some(&owner));
        let firm = own.clone().filter(|own| owed.is_firm(own));
        let mut room = Room::beside(model, owner, document, fabric, firm);
        own.filter(|own| !owed.is_firm(own)).for_each(|own| room.take(use_of(own, model, fabric)));
        if room.holds(wanted, has_its_place) {
            models.push(model.name.clone());
        }
    }
    models
}

/// Of what runs and may be stopped, gangs that are within their own account's shape, the first in the order given.
/// One that is not would not be either when it waits, so whoever has it stopped is not stopped for it in turn.
pub fn within<'a>(
    owed: &Owed,
    model: &Name,
    document: &Organisation,
    fabric: &FabricSpec,
    running: impl Iterator<Item = (GangId, &'a Scheduling)> + Clone,
) -> BTreeSet<GangId> {
    let Some(model) = owed.models.iter().find(|known| known.name == *model) else { return BTreeSet::new() };
    let mut rooms: BTreeMap<Owner, Room> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for (gang, own) in running.clone().filter(|(_, own)| !owed.is_firm(own)) {
        let Some(&owner) = model.owners.get(&own.account) else { continue };
        let room = rooms.entry(owner).or_insert_with(|| {
            let of_owner = running.clone().map(|(_, own)| own);
            let of_owner = of_owner.filter(|own| model.owners.get(&own.account) == Some(&owner) && owed.is_firm(own));
            Room::beside(model, owner, document, fabric, of_owner)
        });
        if wish(own, model, fabric).is_some_and(|wish| room.holds(wish, false)) {
            found.insert(gang);
        }
        room.take(use_of(own, model, fabric));
    }
    found
}

/// How hard it is to find room for a gang: harder for what stays, then as cells are given out, from the top level
/// down, then for more. What is no harder to place never needs what another holds within its shape.
pub type Hard = (bool, bool, Reverse<usize>, u32, u32);

impl OfModel {
    /// Whose cells a gang's work uses, and of which kind: the smallest of its owner's that hold it, as many of
    /// them as it takes where they need not be together.
    pub(super) fn whose(&self, scheduling: &Scheduling, fabric: &FabricSpec) -> Option<Whose> {
        let owner = self.owners.get(&scheduling.account).copied()?;
        let owned = |at: usize| {
            let mut lines = self.kinds[at].owned.iter();
            lines.find(|(other, _)| *other == owner).map_or(0, |(_, number)| *number)
        };
        let Some(wish) = wish(scheduling, self, fabric) else { return Some((owner, ANY)) };
        let nodes = wish.nodes + wish.rest.min(1);
        let one = |at: &usize| {
            let kind = &self.kinds[*at];
            owned(*at) > 0 && kind.nodes >= nodes && (nodes == 1 || kind.depth != NODES && kind.depth >= wish.depth)
        };
        let several = |at: &usize| {
            wish.depth == NODES && u64::from(owned(*at)) * u64::from(self.kinds[*at].nodes) >= u64::from(nodes)
        };
        let smallest = |fits: &dyn Fn(&usize) -> bool| {
            (0..self.kinds.len()).filter(|at| fits(at)).min_by_key(|at| (self.kinds[*at].nodes, *at))
        };
        let kind = smallest(&one).or_else(|| smallest(&several));
        Some((owner, kind.map_or(ANY, |at| at as KindAt)))
    }
}

impl Owed {
    /// See [`Hard`].
    pub fn hard(&self, model: &Name, scheduling: &Scheduling, fabric: &FabricSpec) -> Hard {
        let known = self.models.iter().find(|known| known.name == *model);
        let wish = known.map_or(Wish { nodes: 0, rest: 0, depth: NODES }, |known| use_of(scheduling, known, fabric));
        let depth = if wish.nodes + wish.rest.min(1) > 1 { wish.depth } else { NODES };
        (self.is_firm(scheduling), depth != NODES, Reverse(depth), wish.nodes, wish.rest)
    }

    /// Are both charged to the owner of the same cells of a model?
    pub fn are_of_one_owner(&self, model: &Name, one: &Name, other: &Name) -> bool {
        let owners = self.models.iter().find(|known| known.name == *model).map(|known| &known.owners);
        owners.is_some_and(|owners| owners.get(one).is_some_and(|owner| owners.get(other) == Some(owner)))
    }
}
