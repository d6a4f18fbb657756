//! Consolidation: small gangs move for a larger one that fits nowhere though as much is free, and only so.

use crate::plan_support;
use crate::taking_support;

use muster_common::calendar::Period;
use muster_common::job::{Limits, Scheduling};
use muster_common::money::MicroUsd;
use muster_common::topology::TopologyMode::Required;
use muster_common::{GangId, NodeId, Time};
use muster_engine::command::{
    Command, CommitPlan, ConfigChange, Consolidation, MakeWindow, Move, PlanStep, Principal, ReportBody, StopFor, Which,
};
use muster_engine::organisation::{Account, Budget, CellQuota, Organisation, Price};
use muster_engine::outcome::{Refusal, Rejection, Response};
use muster_engine::plan::explain::Reason;
use muster_engine::policy::{Consolidate, Policy, Preempt, Replan, Taking};
use muster_engine::state::reservation::ReservationKind;
use muster_engine::state::window::Holders;
use plan_support::{configure, exact, inventory, limited, name, nodes, within};
use std::collections::BTreeSet;
use std::sync::Arc;
use taking_support::*;

/// At once, whatever may be gained, and at any loss.
fn eager() -> Consolidate {
    Consolidate { wait_ms: 0, min_run_ms: 0, gain_ms: 0, loss_max_percent: 1000, ..Consolidate::default() }
}

fn firm(job: Scheduling) -> Scheduling {
    Scheduling { preemptible: false, ..job }
}

fn moving(consolidate: Consolidate) -> Policy {
    Policy { taking: Taking { consolidate: Some(consolidate), ..Taking::default() }, ..Policy::default() }
}

/// Two nodes of eight: a gang of one GPU and another small one are left on the first, six GPUs of the second are taken.
struct Fragments {
    cluster: Cluster,
    small: [GangId; 2],
    beside: GangId,
}

impl Fragments {
    fn of(policy: Policy, small: [Scheduling; 2], beside: Scheduling) -> Self {
        Self::on(policy, |_| "me", small, beside)
    }

    /// `set` may say more of the cluster first, and on whose account it is filled up.
    fn on(
        policy: Policy,
        set: impl FnOnce(&mut Cluster) -> &'static str,
        small: [Scheduling; 2],
        beside: Scheduling,
    ) -> Self {
        let mut cluster = Cluster::new(policy);
        cluster.racks(1, 2, 8);
        let account = set(&mut cluster);
        let taken: u32 = small.iter().map(|one| one.devices() as u32).sum();
        cluster.submit(charged(exact(nodes(1, 8 - taken), 100), account));
        let small = small.map(|one| cluster.submit(one));
        let beside = cluster.submit(beside);
        assert!(cluster.runs(beside) && small.iter().all(|one| cluster.nodes_of(*one) != cluster.nodes_of(beside)));
        cluster.pass(1000);
        Self { cluster, small, beside }
    }

    fn usual(policy: Policy) -> Self {
        Self::of(policy, [forever(nodes(1, 1)), forever(nodes(1, 1))], forever(nodes(1, 6)))
    }
}

#[test]
fn a_node_is_opened_for_a_gang_of_eight_by_moving_two_gangs_of_one() {
    let Fragments { mut cluster, small, beside } = Fragments::usual(moving(eager()));
    cluster.watch.release_ms = 20_000;
    let (left, to) = (cluster.nodes_of(small[0]), cluster.nodes_of(beside));
    let large = cluster.submit(forever(nodes(1, 8)));
    assert_eq!(cluster.stopped(), small);
    assert!(cluster.watch.stops.iter().all(|stop| (stop.1, stop.2) == (Some(large), StopFor::Consolidation)));
    let room = cluster.kept(large, ReservationKind::Victims).expect("the room is held").clone();
    assert_eq!(room.witness.iter().filter(|device| device.node == left[0]).count(), 8);
    for one in small {
        let place = cluster.kept(one, ReservationKind::Moved).expect("so is the new place").clone();
        assert_eq!((place.witness.len(), place.witness[0].node), (1, to[0]));
    }
    // Others get none of it, and why tells everybody.
    let other = cluster.submit(forever(nodes(1, 1)));
    cluster.pass(5);
    assert!(!cluster.runs(other));
    let why = cluster.why(large);
    assert_eq!((why.blockers[0].reason, &why.blockers[0].gangs[..]), (Reason::Victims, &small[..]));
    assert!(why.blockers[0].detail.contains("are moved to make room for it"), "{}", why.blockers[0].detail);
    assert!(why.blockers[0].until.is_some());
    let why = cluster.why(small[0]);
    assert_eq!((why.blockers[0].reason, &why.blockers[0].gangs[..]), (Reason::Moved, &[large][..]));
    assert_eq!(why.blockers[0].nodes, to);
    cluster.pass(20);
    assert!(cluster.runs(large) && small.iter().all(|one| cluster.runs(*one) && cluster.nodes_of(*one) == to));
    assert_eq!(cluster.nodes_of(large), left);
    assert_eq!(cluster.stopped().len(), 2, "and nobody else");
}

