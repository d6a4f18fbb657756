//! `kill -9` of the leader, again and again, in the middle of a flood of submits.

use muster_proto::client::{Job, ShowJobRequest};
use muster_tests::cluster::TestCluster;
use muster_tests::cluster::flood::{Flood, Work, all_jobs, spec};
use muster_tests::cluster::people::{by_id, describe, wall_ms};
use muster_tests::cluster::wait::until_within;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

pub const KILLS: u64 = 20;
const LANES: usize = 8;
/// Between two kills, so that the cluster is whole again; varied so that the kill meets every phase.
const BETWEEN_MS: u64 = 700;
/// Between two jobs that may start: far below what the nodes can run, so that all have ended soon after the last kill.
const START_EVERY: Duration = Duration::from_millis(50);
/// For the jobs that were left when the flood stopped.
const ENDED_WITHIN: Duration = Duration::from_secs(120);

/// What the kills did.
#[derive(Debug, Default)]
pub struct Kills {
    pub kills: u64,
    /// Submits, held and not held, that were answered.
    pub acknowledged: usize,
    /// Of them, how many no server knows.
    pub lost: usize,
    /// Ids given to two submits.
    pub ids_reused: usize,
    /// Ranks that began.
    pub starts: usize,
    /// Ranks that began twice in one attempt.
    pub duplicate_starts: usize,
    /// Jobs that ended otherwise than well, or never began.
    pub failed: usize,
    /// From each kill to the next answer.
    pub back_ms: Vec<f64>,
}

impl Kills {
    pub fn document(&self) -> Value {
        json!({
            "kills": self.kills, "acknowledged": self.acknowledged, "lost": self.lost, "ids_reused": self.ids_reused,
            "starts": self.starts, "duplicate_starts": self.duplicate_starts, "failed": self.failed, "back_ms": self.back_ms,
        })
    }

    pub fn print(mut self) {
        self.back_ms.sort_by(f64::total_cmp);
        let at = |part: usize| self.back_ms.get(part).copied().unwrap_or_default();
        println!(
            "{} x kill -9 of the leader in a flood: {} acknowledged, {} lost, {} ids given twice; {} starts, {} of them twice, \
             {} jobs failed; nobody answered for {:.0} ms in the median, {:.0} at most",
            self.kills,
            self.acknowledged,
            self.lost,
            self.ids_reused,
            self.starts,
            self.duplicate_starts,
            self.failed,
            at(self.back_ms.len() / 2),
            at(self.back_ms.len().saturating_sub(1)),
        );
    }
}

/// Counts acknowledged submits that are lost, ids that came twice, ranks that began twice, and how long nobody was answered.
/// Held submits come as fast as they are answered; beside them a few jobs a second that run.
pub async fn of_the_leader(cluster: &mut TestCluster, kills: u64) -> Kills {
    let starts = cluster.folder().join("starts");
    let _ = std::fs::remove_file(&starts);
    // Keys of an earlier call in this cluster must not be met again.
    let run = format!("kills-{}", wall_ms());
    let held = Flood::start(&cluster.user, &format!("{run}-held"), LANES);
    let work = Work { spec: noted(&starts), hold: false, pause: START_EVERY };
    let running = Flood::start_with(&cluster.user, &format!("{run}-run"), 1, work);
    let mut found = Kills { kills, ..Kills::default() };
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(BETWEEN_MS + kill * 37 % 300)).await;
        found.back_ms.push(kill_one(cluster, &held).await);
    }
    let (held, running) = (held.stop().await, running.stop().await);
    let there = all_jobs(&cluster.user).await;
    found.lost = held.jobs.iter().filter(|(key, id)| there.get(id) != Some(key)).count();
    let ids: BTreeSet<u64> = held.jobs.values().chain(running.jobs.values()).copied().collect();
    found.acknowledged = held.jobs.len() + running.jobs.len();
    found.ids_reused = found.acknowledged - ids.len();
    for id in running.jobs.values() {
        match end_of(cluster, *id).await {
            Some(job) => found.failed += usize::from(job.state != "SUCCEEDED"),
            None => found.lost += 1,
        }
    }
    count_starts(&starts, &mut found);
    found
}

/// Kills the leader and starts it again; how long nobody was answered, in milliseconds.
async fn kill_one(cluster: &mut TestCluster, flood: &Flood) -> f64 {
    let leader = cluster.leader().await;
    cluster.servers[leader].kill_9();
    let killed_us = flood.now_us();
    let answered_us = loop {
        // What was on its way when the leader died may still arrive.
        let last_us = flood.last_us();
        if last_us > killed_us + 20_000 {
            break last_us;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    cluster.servers[leader].start();
    cluster.settled_enough().await;
    (answered_us - killed_us) as f64 / 1e3
}

/// A job whose rank leaves a line behind.
fn noted(starts: &Path) -> Value {
    let mut job = spec();
    job["gang"]["run"] = json!(format!("echo $MUSTER_JOB_ID $MUSTER_ATTEMPT $RANK >> {}", starts.display()));
    job
}

/// The job once it has ended; `None` when no server knows it.
async fn end_of(cluster: &TestCluster, id: u64) -> Option<Job> {
    let request = ShowJobRequest { job: Some(by_id(id)) };
    until_within(ENDED_WITHIN, &format!("the end of job {id}"), async || {
        match cluster.user.try_call(async |mut api| api.show_job(request.clone()).await).await {
            Ok(job) => {
                ["SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT"].contains(&job.state.as_str()).then_some(Some(job))
            }
            Err(status) if status.code() == tonic::Code::NotFound => Some(None),
            Err(status) => panic!("job {id}: {}", describe(&status)),
        }
    })
    .await
}

fn count_starts(path: &Path, found: &mut Kills) {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
    text.lines().for_each(|line| *lines.entry(line).or_default() += 1);
    found.starts = lines.values().sum();
    found.duplicate_starts = found.starts - lines.len();
}
