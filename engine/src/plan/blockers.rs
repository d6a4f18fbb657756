//! The blockers of waiting gangs after one cycle. What is asked of the cluster is worked out once per
//! request, however many gangs make it.

use super::apart::apart;
use super::capacity::Capacity;
use super::explain::{Blocker, NAMED_MAX, Reason, blocker};
use super::in_the_way::{InTheWay, Others};
use super::ledger::Ledger;
use super::limits::{self, Of, Over, Room};
use super::never::NeverFits;
use super::outside::{Sets, met};
use super::owed;
use super::place::{Request, place};
use super::quota;
use super::round::{Ever, not_eligible};
use super::windows::reserved_for_others;
use crate::command::{Command, Placement, PlanStep, RequestNodes, StopFor};
use crate::cycle::{Cycle, Known};
use crate::policy::{Admission, Replan};
use crate::state::State;
use crate::state::gang::{Cause, GangRecord, GangState};
use crate::state::job::JobRecord;
use crate::state::reservation::{Reservation, ReservationKind};
use crate::state::timer::Timer;
use muster_common::job::{Hash, Scheduling};
use muster_common::{DeviceId, GangId, JobId, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// What one cycle left waiting, ready to be asked about gangs.
pub(super) struct Blockers<'a> {
    state: &'a State,
    now: Time,
    placed: BTreeSet<GangId>,
    /// What this very cycle reserves.
    reserved: BTreeMap<GangId, Reservation>,
    /// Whom this very cycle tells to stop.
    told: BTreeSet<GangId>,
    /// What it moves.
    moving: BTreeSet<GangId>,
    /// For whom it has nodes woken, and all that they are to have.
    requested: BTreeMap<GangId, Vec<DeviceId>>,
    /// Jobs that give up at this very moment.
    expiring: BTreeSet<JobId>,
    truncated: bool,
    /// Places in the order that the cycle came to.
    reached: u32,
    capacity: Capacity<'a>,
    ledger: &'a Ledger,
    /// The same, to try on.
    trial: Option<Ledger>,
    /// By request and by the nodes a gang keeps off.
    kept_off: BTreeMap<(Hash, Vec<NodeId>), Option<Blocker>>,
    others: Others<'a>,
    /// What limits leave beside what the cycle starts.
    room: Room,
    ever: &'a mut Ever,
    never: BTreeMap<Hash, Option<NeverFits>>,
    outside: Sets,
}

