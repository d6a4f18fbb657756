//! Limits of accounts and users: what is refused when it is submitted, what waits and why, and that a
//! cycle never plans what a limit then rejects.

use crate::plan_support;
use crate::property;

use muster_common::job::Scheduling;
use muster_common::{GangId, Time};
use muster_engine::command::{Command, ConfigChange, Placement, PlanStep};
use muster_engine::organisation::{Account, Caps, Organisation, User};
use muster_engine::outcome::{Refusal, Rejection, Response};
use muster_engine::plan::explain::{Reason, explain};
use muster_engine::policy::{Admission, Backfill, Domains, Order, Policy, Replan};
use muster_engine::{Memo, cycle};
use plan_support::*;
use property::cases;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn account(text: &str, parent: Option<&str>, limits: Caps, user_limits: Caps) -> Account {
    Account {
        name: name(text),
        parent: parent.map(name),
        weight: 1,
        priority: 0,
        quota: BTreeMap::new(),
        limits,
        user_limits,
        users: BTreeMap::new(),
        cells: Vec::new(),
        budget: None,
        reclaim_within_ms: None,
    }
}

fn organisation(accounts: Vec<Account>) -> Command {
    configure(ConfigChange::Organisation(Arc::new(Organisation { accounts, ..Organisation::default() })))
}

fn of(text: &str, devices: u32) -> Scheduling {
    let mut wish = exact(nodes(1, devices), 100);
    wish.account = name(text);
    wish.limits.time_ms = Some(200_000);
    wish
}

/// `research` with at most 6 GPUs, `nlp` below it with at most 2 gangs, whose users hold 3 GPUs each.
fn limited() -> Cluster {
    let gpus = Caps { gpus: Some(6), ..Caps::default() };
    let running = Caps { running: Some(2), ..Caps::default() };
    let user = Caps { gpus: Some(3), ..Caps::default() };
    let mut cluster = Cluster::new(Policy::default());
    cluster.commit(organisation(vec![
        account("research", None, gpus, Caps::default()),
        account("nlp", Some("research"), running, user),
        account("vision", Some("research"), Caps::default(), Caps::default()),
    ]));
    cluster.nodes(2, 8);
    cluster
}

#[track_caller]
fn reason(cluster: &Cluster, gang: GangId) -> (Reason, String) {
    let found = explain(&cluster.player.state, &mut Memo::default(), gang, cluster.now()).unwrap();
    let first = found.blockers.into_iter().next().expect("something is in the way");
    (first.reason, first.detail)
}

