//! Quota: what each account is owed of each model, what it holds, borrows and lends.
//!
//! The admission formula is that of KEP-79, at every account on the way up: what x has left is
//! T(x) = nominal(x) - held(x) + the sum over its children of min(lend_limit(child), T(child)), and
//! afterwards T(x) must not be below -borrow_limit(x). Above the accounts at the top is the cluster
//! itself: it owns what no account does, and has nobody to borrow from.
//!
//! What cannot be taken back again is not lent: gangs that may not be stopped are counted a second
//! time, in the same tree without any lending. So what an account owns can always be had for it.

use super::owed::InTime;
use super::running::{Running, Runs};
use crate::command::PlacedPart;
use crate::state::State;
use muster_common::job::{GroupRequest, Scheduling};
use muster_common::{GangId, Name};
use std::collections::{BTreeMap, BTreeSet};

/// Place in the tree; 0 is the cluster.
pub type AccountAt = usize;
pub const CLUSTER: AccountAt = 0;
pub type ModelAt = usize;
/// Thousandths of a device.
pub type Milli = i64;

const DEVICE: Milli = 1000;

#[derive(Debug, Clone, Default)]
pub struct Quotas {
    /// Empty = nothing is owed to anybody, and nothing is checked.
    accounts: Vec<Node>,
    places: BTreeMap<Name, AccountAt>,
    models: BTreeMap<Name, ModelAt>,
    /// Models that only instances of devices have.
    instances: BTreeSet<Name>,
    charged: BTreeMap<GangId, Charge>,
    in_time: InTime,
}

/// What one gang holds on whose account.
#[derive(Debug, Clone)]
pub struct Charge {
    pub at: AccountAt,
    /// It may not be stopped, or not in time.
    pub firm: bool,
    pub held: Vec<(ModelAt, Milli)>,
}

#[derive(Debug, Clone)]
struct Node {
    name: Name,
    parent: AccountAt,
    weight: i64,
    by_model: Vec<Line>,
    /// The same for what may not be stopped; of this nothing is lent.
    firm: Vec<Line>,
}

/// One account's numbers for one model.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    nominal: Milli,
    borrow: Option<Milli>,
    lend: Option<Milli>,
    held: Milli,
    /// From its children.
    lent: Milli,
}

impl Node {
    fn line(&mut self, model: ModelAt, firm: bool) -> &mut Line {
        if firm { &mut self.firm[model] } else { &mut self.by_model[model] }
    }
}

impl Line {
    /// T(x).
    fn left(&self) -> Milli {
        self.nominal - self.held + self.lent
    }

    fn lends(&self, left: Milli) -> Milli {
        self.lend.map_or(left, |lend| lend.min(left))
    }
}

/// Why an account may not have more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    pub model: Name,
    /// Where on the way up it ends; `None` = in the cluster as a whole.
    pub at: Option<Name>,
    /// It is only what may not be stopped that there is no room for.
    pub firm: bool,
    /// Thousandths of a device that are missing there.
    pub missing: Milli,
    pub held: Milli,
    pub nominal: Milli,
    pub borrow_limit: Option<Milli>,
}

impl Quotas {
    pub fn of(state: &State, running: &Running) -> Self {
        let document = state.accounts().document();
        if document.accounts.iter().all(|account| account.quota.is_empty()) {
            return Self::default();
        }
        let mut quotas = Self { in_time: InTime::of(state), ..Self::default() };
        let devices = || state.nodes().values().flat_map(|node| &node.inventory.devices);
        for device in devices() {
            let next = quotas.models.len();
            quotas.models.entry(device.model.clone()).or_insert(next);
        }
        for model in document.accounts.iter().flat_map(|account| account.quota.keys()) {
            let next = quotas.models.len();
            quotas.models.entry(model.clone()).or_insert(next);
        }
        let (whole, parts): (Vec<_>, Vec<_>) = devices().partition(|device| device.parent.is_none());
        quotas.instances.extend(parts.into_iter().map(|device| device.model.clone()));
        whole.into_iter().for_each(|device| _ = quotas.instances.remove(&device.model));
        quotas.grow(state);
        for (gang, runs) in running.iter() {
            quotas.refresh(gang, Some(runs));
        }
        quotas
    }

