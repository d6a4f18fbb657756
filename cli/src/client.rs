//! The connection to the cluster: tries each server, goes where the leader is, and repeats what may
//! be repeated until the time is over.

use crate::error::CliError;
use crate::settings::Settings;
use muster_proto::client::muster_client::MusterClient;
use muster_proto::convert::error::{ErrorCode, ErrorInfo, decode};
use muster_runtime::clock::{Clock, SystemClock};
use muster_runtime::identity::{Credentials, DialError, Expect, Identity, connect, explain_transport};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

pub type Api = MusterClient<Channel>;

/// One attempt of one call, unless there is less time or the caller says otherwise.
const ATTEMPT_MS: u64 = 10_000;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MOST: Duration = Duration::from_millis(2_000);
/// When nothing listens at any address, waiting longer rarely helps.
const NOBODY_LIMIT: Duration = Duration::from_secs(5);
/// Redirections followed without a pause between them.
const HINTS_MAX: u32 = 3;
/// The largest message taken from a server.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

#[derive(Debug)]
pub struct Client {
    credentials: Credentials,
    timeout: Duration,
    servers: Mutex<Servers>,
}

#[derive(Debug)]
struct Servers {
    addresses: Vec<String>,
    /// The one that is tried next.
    at: usize,
    /// Connections are made when used and kept.
    channels: BTreeMap<String, Channel>,
}

/// What to do about a failed attempt.
enum Verdict {
    Final(CliError),
    Again {
        error: CliError,
        leader: Option<String>,
        /// Nothing answered at all.
        nobody: bool,
    },
}

impl Client {
    /// # Errors
    /// No server or identity is configured, or the identity cannot be used.
    pub fn open(settings: &Settings) -> Result<Self, CliError> {
        if settings.servers.is_empty() {
            return Err(CliError::new(ErrorCode::ConfigMissing, "no server is known")
                .hint("give --server HOST:PORT, set MUSTER_SERVER, or write `server = [\"host:port\"]` into the settings file\nfor a cluster to play with: muster dev"));
        }
        let Some(folder) = &settings.identity else {
            return Err(CliError::new(ErrorCode::NotLoggedIn, "no identity is known")
                .hint("set `identity` in the settings file (or MUSTER_IDENTITY) to the folder with your certificate"));
        };
        let now_ms = SystemClock.wall_ms();
        let identity = Identity::load(folder, now_ms)?;
        identity.check(now_ms)?;
        Self::with(settings.servers.clone(), Credentials::new(identity), settings.timeout_ms)
    }

    pub fn with(servers: Vec<String>, credentials: Credentials, timeout_ms: u64) -> Result<Self, CliError> {
        let servers = Servers { addresses: servers, at: 0, channels: BTreeMap::new() };
        let client = Self { credentials, timeout: Duration::from_millis(timeout_ms), servers: Mutex::new(servers) };
        // An address that cannot be one is a mistake now, not after the other servers were tried.
        let addresses = client.lock().addresses.clone();
        for address in addresses {
            client.channel(&address)?;
        }
        Ok(client)
    }

    /// Whose certificate the calls show.
    pub fn identity(&self) -> Arc<Identity> {
        self.credentials.current()
    }

    /// The same caller at one server only.
    pub fn at(&self, address: &str, timeout_ms: u64) -> Result<Self, CliError> {
        Self::with(vec![address.to_owned()], self.credentials.clone(), timeout_ms)
    }

    /// The addresses it tries.
    pub fn addresses(&self) -> Vec<String> {
        self.lock().addresses.clone()
    }

    /// Makes a call, again and elsewhere as long as that is safe and there is time. `op` may run
    /// several times: what it sends must carry the same request id or key each time.
    pub async fn call<T>(&self, op: impl AsyncFn(Api) -> Result<Response<T>, Status>) -> Result<T, CliError> {
        let all_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        self.call_within(ATTEMPT_MS.min(all_ms.max(1)), op).await
    }

    /// Like [`Client::call`], for calls that may take longer than usual.
    pub async fn call_within<T>(
        &self,
        attempt_ms: u64,
        op: impl AsyncFn(Api) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        let started = Instant::now();
        let (mut backoff, mut hints, mut only_silence, mut tries) = (BACKOFF_FIRST, 0, true, 0);
        loop {
            let address = self.lock().current();
            let api = MusterClient::new(self.channel(&address)?).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let verdict = match tokio::time::timeout(Duration::from_millis(attempt_ms), op(api)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => judge(&address, &status),
                Err(_) => {
                    let message = format!("{address} did not answer within {attempt_ms} ms");
                    Verdict::Again { error: CliError::new(ErrorCode::Unavailable, message), leader: None, nobody: true }
                }
            };
            let (error, leader, nobody) = match verdict {
                Verdict::Final(error) => return Err(error),
                Verdict::Again { error, leader, nobody } => (error, leader, nobody),
            };
            only_silence &= nobody;
            tries += 1;
            if let Some(leader) = leader.filter(|_| hints < HINTS_MAX) {
                hints += 1;
                self.lock().go_to(leader);
                continue;
            }
            hints = 0;
            self.lock().next();
            if started.elapsed() + backoff >= self.limit(only_silence, tries) {
                return Err(self.out_of_time(error));
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MOST);
        }
    }

