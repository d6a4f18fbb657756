//! The connection to the cluster: tries each server, goes where the leader is, and repeats what may
//! be repeated until the time is over.

use crate::error::CliError;
use crate::settings::Settings;
use muster_proto::client::muster_client::MusterClient;
use muster_proto::convert::error::{ErrorCode, ErrorInfo, decode};
use muster_runtime::clock::{Clock, SystemClock};
use muster_runtime::identity::{Credentials, DialError, Expect, Identity, IdentityError, connect, explain_transport};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

pub type Api = MusterClient<Channel>;

/// For how long a call goes on with all its tries, unless somebody says otherwise.
const USUAL: Duration = Duration::from_secs(30);
/// One try of a call, unless there is less time or the caller says otherwise.
const TRY: Duration = Duration::from_secs(10);
/// Who waits for so long is answered when the time is over, and the answer has to come.
const ANSWER: Duration = Duration::from_secs(2);
/// Another try with less time would only leave unknown whether it was carried out.
const LEAST: Duration = Duration::from_millis(250);
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
    /// What somebody has said; else it is as usual for the call.
    timeout: Option<Duration>,
    servers: Mutex<Servers>,
}

/// How long a call may take, counted from its begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    /// One try.
    one: Duration,
    /// No other try begins after it.
    begin: Duration,
    /// No try goes on after it.
    end: Duration,
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
        let identity = Identity::load(folder, now_ms).map_err(|error| match error {
            IdentityError::Expired { .. } => CliError::from(error).hint(
                "whoever keeps the cluster's folder `ca` issues another: muster cluster issue ROLE/NAME DIR --ca CA",
            ),
            other => other.into(),
        })?;
        identity.check(now_ms)?;
        Self::with(settings.servers.clone(), Credentials::new(identity), settings.timeout_ms)
    }

    /// `timeout_ms`: how long one call may take, where somebody said so.
    pub fn with(servers: Vec<String>, credentials: Credentials, timeout_ms: Option<u64>) -> Result<Self, CliError> {
        let servers = Servers { addresses: servers, at: 0, channels: BTreeMap::new() };
        let client = Self { credentials, timeout: timeout_ms.map(Duration::from_millis), servers: Mutex::new(servers) };
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
        Self::with(vec![address.to_owned()], self.credentials.clone(), Some(timeout_ms))
    }

    /// The addresses it tries.
    pub fn addresses(&self) -> Vec<String> {
        self.lock().addresses.clone()
    }

    /// Makes a call, again and elsewhere as long as that is safe and there is time. `op` may run
    /// several times: what it sends must carry the same request id or key each time.
    pub async fn call<T>(&self, op: impl AsyncFn(Api) -> Result<Response<T>, Status>) -> Result<T, CliError> {
        let whole = self.timeout.unwrap_or(USUAL);
        self.go_on(Bounds { one: TRY, begin: whole, end: whole }, op).await
    }

    /// Like [`Client::call`], for calls of which one try may take longer than usual.
    pub async fn call_within<T>(
        &self,
        try_ms: u64,
        op: impl AsyncFn(Api) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        self.go_on(self.slow(Duration::from_millis(try_ms)), op).await
    }

    /// Like [`Client::call`], for one that a server keeps for `held` before it answers. Within `limit` where there is
    /// one; else the time that it is kept does not count.
    pub async fn call_held<T>(
        &self,
        held: Duration,
        limit: Option<Duration>,
        op: impl AsyncFn(Api) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        self.go_on(self.held(held, limit), op).await
    }

    fn slow(&self, one: Duration) -> Bounds {
        match self.timeout {
            Some(whole) => Bounds { one, begin: whole, end: whole },
            // Nobody said for how long: a try that has begun in time has all of its own.
            None => Bounds { one, begin: USUAL, end: USUAL + one },
        }
    }

    fn held(&self, held: Duration, limit: Option<Duration>) -> Bounds {
        let one = held + TRY;
        match limit {
            Some(limit) => Bounds { one, begin: limit, end: limit + ANSWER },
            None => {
                let whole = held + self.timeout.unwrap_or(USUAL);
                Bounds { one, begin: whole, end: whole }
            }
        }
    }

    async fn go_on<T>(
        &self,
        bounds: Bounds,
        op: impl AsyncFn(Api) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        let started = Instant::now();
        let (mut backoff, mut hints, mut only_silence, mut tries) = (BACKOFF_FIRST, 0, true, 0);
        let mut known: Option<CliError> = None;
        loop {
            let address = self.lock().current();
            let api = MusterClient::new(self.channel(&address)?).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let left = bounds.end.saturating_sub(started.elapsed());
            let within = bounds.one.min(left);
            let verdict = match tokio::time::timeout(within, op(api)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => judge(&address, &status),
                // What an earlier try was answered tells more than that the time was over in this one.
                Err(_) => match known.take().filter(|_| left < bounds.one) {
                    Some(known) => return Err(self.out_of_time(known, started.elapsed())),
                    None => silent(&address, within),
                },
            };
            let (error, leader, nobody) = match verdict {
                Verdict::Final(error) => return Err(error),
                Verdict::Again { error, leader, nobody } => (error, leader, nobody),
            };
            only_silence &= nobody;
            tries += 1;
            let spent = started.elapsed();
            if let Some(leader) = leader.filter(|_| hints < HINTS_MAX && spent + LEAST < bounds.begin) {
                hints += 1;
                self.lock().go_to(leader);
                known = Some(error);
                continue;
            }
            hints = 0;
            self.lock().next();
            if spent + backoff + LEAST >= self.limit(only_silence, tries, bounds.begin) {
                return Err(self.out_of_time(error, spent));
            }
            known = Some(error);
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MOST);
        }
    }

    /// For how long to go on after so many tries. While an address is left that was not tried, somebody may listen.
    fn limit(&self, only_silence: bool, tries: usize, whole: Duration) -> Duration {
        match only_silence && tries >= self.lock().addresses.len() {
            true => whole.min(NOBODY_LIMIT),
            false => whole,
        }
    }

    fn out_of_time(&self, error: CliError, spent: Duration) -> CliError {
        let servers = self.lock().addresses.join(", ");
        let tried = format!("tried {servers} for {:.1} s", spent.as_secs_f64());
        let hint = match &error.info().hint {
            Some(hint) => format!("{hint}\n{tried} (--timeout sets for how long)"),
            None => format!("{tried}; it is safe to try again (--timeout sets for how long)"),
        };
        error.hint(hint)
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

fn silent(address: &str, within: Duration) -> Verdict {
    let message = format!("{address} did not answer within {} ms", within.as_millis());
    Verdict::Again { error: CliError::new(ErrorCode::Unavailable, message), leader: None, nobody: true }
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