impl<'a> Blockers<'a> {
    pub fn new((state, now): (&'a State, Time), decided: &Cycle, known: Known<'a>) -> Self {
        let Known { waiting, ledger, ever, booked } = known;
        let started: Vec<Placement> = placed(decided).cloned().collect();
        let placed: BTreeSet<GangId> = started.iter().map(|placement| placement.gang).collect();
        let mut room = Room::default();
        for job in placed.iter().filter_map(|gang| state.job(gang.job)) {
            room.place(state, job, state.scheduling(job));
        }
        let kept = kept(state, decided, &placed);
        Self {
            state,
            now,
            others: Others::new((state, now), (waiting, ledger), booked, kept, started),
            placed,
            reserved: reserved(decided).map(|known| (known.gang, known.clone())).collect(),
            told: told_to_stop(decided).collect(),
            moving: moving(decided).collect(),
            requested: requested(decided).map(|asked| (asked.gang, asked.witness.clone())).collect(),
            expiring: expiring(decided),
            truncated: decided.truncated > 0,
            reached: (waiting.by_order.len() as u32).saturating_sub(decided.truncated),
            capacity: Capacity::new(state, ledger),
            ledger,
            trial: None,
            kept_off: BTreeMap::new(),
            room,
            ever,
            never: BTreeMap::new(),
            outside: Sets::default(),
        }
    }

    /// Does the cycle start it?
    pub fn places(&self, gang: GangId) -> bool {
        self.placed.contains(&gang)
    }

    /// From here on a request that nobody asked about yet is only counted, not looked into.
    pub fn only_count(&mut self) {
        self.capacity.only_count();
    }

    /// Requests looked into so far.
    pub fn looked_into(&self) -> usize {
        self.capacity.known()
    }

    /// Everything in the way of a waiting gang, the reason that decides first. `ahead`: some of
    /// those before it in the order.
    pub fn of(&mut self, gang: GangId, position: Option<u32>, ahead: &[GangId]) -> Vec<Blocker> {
        let Some(job) = self.state.job(gang.job) else { return Vec::new() };
        let scheduling = self.state.scheduling(job).clone();
        let kept = self.kept_for(gang);
        if let (None, Some(asked)) = (&kept, self.requested.get(&gang)) {
            return vec![self.woken_for(self.now, asked)];
        }
        let mut found = self.not_eligible(gang, job, &scheduling);
        if let Some((kept, leaves)) = kept {
            // Whoever leaves it gives back what counts against its limits and quota.
            if !leaves {
                found.extend(self.at_limits(job, &scheduling));
                found.extend(self.over_quota(&scheduling));
            }
            found.push(kept);
            found.sort_by_key(|known| known.reason);
            return found;
        }
        found.extend(self.at_limits(job, &scheduling));
        let excluded = self.state.gang(gang).map_or(&[][..], |record| &record.excluded);
        let shut = self.shut_out(gang, &scheduling, excluded);
        match self.capacity.of_gang(&scheduling, excluded) {
            Some(lacks) => found.extend(lacks.iter().cloned()),
            // What the job itself says is reason enough; nobody is in its way then.
            None if found.is_empty() && shut.is_none() => {
                let over = self.room.all_over(self.state, job, &scheduling, self.now);
                found.extend(told_of(&over));
                if found.is_empty() {
                    found.extend(self.in_the_way(gang, excluded, position, ahead));
                }
            }
            None => {}
        }
        found.extend(shut);
        if let Some(over) = self.over_quota(&scheduling) {
            found.retain(|known| !matches!(known.reason, Reason::Priority | Reason::Backfill));
            found.push(over);
        }
        if let Some(owed) = self.owed_cells(gang, job.revision().scheduling, &scheduling) {
            found.retain(|known| !matches!(known.reason, Reason::Priority | Reason::Backfill));
            found.push(owed);
        }
        if self.truncated && position.is_some_and(|at| at > self.reached) {
            let depth = self.state.policy().budget.depth;
            let detail = format!("the policy looks at {depth} gangs a cycle, and this one comes after them");
            found.retain(|known| !matches!(known.reason, Reason::Priority | Reason::Backfill | Reason::BeyondDepth));
            found.push(blocker(Reason::BeyondDepth, detail).help("raise `budget.depth` in the policy"));
        }
        if let Some(NeverFits { what, have, hint }) = self.never(job.revision().scheduling, &scheduling) {
            found.retain(|known| !matches!(known.reason, Reason::Nodes | Reason::Reserved));
            found.push(blocker(Reason::NeverFits, format!("{what}; {have}")).help(hint));
        }
        found.sort_by_key(|known| known.reason);
        found
    }

    /// What the job itself says, or others for it.
    fn not_eligible(&self, gang: GangId, job: &JobRecord, scheduling: &Scheduling) -> Vec<Blocker> {
        let mut found = Vec::new();
        if self.expiring.contains(&gang.job) {
            found.push(blocker(Reason::Cancelled, "the longest it was to wait, or its deadline, is over now"));
        }
        let placed = self.placed.range(GangId::new(gang.job, 0)..=GangId::new(gang.job, u32::MAX)).count() as u32;
        if let Some(reason) = not_eligible(self.state, job, gang, scheduling, placed, self.now) {
            found.push(eligibility(self.state, gang, reason, placed));
        }
        found
    }

    fn at_limits(&self, job: &JobRecord, scheduling: &Scheduling) -> Vec<Blocker> {
        let scopes = limits::scopes(self.state, &scheduling.account, &job.principal, self.now);
        told_of(&limits::all_over(&scopes, scheduling))
    }

    fn over_quota(&self, scheduling: &Scheduling) -> Option<Blocker> {
        let short = quota::allowed(&self.ledger.quotas, scheduling).err()?;
        Some(quota::told(&self.ledger.quotas, scheduling, &short))
    }

    /// It fits on what is free, and others would then lack cells that they own.
    fn owed_cells(&mut self, gang: GangId, shape: Hash, scheduling: &Scheduling) -> Option<Blocker> {
        let owed = &self.ledger.owed;
        if !owed.is_on() || !owed.is_firm(scheduling) {
            return None;
        }
        let excluded = self.state.gang(gang).map_or(&[][..], |record| &record.excluded);
        let key = (shape, excluded.to_vec());
        if let Some(known) = self.kept_off.get(&key) {
            return known.clone();
        }
        let found = self.kept_off(gang, excluded, scheduling);
        self.kept_off.insert(key, found.clone());
        found
    }

    fn kept_off(&mut self, gang: GangId, excluded: &[NodeId], scheduling: &Scheduling) -> Option<Blocker> {
        let state = self.state;
        let ledger = self.trial.get_or_insert_with(|| self.ledger.clone());
        let request = Request::of(scheduling, excluded).for_gang(gang);
        let found = place(ledger, state.fabric(), state.policy(), request, &mut 0)?;
        if owed::beside(state, ledger, scheduling, request, found.clone(), &mut 0).is_some() {
            return None;
        }
        let who = owed::told(&mut ledger.owed, state, scheduling, &found);
        let detail =
            format!("there is room, but what may not be stopped in time keeps off cells that are owned: {who}");
        let help = match scheduling.preemptible {
            true => "give it a shorter grace (`checkpoint.grace`), so that it can be stopped in time",
            false => "let it be stopped (`preemptible = true`), or wait until more is free",
        };
        Some(blocker(Reason::OwedCells, detail).help(help))
    }

    /// What is kept for it already, or will be by this cycle, is all that it waits for on the cluster. With whether somebody
    /// is still to leave that.
    fn kept_for(&self, gang: GangId) -> Option<(Blocker, bool)> {
        let known = self.reserved.get(&gang).or_else(|| self.state.reservations().get(&gang))?;
        let state = self.state;
        let holders: BTreeSet<GangId> = known.witness.iter().flat_map(|device| holders(state, device)).collect();
        let until = Some(known.end).filter(|end| *end < Time::NEVER);
        let told = holders.iter().all(|holder| self.is_told(*holder));
        let leaves = !holders.is_empty();
        let kept = match known.kind {
            ReservationKind::Victims if !told => Blocker { until, ..self.will_leave(known, &holders) },
            ReservationKind::Victims => {
                let names: Vec<String> = holders.iter().take(NAMED_MAX).map(|gang| name(state, *gang)).collect();
                let moved = |gang: &&GangId| self.moving.contains(gang) || moved_for(state, **gang).is_some();
                let moves = holders.iter().filter(moved).count();
                let leave = match (holders.len(), moves) {
                    (0, _) => "its devices have just come free".to_owned(),
                    (1, 0) => format!("{} leaves for it", names.join(", ")),
                    (_, 0) => format!("{} leave for it", names.join(", ")),
                    (1, _) => format!("{} is moved to make room for it", names.join(", ")),
                    (all, moves) if all == moves => format!("{} are moved to make room for it", names.join(", ")),
                    (_, moves) => format!("{} leave for it, {moves} of them moved to other places", names.join(", ")),
                };
                let by = known.start.since_ms(self.now).div_ceil(1000);
                let detail = format!("{leave}, with {by} s of grace left; {} are kept", devices(known));
                Blocker { until, ..blocker(Reason::Victims, detail).by(holders) }
            }
            ReservationKind::Wounded => {
                let detail = format!("it lost a node, keeps {} and has the first claim on another", devices(known));
                let nodes: BTreeSet<NodeId> = known.witness.iter().map(|device| device.node).collect();
                Blocker { until, ..blocker(Reason::Wounded, detail).on(nodes) }
            }
            ReservationKind::Woken => self.woken_for(known.start, &known.witness),
            ReservationKind::Moved => moved(state, known),
            _ => return None,
        };
        Some((kept, leaves))
    }

    fn is_told(&self, gang: GangId) -> bool {
        let stops = |record: &GangRecord| matches!(record.state, GangState::Stopping(..));
        self.told.contains(&gang) || self.moving.contains(&gang) || self.state.gang(gang).is_some_and(stops)
    }

    /// Some of them have not run for as long as policy leaves everybody alone.
    fn will_leave(&self, known: &Reservation, holders: &BTreeSet<GangId>) -> Blocker {
        let stay = holders.iter().filter(|gang| !self.is_told(**gang)).take(NAMED_MAX);
        let names: Vec<String> = stay.map(|gang| name(self.state, *gang)).collect();
        let by = known.start.since_ms(self.now).div_ceil(1000);
        let detail = format!(
            "{} will be stopped for it after `taking.reclaim.min_run_ms`, and be gone in {by} s with grace; {} are kept",
            names.join(", "),
            devices(known)
        );
        blocker(Reason::Victims, detail).by(holders.clone())
    }

    /// What is not awake of the nodes it is to have.
    fn woken_for(&self, expected: Time, witness: &[DeviceId]) -> Blocker {
        let comes = |node: &NodeId| self.state.node(*node).is_some_and(|node| !node.power.is_awake());
        let nodes: BTreeSet<NodeId> = witness.iter().map(|device| device.node).filter(comes).collect();
        let detail = match nodes.len() {
            0 => "its nodes are awake".to_owned(),
            1 => "1 node is being woken for it".to_owned(),
            many => format!("{many} nodes are being woken for it"),
        };
        Blocker { until: Some(expected), ..blocker(Reason::Waking, detail).on(nodes) }
    }

    /// The windows that a run from now on would reach into, where without their nodes there is no room: not
    /// now, though there is with them, or not even if nothing ran.
    fn shut_out(&mut self, gang: GangId, scheduling: &Scheduling, excluded: &[NodeId]) -> Option<Blocker> {
        let mut met = met(self.state, gang, scheduling, self.now);
        met.retain(|window| self.outside.concerns(self.state, window, scheduling));
        if met.is_empty() {
            return None;
        }
        let now = self.capacity.of_gang(scheduling, excluded).is_none();
        let count = self.capacity.counts_only();
        let of = (scheduling, excluded);
        let outside = self.outside.of(self.state, self.ledger, &met)?;
        if outside.has_room((self.state, &mut *self.ever), of, now, count) {
            return None;
        }
        let nodes = outside.nodes.clone();
        let (ahead, begun): (Vec<_>, Vec<_>) = met.iter().copied().partition(|window| window.start > self.now);
        // A shorter run keeps out of what begins later only.
        let beside_begun = begun.is_empty()
            || self
                .outside
                .of(self.state, self.ledger, &begun)
                .is_some_and(|outside| outside.has_room((self.state, &mut *self.ever), of, now, count));
        let first = ahead.iter().map(|window| window.start).min().filter(|_| beside_begun);
        Some(reserved_for_others(&met, &nodes, scheduling, (self.now, first)))
    }

    fn never(&mut self, shape: Hash, scheduling: &Scheduling) -> Option<NeverFits> {
        let (state, ever) = (self.state, &mut self.ever);
        self.never.entry(shape).or_insert_with(|| ever.never(state, scheduling)).clone()
    }

    /// It would fit on what is free, and yet this cycle does not start it. `None` where nothing is seen in its way.
    fn in_the_way(
        &mut self,
        gang: GangId,
        excluded: &[NodeId],
        position: Option<u32>,
        ahead: &[GangId],
    ) -> Option<Blocker> {
        let state = self.state;
        let Some(others) = self.others.before(gang, excluded) else { return self.behind(gang, position, ahead) };
        let (gangs, found) = match others {
            InTheWay::Booked(gangs, start) => {
                let whose = if gangs.len() == 1 { "start is" } else { "starts are" };
                let detail = format!("it could start, but would delay {}, whose {whose} booked", names(state, &gangs));
                let help = "give a time limit, or a shorter one, so that it ends before";
                let until = Some(start).filter(|start| *start < Time::NEVER);
                (gangs, Blocker { until, ..blocker(Reason::Backfill, detail).help(help) })
            }
            InTheWay::Started(gangs) => {
                let (go, take) = if gangs.len() == 1 { ("goes", "takes") } else { ("go", "take") };
                let detail = format!("{} {go} first, and {take} what it would need", names(state, &gangs));
                (gangs, blocker(Reason::Priority, detail))
            }
            InTheWay::Kept(gangs) => {
                let detail = format!("what it would need is kept for {}", names(state, &gangs));
                (gangs, blocker(Reason::Priority, detail))
            }
        };
        Some(found.by(gangs))
    }

    /// It finds room beside all others, and the cycle did not come to it, or lets nothing pass whoever is before it.
    fn behind(&self, gang: GangId, position: Option<u32>, ahead: &[GangId]) -> Option<Blocker> {
        let state = self.state;
        if self.truncated {
            let detail = "the policy's depth or budget ended before its turn";
            return Some(blocker(Reason::BeyondDepth, detail).help("raise `budget` in the policy"));
        }
        let heads = self.reserved.values().chain(state.reservations().values());
        let mut heads = heads.filter(|known| known.kind == ReservationKind::Head);
        let strict = matches!(state.policy().admission, Admission::HeadOfLine { .. });
        if let Some(head) = heads.find(|known| strict && known.gang != gang && !self.placed.contains(&known.gang)) {
            let detail = format!("{} is at the head of the queue", name(state, head.gang));
            return Some(blocker(Reason::Priority, detail).by([head.gang]));
        }
        let detail = match state.policy().replan {
            _ if position.is_none_or(|at| at <= 1) => return None,
            _ if strict => "one that goes first cannot start yet, and nothing may pass it",
            Replan::Refill { .. } => "the order is filled anew, and those that go first take what it would need",
            Replan::Keep => return None,
        };
        let waiting = ahead.iter().filter(|ahead| !self.placed.contains(ahead));
        Some(blocker(Reason::Priority, detail).by(waiting.copied()))
    }
}

fn steps(decided: &Cycle) -> impl Iterator<Item = &PlanStep> {
    decided.commands.iter().flat_map(|command| match command {
        Command::CommitPlan(plan) => plan.steps.as_slice(),
        _ => &[],
    })
}

fn reserved(decided: &Cycle) -> impl Iterator<Item = &Reservation> {
    steps(decided).filter_map(|step| match step {
        PlanStep::Reserve(reservation) => Some(reservation),
        PlanStep::Consolidate(wanted) => Some(&wanted.room),
        _ => None,
    })
}

fn moving(decided: &Cycle) -> impl Iterator<Item = GangId> + '_ {
    steps(decided)
        .flat_map(|step| match step {
            PlanStep::Consolidate(wanted) => wanted.moves.as_slice(),
            _ => &[],
        })
        .map(|moved| moved.place.gang)
}

