use super::super::routes;
use crate::gateway::tests::roles::connection;
use crate::gateway::tests::server::{Server, within};
use crate::health::Health;
use crate::metrics::Metrics;
use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::response::Response;
use futures::StreamExt;
use http::{HeaderMap, Request, StatusCode};
use muster_runtime::identity::{ConnectInfo, Role};
use muster_runtime::shutdown::Shutdown;
use serde_json::Value;
use tonic_health::server::HealthReporter;
use tower::ServiceExt;

pub const JOB: &str = r#"{"name":"train","gang":{"nodes":1,"gpus_per_node":2,"ranks_per_node":"gpu","run":"x"}}"#;

/// The routes of a server, and somebody who asks.
pub struct Web {
    pub server: Server,
    pub shutdown: Shutdown,
    routes: Router,
}

/// One answer, read to its end.
pub struct Answered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answered {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn error(&self) -> (u16, String) {
        let document = self.json();
        assert_eq!(document["schema"], "muster.error/1", "{document}");
        (self.status.as_u16(), document["error"]["code"].as_str().unwrap().to_owned())
    }
}

pub fn somebody(role: Role) -> ConnectInfo {
    let mut info = connection(Some(role));
    info.peer.as_mut().unwrap().not_after_ms = u64::MAX;
    info
}

impl Web {
    pub async fn start(nodes: usize) -> Self {
        let server = Server::start(nodes).await;
        let shutdown = Shutdown::new();
        let (health, ready) = Health::new(server.ctx.clone(), HealthReporter::new());
        tokio::spawn(health.run(shutdown.clone()));
        let metrics = Metrics::new(server.ctx.clone(), server.gateway.clone(), ready);
        let routes = routes(server.gateway.clone(), metrics, shutdown.clone());
        Self { server, shutdown, routes }
    }

    pub async fn send(&self, info: Option<ConnectInfo>, mut request: Request<Body>) -> Response {
        if let Some(info) = info {
            request.extensions_mut().insert(info);
        }
        within("an answer", self.routes.clone().oneshot(request)).await.unwrap()
    }

    pub async fn ask(&self, role: Role, method: &str, target: &str, body: &str) -> Answered {
        let request = Request::builder().method(method).uri(target).header("content-type", "application/json");
        let request = request.header("idempotency-key", "k").body(Body::from(body.to_owned())).unwrap();
        whole(self.send(Some(somebody(role)), request).await).await
    }

    pub async fn get(&self, target: &str) -> Answered {
        self.ask(Role::Admin, "GET", target, "").await
    }

    pub async fn post(&self, target: &str, body: &str) -> Answered {
        self.ask(Role::Admin, "POST", target, body).await
    }

    /// Submits a job and gives its id.
    pub async fn submit(&self, key: &str) -> u64 {
        let body = format!(r#"{{"spec": {JOB}, "key": "{key}"}}"#);
        let answered = self.post("/v1/jobs", &body).await;
        answered.json()["job"]["id"].as_u64().unwrap_or_else(|| panic!("{}", answered.text))
    }

    /// A stream of server-sent events.
    pub async fn listen(&self, info: ConnectInfo, target: &str, last_id: Option<&str>) -> Told {
        let mut request = Request::get(target).header("accept", "text/event-stream");
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = self.send(Some(info), request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Told { chunks: response.into_body().into_data_stream(), text: String::new() }
    }
}

pub async fn whole(response: Response) -> Answered {
    let (parts, body) = response.into_parts();
    let bytes = within("the body", axum::body::to_bytes(body, 16 << 20)).await.unwrap();
    Answered { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

/// What a stream tells, one after the other.
pub struct Told {
    chunks: BodyDataStream,
    text: String,
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct One {
    pub id: String,
    pub event: String,
    pub data: Value,
}

impl Told {
    /// `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<One> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                if !field("data: ").is_empty() {
                    let data = serde_json::from_str(field("data: ")).unwrap();
                    return Some(One { id: field("id: ").to_owned(), event: field("event: ").to_owned(), data });
                }
                continue;
            }
            let chunk = within("more of the stream", self.chunks.next()).await?.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}
