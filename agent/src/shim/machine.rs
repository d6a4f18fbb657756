//! What a shim decides, as a pure function of its state, the time and one event. The real shim
//! and a simulated launcher both run it; neither decides anything of its own.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// SIGKILL is sent again this often until the process tree is proven empty.
pub const KILL_AGAIN_MS: u64 = 1_000;
/// With a signal of the job's own, SIGTERM follows so long before SIGKILL, at most.
pub const TERM_LEAD_MS: u64 = 5_000;

/// Why a rank ended that was killed at the end of its lease.
pub const LEASE_RAN_OUT: &str = "killed: the node's lease ran out";

const SIGTERM: i32 = 15;

/// How far an allocation's processes are. Moments are boot time in ms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Checking that the ranks can be started.
    Preparing,
    /// All is ready; no rank runs before `Go`.
    Barrier,
    /// The ranks were let go.
    Running,
    /// Told to end; SIGTERM (when the job has a signal of its own, later) and SIGKILL follow.
    Stopping { term_at_ms: Option<u64>, kill_at_ms: u64 },
    /// SIGKILL was sent to the whole tree; it is not proven empty yet.
    Killing { since_ms: u64, again_at_ms: u64 },
    /// No process is left.
    Dead,
}

/// How a rank ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankExit {
    pub rank: u32,
    /// Exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// The signal that ended it; 0 = none.
    pub signal: u32,
    /// What is known of the cause, for people; empty for an ordinary exit.
    pub why: String,
    /// From its start to its end.
    pub wall_ms: u64,
}

/// Why an allocation could not be prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// True when the node is to blame, false when the job is.
    pub infra: bool,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The checks before the barrier are done.
    Checked(Result<(), Failure>),
    /// The gang has started: let the ranks go.
    Go,
    /// `signal` is the job's own; without one it is SIGTERM at once.
    Stop {
        signal: Option<i32>,
        grace_ms: u64,
    },
    /// The leader acknowledged a renewal.
    LeaseExtended {
        deadline_ms: u64,
    },
    /// Time has passed.
    Tick,
    RankExited(RankExit),
    /// Not one process of the tree is left.
    TreeEmpty,
    /// The agent's connection closed. The lease alone decides how long ranks live without it.
    AgentGone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Spawn,
    /// To the process group of every rank that still runs.
    Signal(i32),
    /// The ranks are gone: wait for what they left behind, without killing it yet.
    Drain,
    KillTree,
    /// In its file before anyone is told.
    WriteExit(RankExit),
    /// The evidence that nothing is left. In its file before anyone is told; the shim ends after it.
    WriteReleased {
        lease_expired: bool,
    },
}

/// The state of one shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub phase: Phase,
    /// End of the lease: past it, everything is killed.
    pub deadline_ms: u64,
    /// Every rank of this node; `None` while it has not ended.
    pub ranks: BTreeMap<u32, Option<RankExit>>,
    pub failure: Option<Failure>,
    pub lease_expired: bool,
    /// Whether ranks were ever let go.
    pub spawned: bool,
}

impl Machine {
    /// A shim that begins to prepare `ranks` under a lease that ends at `deadline_ms`.
    pub fn new(ranks: impl IntoIterator<Item = u32>, deadline_ms: u64) -> Self {
        Self {
            phase: Phase::Preparing,
            deadline_ms,
            ranks: ranks.into_iter().map(|rank| (rank, None)).collect(),
            failure: None,
            lease_expired: false,
            spawned: false,
        }
    }

    /// When the next [`Event::Tick`] is due; `None` when only events matter.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Dead => None,
            Phase::Killing { again_at_ms, .. } => Some(again_at_ms),
            Phase::Stopping { term_at_ms, kill_at_ms } => {
                Some(self.deadline_ms.min(kill_at_ms).min(term_at_ms.unwrap_or(u64::MAX)))
            }
            Phase::Preparing | Phase::Barrier | Phase::Running => Some(self.deadline_ms),
        }
    }

    fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. } | Phase::Killing { .. } | Phase::Dead)
    }

    fn all_ended(&self) -> bool {
        self.spawned && self.ranks.values().all(Option::is_some)
    }

    fn kill(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        let since_ms = match self.phase {
            Phase::Killing { since_ms, .. } => since_ms,
            _ => now_ms,
        };
        self.phase = Phase::Killing { since_ms, again_at_ms: now_ms.saturating_add(KILL_AGAIN_MS) };
        actions.push(Action::KillTree);
    }
}

