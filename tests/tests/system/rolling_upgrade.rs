//! An operator's upgrade: a new program, one server after the other, then the agents, under load.

use super::job;
use muster_proto::client::ListJobsRequest;
use muster_tests::binary::muster;
use muster_tests::cluster::people::Person;
use muster_tests::cluster::process::Daemon;
use muster_tests::cluster::ranks::check_lines;
use muster_tests::cluster::wait::until;
use muster_tests::cluster::{Options, TestCluster};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const STOPS_WITHIN: Duration = Duration::from_secs(30);
/// Jobs that must have been accepted while one server or agent was replaced.
const SUBMITS_EACH: usize = 3;
/// Between two submits.
const PAUSE: Duration = Duration::from_millis(150);

/// Jobs by key, as they were acknowledged.
type Acknowledged = Arc<Mutex<BTreeMap<String, u64>>>;

/// Submits until told to stop, each job under a key of its own.
fn submit_on(user: Person, acknowledged: Acknowledged, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            for number in (0..).take_while(|_| !stop.load(Relaxed)) {
                let key = format!("small-{number}");
                let reply = user.submit(&job(&key, 1, 1, "true"), &key).await;
                acknowledged.lock().unwrap().insert(key, reply.job.expect("a submit is answered with the job").id);
                tokio::time::sleep(PAUSE).await;
            }
        });
    })
}

async fn some_more(acknowledged: &Acknowledged, while_what: &str) {
    let before = acknowledged.lock().unwrap().len();
    let more = async || (acknowledged.lock().unwrap().len() >= before + SUBMITS_EACH).then_some(());
    until(&format!("submits {while_what}"), more).await;
}

fn replace(daemon: &mut Daemon, program: &Path) {
    let ended = daemon.ended_within(STOPS_WITHIN);
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "{} stops cleanly", daemon.name);
    daemon.upgrade_to(program);
    daemon.start();
}

/// Replaces a server and waits until it has caught up, as `cluster status` shows it to an operator.
async fn upgrade_server(cluster: &mut TestCluster, at: usize, program: &Path, acknowledged: &Acknowledged) {
    let name = cluster.servers[at].name.clone();
    cluster.servers[at].signal(Signal::SIGTERM);
    some_more(acknowledged, &format!("while {name} is away")).await;
    replace(&mut cluster.servers[at], program);
    let leader = cluster.leader().await;
    let status = cluster.admin.status_of(&cluster.addresses[leader]).await.expect("the leader answers");
    until(&format!("{name} has what was committed before"), async || {
        let own = cluster.admin.status_of(&cluster.addresses[at]).await?;
        (own.leader_id != 0 && own.applied_index >= status.committed_index).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rolling_upgrade_of_servers_and_agents_stops_no_job_and_loses_no_submit() {
    let mut cluster = TestCluster::start(3, 4, Options { fence_after_ms: 30_000, ..Options::default() }).await;
    let (user, gate) = (cluster.user.clone(), cluster.gate("runs"));
    let runs = user.submit_job(&job("runs", 4, 2, &gate.script())).await;
    let before = cluster.ranks_running(runs, 1, 8).await;
    let program = cluster.folder().join("new-muster");
    std::fs::copy(muster(), &program).expect("the program can be copied");

    let acknowledged = Acknowledged::default();
    let stop = Arc::new(AtomicBool::new(false));
    let flood = submit_on(user.clone(), acknowledged.clone(), stop.clone());
    some_more(&acknowledged, "before anything").await;
    let leader = cluster.leader().await;
    for at in (0..3).filter(|at| *at != leader).chain([leader]) {
        upgrade_server(&mut cluster, at, &program, &acknowledged).await;
        assert_eq!(cluster.ranks_of(runs), before, "the same ranks, after server {at}");
    }
    // All of these began and ended while servers were replaced: none of it may have cost an attempt.
    let so_far = acknowledged.lock().unwrap().clone();
    for (key, id) in &so_far {
        let job = user.ended(*id).await;
        assert_eq!((job.state.as_str(), job.attempt), ("SUCCEEDED", 1), "{key}: {}", job.cause_text);
    }
    for at in 0..cluster.agents.len() {
        cluster.agents[at].signal(Signal::SIGTERM);
        replace(&mut cluster.agents[at], &program);
        cluster.all_up().await;
        assert_eq!(cluster.ranks_of(runs), before, "the same ranks, after agent {at}");
    }
    some_more(&acknowledged, "after everything").await;
    stop.store(true, Relaxed);
    flood.join().expect("every submit was answered");
    for daemon in cluster.servers.iter().chain(&cluster.agents) {
        let pid = daemon.pid().expect("it runs");
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/exe")).expect("it runs"), program, "{}", daemon.name);
    }

    gate.open();
    let acknowledged = acknowledged.lock().unwrap().clone();
    println!("{} submits were acknowledged during the upgrade", acknowledged.len());
    for id in acknowledged.values() {
        // A gang that was being prepared on a node while its agent stopped is prepared again as its next attempt.
        let job = user.ended(*id).await;
        assert_eq!(job.state, "SUCCEEDED", "{}: {}", job.name, job.cause_text);
    }
    let ran = user.ended(runs).await;
    assert_eq!((ran.state.as_str(), ran.attempt), ("SUCCEEDED", 1), "{}", ran.cause_text);
    let request = ListJobsRequest { ended: true, limit: 1_000, ..ListJobsRequest::default() };
    let jobs = user.call("ps", async |mut api| api.list_jobs(request.clone()).await).await.jobs;
    for (key, id) in &acknowledged {
        let named: Vec<u64> = jobs.iter().filter(|job| job.name == *key).map(|job| job.id).collect();
        assert_eq!(named, [*id], "one key, one job");
    }
    for (rank, text) in user.logs(runs, 1).await {
        assert!(check_lines(rank, &text) > 30, "rank {rank} printed through the upgrade");
    }
    let settled = cluster.settled().await;
    assert!(settled.iter().all(|status| status.state_hash == settled[0].state_hash), "{settled:#?}");
}
