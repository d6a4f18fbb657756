//! How long things run, from one place, and how good that knowledge is.

use crate::policy::{Policy, RuntimeSource};
use crate::state::job::JobRecord;
use muster_common::job::Limits;

/// A run time, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunTime {
    pub ms: u64,
    pub quality: Quality,
}

/// How good a run time is, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quality {
    /// Known; only a simulator has it.
    Exact,
    /// What the user expects.
    Expected,
    /// Seen of the user's earlier jobs of that name.
    Learned,
    /// Never longer.
    Limit,
}

impl Quality {
    pub const fn word(self) -> &'static str {
        match self {
            Quality::Exact => "exact",
            Quality::Expected => "expected",
            Quality::Learned => "learned",
            Quality::Limit => "limit",
        }
    }
}

/// How long an attempt is expected to run, by the first source of the policy that knows.
pub fn run_time(policy: &Policy, job: &JobRecord, limits: &Limits) -> Option<RunTime> {
    policy.runtime_sources().iter().find_map(|source| {
        let (ms, quality) = match source {
            RuntimeSource::Exact => (limits.exact_ms?, Quality::Exact),
            RuntimeSource::Expected => (limits.expected_ms?, Quality::Expected),
            RuntimeSource::Limit => (limits.time_ms?, Quality::Limit),
            // Whatever was seen before, this one ends at its limit.
            RuntimeSource::Learned => (job.learned_ms?.min(limits.time_ms.unwrap_or(u64::MAX)), Quality::Learned),
        };
        Some(RunTime { ms, quality })
    })
}

/// As [`run_time`], only the time.
pub fn run_ms(policy: &Policy, job: &JobRecord, limits: &Limits) -> Option<u64> {
    run_time(policy, job, limits).map(|known| known.ms)
}