/// Devices that are nobody else's, and whether they are so by this very cycle. Who is moved is so after all others
/// had their turn.
fn kept(state: &State, decided: &Cycle, placed: &BTreeSet<GangId>) -> Vec<(bool, Reservation)> {
    let given_up = steps(decided).filter_map(|step| match step {
        PlanStep::Unreserve { gang } => Some(*gang),
        _ => None,
    });
    let anew = || {
        steps(decided).filter_map(|step| match step {
            PlanStep::Reserve(known) => Some(known),
            _ => None,
        })
    };
    let gone: BTreeSet<GangId> = given_up.chain(anew().map(|known| known.gang)).collect();
    let before = state.reservations().values().filter(|known| !gone.contains(&known.gang));
    let all = before.map(|known| (false, known)).chain(anew().map(|known| (true, known)));
    let kept = all.filter(|(_, known)| known.kind.keeps_devices() && !placed.contains(&known.gang));
    kept.map(|(anew, known)| (anew, known.clone())).collect()
}

/// Jobs whose wait is over.
fn expiring(decided: &Cycle) -> BTreeSet<JobId> {
    let due = decided.commands.iter().filter_map(|command| match command {
        Command::Expire { timers } => Some(timers),
        _ => None,
    });
    let jobs = due.flatten().filter_map(|timer| match timer {
        Timer::WaitLimit { job } | Timer::Deadline { job } => Some(*job),
        _ => None,
    });
    jobs.collect()
}

