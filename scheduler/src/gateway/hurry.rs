//! A request's message must come whole in time: one that trickles in holds memory and a stream, and is broken off.

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

/// From a request's head to the end of its body.
const WHOLE_WITHIN: Duration = Duration::from_secs(15);

/// A service whose calls take one message each.
#[derive(Clone)]
pub struct Hurried<S>(pub S);

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Hurried<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        let end = Some(Box::pin(tokio::time::sleep(WHOLE_WITHIN)));
        self.0.call(request.map(|inner| Body::new(HurriedBody { inner, end })))
    }
}

impl<S: NamedService> NamedService for Hurried<S> {
    const NAME: &'static str = S::NAME;
}

struct HurriedBody {
    inner: Body,
    /// None once the body is whole.
    end: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for HurriedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
            let why = format!("the request was not whole within {} s", WHOLE_WITHIN.as_secs());
            return Poll::Ready(Some(Err(Status::deadline_exceeded(why))));
        }
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) {
            self.end = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
