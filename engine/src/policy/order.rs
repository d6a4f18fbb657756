//! The orders by name, with their parameters and where they come from.

use super::{PolicyError, formula};
use muster_common::time::DAY_MS;
use serde::{Deserialize, Serialize};

/// Which waiting gang goes first. Lower score first; ties by submit time, then id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// By submit time.
    Fifo,
    /// By priority class, then by time waited: a class higher by one is worth `hours_per_class`
    /// hours of waiting, so nothing starves.
    Priority { hours_per_class: u32 },
    #[default]
    /// `Priority` with 24 hours a class.
    Default,
    /// Shortest run time first.
    Sjf,
    /// Shortest remaining run time first.
    Srtf,
    /// Fewest devices first.
    Smallest,
    /// F1 of Carastan-Santos and de Camargo, "Obtaining dynamic scheduling policies with
    /// simulation and machine learning", SC'17: log10(run) x devices + 870 log10(submit).
    F1,
    /// An expression over `run`, `remaining`, `devices`, `wait`, `submit`, `class`; see
    /// [`formula`].
    Formula(String),
    /// By Slurm's Fair Tree over accounts and users; of one user by class, then submit time.
    Fair,
    /// Slurm's multifactor priority, the highest first.
    Multifactor(Multifactor),
    /// Least attained service in two dimensions, Tiresias (Gu et al., NSDI'19).
    Las(Las),
    /// Highest Gittins index first, the 2D-Gittins of Tiresias (Gu et al., NSDI'19).
    Gittins(Gittins),
    /// WFP3 of Tang et al., "Fault-aware, utility-based job scheduling on Blue Gene/P systems",
    /// CLUSTER'09: the greatest (wait / run)^3 x devices first.
    Wfp3,
    /// UNICEP, as RLScheduler (Zhang et al., SC'20) has it from the same paper: the greatest
    /// wait / (log2(devices) x run) first.
    Unicep,
    /// Quasi-shortest service first, Helios (Hu et al., SC'21): the least run time x devices first.
    Qssf,
    /// Earliest `deadline` first; jobs without one after all that have one.
    Deadline,
}

/// How an order's answer moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stability {
    /// A waiting gang's place never moves against another's.
    Static,
    /// Places move only with those of whole lanes: a lane is one user of one account, and a waiting
    /// gang changes lanes at most once.
    ByLane,
    /// Places move against each other as time passes; all are looked at again in each cycle.
    Timed,
}

impl Order {
    pub fn stability(&self) -> Stability {
        match self {
            Order::Fair | Order::Multifactor(_) => Stability::ByLane,
            Order::Wfp3 | Order::Unicep => Stability::Timed,
            Order::Las(las) if las.promote_after.is_some() => Stability::Timed,
            Order::Formula(text) => match formula::Formula::parse(text) {
                Ok(formula) if formula.is_timed() => Stability::Timed,
                _ => Stability::Static,
            },
            _ => Stability::Static,
        }
    }

    /// In a word, as people write it.
    pub const fn word(&self) -> &'static str {
        match self {
            Order::Fifo => "fifo",
            Order::Priority { .. } => "priority",
            Order::Default => "default",
            Order::Sjf => "sjf",
            Order::Srtf => "srtf",
            Order::Smallest => "smallest",
            Order::F1 => "f1",
            Order::Formula(_) => "formula",
            Order::Fair => "fair",
            Order::Multifactor(_) => "multifactor",
            Order::Las(_) => "las",
            Order::Gittins(_) => "gittins",
            Order::Wfp3 => "wfp3",
            Order::Unicep => "unicep",
            Order::Qssf => "qssf",
            Order::Deadline => "deadline",
        }
    }

    pub(super) fn validate(&self) -> Result<(), PolicyError> {
        match self {
            Order::Formula(text) => {
                formula::Formula::parse(text)?;
                Ok(())
            }
            Order::Priority { hours_per_class } if !(1..=87_600).contains(hours_per_class) => Err(PolicyError::Hours),
            Order::Multifactor(multifactor) => multifactor.validate(),
            Order::Las(las) => las.validate(),
            Order::Gittins(gittins) => gittins.validate(),
            _ => Ok(()),
        }
    }
}

/// Slurm's `priority/multifactor` (doc/html/priority_multifactor.shtml): the sum of weight x factor,
/// each factor between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Multifactor {
    /// Of the priority class: 0 for the lowest there is, 1 for the highest.
    pub class: i64,
    /// Of the time since submission: 1 from `max_age_ms` on.
    pub age: i64,
    /// Of the rank by Fair Tree, over the number of users.
    pub fair: i64,
    /// Of the devices asked for: 1 from `full_size` on.
    pub size: i64,
    /// Of the account's `priority`, over the highest there is.
    pub account: i64,
    /// Slurm's PriorityMaxAge.
    pub max_age_ms: u64,
    /// Devices; what Slurm takes from the size of its cluster.
    pub full_size: u32,
    /// Slurm's PriorityFavorSmall: the size factor is 1 less the above.
    pub favor_small: bool,
}

