//! What is free, indexed by node, class and domain. It mirrors State between cycles; inside a cycle
//! it is written on and rolled back, so a trial costs what it touches and nothing else.

use super::by_node::ByNode;
use super::classes::{Classes, same_class};
use super::fragment::Workload;
use super::islands::{self, Islands};
use super::owed::{Owed, Take};
use super::pool::Pool;
use super::quota::{AccountAt, Milli, Quotas};
use super::score::size_bit;
use crate::organisation::Organisation;
use crate::policy::ModelChoice;
use crate::state::State;
use crate::state::node::{DeviceState, NodeRecord};
use muster_common::node::{Device, Inventory};
use muster_common::resources::Amount;
use muster_common::topology::FabricSpec;
use muster_common::{GangId, Name, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Index into [`Ledger::domains`]; 0 is the root, which holds every node.
pub type DomainId = usize;
pub type ClassId = usize;
pub const ROOT: DomainId = 0;

#[derive(Debug, Clone, Default)]
pub struct Ledger {
    nodes: ByNode<NodeView>,
    pub classes: Classes,
    domains: Vec<Domain>,
    domain_ids: BTreeMap<(usize, Vec<Name>), DomainId>,
    /// Open nodes with a device of which some share is taken and some is free.
    partial: BTreeSet<NodeId>,
    /// Open nodes with a wholly free device.
    with_free: BTreeSet<NodeId>,
    /// What accounts hold, and may.
    pub quotas: Quotas,
    /// The cells that accounts own.
    pub owed: Owed,
    /// Where cheaper models go before dearer ones.
    prices: Option<Arc<Organisation>>,
    undo: Vec<Undo>,
    /// Lists that trials no longer need, for the next ones.
    spare: Vec<Vec<u16>>,
    workload: Arc<Workload>,
    /// Of the node that was put here last.
    latest: Option<Arc<Facts>>,
}

/// A node as plans see it.
#[derive(Debug, Clone)]
pub struct NodeView {
    pub facts: Arc<Facts>,
    pub open: bool,
    /// Free thousandths by slot.
    pub free: Vec<u16>,
    pub amount: Amount,
    pub ports: u32,
    /// Sizes of the parts that are here, as bits; see [`super::score::size_bit`].
    pub sizes: u64,
    /// Wholly free devices that one part may have: those of the largest island.
    pub whole: u32,
}

/// What does not change while the node keeps its epoch.
#[derive(Debug)]
pub struct Facts {
    pub id: NodeId,
    pub name: Name,
    pub epoch: u64,
    pub inventory: Arc<Inventory>,
    pub class: ClassId,
    /// Every domain the node is in, the root first.
    pub domains: Vec<DomainId>,
    /// Slots whose devices may be placed on at all.
    pub usable: Vec<bool>,
    /// Are all pairs of devices joined alike, and all as near to the same CPUs?
    pub even_links: bool,
    /// Are there usable devices of several models, or instances of devices?
    pub varied: bool,
    pub islands: Islands,
}

#[derive(Debug, Clone, Default)]
pub struct Domain {
    /// Tree of the fabric, and depth in it: 1 is the widest level; 0 only for the root.
    pub tree: usize,
    pub depth: usize,
    pub path: Vec<Name>,
    pub children: BTreeSet<DomainId>,
    pools: BTreeMap<ClassId, Pool>,
}

#[derive(Debug, Clone)]
enum Undo {
    Node(Before),
    Held { at: AccountAt, model: usize, firm: bool, more: Milli },
    Cells { take: Take, sign: i32 },
    Gone { gang: GangId, gone: bool },
}

#[derive(Debug, Clone)]
struct Before {
    node: NodeId,
    open: bool,
    sizes: u64,
    free: Vec<u16>,
    amount: Amount,
    ports: u32,
}

/// A deviation from State, for `explain` and refilled orders: "if only ...".
#[derive(Debug, Clone, Copy, Default)]
pub struct Suppose {
    pub closed_are_open: bool,
    pub asleep_are_awake: bool,
    pub unknown_are_free: bool,
    pub nothing_runs: bool,
}

impl Suppose {
    /// All of the cluster, empty.
    pub const NOTHING_RUNS: Suppose =
        Suppose { closed_are_open: true, asleep_are_awake: true, unknown_are_free: true, nothing_runs: true };
}

impl Ledger {
    pub fn of(state: &State, suppose: Suppose) -> Self {
        let mut ledger = Ledger { domains: vec![Domain::default()], ..Ledger::default() };
        ledger.learn(state);
        ledger.prices = (state.policy().models == ModelChoice::Cheapest).then(|| state.accounts().document().clone());
        for record in state.nodes().values() {
            ledger.put(state.fabric(), record, suppose);
        }
        ledger
    }

    /// Takes over what the typical workload is now: fresh in every cycle, since jobs come and go, but for one
    /// that the policy declares; with another policy there is another ledger.
    pub fn learn(&mut self, state: &State) {
        let policy = state.policy();
        if policy.ranks_by_workload() && (policy.workload.is_empty() || self.workload.covered() == 0) {
            self.workload = Arc::new(Workload::of(state));
        }
    }

    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// Takes over what State says of a node now.
    pub fn refresh(&mut self, state: &State, id: NodeId) {
        debug_assert!(self.undo.is_empty(), "a refresh inside a trial");
        let record = state.node(id);
        if let Some(view) = self.nodes.get_mut(&id)
            && let Some(record) = record.filter(|record| view.facts.are_of(record))
        {
            let before = view.listing();
            *view = NodeView::of(view.facts.clone(), record, Suppose::default());
            let (facts, after) = (view.facts.clone(), view.listing());
            self.relist(&facts, before, after);
            return;
        }
        if let Some((facts, listed)) = self.nodes.get(&id).map(|view| (view.facts.clone(), view.listing())) {
            self.relist(&facts, listed, None);
            self.classes.leave(facts.class);
            for &domain in &facts.domains {
                self.domains[domain].pools.get_mut(&facts.class).into_iter().for_each(|pool| pool.forget(id));
            }
        }
        match record {
            Some(record) => self.put(state.fabric(), record, Suppose::default()),
            None => _ = self.nodes.remove(&id),
        }
    }

    fn put(&mut self, fabric: &FabricSpec, record: &NodeRecord, suppose: Suppose) {
        let like = self.latest.as_ref().filter(|facts| facts.inventory.place == record.inventory.place);
        let domains = match like {
            Some(facts) => facts.domains.clone(),
            None => self.domains_of(fabric, &record.inventory),
        };
        let facts = Arc::new(self.facts(record, domains));
        self.latest = Some(facts.clone());
        let view = NodeView::of(facts, record, suppose);
        self.classes.join(view.facts.class);
        self.relist(&view.facts, None, view.listing());
        self.nodes.insert(record.id, view);
    }

    /// Every domain that a machine is in, the root first.
    fn domains_of(&mut self, fabric: &FabricSpec, inventory: &Inventory) -> Vec<DomainId> {
        let mut domains = vec![ROOT];
        for (tree, spec) in fabric.trees.iter().enumerate() {
            let Some(path) = inventory.place.get(&spec.name) else { continue };
            let mut parent = ROOT;
            for depth in 1..=path.len().min(spec.levels.len()) {
                parent = self.domain(tree, &path[..depth], parent);
                domains.push(parent);
            }
        }
        domains
    }

    fn facts(&mut self, record: &NodeRecord, domains: Vec<DomainId>) -> Facts {
        let inventory = record.inventory.clone();
        let (id, name, epoch) = (record.id, record.name.clone(), record.epoch);
        // Machines that joined one after the other are mostly alike.
        if let Some(like) = self.latest.as_ref().filter(|like| same_make(&like.inventory, &inventory)) {
            let (usable, islands) = (like.usable.clone(), like.islands.clone());
            let Facts { class, even_links, varied, .. } = **like;
            return Facts { id, name, epoch, inventory, class, domains, usable, even_links, varied, islands };
        }
        let class = self.classes.class_of(&inventory);
        let parents: BTreeSet<u16> = inventory.devices.iter().filter_map(|device| device.parent).collect();
        let links: BTreeSet<_> =
            (0..inventory.links.len()).flat_map(|a| inventory.links[a].iter().skip(a + 1)).collect();
        let numas: BTreeSet<_> = inventory.devices.iter().map(|device| device.numa).collect();
        let used =
            || (0u16..).zip(&inventory.devices).filter(|(slot, _)| !parents.contains(slot)).map(|(_, used)| used);
        let models: BTreeSet<_> = used().map(|device| &device.model).collect();
        Facts {
            id,
            name,
            epoch,
            class,
            domains,
            // A device that is split into instances is used through them.
            usable: (0..inventory.devices.len()).map(|slot| !parents.contains(&(slot as u16))).collect(),
            even_links: links.len() <= 1 && numas.len() <= 1,
            varied: models.len() > 1 || used().any(|device| device.parent.is_some()),
            islands: islands::of(&inventory),
            inventory: inventory.clone(),
        }
    }

    fn domain(&mut self, tree: usize, path: &[Name], parent: DomainId) -> DomainId {
        if let Some(&id) = self.domain_ids.get(&(tree, path.to_vec())) {
            return id;
        }
        let id = self.domains.len();
        self.domains.push(Domain { tree, depth: path.len(), path: path.to_vec(), ..Domain::default() });
        self.domain_ids.insert((tree, path.to_vec()), id);
        self.domains[parent].children.insert(id);
        id
    }

    fn relist(&mut self, facts: &Facts, before: Option<Listing>, after: Option<Listing>) {
        let id = facts.id;
        let whole = |listing: Option<Listing>| listing.map(|listing| listing.whole);
        if whole(before) != whole(after) {
            for &domain in &facts.domains {
                self.domains[domain].pools.entry(facts.class).or_default().shift(id, whole(before), whole(after));
            }
        }
        mark(&mut self.with_free, id, whole(before) > Some(0), whole(after) > Some(0));
        let partial = |listing: Option<Listing>| listing.is_some_and(|listing| listing.partial);
        mark(&mut self.partial, id, partial(before), partial(after));
    }

    /// Changes a node so that it can be taken back.
    pub fn change(&mut self, id: NodeId, change: impl FnOnce(&mut NodeView)) {
        let Some(view) = self.nodes.get_mut(&id) else { return };
        let listed = view.listing();
        let NodeView { open, sizes, amount, ports, .. } = *view;
        let mut free = self.spare.pop().unwrap_or_default();
        free.clone_from(&view.free);
        let before = Before { node: id, open, sizes, free, amount, ports };
        change(view);
        view.note_sizes(&before.free);
        view.count_whole();
        let (facts, lists) = (view.facts.clone(), view.listing());
        self.relist(&facts, listed, lists);
        self.undo.push(Undo::Node(before));
    }

    /// A node may be placed on as if it were awake, until that is rolled back.
    pub fn open(&mut self, id: NodeId) {
        self.change(id, |view| view.open = true);
    }

    /// Nothing of a node is to be had, until that is rolled back.
    pub fn shut(&mut self, id: NodeId) {
        self.change(id, |view| {
            view.free.fill(0);
            (view.amount, view.ports) = (Amount::default(), 0);
        });
    }

    /// Charges an account with so much more, until it is rolled back.
    pub fn hold(&mut self, at: AccountAt, model: usize, firm: bool, more: Milli) {
        self.quotas.hold(at, model, firm, more);
        self.undo.push(Undo::Held { at, model, firm, more });
    }

    /// Counts devices as taken by work that stays, until it is rolled back.
    pub fn hold_cells(&mut self, take: Take, sign: i32) {
        self.owed.hold(take, sign);
        self.undo.push(Undo::Cells { take, sign });
    }

    /// Takes a gang for one that leaves its cells to whoever is given them, or no longer, until it is rolled back.
    pub fn set_gone(&mut self, gang: GangId, gone: bool) {
        if self.owed.is_on() && self.owed.set_gone(gang, gone) {
            self.undo.push(Undo::Gone { gang, gone });
        }
    }

    pub fn mark(&self) -> usize {
        self.undo.len()
    }

    /// Nodes that a trial has changed, some more than once.
    pub fn touched(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.undo.iter().filter_map(|undo| match undo {
            Undo::Node(before) => Some(before.node),
            Undo::Held { .. } | Undo::Cells { .. } | Undo::Gone { .. } => None,
        })
    }

    pub fn rollback(&mut self, mark: usize) {
        while self.undo.len() > mark {
            let undo = match self.undo.pop().expect("longer than the mark") {
                Undo::Node(before) => before,
                Undo::Held { at, model, firm, more } => {
                    self.quotas.hold(at, model, firm, -more);
                    continue;
                }
                Undo::Cells { take, sign } => {
                    self.owed.hold(take, -sign);
                    continue;
                }
                Undo::Gone { gang, gone } => {
                    self.owed.set_gone(gang, !gone);
                    continue;
                }
            };
            let Some(view) = self.nodes.get_mut(&undo.node) else { continue };
            let listed = view.listing();
            view.open = undo.open;
            view.sizes = undo.sizes;
            self.spare.push(std::mem::replace(&mut view.free, undo.free));
            view.amount = undo.amount;
            view.ports = undo.ports;
            view.count_whole();
            let (facts, lists) = (view.facts.clone(), view.listing());
            self.relist(&facts, listed, lists);
        }
    }

    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.get(&id)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.values()
    }

    pub fn domain_view(&self, id: DomainId) -> &Domain {
        &self.domains[id]
    }

    /// Domains of one depth of a tree, by path.
    pub fn domains_at(&self, tree: usize, depth: usize) -> impl Iterator<Item = DomainId> + '_ {
        let from = (tree, Vec::new());
        let of_tree = self.domain_ids.range(from..).take_while(move |((t, _), _)| *t == tree);
        of_tree.filter(move |((_, path), _)| path.len() == depth).map(|(_, &id)| id)
    }

    /// Domains of one depth of a domain's tree inside it, by path; itself, when it is of that depth.
    pub fn domains_under(&self, domain: DomainId, depth: usize) -> impl Iterator<Item = DomainId> + '_ {
        let Domain { tree, path, .. } = &self.domains[domain];
        let inside = self.domain_ids.range((*tree, path.clone())..);
        let inside = inside.take_while(move |((of, other), _)| of == tree && other.starts_with(path));
        inside.filter(move |((_, path), _)| path.len() == depth).map(|(_, &id)| id)
    }

    pub fn domain_at(&self, tree: usize, path: &[Name]) -> Option<DomainId> {
        self.domain_ids.get(&(tree, path.to_vec())).copied()
    }

    /// Of what GPUs cost, if the policy goes by it.
    pub fn prices(&self) -> Option<&Organisation> {
        self.prices.as_deref()
    }

    /// Those that have no node any more, too.
    pub fn classes(&self) -> &[Arc<Inventory>] {
        self.classes.inventories()
    }

    /// One device of each sort that machines of a class have.
    pub fn sorts(&self, class: ClassId) -> impl Iterator<Item = &Device> {
        self.classes.sorts(class)
    }

    /// Classes that have an open node now.
    pub fn open_classes(&self) -> impl Iterator<Item = &Inventory> {
        let open = self.domains[ROOT].pools.iter().filter(|(_, pool)| !pool.is_empty());
        open.map(|(&class, _)| &*self.classes()[class])
    }

    pub fn pool(&self, domain: DomainId, class: ClassId) -> Option<&Pool> {
        self.domains[domain].pools.get(&class)
    }

    /// Wholly free devices of all open nodes.
    pub fn free_total(&self) -> u64 {
        self.domains[ROOT].pools.values().map(Pool::free_sum).sum()
    }

    /// Open nodes with at least so many wholly free devices.
    pub fn nodes_with(&self, devices: u32) -> u64 {
        self.domains[ROOT].pools.values().map(|pool| pool.nodes_with(devices)).sum()
    }

    pub fn partial(&self) -> &BTreeSet<NodeId> {
        &self.partial
    }

    pub fn with_free(&self) -> &BTreeSet<NodeId> {
        &self.with_free
    }
}

