//! Cells and their guarantee: HiveD's safety invariant ("HiveD: Sharing a GPU Cluster for Deep Learning with
//! Guarantees", OSDI 2020) and the scenario of its introduction, against quota that only counts.

use crate::plan_support;
use crate::taking_support;

use muster_common::job::Scheduling;
use muster_common::resources::Share;
use muster_common::topology::TopologyMode::Required;
use muster_common::{GangId, Time};
use muster_engine::command::{Command, ConfigChange, MakeWindow, NodeAction, Principal, StopFor, Which};
use muster_engine::organisation::{Account, CellQuota, Organisation};
use muster_engine::outcome::{Refusal, Response};
use muster_engine::plan::explain::Reason;
use muster_engine::plan::owed::{CellsOf, cells_of};
use muster_engine::policy::{Policy, Reclaim, Score, Taking};
use muster_engine::state::reservation::ReservationKind;
use muster_engine::state::window::Holders;
use plan_support::{exact, name, nodes, total, within};
use std::sync::Arc;
use taking_support::*;

fn cells(level: &str, nodes: u32, number: u32) -> CellQuota {
    CellQuota { model: name("H100"), level: name(level), nodes, gpus: 8, number }
}

/// Owns so many GPUs, some of them as cells, and has them back within two minutes.
fn owner(text: &str, nominal: u32, cells: Vec<CellQuota>) -> Account {
    let mut owner = account(text, None, (nominal, None, None));
    owner.reclaim_within_ms = (!cells.is_empty()).then_some(120_000);
    owner.cells = cells;
    owner
}

fn spread() -> Policy {
    Policy { score: Score::Spread, ..Policy::default() }
}

fn firm(job: Scheduling) -> Scheduling {
    Scheduling { preemptible: false, ..job }
}

fn charge(count: muster_common::job::Count, account: &str) -> Scheduling {
    charged(forever(count), account)
}

/// Four racks of four nodes of eight; `vision` owns half of it.
fn half(policy: Policy, cells: Vec<CellQuota>) -> Cluster {
    let mut cluster = Cluster::new(policy);
    cluster.racks(4, 4, 8);
    cluster.organise(vec![owner("vision", 64, cells), owner("rest", 64, Vec::new())]);
    cluster
}

fn shown(cluster: &Cluster) -> Vec<(u32, u32, u32, u32)> {
    let numbers = |of: CellsOf| (of.cells.number, of.used, of.obtainable, of.lost);
    cells_of(&cluster.player.state).into_iter().map(numbers).collect()
}

/// The invariant, as everybody sees it.
fn nobody_lacks_a_cell(cluster: &Cluster) {
    for of in cells_of(&cluster.player.state) {
        assert_eq!(of.lost, 0, "{of:?}");
        assert_eq!(of.used + of.obtainable, of.cells.number, "{of:?}");
    }
}

/// The paper's: a team with 64 GPUs of its own, and others' jobs of one GPU that fill holes.
fn eight_nodes_beside_small_jobs(cells: Vec<CellQuota>, may_be_stopped: bool) -> (bool, Cluster) {
    let mut cluster = half(spread(), cells);
    for _ in 0..64 {
        let one = charge(nodes(1, 1), "rest");
        cluster.submit(if may_be_stopped { one } else { firm(one) });
    }
    let gang = cluster.submit(firm(charge(nodes(8, 8), "vision")));
    (cluster.runs(gang), cluster)
}

#[test]
fn hived_invariant_64_guaranteed_gpus_are_8_whole_nodes_which_a_count_does_not_give() {
    let (starts, mut counted) = eight_nodes_beside_small_jobs(Vec::new(), false);
    assert!(!starts, "64 GPUs are free, and not one whole node");
    counted.pass(1_000_000);
    assert!(counted.stopped().is_empty());
    let (starts, cluster) = eight_nodes_beside_small_jobs(vec![cells("node", 1, 8)], false);
    assert!(starts);
    let small = cluster.player.state.gangs().values().filter(|gang| gang.current().is_some()).count();
    assert_eq!(small, 65, "and all the small jobs run beside them");
    nobody_lacks_a_cell(&cluster);
}

