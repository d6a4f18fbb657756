//! What makes a document of accounts and queues one that can be put in force.

use super::{Account, Caps, Organisation, Queue, Quota};
use crate::state::ACCOUNTS_MAX;
use muster_common::Name;
use muster_common::text::nearest;
use muster_common::time::DAY_MS;
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Most queues, and most levels of accounts below each other.
const QUEUES_MAX: usize = 1000;
const DEPTH_MAX: usize = 16;
const WEIGHT_MAX: i64 = 1_000_000;
/// Longest name of a user.
const USER_CHARS_MAX: usize = 256;
/// Longest time limit, as in a job file.
const LIMIT_DAYS_MAX: u64 = 3660;

/// Why a document is refused: where in it, what is wrong there, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path}: {what}; {remedy}")]
pub struct OrganisationError {
    /// As in `account[3].parent`, counted from 0.
    pub path: String,
    pub what: String,
    pub remedy: String,
}

/// Every rule a document is checked for, for the documentation and a test that breaks each.
pub const RULES: [&str; 23] = [
    "an account's name is used once",
    "a parent is an account of the document",
    "no account is above itself",
    "accounts are at most 16 levels deep",
    "a weight is between 0 and 1000000",
    "a lend limit is not above the nominal quota",
    "nominal quota is not above what the cluster has",
    "a limit is above 0",
    "a queue's name is used once",
    "a queue has a default time limit",
    "a queue's account is an account of the document",
    "a queue's default time limit is not above its longest, and no time limit above 3660 days",
    "an account with cells has a reclaim_within_ms",
    "cells are the shape of a part of the nominal quota",
    "cells of one model are of nodes of one size",
    "sizes of cells at one level divide each other",
    "a cell of the level node is one node",
    "there is one price for a model",
    "a price is not above 1000000",
    "a budget is above 0",
    "at most 16 labels are for preemptible work",
    "a label's value is at most 256 printable bytes",
    "with a budget every GPU has a price",
];

pub(super) type Checked<T = ()> = Result<T, OrganisationError>;

pub(super) fn refuse<T>(path: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Checked<T> {
    Err(OrganisationError { path: path.into(), what: what.into(), remedy: remedy.into() })
}

impl Organisation {
    /// Is this a document that can be put in force? `capacity`: devices by model, of every known
    /// node; empty while no node has joined, and then quotas are taken on trust.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self, capacity: &BTreeMap<Name, u64>) -> Checked {
        self.check_sizes()?;
        let names = self.check_names()?;
        self.check_parents(&names)?;
        for (at, account) in self.accounts.iter().enumerate() {
            check_account(&format!("account[{at}]"), account)?;
        }
        self.check_cells()?;
        self.check_labels()?;
        self.check_money()?;
        self.check_capacity(capacity)?;
        let mut queues = BTreeSet::new();
        for (at, queue) in self.queues.iter().enumerate() {
            let path = format!("queue[{at}]");
            if !queues.insert(&queue.name) {
                return refuse(format!("{path}.name"), format!("there are two queues `{}`", queue.name), "rename one");
            }
            self.check_queue(&path, queue, &names)?;
        }
        Ok(())
    }

    fn check_sizes(&self) -> Checked {
        if self.accounts.len() as u64 > ACCOUNTS_MAX {
            let what = format!("there are {} accounts", self.accounts.len());
            return refuse("account", what, format!("at most {ACCOUNTS_MAX} are taken"));
        }
        if self.queues.len() > QUEUES_MAX {
            let what = format!("there are {} queues", self.queues.len());
            return refuse("queue", what, format!("at most {QUEUES_MAX} are taken"));
        }
        Ok(())
    }

    fn check_names(&self) -> Checked<BTreeMap<&Name, usize>> {
        let mut names = BTreeMap::new();
        for (at, account) in self.accounts.iter().enumerate() {
            if let Some(first) = names.insert(&account.name, at) {
                let what = format!("account[{first}] is called `{}` too", account.name);
                return refuse(format!("account[{at}].name"), what, "rename one of the two");
            }
        }
        Ok(names)
    }

    /// Parents that exist, and a way to the top from everywhere.
    fn check_parents(&self, names: &BTreeMap<&Name, usize>) -> Checked {
        for (at, account) in self.accounts.iter().enumerate() {
            let path = format!("account[{at}].parent");
            let mut way = vec![&account.name];
            let mut above = account.parent.as_ref();
            while let Some(parent) = above {
                if way.contains(&parent) {
                    let way: Vec<&str> = way.iter().map(|name| name.as_str()).collect();
                    let what = format!("`{}` is above itself: {} -> {parent}", account.name, way.join(" -> "));
                    return refuse(path, what, "give one of them another parent, or none");
                }
                let Some(next) = names.get(parent) else {
                    let what = format!("there is no account `{parent}`");
                    let meant = nearest(parent.as_str(), names.keys().map(|name| name.as_str()));
                    let remedy = meant
                        .map_or("add it, or leave `parent` out for an account at the top".into(), |meant| {
                            format!("did you mean `{meant}`? An account at the top has no `parent`")
                        });
                    return refuse(path, what, remedy);
                };
                way.push(parent);
                if way.len() > DEPTH_MAX {
                    let what = format!("`{}` is more than {DEPTH_MAX} levels deep", account.name);
                    return refuse(path, what, "make the tree flatter");
                }
                above = self.accounts[*next].parent.as_ref();
            }
        }
        Ok(())
    }

    /// What the top accounts are owed together is there.
    fn check_capacity(&self, capacity: &BTreeMap<Name, u64>) -> Checked {
        let mut owed: BTreeMap<&Name, u64> = BTreeMap::new();
        for (at, account) in self.accounts.iter().enumerate() {
            for (model, quota) in &account.quota {
                let path = || format!("account[{at}].quota.{model}");
                let sum = owed.entry(model).or_default();
                *sum += u64::from(quota.nominal);
                if capacity.is_empty() {
                    continue;
                }
                let Some(&there) = capacity.get(model) else {
                    let known: Vec<&str> = capacity.keys().map(|name| name.as_str()).collect();
                    let what = format!("no node has a GPU of model `{model}`");
                    let remedy = match nearest(model.as_str(), known.iter().copied()) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => format!("there is: {}; join the nodes first", known.join(", ")),
                    };
                    return refuse(path(), what, remedy);
                };
                if *sum > there {
                    let what = format!("with this, {sum} {model} are owed and the cluster has {there}");
                    return refuse(path(), what, "lower a `nominal`, or join the nodes first");
                }
            }
        }
        Ok(())
    }

    fn check_queue(&self, path: &str, queue: &Queue, names: &BTreeMap<&Name, usize>) -> Checked {
        let Some(default_ms) = queue.default_time_ms.filter(|ms| *ms > 0) else {
            let what = format!(
                "queue `{}` has no default time limit, so nothing could be backfilled around its jobs",
                queue.name
            );
            return refuse(format!("{path}.default_time_ms"), what, "give one; jobs may still ask for more or less");
        };
        let times = [("default_time_ms", queue.default_time_ms), ("max_time_ms", queue.max_time_ms)];
        times.iter().try_for_each(|(key, ms)| check_time(&format!("{path}.{key}"), *ms))?;
        if let Some(max_ms) = queue.max_time_ms.filter(|max| default_ms > *max) {
            let what = format!("{default_ms} is above the queue's max_time_ms, {max_ms}");
            return refuse(format!("{path}.default_time_ms"), what, "lower the one or raise the other");
        }
        match &queue.account {
            Some(account) if !self.accounts.is_empty() && !names.contains_key(account) => {
                let meant = nearest(account.as_str(), names.keys().map(|name| name.as_str()));
                let remedy = meant.map_or("add it".into(), |meant| format!("did you mean `{meant}`?"));
                refuse(format!("{path}.account"), format!("there is no account `{account}`"), remedy)
            }
            _ => Ok(()),
        }
    }
}

