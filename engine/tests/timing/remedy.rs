//! What would help a waiting gang: found, told with a start, and true when it is really done.

use crate::plan_support;
use crate::property;

use muster_common::calendar::Period;
use muster_common::job::Scheduling;
use muster_common::money::MicroUsd;
use muster_common::topology::SegmentRequest;
use muster_common::topology::TopologyMode::Required;
use muster_common::{GangId, NodeId, Time};
use muster_engine::command::{Command, ConfigChange, NodeAction, Principal};
use muster_engine::organisation::{Account, Budget, Caps, Organisation, Price, Quota};
use muster_engine::policy::{Order, Policy};
use muster_engine::remedy::{Kind, Remedies, Remedy, TRIED_MAX, remedies};
use plan_support::*;
use property::cases;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn fifo() -> Policy {
    Policy { order: Order::Fifo, ..Policy::default() }
}

fn by() -> Principal {
    Principal("op".into())
}

fn found(cluster: &Cluster, gang: GangId) -> Remedies {
    remedies(&cluster.player.state, gang, cluster.now()).unwrap()
}

/// Kind, words and start in seconds, of all that was found.
fn told(cluster: &Cluster, gang: GangId) -> Vec<(Kind, String, u64)> {
    let tell = |remedy: &Remedy| (remedy.change.kind, remedy.change.text.clone(), remedy.start.0 / 1000);
    found(cluster, gang).found.iter().map(tell).collect()
}

/// The one of a kind that starts soonest, with its command.
#[track_caller]
fn of_kind(cluster: &Cluster, gang: GangId, kind: Kind) -> (String, String, u64) {
    let all = found(cluster, gang);
    let remedy = all.found.iter().find(|remedy| remedy.change.kind == kind);
    let remedy = remedy.unwrap_or_else(|| panic!("no {kind:?} among {all:?}"));
    (remedy.change.text.clone(), remedy.change.command.clone(), remedy.start.0 / 1000)
}

/// Leaf a has a free node of two, leaf b too; what runs ends after 1000 s.
fn half_full() -> (Cluster, Vec<NodeId>) {
    let mut cluster = Cluster::new(fifo());
    cluster.fabric(&["pod", "leaf"]);
    let places = [["p", "a"], ["p", "a"], ["p", "b"], ["p", "b"]];
    let all: Vec<NodeId> = places
        .iter()
        .enumerate()
        .map(|(at, path)| cluster.node(&format!("n{at}"), inventory("H100", 8, path)))
        .collect();
    for name in ["n0", "n2"] {
        let mut wish = exact(nodes(1, 8), 1000);
        wish.groups[0].exclude =
            ["n0", "n1", "n2", "n3"].iter().filter(|n| **n != name).map(|n| plan_support::name(n)).collect();
        cluster.submit(wish);
    }
    cluster.decide();
    (cluster, all)
}

#[test]
fn segments_become_smaller_where_that_lets_them_fit() {
    let (mut cluster, _) = half_full();
    let mut wish = exact(nodes(2, 8), 100);
    wish.groups[0].segment = Some(SegmentRequest { level: name("leaf"), nodes: 2, apart: false });
    let gang = cluster.submit(wish);
    let (text, command, start) = of_kind(&cluster, gang, Kind::Topology);
    assert_eq!((text.as_str(), start), ("segments of 1 nodes instead of 2", 0));
    assert_eq!(command, format!("muster edit {} --set gang.segments.nodes=1", gang.job));
}

#[test]
fn a_budget_is_raised_by_what_is_missing() {
    let mut cluster = Cluster::new(fifo());
    cluster.nodes(3, 8);
    let usd = |dollars: u64| MicroUsd(dollars * 1_000_000);
    let budget = Some(Budget { usd: usd(20), per: Period::Month });
    let prices = vec![Price { model: None, usd_per_gpu_hour: usd(1) }];
    let document =
        Organisation { accounts: vec![Account { budget, ..account("me") }], prices, ..Organisation::default() };
    cluster.commit(configure(ConfigChange::Organisation(Arc::new(document))));
    let hours = |hours: u64| {
        let mut wish = exact(nodes(1, 8), 3600);
        wish.limits.time_ms = Some(hours * 3_600_000);
        wish
    };
    cluster.submit(hours(2));
    cluster.decide();
    let gang = cluster.submit(hours(1));
    let (text, _, start) = of_kind(&cluster, gang, Kind::Raise);
    assert_eq!((text.as_str(), start), ("account `me` may spend $24.00 in a month instead of $20.00", 0));
}

