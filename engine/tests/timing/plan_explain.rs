//! Why a gang waits, what can never run, and when what waits will start.

use crate::plan_support;

use muster_common::job::Scheduling;
use muster_common::topology::TopologyMode::{Preferred, Required};
use muster_common::{GangId, NodeId, Time};
use muster_engine::command::{Command, NodeAction, Principal};
use muster_engine::forecast;
use muster_engine::plan::brief::briefs;
use muster_engine::plan::explain::{Explanation, Reason, explain};
use muster_engine::plan::groups::groups;
use muster_engine::plan::never::fits_ever;
use muster_engine::policy::{Admission, Backfill, Order, Policy};
use muster_engine::{Memo, State};
use plan_support::*;

fn why(state: &State, gang: GangId) -> Explanation {
    explain(state, &mut Memo::default(), gang, state.now()).unwrap()
}

fn reasons(cluster: &Cluster, gang: GangId) -> Vec<Reason> {
    why(&cluster.player.state, gang).blockers.iter().map(|blocker| blocker.reason).collect()
}

fn by() -> Principal {
    Principal("op".into())
}

/// Two leaves of two nodes; one node of each is taken.
fn half_full(policy: Policy) -> (Cluster, Vec<NodeId>) {
    let mut cluster = Cluster::new(policy);
    cluster.fabric(&["leaf"]);
    let mut all = Vec::new();
    for (at, leaf) in ["a", "a", "b", "b"].iter().enumerate() {
        all.push(cluster.node(&format!("n{at}"), inventory("H100", 8, &[leaf])));
    }
    let holders = [0, 1, 2, 3].map(|_| cluster.submit(exact(nodes(1, 8), 100)));
    cluster.decide();
    for gang in [holders[1], holders[3]] {
        let command = Command::Cancel(muster_engine::command::Cancel {
            job: gang.job,
            ordinal: None,
            reason: "test".into(),
            by: by(),
        });
        cluster.commit(command);
    }
    (cluster, all)
}

#[test]
fn each_blocker_is_named_alone() {
    let (mut cluster, all) = half_full(Policy::default());
    let leaf = cluster.submit(within(job(nodes(2, 8)), "leaf", Required, 1));
    let many = cluster.submit(job(nodes(3, 8)));
    let mut other = job(nodes(1, 8));
    other.groups[0].models = vec![name("A100")];
    let model = cluster.submit(other);
    let mut hungry = job(nodes(1, 8));
    hungry.groups[0].cpu_milli_per_node = Some(64_001);
    let cpu = cluster.submit(hungry);
    let mut marked = job(nodes(1, 8));
    marked.groups[0].labels.insert(name("disk"), "nvme".into());
    let label = cluster.submit(marked);
    let mut choosy = job(nodes(2, 8));
    choosy.groups[0].exclude = vec![name("n1")];
    let excluded = cluster.submit(choosy);
    assert_eq!(reasons(&cluster, leaf), [Reason::Topology]);
    assert_eq!(reasons(&cluster, many), [Reason::Nodes]);
    assert_eq!(reasons(&cluster, model), [Reason::NeverFits, Reason::GpuModel]);
    assert_eq!(reasons(&cluster, cpu), [Reason::NeverFits, Reason::CpuMemory]);
    assert_eq!(reasons(&cluster, label), [Reason::NeverFits, Reason::Label]);
    assert_eq!(reasons(&cluster, excluded), [Reason::Excluded]);
    cluster.commit(Command::NodeAdmin { node: all[1], action: NodeAction::Cordon { reason: "test".into() }, by: by() });
    let closed = cluster.submit(job(nodes(2, 8)));
    assert_eq!(reasons(&cluster, closed), [Reason::Nodes, Reason::ClosedNodes]);
    let nodes_lack = why(&cluster.player.state, closed).blockers.remove(0);
    let [one, other] = nodes_lack.gangs[..] else { panic!("those that hold the rest: {:?}", nodes_lack.gangs) };
    let held = format!("{} holds 8, {} holds 8", one.job, other.job);
    assert_eq!(nodes_lack.detail, format!("needs 2 nodes with 8 free devices; 1 has that many; {held}"));
}

/// On one of four nodes only.
fn only_on(at: usize, mut wish: Scheduling) -> Scheduling {
    wish.groups[0].exclude = (0..4).filter(|other| *other != at).map(|other| name(&format!("n{other}"))).collect();
    wish
}

