//! gRPC below the generated clients: any bytes to any call.

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use muster_proto::ALL_DESCRIPTORS;
use prost::Message;
use prost_types::FileDescriptorSet;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::transport::Channel;

/// One call of the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `muster.client.v1.Muster`
    pub service: String,
    pub method: String,
    /// The caller's messages are a stream.
    pub streaming: bool,
}

impl Call {
    pub fn path(&self) -> String {
        format!("/{}/{}", self.service, self.method)
    }
}

/// Every call there is; one that is added is attacked by itself.
pub fn all_calls() -> Vec<Call> {
    let files = FileDescriptorSet::decode(ALL_DESCRIPTORS).expect("our own descriptors").file;
    let mut calls = Vec::new();
    for file in files {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            calls.extend(service.method.iter().map(|method| Call {
                service: name.clone(),
                method: method.name().to_owned(),
                streaming: method.client_streaming(),
            }));
        }
    }
    assert!(calls.len() > 20, "only {} calls", calls.len());
    calls
}

/// A message in its frame.
pub fn framed(message: &[u8]) -> Bytes {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat().into()
}

/// How a call ended. A stream that answers is `Ok`; it is not read further than its first message.
pub async fn call(channel: &Channel, path: &str, body: Bytes) -> Code {
    send(channel, path, Body::new(Full::new(body))).await
}

/// A body that comes in pieces with pauses between, and then stays open.
pub async fn call_slowly(channel: &Channel, path: &str, pieces: Vec<Bytes>, pause: Duration) -> Code {
    let pieces = VecDeque::from(pieces);
    let stream = futures::stream::unfold(pieces, move |mut pieces| async move {
        tokio::time::sleep(pause).await;
        match pieces.pop_front() {
            Some(piece) => Some((Ok::<_, std::io::Error>(Frame::data(piece)), pieces)),
            None => futures::future::pending().await,
        }
    });
    send(channel, path, Body::new(StreamBody::new(stream))).await
}

async fn send(channel: &Channel, path: &str, body: Body) -> Code {
    let mut channel = channel.clone();
    if poll_fn(|cx| channel.poll_ready(cx)).await.is_err() {
        return Code::Unavailable;
    }
    let request = http::Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    let response = match channel.call(request.body(body).expect("a request")).await {
        Ok(response) => response,
        Err(_) => return Code::Unavailable,
    };
    let code = |headers: &http::HeaderMap| headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()));
    if let Some(code) = code(response.headers()) {
        return code;
    }
    let mut body = response.into_body();
    match body.frame().await {
        None => Code::Unknown,
        Some(Err(_)) => Code::Unavailable,
        Some(Ok(frame)) if frame.is_data() => Code::Ok,
        Some(Ok(frame)) => frame.trailers_ref().and_then(code).unwrap_or(Code::Unknown),
    }
}
