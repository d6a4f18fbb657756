//! One cycle's working state: what has been decided so far, on a ledger that is rolled back at the
//! end, and the steps that are to be committed.

use super::bookings::{Booking, Bookings};
use super::explain::Reason;
use super::fill::Kind;
use super::ledger::{Ledger, Suppose};
use super::limits::{Over, Room};
use super::never::{NeverFits, could_fit, fits_on};
use super::owed::BeyondCells;
use super::place::{Request, models_of, place};
use super::power::Search;
use super::quota;
use super::search::is_short;
use super::take::TakingBack;
use super::timeline::Timelines;
use super::waiting::{Asked, Item, Waiting, Wanted};
use crate::command::{PlacedPart, Placement, PlanStep};
use crate::cycle::foresees;
use crate::state::State;
use crate::state::gang::GangState;
use crate::state::job::JobRecord;
use muster_common::job::Scheduling;
use muster_common::{AttemptNo, GangId, JobId, NodeId, Time};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub struct Round<'a> {
    pub state: &'a State,
    pub now: Time,
    pub waiting: &'a Waiting,
    pub ledger: &'a mut Ledger,
    pub ever: &'a mut Ever,
    pub steps: Vec<PlanStep>,
    pub placed: BTreeSet<GangId>,
    placed_of: BTreeMap<JobId, u32>,
    pub room: Room,
    /// Jobs whose wait is over at this very moment.
    pub expiring: BTreeSet<JobId>,
    /// Requests that did not fit in this cycle; nothing is freed within one.
    no_fit: BTreeSet<Asked>,
    pub(super) beyond_cells: BeyondCells,
    /// Requests that did not fit beside what is booked, and the longest run that might.
    pub no_spare_fit: BTreeMap<Asked, u64>,
    /// Requests that found nothing outside of the windows they may run on into: what is left of the run, and the longest
    /// that it may take.
    pub no_fit_outside: BTreeMap<Asked, (u64, u64)>,
    /// Requests whose start nobody could foresee in this cycle.
    pub no_booking: BTreeSet<Asked>,
    pub times: &'a mut Timelines,
    /// Starts that nothing in this cycle may delay.
    pub booked: Bookings,
    /// Whoever is looked at fills around those whose start is booked.
    pub fills: bool,
    /// Windows that are open to whoever is looked at, since they are its own; taken out of what is booked.
    pub inside: Vec<Arc<Booking>>,
    /// Gangs with a booking that the order has not come to.
    pub unseen: BTreeSet<GangId>,
    /// Marks of the ledger, one for each booking that is set aside on it at present.
    pub aside: Vec<usize>,
    /// Trials in this cycle of booking others anew around a filler.
    pub rematches: u32,
    /// Parts placed in this cycle, by node, and when they are given back.
    pub own: BTreeMap<NodeId, Vec<(Time, PlacedPart)>>,
    pub spent: u64,
    looked: u32,
    pub truncated: u32,
    pub taking: TakingBack,
    /// Nodes that could be woken, until that has been gone through.
    pub(crate) waking: Option<Search<'a>>,
}

/// Most answers about gangs that keep off nodes.
const FITS_OFF_MAX: usize = 10_000;

/// Which shapes could run here if nothing else did. Void when an inventory changes, or a device goes into
/// quarantine or comes out of it.
#[derive(Debug, Clone, Default)]
pub struct Ever {
    empty: Option<Arc<Ledger>>,
    fits: BTreeMap<Wanted, bool>,
    /// Off the nodes that a gang keeps off.
    fits_off: BTreeMap<(Wanted, Vec<NodeId>), bool>,
    /// What stands for each window among what is booked.
    pub(super) windows: BTreeMap<u32, Arc<Booking>>,
}

