//! Long poll: answers when a job ends, changes, or the time is over.

use super::jobs::{load_now, locate};
use super::render::{gang, job};
use super::roles::Caller;
use super::subject::Subject;
use super::{Inner, errors};
use muster_common::GangId;
use muster_engine::State;
use muster_proto::client as pb;
use muster_proto::convert::error::ErrorInfo;
use std::sync::Arc;

/// Longest poll.
pub const TIMEOUT_MS_MAX: u64 = 60_000;
/// A busy log makes many views; one waiter looks at most so often.
const LOOK_EVERY_MS: u64 = 10;

pub(super) async fn wait(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::WaitRequest,
) -> Result<pb::WaitReply, ErrorInfo> {
    if request.timeout_ms > TIMEOUT_MS_MAX {
        let message = format!("a call waits at most {TIMEOUT_MS_MAX} ms");
        return Err(errors::usage(message).hint("call again until it has ended"));
    }
    let _ticket = inner.waits.enter(&caller.name)?;
    let clock = &inner.ctx.clock;
    let until_ms = clock.boottime_ms().saturating_add(request.timeout_ms);
    let mut views = inner.ctx.consensus.views();
    let state = inner.fresh().await?;
    // A name may go to another job while this one is waited for.
    let id = locate(inner, caller, &state, request.job.as_ref()).await?;
    let reference = pb::JobRef { id: id.0, name: String::new(), ..request.job.clone().unwrap_or_default() };
    let mut seen: Option<Glance> = None;
    loop {
        let state = views.borrow_and_update().view.clone();
        let glance = glance(&state, GangId::new(id, reference.ordinal.unwrap_or(0)));
        let time_over = clock.boottime_ms() >= until_ms;
        // What a glance cannot tell (an end, an array) is looked at in full.
        if time_over || glance.is_none() || glance != seen {
            let found = look(inner, caller, state, &reference).await?;
            if found.1 || time_over || changed(&request, &found.0) {
                return Ok(pb::WaitReply { job: Some(found.0), ended: found.1 });
            }
            seen = glance;
        }
        tokio::select! {
            changed = views.changed() => {
                changed.map_err(|_| errors::not_read(crate::consensus::ReadError::ShuttingDown))?;
                clock.sleep_ms(LOOK_EVERY_MS).await;
            }
            () = clock.sleep_until_ms(until_ms) => {}
        }
    }
}

type Glance = (&'static str, u32);

/// State and attempt of the gang, straight from State; none of an array as a whole.
fn glance(state: &State, gang: GangId) -> Option<Glance> {
    let job = state.job(gang.job)?;
    if state.scheduling(job).array.is_some() {
        return None;
    }
    if job.unstarted.contains(gang.ordinal) {
        return Some(("QUEUED", 0));
    }
    state.gang(gang).map(|gang| (gang.state.word(), gang.attempt.0))
}

async fn look(
    inner: &Arc<Inner>,
    caller: &Caller,
    state: Arc<State>,
    reference: &pb::JobRef,
) -> Result<(pb::Job, bool), ErrorInfo> {
    let id = muster_common::JobId(reference.id);
    let ordinal = reference.ordinal;
    // The past is only needed of what has ended.
    let live = match ordinal {
        None => Subject::live(&state, id, Default::default(), inner.now(&state)),
        Some(_) => None,
    };
    let subject = match live {
        Some(subject) => subject,
        None => {
            let (caller, reference) = (caller.clone(), reference.clone());
            inner.blocking(move |inner| load_now(inner, &caller, &state, Some(&reference))).await?
        }
    };
    let ended = match ordinal {
        Some(ordinal) => gang::facts(&subject, ordinal).end.is_some(),
        None => subject.end.is_some(),
    };
    Ok((job::summary(&subject, ordinal), ended))
}

fn changed(request: &pb::WaitRequest, job: &pb::Job) -> bool {
    !request.seen_state.is_empty() && (job.state != request.seen_state || job.attempt != request.seen_attempt)
}
