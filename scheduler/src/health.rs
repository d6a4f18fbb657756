//! Whether this server is of use: it knows a leader with a quorum and has applied everything committed. Proven by a
//! read through the leader, not believed from what was last heard.

use crate::context::Context;
use crate::gateway::roles;
use muster_proto::agent::agents_server::AgentsServer;
use muster_proto::client::muster_server::MusterServer;
use muster_proto::peer::peer_server::PeerServer;
use muster_runtime::identity::ConnectInfo;
use muster_runtime::shutdown::Shutdown;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::watch;
use tonic::server::NamedService;
use tonic::{Request, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Between two proofs.
const PROBE_EVERY_MS: u64 = 1_000;
/// A proof that takes longer is none.
const PROBE_MS: u64 = 2_000;

/// Whether the last proof was good. Cheap to clone.
pub type Ready = watch::Receiver<bool>;

/// Keeps the answers to health checks true.
pub struct Health {
    context: Arc<Context>,
    reporter: HealthReporter,
    ready: watch::Sender<bool>,
}

impl Health {
    /// Says "not serving" until the first proof.
    pub fn new(context: Arc<Context>, reporter: HealthReporter) -> (Self, Ready) {
        let (ready, seen) = watch::channel(false);
        (Self { context, reporter, ready }, seen)
    }

    pub async fn run(self, shutdown: Shutdown) -> Result<(), Infallible> {
        self.report(false).await;
        while let Some(good) = shutdown.unless(self.prove()).await {
            self.report(good).await;
            if shutdown.unless(self.context.clock.sleep_ms(PROBE_EVERY_MS)).await.is_none() {
                break;
            }
        }
        self.report(false).await;
        Ok(())
    }

    async fn prove(&self) -> bool {
        tokio::select! {
            read = self.context.consensus.read_barrier() => read.is_ok(),
            () = self.context.clock.sleep_ms(PROBE_MS) => false,
        }
    }

    async fn report(&self, good: bool) {
        self.ready.send_replace(good);
        // Agents are served by the leader; the others send them there.
        let leads = good && self.context.leads();
        for (service, serves) in [
            ("", good),
            (MusterServer::<()>::NAME, good),
            (AgentsServer::<()>::NAME, leads),
            (PeerServer::<()>::NAME, self.context.consensus.status().stopped.is_none()),
        ] {
            let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
            self.reporter.set_service_status(service, status).await;
        }
    }
}

/// For services that anybody with a certificate of the cluster may ask.
///
/// # Errors
/// Of the returned check: no certificate, or one that has expired.
pub fn any_certificate(context: &Arc<Context>) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone + use<> {
    let clock = context.clock.clone();
    move |request| {
        roles::certificate(request.extensions().get::<ConnectInfo>(), clock.wall_ms())?;
        Ok(request)
    }
}