/// For whom a gang is being moved, or was a moment ago.
fn moved_for(state: &State, gang: GangId) -> Option<GangId> {
    let record = state.gang(gang)?;
    let cause = match &record.state {
        GangState::Stopping(_, cause) => cause,
        GangState::Queued { .. } => &record.past.last()?.cause,
        GangState::Starting(_) | GangState::Running(_) => return None,
    };
    match cause {
        Cause::Preempted { by, why: StopFor::Consolidation } => *by,
        _ => None,
    }
}

/// What is told of a gang whose new place is kept.
pub(super) fn moved(state: &State, known: &Reservation) -> Blocker {
    let by = moved_for(state, known.gang);
    let whom = by.map_or("another gang".into(), |by| name(state, by));
    let nodes: BTreeSet<NodeId> = known.witness.iter().map(|device| device.node).collect();
    let goes = state.gang(known.gang).is_some_and(|record| record.current().is_some());
    let when = if goes { "once all of it has stopped it starts" } else { "it starts" };
    let detail = format!("it is moved to make room for {whom}: {when} on {} that are kept for it", devices(known));
    Blocker { until: Some(known.end), ..blocker(Reason::Moved, detail).on(nodes).by(by) }
}

fn told_to_stop(decided: &Cycle) -> impl Iterator<Item = GangId> {
    steps(decided).filter_map(|step| match step {
        PlanStep::Stop { gang, .. } => Some(*gang),
        _ => None,
    })
}

