//! What agents that have nothing to do cost the leader: virtual agents with real control sessions, each renewing its
//! lease as often as the server says, by datagrams where there are some.

use crate::memory::used;
use muster_agent::heartbeat::{Carrier, Renewal, Way};
use muster_runtime::identity::Credentials;
use muster_tests::cluster::people::describe;
use muster_tests::cluster::{Options, TestCluster};
use muster_tests::virtual_agent::{VirtualAgent, agent_identity, authority, hello_with};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const AGENTS: usize = 1_000;
const SECONDS: u64 = 15;
/// Handshakes at a time.
const JOINING: usize = 16;

#[derive(Default)]
pub struct Renewals {
    sent: AtomicU64,
    answered: AtomicU64,
}

/// Prints one line of JSON: the leader's share of a core and its memory with and without the agents.
pub async fn agents(arguments: &[String]) {
    let number = |at: usize| arguments.get(at).map(|text| text.parse::<u64>().expect("a number"));
    let agents = number(0).map_or(AGENTS, |agents| agents as usize);
    let watched = Duration::from_secs(number(1).unwrap_or(SECONDS));
    // As in production: nobody is lost because this machine is slow to let a thousand agents in.
    let options = Options { suspect_after_ms: 600_000, fence_after_ms: 1_300_000, ..Options::default() };
    let cluster = TestCluster::start(3, 0, options).await;
    let leader = cluster.servers[cluster.leader().await].pid().expect("the leader runs");
    let alone = share(leader, watched / 3).await;
    let rss_alone = used(leader).rss_mib;
    let sessions = join(&cluster, agents, 1).await;
    let counted = Arc::new(Renewals::default());
    let tasks = keep_renewing(sessions, &counted).await;
    tokio::time::sleep(watched / 3).await;
    let (sent, answered) = (counted.sent.load(Ordering::Relaxed), counted.answered.load(Ordering::Relaxed));
    let with = share(leader, watched).await;
    let each = |count: &AtomicU64, before: u64| (count.load(Ordering::Relaxed) - before) as f64 / watched.as_secs_f64();
    let answer = json!({
        "agents": agents, "seconds": watched.as_secs(),
        "leader_core_percent": with, "leader_core_percent_alone": alone,
        "leader_rss_mib": used(leader).rss_mib, "leader_rss_mib_alone": rss_alone,
        "renewals_per_second": each(&counted.sent, sent), "answered_per_second": each(&counted.answered, answered),
        "sessions_ended": tasks.iter().filter(|task| task.is_finished()).count(),
    });
    println!("{answer}");
}

/// Each in a task of its own, by datagrams.
pub async fn keep_renewing(sessions: Vec<VirtualAgent>, counted: &Arc<Renewals>) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    for (at, agent) in sessions.into_iter().enumerate() {
        let carrier = agent.carrier(Way::Quic).await;
        tasks.push(tokio::spawn(renew(agent, carrier, at as u32, counted.clone())));
    }
    tasks
}

/// Nodes of so many devices.
pub async fn join(cluster: &TestCluster, agents: usize, devices: usize) -> Vec<VirtualAgent> {
    let authority = authority(cluster.folder());
    let leader = cluster.addresses[cluster.leader().await].clone();
    let room = Arc::new(Semaphore::new(JOINING));
    let mut joining = Vec::new();
    for at in 0..agents {
        let name = format!("v{at}");
        let credentials = Credentials::new(agent_identity(&authority, &name));
        let (leader, room) = (leader.clone(), room.clone());
        joining.push(tokio::spawn(async move {
            let _place = room.acquire().await.expect("it is never closed");
            let joined = VirtualAgent::try_connect(&leader, &credentials, hello_with(&name, "a", devices)).await;
            joined.unwrap_or_else(|status| panic!("{name}: {}", describe(&status)))
        }));
    }
    let mut sessions = Vec::new();
    for agent in joining {
        sessions.push(agent.await.expect("no panic"));
    }
    sessions
}

/// Renews until the session ends.
async fn renew(agent: VirtualAgent, mut carrier: Box<dyn Carrier>, at: u32, counted: Arc<Renewals>) {
    let every = Duration::from_millis(agent.welcome.renew_every_ms.max(1));
    // Spread over the interval, as agents are.
    let mut next = Instant::now() + every * (at % 100) / 100;
    let mut number = 0;
    while agent.ended().is_none() {
        tokio::select! {
            _ = carrier.extended() => drop(counted.answered.fetch_add(1, Ordering::Relaxed)),
            () = tokio::time::sleep_until(next.into()) => {
                number += 1;
                next += every;
                if carrier.renew(Renewal { session: agent.session(), number }).await {
                    counted.sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Percent of a core that a process uses for so long.
async fn share(pid: u32, watched: Duration) -> f64 {
    let (began, before) = (Instant::now(), used(pid).cpu_s);
    tokio::time::sleep(watched).await;
    100.0 * (used(pid).cpu_s - before) / began.elapsed().as_secs_f64()
}
