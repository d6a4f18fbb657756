//! Nodes that are put to sleep for want of work, and woken for gangs that wait.

use crate::plan_support;
use crate::taking_support;

use muster_common::job::{Count, Scheduling};
use muster_common::topology::TopologyMode::Required;
use muster_common::{GangId, NodeId, Time};
use muster_engine::command::{Command, ConfigChange, PowerAnswer, RequestNodes};
use muster_engine::forecast::forecast;
use muster_engine::outcome::{Event, Refusal, Response};
use muster_engine::plan::explain::Reason;
use muster_engine::plan::never::fits_ever;
use muster_engine::policy::{Admission, ElasticPool, Policy, PolicyError, Replan};
use muster_engine::state::node::Power;
use muster_engine::state::reservation::ReservationKind;
use plan_support::{configure, inventory, job, lasting, name, nodes, register, total, within};
use taking_support::*;

const IDLE_S: u64 = 600;
const WAKE_S: u64 = 300;
const TIMEOUT_S: u64 = 900;
const RETRY_S: u64 = 1800;

fn pool() -> ElasticPool {
    ElasticPool {
        idle_ms: IDLE_S * 1000,
        wake_ms: WAKE_S * 1000,
        wake_timeout_ms: TIMEOUT_S * 1000,
        retry_ms: RETRY_S * 1000,
        ..ElasticPool::default()
    }
}

/// A job that runs for so long, and says so.
fn taking_s(count: Count, run_s: u64) -> Scheduling {
    lasting(job(count), run_s)
}

fn policy(pool: ElasticPool) -> Policy {
    Policy { elastic: [(name("all"), pool)].into(), ..Policy::default() }
}

/// Racks of nodes with 8 devices, all asleep by now.
fn asleep(policy: Policy, racks: usize, per_rack: usize) -> (Cluster, Vec<Vec<NodeId>>) {
    let mut cluster = Cluster::new(policy);
    let nodes = cluster.racks(racks, per_rack, 8);
    cluster.pass(IDLE_S);
    (cluster, nodes)
}

impl Cluster {
    fn power(&self, node: NodeId) -> Power {
        self.player.state.node(node).unwrap().power
    }

    fn awake(&self) -> usize {
        self.player.state.nodes().values().filter(|node| node.power.is_awake()).count()
    }

    fn waking(&self) -> usize {
        self.player.state.nodes().values().filter(|node| matches!(node.power, Power::Waking { .. })).count()
    }

    fn epoch(&self, node: NodeId) -> u64 {
        self.player.state.node(node).unwrap().epoch
    }

    fn reasons(&mut self, gang: GangId) -> Vec<Reason> {
        self.why(gang).blockers.into_iter().map(|blocker| blocker.reason).collect()
    }
}

#[test]
fn without_an_elastic_pool_every_node_stays_awake() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.racks(1, 2, 8);
    cluster.pass(100 * 86_400);
    assert_eq!(cluster.awake(), 2);
}

#[test]
fn a_node_is_put_to_sleep_once_it_has_had_nothing_to_do_for_that_long() {
    let mut cluster = Cluster::new(policy(pool()));
    let nodes_ = cluster.racks(1, 2, 8).remove(0);
    let job = cluster.submit(taking_s(nodes(1, 8), 1000));
    let busy = cluster.nodes_of(job)[0];
    let idle = nodes_[usize::from(nodes_[0] == busy)];
    cluster.pass(IDLE_S - 1);
    assert_eq!(cluster.awake(), 2);
    cluster.pass(1);
    assert!(!cluster.power(idle).is_awake() && cluster.power(busy).is_awake());
    // The other has its own time from the end of its work on.
    cluster.pass(1000 - IDLE_S);
    assert!(!cluster.runs(job));
    cluster.pass(IDLE_S - 1);
    assert!(cluster.power(busy).is_awake());
    cluster.pass(1);
    assert_eq!(cluster.power(busy), Power::Asleep { since: cluster.now(), rests_until: Time::ZERO });
}