/// Two nodes of one model and two of another, the second of each in another leaf.
fn mixed() -> Cluster {
    let mut cluster = Cluster::new(Policy { order: Order::Fifo, ..Policy::default() });
    cluster.fabric(&["leaf"]);
    for (at, (model, leaf)) in [("H100", "a"), ("H100", "b"), ("A100", "a"), ("A100", "b")].into_iter().enumerate() {
        cluster.node(&format!("n{at}"), inventory(model, 8, &[leaf]));
    }
    cluster
}

fn on(model: &str, count: u32, per_node: u32) -> Scheduling {
    let mut wish = exact(nodes(count, per_node), 100);
    wish.groups[0].models = vec![name(model)];
    wish
}

#[test]
fn only_those_who_hold_what_it_could_have_are_named_and_the_largest_first() {
    let mut cluster = mixed();
    let small = cluster.submit(only_on(0, on("H100", 1, 2)));
    let large = cluster.submit(only_on(1, on("H100", 1, 6)));
    let others = [cluster.submit(on("A100", 2, 4)), cluster.submit(on("A100", 1, 4))];
    cluster.decide();
    let two = cluster.submit(on("H100", 2, 8));
    let lack = why(&cluster.player.state, two).blockers.remove(0);
    assert_eq!((lack.reason, &lack.gangs[..]), (Reason::Nodes, &[large, small][..]), "{others:?} hold A100s");
    let detail =
        format!("needs 2 nodes with 8 free devices; 0 have that many; {} holds 6, {} holds 2", large.job, small.job);
    assert_eq!(lack.detail, detail);
    let mut elsewhere = on("H100", 1, 8);
    elsewhere.groups[0].exclude = vec![name("n1")];
    let elsewhere = cluster.submit(elsewhere);
    assert_eq!(why(&cluster.player.state, elsewhere).blockers[0].gangs, [small]);
}

#[test]
fn who_is_in_a_domain_too_small_for_it_is_not_named() {
    let mut cluster = Cluster::new(Policy { order: Order::Fifo, ..Policy::default() });
    cluster.fabric(&["leaf"]);
    for (at, leaf) in ["a", "a", "b"].into_iter().enumerate() {
        cluster.node(&format!("n{at}"), inventory("H100", 8, &[leaf]));
    }
    let there = cluster.submit(only_on(0, exact(nodes(1, 8), 100)));
    cluster.submit(only_on(2, exact(nodes(1, 8), 100)));
    cluster.decide();
    let pair = cluster.submit(within(exact(nodes(2, 8), 100), "leaf", Required, 1));
    assert_eq!(why(&cluster.player.state, pair).blockers[0].gangs, [there]);
}

#[test]
fn who_is_on_a_closed_node_or_one_too_small_for_it_is_not_named() {
    let mut cluster = Cluster::new(Policy { order: Order::Fifo, ..Policy::default() });
    let all: Vec<NodeId> = [("n0", 8), ("n1", 8), ("n2", 4)]
        .into_iter()
        .map(|(node, devices)| cluster.node(node, inventory("H100", devices, &[])))
        .collect();
    let wishes = [(0, 8), (1, 8), (2, 4)].map(|(at, devices)| only_on(at, exact(nodes(1, devices), 100)));
    let there = wishes.map(|wish| cluster.submit(wish));
    cluster.decide();
    cluster.commit(Command::NodeAdmin { node: all[1], action: NodeAction::Cordon { reason: "test".into() }, by: by() });
    let waits = cluster.submit(exact(nodes(1, 8), 100));
    assert_eq!(why(&cluster.player.state, waits).blockers[0].gangs, [there[0]]);
    let any = cluster.submit(exact(total(8), 100));
    assert_eq!(why(&cluster.player.state, any).blockers[0].gangs, [there[0], there[2]], "of any size");
}

