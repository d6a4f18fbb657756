//! Datagrams as a carrier: a connection of its own beside the control stream, made again whenever
//! it is lost.

use super::{Backoff, Carrier, Renewal, Sample, Way};
use async_trait::async_trait;
use muster_proto::datagram::{self, Datagram, Why};
use muster_runtime::clock::Clock;
use muster_runtime::datagram::{DatagramConnection, dial};
use muster_runtime::identity::{Credentials, Expect};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

const ANSWERS_MAX: usize = 64;

/// Ends its connection when it is dropped.
pub struct QuicCarrier {
    connection: watch::Receiver<Option<DatagramConnection>>,
    answers: mpsc::Receiver<Renewal>,
    task: AbortHandle,
}

impl Drop for QuicCarrier {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(connection) = self.connection.borrow().as_ref() {
            connection.close("the session is over");
        }
    }
}

impl QuicCarrier {
    /// Begins to connect to `port` at the host of `address` (`host:port`).
    pub fn start(address: &str, port: u16, credentials: Credentials, clock: Arc<dyn Clock>, backoff: Backoff) -> Self {
        let (shown, connection) = watch::channel(None);
        let (to, answers) = mpsc::channel(ANSWERS_MAX);
        let keeper = Keeper { address: address.to_owned(), port, credentials, clock, backoff, shown, to };
        let task = tokio::spawn(keeper.run()).abort_handle();
        Self { connection, answers, task }
    }

    /// Waits until there is a connection.
    pub async fn connected(&mut self) {
        // The keeper lives as long as this.
        let _ = self.connection.wait_for(Option::is_some).await;
    }

    fn send(&self, datagram: &Datagram) -> bool {
        let connection = self.connection.borrow();
        connection.as_ref().is_some_and(|connection| connection.send(datagram::encode(datagram)).is_ok())
    }
}

#[async_trait]
impl Carrier for QuicCarrier {
    fn way(&self) -> Way {
        Way::Quic
    }

    async fn renew(&mut self, renewal: Renewal) -> bool {
        self.send(&Datagram::Renewal(renewal))
    }

    async fn tell(&mut self, session: u64, samples: &[Sample]) -> bool {
        datagram::telemetry_of(session, samples).all(|datagram| self.send(&datagram))
    }

    async fn extended(&mut self) -> Renewal {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

/// Keeps one connection, as long as the other side speaks our datagrams.
struct Keeper {
    address: String,
    port: u16,
    credentials: Credentials,
    clock: Arc<dyn Clock>,
    backoff: Backoff,
    shown: watch::Sender<Option<DatagramConnection>>,
    to: mpsc::Sender<Renewal>,
}

impl Keeper {
    async fn run(mut self) {
        let mut said = false;
        loop {
            let made = dial(&self.address, self.port, &self.credentials, Expect::server(), datagram::ALPN).await;
            match made {
                Ok(connection) => {
                    tracing::info!(address = %self.address, port = self.port, "datagrams reach the leader");
                    said = false;
                    self.backoff.reset();
                    self.shown.send_replace(Some(connection.clone()));
                    let speaks = self.read(&connection).await;
                    self.shown.send_replace(None);
                    if !speaks {
                        return;
                    }
                }
                Err(error) if !said => {
                    said = true;
                    tracing::warn!(%error, "no datagrams to the leader; renewals go over the control stream meanwhile");
                }
                Err(error) => tracing::debug!(%error, "no datagrams to the leader"),
            }
            self.clock.sleep_ms(self.backoff.next_ms()).await;
        }
    }

    /// False when the server does not speak our datagrams, and never will.
    async fn read(&self, connection: &DatagramConnection) -> bool {
        loop {
            let bytes = match connection.receive().await {
                Ok(bytes) => bytes,
                Err(over) => {
                    tracing::info!(%over, "the datagram connection ended; renewals go over the control stream");
                    return true;
                }
            };
            match datagram::decode(&bytes) {
                // Whoever does not keep up with answers gets the next.
                Ok(Datagram::Extended(answer)) => drop(self.to.try_send(answer)),
                Ok(Datagram::Refusal(refusal)) => {
                    tracing::warn!(%refusal, "the leader refused a datagram");
                    if refusal.why == Why::Version {
                        connection.close("no shared version");
                        return false;
                    }
                }
                Ok(other) => tracing::debug!(?other, "the leader sent what only agents send"),
                Err(error) => tracing::debug!(%error, "a datagram of the leader was refused"),
            }
        }
    }
}
