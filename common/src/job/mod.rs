//! A job as the house passes it on: the scheduling part, which the engine reads and interns, and
//! the launch part, which only agents read. What a user writes is a job file (`job::file`).

pub mod file;
mod launch;
mod scheduling;

pub use launch::{GroupLaunch, Hash, Launch, LogLimits, Run};
pub use scheduling::{
    ArraySpec, CheckpointSpec, Count, DEFAULT_NAME, Dependencies, DependencyKind, DeviceTotal, GROUPS_MAX,
    GroupRequest, Limits, RANKS_PER_NODE_MAX, RanksPerNode, RetryBudget, Scheduling, StopSignal,
};

/// The largest job file, in bytes.
pub const SPEC_BYTES_MAX: usize = 256 * 1024;