fn cordon(cluster: &mut Cluster, node: NodeId) {
    cluster.commit(Command::NodeAdmin { node, action: NodeAction::Cordon { reason: "fan".into() }, by: by() });
}

#[test]
fn a_level_is_widened_or_only_preferred() {
    let (mut cluster, _) = half_full();
    let gang = cluster.submit(within(exact(nodes(2, 8), 100), "leaf", Required, 1));
    let id = gang.job;
    let told = told(&cluster, gang);
    assert_eq!(told[0], (Kind::Topology, "at most 2 of level leaf instead of 1".into(), 0), "{told:?}");
    assert_eq!(found(&cluster, gang).start, Some(Time(1_000_000)));
    let (_, command, _) = of_kind(&cluster, gang, Kind::Topology);
    assert_eq!(command, format!("muster edit {id} --set 'gang.topology=[{{ within = \"leaf\", at_most = 2 }}]'"));
    assert_eq!(
        told.last().unwrap(),
        &(Kind::Size, "1 node instead of 2".into(), 0),
        "the largest change last: {told:?}"
    );
}

#[test]
fn what_the_job_says_of_itself_is_dropped_or_loosened() {
    type Wish = fn(&mut muster_common::job::Scheduling);
    let cases: [(Wish, Kind, &str, &str); 5] = [
        (|job| job.begin_at_ms = Some(5_000_000), Kind::Begin, "begin now", "--set 'begin=\"1970-01-01T00:00:00Z\"'"),
        (
            |job| job.groups[0].exclude = vec![name("n1")],
            Kind::Exclude,
            "no node excluded by name",
            "--set 'gang.exclude=[]'",
        ),
        (
            |job| drop(job.groups[0].labels.insert(name("disk"), "nvme".into())),
            Kind::Labels,
            "without the label disk=nvme",
            "--set 'gang.labels={}'",
        ),
        (
            |job| job.groups[0].models = vec![name("A100")],
            Kind::Model,
            "also on H100",
            "--set 'gang.gpu=\"A100 | H100\"'",
        ),
        (
            |job| job.groups[0].cpu_milli_per_node = Some(100_000),
            Kind::CpuMemory,
            "64 CPUs on each node instead of 100",
            "--set gang.cpus_per_node=64",
        ),
    ];
    for (wish, kind, text, set) in cases {
        let (mut cluster, _) = half_full();
        let mut job = exact(nodes(2, 8), 100);
        wish(&mut job);
        let gang = cluster.submit(job);
        let expected = (text.to_owned(), format!("muster edit {} {set}", gang.job), 0);
        assert_eq!(of_kind(&cluster, gang, kind), expected);
    }
}

#[test]
fn a_held_job_is_released_and_an_array_may_run_more_at_once() {
    let (mut cluster, _) = half_full();
    let held = cluster.submit(exact(nodes(1, 8), 10));
    cluster.commit(Command::Hold { job: held.job, hold: true, by: by() });
    assert_eq!(told(&cluster, held), [(Kind::Release, "no longer held".into(), 0)]);
    let limited = cluster.submit(array(exact(nodes(1, 4), 500), 3, Some(1)));
    cluster.decide();
    let second = GangId::new(limited.job, 1);
    let (text, command, start) = of_kind(&cluster, second, Kind::AtOnce);
    assert_eq!((text.as_str(), start), ("2 of the array at once instead of 1", 0));
    assert_eq!(command, format!("muster edit {} --set array.at_once=2", limited.job));
}

