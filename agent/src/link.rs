//! The agent's connection to the leader: finds it, stays with it, and carries renewals, reports,
//! orders and logs. Everything it holds can be lost at any moment without harm.

mod backoff;
mod renew;
mod session;
mod translate;

pub use backoff::Backoff;

use crate::core::CoreHandle;
use crate::health::Samples;
use crate::paths::Paths;
use muster_common::heartbeat::Heartbeat;
use muster_common::node::Inventory;
use muster_proto::agent::agents_client::AgentsClient;
use muster_runtime::actor::ActorError;
use muster_runtime::clock::Clock;
use muster_runtime::identity::{Credentials, Expect, IdentityError, Network};
use muster_runtime::shutdown::Shutdown;
use session::Ended;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use tonic::transport::Channel;

/// Redirects in a row before they count as a failure: two servers may point at each other.
const REDIRECTS_MAX: u32 = 3;
/// The largest message either side may send.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The leader's client while there is one; launch parts are fetched through it.
pub type Server = watch::Sender<Option<AgentsClient<Channel>>>;

/// Why a link ends for good.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("no word from this agent's core")]
    Core(#[from] ActorError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What the link works with.
pub struct Link {
    pub servers: Vec<String>,
    pub network: Arc<dyn Network>,
    pub credentials: Credentials,
    pub identity_dir: PathBuf,
    pub inventory: Inventory,
    /// Random id of this agent process.
    pub instance: String,
    pub core: CoreHandle,
    pub server: Server,
    pub paths: Paths,
    pub clock: Arc<dyn Clock>,
    pub backoff: Backoff,
    pub heartbeat: Heartbeat,
    /// The latest of all devices.
    pub samples: watch::Receiver<Samples>,
}

impl Link {
    /// Connects, and connects again, until `shutdown`.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), LinkError> {
        let mut at = 0;
        let mut redirect: Option<String> = None;
        let mut redirects = 0;
        // A leader that was named and not there, until somebody is: the servers do not know yet that it is gone.
        let mut unreachable = String::new();
        loop {
            let redirected = redirect.is_some();
            let address = redirect.take().unwrap_or_else(|| self.servers[at % self.servers.len()].clone());
            let ended = shutdown.unless(self.session(&address, &unreachable)).await;
            self.server.send_replace(None);
            let Some(ended) = ended else { return Ok(()) };
            match ended? {
                Ended::Redirected(leader) if redirects < REDIRECTS_MAX && !leader.is_empty() => {
                    tracing::debug!(%address, %leader, "sent on to the leader");
                    redirects += 1;
                    redirect = Some(leader);
                    continue;
                }
                Ended::Redirected(_) => {
                    tracing::info!(%address, "no leader is known there");
                    // That server has waited for one before it answered.
                    self.backoff.reset();
                }
                Ended::Refused(why) => {
                    tracing::warn!(%address, %why, "no session with a server");
                    if redirected {
                        unreachable = address;
                    }
                }
                Ended::Lost(why) => {
                    tracing::warn!(%address, %why, "the session with the leader ended; ranks run on under their leases");
                    self.backoff.reset();
                    unreachable.clear();
                }
            }
            redirects = 0;
            at += 1;
            let wait_ms = self.backoff.next_ms();
            if shutdown.unless(self.clock.sleep_ms(wait_ms)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Whether renewals are to go over UDP where that works.
    fn uses_datagrams(&self) -> bool {
        self.heartbeat == Heartbeat::Quic && self.network.has_datagrams()
    }

    fn client(&self, address: &str) -> Result<AgentsClient<Channel>, IdentityError> {
        let channel = self.network.channel(address, &self.credentials, Expect::server())?;
        let client = AgentsClient::new(channel);
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }
}