impl Ever {
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// A node changed.
    pub fn follow(&mut self, state: &State, node: NodeId) {
        let before = self.empty.as_ref().and_then(|empty| empty.node(node));
        if self.empty.is_some() && !before.is_some_and(|view| view.could_still(state, Suppose::NOTHING_RUNS)) {
            self.clear();
        }
    }

    pub fn fits(&mut self, state: &State, item: &Item) -> bool {
        let wanted = item.wanted();
        if let Some(&known) = self.fits.get(&wanted) {
            return known;
        }
        let fits = could_fit(state, &item.scheduling, self.emptied(state));
        self.fits.insert(wanted, fits);
        fits
    }

    /// Could it run if nothing else did, off those nodes?
    fn fits_off(&mut self, state: &State, item: &Item, excluded: &[NodeId], steps: &mut u64) -> bool {
        if !self.fits(state, item) || excluded.is_empty() {
            return self.fits(state, item);
        }
        let asked = (item.wanted(), excluded.to_vec());
        if let Some(&known) = self.fits_off.get(&asked) {
            return known;
        }
        let request = Request::of(&item.scheduling, excluded);
        let fits = place(self.emptied(state), state.fabric(), state.policy(), request, steps).is_some();
        if self.fits_off.len() >= FITS_OFF_MAX {
            self.fits_off.clear();
        }
        self.fits_off.insert(asked, fits);
        fits
    }

    /// Why a request could not even be met if nothing ran.
    pub fn never(&mut self, state: &State, scheduling: &Scheduling) -> Option<NeverFits> {
        fits_on(state, scheduling, self.emptied(state)).err()
    }

    /// The cluster as it would be if nothing ran.
    pub fn emptied(&mut self, state: &State) -> &Ledger {
        self.empty.get_or_insert_with(|| Arc::new(Ledger::of(state, Suppose::NOTHING_RUNS)))
    }
}

/// What came of looking at one gang.
#[derive(Debug, Clone, PartialEq)]
pub enum Tried {
    Placed,
    Waits(Reason),
}

impl<'a> Round<'a> {
    pub fn new(
        state: &'a State,
        now: Time,
        waiting: &'a Waiting,
        ledger: &'a mut Ledger,
        times: &'a mut Timelines,
        ever: &'a mut Ever,
    ) -> Self {
        ledger.learn(state);
        ledger.owed.begin_cycle();
        let booked = std::mem::take(&mut times.booked);
        Self {
            state,
            now,
            waiting,
            ledger,
            ever,
            steps: Vec::new(),
            placed: BTreeSet::new(),
            placed_of: BTreeMap::new(),
            room: Room::default(),
            expiring: BTreeSet::new(),
            no_fit: BTreeSet::new(),
            beyond_cells: BeyondCells::new(),
            no_spare_fit: BTreeMap::new(),
            no_fit_outside: BTreeMap::new(),
            no_booking: BTreeSet::new(),
            times,
            booked,
            fills: false,
            inside: Vec::new(),
            unseen: BTreeSet::new(),
            aside: Vec::new(),
            rematches: 0,
            own: BTreeMap::new(),
            spent: 0,
            looked: 0,
            truncated: 0,
            taking: TakingBack::default(),
            waking: None,
        }
    }

    /// Leaves what the next cycle may find useful.
    pub fn leave(mut self) {
        self.put_back();
        self.booked.take_out();
        self.times.booked = self.booked;
        self.ledger.rollback(0);
        self.ledger.owed.forget_all_kept();
    }

    /// The order ends before this item, for this cycle.
    pub fn cut_off(&mut self, item: &Item) {
        if self.truncated > 0 {
            let before = self.waiting.by_order.count_before(&item.key);
            self.truncated = (self.waiting.by_order.len() - before) as u32;
        }
    }

    /// Takes one more gang from the order, if the policy's budget allows.
    pub fn may_look(&mut self) -> bool {
        let budget = self.state.policy().budget;
        if self.looked >= budget.depth || self.spent >= budget.steps {
            let left = (self.waiting.by_order.len() as u32).saturating_sub(self.looked);
            self.truncated = self.truncated.max(left).max(1);
            return false;
        }
        self.looked += 1;
        self.spent += 1;
        true
    }

