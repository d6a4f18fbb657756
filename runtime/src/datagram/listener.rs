//! The listening side. An address proves itself by a token before anything is kept of it, so that
//! a flood of first packets from invented addresses costs no memory and no handshake.

use super::connection::DatagramConnection;
use super::dial::peer_of;
use super::settings::{DatagramLimits, server};
use crate::identity::{Credentials, Identity, IdentityError};
use crate::shutdown::Shutdown;
use quinn::{Endpoint, Incoming};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// What one unfinished handshake may make us keep: two chains of certificates are far less.
pub(super) const LARGEST_HANDSHAKE_BYTES: usize = 16 * 1024;
/// Finished handshakes that wait to be served.
const READY_QUEUE: usize = 64;

/// What a listener has seen since it began.
#[derive(Debug, Default)]
pub struct PortStats {
    /// First packets that were asked to prove their address.
    pub retried: AtomicU64,
    /// Turned away by a bound.
    pub refused: AtomicU64,
    /// Handshakes that failed: no certificate, another cluster's, an expired one, too slow.
    pub failed: AtomicU64,
    /// Connections made.
    pub accepted: AtomicU64,
}

/// Accepts connections of peers with a certificate of the own cluster. It closes its port when the
/// [`Shutdown`] is triggered or when it is dropped.
#[derive(Debug)]
pub struct DatagramListener {
    ready: mpsc::Receiver<DatagramConnection>,
    local_addr: SocketAddr,
    stats: Arc<PortStats>,
    stop: Shutdown,
}

impl Drop for DatagramListener {
    fn drop(&mut self) {
        self.stop.trigger();
    }
}

impl DatagramListener {
    /// Binds `address` (UDP) and begins to accept. Needs a tokio runtime.
    ///
    /// # Errors
    /// An address that cannot be bound, or an identity that cannot be used.
    pub fn bind(
        address: SocketAddr,
        credentials: Credentials,
        alpn: &'static [u8],
        limits: DatagramLimits,
        shutdown: &Shutdown,
    ) -> io::Result<Self> {
        let identity = credentials.current();
        let config = server(&identity, alpn, &limits).map_err(io::Error::other)?;
        let endpoint = Endpoint::server(config, address)?;
        let local_addr = endpoint.local_addr()?;
        let (to, ready) = mpsc::channel(READY_QUEUE);
        let (stop, stats) = (shutdown.child(), Arc::new(PortStats::default()));
        let gate = Gate {
            credentials,
            identity,
            alpn,
            limits,
            stats: stats.clone(),
            handshakes: Arc::new(Semaphore::new(limits.max_handshakes)),
            connections: Arc::new(Semaphore::new(limits.max_connections)),
            by_address: Arc::default(),
        };
        let until = stop.clone();
        tokio::spawn(async move {
            until.unless(gate.accept(&endpoint, &to)).await;
            endpoint.close(quinn::VarInt::from_u32(0), b"the server stops");
        });
        Ok(Self { ready, local_addr, stats, stop })
    }

    /// The address it is bound to, with the port the system chose if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Counters, to be read at any time.
    pub fn stats(&self) -> Arc<PortStats> {
        self.stats.clone()
    }

    /// The next connection; `None` once the port is closed.
    pub async fn accept(&mut self) -> Option<DatagramConnection> {
        self.ready.recv().await
    }
}

struct Gate {
    credentials: Credentials,
    identity: Arc<Identity>,
    alpn: &'static [u8],
    limits: DatagramLimits,
    stats: Arc<PortStats>,
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    by_address: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Gate {
    async fn accept(mut self, endpoint: &Endpoint, to: &mpsc::Sender<DatagramConnection>) {
        while let Some(incoming) = endpoint.accept().await {
            if !incoming.remote_address_validated() {
                count(&self.stats.retried);
                // It cannot fail for an address that has not proven itself.
                let _ = incoming.retry();
                continue;
            }
            self.refresh(endpoint);
            self.shake(incoming, to);
        }
    }

    /// One handshake beside the others, if the bounds allow it.
    fn shake(&self, incoming: Incoming, to: &mpsc::Sender<DatagramConnection>) {
        let from = incoming.remote_address();
        let handshake = self.handshakes.clone().try_acquire_owned();
        let connection = self.connections.clone().try_acquire_owned();
        let (Ok(handshake), Ok(share), Some(turn)) =
            (handshake, connection, Turn::of(&self.by_address, from, &self.limits))
        else {
            count(&self.stats.refused);
            return incoming.refuse();
        };
        let (to, stats, limits) = (to.clone(), self.stats.clone(), self.limits);
        let cluster = self.identity.name().cluster.clone();
        tokio::spawn(async move {
            let limit = Duration::from_millis(limits.handshake_timeout_ms);
            let work = async { incoming.accept()?.await };
            let done = tokio::time::timeout(limit, work).await;
            drop((handshake, turn));
            let refused = match done {
                Ok(Ok(connection)) => match peer_of(&connection) {
                    Ok(peer) if peer.cluster == cluster => {
                        count(&stats.accepted);
                        let made = DatagramConnection::new(connection, peer, &limits, None, Some(share));
                        // Nobody to hand it to: the listener is gone.
                        return to.send(made).await.unwrap_or_default();
                    }
                    Ok(_) => "its certificate is of another cluster".to_owned(),
                    Err(error) => error.to_string(),
                },
                Ok(Err(error)) => error.to_string(),
                Err(_elapsed) => "the handshake timed out".to_owned(),
            };
            count(&stats.failed);
            tracing::debug!(%from, why = %refused, "a datagram connection was refused");
        });
    }

    /// Follows a replaced identity; one that cannot be used leaves the old settings in force.
    fn refresh(&mut self, endpoint: &Endpoint) {
        let identity = self.credentials.current();
        if Arc::ptr_eq(&identity, &self.identity) {
            return;
        }
        match server(&identity, self.alpn, &self.limits) {
            Ok(config) => endpoint.set_server_config(Some(config)),
            Err(IdentityError::Crypto { doing, cause }) => {
                tracing::error!(doing, cause, "the renewed identity cannot be used for datagrams");
            }
            Err(error) => tracing::error!(%error, "the renewed identity cannot be used for datagrams"),
        }
        self.identity = identity;
    }
}

/// One unfinished handshake in its address's count.
struct Turn {
    address: IpAddr,
    counts: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

impl Turn {
    fn of(counts: &Arc<Mutex<BTreeMap<IpAddr, usize>>>, from: SocketAddr, limits: &DatagramLimits) -> Option<Self> {
        let address = from.ip();
        let mut open = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= limits.max_handshakes_per_address {
            return None;
        }
        *count += 1;
        Some(Self { address, counts: counts.clone() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}