#[test]
fn a_filler_hears_the_longest_limit_that_ends_before_the_booking() {
    let (mut cluster, _) = half_full();
    let booked = cluster.submit(exact(nodes(4, 8), 10));
    let mut filler = job(nodes(1, 1));
    filler.limits.time_ms = Some(4 * 3_600_000);
    let filler = cluster.submit(filler);
    cluster.decide();
    let (text, command, start) = of_kind(&cluster, filler, Kind::TimeLimit);
    assert_eq!((text.as_str(), start), ("a time limit of 16m instead of 4h", 0), "1000 s are free");
    assert_eq!(command, format!("muster edit {} --time-limit 16m", filler.job));
    let all = found(&cluster, filler);
    let ahead = all.found.iter().find(|remedy| remedy.change.kind == Kind::Class);
    assert!(ahead.is_none(), "in the order of arrival a class changes nothing, and {booked} is not pushed back");
}

#[test]
fn of_two_bookings_the_limit_ends_before_the_one_that_is_in_the_way() {
    for (shut, limit) in [("n0", "1h6m"), ("n1", "16m")] {
        let mut policy = fifo();
        policy.backfill.reserve_depth = 4;
        let mut cluster = Cluster::new(policy);
        for at in ["n0", "n1"] {
            cluster.node(at, inventory("H100", 8, &[]));
        }
        let without = |mut wish: Scheduling, node: &str| {
            wish.groups[0].exclude = vec![name(node)];
            wish
        };
        for (other, run_s) in [("n1", 1000), ("n0", 4000)] {
            cluster.submit(without(exact(nodes(1, 4), run_s), other));
        }
        cluster.decide();
        for other in ["n1", "n0"] {
            cluster.submit(without(exact(nodes(1, 8), 10), other));
        }
        let mut filler = without(job(nodes(1, 1)), shut);
        filler.limits.time_ms = Some(4 * 3_600_000);
        let filler = cluster.submit(filler);
        cluster.decide();
        let (text, _, start) = of_kind(&cluster, filler, Kind::TimeLimit);
        assert_eq!((text, start), (format!("a time limit of {limit} instead of 4h"), 0), "not on {shut}");
        let all = found(&cluster, filler);
        assert_eq!(all.found.iter().filter(|remedy| remedy.change.kind == Kind::TimeLimit).count(), 1);
    }
}

#[test]
fn of_many_bookings_the_first_may_be_the_one_in_the_way() {
    let mut policy = fifo();
    policy.backfill.reserve_depth = 8;
    let mut cluster = Cluster::new(policy);
    let names: Vec<String> = (0..5).map(|at| format!("n{at}")).collect();
    for at in &names {
        cluster.node(at, inventory("H100", 8, &[]));
    }
    let only = |at: usize, mut wish: Scheduling| {
        wish.groups[0].exclude = names.iter().filter(|other| **other != names[at]).map(|other| name(other)).collect();
        wish
    };
    for (at, run_s) in (0..5).zip([1000, 2000, 3000, 4000, 5000]) {
        cluster.submit(only(at, exact(nodes(1, 4), run_s)));
    }
    cluster.decide();
    for at in 0..5 {
        cluster.submit(only(at, exact(nodes(1, 8), 10)));
    }
    let mut filler = only(0, job(nodes(1, 1)));
    filler.limits.time_ms = Some(4 * 3_600_000);
    let filler = cluster.submit(filler);
    cluster.decide();
    let (text, _, start) = of_kind(&cluster, filler, Kind::TimeLimit);
    assert_eq!((text.as_str(), start), ("a time limit of 16m instead of 4h", 0));
}

#[test]
fn who_is_pushed_back_is_counted() {
    let mut cluster = Cluster::new(Policy { order: Order::Priority { hours_per_class: 24 }, ..Policy::default() });
    cluster.nodes(1, 8);
    cluster.submit(exact(nodes(1, 8), 1000));
    cluster.decide();
    let first = cluster.submit(exact(nodes(1, 8), 500));
    let second = cluster.submit(exact(nodes(1, 8), 300));
    let all = found(&cluster, second);
    let remedy = all.found.iter().find(|remedy| remedy.change.kind == Kind::Class).unwrap();
    assert_eq!((all.start, remedy.start), (Some(Time(1_500_000)), Time(1_000_000)));
    let delays = remedy.delays.unwrap();
    assert_eq!((delays.gangs, delays.worst), (1, Some((first, Time(1_000_000), Time(1_300_000)))));
}

