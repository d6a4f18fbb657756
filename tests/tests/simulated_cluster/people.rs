//! Callers and what they were promised: every call ends well, badly, or nobody knows how.

use crate::clock::TrueTime;
use crate::network::SimNetwork;
use crate::trace::Trace;
use crate::world::{SERVERS, address, certificate_name, credentials, settings};
use muster_proto::client::muster_client::MusterClient;
use muster_proto::client::{
    CancelRequest, ClusterStatusRequest, ConfigureRequest, HoldRequest, JobRef, ListJobsRequest, ShowJobRequest,
    SubmitRequest, WaitRequest,
};
use muster_proto::convert::error::{ErrorCode, decode};
use muster_runtime::identity::{Expect, Network, Role};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Response, Status};

type Api = MusterClient<Channel>;

const CALL: Duration = Duration::from_secs(4);
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Jobs in one page of a list.
const PAGE: u32 = 1_000;

/// What became of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<T> {
    Ok(T),
    /// Certainly nothing happened.
    Failed(String),
    /// It may have happened, or may yet.
    Unknown(String),
}

/// A job somebody was told of.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub key: String,
    /// Its last state, once somebody read one.
    pub ended: Option<String>,
    pub held: bool,
}

/// What all callers together know.
#[derive(Default)]
pub struct Oracle {
    /// Acknowledged jobs by id.
    pub jobs: BTreeMap<u64, Known>,
    /// Held jobs whose submit nobody was answered.
    pub unclaimed: BTreeMap<u64, Known>,
    /// Keys whose every submit certainly failed.
    pub failed: BTreeMap<String, bool>,
    /// Calls by name and outcome.
    pub counts: BTreeMap<(&'static str, &'static str), u64>,
    pub broken: Option<String>,
    /// No new work, held jobs are released, reads go on.
    pub draining: bool,
}

#[derive(Clone)]
pub struct People {
    pub seed: u64,
    pub trace: Trace,
    pub time: TrueTime,
    oracle: Arc<Mutex<Oracle>>,
}

impl People {
    pub fn new(seed: u64, trace: Trace, time: TrueTime) -> Self {
        Self { seed, trace, time, oracle: Arc::default() }
    }

    pub fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn count(&self, call: &'static str, outcome: &'static str) -> u64 {
        self.oracle().counts.get(&(call, outcome)).copied().unwrap_or(0)
    }

    pub fn person(&self, number: u64, role: Role) -> Person {
        let name = format!("{role}-{number}");
        let network = SimNetwork::of(certificate_name(role, &name));
        let own = credentials(role, &name);
        let api = |server| {
            let channel = network.channel(&address(server), &own, Expect::server()).expect("an address");
            (server, MusterClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
        };
        Person {
            servers: (1..=SERVERS).map(api).collect(),
            rng: SmallRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(number)),
            name,
            people: self.clone(),
            submits: 0,
        }
    }
}

/// One caller, on a machine of its own.
pub struct Person {
    people: People,
    pub name: String,
    servers: BTreeMap<u64, Api>,
    pub rng: SmallRng,
    submits: u64,
}

/// A job file for simulated ranks: `for_ms:code` on each of so many nodes.
pub fn spec(name: &str, nodes: u32, gpus: u32, work: &str, retries: u32) -> serde_json::Value {
    json!({
        "name": name,
        "gang": { "nodes": nodes, "gpus_per_node": gpus, "run": ["pretend", work] },
        "retry": { "infra": 50, "app": retries },
    })
}

impl Person {
    /// Makes a call at a server and notes its outcome.
    async fn call<T, F>(&self, what: &'static str, server: u64, op: impl FnOnce(Api) -> F) -> Outcome<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let answer = tokio::time::timeout(CALL, op(self.servers[&server].clone())).await;
        let outcome = match answer {
            Ok(Ok(response)) => Outcome::Ok(response.into_inner()),
            Ok(Err(status)) => match decode(&status) {
                Some(info) if !matches!(info.code, ErrorCode::Unavailable | ErrorCode::Internal) => {
                    Outcome::Failed(format!("{:?}", info.code))
                }
                _ => Outcome::Unknown(format!("{:?}", status.code())),
            },
            Err(_) => Outcome::Unknown("late".to_owned()),
        };
        let (word, why) = match &outcome {
            Outcome::Ok(_) => ("ok", ""),
            Outcome::Failed(why) => ("failed", why.as_str()),
            Outcome::Unknown(why) => ("unknown", why.as_str()),
        };
        *self.people.oracle().counts.entry((what, word)).or_default() += 1;
        self.people.trace.note(&self.name, format_args!("{what} at {server}: {word} {why}"));
        outcome
    }

