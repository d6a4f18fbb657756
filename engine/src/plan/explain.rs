//! Why a gang waits: the predicates of the cycle, recorded instead of short-circuited. Every
//! blocker at once, each with what would help.

use super::blockers::{Blockers, moved};
use crate::cycle::{Memo, cycle};
use crate::state::State;
use crate::state::gang::{GangState, PartState};
use crate::state::reservation::ReservationKind;
use muster_common::{GangId, NodeId, Time};

/// The closed list of reasons for which a gang does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Hold,
    /// Other jobs have to start or end first.
    Dependency,
    /// What it was to start after can never happen any more.
    DependencyNever,
    BeginTime,
    Backoff,
    ArrayLimit,
    UserLimit,
    AccountLimit,
    /// What it costs until its time limit is not left of its account's budget.
    Budget,
    Cancelled,
    Parked,
    /// The quota of its account does not allow it now.
    Quota,
    /// There is room, but not beside the cells that others own.
    OwedCells,
    /// Others have been stopped for it, or will be, and leave.
    Victims,
    /// It was moved to make room for another; its new place is kept for it.
    Moved,
    /// It lost a node, keeps the others, and waits for one in its place.
    Wounded,
    /// Nodes are being woken for it.
    Waking,
    NeverFits,
    /// It would run into an advance reservation that is not its own.
    Reserved,
    /// Too few free devices.
    Nodes,
    Topology,
    GpuModel,
    CpuMemory,
    Label,
    Excluded,
    /// Only with nodes that sleep.
    Asleep,
    ClosedNodes,
    UnknownDevices,
    /// Gangs that go first take what it would need.
    Priority,
    /// It would delay starts that are booked.
    Backfill,
    BeyondDepth,
    /// It is placed, and some node has not prepared yet.
    StartPending,
}

impl Reason {
    pub const fn word(self) -> &'static str {
        match self {
            Reason::Hold => "hold",
            Reason::Dependency => "dependency",
            Reason::DependencyNever => "dependency-never",
            Reason::BeginTime => "begin-time",
            Reason::Backoff => "backoff",
            Reason::ArrayLimit => "array-limit",
            Reason::UserLimit => "user-limit",
            Reason::AccountLimit => "account-limit",
            Reason::Budget => "budget",
            Reason::Cancelled => "cancelled",
            Reason::Parked => "parked",
            Reason::Quota => "quota",
            Reason::OwedCells => "owed-cells",
            Reason::Victims => "victims",
            Reason::Moved => "moved",
            Reason::Wounded => "wounded",
            Reason::Waking => "waking",
            Reason::NeverFits => "never-fits",
            Reason::Reserved => "reserved",
            Reason::Nodes => "nodes",
            Reason::Topology => "topology",
            Reason::GpuModel => "gpu-model",
            Reason::CpuMemory => "cpu-memory",
            Reason::Label => "label",
            Reason::Excluded => "excluded",
            Reason::Asleep => "asleep",
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

impl Explanation {
    /// Was that looked at, and is it not in the way? What is kept for a gang is all that is looked at of the cluster; of what
    /// the job itself says only the first is; and who goes first is asked only where nothing else is in the way.
    pub fn rules_out(&self, reason: Reason) -> bool {
        let blocks = |reasons: &[Reason]| self.blockers.iter().any(|known| reasons.contains(&known.reason));
        if blocks(&[reason, Reason::Victims, Reason::Moved, Reason::Wounded, Reason::Waking]) {
            return false;
        }
        let short = blocks(&[Reason::Nodes, Reason::NeverFits]);
        match (reason, asked_as(reason)) {
            (_, Some(place)) => {
                self.blockers.iter().filter_map(|known| asked_as(known.reason)).all(|before| before >= place)
            }
            (Reason::Priority | Reason::Backfill, _) => self.blockers.is_empty(),
            // Where devices are too few, nothing beside them was tried.
            (Reason::Nodes | Reason::CpuMemory, _) => !short,
            _ => true,
        }
    }
}

/// The place among what [`not_eligible`](super::round::not_eligible) asks, which tells the first.
const fn asked_as(reason: Reason) -> Option<u8> {
    match reason {
        Reason::Cancelled => Some(0),
        Reason::Hold => Some(1),
        Reason::Dependency | Reason::DependencyNever => Some(2),
        Reason::Parked => Some(3),
        Reason::BeginTime => Some(4),
        Reason::Backoff => Some(5),
        Reason::ArrayLimit => Some(6),
        _ => None,
    }
}

/// Most gangs or nodes that one blocker names.
pub(super) const NAMED_MAX: usize = 8;

/// `None` for a gang that is not in State: it never was, or has ended.
pub fn explain(state: &State, memo: &mut Memo, gang: GangId, now: Time) -> Option<Explanation> {
    let job = state.job(gang.job)?;
    let record = state.gang(gang);
    if record.is_none() && !job.unstarted.contains(gang.ordinal) {
        return None;
    }
    let booked = booked(state, gang);
    let mut explanation = Explanation { gang, position: None, blockers: Vec::new(), starts_now: false, booked };
    if let Some(record) = record.filter(|record| record.current().is_some()) {
        if let GangState::Starting(attempt) = &record.state {
            let late: Vec<NodeId> =
                attempt.parts.iter().filter(|part| part.state == PartState::Placed).map(|part| part.node).collect();
            let detail = format!("placed; {} of {} nodes have not prepared yet", late.len(), attempt.parts.len());
            explanation.blockers.push(blocker(Reason::StartPending, detail).on(late));
        }
        let place = state.reservations().get(&gang).filter(|known| known.kind == ReservationKind::Moved);
        explanation.blockers.extend(place.map(|place| moved(state, place)));
        return Some(explanation);
    }
    let decided = cycle(state, memo, now);
    let known = memo.known(state, now);
    let waiting = known.waiting;
    let item = waiting.item_of(state, gang);
    explanation.position = item.map(|item| {
        let before = waiting.by_order.count_before(&item.key) as u32;
        (before + 1, waiting.by_order.len() as u32)
    });
    let ahead = item.map_or_else(Vec::new, |item| {
        waiting.by_order.before(item.key).take(NAMED_MAX).map(|ahead| ahead.key.gang).collect()
    });
    let mut blockers = Blockers::new((state, now), &decided, known);
    explanation.starts_now = blockers.places(gang);
    if !explanation.starts_now {
        explanation.blockers = blockers.of(gang, explanation.position.map(|(at, _)| at), &ahead);
    }
    Some(explanation)
}

/// The start booked for a gang, when there is one.
pub(super) fn booked(state: &State, gang: GangId) -> Option<Time> {
    state.reservations().get(&gang).map(|known| known.start).filter(|start| *start < Time::NEVER)
}

pub(super) fn blocker(reason: Reason, detail: impl Into<String>) -> Blocker {
    Blocker { reason, detail: detail.into(), hint: None, gangs: Vec::new(), nodes: Vec::new(), until: None }
}

impl Blocker {
    pub(super) fn on(mut self, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        self.nodes = nodes.into_iter().take(NAMED_MAX).collect();
        self
    }

    pub(super) fn by(mut self, gangs: impl IntoIterator<Item = GangId>) -> Self {
        self.gangs = gangs.into_iter().take(NAMED_MAX).collect();
        self
    }

    pub(super) fn help(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
