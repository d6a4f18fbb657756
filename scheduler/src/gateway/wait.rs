//! Long poll: answers when a job ends, changes, or the time is over.

use super::jobs::{load_now, locate};
use super::past::Past;
use super::render::{gang, job};
use super::roles::Caller;
use super::subject::Subject;
use super::{Inner, errors};
use muster_common::{GangId, JobId};
use muster_engine::State;
use muster_engine::state::change::Key;
use muster_proto::client as pb;
use muster_proto::convert::error::ErrorInfo;
use std::sync::Arc;

/// Longest poll.
pub const TIMEOUT_MS_MAX: u64 = 60_000;
/// A busy log makes many views; one waiter looks at most so often.
const LOOK_EVERY_MS: u64 = 10;
/// The same where all of an array may have to be looked at.
const LOOK_AT_ARRAY_EVERY_MS: u64 = 250;

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
    let follows = !request.seen_state.is_empty();
    let mut seen: Option<Seen> = None;
    loop {
        let state = views.borrow_and_update().view.clone();
        let now = Seen { index: state.applied_index(), glance: glance(&state, id, reference.ordinal) };
        let time_over = clock.boottime_ms() >= until_ms;
        if time_over || seen.is_none_or(|seen| may_answer(&state, id, seen, now.glance, follows)) {
            let found = look(inner, caller, state, &reference, now.glance).await?;
            if found.1 || time_over || changed(&request, &found.0) {
                return Ok(pb::WaitReply { job: Some(found.0), ended: found.1 });
            }
        }
        seen = Some(now);
        let pause_ms = match now.glance {
            Some(Glance::Array(_)) if follows => LOOK_AT_ARRAY_EVERY_MS,
            _ => LOOK_EVERY_MS,
        };
        tokio::select! {
            changed = views.changed() => {
                changed.map_err(|_| errors::not_read(crate::consensus::ReadError::ShuttingDown))?;
                clock.sleep_until_ms(until_ms.min(clock.boottime_ms().saturating_add(pause_ms))).await;
            }
            () = clock.sleep_until_ms(until_ms) => {}
        }
    }
}

