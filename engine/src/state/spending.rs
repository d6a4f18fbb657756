//! What accounts with a budget have spent in their present period, and what is set aside for what runs.

use super::account::Accounts;
use super::usage::{Holding, Payer};
use crate::organisation::Budget;
use crate::table::Table;
use muster_common::calendar::Period;
use muster_common::money::MicroUsd;
use muster_common::{Name, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
                spending.set_aside = spending.set_aside.saturating_sub(u128::from(holding.set_aside.0));
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
                let rest = spending.set_aside.saturating_sub(u128::from(holding.set_aside.0));
                spending.set_aside = rest + u128::from(cost.0);
            }
        });
    }

    /// After a change of the accounts. A budget counts from when it is set, and anew when its period is another;
    /// with another amount what is spent stays so.
    pub(super) fn resum(&mut self, accounts: &Accounts, holdings: &[(Payer, Holding)], now: Time) {
        let of_budget = |name: &Name| {
            let Budget { per, .. } = accounts.get(name)?.budget?;
            let known = self.of(name, now).filter(|known| known.per == per);
            Some((name.clone(), known.unwrap_or_else(|| Spending::new(per, now, now))))
        };
        let all = accounts.names().filter_map(of_budget).collect();
        self.0 = Table::default();
        for (name, spending) in with_set_aside(all, accounts, holdings) {
            self.0.insert(name, spending);
        }
    }

    /// The first broken invariant, given everything that is held.
    pub(super) fn check(&self, accounts: &Accounts, holdings: &[(Payer, Holding)]) -> Result<(), String> {
        let budgets = accounts.names().filter(|name| accounts.get(name).is_some_and(|known| known.budget.is_some()));
        if !budgets.eq(self.0.keys()) {
            return Err("what is spent is not known of every account with a budget, or of others too".into());
        }
        let all = self.0.iter().map(|(name, spending)| (name.clone(), *spending)).collect();
        let expected = with_set_aside(all, accounts, holdings);
        match self.0.iter().find(|(name, spending)| expected.get(*name) != Some(*spending)) {
            Some((name, spending)) => {
                Err(format!("account `{name}` has {spending:?}, expected {:?}", expected.get(name)))
            }
            None => Ok(()),
        }
    }
}

/// The same with what is set aside summed up anew: once over all that is held.
fn with_set_aside(
    mut all: BTreeMap<Name, Spending>,
    accounts: &Accounts,
    holdings: &[(Payer, Holding)],
) -> BTreeMap<Name, Spending> {
    all.values_mut().for_each(|spending| spending.set_aside = 0);
    for ((account, _), holding) in holdings {
        for above in accounts.upward(account) {
            if let Some(spending) = all.get_mut(&above.name).filter(|spending| spending.counts(holding)) {
                spending.set_aside += u128::from(holding.set_aside.0);
            }
        }
    }
    all
}
