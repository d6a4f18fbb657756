//! One job: shown, or explained.

use super::names::find;
use super::render::job;
use super::roles::Caller;
use super::subject::Subject;
use super::{Inner, errors, helped, why};
use muster_common::{GangId, JobId};
use muster_engine::State;
use muster_engine::state::gang::GangState;
use muster_proto::client as pb;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use std::sync::Arc;

/// The job a reference names, with its past.
pub(super) async fn load(
    inner: &Arc<Inner>,
    caller: &Caller,
    reference: Option<pb::JobRef>,
) -> Result<Subject, ErrorInfo> {
    let state = inner.fresh().await?;
    let caller = caller.clone();
    inner.reading(move |inner| load_now(inner, &caller, &state, reference.as_ref())).await
}

/// The same without waiting for the leader; not for an async thread.
pub(super) fn load_now(
    inner: &Inner,
    caller: &Caller,
    state: &Arc<State>,
    reference: Option<&pb::JobRef>,
) -> Result<Subject, ErrorInfo> {
    let id = find(state, &inner.ctx.history, caller, reference)?;
    let subject = Subject::load(state, &inner.ctx.history, id, inner.now(state))?;
    if let Some(ordinal) = reference.and_then(|reference| reference.ordinal) {
        subject.check_ordinal(ordinal)?;
    }
    Ok(subject)
}

/// The id of the job a reference names.
pub(super) async fn locate(
    inner: &Arc<Inner>,
    caller: &Caller,
    state: &Arc<State>,
    reference: Option<&pb::JobRef>,
) -> Result<JobId, ErrorInfo> {
    if let Some(reference) = reference.filter(|reference| reference.id > 0) {
        return Ok(JobId(reference.id));
    }
    let (caller, state, reference) = (caller.clone(), state.clone(), reference.cloned());
    inner.reading(move |inner| find(&state, &inner.ctx.history, &caller, reference.as_ref())).await
}

pub(super) async fn show(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::ShowJobRequest,
) -> Result<pb::Job, ErrorInfo> {
    let reference = request.job.clone().unwrap_or_default();
    let subject = load(inner, caller, request.job).await?;
    if let Some(attempt) = reference.attempt {
        check_attempt(&subject, reference.ordinal.unwrap_or(0), attempt)?;
    }
    let secrets = caller.is_admin() || caller.owns(&subject.record.principal);
    render(inner, subject, reference, secrets).await
}

/// A thousand gangs with their attempts take a while.
async fn render(
    inner: &Arc<Inner>,
    subject: Subject,
    reference: pb::JobRef,
    secrets: bool,
) -> Result<pb::Job, ErrorInfo> {
    inner.reading(move |inner| Ok(shown(inner, &subject, &reference, secrets))).await
}

fn shown(inner: &Inner, subject: &Subject, reference: &pb::JobRef, secrets: bool) -> pb::Job {
    let mut job = job::whole(subject, reference.ordinal, reference.attempt, secrets);
    if why::waiting_gang(subject, reference.ordinal).is_some()
        && let Some(explained) = explained(inner, subject, reference.ordinal).job
    {
        job.reason = explained.reason;
        job.reason_text = explained.reason_text;
        job.start_estimate_at_ms = explained.start_estimate_at_ms;
        job.start_estimate_coarse = explained.start_estimate_coarse;
    }
    job
}

/// # Errors
/// [`ErrorCode::AttemptNotFound`] when the gang has had no such attempt.
pub(super) fn check_attempt(subject: &Subject, ordinal: u32, attempt: u32) -> Result<(), ErrorInfo> {
    let gang = subject.state.gang(subject.gang_id(ordinal)).filter(|_| subject.end.is_none());
    let current = gang.and_then(|gang| gang.current()).map(|attempt| attempt.number.0);
    let mut ended = subject.ended_attempts(ordinal).into_iter();
    if current == Some(attempt) || ended.any(|record| record.attempt.number.0 == attempt) {
        return Ok(());
    }
    let message = format!("job {} has had no attempt {attempt}", subject.id());
    Err(ErrorInfo::new(ErrorCode::AttemptNotFound, message)
        .hint(format!("`muster show {}` lists its attempts", subject.id())))
}

pub(super) async fn why(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::WhyRequest,
) -> Result<pb::WhyReply, ErrorInfo> {
    let ordinal = request.job.as_ref().and_then(|reference| reference.ordinal);
    let subject = load(inner, caller, request.job).await?;
    let answer = move |inner: &Inner| {
        let (state, now, clock) = (&subject.state, subject.now, &*inner.ctx.clock);
        let ahead = queued(&subject, ordinal).map(|gang| inner.estimates.get_for(gang, state, now, clock));
        let (forecast, again_in_ms) = ahead.map(|ahead| (ahead.forecast, ahead.again_in_ms)).unzip();
        let again_in_ms = again_in_ms.unwrap_or_default();
        Ok((why::answer_until(&inner.looks, &subject, ordinal, forecast.as_deref(), again_in_ms), subject))
    };
    let (mut reply, subject) = inner.reading(answer).await?;
    let Some(gang) = why::waiting_gang(&subject, ordinal) else { return Ok(reply) };
    inner
        .playing(move |_| {
            helped::add(&mut reply, &subject, gang);
            Ok(reply)
        })
        .await
}

/// For `show`: nothing is played anew for a job that came since.
fn explained(inner: &Inner, subject: &Subject, ordinal: Option<u32>) -> pb::WhyReply {
    let played = |_| inner.estimates.get(&subject.state, subject.now, &*inner.ctx.clock);
    let forecast = queued(subject, ordinal).map(played);
    why::answer_until(&inner.looks, subject, ordinal, forecast.as_deref(), 0)
}

/// The gang that the question is about, if it waits for its placement.
fn queued(subject: &Subject, ordinal: Option<u32>) -> Option<GangId> {
    why::waiting_gang(subject, ordinal).filter(|gang| {
        let gang = subject.state.gang(*gang);
        gang.is_none_or(|gang| matches!(gang.state, GangState::Queued { .. }))
    })
}

/// A reference to something smaller than the whole job.
///
/// # Errors
/// [`ErrorCode::Usage`] when the call is only for whole jobs.
pub(super) fn check_whole(reference: Option<&pb::JobRef>, call: &str) -> Result<(), ErrorInfo> {
    match reference {
        Some(reference) if reference.ordinal.is_some() || reference.attempt.is_some() => {
            Err(errors::usage(format!("{call} is for whole jobs")).hint("leave out the element and the attempt"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::READERS_MAX;
    use crate::gateway::tests::fixture::Cluster;
    use crate::gateway::tests::server::{Server, within};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_job_is_rendered_when_a_reader_is_free_and_not_by_who_serves_the_call() {
        let server = Server::start(0).await;
        let mut cluster = Cluster::new(0, 0);
        let ended = cluster.end("alice", r#"{"name":"train","gang":{"run":"x"}}"#);
        let inner = &server.gateway.inner;
        let others = inner.readers.acquire_many(READERS_MAX as u32).await.unwrap();
        let mut shown = std::pin::pin!(render(inner, cluster.subject(ended), pb::JobRef::default(), false));
        assert!(futures::poll!(&mut shown).is_pending(), "rendered without a reader's permit");
        drop(others);
        assert_eq!(within("a job", shown).await.unwrap().state, "CANCELLED");
    }
}
