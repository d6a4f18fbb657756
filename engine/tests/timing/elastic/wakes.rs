//! Whom nodes are woken for, which, and how many.

use super::*;

use crate::plan_support::{device_lost, within};
use muster_common::resources::Share;
use muster_common::topology::TopologyMode::Required;
use muster_engine::command::{NodeAction, Principal};
use muster_engine::forecast::forecast;
use muster_engine::policy::Admission;
use muster_engine::state::reservation::ReservationKind;

#[test]
fn a_gang_that_has_waited_long_enough_wakes_what_it_needs_and_starts_when_all_is_back() {
    let pool = ElasticPool { wake_after_ms: 120_000, ..pool() };
    let (mut cluster, _) = asleep(policy(pool), 1, 4);
    let gang = cluster.submit(taking_s(nodes(3, 8), 10_000));
    cluster.pass(119);
    assert_eq!((cluster.awake(), cluster.waking()), (0, 0));
    cluster.pass(1);
    assert_eq!((cluster.awake(), cluster.waking()), (0, 3));
    let why = cluster.why(gang);
    assert_eq!(why.blockers[0].reason, Reason::Waking);
    assert_eq!(why.blockers[0].detail, "3 nodes are being woken for it");
    assert_eq!(why.blockers[0].until, Some(cluster.now().plus_ms(WAKE_S * 1000)));
    let foreseen = forecast(&cluster.player.state, cluster.now());
    assert_eq!(foreseen.starts.get(&gang), Some(&Some(cluster.now().plus_ms(WAKE_S * 1000))));
    cluster.pass(WAKE_S - 1);
    assert!(!cluster.runs(gang));
    cluster.pass(1);
    assert!(cluster.runs(gang));
    assert_eq!(cluster.awake(), 3);
}

#[test]
fn with_free_nodes_beside_them_no_more_are_woken_than_are_missing() {
    let (mut cluster, all) = asleep(policy(ElasticPool { keep_awake: 2, ..pool() }), 2, 4);
    assert_eq!(cluster.awake(), 2);
    let gang = cluster.submit(taking_s(nodes(3, 8), 10_000));
    assert_eq!(cluster.waking(), 1);
    cluster.pass(WAKE_S);
    assert!(cluster.runs(gang) && cluster.awake() == 3, "{:?}", all);
}

#[test]
fn nothing_is_woken_for_a_gang_that_would_not_fit_all_the_same() {
    let (mut cluster, _) = asleep(policy(pool()), 2, 2);
    // Three nodes of one rack; there are two in each.
    let wide = cluster.only_submit(within(taking_s(nodes(3, 8), 60), "rack", Required, 1));
    cluster.decide();
    assert_eq!((cluster.waking(), cluster.awake()), (0, 0));
    assert!(!cluster.runs(wide));
    let fits = cluster.submit(within(taking_s(nodes(2, 8), 60), "rack", Required, 1));
    assert_eq!(cluster.waking(), 2);
    cluster.pass(WAKE_S);
    assert!(cluster.runs(fits));
}

#[test]
fn what_is_woken_is_kept_for_the_gang_it_was_woken_for() {
    let (mut cluster, _) = asleep(policy(ElasticPool { keep_awake: 1, ..pool() }), 1, 3);
    let gang = cluster.submit(taking_s(nodes(2, 8), 10_000));
    assert_eq!(cluster.waking(), 1);
    let kept = cluster.kept(gang, ReservationKind::Woken).expect("both nodes are kept");
    assert_eq!(kept.witness.len(), 16);
    // Neither the one that is awake nor the one that comes is another's.
    let high = cluster.submit(class(taking_s(nodes(1, 8), 60), "high"));
    assert!(!cluster.runs(high));
    cluster.pass(WAKE_S);
    assert!(cluster.runs(gang));
    assert!(cluster.kept(gang, ReservationKind::Woken).is_none());
}

#[test]
fn what_has_room_on_a_node_that_is_being_woken_wakes_no_other() {
    let (mut cluster, _) = asleep(policy(pool()), 1, 3);
    let gangs: Vec<GangId> = (0..8).map(|_| cluster.submit(taking_s(nodes(1, 1), 10_000))).collect();
    assert_eq!(cluster.waking(), 1);
    let ninth = cluster.submit(taking_s(nodes(1, 1), 10_000));
    assert_eq!(cluster.waking(), 2);
    cluster.pass(WAKE_S);
    assert!(gangs.iter().chain([&ninth]).all(|gang| cluster.runs(*gang)));
    assert_eq!(cluster.awake(), 2);
}

