//! One decision round: from State to the commands that should follow.

use crate::command::{Command, PlanStep, TIMERS_MAX};
use crate::plan::backfill;
use crate::plan::bookings::{Booking, Bookings};
use crate::plan::explain::Reason;
use crate::plan::lanes::Sought;
use crate::plan::ledger::{Ledger, Suppose};
use crate::plan::order::Scorer;
use crate::plan::owed::Owed;
use crate::plan::power::Powers;
use crate::plan::quota::Quotas;
use crate::plan::round::{Ever, Round, Tried};
use crate::plan::steps;
use crate::plan::timeline::Timelines;
use crate::plan::waiting::{Item, Waiting};
use crate::plan::walk::Walk;
use crate::policy::{Admission, FillerOrder, Replan};
use crate::state::State;
use crate::state::change::Key;
use crate::state::reservation::ReservationKind;
use crate::state::timer::Timer;
use muster_common::{GangId, JobId, NodeId, Time};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A cache of what `cycle` derives from State. May be thrown away at any moment without changing
/// a decision.
#[derive(Debug, Clone, Default)]
pub struct Memo {
    kept: Option<Kept>,
}

#[derive(Debug, Clone)]
struct Kept {
    upto: u64,
    /// The moment to which what runs is known.
    at: Time,
    scorer: Scorer,
    waiting: Waiting,
    ledger: Ledger,
    times: Timelines,
    ever: Ever,
    powers: Powers,
}

/// What a cycle proposes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cycle {
    /// To be committed in order.
    pub commands: Vec<Command>,
    /// The next moment at which a cycle could decide something without any further entry.
    pub wake_at: Option<Time>,
    /// The same, but for the steps of an order that moves all the time.
    pub named_at: Option<Time>,
    /// Steps of work done.
    pub spent: u64,
    /// Gangs beyond the policy's depth or budget, not looked at.
    pub truncated: u32,
}

/// Decides what should happen now. Deterministic: equal state, policy and `now` give equal
/// commands, whatever the memo holds.
pub fn cycle(state: &State, memo: &mut Memo, now: Time) -> Cycle {
    // 1. What is overdue.
    let (mut commands, expiring) = expire(state, now);
    // 2. The order, and what is free.
    let kept = memo.sync(state, now);
    let Kept { scorer, waiting, ledger, times, ever, powers, .. } = kept;
    let powers = &*powers;
    let mut round = Round::new(state, now, waiting, ledger, times, ever);
    round.expiring = expiring;
    round.waking = powers.search(&round);
    round.take_over_fixed();
    round.take_over_windows();
    round.serve_kept();
    // 3. to 6. Admission and placement, backfill; or the whole order again.
    match state.policy().replan {
        Replan::Keep => start_in_order(&mut round),
        Replan::Refill { min_run_ms, max_victims_per_cycle } => {
            round.withhold_fixed();
            round.refill(scorer, min_run_ms, max_victims_per_cycle);
            forget_bookings(&mut round, &BTreeSet::new());
        }
    }
    // 7. Nodes to be woken, or put to sleep.
    let (power, power_at) = powers.decide(&mut round);
    // 8. Gangs moved for those that nothing else helps.
    round.consolidate();
    let (plan, spent, truncated) = (std::mem::take(&mut round.steps), round.spent, round.truncated);
    let retry_at = round.taking.retry_at.into_iter().chain(round.room.period_ends).min();
    round.leave();
    commands.extend(steps::commands(state, now, plan));
    commands.extend(power);
    let could_fill = order_matters(state, waiting, ledger);
    let order = if could_fill { scorer.wake_at(state, waiting, now) } else { None };
    let (steps, order) = if scorer.moves_by_steps() { (order, None) } else { (None, order) };
    // Who is late puts off what is booked behind it, and somebody may fill until then.
    let late = if could_fill && foresees(state) { times.next_late(now) } else { None };
    let wake_at = wake_at(state, scorer, waiting, now);
    let named_at = wake_at.into_iter().chain(retry_at).chain(order).chain(late).chain(power_at).min();
    let wake_at = named_at.into_iter().chain(steps).min();
    Cycle { commands, wake_at, named_at, spent, truncated }
}

