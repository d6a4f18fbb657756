//! One decision round: from State to the commands that should follow.

use crate::command::{Command, PlanStep, TIMERS_MAX};
use crate::plan::backfill::{self, Booking};
use crate::plan::explain::Reason;
use crate::plan::ledger::{Ledger, Suppose};
use crate::plan::order::Scorer;
use crate::plan::quota::Quotas;
use crate::plan::round::{Ever, Round, Tried};
use crate::plan::steps;
use crate::plan::waiting::{Item, Waiting};
use crate::policy::{Admission, FillerOrder, Replan};
use crate::state::State;
use crate::state::change::Key;
use crate::state::gang::GangRecord;
use crate::state::reservation::ReservationKind;
use crate::state::timer::Timer;
use muster_common::{GangId, JobId, NodeId, Time};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A cache of what `cycle` derives from State. May be thrown away at any moment without changing
/// a decision.
#[derive(Debug, Default)]
pub struct Memo {
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    upto: u64,
    scorer: Scorer,
    waiting: Waiting,
    ledger: Ledger,
    ever: Ever,
}

/// What a cycle proposes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cycle {
    /// To be committed in order.
    pub commands: Vec<Command>,
    /// The next moment at which a cycle could decide something without any further entry.
    pub wake_at: Option<Time>,
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
    let Kept { scorer, waiting, ledger, ever, .. } = kept;
    let mut round = Round::new(state, now, waiting, ledger, ever);
    round.expiring = expiring;
    round.serve_kept();
    // 3. to 6. Admission and placement, backfill; or the whole order again.
    match state.policy().replan {
        Replan::Keep => start_in_order(&mut round),
        Replan::Refill { min_run_ms, max_victims_per_cycle } => {
            round.refill(scorer, min_run_ms, max_victims_per_cycle);
            forget_bookings(&mut round, None);
        }
    }
    let (plan, spent, truncated) = (std::mem::take(&mut round.steps), round.spent, round.truncated);
    let retry_at = round.taking.retry_at;
    ledger.rollback(0);
    commands.extend(steps::commands(state, now, plan));
    let order = if order_matters(state, waiting, ledger) { scorer.wake_at(state, waiting, now) } else { None };
    let wake_at = wake_at(state, scorer, waiting, now).into_iter().chain(retry_at).chain(order).min();
    Cycle { commands, wake_at, spent, truncated }
}

impl Memo {
    fn sync(&mut self, state: &State, now: Time) -> &mut Kept {
        let fits = self.kept.as_mut().is_some_and(|kept| kept.catch_up(state, now));
        if !fits {
            self.kept = None;
        }
        self.kept.get_or_insert_with(|| Kept::of(state, now))
    }

    /// The order as the last cycle saw it, brought up to date.
    pub(crate) fn waiting(&mut self, state: &State, now: Time) -> &Waiting {
        &self.sync(state, now).waiting
    }
}

impl Kept {
    fn of(state: &State, now: Time) -> Self {
        let scorer = Scorer::new(state, now);
        let mut waiting = Waiting::of(state, &scorer, now);
        waiting.by_order.set_ranks(scorer.lanes());
        let mut ledger = Ledger::of(state, Suppose::default());
        ledger.quotas = Quotas::of(state, &waiting.running);
        Self { upto: state.applied_index(), scorer, waiting, ledger, ever: Ever::default() }
    }

    /// False when everything has to be derived anew.
    fn catch_up(&mut self, state: &State, now: Time) -> bool {
        if state.applied_index() < self.upto {
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
        for node in nodes {
            let before = self.ledger.node(node).map(|view| view.facts.epoch);
            if before != state.node(node).map(|record| record.epoch) {
                self.ever.clear();
                inventory = true;
                // What its devices are called may have changed.
                gangs.extend(state.node(node).map_or_else(Vec::new, |record| record.gangs.iter().copied().collect()));
            }
            self.ledger.refresh(state, node);
        }
        jobs.iter().for_each(|&job| self.waiting.refresh_job(state, &self.scorer, job, now));
        gangs.iter().for_each(|&gang| self.waiting.refresh_gang(state, &self.scorer, gang, now));
        gangs.iter().for_each(|gang| self.ledger.quotas.refresh(*gang, self.waiting.running.get(*gang)));
        if inventory && self.ledger.quotas.is_on() {
            self.ledger.quotas = Quotas::of(state, &self.waiting.running);
        }
        if moved.all {
            self.waiting.rescore(state, &self.scorer, now);
        } else if let Some(range) = moved.ripened {
            self.waiting.refresh_submitted(state, &self.scorer, range, now);
        }
        if moved.lanes {
            self.waiting.by_order.set_ranks(self.scorer.lanes());
        }
        self.upto = state.applied_index();
        true
    }
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
    let scheduling = |gang: &GangRecord| Some(state.scheduling(state.job(gang.id.job)?).clone());
    let demoted = active().filter_map(|gang| scorer.demoted_at(&*scheduling(gang)?, gang, now)).min();
    timer.into_iter().chain(protected).chain(demoted).min()
}

/// The first gang that cannot start, and what is known of its start.
struct Blocked {
    gang: GangId,
    booking: Option<Booking>,
}

fn start_in_order(round: &mut Round) {
    let policy = round.state.policy().clone();
    let strict = matches!(policy.admission, Admission::HeadOfLine { .. });
    let fills = policy.backfill.reserve_depth > 0;
    let waiting = round.waiting;
    let mut blocked: Option<Blocked> = None;
    let head = sticky_head(round);
    let first = head.iter().map(|(gang, item)| (item, Some(*gang)));
    let rest = waiting.by_order.values().map(|item| (item, None));
    'order: for (item, only) in first.chain(rest) {
        let gangs: Box<dyn Iterator<Item = GangId>> = match only {
            Some(gang) => Box::new(std::iter::once(gang)),
            None => item.gangs(round.state),
        };
        for gang in gangs {
            match offer(round, gang, item, &mut blocked, strict, fills) {
                Offered::Next => {}
                Offered::NextItem => break,
                Offered::Stop => break 'order,
            }
            if blocked.is_some() && fills && policy.backfill.filler_order == FillerOrder::Submit {
                break 'order;
            }
        }
    }
    if fills && policy.backfill.filler_order == FillerOrder::Submit {
        fill_by_submit(round, &mut blocked);
    }
    finish_bookings(round, blocked, strict);
}

