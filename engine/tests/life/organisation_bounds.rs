//! Models and times in an organisation that would leave a limit without effect.

use crate::support;

use muster_common::Name;
use muster_engine::Response;
use muster_engine::command::*;
use muster_engine::organisation::{Account, Caps, Organisation, Queue, Quota};
use muster_engine::outcome::Refusal;
use std::sync::Arc;
use support::*;

const LONGEST_MS: u64 = 3660 * 24 * 3_600_000;

fn lab() -> Account {
    Account {
        name: Name::literal("lab"),
        parent: None,
        weight: 1,
        priority: 0,
        quota: Default::default(),
        limits: Caps::default(),
        user_limits: Caps::default(),
        users: Default::default(),
        cells: Vec::new(),
        budget: None,
        reclaim_within_ms: None,
    }
}

fn organise(cluster: &mut Cluster, account: Account, queues: Vec<Queue>) -> Response {
    let document = Organisation { accounts: vec![account], queues, ..Organisation::default() };
    let change = Box::new(ConfigChange::Organisation(Arc::new(document)));
    cluster.respond(Command::Configure { change, by: principal() })
}

#[track_caller]
fn refused(response: Response, text: &str) {
    assert_eq!(response, Response::Refused(Refusal::Invalid(text.into())));
}

#[test]
fn a_model_that_is_only_borrowed_is_looked_up_too() {
    let mut account = lab();
    account.quota.insert(Name::literal("H1OO"), Quota { nominal: 0, borrow_limit: Some(8), lend_limit: None });
    let text = "account[0].quota.H1OO: no node has a GPU of model `H1OO`; there is: H100; join the nodes first";
    refused(organise(&mut Cluster::new(1, 3), account.clone(), Vec::new()), text);
    assert_eq!(organise(&mut Cluster::new(0, 0), account, Vec::new()), Response::Done);
}

#[test]
fn no_time_limit_is_above_what_a_job_file_may_say() {
    let queue = |default_time_ms, max_time_ms| {
        vec![Queue { name: Name::literal("batch"), account: None, default_time_ms: Some(default_time_ms), max_time_ms }]
    };
    let mut cluster = Cluster::new(1, 3);
    let why = |ms| format!("a time limit of {ms} ms; a time limit is at most 3660 days, {LONGEST_MS}");
    let text = format!("queue[0].default_time_ms: {}", why(u64::MAX));
    refused(organise(&mut cluster, lab(), queue(u64::MAX, None)), &text);
    let text = format!("queue[0].max_time_ms: {}", why(LONGEST_MS + 1));
    refused(organise(&mut cluster, lab(), queue(1000, Some(LONGEST_MS + 1))), &text);
    let mut account = lab();
    account.limits.time_ms = Some(u64::MAX);
    let text = format!("account[0].limits.time_ms: {}", why(u64::MAX));
    refused(organise(&mut cluster, account, Vec::new()), &text);
    assert_eq!(organise(&mut cluster, lab(), queue(LONGEST_MS, Some(LONGEST_MS))), Response::Done);
}
