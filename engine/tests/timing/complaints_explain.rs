//! What users of other schedulers complained of, as far as reasons and estimates go: one test for each public issue,
//! named after it, on the situation it tells of.

use crate::plan_support;

use muster_common::{GangId, Time};
use muster_engine::Memo;
use muster_engine::command::{Cancel, Command, ConfigChange, Principal};
use muster_engine::forecast::forecast;
use muster_engine::organisation::{Account, Caps, Organisation};
use muster_engine::plan::brief::briefs;
use muster_engine::plan::explain::{Blocker, Explanation, Reason};
use muster_engine::policy::{Order, Policy};
use plan_support::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn fifo() -> Policy {
    Policy { order: Order::Fifo, ..Policy::default() }
}

fn why(cluster: &Cluster, gang: GangId) -> Explanation {
    windows::why(&cluster.player.state, gang)
}

fn blockers(cluster: &Cluster, gang: GangId) -> Vec<Blocker> {
    why(cluster, gang).blockers
}

/// Nodes that are all taken for 100 s.
fn full(count: usize) -> Cluster {
    let mut cluster = Cluster::new(fifo());
    cluster.nodes(count, 8);
    cluster.submit(exact(nodes(count as u32, 8), 100));
    cluster.decide();
    cluster
}

/// When each is foreseen to start, in seconds.
fn foreseen(cluster: &Cluster, gangs: &[GangId]) -> Vec<Option<u64>> {
    let all = forecast(&cluster.player.state, cluster.now());
    gangs.iter().map(|gang| all.starts[gang].map(|at| at.0 / 1000)).collect()
}

/// kubernetes-sigs/kueue 13159: "Workload wait time estimation". What is told is what then happens.
#[test]
fn kueue_13159_who_waits_is_told_when_it_starts_and_starts_then() {
    let mut cluster = full(2);
    let gangs =
        [(2, 50), (1, 500), (1, 20), (2, 10)].map(|(count, run_s)| cluster.submit(exact(nodes(count, 8), run_s)));
    let told = foreseen(&cluster, &gangs);
    assert_eq!(told, [Some(100), Some(150), Some(150), Some(650)]);
    cluster.decide();
    cluster.run();
    assert_eq!(gangs.map(|gang| cluster.start_s(gang)).to_vec(), told);
}

/// flux-framework/flux-sched 1015: "Only next job in queue has a sched.t_estimate".
#[test]
fn flux_1015_every_job_of_the_queue_has_an_estimate() {
    let mut cluster = full(1);
    let gangs: Vec<GangId> = (0..10).map(|_| cluster.submit(exact(nodes(1, 8), 60))).collect();
    cluster.decide();
    assert_eq!(foreseen(&cluster, &gangs), (0..10).map(|at| Some(100 + 60 * at)).collect::<Vec<_>>());
}

/// flux-framework/flux-sched 1424: "Multiple jobs in queue show eta:now while not being the job with highest priority".
#[test]
fn flux_1424_now_is_told_only_to_what_the_next_cycle_starts() {
    let mut cluster = Cluster::new(fifo());
    cluster.nodes(1, 8);
    let gangs = [0, 1, 2].map(|_| cluster.submit(exact(nodes(1, 8), 60)));
    assert_eq!(foreseen(&cluster, &gangs), [Some(0), Some(60), Some(120)]);
    let all = briefs(&cluster.player.state, &mut Memo::default(), cluster.now());
    assert_eq!(gangs.map(|gang| all.get(gang).unwrap().starts_now), [true, false, false]);
    cluster.decide();
    let next = [1, 2].map(|at| why(&cluster, gangs[at]));
    assert!(next.iter().all(|told| !told.starts_now && !told.blockers.is_empty()), "the node is taken: {next:?}");
    assert_eq!(foreseen(&cluster, &gangs[1..]), [Some(60), Some(120)]);
}

