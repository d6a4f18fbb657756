//! Who goes first: a score for each waiting gang, compared as order-preserving bits, in lanes where an
//! order moves only with whole users.

use super::lanes::LaneRank;
use super::runtime::run_ms;
use super::standing::{STEP_MS, Standing, step_of};
use super::waiting::Waiting;
use crate::policy::formula::{Figures, Formula};
use crate::policy::{Las, Multifactor, Order, Policy, Stability};
use crate::state::State;
use crate::state::gang::GangRecord;
use crate::state::job::JobRecord;
use muster_common::job::Scheduling;
use muster_common::time::HOUR_MS;
use muster_common::{GangId, Name, Time};

/// A gang's place in its lane: lower goes first; ties by submit time, then id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderKey {
    pub score: u64,
    /// What an order with queues puts before the submit time: since when it runs, or waits.
    pub since: Time,
    pub submitted_at: Time,
    pub gang: GangId,
    pub lane: u32,
}

impl OrderKey {
    /// For a gang that is asked about and has no place in the order.
    pub const fn of_gang(gang: GangId) -> Self {
        Self { score: NO_SCORE, since: Time::ZERO, submitted_at: Time::ZERO, gang, lane: 0 }
    }
}

/// The score of a gang without one: after all others.
pub const NO_SCORE: u64 = u64::MAX;