    /// The tree with nothing held.
    fn grow(&mut self, state: &State) {
        let lines = vec![Line::default(); self.models.len()];
        let firm = vec![Line { lend: Some(0), ..Line::default() }; self.models.len()];
        let node =
            |name: Name, weight| Node { name, parent: CLUSTER, weight, by_model: lines.clone(), firm: firm.clone() };
        self.accounts.push(node(Name::literal("cluster"), 1));
        let document = state.accounts().document();
        for account in &document.accounts {
            self.places.insert(account.name.clone(), self.accounts.len());
            self.accounts.push(node(account.name.clone(), account.weight));
        }
        for (at, account) in document.accounts.iter().enumerate() {
            let parent = account.parent.as_ref().and_then(|parent| self.places.get(parent));
            self.accounts[at + 1].parent = parent.copied().unwrap_or(CLUSTER);
            for (model, quota) in &account.quota {
                let borrow = quota.borrow_limit.map(|devices| i64::from(devices) * DEVICE);
                let number = self.models[model];
                self.accounts[at + 1].firm[number].borrow = borrow;
                let line = &mut self.accounts[at + 1].by_model[number];
                line.borrow = borrow;
                line.lend = quota.lend_limit.map(|devices| i64::from(devices) * DEVICE);
            }
        }
        for (_, device) in state.nodes().values().flat_map(|node| node.inventory.usable()) {
            self.own(CLUSTER, self.models[&device.model], DEVICE);
        }
        for (at, account) in document.accounts.iter().enumerate() {
            for (model, quota) in &account.quota {
                let nominal = i64::from(quota.nominal) * DEVICE;
                self.own(CLUSTER, self.models[model], -nominal);
                self.own(at + 1, self.models[model], nominal);
            }
        }
    }

    /// Gives an account so much more of its own.
    fn own(&mut self, at: AccountAt, model: ModelAt, more: Milli) {
        self.shift(at, model, false, |line| line.nominal += more);
        self.shift(at, model, true, |line| line.nominal += more);
    }

    /// Changes one line, and what all above it have because of that.
    fn shift(&mut self, mut at: AccountAt, model: ModelAt, firm: bool, change: impl Fn(&mut Line)) {
        let line = self.accounts[at].line(model, firm);
        let mut before = line.lends(line.left());
        change(line);
        let mut after = line.lends(line.left());
        while at != CLUSTER && before != after {
            let more = after - before;
            at = self.accounts[at].parent;
            let line = self.accounts[at].line(model, firm);
            before = line.lends(line.left());
            line.lent += more;
            after = line.lends(line.left());
        }
    }

    pub fn is_on(&self) -> bool {
        !self.accounts.is_empty()
    }

    /// May it not be stopped, or not soon enough for those who are promised their own?
    pub fn is_firm(&self, scheduling: &Scheduling) -> bool {
        self.in_time.is_firm(scheduling)
    }

    /// Follows what one gang holds.
    pub fn refresh(&mut self, gang: GangId, runs: Option<&Runs>) {
        if !self.is_on() {
            return;
        }
        if let Some(Charge { at, firm, held }) = self.charged.remove(&gang) {
            held.into_iter().for_each(|(model, milli)| self.hold(at, model, firm, -milli));
        }
        let Some(runs) = runs else { return };
        let at = self.place(&runs.scheduling.account);
        let known = |(model, milli): (&Name, &u64)| Some((*self.models.get(model)?, *milli as Milli));
        let held: Vec<(ModelAt, Milli)> = runs.held.iter().filter_map(known).collect();
        let firm = self.is_firm(&runs.scheduling);
        held.iter().for_each(|(model, milli)| self.hold(at, *model, firm, *milli));
        self.charged.insert(gang, Charge { at, firm, held });
    }