    /// Why the gang may not start now, whatever is free.
    pub fn not_eligible(&mut self, gang: GangId, item: &Item) -> Option<Reason> {
        let job = self.state.job(gang.job)?;
        let placed = self.placed_of(gang.job);
        if self.expiring.contains(&gang.job) {
            return Some(Reason::Cancelled);
        }
        let known = not_eligible(self.state, job, gang, &item.scheduling, placed, self.now);
        known.or_else(|| self.over_limit(gang, item).map(|over| over.reason()))
    }

    /// Gangs of a job that this cycle has placed.
    pub fn placed_of(&self, job: JobId) -> u32 {
        self.placed_of.get(&job).copied().unwrap_or(0)
    }

    /// The limit of an account or a user that keeps the gang from starting now.
    pub fn over_limit(&mut self, gang: GangId, item: &Item) -> Option<Over> {
        if !self.state.accounts().have_caps() {
            return None;
        }
        self.room.over(self.state, self.state.job(gang.job)?, &item.scheduling, self.now)
    }

    /// Starts the gang if it fits on what is free.
    pub fn try_start(&mut self, gang: GangId, item: &Item) -> Tried {
        self.put_back();
        match self.find(gang, item) {
            Some(parts) => {
                self.take(&parts);
                self.place(gang, item, parts);
                Tried::Placed
            }
            None => Tried::Waits(Reason::Nodes),
        }
    }

    /// Parts for the gang on the ledger as it is.
    pub fn find(&mut self, gang: GangId, item: &Item) -> Option<Vec<PlacedPart>> {
        let item = &*self.within_quota(item)?;
        let asked = item.asked();
        if self.no_fit.contains(&asked) || self.is_beyond_cells(item) {
            return None;
        }
        let found = self.placed_anywhere(gang, item);
        let fits = found.is_some();
        let parts = found.and_then(|found| self.beside_cells(gang, item, found));
        match (fits, &parts) {
            _ if !self.excluded(gang).is_empty() => {}
            (false, _) => _ = self.no_fit.insert(asked),
            (true, None) => self.note_beyond_cells(item),
            (true, Some(_)) => {}
        }
        parts
    }

    /// Is it plain from what is free at all that a request with such a group finds no room?
    pub fn is_beyond_free(&self, group: &Kind) -> bool {
        match group {
            Kind::Whole { nodes, per_node } => self.ledger.nodes_with(*per_node) < u64::from(*nodes),
            Kind::Total(total) => self.ledger.free_total() < u64::from(total.devices),
            Kind::Shared { .. } | Kind::CpuOnly { .. } => false,
        }
    }

    /// Is less of its models free on the ledger as it is, taken together, than a gang of one group asks for?
    pub(super) fn is_short(&self, item: &Item) -> bool {
        let Some(item) = self.within_quota(item) else { return false };
        let ([group], []) = (item.scheduling.groups.as_slice(), item.scheduling.together.as_slice()) else {
            return false;
        };
        models_of(group, self.ledger).into_iter().all(|models| is_short(self.ledger, group, models))
    }

    /// Is it known of the item's request that it does not fit?
    pub fn does_not_fit(&self, item: &Item) -> bool {
        self.no_fit.contains(&item.asked())
    }

    /// Is it known that nobody else on the same account fits with the same request?
    pub fn does_not_fit_within_quota(&self, item: &Item) -> bool {
        let left = self.within_quota(item);
        left.is_none_or(|left| self.no_fit.contains(&left.asked()))
    }

    /// Is its account, or its user in it, at a limit of what may run at a time?
    pub fn is_at_limit(&mut self, item: &Item) -> bool {
        let over = self.over_limit(item.key.gang, item);
        over.is_some_and(|over| over.is_for_all())
    }

