//! The service that agents call: joining, certificates, the control stream, launch parts.

use crate::context::Context;
use crate::session;
use muster_common::Name;
use muster_common::job::Hash;
use muster_engine::outcome::Refusal;
use muster_engine::{Command, Response as Answer, digest};
use muster_proto::agent as wire;
use muster_proto::agent::agents_server::Agents;
use muster_runtime::identity::{self, Authority, ConnectInfo, LEAF_VALID_MS, Peer, Role, Sans};
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// A CSR or token longer than this is no CSR or token.
const CSR_BYTES_MAX: usize = 16 * 1024;
const TOKEN_BYTES_MAX: usize = 1024;

pub struct AgentsService {
    context: Arc<Context>,
    authority: Arc<Authority>,
}

impl AgentsService {
    pub fn new(context: Arc<Context>, authority: Arc<Authority>) -> Self {
        Self { context, authority }
    }

    fn sign(&self, csr_pem: &str, node: &str) -> Result<wire::JoinReply, Status> {
        let name = identity::Name::new(self.authority.cluster(), Role::Agent, node)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let now_ms = self.context.clock.wall_ms();
        let certificate_pem = self
            .authority
            .sign(csr_pem, &name, &Sans::default(), now_ms, LEAF_VALID_MS)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(wire::JoinReply {
            certificate_pem,
            ca_pem: self.authority.ca_pem().to_owned(),
            cluster_id: self.authority.cluster().to_owned(),
            servers: self.context.members.values().map(|member| member.address.clone()).collect(),
        })
    }

    fn not_leader(&self) -> Status {
        let leader = self.context.leader().map(|(_, address)| address).unwrap_or_default();
        let mut status = Status::unavailable("this server does not lead; ask the leader");
        if let Ok(address) = leader.parse() {
            status.metadata_mut().insert("muster-leader", address);
        }
        status
    }
}

/// The agent that calls, from its certificate.
fn agent<T>(request: &Request<T>, now_ms: u64) -> Result<Peer, Status> {
    let peer = request.extensions().get::<ConnectInfo>().and_then(|info| info.peer.clone());
    match peer {
        Some(peer) if peer.expired(now_ms) => {
            Err(Status::unauthenticated(format!("the certificate of {} {} has expired", peer.role, peer.name)))
        }
        Some(peer) if peer.is(Role::Agent) => Ok(peer),
        Some(peer) => {
            Err(Status::permission_denied(format!("this call is for agents; the certificate is of a {}", peer.role)))
        }
        None => Err(Status::unauthenticated("this call needs an agent's certificate; join with `muster agent join`")),
    }
}

#[tonic::async_trait]
impl Agents for AgentsService {
    type ControlStream = ReceiverStream<Result<wire::ServerMessage, Status>>;

    async fn join(&self, request: Request<wire::JoinRequest>) -> Result<Response<wire::JoinReply>, Status> {
        let wire::JoinRequest { token, node_name, csr_pem } = request.into_inner();
        if token.len() > TOKEN_BYTES_MAX || csr_pem.len() > CSR_BYTES_MAX {
            return Err(Status::invalid_argument("the token or the certificate request is too long"));
        }
        let node = Name::new(node_name).map_err(|error| Status::invalid_argument(format!("node name: {error}")))?;
        // Checked first, so that a bad request does not cost the token.
        let reply = self.sign(&csr_pem, node.as_str())?;
        let hash = digest::of_text(&token);
        let used = self.context.proposer.propose(Command::UseToken { hash, node }).await;
        match used.map_err(|_| self.not_leader())?.response {
            Answer::Done => Ok(Response::new(reply)),
            Answer::Refused(refusal @ (Refusal::Token | Refusal::TokenNode(_))) => {
                Err(Status::permission_denied(refusal.to_string()))
            }
            other => Err(Status::internal(format!("unexpected answer {other:?}"))),
        }
    }

    async fn control(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let peer = agent(&request, self.context.clock.wall_ms())?;
        let messages = session::serve(self.context.sessions.clone(), peer.name, request.into_inner());
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn fetch_launch(
        &self,
        request: Request<wire::FetchLaunchRequest>,
    ) -> Result<Response<wire::FetchLaunchReply>, Status> {
        let peer = agent(&request, self.context.clock.wall_ms())?;
        let hash: [u8; 32] = request
            .into_inner()
            .hash
            .as_ref()
            .try_into()
            .map_err(|_| Status::invalid_argument("a hash has 32 bytes"))?;
        let hash = Hash(hash);
        let state = self.context.view();
        let node = Name::new(peer.name).ok().and_then(|name| state.node_named(&name).map(|node| node.id));
        let node = node.ok_or_else(|| Status::permission_denied("the node is not registered"))?;
        // An agent may read what runs on its own node, and nothing else.
        let runs = muster_engine::desired(&state, node)
            .parts
            .iter()
            .any(|part| part.run.as_ref().is_some_and(|run| run.launch == hash));
        if !runs {
            return Err(Status::not_found("no part on this node has that launch"));
        }
        let launch = state.launch(&hash).ok_or_else(|| Status::not_found("the launch part is not known"))?;
        Ok(Response::new(wire::FetchLaunchReply { launch: digest::launch_bytes(launch).into() }))
    }

    async fn renew(&self, request: Request<wire::RenewRequest>) -> Result<Response<wire::JoinReply>, Status> {
        let peer = agent(&request, self.context.clock.wall_ms())?;
        let csr_pem = request.into_inner().csr_pem;
        if csr_pem.len() > CSR_BYTES_MAX {
            return Err(Status::invalid_argument("the certificate request is too long"));
        }
        Ok(Response::new(self.sign(&csr_pem, &peer.name)?))
    }
}