#[test]
fn fewer_nodes_are_as_many_as_fit_then() {
    let (mut cluster, _) = half_full();
    let gang = cluster.submit(exact(nodes(4, 8), 100));
    assert_eq!(told(&cluster, gang), [(Kind::Size, "2 nodes instead of 4".into(), 0)]);
    let one = cluster.submit(exact(nodes(1, 8), 100));
    assert_eq!(found(&cluster, one).found, [], "it starts now");
    let giant = cluster.submit(exact(nodes(9, 8), 100));
    let sizes = [("1 node instead of 9", 0), ("2 nodes instead of 9", 100), ("4 nodes instead of 9", 1100)];
    assert_eq!(
        told(&cluster, giant),
        sizes.map(|(text, at)| (Kind::Size, text.into(), at)),
        "now, and after each end; the four after the first gang has used them"
    );
}

#[test]
fn operators_hear_which_node_would_help() {
    let (mut cluster, all) = half_full();
    cordon(&mut cluster, all[1]);
    let gang = cluster.submit(exact(nodes(2, 8), 100));
    let (text, command, start) = of_kind(&cluster, gang, Kind::Uncordon);
    assert_eq!(
        (text.as_str(), command.as_str()),
        ("node n1 takes new work again (closed: fan)", "muster node uncordon n1")
    );
    assert_eq!(start, 0);
}

fn account(name_: &str) -> Account {
    Account {
        name: name(name_),
        parent: None,
        weight: 1,
        priority: 0,
        quota: BTreeMap::new(),
        limits: Caps::default(),
        user_limits: Caps::default(),
        users: BTreeMap::new(),
        cells: Vec::new(),
        budget: None,
        reclaim_within_ms: None,
    }
}

fn organise(cluster: &mut Cluster, accounts: Vec<Account>) {
    let document = Organisation { accounts, ..Organisation::default() };
    cluster.commit(configure(ConfigChange::Organisation(Arc::new(document))));
}

#[test]
fn a_limit_is_raised_by_what_is_missing_and_no_more() {
    let mut cluster = Cluster::new(fifo());
    cluster.nodes(3, 8);
    let limits = Caps { gpus: Some(12), ..Caps::default() };
    let user_limits = Caps { running: Some(1), ..Caps::default() };
    organise(&mut cluster, vec![Account { limits, user_limits, ..account("me") }]);
    cluster.submit(exact(nodes(1, 8), 1000));
    cluster.decide();
    let gang = cluster.submit(exact(nodes(1, 8), 100));
    let (text, command, start) = of_kind(&cluster, gang, Kind::Raise);
    assert_eq!(
        (text.as_str(), command.as_str(), start),
        (
            "test in account `me` may run 2 gangs at a time instead of 1; account `me` may hold 16 GPUs at a time instead of 12",
            "muster cluster set organisation FILE",
            0
        )
    );
}

#[test]
fn quota_is_lent_or_another_account_is_charged() {
    let mut cluster = Cluster::new(fifo());
    cluster.nodes(2, 8);
    let quota =
        |nominal, borrow_limit| BTreeMap::from([(name("H100"), Quota { nominal, borrow_limit, lend_limit: None })]);
    let users = BTreeMap::from([("test".to_owned(), muster_engine::organisation::User { weight: 1, limits: None })]);
    organise(
        &mut cluster,
        vec![
            Account { quota: quota(4, Some(4)), ..account("me") },
            Account { quota: quota(8, Some(0)), users, ..account("other") },
        ],
    );
    cluster.submit(exact(nodes(1, 8), 1000));
    cluster.decide();
    let gang = cluster.submit(exact(nodes(1, 4), 100));
    assert_eq!(of_kind(&cluster, gang, Kind::Account).0, "charged to account other instead of me");
    assert_eq!(of_kind(&cluster, gang, Kind::Raise).0, "account `me` may borrow 8 H100 instead of 4");
}

