//! Taking back: stopping some gangs for the sake of one. The domain is chosen first, then in it the
//! gangs whose end loses least; whole gangs only, none that is not needed, and none at all unless
//! the one they make room for then fits.

mod ahead;
mod choose;
mod consolidate;
mod guarantee;
mod keep;
mod places;
mod preempt;
mod reclaim;
mod trim;

pub use ahead::KeptAhead;
pub use keep::hide;

use super::blockers::holders;
use super::bookings::Booking;
use super::owed::Take as CellTake;
use super::quota::{AccountAt, Milli, ModelAt};
use super::round::Round;
use super::waiting::Item;
use crate::command::{PlacedPart, PlanStep, StopFor};
use crate::cycle::foresees;
use crate::state::reservation::{Reservation, ReservationKind};
use muster_common::job::{Hash, Scheduling};
use muster_common::resources::Amount;
use muster_common::{DeviceId, GangId, Name, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What one gang costs when it is stopped: who may be spared longest, then how much is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price {
    pub rank: i64,
    /// Device-milliseconds.
    pub loss: u64,
}

/// Gangs that may be stopped for one, and those that leave anyway.
#[derive(Debug, Default)]
pub struct Offers {
    pub prices: BTreeMap<GangId, Price>,
    pub leaving: BTreeSet<GangId>,
    /// How many may be stopped.
    pub victims_max: usize,
    /// Of gangs that go because their account holds more than it owns: that account, and how much they hold of
    /// each model.
    pub borrowed: BTreeMap<GangId, Vec<(AccountAt, ModelAt, Milli)>>,
    /// How much more than it owns each of those accounts holds of a model.
    pub beyond: BTreeMap<(AccountAt, ModelAt), Milli>,
    /// Whoever goes is to have a new place at once.
    pub moved: bool,
}

impl Offers {
    /// No account is brought below what it owns of a model by more than the last of its victims. In reclaim only
    /// models that the waiting gang asks for are looked at.
    fn are_fair(&self, victims: &[GangId]) -> bool {
        let mut taken: BTreeMap<(AccountAt, ModelAt), Vec<Milli>> = BTreeMap::new();
        for (at, model, milli) in victims.iter().filter_map(|victim| self.borrowed.get(victim)).flatten() {
            taken.entry((*at, *model)).or_default().push(*milli);
        }
        taken.iter().all(|(of, taken)| {
            let last = taken.iter().max().copied().unwrap_or(0);
            taken.iter().sum::<Milli>() - last < self.beyond.get(of).copied().unwrap_or(0)
        })
    }
}

/// Who has to go, and where the gang will be then.
#[derive(Debug, Clone)]
pub struct Taken {
    pub victims: Vec<GangId>,
    pub parts: Vec<PlacedPart>,
    /// Before then some of them are left alone, and nobody is stopped.
    pub ripe_at: Option<Time>,
}

impl Taken {
    fn devices(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.parts.iter().flat_map(PlacedPart::device_ids)
    }
}

/// Steps of failed searches in one cycle; each may look at every node.
const VAIN_STEPS_MAX: u64 = 300_000;

/// One cycle's part in taking back.
#[derive(Debug, Default)]
pub struct TakingBack {
    /// Gangs that wait for devices kept for them, and for nothing else.
    pub waiting: BTreeSet<GangId>,
    /// Those of them that count against limits already.
    counted: BTreeSet<GangId>,
    /// Something has been set apart in this cycle and not written down: of what is chosen beside it a later cycle could
    /// not tell.
    unwritten: bool,
    /// Told to stop in this cycle.
    victims: BTreeSet<GangId>,
    /// Quota is being looked at as it will be when all of that has come to pass.
    all_left: bool,
    /// How many of them for a higher class; what guarantees take counts against no budget.
    preempted: usize,
    /// What was set aside on the ledger, by whose it is.
    masked: BTreeMap<GangId, Vec<Masked>>,
    charged: BTreeMap<GangId, Vec<PlacedPart>>,
    /// What is kept for a gang while others still hold it, and so is charged to them.
    coming: BTreeMap<GangId, Vec<PlacedPart>>,
    /// What of what is kept will be its own for good.
    cells: BTreeMap<GangId, Vec<CellTake>>,
    masked_slots: BTreeSet<DeviceId>,
    /// What is kept for those that wait for it still, on the timelines.
    pub ahead: BTreeMap<NodeId, Vec<KeptAhead>>,
    /// Requests for which nobody can be stopped, in this cycle, and on which grounds.
    in_vain: BTreeSet<(Hash, StopFor, Option<u64>)>,
    vain_steps: u64,
    /// What runs and ends already, once somebody has asked.
    ending: Option<Arc<Vec<GangId>>>,
    /// What accounts that own cells have, by account, once somebody has asked.
    own_work: Option<BTreeMap<Name, Vec<OwnWork>>>,
    /// Models of which a request is within its account's shape, and how much had been decided when that was asked.
    entitled: BTreeMap<Hash, ([usize; 3], Arc<Vec<Name>>)>,
    /// Would what runs and asks for that, off those nodes, find another place?
    somewhere: BTreeMap<(Hash, Vec<NodeId>), bool>,
    /// Of the last choice of gangs to move: their new places, or one that found none.
    places: Option<Vec<places::NewPlace>>,
    stuck: Option<GangId>,
    /// When a gang that is protected now may be stopped.
    pub retry_at: Option<Time>,
}

impl TakingBack {
    /// Somebody may be stopped then who is protected until then.
    fn look_again_at(&mut self, at: Time) {
        self.retry_at = self.retry_at.into_iter().chain([at]).min();
    }
}

/// The first of the kinds of [`OwnWork`].
const RUNS: u8 = 0;

/// A gang of an account that owns cells.
#[derive(Debug, Clone)]
struct OwnWork {
    /// What runs comes first, by when it was placed, then what waits for what is kept, then what this cycle places.
    since: (u8, Time, GangId),
    scheduling: Arc<Scheduling>,
}

#[derive(Debug)]
pub struct Masked {
    node: NodeId,
    slots: Vec<(u16, u16)>,
    amount: Amount,
}

impl Round<'_> {
    /// Could others be stopped for any gang of the item's class, whosever it is?
    pub fn may_preempt(&self, item: &Item) -> bool {
        let policy = self.state.policy();
        let Some(preempt) = &policy.taking.preempt else { return false };
        let class = policy.class_rank(&item.scheduling.class).unwrap_or(0);
        self.waiting.running.has_class_upto(i64::from(class) - i64::from(preempt.class_gap))
    }

    /// Could anybody be stopped for anybody?
    pub fn takes(&self) -> bool {
        self.may_reclaim() || self.may_guarantee() || self.state.policy().taking.preempt.is_some()
    }

    /// Could others be stopped because their accounts hold more than they own?
    pub fn may_reclaim(&self) -> bool {
        self.state.policy().taking.reclaim.on && self.ledger.quotas.is_on()
    }

    /// Makes room for a gang that does not fit, if the policy lets others be stopped for it, away from
    /// nodes on which a start is booked. True when it now waits for its victims to go.
    pub fn take_back(&mut self, gang: GangId, item: &Item) -> bool {
        let may = self.may_reclaim() || self.may_guarantee() || self.may_preempt(item);
        if !may || item.scheduling.devices() == 0 || !self.could_ever(gang, item) {
            return false;
        }
        self.put_back();
        let found = self.as_when_all_left(|round| {
            let found = round.find_victims(gang, item);
            found.filter(|(taken, _)| !round.waits_for_own_to_leave(item, &taken.victims))
        });
        let Some((taken, why)) = found else { return false };
        match taken.ripe_at {
            None => {
                self.tell_to_stop(gang, &taken.victims, why);
                self.hold_choice(gang, &taken, self.now);
            }
            // Nobody else begins there meanwhile, or some node of them would always be too fresh.
            Some(ripe_at) => {
                self.taking.look_again_at(ripe_at);
                // What a later cycle would give up again is not written down.
                let known = self.choice(gang, &taken, ripe_at);
                let may_be_known = !self.taking.unwritten && self.have_just_the_witness(&taken);
                if may_be_known && self.still_takes(&known, item).is_some() {
                    self.hold_choice(gang, &taken, ripe_at);
                } else {
                    self.taking.unwritten = true;
                    self.set_apart(gang, &taken);
                }
            }
        }
        true
    }

    fn find_victims(&mut self, gang: GangId, item: &Item) -> Option<(Taken, StopFor)> {
        // A start that is booked gives way to a guarantee as what runs does.
        if self.may_guarantee()
            && let Some(taken) = self.find_guaranteed(gang, item)
        {
            return Some((taken, StopFor::Guarantee));
        }
        if self.is_worth_a_search(item, StopFor::Reclaim)
            && let Some(offers) = self.reclaim_offers(item)
            && let Some(taken) = self.take_from(gang, item, offers, StopFor::Reclaim)
        {
            return Some((taken, StopFor::Reclaim));
        }
        if !self.is_worth_a_search(item, StopFor::Priority) {
            return None;
        }
        let offers = self.priority_offers(gang, item)?;
        self.take_from(gang, item, offers, StopFor::Priority).map(|taken| (taken, StopFor::Priority))
    }

    /// Asks something of quota as it will be when whoever leaves has left and what is kept is in use. Without it two gangs
    /// of one account would each take back what only one of them may have, and an account be brought below its own.
    fn as_when_all_left<T>(&mut self, ask: impl FnOnce(&mut Self) -> T) -> T {
        if self.taking.all_left {
            return ask(self);
        }
        let mark = self.ledger.mark();
        self.charge_as_when_all_left();
        self.taking.all_left = true;
        let answer = ask(self);
        self.taking.all_left = false;
        self.ledger.rollback(mark);
        answer
    }

    fn charge_as_when_all_left(&mut self) {
        if !self.ledger.quotas.is_on() {
            return;
        }
        let waiting = self.waiting;
        let ending = self.taking.ending.get_or_insert_with(|| {
            let running = waiting.running.iter();
            Arc::new(running.filter(|(_, runs)| runs.leaving).map(|(gang, _)| gang).collect())
        });
        let leaving: BTreeSet<GangId> = ending.iter().chain(&self.taking.victims).copied().collect();
        leaving.into_iter().for_each(|gang| self.uncharge(gang, -1));
        let coming: Vec<_> = self.taking.coming.iter().map(|(gang, parts)| (*gang, parts.clone())).collect();
        coming.into_iter().for_each(|(gang, parts)| self.charge(gang, &parts, 1));
    }

    /// Once these have left too, will there be enough quota only when those of its own account have that leave already? They
    /// may take longer, and what the others leave could not be used: it would be given up, and they begin there again.
    fn waits_for_own_to_leave(&mut self, item: &Item, victims: &[GangId]) -> bool {
        let account = &item.scheduling.account;
        let ending = self.taking.ending.iter().flat_map(|ending| ending.iter()).copied();
        let is_own = |gang: &GangId| self.running(*gang).is_some_and(|runs| runs.scheduling.account == *account);
        let own: Vec<GangId> = ending.filter(is_own).collect();
        if own.is_empty() {
            return false;
        }
        victims.iter().for_each(|gang| self.uncharge(*gang, -1));
        let is_over = self.is_over_quota(item);
        own.iter().for_each(|gang| self.uncharge(*gang, 1));
        !is_over && self.is_over_quota(item)
    }

    /// Has it been told to stop, or does it end already?
    fn leaves(&self, gang: GangId) -> bool {
        self.taking.victims.contains(&gang) || self.running(gang).is_some_and(|runs| runs.leaving)
    }

    /// Nodes on which a start is booked that the gang might still be in the way of, once its victims are gone, not
    /// for those behind it in the order; and nodes in windows that it could run on into then.
    fn booked_too_soon(&self, item: &Item, offers: &Offers) -> BTreeSet<NodeId> {
        let from = self.gone_by(offers);
        let mut nodes = self.booked.nodes_before(from.plus_ms(item.left()), &self.unseen);
        nodes.extend(self.put_aside(item, from));
        nodes
    }

    /// Nodes that people have put aside for before the end of a gang that starts then.
    fn put_aside(&self, item: &Item, from: Time) -> BTreeSet<NodeId> {
        let met = |booking: &&Arc<Booking>| booking.fixed && booking.start < from.plus_ms(booking.run_beside(item));
        self.booked.iter().filter(met).flat_map(|booking| booking.on.keys().copied()).collect()
    }

    /// When whoever might be stopped is gone at the latest.
    fn gone_by(&self, offers: &Offers) -> Time {
        let all = offers.prices.keys().chain(&offers.leaving);
        let graces = all.filter_map(|gang| Some(self.running(*gang)?.scheduling.checkpoint.grace_ms));
        let late_ms = self.state.settings().kill_bound_ms.saturating_add(self.state.policy().taking.release_ms);
        self.now.plus_ms(graces.max().unwrap_or(0)).plus_ms(late_ms)
    }

    fn take_from(&mut self, gang: GangId, item: &Item, mut offers: Offers, why: StopFor) -> Option<Taken> {
        let avoid = self.booked_too_soon(item, &offers);
        let before = self.spent;
        let mut taken = self.choose(gang, item, &offers, &avoid);
        while let Some(found) = &taken {
            let back = self.would_come_back(gang, item, found, why);
            if back.is_empty() {
                break;
            }
            back.iter().for_each(|victim| _ = offers.prices.remove(victim));
            let may_go_on = self.spent - before < VAIN_STEPS_MAX;
            taken = if may_go_on { self.choose(gang, item, &offers, &avoid) } else { None };
        }
        if taken.is_none() {
            self.taking.vain_steps += self.spent - before;
            if self.state.gang(gang).is_none_or(|record| record.excluded.is_empty()) {
                self.note_in_vain(item, why);
            }
        }
        taken
    }

    pub(super) fn is_worth_a_search(&self, item: &Item, why: StopFor) -> bool {
        self.taking.vain_steps < VAIN_STEPS_MAX && !self.is_in_vain(item, why)
    }

    /// Is it known that nobody can be stopped for what the gang asks for?
    fn is_in_vain(&self, item: &Item, why: StopFor) -> bool {
        // Others of its shape may have failed for windows that are its own.
        self.inside.is_empty() && self.taking.in_vain.contains(&self.vain_key(item, why))
    }

    pub(super) fn note_in_vain(&mut self, item: &Item, why: StopFor) {
        let key = self.vain_key(item, why);
        self.taking.in_vain.insert(key);
    }

    /// Where windows of time are in the way, it depends on how long it still runs.
    fn vain_key(&self, item: &Item, why: StopFor) -> (Hash, StopFor, Option<u64>) {
        (item.shape, why, item.left_ms.filter(|_| self.booked.any_fixed()))
    }

    /// When the longest grace of those ends that are told to stop at a moment.
    fn grace_ends(&self, victims: &[GangId], at: Time) -> Time {
        let graces = victims.iter().filter_map(|gang| Some(self.running(*gang)?.scheduling.checkpoint.grace_ms));
        at.plus_ms(graces.max().unwrap_or(0))
    }

    fn tell_to_stop(&mut self, gang: GangId, victims: &[GangId], why: StopFor) {
        for victim in victims {
            let Some(record) = self.state.gang(*victim) else { continue };
            self.steps.push(PlanStep::Stop { gang: *victim, attempt: record.attempt, by: Some(gang), why });
            self.taking.victims.insert(*victim);
            self.taking.preempted += usize::from(why == StopFor::Priority);
            self.ledger.set_gone(*victim, true);
        }
    }

    /// It is the gang's until those have left who are told to at that moment.
    fn hold_choice(&mut self, gang: GangId, taken: &Taken, told_at: Time) {
        let known = self.choice(gang, taken, told_at);
        let gone_by = known.start;
        self.hold_until_gone(known);
        let free = self.free_of(&taken.parts);
        self.set_apart(gang, taken);
        if foresees(self.state) {
            self.keep_chosen(gang, gone_by, taken, free);
        }
    }

    /// Are those who hold the devices chosen, and do not leave yet, all who have to go, and no others? Of whom else is to
    /// go, or shares a device, a later cycle could not tell.
    fn have_just_the_witness(&self, taken: &Taken) -> bool {
        let holders = taken.devices().flat_map(|device| holders(self.state, &device).collect::<Vec<_>>());
        let staying: BTreeSet<GangId> = holders.filter(|gang| !self.leaves(*gang)).collect();
        staying == taken.victims.iter().copied().collect()
    }

    fn choice(&self, gang: GangId, taken: &Taken, told_at: Time) -> Reservation {
        let kind = ReservationKind::Victims;
        let domain = super::backfill::common_domain(self.state, gang, &taken.parts);
        let gone_by = self.grace_ends(&taken.victims, told_at);
        Reservation { gang, kind, start: gone_by, end: gone_by, domain, witness: taken.devices().collect() }
    }

    fn hold_until_gone(&mut self, known: Reservation) {
        let late_ms = self.state.settings().kill_bound_ms.saturating_add(self.state.policy().taking.release_ms);
        self.steps.push(PlanStep::Reserve(Reservation { end: known.start.plus_ms(late_ms), ..known }));
    }

    /// Nobody else gets any of it in this cycle.
    fn set_apart(&mut self, gang: GangId, taken: &Taken) {
        self.taking.masked_slots.extend(taken.devices());
        self.taking.waiting.insert(gang);
        self.note_own_work(gang, false);
        self.take(&taken.parts);
        self.keep_whole(&taken.parts);
        self.charge_kept(gang, &taken.parts);
        self.keep_cells(gang, &taken.parts);
    }

    /// What is kept is kept as whole devices: of one that is kept for a share nobody else gets the rest.
    fn keep_whole(&mut self, parts: &[PlacedPart]) {
        for part in parts {
            self.ledger.change(part.node, |view| {
                part.devices.iter().for_each(|(slot, _)| view.free[usize::from(*slot)] = 0);
            });
        }
    }

    pub(super) fn running(&self, gang: GangId) -> Option<&super::running::Runs> {
        self.waiting.running.get(gang)
    }
}