impl Memo {
    fn sync(&mut self, state: &State, now: Time) -> &mut Kept {
        let fits = self.kept.as_mut().is_some_and(|kept| kept.catch_up(state, now));
        if !fits {
            self.kept = None;
        }
        self.kept.get_or_insert_with(|| Kept::of(state, now))
    }

    /// The order as the last cycle saw it and what is free, brought up to date.
    pub(crate) fn known(&mut self, state: &State, now: Time) -> Known<'_> {
        let Kept { waiting, ledger, ever, times, .. } = self.sync(state, now);
        Known { waiting, ledger, ever, booked: times.booked() }
    }
}

/// What a cycle starts from, for those who explain it.
pub(crate) struct Known<'a> {
    pub waiting: &'a Waiting,
    pub ledger: &'a Ledger,
    pub ever: &'a mut Ever,
    /// What the last cycle booked.
    pub booked: &'a Bookings,
}

impl Kept {
    fn of(state: &State, now: Time) -> Self {
        let scorer = Scorer::new(state, now);
        let mut waiting = Waiting::of(state, &scorer, now);
        waiting.by_order.set_ranks(scorer.lanes());
        let mut ledger = Ledger::of(state, Suppose::default());
        ledger.quotas = Quotas::of(state, &waiting.running);
        ledger.owed = Owed::of(state);
        let times = match foresees(state) {
            true => Timelines::of(state, &ledger, &waiting, now),
            false => Timelines::default(),
        };
        Self {
            upto: state.applied_index(),
            at: now,
            scorer,
            waiting,
            ledger,
            times,
            ever: Ever::default(),
            powers: Powers::of(state),
        }
    }

    /// False when everything has to be derived anew.
    fn catch_up(&mut self, state: &State, now: Time) -> bool {
        if state.applied_index() < self.upto || now < self.at {
            return false;
        }
        let Some(changes) = state.changes().since(self.upto) else { return false };
        let changes: BTreeSet<Key> = changes.collect();
        if changes.contains(&Key::Config) {
            return false;
        }
        let mut jobs: BTreeSet<JobId> = BTreeSet::new();
        let mut nodes: BTreeSet<NodeId> = BTreeSet::new();
        let mut gangs: BTreeSet<GangId> = BTreeSet::new();
        for key in changes {
            match key {
                Key::Job(job) => drop(jobs.insert(job)),
                Key::Node(node) => drop(nodes.insert(node)),
                Key::Gang(gang) => drop((jobs.insert(gang.job), gangs.insert(gang))),
                Key::Config => {}
            }
        }
        let moved = self.scorer.sync(state, now, !jobs.is_empty());
        let mut inventory = false;
        for &node in &nodes {
            let before = self.ledger.node(node).map(|view| view.facts.epoch);
            if before != state.node(node).map(|record| record.epoch) {
                self.ever.clear();
                inventory = true;
                // What its devices are called may have changed.
                gangs.extend(state.node(node).map_or_else(Vec::new, |record| record.gangs.iter().copied().collect()));
            }
            self.ever.follow(state, node);
            self.ledger.refresh(state, node);
            self.powers.refresh(state, node);
        }
        for &job in &jobs {
            if self.waiting.refresh_job(state, &self.scorer, job, now) {
                // Another revision may end at another time.
                gangs.extend(self.waiting.active_of(job));
            }
        }
        gangs.iter().for_each(|&gang| self.waiting.refresh_gang(state, &self.scorer, gang, now));
        gangs.iter().for_each(|gang| self.ledger.quotas.refresh(*gang, self.waiting.running.get(*gang)));
        if inventory && self.ledger.quotas.is_on() {
            self.ledger.quotas = Quotas::of(state, &self.waiting.running);
        }
        match inventory {
            true => self.ledger.owed = Owed::of(state),
            false => self.follow_cells(state, &gangs, &nodes),
        }
        if moved.all {
            self.waiting.rescore(state, &self.scorer, now);
        } else if let Some(range) = moved.ripened {
            self.waiting.refresh_submitted(state, &self.scorer, range, now);
        }
        if moved.lanes {
            self.waiting.by_order.set_ranks(self.scorer.lanes());
        }
        if foresees(state) {
            if inventory {
                // Nodes of a class that nobody has seen may start a gang sooner than those its answer rests on.
                self.times.forget_starts();
            }
            self.times.follow(state, &self.ledger, gangs.into_iter(), nodes, now);
        }
        (self.upto, self.at) = (state.applied_index(), now);
        true
    }
}

