//! Scheduling policy as data: replicated state, written as TOML, dispatched in `plan`.
//!
//! What belongs to a simulator's world (the order of events at one instant, how often a cycle
//! runs, what a preemption costs) is never policy.

mod elastic;
pub mod formula;
mod order;
mod score;
mod taking;

pub use elastic::{ElasticPool, POOLS_MAX};
pub use order::{Gittins, Las, Multifactor, Order, Stability};
pub use taking::{Consolidate, MOVED_MAX, PER_HOUR_MAX, Preempt, Reclaim, Taking};

use muster_common::Name;
use muster_common::time::DAY_MS;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use thiserror::Error;

pub use score::{CostBelief, DeviceChoice, Score, TypicalShape, WORKLOAD_MAX};

/// Longest time of a policy's key: a year.
const MS_MAX: u64 = 366 * DAY_MS;

/// How a cycle decides. Every field has a production default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    pub order: Order,
    pub admission: Admission,
    pub backfill: Backfill,
    pub domains: Domains,
    pub score: Score,
    pub device: DeviceChoice,
    pub models: ModelChoice,
    /// The typical workload of `score = "fgd"`; empty = what waits and runs.
    pub workload: Vec<TypicalShape>,
    /// What `score = "topology_cost"` goes by.
    pub cost: Box<CostBelief>,
    pub replan: Replan,
    pub taking: Taking,
    /// Where run times come from, the first source that knows wins.
    pub runtime: Vec<RuntimeSource>,
    pub budget: Budget,
    /// Priority classes by name; higher goes first under `order = "priority"`.
    pub classes: BTreeMap<Name, i32>,
    /// Nodes that may sleep, by pool. None = all stay awake.
    pub elastic: BTreeMap<Name, ElasticPool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Admission {
    /// A gang that cannot start is passed over.
    #[default]
    Skip,
    /// Nothing behind a gang that cannot start is started, except as backfill. `sticky`: once
    /// a gang is the blocked head it stays so until it starts, even if a better one arrives.
    HeadOfLine { sticky: bool },
}

/// Most bookings at a time.
pub const RESERVE_DEPTH_MAX: u32 = 128;

/// Filling around gangs that wait, without delaying them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backfill {
    /// How many blocked gangs hold a booking, at most [`RESERVE_DEPTH_MAX`]. 0 = no backfill; 1 = EASY,
    /// whose one booking is worked out anew by every cycle; with more, a booking stays where it is until
    /// a better one is found.
    pub reserve_depth: u32,
    pub filler_order: FillerOrder,
    pub edge: Edge,
    /// A filler may also run past the booking on devices the booked gang will not need.
    pub spare: bool,
    /// A filler may even have devices that a booking counts on, where every booked gang that it would run into
    /// finds others in its own domain, no later. Needs `spare`.
    pub rematch: bool,
}

impl Default for Backfill {
    fn default() -> Self {
        Self {
            reserve_depth: 1,
            filler_order: FillerOrder::Policy,
            edge: Edge::AtOrBefore,
            spare: true,
            rematch: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FillerOrder {
    Policy,
    Submit,
}

/// Whether a filler may end exactly when the booking starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edge {
    Before,
    AtOrBefore,
}

/// Which model a group gets that may have several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ModelChoice {
    /// The first that fits of those it names, in its order.
    #[default]
    AsPreferred,
    /// The cheapest that fits, at the organisation's prices; of equally cheap ones the first it names. A group that
    /// names none has the cheapest of all.
    Cheapest,
}

/// Which domain a gang without a topology wish is put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Domains {
    /// The lowest level at which one domain holds it, the fullest such domain first.
    #[default]
    LowestFit,
    /// One node if it fits on one; else whole nodes and one for the remainder, anywhere.
    NodeThenLevel,
    /// Any free devices.
    Anywhere,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Replan {
    /// What runs keeps running.
    #[default]
    Keep,
    /// The order is filled again from an empty cluster at every cycle; what falls out is stopped
    /// and queued again.
    Refill { min_run_ms: u64, max_victims_per_cycle: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeSource {
    /// A simulator's oracle.
    Exact,
    /// The user's `expected`.
    Expected,
    /// The time limit.
    Limit,
    /// The median of the user's earlier jobs of that name, as it was when the job was submitted.
    Learned,
}

/// Bounds of one cycle, in steps of work (a gang looked at, a node tried), never in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    pub steps: u64,
    /// Gangs looked at from the top of the order; those that ask for what one before them lacked are not.
    pub depth: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { steps: 50_000_000, depth: 100_000 }
    }
}

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    #[error("order.formula: {0}")]
    Formula(#[from] formula::FormulaError),
    #[error("{path} is {value}; it must be between {from} and {to}")]
    Range { path: String, value: u64, from: u64, to: u64 },
    #[error(
        "backfill.rematch is true and backfill.spare is false: whoever may not run past a booking has nothing to swap; set spare = true or rematch = false"
    )]
    Rematch,
    #[error(
        "workload: at most {WORKLOAD_MAX} shapes, each with a share from 1 to 1000 thousandths, at most 1024 devices and a weight"
    )]
    Workload,
    #[error("cost.{0}: bandwidths are at least 1, percentages from 1 (or 0) to 100")]
    Cost(&'static str),
    #[error("budget.{0} must be at least 1")]
    Budget(&'static str),
    /// Where in the order, and what is wrong there.
    #[error("order.{0}: {1}")]
    Order(String, String),
    #[error("order.priority.hours_per_class must be between 1 and 87600")]
    Hours,
    #[error("elastic: {0} pools; at most {POOLS_MAX} are allowed")]
    Pools(usize),
    #[error(
        "elastic: what is woken is kept for whom it was woken, and replan = \"refill\" keeps nothing for anybody; use replan = \"keep\", or no elastic pool"
    )]
    ElasticRefill,
    #[error(
        "taking.consolidate: who is moved has a new place kept for it, and replan = \"refill\" keeps nothing for anybody; use replan = \"keep\", or leave taking.consolidate out"
    )]
    ConsolidateRefill,
}

