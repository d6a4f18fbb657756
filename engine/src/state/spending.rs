//! What accounts with a budget have spent in their present period, and what is set aside for what runs.

use super::account::Accounts;
use super::usage::{Holding, Payer};
use crate::organisation::Budget;
use crate::table::Table;
use muster_common::calendar::Period;
use muster_common::money::MicroUsd;
use muster_common::{Name, Time};
use serde::{Deserialize, Serialize};

/// One account with all below it. An attempt counts, from its placement to its end, in the period in which it
/// was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spending {
    per: Period,
    /// Attempts placed from here on count.
    pub from: Time,
    /// From here on others do.
    pub until: Time,
    /// For attempts that have ended.
    pub spent: MicroUsd,
    /// For attempts that have not: what they cost until their time limits.
    set_aside: u128,
}

impl Spending {
    fn new(per: Period, from: Time, now: Time) -> Self {
        let until = per.around(now).1;
        Self { per, from, until, spent: MicroUsd(0), set_aside: 0 }
    }

    /// As it is at a later moment: nothing is spent yet in a new period.
    fn at(self, now: Time) -> Self {
        if now < self.until { self } else { Self::new(self.per, self.per.around(now).0, now) }
    }

    pub fn set_aside(&self) -> MicroUsd {
        MicroUsd(u64::try_from(self.set_aside).unwrap_or(u64::MAX))
    }

    /// What is not there any more for others.
    pub fn used(&self) -> MicroUsd {
        MicroUsd(self.spent.0.saturating_add(self.set_aside().0))
    }

    /// Does an attempt that was placed then count here?
    pub fn counts(&self, holding: &Holding) -> bool {
        holding.placed_at >= self.from
    }
}

/// By account, of those that have a budget.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Spendings(Table<Name, Spending>);

impl Spendings {
    /// Of an account with a budget; `None` of others.
    pub fn of(&self, account: &Name, now: Time) -> Option<Spending> {
        self.0.get(account).map(|spending| spending.at(now))
    }

    fn change(&mut self, accounts: &Accounts, account: &Name, now: Time, change: impl Fn(&mut Spending)) {
        for account in accounts.upward(account).filter(|account| account.budget.is_some()) {
            let Some(mut spending) = self.of(&account.name, now) else { continue };
            change(&mut spending);
            self.0.insert(account.name.clone(), spending);
        }
    }

    pub(super) fn take(&mut self, accounts: &Accounts, account: &Name, holding: Holding) {
        self.change(accounts, account, holding.placed_at, |spending| {
            spending.set_aside += u128::from(holding.set_aside.0)
        });
    }

    pub(super) fn charge(&mut self, accounts: &Accounts, account: &Name, holding: Holding, now: Time) {
        let cost = holding.cost(now);
        self.change(accounts, account, now, |spending| {
            if spending.counts(&holding) {
                spending.set_aside -= u128::from(holding.set_aside.0);
                spending.spent.0 = spending.spent.0.saturating_add(cost.0);
            }
        });
    }

    /// Something that runs may cost more, or less, than was set aside for it.
    pub(super) fn set_aside_anew(
        &mut self,
        accounts: &Accounts,
        account: &Name,
        holding: Holding,
        now: Time,
        cost: MicroUsd,
    ) {
        self.change(accounts, account, now, |spending| {
            if spending.counts(&holding) {
                spending.set_aside = spending.set_aside - u128::from(holding.set_aside.0) + u128::from(cost.0);
            }
        });
    }

    /// After a change of the accounts. A budget counts from when it is set, and anew when its period is another;
    /// with another amount what is spent stays so.
    pub(super) fn resum(&mut self, accounts: &Accounts, holdings: &[(Payer, Holding)], now: Time) {
        let mut all = Table::default();
        for account in accounts.names().filter_map(|name| accounts.get(name)) {
            let Some(Budget { per, .. }) = account.budget else { continue };
            let known = self.of(&account.name, now).filter(|known| known.per == per);
            let mut spending = known.unwrap_or_else(|| Spending::new(per, now, now));
            spending.set_aside = set_aside(accounts, &account.name, &spending, holdings);
            all.insert(account.name.clone(), spending);
        }
        self.0 = all;
    }

    /// The first broken invariant, given everything that is held.
    pub(super) fn check(&self, accounts: &Accounts, holdings: &[(Payer, Holding)]) -> Result<(), String> {
        let budgets = accounts.names().filter(|name| accounts.get(name).is_some_and(|known| known.budget.is_some()));
        if !budgets.eq(self.0.keys()) {
            return Err("what is spent is not known of every account with a budget, or of others too".into());
        }
        for (name, spending) in self.0.iter() {
            let expected = set_aside(accounts, name, spending, holdings);
            if spending.set_aside != expected {
                return Err(format!("account `{name}` has set aside {spending:?}, expected {expected:?}"));
            }
        }
        Ok(())
    }
}

fn set_aside(accounts: &Accounts, of: &Name, spending: &Spending, holdings: &[(Payer, Holding)]) -> u128 {
    let counts = |((account, _), holding): &&(Payer, Holding)| {
        spending.counts(holding) && accounts.upward(account).any(|account| account.name == *of)
    };
    holdings.iter().filter(counts).map(|(_, holding)| u128::from(holding.set_aside.0)).sum()
}