impl Kept {
    /// Whose work is on the nodes that have changed, or under the gangs that have.
    fn follow_cells(&mut self, state: &State, gangs: &BTreeSet<GangId>, nodes: &BTreeSet<NodeId>) {
        if !self.ledger.owed.is_on() {
            return;
        }
        let held = gangs.iter().filter_map(|gang| state.gang(*gang)?.current());
        let under = held.flat_map(|attempt| attempt.parts.iter().map(|part| part.node));
        let all: BTreeSet<NodeId> = nodes.iter().copied().chain(under).collect();
        all.into_iter().for_each(|node| self.ledger.owed.refresh(state, node));
    }
}

/// Does the policy ask when what waits could start?
pub(crate) fn foresees(state: &State) -> bool {
    let policy = state.policy();
    (policy.backfill.reserve_depth > 0 || policy.taking.consolidate.is_some()) && policy.replan == Replan::Keep
}

/// Due timers as commands, and the jobs that will have given up waiting.
fn expire(state: &State, now: Time) -> (Vec<Command>, BTreeSet<JobId>) {
    let due: Vec<Timer> = state.timers().take_while(|(at, _)| *at <= now).map(|(_, timer)| timer).collect();
    let giving_up = |timer: &Timer| match timer {
        Timer::WaitLimit { job } | Timer::Deadline { job } => Some(*job),
        _ => None,
    };
    let jobs = due.iter().filter_map(giving_up).collect();
    (due.chunks(TIMERS_MAX).map(|timers| Command::Expire { timers: timers.to_vec() }).collect(), jobs)
}

/// Could another order of what waits start something on what is free, or stop something?
fn order_matters(state: &State, waiting: &Waiting, ledger: &Ledger) -> bool {
    let policy = state.policy();
    let refills = matches!(policy.replan, Replan::Refill { .. });
    let passes_over = policy.admission == Admission::Skip && policy.backfill.reserve_depth == 0;
    let room = !ledger.with_free().is_empty() || !ledger.partial().is_empty();
    !waiting.by_order.is_empty() && (refills || room && !passes_over)
}

/// The nearest deadline, or the moment at which a protected gang may be stopped or goes behind others.
fn wake_at(state: &State, scorer: &Scorer, waiting: &Waiting, now: Time) -> Option<Time> {
    let timer = state.timers().map(|(at, _)| at).find(|at| *at > now);
    let Replan::Refill { min_run_ms, .. } = state.policy().replan else { return timer };
    let active = || waiting.active.iter().filter_map(|id| state.gang(*id));
    let started = active().filter_map(|gang| gang.current()?.started_at);
    let protected = started.map(|at| at.plus_ms(min_run_ms)).filter(|until| *until > now).min();
    let demoted = active().filter_map(|gang| scorer.demoted_at(state.scheduling_of(gang.id)?, gang, now)).min();
    timer.into_iter().chain(protected).chain(demoted).min()
}

/// How far the order has been gone through.
struct Front {
    /// Nothing behind the first gang that cannot start is started, except where it fills.
    strict: bool,
    depth: usize,
    /// The first gang that cannot start.
    head: Option<GangId>,
    /// Gangs whose start is booked.
    booked: Vec<GangId>,
    /// Nobody else is to be told when it could start.
    closed: bool,
    /// What is booked stays as it is.
    idle: bool,
}

/// Whose turn it is: Kueue's rule that work within nominal quota goes before work that borrows, and before both
/// what is guaranteed by shape, so that nobody begins where they would have to be stopped again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing is owed to anybody.
    All,
    /// What is within its account's cells.
    Shaped,
    /// What its account owns by number only.
    Own,
    /// What would be borrowed.
    Borrowed,
}

