//! Plans: where jobs would go and when, were they submitted now, and whom they would push back. The
//! engine's own verbs on a copy of State; nothing is committed.

use super::never::Emptied;
use super::render::words::{delay, gang_name, owner};
use super::render::{attempt, cluster, job};
use super::roles::Caller;
use super::subject::Subject;
use super::submit::{self, Wish, unexpected};
use super::{Inner, cost, errors, why};
use muster_common::{GangId, JobId, Time};
use muster_engine::forecast::{Assume, Forecast, Foreseen, foresee};
use muster_engine::state::gang::Allocation;
use muster_engine::{Command, Entry, Response, State, apply};
use muster_proto::client as pb;
use muster_proto::convert::error::ErrorInfo;
use std::collections::BTreeSet;
use std::sync::Arc;

const JOBS_MAX: usize = 64;
/// Delays told, the longest first.
const DELAYS_MAX: usize = 100;
/// Less than this is no delay anybody would notice.
const DELAY_MS: u64 = 1_000;
/// What runs on the devices wanted, at most so many of it.
const AWAITED_MAX: usize = 100;

pub(super) async fn plan(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::PlanRequest,
) -> Result<pb::PlanReply, ErrorInfo> {
    if request.jobs.is_empty() || request.jobs.len() > JOBS_MAX {
        let message = format!("a plan is made for 1 to {JOBS_MAX} jobs, not {}", request.jobs.len());
        return Err(errors::usage(message).hint("plan them in parts"));
    }
    let prices = cost::prices(&request.prices)?;
    let state = inner.fresh().await?;
    let by = caller.clone();
    inner
        .playing(move |inner| {
            let now = inner.now(&state);
            let mut reply = answer(&state, &by, &request.jobs, now);
            let prices = match prices.is_empty() {
                true => cost::of_organisation(state.accounts().document()),
                false => prices,
            };
            if !prices.is_empty() {
                reply.jobs.iter_mut().for_each(|job| job.cost = cost::cost(job, &prices));
            }
            Ok(reply)
        })
        .await
}

/// One job of the plan, submitted to the copy or refused.
type Tried = Result<(JobId, Vec<String>), ErrorInfo>;

/// The whole answer.
pub fn answer(state: &Arc<State>, caller: &Caller, jobs: &[pb::PlanJob], now: Time) -> pb::PlanReply {
    let mut copy = (**state).clone();
    let emptied = Emptied::default();
    let tried: Vec<Tried> = jobs.iter().map(|job| try_on(&mut copy, &emptied, caller, job, now)).collect();
    let copy = Arc::new(copy);
    let firsts: BTreeSet<GangId> = tried.iter().flatten().map(|(id, _)| GangId::new(*id, 0)).collect();
    let nobody = BTreeSet::new();
    let before = foresee(state, now, &nobody, Assume::Expected);
    let after = foresee(&copy, now, &firsts, Assume::Expected);
    let latest = foresee(&copy, now, &nobody, Assume::Limits);
    let planned = tried.into_iter().map(|tried| match tried {
        Ok((id, notes)) => planned(&copy, id, notes, &after, &latest, now),
        Err(error) => refused(error),
    });
    pb::PlanReply {
        jobs: planned.collect(),
        delays: delays(state, &before, &after),
        complete: before.forecast.complete && after.forecast.complete,
        applied_index: state.applied_index(),
        looked_at_ms: now.0,
        policy: cluster::policy(state),
    }
}

fn try_on(copy: &mut State, emptied: &Emptied, caller: &Caller, job: &pb::PlanJob, now: Time) -> Tried {
    let (scheduling, launch) = submit::parse(&job.spec_json)?;
    let notes = submit::notes(copy, &scheduling);
    // Any key will do that nobody has used.
    let mut key = format!("plan-{}", copy.applied_index());
    while copy.key(&key).is_some() {
        key.push('+');
    }
    let wish = Wish { key: &key, key_made_at_ms: None, hold: job.hold, retry_of: None, now };
    let submit = submit::prepare(copy, emptied, caller, (scheduling, launch), &wish)?;
    let command = Command::Submit(Box::new(submit));
    let entry = Entry { index: copy.applied_index() + 1, term: copy.applied_term(), at: now, command };
    match apply(copy, &entry).response {
        Response::Submitted { job, .. } => Ok((job, notes)),
        Response::Refused(refusal) => Err(errors::refused(refusal)),
        other => Err(unexpected(&other)),
    }
}

fn refused(error: ErrorInfo) -> pb::PlannedJob {
    let error = errors::bounded(error);
    let refusal = pb::PlanRefusal {
        code: error.code.name().into(),
        message: error.message,
        hint: error.hint.unwrap_or_default(),
        path: error.path.unwrap_or_default(),
        exit_code: error.exit_code.into(),
    };
    pb::PlannedJob { verdict: "refused".into(), refusal: Some(refusal), ..pb::PlannedJob::default() }
}