#[test]
fn small_jobs_that_may_be_stopped_use_owed_cells_and_leave_them_even_though_they_are_within_their_own() {
    let (starts, counted) = eight_nodes_beside_small_jobs(Vec::new(), true);
    assert!(!starts && counted.stopped().is_empty(), "nobody holds more than its own");
    let (starts, mut cluster) = eight_nodes_beside_small_jobs(vec![cells("node", 1, 8)], true);
    assert!(starts);
    assert!(cluster.watch.stops.iter().all(|stop| stop.2 == StopFor::Guarantee));
    assert_eq!(cluster.watch.stops.len(), 32, "four on each of eight nodes, and no other");
    cluster.pass(120);
    let running = cluster.player.state.gangs().values().filter(|gang| gang.current().is_some()).count();
    assert_eq!(running, 65, "they go on elsewhere");
}

#[test]
fn a_cell_of_nodes_in_one_rack_keeps_racks_whole_from_the_top_down() {
    let mut cluster = half(spread(), vec![cells("rack", 4, 2)]);
    let ones: Vec<GangId> = (0..8).map(|_| cluster.submit(firm(charge(nodes(1, 8), "rest")))).collect();
    assert!(ones.iter().all(|gang| cluster.runs(*gang)), "in two racks there are eight nodes");
    nobody_lacks_a_cell(&cluster);
    for _ in 0..2 {
        let gang = cluster.submit(within(firm(charge(nodes(4, 8), "vision")), "rack", Required, 1));
        assert!(cluster.runs(gang));
    }
    assert_eq!(shown(&cluster), [(2, 2, 0, 0)]);
}

#[test]
fn what_would_cost_somebody_a_cell_waits_and_why_says_whose() {
    let mut cluster = half(spread(), vec![cells("rack", 4, 2)]);
    let wide = cluster.submit(firm(charge(total(60), "rest")));
    assert!(cluster.runs(wide));
    nobody_lacks_a_cell(&cluster);
    let more = cluster.submit(firm(charge(nodes(1, 8), "rest")));
    assert!(!cluster.runs(more));
    let mut cluster = half(Policy::default(), vec![cells("rack", 4, 2)]);
    cluster.organise(vec![owner("vision", 64, vec![cells("rack", 4, 2)]), owner("rest", 32, Vec::new())]);
    (0..8).for_each(|_| assert!(cluster.submit(firm(charge(nodes(1, 8), "rest"))).job.0 > 0));
    let gang = cluster.submit(firm(charge(nodes(1, 8), "rest")));
    assert!(!cluster.runs(gang));
    let why = cluster.why(gang);
    // By number there is nothing left for it either.
    assert_eq!(why.blockers[0].reason, Reason::Quota, "{why:?}");

    let mut cluster = half(Policy::default(), vec![cells("rack", 4, 2)]);
    // One small job of the owner's own, outside of its cells by number.
    (0..7).for_each(|_| assert!(cluster.submit(firm(charge(nodes(1, 8), "rest"))).job.0 > 0));
    (0..4).for_each(|_| assert!(cluster.submit(firm(charge(nodes(1, 1), "rest"))).job.0 > 0));
    let gang = cluster.submit(firm(within(charge(nodes(2, 2), "rest"), "rack", Required, 1)));
    assert!(!cluster.runs(gang), "two of its own nodes in one rack have too little left");
    let why = cluster.why(gang);
    assert_eq!(why.blockers[0].reason, Reason::OwedCells, "{why:?}");
    let detail = &why.blockers[0].detail;
    assert!(detail.contains("account `vision` owns 2 x 4 nodes of 8 H100 in one rack"), "{detail}");
    assert_eq!(why.blockers.len(), 1, "{why:?}");
}

