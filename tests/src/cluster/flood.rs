//! A flood of submits on several connections, each repeated under its key until it is acknowledged, and who was
//! answered when.

use super::people::Person;
use muster_proto::client::{ListJobsRequest, SubmitRequest};
use muster_proto::convert::error::decode;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// For one try of one submit.
const TRY: Duration = Duration::from_secs(2);
/// Before another server is tried that nobody named.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs until it is stopped.
pub struct Flood {
    shared: Arc<Shared>,
    lanes: Vec<JoinHandle<()>>,
    began: Instant,
}

struct Shared {
    stop: AtomicBool,
    answered: Mutex<Answered>,
}

impl Shared {
    fn note(&self, key: String, id: u64, began: Instant) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        // Read in turn: two lanes that look at the clock first may come here the other way round.
        answered.at_us.push(began.elapsed().as_micros() as u64);
        answered.jobs.insert(key, id);
    }
}

/// What a flood submits.
#[derive(Debug, Clone)]
pub struct Work {
    pub spec: serde_json::Value,
    pub hold: bool,
    /// In each lane, between an answer and the next submit.
    pub pause: Duration,
}

/// What was acknowledged.
#[derive(Debug, Clone, Default)]
pub struct Answered {
    /// Key to job.
    pub jobs: BTreeMap<String, u64>,
    /// Microseconds since the flood began, in order.
    pub at_us: Vec<u64>,
}

impl Answered {
    /// The longest time without an answer that touches the stretch, in milliseconds.
    pub fn longest_gap_ms(&self, from_us: u64, to_us: u64) -> f64 {
        let pairs = self.at_us.windows(2).filter(|pair| pair[1] > from_us && pair[0] < to_us);
        pairs.map(|pair| (pair[1] - pair[0]) as f64 / 1e3).fold(0.0, f64::max)
    }
}

impl Flood {
    /// Submits held jobs under keys that begin with `prefix`, one after the other in each lane.
    pub fn start(user: &Person, prefix: &str, lanes: usize) -> Self {
        Self::start_with(user, prefix, lanes, Work { spec: spec(), hold: true, pause: Duration::ZERO })
    }

    /// Submits `work` in place of held jobs.
    pub fn start_with(user: &Person, prefix: &str, lanes: usize, work: Work) -> Self {
        let work = Arc::new(work);
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), answered: Mutex::default() });
        let began = Instant::now();
        let lane = |lane| {
            let prefix = format!("{prefix}-{lane}");
            tokio::spawn(one_lane(shared.clone(), work.clone(), user.clone(), prefix, lane, began))
        };
        let lanes = (0..lanes).map(lane).collect();
        Self { shared, lanes, began }
    }

    pub fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// So far.
    pub fn answered(&self) -> Answered {
        self.shared.answered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the last submit was acknowledged; 0 before the first.
    pub fn last_us(&self) -> u64 {
        self.shared.answered.lock().unwrap_or_else(PoisonError::into_inner).at_us.last().copied().unwrap_or(0)
    }

    /// Waits until so many more were acknowledged.
    pub async fn more(&self, count: usize) {
        let wanted = self.answered().at_us.len() + count;
        super::wait::until(&format!("{count} more submits"), async || {
            (self.answered().at_us.len() >= wanted).then_some(())
        })
        .await;
    }

    pub async fn stop(self) -> Answered {
        self.shared.stop.store(true, Ordering::Release);
        for lane in self.lanes {
            lane.await.expect("no panic");
        }
        self.shared.answered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a flood submits when nothing else is said.
pub fn spec() -> serde_json::Value {
    json!({"name": "flood", "gang": {"nodes": 1, "gpus_per_node": 1, "run": "true"}})
}

async fn one_lane(shared: Arc<Shared>, work: Arc<Work>, user: Person, prefix: String, lane: usize, began: Instant) {
    let servers = user.servers.clone();
    let apis: Vec<_> = servers.iter().map(|server| user.api(server)).collect();
    let mut at = lane % servers.len();
    for count in 0_u64.. {
        let key = format!("{prefix}-{count}");
        let spec_json = work.spec.to_string();
        let request = SubmitRequest { spec_json, key: key.clone(), hold: work.hold, ..SubmitRequest::default() };
        let id = loop {
            if shared.stop.load(Ordering::Acquire) {
                return;
            }
            let status = match tokio::time::timeout(TRY, apis[at].clone().submit(request.clone())).await {
                Ok(Ok(reply)) => break reply.into_inner().job.map_or(0, |job| job.id),
                Ok(Err(status)) => Some(status),
                Err(_) => None,
            };
            let leader = status.and_then(|status| decode(&status)?.leader);
            match leader.and_then(|leader| servers.iter().position(|server| *server == leader)) {
                Some(leader) => at = leader,
                None => {
                    at = (at + 1) % servers.len();
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        shared.note(key, id, began);
        if !work.pause.is_zero() {
            tokio::time::sleep(work.pause).await;
        }
    }
}

/// Every live job of this user: id to key.
pub async fn all_jobs(user: &Person) -> BTreeMap<u64, String> {
    let mut jobs = BTreeMap::new();
    let mut page = String::new();
    loop {
        let request = ListJobsRequest { limit: 1_000, page: page.clone(), ..ListJobsRequest::default() };
        let reply = user.call("ps", async |mut api| api.list_jobs(request.clone()).await).await;
        jobs.extend(reply.jobs.into_iter().map(|job| (job.id, job.key)));
        page = reply.next_page;
        if page.is_empty() {
            return jobs;
        }
    }
}
