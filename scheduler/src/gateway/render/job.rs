//! Jobs: one line of a list, or everything.

use super::gang::{Facts, GANGS_MAX, facts};
use super::words::at_ms;
use super::{gang, revision, spec};
use crate::gateway::subject::Subject;
use muster_common::Time;
use muster_common::job::{Count, GroupRequest};
use muster_engine::state::gang::{End, GangState};
use muster_proto::client as pb;

/// Names of nodes on one line.
const NODES_SHOWN_MAX: usize = 64;

/// The job without gangs and spec. With `ordinal`, state, attempt, cause and exit code are that gang's.
pub fn summary(subject: &Subject, ordinal: Option<u32>) -> pb::Job {
    let counts = counts(subject);
    let facts = match ordinal {
        Some(ordinal) => facts(subject, ordinal),
        None if subject.is_array() => array_facts(subject, &counts),
        None => facts(subject, 0),
    };
    let record = &subject.record;
    let scheduling = &subject.scheduling;
    pb::Job {
        id: subject.id().0,
        name: record.name.to_string(),
        user: record.principal.0.to_string(),
        queue: scheduling.queue.to_string(),
        account: scheduling.account.to_string(),
        priority: scheduling.class.to_string(),
        state: facts.state.into(),
        held: record.held && subject.end.is_none(),
        submitted_at_ms: record.submitted_at.0,
        started_at_ms: facts.started_at.map(|at| at.0),
        ended_at_ms: facts.ended_at.and_then(at_ms),
        nodes: spec::nodes(scheduling),
        gpus_per_node: spec::devices_per_node(scheduling),
        gpus: u32::try_from(scheduling.devices()).unwrap_or(u32::MAX),
        models: spec::models(scheduling),
        ranks: ranks(subject),
        array: subject.is_array(),
        counts: Some(counts),
        time_limit_ms: scheduling.limits.time_ms,
        expected_ms: scheduling.limits.expected_ms,
        device_ms: charged_ms(subject),
        partial: is_partial(subject),
        ran_ms: ran_ms(subject, ordinal),
        node_names: facts.nodes.into_iter().take(NODES_SHOWN_MAX).collect(),
        cause: facts.cause,
        cause_text: facts.cause_text,
        exit_code: facts.exit_code,
        attempt: facts.attempt,
        retry_of: record.retry_of.map(|job| job.0),
        key: record.key.clone(),
        revision: record.revision().number,
        ..pb::Job::default()
    }
}

/// Everything about the job, its gangs and attempts. `secrets`: also its environment's values.
pub fn whole(subject: &Subject, ordinal: Option<u32>, attempt: Option<u32>, secrets: bool) -> pb::Job {
    let shown: Vec<u32> = match ordinal {
        Some(ordinal) => vec![ordinal],
        None => (0..subject.scheduling.gangs()).take(GANGS_MAX).collect(),
    };
    pb::Job {
        gangs: shown.into_iter().map(|ordinal| gang::render(subject, ordinal, attempt)).collect(),
        spec_json: spec::render(subject, secrets),
        file_json: spec::file(subject, secrets),
        revisions: subject.past.edits.iter().map(revision::render).collect(),
        ..summary(subject, ordinal)
    }
}

/// Ranks of one gang; those of a gang that was given only a total are known once it is placed.
fn ranks(subject: &Subject) -> u32 {
    let groups = &subject.scheduling.groups;
    let most = groups.iter().map(GroupRequest::ranks_most).sum::<u64>();
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    if groups.iter().all(|group| matches!(group.count, Count::Nodes { .. })) {
        return most;
    }
    let current = subject.state.gang(subject.gang_id(0)).and_then(|gang| gang.current());
    let last = subject.ended_attempts(0).last().map(|record| record.attempt.world_size);
    current.map(|attempt| attempt.world_size).or(last).unwrap_or(most)
}

/// How many gangs are in which state.
pub fn counts(subject: &Subject) -> pb::GangCounts {
    let tally = subject.tally();
    let mut counts = pb::GangCounts {
        total: subject.scheduling.gangs(),
        succeeded: tally.succeeded,
        failed: tally.failed,
        cancelled: tally.cancelled,
        timed_out: tally.timed_out,
        ..pb::GangCounts::default()
    };
    if subject.end.is_some() {
        return counts;
    }
    counts.queued = subject.record.unstarted.len();
    for (_, state) in live_gangs(subject) {
        match state {
            GangState::Queued { .. } => counts.queued += 1,
            GangState::Starting(_) => counts.starting += 1,
            GangState::Running(_) => counts.running += 1,
            GangState::Stopping(..) => counts.stopping += 1,
        }
    }
    counts
}

/// Gangs of a live job that have a record.
fn live_gangs(subject: &Subject) -> Vec<(u32, &GangState)> {
    let (id, first) = (subject.id(), subject.gang_id(0));
    let gangs = subject.state.gangs().range_from(&first).map(|(gang, _)| *gang);
    let of_job: Vec<_> = gangs.take_while(|gang| gang.job == id).collect();
    of_job.into_iter().filter_map(|gang| Some((gang.ordinal, &subject.state.gang(gang)?.state))).collect()
}

/// Of all gangs whose attempts are known.
fn charged_ms(subject: &Subject) -> u64 {
    let ended = subject.past.gangs.keys().copied();
    let live = live_gangs(subject).into_iter().map(|(ordinal, _)| ordinal);
    let ordinals: std::collections::BTreeSet<u32> = ended.chain(live).collect();
    ordinals.into_iter().map(|ordinal| gang::charged_ms(subject, ordinal)).fold(0, u64::saturating_add)
}

