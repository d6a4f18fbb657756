//! What the house refuses, as people and programs are told it.

use super::render::words::plain;
use crate::consensus::{ProposeError, ReadError};
use crate::history::{Gap, HistoryStore};
use muster_common::text::is_steering;
use muster_engine::outcome::Refusal;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use std::io;

/// Longest reason a person may give.
pub const REASON_BYTES_MAX: usize = 1024;
/// Longest request id or idempotency key.
pub const KEY_CHARS_MAX: usize = 128;

/// Longest text of an error; three of them stay far below what a client decodes.
const TEXT_BYTES_MAX: usize = 2048;

pub fn usage(message: impl Into<String>) -> ErrorInfo {
    ErrorInfo::new(ErrorCode::Usage, message)
}

/// The part of a job file, or of another document, that a reason begins with, as in `after.ok: job 7 is not known`.
fn part(why: &str) -> Option<&str> {
    let is_key = |c: char| c.is_ascii_alphanumeric() || "._-[]".contains(c);
    let (part, _) = why.split_once(": ")?;
    (!part.is_empty() && part.chars().all(is_key)).then_some(part)
}

/// What to do about a value that the cluster does not take.
fn remedy(part: Option<&str>) -> &'static str {
    match part {
        Some("after.started") => "take it out of `after.started`, or name a live job (`muster ps`)",
        Some("after.any") => "take it out of `after.any`, or name a live job (`muster ps`)",
        Some("after.ok") => "take it out of `after.ok`, or name a live job (`muster ps`)",
        Some("after.not_ok") => "take it out of `after.not_ok`, or name a live job (`muster ps`)",
        Some("after.singleton") => "take it out of `[after]`, or what the other job waits for out of that one's",
        Some("name") => "keep the name, or take out of `[after]` what waits",
        Some("queue") => "name one of the queues (`muster queue ls`)",
        Some("account") => "name one of the accounts (`muster queue ls`)",
        Some("limits.time") => "give a `limits.time` within it, or take another queue or account (`muster queue ls`)",
        Some("gang" | "group" | "array") => "ask for less, or charge another account (`muster queue ls`)",
        Some("priority") => "take one of those classes",
        Some("deadline") => "give a later `deadline`, or a shorter `limits.time`",
        _ => "correct the value and try again",
    }
}

/// A refusal by `apply`.
pub fn refused(refusal: Refusal) -> ErrorInfo {
    let message = refusal.to_string();
    let part = match &refusal {
        Refusal::Invalid(why) => part(why).map(str::to_owned),
        _ => None,
    };
    let (code, hint) = match refusal {
        Refusal::UnknownJob(_) => (ErrorCode::JobNotFound, "`muster ps -Ae` lists the jobs"),
        Refusal::UnknownElement { .. } => (ErrorCode::JobNotFound, "`muster show JOB` lists its elements"),
        Refusal::UnknownNode(_) => (ErrorCode::NodeNotFound, "`muster node ls` lists the nodes"),
        Refusal::KeyReused { .. } => (ErrorCode::KeyReused, "submit the same job file again, or use another key"),
        Refusal::KeyTooOld { .. } => {
            (ErrorCode::KeyTooOld, "look with `muster ps -Ae` whether the job exists; else submit it with a new key")
        }
        Refusal::Invalid(_) => (ErrorCode::SpecValue, remedy(part.as_deref())),
        Refusal::OldEpoch { .. } | Refusal::OldTerm { .. } => (ErrorCode::Conflict, "look again, then repeat the call"),
        Refusal::NodeBusy => (ErrorCode::NodeBusy, "drain the node and wait until nothing runs there"),
        Refusal::NotQuarantined => (ErrorCode::Conflict, "`muster node show NODE` lists its devices"),
        Refusal::Token | Refusal::TokenNode(_) => {
            (ErrorCode::TokenRefused, "make a token for this node with `muster node token`")
        }
        Refusal::OverLimit(_) => (ErrorCode::LimitReached, "wait until some of your jobs have ended"),
        Refusal::Full { .. } => (ErrorCode::LimitReached, "wait until some have ended"),
        Refusal::OldRevision { .. } => {
            (ErrorCode::Conflict, "somebody else edited it; look at `muster show JOB`, then edit it again")
        }
        Refusal::OldConfiguration { .. } => (ErrorCode::Conflict, "run the same `muster apply` again"),
        Refusal::NotNow(_) => (ErrorCode::Conflict, "`muster show JOB` tells how it stands"),
        Refusal::UnknownWindow { .. } => {
            (ErrorCode::ReservationNotFound, "`muster reservation ls` lists those that are not over")
        }
        Refusal::Overlaps { .. } => (
            ErrorCode::Conflict,
            "take another time or other nodes, or end the other first (`muster reservation delete`)",
        ),
        Refusal::NameTaken(_) => {
            (ErrorCode::Conflict, "take another name, or end that one first (`muster reservation delete`)")
        }
        Refusal::FeatureLevel { .. } => (ErrorCode::NotThereYet, "upgrade every server, then: muster cluster upgrade"),
    };
    let info = ErrorInfo::new(code, message).hint(hint);
    ErrorInfo { path: part, ..info }
}

