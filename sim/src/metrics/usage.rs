//! Where the GPU-hours went. The categories sum to all that was paid for.

use super::{JobResult, JobState, seconds};
use crate::meter::{Meter, Use};
use muster_common::time::HOUR_MS;
use serde::Serialize;

/// What a GPU-hour was spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Work of jobs that succeeded.
    Kept,
    /// Work of jobs that failed, were cancelled or timed out.
    Unsuccessful,
    /// Work of jobs that the run did not see end.
    InProgress,
    /// Restarts and checkpoints.
    Overhead,
    /// Work done that had to be done again.
    Lost,
    /// Held by a gang whose work had stopped, before the scheduler knew.
    Stalled,
    Starting,
    Stopping,
    Down,
    Fragmented,
    IdleWaiting,
    IdleNoDemand,
    /// Falling asleep or waking.
    Switching,
    /// Asleep, and paid for all the same.
    Asleep,
}

pub const CATEGORIES: usize = 14;

impl Category {
    pub const ALL: [Category; CATEGORIES] = [
        Category::Kept,
        Category::Unsuccessful,
        Category::InProgress,
        Category::Overhead,
        Category::Lost,
        Category::Stalled,
        Category::Starting,
        Category::Stopping,
        Category::Down,
        Category::Fragmented,
        Category::IdleWaiting,
        Category::IdleNoDemand,
        Category::Switching,
        Category::Asleep,
    ];
    /// Those that running time is split into, the first ones.
    pub const RUNNING: usize = 6;

    pub const fn word(self) -> &'static str {
        match self {
            Category::Kept => "kept",
            Category::Unsuccessful => "unsuccessful",
            Category::InProgress => "in_progress",
            Category::Overhead => "overhead",
            Category::Lost => "lost",
            Category::Stalled => "stalled",
            Category::Starting => "starting",
            Category::Stopping => "stopping",
            Category::Down => "down",
            Category::Fragmented => "fragmented",
            Category::IdleWaiting => "idle_waiting",
            Category::IdleNoDemand => "idle_no_demand",
            Category::Switching => "switching",
            Category::Asleep => "asleep",
        }
    }
}

/// Thousandths of devices times milliseconds, by [`Category`].
pub type Spending = [u128; CATEGORIES];

/// Those of `running`, in the order of [`Category`].
pub(crate) fn running_parts(results: &[JobResult]) -> [u128; Category::RUNNING] {
    let mut parts = [0; Category::RUNNING];
    for result in results {
        let milli = u128::from(result.job.milli());
        let kept = match result.state {
            JobState::Succeeded => Category::Kept,
            JobState::Failed | JobState::Cancelled | JobState::TimedOut => Category::Unsuccessful,
            JobState::Unplaceable | JobState::Unfinished => Category::InProgress,
        };
        parts[kept as usize] += u128::from(result.used.kept_ms) * milli;
        parts[Category::Overhead as usize] += u128::from(result.used.overhead_ms) * milli;
        parts[Category::Lost as usize] += u128::from(result.used.lost_ms) * milli;
        parts[Category::Stalled as usize] += u128::from(result.used.stalled_ms) * milli;
    }
    parts
}

/// Every category of a run.
pub(crate) fn spending(results: &[JobResult], meter: &Meter) -> Spending {
    let time = &meter.total.device_time;
    let mut all = [0; CATEGORIES];
    all[..Category::RUNNING].copy_from_slice(&running_parts(results));
    for (category, of) in NOT_RUNNING {
        all[category as usize] = time[of as usize];
    }
    all
}

pub(crate) const NOT_RUNNING: [(Category, Use); CATEGORIES - Category::RUNNING] = [
    (Category::Starting, Use::Starting),
    (Category::Stopping, Use::Stopping),
    (Category::Down, Use::Down),
    (Category::Fragmented, Use::Fragmented),
    (Category::IdleWaiting, Use::IdleWaiting),
    (Category::IdleNoDemand, Use::IdleNoDemand),
    (Category::Switching, Use::Switching),
    (Category::Asleep, Use::Asleep),
];

pub(crate) fn gpu_h(milli_ms: u128) -> f64 {
    milli_ms as f64 / 1000.0 / HOUR_MS as f64
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Part {
    pub category: Category,
    pub gpu_h: f64,
    /// Of all that was paid for.
    pub percent: f64,
}

/// A cluster's time in figures. Shares are of all GPU-time, unless said otherwise.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Usage {
    pub paid_gpu_h: f64,
    /// Of spot machines while they were taken away, and of rented ones that slept; not paid for, and in none of the parts.
    pub away_gpu_h: f64,
    pub parts: Vec<Part>,
    /// Kept work, over all GPU-time.
    pub goodput: f64,
    /// Held by gangs.
    pub allocated: f64,
    /// Running, over what was not down.
    pub utilisation_of_healthy: f64,
    /// Work kept, over the time from submit to end times devices, of the jobs that ended (the
    /// effective training time ratio, queueing included).
    pub ettr: f64,
    /// Expected share of all capacity, and of what is free, that a typical job cannot use.
    pub fragmented_of_capacity: f64,
    pub fragmented_of_free: f64,
    /// Mean over time.
    pub waiting_gangs: f64,
    pub waiting_gpus: f64,
}

impl Usage {
    pub(crate) fn of(results: &[JobResult], meter: &Meter) -> Self {
        let paid = meter.paid();
        let spending = spending(results, meter);
        let time = &meter.total.device_time;
        let ratio = |part: u128, whole: u128| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let of = |which: Use| time[which as usize];
        let held = of(Use::Starting) + of(Use::Running) + of(Use::Stopping);
        let free = of(Use::IdleNoDemand) + of(Use::Fragmented) + of(Use::IdleWaiting);
        let part = |category: Category| Part {
            category,
            gpu_h: gpu_h(spending[category as usize]),
            percent: 100.0 * ratio(spending[category as usize], paid),
        };
        let ended = || results.iter().filter(|result| result.end.is_some() && result.served_ms > 0);
        let weight = |result: &JobResult| f64::from(result.job.devices);
        let kept: f64 = ended().map(|result| seconds(result.used.kept_ms) * weight(result)).sum();
        let there: f64 = ended().map(|result| seconds(result.turnaround_ms().unwrap_or(0)) * weight(result)).sum();
        let span_ms = u128::from(meter.now().since_ms(meter.begin()));
        Self {
            paid_gpu_h: gpu_h(paid),
            away_gpu_h: gpu_h(meter.whole() - paid),
            parts: Category::ALL.map(part).to_vec(),
            goodput: ratio(spending[Category::Kept as usize], paid),
            allocated: ratio(held, paid),
            utilisation_of_healthy: ratio(of(Use::Running), paid - of(Use::Down)),
            ettr: if there > 0.0 { kept / there } else { 0.0 },
            fragmented_of_capacity: ratio(meter.total.fragment, paid),
            fragmented_of_free: ratio(meter.total.fragment, free),
            waiting_gangs: ratio(meter.total.waiting_gangs, span_ms),
            waiting_gpus: ratio(meter.total.waiting_devices, span_ms),
        }
    }
}
