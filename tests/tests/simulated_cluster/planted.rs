//! Violations of the protocol, planted in a world to see whether anybody notices: a checker that never finds anything
//! may simply not look.

use crate::network::{Dialer, greeted_channel};
use hyper_util::rt::TokioIo;
use muster_agent::launcher::{Found, InProcess, Launcher, LauncherError, ShimLink};
use muster_agent::shim::wire::{Request, Spec};
use muster_proto::agent::agents_client::AgentsClient;
use muster_proto::agent::agents_server::{Agents, AgentsServer};
use muster_proto::agent::{self as wire, agent_message::Body as ToServer, server_message::Body as FromServer};
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Server};
use tonic::{Request as Call, Response, Status, Streaming, async_trait};

/// What is wrong with a world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Planted {
    #[default]
    Nothing,
    /// Shims let ranks live past the end of their lease (rule 9).
    LeasesWithoutEnd,
    /// Renewals are answered at once, whoever leads and whether or not anybody hears them (rule 6).
    RenewalsFromATimer,
    /// What has ended under a token is started under it once more (rule 3).
    SpentTokens,
    /// The servers' logs answer that a vote is durable, and it never is (section 3).
    UnsyncedVotes,
}

const MESSAGES: usize = 1_024;
const PIPE_BYTES: usize = 1 << 20;
const MESSAGE_BYTES_MAX: usize = 16 << 20;

impl Planted {
    /// The launcher of a node in such a world.
    pub fn launcher(self, honest: InProcess) -> Arc<dyn Launcher> {
        match self {
            Planted::LeasesWithoutEnd => Arc::new(Endless(honest)),
            Planted::SpentTokens => Arc::new(Reviver { honest, done: Arc::default() }),
            _ => Arc::new(honest),
        }
    }
}

/// Starts shims whose lease never ends.
#[derive(Debug)]
struct Endless(InProcess);

#[async_trait]
impl Launcher for Endless {
    async fn start(&self, dir: &Path, spec: &Spec) -> Result<(), LauncherError> {
        self.0.start(dir, &Spec { deadline_ms: u64::MAX, ..spec.clone() }).await
    }

    async fn find(&self, dir: &Path, marker: &str) -> Found {
        self.0.find(dir, marker).await
    }

    async fn kill_marked(&self, prefix: &str, keep: &BTreeSet<String>) -> usize {
        self.0.kill_marked(prefix, keep).await
    }
}

/// Starts again, once each, what was found to have ended.
#[derive(Debug)]
struct Reviver {
    honest: InProcess,
    done: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl Reviver {
    async fn revive(&self, dir: &Path) {
        let ended = self.honest.status(dir).is_some_and(|status| status.spawned);
        let spec = self.honest.spec(dir);
        let (Some(spec), true) = (spec, ended && self.done.lock().expect("no panics").insert(dir.to_owned())) else {
            return;
        };
        let again = dir.with_extension("again");
        if self.honest.start(&again, &spec).await.is_ok()
            && let Found::Live(ShimLink { requests, mut statuses }) = self.honest.find(&again, &spec.marker).await
        {
            tokio::spawn(async move {
                // It hears this or is gone already; it listens as long as it is listened to.
                let _ = requests.send(Request::Go).await;
                while statuses.recv().await.is_some() {}
            });
        }
    }
}

#[async_trait]
impl Launcher for Reviver {
    async fn start(&self, dir: &Path, spec: &Spec) -> Result<(), LauncherError> {
        self.honest.start(dir, spec).await
    }

    async fn find(&self, dir: &Path, marker: &str) -> Found {
        let found = self.honest.find(dir, marker).await;
        if matches!(found, Found::Ended(_)) {
            self.revive(dir).await;
        }
        found
    }

    async fn kill_marked(&self, prefix: &str, keep: &BTreeSet<String>) -> usize {
        self.honest.kill_marked(prefix, keep).await
    }
}

/// Stands between an agent and the server it dials, and answers its renewals.
#[derive(Clone)]
pub struct Forger {
    honest: Dialer,
}

impl Forger {
    pub fn before(honest: Dialer) -> Self {
        Self { honest }
    }

    fn client(&self) -> Result<AgentsClient<Channel>, Status> {
        let channel = greeted_channel(self.honest.clone()).map_err(|error| Status::internal(error.to_string()))?;
        let client = AgentsClient::new(channel);
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }
}

impl Service<http::Uri> for Forger {
    type Response = TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<DuplexStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let service = AgentsServer::new(self.clone());
        let service = service.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX);
        // One connection, which stays open as long as the agent holds its end.
        let incoming = tokio_stream::once(Ok::<_, io::Error>(ours)).chain(tokio_stream::pending());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        Box::pin(std::future::ready(Ok(TokioIo::new(theirs))))
    }
}

#[async_trait]
impl Agents for Forger {
    type ControlStream = ReceiverStream<Result<wire::ServerMessage, Status>>;

    async fn control(
        &self,
        call: Call<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let (to_agent, answers) = mpsc::channel(MESSAGES);
        let (to_server, messages) = mpsc::channel(MESSAGES);
        let forge = to_agent.clone();
        let mut said = call.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(message)) = said.next().await {
                if let Some(ToServer::Renewal(renewal)) = &message.body {
                    let lease = wire::LeaseExtended { session: renewal.session, number: renewal.number };
                    let _ = forge.send(Ok(wire::ServerMessage { body: Some(FromServer::Lease(lease)) })).await;
                }
                // A server that is gone hears nothing, and the agent is not told.
                let _ = to_server.try_send(message);
            }
        });
        let mut heard = self.client()?.control(ReceiverStream::new(messages)).await?.into_inner();
        tokio::spawn(async move {
            while let Some(message) = heard.next().await {
                if to_agent.send(message).await.is_err() {
                    return;
                }
            }
            // An agent that has gone by itself needs no end.
            let _ = to_agent.send(Err(Status::unavailable("the server has ended it"))).await;
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn join(&self, call: Call<wire::JoinRequest>) -> Result<Response<wire::JoinReply>, Status> {
        self.client()?.join(call).await
    }

    async fn fetch_launch(
        &self,
        call: Call<wire::FetchLaunchRequest>,
    ) -> Result<Response<wire::FetchLaunchReply>, Status> {
        self.client()?.fetch_launch(call).await
    }

    async fn renew(&self, call: Call<wire::RenewRequest>) -> Result<Response<wire::JoinReply>, Status> {
        self.client()?.renew(call).await
    }
}
