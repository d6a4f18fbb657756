//! The service that agents call: joining, certificates, the control stream, launch parts.

use crate::consensus::ProposeError;
use crate::context::Context;
use crate::gateway::errors;
use crate::session;
use muster_common::Name;
use muster_common::job::Hash;
use muster_engine::{Command, Response as Answer, digest};
use muster_proto::agent as wire;
use muster_proto::agent::agents_server::Agents;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use muster_runtime::identity::{self, Authority, ConnectInfo, LEAF_VALID_MS, Peer, Role, Sans};
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// A CSR or token longer than this is no CSR or token.
const CSR_BYTES_MAX: usize = 16 * 1024;
const TOKEN_BYTES_MAX: usize = 1024;
/// Where a server that does not lead says who does.
const LEADER_KEY: &str = "muster-leader";

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
}

/// Tells whoever joins whether to go elsewhere, to try again, or to stop.
fn not_joined(error: ProposeError) -> Status {
    let info = match error {
        // A second try is no repetition: the first may have used the token up.
        ProposeError::Unknown { why } => {
            ErrorInfo::new(ErrorCode::Unavailable, format!("it is not known whether the token was used: {why}"))
                .hint("join again; if the token is refused then, make another with `muster node token`")
        }
        error => errors::not_committed(error),
    };
    let leader = info.leader.clone().unwrap_or_default();
    let mut status = Status::from(info);
    if !leader.is_empty()
        && let Ok(address) = leader.parse()
    {
        status.metadata_mut().insert(LEADER_KEY, address);
    }
    status
}

/// The agent that a connection belongs to, by its certificate.
///
/// # Errors
/// No certificate, one that has expired, or one of another role.
pub fn caller(info: Option<&ConnectInfo>, now_ms: u64) -> Result<&Peer, Status> {
    match info.and_then(|info| info.peer.as_ref()) {
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

fn agent<T>(request: &Request<T>, now_ms: u64) -> Result<Peer, Status> {
    caller(request.extensions().get(), now_ms).cloned()
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
        match used.map_err(not_joined)?.response {
            Answer::Done => Ok(Response::new(reply)),
            Answer::Refused(refusal) => Err(errors::refused(refusal).into()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::server::{Server, within};
    use muster_common::Time;
    use muster_engine::command::Principal;
    use muster_engine::outcome::Refusal;
    use muster_proto::convert::error::decode;
    use muster_runtime::identity::KeyRequest;
    use tonic::Code;

    #[test]
    fn whoever_cannot_join_is_told_whether_to_go_elsewhere_or_to_try_again() {
        let leader = (2, "b.example:7070".to_owned());
        for (error, code, elsewhere) in [
            (ProposeError::NotLeader { leader }, ErrorCode::NotLeader, Some("b.example:7070")),
            (ProposeError::NoLeader, ErrorCode::NoLeader, None),
            (ProposeError::ShuttingDown, ErrorCode::Unavailable, None),
            (ProposeError::Unknown { why: "no quorum".into() }, ErrorCode::Unavailable, None),
        ] {
            let words = error.to_string();
            let status = not_joined(error);
            let info = decode(&status).unwrap();
            // Programs that know no details go on by the status.
            assert_eq!((status.code(), info.code, info.retryable), (Code::Unavailable, code, true), "{words}");
            let told = status.metadata().get(LEADER_KEY).map(|leader| leader.to_str().unwrap());
            assert_eq!(told, elsewhere, "{words}");
        }
        let unsure = not_joined(ProposeError::Unknown { why: "no quorum".into() });
        let info = decode(&unsure).unwrap();
        assert!(!info.message.contains("key") && info.message.contains("no quorum"), "{}", info.message);
        assert!(info.hint.is_some_and(|hint| hint.contains("muster node token")));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_refused_join_says_why_and_does_not_send_elsewhere() {
        let server = Server::start(0).await;
        let authority = Arc::new(Authority::create("dev", server.ctx.clock.wall_ms()).unwrap());
        let service = AgentsService::new(server.ctx.clone(), authority);
        let node = Name::new("n1").unwrap();
        let issue = Command::IssueToken {
            hash: digest::of_text("secret"),
            node: Some(node.clone()),
            expires_at: Time(server.ctx.clock.wall_ms() + LEAF_VALID_MS),
            by: Principal("root".into()),
        };
        assert_eq!(server.propose(issue).await, Answer::Done);
        let join = async |token: &str, node: &str| {
            let key = KeyRequest::new().unwrap();
            let (token, node_name, csr_pem) = (token.to_owned(), node.to_owned(), key.csr_pem().to_owned());
            let request = Request::new(wire::JoinRequest { token, node_name, csr_pem });
            within("an answer", service.join(request)).await
        };
        for (token, name, refusal) in [("secret", "n2", Refusal::TokenNode(node)), ("other", "n1", Refusal::Token)] {
            let status = join(token, name).await.unwrap_err();
            let info = decode(&status).unwrap();
            assert_eq!((status.code(), info.code), (Code::PermissionDenied, ErrorCode::TokenRefused), "{name}");
            assert_eq!((info.message, info.retryable), (refusal.to_string(), false), "{name}");
            assert!(status.metadata().get(LEADER_KEY).is_none(), "{name}");
        }
        join("secret", "n1").await.unwrap();
    }
}
