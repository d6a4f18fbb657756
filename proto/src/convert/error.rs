//! What went wrong, in a form that survives the wire: the gateway encodes it, the client decodes
//! it, and both print the same words.

use serde::{Deserialize, Serialize};
use std::fmt;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Metadata key of an encoded [`ErrorInfo`]; gRPC carries `-bin` values as bytes.
pub const METADATA_KEY: &str = "muster-error-bin";

/// Larger details are not decoded.
const DETAILS_BYTES_MAX: usize = 16 * 1024;

/// An answer to a person or a program that says what happened and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    pub code: ErrorCode,
    pub message: String,
    /// The next step, when there is one worth saying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The same call may succeed later without a change.
    pub retryable: bool,
    /// What the command line ends with.
    pub exit_code: u8,
    /// With [`ErrorCode::NotLeader`]: where to go instead, as `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// The part of the job file that is wrong, such as `gang.gpus_per_node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl ErrorInfo {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            retryable: code.is_retryable(),
            exit_code: code.exit_code(),
            leader: None,
            path: None,
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// This server does not lead; `leader` is where to go, when it is known.
    pub fn not_leader(leader: Option<String>) -> Self {
        let info = Self::new(ErrorCode::NotLeader, "this server does not lead the cluster");
        Self { leader, ..info }
    }
}

impl fmt::Display for ErrorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ErrorInfo {}

/// The status a server answers with.
pub fn encode(info: &ErrorInfo) -> Status {
    let mut status = Status::new(info.code.grpc(), info.message.clone());
    let details = serde_json::to_vec(info).expect("strings and numbers always encode");
    status.metadata_mut().insert_bin(METADATA_KEY, MetadataValue::from_bytes(&details));
    status
}

/// What a status carries; `None` when it came from the transport or from something that is not
/// Muster.
pub fn decode(status: &Status) -> Option<ErrorInfo> {
    let details = status.metadata().get_bin(METADATA_KEY)?.to_bytes().ok()?;
    if details.len() > DETAILS_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&details).ok()
}

impl From<ErrorInfo> for Status {
    fn from(info: ErrorInfo) -> Self {
        encode(&info)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, exit $exit:literal, $grpc:ident;)*) => {
        /// The closed set of errors. Names and numbers are documented and never change their
        /// meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl ErrorCode {
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant),*];

            /// As in `error[E014]`.
            pub const fn number(self) -> u16 {
                match self { $(ErrorCode::$variant => $number),* }
            }

            /// As in the JSON form of an error.
            pub const fn name(self) -> &'static str {
                match self { $(ErrorCode::$variant => $name),* }
            }

            /// The exit code of a command that ends with this error.
            pub const fn exit_code(self) -> u8 {
                match self { $(ErrorCode::$variant => $exit),* }
            }

            pub const fn grpc(self) -> Code {
                match self { $(ErrorCode::$variant => Code::$grpc),* }
            }
        }
    };
}

