//! Taking back: who may be stopped for whom, what that is believed to cost, and what a gang keeps
//! that lost a node.

use super::{MS_MAX, PolicyError, within};
use muster_common::time::{HOUR_MS, MINUTE_MS};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Taking {
    /// Gangs of lower classes are stopped for one that waits. Absent = never.
    pub preempt: Option<Preempt>,
    pub reclaim: Reclaim,
    /// Small gangs are moved to make room for a larger one. Absent = never.
    pub consolidate: Option<Consolidate>,
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
            consolidate: None,
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

/// Consolidation: small gangs are stopped for a larger one that waits, each only with a new place kept for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Consolidate {
    /// How long a gang waits for room first.
    pub wait_ms: u64,
    /// What has run for less is left alone.
    pub min_run_ms: u64,
    /// Nobody is moved for a gang that is foreseen to start within so long after those moved would be gone.
    pub gain_ms: u64,
    /// Most gangs moved for one.
    pub gangs_max: u32,
    /// Most that all those moved for one gang may lose, against its own devices x run time.
    pub loss_max_percent: u32,
    /// Who has been taken back or moved so often in its life is left alone.
    pub per_victim: u32,
    /// Most gangs moved in one hour, of the whole cluster.
    pub per_hour: u32,
}

impl Default for Consolidate {
    fn default() -> Self {
        Self {
            wait_ms: 10 * MINUTE_MS,
            min_run_ms: 10 * MINUTE_MS,
            gain_ms: 10 * MINUTE_MS,
            gangs_max: 4,
            loss_max_percent: 10,
            per_victim: 2,
            per_hour: 60,
        }
    }
}

/// Preemptions and moves of the last hour are kept in State, so their number is bounded.
pub const PER_HOUR_MAX: u32 = 10_000;
/// Most gangs that may be moved for one: they and the one stand in one step of a plan.
pub const MOVED_MAX: u32 = 64;

impl Consolidate {
    fn validate(&self) -> Result<(), PolicyError> {
        let within = |key: &str, value: u64, from: u64, to: u64| {
            within(format_args!("taking.consolidate.{key}"), value, from, to)
        };
        within("wait_ms", self.wait_ms, 0, MS_MAX)?;
        within("min_run_ms", self.min_run_ms, 0, MS_MAX)?;
        within("gain_ms", self.gain_ms, 0, MS_MAX)?;
        within("gangs_max", u64::from(self.gangs_max), 1, u64::from(MOVED_MAX))?;
        within("loss_max_percent", u64::from(self.loss_max_percent), 1, 1000)?;
        // Without an end two gangs could be moved for each other in turn for ever.
        within("per_victim", u64::from(self.per_victim), 1, 1000)?;
        within("per_hour", u64::from(self.per_hour), 1, u64::from(PER_HOUR_MAX))
    }
}

impl Taking {
    pub(super) fn validate(&self) -> Result<(), PolicyError> {
        self.consolidate.iter().try_for_each(Consolidate::validate)?;
        let Some(preempt) = &self.preempt else { return Ok(()) };
        let within =
            |key: &str, value: u64, from: u64, to: u64| within(format_args!("taking.preempt.{key}"), value, from, to);
        // A gap of 0 would let two gangs stop each other in turn for ever.
        within("class_gap", u64::from(preempt.class_gap), 1, u64::from(u32::MAX))?;
        within("settle_ms", preempt.settle_ms, 0, HOUR_MS)?;
        within("per_hour", u64::from(preempt.per_hour), 1, u64::from(PER_HOUR_MAX))
    }
}
