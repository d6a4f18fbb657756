//! What a lease renewal costs by each way, for docs/BENCHMARKS.md: virtual agents with real control
//! sessions renew at three real servers over mutual TLS; the leader's processor time is read from /proc.
//!
//! `cargo run --release -p muster-tests --bin muster-measure-renewals [AGENTS] [SECONDS]`

use muster_agent::heartbeat::{Carrier, Renewal, Way};
use muster_tests::cluster::{Options, TestCluster};
use muster_tests::virtual_agent::{VirtualAgent, agent_identity, authority, hello};
use std::time::{Duration, Instant};

const AGENTS: usize = 200;
const SECONDS: u64 = 20;
/// Far more often than agents do, so that there is something to read.
const RENEW_EVERY: Duration = Duration::from_millis(100);
const LOST_AFTER: Duration = Duration::from_secs(1);
/// Each way in turn, so that a slow minute of the machine meets both.
const ROUNDS: usize = 3;

#[tokio::main]
async fn main() {
    muster_runtime::identity::install_crypto();
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().expect("a number"));
    let agents = arguments.next().map_or(AGENTS, |agents| agents as usize);
    let seconds = Duration::from_secs(arguments.next().unwrap_or(SECONDS));
    let options = Options { suspect_after_ms: 600_000, fence_after_ms: 1_300_000, ..Options::default() };
    let cluster = TestCluster::start(3, 0, options).await;
    let authority = authority(cluster.folder());
    let mut sessions = Vec::new();
    for at in 0..agents {
        let name = format!("v{at}");
        let identity = agent_identity(&authority, &name);
        sessions.push(VirtualAgent::connect(&cluster.addresses, identity, hello(&name, "a")).await);
    }
    let pid = cluster.servers[cluster.leader().await].pid().expect("the leader runs");
    println!("{agents} agents, each renews every {} ms; {seconds:?} a run", RENEW_EVERY.as_millis());
    let idle_s = cpu_of(pid, tokio::time::sleep(seconds)).await;
    println!("leader's processor time without renewals: {:.2} % of a core", 100.0 * idle_s / seconds.as_secs_f64());
    for _ in 0..ROUNDS {
        for way in [Way::Stream, Way::Quic] {
            run(&sessions, way, pid, seconds, idle_s).await;
        }
    }
}

async fn run(sessions: &[VirtualAgent], way: Way, pid: u32, seconds: Duration, idle_s: f64) {
    let mut carriers = Vec::new();
    for agent in sessions {
        carriers.push((agent.session(), agent.carrier(way).await));
    }
    let work = async {
        let tasks: Vec<_> = carriers
            .into_iter()
            .enumerate()
            .map(|(at, (session, carrier))| {
                // Spread over the interval, as agents are.
                let offset = RENEW_EVERY * (at as u32 % 100) / 100;
                tokio::spawn(renew(session, carrier, Instant::now() + offset, seconds))
            })
            .collect();
        let mut all = (Vec::new(), 0);
        for task in tasks {
            let (took_us, lost) = task.await.expect("no panic");
            all.0.extend(took_us);
            all.1 += lost;
        }
        all
    };
    let mut result = None;
    let cpu_s = cpu_of(pid, async { result = Some(work.await) }).await;
    let (mut took_us, lost) = result.expect("it ran");
    took_us.sort_unstable();
    let at = |part: f64| took_us[((took_us.len() - 1) as f64 * part) as usize] as f64 / 1e3;
    let each_us = (cpu_s - idle_s).max(0.0) * 1e6 / took_us.len() as f64;
    println!(
        "{way:?}: {} answered ({:.0}/s), {lost} lost; each p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms; leader {:.1} % of a core, {each_us:.1} us a renewal",
        took_us.len(),
        took_us.len() as f64 / seconds.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0),
        100.0 * cpu_s / seconds.as_secs_f64(),
    );
}

/// One renewal at a time; microseconds each took, and how many were not answered.
async fn renew(session: u64, mut carrier: Box<dyn Carrier>, begin: Instant, seconds: Duration) -> (Vec<u64>, u64) {
    tokio::time::sleep_until(begin.into()).await;
    let (mut took_us, mut lost, mut next) = (Vec::new(), 0, begin);
    for number in 1.. {
        next += RENEW_EVERY;
        if next > begin + seconds {
            break;
        }
        let asked = Instant::now();
        carrier.renew(Renewal { session, number }).await;
        let answered = async { while carrier.extended().await.number != number {} };
        match tokio::time::timeout(LOST_AFTER, answered).await {
            Ok(()) => took_us.push(asked.elapsed().as_micros() as u64),
            Err(_) => lost += 1,
        }
        tokio::time::sleep_until(next.into()).await;
    }
    (took_us, lost)
}

/// Seconds of processor time that a process spends while `work` runs.
async fn cpu_of(pid: u32, work: impl Future<Output = ()>) -> f64 {
    let spent = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a name in brackets").1.split_ascii_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
        // User and system time, in hundredths of a second as Linux shows them everywhere.
        (ticks(11) + ticks(12)) as f64 / 100.0
    };
    let before = spent();
    work.await;
    spent() - before
}