#[test]
fn what_the_job_itself_says_comes_before_what_the_cluster_lacks() {
    let (mut cluster, _) = half_full(Policy::default());
    let mut later = job(nodes(1, 8));
    later.begin_at_ms = Some(5000);
    let later = cluster.submit(later);
    let held = cluster.submit(job(nodes(4, 8)));
    cluster.commit(Command::Hold { job: held.job, hold: true, by: by() });
    assert_eq!(reasons(&cluster, later), [Reason::BeginTime]);
    assert_eq!(why(&cluster.player.state, later).blockers[0].until, Some(Time(5000)));
    assert_eq!(reasons(&cluster, held), [Reason::Hold, Reason::Nodes]);
    let limited = cluster.submit(array(exact(nodes(1, 4), 50), 3, Some(1)));
    cluster.decide();
    assert_eq!(reasons(&cluster, GangId::new(limited.job, 1)), [Reason::ArrayLimit]);
    assert_eq!(why(&cluster.player.state, limited).blockers, [], "it runs");
}

#[test]
fn a_filler_hears_whom_it_would_delay() {
    let (mut cluster, _) = half_full(Policy { order: Order::Fifo, ..Policy::default() });
    let booked = cluster.submit(exact(nodes(4, 8), 10));
    let filler = cluster.submit(exact(nodes(1, 1), 1000));
    cluster.decide();
    let explained = why(&cluster.player.state, filler);
    let blocker = &explained.blockers[0];
    assert_eq!((blocker.reason, blocker.gangs.as_slice()), (Reason::Backfill, [booked].as_slice()));
    assert_eq!((explained.position, blocker.until), (Some((2, 2)), Some(Time(100_000))));
    assert_eq!(why(&cluster.player.state, booked).booked, Some(Time(100_000)));
}

/// Four nodes, three of them taken, for 100, 200 and 300 s: three starts are booked, one on each of these.
fn three_booked() -> (Cluster, Vec<GangId>) {
    let policy = Policy {
        order: Order::Fifo,
        backfill: Backfill { reserve_depth: 4, ..Backfill::default() },
        ..Policy::default()
    };
    let mut cluster = Cluster::new(policy);
    for at in 0..4 {
        cluster.node(&format!("n{at}"), inventory("H100", 8, &[]));
    }
    for (at, run_s) in [100, 200, 300].into_iter().enumerate() {
        cluster.submit(only_on(at, lasting(job(nodes(1, 4)), run_s)));
    }
    cluster.decide();
    let booked = [0, 1, 2].map(|at| cluster.submit(only_on(at, lasting(job(nodes(1, 8)), 50))));
    cluster.decide();
    assert_eq!(
        booked.map(|gang| why(&cluster.player.state, gang).booked),
        [100, 200, 300].map(|at| Some(Time(at * 1000)))
    );
    (cluster, booked.to_vec())
}

/// The reason that decides, whom it names, and until when.
fn first(cluster: &Cluster, gang: GangId) -> (Reason, Vec<GangId>, Option<Time>) {
    let first = why(&cluster.player.state, gang).blockers.remove(0);
    (first.reason, first.gangs, first.until)
}

#[test]
fn a_filler_hears_of_the_booking_it_would_delay_and_of_no_other() {
    let (mut cluster, booked) = three_booked();
    let third = cluster.submit(only_on(2, lasting(job(nodes(1, 1)), 1000)));
    let mut two = lasting(job(nodes(2, 1)), 1000);
    two.groups[0].exclude = vec![name("n0"), name("n3")];
    let two = cluster.submit(two);
    cluster.decide();
    assert_eq!(first(&cluster, third), (Reason::Backfill, vec![booked[2]], Some(Time(300_000))));
    assert_eq!(first(&cluster, two), (Reason::Backfill, booked[1..].to_vec(), Some(Time(200_000))));
    let detail = why(&cluster.player.state, two).blockers.remove(0).detail;
    let names = format!("{}, {}", booked[1].job, booked[2].job);
    assert_eq!(detail, format!("it could start, but would delay {names}, whose starts are booked"));
    briefs_agree(&cluster);
}

#[test]
fn bookings_that_leave_no_room_only_together_are_named_together() {
    let (mut cluster, booked) = three_booked();
    cluster.submit(only_on(3, lasting(job(nodes(1, 8)), 5000)));
    cluster.decide();
    let one = cluster.submit(lasting(job(nodes(1, 1)), 5000));
    assert_eq!(first(&cluster, one), (Reason::Backfill, booked, Some(Time(100_000))));
}

#[test]
fn a_booking_of_this_very_cycle_is_named() {
    let (mut cluster, _) = half_full(Policy { order: Order::Fifo, ..Policy::default() });
    let booked = cluster.submit(exact(nodes(4, 8), 10));
    let filler = cluster.submit(exact(nodes(1, 1), 1000));
    assert_eq!(cluster.player.state.reservations().len(), 0);
    assert_eq!(first(&cluster, filler), (Reason::Backfill, vec![booked], Some(Time(100_000))));
}

