//! Why a gang waits: the predicates of the cycle, recorded instead of short-circuited. Every
//! blocker at once, each with what would help.

use super::ledger::{Ledger, Suppose};
use super::never::{NeverFits, fits_ever};
use super::place::{Request, place};
use super::round::not_eligible;
use crate::command::{Command, PlanStep};
use crate::cycle::{Cycle, Memo, cycle};
use crate::policy::Admission;
use crate::state::State;
use crate::state::gang::{GangState, PartState};
use crate::state::reservation::ReservationKind;
use muster_common::job::{Count, GroupRequest};
use muster_common::{GangId, NodeId, Time};
use std::collections::BTreeSet;

/// The closed list of reasons for which a gang does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Hold,
    BeginTime,
    Backoff,
    ArrayLimit,
    Cancelled,
    Parked,
    NeverFits,
    /// Too few free devices.
    Nodes,
    Topology,
    GpuModel,
    CpuMemory,
    Label,
    Excluded,
    ClosedNodes,
    UnknownDevices,
    Priority,
    Backfill,
    BeyondDepth,
    /// It is placed, and some node has not prepared yet.
    StartPending,
}

impl Reason {
    pub const fn word(self) -> &'static str {
        match self {
            Reason::Hold => "hold",
            Reason::BeginTime => "begin-time",
            Reason::Backoff => "backoff",
            Reason::ArrayLimit => "array-limit",
            Reason::Cancelled => "cancelled",
            Reason::Parked => "parked",
            Reason::NeverFits => "never-fits",
            Reason::Nodes => "nodes",
            Reason::Topology => "topology",
            Reason::GpuModel => "gpu-model",
            Reason::CpuMemory => "cpu-memory",
            Reason::Label => "label",
            Reason::Excluded => "excluded",
            Reason::ClosedNodes => "closed-nodes",
            Reason::UnknownDevices => "unknown-devices",
            Reason::Priority => "priority",
            Reason::Backfill => "backfill",
            Reason::BeyondDepth => "beyond-depth",
            Reason::StartPending => "start-pending",
        }
    }
}

/// One thing in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    pub reason: Reason,
    /// A sentence for a person.
    pub detail: String,
    /// What would help, when something would.
    pub hint: Option<String>,
    pub gangs: Vec<GangId>,
    pub nodes: Vec<NodeId>,
    pub until: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub gang: GangId,
    /// Place in the order, from 1, and how many wait; `None` for a gang that does not wait.
    pub position: Option<(u32, u32)>,
    pub blockers: Vec<Blocker>,
    /// The next cycle will start it.
    pub starts_now: bool,
    /// The start booked for it.
    pub booked: Option<Time>,
}

/// Most gangs or nodes that one blocker names.
const NAMED_MAX: usize = 8;

/// `None` for a gang that is not in State: it never was, or has ended.
pub fn explain(state: &State, memo: &mut Memo, gang: GangId, now: Time) -> Option<Explanation> {
    let job = state.job(gang.job)?;
    let record = state.gang(gang);
    if record.is_none() && !job.unstarted.contains(gang.ordinal) {
        return None;
    }
    let booked = state.reservations().get(&gang).map(|known| known.start).filter(|start| *start < Time::NEVER);
    let mut explanation = Explanation { gang, position: None, blockers: Vec::new(), starts_now: false, booked };
    if let Some(record) = record.filter(|record| record.current().is_some()) {
        if let GangState::Starting(attempt) = &record.state {
            let late: Vec<NodeId> =
                attempt.parts.iter().filter(|part| part.state == PartState::Placed).map(|part| part.node).collect();
            let detail = format!("placed; {} of {} nodes have not prepared yet", late.len(), attempt.parts.len());
            explanation.blockers.push(blocker(Reason::StartPending, detail).on(late));
        }
        return Some(explanation);
    }
    let decided = cycle(state, memo, now);
    explanation.starts_now = places(&decided, gang);
    let waiting = memo.waiting(state, now);
    explanation.position = waiting.item_of(state, gang).map(|item| {
        let before = waiting.by_order.range(..item.key).count() as u32;
        (before + 1, waiting.by_order.len() as u32)
    });
    if explanation.starts_now {
        return Some(explanation);
    }
    let ahead: Vec<GangId> = match waiting.item_of(state, gang) {
        Some(item) => waiting.by_order.range(..item.key).map(|(key, _)| key.gang).collect(),
        None => Vec::new(),
    };
    let scheduling = state.scheduling(job).clone();
    if let Some(reason) = not_eligible(state, job, gang, &scheduling, 0, now) {
        explanation.blockers.push(eligibility(state, gang, reason));
    }
    capacity(state, &mut explanation, &scheduling.groups, &decided, &ahead);
    if decided.truncated > 0 && explanation.position.is_some_and(|(at, _)| at > state.policy().budget.depth) {
        let depth = state.policy().budget.depth;
        let detail = format!("the policy looks at {depth} gangs a cycle, and this one comes after them");
        explanation
            .blockers
            .retain(|known| !matches!(known.reason, Reason::Priority | Reason::Backfill | Reason::BeyondDepth));
        explanation.blockers.push(blocker(Reason::BeyondDepth, detail).help("raise `budget.depth` in the policy"));
    }
    if let Err(NeverFits { what, have, hint }) = fits_ever(state, &scheduling) {
        explanation.blockers.retain(|known| known.reason != Reason::Nodes);
        let mut never = blocker(Reason::NeverFits, format!("{what}; {have}"));
        never.hint = Some(hint);
        explanation.blockers.push(never);
    }
    explanation.blockers.sort_by_key(|known| known.reason);
    Some(explanation)
}

