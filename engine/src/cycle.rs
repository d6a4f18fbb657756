//! One decision round: from State to the commands that should follow.

use crate::command::Command;
use crate::state::State;
use muster_common::Time;

/// A cache of what `cycle` derives from State. May be thrown away at any moment without changing
/// a decision.
#[derive(Debug, Default)]
pub struct Memo {}

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
pub fn cycle(_state: &State, _memo: &mut Memo, _now: Time) -> Cycle {
    Cycle::default()
}
