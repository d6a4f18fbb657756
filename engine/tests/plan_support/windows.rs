//! Windows of time that people put aside.

use super::{Cluster, configure, limited as may_run, name};
use muster_common::job::Scheduling;
use muster_common::{GangId, Time};
use muster_engine::command::{Command, ConfigChange, MakeWindow, Principal, Which};
use muster_engine::organisation::{Account, Organisation};
use muster_engine::outcome::{Outcome, Response};
use muster_engine::plan::explain::{Explanation, explain};
use muster_engine::policy::{Backfill, Order, Policy};
use muster_engine::state::window::Holders;
use muster_engine::{Memo, State};
use std::sync::Arc;

/// As [`may_run`], and gone at its limit: grace is not what these tests are about.
pub fn limited(wish: Scheduling, run_s: u64, limit_s: u64) -> Scheduling {
    let mut wish = may_run(wish, run_s, limit_s);
    wish.checkpoint.grace_ms = 0;
    wish
}

pub fn lasting(wish: Scheduling, run_s: u64) -> Scheduling {
    limited(wish, run_s, run_s)
}

pub fn by() -> Principal {
    Principal("op".into())
}

pub fn fifo(reserve_depth: u32) -> Policy {
    Policy { order: Order::Fifo, backfill: Backfill { reserve_depth, ..Backfill::default() }, ..Policy::default() }
}

pub fn charging(mut wish: Scheduling, account: &str) -> Scheduling {
    wish.account = name(account);
    wish
}

pub fn named(nodes: &[&str]) -> Which {
    Which::Nodes(nodes.iter().map(|node| name(node)).collect())
}

pub fn asked(called: &str, (from_s, until_s): (u64, u64), nodes: Which, holders: Holders) -> MakeWindow {
    MakeWindow {
        name: name(called),
        start: Time(from_s * 1000),
        end: Time(until_s * 1000),
        nodes,
        holders,
        reason: "new firmware".into(),
        by: by(),
        managed: false,
    }
}

pub fn make(cluster: &mut Cluster, window: MakeWindow) -> Outcome {
    cluster.commit(Command::MakeWindow(Box::new(window)))
}

pub fn maintain(cluster: &mut Cluster, called: &str, time: (u64, u64), nodes: Which) -> Outcome {
    make(cluster, asked(called, time, nodes, Holders::Nobody))
}

/// What `apply` says to it.
pub fn refused(cluster: &mut Cluster, window: MakeWindow) -> String {
    cluster.seen.lenient = true;
    let outcome = make(cluster, window);
    cluster.seen.lenient = false;
    match outcome.response {
        Response::Refused(refusal) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

pub fn why(state: &State, gang: GangId) -> Explanation {
    explain(state, &mut Memo::default(), gang, state.now()).unwrap()
}

pub fn organisation(accounts: &[(&str, Option<&str>)]) -> Command {
    let account = |(called, parent): &(&str, Option<&str>)| Account {
        name: name(called),
        parent: parent.map(name),
        weight: 1,
        priority: 0,
        quota: Default::default(),
        limits: Default::default(),
        user_limits: Default::default(),
        users: Default::default(),
        cells: Vec::new(),
        budget: None,
        reclaim_within_ms: None,
    };
    let document = Organisation { accounts: accounts.iter().map(account).collect(), ..Organisation::default() };
    configure(ConfigChange::Organisation(Arc::new(document)))
}

pub fn organise(cluster: &mut Cluster, accounts: &[(&str, Option<&str>)]) {
    cluster.commit(organisation(accounts));
}