/// A proposal without an answer.
pub fn not_committed(error: ProposeError) -> ErrorInfo {
    let message = error.to_string();
    match error {
        ProposeError::NotLeader { leader: (_, address) } => ErrorInfo::not_leader(Some(address)),
        ProposeError::NoLeader => no_leader(message),
        ProposeError::StaleTerm { .. } => no_leader("the leader changed while the call was made".into()),
        ProposeError::TooLarge { .. } => {
            ErrorInfo::new(ErrorCode::SpecTooBig, message).hint("shorten the script or the list of elements")
        }
        ProposeError::ShuttingDown => ErrorInfo::new(ErrorCode::Unavailable, message).hint("try another server"),
        ProposeError::Unknown { .. } => ErrorInfo::new(ErrorCode::Unavailable, message)
            .hint("repeat the call with the same key; nothing is done twice"),
    }
}

/// Nobody leads at the moment; the call may be repeated as it is.
pub fn no_leader(message: String) -> ErrorInfo {
    ErrorInfo::new(ErrorCode::NoLeader, message)
        .hint("repeat the call; `muster cluster status --local` shows what a server knows")
}

/// A read that could not be made linearizable.
pub fn not_read(error: ReadError) -> ErrorInfo {
    let message = error.to_string();
    match error {
        ReadError::NotLeader { .. } | ReadError::NoQuorum { .. } => no_leader(message),
        ReadError::Behind { .. } | ReadError::ShuttingDown => {
            ErrorInfo::new(ErrorCode::Unavailable, message).hint("try another server")
        }
    }
}

/// History that cannot be read is never taken for "nothing happened".
pub fn history(error: io::Error) -> ErrorInfo {
    tracing::error!(%error, "history cannot be read");
    ErrorInfo::new(ErrorCode::Internal, format!("this server's history cannot be read: {error}"))
        .hint("ask another server; this one's log says more")
}

/// What this server's history lacks is never taken for "nothing happened" either.
///
/// # Errors
/// [`ErrorCode::Unavailable`] when it lacks an entry between `from` and `to`, both included.
pub fn check_history(history: &HistoryStore, from: u64, to: u64) -> Result<(), ErrorInfo> {
    check_gaps(&history.gaps().map_err(self::history)?, from, to)
}

/// The same by the gaps that it had a moment ago.
///
/// # Errors
/// As of [`check_history`].
pub fn check_gaps(gaps: &[Gap], from: u64, to: u64) -> Result<(), ErrorInfo> {
    let Some(gap) = gaps.iter().find(|gap| from <= to && gap.from <= to && gap.to >= from) else { return Ok(()) };
    let message = format!("this server's history lacks entries {} to {}", gap.from, gap.to);
    Err(ErrorInfo::new(ErrorCode::Unavailable, message)
        .hint("ask another server with --server, or wait: it is fetched from the others"))
}

/// A text that people give for others to read.
///
/// # Errors
/// [`ErrorCode::Usage`] when it is too long or holds control characters.
pub fn check_reason(text: &str) -> Result<(), ErrorInfo> {
    if text.len() > REASON_BYTES_MAX {
        let message = format!("the reason has {} bytes; at most {REASON_BYTES_MAX} are kept", text.len());
        return Err(usage(message).hint("say it shorter"));
    }
    if text.chars().any(is_steering) {
        return Err(usage("the reason contains control characters").hint("write it on one line, as plain text"));
    }
    Ok(())
}

/// A request id or idempotency key.
///
/// # Errors
/// [`ErrorCode::Usage`] when it is empty, too long or holds control characters.
pub fn check_key(what: &str, text: &str) -> Result<(), ErrorInfo> {
    let why = if text.is_empty() {
        "is missing".to_owned()
    } else if text.chars().count() > KEY_CHARS_MAX {
        format!("is longer than {KEY_CHARS_MAX} characters")
    } else if text.chars().any(is_steering) {
        "contains control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(usage(format!("the {what} {why}")).hint("a UUID will do; repeat a call with the one it was first made with"))
}

/// A name that no node has.
pub fn unknown_node(name: &str) -> ErrorInfo {
    ErrorInfo::new(ErrorCode::NodeNotFound, format!("there is no node `{name}`"))
        .hint("`muster node ls` lists the nodes")
}

/// An error with texts that fit into a status and onto a terminal, whatever a client wrote into its request.
pub fn bounded(mut error: ErrorInfo) -> ErrorInfo {
    let fit = |text: &mut String| {
        *text = plain(text);
        if text.len() > TEXT_BYTES_MAX {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
            text.push_str("...");
        }
    };
    fit(&mut error.message);
    error.hint.iter_mut().for_each(fit);
    error.path.iter_mut().for_each(fit);
    error
}

/// A thread of the pool that did not come back.
pub fn lost(error: tokio::task::JoinError) -> ErrorInfo {
    tracing::error!(%error, "a worker thread was lost");
    ErrorInfo::new(ErrorCode::Internal, "the server failed while it worked on the answer")
        .hint("repeat the call; the server's log says more")
}
