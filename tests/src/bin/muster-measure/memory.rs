//! What a long queue costs the servers.

use muster_tests::cluster::TestCluster;

const QUEUED: u32 = 10_000;

/// Resident memory and processor time of one process.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    pub rss_mib: f64,
    pub cpu_s: f64,
}

pub fn used(pid: u32) -> Used {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let rss_kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<f64>().ok()).sum();
    Used { rss_mib: rss_kib.unwrap_or_default() / 1024.0, cpu_s: ticks / 100.0 }
}

/// Of the leader and the others, before and after so many jobs wait.
pub async fn of_a_long_queue(cluster: &TestCluster) {
    let leader = cluster.leader().await;
    let all = || -> Vec<Used> { cluster.servers.iter().filter_map(|server| server.pid()).map(used).collect() };
    let before = all();
    let jobs = QUEUED.to_string();
    super::bench(cluster, &["submit", "--jobs", &jobs, "--keep"]).await;
    cluster.settled().await;
    let after = all();
    for (at, (before, after)) in before.iter().zip(&after).enumerate() {
        let role = if at == leader { "leader  " } else { "follower" };
        println!(
            "{role} with {QUEUED} queued jobs: {:.0} MiB (before: {:.0}), {:.1} KiB a job, {:.2} ms of processor a submit",
            after.rss_mib,
            before.rss_mib,
            (after.rss_mib - before.rss_mib) * 1024.0 / f64::from(QUEUED),
            (after.cpu_s - before.cpu_s) * 1e3 / f64::from(QUEUED),
        );
    }
}
