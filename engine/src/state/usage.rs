//! What accounts and their users have used and hold now.
//!
//! A row is a payer: one user of one account. Ended attempts are charged once; what runs counts at
//! every moment without any entry, because a row keeps how much it holds and since when. Accounts keep
//! what all below them hold together.

use super::State;
use super::account::Accounts;
use super::decay::Decay;
use super::job::JobRecord;
use super::spending::Spendings;
use crate::command::Principal;
use crate::table::Table;
use muster_common::money::{MicroUsd, device_cost};
use muster_common::{Name, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who is charged: an account, and the user who submitted.
pub type Payer = (Name, Principal);

/// Most payers. Accounts are names that people may choose, and their usage stays until it has faded.
pub const PAYERS_MAX: u64 = 50_000;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Usage {
    decay: Decay,
    /// When something was last placed or charged.
    latest: Time,
    payers: Table<Payer, PayerUse>,
    accounts: Table<Name, Held>,
    spendings: Spendings,
}

/// What is held, and how much is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Held {
    /// Thousandths of devices.
    pub milli: u64,
    /// Gangs with a present attempt.
    pub running: u32,
    /// Live jobs, those that run included.
    pub jobs: u32,
}

impl Held {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Devices, a part of one as a whole one.
    pub fn devices(&self) -> u64 {
        self.milli.div_ceil(1000)
    }
}

/// One payer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PayerUse {
    pub held: Held,
    /// Device-milliseconds of ended attempts, whatever their age; kept as long as the row.
    pub device_ms: u64,
    /// Of ended attempts: thousandths of devices times weighted milliseconds.
    charged: u128,
    /// Of attempts that hold devices: the sum of thousandths times the weighted time of placement.
    since: i128,
}

/// What an attempt holds from its placement to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    pub milli: u64,
    pub placed_at: Time,
    /// What an hour of it costs.
    pub hourly: MicroUsd,
    /// What it costs until its time limit.
    pub set_aside: MicroUsd,
}

impl Holding {
    /// What it costs until a moment.
    pub fn cost(&self, until: Time) -> MicroUsd {
        device_cost(u128::from(until.since_ms(self.placed_at)) * 1000, self.hourly)
    }
}

impl Usage {
    pub fn payers(&self) -> &Table<Payer, PayerUse> {
        &self.payers
    }

    pub fn spendings(&self) -> &Spendings {
        &self.spendings
    }

    /// What an account and all below it hold.
    pub fn of_account(&self, account: &Name) -> Held {
        self.accounts.get(account).copied().unwrap_or_default()
    }

    pub fn of_payer(&self, payer: &Payer) -> PayerUse {
        self.payers.get(payer).copied().unwrap_or_default()
    }

    /// Decayed use of a row at a moment, weighted: rows compare at one and the same moment.
    pub fn weighted(&self, row: &PayerUse, at: Time) -> u128 {
        self.weighted_at(row, self.decay.forward(at))
    }

    /// The same, with [`Self::forward`] of the moment worked out once.
    pub fn weighted_at(&self, row: &PayerUse, forward: i128) -> u128 {
        let running = i128::from(row.held.milli).saturating_mul(forward).saturating_sub(row.since);
        row.charged.saturating_add(running.max(0) as u128)
    }

    pub fn forward(&self, at: Time) -> i128 {
        self.decay.forward(at)
    }

    /// Before it, what was placed since would count as less than nothing.
    pub fn latest(&self) -> Time {
        self.latest
    }

    pub fn half_life_ms(&self) -> u64 {
        self.decay.half_life_ms()
    }

    /// Decayed device-milliseconds, for people.
    pub fn decayed_device_ms(&self, row: &PayerUse, at: Time) -> u64 {
        let milli_ms = self.decay.faded(self.weighted(row, at), at);
        u64::try_from(milli_ms / 1000).unwrap_or(u64::MAX)
    }

    pub(crate) fn is_full_for(&self, payer: &Payer) -> bool {
        self.payers.len() as u64 >= PAYERS_MAX && !self.payers.contains(payer)
    }