    pub fn hold(&mut self, at: AccountAt, model: ModelAt, firm: bool, more: Milli) {
        self.shift(at, model, false, |line| line.held += more);
        if firm {
            self.shift(at, model, true, |line| line.held += more);
        }
    }

    /// What a gang holds, by model.
    pub fn held_by(&self, gang: GangId) -> Option<&Charge> {
        self.charged.get(&gang)
    }

    /// An account that is not in the document owns nothing and stands at the top.
    pub fn place(&self, account: &Name) -> AccountAt {
        self.places.get(account).copied().unwrap_or(CLUSTER)
    }

    pub fn accounts(&self) -> impl Iterator<Item = AccountAt> {
        0..self.accounts.len()
    }

    pub fn model(&self, model: &Name) -> Option<ModelAt> {
        self.models.get(model).copied()
    }

    pub fn models(&self) -> impl Iterator<Item = (&Name, ModelAt)> {
        self.models.iter().map(|(name, at)| (name, *at))
    }

    /// May the group have devices of the model? As the search has it: who names none gets no instance.
    fn may_have(&self, group: &GroupRequest, model: &Name) -> bool {
        if group.models.is_empty() { !self.instances.contains(model) } else { group.models.contains(model) }
    }

    /// The most that a gang may come to hold of one model.
    pub fn wanted(&self, scheduling: &Scheduling, model: &Name) -> Milli {
        let may = |group: &&GroupRequest| self.may_have(group, model);
        let of_group = |group: &GroupRequest| group.devices() as Milli * Milli::from(group.share.0.min(1000));
        scheduling.groups.iter().filter(may).map(of_group).sum()
    }

    pub fn name(&self, at: AccountAt) -> &Name {
        &self.accounts[at].name
    }

    /// T(x).
    pub fn left(&self, at: AccountAt, model: ModelAt) -> Milli {
        self.accounts[at].by_model[model].left()
    }

    pub fn held(&self, at: AccountAt, model: ModelAt) -> Milli {
        self.accounts[at].by_model[model].held
    }

    /// May the account hold so much more? `firm`: for what may not be stopped.
    pub fn admits(&self, at: AccountAt, model: ModelAt, firm: bool, more: Milli) -> Result<(), Short> {
        self.admits_in(at, model, false, more)?;
        if firm { self.admits_in(at, model, true, more) } else { Ok(()) }
    }

    fn admits_in(&self, mut at: AccountAt, model: ModelAt, firm: bool, more: Milli) -> Result<(), Short> {
        let mut less = more;
        loop {
            let node = &self.accounts[at];
            let line = if firm { &node.firm[model] } else { &node.by_model[model] };
            let left = line.left();
            let floor = if at == CLUSTER { Some(0) } else { line.borrow.map(|borrow| -borrow) };
            if let Some(floor) = floor.filter(|floor| left - less < *floor) {
                let model = self.models.iter().find(|(_, known)| **known == model).map(|(name, _)| name.clone());
                return Err(Short {
                    model: model.unwrap_or_else(|| Name::literal("unknown")),
                    at: (at != CLUSTER).then(|| node.name.clone()),
                    missing: floor - (left - less),
                    held: line.held,
                    firm,
                    nominal: line.nominal,
                    borrow_limit: line.borrow,
                });
            }
            if at == CLUSTER {
                return Ok(());
            }
            less = line.lends(left) - line.lends(left - less);
            at = node.parent;
        }
    }

    /// Thousandths of devices, by model, that are owed to somebody and held by what may not be stopped.
    pub fn taken_for_good(&self) -> BTreeMap<Name, Milli> {
        let Some(cluster) = self.accounts.first() else { return BTreeMap::new() };
        // What nobody is owed is for it as well. Less than is owed, as before nodes have joined, is nobody's doing.
        let taken = |at: &ModelAt| {
            let Line { nominal, held, lent, .. } = cluster.firm[*at];
            (held - lent - nominal.max(0)).max(0)
        };
        self.models.iter().map(|(model, at)| (model.clone(), taken(at))).filter(|(_, milli)| *milli > 0).collect()
    }