codes! {
    /// The command line itself is wrong.
    Usage = 1, "USAGE", exit 2, InvalidArgument;
    /// Not TOML or JSON at all.
    SpecSyntax = 2, "SPEC_SYNTAX", exit 2, InvalidArgument;
    SpecUnknownKey = 3, "SPEC_UNKNOWN_KEY", exit 2, InvalidArgument;
    SpecType = 4, "SPEC_TYPE", exit 2, InvalidArgument;
    SpecMissing = 5, "SPEC_MISSING", exit 2, InvalidArgument;
    /// Well formed, but the value cannot be meant.
    SpecValue = 6, "SPEC_VALUE", exit 2, InvalidArgument;
    SpecTooBig = 7, "SPEC_TOO_BIG", exit 2, InvalidArgument;
    /// Part of the job file's design, and not built yet.
    NotThereYet = 8, "NOT_THERE_YET", exit 2, Unimplemented;
    FileNotFound = 10, "FILE_NOT_FOUND", exit 3, NotFound;
    FileDenied = 11, "FILE_DENIED", exit 4, PermissionDenied;
    FileUnusable = 12, "FILE_UNUSABLE", exit 1, FailedPrecondition;
    /// More than any node or the whole cluster has.
    NeverFits = 14, "NEVER_FITS", exit 6, FailedPrecondition;
    ModelUnknown = 15, "MODEL_UNKNOWN", exit 6, FailedPrecondition;
    TopologyUnknown = 16, "TOPOLOGY_UNKNOWN", exit 6, FailedPrecondition;
    QueueUnknown = 17, "QUEUE_UNKNOWN", exit 6, FailedPrecondition;
    PriorityUnknown = 18, "PRIORITY_UNKNOWN", exit 6, FailedPrecondition;
    /// The cluster holds its limit of jobs, nodes or tokens.
    LimitReached = 19, "LIMIT_REACHED", exit 6, ResourceExhausted;
    JobNotFound = 20, "JOB_NOT_FOUND", exit 3, NotFound;
    JobAmbiguous = 21, "JOB_AMBIGUOUS", exit 2, InvalidArgument;
    NodeNotFound = 22, "NODE_NOT_FOUND", exit 3, NotFound;
    ServerNotFound = 25, "SERVER_NOT_FOUND", exit 3, NotFound;
    ReservationNotFound = 26, "RESERVATION_NOT_FOUND", exit 3, NotFound;
    AttemptNotFound = 23, "ATTEMPT_NOT_FOUND", exit 3, NotFound;
    LogNotFound = 24, "LOG_NOT_FOUND", exit 3, NotFound;
    /// The idempotency key stands for another job file.
    KeyReused = 30, "KEY_REUSED", exit 5, AlreadyExists;
    KeyTooOld = 31, "KEY_TOO_OLD", exit 5, FailedPrecondition;
    /// The state is no longer what the call was made for.
    Conflict = 32, "CONFLICT", exit 5, Aborted;
    NodeBusy = 33, "NODE_BUSY", exit 5, FailedPrecondition;
    JobEnded = 34, "JOB_ENDED", exit 5, FailedPrecondition;
    /// No certificate, or none this cluster knows.
    NotLoggedIn = 40, "NOT_LOGGED_IN", exit 4, Unauthenticated;
    /// The certificate's role or name may not do this.
    Forbidden = 41, "FORBIDDEN", exit 4, PermissionDenied;
    CertificateExpired = 42, "CERTIFICATE_EXPIRED", exit 4, Unauthenticated;
    /// The server's certificate is not of the cluster this client belongs to.
    ServerNotTrusted = 43, "SERVER_NOT_TRUSTED", exit 4, Unauthenticated;
    TokenRefused = 44, "TOKEN_REFUSED", exit 4, PermissionDenied;
    /// Nothing answers at the addresses.
    Unavailable = 50, "UNAVAILABLE", exit 7, Unavailable;
    NoLeader = 51, "NO_LEADER", exit 7, Unavailable;
    NotLeader = 52, "NOT_LEADER", exit 7, Unavailable;
    /// The node that holds the answer is not connected.
    AgentUnreachable = 53, "AGENT_UNREACHABLE", exit 7, Unavailable;
    Overloaded = 54, "OVERLOADED", exit 7, ResourceExhausted;
    /// The job that was waited for did not succeed.
    JobFailed = 60, "JOB_FAILED", exit 8, Unknown;
    TimedOut = 61, "TIMED_OUT", exit 124, DeadlineExceeded;
    Interrupted = 62, "INTERRUPTED", exit 130, Cancelled;
    ConfigInvalid = 70, "CONFIG_INVALID", exit 2, InvalidArgument;
    ConfigMissing = 71, "CONFIG_MISSING", exit 2, InvalidArgument;
    Internal = 90, "INTERNAL", exit 1, Internal;
    /// Client and server do not speak the same protocol.
    VersionMismatch = 91, "VERSION_MISMATCH", exit 1, Unimplemented;
    /// A check that was asked for did not hold.
    CheckFailed = 92, "CHECK_FAILED", exit 1, Unknown;
}

impl ErrorCode {
    /// Calls that may be repeated as they are: nobody led, nobody answered, or there was no room.
    pub const fn is_retryable(self) -> bool {
        self.exit_code() == 7
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E{:03}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_error_survives_the_wire_unchanged() {
        let mut info = ErrorInfo::new(ErrorCode::NeverFits, "asks for 64 GPUs per node")
            .hint("write `nodes = 8`")
            .path("gang.gpus_per_node");
        info.leader = Some("[::1]:7070".into());
        let status: Status = info.clone().into();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(decode(&status), Some(info));
    }

    #[test]
    fn a_status_of_the_transport_carries_nothing() {
        assert_eq!(decode(&Status::unavailable("connection refused")), None);
    }

    #[test]
    fn numbers_and_names_are_unique() {
        let numbers: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.number()).collect();
        let names: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
        assert_eq!((numbers.len(), names.len()), (ErrorCode::ALL.len(), ErrorCode::ALL.len()));
    }

    #[test]
    fn only_what_may_be_repeated_unchanged_is_retryable() {
        for code in ErrorCode::ALL {
            assert_eq!(code.is_retryable(), ErrorInfo::new(*code, "").exit_code == 7, "{code}");
        }
    }
}