fn blocker(reason: Reason, detail: impl Into<String>) -> Blocker {
    Blocker { reason, detail: detail.into(), hint: None, gangs: Vec::new(), nodes: Vec::new(), until: None }
}

impl Blocker {
    fn on(mut self, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        self.nodes = nodes.into_iter().take(NAMED_MAX).collect();
        self
    }

    fn by(mut self, gangs: impl IntoIterator<Item = GangId>) -> Self {
        self.gangs = gangs.into_iter().take(NAMED_MAX).collect();
        self
    }

    fn help(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

fn places(decided: &Cycle, gang: GangId) -> bool {
    placed(decided).any(|other| other == gang)
}

fn placed(decided: &Cycle) -> impl Iterator<Item = GangId> + '_ {
    let steps = decided.commands.iter().flat_map(|command| match command {
        Command::CommitPlan(plan) => plan.steps.as_slice(),
        _ => &[],
    });
    steps.filter_map(|step| match step {
        PlanStep::Place(placement) => Some(placement.gang),
        _ => None,
    })
}

fn eligibility(state: &State, gang: GangId, reason: Reason) -> Blocker {
    let job = gang.job;
    let Some(record) = state.job(job) else { return blocker(reason, "the job is not known") };
    match reason {
        Reason::Hold => blocker(reason, "the job is held").help(format!("muster release {job}")),
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
                Some(most) if record.gangs_active >= most => blocker(
                    reason,
                    format!("{} of the array run already; at most {most} may at once", record.gangs_active),
                ),
                _ => blocker(
                    reason,
                    format!("{} elements of the array failed; no more are started", record.tally.failed),
                ),
            }
        }
        Reason::Parked => {
            let why = state.parked(gang).map_or(String::new(), |parked| format!(": {}", parked.why));
            blocker(reason, format!("its plans were refused twice{why}")).help("hold and release the job to try again")
        }
        _ => blocker(Reason::Cancelled, "the job is being ended"),
    }
}

/// What capacity lacks. Each reason is tried alone: would the gang fit if only that were otherwise?
fn capacity(state: &State, explanation: &mut Explanation, groups: &[GroupRequest], decided: &Cycle, ahead: &[GangId]) {
    let [group] = groups else { return };
    let excluded = state.gang(explanation.gang).map_or(&[][..], |record| &record.excluded);
    let fits = |group: &GroupRequest, excluded: &[NodeId], suppose: Suppose| {
        let ledger = Ledger::of(state, suppose);
        place(&ledger, state.fabric(), state.policy(), Request { group, excluded }, &mut 0).is_some()
    };
    let blockers = &mut explanation.blockers;
    if fits(group, excluded, Suppose::default()) {
        // What the job itself says is reason enough; nobody is in its way then.
        if blockers.is_empty() {
            blockers.push(in_the_way(state, explanation.gang, decided, ahead));
        }
        return;
    }
    let only = |change: &dyn Fn(&mut GroupRequest)| {
        let mut other = group.clone();
        change(&mut other);
        other != *group && fits(&other, excluded, Suppose::default())
    };
    if only(&|group| group.topology.clear()) {
        let levels: Vec<&str> = group.topology.iter().map(|request| request.level.as_str()).collect();
        let detail = format!("enough is free, but not within one domain of level {}", levels.join(", "));
        blockers.push(blocker(Reason::Topology, detail).help("prefer the level instead of requiring it"));
    }
    if only(&|group| group.models.clear()) {
        let models: Vec<&str> = group.models.iter().map(|model| model.as_str()).collect();
        let detail = format!("other models are free, {} is not", models.join(" or "));
        blockers.push(blocker(Reason::GpuModel, detail).help("accept more models"));
    }
    let no_amount = |group: &mut GroupRequest| {
        group.cpu_milli_per_node = Some(0);
        group.memory_bytes_per_node = None;
    };
    if only(&no_amount) {
        let detail = "enough devices are free, but CPU or memory on their nodes is taken";
        blockers.push(blocker(Reason::CpuMemory, detail).help("ask for less CPU or memory"));
    }
    if only(&|group| group.labels.clear()) {
        blockers.push(blocker(Reason::Label, "what is free does not carry the labels asked for"));
    }
    if only(&|group| group.exclude.clear()) || (!excluded.is_empty() && fits(group, &[], Suppose::default())) {
        let detail = "what is free is on nodes that are excluded, or where an earlier attempt failed";
        blockers.push(blocker(Reason::Excluded, detail).on(excluded.iter().copied()));
    }
    if fits(group, excluded, Suppose { closed_are_open: true, ..Suppose::default() }) {
        let closed: Vec<NodeId> = state.nodes().values().filter(|node| !node.is_open()).map(|node| node.id).collect();
        let detail = format!("{} nodes take no new work (closed, drained or silent)", closed.len());
        blockers.push(blocker(Reason::ClosedNodes, detail).on(closed).help("muster node undrain NODE"));
    }
    if fits(group, excluded, Suppose { unknown_are_free: true, ..Suppose::default() }) {
        let unknown = state.nodes().values().filter(|node| {
            node.devices.iter().any(|device| matches!(device, crate::state::node::DeviceState::Unknown { .. }))
        });
        let detail = "devices of silent nodes are not proven free";
        blockers.push(blocker(Reason::UnknownDevices, detail).on(unknown.map(|node| node.id)));
    }
    blockers.push(too_few(state, group));
}