    /// As [`Self::find`], without memory of what did not fit: for trials on a changed ledger.
    pub fn search(&mut self, gang: GangId, item: &Item) -> Option<Vec<PlacedPart>> {
        let item = self.within_quota(item)?;
        let found = self.placed_anywhere(gang, &item)?;
        self.beside_cells(gang, &item, found)
    }

    /// Is there room for it now, and not beside the cells that others own? Whoever that is waits for no moment.
    pub fn is_kept_off(&mut self, gang: GangId, item: &Item) -> bool {
        if !self.ledger.owed.is_on() || !self.ledger.owed.is_firm(&item.scheduling) {
            return false;
        }
        self.put_back();
        let Some(item) = self.within_quota(item).map(Cow::into_owned) else { return false };
        let found = self.find(gang, &item);
        // What is found for a gang that keeps off some nodes is not noted for others.
        let own = !self.excluded(gang).is_empty() && found.is_none();
        self.is_beyond_cells(&item) || own && self.placed_anywhere(gang, &item).is_some()
    }

    /// Is it known that the item's request, as far as quota allows it, has no room beside others' cells?
    pub fn is_beyond_cells_within_quota(&self, item: &Item) -> bool {
        !self.beyond_cells.is_empty() && self.within_quota(item).is_some_and(|left| self.is_beyond_cells(&left))
    }

    /// Wherever there is room, whoever owns it.
    pub(super) fn placed_anywhere(&mut self, gang: GangId, item: &Item) -> Option<Vec<PlacedPart>> {
        let request = Request::of(&item.scheduling, self.excluded(gang)).for_gang(gang);
        place(self.ledger, self.state.fabric(), self.state.policy(), request, &mut self.spent)
    }

    /// The item with the models that its account may have; `None` = it may have none.
    pub fn within_quota<'i>(&self, item: &'i Item) -> Option<Cow<'i, Item>> {
        match quota::allowed(&self.ledger.quotas, &item.scheduling).ok()? {
            None => Some(Cow::Borrowed(item)),
            Some(left) => Some(Cow::Owned(item.asking(left))),
        }
    }

    /// Does the quota of its account keep it from starting, whatever is free?
    pub fn is_over_quota(&self, item: &Item) -> bool {
        quota::allowed(&self.ledger.quotas, &item.scheduling).is_err()
    }

    /// Is anything owed to anybody, so that what an account owns goes before what it would borrow?
    pub fn has_quotas(&self) -> bool {
        self.ledger.quotas.is_on()
    }

    /// Would it start within what its account owns?
    pub fn is_within_own(&self, item: &Item) -> bool {
        quota::is_within_own(&self.ledger.quotas, &item.scheduling)
    }

    /// Charges an account with what parts hold (`sign` 1), or no longer (-1), until the ledger is rolled back.
    pub fn charge(&mut self, gang: GangId, parts: &[PlacedPart], sign: i64) {
        charge(self.state, self.ledger, gang, parts, sign);
    }

    pub fn excluded(&self, gang: GangId) -> &'a [NodeId] {
        self.state.gang(gang).map_or(&[], |gang| &gang.excluded)
    }

    /// Could it run if nothing else did, where it has not failed?
    pub fn could_ever(&mut self, gang: GangId, item: &Item) -> bool {
        let excluded = self.excluded(gang);
        self.ever.fits_off(self.state, item, excluded, &mut self.spent)
    }

    /// Occupies the parts on the ledger.
    pub fn take(&mut self, parts: &[PlacedPart]) {
        for (at, part) in parts.iter().enumerate() {
            self.ledger.change(part.node, |view| {
                for &(slot, milli) in &part.devices {
                    let free = &mut view.free[usize::from(slot)];
                    *free = free.saturating_sub(milli);
                }
                view.amount = view.amount.minus(&part.amount).unwrap_or_default();
                view.ports = view.ports.saturating_sub(u32::from(at == 0));
            });
        }
    }

    /// What starts, or is to start when others have gone, counts for those after it.
    pub fn count_against_limits(&mut self, gang: GangId) {
        if let Some(job) = self.state.job(gang.job) {
            self.room.place(self.state, job, self.state.scheduling(job));
        }
    }

    /// Would the array run more elements at once than it may, if those started too that only wait for what is kept?
    pub fn fills_array(&self, gang: GangId, item: &Item) -> bool {
        let Some(most) = item.scheduling.array.as_ref().and_then(|array| array.at_once) else { return false };
        let active = self.state.job(gang.job).map_or(0, |job| job.gangs_active);
        let placed = self.placed_of(gang.job);
        active + placed + self.kept_of(gang.job) >= most
    }

    pub fn place(&mut self, gang: GangId, item: &Item, parts: Vec<PlacedPart>) {
        let attempt = self.state.gang(gang).map_or(1, |record| record.attempt.0 + 1);
        let revision = self.state.job(gang.job).map_or(1, |job| job.revision().number);
        self.charge(gang, &parts, 1);
        self.hold_cells(gang, &parts, 1);
        self.placed.insert(gang);
        self.note_own_work(gang, true);
        *self.placed_of.entry(gang.job).or_default() += 1;
        self.count_against_limits(gang);
        if let Some(left_ms) = item.left_ms.filter(|_| foresees(self.state)) {
            let end = self.now.plus_ms(left_ms);
            parts.iter().for_each(|part| self.own.entry(part.node).or_default().push((end, part.clone())));
        }
        self.steps.push(PlanStep::Place(Placement { gang, attempt: AttemptNo(attempt), revision, parts }));
    }
}