/// The bits of a number such that they compare as the numbers do. NaN has no place: `NO_SCORE`.
pub fn ordered_bits(score: f64) -> u64 {
    if score.is_nan() {
        return NO_SCORE;
    }
    // Adding zero turns -0 into +0, so that the two tie.
    let bits = (score + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// The number of which these are the ordered bits; NaN of `NO_SCORE`.
pub fn number_of(bits: u64) -> f64 {
    f64::from_bits(if bits >> 63 == 1 { bits & !(1 << 63) } else { !bits })
}

/// What a gang has run so far, earlier attempts and the present one.
pub fn served_ms(gang: Option<&GangRecord>, now: Time) -> u64 {
    gang.map_or(0, |gang| {
        let present = gang.current().filter(|attempt| attempt.stopping_at.is_none());
        let started = present.and_then(|attempt| attempt.started_at);
        gang.served_ms.saturating_add(started.map_or(0, |at| now.since_ms(at)))
    })
}

/// What is left of a gang's run, counting what earlier attempts and the present one have served.
pub fn remaining_ms(run_ms: Option<u64>, gang: Option<&GangRecord>, now: Time) -> Option<u64> {
    run_ms.map(|run| run.saturating_sub(served_ms(gang, now)))
}

/// The order of a policy, ready to score gangs.
#[derive(Debug, Clone)]
pub struct Scorer {
    order: Order,
    formula: Option<Formula>,
    standing: Standing,
    stability: Stability,
    /// The lowest and the highest class there is.
    classes: (i32, i32),
    /// The highest `priority` of an account.
    account_priority_max: u32,
    /// The moment whose use and ages count.
    at: Time,
}

/// What a step of time or use did to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Lanes stand differently.
    pub lanes: bool,
    /// Items submitted in this half-open range are in another lane now.
    pub ripened: Option<(Time, Time)>,
    /// Everything is to be scored again.
    pub all: bool,
}

impl Scorer {
    pub fn new(state: &State, now: Time) -> Self {
        let policy = state.policy();
        let formula = match &policy.order {
            Order::Formula(text) => Formula::parse(text).ok(),
            _ => None,
        };
        let accounts = state.accounts().document().accounts.iter();
        let mut scorer = Self {
            order: policy.order.clone(),
            formula,
            standing: Standing::default(),
            stability: policy.order.stability(),
            classes: policy.class_range(),
            account_priority_max: accounts.map(|account| account.priority).max().unwrap_or(0),
            at: step_of(now),
        };
        scorer.sync(state, now, true);
        scorer
    }

    /// Follows time and use. `changed`: entries may have changed what somebody has used.
    pub fn sync(&mut self, state: &State, now: Time, changed: bool) -> Moved {
        match self.stability {
            Stability::Static => Moved::default(),
            Stability::Timed => Moved { all: true, ..Moved::default() },
            Stability::ByLane => {
                let before = std::mem::replace(&mut self.at, step_of(now));
                let ranks = self.standing.sync(state, now, changed);
                let Order::Multifactor(factors) = &self.order else {
                    return Moved { lanes: ranks, ..Moved::default() };
                };
                // Those that have reached the full age since.
                let ripe = |at: Time| Time(at.0.saturating_add(1).saturating_sub(factors.max_age_ms));
                let aged = before != self.at;
                Moved {
                    lanes: ranks || aged,
                    ripened: aged.then(|| (ripe(before), ripe(self.at))),
                    all: before > self.at,
                }
            }
        }
    }

    /// Where lanes stand; empty for an order with one lane.
    pub fn lanes(&self) -> Vec<LaneRank> {
        match &self.order {
            Order::Fair => self.standing.places().map(|place| LaneRank { place, score: 0.0 }).collect(),
            Order::Multifactor(factors) => {
                let young = factors.age as f64 * (self.at.0 as f64 / factors.max_age_ms as f64);
                let users = self.standing.places().count() as u32;
                let of = |user| factors.fair as f64 * self.standing.factor(user);
                let lane = |score: f64| LaneRank { place: 0, score: -score };
                (0..users).flat_map(|user| [lane(of(user) + young), lane(of(user) + factors.age as f64)]).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Does the order move a little with each minute, rather than at moments that can be named?
    pub fn moves_by_steps(&self) -> bool {
        self.stability == Stability::ByLane
    }

    /// When what waits could be in another order without any entry.
    pub fn wake_at(&self, state: &State, waiting: &Waiting, now: Time) -> Option<Time> {
        match &self.order {
            _ if self.moves_by_steps() => Some(step_of(now).plus_ms(STEP_MS)),
            Order::Las(Las { promote_after: Some(times), .. }) => {
                let queued = waiting.by_order.values().filter_map(|item| state.gang(item.key.gang));
                let promoted = queued.map(|gang| promoted_at(gang, *times));
                promoted.filter(|at| *at > now).min()
            }
            _ => None,
        }
    }

    /// When a running gang reaches another queue, under an order with queues.
    pub fn demoted_at(&self, scheduling: &Scheduling, gang: &GangRecord, now: Time) -> Option<Time> {
        let Order::Las(las) = &self.order else { return None };
        let devices = scheduling.devices().max(1);
        let served = attained_ms(las, gang, now);
        let next = las.limits.iter().map(|limit| limit.saturating_mul(1000).div_ceil(devices));
        next.filter(|at| *at > served).min().map(|at| now.plus_ms(at - served))
    }

    /// `gang` is `None` while the element has never been placed.
    pub fn key(
        &self,
        policy: &Policy,
        job: &JobRecord,
        scheduling: &Scheduling,
        (id, gang): (GangId, Option<&GangRecord>),
        state: &State,
        now: Time,
    ) -> OrderKey {
        let run = run_ms(policy, job, &scheduling.limits);
        let figures = Figures {
            run: seconds(run),
            remaining: seconds(remaining_ms(run, gang, now)),
            devices: scheduling.devices() as f64,
            wait: now.since_ms(job.submitted_at) as f64 / 1000.0,
            submit: job.submitted_at.0 as f64 / 1000.0,
            class: f64::from(policy.class_rank(&scheduling.class).unwrap_or(0)),
        };
        let mut key = OrderKey { score: 0, since: Time::ZERO, submitted_at: job.submitted_at, gang: id, lane: 0 };
        let score = match &self.order {
            Order::Fair => {
                key.lane = self.number(job, scheduling);
                -figures.class
            }
            Order::Multifactor(factors) => {
                let old = self.at.since_ms(job.submitted_at) >= factors.max_age_ms;
                key.lane = 2 * self.number(job, scheduling) + u32::from(old);
                let age = if old { 0.0 } else { job.submitted_at.0 as f64 / factors.max_age_ms as f64 };
                let fixed = self.fixed_part(factors, &figures, self.account_priority(state, &scheduling.account));
                factors.age as f64 * age - fixed
            }
            Order::Las(las) => {
                let place = place_in_queue(las, figures.devices, gang, now);
                key.since = place.since.unwrap_or(job.submitted_at);
                f64::from(2 * place.queue + u32::from(place.waits))
            }
            Order::Deadline => seconds(scheduling.deadline_at_ms),
            _ => self.score(&figures, job.submitted_at, gang, now),
        };
        key.score = ordered_bits(score);
        key
    }

    /// Of the payer; every job has a row from the entry on that took it.
    fn number(&self, job: &JobRecord, scheduling: &Scheduling) -> u32 {
        self.standing.number(&scheduling.account, &job.principal).unwrap_or(0)
    }

    fn score(&self, figures: &Figures, submitted_at: Time, gang: Option<&GangRecord>, now: Time) -> f64 {
        let aged = |hours: u32| submitted_at.0 as f64 - figures.class * f64::from(hours) * HOUR_MS as f64;
        match &self.order {
            Order::Priority { hours_per_class } => aged(*hours_per_class),
            Order::Default => aged(24),
            Order::Sjf => figures.run,
            Order::Srtf => figures.remaining,
            Order::Smallest => figures.devices,
            Order::F1 => {
                libm::log10(above_zero(figures.run)) * figures.devices + 870.0 * libm::log10(above_zero(figures.submit))
            }
            Order::Formula(_) => self.formula.as_ref().map_or(f64::NAN, |formula| formula.value(figures)),
            Order::Gittins(gittins) => -gittins.index(figures.devices * served_ms(gang, now) as f64 / 1000.0),
            Order::Wfp3 => -libm::pow(figures.wait / figures.run, 3.0) * figures.devices,
            // The logarithm of one device is nothing; its authors add a little.
            Order::Unicep => -figures.wait / (libm::log2(figures.devices.max(1.0) + 1e-15) * figures.run),
            Order::Qssf => figures.run * figures.devices,
            Order::Fifo | Order::Fair | Order::Multifactor(_) | Order::Las(_) | Order::Deadline => 0.0,
        }
    }

    /// What of a multifactor priority does not move: class, size and account.
    fn fixed_part(&self, factors: &Multifactor, figures: &Figures, account: f64) -> f64 {
        let (lowest, highest) = self.classes;
        let class = match f64::from(highest) - f64::from(lowest) {
            0.0 => 0.0,
            range => (figures.class - f64::from(lowest)) / range,
        };
        let size = (figures.devices / f64::from(factors.full_size)).min(1.0);
        let size = if factors.favor_small { 1.0 - size } else { size };
        factors.class as f64 * class + factors.size as f64 * size + factors.account as f64 * account
    }

    fn account_priority(&self, state: &State, account: &Name) -> f64 {
        match (state.accounts().get(account), self.account_priority_max) {
            (Some(account), most) if most > 0 => f64::from(account.priority) / f64::from(most),
            _ => 0.0,
        }
    }
}

/// When a waiting gang goes back to the first queue.
fn promoted_at(gang: &GangRecord, times: u32) -> Time {
    gang.queued_at.plus_ms(gang.served_ms.saturating_mul(u64::from(times)))
}

/// The run time that counts for a gang's queue: all of it, or what it has run since it was promoted.
fn attained_ms(las: &Las, gang: &GangRecord, now: Time) -> u64 {
    let all = served_ms(Some(gang), now);
    let waited_until = gang.current().map_or(now, |attempt| attempt.placed_at);
    match las.promote_after {
        Some(times) if promoted_at(gang, times) <= waited_until => all - gang.served_ms,
        _ => all,
    }
}

/// Where a gang stands under an order with queues.
struct InQueue {
    queue: u32,
    /// Behind those of its queue that run.
    waits: bool,
    since: Option<Time>,
}

/// For so long what runs and has reached its next queue stands at the end of it; after that it is one of those that run there.
const ENTERS_MS: u64 = 1000;

fn place_in_queue(las: &Las, devices: f64, gang: Option<&GangRecord>, now: Time) -> InQueue {
    let attained_ms = gang.map_or(0, |gang| attained_ms(las, gang, now));
    let attained = devices.max(1.0) * attained_ms as f64 / 1000.0;
    let queue = las.limits.iter().filter(|limit| attained >= **limit as f64).count();
    let running = gang.and_then(GangRecord::current).filter(|attempt| attempt.stopping_at.is_none());
    let Some(attempt) = running else {
        return InQueue { queue: queue as u32, waits: true, since: gang.map(|gang| gang.queued_at) };
    };
    let beyond = queue.checked_sub(1).map(|at| (attained - las.limits[at] as f64) / devices.max(1.0));
    let enters = beyond.is_some_and(|beyond_s| beyond_s * 1000.0 < ENTERS_MS as f64);
    let started = attempt.started_at.unwrap_or(attempt.placed_at);
    InQueue { queue: queue as u32, waits: enters, since: Some(if enters { now } else { started }) }
}

/// An unknown time is infinite, so it goes last where short goes first.
fn seconds(ms: Option<u64>) -> f64 {
    ms.map_or(f64::INFINITY, |ms| ms as f64 / 1000.0)
}

/// F1 takes the logarithm of times that may be zero; its authors put a tenth in their place.
fn above_zero(seconds: f64) -> f64 {
    if seconds == 0.0 { 0.1 } else { seconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_compare_as_the_numbers_do() {
        let ascending = [f64::NEG_INFINITY, -1e300, -2.0, -1e-300, 0.0, 1e-300, 1.0, 1e300, f64::INFINITY];
        assert!(ascending.windows(2).all(|pair| ordered_bits(pair[0]) < ordered_bits(pair[1])));
        assert!(ascending.iter().all(|number| number_of(ordered_bits(*number)) == *number));
        assert_eq!(ordered_bits(-0.0), ordered_bits(0.0));
        assert!(ordered_bits(f64::NAN) > ordered_bits(f64::INFINITY));
        assert!(number_of(NO_SCORE).is_nan());
    }
}
