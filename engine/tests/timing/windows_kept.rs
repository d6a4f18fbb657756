//! What is put aside stays so: for gangs of several parts, after an edit, with grace, and in what is told of it.

use crate::plan_support;

use muster_common::job::Scheduling;
use muster_common::{GangId, JobId, Time};
use muster_engine::Command;
use muster_engine::command::{Edit, Which};
use muster_engine::outcome::{Refusal, Response};
use muster_engine::plan::explain::Reason;
use muster_engine::policy::{Policy, Preempt, Taking};
use muster_engine::state::window::Holders;
use plan_support::windows::{
    asked, by, fifo, lasting, limited, maintain, make, named, organisation, organise, refused, why,
};
use plan_support::*;

/// A driver without devices, and workers.
fn driver_and_workers(run_s: u64, workers: u32) -> Scheduling {
    let mut wish = lasting(job(nodes(workers, 8)), run_s);
    let mut driver = job(nodes(1, 0)).groups.remove(0);
    driver.name = name("driver");
    wish.groups.insert(0, driver);
    wish
}

#[test]
fn the_part_without_devices_of_a_gang_keeps_off_a_window_too() {
    for depth in [0, 1, 4] {
        let mut cluster = Cluster::new(fifo(depth));
        let plain = cluster.node("cpu0", inventory("H100", 0, &[]));
        let all = cluster.nodes(2, 8);
        maintain(&mut cluster, "kernel", (100, 5000), named(&["cpu0"]));
        let gang = cluster.submit(driver_and_workers(1000, 1));
        cluster.decide();
        assert_eq!(cluster.start_s(gang), Some(0), "depth {depth}: the driver finds room beside others' devices");
        assert!(cluster.held(gang).iter().all(|part| part.0 != plain && all.contains(&part.0)), "depth {depth}");
    }
}

#[test]
fn nobody_is_stopped_for_a_gang_whose_part_without_devices_has_no_place() {
    let taking = Taking { preempt: Some(Preempt::default()), ..Taking::default() };
    let mut cluster = Cluster::new(Policy { taking, ..fifo(1) });
    cluster.node("cpu0", inventory("H100", 0, &[]));
    cluster.nodes(1, 8);
    let mut low = lasting(job(nodes(1, 8)), 5000);
    (low.class, low.groups[0].exclusive) = (name("low"), true);
    let runs = cluster.submit(low);
    cluster.decide();
    assert_eq!(cluster.start_s(runs), Some(0));
    maintain(&mut cluster, "kernel", (100, 5000), named(&["cpu0"]));
    let mut high = driver_and_workers(1000, 1);
    (high.class, high.groups[1].exclusive) = (name("high"), true);
    let waits = cluster.submit(high);
    cluster.decide();
    assert_eq!(cluster.start_s(waits), None);
    assert_eq!(cluster.player.state.gang(runs).unwrap().current().unwrap().stopping_at, None);
}

fn edited(cluster: &mut Cluster, gang: GangId, limit_s: u64) -> Response {
    let state = &cluster.player.state;
    let job = state.job(gang.job).unwrap();
    let mut scheduling = (**state.scheduling(job)).clone();
    scheduling.limits.time_ms = Some(limit_s * 1000);
    let edit = Edit {
        job: gang.job,
        request_id: format!("edit-{}-{limit_s}", gang.job),
        from_revision: job.revision().number,
        name: job.name.clone(),
        scheduling,
        launch: state.launch(&job.revision().launch).unwrap().clone(),
        by: by(),
    };
    cluster.seen.lenient = true;
    let outcome = cluster.commit(Command::Edit(Box::new(edit)));
    cluster.seen.lenient = false;
    outcome.response
}

#[test]
fn what_runs_is_not_given_a_longer_limit_with_which_it_would_run_on_into_a_window() {
    let mut cluster = Cluster::new(fifo(1));
    cluster.nodes(2, 8);
    maintain(&mut cluster, "firmware", (3600, 9000), named(&["n00"]));
    let [kept, free] = [0, 1].map(|_| cluster.submit(limited(job(nodes(1, 8)), 2500, 3000)));
    cluster.decide();
    let on = |gang| cluster.held(gang)[0].0;
    let (kept, free) = if on(kept) < on(free) { (kept, free) } else { (free, kept) };
    let Response::Refused(Refusal::NotNow(why)) = edited(&mut cluster, kept, 4000) else { panic!("it may run on") };
    assert_eq!(
        why,
        format!(
            "{kept} runs on nodes of reservation `firmware` and would then run on into it; give a time limit of at most \
             60 min, counted from its start"
        )
    );
    assert!(matches!(edited(&mut cluster, kept, 3600), Response::Edited { .. }));
    assert!(matches!(edited(&mut cluster, free, 4000), Response::Edited { .. }), "its node is nobody's");
}