fn requested(decided: &Cycle) -> impl Iterator<Item = &RequestNodes> {
    decided.commands.iter().filter_map(|command| match command {
        Command::RequestNodes(asked) => Some(&**asked),
        _ => None,
    })
}

pub(super) fn holders<'s>(state: &'s State, device: &DeviceId) -> impl Iterator<Item = GangId> + 's {
    let known = state.node(device.node).and_then(|node| node.devices.get(usize::from(device.slot)));
    known.into_iter().flat_map(|device| device.holders().iter().map(|holder| holder.gang))
}

fn devices(known: &Reservation) -> String {
    if known.witness.len() == 1 { "1 device".into() } else { format!("{} devices", known.witness.len()) }
}

fn placed(decided: &Cycle) -> impl Iterator<Item = &Placement> {
    steps(decided).filter_map(|step| match step {
        PlanStep::Place(placement) => Some(placement),
        _ => None,
    })
}

/// As people write it: the one gang of a job that is no array is the job.
pub(super) fn name(state: &State, gang: GangId) -> String {
    let array = state.job(gang.job).is_some_and(|job| state.scheduling(job).array.is_some());
    if array { gang.to_string() } else { gang.job.to_string() }
}

/// `others` where they are too many for anybody to have asked who.
fn names(state: &State, gangs: &[GangId]) -> String {
    if gangs.is_empty() {
        return "others".into();
    }
    gangs.iter().map(|gang| name(state, *gang)).collect::<Vec<_>>().join(", ")
}

