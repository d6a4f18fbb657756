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
type ModelAt = usize;
/// Thousandths of a device.
pub type Milli = i64;

const DEVICE: Milli = 1000;

#[derive(Debug, Clone, Default)]
pub struct Quotas {
    /// Empty = nothing is owed to anybody, and nothing is checked.
    accounts: Vec<Node>,
    places: BTreeMap<Name, AccountAt>,
    models: BTreeMap<Name, ModelAt>,
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
        for device in state.nodes().values().flat_map(|node| &node.inventory.devices) {
            let next = quotas.models.len();
            quotas.models.entry(device.model.clone()).or_insert(next);
        }
        for model in document.accounts.iter().flat_map(|account| account.quota.keys()) {
            let next = quotas.models.len();
            quotas.models.entry(model.clone()).or_insert(next);
        }
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
        for device in state.nodes().values().flat_map(|node| &node.inventory.devices) {
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
        let more = wanted(scheduling, model);
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
            true => quotas.models.keys().collect(),
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
    let owns = |(model, number): (&Name, ModelAt)| quotas.left(at, number) >= wanted(scheduling, model);
    scheduling.groups.iter().filter(|group| group.devices() > 0).all(|group| match group.models.is_empty() {
        true => quotas.models().any(owns),
        false => group.models.iter().any(|model| quotas.model(model).is_some_and(|number| owns((model, number)))),
    })
}

/// The most that a gang may come to hold of one model.
pub fn wanted(scheduling: &Scheduling, model: &Name) -> Milli {
    let may = |group: &&GroupRequest| group.models.is_empty() || group.models.contains(model);
    let of_group = |group: &GroupRequest| group.devices() as Milli * Milli::from(group.share.0.min(1000));
    scheduling.groups.iter().filter(may).map(of_group).sum()
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Accounts as (parent, nominal, borrow limit, lend limit) in whole devices; the first is 1.
    fn tree(owned: i64, accounts: &[(usize, i64, Option<i64>, Option<i64>)]) -> Quotas {
        let mut quotas = Quotas { models: BTreeMap::from([(Name::literal("H100"), 0)]), ..Quotas::default() };
        let node = |name: String, parent| Node {
            name: Name::new(name).unwrap(),
            parent,
            weight: 1,
            by_model: vec![Line::default()],
            firm: vec![Line { lend: Some(0), ..Line::default() }],
        };
        quotas.accounts.push(node("cluster".into(), CLUSTER));
        for (at, (parent, _, borrow, lend)) in accounts.iter().enumerate() {
            quotas.places.insert(Name::new(format!("a{}", at + 1)).unwrap(), at + 1);
            quotas.accounts.push(node(format!("a{}", at + 1), *parent));
            let line = &mut quotas.accounts[at + 1].by_model[0];
            (line.borrow, line.lend) = (borrow.map(|n| n * DEVICE), lend.map(|n| n * DEVICE));
        }
        quotas.own(CLUSTER, 0, owned * DEVICE);
        accounts.iter().enumerate().for_each(|(at, account)| quotas.own(at + 1, 0, account.1 * DEVICE));
        quotas
    }

    /// T(x) from the definition, with nothing kept up.
    fn by_definition(quotas: &Quotas, at: AccountAt) -> Milli {
        let line = quotas.accounts[at].by_model[0];
        let children = (1..quotas.accounts.len()).filter(|child| quotas.accounts[*child].parent == at);
        let lent = children.map(|child| {
            let left = by_definition(quotas, child);
            quotas.accounts[child].by_model[0].lend.map_or(left, |lend| lend.min(left))
        });
        line.nominal - line.held + lent.sum::<Milli>()
    }

    fn most(quotas: &Quotas, at: AccountAt) -> i64 {
        (0..=1000).take_while(|devices| quotas.admits(at, 0, false, devices * DEVICE).is_ok()).last().unwrap_or(0)
    }

    #[test]
    fn a_borrow_limit_bounds_what_a_queue_takes_beyond_its_own() {
        // Two queues of 9 and 12 in one cohort; the first may borrow 1.
        let quotas = tree(0, &[(0, 9, Some(1), None), (0, 12, None, None)]);
        assert_eq!((most(&quotas, 1), most(&quotas, 2)), (10, 21));
    }

    #[test]
    fn a_lend_limit_keeps_the_rest_for_its_owner() {
        // The second lends 1 of its 12 (9 + 1 = 10 for the first).
        let mut quotas = tree(0, &[(0, 9, None, None), (0, 12, None, Some(1))]);
        assert_eq!((most(&quotas, 1), most(&quotas, 2)), (10, 21));
        quotas.hold(1, 0, false, 10 * DEVICE);
        assert_eq!((most(&quotas, 1), most(&quotas, 2)), (0, 11));
    }

    #[test]
    fn kep_79_a_cohort_borrows_for_those_in_it_and_no_further_than_its_limit() {
        // cluster(0) -> org(10, borrow 5) -> team(5, borrow 20); sibling at the top owns 20.
        let quotas = tree(0, &[(0, 10, Some(5), None), (1, 5, Some(20), None), (0, 20, None, None)]);
        // team: 5 own + 10 of its org + 5 that the org may borrow.
        assert_eq!(most(&quotas, 2), 20);
        // A lend limit in the middle hides what is below it from the rest.
        let quotas = tree(0, &[(0, 10, None, Some(4)), (1, 5, None, Some(2)), (0, 20, None, None)]);
        assert_eq!(most(&quotas, 3), 24);
        assert_eq!(most(&quotas, 2), 35);
    }

    #[test]
    fn what_nobody_owns_is_everybodys() {
        let quotas = tree(8, &[(0, 4, None, None), (0, 4, Some(0), None)]);
        assert_eq!((most(&quotas, 1), most(&quotas, 2), most(&quotas, CLUSTER)), (16, 4, 16));
    }

    #[test]
    fn what_may_not_be_stopped_is_not_lent_what_others_own() {
        let most_firm =
            |quotas: &Quotas, at| (0..=99).take_while(|n| quotas.admits(at, 0, true, n * DEVICE).is_ok()).last();
        let mut quotas = tree(3, &[(0, 8, None, None), (0, 8, None, None)]);
        assert_eq!((most(&quotas, 1), most_firm(&quotas, 1)), (19, Some(11)));
        // What the owner has lent to others can be had back, so it counts as there.
        quotas.hold(2, 0, false, 11 * DEVICE);
        assert_eq!((most(&quotas, 1), most_firm(&quotas, 1)), (8, Some(8)));
        quotas.hold(1, 0, true, 8 * DEVICE);
        assert_eq!(most_firm(&quotas, 1), Some(0));
    }

    #[test]
    fn a_refusal_names_where_and_how_much() {
        let mut quotas = tree(0, &[(0, 8, Some(2), None), (0, 8, None, None)]);
        quotas.hold(1, 0, false, 8 * DEVICE);
        let short = quotas.admits(1, 0, false, 4 * DEVICE).unwrap_err();
        assert_eq!((short.at.unwrap().as_str(), short.missing, short.held), ("a1", 2 * DEVICE, 8 * DEVICE));
        quotas.hold(2, 0, false, 8 * DEVICE);
        let short = quotas.admits(1, 0, false, DEVICE).unwrap_err();
        assert_eq!((short.at, short.missing), (None, DEVICE));
    }

    #[test]
    fn sides_are_right_below_where_two_accounts_part() {
        let quotas = tree(0, &[(0, 0, None, None), (1, 0, None, None), (1, 0, None, None), (0, 0, None, None)]);
        assert_eq!(quotas.sides(2, 3), Some((2, 3)));
        assert_eq!(quotas.sides(2, 4), Some((1, 4)));
        assert_eq!(quotas.sides(1, 2), None);
        assert_eq!(quotas.sides(2, 2), None);
    }

    proptest! {
        #[test]
        fn what_is_kept_up_is_what_the_definition_says(
            accounts in proptest::collection::vec(
                (any::<prop::sample::Index>(), 0i64..20, proptest::option::of(0i64..20), proptest::option::of(0i64..20)),
                1..12,
            ),
            held in proptest::collection::vec((any::<prop::sample::Index>(), -5i64..20), 0..40),
            owned in 0i64..30,
        ) {
            let accounts: Vec<_> = accounts
                .into_iter()
                .enumerate()
                .map(|(at, (parent, nominal, borrow, lend))| (parent.index(at + 1), nominal, borrow, lend))
                .collect();
            let mut quotas = tree(owned, &accounts);
            for (at, devices) in held {
                let at = at.index(accounts.len()) + 1;
                // Admission is the formula of every account on the way up, after the fact.
                let mut after = quotas.clone();
                after.hold(at, 0, false, devices * DEVICE);
                let holds = quotas.upward(at).chain([CLUSTER]).all(|up| {
                    let floor = if up == CLUSTER { Some(0) } else { quotas.accounts[up].by_model[0].borrow.map(|b| -b) };
                    floor.is_none_or(|floor| by_definition(&after, up) >= floor)
                });
                prop_assert_eq!(quotas.admits(at, 0, false, devices * DEVICE).is_ok(), holds);
                quotas = after;
                for up in 0..quotas.accounts.len() {
                    prop_assert_eq!(quotas.left(up, 0), by_definition(&quotas, up));
                }
            }
        }
    }
}
