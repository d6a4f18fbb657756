//! Advance reservations: nodes that a person has put aside for a window of time, for nobody, for an
//! account or for some jobs.

use super::account::Accounts;
use crate::command::Principal;
use muster_common::job::Scheduling;
use muster_common::time::DAY_MS;
use muster_common::{JobId, Name, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most windows at a time.
pub const WINDOWS_MAX: usize = 1000;
/// Most nodes of all windows together, one counted in each.
pub const WINDOW_NODES_MAX: usize = 200_000;
/// The longest window, and how far ahead one may begin.
pub const WINDOW_MS_MAX: u64 = 366 * DAY_MS;
pub const AHEAD_MS_MAX: u64 = 5 * 366 * DAY_MS;

/// Nodes put aside, whole, from `start` on and until just before `end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub name: Name,
    /// Counted from 1; none is given twice.
    pub number: u32,
    pub start: Time,
    pub end: Time,
    /// Sorted. By name: a machine that is replaced and joins again is still meant.
    pub nodes: Vec<Name>,
    pub holders: Holders,
    pub reason: String,
    pub by: Principal,
    pub made_at: Time,
    /// It was declared with the rest of the configuration, and ends when it is no longer.
    pub managed: bool,
}

/// Whose jobs may run in a window.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Holders {
    /// Maintenance.
    #[default]
    Nobody,
    /// Those that charge the account, or one below it.
    Account(Name),
    Jobs(BTreeSet<JobId>),
}

impl Holders {
    /// May a job that charges this account run there?
    pub fn admit(&self, accounts: &Accounts, job: JobId, account: &Name) -> bool {
        match self {
            Holders::Nobody => false,
            Holders::Account(whose) => whose == account || accounts.upward(account).any(|above| above.name == *whose),
            Holders::Jobs(jobs) => jobs.contains(&job),
        }
    }
}

impl Window {
    pub fn has(&self, node: &Name) -> bool {
        self.nodes.binary_search(node).is_ok()
    }

    /// Would a run from one moment until another be in it?
    pub fn meets(&self, from: Time, until: Time) -> bool {
        self.start < until && from < self.end
    }
}

/// The longest that a new attempt may hold its devices once it runs: until its limit, and then for its grace. Without
/// end where nothing ends it.
pub fn longest_ms(scheduling: &Scheduling) -> u64 {
    let limits = &scheduling.limits;
    let limited = limits.time_ms.map(|ms| ms.saturating_add(scheduling.checkpoint.grace_ms));
    limited.or(limits.exact_ms).unwrap_or(u64::MAX)
}

/// All windows, in the order in which they were made.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Windows {
    last: u32,
    by_number: BTreeMap<u32, Arc<Window>>,
}

impl Windows {
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Window>> {
        self.by_number.values()
    }

    pub fn get(&self, number: u32) -> Option<&Arc<Window>> {
        self.by_number.get(&number)
    }

    pub fn named(&self, name: &Name) -> Option<&Arc<Window>> {
        self.iter().find(|window| window.name == *name)
    }

    /// May anybody's jobs run in one of them?
    pub fn have_holders(&self) -> bool {
        self.iter().any(|window| window.holders != Holders::Nobody)
    }

    pub(crate) fn next_number(&self) -> Option<u32> {
        self.last.checked_add(1)
    }

    pub(crate) fn insert(&mut self, window: Window) {
        self.last = self.last.max(window.number);
        self.by_number.insert(window.number, Arc::new(window));
    }

    pub(crate) fn remove(&mut self, number: u32) -> Option<Arc<Window>> {
        self.by_number.remove(&number)
    }

    /// The first broken invariant.
    pub(super) fn check(&self) -> Result<(), String> {
        let all: Vec<&Arc<Window>> = self.iter().collect();
        for (at, window) in all.iter().enumerate() {
            let name = &window.name;
            if window.start >= window.end || window.nodes.is_empty() || window.number > self.last {
                return Err(format!("reservation {name} has no time, no nodes or a number ahead of its turn"));
            }
            if !window.nodes.is_sorted() || window.nodes.windows(2).any(|two| two[0] == two[1]) {
                return Err(format!("the nodes of reservation {name} are not in order"));
            }
            for other in &all[..at] {
                let together = other.meets(window.start, window.end);
                if other.name == *name || together && window.nodes.iter().any(|node| other.has(node)) {
                    return Err(format!("reservations {} and {name} are in each other's way", other.name));
                }
            }
        }
        Ok(())
    }
}
