//! Callers of the cluster: over gRPC as a program, and through the command line as a person.

use super::wait::PATIENCE;
use muster_proto::client::muster_client::MusterClient;
use muster_proto::client::{
    ClusterStatusReply, ClusterStatusRequest, Job, JobRef, LogsRequest, Node, ShowJobRequest, ShowNodeRequest,
    SubmitReply, SubmitRequest, WaitRequest,
};
use muster_proto::convert::error::{ErrorInfo, decode};
use muster_runtime::identity::{Credentials, Expect, Identity, connect, explain_transport};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Response, Status};

pub type Api = MusterClient<Channel>;

/// A caller with a certificate.
#[derive(Debug, Clone)]
pub struct Person {
    pub servers: Vec<String>,
    pub identity_dir: PathBuf,
    credentials: Credentials,
}

const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// For one command of `muster`.
const COMMAND: Duration = Duration::from_secs(60);
/// For one server's answer.
const ANSWER: Duration = Duration::from_secs(5);

pub fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("the clock is past 1970").as_millis() as u64
}

impl Person {
    /// # Panics
    /// When the folder holds no valid identity.
    pub fn new(servers: Vec<String>, identity_dir: &Path) -> Self {
        let identity = Identity::load(identity_dir, wall_ms());
        let identity = identity.unwrap_or_else(|error| panic!("{}: {error}", identity_dir.display()));
        Self { servers, identity_dir: identity_dir.to_owned(), credentials: Credentials::new(identity) }
    }