/// As [`Round::charge`], on any ledger.
pub(super) fn charge(state: &State, ledger: &mut Ledger, gang: GangId, parts: &[PlacedPart], sign: i64) {
    let Some(job) = state.job(gang.job).filter(|_| ledger.quotas.is_on()) else { return };
    let scheduling = state.scheduling(job);
    let at = ledger.quotas.place(&scheduling.account);
    let sums = quota::in_parts(state, &ledger.quotas, parts);
    let firm = ledger.quotas.is_firm(scheduling);
    sums.into_iter().for_each(|(model, more)| ledger.hold(at, model, firm, sign * more));
}

/// Everything but devices that can keep a waiting gang from starting.
pub fn not_eligible(
    state: &State,
    job: &JobRecord,
    gang: GangId,
    scheduling: &Scheduling,
    placed_now: u32,
    now: Time,
) -> Option<Reason> {
    if job.cancelled {
        return Some(Reason::Cancelled);
    }
    if job.held {
        return Some(Reason::Hold);
    }
    if let Some(waits) = &job.waits {
        return Some(if waits.broken.is_empty() { Reason::Dependency } else { Reason::DependencyNever });
    }
    if scheduling.after.singleton && state.namesake_before(job).is_some() {
        return Some(Reason::Dependency);
    }
    if state.parked(gang).is_some_and(|parked| parked.times > 1) {
        return Some(Reason::Parked);
    }
    if scheduling.begin_at_ms.is_some_and(|at| at > now.0) {
        return Some(Reason::BeginTime);
    }
    let backing_off = |state: &GangState| matches!(state, GangState::Queued { not_before } if *not_before > now);
    if state.gang(gang).is_some_and(|record| backing_off(&record.state)) {
        return Some(Reason::Backoff);
    }
    let array = scheduling.array.as_ref();
    let full = array.and_then(|array| array.at_once).is_some_and(|most| job.gangs_active + placed_now >= most);
    let failed = array.and_then(|array| array.stop_after_failures).is_some_and(|most| job.tally.failed >= most);
    let unstarted = state.gang(gang).is_none();
    (full || failed && unstarted).then_some(Reason::ArrayLimit)
}
