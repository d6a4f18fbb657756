//! tests/life (support::Cluster): a plan that is committed long after it was made is checked against windows as of now.

use crate::support;

use muster_common::{GangId, Name};
use muster_engine::command::{Command, MakeWindow, PlanStep, Which};
use muster_engine::outcome::{Rejection, Response};
use muster_engine::state::window::Holders;
use support::*;

#[test]
fn a_plan_that_comes_late_places_nobody_who_would_now_run_on_into_a_window() {
    let mut c = Cluster::new(1, 1);
    let now = c.state.now();
    let mut wish = scheduling(1, 1);
    wish.limits.time_ms = Some(3_600_000);
    wish.checkpoint.grace_ms = 0;
    let gang = GangId::new(c.submit(wish), 0);
    let window = MakeWindow {
        name: Name::literal("firmware"),
        start: now.plus_ms(4_000_000),
        end: now.plus_ms(9_000_000),
        nodes: Which::All,
        holders: Holders::Nobody,
        reason: "switches".into(),
        by: principal(),
        managed: false,
    };
    c.apply(Command::MakeWindow(Box::new(window)));
    let plan = c.plan(vec![PlanStep::Place(c.naive_placement(gang).unwrap())]);
    // The leader was stopped for half an hour between deciding and proposing; time was put right first.
    c.pass(1_800_000);
    match c.respond(plan) {
        Response::Plan { rejected, .. } => {
            assert!(
                matches!(&rejected[..], [(_, Rejection::Reserved { .. })]),
                "it may run until 1400 s into it: {rejected:?}"
            );
        }
        other => panic!("{other:?}"),
    }
}
