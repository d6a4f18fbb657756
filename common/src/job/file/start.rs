//! `begin`, `deadline` and `[after]` of a job file: when a job may start, whatever is free.

use super::JobFile;
use super::error::Errors;
use crate::JobId;
use crate::job::{Dependencies, Limits};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Jobs, by number, that this one waits for. All of it must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct After {
    /// These have started, or ended without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub started: Vec<u64>,
    /// These have ended, however.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<u64>,
    /// These have succeeded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ok: Vec<u64>,
    /// These have ended otherwise than with success.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_ok: Vec<u64>,
    /// Every job of this user and name that was submitted before has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub singleton: Option<bool>,
    /// Cancel the job once it is known that it can never start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub or_cancel: Option<bool>,
}

pub(super) fn compile_start(file: &JobFile, limits: &Limits, errors: &mut Errors) -> Dependencies {
    check_moments(file, limits, errors);
    compile_after(&file.after, errors)
}

fn compile_after(file: &After, errors: &mut Errors) -> Dependencies {
    let mut seen = BTreeSet::new();
    for (path, jobs) in [
        ("after.started", &file.started),
        ("after.any", &file.any),
        ("after.ok", &file.ok),
        ("after.not_ok", &file.not_ok),
    ] {
        for job in jobs {
            if *job == 0 {
                errors.value(path, "0 is no job's number", "jobs are counted from 1");
            } else if !seen.insert(*job) {
                errors.value(path, format!("job {job} is named twice in `[after]`"), "one condition a job is possible");
            }
        }
    }
    if seen.len() > Dependencies::COUNT_MAX {
        let most = Dependencies::COUNT_MAX;
        errors.value("after", format!("{} jobs are named", seen.len()), format!("at most {most} are possible"));
        errors.hint("wait for one job that waits for the others");
    }
    if file.or_cancel.is_some() && seen.is_empty() {
        errors.value("after.or_cancel", "no job is named that could end otherwise", "it says what to do when one does");
    }
    let jobs = |numbers: &[u64]| numbers.iter().copied().map(JobId).collect();
    Dependencies {
        started: jobs(&file.started),
        any: jobs(&file.any),
        ok: jobs(&file.ok),
        not_ok: jobs(&file.not_ok),
        singleton: file.singleton.unwrap_or(false),
        or_cancel: file.or_cancel.unwrap_or(false),
    }
}

pub(super) fn after_file(after: &Dependencies) -> After {
    let numbers = |jobs: &[JobId]| jobs.iter().map(|job| job.0).collect();
    After {
        started: numbers(&after.started),
        any: numbers(&after.any),
        ok: numbers(&after.ok),
        not_ok: numbers(&after.not_ok),
        singleton: after.singleton.then_some(true),
        or_cancel: after.or_cancel.then_some(true),
    }
}

/// A job that begins too late for its deadline could never run.
fn check_moments(file: &JobFile, limits: &Limits, errors: &mut Errors) {
    let (Some(begin), Some(deadline)) = (file.begin, file.deadline) else { return };
    if begin.ms().saturating_add(limits.time_ms.unwrap_or(0)) > deadline.ms() {
        let why = format!("it begins at {begin} at the earliest, and its time limit does not fit between the two");
        errors.value("deadline", format!("{deadline} is too early"), why);
    }
}
