//! The client API as HTTP and JSON, on the same port as gRPC: the same calls by the same callers with the same
//! answers. A request becomes the call's message, and the gateway does the rest.

mod ask;
mod body;
pub mod openapi;
pub mod refusal;
mod route;
mod schema;
mod stream;
mod table;

#[cfg(test)]
mod tests;

use crate::gateway::limits::Open;
use crate::gateway::{Gateway, roles};
use crate::metrics::{self, Metrics};
use ask::Given;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use muster_runtime::identity::{ConnectInfo, connect_info};
use muster_runtime::shutdown::Shutdown;
use refusal::Refusal;
use route::{Answer, Asked, Found, Route};
use schema::Api;
use serde_json::Value;
use std::sync::Arc;
use table::ROUTES;

/// Requests of one principal that are being answered at one time.
const REQUESTS_MAX: usize = 256;
/// Longest target of a request.
const TARGET_BYTES_MAX: usize = 8 << 10;
/// As on HTTP/2, where the connection itself sees to it.
const HEADERS_BYTES_MAX: usize = 32 << 10;
const IDEMPOTENCY_KEY: &str = "idempotency-key";

struct Http {
    gateway: Gateway,
    shutdown: Shutdown,
    api: Api,
    openapi: Value,
    requests: Open,
    metrics: Metrics,
}

/// All routes; streams end when `shutdown` is triggered.
pub fn routes(gateway: Gateway, metrics: Metrics, shutdown: Shutdown) -> Router {
    let api = Api::new();
    let openapi = openapi::document(&api);
    let requests = Open::new("requests", REQUESTS_MAX);
    let http = Http { gateway, shutdown, api, openapi, requests, metrics };
    Router::new().fallback(serve).with_state(Arc::new(http))
}

async fn serve(State(http): State<Arc<Http>>, request: Request) -> Response {
    if is_grpc(request.headers()) {
        // What gRPC itself says of a service that is not there.
        return tonic::Status::unimplemented("there is no such service").into_http();
    }
    let answered = http.answer(request).await;
    let response = answered.unwrap_or_else(|refusal| refusal.response());
    http.gateway.instruments().answered(response.status());
    response
}

pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

impl Http {
    async fn answer(&self, request: Request) -> Result<Response, Refusal> {
        let info = connect_info(request.extensions()).cloned();
        let peer = roles::certificate(info.as_ref(), self.gateway.wall_ms())?.clone();
        let ticket = self.requests.enter(&peer.as_name().to_string())?;
        let headers = request.headers().iter();
        if headers.map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>() > HEADERS_BYTES_MAX {
            return Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too long"));
        }
        let target = request.uri();
        if target.path_and_query().is_some_and(|target| target.as_str().len() > TARGET_BYTES_MAX) {
            return Err(Refusal::new(StatusCode::URI_TOO_LONG, "the path and the query are too long"));
        }
        let (method, path) = (request.method().as_str().to_owned(), target.path().to_owned());
        if let Some(response) = self.about_itself(&method, &path).await {
            return Ok(response);
        }
        let (route, captured) = match route::find(ROUTES, &method, &path) {
            Found::Route(route, captured) => (route, captured),
            Found::OtherMethods(methods) => return Err(other_methods(&method, &path, &methods)),
            Found::Nothing(near) => return Err(nothing_there(&path, near)),
        };
        if !route.method.reads() {
            check_origin(request.headers())?;
        }
        let (parts, body) = request.into_parts();
        let body = body::read(&parts.headers, body, self.gateway.clock()).await?;
        let given = Given {
            captured: &captured,
            query: parts.uri.query().unwrap_or_default(),
            body: &body,
            idempotency_key: parts.headers.get(IDEMPOTENCY_KEY).and_then(|key| key.to_str().ok()),
        };
        // A certificate was shown, or this line would not be reached.
        let Some(info) = info else { return Err(Refusal::new(StatusCode::UNAUTHORIZED, "no certificate")) };
        let answered = self.call(route, &given, &parts.headers, info).await;
        drop(ticket);
        answered
    }

    async fn call(
        &self,
        route: &'static Route,
        given: &Given<'_>,
        headers: &HeaderMap,
        info: ConnectInfo,
    ) -> Result<Response, Refusal> {
        let mut fields = ask::fields(route, &self.api.input(route.call), given)?;
        match &route.answer {
            Answer::Document { run, .. } => {
                let document = run(self.gateway.clone(), Asked { fields, info }).await?;
                Ok(refusal::answer(StatusCode::OK, &document))
            }
            Answer::Events => {
                let wish = stream::Wish::read(headers, &mut fields);
                stream::events(self.feed(&info), wish, Asked { fields, info }).await
            }
            Answer::Logs => {
                let wish = stream::Wish::read(headers, &mut fields);
                stream::logs(self.feed(&info), wish, Asked { fields, info }).await
            }
        }
    }

    fn feed(&self, info: &ConnectInfo) -> stream::Feed {
        let not_after_ms = info.peer.as_ref().map_or(0, |peer| peer.not_after_ms);
        stream::Feed { gateway: self.gateway.clone(), shutdown: self.shutdown.clone(), not_after_ms }
    }

    async fn about_itself(&self, method: &str, path: &str) -> Option<Response> {
        match (method, path) {
            ("GET", openapi::PATH) => Some(refusal::answer(StatusCode::OK, &self.openapi)),
            ("GET", "/metrics") => Some(metrics::scraped(&self.metrics).await),
            ("GET", "/healthz") => Some(metrics::healthy(&self.metrics)),
            _ => None,
        }
    }
}

fn other_methods(method: &str, path: &str, methods: &[route::Method]) -> Refusal {
    let words: Vec<&str> = methods.iter().map(|method| method.word()).collect();
    let mut refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} cannot be asked with {method}"))
        .hint(format!("use {}", words.join(" or ")));
    refusal.allow = Some(words.join(", "));
    refusal
}

fn nothing_there(path: &str, near: Option<String>) -> Refusal {
    let hint = match near {
        Some(near) => format!("did you mean {near}? {} lists all", openapi::PATH),
        None => format!("{} lists all", openapi::PATH),
    };
    Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing at {path}")).hint(hint)
}

/// A page of somebody else must not use the certificate in a person's browser.
fn check_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    match site {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) => Err(Refusal::new(StatusCode::FORBIDDEN, "another site's page may change nothing here")),
    }
}