#[test]
fn nobody_is_moved_unless_the_policy_says_so() {
    let mut of = Fragments::usual(Policy::default());
    let large = of.cluster.submit(forever(nodes(1, 8)));
    of.cluster.pass(100_000);
    assert!(!of.cluster.runs(large) && of.cluster.stopped().is_empty());
}

#[test]
fn nobody_is_moved_beyond_what_the_policy_allows() {
    let table = [
        ("gangs_max", Consolidate { gangs_max: 1, ..eager() }),
        ("per_hour", Consolidate { per_hour: 1, ..eager() }),
        // Two GPUs for a quarter of an hour and twice the restart, against 8 GPUs for a day.
        ("loss_max_percent", Consolidate { loss_max_percent: 1, ..eager() }),
    ];
    for (key, rules) in table {
        let mut of = Fragments::usual(moving(rules));
        of.cluster.pass(7200);
        let large = of.cluster.submit(forever(nodes(1, 8)));
        assert!(!of.cluster.runs(large) && of.cluster.stopped().is_empty(), "{key}");
    }
}

#[test]
fn a_gang_waits_for_as_long_as_the_policy_says_first_and_what_is_young_is_left_alone() {
    let mut of = Fragments::usual(moving(Consolidate { wait_ms: 600_000, ..eager() }));
    let large = of.cluster.submit(forever(nodes(1, 8)));
    of.cluster.pass(599);
    assert!(!of.cluster.runs(large) && of.cluster.stopped().is_empty());
    of.cluster.pass(1);
    assert!(of.cluster.runs(large), "nothing but time had to pass");
    // They have run for a thousand seconds.
    let mut of = Fragments::usual(moving(Consolidate { min_run_ms: 1_500_000, ..eager() }));
    let large = of.cluster.submit(forever(nodes(1, 8)));
    of.cluster.pass(499);
    assert!(!of.cluster.runs(large) && of.cluster.stopped().is_empty());
    of.cluster.pass(1);
    assert!(of.cluster.runs(large));
}

#[test]
fn who_was_moved_as_often_as_the_policy_allows_stays() {
    for (per_victim, stops) in [(1, 2), (2, 4)] {
        let policy = moving(Consolidate { per_victim, ..eager() });
        let mut of = Fragments::of(policy, [nodes_job(1), nodes_job(1)], firm(exact(nodes(1, 6), 5000)));
        let first = of.cluster.submit(firm(forever(nodes(1, 8))));
        assert!(of.cluster.runs(first));
        assert_eq!(of.cluster.stopped(), of.small);
        // Their new node comes free but for them, and there is another place.
        of.cluster.pass(5000);
        of.cluster.node("more", inventory("H100", 2, &["r0"]));
        let second = of.cluster.submit(forever(nodes(1, 8)));
        assert_eq!((of.cluster.runs(second), of.cluster.stopped().len()), (stops == 4, stops), "{per_victim}");
    }
}

#[test]
fn nobody_moves_when_one_of_them_has_no_new_place() {
    let mut cluster = Cluster::new(moving(eager()));
    cluster.racks(1, 4, 8);
    // A gang of one and one of two on the first node; one GPU is free on each of the others.
    cluster.submit(exact(nodes(1, 5), 100));
    let small = [cluster.submit(forever(nodes(1, 1))), cluster.submit(forever(nodes(1, 2)))];
    (0..3).for_each(|_| _ = cluster.submit(forever(nodes(1, 7))));
    cluster.pass(1000);
    assert_eq!(cluster.nodes_of(small[0]), cluster.nodes_of(small[1]));
    let large = cluster.submit(forever(nodes(1, 8)));
    cluster.pass(10_000);
    assert!(!cluster.runs(large) && cluster.stopped().is_empty());
    cluster.node("more", inventory("H100", 2, &["r0"]));
    cluster.decide();
    assert!(cluster.runs(large), "with one more place each has its own");
}