/// The count that is true whatever else is: how much of what it asks for is free.
fn too_few(state: &State, group: &GroupRequest) -> Blocker {
    let ledger = Ledger::of(state, Suppose::default());
    let open = ledger.nodes().filter(|view| view.open);
    let detail = match &group.count {
        Count::Nodes { nodes, per_node: 0 } => {
            format!("needs {nodes} nodes with CPU and memory to spare; {} are open", open.count())
        }
        Count::Nodes { nodes, per_node } if group.share.is_whole() => {
            let have = open.filter(|view| view.whole >= *per_node).count();
            format!("needs {nodes} nodes with {per_node} free devices; {have} have that many")
        }
        Count::Nodes { nodes, per_node } => {
            let milli = group.share.0;
            let enough = |free: &[u16]| free.iter().filter(|&&free| free >= milli).count() >= *per_node as usize;
            let have = open.filter(|view| enough(&view.free)).count();
            format!("needs {nodes} nodes with {per_node} devices that are {milli} thousandths free; {have} have them")
        }
        Count::Total(total) => {
            let have: u32 = open.map(|view| view.whole).sum();
            format!("needs {} devices; {have} are free", total.devices)
        }
    };
    let holders: BTreeSet<GangId> = state.nodes().values().flat_map(|node| node.gangs.iter().copied()).collect();
    blocker(Reason::Nodes, detail).by(holders)
}

/// It would fit on what is free, and yet this cycle does not start it.
fn in_the_way(state: &State, gang: GangId, decided: &Cycle, ahead: &[GangId]) -> Blocker {
    let placed: Vec<GangId> = placed(decided).collect();
    if !placed.is_empty() {
        return blocker(Reason::Priority, "others that go first are being started on what is free").by(placed);
    }
    let booking = |kind| state.reservations().values().find(move |known| known.kind == kind && known.gang != gang);
    let strict = matches!(state.policy().admission, Admission::HeadOfLine { .. });
    if let Some(booked) = booking(ReservationKind::Booked).or_else(|| booking(ReservationKind::Head)) {
        if state.policy().backfill.reserve_depth > 0 {
            let detail = format!("it could start, but would delay {}, booked for {}", booked.gang, booked.start);
            let until = Some(booked.start).filter(|start| *start < Time::NEVER);
            let help = "give a time limit, or a shorter one, so that it ends before";
            return Blocker { until, ..blocker(Reason::Backfill, detail).by([booked.gang]).help(help) };
        }
        return blocker(Reason::Priority, format!("{} is at the head of the queue", booked.gang)).by([booked.gang]);
    }
    if decided.truncated > 0 {
        let detail = "the policy's depth or budget ended before its turn".to_owned();
        return blocker(Reason::BeyondDepth, detail).help("raise `budget` in the policy");
    }
    let detail =
        if strict { "one that goes first cannot start yet, and nothing may pass it" } else { "others go first" };
    blocker(Reason::Priority, detail).by(ahead.iter().copied())
}