#[test]
fn a_node_that_does_not_come_back_is_left_alone_and_another_is_woken() {
    let (mut cluster, all) = asleep(policy(pool()), 1, 2);
    let first = all[0][0];
    cluster.watch.lost.extend(all[0].iter().copied());
    let gang = cluster.submit(taking_s(nodes(1, 8), 10_000));
    assert!(matches!(cluster.power(first), Power::Waking { .. }));
    cluster.pass(TIMEOUT_S);
    let rests_until = cluster.now().plus_ms(RETRY_S * 1000);
    assert_eq!(cluster.power(first), Power::Asleep { since: cluster.now(), rests_until });
    assert!(matches!(cluster.power(all[0][1]), Power::Waking { .. }));
    cluster.watch.lost.clear();
    cluster.pass(TIMEOUT_S);
    // Neither came. The first is tried again when its rest is over, and comes.
    assert_eq!(cluster.waking(), 0);
    cluster.pass(RETRY_S - TIMEOUT_S);
    assert!(matches!(cluster.power(first), Power::Waking { .. }));
    cluster.pass(WAKE_S);
    assert!(cluster.runs(gang));
}

#[test]
fn a_start_that_is_booked_sooner_than_nodes_wake_wakes_none() {
    let (mut cluster, _) = asleep(policy(ElasticPool { keep_awake: 1, ..pool() }), 1, 2);
    let short = cluster.submit(taking_s(nodes(1, 8), WAKE_S - 1));
    let waits = cluster.submit(taking_s(nodes(1, 8), 60));
    assert!(cluster.runs(short) && cluster.waking() == 0);
    cluster.pass(WAKE_S - 1);
    assert!(cluster.runs(waits));
    // Behind a long one it is worth the while.
    cluster.submit(taking_s(nodes(1, 8), 100_000));
    cluster.pass(60);
    cluster.submit(taking_s(nodes(1, 8), 60));
    assert_eq!(cluster.waking(), 1);
}

#[test]
fn a_gang_whose_booked_start_did_not_come_has_a_node_woken() {
    let (mut cluster, _) = asleep(policy(ElasticPool { keep_awake: 1, ..pool() }), 1, 2);
    let short = cluster.submit(taking_s(nodes(1, 8), WAKE_S - 1));
    let waits = cluster.submit(taking_s(nodes(1, 8), 60));
    let busy = cluster.nodes_of(short)[0];
    assert!(cluster.kept(waits, ReservationKind::Booked).is_some() && cluster.waking() == 0);
    // The node that it was to have is closed while the short one is still on it.
    let (action, by) = (NodeAction::Cordon { reason: "fans".into() }, Principal("root".into()));
    cluster.commit(Command::NodeAdmin { node: busy, action, by });
    cluster.pass(WAKE_S - 1);
    assert!(!cluster.runs(short) && !cluster.runs(waits));
    cluster.pass(WAKE_S);
    assert!(cluster.runs(waits) && cluster.nodes_of(waits)[0] != busy);
}

#[test]
fn a_gang_that_needs_more_nodes_than_may_be_on_their_way_is_served_alone() {
    let (mut cluster, _) = asleep(policy(ElasticPool { nodes_at_once: 2, ..pool() }), 1, 6);
    cluster.pass(10 * IDLE_S);
    assert_eq!(cluster.awake(), 0);
    let small = cluster.submit(taking_s(nodes(1, 8), 10_000));
    let large = cluster.submit(taking_s(nodes(4, 8), 10_000));
    assert_eq!(cluster.waking(), 1);
    cluster.pass(WAKE_S);
    assert!(cluster.runs(small) && cluster.waking() == 4);
    cluster.pass(WAKE_S);
    assert!(cluster.runs(large));
}

#[test]
fn in_a_strict_order_nodes_are_woken_for_the_first_alone() {
    let mut policy = policy(pool());
    policy.admission = Admission::HeadOfLine { sticky: false };
    policy.backfill.reserve_depth = 0;
    let (mut cluster, _) = asleep(policy, 1, 2);
    let head = cluster.only_submit(taking_s(nodes(1, 8), 100_000));
    cluster.only_submit(taking_s(nodes(2, 8), 60));
    cluster.only_submit(taking_s(nodes(1, 8), 60));
    cluster.decide();
    assert_eq!(cluster.waking(), 1);
    cluster.pass(WAKE_S);
    assert!(cluster.runs(head) && cluster.waking() == 0);
}

#[test]
fn a_head_that_can_never_run_any_more_keeps_nobody_from_having_a_node_woken() {
    let mut policy = policy(ElasticPool { wake_after_ms: 120_000, ..pool() });
    policy.admission = Admission::HeadOfLine { sticky: true };
    let (mut cluster, all) = asleep(policy, 1, 2);
    let head = cluster.submit(taking_s(nodes(2, 8), 60));
    assert!(cluster.kept(head, ReservationKind::Head).is_some());
    cluster.commit(device_lost(all[0][0], 1));
    let waits = cluster.submit(taking_s(nodes(1, 8), 60));
    assert_eq!(cluster.reasons(head)[..1], [Reason::NeverFits]);
    cluster.pass(120);
    assert_eq!(cluster.waking(), 1);
    cluster.pass(WAKE_S);
    assert!(cluster.runs(waits) && !cluster.runs(head));
}