#[test]
fn who_goes_first_is_named_where_it_takes_what_another_needs() {
    let mut cluster = mixed();
    let other = cluster.submit(on("A100", 1, 4));
    let ahead = cluster.submit(on("H100", 2, 8));
    let behind = cluster.submit(on("H100", 1, 8));
    assert!([other, ahead].iter().all(|gang| why(&cluster.player.state, *gang).starts_now));
    assert_eq!(first(&cluster, behind), (Reason::Priority, vec![ahead], None));
    let detail = why(&cluster.player.state, behind).blockers.remove(0).detail;
    assert_eq!(detail, format!("{} goes first, and takes what it would need", ahead.job));
    briefs_agree(&cluster);
}

#[test]
fn an_element_hears_of_the_limit_of_its_array_in_the_cycle_that_reaches_it() {
    let (mut cluster, _) = half_full(Policy::default());
    let limited = cluster.submit(array(exact(nodes(1, 4), 50), 3, Some(1)));
    assert_eq!(reasons(&cluster, GangId::new(limited.job, 1)), [Reason::ArrayLimit]);
}

#[test]
fn behind_a_strict_head_the_reason_is_priority() {
    let policy = Policy {
        order: Order::Fifo,
        admission: Admission::HeadOfLine { sticky: true },
        backfill: Backfill { reserve_depth: 0, ..Backfill::default() },
        ..Policy::default()
    };
    let (mut cluster, _) = half_full(policy);
    let head = cluster.submit(exact(nodes(4, 8), 10));
    let next = cluster.submit(exact(nodes(1, 1), 10));
    cluster.decide();
    let blockers = why(&cluster.player.state, next).blockers;
    assert_eq!((blockers[0].reason, blockers[0].gangs.as_slice()), (Reason::Priority, [head].as_slice()));
}

#[test]
fn what_nobody_looked_at_is_not_ruled_out() {
    let policy = Policy {
        order: Order::Fifo,
        admission: Admission::HeadOfLine { sticky: true },
        backfill: Backfill { reserve_depth: 0, ..Backfill::default() },
        ..Policy::default()
    };
    let (mut cluster, _) = half_full(policy);
    let head = cluster.submit(exact(nodes(4, 8), 10));
    let held = cluster.submit(exact(nodes(1, 1), 10));
    let hold = |hold| Command::Hold { job: held.job, hold, by: by() };
    cluster.commit(hold(true));
    cluster.decide();
    let told = why(&cluster.player.state, held);
    assert_eq!(reasons(&cluster, held), [Reason::Hold]);
    assert!(told.rules_out(Reason::Nodes) && told.rules_out(Reason::CpuMemory));
    let never_asked = [Reason::Hold, Reason::Dependency, Reason::ArrayLimit, Reason::Priority];
    assert!(never_asked.iter().all(|reason| !told.rules_out(*reason)), "{told:?}");
    let short = why(&cluster.player.state, head);
    assert!(short.rules_out(Reason::Hold) && short.rules_out(Reason::ArrayLimit) && !short.rules_out(Reason::Priority));
    cluster.commit(hold(false));
    cluster.decide();
    assert_eq!(reasons(&cluster, held), [Reason::Priority], "once it is released that decides");
}

/// Of more than are asked about one is named only if it was tried, and else nobody.
#[test]
fn of_very_many_that_go_first_nobody_is_named_untried() {
    for early in [true, false] {
        let mut cluster = Cluster::new(Policy { order: Order::Fifo, ..Policy::default() });
        for at in 0..132 {
            cluster.node(&format!("a{at}"), inventory("A100", 32, &[]));
        }
        cluster.node("h", inventory("H100", 8, &[]));
        cluster.submit(on("A100", 1, 1));
        let taker = early.then(|| cluster.submit(on("H100", 1, 8)));
        cluster.submit(array(on("A100", 1, 1), 4_200, None));
        let taker = taker.unwrap_or_else(|| cluster.submit(on("H100", 1, 8)));
        let behind = cluster.submit(on("H100", 1, 8));
        let told = why(&cluster.player.state, behind).blockers.remove(0);
        let (named, who) = match early {
            true => (vec![taker], format!("{} goes", taker.job)),
            false => (Vec::new(), "others go".to_owned()),
        };
        assert_eq!((told.reason, told.gangs), (Reason::Priority, named));
        assert!(told.detail.starts_with(&format!("{who} first, and take")), "{}", told.detail);
    }
}