#[test]
fn who_may_not_be_stopped_or_would_not_start_again_is_not_moved() {
    // After its deadline it would be given up.
    let late = Scheduling { deadline_at_ms: Some(5_000_000), ..limited(nodes_job(1), 4_500, 4_500) };
    let cases = [("may be", nodes_job(1), true), ("firm", firm(nodes_job(1)), false), ("late", late, false)];
    for (what, one, moves) in cases {
        let mut of = Fragments::of(moving(eager()), [nodes_job(1), one], firm(nodes_job(6)));
        let large = of.cluster.submit(forever(nodes(1, 8)));
        assert_eq!((of.cluster.runs(large), of.cluster.stopped().is_empty()), (moves, !moves), "{what}");
    }
    let mut of = Fragments::of(moving(eager()), [nodes_job(1), nodes_job(1)], firm(nodes_job(6)));
    let job = of.small[0].job;
    of.cluster.commit(Command::Hold { job, hold: true, by: Principal("ann".into()) });
    let large = of.cluster.submit(forever(nodes(1, 8)));
    assert!(!of.cluster.runs(large) && of.cluster.stopped().is_empty(), "held, it would wait for its release");
}

fn nodes_job(devices: u32) -> Scheduling {
    forever(nodes(1, devices))
}

#[test]
fn nobody_is_moved_for_a_gang_that_starts_soon_all_the_same() {
    let run = |run_s| {
        let mut of = Fragments::of(
            moving(Consolidate { gain_ms: 600_000, ..eager() }),
            [exact(nodes(1, 1), run_s), exact(nodes(1, 1), run_s)],
            forever(nodes(1, 6)),
        );
        let large = of.cluster.submit(forever(nodes(1, 8)));
        (of.cluster.stopped().len(), of.cluster.runs(large))
    };
    assert_eq!(run(1400), (0, false), "it starts in 400 s");
    assert_eq!(run(90_000), (2, true), "a day is long");
}

#[test]
fn gangs_are_not_moved_for_another_of_their_size_or_for_less_than_is_free() {
    let mut of = Fragments::of(moving(eager()), [nodes_job(1), nodes_job(3)], nodes_job(4));
    // Four are free on each node, and three in a piece are there.
    let three = of.cluster.submit(forever(nodes(1, 3)));
    assert!(of.cluster.runs(three) && of.cluster.stopped().is_empty());
    let sixteen = of.cluster.submit(forever(nodes(2, 8)));
    assert!(!of.cluster.runs(sixteen) && of.cluster.stopped().is_empty());
}

#[test]
fn who_loses_least_moves() {
    let mut cluster = Cluster::new(moving(eager()));
    cluster.racks(1, 3, 8);
    // One small gang on each of two nodes, and one GPU free on the third.
    cluster.submit(exact(nodes(1, 7), 5000));
    let old = cluster.submit(forever(nodes(1, 1)));
    cluster.pass(1000);
    cluster.submit(exact(nodes(1, 7), 4000));
    let young = cluster.submit(forever(nodes(1, 1)));
    cluster.submit(forever(nodes(1, 7)));
    cluster.pass(5000);
    assert_ne!(cluster.nodes_of(old), cluster.nodes_of(young));
    cluster.report(old, ReportBody::Checkpointed);
    let large = cluster.submit(forever(nodes(1, 8)));
    assert!(cluster.runs(large));
    assert_eq!(cluster.stopped(), [old], "it has just saved all it did");
}

#[test]
fn a_leaf_of_four_nodes_is_opened() {
    let mut cluster = Cluster::new(moving(eager()));
    let racks = cluster.racks(2, 4, 8);
    let filler = cluster.submit(exact(nodes(4, 7), 100));
    let leaf = cluster.nodes_of(filler);
    let one = cluster.submit(forever(nodes(1, 1)));
    cluster.submit(forever(nodes(4, 7)));
    cluster.pass(1000);
    let own = racks.iter().find(|rack| rack.contains(&cluster.nodes_of(one)[0])).unwrap().clone();
    assert_eq!(own, leaf);
    let large = cluster.submit(within(forever(nodes(4, 8)), "rack", Required, 1));
    assert!(cluster.runs(large) && cluster.runs(one));
    assert_eq!((cluster.nodes_of(large), cluster.stopped()), (leaf, vec![one]));
}

