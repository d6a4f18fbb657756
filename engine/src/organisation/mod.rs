//! Who may use the cluster, for what share of it and within which limits, and where jobs wait: one
//! document, written as TOML, checked as a whole and replaced as a whole.
//!
//! ```toml
//! [[account]]
//! name = "research"
//! weight = 3
//! quota.H100 = { nominal = 64, borrow_limit = 32, lend_limit = 16 }
//! limits = { gpus = 128 }
//!
//! [[account]]
//! name = "vision"
//! quota.H100 = { nominal = 64 }
//! reclaim_within_ms = 120000
//! cells = [{ model = "H100", level = "leaf", nodes = 4, gpus = 8, number = 2 }]
//!
//! [[account]]
//! name = "nlp"
//! parent = "research"
//! user_limits = { running = 20 }
//! budget = { usd = 50000, per = "month" }
//!
//! [[queue]]
//! name = "batch"
//! account = "nlp"
//! default_time_ms = 14400000
//!
//! [[price]]
//! usd_per_gpu_hour = 2.5
//! ```

mod cells;
mod money;
mod validate;

pub use cells::CellQuota;
pub use money::{Budget, PRICE_MAX, PRICES_MAX, Price};
pub use validate::{OrganisationError, RULES};

use muster_common::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The whole document. Empty, it restricts nothing: every account and queue name is taken.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Organisation {
    /// With one of these, jobs may only name these.
    #[serde(rename = "account", default)]
    pub accounts: Vec<Account>,
    /// With one of these, jobs may only name these.
    #[serde(rename = "queue", default)]
    pub queues: Vec<Queue>,
    /// What GPUs cost. From feature level 8.
    #[serde(rename = "price", default)]
    pub prices: Vec<Price>,
    /// Nodes that carry one of these labels are for what may be stopped: other jobs that are submitted or edited keep
    /// off them. From feature level 8.
    #[serde(default)]
    pub preemptible_only: BTreeMap<Name, String>,
}

/// Who is charged. Accounts form a tree; what holds for one holds for all below it together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    pub name: Name,
    /// `None` = at the top.
    #[serde(default)]
    pub parent: Option<Name>,
    /// Share against its siblings; 0 = only what nobody else wants.
    #[serde(default = "one")]
    pub weight: i64,
    /// For `multifactor`'s account factor, against the highest there is.
    #[serde(default)]
    pub priority: u32,
    /// Guaranteed devices, by GPU model.
    #[serde(default)]
    pub quota: BTreeMap<Name, Quota>,
    /// Of the account and all below it together.
    #[serde(default)]
    pub limits: Caps,
    /// Of each user who charges this account, unless said otherwise in `users`.
    #[serde(default)]
    pub user_limits: Caps,
    /// Users with a weight or limits of their own, by the name in their certificate. Others may
    /// charge the account too.
    #[serde(default)]
    pub users: BTreeMap<String, User>,
    /// The shape of a part of `quota`: whole nodes, alone or several together. From feature level 6.
    #[serde(default)]
    pub cells: Vec<CellQuota>,
    /// What the account owns it has back within this time, faults excepted. What cannot be stopped so soon
    /// is not lent anything of it. `None` = whatever may be stopped is soon enough. From feature level 6.
    #[serde(default)]
    pub reclaim_within_ms: Option<u64>,
    /// Of the account and all below it together. From feature level 8.
    #[serde(default)]
    pub budget: Option<Budget>,
}

fn one() -> i64 {
    1
}

/// Devices of one model that an account is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    pub nominal: u32,
    /// Devices beyond `nominal`, lent by others. `None` = as many as they lend.
    #[serde(default)]
    pub borrow_limit: Option<u32>,
    /// Devices of `nominal` that others may use while they are idle. `None` = all.
    #[serde(default)]
    pub lend_limit: Option<u32>,
}

/// The most of something. `None` = no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Caps {
    /// Devices held at a time; a share of a device counts as that share.
    pub gpus: Option<u32>,
    /// Gangs that hold devices, CPU or memory at a time. An array's elements count each.
    pub running: Option<u32>,
    /// Live jobs, those that run included (Slurm's MaxSubmitJobs). An array counts once.
    pub jobs: Option<u32>,
    /// Elements of an array.
    pub array: Option<u32>,
    /// Time limit of a job. A job that names none gets this one.
    pub time_ms: Option<u64>,
}

/// One user of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Share against the account's other users and the accounts below it.
    #[serde(default = "one")]
    pub weight: i64,
    /// In place of the account's `user_limits`.
    #[serde(default)]
    pub limits: Option<Caps>,
}

/// Where jobs wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    pub name: Name,
    /// Charged for jobs that name no account.
    #[serde(default)]
    pub account: Option<Name>,
    /// Time limit of a job that names none. Required: around a job without an end nothing can be
    /// backfilled.
    #[serde(default)]
    pub default_time_ms: Option<u64>,
    /// Longest time limit of a job.
    #[serde(default)]
    pub max_time_ms: Option<u64>,
}
