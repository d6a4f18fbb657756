//! Taking back: who may be stopped for whom, what that is believed to cost, and what a gang keeps
//! that lost a node.

use super::PolicyError;
use muster_common::time::{HOUR_MS, MINUTE_MS};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Taking {
    /// Gangs of lower classes are stopped for one that waits. Absent = never.
    pub preempt: Option<Preempt>,
    pub reclaim: Reclaim,
    /// Under `replan = "refill"` what runs is also stopped to start again on a model that it prefers, once that is free.
    pub upgrade: bool,
    /// What a stop costs beside the work since the last checkpoint, in ms on each device.
    pub restart_ms: u64,
    /// How much longer than their grace victims may take to go before the hold for their sake ends.
    pub release_ms: u64,
    /// How long a gang that lost a node keeps its others, from the end of the attempt. 0 = not at all.
    pub wounded_ms: u64,
}

impl Default for Taking {
    fn default() -> Self {
        Self {
            preempt: None,
            reclaim: Reclaim::default(),
            upgrade: false,
            restart_ms: 5 * MINUTE_MS,
            release_ms: MINUTE_MS,
            wounded_ms: 5 * MINUTE_MS,
        }
    }
}

/// Taking back quota that was lent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reclaim {
    /// A gang within its account's quota has gangs stopped of accounts that hold more than theirs.
    pub on: bool,
    /// What has run for less is left alone.
    pub min_run_ms: u64,
}

impl Default for Reclaim {
    fn default() -> Self {
        Self { on: true, min_run_ms: 0 }
    }
}

/// Preemption by priority class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preempt {
    /// A victim's class is lower by at least this much.
    pub class_gap: u32,
    /// How long a gang waits for free room first.
    pub wait_ms: u64,
    /// What has run for less is left alone.
    pub min_run_ms: u64,
    /// For so long after a preemption nothing that asks for the same is stopped for: neither the
    /// victim nor the same job submitted again makes further victims.
    pub settle_ms: u64,
    /// How often one gang may be stopped in its life. 0 = any number of times.
    pub per_victim: u32,
    /// Most victims in one hour, of the whole cluster.
    pub per_hour: u32,
}

impl Default for Preempt {
    fn default() -> Self {
        Self { class_gap: 1, wait_ms: 0, min_run_ms: 0, settle_ms: 10 * MINUTE_MS, per_victim: 3, per_hour: 1000 }
    }
}

/// Preemptions of the last hour are kept in State, so their number is bounded.
pub const PER_HOUR_MAX: u32 = 10_000;

impl Taking {
    pub(super) fn validate(&self) -> Result<(), PolicyError> {
        let Some(preempt) = &self.preempt else { return Ok(()) };
        let within = |name, value: u64, from: u64, to: u64| match (from..=to).contains(&value) {
            true => Ok(()),
            false => Err(PolicyError::Preempt { name, value, from, to }),
        };
        // A gap of 0 would let two gangs stop each other in turn for ever.
        within("class_gap", u64::from(preempt.class_gap), 1, u64::from(u32::MAX))?;
        within("settle_ms", preempt.settle_ms, 0, HOUR_MS)?;
        within("per_hour", u64::from(preempt.per_hour), 1, u64::from(PER_HOUR_MAX))
    }
}