#[test]
fn pools_are_woken_by_their_waiting_budgets() {
    let owned = pool();
    let rented =
        ElasticPool { labels: [(name("pool"), "burst".to_owned())].into(), wake_after_ms: 1_800_000, ..pool() };
    let owned = ElasticPool { labels: [(name("pool"), "own".to_owned())].into(), ..owned };
    let policy = Policy { elastic: [(name("a-rented"), rented), (name("own"), owned)].into(), ..Policy::default() };
    let mut cluster = Cluster::new(policy);
    let mut own = inventory("H100", 8, &[]);
    own.labels.insert(name("pool"), "own".into());
    let mut burst = own.clone();
    burst.labels.insert(name("pool"), "burst".into());
    let burst = cluster.node("a", burst);
    let own = cluster.node("b", own);
    cluster.pass(IDLE_S);
    cluster.submit(taking_s(nodes(1, 8), 100_000));
    assert!(matches!(cluster.power(own), Power::Waking { .. }), "the pool that asks for no wait comes first");
    let second = cluster.submit(taking_s(nodes(1, 8), 60));
    cluster.pass(1799);
    assert!(!cluster.power(burst).is_awake() && cluster.waking() == 0);
    cluster.pass(1);
    assert!(matches!(cluster.power(burst), Power::Waking { .. }));
    cluster.pass(WAKE_S);
    assert!(cluster.runs(second));
}

#[test]
fn nodes_are_woken_before_anybody_is_stopped_for_who_has_waited_long_enough() {
    let play = |wake_after_ms| {
        let pool = ElasticPool { keep_awake: 1, wake_after_ms, ..pool() };
        let policy = Policy { elastic: [(name("all"), pool)].into(), ..preempting() };
        let (mut cluster, _) = asleep(policy, 1, 2);
        let low = cluster.submit(class(taking_s(nodes(1, 8), 100_000), "low"));
        assert!(cluster.runs(low));
        let high = cluster.submit(class(taking_s(nodes(1, 8), 60), "high"));
        (cluster.waking(), cluster.watch.stops.len(), cluster.word(high))
    };
    assert_eq!(play(0), (1, 0, "WAITING"));
    let (waking, stops, _) = play(3_600_000);
    assert_eq!((waking, stops), (0, 1));
}

#[test]
fn who_no_node_helps_keeps_nobody_from_being_woken_for_however_many_they_are() {
    let (mut cluster, _) = asleep(policy(pool()), 1, 2);
    let mut other = taking_s(nodes(1, 8), 60);
    other.groups[0].labels.insert(name("pool"), "none".to_owned());
    cluster.commit(register("labelled", {
        let mut labelled = inventory("H100", 8, &["r0"]);
        labelled.labels.insert(name("pool"), "none".to_owned());
        labelled
    }));
    let long = cluster.submit(lasting(other.clone(), 1_000_000));
    assert!(cluster.runs(long));
    for _ in 0..1_100 {
        cluster.only_submit(lasting(other.clone(), 1_000_000));
    }
    let last = cluster.only_submit(taking_s(nodes(1, 8), 60));
    cluster.watch.exact.check = false;
    cluster.decide();
    assert_eq!(cluster.waking(), 1);
    cluster.pass(WAKE_S);
    assert!(cluster.runs(last));
}

#[test]
fn who_needs_more_nodes_than_may_be_on_their_way_is_not_passed_by_for_ever() {
    let (mut cluster, _) = asleep(policy(ElasticPool { nodes_at_once: 2, ..pool() }), 1, 6);
    cluster.pass(10 * IDLE_S);
    assert_eq!(cluster.awake(), 0);
    cluster.submit(taking_s(nodes(1, 8), 10_000));
    let large = cluster.submit(taking_s(nodes(4, 8), 10_000));
    cluster.pass(WAKE_S / 2);
    cluster.submit(taking_s(nodes(1, 8), 10_000));
    assert_eq!(cluster.waking(), 1, "nobody takes its turn");
    cluster.pass(WAKE_S / 2);
    assert_eq!(cluster.waking(), 4);
    cluster.pass(WAKE_S);
    assert!(cluster.runs(large));
}

