//! Cells that are guaranteed: whatever may be stopped in time goes for a gang within its account's shape, whatever
//! budgets say and whoever is within their own by number. See ADR 7.

use super::keep::{Kept, what_became_of};
use super::{Offers, OwnWork, Price, RUNS, Taken};
use crate::command::StopFor;
use crate::plan::blockers::holders;
use crate::plan::owed;
use crate::plan::round::Round;
use crate::plan::waiting::{Item, waits_since};
use crate::state::reservation::{Reservation, ReservationKind};
use muster_common::job::{Hash, Scheduling};
use muster_common::{DeviceId, GangId, Name, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// From this rank on it matters how soon somebody can go, and no longer who it is: to wait for borrowers that have just
/// begun, again and again, could take longer than an owner is promised.
const SOONEST: i64 = 1 << 40;

/// What is held for a gang within its shape while others hold it.
#[derive(Debug)]
pub(super) struct Choice {
    victims: Vec<GangId>,
    /// Before then some of them are left alone, and nobody is stopped.
    ripe_at: Option<Time>,
}

impl Round<'_> {
    /// Could others be stopped because somebody owns cells?
    pub fn may_guarantee(&self) -> bool {
        self.ledger.owed.is_on()
    }

    /// Is the gang within its account's shape?
    pub fn is_within_shape(&mut self, item: &Item) -> bool {
        self.may_guarantee() && !self.entitled(item).is_empty()
    }

    /// Who goes for a gang within its shape.
    pub(super) fn find_guaranteed(&mut self, gang: GangId, item: &Item) -> Option<Taken> {
        if !self.is_worth_a_search(item, StopFor::Guarantee) {
            return None;
        }
        let before = self.spent;
        let models = self.entitled(item);
        for model in models.iter() {
            let mut asked = (*item.scheduling).clone();
            asked.groups.iter_mut().for_each(|group| group.models = vec![model.clone()]);
            let asked = item.asking(asked);
            let (offers, ripe_at) = self.guarantee_offers(gang, model, &asked);
            if offers.prices.is_empty() {
                continue;
            }
            let mut avoid = self.barred_for(gang, &asked);
            avoid.extend(self.put_aside(&asked, self.gone_by(&offers)));
            if let Some(taken) = self.choose(gang, &asked, &offers, &avoid) {
                let ripe_at = taken.victims.iter().filter_map(|victim| ripe_at.get(victim)).max().copied();
                return Some(Taken { ripe_at, ..taken });
            }
        }
        self.taking.vain_steps += self.spent - before;
        // Nothing comes free within a cycle.
        if !models.is_empty() && self.excluded(gang).is_empty() {
            self.note_in_vain(item, StopFor::Guarantee);
        }
        None
    }

    /// Models of which the gang is within what its account owns, by shape and by number. Every item of the order is
    /// asked for, so the answer is kept while nothing more is decided.
    fn entitled(&mut self, item: &Item) -> Arc<Vec<Name>> {
        if !self.ledger.owed.knows(&item.scheduling.account) {
            return Arc::default();
        }
        let decided = [self.placed.len(), self.taking.waiting.len(), self.taking.victims.len()];
        if let Some((_, models)) = self.taking.entitled.get(&item.shape).filter(|(known, _)| *known == decided) {
            return models.clone();
        }
        let models = Arc::new(self.find_entitled(item));
        self.taking.entitled.insert(item.shape, (decided, models.clone()));
        models
    }

    fn find_entitled(&mut self, item: &Item) -> Vec<Name> {
        let all = self.own_work_beside(&item.scheduling.account, &BTreeSet::new());
        let own = all.iter().map(|work| (work.since.2, &*work.scheduling));
        let (document, fabric) = (self.state.accounts().document(), self.state.fabric());
        let models = owed::entitled(&self.ledger.owed, document, fabric, &item.scheduling, own);
        self.within_number(models, &item.scheduling)
    }

    /// Those of the models of which the owner of the cells that it would use owns as many devices more: now, while others
    /// leave, and once all have left and what is kept is in use.
    fn within_number(&mut self, mut models: Vec<Name>, asked: &Scheduling) -> Vec<Name> {
        models.retain(|model| self.owns_as_many(model, asked));
        if !models.is_empty() {
            self.as_when_all_left(|round| models.retain(|model| round.owns_as_many(model, asked)));
        }
        models
    }

    fn owns_as_many(&self, model: &Name, asked: &Scheduling) -> bool {
        let (owed, quotas) = (&self.ledger.owed, &self.ledger.quotas);
        let owner = owed.owner_of(model, &asked.account);
        let document = self.state.accounts().document();
        let at = owner.map(|owner| quotas.place(&document.accounts[usize::from(owner)].name));
        at.zip(quotas.model(model)).is_some_and(|(at, number)| quotas.left(at, number) >= quotas.wanted(asked, model))
    }

    /// Those of the chosen who would be within their shape and number once all of them are gone and the gang runs. They
    /// would have it stopped in turn, for ever. Within an account its classes decide.
    pub(super) fn would_come_back(&mut self, gang: GangId, item: &Item, taken: &Taken, why: StopFor) -> Vec<GangId> {
        let is_safe = !item.scheduling.preemptible || self.ledger.owed.is_firm(&item.scheduling);
        if !self.may_guarantee() || is_safe {
            return Vec::new();
        }
        let leaving = self.waiting.running.iter().map(|(gang, _)| gang).filter(|gang| self.leaves(*gang));
        let gone: BTreeSet<GangId> = leaving.chain(taken.victims.iter().copied()).collect();
        self.spent += self.waiting.active.len() as u64;
        let mark = self.ledger.mark();
        taken.victims.iter().for_each(|victim| self.uncharge(*victim, -1));
        self.charge(gang, &taken.parts, 1);
        let mut known: BTreeMap<Hash, bool> = BTreeMap::new();
        let mut back = Vec::new();
        for victim in &taken.victims {
            let Some(again) = self.item_again(*victim) else { continue };
            let account = &again.scheduling.account;
            if why == StopFor::Priority && *account == item.scheduling.account || !self.ledger.owed.knows(account) {
                continue;
            }
            let is_known = known.get(&again.shape).copied();
            let is_back = is_known.unwrap_or_else(|| self.would_be_entitled(&again.scheduling, &gone, (gang, item)));
            known.insert(again.shape, is_back);
            back.extend(is_back.then_some(*victim));
        }
        self.ledger.rollback(mark);
        back
    }

    /// Would what asks for this be, once these are gone and the gang runs, which it may have stopped then?
    fn would_be_entitled(
        &mut self,
        asked: &Scheduling,
        gone: &BTreeSet<GangId>,
        (gang, item): (GangId, &Item),
    ) -> bool {
        let all = self.own_work_beside(&asked.account, gone);
        self.spent += all.len() as u64;
        let owed = &self.ledger.owed;
        let (document, fabric) = (self.state.accounts().document(), self.state.fabric());
        let own = all.iter().map(|work| (work.since.2, &*work.scheduling));
        let new = owed.have_one_owner(&item.scheduling.account, &asked.account);
        let others = own.chain(new.then_some((gang, &*item.scheduling)));
        let mut models = owed::entitled_again(owed, document, fabric, asked, others);
        models.retain(|model| {
            let is_own = owed.are_of_one_owner(model, &item.scheduling.account, &asked.account);
            !is_own || owed.hard(model, &item.scheduling, fabric) < owed.hard(model, asked, fabric)
        });
        !self.within_number(models, asked).is_empty()
    }

    /// What accounts have that use cells of the same owner, but for some that are to go, in the order of their turn.
    fn own_work_beside(&mut self, account: &Name, gone: &BTreeSet<GangId>) -> Vec<OwnWork> {
        self.own_work();
        self.ledger.owed.settle();
        let theirs = |other: &&Name| self.ledger.owed.have_one_owner(other, account);
        let known = self.taking.own_work.iter().flatten();
        let own = known.filter(|(account, _)| theirs(account)).flat_map(|(_, works)| works);
        let mut own: Vec<OwnWork> = own.filter(|work| !gone.contains(&work.since.2)).cloned().collect();
        own.sort_unstable_by_key(|work| work.since);
        own
    }

    /// What each account that owns cells has: what runs, and what was placed or waits for what is kept.
    fn own_work(&mut self) -> &mut BTreeMap<Name, Vec<OwnWork>> {
        let (owed, waiting) = (&self.ledger.owed, self.waiting);
        self.taking.own_work.get_or_insert_with(|| {
            let mut found: BTreeMap<Name, Vec<OwnWork>> = BTreeMap::new();
            for (gang, runs) in waiting.running.iter().filter(|(_, runs)| owed.knows(&runs.scheduling.account)) {
                let work = OwnWork { since: (RUNS, runs.placed_at, gang), scheduling: runs.scheduling.clone() };
                found.entry(runs.scheduling.account.clone()).or_default().push(work);
            }
            found
        })
    }

    /// The gang has been placed, or waits for what is kept for it.
    pub fn note_own_work(&mut self, gang: GangId, placed: bool) {
        let Some(job) = self.state.job(gang.job).filter(|_| self.ledger.owed.is_on()) else { return };
        let scheduling = self.state.scheduling(job);
        if !self.ledger.owed.knows(&scheduling.account) {
            return;
        }
        let work = OwnWork { since: (RUNS + 1 + u8::from(placed), Time(0), gang), scheduling: scheduling.clone() };
        let known = self.own_work().entry(scheduling.account.clone()).or_default();
        if placed {
            known.retain(|known| known.since.2 != gang);
        }
        known.push(work);
    }

    /// Gangs of owners that run within their shape.
    fn within(&mut self, model: &Name) -> BTreeSet<GangId> {
        self.own_work();
        self.ledger.owed.settle();
        let all = self.taking.own_work.iter().flatten().flat_map(|(_, works)| works);
        let mut runs: Vec<&OwnWork> = all.filter(|work| work.since.0 == RUNS).collect();
        runs.sort_unstable_by_key(|work| work.since);
        let runs = runs.into_iter().map(|work| (work.since.2, &*work.scheduling));
        owed::within(&self.ledger.owed, model, self.state.accounts().document(), self.state.fabric(), runs)
    }

    /// Whom what was chosen for a gang within its shape is still to be taken from; `None` = it may not be any more.
    pub(super) fn still_takes(&mut self, known: &Reservation, item: &Item) -> Option<Choice> {
        if known.kind != ReservationKind::Victims || !self.may_guarantee() {
            return None;
        }
        let (offers, ripe_at) = self.offers_without_kept(known, item)?;
        let may_go = |gang: GangId| offers.prices.contains_key(&gang) || offers.leaving.contains(&gang);
        if what_became_of(self.state, known, may_go) == Kept::Lost {
            return None;
        }
        // Of two who share a device, one may have been told because the other need not go.
        let is_shared = |device: &DeviceId| {
            let leaves = |gang: GangId| offers.leaving.contains(&gang);
            holders(self.state, device).any(leaves) && !holders(self.state, device).all(leaves)
        };
        if known.witness.iter().any(is_shared) {
            return None;
        }
        let holders: BTreeSet<GangId> = known.witness.iter().flat_map(|device| holders(self.state, device)).collect();
        let victims: Vec<GangId> = holders.into_iter().filter(|gang| !offers.leaving.contains(gang)).collect();
        // Who had not started yet when it was chosen is no later for that.
        let grace_ms = self.grace_ends(&victims, Time::ZERO).since_ms(Time::ZERO);
        let latest = Time(known.start.since_ms(Time(grace_ms)));
        let ripe_at = victims.iter().filter_map(|victim| ripe_at.get(victim)).max();
        Some(Choice { victims, ripe_at: ripe_at.map(|at| latest.min(*at)).filter(|at| *at > self.now) })
    }

    /// Tells them to stop once all of them may be.
    pub(super) fn take_when_ripe(&mut self, known: &Reservation, Choice { victims, ripe_at }: Choice) {
        if let Some(ripe_at) = ripe_at {
            self.taking.look_again_at(ripe_at);
        } else if !victims.is_empty() {
            self.tell_to_stop(known.gang, &victims, StopFor::Guarantee);
            let start = self.grace_ends(&victims, self.now);
            self.hold_until_gone(Reservation { start, ..known.clone() });
        }
    }

    /// Who may be stopped for a gang within its shape that something is kept for, as if that were not.
    fn offers_without_kept(&mut self, known: &Reservation, item: &Item) -> Option<(Offers, BTreeMap<GangId, Time>)> {
        let gang = known.gang;
        let mark = self.ledger.mark();
        self.unmask(gang);
        let coming = self.taking.coming.remove(&gang);
        let offers = self.as_when_all_left(|round| round.offers_for_kept(known, item));
        self.taking.coming.extend(coming.map(|parts| (gang, parts)));
        self.ledger.rollback(mark);
        offers
    }

    fn offers_for_kept(&mut self, known: &Reservation, item: &Item) -> Option<(Offers, BTreeMap<GangId, Time>)> {
        let gang = known.gang;
        let first = known.witness.first().and_then(|device| {
            let node = self.state.node(device.node)?;
            Some(&node.inventory.devices.get(usize::from(device.slot))?.model)
        });
        let entitled = self.find_entitled(item);
        let model = entitled.into_iter().find(|model| Some(model) == first);
        let offers = model.map(|model| self.guarantee_offers(gang, &model, item));
        offers.filter(|(offers, _)| {
            let gone_by = self.gone_by(offers);
            let mut avoid = self.barred_for(gang, item);
            avoid.extend(self.put_aside(item, gone_by));
            !known.witness.iter().any(|device| avoid.contains(&device.node))
        })
    }

    /// When a gang is to have what its account owns, if it has been within that for as long as it has waited.
    fn due(&self, gang: GangId, model: &Name, item: &Item) -> Option<Time> {
        let owner = self.ledger.owed.owner_of(model, &item.scheduling.account)?;
        let within_ms = self.state.accounts().document().accounts[usize::from(owner)].reclaim_within_ms?;
        Some(waits_since(self.state, gang, &item.scheduling)?.plus_ms(within_ms))
    }

    /// Who may be stopped, and when those may be that have not run for long enough yet.
    fn guarantee_offers(&mut self, gang: GangId, model: &Name, item: &Item) -> (Offers, BTreeMap<GangId, Time>) {
        let within = self.within(model);
        let due = self.due(gang, model, item);
        let (taking, fabric) = (&self.state.policy().taking, self.state.fabric());
        let (owed, quotas) = (&self.ledger.owed, &self.ledger.quotas);
        let hard = owed.hard(model, &item.scheduling, fabric);
        let kill_bound_ms = self.state.settings().kill_bound_ms;
        let mut offers = Offers { victims_max: usize::MAX, ..Offers::default() };
        let mut ripe_at = BTreeMap::new();
        for (other, runs) in self.waiting.running.iter() {
            if runs.leaving || self.taking.victims.contains(&other) {
                offers.leaving.insert(other);
                continue;
            }
            let theirs = &runs.scheduling.account;
            // Of its own, and of what others hold within their shape, only what finds room more easily: so two never
            // stop each other in turn, nor any number in a ring.
            let is_within = within.contains(&other);
            let is_kept = is_within || owed.are_of_one_owner(model, &item.scheduling.account, theirs);
            let stays = is_kept && owed.hard(model, &runs.scheduling, fabric) >= hard;
            if !runs.may_be_stopped() || owed.is_firm(&runs.scheduling) || stays {
                continue;
            }
            // Who holds more than their own goes first, then who owns no cells, and last who is within its own shape.
            let left = quotas.model(model).map_or(0, |number| quotas.left(quotas.place(theirs), number));
            let owns = owed.owner_of(model, theirs).is_some();
            let mut rank = if left < 0 { -1 } else { i64::from(owns) };
            let until = runs.started_at.map_or(self.now, |at| at.plus_ms(taking.reclaim.min_run_ms));
            let wait_ms = i64::try_from(until.since_ms(self.now)).map_or(SOONEST - 2, |ms| ms.min(SOONEST - 2));
            if wait_ms > 0 {
                ripe_at.insert(other, until);
                // Those that can go soonest.
                rank = wait_ms + 1;
            }
            let gone_by = until.plus_ms(runs.scheduling.checkpoint.grace_ms).plus_ms(kill_bound_ms);
            if is_within || wait_ms > 0 && due.is_some_and(|due| gone_by > due) {
                rank = SOONEST + wait_ms;
            }
            offers.prices.insert(other, Price { rank, loss: runs.loss(taking, self.now) });
        }
        self.spent += self.waiting.active.len() as u64;
        (offers, ripe_at)
    }
}