fn whole(facts: &Facts, free: &[u16]) -> u32 {
    if facts.islands.cut.is_empty() {
        return free.iter().filter(|&&milli| milli == 1000).count() as u32;
    }
    let slots: Vec<u16> = (0..free.len() as u16).filter(|slot| free[usize::from(*slot)] == 1000).collect();
    facts.islands.most(&slots)
}

/// Of one class, and joined inside alike.
fn same_make(a: &Inventory, b: &Inventory) -> bool {
    same_class(a, b) && a.links == b.links && a.devices.iter().zip(&b.devices).all(|(a, b)| a.numa == b.numa)
}

/// Sizes of the parts on a node, from who holds its devices.
fn sizes(record: &NodeRecord) -> u64 {
    let mut parts: BTreeMap<GangId, (u32, u16)> = BTreeMap::new();
    for holder in record.devices.iter().flat_map(DeviceState::holders) {
        let (devices, milli) = parts.entry(holder.gang).or_insert((0, holder.milli));
        (*devices, *milli) = (*devices + 1, (*milli).min(holder.milli));
    }
    parts.values().fold(0, |sizes, &(devices, milli)| sizes | size_bit(devices, milli))
}

/// How a node that may be placed on is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listing {
    whole: u32,
    /// Some share of a device is taken and some is free.
    partial: bool,
}

