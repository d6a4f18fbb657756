//! The UDP port: takes agents' datagrams and passes on what is well formed and meant for this server.

use super::DatagramCounters;
use crate::sessions::SessionsHandle;
use muster_proto::datagram::{self, Datagram, Refusal, Why};
use muster_runtime::clock::Clock;
use muster_runtime::datagram::{DatagramConnection, DatagramListener};
use muster_runtime::identity::Role;
use muster_runtime::shutdown::Shutdown;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;

/// One connection is told so often at most why what it sends is refused.
const REFUSAL_EVERY_MS: u64 = 1_000;

/// Serves every connection of the listener.
pub struct DatagramPort {
    listener: DatagramListener,
    sessions: SessionsHandle,
    clock: Arc<dyn Clock>,
}

impl DatagramPort {
    pub fn new(listener: DatagramListener, sessions: SessionsHandle, clock: Arc<dyn Clock>) -> Self {
        Self { listener, sessions, clock }
    }

    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
        // A node's newest connection; it has one.
        let mut open: BTreeMap<String, (u64, DatagramConnection)> = BTreeMap::new();
        let mut serving: JoinSet<(String, u64)> = JoinSet::new();
        let mut next = 0;
        loop {
            tokio::select! {
                biased;
                () = shutdown.triggered() => return Ok(()),
                Some(ended) = serving.join_next() => {
                    if let Ok((name, number)) = ended && open.get(&name).is_some_and(|(now, _)| *now == number) {
                        open.remove(&name);
                    }
                }
                accepted = self.listener.accept() => {
                    let Some(connection) = accepted else { return Ok(()) };
                    if !self.is_agent(&connection) {
                        continue;
                    }
                    let name = connection.peer().name.clone();
                    next += 1;
                    let number = next;
                    if let Some((_, older)) = open.insert(name.clone(), (number, connection.clone())) {
                        older.close("the agent has connected again");
                    }
                    let served = serve(connection, self.sessions.clone(), self.clock.clone());
                    serving.spawn(async move {
                        served.await;
                        (name, number)
                    });
                }
            }
            let connections = &self.sessions.services.heartbeats.counters().connections;
            connections.store(open.len() as u64, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Checked as on the control stream.
    fn is_agent(&self, connection: &DatagramConnection) -> bool {
        let peer = connection.peer();
        if peer.is(Role::Agent) {
            return true;
        }
        DatagramCounters::add(&self.sessions.services.heartbeats.counters().turned_away, 1);
        tracing::warn!(role = %peer.role, name = %peer.name, "datagrams are for agents");
        connection.close(&format!("this port is for agents; the certificate is of a {}", peer.role));
        false
    }
}

async fn serve(connection: DatagramConnection, sessions: SessionsHandle, clock: Arc<dyn Clock>) {
    let heartbeats = sessions.services.heartbeats.clone();
    let counters = heartbeats.counters();
    let mut refused_ms: Option<u64> = None;
    loop {
        let bytes = match connection.receive().await {
            Ok(bytes) => bytes,
            Err(over) => {
                tracing::debug!(node = %connection.peer().name, %over, "a datagram connection ended");
                return;
            }
        };
        DatagramCounters::add(&counters.dropped, connection.take_dropped());
        if connection.peer().expired(clock.wall_ms()) {
            DatagramCounters::add(&counters.turned_away, 1);
            return connection.close("the certificate has expired; connect again with the renewed one");
        }
        let Some(why) = take(&connection, &sessions, &bytes) else { continue };
        let now_ms = clock.boottime_ms();
        if refused_ms.is_none_or(|at_ms| now_ms.saturating_sub(at_ms) >= REFUSAL_EVERY_MS) {
            refused_ms = Some(now_ms);
            // A connection that is over ends at the next look.
            let _ = connection.send(datagram::encode(&Datagram::Refusal(Refusal::ours(why))));
        }
    }
}

/// Passes one datagram on; why it is refused, if its sender should hear so.
fn take(connection: &DatagramConnection, sessions: &SessionsHandle, bytes: &[u8]) -> Option<Why> {
    let counters = sessions.services.heartbeats.counters();
    let name = connection.peer().name.as_str();
    let here = match datagram::decode(bytes) {
        Ok(Datagram::Renewal(renewal)) => {
            let here = sessions.renew_by_datagram(name, renewal, connection);
            DatagramCounters::add(&counters.renewals, u64::from(here));
            here
        }
        Ok(Datagram::Telemetry { session, samples }) => {
            let here = sessions.sampled_by_datagram(name, session, &samples);
            DatagramCounters::add(&counters.telemetry, u64::from(here));
            here
        }
        // A refusal is never answered.
        Ok(Datagram::Refusal(_)) => return None,
        // Only servers answer renewals.
        Ok(Datagram::Extended(_)) => {
            DatagramCounters::add(&counters.malformed, 1);
            return Some(Why::Malformed);
        }
        Err(error) => {
            let why = error.why();
            let counter = if why == Why::Version { &counters.versions } else { &counters.malformed };
            DatagramCounters::add(counter, 1);
            tracing::debug!(node = %name, %error, "a datagram was refused");
            return Some(why);
        }
    };
    DatagramCounters::add(&counters.not_here, u64::from(!here));
    (!here).then_some(Why::NotHere)
}
