//! Slurm's limits (peers: SchedMD/slurm, doc/html/resource_limits.shtml): of the levels that define a limit the first one
//! wins, each limit for itself; GrpTRES and MaxTRES queue, GrpTRESMins under `safe` starts only what can end, and a limit
//! that is lowered stops nothing. GPU minutes are dollars here, at a dollar a minute.

use crate::plan_support;
use crate::taking_support::{account, charged};

use muster_common::GangId;
use muster_common::calendar::Period;
use muster_common::job::Scheduling;
use muster_common::money::MicroUsd;
use muster_engine::command::ConfigChange;
use muster_engine::organisation::{Account, Budget, Caps, Organisation, Price, User};
use muster_engine::outcome::{Refusal, Response};
use muster_engine::plan::explain::{Reason, explain};
use muster_engine::policy::{Order, Policy};
use muster_engine::{Command, Memo};
use plan_support::*;
use std::sync::Arc;

fn owner(called: &str, parent: Option<&str>) -> Account {
    Account { quota: Default::default(), ..account(called, parent, (0, None, None)) }
}

fn organised(accounts: Vec<Account>) -> Command {
    let prices = vec![Price { model: None, usd_per_gpu_hour: MicroUsd(60_000_000) }];
    configure(ConfigChange::Organisation(Arc::new(Organisation { accounts, prices, ..Organisation::default() })))
}

/// Seven machines of eight GPUs.
fn cluster(accounts: Vec<Account>) -> Cluster {
    let mut cluster = Cluster::new(Policy { order: Order::Fifo, ..Policy::default() });
    cluster.commit(organised(accounts));
    cluster.nodes(7, 8);
    cluster
}

fn of(called: &str, devices: u32, minutes: u64) -> Scheduling {
    charged(lasting(nodes(1, devices), minutes), called)
}

fn lasting(count: muster_common::job::Count, minutes: u64) -> Scheduling {
    plan_support::lasting(job(count), minutes * 60)
}

fn run(cluster: &Cluster, gangs: &[GangId]) -> Vec<bool> {
    gangs.iter().map(|gang| !cluster.held(*gang).is_empty()).collect()
}

fn waits_for(cluster: &Cluster, gang: GangId, reason: Reason) -> bool {
    let found = explain(&cluster.player.state, &mut Memo::default(), gang, cluster.now()).unwrap();
    found.blockers.iter().any(|blocker| blocker.reason == reason)
}

/// MaxJobs=20 at the first level and 4 at the next, which alone says MaxSubmitJobs=50: 20 and 50 are in effect.
#[test]
fn slurm_the_first_level_that_defines_a_limit_wins_each_for_itself() {
    let mut lab = owner("lab", None);
    lab.user_limits = Caps { running: Some(4), jobs: Some(50), ..Caps::default() };
    let first = Caps { running: Some(20), ..Caps::default() };
    lab.users.insert("test".into(), User { weight: 1, limits: Some(first) });
    let mut cluster = cluster(vec![lab]);
    let gangs: Vec<GangId> = (0..50).map(|_| cluster.submit(of("lab", 1, 10))).collect();
    cluster.seen.lenient = true;
    let response = cluster.commit(submit("one-too-many", of("lab", 1, 10))).response;
    assert!(matches!(&response, Response::Refused(Refusal::OverLimit(why)) if why.contains("50 jobs")), "{response:?}");
    cluster.decide();
    assert_eq!(run(&cluster, &gangs).iter().filter(|runs| **runs).count(), 20);
    assert!(waits_for(&cluster, gangs[20], Reason::UserLimit));
}

/// GrpTRES=gres/gpu=50: what is beyond is queued, and runs when others have left.
#[test]
fn slurm_a_group_limit_queues_until_its_group_has_given_back() {
    let mut lab = owner("lab", None);
    lab.limits.gpus = Some(50);
    let mut cluster = cluster(vec![lab, owner("bob", Some("lab")), owner("ann", Some("lab"))]);
    let six: Vec<GangId> = (0..6).map(|_| cluster.submit(of("bob", 8, 10))).collect();
    let beyond = cluster.submit(of("ann", 8, 10));
    let last = cluster.submit(of("ann", 2, 10));
    cluster.decide();
    assert_eq!(run(&cluster, &six), [true; 6]);
    assert_eq!(run(&cluster, &[beyond, last]), [false, true], "48 and 2 are 50");
    assert!(waits_for(&cluster, beyond, Reason::AccountLimit));
    cluster.run();
    assert_eq!(cluster.start_s(beyond), Some(600));
}

/// MaxTRESPerUser=gres/gpu=50 counts one user of the account, and no other account.
#[test]
fn slurm_a_users_limit_is_of_that_user_there() {
    let mut lab = owner("lab", None);
    lab.user_limits.gpus = Some(50);
    let mut cluster = cluster(vec![lab, owner("other", None)]);
    let six: Vec<GangId> = (0..6).map(|_| cluster.submit(of("lab", 8, 10))).collect();
    let (beyond, elsewhere) = (cluster.submit(of("lab", 4, 10)), cluster.submit(of("other", 4, 10)));
    cluster.decide();
    assert_eq!(run(&cluster, &six), [true; 6]);
    assert_eq!(run(&cluster, &[beyond, elsewhere]), [false, true]);
    assert!(waits_for(&cluster, beyond, Reason::UserLimit));
}

/// GrpTRESMins=gres/gpu=600 under `safe`: a job is only launched if it will be able to run to completion.
#[test]
fn slurm_safe_launches_only_what_can_run_to_completion() {
    let mut lab = owner("lab", None);
    lab.budget = Some(Budget { usd: MicroUsd(600_000_000), per: Period::Year });
    let mut cluster = cluster(vec![lab]);
    // 400 minutes, 240 and 120.
    let gangs = [(4, 100), (4, 60), (2, 60)].map(|(devices, minutes)| cluster.submit(of("lab", devices, minutes)));
    cluster.decide();
    assert_eq!(run(&cluster, &gangs), [true, false, true]);
    assert!(waits_for(&cluster, gangs[1], Reason::Budget));
    let now = cluster.now();
    while cluster.player.next_at().is_some_and(|at| at <= now.plus_ms(200 * 60_000)) {
        cluster.player.step(&mut cluster.seen).unwrap();
    }
    let ends = [gangs[0], gangs[2]].map(|gang| cluster.seen.ends[&gang].0);
    assert_eq!(ends, [6_000_000, 3_600_000], "nothing was killed at the limit");
    assert_eq!(cluster.start_s(gangs[1]), None, "80 minutes are left");
}

/// "When limits are lowered, running jobs will not be canceled to satisfy the new limits, but the new lower limits will
/// be enforced."
#[test]
fn slurm_a_lowered_limit_stops_nothing_that_runs() {
    let mut cluster = cluster(vec![owner("lab", None)]);
    let running: Vec<GangId> = (0..4).map(|_| cluster.submit(of("lab", 8, 10))).collect();
    cluster.decide();
    let mut lab = owner("lab", None);
    lab.limits.gpus = Some(16);
    cluster.commit(organised(vec![lab]));
    let next = cluster.submit(of("lab", 8, 10));
    cluster.decide();
    assert_eq!(run(&cluster, &running), [true; 4]);
    assert_eq!(run(&cluster, &[next]), [false]);
    cluster.run();
    assert_eq!(running.iter().map(|gang| cluster.seen.ends[gang].0).collect::<Vec<_>>(), [600_000; 4]);
    assert_eq!(cluster.start_s(next), Some(600));
}