/// One hint for all of a reason.
fn told_of(over: &[Over]) -> Vec<Blocker> {
    let mut found: Vec<Blocker> = over.iter().map(at_limit).collect();
    let mut helped = BTreeSet::new();
    found.iter_mut().filter(|known| !helped.insert(known.reason)).for_each(|known| known.hint = None);
    found
}

fn at_limit(over: &Over) -> Blocker {
    let known = blocker(over.reason(), over.to_string());
    match over.of {
        Of::Money { until, .. } => {
            let help = "ask for less time or fewer GPUs, wait for the next period, or ask who sets the budget";
            Blocker { until: Some(until), ..known.help(help) }
        }
        _ => {
            known.help("wait until some of it is free, or ask who sets the limits (`muster cluster set organisation`)")
        }
    }
}

/// `placed`: gangs of its job that the cycle starts.
fn eligibility(state: &State, gang: GangId, reason: Reason, placed: u32) -> Blocker {
    let job = gang.job;
    let Some(record) = state.job(job) else { return blocker(reason, "the job is not known") };
    if let Some(blocker) = apart(state, record).filter(|blocker| blocker.reason == reason) {
        return blocker;
    }
    match reason {
        Reason::BeginTime => {
            let until = state.scheduling(record).begin_at_ms.map(Time);
            Blocker { until, ..blocker(reason, "the job asked to begin later") }
        }
        Reason::Backoff => {
            let until = state.gang(gang).and_then(|gang| match gang.state {
                GangState::Queued { not_before } => Some(not_before),
                _ => None,
            });
            Blocker { until, ..blocker(reason, "the last attempt failed; waiting before the next") }
        }
        Reason::ArrayLimit => {
            let array = state.scheduling(record).array.as_ref();
            match array.and_then(|array| array.at_once) {
                Some(most) if record.gangs_active + placed >= most => blocker(
                    reason,
                    format!("{} of the array run already; at most {most} may at once", record.gangs_active + placed),
                )
                .help(format!("muster edit {job} --set array.at_once=N")),
                _ => blocker(reason, format!("{} of the array have failed; no more are started", record.tally.failed)),
            }
        }
        Reason::Parked => {
            let why = state.parked(gang).map_or(String::new(), |parked| format!(": {}", parked.why));
            blocker(reason, format!("its plans were refused twice{why}")).help("hold and release the job to try again")
        }
        _ => blocker(Reason::Cancelled, "the job is being ended"),
    }
}