    /// A client of one server, whether it answers or not.
    pub fn api(&self, address: &str) -> Api {
        MusterClient::new(self.channel(address)).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// A connection to one server, for services other than the client API.
    pub fn channel(&self, address: &str) -> Channel {
        connect(address, &self.credentials, Expect::server()).expect("an address")
    }

    /// Makes a call, on any server that answers, until it is answered with success or with an
    /// error that repeating would not change.
    ///
    /// # Errors
    /// That error, or the last one when nothing better came within [`PATIENCE`].
    pub async fn try_call<T>(&self, op: impl AsyncFn(Api) -> Result<Response<T>, Status>) -> Result<T, Status> {
        let begun = Instant::now();
        for server in self.servers.iter().cycle() {
            let status = match tokio::time::timeout(ANSWER, op(self.api(server))).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::unavailable(format!("{server} does not answer")),
            };
            let again = decode(&status).map_or_else(
                || {
                    matches!(
                        status.code(),
                        tonic::Code::Unavailable
                            | tonic::Code::Unknown
                            | tonic::Code::Cancelled
                            | tonic::Code::Internal
                    )
                },
                |info| info.retryable,
            );
            if !again || begun.elapsed() > PATIENCE {
                return Err(status);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        unreachable!("there is at least one server")
    }

    /// # Panics
    /// With what [`Person::try_call`] failed with.
    pub async fn call<T>(&self, what: &str, op: impl AsyncFn(Api) -> Result<Response<T>, Status>) -> T {
        self.try_call(op).await.unwrap_or_else(|status| panic!("{what}: {}", describe(&status)))
    }

    pub async fn submit(&self, spec: &serde_json::Value, key: &str) -> SubmitReply {
        let request = SubmitRequest { spec_json: spec.to_string(), key: key.to_owned(), ..SubmitRequest::default() };
        self.call("submit", async |mut api| api.submit(request.clone()).await).await
    }

    /// Submits and returns the job's id.
    pub async fn submit_job(&self, spec: &serde_json::Value) -> u64 {
        let key = format!("test-{}", spec["name"].as_str().unwrap_or("job"));
        let reply = self.submit(spec, &key).await;
        assert!(!reply.existing, "the key {key} was used before");
        reply.job.expect("a submit is answered with the job").id
    }

    pub async fn job(&self, id: u64) -> Job {
        let request = ShowJobRequest { job: Some(by_id(id)) };
        self.call("show", async |mut api| api.show_job(request.clone()).await).await
    }

    pub async fn node(&self, name: &str) -> Node {
        let request = ShowNodeRequest { name: name.to_owned() };
        self.call("node show", async |mut api| api.show_node(request.clone()).await).await
    }

    /// Waits for the end of a job.
    pub async fn ended(&self, id: u64) -> Job {
        let begun = Instant::now();
        loop {
            let request = WaitRequest { job: Some(by_id(id)), timeout_ms: 2_000, ..WaitRequest::default() };
            let reply = self.call("wait", async |mut api| api.wait(request.clone()).await).await;
            if reply.ended {
                return self.job(id).await;
            }
            let job = reply.job.unwrap_or_default();
            assert!(
                begun.elapsed() < PATIENCE,
                "job {id} does not end: {} {} {}",
                job.state,
                job.reason_text,
                job.cause_text
            );
        }
    }

    /// Standard output of every rank of one attempt, whole.
    pub async fn logs(&self, id: u64, attempt: u32) -> BTreeMap<u32, String> {
        self.streams(id, attempt, "stdout").await
    }

    pub async fn streams(&self, id: u64, attempt: u32, stream: &str) -> BTreeMap<u32, String> {
        let job = JobRef { attempt: Some(attempt), ..by_id(id) };
        let request = LogsRequest { job: Some(job), follow: true, ..LogsRequest::default() };
        let mut chunks = self.call("logs", async |mut api| api.logs(request.clone()).await).await;
        let mut texts: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        while let Some(chunk) = chunks.message().await.unwrap_or_else(|status| panic!("logs: {}", describe(&status))) {
            assert_eq!(chunk.error, "", "logs of rank {} of job {id}", chunk.rank);
            assert_eq!(chunk.dropped, 0, "logs of rank {} of job {id}", chunk.rank);
            if chunk.stream == stream {
                texts.entry(chunk.rank).or_default().extend_from_slice(&chunk.data);
            }
        }
        texts.into_iter().map(|(rank, text)| (rank, String::from_utf8_lossy(&text).into_owned())).collect()
    }

    /// What one server says of itself, leader or not; `None` when it does not answer.
    pub async fn status_of(&self, server: &str) -> Option<ClusterStatusReply> {
        let mut api = self.api(server);
        let asked = api.cluster_status(ClusterStatusRequest { local: true });
        let answer = tokio::time::timeout(Duration::from_secs(1), asked).await;
        answer.ok()?.ok().map(Response::into_inner)
    }

    /// A command of `muster` as this person.
    pub fn muster(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(crate::binary::muster());
        command.args(arguments).env_clear();
        command.env("MUSTER_SERVER", self.servers.join(",")).env("MUSTER_IDENTITY", &self.identity_dir);
        command.env("XDG_CONFIG_HOME", &self.identity_dir).env("XDG_STATE_HOME", &self.identity_dir);
        command.env("HOME", &self.identity_dir).current_dir(&self.identity_dir);
        command
    }

    /// Runs a command of `muster` to its end, beside whatever else the test does.
    ///
    /// # Panics
    /// When it has not ended within [`COMMAND`].
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::from(self.muster(arguments));
        let ended = tokio::time::timeout(COMMAND, command.kill_on_drop(true).output()).await;
        let output = ended.unwrap_or_else(|_| panic!("muster {arguments:?} did not end within {COMMAND:?}"));
        output.expect("muster starts")
    }

    /// The JSON document that a command prints.
    ///
    /// # Panics
    /// When it fails or prints none.
    pub async fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(&[arguments, &["--json"]].concat()).await;
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "muster {arguments:?}: {}\n{talk}", output.status);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("muster {arguments:?}: {error}\n{talk}"))
    }
}

pub fn by_id(id: u64) -> JobRef {
    JobRef { id, ..JobRef::default() }
}

/// The typed error of a status.
///
/// # Panics
/// When it carries none.
pub fn error_of(status: &Status) -> ErrorInfo {
    decode(status).unwrap_or_else(|| panic!("no typed error: {}", describe(status)))
}

pub fn describe(status: &Status) -> String {
    explain_transport(status).unwrap_or_else(|| format!("{:?}: {}", status.code(), status.message()))
}
