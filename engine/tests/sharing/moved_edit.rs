//! An edit that changes nothing of where a gang may run leaves it its new place.

use crate::plan_support;
use crate::taking_support;

use muster_common::job::Scheduling;
use muster_engine::command::{Command, Edit, Principal};
use muster_engine::outcome::Response;
use muster_engine::policy::{Consolidate, Policy, Taking};
use muster_engine::state::reservation::ReservationKind;
use plan_support::{exact, nodes};
use taking_support::*;

#[test]
fn another_priority_or_limit_does_not_cost_a_gang_that_moves_its_new_place() {
    let eager = Consolidate { wait_ms: 0, min_run_ms: 0, gain_ms: 0, loss_max_percent: 1000, ..Consolidate::default() };
    let policy = Policy { taking: Taking { consolidate: Some(eager), ..Taking::default() }, ..Policy::default() };
    let mut cluster = Cluster::new(policy);
    cluster.racks(1, 2, 8);
    cluster.submit(exact(nodes(1, 6), 100));
    let small = [0, 1].map(|_| cluster.submit(forever(nodes(1, 1))));
    cluster.submit(forever(nodes(1, 6)));
    cluster.pass(1000);
    cluster.watch.release_ms = 20_000;
    let large = cluster.submit(forever(nodes(1, 8)));
    assert_eq!(cluster.stopped(), small);
    assert!(cluster.kept(small[0], ReservationKind::Moved).is_some());
    let state = &cluster.player.state;
    let record = state.job(small[0].job).unwrap();
    let before = (**state.scheduling(record)).clone();
    let edit = Edit {
        request_id: "r1".into(),
        job: small[0].job,
        from_revision: record.revision().number,
        name: record.name.clone(),
        scheduling: Scheduling { class: plan_support::name("low"), ..before },
        launch: state.launch(&record.revision().launch).unwrap().clone(),
        by: Principal("alice".into()),
    };
    let response = cluster.commit(Command::Edit(Box::new(edit))).response;
    assert!(matches!(response, Response::Edited { .. }), "{response:?}");
    assert!(cluster.kept(small[0], ReservationKind::Moved).is_some(), "it was stopped only because a place is kept");
    // What is dropped goes to whoever comes first.
    let thief = cluster.submit(class(forever(nodes(1, 1)), "high"));
    cluster.pass(30);
    assert!(!cluster.runs(thief));
    assert!(cluster.runs(large) && small.iter().all(|one| cluster.runs(*one)));
}