impl Turn {
    fn takes(self, round: &mut Round, item: &Item) -> bool {
        match self {
            Turn::All => true,
            Turn::Shaped => round.is_within_shape(item),
            Turn::Own => round.is_within_own(item) && !round.is_within_shape(item),
            Turn::Borrowed => !round.is_within_own(item) && !round.is_within_shape(item),
        }
    }
}

fn start_in_order(round: &mut Round) {
    let policy = round.state.policy().clone();
    let strict = matches!(policy.admission, Admission::HeadOfLine { .. });
    let depth = policy.backfill.reserve_depth as usize;
    let by_submit = depth > 0 && policy.backfill.filler_order == FillerOrder::Submit;
    let mut front = Front { strict, depth, head: None, booked: Vec::new(), closed: false, idle: false };
    round.take_over_bookings();
    let first = sticky_head(round);
    let mut stopped = first.is_some_and(|(gang, item)| matches!(offer(round, gang, &item, &mut front), Offered::Stop));
    let turns = match (round.may_guarantee(), round.has_quotas()) {
        (true, _) => &[Turn::Shaped, Turn::Own, Turn::Borrowed][..],
        (false, true) => &[Turn::Own, Turn::Borrowed],
        (false, false) => &[Turn::All],
    };
    for turn in turns {
        stopped = stopped || walk_order(round, &mut front, by_submit, *turn);
    }
    if !front.idle {
        round.forget_unseen();
        round.times.keep(&front.booked.iter().copied().chain(front.head).collect());
    }
    if front.closed && by_submit {
        fill_by_submit(round);
    }
    finish_bookings(round, &front);
}

/// Offers the cluster to whoever's turn it is, in the order. True when nobody else is to be offered it.
fn walk_order(round: &mut Round, front: &mut Front, by_submit: bool, turn: Turn) -> bool {
    let waiting = round.waiting;
    let mut walk = waiting.by_order.walk(Sought { now: round.now, most_ms: u64::MAX });
    let mut narrowed = round.takes();
    while !(front.closed && by_submit) {
        // Where nobody else is told a start, only what fits on what is free is of interest.
        if front.closed && !narrowed {
            narrowed = true;
            round.put_back();
            walk.leave_kinds(|group| round.is_beyond_free(group));
        }
        let Some(item) = walk.next() else { break };
        if !turn.takes(round, item) {
            walk.leave_payer();
            continue;
        }
        match offer_item(round, item, front, by_submit, turn) {
            Offered::Stop => {
                round.cut_off(item);
                return true;
            }
            Offered::Unfit => leave(round, item, front, &mut walk),
            Offered::Barred if round.is_at_limit(item) => walk.leave_payer(),
            Offered::Barred | Offered::Next => {}
        }
    }
    false
}

enum Offered {
    Next,
    /// It may not start now, whatever is free.
    Barred,
    /// It finds no room, or would be in the way of others.
    Unfit,
    Stop,
}

/// Offers the cluster to the gangs of one place in the order, until one of them shows that no other will do.
fn offer_item(round: &mut Round, item: &Arc<Item>, front: &mut Front, by_submit: bool, turn: Turn) -> Offered {
    let mut last = Offered::Next;
    for gang in item.gangs(round.state) {
        // Of many elements the first may be within what the account owns, and the next beyond it.
        if matches!(turn, Turn::Shaped | Turn::Own) && !turn.takes(round, item) {
            break;
        }
        last = offer(round, gang, item, front);
        // Elements of a lane are alike: what one lacks, all lack.
        let go_on = match last {
            Offered::Next => true,
            Offered::Unfit => !item.lane && !round.does_not_fit(item),
            Offered::Barred | Offered::Stop => false,
        };
        if !go_on || front.closed && by_submit {
            break;
        }
    }
    last
}