impl Default for Multifactor {
    fn default() -> Self {
        Self {
            class: 0,
            age: 0,
            fair: 0,
            size: 0,
            account: 0,
            max_age_ms: 7 * DAY_MS,
            full_size: 1024,
            favor_small: false,
        }
    }
}

const WEIGHT_MAX: i64 = 1_000_000_000;

impl Multifactor {
    fn validate(&self) -> Result<(), PolicyError> {
        let Self { class, age, fair, size, account, .. } = *self;
        let weights = [("class", class), ("age", age), ("fair", fair), ("size", size), ("account", account)];
        if let Some((name, weight)) = weights.into_iter().find(|(_, weight)| !(0..=WEIGHT_MAX).contains(weight)) {
            let what = format!("a weight of {weight}; it is between 0 and {WEIGHT_MAX}");
            return Err(PolicyError::Order(format!("multifactor.{name}"), what));
        }
        if !(1000..=3660 * DAY_MS).contains(&self.max_age_ms) {
            let what = format!("{}; it is between 1000 and {}", self.max_age_ms, 3660 * DAY_MS);
            return Err(PolicyError::Order("multifactor.max_age_ms".into(), what));
        }
        if self.full_size == 0 {
            return Err(PolicyError::Order("multifactor.full_size".into(), "0 devices; it is at least 1".into()));
        }
        Ok(())
    }
}

/// Attained service is devices x time run, over all attempts. A gang is in the first queue whose limit
/// it has not reached. Within a queue those that run go first, by their start, then those that wait, by when
/// they began to wait; what runs and comes into its next queue stands at the end of that for a moment, as in
/// Tiresias' simulator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Las {
    /// Rising, in device-seconds. One queue more than limits.
    pub limits: Vec<u64>,
    /// Back to the first queue after waiting for this many times the time it has run (Tiresias'
    /// PROMOTEKNOB). `None` = never.
    pub promote_after: Option<u32>,
}

impl Default for Las {
    /// The limits of Tiresias' simulator.
    fn default() -> Self {
        Self { limits: vec![3250, 7200], promote_after: None }
    }
}

const LIMITS_MAX: usize = 16;

impl Las {
    fn validate(&self) -> Result<(), PolicyError> {
        let rising = self.limits.windows(2).all(|pair| pair[0] < pair[1]);
        if self.limits.is_empty() || self.limits.len() > LIMITS_MAX || !rising || self.limits[0] == 0 {
            let what =
                format!("{:?}; they are 1 to {LIMITS_MAX} rising numbers of device-seconds above 0", self.limits);
            return Err(PolicyError::Order("las.limits".into(), what));
        }
        if self.promote_after == Some(0) {
            return Err(PolicyError::Order("las.promote_after".into(), "0; leave it out for never".into()));
        }
        Ok(())
    }
}

/// The index of a gang with attained service a: P(S <= a + d | S > a) over E[min(S, a + d) - a | S > a],
/// with S drawn from `services` and d the `quantum`. One that outlives them all goes last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gittins {
    /// In device-seconds.
    pub quantum: u64,
    /// What jobs have taken in all, in device-seconds; order does not matter.
    pub services: Vec<u64>,
}

const SERVICES_MAX: usize = 4096;

impl Gittins {
    fn validate(&self) -> Result<(), PolicyError> {
        if self.quantum == 0 {
            return Err(PolicyError::Order("gittins.quantum".into(), "0 device-seconds; it is at least 1".into()));
        }
        if self.services.is_empty() || self.services.len() > SERVICES_MAX {
            let what = format!("{} of them; there are 1 to {SERVICES_MAX}", self.services.len());
            return Err(PolicyError::Order("gittins.services".into(), what));
        }
        Ok(())
    }

    /// The index of a gang that has attained so many device-seconds.
    pub fn index(&self, attained: f64) -> f64 {
        let until = attained + self.quantum as f64;
        let longer = self.services.iter().map(|service| *service as f64).filter(|service| *service > attained);
        let (ends, takes) = longer.fold((0.0, 0.0), |(ends, takes), service| {
            (ends + f64::from(service <= until), takes + service.min(until) - attained)
        });
        // Both over the same number of services, which falls out.
        if takes > 0.0 { ends / takes } else { 0.0 }
    }
}
