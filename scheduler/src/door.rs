//! Who may say anything at all on the port. It is decided by the connection, before a byte of a request's body is taken:
//! what a stranger sends must not become a message that a server holds.
//!
//! The services ask again who calls, each in its own words; nothing here lets anybody in whom they would not.

use crate::agents;
use crate::consensus::CallerCheck;
use crate::gateway::limits::Open;
use crate::gateway::{Gateway, errors, roles};
use crate::http::is_grpc;
use crate::http::refusal::Refusal;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use futures::StreamExt;
use muster_proto::agent::agents_server::AgentsServer;
use muster_proto::convert::error::ErrorInfo;
use muster_proto::peer::peer_server::PeerServer;
use muster_runtime::identity::connect_info;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::server::NamedService;
use tonic::service::Routes;

/// What an agent says in one message that is no stream: a certificate request, a token and a name have some KiB.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// From a request's head to the end of its body, as for the calls of clients.
const WHOLE_WITHIN: Duration = Duration::from_secs(15);
/// Joins of one connection at a time: as strangers' connections are bounded, so is what they make a server hold.
const JOINS_MAX: usize = 1;
/// Joins that are worked on at a time: each signs a certificate and writes to the log. The others wait.
const JOINS_AT_ONCE: usize = 16;

/// What everybody on the port must pass.
pub struct Door {
    gateway: Gateway,
    only_servers: CallerCheck,
    joins: Open,
    turns: Semaphore,
}

/// Whose call a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Anybody's.
    Join,
    /// An agent's: its stream, or a small message.
    Control,
    OfAgent,
    Peer,
    /// For anybody with a certificate; which roles, is asked further in.
    Other,
}

fn asked(path: &str) -> Asked {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return Asked::Other;
    };
    if service == PeerServer::<()>::NAME {
        return Asked::Peer;
    }
    if service != AgentsServer::<()>::NAME {
        return Asked::Other;
    }
    match method {
        "Join" => Asked::Join,
        "Control" => Asked::Control,
        _ => Asked::OfAgent,
    }
}

impl Door {
    pub fn new(gateway: Gateway, only_servers: CallerCheck) -> Self {
        let joins = Open::new("joins", JOINS_MAX);
        Self { gateway, only_servers, joins, turns: Semaphore::new(JOINS_AT_ONCE) }
    }

    /// Stands before all of them.
    pub fn before(self, routes: Routes) -> Routes {
        let layer = middleware::from_fn_with_state(Arc::new(self), pass);
        Routes::from(routes.into_axum_router().layer(layer))
    }

    async fn answer(&self, request: Request, next: Next) -> Result<Response, Status> {
        match asked(request.uri().path()) {
            Asked::Join => self.join(request, next).await,
            Asked::Control => {
                self.only_agents(&request)?;
                Ok(next.run(request).await)
            }
            Asked::OfAgent => {
                self.only_agents(&request)?;
                Ok(next.run(whole(request).await?).await)
            }
            // Their messages may take their time: a snapshot or entries over a slow line are broken off by the server
            // that sends them, and whoever has a server's key can do worse.
            Asked::Peer => {
                (self.only_servers)(request.extensions())?;
                Ok(next.run(request).await)
            }
            Asked::Other => Ok(self.known(request, next).await),
        }
    }

    fn only_agents(&self, request: &Request) -> Result<(), Status> {
        agents::caller(connect_info(request.extensions()), self.gateway.wall_ms()).map(|_| ())
    }

    async fn join(&self, request: Request, next: Next) -> Result<Response, Status> {
        let from = connect_info(request.extensions()).map(|info| info.peer_addr.to_string()).unwrap_or_default();
        let _place = self.joins.enter(&from).map_err(|error| self.refused(error))?;
        // Before there is a turn, so that nobody keeps one by sending slowly.
        let request = whole(request).await?;
        let turn = self.turns.acquire().await;
        let _turn = turn.map_err(|_| Status::internal("the turns at joining are over"))?;
        Ok(next.run(request).await)
    }

    async fn known(&self, request: Request, next: Next) -> Response {
        let certificate = roles::certificate(connect_info(request.extensions()), self.gateway.wall_ms());
        let Err(error) = certificate.map(|_| ()) else { return next.run(request).await };
        if is_grpc(request.headers()) {
            return self.refused(error).into_http();
        }
        let response = Refusal::from(error).response();
        self.gateway.instruments().answered(response.status());
        response
    }

    fn refused(&self, error: ErrorInfo) -> Status {
        self.gateway.instruments().refused(error.code);
        errors::bounded(error).into()
    }
}

async fn pass(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let answered = door.answer(request, next).await;
    answered.unwrap_or_else(|status| status.into_http())
}

/// The request with all of its body, which is small and comes in time.
async fn whole(request: Request) -> Result<Request, Status> {
    let (parts, body) = request.into_parts();
    let gathered = tokio::time::timeout(WHOLE_WITHIN, gather(body)).await;
    let late = || Status::deadline_exceeded(format!("the request was not whole within {} s", WHOLE_WITHIN.as_secs()));
    let bytes = gathered.map_err(|_| late())??;
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

/// Copied together: pieces of a byte each would hold many times what is in them.
async fn gather(body: Body) -> Result<Vec<u8>, Status> {
    let (mut chunks, mut bytes) = (body.into_data_stream(), Vec::new());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Status::cancelled(format!("the request was cut off: {error}")))?;
        if bytes.len() + chunk.len() > SMALL_BYTES_MAX {
            let most = SMALL_BYTES_MAX >> 10;
            return Err(Status::out_of_range(format!("a message of this call has at most {most} KiB")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_whose_call_it_says() {
        for (path, expected) in [
            ("/muster.agent.v1.Agents/Join", Asked::Join),
            ("/muster.agent.v1.Agents/Control", Asked::Control),
            ("/muster.agent.v1.Agents/Renew", Asked::OfAgent),
            ("/muster.agent.v1.Agents/Join/", Asked::OfAgent),
            ("/muster.agent.v1.Agents/", Asked::OfAgent),
            ("/muster.peer.v1.Peer/Append", Asked::Peer),
            ("/muster.client.v1.Muster/Submit", Asked::Other),
            ("/grpc.health.v1.Health/Check", Asked::Other),
            ("/v1/jobs", Asked::Other),
            ("//muster.agent.v1.Agents/Join", Asked::Other),
            ("/muster.agent.v1.Agents", Asked::Other),
            ("*", Asked::Other),
            ("", Asked::Other),
        ] {
            assert_eq!(asked(path), expected, "{path:?}");
        }
    }

    #[tokio::test]
    async fn a_small_message_is_taken_whole_and_a_larger_one_is_not() {
        let request = |bytes: usize| Request::new(Body::from(vec![7; bytes]));
        let taken = whole(request(SMALL_BYTES_MAX)).await.expect("it is small");
        let body = axum::body::to_bytes(taken.into_body(), usize::MAX).await.expect("it is there");
        assert!(body.len() == SMALL_BYTES_MAX && body.iter().all(|byte| *byte == 7));
        let refused = whole(request(SMALL_BYTES_MAX + 1)).await.expect_err("too large");
        assert_eq!(refused.code(), tonic::Code::OutOfRange);
    }
}
