//! Calls that change jobs. Run on the leader.

use super::jobs::{check_whole, load};
use super::render::job;
use super::roles::Caller;
use super::subject::Subject;
use super::submit::{self, Wish, unexpected};
use super::{Inner, errors, why};
use muster_common::JobId;
use muster_common::job::{Launch, Scheduling};
use muster_engine::command::Cancel;
use muster_engine::forecast::forecast;
use muster_engine::{Command, Response};
use muster_proto::client as pb;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use std::sync::Arc;

pub(super) async fn submit(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::SubmitRequest,
) -> Result<pb::SubmitReply, ErrorInfo> {
    if let Some(earlier) = request.retry_of {
        let reference = pb::JobRef { id: earlier, ..pb::JobRef::default() };
        load(inner, caller, Some(reference)).await?;
    }
    inner.has_time().await?;
    let (by, state) = (caller.clone(), inner.ctx.view());
    let (command, notes) = inner
        .blocking(move |inner| {
            let (scheduling, launch) = submit::parse(&request.spec_json)?;
            let notes = submit::notes(&state, &scheduling);
            let wish = submit::wish(&request, inner.now(&state));
            Ok((submit::prepare(&state, &inner.emptied, &by, (scheduling, launch), &wish)?, notes))
        })
        .await?;
    commit(inner, command, notes).await
}

async fn commit(
    inner: &Arc<Inner>,
    command: muster_engine::command::Submit,
    notes: Vec<String>,
) -> Result<pb::SubmitReply, ErrorInfo> {
    let (id, existing) = match inner.commit(Command::Submit(Box::new(command))).await? {
        Response::Submitted { job, existing } => (job, existing),
        other => return Err(unexpected(&other)),
    };
    let subject = after(inner, id).await?;
    let notes = if existing { Vec::new() } else { notes };
    Ok(pb::SubmitReply { job: Some(job::summary(&subject, None)), existing, notes, why: None })
}

/// A job as it is after this server's own entry was applied.
async fn after(inner: &Arc<Inner>, id: JobId) -> Result<Subject, ErrorInfo> {
    let state = inner.ctx.view();
    let now = inner.now(&state);
    match Subject::live(&state, id, Default::default(), now) {
        Some(subject) => Ok(subject),
        None => after_whole(inner, id).await,
    }
}

/// The same with its past: what elements used that have ended is only there.
async fn after_whole(inner: &Arc<Inner>, id: JobId) -> Result<Subject, ErrorInfo> {
    let state = inner.ctx.view();
    let now = inner.now(&state);
    inner.reading(move |inner| Subject::load(&state, &inner.ctx.history, id, now)).await
}

pub(super) async fn dry_run(
    inner: &Arc<Inner>,
    caller: &Caller,
    mut request: pb::SubmitRequest,
) -> Result<pb::SubmitReply, ErrorInfo> {
    let state = inner.fresh().await?;
    let by = caller.clone();
    if request.key.is_empty() {
        "dry-run".clone_into(&mut request.key);
    }
    inner
        .blocking(move |inner| {
            let now = inner.now(&state);
            let (scheduling, launch) = submit::parse(&request.spec_json)?;
            let notes = submit::notes(&state, &scheduling);
            let command =
                submit::prepare(&state, &inner.emptied, &by, (scheduling, launch), &submit::wish(&request, now))?;
            let mut reply = planned(submit::dry_run(&state, command, now)?, now)?;
            reply.notes = notes;
            Ok(reply)
        })
        .await
}

/// What a dry run tells: the job without an id, and why it would wait, if it would.
fn planned(run: submit::DryRun, now: muster_common::Time) -> Result<pb::SubmitReply, ErrorInfo> {
    let subject = Subject::live(&run.state, run.job, Default::default(), now);
    let Some(subject) = subject else {
        let message = "the key stands for a job that exists; a dry run needs none";
        return Err(ErrorInfo::new(ErrorCode::Conflict, message).hint("leave out the key"));
    };
    let mut job = job::summary(&subject, None);
    (job.id, job.key) = (0, String::new());
    let mut why = None;
    if run.starts_now {
        job.start_estimate_at_ms = Some(now.0);
    } else {
        let mut answer = why::answer(&subject, None, Some(&forecast(&run.state, now)));
        job.start_estimate_at_ms = answer.start_estimate_at_ms;
        job.start_estimate_coarse = answer.start_estimate_coarse;
        answer.job = Some(job.clone());
        why = Some(answer);
    }
    Ok(pb::SubmitReply { job: Some(job), existing: false, notes: Vec::new(), why })
}