/// What State tells at once of a job or an element that is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Glance {
    /// State and attempt of one gang.
    Gang(&'static str, u32),
    /// State of a whole array; its attempt is that of any of its gangs.
    Array(&'static str),
}

/// The last glance, and the log index that it is of.
#[derive(Debug, Clone, Copy)]
struct Seen {
    index: u64,
    glance: Option<Glance>,
}

/// Straight from State; none of what State has forgotten.
fn glance(state: &State, id: JobId, ordinal: Option<u32>) -> Option<Glance> {
    let job = state.job(id)?;
    if ordinal.is_none() && state.scheduling(job).array.is_some() {
        return Some(Glance::Array(if job.gangs_active > 0 { "RUNNING" } else { "QUEUED" }));
    }
    let ordinal = ordinal.unwrap_or(0);
    if job.unstarted.contains(ordinal) {
        return Some(Glance::Gang("QUEUED", 0));
    }
    state.gang(GangId::new(id, ordinal)).map(|gang| Glance::Gang(gang.state.word(), gang.attempt.0))
}

/// May a full look answer who was not answered by the last one? `follows`: state and attempt matter, not only the end.
fn may_answer(state: &State, id: JobId, seen: Seen, now: Option<Glance>, follows: bool) -> bool {
    let Some(glance) = now else { return true };
    match glance {
        _ if !follows => false,
        _ if seen.glance != Some(glance) => true,
        Glance::Gang(..) => false,
        Glance::Array(_) => touched(state, id, seen.index),
    }
}

/// Has anything of the job changed after the entry, as far as is known?
fn touched(state: &State, id: JobId, index: u64) -> bool {
    let of_job = |key: Key| match key {
        Key::Job(job) => job == id,
        Key::Gang(gang) => gang.job == id,
        Key::Node(_) | Key::Config => false,
    };
    state.changes().since(index).is_none_or(|mut keys| keys.any(of_job))
}

async fn look(
    inner: &Arc<Inner>,
    caller: &Caller,
    state: Arc<State>,
    reference: &pb::JobRef,
    glance: Option<Glance>,
) -> Result<(pb::Job, bool), ErrorInfo> {
    let (id, ordinal) = (JobId(reference.id), reference.ordinal);
    let one_gang = state.job(id).is_some_and(|job| state.scheduling(job).array.is_none());
    let (caller, reference) = (caller.clone(), reference.clone());
    let read = move |inner: &Inner| -> Result<(pb::Job, bool), ErrorInfo> {
        // The past is only needed of what has ended.
        let live = glance.and_then(|_| Subject::live(&state, id, Past::default(), inner.now(&state)));
        let subject = match live {
            Some(subject) => subject,
            None => load_now(inner, &caller, &state, Some(&reference))?,
        };
        let ended = match ordinal {
            Some(ordinal) => gang::facts(&subject, ordinal).end.is_some(),
            None => subject.end.is_some(),
        };
        Ok((job::summary(&subject, ordinal), ended))
    };
    // An array has many gangs, and history many records of what has ended.
    if one_gang && glance.is_some() { read(inner) } else { inner.reading(read).await }
}

fn changed(request: &pb::WaitRequest, job: &pb::Job) -> bool {
    !request.seen_state.is_empty() && (job.state != request.seen_state || job.attempt != request.seen_attempt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::READERS_MAX;
    use crate::gateway::tests::fixture::{Cluster, principal};
    use crate::gateway::tests::server::{Server, within};
    use muster_engine::Command;
    use muster_engine::command::{Cancel, Exit};
    use muster_runtime::identity::Role;

    const SWEEP: &str = r#"{"name":"sweep","array":{"range":"0-1"},"retry":{"app":1},
        "gang":{"nodes":1,"gpus_per_node":1,"run":"x"}}"#;

    fn answer(state: &State, id: JobId) -> (String, u32) {
        let state = Arc::new(state.clone());
        let subject = Subject::live(&state, id, Past::default(), state.now()).unwrap();
        let job = job::summary(&subject, None);
        (job.state, job.attempt)
    }

    fn may(before: &State, after: &State, id: JobId, ordinal: Option<u32>, follows: bool) -> bool {
        let seen = Seen { index: before.applied_index(), glance: glance(before, id, ordinal) };
        may_answer(after, id, seen, glance(after, id, ordinal), follows)
    }

    /// Two elements run, one of them fails and runs again. The states in between, the first one first.
    fn states() -> (Cluster, JobId, Vec<State>) {
        let mut cluster = Cluster::new(1, 2);
        let id = cluster.submit("alice", SWEEP);
        let mut states = vec![cluster.state.clone()];
        for ordinal in [0, 1] {
            cluster.start(GangId::new(id, ordinal));
            states.push(cluster.state.clone());
        }
        let failing = GangId::new(id, 0);
        let node = cluster.nodes_of(failing)[0];
        cluster.exit(node, failing, Exit::Code(1));
        states.push(cluster.state.clone());
        cluster.release(failing);
        states.push(cluster.state.clone());
        cluster.pass(60_000);
        cluster.start(failing);
        states.push(cluster.state.clone());
        (cluster, id, states)
    }

    #[test]
    fn an_array_is_looked_at_in_full_only_where_its_answer_may_be_another() {
        let (mut cluster, id, states) = states();
        let mut words_stay = 0;
        for pair in states.windows(2) {
            let ((word, attempt), now) = (answer(&pair[0], id), answer(&pair[1], id));
            let is_another = (&word, attempt) != (&now.0, now.1);
            words_stay += usize::from(is_another && word == now.0);
            assert!(!is_another || may(&pair[0], &pair[1], id, None, true), "{now:?} is not told");
            assert!(!may(&pair[0], &pair[1], id, None, false), "only its end is waited for");
        }
        assert!(words_stay > 0, "its attempt is never another while its state stays");

        let before = cluster.state.clone();
        cluster.submit("bob", r#"{"name":"other","gang":{"run":"x"}}"#);
        cluster.pass(1_000);
        assert!(!may(&before, &cluster.state, id, None, true), "another's job is no news");
        cluster.apply(Command::Cancel(Cancel {
            job: id,
            ordinal: None,
            reason: String::new(),
            by: principal("alice"),
        }));
        for ordinal in [0, 1] {
            cluster.release(GangId::new(id, ordinal));
        }
        assert!(cluster.state.job(id).is_none(), "it has not ended");
        assert!(may(&before, &cluster.state, id, None, false) && may(&before, &cluster.state, id, None, true));
    }

    #[test]
    fn an_element_is_looked_at_only_when_its_own_state_or_attempt_is_another() {
        let (_, id, states) = states();
        let glances: Vec<_> = states.iter().map(|state| glance(state, id, Some(1))).collect();
        assert_eq!(glances[0], Some(Glance::Gang("QUEUED", 0)));
        assert!(glances[2..].iter().all(|glance| *glance == Some(Glance::Gang("RUNNING", 1))), "{glances:?}");
        assert!(may(&states[0], &states[2], id, Some(1), true));
        for pair in states[2..].windows(2) {
            assert!(!may(&pair[0], &pair[1], id, Some(1), true), "another element's is no news");
        }
        assert!(may(&states[4], &states[5], id, Some(0), true), "it runs again");
        assert_eq!(glance(&states[5], id, Some(2)), None, "there is no such element");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_array_is_rendered_when_a_reader_is_free_and_one_gang_at_once() {
        let server = Server::start(0).await;
        let inner = &server.gateway.inner;
        let caller = Caller { name: "alice".into(), role: Role::User, forwarded: false };
        let mut cluster = Cluster::new(1, 2);
        let plain = cluster.submit("alice", r#"{"name":"train","gang":{"run":"x"}}"#);
        let sweep = cluster.submit("alice", SWEEP);
        let state = Arc::new(cluster.state.clone());
        let named = |id: JobId| pb::JobRef { id: id.0, ..pb::JobRef::default() };
        let others = inner.readers.acquire_many(READERS_MAX as u32).await.unwrap();
        let (of_plain, of_sweep) = (named(plain), named(sweep));
        let at_once = look(inner, &caller, state.clone(), &of_plain, glance(&state, plain, None));
        let (job, ended) = within("one gang", at_once).await.unwrap();
        assert_eq!((job.id, job.state.as_str(), ended), (plain.0, "QUEUED", false));
        let mut looked = std::pin::pin!(look(inner, &caller, state.clone(), &of_sweep, glance(&state, sweep, None)));
        assert!(futures::poll!(&mut looked).is_pending(), "rendered without a reader's permit");
        drop(others);
        let (job, ended) = within("an array", looked).await.unwrap();
        assert_eq!((job.id, job.state.as_str(), ended), (sweep.0, "QUEUED", false));
    }
}
