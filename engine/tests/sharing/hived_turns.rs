//! Cells beside numbers: who is owed the one and who is owed the other do not have each other stopped in turn.

use crate::plan_support;
use crate::taking_support;

use muster_common::GangId;
use muster_common::job::Scheduling;
use muster_common::topology::TopologyMode::Required;
use muster_engine::command::{Cancel, Command, NodeAction, Principal};
use muster_engine::organisation::{Account, CellQuota, Quota};
use muster_engine::policy::{Policy, Score};
use plan_support::{name, nodes, within};
use taking_support::*;

fn owner(text: &str, nominal: u32, level: &str, nodes: u32) -> Account {
    let mut owner = account(text, None, (nominal, None, None));
    owner.reclaim_within_ms = Some(120_000);
    owner.cells = vec![CellQuota { model: name("H100"), level: name(level), nodes, gpus: 8, number: 1 }];
    owner
}

fn counts(text: &str, nominal: u32) -> Account {
    account(text, None, (nominal, None, None))
}

fn one_node(devices: u32, account: &str) -> Scheduling {
    charged(forever(nodes(1, devices)), account)
}

fn cluster(racks: usize, nodes: usize, accounts: Vec<Account>) -> Cluster {
    let mut cluster = Cluster::new(Policy { score: Score::Spread, ..Policy::default() });
    cluster.racks(racks, nodes, 8);
    cluster.organise(accounts);
    cluster
}

fn stopped(cluster: &Cluster) -> Vec<GangId> {
    let mut stopped = cluster.stopped();
    stopped.sort_unstable();
    stopped
}

/// Of four halves two are beyond what their account owns, and no node is emptied by stopping just those two.
#[test]
fn a_number_is_had_back_though_a_part_of_what_goes_was_begun_within_its_cells() {
    let mut cluster = cluster(1, 2, vec![owner("vision", 8, "node", 1), counts("rest", 8)]);
    let halves: Vec<GangId> = (0..4).map(|_| cluster.submit(one_node(4, "vision"))).collect();
    assert!(halves.iter().all(|gang| cluster.runs(*gang)));
    let other = cluster.submit(one_node(8, "rest"));
    assert!(cluster.runs(other));
    assert_eq!(cluster.stopped().len(), 2);
    cluster.pass(600);
    assert_eq!((cluster.stopped().len(), cluster.runs(other)), (2, true));
}

/// What is kept for the first of its jobs is all that the account owns by number, and comes free slowly.
#[test]
fn who_is_beyond_its_number_with_what_is_kept_has_nobody_stopped_for_its_cell() {
    let mut cluster = cluster(1, 4, vec![owner("vision", 16, "node", 1), counts("rest", 16), counts("guest", 0)]);
    let guests: Vec<GangId> = (0..2).map(|_| cluster.submit(one_node(8, "guest"))).collect();
    let own: Vec<GangId> = (0..2).map(|_| cluster.submit(one_node(8, "rest"))).collect();
    cluster.watch.release_ms = 30_000;
    let wide = cluster.submit(charged(forever(nodes(2, 8)), "vision"));
    cluster.watch.release_ms = 0;
    let small = cluster.submit(one_node(8, "vision"));
    assert_eq!(stopped(&cluster), guests);
    cluster.pass(30);
    assert!(cluster.runs(wide) && !cluster.runs(small) && own.iter().all(|gang| cluster.runs(*gang)));
    assert_eq!(stopped(&cluster), guests);
}

/// One job has a node to itself and five pairs share five. Of each pair the small one would come back to the cells, so no
/// pair is chosen; the job alone, though it has run for longest, makes room.
#[test]
fn who_would_come_back_keeps_nobody_from_what_others_leave() {
    let mut cluster = cluster(1, 7, vec![owner("vision", 40, "node", 1), counts("rest", 16)]);
    let alone = cluster.submit(one_node(8, "vision"));
    cluster.pass(600);
    let wide: Vec<GangId> = (0..5).map(|_| cluster.submit(one_node(6, "vision"))).collect();
    let small: Vec<GangId> = (0..5).map(|_| cluster.submit(one_node(2, "vision"))).collect();
    cluster.submit(one_node(6, "rest"));
    let asks = cluster.submit(one_node(8, "rest"));
    assert!(cluster.runs(asks), "{:?} {:?} {:?}", alone, wide, small);
    let before = cluster.stopped().len();
    cluster.pass(600);
    assert_eq!(cluster.stopped().len(), before);
}

/// The work in the cell could be stopped, though not in time, and is charged to an account that owns nothing itself.
#[test]
fn what_is_in_its_cell_and_leaves_slowly_is_not_stopped_for_a_number_below_the_same_owner() {
    let below = |text, nominal| account(text, Some("vision"), (nominal, None, None));
    let accounts = vec![owner("vision", 24, "rack", 2), below("lent", 0), below("small", 8), counts("rest", 16)];
    let mut cluster = cluster(3, 2, accounts);
    let mut slow = within(charged(forever(nodes(2, 8)), "lent"), "rack", Required, 1);
    slow.checkpoint.grace_ms = 600_000;
    let slow = cluster.submit(slow);
    let halves = (0..4).map(|_| cluster.submit(Scheduling { preemptible: false, ..one_node(4, "rest") }));
    let halves: Vec<GangId> = halves.collect();
    assert!(halves.iter().all(|gang| cluster.runs(*gang)));
    let small = cluster.submit(one_node(6, "small"));
    assert!(cluster.runs(slow) && !cluster.runs(small) && cluster.stopped().is_empty());
}

/// Of two accounts that use one owner's cells and number, the one's job leaves slowly while the other's waits.
#[test]
fn nobody_is_stopped_in_turn_for_a_cell_while_a_siblings_work_that_holds_the_number_leaves() {
    let below = |text| account(text, Some("vision"), (0, None, None));
    let mut vision = owner("vision", 16, "node", 1);
    vision.quota = [(name("H100"), Quota { nominal: 16, borrow_limit: Some(0), lend_limit: None })].into();
    let mut cluster = cluster(1, 4, vec![vision, below("one"), below("two"), counts("rest", 16)]);
    let wide = cluster.submit(charged(forever(nodes(2, 8)), "two"));
    let others: Vec<GangId> = (0..2).map(|_| cluster.submit(one_node(8, "rest"))).collect();
    for node in cluster.nodes_of(wide) {
        let action = NodeAction::Cordon { reason: "old".into() };
        cluster.commit(Command::NodeAdmin { node, action, by: Principal("op".into()) });
    }
    cluster.watch.release_ms = 30_000;
    let by = Principal("op".into());
    cluster.commit(Command::Cancel(Cancel { job: wide.job, ordinal: None, reason: String::new(), by }));
    cluster.watch.release_ms = 0;
    let small = cluster.submit(one_node(8, "one"));
    cluster.pass(20);
    assert!(others.iter().all(|gang| cluster.runs(*gang)) && cluster.stopped().is_empty());
    cluster.pass(20);
    assert!(cluster.runs(small));
    assert_eq!(cluster.stopped().len(), 1);
}
