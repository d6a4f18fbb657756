//! Cells that are guaranteed: whatever may be stopped in time goes for a gang within its account's shape, whatever
//! budgets say and whoever is within their own by number. See ADR 7.

use super::{Offers, Price};
use crate::command::StopFor;
use crate::plan::owed;
use crate::plan::quota::wanted;
use crate::plan::round::Round;
use crate::plan::waiting::Item;
use muster_common::job::Scheduling;
use muster_common::{GangId, Name};

impl Round<'_> {
    /// Could others be stopped because somebody owns cells?
    pub fn may_guarantee(&self) -> bool {
        self.ledger.owed.is_on()
    }

    /// Makes room for a gang within its shape. True when it now waits for others to go.
    pub(super) fn take_guaranteed(&mut self, gang: GangId, item: &Item) -> bool {
        for model in self.entitled(item) {
            let mut asked = (*item.scheduling).clone();
            asked.groups.iter_mut().for_each(|group| group.models = vec![model.clone()]);
            let asked = item.asking(asked);
            let Some(offers) = self.guarantee_offers(&model, &asked) else { continue };
            let avoid = self.barred_for(&asked);
            if let Some(taken) = self.choose(gang, &asked, &offers, &avoid) {
                self.stop_for(gang, &taken, StopFor::Guarantee);
                return true;
            }
            // Nothing comes free within a cycle.
            if self.excluded(gang).is_empty() {
                self.taking.in_vain.insert((item.shape, StopFor::Guarantee));
            }
        }
        false
    }

    /// Models of which the gang is within what its account owns, by shape and by number.
    fn entitled(&self, item: &Item) -> Vec<Name> {
        let (owed, quotas) = (&self.ledger.owed, &self.ledger.quotas);
        let state = self.state;
        let waits = self.taking.waiting.iter().filter_map(|gang| {
            let job = state.job(gang.job)?;
            Some((*gang, &**state.scheduling(job)))
        });
        let placed = self.placed.iter().filter_map(|gang| {
            let job = state.job(gang.job)?;
            Some((*gang, &**state.scheduling(job)))
        });
        let runs = self.waiting.running.iter().map(|(gang, runs)| (gang, &*runs.scheduling));
        let own: Vec<(GangId, &Scheduling)> = runs.chain(waits).chain(placed).collect();
        let document = state.accounts().document();
        let mut models = owed::entitled(owed, document, state.fabric(), &item.scheduling, own.iter().copied());
        models.retain(|model| {
            let owner = owed.owner_of(model, &item.scheduling.account);
            let at = owner.map(|owner| quotas.place(&document.accounts[usize::from(owner)].name));
            at.zip(quotas.model(model))
                .is_some_and(|(at, number)| quotas.left(at, number) >= wanted(&item.scheduling, model))
        });
        models
    }

    fn guarantee_offers(&mut self, model: &Name, item: &Item) -> Option<Offers> {
        let taking = &self.state.policy().taking;
        let (owed, quotas) = (&self.ledger.owed, &self.ledger.quotas);
        let mut offers = Offers { victims_max: usize::MAX, ..Offers::default() };
        for (other, runs) in self.waiting.running.iter() {
            if runs.leaving || self.taking.victims.contains(&other) {
                offers.leaving.insert(other);
                continue;
            }
            let theirs = &runs.scheduling.account;
            // Of its own only what is smaller, so that two do not stop each other in turn.
            let own = owed.are_of_one_owner(model, &item.scheduling.account, theirs);
            let too_large = own && runs.scheduling.devices() >= item.scheduling.devices();
            if !runs.may_be_stopped() || owed.is_firm(&runs.scheduling) || too_large {
                continue;
            }
            let until = runs.started_at.map_or(self.now, |at| at.plus_ms(taking.reclaim.min_run_ms));
            if until > self.now {
                self.taking.retry_at = self.taking.retry_at.into_iter().chain([until]).min();
                continue;
            }
            // Who holds more than their own goes first, whoever owns cells too goes last: there is always
            // somebody else where both could have theirs.
            let left = quotas.model(model).map_or(0, |number| quotas.left(quotas.place(theirs), number));
            let owns = owed.owner_of(model, theirs).is_some();
            let rank = if left < 0 { -1 } else { i64::from(owns) };
            offers.prices.insert(other, Price { rank, loss: runs.loss(taking, self.now) });
        }
        self.spent += self.waiting.active.len() as u64;
        (!offers.prices.is_empty()).then_some(offers)
    }
}