#[test]
fn so_many_nodes_stay_awake_and_those_left_out_and_without_the_labels_do_too() {
    let pool = ElasticPool {
        keep_awake: 1,
        except: [name("n0")].into(),
        labels: [(name("pool"), "burst".to_owned())].into(),
        ..pool()
    };
    let mut cluster = Cluster::new(policy(pool));
    let mut labelled = inventory("H100", 8, &[]);
    let plain = cluster.node("plain", labelled.clone());
    labelled.labels.insert(name("pool"), "burst".into());
    let all: Vec<NodeId> = (0..4).map(|at| cluster.node(&format!("n{at}"), labelled.clone())).collect();
    cluster.pass(10 * IDLE_S);
    assert!(cluster.power(plain).is_awake() && cluster.power(all[0]).is_awake());
    assert_eq!(all[1..].iter().filter(|node| cluster.power(**node).is_awake()).count(), 1);
}

#[test]
fn no_more_nodes_than_that_are_on_their_way_at_a_time() {
    let pool = ElasticPool { nodes_at_once: 2, ..pool() };
    let mut cluster = Cluster::new(policy(pool));
    let all = cluster.racks(1, 5, 8).remove(0);
    cluster.watch.stuck.extend(all.iter().copied());
    let at_once = |cluster: &Cluster| {
        let mut asked = Vec::new();
        for command in muster_engine::cycle(&cluster.player.state, &mut Default::default(), cluster.now()).commands {
            if let Command::SleepNodes { nodes } = command {
                asked.extend(nodes);
            }
        }
        asked.len()
    };
    // Nothing has been decided at that moment yet.
    cluster.player.commit(Time(IDLE_S * 1000), Command::Nothing, &mut cluster.watch).unwrap();
    assert_eq!(at_once(&cluster), 2);
    // Those that could not be switched off are left alone for a while, and the others have their turn.
    cluster.decide();
    let stays = |node: &NodeId| cluster.power(*node) == Power::Awake { stays_until: Time((IDLE_S + RETRY_S) * 1000) };
    assert!(all.iter().all(stays));
}

#[test]
fn nothing_is_placed_on_a_node_that_sleeps_and_yet_its_jobs_are_taken() {
    let pool = ElasticPool { wake_after_ms: 3_600_000, ..pool() };
    let (mut cluster, _) = asleep(policy(pool), 1, 2);
    assert_eq!(cluster.awake(), 0);
    let wish = taking_s(nodes(2, 8), 60);
    assert!(fits_ever(&cluster.player.state, &wish).is_ok());
    let gang = cluster.submit(wish);
    assert_eq!(cluster.word(gang), "WAITING");
    let why = cluster.why(gang);
    let blocker = why.blockers.iter().find(|blocker| blocker.reason == Reason::Asleep).expect("sleepers are named");
    assert_eq!(blocker.detail, "2 nodes are asleep; `elastic.all` wakes nodes for what has waited for 3600 s");
    assert!(!cluster.reasons(gang).contains(&Reason::ClosedNodes));
}

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
fn the_silence_of_a_node_that_sleeps_is_nothing() {
    let (mut cluster, all) = asleep(policy(pool()), 1, 1);
    let node = all[0][0];
    let (epoch, term) = (cluster.epoch(node), cluster.player.state.applied_term());
    for command in
        [Command::NodeSilent { node, epoch, term }, Command::NodeFenced { node, epoch, term, waited_ms: u64::MAX }]
    {
        let outcome = cluster.commit(command);
        assert_eq!((outcome.response, outcome.events), (Response::Noop, Vec::new()));
    }
    // And the agent of one that is going down may be heard once more.
    cluster.commit(register("r0n0", inventory("H100", 8, &["r0"])));
    assert!(!cluster.power(node).is_awake());
}

