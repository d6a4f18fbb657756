//! The policies before the one in force, what spoke for them, and the one that is only tried.

use crate::support;

use muster_common::job::Hash;
use muster_engine::command::*;
use muster_engine::outcome::Refusal;
use muster_engine::policy::{Order, Policy};
use muster_engine::state::policies::{Evidence, FIGURES_MAX, PAST_MAX, Promotion, TEXT_BYTES_MAX};
use muster_engine::{Command, Memo, Response, State, cycle};
use support::*;

fn configure(cluster: &mut Cluster, change: ConfigChange) -> Response {
    cluster.respond(Command::Configure { change: Box::new(change), by: principal() })
}

fn fifo() -> Policy {
    Policy { order: Order::Fifo, ..Policy::default() }
}

fn evidence() -> Evidence {
    let figures = vec![("wait_p95_s".to_owned(), "12.5".to_owned())];
    Evidence { run: "out/fifo".into(), manifest: Hash([7; 32]), engine_version: 3, figures }
}

#[test]
fn a_promotion_is_in_force_and_kept_with_its_evidence() {
    let mut cluster = Cluster::new(1, 8);
    assert_eq!(configure(&mut cluster, ConfigChange::Policy(Policy::default())), Response::Done);
    let promotion = Promotion { policy: fifo(), evidence: evidence() };
    assert_eq!(configure(&mut cluster, ConfigChange::Promote(Box::new(promotion))), Response::Done);
    let state = &cluster.state;
    assert_eq!(**state.policy(), fifo());
    let [first, second] = state.policies().past() else { panic!("{:?}", state.policies()) };
    assert_eq!((first.evidence.as_ref(), second.evidence.as_ref()), (None, Some(&evidence())));
    assert_eq!((second.version, &second.by, &*second.policy), (state.config_version(), &principal(), &fifo()));
    let again = State::decode(&state.encode()).unwrap();
    assert_eq!((again.hash(), again.policies()), (state.hash(), state.policies()));
}

#[test]
fn only_so_many_are_kept_and_evidence_has_a_limit() {
    let mut cluster = Cluster::new(1, 8);
    for _ in 0..PAST_MAX + 3 {
        assert_eq!(configure(&mut cluster, ConfigChange::Policy(fifo())), Response::Done);
    }
    let past = cluster.state.policies().past();
    assert_eq!((past.len(), past.last().unwrap().version), (PAST_MAX, cluster.state.config_version()));
    cluster.state.check().unwrap();
    let many = Evidence { figures: vec![(String::new(), String::new()); FIGURES_MAX + 1], ..evidence() };
    let long = Evidence { run: "x".repeat(TEXT_BYTES_MAX + 1), ..evidence() };
    let version = cluster.state.config_version();
    for evidence in [many, long] {
        let promotion = Promotion { policy: Policy::default(), evidence };
        let response = configure(&mut cluster, ConfigChange::Promote(Box::new(promotion)));
        assert!(matches!(response, Response::Refused(Refusal::Invalid(_))), "{response:?}");
    }
    assert_eq!((&**cluster.state.policy(), cluster.state.config_version()), (&fifo(), version));
}

/// What is tried changes nothing of what is decided.
#[test]
fn a_shadow_policy_has_no_effect() {
    let mut cluster = Cluster::new(1, 8);
    cluster.submit(scheduling(1, 8));
    cluster.submit(scheduling(1, 8));
    let now = cluster.state.now();
    let steps = |state: &State| {
        let commands = cycle(state, &mut Memo::default(), now).commands;
        let steps = commands.into_iter().filter_map(|command| match command {
            Command::CommitPlan(plan) => Some(plan.steps),
            _ => None,
        });
        steps.flatten().collect::<Vec<_>>()
    };
    let before = steps(&cluster.state);
    let order = Order::Smallest;
    let shadow = ConfigChange::Shadow(Some(Box::new(Policy { order, ..Policy::default() })));
    assert_eq!(configure(&mut cluster, shadow), Response::Done);
    assert_eq!((steps(&cluster.state), &**cluster.state.policy()), (before, &Policy::default()));
    assert!(cluster.state.policies().shadow().is_some() && cluster.state.policies().past().is_empty());
    assert_eq!(configure(&mut cluster, ConfigChange::Shadow(None)), Response::Done);
    assert_eq!(cluster.state.policies().shadow(), None);
}

#[test]
fn servers_that_do_not_know_it_are_waited_for() {
    let mut cluster = Cluster::new(1, 8);
    // It has no feature level yet.
    cluster.state = State::default();
    let promotion = Promotion { policy: fifo(), evidence: evidence() };
    for change in [ConfigChange::Promote(Box::new(promotion)), ConfigChange::Shadow(None)] {
        let response = configure(&mut cluster, change);
        assert!(matches!(response, Response::Refused(Refusal::FeatureLevel { needed: 4, .. })), "{response:?}");
    }
    assert_eq!(configure(&mut cluster, ConfigChange::Policy(fifo())), Response::Done);
    assert!(cluster.state.policies().past().is_empty());
}