    fn change(&mut self, accounts: &Accounts, payer: &Payer, change: impl Fn(&mut Held)) -> &mut PayerUse {
        let known: Vec<Name> = accounts.upward(&payer.0).map(|account| account.name.clone()).collect();
        // One that is not in the document stands for itself.
        let names = if known.is_empty() { vec![payer.0.clone()] } else { known };
        for name in names {
            let mut held = self.of_account(&name);
            change(&mut held);
            match held.is_nothing() {
                true => drop(self.accounts.remove(&name)),
                false => drop(self.accounts.insert(name, held)),
            }
        }
        if !self.payers.contains(payer) {
            self.payers.insert(payer.clone(), PayerUse::default());
        }
        let row = self.payers.get_mut(payer).expect("inserted when it was missing");
        change(&mut row.held);
        row
    }

    fn drop_if_unused(&mut self, payer: &Payer) {
        if self.payers.get(payer).is_some_and(|row| *row == PayerUse::default()) {
            self.payers.remove(payer);
        }
    }

    pub(crate) fn job_comes(&mut self, accounts: &Accounts, payer: &Payer) {
        self.change(accounts, payer, |held| held.jobs += 1);
    }

    pub(crate) fn job_goes(&mut self, accounts: &Accounts, payer: &Payer) {
        self.change(accounts, payer, |held| held.jobs -= 1);
        self.drop_if_unused(payer);
    }

    pub(crate) fn take(&mut self, accounts: &Accounts, payer: &Payer, holding: Holding) {
        let since = self.since(holding);
        self.latest = self.latest.max(holding.placed_at);
        self.spendings.take(accounts, &payer.0, holding);
        let row = self.change(accounts, payer, |held| {
            held.milli += holding.milli;
            held.running += 1;
        });
        row.since = row.since.saturating_add(since);
    }

    /// Ends a holding and charges it.
    pub(crate) fn charge(&mut self, accounts: &Accounts, payer: &Payer, holding: Holding, now: Time, device_ms: u64) {
        let since = self.since(holding);
        let until = self.since(Holding { placed_at: now, ..holding });
        self.latest = self.latest.max(now);
        self.spendings.charge(accounts, &payer.0, holding, now);
        let row = self.change(accounts, payer, |held| {
            held.milli -= holding.milli;
            held.running -= 1;
        });
        row.since = row.since.saturating_sub(since);
        row.charged = row.charged.saturating_add(until.saturating_sub(since).max(0) as u128);
        row.device_ms = row.device_ms.saturating_add(device_ms);
        self.drop_if_unused(payer);
    }

    /// Something that runs may cost more, or less, than was set aside for it.
    pub(crate) fn set_aside_anew(
        &mut self,
        accounts: &Accounts,
        payer: &Payer,
        holding: Holding,
        now: Time,
        cost: MicroUsd,
    ) {
        self.spendings.set_aside_anew(accounts, &payer.0, holding, now, cost);
    }

    fn since(&self, holding: Holding) -> i128 {
        i128::from(holding.milli).saturating_mul(self.decay.forward(holding.placed_at))
    }

    /// Must [`Self::rebase`] be called before anything else is counted?
    pub(crate) fn is_overdue(&self, now: Time) -> bool {
        self.decay.overdue(now).is_some()
    }

    /// Moves the landmark on. `holdings`: everything held now.
    pub(crate) fn rebase(&mut self, now: Time, holdings: &[(Payer, Holding)]) {
        let Some(half_lives) = self.decay.overdue(now) else { return };
        self.decay = self.decay.advanced(half_lives);
        let shift = u32::try_from(half_lives).unwrap_or(u32::MAX);
        self.rewrite(holdings, |charged| charged.checked_shr(shift).unwrap_or(0));
    }

    /// Another half-life from now on: what was used counts as it has faded so far.
    pub(crate) fn set_half_life(&mut self, half_life_ms: u64, now: Time, holdings: &[(Payer, Holding)]) {
        let before = self.decay;
        self.decay = Decay::new(now, half_life_ms);
        if before != self.decay {
            self.rewrite(holdings, |charged| before.rescaled(charged, now));
        }
    }

