//! Where every payer stands by Fair Tree at a moment, kept from cycle to cycle and worked out anew when
//! use or time has moved on.

use super::fair::{Branch, ranks};
use crate::command::Principal;
use crate::organisation::Account;
use crate::state::State;
use muster_common::{Name, Time};
use std::collections::BTreeMap;

/// Ranks follow time in steps of this: within one, only entries change them, and at one instant
/// nothing that is placed or stopped does.
pub const STEP_MS: u64 = 60_000;

/// The moment whose use counts at `now`.
pub fn step_of(now: Time) -> Time {
    Time(now.0 - now.0 % STEP_MS)
}

/// Payers by number, and their ranks.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    numbers: BTreeMap<Name, BTreeMap<Principal, u32>>,
    /// Numbers of the rows of State's table, in its order.
    rows: Vec<u32>,
    tree: Vec<Branch>,
    /// The tree's leaves, as numbers of payers.
    leaves: Vec<u32>,
    /// The branch of each row.
    branches: Vec<usize>,
    at: Option<Time>,
    /// By number; a payer that is in no row has none.
    ranks: Vec<u32>,
}

impl Standing {
    /// The number of a payer, once it has a row.
    pub fn number(&self, account: &Name, user: &Principal) -> Option<u32> {
        self.numbers.get(account)?.get(user).copied()
    }

    /// 0 for the best; by number.
    pub fn places(&self) -> impl Iterator<Item = u32> + '_ {
        let users = self.users();
        self.ranks.iter().map(move |rank| users.saturating_sub(*rank))
    }

    /// Slurm's fair-share factor of a payer: its rank over the number of users.
    pub fn factor(&self, number: u32) -> f64 {
        let rank = self.ranks.get(number as usize).copied().unwrap_or(0);
        f64::from(rank) / f64::from(self.users().max(1))
    }

    fn users(&self) -> u32 {
        self.leaves.len() as u32
    }

    /// Brings ranks up to date; false when they are as they were. `changed`: entries may have changed use.
    pub fn sync(&mut self, state: &State, now: Time, changed: bool) -> bool {
        let at = step_of(now);
        if !changed && self.at == Some(at) {
            return false;
        }
        if self.at.is_none() || !self.has_rows_of(state) {
            self.plant(state);
        }
        self.at = Some(at);
        let usage = state.usage();
        let forward = usage.forward(at.max(usage.latest()));
        for (branch, row) in self.branches.iter().zip(usage.payers().values()) {
            self.tree[*branch].usage = usage.weighted_at(row, forward);
        }
        let users = self.users();
        let of_leaves = ranks(&mut self.tree, users);
        let mut by_number = vec![0; self.ranks.len()];
        for (number, rank) in self.leaves.iter().zip(of_leaves) {
            by_number[*number as usize] = rank;
        }
        std::mem::replace(&mut self.ranks, by_number) != self.ranks
    }

    fn has_rows_of(&self, state: &State) -> bool {
        let payers = state.usage().payers();
        let same = |((account, user), number): (&(Name, Principal), &u32)| self.number(account, user) == Some(*number);
        payers.len() == self.rows.len() && payers.keys().zip(&self.rows).all(same)
    }

    /// Builds the tree of State's accounts, with a leaf for every payer and every user by name.
    fn plant(&mut self, state: &State) {
        let accounts = state.accounts();
        self.tree = vec![Branch::default()];
        self.leaves.clear();
        let mut branch_of: BTreeMap<Name, usize> = BTreeMap::new();
        let mut below: Vec<(usize, &Account)> = accounts.children(None).map(|account| (0, account)).collect();
        while let Some((parent, account)) = below.pop() {
            let at = self.grow(parent, Some(account.weight as u64), None);
            branch_of.insert(account.name.clone(), at);
            below.extend(accounts.children(Some(&account.name)).map(|child| (at, child)));
        }
        let listed = accounts.document().accounts.iter();
        let listed = listed.flat_map(|account| account.users.keys().map(move |user| (account, user)));
        let rows = state.usage().payers();
        let unseen: Vec<(Name, Principal)> = listed
            .map(|(account, user)| (account.name.clone(), Principal(user.as_str().into())))
            .filter(|payer| !rows.contains(payer))
            .collect();
        self.rows.clear();
        self.branches.clear();
        for (is_row, payer) in rows.keys().map(|payer| (true, payer)).chain(unseen.iter().map(|payer| (false, payer))) {
            let (name, user) = payer;
            let number = self.enlist(payer);
            let account = accounts.get(name);
            // One that is not there any more has no share beside those that are.
            let share = u64::from(!accounts.are_configured());
            let parent = match branch_of.get(name) {
                Some(at) => *at,
                None => {
                    let at = self.grow(0, Some(share), None);
                    branch_of.insert(name.clone(), at);
                    at
                }
            };
            let weight = account.and_then(|account| account.users.get(&*user.0)).map_or(1, |user| user.weight);
            let leaf = self.leaves.len() as u32;
            let at = self.grow(parent, Some(weight as u64), Some(leaf));
            self.leaves.push(number);
            if is_row {
                self.rows.push(number);
                self.branches.push(at);
            }
        }
    }

    fn grow(&mut self, parent: usize, shares: Option<u64>, user: Option<u32>) -> usize {
        let at = self.tree.len();
        self.tree.push(Branch { shares, user, ..Branch::default() });
        self.tree[parent].children.push(at);
        at
    }

    fn enlist(&mut self, (account, user): &(Name, Principal)) -> u32 {
        let next = self.ranks.len() as u32;
        let users = self.numbers.entry(account.clone()).or_default();
        let number = *users.entry(user.clone()).or_insert(next);
        if number == next {
            self.ranks.push(0);
        }
        number
    }
}