#[test]
fn new_places_keep_off_windows_and_booked_starts() {
    let window = |cluster: &mut Cluster, node: &str| {
        let asked = MakeWindow {
            name: name("firmware"),
            start: Time(50_000_000),
            end: Time(60_000_000),
            nodes: Which::Nodes(vec![name(node)]),
            holders: Holders::Nobody,
            reason: "firmware".into(),
            by: Principal("op".into()),
            managed: false,
        };
        let made = cluster.commit(Command::MakeWindow(Box::new(asked)));
        assert!(matches!(made.response, Response::WindowMade { .. }), "{made:?}");
    };
    for (node, run_s, moves) in [("r0n1", None, false), ("r0n1", Some(20_000), true), ("r0n0", None, false)] {
        let one = || run_s.map_or(forever(nodes(1, 1)), |run_s| limited(forever(nodes(1, 1)), run_s, run_s));
        let mut of = Fragments::of(moving(eager()), [one(), one()], forever(nodes(1, 6)));
        window(&mut of.cluster, node);
        let large = of.cluster.submit(forever(nodes(1, 8)));
        assert_eq!(of.cluster.runs(large), moves, "{node}, {run_s:?}");
        assert_eq!(of.cluster.stopped().is_empty(), !moves);
    }
    // Somebody is to start on the other node when its gang ends.
    for (run_s, moves) in [(3_000_000, false), (2500, true)] {
        let one = || exact(nodes(1, 1), run_s);
        let beside = Scheduling { preemptible: false, ..exact(nodes(1, 6), 9000) };
        let mut of = Fragments::of(moving(eager()), [one(), one()], beside);
        let mut first = forever(nodes(1, 8));
        first.groups[0].exclude = [name("r0n0")].into();
        let first = of.cluster.submit(first);
        assert!(of.cluster.kept(first, ReservationKind::Booked).is_some());
        let large = of.cluster.submit(forever(nodes(1, 8)));
        assert_eq!((of.cluster.runs(large), of.cluster.stopped().len()), (moves, if moves { 2 } else { 0 }), "{run_s}");
    }
}

#[test]
fn quota_and_cells_are_kept() {
    let run = |nominal: u32| {
        let organise = |cluster: &mut Cluster| {
            let us = account("us", None, (16 - nominal, Some(0), None));
            cluster.organise(vec![us, account("them", None, (nominal, Some(0), None))]);
            "them"
        };
        let ours = |devices| charged(nodes_job(devices), "us");
        let mut of = Fragments::on(moving(eager()), organise, [ours(1), ours(1)], firm(ours(6)));
        let large = of.cluster.submit(charged(nodes_job(8), "them"));
        (of.cluster.runs(large), of.cluster.stopped().len())
    };
    assert_eq!(run(7), (false, 0), "it would be beyond its own");
    assert_eq!(run(8), (true, 2));
}

#[test]
fn who_could_not_start_again_for_a_limit_or_a_budget_is_not_moved() {
    let usd = |dollars: u64| MicroUsd(dollars * 1_000_000);
    // Of the budget each of the two takes $10, now and again, and the third $60.
    let run = |dollars: u64, running: Option<u32>| {
        let organise = |cluster: &mut Cluster| {
            let budget = Some(Budget { usd: usd(dollars), per: Period::Month });
            let us = Account { budget, quota: Default::default(), ..account("us", None, (0, None, None)) };
            let them = Account { quota: Default::default(), ..account("them", None, (0, None, None)) };
            let price = Price { model: None, usd_per_gpu_hour: usd(1) };
            let (accounts, prices) = (vec![us, them], vec![price]);
            let organisation = Organisation { accounts, prices, ..Organisation::default() };
            let command = configure(ConfigChange::Organisation(Arc::new(organisation)));
            assert_eq!(cluster.commit(command).response, Response::Done);
            "them"
        };
        let ours = |devices| {
            let ten_hours = Limits { time_ms: Some(10 * 3_600_000), ..Limits::default() };
            charged(Scheduling { limits: ten_hours, ..nodes_job(devices) }, "us")
        };
        let mut of = Fragments::on(moving(eager()), organise, [ours(1), ours(1)], firm(ours(6)));
        let mut document = of.cluster.player.state.accounts().document().as_ref().clone();
        document.accounts[0].limits.running = running;
        of.cluster.commit(configure(ConfigChange::Organisation(Arc::new(document))));
        let large = of.cluster.submit(charged(nodes_job(8), "them"));
        of.cluster.pass(100);
        (of.cluster.runs(large), of.small.iter().filter(|one| of.cluster.runs(**one)).count())
    };
    assert_eq!(run(100, None), (true, 2));
    assert_eq!(run(99, None), (false, 2), "one dollar too few for both");
    assert_eq!(run(100, Some(3)), (true, 2));
    assert_eq!(run(100, Some(2)), (false, 2), "three run, and no more than two may start");
}