/// ROCm/spur 47 and 90: jobs wait with `Reason=Priority` while nodes are idle.
#[test]
fn spur_47_and_90_nobody_waits_for_priority_beside_idle_nodes() {
    let mut cluster = Cluster::new(fifo());
    cluster.nodes(3, 8);
    cluster.submit(exact(nodes(2, 8), 100));
    cluster.decide();
    // One node is idle. The first two cannot use it, for reasons of their own; the third starts on it behind them.
    let wide = cluster.submit(exact(nodes(2, 8), 100));
    let mut other = exact(nodes(1, 8), 100);
    other.groups[0].models = vec![name("A100")];
    let other = cluster.submit(other);
    let fits = cluster.submit(exact(nodes(1, 8), 50));
    let reason = |gang| blockers(&cluster, gang).first().map(|blocker| blocker.reason);
    assert_eq!([wide, other, fits].map(reason), [Some(Reason::Nodes), Some(Reason::NeverFits), None]);
    assert!(why(&cluster, fits).starts_now);
    cluster.decide();
    assert_eq!(cluster.start_s(fits), Some(0));
}

/// volcano-sh/volcano 4971: "The scheduling reason is inaccurate". Whoever is named is in the way: with them gone, and
/// nobody else, it starts.
#[test]
fn volcano_4971_with_those_gone_who_are_named_it_starts() {
    let mut cluster = Cluster::new(fifo());
    for (at, model) in ["H100", "H100", "A100"].into_iter().enumerate() {
        cluster.node(&format!("n{at}"), inventory(model, 8, &[]));
    }
    let on = |model: &str, count, per_node| {
        let mut wish = exact(nodes(count, per_node), 1000);
        wish.groups[0].models = vec![name(model)];
        wish
    };
    let holders = [on("H100", 1, 8), on("H100", 1, 3), on("A100", 1, 8)].map(|wish| cluster.submit(wish));
    cluster.decide();
    let gang = cluster.submit(on("H100", 2, 8));
    let told = blockers(&cluster, gang).remove(0);
    let held = format!("{} holds 8, {} holds 3", holders[0].job, holders[1].job);
    assert_eq!(told.detail, format!("needs 2 nodes with 8 free devices; 0 have that many; {held}"));
    for named in told.gangs {
        let by = Principal("test".into());
        cluster.commit(Command::Cancel(Cancel { job: named.job, ordinal: None, reason: String::new(), by }));
    }
    cluster.decide();
    assert_eq!(cluster.held(gang).len(), 2);
    assert_eq!(cluster.held(holders[2]).len(), 1, "the other still runs");
}

/// flux-framework/flux-sched 1219: "provide reason a job is not scheduled".
#[test]
fn flux_1219_whatever_waits_has_a_reason_in_words() {
    let mut cluster = full(2);
    let mut later = exact(nodes(1, 1), 10);
    later.begin_at_ms = Some(5000);
    let mut hungry = exact(nodes(1, 1), 10);
    hungry.groups[0].memory_bytes_per_node = Some(1 << 50);
    let wishes = [exact(nodes(2, 8), 10), exact(nodes(1, 1), 10), exact(nodes(9, 8), 10), later, hungry];
    let gangs = wishes.map(|wish| cluster.submit(wish));
    cluster.decide();
    for gang in gangs {
        let told = blockers(&cluster, gang);
        assert!(!told.is_empty() && told.iter().all(|blocker| !blocker.detail.is_empty()), "{gang}: {told:?}");
    }
}

/// ROCm/spur 478: one pass of the scheduler over-subscribed the limit of a group, since what it had just started did not
/// count.
#[test]
fn spur_478_what_one_cycle_starts_counts_against_the_limit() {
    let mut cluster = Cluster::new(fifo());
    cluster.nodes(4, 8);
    let account = Account {
        name: name("me"),
        parent: None,
        weight: 1,
        priority: 0,
        quota: BTreeMap::new(),
        limits: Caps { gpus: Some(16), ..Caps::default() },
        user_limits: Caps::default(),
        users: BTreeMap::new(),
        cells: Vec::new(),
        budget: None,
        reclaim_within_ms: None,
    };
    let document = Organisation { accounts: vec![account], ..Organisation::default() };
    cluster.commit(configure(ConfigChange::Organisation(Arc::new(document))));
    let gangs = [0, 1, 2].map(|_| cluster.submit(exact(nodes(1, 8), 100)));
    assert_eq!(gangs.map(|gang| why(&cluster, gang).starts_now), [true, true, false]);
    assert_eq!(blockers(&cluster, gangs[2])[0].reason, Reason::AccountLimit, "and `why` counts them too");
    cluster.decide();
    assert_eq!(gangs.map(|gang| cluster.start_s(gang)), [Some(0), Some(0), None]);
    assert_eq!(cluster.now(), Time(0));
}