    /// Accounts that hold more of it for good than they and those below them own.
    pub fn debtors_for_good(&self, model: &Name) -> BTreeSet<Name> {
        let Some(at) = self.model(model) else { return BTreeSet::new() };
        let below = |node: &&Node| node.firm[at].left() < 0;
        self.accounts.iter().skip(1).filter(below).map(|node| node.name.clone()).collect()
    }

    /// Gangs of those accounts, or of none in the document, that hold some of it and may not be stopped.
    pub fn held_for_good(&self, model: &Name, accounts: &BTreeSet<Name>) -> impl Iterator<Item = GangId> {
        let at = self.model(model);
        let holds = move |charge: &Charge| charge.firm && charge.held.iter().any(|(model, _)| Some(*model) == at);
        let whose = |charge: &Charge| charge.at == CLUSTER || accounts.contains(self.name(charge.at));
        self.charged.iter().filter(move |(_, charge)| holds(charge) && whose(charge)).map(|(gang, _)| *gang)
    }

    /// The account and all above it, itself first, without the cluster.
    pub fn upward(&self, at: AccountAt) -> impl Iterator<Item = AccountAt> + '_ {
        let next = |at: &AccountAt| Some(self.accounts[*at].parent);
        std::iter::successors(Some(at), next).take_while(|at| *at != CLUSTER)
    }

    /// Where two accounts part ways: the last ones on the way up that are not above both. `None` when
    /// one is above the other, or they are one.
    pub fn sides(&self, a: AccountAt, b: AccountAt) -> Option<(AccountAt, AccountAt)> {
        let up_a: Vec<AccountAt> = self.upward(a).collect();
        let up_b: Vec<AccountAt> = self.upward(b).collect();
        let common = up_a.iter().rev().zip(up_b.iter().rev()).take_while(|(a, b)| a == b).count();
        let last = |up: &[AccountAt]| up.len().checked_sub(common + 1).map(|at| up[at]);
        Some((last(&up_a)?, last(&up_b)?))
    }

    /// How far an account would be beyond its own with so much less, against its weight: who is
    /// furthest gives first.
    pub fn excess_after(&self, at: AccountAt, model: ModelAt, less: Milli) -> i64 {
        let weight = self.accounts[at].weight.max(0);
        let over = (-self.left(at, model) - less).max(0);
        if weight == 0 { i64::MAX } else { over.saturating_mul(1024) / weight }
    }

    /// Accounts that hold more than they own, and by how much, the most first.
    pub fn borrowers(&self, model: ModelAt) -> Vec<(&Name, Milli)> {
        let mut found: Vec<(&Name, Milli)> = (1..self.accounts.len())
            .map(|at| (&self.accounts[at].name, self.accounts[at].by_model[model]))
            .filter(|(_, line)| line.held > line.nominal)
            .map(|(name, line)| (name, line.held - line.nominal))
            .collect();
        found.sort_by(|a, b| (std::cmp::Reverse(a.1), a.0).cmp(&(std::cmp::Reverse(b.1), b.0)));
        found
    }
}