pub(super) async fn retry(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::RetryRequest,
) -> Result<pb::SubmitReply, ErrorInfo> {
    errors::check_key("request id", &request.request_id)?;
    check_whole(request.job.as_ref(), "retry")?;
    let subject = load(inner, caller, request.job).await?;
    let id = subject.id();
    caller.check_owner(&subject.record.principal, &format!("job {id}"))?;
    if subject.end.is_none() {
        let message = format!("job {id} has not ended");
        return Err(
            ErrorInfo::new(ErrorCode::Conflict, message).hint("cancel it first, or submit its file as another job")
        );
    }
    let (scheduling, launch): (Scheduling, Launch) = ((*subject.scheduling).clone(), (*subject.launch).clone());
    let (by, state) = (caller.clone(), subject.state.clone());
    let command = inner
        .blocking(move |inner| {
            let wish = Wish {
                key: &request.request_id,
                key_made_at_ms: Some(request.key_made_at_ms).filter(|made| *made > 0),
                hold: request.hold,
                retry_of: Some(id),
                now: inner.now(&state),
            };
            submit::prepare(&state, &inner.emptied, &by, (scheduling, launch), &wish)
        })
        .await?;
    commit(inner, command, Vec::new()).await
}

pub(super) async fn cancel(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::CancelRequest,
) -> Result<pb::CancelReply, ErrorInfo> {
    errors::check_key("request id", &request.request_id)?;
    errors::check_reason(&request.reason)?;
    let reference = request.job.clone().unwrap_or_default();
    let subject = load(inner, caller, request.job).await?;
    let id = subject.id();
    caller.check_owner(&subject.record.principal, &format!("job {id}"))?;
    if let Some(attempt) = reference.attempt {
        still_at(&subject, reference.ordinal.unwrap_or(0), attempt)?;
    }
    if has_ended(&subject, reference.ordinal) {
        return Ok(pb::CancelReply { job: Some(job::summary(&subject, reference.ordinal)), gangs: 0 });
    }
    // The one gang of a plain job is the job: its end is the job's end.
    let ordinal = reference.ordinal.filter(|_| subject.is_array());
    let cancel = Cancel { job: id, ordinal, reason: request.reason, by: caller.principal() };
    let gangs = match inner.commit(Command::Cancel(cancel)).await {
        Ok(Response::Cancelled { gangs }) => gangs,
        Ok(other) => return Err(unexpected(&other)),
        // It ended between the look and the entry.
        Err(error) if error.code == ErrorCode::JobNotFound => 0,
        Err(error) => return Err(error),
    };
    let subject = after_whole(inner, id).await?;
    Ok(pb::CancelReply { job: Some(job::summary(&subject, reference.ordinal)), gangs })
}

fn has_ended(subject: &Subject, ordinal: Option<u32>) -> bool {
    let waits = |ordinal| subject.record.unstarted.contains(ordinal);
    let lives = |ordinal| subject.state.gang(subject.gang_id(ordinal)).is_some();
    subject.end.is_some() || ordinal.is_some_and(|ordinal| !waits(ordinal) && !lives(ordinal))
}

/// `4711@2` means that attempt and no later one.
fn still_at(subject: &Subject, ordinal: u32, attempt: u32) -> Result<(), ErrorInfo> {
    let now = subject.state.gang(subject.gang_id(ordinal)).map_or(0, |gang| gang.attempt.0);
    if subject.end.is_some() || now == attempt {
        return Ok(());
    }
    let message = format!("job {} is at attempt {now}, not {attempt}", subject.id());
    Err(ErrorInfo::new(ErrorCode::Conflict, message).hint("leave out the attempt to cancel whatever runs now"))
}

pub(super) async fn hold(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::HoldRequest,
) -> Result<pb::HoldReply, ErrorInfo> {
    errors::check_key("request id", &request.request_id)?;
    check_whole(request.job.as_ref(), if request.hold { "hold" } else { "release" })?;
    let subject = load(inner, caller, request.job).await?;
    let id = subject.id();
    caller.check_owner(&subject.record.principal, &format!("job {id}"))?;
    if subject.end.is_some() {
        let message = format!("job {id} has ended");
        return Err(ErrorInfo::new(ErrorCode::JobEnded, message).hint(format!("`muster retry {id}` runs it again")));
    }
    if subject.record.held != request.hold {
        let command = Command::Hold { job: id, hold: request.hold, by: caller.principal() };
        inner.commit(command).await?;
    }
    let subject = after(inner, id).await?;
    Ok(pb::HoldReply { job: Some(job::summary(&subject, None)) })
}