fn check_account(path: &str, account: &Account) -> Checked {
    check_weight(&format!("{path}.weight"), account.weight)?;
    for (model, Quota { nominal, lend_limit, .. }) in &account.quota {
        if let Some(lend) = lend_limit.filter(|lend| lend > nominal) {
            let what = format!("{lend} cannot be lent of {nominal}");
            return refuse(format!("{path}.quota.{model}.lend_limit"), what, "leave it out to lend all");
        }
    }
    check_caps(&format!("{path}.limits"), &account.limits)?;
    check_caps(&format!("{path}.user_limits"), &account.user_limits)?;
    for (name, user) in &account.users {
        let path = format!("{path}.users.{name}");
        if name.is_empty() || name.chars().count() > USER_CHARS_MAX {
            return refuse(path, "this is no user's name", format!("it has 1 to {USER_CHARS_MAX} characters"));
        }
        check_weight(&format!("{path}.weight"), user.weight)?;
        check_caps(&format!("{path}.limits"), &user.limits.unwrap_or_default())?;
    }
    Ok(())
}

fn check_weight(path: &str, weight: i64) -> Checked {
    if (0..=WEIGHT_MAX).contains(&weight) {
        return Ok(());
    }
    refuse(path, format!("a weight of {weight}"), format!("it is between 0 and {WEIGHT_MAX}"))
}

/// A limit of nothing would keep every job waiting for ever.
fn check_caps(path: &str, caps: &Caps) -> Checked {
    let counts = [("gpus", caps.gpus), ("running", caps.running), ("jobs", caps.jobs), ("array", caps.array)];
    let zero = counts.iter().find(|(_, most)| *most == Some(0)).map(|(name, _)| *name);
    match zero.or(caps.time_ms.filter(|ms| *ms == 0).map(|_| "time_ms")) {
        Some(name) => refuse(format!("{path}.{name}"), "a limit of 0", "leave it out for no limit"),
        None => check_time(&format!("{path}.time_ms"), caps.time_ms),
    }
}

/// A job that names no limit gets it, and one above what a job file may say would be no limit.
fn check_time(path: &str, ms: Option<u64>) -> Checked {
    let most_ms = LIMIT_DAYS_MAX * DAY_MS;
    match ms.filter(|ms| *ms > most_ms) {
        Some(ms) => {
            let remedy = format!("a time limit is at most {LIMIT_DAYS_MAX} days, {most_ms}");
            refuse(path, format!("a time limit of {ms} ms"), remedy)
        }
        None => Ok(()),
    }
}