#[test]
fn what_cannot_be_stopped_in_time_uses_no_owed_cell() {
    let mut cluster = half(spread(), vec![cells("node", 1, 8)]);
    let mut slow = charge(nodes(1, 1), "rest");
    slow.checkpoint.grace_ms = 600_000;
    let ones: Vec<GangId> = (0..64).map(|_| cluster.submit(slow.clone())).collect();
    assert!(ones.iter().all(|gang| cluster.runs(*gang)));
    let gang = cluster.submit(firm(charge(nodes(8, 8), "vision")));
    assert!(cluster.runs(gang), "they were placed as if nobody could stop them");
    assert!(cluster.stopped().is_empty());
    // A shortest run that policy leaves alone counts as grace does.
    let reclaim = Reclaim { min_run_ms: 100_000, ..Reclaim::default() };
    let policy = Policy { taking: Taking { reclaim, ..Taking::default() }, ..spread() };
    let mut cluster = half(policy, vec![cells("node", 1, 8)]);
    (0..64).for_each(|_| assert!(cluster.submit(charge(nodes(1, 1), "rest")).job.0 > 0));
    assert!({
        let gang = cluster.submit(firm(charge(nodes(8, 8), "vision")));
        cluster.runs(gang)
    });
}

#[test]
fn a_gang_within_its_shape_starts_within_the_time_promised() {
    let mut cluster = half(spread(), vec![cells("rack", 4, 2)]);
    cluster.watch.release_ms = 30_000;
    (0..128).for_each(|_| assert!(cluster.submit(charge(nodes(1, 1), "rest")).job.0 > 0));
    cluster.pass(10);
    let asked = cluster.now();
    let gang = cluster.submit(firm(within(charge(nodes(4, 8), "vision"), "rack", Required, 1)));
    assert!(!cluster.runs(gang));
    assert_eq!(cluster.stopped().len(), 32, "one rack's");
    cluster.pass(120);
    assert!(cluster.runs(gang));
    let started = cluster.watch.exact.starts[&gang][0];
    assert!(started.since_ms(asked) <= 120_000);
    nobody_lacks_a_cell(&cluster);
}

#[test]
fn short_runs_that_come_and_go_where_policy_lets_them_run_on_do_not_keep_a_guarantee_waiting() {
    let mut cluster = Cluster::new(a_minute_alone());
    cluster.racks(2, 3, 8);
    cluster.organise(vec![owner("vision", 24, vec![cells("rack", 3, 1)]), owner("rest", 24, Vec::new())]);
    // One node of six is given back every twelve seconds, and each time somebody else begins there.
    for _ in 0..6 {
        cluster.submit(charged(exact(nodes(1, 8), 72), "rest"));
        cluster.pass(12);
    }
    (0..30).for_each(|_| _ = cluster.submit(charged(exact(nodes(1, 8), 72), "rest")));
    let asked = cluster.now();
    let gang = cluster.submit(firm(within(charge(nodes(3, 8), "vision"), "rack", Required, 1)));
    assert!(!cluster.runs(gang));
    cluster.pass(120);
    assert!(cluster.runs(gang));
    assert!(cluster.watch.exact.starts[&gang][0].since_ms(asked) <= 120_000);
    let lately = |stop: &(GangId, Option<GangId>, StopFor, muster_common::Time)| {
        let began = cluster.watch.exact.starts[&stop.0][0];
        stop.3.since_ms(began) < 60_000
    };
    assert!(!cluster.watch.stops.iter().any(lately), "{:?}", cluster.watch.stops);
}

#[test]
fn a_guarantee_leaves_nodes_alone_that_people_have_put_aside_though_others_there_would_lose_less() {
    let mut cluster = Cluster::new(Policy::default());
    let racks = cluster.racks(2, 3, 8);
    cluster.organise(vec![owner("vision", 24, vec![cells("rack", 3, 1)]), owner("rest", 24, Vec::new())]);
    let window = MakeWindow {
        name: name("firmware"),
        start: Time(1_000_000),
        end: Time(2_000_000),
        nodes: Which::Nodes((0..3).map(|at| name(&format!("r0n{at}"))).collect()),
        holders: Holders::Nobody,
        reason: "new firmware".into(),
        by: Principal("op".into()),
        managed: false,
    };
    cluster.commit(Command::MakeWindow(Box::new(window)));
    let long: Vec<GangId> = (0..3).map(|_| cluster.submit(charge(nodes(1, 8), "rest"))).collect();
    cluster.pass(10);
    let mut short = charge(nodes(1, 8), "rest");
    short.limits.time_ms = Some(500_000);
    let short: Vec<GangId> = (0..3).map(|_| cluster.submit(short.clone())).collect();
    assert!(long.iter().chain(&short).all(|gang| cluster.runs(*gang)));
    let gang = cluster.submit(firm(within(charge(nodes(3, 8), "vision"), "rack", Required, 1)));
    cluster.pass(120);
    assert!(cluster.runs(gang));
    assert_eq!(cluster.nodes_of(gang).into_iter().collect::<Vec<_>>(), racks[1]);
    assert!(cluster.watch.stops.iter().all(|stop| long.contains(&stop.0)), "{:?}", cluster.watch.stops);
}

