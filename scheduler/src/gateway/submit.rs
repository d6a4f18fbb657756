//! Submit and retry: from what a client sent to a command that can only succeed or be refused for
//! what the cluster holds.

use super::errors::{self, usage};
use super::never::{self, Emptied};
use super::roles::Caller;
use muster_common::job::file::{JobFile, SpecError, SpecErrorKind, compile};
use muster_common::job::{Hash, Launch, SPEC_BYTES_MAX, Scheduling};
use muster_common::{GangId, JobId, Time};
use muster_engine::command::{PlanStep, Submit};
use muster_engine::{Command, Entry, Memo, Response, State, apply, cycle, digest};
use muster_proto::client as pb;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use muster_runtime::config::nearest;
use std::sync::Arc;

/// How far ahead of this server's a client's clock may be.
const CLOCK_AHEAD_MS: u64 = 3_600_000;

/// Everything about a new job but its spec.
pub struct Wish<'a> {
    pub key: &'a str,
    pub key_made_at_ms: Option<u64>,
    pub hold: bool,
    pub retry_of: Option<JobId>,
    pub now: Time,
}

/// A job file as JSON into its two parts.
///
/// # Errors
/// What is wrong with it, with the path of the first wrong value.
pub fn parse(spec_json: &str) -> Result<(Scheduling, Launch), ErrorInfo> {
    if spec_json.len() > SPEC_BYTES_MAX {
        let message = format!("the job file has {} bytes; at most {SPEC_BYTES_MAX} are taken", spec_json.len());
        let hint = "keep data in files on the nodes and name them in the job file";
        return Err(ErrorInfo::new(ErrorCode::SpecTooBig, message).hint(hint));
    }
    let file: JobFile = serde_json::from_str(spec_json).map_err(|error| errors::bounded(unreadable(&error)))?;
    compile(&file).map_err(|found| errors::bounded(wrong(&found)))
}

fn unreadable(error: &serde_json::Error) -> ErrorInfo {
    let text = error.to_string();
    if !error.is_data() {
        return ErrorInfo::new(ErrorCode::SpecSyntax, format!("the job file is not JSON: {text}"))
            .hint("`muster submit FILE` reads TOML and sends JSON; programs send JSON");
    }
    let quoted = |n: usize| text.split('`').nth(2 * n + 1);
    if !text.starts_with("unknown field") {
        return ErrorInfo::new(ErrorCode::SpecType, format!("a value of the job file has the wrong type: {text}"))
            .hint("compare it with the files in `examples/`");
    }
    let key = quoted(0).unwrap_or_default();
    let known: Vec<&str> = (1..).map_while(quoted).collect();
    let hint = match nearest(key, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there is: {}", known.join(", ")),
    };
    ErrorInfo::new(ErrorCode::SpecUnknownKey, format!("the job file has an unknown key: {text}")).path(key).hint(hint)
}

fn wrong(errors: &[SpecError]) -> ErrorInfo {
    let Some(first) = errors.first() else {
        return ErrorInfo::new(ErrorCode::SpecValue, "the job file cannot be understood")
            .hint("compare it with the files in `examples/`");
    };
    let code = match first.kind {
        SpecErrorKind::Missing => ErrorCode::SpecMissing,
        SpecErrorKind::Value => ErrorCode::SpecValue,
        SpecErrorKind::TooBig => ErrorCode::SpecTooBig,
        SpecErrorKind::NotThereYet => ErrorCode::NotThereYet,
    };
    let lines: Vec<String> = errors.iter().map(|error| format!("{error}; {}", error.why)).collect();
    let hint = first.hint.clone().unwrap_or_else(|| first.why.clone());
    ErrorInfo::new(code, lines.join(" | ")).path(first.path.clone()).hint(hint)
}

/// The command that makes the job.
///
/// # Errors
/// A key that cannot be one, or a request that this cluster can never meet.
pub fn prepare(
    state: &State,
    emptied: &Emptied,
    caller: &Caller,
    (scheduling, launch): (Scheduling, Launch),
    wish: &Wish,
) -> Result<Submit, ErrorInfo> {
    errors::check_key("idempotency key", wish.key)?;
    if wish.key_made_at_ms.is_some_and(|made| made > wish.now.0.saturating_add(CLOCK_AHEAD_MS)) {
        let message = "the idempotency key was made in the future";
        return Err(usage(message).hint("set the clock of the machine that made it"));
    }
    // A key that is known already is answered as it was, whatever the cluster looks like now.
    if state.key(wish.key).is_none() {
        never::check(state, emptied, &scheduling)?;
    }
    let body_hash = body_hash(&scheduling, &launch);
    Ok(Submit {
        key: wish.key.to_owned(),
        key_made_at: wish.key_made_at_ms.map(Time),
        principal: caller.principal(),
        name: launch.name.clone(),
        scheduling,
        launch: Arc::new(launch),
        body_hash,
        hold: wish.hold,
        retry_of: wish.retry_of,
    })
}

/// Of everything the user wrote.
pub fn body_hash(scheduling: &Scheduling, launch: &Launch) -> Hash {
    digest::of(&(scheduling, launch, &launch.name))
}

/// Worth saying, though the job is taken.
pub fn notes(state: &State, scheduling: &Scheduling) -> Vec<String> {
    let mut notes = Vec::new();
    if state.nodes().is_empty() {
        notes.push("no node has joined the cluster yet; the job waits until some have".into());
    }
    let limits = &scheduling.limits;
    if limits.time_ms.is_none() && limits.expected_ms.is_none() {
        notes.push(
            "without `limits.time` or `limits.expected` it is not used to fill gaps, and no end can be estimated"
                .into(),
        );
    }
    notes
}

/// What a job would meet if it were submitted now. Nothing is committed.
pub struct DryRun {
    /// The state as if it were there.
    pub state: Arc<State>,
    pub job: JobId,
    pub starts_now: bool,
}

/// Applies the job to a copy of the state and asks the next cycle.
///
/// # Errors
/// What `apply` refuses.
pub fn dry_run(state: &State, submit: Submit, now: Time) -> Result<DryRun, ErrorInfo> {
    let mut copy = state.clone();
    let entry = Entry {
        index: copy.applied_index() + 1,
        term: copy.applied_term(),
        at: now,
        command: Command::Submit(Box::new(submit)),
    };
    let job = match apply(&mut copy, &entry).response {
        Response::Submitted { job, .. } => job,
        Response::Refused(refusal) => return Err(errors::refused(refusal)),
        other => return Err(unexpected(&other)),
    };
    let decided = cycle(&copy, &mut Memo::default(), now.max(copy.now()));
    let steps = decided.commands.iter().flat_map(|command| match command {
        Command::CommitPlan(plan) => plan.steps.as_slice(),
        _ => &[],
    });
    let first = GangId::new(job, 0);
    let mut places = steps.filter(|step| matches!(step, PlanStep::Place(placement) if placement.gang == first));
    let starts_now = places.next().is_some();
    Ok(DryRun { state: Arc::new(copy), job, starts_now })
}

/// An answer the command cannot have; this server and the log do not understand each other.
pub fn unexpected(response: &Response) -> ErrorInfo {
    tracing::error!(?response, "a command had an answer of another kind");
    ErrorInfo::new(ErrorCode::Internal, "the command had an answer of another kind").hint("see the server's log")
}

/// The wish in a request to submit.
pub fn wish(request: &pb::SubmitRequest, now: Time) -> Wish<'_> {
    Wish {
        key: &request.key,
        key_made_at_ms: request.key_made_at_ms,
        hold: request.hold,
        retry_of: request.retry_of.map(JobId),
        now,
    }
}
