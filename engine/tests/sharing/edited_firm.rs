//! What runs on borrowed quota, or on owed cells, does not become what may not be stopped by an edit.

use crate::plan_support;
use crate::taking_support;

use muster_common::GangId;
use muster_common::job::Scheduling;
use muster_engine::command::{Command, Edit, Principal};
use muster_engine::organisation::CellQuota;
use muster_engine::plan::owed::cells_of;
use muster_engine::policy::Policy;
use plan_support::{name, nodes};
use taking_support::*;

fn edit(cluster: &Cluster, gang: GangId, change: impl FnOnce(&mut Scheduling)) -> Command {
    let state = &cluster.player.state;
    let record = state.job(gang.job).unwrap();
    let mut scheduling = (**state.scheduling(record)).clone();
    change(&mut scheduling);
    Command::Edit(Box::new(Edit {
        request_id: "r1".into(),
        job: gang.job,
        from_revision: record.revision().number,
        name: record.name.clone(),
        scheduling,
        launch: state.launch(&record.revision().launch).unwrap().clone(),
        by: Principal("test".into()),
    }))
}

#[test]
fn lent_quota_comes_back_though_the_borrower_edits_itself_not_preemptible() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.racks(1, 1, 8);
    cluster.organise(vec![account("red", None, (0, None, None)), account("blue", None, (8, None, None))]);
    let red = cluster.submit(charged(forever(nodes(1, 8)), "red"));
    assert!(cluster.runs(red), "on what blue lends");
    // May be refused, or taken for later: but what runs may still be stopped.
    cluster.watch.exact.lenient = true;
    let command = edit(&cluster, red, |job| job.preemptible = false);
    cluster.commit(command);
    let blue = cluster.submit(charged(forever(nodes(1, 8)), "blue"));
    cluster.pass(600);
    assert!(cluster.runs(blue), "blue owns all of it");
}

#[test]
fn nobody_loses_a_cell_to_a_longer_grace() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.racks(1, 1, 8);
    let mut owner = account("vision", None, (8, None, None));
    owner.reclaim_within_ms = Some(120_000);
    owner.cells = vec![CellQuota { model: name("H100"), level: name("node"), nodes: 1, gpus: 8, number: 1 }];
    cluster.organise(vec![owner, account("rest", None, (0, None, None))]);
    let rest = cluster.submit(charged(forever(nodes(1, 8)), "rest"));
    assert!(cluster.runs(rest));
    cluster.watch.exact.lenient = true;
    let command = edit(&cluster, rest, |job| job.checkpoint.grace_ms = 600_000);
    cluster.commit(command);
    assert!(cells_of(&cluster.player.state).iter().all(|of| of.lost == 0), "a guarantee in force was broken");
}