/// Whether ended attempts may be missing: State has none of elements that have ended, and of others only the latest.
fn is_partial(subject: &Subject) -> bool {
    if subject.past.whole {
        return false;
    }
    let is_known = subject.end.is_none() && subject.tally().total() == 0;
    !is_known || live_gangs(subject).into_iter().any(|(ordinal, _)| is_cut(subject, ordinal))
}

/// Whether State has forgotten the first attempts of a live gang.
fn is_cut(subject: &Subject, ordinal: u32) -> bool {
    let first = subject.state.gang(subject.gang_id(ordinal)).and_then(|gang| gang.past.first());
    first.is_some_and(|first| first.attempt.number.0 > 1)
}

/// For how long ended attempts of the job or the gang ran; `None` where they are not all known.
fn ran_ms(subject: &Subject, ordinal: Option<u32>) -> Option<u64> {
    if ordinal.is_none() && subject.is_array() {
        return (subject.end.is_some() && subject.past.whole).then(|| any_ran_ms(subject));
    }
    let ordinal = ordinal.unwrap_or(0);
    let lives = subject.state.gang(subject.gang_id(ordinal)).is_some() || subject.record.unstarted.contains(ordinal);
    let is_known = subject.past.whole || subject.end.is_none() && lives && !is_cut(subject, ordinal);
    is_known.then(|| gang::ran_ms(subject, ordinal))
}

/// The time in which any element of an ended array ran.
fn any_ran_ms(subject: &Subject) -> u64 {
    let attempts = subject.past.gangs.values().flat_map(|gang| &gang.attempts);
    let mut spans: Vec<(Time, Time)> = attempts.filter_map(|record| gang::ran(record)).collect();
    spans.sort_unstable();
    let (mut sum, mut until) = (0, Time::ZERO);
    for (from, to) in spans {
        sum += to.since_ms(from.max(until));
        until = until.max(to);
    }
    sum
}

/// An array in one line: running while any gang holds devices, else queued while any waits.
fn array_facts(subject: &Subject, counts: &pb::GangCounts) -> Facts {
    if let Some((end, at)) = subject.end {
        return ended_array(subject, end, at);
    }
    let active = counts.starting + counts.running + counts.stopping;
    let live = live_gangs(subject);
    let started = live.iter().filter_map(|(_, state)| match state {
        GangState::Starting(attempt) | GangState::Running(attempt) | GangState::Stopping(attempt, _) => {
            attempt.started_at
        }
        GangState::Queued { .. } => None,
    });
    let nodes = live.iter().filter(|(_, state)| !matches!(state, GangState::Queued { .. }));
    let mut names: Vec<String> = Vec::new();
    for (ordinal, _) in nodes.take(NODES_SHOWN_MAX) {
        let more = facts(subject, *ordinal).nodes;
        names.extend(more.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
    }
    Facts {
        state: if active > 0 { "RUNNING" } else { "QUEUED" },
        attempt: latest_attempt(subject),
        started_at: started.min(),
        nodes: names,
        ..Facts::default()
    }
}

fn latest_attempt(subject: &Subject) -> u32 {
    let live = live_gangs(subject).into_iter().map(|(ordinal, _)| ordinal);
    let numbers = live.filter_map(|ordinal| subject.state.gang(subject.gang_id(ordinal)));
    let past = subject.past.gangs.values().filter_map(|gang| gang.attempts.last());
    let past = past.map(|record| record.attempt.number.0);
    numbers.map(|gang| gang.attempt.0).chain(past).max().unwrap_or(0)
}

/// All that is known of an ended array whose elements were not looked up.
fn how_elements_ended(subject: &Subject) -> String {
    let tally = subject.tally();
    let all = [
        (tally.succeeded, "succeeded"),
        (tally.failed, "failed"),
        (tally.cancelled, "cancelled"),
        (tally.timed_out, "timed out"),
    ];
    let some: Vec<String> =
        all.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    format!("{} of {} elements", some.join(", "), subject.scheduling.gangs())
}

/// The element that decided how the array ended: the first of the worst.
fn ended_array(subject: &Subject, end: End, at: Time) -> Facts {
    let attempts = subject.past.gangs.values().flat_map(|gang| &gang.attempts);
    let started = attempts.filter_map(|record| record.attempt.started_at).min();
    let mut array = Facts {
        state: end.word(),
        end: Some(end),
        attempt: latest_attempt(subject),
        started_at: started,
        ended_at: Some(at),
        exit_code: (end == End::Succeeded).then_some(0),
        ..Facts::default()
    };
    if !subject.past.whole {
        array.cause_text = how_elements_ended(subject);
        return array;
    }
    let known = subject.past.gangs.iter().filter(|(_, gang)| gang.end.is_some());
    let first =
        known.filter(|(_, gang)| gang.end.is_some_and(|known| known.0 == end)).map(|(ordinal, _)| *ordinal).next();
    // Elements that were given up have no event; any of them tells why.
    let shown = (0..subject.scheduling.gangs()).take(GANGS_MAX);
    let first = first.or_else(|| shown.into_iter().find(|ordinal| gang::end_of(subject, *ordinal).0 == end));
    if let Some(ordinal) = first {
        let facts = facts(subject, ordinal);
        array.cause = facts.cause;
        array.cause_text = if end == End::Succeeded {
            "every element ended with 0".into()
        } else {
            format!("element {ordinal}: {}", facts.cause_text)
        };
        array.exit_code = facts.exit_code;
    }
    array
}
