//! Taking back lent quota: from accounts that hold more than they own, those that went furthest
//! beyond it first, and in each the gangs whose end loses least.

use super::{Offers, Price};
use crate::plan::quota::{AccountAt, Milli, ModelAt, Quotas};
use crate::plan::round::Round;
use crate::plan::waiting::Item;
use muster_common::GangId;
use std::collections::BTreeMap;

/// A gang that may go, and what it holds.
struct Borrower {
    gang: GangId,
    milli: Milli,
    loss: u64,
}

impl Round<'_> {
    /// Gangs on borrowed quota that somebody within their own may have stopped.
    pub(super) fn reclaim_offers(&mut self, item: &Item) -> Option<Offers> {
        let taking = &self.state.policy().taking;
        let quotas = &self.ledger.quotas;
        if !taking.reclaim.on || !quotas.is_on() {
            return None;
        }
        let ours = quotas.place(&item.scheduling.account);
        let mut offers = Offers { victims_max: usize::MAX, ..Offers::default() };
        for (model, number) in quotas.models() {
            let need = quotas.wanted(&item.scheduling, model);
            if need == 0 {
                continue;
            }
            // Gangs are many, accounts few, and most of them owe nothing.
            let owe = |theirs| Some((theirs, owing(quotas, (ours, theirs), number, need)?));
            let tops: BTreeMap<AccountAt, AccountAt> = quotas.accounts().filter_map(owe).collect();
            if tops.is_empty() {
                continue;
            }
            let mut by_account: BTreeMap<AccountAt, Vec<Borrower>> = BTreeMap::new();
            for (gang, runs) in self.waiting.running.iter() {
                if runs.leaving || self.taking.victims.contains(&gang) {
                    offers.leaving.insert(gang);
                    continue;
                }
                if !runs.may_be_stopped() {
                    continue;
                }
                let Some((theirs, milli)) = charged(quotas, gang, number) else { continue };
                let Some(&top) = tops.get(&theirs) else { continue };
                let until = runs.started_at.map_or(self.now, |at| at.plus_ms(taking.reclaim.min_run_ms));
                if until > self.now {
                    self.taking.look_again_at(until);
                    continue;
                }
                let loss = runs.loss(taking, self.now);
                by_account.entry(top).or_default().push(Borrower { gang, milli, loss });
            }
            for (top, gangs) in by_account {
                offers.beyond.insert((top, number), -quotas.left(top, number));
                unwind(quotas, number, top, gangs, &mut offers);
            }
        }
        self.spent += self.waiting.active.len() as u64;
        (!offers.prices.is_empty()).then_some(offers)
    }

    /// May a gang be stopped for a higher class? Of its own account always; of another only while that
    /// holds more than it owns.
    pub(super) fn is_fair_game(&self, item: &Item, other: GangId, offers: &mut Offers) -> bool {
        let quotas = &self.ledger.quotas;
        if !quotas.is_on() {
            return true;
        }
        let ours = quotas.place(&item.scheduling.account);
        let Some(charge) = quotas.held_by(other) else { return true };
        if charge.at == ours || charge.held.is_empty() {
            return true;
        }
        let ways = charge.held.iter().map(|(model, milli)| (*model, *milli, way(quotas, ours, charge.at)));
        let ways: Option<Vec<_>> = ways.map(|(model, milli, way)| Some((model, milli, way?))).collect();
        let Some(ways) = ways else { return false };
        let beyond =
            |(model, _, way): &(ModelAt, Milli, Vec<AccountAt>)| way.iter().all(|at| quotas.left(*at, *model) < 0);
        if !ways.iter().all(beyond) {
            return false;
        }
        let mut borrowed = Vec::new();
        for (model, milli, way) in ways {
            let top = *way.last().expect("it begins with its own account");
            borrowed.push((top, model, milli));
            offers.beyond.insert((top, model), -quotas.left(top, model));
        }
        offers.borrowed.insert(other, borrowed);
        true
    }
}

/// From an account up to where it parts from ours.
fn way(quotas: &Quotas, ours: AccountAt, theirs: AccountAt) -> Option<Vec<AccountAt>> {
    let (_, top) = quotas.sides(ours, theirs)?;
    let mut way: Vec<AccountAt> = quotas.upward(theirs).collect();
    let end = way.iter().position(|at| *at == top)?;
    way.truncate(end + 1);
    Some(way)
}

/// Whose it is and how much it holds of a model.
fn charged(quotas: &Quotas, gang: GangId, model: ModelAt) -> Option<(AccountAt, Milli)> {
    let charge = quotas.held_by(gang)?;
    let (_, milli) = charge.held.iter().find(|(other, milli)| *other == model && *milli > 0)?;
    Some((charge.at, *milli))
}

/// The account that borrows from our side, where ours stays within its own with what it needs and everybody from theirs
/// up to there holds more than they own.
fn owing(quotas: &Quotas, (ours, theirs): (AccountAt, AccountAt), model: ModelAt, need: Milli) -> Option<AccountAt> {
    if quotas.left(theirs, model) >= 0 {
        return None;
    }
    let (side, _) = quotas.sides(ours, theirs)?;
    let way = way(quotas, ours, theirs)?;
    let entitled = quotas.left(side, model) >= need;
    let beyond = way.iter().all(|at| quotas.left(*at, model) < 0);
    way.last().copied().filter(|_| entitled && beyond)
}

/// Prices as if the gangs went one after the other, the cheapest first: each costs what its account
/// would still be beyond its own, against its weight. The more that is, the sooner it goes.
///
/// Whoever is offered for several models goes with all of them, so the one of which its account is least beyond its
/// own says how long it is spared.
fn unwind(quotas: &Quotas, model: ModelAt, top: AccountAt, mut gangs: Vec<Borrower>, offers: &mut Offers) {
    gangs.sort_by_key(|gang| (gang.loss / (gang.milli.max(1) as u64), gang.gang));
    let mut gone = 0;
    for gang in gangs {
        let rank = -quotas.excess_after(top, model, gone);
        gone += gang.milli;
        let price = Price { rank, loss: gang.loss };
        offers.prices.entry(gang.gang).and_modify(|known| *known = price.max(*known)).or_insert(price);
        offers.borrowed.entry(gang.gang).or_default().push((top, model, gang.milli));
    }
}
