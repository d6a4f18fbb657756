//! A forecast that is cut short: what it reached is as good as ever, what lies beyond is reckoned.

use crate::plan_support;

use muster_common::job::Scheduling;
use muster_common::{AttemptNo, GangId};
use muster_engine::command::{Command, CommitPlan, Placement, PlanStep, Principal};
use muster_engine::forecast::{Forecast, forecast, forecast_within};
use muster_engine::policy::{Order, Policy};
use plan_support::*;

const RUN_MS: u64 = 100_000;

fn fifo() -> Cluster {
    Cluster::new(Policy { order: Order::Fifo, ..Policy::default() })
}

fn whole_node(run_s: u64) -> Scheduling {
    exact(nodes(1, 8), run_s)
}

fn of_models(mut job: Scheduling, models: &[&str]) -> Scheduling {
    job.groups[0].models = models.iter().map(|model| name(model)).collect();
    job
}

fn starts_of(told: &Forecast, gangs: &[GangId]) -> Vec<(u64, bool)> {
    gangs.iter().map(|gang| told.start(*gang).map(|start| (start.at.0, start.coarse)).unwrap()).collect()
}

#[test]
fn what_a_play_reached_is_exact_and_what_is_beyond_is_coarse_in_order_and_not_before_the_cut() {
    let mut cluster = fifo();
    cluster.nodes(2, 8);
    let mut gangs: Vec<GangId> = (0..60).map(|_| cluster.submit(whole_node(100))).collect();
    gangs.push(cluster.submit(array(whole_node(100), 20, None)));
    gangs.push(cluster.submit(whole_node(100)));
    let (state, now) = (&cluster.player.state, cluster.now());
    let full = forecast(state, now);
    assert!(full.complete && full.coarse.is_empty());
    let cut = forecast_within(state, now, 60);
    assert!(!cut.complete);
    assert_eq!(forecast_within(state, now, 60), cut);
    let (told, real) = (starts_of(&cut, &gangs), starts_of(&full, &gangs));
    let reached = told.iter().take_while(|(_, coarse)| !coarse).count();
    assert!((2..40).contains(&reached), "{reached}");
    assert_eq!(told[..reached], real[..reached]);
    let last_exact = real[reached - 1].0;
    assert!(told[reached..].iter().all(|(at, coarse)| *coarse && *at >= last_exact));
    assert!(told[reached..].is_sorted());
    for ((told, _), (real, _)) in told.iter().zip(&real) {
        assert!(told.abs_diff(*real) <= RUN_MS, "{told} for {real}");
    }
}

#[test]
fn nobody_is_told_a_start_behind_what_never_ends_or_where_it_can_never_run() {
    let mut cluster = fifo();
    cluster.node("a", inventory("A100", 8, &[]));
    cluster.node("h", inventory("H100", 8, &[]));
    cluster.submit(of_models(whole_node(1_000_000), &["A100"]));
    let endless = cluster.submit(of_models(job(nodes(1, 8)), &["A100"]));
    let behind = cluster.submit(of_models(whole_node(10), &["A100"]));
    let many: Vec<GangId> = (0..40).map(|_| cluster.submit(of_models(whole_node(100), &["H100"]))).collect();
    let either = cluster.submit(of_models(whole_node(10), &["A100", "H100"]));
    let giant = cluster.submit(exact(nodes(9, 8), 1));
    let cpus = cluster.submit(exact(nodes(2, 0), 1));
    let held = cluster.submit(whole_node(10));
    cluster.commit(Command::Hold { job: held.job, hold: true, by: Principal("op".into()) });
    let told = forecast_within(&cluster.player.state, cluster.now(), 60);
    assert!(!told.complete);
    let coarse = |gang: GangId| told.start(gang).is_some_and(|start| start.coarse);
    assert!(coarse(endless) && coarse(many[39]) && coarse(either));
    assert!(told.start(endless).unwrap().at.0 >= 900_000_000);
    assert!(told.start(either).unwrap().at >= told.start(many[39]).unwrap().at);
    for gang in [behind, giant, held] {
        assert_eq!(told.start(gang), None, "{gang}");
    }
    assert!(!coarse(cpus));
}

/// Of the last of 60 gangs that want a whole node each.
fn last_of_many(mut cluster: Cluster) -> (Forecast, u64) {
    let last = (0..60).map(|_| cluster.submit(whole_node(100))).last().unwrap();
    let told = forecast_within(&cluster.player.state, cluster.now(), 60);
    assert!(!told.complete);
    let (at, coarse) = starts_of(&told, &[last])[0];
    assert!(coarse);
    (told, at)
}

#[test]
fn who_begins_only_after_their_turn_is_no_work_for_those_behind() {
    let mut cluster = fifo();
    cluster.nodes(1, 8);
    let mut later = whole_node(1_000_000);
    later.begin_at_ms = Some(2_000_000_000);
    let later = cluster.submit(later);
    let (told, last) = last_of_many(cluster);
    assert!(last.abs_diff(59 * RUN_MS) <= RUN_MS, "{last}");
    assert!(told.start(later).unwrap().at.0 >= 2_000_000_000);
}

#[test]
fn an_array_keeps_no_more_devices_for_ever_than_it_may_use_at_once() {
    let mut cluster = fifo();
    cluster.nodes(2, 8);
    cluster.submit(array(job(nodes(1, 8)), 20, Some(1)));
    let (_, last) = last_of_many(cluster);
    assert!(last.abs_diff(59 * RUN_MS) <= RUN_MS, "one node is left, and not {last}");
}

#[test]
fn elements_that_an_array_has_no_room_for_yet_are_work_ahead() {
    let mut cluster = fifo();
    cluster.nodes(2, 8);
    cluster.submit(array(whole_node(100), 20, Some(1)));
    let (_, last) = last_of_many(cluster);
    assert!(last.abs_diff(39 * RUN_MS) <= RUN_MS, "80 runs on two nodes, and not {last}");
}

#[test]
fn what_is_parked_is_no_work_for_those_behind() {
    let mut cluster = fifo();
    cluster.nodes(1, 8);
    let parked = cluster.submit(whole_node(1_000_000));
    for _ in 0..2 {
        let (state, now) = (&cluster.player.state, cluster.now());
        let nowhere = Placement { gang: parked, attempt: AttemptNo(1), revision: 1, parts: Vec::new() };
        let plan = CommitPlan {
            made_at: state.applied_index(),
            now,
            policy_version: state.config_version(),
            engine_version: 1,
            steps: vec![PlanStep::Place(nowhere)],
        };
        cluster.player.commit(now, Command::CommitPlan(Box::new(plan)), &mut cluster.seen).unwrap_err();
    }
    assert!(cluster.player.state.parked(parked).is_some_and(|note| note.is_parked()));
    let (told, last) = last_of_many(cluster);
    assert!(last.abs_diff(59 * RUN_MS) <= RUN_MS, "{last}");
    assert_eq!(told.start(parked), None);
}
