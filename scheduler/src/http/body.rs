//! The body of a request, bounded in size and time.

use super::refusal::Refusal;
use axum::body::Body;
use futures::StreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use muster_runtime::clock::Clock;

/// Room for a job file of 256 KiB in which every character had to be escaped.
pub const BODY_BYTES_MAX: usize = 512 << 10;
/// Longer than any honest client takes for so little.
const BODY_MS: u64 = 10_000;

/// The whole body.
///
/// # Errors
/// 413 when it is too long, 408 when it takes too long, 415 when it is not said to be JSON.
pub async fn read(headers: &HeaderMap, body: Body, clock: &dyn Clock) -> Result<Vec<u8>, Refusal> {
    let promised = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if promised.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_long());
    }
    let bytes = tokio::select! {
        bytes = gather(body) => bytes?,
        () = clock.sleep_ms(BODY_MS) => {
            let message = format!("the body did not arrive within {} s", BODY_MS / 1_000);
            return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, message));
        }
    };
    if !bytes.is_empty() && !is_json(headers) {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is not said to be JSON")
            .hint("send the header `Content-Type: application/json`"));
    }
    Ok(bytes)
}

async fn gather(body: Body) -> Result<Vec<u8>, Refusal> {
    let (mut chunks, mut bytes) = (body.into_data_stream(), Vec::new());
    while let Some(chunk) = chunks.next().await {
        let cut = |error| Refusal::new(StatusCode::BAD_REQUEST, format!("the body was cut off: {error}"));
        let chunk = chunk.map_err(cut)?;
        if bytes.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(too_long());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn too_long() -> Refusal {
    let message = format!("the body is longer than {} KiB", BODY_BYTES_MAX >> 10);
    ErrorInfo::new(ErrorCode::SpecTooBig, message).hint("a job file has at most 256 KiB").into()
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