enum Offered {
    Next,
    NextItem,
    Stop,
}

/// Offers the cluster to one gang of the order.
fn offer(
    round: &mut Round,
    gang: GangId,
    item: &Arc<Item>,
    blocked: &mut Option<Blocked>,
    strict: bool,
    fills: bool,
) -> Offered {
    if round.placed.contains(&gang)
        || round.waits_for_kept(gang)
        || blocked.as_ref().is_some_and(|blocked| blocked.gang == gang)
    {
        return Offered::Next;
    }
    if !round.may_look() {
        return Offered::Stop;
    }
    match round.not_eligible(gang, item) {
        None => {}
        Some(Reason::Parked) => return Offered::Next,
        Some(_) => return Offered::NextItem,
    }
    let tried = match blocked {
        Some(Blocked { booking: Some(booking), .. }) => round.try_fill(gang, item, booking),
        _ => round.try_start(gang, item),
    };
    if tried == Tried::Placed || round.take_back(gang, item, &booked_nodes(blocked)) {
        return Offered::Next;
    }
    if blocked.is_none() && !round.is_over_quota(item) && round.could_ever(item) {
        let idle = fills && nothing_to_fill(round, gang);
        let booking = if fills && !idle { round.book(gang, item) } else { None };
        let stop = idle || strict && booking.is_none();
        if stop || booking.is_some() {
            *blocked = Some(Blocked { gang, booking });
            return if stop { Offered::Stop } else { Offered::Next };
        }
    }
    // Elements of a lane are alike: what one lacks, all lack.
    if round.does_not_fit(item) || item.lane { Offered::NextItem } else { Offered::Next }
}

/// Where a start is booked for another.
fn booked_nodes(blocked: &Option<Blocked>) -> BTreeSet<NodeId> {
    let booking = blocked.as_ref().and_then(|blocked| blocked.booking.as_ref());
    booking.map_or_else(BTreeSet::new, |booking| booking.witness.iter().map(|device| device.node).collect())
}

/// With nothing free and a booking already written, there is nothing to work out.
fn nothing_to_fill(round: &Round, gang: GangId) -> bool {
    let full = round.ledger.with_free().is_empty() && round.ledger.partial().is_empty();
    full && round.waiting.cpu_only == 0 && round.state.reservations().contains_key(&gang)
}

fn fill_by_submit(round: &mut Round, blocked: &mut Option<Blocked>) {
    let waiting = round.waiting;
    let Some(Blocked { gang: head, booking: Some(booking) }) = blocked else { return };
    for item in waiting.by_submit.values() {
        for gang in item.gangs(round.state) {
            if gang == *head || round.placed.contains(&gang) || round.waits_for_kept(gang) {
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
            if round.try_fill(gang, item, booking) != Tried::Placed && item.lane {
                break;
            }
        }
    }
}

/// The committed head of the queue, while it still waits and may start.
fn sticky_head(round: &mut Round) -> Option<(GangId, Arc<Item>)> {
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
fn finish_bookings(round: &mut Round, blocked: Option<Blocked>, strict: bool) {
    let sticky = round.state.policy().admission == (Admission::HeadOfLine { sticky: true });
    let holder = blocked.as_ref().map(|blocked| blocked.gang);
    forget_bookings(round, holder);
    match blocked {
        Some(Blocked { booking: Some(booking), .. }) => round.write_booking(&booking),
        // A head without a foreseeable start is committed to all the same.
        Some(Blocked { gang, booking: None })
            if strict && sticky && !round.state.reservations().contains_key(&gang) =>
        {
            round.steps.push(PlanStep::Reserve(backfill::head_without_start(gang)));
        }
        _ => {}
    }
}

fn forget_bookings(round: &mut Round, unless: Option<GangId>) {
    for reservation in round.state.reservations().values() {
        let ours = matches!(reservation.kind, ReservationKind::Head | ReservationKind::Booked);
        let settled = round.placed.contains(&reservation.gang) || round.waits_for_kept(reservation.gang);
        if ours && Some(reservation.gang) != unless && !settled {
            round.steps.push(PlanStep::Unreserve { gang: reservation.gang });
        }
    }
}