/// What of a gang's request its account may have now. `None` = all of it; else the request with only
/// the models that it may have.
///
/// # Errors
/// Why it may have none of the models it asks for.
pub fn allowed(quotas: &Quotas, scheduling: &Scheduling) -> Result<Option<Scheduling>, Vec<Short>> {
    if !quotas.is_on() || scheduling.devices() == 0 {
        return Ok(None);
    }
    let at = quotas.place(&scheduling.account);
    let mut short: BTreeMap<&Name, Short> = BTreeMap::new();
    for (model, number) in quotas.models() {
        let more = quotas.wanted(scheduling, model);
        if let Err(why) = quotas.admits(at, number, quotas.is_firm(scheduling), more)
            && more > 0
        {
            short.insert(model, why);
        }
    }
    if short.is_empty() {
        return Ok(None);
    }
    let mut restricted = scheduling.clone();
    for group in restricted.groups.iter_mut().filter(|group| group.devices() > 0) {
        let known: BTreeSet<&Name> = match group.models.is_empty() {
            true => quotas.models.keys().filter(|model| quotas.may_have(group, model)).collect(),
            false => group.models.iter().collect(),
        };
        let left: Vec<Name> =
            known.iter().filter(|model| !short.contains_key(*model)).map(|&model| model.clone()).collect();
        if left.is_empty() {
            return Err(short.into_values().collect());
        }
        match group.models.is_empty() {
            true => group.models = left,
            false => group.models.retain(|model| left.contains(model)),
        }
    }
    Ok(Some(restricted))
}

/// Would the gang be within what its account owns, with nothing borrowed? Of several models one will do.
pub fn is_within_own(quotas: &Quotas, scheduling: &Scheduling) -> bool {
    if !quotas.is_on() {
        return true;
    }
    let at = quotas.place(&scheduling.account);
    let owns = |(model, number): (&Name, ModelAt)| quotas.left(at, number) >= quotas.wanted(scheduling, model);
    let mut groups = scheduling.groups.iter().filter(|group| group.devices() > 0);
    groups.all(|group| quotas.models().filter(|(model, _)| quotas.may_have(group, model)).any(owns))
}

/// For a person: where the quota ends, who is beyond theirs, and what would help.
pub fn told(quotas: &Quotas, scheduling: &Scheduling, short: &[Short]) -> super::explain::Blocker {
    use super::explain::{Reason, blocker};
    let mut said = Vec::new();
    if short.iter().all(|short| short.firm) {
        said.push(
            "what may not be stopped, or not in time, is not lent any quota: its owner could not get it back"
                .to_owned(),
        );
    }
    for short in short {
        let model = &short.model;
        let (held, nominal, missing) = (devices(short.held), devices(short.nominal), devices(short.missing));
        said.push(match (&short.at, short.borrow_limit) {
            (Some(at), Some(limit)) => format!(
                "account `{at}` owns {nominal} {model} and may borrow {}; {missing} more than that would be held",
                devices(limit)
            ),
            (Some(at), None) => format!("account `{at}` holds {held} of its {nominal} {model}; {missing} are missing"),
            (None, _) => format!("nobody has {missing} {model} left to lend to account `{}`", scheduling.account),
        });
        let number = quotas.model(model);
        let borrowers = number.map_or_else(Vec::new, |number| quotas.borrowers(number));
        if !borrowers.is_empty() {
            let names = borrowers.iter().take(3).map(|(name, more)| format!("`{name}` by {}", devices(*more)));
            said.push(format!("beyond their own {model} are {}", names.collect::<Vec<_>>().join(", ")));
        }
    }
    blocker(Reason::Quota, said.join("; ")).help("wait for the account's other work, or charge another account")
}

/// In whole devices where they are whole.
fn devices(milli: Milli) -> String {
    if milli % DEVICE == 0 { (milli / DEVICE).to_string() } else { format!("{:.3}", milli as f64 / 1000.0) }
}

/// Thousandths of devices in parts of a gang, by model.
pub fn in_parts(state: &State, quotas: &Quotas, parts: &[PlacedPart]) -> BTreeMap<usize, Milli> {
    let mut sums = BTreeMap::new();
    for part in parts {
        let Some(node) = state.node(part.node) else { continue };
        for (slot, milli) in &part.devices {
            let device = node.inventory.devices.get(usize::from(*slot));
            if let Some(model) = device.and_then(|device| quotas.model(&device.model)) {
                *sums.entry(model).or_default() += Milli::from(*milli);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests;