#[test]
fn grace_is_over_when_a_window_begins() {
    let mut cluster = Cluster::new(fifo(1));
    cluster.nodes(1, 8);
    maintain(&mut cluster, "firmware", (1000, 5000), Which::All);
    let with_grace = |limit_s: u64| {
        let mut wish = lasting(job(nodes(1, 8)), limit_s);
        wish.checkpoint.grace_ms = 100_000;
        wish
    };
    let [long, short] = [950, 900].map(|limit_s| cluster.submit(with_grace(limit_s)));
    cluster.decide();
    assert_eq!([long, short].map(|gang| cluster.start_s(gang)), [None, Some(0)]);
    let hint = why(&cluster.player.state, long).blockers[0].hint.clone();
    assert_eq!(hint.as_deref(), Some("give a time limit of at most 15m, if it can do with that"));
}

#[test]
fn another_request_under_a_name_that_is_taken_is_refused() {
    let mut cluster = Cluster::new(fifo(1));
    for (at, model) in ["H100", "H100", "A100", "A100"].iter().enumerate() {
        cluster.node(&format!("n0{at}"), inventory(model, 8, &[]));
    }
    let some = |model: &str| Which::Some { nodes: 2, model: Some(name(model)), level: None };
    let of = |model| asked("nips", (100, 500), some(model), Holders::Nobody);
    make(&mut cluster, of("H100"));
    let again = make(&mut cluster, of("H100"));
    assert!(matches!(again.response, Response::WindowMade { existing: true, .. }));
    let mut other_reason = of("H100");
    other_reason.reason = "a course".into();
    for other in [of("A100"), other_reason] {
        assert!(refused(&mut cluster, other).contains("nips"), "it is not what there is");
    }
}

/// What is told is answered as it was, whatever became of its jobs.
#[test]
fn a_repeat_is_answered_when_a_job_that_it_names_has_ended() {
    let mut cluster = Cluster::new(fifo(1));
    cluster.nodes(2, 8);
    let gang = cluster.submit(lasting(job(nodes(1, 8)), 10));
    cluster.decide();
    let window = || asked("demo", (50, 500), named(&["n01"]), Holders::Jobs([gang.job].into()));
    make(&mut cluster, window());
    while cluster.player.state.job(gang.job).is_some() {
        cluster.player.step(&mut cluster.seen).unwrap();
    }
    assert!(matches!(make(&mut cluster, window()).response, Response::WindowMade { existing: true, .. }));
    let unknown = asked("demo-2", (600, 700), named(&["n01"]), Holders::Jobs([JobId(77)].into()));
    assert!(refused(&mut cluster, unknown).contains("77"));
}

#[test]
fn of_several_windows_the_one_that_a_shorter_run_keeps_out_of_is_named() {
    let mut cluster = Cluster::new(fifo(1));
    cluster.nodes(2, 8);
    cluster.node("other", inventory("A100", 8, &[]));
    maintain(&mut cluster, "long", (0, 500_000), named(&["n00"]));
    maintain(&mut cluster, "soon", (120, 5000), named(&["other"]));
    maintain(&mut cluster, "later", (14_400, 20_000), named(&["n01"]));
    let mut wish = limited(job(nodes(1, 8)), 1000, 21_600);
    wish.groups[0].models = vec![name("H100")];
    let gang = cluster.submit(wish);
    cluster.decide();
    let told = why(&cluster.player.state, gang);
    assert_eq!(told.blockers[0].reason, Reason::Reserved);
    assert!(!told.blockers[0].detail.contains("soon"), "{}", told.blockers[0].detail);
    let hint = told.blockers[0].hint.as_deref();
    assert_eq!(hint, Some("give a time limit of at most 4h, if it can do with that"));
}

#[test]
fn an_organisation_without_accounts_breaks_the_promise_to_one() {
    let mut cluster = Cluster::new(fifo(1));
    cluster.nodes(1, 8);
    organise(&mut cluster, &[("research", None)]);
    make(&mut cluster, asked("deadline", (100, 500), Which::All, Holders::Account(name("research"))));
    cluster.seen.lenient = true;
    let outcome = cluster.commit(organisation(&[]));
    assert!(matches!(outcome.response, Response::Refused(_)), "{:?}", outcome.response);
    assert_eq!(cluster.player.state.windows().len(), 1);
    assert_eq!(cluster.now(), Time(0));
}