fn planned(
    copy: &Arc<State>,
    id: JobId,
    notes: Vec<String>,
    after: &Foreseen,
    latest: &Foreseen,
    now: Time,
) -> pb::PlannedJob {
    let Some(subject) = Subject::live(copy, id, Default::default(), now) else { return pb::PlannedJob::default() };
    let gang = GangId::new(id, 0);
    let start = |foreseen: &Foreseen| foreseen.forecast.start(gang);
    let mut why = why::answer(&subject, None, Some(&after.forecast));
    let mut job = job::summary(&subject, None);
    (job.id, job.key) = (0, String::new());
    let of_job = after.forecast.starts.range(gang..=GangId::new(id, u32::MAX));
    let gangs_now = of_job.filter(|(_, start)| **start == Some(now)).count() as u32;
    let starts = gangs_now > 0;
    let likely = start(after);
    let latest_at = start(latest).filter(|_| latest.forecast.complete);
    let place = after.places.get(&gang).map_or(&[][..], Vec::as_slice);
    job.start_estimate_at_ms = likely.map(|start| start.at.0);
    job.start_estimate_coarse = likely.is_some_and(|start| start.coarse);
    why.job = Some(job.clone());
    pb::PlannedJob {
        verdict: if subject.record.held {
            "held"
        } else if starts {
            "starts"
        } else {
            "waits"
        }
        .into(),
        gangs_now,
        placement: place.iter().map(|part| pb::Part { state: "PLANNED".into(), ..attempt::part(copy, part) }).collect(),
        start_estimate_at_ms: job.start_estimate_at_ms,
        start_estimate_coarse: job.start_estimate_coarse,
        start_latest_at_ms: latest_at.map(|start| start.at.0),
        start_latest_text: match (likely, latest_at) {
            (Some(_), None) if !starts => no_latest(&latest.forecast).into(),
            _ => String::new(),
        },
        estimate_text: if starts { "the next cycle starts it".into() } else { why.estimate_text.clone() },
        waits_for: if starts { Vec::new() } else { awaited(copy, gang, place, after) },
        why: (!starts).then_some(why),
        notes,
        refusal: None,
        cost: None,
        job: Some(job),
    }
}

/// Why a gang that is expected to start has no latest start.
fn no_latest(latest: &Forecast) -> &'static str {
    if !latest.complete {
        "too much is ahead to play to the limits"
    } else if latest.ends.values().any(Option::is_none) {
        "the end of something that runs or starts before is not known"
    } else {
        "it does not start if each runs to its time limit"
    }
}

/// Who holds now what the gang would take.
fn awaited(copy: &State, gang: GangId, place: &[Allocation], after: &Foreseen) -> Vec<pb::Awaited> {
    let mut holders: BTreeSet<GangId> = BTreeSet::new();
    for part in place {
        let Some(node) = copy.node(part.node) else { continue };
        if part.devices.is_empty() {
            holders.extend(node.gangs.iter());
        }
        let devices = part.devices.iter().filter_map(|(slot, _)| node.devices.get(usize::from(*slot)));
        holders.extend(devices.flat_map(|device| device.holders()).map(|holder| holder.gang));
    }
    holders.remove(&gang);
    let end = |gang: &GangId| after.forecast.ends.get(gang).copied().flatten();
    let mut holders: Vec<GangId> = holders.into_iter().collect();
    holders.sort_by_key(|gang| (end(gang).unwrap_or(Time::NEVER), *gang));
    let awaited = holders.into_iter().take(AWAITED_MAX).map(|gang| {
        let (name, user) = owner(copy, gang);
        pb::Awaited { gang: gang_name(copy, gang), name, user, expected_end_at_ms: end(&gang).map(|at| at.0) }
    });
    awaited.collect()
}

/// What waits already and would start later than without the plan.
fn delays(state: &State, before: &Foreseen, after: &Foreseen) -> Vec<pb::Delay> {
    if !before.forecast.complete || !after.forecast.complete {
        return Vec::new();
    }
    let mut delayed: Vec<(Time, GangId, Time)> = Vec::new();
    for (gang, start) in &before.forecast.starts {
        let Some(start) = start else { continue };
        let then = after.forecast.starts.get(gang).copied().flatten().unwrap_or(Time::NEVER);
        if then.since_ms(*start) >= DELAY_MS {
            delayed.push((then, *gang, *start));
        }
    }
    delayed.sort_by_key(|(then, gang, start)| (std::cmp::Reverse(then.since_ms(*start)), *gang));
    delayed.into_iter().take(DELAYS_MAX).map(|(then, gang, start)| delay(state, (gang, start, then))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_missing_latest_start_only_what_was_seen_is_told() {
        let gang = GangId::new(JobId(1), 0);
        let cut = Forecast { ends: [(gang, None)].into(), ..Forecast::default() };
        assert_eq!(no_latest(&cut), "too much is ahead to play to the limits");
        let endless = Forecast { complete: true, ..cut };
        assert_eq!(no_latest(&endless), "the end of something that runs or starts before is not known");
        let ends = Forecast { ends: [(gang, Some(Time(1)))].into(), ..endless };
        assert_eq!(no_latest(&ends), "it does not start if each runs to its time limit");
    }
}