fn mark(set: &mut BTreeSet<NodeId>, id: NodeId, before: bool, after: bool) {
    match (before, after) {
        (false, true) => _ = set.insert(id),
        (true, false) => _ = set.remove(&id),
        _ => {}
    }
}

impl Facts {
    /// Does the record say the same of the machine?
    fn are_of(&self, record: &NodeRecord) -> bool {
        self.epoch == record.epoch && self.name == record.name && Arc::ptr_eq(&self.inventory, &record.inventory)
    }
}

/// By slot, what may be placed on each device.
fn supposed_free(facts: &Facts, record: &NodeRecord, suppose: Suppose) -> impl Iterator<Item = u16> {
    let free_of = move |device: &DeviceState| match device {
        DeviceState::Ok(_) if suppose.nothing_runs => 1000,
        DeviceState::Unknown { .. } if suppose.unknown_are_free => 1000,
        device => device.free_milli(),
    };
    record.devices.iter().zip(&facts.usable).map(move |(device, usable)| if *usable { free_of(device) } else { 0 })
}

impl NodeView {
    /// Does State still have of the node's devices what was supposed of them?
    pub fn could_still(&self, state: &State, suppose: Suppose) -> bool {
        let record = state.node(self.facts.id).filter(|record| self.facts.are_of(record));
        record.is_some_and(|record| supposed_free(&self.facts, record, suppose).eq(self.free.iter().copied()))
    }