/// A small job of `vision` is in its rack, which leaves it a whole one by shape only: what `nlp` has in its own stays.
#[test]
fn who_has_begun_its_own_cell_does_not_take_anothers_for_it() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.racks(3, 3, 8);
    let ours = vec![cells("rack", 3, 1), cells("node", 1, 1)];
    let theirs = vec![cells("rack", 3, 1)];
    let accounts = vec![owner("vision", 32, ours), owner("nlp", 24, theirs), owner("rest", 16, Vec::new())];
    cluster.organise(accounts);
    let short = cluster.submit(firm(charged(exact(nodes(1, 8), 100), "vision")));
    let others = cluster.submit(firm(within(charge(nodes(2, 8), "rest"), "rack", Required, 1)));
    let small = cluster.submit(firm(charged(exact(nodes(1, 8), 5000), "vision")));
    assert!([short, small, others].into_iter().all(|gang| cluster.runs(gang)));
    cluster.pass(200);
    // Its node, its rack, and the rack of `nlp`.
    assert_eq!(shown(&cluster), [(1, 0, 1, 0), (1, 1, 0, 0), (1, 0, 1, 0)]);
    let rack = |account| within(charge(nodes(3, 8), account), "rack", Required, 1);
    let theirs = cluster.submit(rack("nlp"));
    let ours = cluster.submit(rack("vision"));
    cluster.pass(1000);
    assert!(cluster.runs(theirs) && !cluster.runs(ours));
    assert!(cluster.stopped().is_empty(), "{:?}", cluster.watch.stops);
    cluster.pass(5000);
    assert!(cluster.runs(theirs) && cluster.runs(ours), "each in its own");
    assert!(cluster.stopped().is_empty(), "{:?}", cluster.watch.stops);
}

/// Small jobs within their shape that may be stopped are in every rack: one of them moves for a whole one, and
/// the wide one is not moved back.
#[test]
fn what_is_within_its_shape_moves_once_for_what_is_harder_to_place() {
    let mut cluster = Cluster::new(Policy::default());
    let racks = cluster.racks(2, 3, 8);
    cluster.organise(vec![owner("vision", 24, vec![cells("rack", 3, 1)]), owner("nlp", 16, vec![cells("node", 1, 2)])]);
    cluster.submit(within(charged(exact(nodes(2, 8), 100), "vision"), "rack", Required, 1));
    let small: Vec<GangId> = (0..2).map(|_| cluster.submit(charge(nodes(1, 8), "nlp"))).collect();
    let is_in =
        |rack: usize| small.iter().any(|gang| cluster.nodes_of(*gang).iter().any(|on| racks[rack].contains(on)));
    assert!(is_in(0) && is_in(1));
    cluster.pass(200);
    let wide = cluster.submit(within(charge(nodes(3, 8), "vision"), "rack", Required, 1));
    cluster.pass(1000);
    assert!(cluster.runs(wide) && small.iter().all(|gang| cluster.runs(*gang)));
    assert_eq!(cluster.watch.stops.len(), 1, "{:?}", cluster.watch.stops);
}

#[test]
fn beyond_its_shape_nobody_is_stopped_for_an_account() {
    let mut cluster = half(spread(), vec![cells("node", 1, 8)]);
    (0..64).for_each(|_| assert!(cluster.submit(charge(nodes(1, 1), "rest")).job.0 > 0));
    let gang = cluster.submit(firm(within(charge(nodes(4, 8), "vision"), "rack", Required, 1)));
    cluster.pass(1000);
    assert!(!cluster.runs(gang), "it owns nodes, and not four in one rack");
    assert!(cluster.stopped().is_empty());
    let gang = cluster.submit(firm(charge(nodes(4, 8), "vision")));
    assert!(cluster.runs(gang));
}