#[test]
fn the_last_node_that_an_account_could_have_is_not_opened_for_others() {
    let run = |owned: u32, stays: bool| {
        let mut cluster = Cluster::new(moving(eager()));
        cluster.racks(1, 3, 8);
        let mut vision = account("vision", None, (8 * owned, None, None));
        vision.reclaim_within_ms = (owned > 0).then_some(600_000);
        let cell = CellQuota { model: name("H100"), level: name("node"), nodes: 1, gpus: 8, number: owned };
        vision.cells = if owned > 0 { vec![cell] } else { Vec::new() };
        cluster.organise(vec![vision, account("rest", None, (24 - 8 * owned, None, None))]);
        let ours = |devices| charged(nodes_job(devices), "rest");
        cluster.submit(charged(exact(nodes(1, 6), 100), "rest"));
        let small = [cluster.submit(ours(1)), cluster.submit(ours(1))];
        // Of the other two nodes something is taken for good.
        let beside = cluster.submit(firm(ours(6)));
        let mut third = firm(ours(2));
        third.groups[0].exclude = [name("r0n1")].into();
        let third = cluster.submit(third);
        let all: BTreeSet<NodeId> = [small[0], beside, third].iter().flat_map(|gang| cluster.nodes_of(*gang)).collect();
        assert_eq!((all.len(), cluster.nodes_of(small[0])), (3, cluster.nodes_of(small[1])));
        cluster.pass(1000);
        let large = cluster.submit(if stays { firm(ours(8)) } else { ours(8) });
        (cluster.runs(large), cluster.stopped().len())
    };
    assert_eq!(run(0, true), (true, 2));
    assert_eq!(run(1, false), (true, 2), "it goes when the owner asks");
    assert_eq!(run(1, true), (false, 0), "then nobody could have a whole node any more");
}

#[test]
fn whom_preemption_helps_needs_nobody_moved() {
    let mut policy = moving(eager());
    policy.taking.preempt = Some(Preempt::default());
    let Fragments { mut cluster, .. } =
        Fragments::of(policy, [nodes_job(1), nodes_job(1)], class(forever(nodes(1, 6)), "low"));
    let large = cluster.submit(class(forever(nodes(1, 8)), "high"));
    assert!(cluster.runs(large));
    assert!(cluster.watch.stops.iter().all(|stop| stop.2 == StopFor::Priority), "{:?}", cluster.watch.stops);
    assert!(!cluster.stopped().is_empty() && cluster.player.state.moved().is_empty());
}

#[test]
fn a_new_place_keeps_its_cpu_beside_what_others_are_to_have() {
    let mut policy = moving(eager());
    policy.taking.preempt = Some(Preempt::default());
    let mut high = None;
    let low = |devices| class(nodes_job(devices), "low");
    let set = |cluster: &mut Cluster| {
        // It is older than all others.
        let gang = cluster.only_submit(class(nodes_job(6), "high"));
        cluster.commit(Command::Hold { job: gang.job, hold: true, by: Principal("ann".into()) });
        high = Some(gang);
        "me"
    };
    let Fragments { mut cluster, small, beside } = Fragments::on(policy, set, [low(1), low(1)], low(6));
    cluster.watch.release_ms = 20_000;
    cluster.submit(low(8));
    assert_eq!(cluster.stopped(), small);
    cluster.pass(5);
    let high = high.unwrap();
    cluster.commit(Command::Hold { job: high.job, hold: false, by: Principal("ann".into()) });
    cluster.decide();
    assert_eq!(cluster.stopped()[2], beside, "its devices are on the very node");
    cluster.pass(16);
    assert!(small.iter().all(|one| cluster.runs(*one)) && !cluster.runs(high));
    cluster.pass(5);
    assert!(cluster.runs(high));
}