#[test]
fn beyond_the_depth_of_the_policy_is_a_reason_of_its_own() {
    let mut policy = Policy {
        order: Order::Fifo,
        backfill: Backfill { reserve_depth: 0, ..Backfill::default() },
        ..Policy::default()
    };
    policy.budget.depth = 2;
    let (mut cluster, _) = half_full(policy);
    let gangs = [4, 4, 3, 1].map(|count| cluster.submit(exact(nodes(count, 8), 10)));
    // The second asks for what the first lacks: it need not be looked at.
    assert_eq!(reasons(&cluster, gangs[3]), [Reason::BeyondDepth]);
    assert_eq!(reasons(&cluster, gangs[0]), [Reason::Nodes]);
}

/// The list and the question about one job may never differ.
#[track_caller]
fn briefs_agree(cluster: &Cluster) {
    let (state, now) = (&cluster.player.state, cluster.player.state.now());
    let all = briefs(state, &mut Memo::default(), now);
    for brief in &all.order {
        let one = explain(state, &mut Memo::default(), brief.gang, now).unwrap();
        let first = one.blockers.first().map(|blocker| (blocker.reason, blocker.detail.clone()));
        assert_eq!((brief.reason.clone(), brief.booked), (first, one.booked), "{}", brief.gang);
        assert_eq!(one.position, Some((brief.position, all.order.len() as u32)));
        assert_eq!((brief.starts_now, brief.reason.is_none()), (one.starts_now, one.starts_now));
        assert_eq!(all.get(brief.gang), Some(brief));
    }
}

#[test]
fn one_look_at_all_that_waits_tells_what_a_look_at_each_does() {
    let (mut cluster, all) = half_full(Policy { order: Order::Fifo, ..Policy::default() });
    cluster.submit(within(job(nodes(2, 8)), "leaf", Required, 1));
    cluster.submit(job(nodes(3, 8)));
    cluster.submit(job(nodes(9, 8)));
    let mut later = job(nodes(1, 8));
    later.begin_at_ms = Some(5000);
    cluster.submit(later);
    cluster.submit(exact(nodes(1, 1), 1000));
    cluster.submit(array(exact(nodes(1, 4), 50), 3, Some(1)));
    let held = cluster.submit(job(nodes(4, 8)));
    cluster.commit(Command::Hold { job: held.job, hold: true, by: by() });
    briefs_agree(&cluster);
    cluster.decide();
    briefs_agree(&cluster);
    cluster.commit(Command::NodeAdmin { node: all[1], action: NodeAction::Cordon { reason: "test".into() }, by: by() });
    cluster.submit(exact(nodes(2, 8), 1));
    briefs_agree(&cluster);
    assert_eq!(briefs(&cluster.player.state, &mut Memo::default(), cluster.now()).get(held), None);
}

#[test]
fn beyond_many_different_requests_the_list_only_counts() {
    let (mut cluster, _) = half_full(Policy { order: Order::Fifo, ..Policy::default() });
    cluster.submit(job(nodes(4, 8)));
    let requests = (1..=300).map(|cpus| {
        let mut job = job(nodes(3, 8));
        job.groups[0].cpu_milli_per_node = Some(cpus * 10);
        job
    });
    let gangs: Vec<GangId> = requests.map(|request| cluster.submit(request)).collect();
    let all = briefs(&cluster.player.state, &mut Memo::default(), cluster.now());
    let expected = "needs 3 nodes with 8 free devices; 2 have that many";
    let told = |gang: &GangId| all.get(*gang).unwrap().reason.clone().unwrap();
    assert!(gangs.iter().map(told).all(|(reason, text)| reason == Reason::Nodes && text.starts_with(expected)));
    assert_eq!(told(gangs.last().unwrap()).1, expected, "those that are only counted name no holder");
}