#[test]
fn each_node_that_an_owners_small_jobs_begin_is_one_of_its_cells() {
    let mut cluster = half(spread(), vec![cells("node", 1, 8)]);
    cluster.organise(vec![owner("vision", 64, vec![cells("node", 1, 8)]), owner("rest", 64, Vec::new())]);
    (0..8).for_each(|_| assert!(cluster.submit(firm(charge(nodes(1, 8), "rest"))).job.0 > 0));
    let small: Vec<GangId> = (0..8).map(|_| cluster.submit(firm(charge(nodes(1, 1), "vision")))).collect();
    let homes: std::collections::BTreeSet<_> = small.iter().flat_map(|gang| cluster.nodes_of(*gang)).collect();
    assert!(!homes.is_empty());
    nobody_lacks_a_cell(&cluster);
    let used = shown(&cluster)[0].1;
    assert_eq!(used as usize, homes.len(), "each node that is begun is one of its cells");
}

#[test]
fn lost_hardware_costs_an_owner_a_cell_openly_and_nobody_another() {
    let mut cluster = half(Policy::default(), vec![cells("rack", 4, 2)]);
    cluster
        .organise(vec![owner("vision", 64, vec![cells("rack", 4, 2)]), owner("rest", 64, vec![cells("rack", 4, 2)])]);
    let node = cluster.player.state.nodes().keys().next().copied().unwrap();
    let action = NodeAction::Cordon { reason: "broken".into() };
    let by = Principal("test".into());
    cluster.commit(Command::NodeAdmin { node, action, by: by.clone() });
    assert_eq!(shown(&cluster), [(2, 0, 2, 0), (2, 0, 1, 1)], "the last in the document goes short, and it shows");
    let one = cluster.submit(firm(charge(nodes(1, 8), "rest")));
    assert!(cluster.runs(one));
    assert_eq!(shown(&cluster), [(2, 0, 2, 0), (2, 0, 1, 1)], "what is left of its rack is there for it");
    cluster.commit(Command::NodeAdmin { node, action: NodeAction::Uncordon, by });
    assert_eq!(shown(&cluster), [(2, 0, 2, 0), (2, 1, 1, 0)]);
}

