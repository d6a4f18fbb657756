//! Live streams: server-sent events that a client resumes on any server with `Last-Event-ID`, or the same documents a
//! line each. Bounded: nothing is read faster than the client takes it.

use super::refusal::{Refusal, answer};
use super::route::Asked;
use crate::gateway::{Gateway, errors};
use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::stream::{BoxStream, StreamExt, unfold};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use lines::{Lines, Place};
use muster_proto::client as pb;
use muster_proto::client::muster_server::Muster;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use muster_proto::document;
use muster_runtime::shutdown::Shutdown;
use serde_json::{Map, Value, json};
use std::convert::Infallible;

mod lines;

pub const EVENT_STREAM: &str = "text/event-stream";
pub const JSON_LINES: &str = "application/x-ndjson";
const LAST_EVENT_ID: &str = "last-event-id";
/// A stream without news shows this often that it lives.
pub const HEARTBEAT_MS: u64 = 15_000;
/// How long a browser waits before it connects again.
const RECONNECT_MS: u64 = 1_000;
/// The id that follows the last one of a stream that has an end.
const END: &str = "end";

/// What every stream needs.
pub struct Feed {
    pub gateway: Gateway,
    pub shutdown: Shutdown,
    /// Of the caller's certificate.
    pub not_after_ms: u64,
}

/// In which form, and from where.
pub struct Wish {
    lines: bool,
    last_id: Option<String>,
}

impl Wish {
    /// Server-sent events unless lines are asked for; they follow unless it is said that they do not.
    pub fn read(headers: &HeaderMap, fields: &mut Map<String, Value>) -> Self {
        let of = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let lines = of(ACCEPT.as_str()).is_some_and(|accept| accept.contains(JSON_LINES));
        if !lines {
            fields.entry("follow").or_insert(Value::Bool(true));
        }
        Self { lines, last_id: of(LAST_EVENT_ID).map(str::to_owned).filter(|id| !id.is_empty()) }
    }

    /// The client has everything already; 204 tells a browser to stay away.
    fn nothing_left(&self) -> Option<Response> {
        (self.last_id.as_deref() == Some(END)).then(|| {
            let mut response = answer(StatusCode::NO_CONTENT, &Value::Null);
            *response.body_mut() = Body::empty();
            response
        })
    }

    fn bad_id(id: &str) -> Refusal {
        let message = format!("`{id}` is no id of this stream");
        Refusal::from(errors::usage(message).hint("send the last `id` that the stream gave, or none"))
    }
}

/// One thing told.
struct Item {
    /// Where the stream goes on after it; none when it cannot be resumed there.
    id: Option<String>,
    document: Value,
}

/// The stream of events; an id is the event's own: log index and ordinal.
pub async fn events(feed: Feed, wish: Wish, asked: Asked) -> Result<Response, Refusal> {
    if let Some(response) = wish.nothing_left() {
        return Ok(response);
    }
    let mut request = asked.request::<pb::EventsRequest>()?;
    let mut told = None;
    if let Some(id) = &wish.last_id {
        let place = id.split_once('.').and_then(|(index, ordinal)| Some((index.parse().ok()?, ordinal.parse().ok()?)));
        let (index, ordinal): (u64, u32) = place.ok_or_else(|| Wish::bad_id(id))?;
        request.get_mut().from_index = Some(index);
        told = Some((index, ordinal));
    }
    let events = feed.gateway.events(request).await?.into_inner();
    let items = events.filter_map(move |event| {
        let fresh = match &event {
            Ok(event) => told.is_none_or(|told| (event.index, event.ordinal) > told),
            Err(_) => true,
        };
        let item = event.map_err(Refusal::from).map(|event| Item {
            id: Some(format!("{}.{}", event.index, event.ordinal)),
            document: document::document("muster.event/1", &event),
        });
        futures::future::ready(fresh.then_some(item))
    });
    Ok(feed.response(items.boxed(), wish.lines))
}