    fn rewrite(&mut self, holdings: &[(Payer, Holding)], charged: impl Fn(u128) -> u128) {
        let mut since: BTreeMap<&Payer, i128> = BTreeMap::new();
        for (payer, holding) in holdings {
            let sum = since.entry(payer).or_default();
            *sum = sum.saturating_add(self.since(*holding));
        }
        let names: Vec<Payer> = self.payers.keys().cloned().collect();
        for payer in names {
            let row = self.payers.get_mut(&payer).expect("listed just now");
            row.charged = charged(row.charged);
            row.since = since.get(&payer).copied().unwrap_or(0);
            if row.charged == 0 && row.held.is_nothing() {
                self.payers.remove(&payer);
            }
        }
    }

    /// After a change of the accounts: what each and all below it hold. `holdings`: everything held now.
    pub(crate) fn resum(&mut self, accounts: &Accounts, holdings: &[(Payer, Holding)], now: Time) {
        self.accounts = self.sums(accounts);
        self.spendings.resum(accounts, holdings, now);
    }

    fn sums(&self, accounts: &Accounts) -> Table<Name, Held> {
        let mut sums: Table<Name, Held> = Table::default();
        let rows: Vec<(Payer, Held)> = self.payers.iter().map(|(payer, row)| (payer.clone(), row.held)).collect();
        for ((account, _), held) in rows.iter().filter(|(_, held)| !held.is_nothing()) {
            let known: Vec<&Name> = accounts.upward(account).map(|account| &account.name).collect();
            for name in if known.is_empty() { vec![account] } else { known } {
                let sum = sums.get(name).copied().unwrap_or_default();
                let sum = Held {
                    milli: sum.milli + held.milli,
                    running: sum.running + held.running,
                    jobs: sum.jobs + held.jobs,
                };
                sums.insert(name.clone(), sum);
            }
        }
        sums
    }

    /// The first broken invariant, given everything that is held and the live jobs' payers.
    pub(super) fn check(
        &self,
        accounts: &Accounts,
        holdings: &[(Payer, Holding)],
        jobs: impl Iterator<Item = Payer>,
    ) -> Result<(), String> {
        let mut expected: BTreeMap<Payer, (Held, i128)> = BTreeMap::new();
        for payer in jobs {
            expected.entry(payer).or_default().0.jobs += 1;
        }
        for (payer, holding) in holdings {
            let (held, since) = expected.entry(payer.clone()).or_default();
            held.milli += holding.milli;
            held.running += 1;
            *since = since.saturating_add(self.since(*holding));
        }
        for (payer, row) in self.payers.iter() {
            let (held, since) = expected.remove(payer).unwrap_or_default();
            if (row.held, row.since) != (held, since) {
                return Err(format!("{payer:?} holds {row:?}, expected {held:?} since {since}"));
            }
        }
        match expected.first_key_value() {
            Some((payer, held)) => Err(format!("{payer:?} has no row and holds {held:?}")),
            None if self.accounts != self.sums(accounts) => Err("the sums of accounts are not those of payers".into()),
            None => self.spendings.check(accounts, holdings),
        }
    }
}

impl State {
    /// Whom a job charges as it is now.
    pub fn payer(&self, job: &JobRecord) -> Payer {
        (self.scheduling(job).account.clone(), job.principal.clone())
    }

