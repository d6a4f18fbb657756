//! Why a job waits, when it will start, and what would help.

use super::render::words::{duration, gang_name, node_name, plain};
use super::render::{cluster, job};
use super::subject::Subject;
use muster_common::job::GroupRequest;
use muster_common::{GangId, Time};
use muster_engine::forecast::{Forecast, Start, forecast};
use muster_engine::plan::brief::{Briefs, briefs};
use muster_engine::plan::explain::{Explanation, Reason, explain};
use muster_engine::state::gang::GangState;
use muster_engine::{Memo, State};
use muster_proto::client as pb;
use muster_runtime::clock::Clock;
use std::sync::{Arc, Mutex, PoisonError};

/// Live jobs beyond which lists show no start estimates: playing them forward takes too long.
const LIST_JOBS_MAX: usize = 500;
/// An estimate is made again for a newer state after this long.
const FRESH_MS: u64 = 2_000;
/// What took so long to make is used for at least so many times as long, however busy the log is.
const REUSE: u64 = 10;

/// The latest play of the present forward, shared by all who ask.
#[derive(Default)]
pub struct Estimates {
    latest: Mutex<Option<Latest>>,
}

struct Latest {
    index: u64,
    /// Until then also whoever came since makes do with it.
    reused_until_ms: u64,
    fresh_until_ms: u64,
    forecast: Arc<Forecast>,
}

/// A play, and how long whoever is not in it waits for the next one.
pub struct Ahead {
    pub forecast: Arc<Forecast>,
    pub again_in_ms: u64,
}

impl Estimates {
    /// The forecast of this state, or a slightly older one. Takes long; not for an async thread.
    pub fn get(&self, state: &State, now: Time, clock: &dyn Clock) -> Arc<Forecast> {
        self.get_if(state, now, clock, |_| true).forecast
    }

    /// As [`Self::get`], but an older one that was made before this gang waited only while it is too early for
    /// another: else who asks for each new job would keep everybody else out.
    pub fn get_for(&self, gang: GangId, state: &State, now: Time, clock: &dyn Clock) -> Ahead {
        self.get_if(state, now, clock, |forecast| knows(forecast, state, gang))
    }

    fn get_if(&self, state: &State, now: Time, clock: &dyn Clock, will_do: impl Fn(&Forecast) -> bool) -> Ahead {
        // Whoever comes while one is made waits for it instead of making another.
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let begun_ms = clock.boottime_ms();
        let usable = |latest: &&Latest| {
            let fresh = begun_ms < latest.fresh_until_ms;
            let known = begun_ms < latest.reused_until_ms || will_do(&latest.forecast);
            latest.index >= state.applied_index() || fresh && known
        };
        if let Some(latest) = latest.as_ref().filter(usable) {
            let again_in_ms = latest.reused_until_ms.saturating_sub(begun_ms);
            return Ahead { forecast: latest.forecast.clone(), again_in_ms };
        }
        let forecast = Arc::new(forecast(state, now));
        let (ended_ms, index) = (clock.boottime_ms(), state.applied_index());
        // Less than the clock can tell is not nothing.
        let again_in_ms = REUSE * ended_ms.saturating_sub(begun_ms).max(1);
        let (reused_until_ms, fresh_until_ms) = (ended_ms + again_in_ms, ended_ms + FRESH_MS.max(again_in_ms));
        *latest = Some(Latest { index, reused_until_ms, fresh_until_ms, forecast: forecast.clone() });
        Ahead { forecast, again_in_ms }
    }

    /// For lists: only where it is cheap.
    pub fn for_list(&self, state: &State, now: Time, clock: &dyn Clock) -> Option<Arc<Forecast>> {
        (state.jobs().len() <= LIST_JOBS_MAX).then(|| self.get(state, now, clock))
    }
}

/// Did the gang wait when this was played? Of an array's elements those that were never placed are told only
/// as far as the play went.
fn knows(forecast: &Forecast, state: &State, gang: GangId) -> bool {
    match state.gang(gang) {
        Some(_) => forecast.starts.contains_key(&gang),
        None => {
            let of_job = GangId::new(gang.job, 0)..=GangId::new(gang.job, u32::MAX);
            forecast.starts.range(of_job).next().is_some()
        }
    }
}

/// The latest look at everything that waits, shared by all lists, and what it derived from State, by all answers.
#[derive(Default)]
pub struct Looks(Mutex<Look>);

#[derive(Default)]
struct Look {
    memo: Memo,
    /// Of what the memo was derived last.
    derived: (u64, Time),
    index: u64,
    fresh_until_ms: u64,
    briefs: Option<Arc<Briefs>>,
}

impl Looks {
    /// Why what waits in this state does, or in a slightly older one. Not for an async thread.
    pub fn get(&self, state: &State, now: Time, clock: &dyn Clock) -> Arc<Briefs> {
        let mut look = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begun_ms = clock.boottime_ms();
        let usable = look.index >= state.applied_index() || begun_ms < look.fresh_until_ms;
        if let Some(known) = look.briefs.as_ref().filter(|_| usable) {
            return known.clone();
        }
        let briefs = Arc::new(briefs(state, &mut look.memo, now));
        look.derived = (state.applied_index(), now);
        let ended_ms = clock.boottime_ms();
        look.index = state.applied_index();
        look.fresh_until_ms = ended_ms + REUSE * ended_ms.saturating_sub(begun_ms);
        look.briefs = Some(briefs.clone());
        briefs
    }