#[test]
fn a_wish_that_makes_no_sense_is_refused_with_what_it_may_be() {
    let refused = |policy: Policy| policy.validate().unwrap_err().to_string();
    let wrong = |rules| refused(moving(rules));
    assert_eq!(
        wrong(Consolidate { per_victim: 0, ..eager() }),
        "taking.consolidate.per_victim is 0; it must be between 1 and 1000"
    );
    assert_eq!(
        wrong(Consolidate { gangs_max: 65, ..eager() }),
        "taking.consolidate.gangs_max is 65; it must be between 1 and 64"
    );
    let refill = Replan::Refill { min_run_ms: 0, max_victims_per_cycle: 1 };
    let text = refused(Policy { replan: refill, ..moving(eager()) });
    assert!(text.contains("use replan = \"keep\""), "{text}");
    assert_eq!(moving(Consolidate::default()).validate(), Ok(()));
}

#[test]
fn it_needs_servers_that_all_know_it() {
    let mut state = muster_engine::State::default();
    let change = ConfigChange::Policy(moving(eager()));
    let entry = muster_engine::Entry { index: 1, term: 1, at: Time(0), command: configure(change) };
    let response = muster_engine::apply(&mut state, &entry).response;
    assert_eq!(response, Response::Refused(Refusal::FeatureLevel { level: 0, needed: 8 }));
    let decided = Fragments::usual(moving(eager()));
    let plan = |steps| {
        Command::CommitPlan(Box::new(CommitPlan {
            made_at: 1,
            now: Time(1),
            policy_version: 1,
            engine_version: 1,
            steps,
        }))
    };
    let cluster = decided.cluster;
    assert_eq!(muster_engine::apply::level_of(&plan(cluster.steps())), 1);
}

/// What a plan says that was made before something changed.
fn planned(of: &mut Fragments) -> (GangId, Consolidation) {
    let large = of.cluster.only_submit(forever(nodes(1, 8)));
    let steps = of.cluster.steps();
    let wanted = steps.into_iter().find_map(|step| match step {
        PlanStep::Consolidate(wanted) => Some(wanted),
        _ => None,
    });
    (large, wanted.expect("two move"))
}

#[test]
fn a_stale_plan_moves_all_or_nobody() {
    let commit = |of: &mut Fragments, wanted: Consolidation| {
        let made_at = of.cluster.player.state.applied_index();
        let (now, steps) = (of.cluster.now(), vec![PlanStep::Consolidate(wanted)]);
        let plan = CommitPlan { made_at, now, policy_version: 1, engine_version: 10, steps };
        let command = Command::CommitPlan(Box::new(plan));
        assert_eq!(muster_engine::apply::level_of(&command), 8);
        // Whoever watches takes a refusal for a fault of the planner.
        let index = made_at + 1;
        let entry = muster_engine::Entry { index, term: 1, at: now, command };
        let outcome = muster_engine::apply(&mut of.cluster.player.state, &entry);
        of.cluster.player.state.check().unwrap();
        outcome.response
    };
    let rejected = |gang, why| Response::Plan { accepted: 0, rejected: vec![(gang, why)] };
    // One of them has gone meanwhile.
    let mut of = Fragments::usual(moving(eager()));
    let (large, wanted) = planned(&mut of);
    let older = Move { attempt: muster_common::AttemptNo(7), ..wanted.moves[1].clone() };
    let stale = Consolidation { moves: vec![wanted.moves[0].clone(), older], ..wanted.clone() };
    assert_eq!(commit(&mut of, stale), rejected(large, Rejection::NotWaiting));
    // Somebody else has the new place of one.
    let mut taken = wanted.clone();
    taken.moves[1].place.witness = taken.moves[0].place.witness.clone();
    let device = taken.moves[0].place.witness[0];
    let why = Rejection::DeviceTaken { node: device.node, slot: device.slot };
    assert_eq!(commit(&mut of, taken), rejected(large, why));
    assert!(of.small.iter().all(|one| of.cluster.runs(*one)));
    assert!(of.cluster.player.state.reservations().is_empty());
    // As it was made, it is taken whole.
    assert_eq!(commit(&mut of, wanted), Response::Plan { accepted: 3, rejected: Vec::new() });
    assert!(of.small.iter().all(|one| of.cluster.word(*one) == "STOPPING"));
}