/// The lines of one attempt's ranks; an id holds how far each of them was told.
pub async fn logs(feed: Feed, wish: Wish, asked: Asked) -> Result<Response, Refusal> {
    if let Some(response) = wish.nothing_left() {
        return Ok(response);
    }
    let mut request = asked.request::<pb::LogsRequest>()?;
    let mut from = Place::default();
    if let Some(id) = &wish.last_id {
        from = Place::read(id).ok_or_else(|| Wish::bad_id(id))?;
        let message = request.get_mut();
        let job = message.job.get_or_insert_default();
        if job.attempt.is_some_and(|attempt| attempt != from.attempt) {
            return Err(Wish::bad_id(id));
        }
        (job.attempt, message.tail_bytes) = (Some(from.attempt), 0);
    }
    let chunks = feed.gateway.logs(request).await?.into_inner();
    let mut lines = Lines::new(from);
    let items = chunks.flat_map(move |chunk| {
        let items = match chunk {
            Ok(chunk) => lines.take(&chunk).into_iter().map(Ok).collect(),
            Err(status) => vec![Err(Refusal::from(status))],
        };
        futures::stream::iter(items)
    });
    Ok(feed.response(items.boxed(), wish.lines))
}

/// A stream on its way to one client.
struct Telling {
    feed: Feed,
    items: BoxStream<'static, Result<Item, Refusal>>,
    lines: bool,
    begun: bool,
    done: bool,
}

impl Feed {
    fn response(self, items: BoxStream<'static, Result<Item, Refusal>>, lines: bool) -> Response {
        let telling = Telling { feed: self, items, lines, begun: false, done: false };
        let chunks = unfold(telling, |mut telling| async move {
            let chunk = telling.next().await?;
            Some((Ok::<_, Infallible>(Bytes::from(chunk)), telling))
        });
        let mut response = Response::new(Body::from_stream(chunks));
        let headers = response.headers_mut();
        let kind = if lines { JSON_LINES } else { EVENT_STREAM };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Some proxies hold a stream back until it is over.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }

    /// Until the certificate ends; 0 = it has.
    fn left_ms(&self) -> u64 {
        self.not_after_ms.saturating_sub(self.gateway.wall_ms())
    }
}

impl Telling {
    /// What is sent next; `None` when the stream is over.
    async fn next(&mut self) -> Option<String> {
        if self.done {
            return None;
        }
        if !self.begun {
            self.begun = true;
            // Sent at once, so that the client knows that it is heard.
            if !self.lines {
                return Some(format!("retry: {RECONNECT_MS}\n\n"));
            }
        }
        loop {
            let left_ms = self.feed.left_ms();
            if left_ms == 0 {
                let error = ErrorInfo::new(ErrorCode::CertificateExpired, "the certificate has expired");
                return Some(self.fail(error.hint("ask an admin for a new identity").into()));
            }
            let clock = self.feed.gateway.clock();
            let next = tokio::select! {
                biased;
                () = self.feed.shutdown.triggered() => {
                    let error = ErrorInfo::new(ErrorCode::Unavailable, "this server is stopping");
                    return Some(self.fail(error.hint("resume on another server with `Last-Event-ID`").into()));
                }
                next = self.items.next() => next,
                () = clock.sleep_ms(HEARTBEAT_MS.min(left_ms)) => {
                    if self.lines || self.feed.left_ms() == 0 {
                        continue;
                    }
                    return Some(": alive\n\n".to_owned());
                }
            };
            return match next {
                Some(Ok(item)) if self.lines => Some(format!("{}\n", item.document)),
                Some(Ok(Item { id: Some(id), document })) => Some(format!("id: {id}\ndata: {document}\n\n")),
                Some(Ok(Item { id: None, document })) => Some(format!("data: {document}\n\n")),
                Some(Err(refusal)) => Some(self.fail(refusal)),
                None => self.end(),
            };
        }
    }

    /// An error inside a stream has no status any more; it is told, and the stream ends.
    fn fail(&mut self, refusal: Refusal) -> String {
        self.done = true;
        self.feed.gateway.instruments().refused(refusal.info.code);
        let document = refusal.document();
        if self.lines { format!("{document}\n") } else { format!("event: refused\ndata: {document}\n\n") }
    }

    fn end(&mut self) -> Option<String> {
        self.done = true;
        let end = json!({"schema": "muster.end/1"});
        (!self.lines).then(|| format!("event: end\nid: {END}\ndata: {end}\n\n"))
    }
}