    /// Why one gang waits. To derive everything from State anew costs a hundred times as much as the answer, so what the
    /// last look derived is brought up to date, unless somebody else is at it or it is of a later state.
    pub fn explain(&self, state: &State, gang: GangId, now: Time) -> Option<Explanation> {
        match self.0.try_lock() {
            Ok(mut look) if look.derived.0 <= state.applied_index() && look.derived.1 <= now => {
                look.derived = (state.applied_index(), now);
                explain(state, &mut look.memo, gang, now)
            }
            _ => explain(state, &mut Memo::default(), gang, now),
        }
    }
}

/// The gang that a question about the whole job is about: the first that waits.
pub fn waiting_gang(subject: &Subject, ordinal: Option<u32>) -> Option<GangId> {
    if subject.end.is_some() {
        return None;
    }
    if let Some(ordinal) = ordinal {
        return Some(subject.gang_id(ordinal));
    }
    let id = subject.id();
    let first = subject.gang_id(0);
    let gangs = subject.state.gangs().range_from(&first).take_while(|(gang, _)| gang.job == id);
    let again = gangs.filter(|(_, gang)| gang.current().is_none()).map(|(gang, _)| *gang).next();
    let unstarted = subject.record.unstarted.first().map(|ordinal| subject.gang_id(ordinal));
    let starting = subject.state.gang(first).filter(|gang| matches!(gang.state, GangState::Starting(_)));
    again.into_iter().chain(unstarted).min().or(starting.map(|gang| gang.id))
}

/// Fills in what a list says of a job that waits: the reason that decides, and the estimated start.
pub fn add_reason(job: &mut pb::Job, subject: &Subject, briefs: &Briefs, forecast: Option<&Forecast>) {
    let Some(gang) = waiting_gang(subject, None) else { return };
    if let Some((blocker, _)) = briefs.apart.get(&subject.record.id) {
        (job.reason, job.reason_text) = (blocker.reason.word().into(), plain(&blocker.detail));
        return;
    }
    let Some(brief) = briefs.get(gang) else { return };
    if let Some((reason, detail)) = &brief.reason {
        (job.reason, job.reason_text) = (reason.word().into(), plain(detail));
    }
    let start = start(gang, brief.starts_now, brief.booked, forecast, subject.now);
    job.start_estimate_at_ms = start.map(|start| start.at.0);
    job.start_estimate_coarse = start.is_some_and(|start| start.coarse);
}

/// When a gang starts: as it was played, else as it is booked, else as it was reckoned.
pub fn start(
    gang: GangId,
    starts_now: bool,
    booked: Option<Time>,
    forecast: Option<&Forecast>,
    now: Time,
) -> Option<Start> {
    if starts_now {
        return Some(Start { at: now, coarse: false });
    }
    let foreseen = forecast.and_then(|forecast| forecast.start(gang));
    let played = foreseen.filter(|start| !start.coarse);
    let booked = booked.map(|at| Start { at, coarse: false });
    let start = played.or(booked).or(foreseen)?;
    Some(Start { at: start.at.max(now), ..start })
}

/// The whole answer about one job, of a state that nobody else looks at.
pub fn answer(subject: &Subject, ordinal: Option<u32>, forecast: Option<&Forecast>) -> pb::WhyReply {
    answer_until(&Looks::default(), subject, ordinal, forecast, 0)
}

/// The same of the cluster's state; the next look ahead is made in `again_in_ms`.
pub fn answer_until(
    looks: &Looks,
    subject: &Subject,
    ordinal: Option<u32>,
    forecast: Option<&Forecast>,
    again_in_ms: u64,
) -> pb::WhyReply {
    let state = &subject.state;
    let mut reply = pb::WhyReply {
        job: Some(job::summary(subject, ordinal)),
        applied_index: state.applied_index(),
        looked_at_ms: subject.now.0,
        policy: cluster::policy(state),
        ..pb::WhyReply::default()
    };
    let gang = waiting_gang(subject, ordinal);
    let explained = gang.and_then(|gang| looks.explain(state, gang, subject.now));
    let Some(explanation) = explained else { return reply };
    let waits = state.gang(explanation.gang).is_none_or(|gang| gang.current().is_none());
    if waits {
        let since = state.gang(explanation.gang).map_or(subject.record.submitted_at, |gang| gang.queued_at);
        reply.queued_for_ms = subject.now.since_ms(since);
        reply.not_a_problem = not_a_problem(subject, &explanation);
        let Explanation { gang, starts_now, booked, .. } = explanation;
        reply.starts_now = starts_now;
        let start = start(gang, starts_now, booked, forecast, subject.now);
        reply.start_estimate_at_ms = start.map(|start| start.at.0);
        reply.start_estimate_coarse = start.is_some_and(|start| start.coarse);
        reply.estimate_text = estimate_text(state, &explanation, forecast, start, again_in_ms);
    }
    if let Some((position, length)) = explanation.position {
        (reply.position, reply.queue_length) = (Some(position), length);
    }
    reply.blockers = explanation.blockers.iter().map(|blocker| render(state, blocker, subject.now)).collect();
    reply.would_help = explanation.blockers.iter().filter_map(remedy).collect();
    if let (Some(job), Some(first)) = (&mut reply.job, reply.blockers.first()) {
        job.reason = first.reason.clone();
        job.reason_text = first.text.clone();
        job.start_estimate_at_ms = reply.start_estimate_at_ms;
        job.start_estimate_coarse = reply.start_estimate_coarse;
    }
    reply
}