fn within(path: impl fmt::Display, value: u64, from: u64, to: u64) -> Result<(), PolicyError> {
    match (from..=to).contains(&value) {
        true => Ok(()),
        false => Err(PolicyError::Range { path: path.to_string(), value, from, to }),
    }
}

impl Policy {
    /// Does what is typically asked for decide which nodes are tried first?
    pub fn ranks_by_workload(&self) -> bool {
        self.score == Score::Fgd || self.device == DeviceChoice::FgdBest
    }

    pub fn validate(&self) -> Result<(), PolicyError> {
        self.order.validate()?;
        within("backfill.reserve_depth", self.backfill.reserve_depth.into(), 0, RESERVE_DEPTH_MAX.into())?;
        if self.backfill.rematch && !self.backfill.spare {
            return Err(PolicyError::Rematch);
        }
        self.taking.validate()?;
        if self.workload.len() > WORKLOAD_MAX || !self.workload.iter().all(TypicalShape::is_sound) {
            return Err(PolicyError::Workload);
        }
        if let Some(field) = self.cost.wrong() {
            return Err(PolicyError::Cost(field));
        }
        if self.elastic.len() > POOLS_MAX {
            return Err(PolicyError::Pools(self.elastic.len()));
        }
        if !self.elastic.is_empty() && self.replan != Replan::Keep {
            return Err(PolicyError::ElasticRefill);
        }
        if self.taking.consolidate.is_some() && self.replan != Replan::Keep {
            return Err(PolicyError::ConsolidateRefill);
        }
        self.elastic.iter().try_for_each(|(name, pool)| pool.validate(name))?;
        if self.budget.steps == 0 {
            return Err(PolicyError::Budget("steps"));
        }
        if self.budget.depth == 0 {
            return Err(PolicyError::Budget("depth"));
        }
        Ok(())
    }

    /// The order in which sources are asked; by default all of them. What was learned comes last then:
    /// it is no promise, and beats only knowing nothing.
    pub fn runtime_sources(&self) -> &[RuntimeSource] {
        use RuntimeSource::{Exact, Expected, Learned, Limit};
        const ALL: &[RuntimeSource] = &[Exact, Expected, Limit, Learned];
        if self.runtime.is_empty() { ALL } else { &self.runtime }
    }

    /// The weight of a class; `low`, `normal` and `high` exist without being configured.
    pub fn class_rank(&self, class: &Name) -> Option<i32> {
        self.classes.get(class).copied().or(match class.as_str() {
            "low" => Some(-1),
            "normal" => Some(0),
            "high" => Some(1),
            _ => None,
        })
    }

    /// The lowest and the highest weight of a class.
    pub fn class_range(&self) -> (i32, i32) {
        let usual = ["low", "normal", "high"].map(|class| self.class_rank(&Name::literal(class)));
        let ranks = || self.classes.values().copied().chain(usual.into_iter().flatten());
        (ranks().min().unwrap_or(0), ranks().max().unwrap_or(0))
    }
}