#[test]
fn gangs_without_devices_have_as_many_nodes_woken_as_they_fill() {
    let (mut cluster, _) = asleep(policy(pool()), 1, 4);
    let cpus = inventory("H100", 8, &[]).cpu_milli;
    let mut wish = taking_s(nodes(1, 0), 10_000);
    wish.groups[0].cpu_milli_per_node = Some(cpus / 2);
    let gangs: Vec<GangId> = (0..5).map(|_| cluster.only_submit(wish.clone())).collect();
    cluster.decide();
    assert_eq!(cluster.waking(), 3);
    cluster.decide();
    assert_eq!(cluster.waking(), 3, "what is on its way is enough");
    cluster.pass(WAKE_S);
    assert!(gangs.iter().all(|gang| cluster.runs(*gang)));
}

#[test]
fn the_waiting_budget_begins_when_a_gang_could_start() {
    let pool = ElasticPool { wake_after_ms: 120_000, ..pool() };
    let (mut cluster, _) = asleep(policy(pool), 1, 2);
    let by = || Principal("root".into());
    let held = cluster.submit(taking_s(nodes(1, 8), 10_000));
    cluster.commit(Command::Hold { job: held.job, hold: true, by: by() });
    let mut later = taking_s(nodes(1, 8), 10_000);
    later.begin_at_ms = Some(cluster.now().plus_ms(600_000).0);
    cluster.submit(later);
    cluster.pass(300);
    assert_eq!(cluster.waking(), 0);
    cluster.commit(Command::Hold { job: held.job, hold: false, by: by() });
    cluster.pass(119);
    assert_eq!(cluster.waking(), 0);
    cluster.pass(1);
    assert_eq!(cluster.waking(), 1);
    cluster.pass(300 - 120 + 119);
    assert_eq!(cluster.awake() + cluster.waking(), 1);
    cluster.pass(1);
    assert_eq!(cluster.awake() + cluster.waking(), 2);
}

fn shares(count: Count, milli: u16) -> Scheduling {
    let mut wish = taking_s(count, 100_000);
    wish.groups[0].share = Share(milli);
    wish
}

#[test]
fn a_share_beside_anothers_keeps_nobody_from_waking_the_rest() {
    let (mut cluster, _) = asleep(policy(ElasticPool { keep_awake: 1, ..pool() }), 1, 2);
    // One device of the node that is awake is half used, the others are taken whole.
    let half = cluster.submit(shares(nodes(1, 1), 500));
    let whole = cluster.submit(taking_s(nodes(1, 7), 100_000));
    assert!(cluster.runs(half) && cluster.runs(whole));
    let wide = cluster.submit(shares(nodes(2, 1), 500));
    assert_eq!(cluster.waking(), 1);
    cluster.pass(WAKE_S);
    assert!(cluster.runs(wide));
}

#[test]
fn a_share_beside_one_that_starts_in_the_same_cycle_keeps_nobody_from_waking_the_rest() {
    let (mut cluster, _) = asleep(policy(ElasticPool { keep_awake: 1, ..pool() }), 1, 2);
    let half = cluster.only_submit(shares(nodes(1, 1), 500));
    let whole = cluster.only_submit(taking_s(nodes(1, 7), 100_000));
    let wide = cluster.only_submit(shares(nodes(2, 1), 500));
    cluster.decide();
    assert!(cluster.runs(half) && cluster.runs(whole));
    assert_eq!(cluster.waking(), 1);
    cluster.pass(WAKE_S);
    assert!(cluster.runs(wide));
}

#[test]
fn the_pool_is_named_that_wakes_what_is_missing() {
    let label = |word: &str| [(name("pool"), word.to_owned())].into();
    let own = ElasticPool { labels: label("own"), wake_after_ms: 3_600_000, ..pool() };
    let rented = ElasticPool { labels: label("burst"), wake_after_ms: 7_200_000, ..pool() };
    let policy = Policy { elastic: [(name("own"), own), (name("rented"), rented)].into(), ..Policy::default() };
    let mut cluster = Cluster::new(policy);
    for (node, word) in [("a", "own"), ("b", "burst")] {
        let mut labelled = inventory("H100", 8, &[]);
        labelled.labels.insert(name("pool"), word.into());
        cluster.node(node, labelled);
    }
    cluster.pass(IDLE_S);
    let told = |cluster: &mut Cluster, gang| {
        let blockers = cluster.why(gang).blockers;
        blockers.into_iter().find(|blocker| blocker.reason == Reason::Asleep).expect("it is named").detail
    };
    let one = cluster.submit(taking_s(nodes(1, 8), 60));
    assert!(told(&mut cluster, one).contains("`elastic.own` wakes nodes for what has waited for 3600 s"));
    let two = cluster.submit(taking_s(nodes(2, 8), 60));
    assert!(told(&mut cluster, two).contains("`elastic.rented` wakes nodes for what has waited for 7200 s"));
}
