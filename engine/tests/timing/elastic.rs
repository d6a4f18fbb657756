//! Nodes that are put to sleep for want of work, and woken for gangs that wait.

mod wakes;

use crate::plan_support;
use crate::taking_support;

use muster_common::job::{Count, Scheduling};
use muster_common::{GangId, NodeId, Time};
use muster_engine::command::{Command, ConfigChange, PowerAnswer, RequestNodes};
use muster_engine::outcome::{Event, Refusal, Response};
use muster_engine::plan::explain::Reason;
use muster_engine::plan::never::fits_ever;
use muster_engine::policy::{ElasticPool, Policy, PolicyError, Replan};
use muster_engine::state::node::Power;
use plan_support::{configure, inventory, job, lasting, name, nodes, register, total};
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
