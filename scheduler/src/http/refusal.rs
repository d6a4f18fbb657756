//! Errors as HTTP answers: the same words as everywhere, with a status that fits.

use axum::body::Body;
use axum::response::Response;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use muster_proto::convert::error::{ErrorCode, ErrorInfo, decode};
use muster_proto::document;
use serde_json::{Value, json};
use tonic::Status;

pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why a request is not answered with what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub info: Box<ErrorInfo>,
    /// Line and column of the request's body, from 1.
    pub place: Option<(usize, usize)>,
    /// With 405: what would be allowed.
    pub allow: Option<String>,
}

impl Refusal {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, ..ErrorInfo::new(ErrorCode::Usage, message).into() }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.info.hint = Some(hint.into());
        self
    }

    pub fn at(mut self, line: usize, column: usize) -> Self {
        self.place = Some((line, column));
        self
    }

    /// The document, as the command line prints it.
    pub fn document(&self) -> Value {
        let mut error = document::error(&self.info);
        if let Some((line, column)) = self.place {
            error["line"] = json!(line);
            error["column"] = json!(column);
        }
        json!({"schema": "muster.error/1", "error": error, "exit_code": self.info.exit_code})
    }

    pub fn response(&self) -> Response {
        let mut response = answer(self.status, &self.document());
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(allow) = self.allow.as_ref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
            response.headers_mut().insert(ALLOW, allow);
        }
        response
    }
}

impl From<ErrorInfo> for Refusal {
    fn from(info: ErrorInfo) -> Self {
        Self {
            status: status_of(info.code),
            info: Box::new(crate::gateway::errors::bounded(info)),
            place: None,
            allow: None,
        }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        decode(&status).unwrap_or_else(|| ErrorInfo::new(ErrorCode::Internal, status.message().to_owned())).into()
    }
}

/// A document as an answer that nobody keeps.
pub fn answer(status: StatusCode, document: &Value) -> Response {
    let mut response = Response::new(Body::from(format!("{document}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// The status of an error. Every code has its own line, so that a new one is a decision.
pub fn status_of(code: ErrorCode) -> StatusCode {
    use ErrorCode as E;
    match code {
        E::Usage | E::SpecSyntax | E::SpecUnknownKey | E::SpecType | E::SpecMissing | E::SpecValue => {
            StatusCode::BAD_REQUEST
        }
        E::JobAmbiguous | E::ConfigInvalid | E::ConfigMissing | E::VersionMismatch => StatusCode::BAD_REQUEST,
        E::SpecTooBig => StatusCode::PAYLOAD_TOO_LARGE,
        E::NotThereYet => StatusCode::NOT_IMPLEMENTED,
        E::NeverFits | E::ModelUnknown | E::TopologyUnknown | E::QueueUnknown | E::PriorityUnknown => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        E::LimitReached | E::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        E::JobNotFound
        | E::NodeNotFound
        | E::ServerNotFound
        | E::ReservationNotFound
        | E::AttemptNotFound
        | E::LogNotFound
        | E::FileNotFound => StatusCode::NOT_FOUND,
        E::KeyReused | E::KeyTooOld | E::Conflict | E::NodeBusy | E::JobEnded => StatusCode::CONFLICT,
        E::NotLoggedIn | E::CertificateExpired | E::ServerNotTrusted => StatusCode::UNAUTHORIZED,
        E::Forbidden | E::TokenRefused | E::FileDenied => StatusCode::FORBIDDEN,
        E::Unavailable | E::NoLeader | E::NotLeader | E::AgentUnreachable => StatusCode::SERVICE_UNAVAILABLE,
        E::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        E::FileUnusable | E::JobFailed | E::Interrupted | E::CheckFailed | E::Internal => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_document_of_the_command_line_with_a_status_that_fits() {
        let info = ErrorInfo::new(ErrorCode::JobNotFound, "there is no job 7").hint("look");
        let refusal = Refusal::from(Status::from(info)).at(2, 5);
        let document = refusal.document();
        assert_eq!(refusal.status, StatusCode::NOT_FOUND);
        assert_eq!((&document["schema"], &document["exit_code"]), (&json!("muster.error/1"), &json!(3)));
        let expected = json!({
            "code": "JOB_NOT_FOUND", "number": "E020", "message": "there is no job 7", "hint": "look",
            "retryable": false, "path": null, "line": 2, "column": 5,
        });
        assert_eq!(document["error"], expected);
    }

    #[test]
    fn what_may_be_repeated_is_told_by_the_status_too() {
        for code in ErrorCode::ALL {
            let status = status_of(*code);
            let again = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
            assert!(!code.is_retryable() || again, "{code} is retryable, and {status} does not say so");
        }
    }
}
