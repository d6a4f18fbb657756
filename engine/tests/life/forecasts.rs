//! A forecast ends, however long there is to wait.

use crate::support;

use muster_common::GangId;
use muster_common::job::Scheduling;
use muster_common::time::DAY_MS;
use muster_engine::command::ConfigChange;
use muster_engine::forecast::forecast;
use muster_engine::policy::{Admission, Order, Policy};
use muster_engine::{Command, Memo, cycle};
use std::time::{Duration, Instant};
use support::*;

/// Much longer than it takes, much shorter than a cycle for each of the minutes in between.
const PATIENCE: Duration = Duration::from_secs(20);

fn lasting(nodes: u32, devices: u32, days: u64) -> Scheduling {
    let mut wish = scheduling(nodes, devices);
    wish.limits.time_ms = Some(days * DAY_MS);
    wish
}

/// The order moves each minute, and a device is free all the while: a cycle each minute for ten years.
#[test]
fn a_forecast_does_not_look_each_minute_of_ten_years() {
    let mut c = Cluster::new(2, 4);
    let policy = Policy { order: Order::Fair, admission: Admission::HeadOfLine { sticky: false }, ..Policy::default() };
    c.apply(Command::Configure { change: Box::new(ConfigChange::Policy(policy)), by: principal() });
    let runs = GangId::new(c.submit(lasting(1, 4, 3650)), 0);
    c.start(runs);
    let waits = GangId::new(c.submit(lasting(2, 4, 1)), 0);
    let wakes = cycle(&c.state, &mut Memo::default(), c.state.now()).wake_at;
    let minute = c.state.now().plus_ms(60_000);
    assert!(wakes.is_some_and(|at| at <= minute), "the situation is as meant");
    let began = Instant::now();
    let foreseen = forecast(&c.state, c.state.now());
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    let start = foreseen.start(waits).map(|start| start.at.since_ms(c.state.now()) / DAY_MS);
    assert_eq!((start, foreseen.complete), (Some(3650), true));
}