    /// Everything that is held, and by whom. What runs is charged to the account it was started for.
    pub(crate) fn holdings(&self) -> Vec<(Payer, Holding)> {
        let holding = |gang: &super::gang::GangRecord| {
            let attempt = gang.current()?;
            let job = self.jobs.get(&gang.id.job)?;
            let revision = job.revisions.iter().find(|revision| revision.number == gang.revision)?;
            let account = self.interned(revision.scheduling).scheduling.account.clone();
            Some(((account, job.principal.clone()), attempt.holding()))
        };
        self.gangs.values().filter_map(holding).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::time::{DAY_MS, HOUR_MS};
    use proptest::prelude::*;

    fn payer(account: &str) -> Payer {
        (Name::new(account).unwrap(), Principal("alice".into()))
    }

    fn held(milli: u64, placed_at: u64) -> Holding {
        Holding { milli, placed_at: Time(placed_at), hourly: MicroUsd(0), set_aside: MicroUsd(0) }
    }

    /// What a holding is worth at `now`, in device-milliseconds: the integral of 2^(-age / half-life).
    fn worth(milli: u64, from: u64, to: u64, now: u64, half_life_ms: u64) -> f64 {
        let devices = milli as f64 / 1000.0;
        if half_life_ms == 0 {
            return devices * (to - from) as f64;
        }
        let half_life = half_life_ms as f64;
        let weight = |at: u64| (-((now - at) as f64) / half_life).exp2();
        devices * half_life / std::f64::consts::LN_2 * (weight(to) - weight(from))
    }

    proptest! {
        /// Over decades, with a landmark that moves on whenever it must.
        #[test]
        fn use_fades_as_the_exact_integral_does(
            half_life_ms in prop_oneof![Just(0), Just(HOUR_MS), Just(7 * DAY_MS), Just(366 * DAY_MS)],
            start in 0u64..2_000_000_000_000,
            steps in proptest::collection::vec((0u64..400 * DAY_MS, 1u64..16_000, any::<bool>()), 1..40),
        ) {
            let (accounts, who) = (Accounts::default(), payer("a"));
            let mut usage = Usage { decay: Decay::new(Time(start), half_life_ms), ..Usage::default() };
            let (mut now, mut running, mut expected) = (start, Vec::<(u64, u64)>::new(), Vec::new());
            for (pass_ms, milli, end) in steps {
                now += pass_ms;
                let holdings: Vec<_> = running.iter().map(|&(milli, at)| (who.clone(), held(milli, at))).collect();
                usage.rebase(Time(now), &holdings);
                if end && !running.is_empty() {
                    let (milli, from) = running.remove(0);
                    usage.charge(&accounts, &who, held(milli, from), Time(now), 1);
                    expected.push((milli, from, now));
                } else {
                    usage.take(&accounts, &who, held(milli, now));
                    running.push((milli, now));
                }
                let ended = expected.iter().map(|&(milli, from, to)| worth(milli, from, to, now, half_life_ms));
                let present = running.iter().map(|&(milli, from)| worth(milli, from, now, now, half_life_ms));
                let sum: f64 = ended.chain(present).sum();
                let row = usage.of_payer(&who);
                let got = usage.decayed_device_ms(&row, Time(now)) as f64;
                prop_assert!((got - sum).abs() <= 2.0 + sum * 1e-6, "{} instead of {}", got, sum);
            }
        }
    }

    #[test]
    fn what_has_faded_altogether_is_forgotten() {
        let (accounts, who) = (Accounts::default(), payer("a"));
        let mut usage = Usage { decay: Decay::new(Time(0), HOUR_MS), ..Usage::default() };
        usage.take(&accounts, &who, held(1000, 0));
        usage.charge(&accounts, &who, held(1000, 0), Time(HOUR_MS), HOUR_MS);
        usage.rebase(Time(20 * HOUR_MS), &[]);
        assert_eq!(usage.payers().len(), 1);
        usage.rebase(Time(u64::MAX), &[]);
        assert!(usage.payers().is_empty());
    }

    #[test]
    fn another_half_life_counts_what_was_used_as_it_has_faded_so_far() {
        let (accounts, who) = (Accounts::default(), payer("a"));
        let mut usage = Usage { decay: Decay::new(Time(0), HOUR_MS), ..Usage::default() };
        let at = |usage: &Usage, now| usage.decayed_device_ms(&usage.of_payer(&who), Time(now)) as f64;
        usage.take(&accounts, &who, held(1000, 0));
        usage.charge(&accounts, &who, held(1000, 0), Time(HOUR_MS), HOUR_MS);
        let before = at(&usage, 3 * HOUR_MS);
        usage.set_half_life(DAY_MS, Time(3 * HOUR_MS), &[]);
        assert!((at(&usage, 3 * HOUR_MS) - before).abs() < 2.0);
        assert!((at(&usage, 3 * HOUR_MS + DAY_MS) - before / 2.0).abs() < 2.0);
        usage.set_half_life(0, Time(3 * HOUR_MS), &[]);
        assert!((at(&usage, 300 * DAY_MS) - before).abs() < 2.0);
    }
}