type Blocker = muster_engine::plan::explain::Blocker;

fn render(state: &State, blocker: &Blocker, now: Time) -> pb::Blocker {
    let gangs = blocker.gangs.iter().map(|gang| gang_name(state, *gang));
    let nodes = blocker.nodes.iter().map(|node| node_name(state, *node));
    let until = blocker.until.filter(|until| *until > now).map(|until| duration(until.since_ms(now)));
    let text = match until {
        Some(left) => format!("{}; {left} left", blocker.detail),
        None => blocker.detail.clone(),
    };
    pb::Blocker { reason: blocker.reason.word().into(), text: plain(&text), who: gangs.chain(nodes).collect() }
}

fn remedy(blocker: &Blocker) -> Option<pb::Remedy> {
    let change = blocker.hint.as_deref().map(plain)?;
    let effect = format!("so that `{}` is no longer in the way", blocker.reason.word());
    Some(pb::Remedy { change, effect, ..pb::Remedy::default() })
}

/// What was looked at and is not in the way, of what this job could have met.
fn not_a_problem(subject: &Subject, explanation: &Explanation) -> Vec<String> {
    let any = |wish: fn(&GroupRequest) -> bool| subject.scheduling.groups.iter().any(wish);
    let asked = |wish: bool, reason| wish.then_some(reason);
    let asks_others = !subject.scheduling.after.is_none();
    let limited = subject.scheduling.array.as_ref().is_some_and(|array| array.at_once.is_some());
    let checked = [
        Some(Reason::Hold),
        asked(asks_others, Reason::Dependency),
        asked(limited, Reason::ArrayLimit),
        Some(Reason::Nodes),
        asked(subject.scheduling.wants_place(), Reason::Topology),
        asked(any(|group| !group.models.is_empty()), Reason::GpuModel),
        Some(Reason::CpuMemory),
        asked(any(|group| !group.labels.is_empty()), Reason::Label),
        asked(subject.state.nodes().values().any(|node| !node.is_in_service()), Reason::ClosedNodes),
        Some(Reason::Priority),
    ];
    let clear = checked.into_iter().flatten().filter(|reason| explanation.rules_out(*reason));
    clear.map(|reason| reason.word().to_owned()).collect()
}

/// What the estimate rests on, or why there is none: only what was looked at.
fn estimate_text(
    state: &State,
    explanation: &Explanation,
    forecast: Option<&Forecast>,
    start: Option<Start>,
    again_in_ms: u64,
) -> String {
    let gang = explanation.gang;
    let foreseen = forecast.and_then(|forecast| forecast.start(gang)).is_some_and(|start| !start.coarse);
    let text = match (start, forecast) {
        _ if explanation.starts_now => "the next cycle starts it",
        _ if foreseen => "if what runs ends by its expected time or its limit, and nothing new goes before it",
        (Some(Start { coarse: true, .. }), _) => {
            "coarse: too much is ahead of it to play forward; the work ahead, divided by the devices it may use"
        }
        (Some(_), _) => "the start that is booked for it",
        (None, None) => "no estimate was made",
        (None, Some(forecast)) => return unforeseen(state, explanation, forecast, again_in_ms),
    };
    text.to_owned()
}

/// Why a gang without a start has none.
fn unforeseen(state: &State, explanation: &Explanation, forecast: &Forecast, again_in_ms: u64) -> String {
    let gang = explanation.gang;
    let blocks = |reason: Reason| explanation.blockers.iter().any(|blocker| blocker.reason == reason);
    let text = if blocks(Reason::Hold) {
        "it is held"
    } else if blocks(Reason::NeverFits) || forecast.unplaceable.contains_key(&gang.job) {
        "it could not even run on an empty cluster"
    } else if !knows(forecast, state, gang) {
        return came_since(again_in_ms);
    } else if !forecast.complete {
        "too much is ahead of it to play forward"
    } else if forecast.ends.values().any(Option::is_none) {
        "the cluster was played forward and it did not start; of something that runs there the end is not known"
    } else {
        "the cluster was played forward until nothing more ended, and it did not start"
    };
    text.to_owned()
}

fn came_since(again_in_ms: u64) -> String {
    let again = match again_in_ms.div_ceil(1_000) {
        0 => "a moment".to_owned(),
        seconds => duration(seconds * 1_000),
    };
    format!("it came after the look ahead was made; ask again in {again}")
}