#[track_caller]
fn refused(cluster: &mut Cluster, wish: Scheduling, text: &str) {
    cluster.seen.lenient = true;
    match cluster.commit(submit(&format!("refused-{text}"), wish)).response {
        Response::Refused(Refusal::Invalid(why) | Refusal::OverLimit(why)) => assert_eq!(why, text),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_accounts_limit_counts_all_below_it_and_says_how_much_is_used() {
    let mut cluster = limited();
    let (first, second) = (cluster.submit(of("vision", 4)), cluster.submit(of("nlp", 3)));
    cluster.decide();
    assert_eq!((cluster.held(first).len(), cluster.held(second).len()), (1, 0));
    let text = "account `research` may hold 6 GPUs at a time; 4 are held and this takes 3";
    assert_eq!(reason(&cluster, second), (Reason::AccountLimit, text.into()));
    cluster.run();
    assert_eq!((cluster.start_s(first), cluster.start_s(second)), (Some(0), Some(100)));
}

#[test]
fn a_users_limit_counts_only_that_user() {
    let mut cluster = limited();
    let (first, second) = (cluster.submit(of("nlp", 2)), cluster.submit(of("nlp", 2)));
    cluster.decide();
    let text = "test in account `nlp` may hold 3 GPUs at a time; 2 are held and this takes 2";
    assert_eq!(reason(&cluster, second), (Reason::UserLimit, text.into()));
    assert!(!cluster.held(first).is_empty());
}

#[test]
fn gangs_that_run_are_counted_whatever_they_hold() {
    let mut cluster = limited();
    let gangs = [0, 1, 2].map(|_| cluster.submit(of("nlp", 1)));
    cluster.decide();
    let text = "account `nlp` may run 2 gangs at a time; 2 run";
    assert_eq!(reason(&cluster, gangs[2]), (Reason::AccountLimit, text.into()));
}

#[test]
fn what_could_never_run_is_refused_when_it_is_submitted() {
    let mut cluster = limited();
    let text = "gang: test in account `nlp` may hold 3 GPUs at a time; 0 are held and this takes 4";
    refused(&mut cluster, of("nlp", 4), text);
    let caps = Caps { jobs: Some(1), array: Some(3), time_ms: Some(60_000), ..Caps::default() };
    cluster.commit(organisation(vec![account("a", None, caps, Caps::default())]));
    let text = "limits.time: account `a` may have jobs of at most 60 s; this has a limit of 200 s";
    refused(&mut cluster, of("a", 1), text);
    let short = || {
        let mut wish = of("a", 1);
        wish.limits.time_ms = None;
        wish
    };
    let text = "array: account `a` may have arrays of at most 3 elements; this has 4";
    refused(&mut cluster, array(short(), 4, None), text);
    let taken = cluster.submit(short());
    let state = &cluster.player.state;
    assert_eq!(state.scheduling(state.job(taken.job).unwrap()).limits.time_ms, Some(60_000), "it gets the longest");
    refused(&mut cluster, short(), "account `a` may have 1 jobs; there are 1");
}

#[test]
fn a_limit_that_is_set_later_keeps_what_waits_waiting_and_says_so() {
    let mut cluster = limited();
    let gang = cluster.submit(of("vision", 6));
    let caps = Caps { gpus: Some(2), ..Caps::default() };
    cluster.commit(organisation(vec![account("vision", None, caps, Caps::default())]));
    cluster.decide();
    let text = "account `vision` may hold 2 GPUs at a time; 0 are held and this takes 6";
    assert_eq!(reason(&cluster, gang), (Reason::AccountLimit, text.into()));
    let caps = Caps { time_ms: Some(60_000), ..Caps::default() };
    cluster.commit(organisation(vec![account("vision", None, caps, Caps::default())]));
    let text = "account `vision` may have jobs of at most 60 s; this has a limit of 200 s";
    assert_eq!(reason(&cluster, gang), (Reason::AccountLimit, text.into()));
    cluster.commit(organisation(Vec::new()));
    cluster.decide();
    assert!(!cluster.held(gang).is_empty());
}

#[test]
fn a_users_own_limits_come_before_the_accounts_and_those_above() {
    let gpus = |gpus| Caps { gpus: Some(gpus), ..Caps::default() };
    let mut below = account("b", Some("a"), Caps::default(), Caps { running: Some(5), ..gpus(2) });
    below.users.insert("test".into(), User { weight: 1, limits: Some(gpus(4)) });
    let above = account("a", None, Caps::default(), Caps { running: Some(1), ..gpus(1) });
    let mut cluster = Cluster::new(Policy::default());
    cluster.commit(organisation(vec![above, below]));
    cluster.nodes(2, 8);
    let gangs = [1, 1, 2, 1].map(|devices| cluster.submit(of("b", devices)));
    cluster.decide();
    let held = gangs.map(|gang| !cluster.held(gang).is_empty());
    assert_eq!(held, [true, true, true, false], "4 GPUs by the user's entry, 5 gangs by the account's");
    let text = "test in account `b` may hold 4 GPUs at a time; 4 are held and this takes 1";
    assert_eq!(reason(&cluster, gangs[3]), (Reason::UserLimit, text.into()));
}

#[test]
fn a_plan_beyond_a_limit_is_rejected_when_it_is_committed() {
    let mut cluster = limited();
    let gangs = [2, 2].map(|devices| cluster.submit(of("nlp", devices)));
    let state = &cluster.player.state;
    let decided = cycle(state, &mut Memo::default(), cluster.now());
    let Command::CommitPlan(mut plan) = decided.commands.into_iter().next().unwrap() else { panic!() };
    let PlanStep::Place(first) = plan.steps[0].clone() else { panic!() };
    let mut parts = first.parts.clone();
    parts[0].devices.iter_mut().for_each(|(slot, _)| *slot += 4);
    plan.steps.push(PlanStep::Place(Placement { gang: gangs[1], parts, ..first }));
    cluster.seen.lenient = true;
    let entry = muster_engine::Entry {
        index: state.applied_index() + 1,
        term: 1,
        at: cluster.now(),
        command: Command::CommitPlan(plan),
    };
    let response = muster_engine::apply(&mut cluster.player.state.clone(), &entry).response;
    let Response::Plan { accepted: 1, rejected } = response else { panic!("{response:?}") };
    assert!(matches!(&rejected[..], [(gang, Rejection::Limit(_))] if *gang == gangs[1]), "{rejected:?}");
}

proptest! {
    #![proptest_config(cases(200))]
    /// `Exact` refuses a plan that the state it was made from rejects; `check` runs after each entry.
    #[test]
    fn no_plan_goes_beyond_a_limit(
        jobs in proptest::collection::vec((0u64..50, 0usize..3, 1u32..4, 1u64..30), 1..40),
        caps in proptest::collection::vec((proptest::option::of(1u32..9), proptest::option::of(1u32..4)), 6),
        refill in any::<bool>(),
        backfill in 0u32..2,
        fair in any::<bool>(),
    ) {
        let caps: Vec<Caps> = caps.into_iter().map(|(gpus, running)| Caps { gpus, running, ..Caps::default() }).collect();
        let mut policy = Policy {
            order: if fair { Order::Fair } else { Order::Sjf },
            backfill: Backfill { reserve_depth: backfill, ..Backfill::default() },
            ..Policy::default()
        };
        if refill {
            policy.replan = Replan::Refill { min_run_ms: 0, max_victims_per_cycle: 3 };
            policy.domains = if backfill == 0 { Domains::Anywhere } else { Domains::LowestFit };
        }
        policy.admission = if fair { Admission::Skip } else { Admission::HeadOfLine { sticky: refill } };
        let mut cluster = Cluster::new(policy);
        cluster.commit(organisation(vec![
            account("a", None, caps[0], caps[1]),
            account("b", Some("a"), caps[2], caps[3]),
            account("c", Some("a"), caps[4], caps[5]),
        ]));
        cluster.nodes(2, 4);
        cluster.seen.lenient = true;
        for (at_s, which, devices, run_s) in jobs {
            let mut wish = exact(if refill { total(devices) } else { nodes(1, devices) }, run_s);
            wish.account = name(["a", "b", "c"][which]);
            cluster.submit_at(at_s, wish);
        }
        cluster.run();
        prop_assert!(cluster.now() < Time(u64::MAX));
        let left: Vec<_> = cluster.player.state.jobs().keys().collect();
        prop_assert!(left.is_empty(), "{left:?} never ran");
    }
}