#[test]
fn what_can_start_says_so_and_what_is_gone_is_unknown() {
    let (mut cluster, _) = half_full(Policy::default());
    let gang = cluster.submit(job(nodes(1, 1)));
    let explained = why(&cluster.player.state, gang);
    assert!(explained.starts_now && explained.blockers.is_empty());
    assert_eq!(explain(&cluster.player.state, &mut Memo::default(), plan_support::gang(999), Time(0)), None);
}

#[test]
fn what_never_fits_is_told_with_numbers_and_a_way_out() {
    let (cluster, _) = half_full(Policy::default());
    let state = &cluster.player.state;
    let mut other = job(nodes(1, 1));
    other.groups[0].models = vec![name("B300")];
    let mut hungry = job(nodes(1, 1));
    hungry.groups[0].memory_bytes_per_node = Some(1 << 50);
    for (wish, expected) in [
        (job(nodes(1, 64)), "64 devices on one node; the largest node has 8"),
        (job(nodes(5, 8)), "40 devices; the cluster has 32 that match"),
        (job(total(33)), "33 devices; the cluster has 32 that match"),
        (job(nodes(5, 4)), "5 nodes with 4 devices each; 4 nodes have 4 matching devices"),
        (other, "device model B300; the cluster has only H100"),
        (hungry, "the CPU and memory on each node; the largest node has 64 CPUs and 1048576 MiB"),
        (
            within(job(nodes(3, 8)), "leaf", Required, 1),
            "3 nodes with 8 devices each in at most 1 of level `leaf`; no domain of that level is large enough",
        ),
        (within(job(nodes(3, 8)), "rack", Required, 1), "topology level `rack`; the fabric has the levels leaf, node"),
    ] {
        let never = fits_ever(state, &wish).unwrap_err();
        assert_eq!(never.to_string(), expected);
        assert!(!never.hint.is_empty());
    }
    for wish in [job(nodes(4, 8)), job(total(32)), job(nodes(4, 0)), within(job(nodes(3, 8)), "leaf", Preferred, 1)] {
        assert_eq!(fits_ever(state, &wish), Ok(()));
    }
}

#[test]
fn a_forecast_is_what_then_happens() {
    let (mut cluster, _) = half_full(Policy { order: Order::Fifo, ..Policy::default() });
    let gangs = [
        cluster.submit(exact(nodes(4, 8), 10)),
        cluster.submit(exact(nodes(2, 8), 50)),
        cluster.submit(exact(nodes(2, 8), 500)),
    ];
    let endless = cluster.submit(job(nodes(1, 8)));
    let behind = cluster.submit(exact(nodes(4, 8), 1));
    let giant = cluster.submit(exact(nodes(9, 8), 1));
    let foreseen = forecast::forecast(&cluster.player.state, cluster.now());
    assert!(foreseen.complete);
    cluster.decide();
    cluster.run();
    for gang in gangs.into_iter().chain([endless]) {
        assert_eq!(foreseen.starts[&gang].map(|at| at.0 / 1000), cluster.start_s(gang), "{gang}");
        assert!(cluster.start_s(gang).is_some());
    }
    assert_eq!((foreseen.starts[&behind], foreseen.ends[&endless]), (None, None));
    assert_eq!(foreseen.unplaceable.keys().copied().collect::<Vec<_>>(), [giant.job]);
}

#[test]
fn a_queue_is_grouped_by_what_decides() {
    let (mut cluster, _) = half_full(Policy { order: Order::Fifo, ..Policy::default() });
    let mut other = job(nodes(1, 8));
    other.groups[0].models = vec![name("A100")];
    let first = cluster.submit(other.clone());
    cluster.submit(array(other, 3, None));
    let close = cluster.submit(within(job(nodes(2, 8)), "leaf", Required, 1));
    let held = cluster.submit(job(nodes(4, 8)));
    cluster.commit(Command::Hold { job: held.job, hold: true, by: by() });
    let state = &cluster.player.state;
    let all = groups(state, &briefs(state, &mut Memo::default(), cluster.now()));
    let told: Vec<_> = all
        .iter()
        .map(|group| (group.reason, &*group.what, group.gangs, group.jobs, group.devices, group.example))
        .collect();
    assert_eq!(
        told,
        [
            (Some(Reason::NeverFits), "A100", 4, 2, 32, first),
            (Some(Reason::Hold), "", 1, 1, 32, held),
            (Some(Reason::Topology), "leaf", 1, 1, 16, close),
        ]
    );
    assert_eq!(all[1].detail, "the job is held");
}
