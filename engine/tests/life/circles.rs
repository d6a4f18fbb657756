//! No edit makes a circle of waiting, by way of `singleton` and of names neither.

use crate::support;

use muster_common::job::Scheduling;
use muster_common::{JobId, Name};
use muster_engine::command::Edit;
use muster_engine::outcome::Response;
use support::*;

fn singleton() -> Scheduling {
    let mut wish = scheduling(1, 1);
    wish.after.singleton = true;
    wish
}

/// What the edit is refused with; empty = it is taken.
fn refusal(c: &mut Cluster, job: JobId, change: impl FnOnce(&mut Edit)) -> String {
    let command = c.edit_of(job, &format!("r{}", c.state.applied_index()), change);
    match c.respond(command) {
        Response::Refused(refusal) => refusal.to_string(),
        Response::Edited { .. } => String::new(),
        other => panic!("answered {other:?}"),
    }
}

fn rename(c: &mut Cluster, job: JobId, name: &'static str) -> String {
    refusal(c, job, |edit| edit.name = Name::literal(name))
}

#[test]
fn a_job_does_not_come_to_wait_for_a_singleton_that_waits_for_it() {
    let mut c = Cluster::new(1, 4);
    let first = c.submit(scheduling(1, 1));
    let second = c.submit(singleton());
    let why = refusal(&mut c, first, |edit| edit.scheduling.after.ok = vec![second]);
    assert_eq!(why, format!("after.ok: job {second} itself waits for job {first}; neither would ever start"));
}

#[test]
fn a_singleton_waits_for_every_job_before_it_not_only_the_first() {
    let mut c = Cluster::new(1, 4);
    let [_, middle] = [0; 2].map(|_| c.submit(scheduling(1, 1)));
    let [_, last] = [0; 2].map(|_| c.submit(singleton()));
    let mut behind = scheduling(1, 1);
    behind.after.any = vec![last];
    let behind = c.submit(behind);
    let why = refusal(&mut c, middle, |edit| edit.scheduling.after.any = vec![behind]);
    assert_eq!(why, format!("after.any: job {behind} itself waits for job {middle}; neither would ever start"));
}

#[test]
fn what_those_before_a_singleton_wait_for_it_waits_for_too() {
    let mut c = Cluster::new(1, 4);
    let other = c.submit(scheduling(1, 1));
    assert_eq!(rename(&mut c, other, "other"), "");
    c.submit(scheduling(1, 1));
    let mut behind = scheduling(1, 1);
    behind.after.ok = vec![other];
    c.submit(behind);
    let [_, last] = [0; 2].map(|_| c.submit(singleton()));
    let why = refusal(&mut c, other, |edit| edit.scheduling.after.any = vec![last]);
    assert_eq!(why, format!("after.any: job {last} itself waits for job {other}; neither would ever start"));
}

#[test]
fn a_rename_closes_no_circle() {
    let mut c = Cluster::new(1, 4);
    let first = c.submit(scheduling(1, 1));
    assert_eq!(rename(&mut c, first, "other"), "");
    let second = c.submit(singleton());
    assert_eq!(refusal(&mut c, first, |edit| edit.scheduling.after.ok = vec![second]), "");
    let why = rename(&mut c, first, "job");
    let circle = format!("jobs {first} and {second} would wait for each other; neither would ever start");
    assert_eq!(why, format!("name: called `job`, {circle}"));
}

#[test]
fn a_renamed_singleton_closes_no_circle_with_those_before_it() {
    let mut c = Cluster::new(1, 4);
    let first = c.submit(scheduling(1, 1));
    assert_eq!(rename(&mut c, first, "other"), "");
    let second = c.submit(singleton());
    assert_eq!(refusal(&mut c, first, |edit| edit.scheduling.after.ok = vec![second]), "");
    assert!(rename(&mut c, second, "other").starts_with("name: "), "it would wait for the first");
    assert_eq!(rename(&mut c, second, "third"), "");
}

#[test]
fn what_others_wait_for_becomes_no_singleton_behind_them() {
    let mut c = Cluster::new(1, 4);
    let [first, second] = [0; 2].map(|_| c.submit(scheduling(1, 1)));
    assert_eq!(refusal(&mut c, first, |edit| edit.scheduling.after.ok = vec![second]), "");
    let why = refusal(&mut c, second, |edit| edit.scheduling.after.singleton = true);
    assert_eq!(why, format!("after.singleton: job {first} itself waits for job {second}; neither would ever start"));
}

#[test]
fn a_job_may_wait_for_singletons_that_no_longer_wait_for_it() {
    let mut c = Cluster::new(1, 4);
    let first = c.submit(scheduling(1, 1));
    let second = c.submit(singleton());
    let why = refusal(&mut c, first, |edit| {
        edit.name = Name::literal("other");
        edit.scheduling.after.ok = vec![second];
    });
    assert_eq!(why, "", "under its new name nobody waits for it");
}
