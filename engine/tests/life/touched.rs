//! Whom a change concerns: what one start costs a server must not grow with the cluster. That nobody else is concerned, every
//! test of this program looks at after each third entry.

use crate::support::*;

use muster_common::{GangId, Name, NodeId};
use muster_engine::State;
use muster_engine::command::*;
use muster_engine::desired::{Touched, touched};
use std::sync::Arc;

/// Whom what `act` does concerns.
fn concerned(cluster: &mut Cluster, act: impl FnOnce(&mut Cluster)) -> Touched {
    let older: State = cluster.state.clone();
    act(cluster);
    touched(&older, &cluster.state)
}

fn nodes(nodes: impl IntoIterator<Item = NodeId>) -> Touched {
    Touched::Nodes(nodes.into_iter().collect())
}

#[test]
fn a_job_that_waits_concerns_nobody_and_one_that_starts_its_own_nodes() {
    let mut cluster = Cluster::new(4, 8);
    let mut gang = None;
    let submitted = concerned(&mut cluster, |cluster| gang = Some(GangId::new(cluster.submit(scheduling(2, 8)), 0)));
    assert_eq!(submitted, nodes([]));
    let gang = gang.unwrap();
    let placed = concerned(&mut cluster, |cluster| {
        cluster.place(gang);
    });
    assert_eq!(placed, nodes(cluster.parts(gang)));
}

#[test]
fn what_one_part_has_come_to_is_nothing_to_the_others_until_all_are_prepared() {
    let mut cluster = Cluster::new(4, 8);
    let gang = GangId::new(cluster.submit(scheduling(3, 8)), 0);
    cluster.place(gang);
    let parts = cluster.parts(gang);
    let [first, second, third] = parts[..] else { panic!("three parts") };
    for node in [first, second] {
        let one = concerned(&mut cluster, |cluster| {
            cluster.report(node, gang, ReportBody::Prepared);
        });
        assert_eq!(one, nodes([node]));
    }
    let last = concerned(&mut cluster, |cluster| {
        cluster.report(third, gang, ReportBody::Prepared);
    });
    assert_eq!((last, cluster.word(gang)), (nodes(parts), "RUNNING"));
}

#[test]
fn an_edit_concerns_the_nodes_on_which_the_job_runs() {
    let mut cluster = Cluster::new(3, 8);
    let job = cluster.submit(scheduling(2, 8));
    let gang = GangId::new(job, 0);
    cluster.start(gang);
    let edited = concerned(&mut cluster, |cluster| {
        let command = cluster.edit_of(job, "longer grace", |edit| edit.scheduling.checkpoint.grace_ms = 90_000);
        cluster.apply(command);
    });
    assert_eq!(edited, nodes(cluster.parts(gang)));
}

#[test]
fn a_machine_at_another_address_concerns_everybody_and_a_new_one_itself() {
    let mut cluster = Cluster::new(2, 8);
    let mut moved = registration("n0", 8);
    Arc::make_mut(&mut moved.inventory).address = "127.0.0.2".into();
    let again = concerned(&mut cluster, |cluster| {
        cluster.apply(Command::RegisterNode(Box::new(moved)));
    });
    assert_eq!(again, Touched::All);
    let joined = concerned(&mut cluster, |cluster| {
        cluster.apply(Command::RegisterNode(Box::new(registration("another", 8))));
    });
    assert_eq!(joined, nodes(cluster.state.node_named(&Name::literal("another")).map(|record| record.id)));
}

#[test]
fn settings_and_a_node_that_goes_concern_everybody() {
    let mut cluster = Cluster::new(3, 8);
    let settings = Settings { suspect_after_ms: 7_000, ..*cluster.state.settings() };
    let changed = concerned(&mut cluster, |cluster| {
        let change = Box::new(ConfigChange::Settings(settings));
        cluster.apply(Command::Configure { change, by: principal() });
    });
    assert_eq!(changed, Touched::All);
    let node = cluster.node(2);
    let removed = concerned(&mut cluster, |cluster| {
        let action = NodeAction::Remove { reason: "test".into() };
        cluster.apply(Command::NodeAdmin { node, action, by: principal() });
    });
    assert_eq!((removed, cluster.state.node(node)), (Touched::All, None));
}