    fn of(facts: Arc<Facts>, record: &NodeRecord, suppose: Suppose) -> Self {
        let free: Vec<u16> = supposed_free(&facts, record, suppose).collect();
        let all_ports = u32::from(record.inventory.port_count);
        let ports = all_ports.saturating_sub(record.ports.len() as u32);
        NodeView {
            open: (record.power.is_awake() || suppose.asleep_are_awake)
                && (record.is_in_service() || suppose.closed_are_open),
            sizes: if suppose.nothing_runs { 0 } else { sizes(record) },
            whole: whole(&facts, &free),
            free,
            amount: if suppose.nothing_runs { record.inventory.amount() } else { record.free_amount() },
            ports: if suppose.nothing_runs { all_ports } else { ports },
            facts,
        }
    }

    /// `None` while nothing may be placed here.
    fn listing(&self) -> Option<Listing> {
        let partial = || self.free.iter().any(|&milli| milli > 0 && milli < 1000);
        (self.open && self.ports > 0).then(|| Listing { whole: self.whole, partial: partial() })
    }

    /// What was just taken is one part; on an idle node nothing is left.
    fn note_sizes(&mut self, before: &[u16]) {
        let lost = before.iter().zip(&self.free).filter(|(before, now)| before > now).map(|(before, now)| before - now);
        let (devices, milli) = lost.fold((0, 1000), |(devices, least), milli| (devices + 1, milli.min(least)));
        if devices > 0 {
            self.sizes |= size_bit(devices, milli);
        } else if self.free.iter().zip(&self.facts.usable).all(|(free, usable)| !usable || *free == 1000) {
            self.sizes = 0;
        }
    }

    /// Counts `whole` anew after `free` has been changed.
    pub fn count_whole(&mut self) {
        self.whole = whole(&self.facts, &self.free);
    }

    /// Takes over what another view of the same node says.
    pub fn resemble(&mut self, other: &NodeView) {
        let NodeView { facts: _, open, free, amount, ports, sizes, whole } = other;
        self.free.clone_from(free);
        (self.open, self.amount, self.ports, self.sizes, self.whole) = (*open, *amount, *ports, *sizes, *whole);
    }

    pub fn is_in(&self, domain: DomainId) -> bool {
        self.facts.domains.contains(&domain)
    }
}
