//! What runs at an older revision is held to the deadline by what it runs with.

use crate::support;

use muster_common::job::{ArraySpec, Launch};
use muster_common::{GangId, Time};
use muster_engine::outcome::Response;
use std::sync::Arc;
use support::*;

#[test]
fn an_element_without_a_time_limit_is_stopped_at_its_deadline_though_the_rest_was_given_one() {
    let mut c = Cluster::new(1, 1);
    let now = c.state.now().0;
    let mut wish = scheduling(1, 1);
    wish.array = Some(ArraySpec { count: 2, at_once: None, stop_after_failures: None });
    wish.deadline_at_ms = Some(now + 100_000);
    let job = c.submit(wish);
    let runs = GangId::new(job, 0);
    c.start(runs);
    // Another command: what runs stays at its revision, without a limit.
    let edit = c.edit_of(job, "r1", |edit| {
        edit.launch = Arc::new(Launch { workdir: Some("/elsewhere".into()), ..(*edit.launch).clone() });
        edit.scheduling.limits.time_ms = Some(60_000);
    });
    let response = c.respond(edit);
    assert!(matches!(response, Response::Edited { .. }), "{response:?}");
    assert!(c.state.scheduling_of(runs).unwrap().limits.time_ms.is_none());
    c.pass(100_000);
    c.expire();
    c.pass(1_000_000);
    c.expire();
    assert_eq!(c.word(runs), "STOPPING", "its deadline was {:?}, it is {:?}", Time(now + 100_000), c.state.now());
}

#[test]
fn a_later_deadline_is_the_next_attempts_too() {
    let mut c = Cluster::new(1, 1);
    let now = c.state.now().0;
    let mut wish = scheduling(1, 1);
    wish.array = Some(ArraySpec { count: 2, at_once: None, stop_after_failures: None });
    wish.deadline_at_ms = Some(now + 100_000);
    wish.limits.time_ms = Some(60_000);
    wish.retry.app = 3;
    let job = c.submit(wish);
    let runs = GangId::new(job, 0);
    c.start(runs);
    let edit = c.edit_of(job, "r1", |edit| {
        edit.launch = Arc::new(Launch { workdir: Some("/elsewhere".into()), ..(*edit.launch).clone() });
        edit.scheduling.deadline_at_ms = Some(now + 10_000_000);
    });
    c.apply(edit);
    c.pass(45_000);
    c.expire();
    let node = c.parts(runs)[0];
    c.exit(runs, node, 0, muster_engine::command::Exit::Code(1));
    c.release_all(runs);
    assert_eq!(c.word(runs), "QUEUED", "the job has until {}", now + 10_000_000);
}