#[test]
fn a_node_that_somebody_switches_on_is_awake() {
    let (mut cluster, all) = asleep(policy(pool()), 1, 1);
    let mut booted = inventory("H100", 8, &["r0"]);
    booted.boot_id = "another".into();
    let outcome = cluster.commit(register("r0n0", booted));
    assert!(outcome.events.contains(&Event::NodeAwake { node: all[0][0] }));
    assert!(cluster.power(all[0][0]).is_awake());
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
fn nodes_that_are_kept_or_booked_stay_awake() {
    let (mut cluster, _) = asleep(policy(ElasticPool { keep_awake: 3, ..pool() }), 1, 4);
    let long = cluster.submit(taking_s(nodes(1, 8), 5000));
    cluster.watch.lost.extend(cluster.player.state.nodes().keys().copied().collect::<Vec<_>>());
    // Three more are missing of which one sleeps and does not come: it is booked behind the long one.
    let wide = cluster.submit(taking_s(nodes(3, 8), 60));
    assert!(cluster.runs(long) && !cluster.runs(wide));
    cluster.commit(configure(ConfigChange::Policy(policy(pool()))));
    cluster.pass(4000);
    assert!(cluster.awake() >= 3, "two idle nodes wait for the third");
    cluster.pass(1000);
    assert!(cluster.runs(wide));
}

#[test]
fn apply_puts_no_node_with_work_to_sleep_and_wakes_none_that_is_awake() {
    let mut cluster = Cluster::new(policy(pool()));
    let all = cluster.racks(1, 2, 8).remove(0);
    let gang = cluster.submit(taking_s(nodes(1, 8), 1000));
    let (busy, idle) = (cluster.nodes_of(gang)[0], all[usize::from(all[0] == cluster.nodes_of(gang)[0])]);
    let sleep = |cluster: &mut Cluster, node, epoch| cluster.commit(Command::SleepNodes { nodes: vec![(node, epoch)] });
    let epoch = cluster.epoch(busy);
    assert_eq!(sleep(&mut cluster, busy, epoch).response, Response::Noop);
    assert_eq!(sleep(&mut cluster, idle, 0).response, Response::Noop, "registered again since");
    cluster.watch.exact.lenient = true;
    let waits = cluster.submit(taking_s(total(16), 1000));
    let witness = (0..8).map(|slot| muster_common::DeviceId { node: idle, slot }).collect();
    let asked = RequestNodes { gang: waits, nodes: vec![idle], witness };
    let refused = cluster.commit(Command::RequestNodes(Box::new(asked))).response;
    assert!(matches!(refused, Response::Refused(Refusal::NotNow(_))), "{refused:?}");
    let epoch = cluster.epoch(idle);
    let answer = Command::NodePower { node: idle, epoch, answer: PowerAnswer::Asleep };
    assert_eq!(cluster.commit(answer).response, Response::Noop, "nobody has asked");
}

#[test]
fn a_cluster_of_an_earlier_feature_level_takes_no_elastic_policy() {
    let mut state = muster_engine::State::default();
    let change = configure(ConfigChange::Policy(policy(pool())));
    let entry = muster_engine::Entry { index: 1, term: 1, at: Time(0), command: change };
    let response = muster_engine::apply::apply(&mut state, &entry).response;
    assert_eq!(response, Response::Refused(Refusal::FeatureLevel { level: 0, needed: 7 }));
}

#[test]
fn a_policy_says_which_number_of_a_pool_is_wrong() {
    let told = |pool| policy(pool).validate().unwrap_err();
    let path = |error| match error {
        PolicyError::Range { path, .. } => path,
        other => panic!("{other}"),
    };
    assert_eq!(path(told(ElasticPool { idle_ms: 0, ..pool() })), "elastic.all.idle_ms");
    assert_eq!(path(told(ElasticPool { wake_ms: TIMEOUT_S * 1000 + 1, ..pool() })), "elastic.all.wake_ms");
    assert_eq!(path(told(ElasticPool { retry_ms: 0, ..pool() })), "elastic.all.retry_ms");
    assert_eq!(path(told(ElasticPool { nodes_at_once: 0, ..pool() })), "elastic.all.nodes_at_once");
    let replan = Replan::Refill { min_run_ms: 0, max_victims_per_cycle: 1 };
    assert_eq!(Policy { replan, ..policy(pool()) }.validate(), Err(PolicyError::ElasticRefill));
    let wrong = told(ElasticPool { idle_ms: 0, ..pool() }).to_string();
    assert_eq!(wrong, "elastic.all.idle_ms is 0; it must be between 1000 and 31622400000");
}

#[test]
fn a_node_of_which_nobody_says_that_it_is_off_is_awake_again_in_time() {
    let pool = ElasticPool { sleep_timeout_ms: 60_000, ..pool() };
    let mut cluster = Cluster::new(policy(pool));
    let node = cluster.racks(1, 1, 8)[0][0];
    cluster.watch.silent.insert(node);
    cluster.pass(IDLE_S);
    let since = cluster.now();
    assert_eq!(cluster.power(node), Power::FallingAsleep { since, by: since.plus_ms(60_000) });
    cluster.pass(59);
    assert!(matches!(cluster.power(node), Power::FallingAsleep { .. }));
    cluster.pass(1);
    let stays_until = cluster.now().plus_ms(RETRY_S * 1000);
    assert_eq!(cluster.power(node), Power::Awake { stays_until });
    // What is said after that is said to nobody.
    let late = Command::NodePower { node, epoch: cluster.epoch(node), answer: PowerAnswer::Asleep };
    assert_eq!(cluster.commit(late).response, Response::Noop);
}

#[test]
fn an_agent_that_is_heard_on_its_way_down_does_not_pass_for_one_that_has_come_back() {
    let (mut cluster, all) = asleep(policy(pool()), 1, 1);
    let node = all[0][0];
    cluster.watch.lost.insert(node);
    cluster.submit(taking_s(nodes(1, 8), 60));
    let again = || register("r0n0", inventory("H100", 8, &["r0"]));
    cluster.commit(again());
    assert!(matches!(cluster.power(node), Power::Waking { .. }));
    // Nothing goes down for so long: it was never off.
    cluster.pass(120);
    cluster.commit(again());
    assert!(cluster.power(node).is_awake());
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
    let by = || muster_engine::command::Principal("root".into());
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

#[test]
fn a_share_beside_anothers_keeps_nobody_from_waking_the_rest() {
    let (mut cluster, _) = asleep(policy(ElasticPool { keep_awake: 1, ..pool() }), 1, 2);
    let shares = |count, milli| {
        let mut wish = taking_s(count, 100_000);
        wish.groups[0].share = muster_common::resources::Share(milli);
        wish
    };
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
fn a_node_that_nothing_can_be_placed_on_is_none_of_those_that_stay_awake() {
    let mut cluster = Cluster::new(policy(ElasticPool { keep_awake: 1, ..pool() }));
    let all = cluster.racks(1, 2, 8).remove(0);
    let by = muster_engine::command::Principal("root".into());
    let action = muster_engine::command::NodeAction::Cordon { reason: "fan".into() };
    cluster.commit(Command::NodeAdmin { node: all[0], action, by });
    cluster.pass(10 * IDLE_S);
    assert!(cluster.power(all[1]).is_awake());
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

#[test]
fn a_window_may_be_of_nodes_that_sleep() {
    let (mut cluster, _) = asleep(policy(pool()), 1, 2);
    let window = muster_engine::command::MakeWindow {
        name: name("firmware"),
        start: cluster.now().plus_ms(3_600_000),
        end: cluster.now().plus_ms(7_200_000),
        nodes: muster_engine::command::Which::Some { nodes: 2, model: None, level: None },
        holders: muster_engine::state::window::Holders::Nobody,
        reason: String::new(),
        by: muster_engine::command::Principal("root".into()),
        managed: false,
    };
    let made = cluster.commit(Command::MakeWindow(Box::new(window))).response;
    assert!(!matches!(made, Response::Refused(_)), "{made:?}");
}