    /// For how long to go on after so many tries. While an address is left that was not tried, somebody may listen.
    fn limit(&self, only_silence: bool, tries: usize) -> Duration {
        match only_silence && tries >= self.lock().addresses.len() {
            true => self.timeout.min(NOBODY_LIMIT),
            false => self.timeout,
        }
    }

    fn out_of_time(&self, error: CliError) -> CliError {
        let servers = self.lock().addresses.join(", ");
        match error.info().hint {
            Some(_) => error,
            None => error.hint(format!("tried {servers}; it is safe to try again (--timeout sets for how long)")),
        }
    }

    fn channel(&self, address: &str) -> Result<Channel, CliError> {
        let mut servers = self.lock();
        if let Some(channel) = servers.channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = connect(address, &self.credentials, Expect::server())?;
        servers.channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// The next call goes to another server, where there is one: what this one answered says that it cannot help now.
    pub fn elsewhere(&self) {
        self.lock().next();
    }

    fn lock(&self) -> MutexGuard<'_, Servers> {
        // The guarded code cannot panic half-way, so the data is whole even after one.
        self.servers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Servers {
    fn current(&self) -> String {
        self.addresses[self.at].clone()
    }

    fn next(&mut self) {
        self.at = (self.at + 1) % self.addresses.len();
    }

    /// The hint comes from a server of the cluster, and what listens there must show that it is one
    /// too.
    fn go_to(&mut self, address: String) {
        self.at = self.addresses.iter().position(|known| *known == address).unwrap_or_else(|| {
            self.addresses.push(address);
            self.addresses.len() - 1
        });
    }
}

/// Whether a call may have been carried out though it failed.
#[derive(Debug, Default)]
pub struct MaybeDone(Cell<bool>);

impl MaybeDone {
    /// One try of the call.
    pub async fn watch<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        // Whoever gives up waiting for it drops it, and knows nothing.
        let before = self.0.replace(true);
        let reply = call.await;
        self.0.set(before || reply.as_ref().err().is_some_and(may_be_done));
        reply
    }

    pub fn get(&self) -> bool {
        self.0.get()
    }
}

fn may_be_done(status: &Status) -> bool {
    match decode(status) {
        Some(info) => info.code == ErrorCode::Unavailable,
        None => dial_error(status).is_none(),
    }
}

/// A failed status as an error of the command line.
pub fn status_error(status: &Status) -> CliError {
    match judge("the server", status) {
        Verdict::Final(error) | Verdict::Again { error, .. } => error,
    }
}

fn judge(address: &str, status: &Status) -> Verdict {
    if let Some(info) = decode(status) {
        let again = info.retryable;
        let leader = info.leader.clone();
        let error = CliError::from(info);
        return if again { Verdict::Again { error, leader, nobody: false } } else { Verdict::Final(error) };
    }
    if let Some(dial) = dial_error(status) {
        return judge_dial(dial);
    }
    let why = explain_transport(status).unwrap_or_else(|| status.message().to_owned());
    if why.contains("refused our certificate") {
        let code = if why.contains("expired") { ErrorCode::CertificateExpired } else { ErrorCode::NotLoggedIn };
        return Verdict::Final(CliError::new(code, why));
    }
    let code = match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::DeadlineExceeded | Code::Internal => {
            let error = CliError::new(ErrorCode::Unavailable, format!("{address}: {why}"));
            return Verdict::Again { error, leader: None, nobody: false };
        }
        Code::Unimplemented => ErrorCode::VersionMismatch,
        Code::Unauthenticated => ErrorCode::NotLoggedIn,
        Code::PermissionDenied => ErrorCode::Forbidden,
        Code::ResourceExhausted | Code::OutOfRange => ErrorCode::LimitReached,
        _ => ErrorCode::Internal,
    };
    Verdict::Final(CliError::from(ErrorInfo::new(code, format!("{address}: {why}"))))
}

fn judge_dial(dial: &DialError) -> Verdict {
    let code = match dial {
        DialError::Unreachable { .. } | DialError::Slow { .. } => {
            let error = CliError::new(ErrorCode::Unavailable, dial.to_string());
            return Verdict::Again { error, leader: None, nobody: true };
        }
        DialError::Refused { why, .. } if why.contains("our certificate") && why.contains("expired") => {
            ErrorCode::CertificateExpired
        }
        DialError::Refused { why, .. } if why.contains("our certificate") => ErrorCode::NotLoggedIn,
        DialError::Refused { .. } => ErrorCode::ServerNotTrusted,
        DialError::Own(_) => ErrorCode::NotLoggedIn,
    };
    Verdict::Final(CliError::new(code, dial.to_string()))
}

fn dial_error(status: &Status) -> Option<&DialError> {
    let mut next = Error::source(status);
    while let Some(error) = next {
        if let Some(dial) = error.downcast_ref::<DialError>() {
            return Some(dial);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests;