#[test]
fn nothing_is_told_when_nothing_helps_and_nothing_of_what_does_not_wait() {
    let mut cluster = Cluster::new(fifo());
    cluster.nodes(1, 8);
    let running = cluster.submit(exact(nodes(1, 8), 1000));
    cluster.decide();
    assert_eq!(remedies(&cluster.player.state, running, cluster.now()), None);
    assert_eq!(remedies(&cluster.player.state, plan_support::gang(99), cluster.now()), None);
    let small = cluster.submit(exact(nodes(1, 1), 10));
    let all = found(&cluster, small);
    assert_eq!((all.start, &all.found[..]), (Some(Time(1_000_000)), &[][..]), "a full cluster stays full");
}

/// One of many situations.
#[derive(Debug, Clone)]
struct Situation {
    running: Vec<(u32, u32, u64)>,
    waiting: Vec<(u32, u32, u64, u8)>,
    cordoned: Option<usize>,
}

fn situations() -> impl Strategy<Value = Situation> {
    let running = prop::collection::vec((1u32..4, 1u32..9, 100u64..5000), 0..5);
    let waiting = prop::collection::vec((1u32..6, 1u32..9, 100u64..5000, 0u8..8), 1..6);
    (running, waiting, prop::option::of(0usize..6)).prop_map(|(running, waiting, cordoned)| Situation {
        running,
        waiting,
        cordoned,
    })
}

fn build(situation: &Situation) -> (Cluster, Vec<GangId>) {
    let mut cluster = Cluster::new(Policy { order: Order::Priority { hours_per_class: 24 }, ..Policy::default() });
    cluster.fabric(&["pod", "leaf"]);
    let mut all = Vec::new();
    for at in 0..6 {
        let leaf = ["a", "b", "c"][at / 2];
        let model = if at < 4 { "H100" } else { "A100" };
        all.push(cluster.node(&format!("n{at}"), inventory(model, 8, &["p", leaf])));
    }
    for &(count, per_node, run_s) in &situation.running {
        cluster.submit(exact(nodes(count, per_node), run_s));
    }
    cluster.decide();
    if let Some(at) = situation.cordoned {
        cordon(&mut cluster, all[at]);
    }
    let mut gangs = Vec::new();
    for &(count, per_node, run_s, wish) in &situation.waiting {
        let mut job = exact(nodes(count, per_node), run_s);
        match wish {
            0 => job = within(job, "leaf", Required, 1),
            1 => job.groups[0].models = vec![name("A100")],
            2 => job.begin_at_ms = Some(3_000_000),
            3 => job.groups[0].exclude = vec![name("n1"), name("n4")],
            4 => job.groups[0].exclusive = true,
            _ => {}
        }
        gangs.push(cluster.submit(job));
    }
    cluster.decide();
    (cluster, gangs)
}

proptest! {
    #![proptest_config(cases(48))]

    /// Whatever is told is done on a cluster of its own, and played: the gang starts as told.
    #[test]
    fn what_is_told_comes_true(situation in situations()) {
        let (cluster, gangs) = build(&situation);
        for gang in gangs {
            let Some(all) = remedies(&cluster.player.state, gang, cluster.now()) else { continue };
            prop_assert!(all.tried as usize <= TRIED_MAX);
            let same = remedies(&cluster.player.state, gang, cluster.now());
            prop_assert_eq!(Some(&all), same.as_ref());
            for remedy in &all.found {
                let (mut again, _) = build(&situation);
                let now = again.now();
                for entry in &remedy.change.entries {
                    again.commit(entry.clone());
                }
                prop_assert_eq!(again.now(), now);
                again.decide();
                again.run();
                let started = again.seen.starts.get(&gang).and_then(|starts| starts.first());
                prop_assert_eq!(started, Some(&remedy.start), "{}: {:?}", gang, remedy);
                prop_assert!(all.start.is_none_or(|before| remedy.start < before));
            }
        }
    }
}
