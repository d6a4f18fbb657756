//! Who goes first: one static score for each waiting gang, compared as order-preserving bits.

use crate::policy::formula::{Figures, Formula};
use crate::policy::{Order, Policy, RuntimeSource};
use crate::state::gang::GangRecord;
use crate::state::job::JobRecord;
use muster_common::job::{Limits, Scheduling};
use muster_common::time::HOUR_MS;
use muster_common::{GangId, Time};

/// A gang's place in the order: lower goes first; ties by submit time, then id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderKey {
    pub score: u64,
    pub submitted_at: Time,
    pub gang: GangId,
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

/// How long an attempt is expected to run, by the first source that knows.
pub fn run_ms(policy: &Policy, limits: &Limits) -> Option<u64> {
    policy.runtime_sources().iter().find_map(|source| match source {
        RuntimeSource::Exact => limits.exact_ms,
        RuntimeSource::Expected => limits.expected_ms,
        RuntimeSource::Limit => limits.time_ms,
    })
}

/// What is left of a gang's run, counting what earlier attempts and the present one have served.
pub fn remaining_ms(run_ms: Option<u64>, gang: Option<&GangRecord>, now: Time) -> Option<u64> {
    let served_ms = gang.map_or(0, |gang| {
        let started =
            gang.current().filter(|attempt| attempt.stopping_at.is_none()).and_then(|attempt| attempt.started_at);
        gang.served_ms.saturating_add(started.map_or(0, |at| now.since_ms(at)))
    });
    run_ms.map(|run| run.saturating_sub(served_ms))
}

/// The order of a policy, ready to score gangs.
#[derive(Debug)]
pub struct Scorer {
    order: Order,
    formula: Option<Formula>,
}

impl Scorer {
    pub fn new(policy: &Policy) -> Self {
        let formula = match &policy.order {
            Order::Formula(text) => Formula::parse(text).ok(),
            _ => None,
        };
        Self { order: policy.order.clone(), formula }
    }

    /// Do scores of waiting gangs change as time passes?
    pub fn is_timed(&self) -> bool {
        self.formula.as_ref().is_some_and(Formula::is_timed)
    }

    /// `gang` is `None` while the element has never been placed.
    pub fn key(
        &self,
        policy: &Policy,
        job: &JobRecord,
        scheduling: &Scheduling,
        (id, gang): (GangId, Option<&GangRecord>),
        now: Time,
    ) -> OrderKey {
        let run = run_ms(policy, &scheduling.limits);
        let figures = Figures {
            run: seconds(run),
            remaining: seconds(remaining_ms(run, gang, now)),
            devices: scheduling.devices() as f64,
            wait: now.since_ms(job.submitted_at) as f64 / 1000.0,
            submit: job.submitted_at.0 as f64 / 1000.0,
            class: f64::from(policy.class_rank(&scheduling.class).unwrap_or(0)),
        };
        let score = ordered_bits(self.score(&figures, job.submitted_at));
        OrderKey { score, submitted_at: job.submitted_at, gang: id }
    }

    fn score(&self, figures: &Figures, submitted_at: Time) -> f64 {
        let aged = |hours: u32| submitted_at.0 as f64 - figures.class * f64::from(hours) * HOUR_MS as f64;
        match &self.order {
            Order::Fifo => 0.0,
            Order::Priority { hours_per_class } => aged(*hours_per_class),
            Order::Default => aged(24),
            Order::Sjf => figures.run,
            Order::Srtf => figures.remaining,
            Order::Smallest => figures.devices,
            Order::F1 => {
                libm::log10(above_zero(figures.run)) * figures.devices + 870.0 * libm::log10(above_zero(figures.submit))
            }
            Order::Formula(_) => self.formula.as_ref().map_or(f64::NAN, |formula| formula.value(figures)),
        }
    }
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
        assert_eq!(ordered_bits(-0.0), ordered_bits(0.0));
        assert!(ordered_bits(f64::NAN) > ordered_bits(f64::INFINITY));
    }
}