/// Offers the cluster to one gang of the order.
fn offer(round: &mut Round, gang: GangId, item: &Arc<Item>, front: &mut Front) -> Offered {
    let told = front.head == Some(gang) || front.booked.contains(&gang);
    if told || round.placed.contains(&gang) || round.waits_for_kept(gang) {
        return Offered::Next;
    }
    if !round.may_look() {
        return Offered::Stop;
    }
    match round.not_eligible(gang, item) {
        None => {}
        Some(Reason::Parked) => return Offered::Next,
        Some(_) => return Offered::Barred,
    }
    round.within_own(gang, |round| offer_outside(round, gang, item, front))
}

/// As [`offer`], with the windows that are not the gang's own still closed to it.
fn offer_outside(round: &mut Round, gang: GangId, item: &Arc<Item>, front: &mut Front) -> Offered {
    let own = round.seen(gang);
    // Whoever has a window of time of its own waits for that.
    let has_window = !round.booked.fixed_for(gang.job).is_empty();
    let placed = round.try_beside_bookings(gang, item, own.as_deref()) == Tried::Placed;
    if placed || !has_window && (round.wake_first(gang, item) || round.take_back(gang, item)) {
        return Offered::Next;
    }
    if !front.closed && !has_window && !round.is_over_quota(item) && !round.is_kept_off(gang, item) {
        return hold_back(round, gang, item, own, front);
    }
    Offered::Unfit
}

/// Tells a gang that cannot start when it will, as far as the policy does.
fn hold_back(
    round: &mut Round,
    gang: GangId,
    item: &Arc<Item>,
    own: Option<Arc<Booking>>,
    front: &mut Front,
) -> Offered {
    round.put_back();
    // One whose booking could not be taken over is worked out anew, and what that breaks with it.
    let known = front.depth == 1 || own.is_some();
    if front.depth > 0 && known && nothing_to_fill(round, gang, front.depth) {
        front.booked.extend(own.is_some().then_some(gang));
        own.into_iter().for_each(|own| round.booked.insert(own));
        front.head = front.head.or(Some(gang));
        (front.idle, front.closed) = (true, true);
        return Offered::Stop;
    }
    // Nobody waits behind what never can run here, whatever is foreseen for it.
    let could_ever = round.could_ever(gang, item);
    let may_book = front.depth > 0 && could_ever;
    if !could_ever && round.excluded(gang).is_empty() {
        // Else each of those that ask for the same would be looked at, in every cycle.
        round.no_booking.insert(item.asked());
    }
    let mut booked = may_book && round.book_or_improve(gang, item, own);
    if !booked && may_book && front.strict && !round.unseen.is_empty() {
        // Nobody behind it keeps what it needs: without it, they would have none either.
        round.forget_unseen();
        round.no_booking.clear();
        booked = round.book_or_improve(gang, item, None);
    }
    if !booked && (!front.strict || !could_ever) {
        return Offered::Unfit;
    }
    front.head = front.head.or(Some(gang));
    front.booked.extend(booked.then_some(gang));
    if !booked || front.booked.len() >= front.depth {
        (front.closed, round.fills) = (true, true);
        round.forget_unseen();
    }
    if booked { Offered::Next } else { Offered::Stop }
}

/// Tells the walk what need not be looked at any more, now that this item was tried in vain.
fn leave(round: &mut Round, item: &Arc<Item>, front: &Front, walk: &mut Walk) {
    if front.closed && !round.state.policy().backfill.spare && !round.takes() && !round.booked.any_fixed() {
        match round.longest_beside(0) {
            Some(most_ms) => walk.leave_all_longer(most_ms),
            None => return walk.leave_all(),
        }
    }
    let books = !front.closed && front.depth > 0 && !round.no_booking.contains(&item.asked());
    if round.may_preempt(item) {
        return;
    }
    if round.is_over_quota(item) || round.is_beyond_cells_within_quota(item) && round.excluded(item.key.gang).is_empty()
    {
        return walk.leave_payer();
    }
    if books {
        return;
    }
    if round.may_reclaim() || round.may_guarantee() {
        if round.excluded(item.key.gang).is_empty() && round.does_not_fit_within_quota(item) {
            walk.leave_payer();
        }
    } else if round.does_not_fit(item) {
        walk.leave_kind();
    } else if round.does_not_fit_within_quota(item) {
        walk.leave_payer();
    } else if round.state.windows().have_holders() || round.booked.any_put_for_a_gang() {
        // Others that ask for the same may go where this one may not.
    } else if let Some(most_ms) = round.no_spare_fit.get(&item.asked()) {
        walk.leave_longer(*most_ms);
    }
}

