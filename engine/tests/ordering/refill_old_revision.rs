//! Filling the order again asks of an array's elements that run on at an older revision what they run with.

use crate::plan_support;

use muster_common::job::Scheduling;
use muster_common::{GangId, Time};
use muster_engine::command::{Command, Edit, Principal};
use muster_engine::policy::{Admission, Backfill, Domains, Las, Order, Policy, Replan};
use plan_support::*;

/// Eight devices in 10 s, four in 20 s have had what the first queue gives.
fn policy() -> Policy {
    Policy {
        order: Order::Las(Las { limits: vec![80], promote_after: None }),
        admission: Admission::Skip,
        backfill: Backfill { reserve_depth: 0, ..Backfill::default() },
        domains: Domains::Anywhere,
        replan: Replan::Refill { min_run_ms: 0, max_victims_per_cycle: 10 },
        ..Policy::default()
    }
}

fn edit(cluster: &mut Cluster, gang: GangId, change: impl FnOnce(&mut Scheduling)) {
    let state = &cluster.player.state;
    let record = state.job(gang.job).unwrap();
    let mut scheduling = (**state.scheduling(record)).clone();
    change(&mut scheduling);
    let edit = Edit {
        request_id: "r1".into(),
        job: gang.job,
        from_revision: record.revision().number,
        name: record.name.clone(),
        scheduling,
        launch: state.launch(&record.revision().launch).unwrap().clone(),
        by: Principal("test".into()),
    };
    cluster.commit(Command::Edit(Box::new(edit)));
}

/// One of two elements runs on eight devices, of one node; the other is given four by an edit.
fn running(preemptible: bool, change: impl FnOnce(&mut Scheduling)) -> (Cluster, GangId) {
    let mut cluster = Cluster::new(policy());
    cluster.nodes(1, 8);
    let mut wish = array(exact(total(8), 100), 2, Some(1));
    wish.preemptible = preemptible;
    let first = cluster.submit(wish);
    cluster.decide();
    edit(&mut cluster, first, |scheduling| {
        scheduling.groups = exact(total(4), 100).groups;
        change(scheduling);
    });
    let own = cluster.player.state.scheduling_of(first).unwrap();
    assert_eq!((own.preemptible, own.devices()), (preemptible, 8), "it runs on at the first revision");
    (cluster, first)
}

#[test]
fn the_revision_that_runs_says_whether_it_may_be_stopped() {
    let (mut cluster, first) = running(false, |scheduling| scheduling.preemptible = true);
    cluster.submit_at(1, exact(total(8), 5));
    cluster.run();
    let seen = &cluster.seen;
    assert_eq!((seen.starts[&first].len(), seen.ends[&first]), (1, Time(100_000)), "it was never stopped");
}

#[test]
fn a_cycle_comes_when_what_runs_has_had_its_share_with_the_devices_it_has() {
    let (mut cluster, first) = running(true, |_| ());
    cluster.submit_at(1, exact(total(8), 5));
    cluster.run();
    // Whoever is next, it is then that somebody starts in its place.
    let starts = &cluster.seen.starts;
    let next = starts.iter().flat_map(|(gang, at)| at.iter().skip(usize::from(*gang == first))).min();
    assert_eq!(next, Some(&Time(10_000)), "{starts:?}");
}