    fn any_server(&mut self) -> u64 {
        self.rng.random_range(1..=SERVERS)
    }

    pub async fn pause(&mut self, ms: std::ops::Range<u64>) {
        let ms = self.rng.random_range(ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// Sets the cluster's times; as often as it takes.
    pub async fn configure(&mut self) {
        let json = serde_json::to_string(&settings()).expect("plain data");
        loop {
            let request = ConfigureRequest {
                request_id: "settings".to_owned(),
                kind: "settings".to_owned(),
                json: json.clone(),
                plan_only: false,
            };
            let server = self.any_server();
            let call = |mut api: Api| async move { api.configure(request).await };
            if let Outcome::Ok(_) = self.call("configure", server, call).await {
                return;
            }
            self.pause(100..300).await;
        }
    }

    /// Submits a job until it is acknowledged or `tries` are used up, each with the same key.
    pub async fn submit(&mut self, spec: &serde_json::Value, key: &str, hold: bool, tries: u32) -> Option<u64> {
        for attempt in 0..tries {
            let server = self.any_server();
            let request =
                SubmitRequest { spec_json: spec.to_string(), key: key.to_owned(), hold, ..SubmitRequest::default() };
            let outcome = self.call("submit", server, |mut api: Api| async move { api.submit(request).await }).await;
            let mut oracle = self.people.oracle();
            match outcome {
                Outcome::Ok(reply) => {
                    let id = reply.job.expect("a submit is answered with the job").id;
                    oracle.failed.insert(key.to_owned(), false);
                    let known = Known { key: key.to_owned(), ended: None, held: hold };
                    if let Some(other) = oracle.jobs.insert(id, known).filter(|other| other.key != key) {
                        oracle.broken = Some(format!("job {id} was given to keys {} and {key}", other.key));
                    }
                    if attempt == 0 && reply.existing {
                        oracle.broken = Some(format!("job {id} existed before key {key} was used"));
                    }
                    return Some(id);
                }
                Outcome::Failed(_) => {
                    oracle.failed.entry(key.to_owned()).or_insert(true);
                }
                Outcome::Unknown(_) => {
                    oracle.failed.insert(key.to_owned(), false);
                }
            }
            drop(oracle);
            self.pause(50..600).await;
        }
        None
    }

    pub async fn cancel(&mut self, id: u64) -> bool {
        let request_id = format!("cancel-{id}-{}", self.people.time.now_ms());
        let job = Some(JobRef { id, ..JobRef::default() });
        let request = CancelRequest { request_id, job, reason: "a whim".to_owned() };
        let server = self.any_server();
        let call = |mut api: Api| async move { api.cancel(request).await };
        matches!(self.call("cancel", server, call).await, Outcome::Ok(_))
    }

    pub async fn hold(&mut self, id: u64, hold: bool) -> bool {
        let request_id = format!("hold-{id}-{}", self.people.time.now_ms());
        let job = Some(JobRef { id, ..JobRef::default() });
        let request = HoldRequest { request_id, job, hold };
        let server = self.any_server();
        let call = |mut api: Api| async move { api.hold(request).await };
        let outcome = self.call("hold", server, call).await;
        let done = match &outcome {
            Outcome::Ok(_) => true,
            Outcome::Failed(why) => why == "JobEnded",
            Outcome::Unknown(_) => false,
        };
        if done && let Some(known) = self.people.oracle().jobs.get_mut(&id) {
            known.held = hold;
        }
        done
    }

    /// The server that says that it leads, of those the one with the newest term.
    pub async fn leader(&mut self) -> Option<u64> {
        let mut found = None;
        for server in 1..=SERVERS {
            let request = ClusterStatusRequest { local: true };
            let call = |mut api: Api| async move { api.cluster_status(request).await };
            if let Outcome::Ok(reply) = self.call("status", server, call).await
                && reply.leader_id == server
            {
                found = found.max(Some((reply.term, server)));
            }
        }
        found.map(|(_, server)| server)
    }

    async fn wait(&mut self, id: u64) {
        let job = Some(JobRef { id, ..JobRef::default() });
        let request = WaitRequest { job, timeout_ms: 1_000, ..WaitRequest::default() };
        let server = self.any_server();
        self.call("wait", server, |mut api: Api| async move { api.wait(request).await }).await;
    }

    /// Reads one acknowledged job at a server: it must be there, and an end once told stays.
    pub async fn show(&mut self, id: u64, server: u64) -> Option<muster_proto::client::Job> {
        let job = Some(JobRef { id, ..JobRef::default() });
        let request = ShowJobRequest { job };
        let outcome = self.call("show", server, |mut api: Api| async move { api.show_job(request).await }).await;
        let mut oracle = self.people.oracle();
        match outcome {
            Outcome::Ok(job) => {
                let told = oracle.jobs.get_mut(&id).and_then(|known| {
                    let over = job.ended_at_ms.is_some().then(|| job.state.clone());
                    let before = known.ended.clone();
                    known.ended = over.clone().or(before.clone());
                    before.filter(|before| over.as_ref() != Some(before))
                });
                if let Some(before) = told {
                    oracle.broken = Some(format!("job {id} had ended as {before}, and is {} now", job.state));
                }
                Some(job)
            }
            Outcome::Failed(why) if why == "JobNotFound" => {
                oracle.broken = Some(format!("job {id} was acknowledged, and server {server} does not know it"));
                None
            }
            _ => None,
        }
    }

    /// Reads the list at a server: everything acknowledged before must be in it.
    pub async fn list(&mut self, server: u64) -> bool {
        let known: Vec<u64> = self.people.oracle().jobs.keys().copied().collect();
        let request = ListJobsRequest { all_users: true, ended: true, limit: PAGE, ..ListJobsRequest::default() };
        let outcome = self.call("list", server, |mut api: Api| async move { api.list_jobs(request).await }).await;
        let Outcome::Ok(reply) = outcome else { return false };
        if !reply.next_page.is_empty() {
            return false;
        }
        let missing = known.iter().find(|id| reply.jobs.iter().all(|job| job.id != **id));
        if let Some(id) = missing {
            self.people.oracle().broken = Some(format!("acknowledged job {id} is not in server {server}'s list"));
        }
        let mut keys = BTreeMap::new();
        for job in reply.jobs.iter().filter(|job| !job.key.is_empty()) {
            if let Some(other) = keys.insert(job.key.clone(), job.id) {
                self.people.oracle().broken = Some(format!("key {} has jobs {other} and {}", job.key, job.id));
            }
        }
        true
    }

    /// Does as people do, until the world ends.
    pub async fn live(mut self) {
        loop {
            self.pause(20..500).await;
            let draining = self.people.oracle().draining;
            let jobs: Vec<(u64, bool)> =
                self.people.oracle().jobs.iter().map(|(id, known)| (*id, known.held)).collect();
            let some = (!jobs.is_empty()).then(|| jobs[self.rng.random_range(0..jobs.len())].0);
            let server = self.any_server();
            if draining {
                let unclaimed = self.people.oracle().unclaimed.pop_first().map(|(id, _)| id);
                let held = jobs.iter().find(|(_, held)| *held).map(|(id, _)| *id);
                if let Some(id) = held.or(unclaimed) {
                    self.hold(id, false).await;
                } else {
                    self.pause(500..1_000).await;
                }
                continue;
            }
            match (self.rng.random_range(0..100), some) {
                (0..45, _) | (_, None) => self.submit_something().await,
                (45..55, Some(id)) => {
                    self.cancel(id).await;
                }
                (55..63, Some(id)) => {
                    let hold = self.rng.random_range(0..2) == 0;
                    self.hold(id, hold).await;
                }
                (63..68, Some(id)) => self.wait(id).await,
                (68..85, Some(id)) => {
                    self.show(id, server).await;
                }
                (_, Some(_)) => {
                    self.list(server).await;
                }
            }
        }
    }

    async fn submit_something(&mut self) {
        self.submits += 1;
        let name = format!("{}-{}", self.name, self.submits);
        let dice = self.rng.random_range(0..20);
        // Some outlive a fencing wait.
        let for_ms = if dice < 16 { self.rng.random_range(50..4_000) } else { self.rng.random_range(4_000..12_000) };
        let work = match dice {
            0 | 1 => format!("{for_ms}:1"),
            2 => "stubborn".to_owned(),
            _ => format!("{for_ms}:0"),
        };
        let retries = self.rng.random_range(0..3);
        let mut spec = spec(&name, self.rng.random_range(1..4), self.rng.random_range(1..3), &work, retries);
        if work == "stubborn" || self.rng.random_range(0..10) == 0 {
            spec["limits"] = json!({ "time": "3s" });
        }
        let hold = self.rng.random_range(0..12) == 0;
        self.submit(&spec, &name, hold, 3).await;
    }
}