/// With nothing free, nobody to be stopped and bookings already written, there is nothing to work out.
fn nothing_to_fill(round: &Round, gang: GangId, depth: usize) -> bool {
    let full = round.ledger.with_free().is_empty() && round.ledger.partial().is_empty() && !round.takes();
    let known = round.state.reservations();
    let ours = |kind| matches!(kind, ReservationKind::Head | ReservationKind::Booked);
    let all = || depth == 1 || known.values().filter(|known| ours(known.kind)).count() >= depth;
    full && round.waiting.cpu_only == 0 && known.get(&gang).is_some_and(|known| round.stands(known)) && all()
}

fn fill_by_submit(round: &mut Round) {
    let waiting = round.waiting;
    for item in waiting.by_submit.values() {
        for gang in item.gangs(round.state) {
            if round.booked.get(gang).is_some() || round.placed.contains(&gang) || round.waits_for_kept(gang) {
                continue;
            }
            if !round.may_look() {
                return;
            }
            match round.not_eligible(gang, item) {
                None => {}
                Some(Reason::Parked) => continue,
                Some(_) => break,
            }
            let tried = round.within_own(gang, |round| round.try_fill(gang, item));
            if tried != Tried::Placed && item.lane {
                break;
            }
        }
    }
}

/// The committed head of the queue, while it still waits and may start.
pub(crate) fn sticky_head(round: &mut Round) -> Option<(GangId, Arc<Item>)> {
    if round.state.policy().admission != (Admission::HeadOfLine { sticky: true }) {
        return None;
    }
    let mut heads = round.state.reservations().values().filter(|known| known.kind == ReservationKind::Head);
    heads.find_map(|known| {
        let item = round.waiting.item_of(round.state, known.gang)?;
        round.not_eligible(known.gang, item).is_none().then(|| (known.gang, item.clone()))
    })
}

/// Writes what a later cycle must honour, and takes back what no longer holds.
fn finish_bookings(round: &mut Round, front: &Front) {
    let sticky = round.state.policy().admission == (Admission::HeadOfLine { sticky: true });
    // What the order did not come to stays as it is; what was bettered before is written all the same, for
    // what was placed after it may stand where it stood.
    if !front.idle || front.depth == 1 {
        forget_bookings(round, &front.booked.iter().copied().chain(front.head).collect());
    }
    // Some of those that the order did not come to may have made room on other devices.
    let beyond: Vec<GangId> = if front.idle { round.unseen.iter().copied().collect() } else { Vec::new() };
    for gang in front.booked.iter().chain(&beyond) {
        let kind = if sticky && front.head == Some(*gang) { ReservationKind::Head } else { ReservationKind::Booked };
        if let Some(booking) = round.booked.get(*gang).cloned() {
            round.write_booking(&booking, kind);
        }
    }
    // A head without a foreseeable start is committed to all the same.
    if let Some(gang) = front.head
        && front.strict
        && sticky
        && !front.booked.contains(&gang)
        && !round.state.reservations().contains_key(&gang)
    {
        round.steps.push(PlanStep::Reserve(backfill::head_without_start(gang)));
    }
}

fn forget_bookings(round: &mut Round, kept: &BTreeSet<GangId>) {
    for reservation in round.state.reservations().values() {
        let ours = matches!(reservation.kind, ReservationKind::Head | ReservationKind::Booked);
        let settled = round.placed.contains(&reservation.gang) || round.waits_for_kept(reservation.gang);
        if ours && !kept.contains(&reservation.gang) && !settled {
            round.steps.push(PlanStep::Unreserve { gang: reservation.gang });
        }
    }
}