/// Takes one event. What it returns must be done in order.
///
/// The lease is looked at before the event, so that an extension or a `Go` that arrives too late
/// revives nothing.
pub fn step(machine: &mut Machine, now_ms: u64, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    let killing = matches!(machine.phase, Phase::Killing { .. } | Phase::Dead);
    if !killing && now_ms >= machine.deadline_ms {
        machine.lease_expired = true;
        machine.kill(now_ms, &mut actions);
    }
    match event {
        Event::Checked(result) => handle_checked(machine, now_ms, result, &mut actions),
        Event::Go if machine.phase == Phase::Barrier => {
            machine.phase = Phase::Running;
            machine.spawned = true;
            actions.push(Action::Spawn);
        }
        Event::Stop { signal, grace_ms } => handle_stop(machine, now_ms, signal, grace_ms, &mut actions),
        Event::LeaseExtended { deadline_ms } if !machine.lease_expired => {
            machine.deadline_ms = machine.deadline_ms.max(deadline_ms);
        }
        Event::Tick => handle_tick(machine, now_ms, &mut actions),
        Event::RankExited(exit) => handle_rank_exited(machine, now_ms, exit, &mut actions),
        Event::TreeEmpty => handle_tree_empty(machine, &mut actions),
        Event::Go | Event::LeaseExtended { .. } | Event::AgentGone => {}
    }
    actions
}

fn handle_checked(machine: &mut Machine, now_ms: u64, result: Result<(), Failure>, actions: &mut Vec<Action>) {
    if machine.phase != Phase::Preparing {
        return;
    }
    match result {
        Ok(()) => machine.phase = Phase::Barrier,
        Err(failure) => {
            machine.failure = Some(failure);
            machine.kill(now_ms, actions);
        }
    }
}

fn handle_stop(machine: &mut Machine, now_ms: u64, signal: Option<i32>, grace_ms: u64, actions: &mut Vec<Action>) {
    match machine.phase {
        // Nothing runs yet that could want a grace.
        Phase::Preparing | Phase::Barrier => machine.kill(now_ms, actions),
        Phase::Running if grace_ms == 0 => machine.kill(now_ms, actions),
        Phase::Running => {
            let kill_at_ms = now_ms.saturating_add(grace_ms);
            let own = signal.filter(|&signal| signal != SIGTERM);
            let term_at_ms = own.map(|_| kill_at_ms - (grace_ms / 4).min(TERM_LEAD_MS));
            machine.phase = Phase::Stopping { term_at_ms, kill_at_ms };
            actions.push(Action::Signal(own.unwrap_or(SIGTERM)));
        }
        // A second stop may shorten the grace, never lengthen it.
        Phase::Stopping { term_at_ms, kill_at_ms } => {
            let kill_at_ms = kill_at_ms.min(now_ms.saturating_add(grace_ms));
            machine.phase = Phase::Stopping { term_at_ms, kill_at_ms };
            handle_tick(machine, now_ms, actions);
        }
        Phase::Killing { .. } | Phase::Dead => {}
    }
}

fn handle_tick(machine: &mut Machine, now_ms: u64, actions: &mut Vec<Action>) {
    match machine.phase {
        Phase::Stopping { kill_at_ms, .. } if now_ms >= kill_at_ms => machine.kill(now_ms, actions),
        Phase::Stopping { term_at_ms: Some(term_at_ms), kill_at_ms } if now_ms >= term_at_ms => {
            machine.phase = Phase::Stopping { term_at_ms: None, kill_at_ms };
            actions.push(Action::Signal(SIGTERM));
        }
        Phase::Killing { again_at_ms, .. } if now_ms >= again_at_ms => machine.kill(now_ms, actions),
        _ => {}
    }
}

fn handle_rank_exited(machine: &mut Machine, now_ms: u64, mut exit: RankExit, actions: &mut Vec<Action>) {
    if machine.lease_expired && exit.why.is_empty() {
        exit.why = LEASE_RAN_OUT.to_owned();
    }
    let Some(slot) = machine.ranks.get_mut(&exit.rank) else { return };
    if slot.is_some() {
        return;
    }
    *slot = Some(exit.clone());
    actions.push(Action::WriteExit(exit));
    if !machine.all_ended() {
        return;
    }
    if machine.phase == Phase::Running {
        // Nobody asked for time to end: what the ranks left behind goes at once.
        machine.kill(now_ms, actions);
    } else if matches!(machine.phase, Phase::Stopping { .. }) {
        // A shell may be gone while its child still writes a checkpoint: the grace is for both.
        actions.push(Action::Drain);
    }
}

fn handle_tree_empty(machine: &mut Machine, actions: &mut Vec<Action>) {
    // Before the ranks are let go an empty tree means nothing; once they are, each must have been
    // seen to end, so that no exit is lost.
    if machine.is_ending() && machine.phase != Phase::Dead && (!machine.spawned || machine.all_ended()) {
        machine.phase = Phase::Dead;
        actions.push(Action::WriteReleased { lease_expired: machine.lease_expired });
    }
}