fn refusal(cluster: &mut Cluster, change: ConfigChange) -> String {
    let refused = Command::Configure { change: Box::new(change), by: Principal("test".into()) };
    let mut state = cluster.player.state.clone();
    let entry = muster_engine::Entry { index: state.applied_index() + 1, term: 1, at: state.now(), command: refused };
    match muster_engine::apply(&mut state, &entry).response {
        Response::Refused(Refusal::Invalid(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_device_that_an_owner_has_half_of_is_shared_with_nobody_who_would_cost_it_the_cell() {
    let mut cluster = Cluster::new(spread());
    cluster.racks(1, 3, 8);
    cluster.organise(vec![owner("vision", 8, vec![cells("node", 1, 1)]), owner("rest", 16, Vec::new())]);
    let half = |account: &str| {
        let mut half = firm(charge(nodes(1, 1), account));
        half.groups[0].share = Share(500);
        half
    };
    let own = cluster.submit(half("vision"));
    let rest = [firm(charge(nodes(1, 8), "rest")), firm(charge(nodes(1, 7), "rest")), half("rest")];
    let rest = rest.map(|job| cluster.submit(job));
    assert!(rest.iter().all(|gang| cluster.runs(*gang)));
    assert_ne!(cluster.nodes_of(rest[2]), cluster.nodes_of(own));
    nobody_lacks_a_cell(&cluster);
}

#[test]
fn a_wounded_gang_is_not_mended_with_a_node_of_the_last_cell() {
    let mut cluster = Cluster::new(Policy::default());
    let racks = cluster.racks(3, 3, 8);
    cluster.organise(vec![owner("vision", 24, vec![cells("rack", 3, 1)]), owner("rest", 48, Vec::new())]);
    let wide = cluster.submit(firm(charge(nodes(4, 8), "rest")));
    for _ in 0..2 {
        cluster.submit(firm(charge(nodes(1, 8), "rest")));
    }
    let held = cluster.nodes_of(wide);
    let alone =
        racks.iter().find_map(|rack| match rack.iter().filter(|node| held.contains(node)).collect::<Vec<_>>()[..] {
            [node] => Some(*node),
            _ => None,
        });
    let action = NodeAction::Drain { reason: "test".into(), deadline_ms: Some(0) };
    let node = alone.expect("it has one rack and a node");
    cluster.commit(Command::NodeAdmin { node, action, by: Principal("op".into()) });
    cluster.decide();
    assert!(!cluster.runs(wide));
    assert!(cluster.kept(wide, ReservationKind::Wounded).is_some());
    nobody_lacks_a_cell(&cluster);
}

fn document(accounts: Vec<Account>) -> ConfigChange {
    ConfigChange::Organisation(Arc::new(Organisation { accounts, ..Organisation::default() }))
}

#[test]
fn a_document_that_promises_what_is_not_there_is_refused_with_the_numbers() {
    let mut cluster = half(Policy::default(), Vec::new());
    let why = refusal(&mut cluster, document(vec![owner("vision", 128, vec![cells("rak", 4, 1)])]));
    assert!(why.contains("account[0].cells[0].level: there is no topology level `rak`; did you mean `rack`?"), "{why}");
    let why = refusal(&mut cluster, document(vec![owner("vision", 128, vec![cells("rack", 5, 1)])]));
    assert!(
        why.contains("1 cells of the shape \"1 x 5 nodes of 8 H100 in one rack\" are owned") && why.contains("has 0"),
        "{why}"
    );
    let half_nodes = CellQuota { gpus: 4, ..cells("node", 1, 4) };
    let why = refusal(&mut cluster, document(vec![owner("vision", 128, vec![half_nodes])]));
    assert_eq!(why, "account[0].cells[0].gpus: no node has 4 H100; nodes with any have 8");
    let other_model = CellQuota { model: name("H10"), ..cells("node", 1, 4) };
    let why = refusal(&mut cluster, document(vec![owner("vision", 128, vec![other_model])]));
    assert!(why.starts_with("account[0].cells[0]: with these, cells of 32 H10 are owned"), "{why}");
    assert!(why.ends_with("did you mean `H100`?"), "{why}");
    let two = vec![owner("vision", 96, vec![cells("rack", 4, 3)]), owner("rest", 32, vec![cells("rack", 2, 3)])];
    let why = refusal(&mut cluster, document(two));
    assert!(why.contains("account[1].cells[0]"), "{why}");
}

#[test]
fn a_change_that_would_break_a_guarantee_in_force_is_refused() {
    let mut cluster = half(spread(), vec![cells("rack", 4, 2)]);
    (0..8).for_each(|_| assert!(cluster.submit(firm(charge(nodes(1, 8), "rest"))).job.0 > 0));
    let third = vec![owner("vision", 64, vec![cells("rack", 4, 2)]), owner("rest", 64, vec![cells("rack", 4, 2)])];
    cluster.organise(third);
    let also = vec![
        owner("vision", 64, vec![cells("rack", 4, 2)]),
        owner("rest", 32, Vec::new()),
        owner("new", 32, vec![cells("rack", 4, 1)]),
    ];
    let why = refusal(&mut cluster, document(also));
    assert!(why.contains("account `new` would own 1 x 4 nodes of 8 H100 in one rack and could not have 1"), "{why}");
    let at_once = vec![Account { reclaim_within_ms: Some(1000), ..owner("vision", 64, vec![cells("rack", 4, 2)]) }];
    let why = refusal(&mut cluster, document(at_once));
    assert!(why.starts_with("account[0].reclaim_within_ms: in 1000 ms nothing can be stopped"), "{why}");
    // So is another fabric without the level, and a policy under which nothing could be stopped in time.
    let why = refusal(&mut cluster, ConfigChange::Fabric(plan_support::fabric(&["row"])));
    assert!(why.contains("there is no topology level `rack`"), "{why}");
    let mut cluster = half(spread(), vec![cells("rack", 4, 2)]);
    (0..128).for_each(|_| assert!(cluster.submit(charge(nodes(1, 1), "rest")).job.0 > 0));
    let reclaim = Reclaim { min_run_ms: 600_000, ..Reclaim::default() };
    let policy = Policy { taking: Taking { reclaim, ..Taking::default() }, ..spread() };
    let why = refusal(&mut cluster, ConfigChange::Policy(policy));
    assert!(why.contains("reclaim_within_ms: in 120000 ms nothing can be stopped"), "{why}");
    let reclaim = Reclaim { min_run_ms: 100_000, ..Reclaim::default() };
    let policy = Policy { taking: Taking { reclaim, ..Taking::default() }, ..spread() };
    let why = refusal(&mut cluster, ConfigChange::Policy(policy));
    assert!(why.contains("could not have 2 of them"), "{why}");
}

/// What borrows has run for less than a minute when the owner comes. Nobody else begins on what is chosen meanwhile, not
/// even where it ends early, and it goes once the minute is over.
#[test]
fn what_is_chosen_of_those_who_have_just_begun_is_held_until_they_may_be_stopped() {
    let mut cluster = Cluster::new(a_minute_alone());
    let racks = cluster.racks(1, 2, 8);
    cluster.organise(vec![owner("vision", 8, vec![cells("node", 1, 1)]), owner("rest", 8, Vec::new())]);
    let other = cluster.submit(firm(charge(nodes(1, 8), "rest")));
    cluster.pass(5);
    let half = cluster.submit(charge(nodes(1, 4), "rest"));
    let early = cluster.submit(charged(exact(nodes(1, 4), 20), "rest"));
    let chosen = cluster.nodes_of(half);
    assert!(cluster.runs(other) && chosen == cluster.nodes_of(early) && chosen != cluster.nodes_of(other), "{racks:?}");
    cluster.pass(10);
    let owners = cluster.submit(firm(charge(nodes(1, 8), "vision")));
    let kept = cluster.kept(owners, ReservationKind::Victims).expect("the choice is held").clone();
    assert_eq!(
        (kept.start, cluster.stopped()),
        (Time(95_000), vec![]),
        "a minute from 5 s on and half a minute of grace"
    );
    let why = cluster.why(owners).blockers.remove(0);
    assert!(why.reason == Reason::Victims && why.detail.contains("will be stopped for it"), "{why:?}");
    cluster.pass(20);
    let small = cluster.submit(charge(nodes(1, 1), "rest"));
    let runs = [half, early, small].map(|gang| cluster.runs(gang));
    assert_eq!((runs, cluster.stopped()), ([true, false, false], vec![]), "what has come free is kept");
    cluster.pass(30);
    assert_eq!((cluster.stopped(), cluster.runs(owners)), (vec![half], true));
    assert_eq!(cluster.nodes_of(owners), chosen);
}

#[test]
fn what_is_held_for_a_gang_that_is_no_longer_within_its_shape_is_given_up() {
    let mut cluster = Cluster::new(a_minute_alone());
    cluster.racks(1, 2, 8);
    cluster.organise(vec![owner("vision", 8, vec![cells("node", 1, 1)]), owner("rest", 8, Vec::new())]);
    let borrows = cluster.submit(charge(nodes(2, 8), "rest"));
    cluster.pass(10);
    let owners = cluster.submit(firm(charge(nodes(1, 8), "vision")));
    assert!(cluster.kept(owners, ReservationKind::Victims).is_some());
    // It owns none any more.
    cluster.organise(vec![owner("vision", 8, Vec::new()), owner("rest", 8, vec![cells("node", 1, 1)])]);
    cluster.pass(5);
    assert!(cluster.kept(owners, ReservationKind::Victims).is_none());
    cluster.pass(60);
    assert_eq!((cluster.stopped(), cluster.runs(owners)), (vec![borrows], true), "its number is its own still");
}

fn a_minute_alone() -> Policy {
    let reclaim = Reclaim { min_run_ms: 60_000, ..Reclaim::default() };
    Policy { taking: Taking { reclaim, ..Taking::default() }, ..Policy::default() }
}

/// It asks for all of the CPU of a node, of which a job without devices has a core: whoever has to go holds none of what is
/// chosen.
#[test]
fn what_is_chosen_of_who_holds_no_device_settles() {
    let mut cluster = Cluster::new(a_minute_alone());
    cluster.racks(0, 0, 8);
    for (node, rack) in [("a", "r0"), ("b", "r1"), ("c", "r1")] {
        cluster.node(node, plan_support::inventory("H100", 8, &[rack]));
    }
    cluster.organise(vec![owner("rest", 16, vec![cells("rack", 2, 1)]), owner("vision", 8, vec![cells("node", 1, 1)])]);
    let mut core = charge(nodes(1, 0), "rest");
    core.groups[0].cpu_milli_per_node = Some(1000);
    core.groups[0].exclude = vec![name("b"), name("c")];
    let core = cluster.submit(core);
    cluster.pass(10);
    let owners = cluster.submit(firm(charge(nodes(1, 8), "vision")));
    assert!(cluster.runs(core) && !cluster.runs(owners));
    cluster.pass(60);
    assert_eq!((cluster.stopped(), cluster.runs(owners)), (vec![core], true));
}

/// Two nodes of eight, one with work that stays; `vision` owns the other, on which work of `rest` has just begun, and asks.
fn chosen() -> (Cluster, GangId, GangId) {
    let mut cluster = Cluster::new(a_minute_alone());
    cluster.racks(1, 2, 8);
    cluster.organise(vec![owner("vision", 8, vec![cells("node", 1, 1)]), owner("rest", 8, Vec::new())]);
    cluster.submit(firm(charge(nodes(1, 8), "rest")));
    let borrows = cluster.submit(charge(nodes(1, 8), "rest"));
    cluster.pass(10);
    let owners = cluster.submit(firm(charge(nodes(1, 8), "vision")));
    assert!(cluster.runs(borrows) && cluster.kept(owners, ReservationKind::Victims).is_some());
    (cluster, borrows, owners)
}

/// Puts nodes aside from 200 s on.
fn window(cluster: &mut Cluster, gang: GangId, holders: Holders) {
    let nodes = cluster.nodes_of(gang).into_iter().map(|node| cluster.player.state.node(node).unwrap().name.clone());
    let window = MakeWindow {
        name: name("window"),
        start: Time(200_000),
        end: Time(400_000),
        nodes: Which::Nodes(nodes.collect()),
        holders,
        reason: "test".into(),
        by: Principal("op".into()),
        managed: false,
    };
    cluster.commit(Command::MakeWindow(Box::new(window)));
}

#[test]
fn nobody_is_stopped_for_a_choice_that_a_window_has_been_put_over() {
    let (mut cluster, borrows, owners) = chosen();
    window(&mut cluster, borrows, Holders::Nobody);
    cluster.pass(100);
    assert_eq!((cluster.stopped(), cluster.kept(owners, ReservationKind::Victims)), (vec![], None));
}

#[test]
fn a_window_of_the_own_account_is_no_reason_to_give_up_a_choice() {
    let (mut cluster, borrows, owners) = chosen();
    window(&mut cluster, borrows, Holders::Account(name("vision")));
    cluster.pass(10);
    assert!(cluster.kept(owners, ReservationKind::Victims).is_some() && cluster.stopped().is_empty());
    cluster.pass(50);
    assert_eq!((cluster.stopped(), cluster.runs(owners)), (vec![borrows], true));
}

#[test]
fn what_is_chosen_for_a_job_that_is_held_is_anothers_to_choose() {
    let (mut cluster, borrows, owners) = chosen();
    let by = Principal("op".into());
    cluster.commit(Command::Hold { job: owners.job, hold: true, by });
    let other = cluster.submit(firm(charge(nodes(1, 8), "vision")));
    assert!(cluster.kept(owners, ReservationKind::Victims).is_none());
    cluster.pass(60);
    assert_eq!((cluster.stopped(), cluster.runs(other)), (vec![borrows], true));
}
