//! Invented work: mixes of jobs whose sizes and run times have the moments of published clusters,
//! arriving by a pattern, at a given load.

use super::TraceJob;
use crate::draw::Draw;
use muster_common::Name;
use muster_common::time::{DAY_MS, HOUR_MS};
use std::collections::BTreeMap;

/// What to make.
#[derive(Debug, Clone)]
pub struct GenArgs {
    pub devices: u32,
    /// Work offered over what the devices could do in the time.
    pub load: f64,
    pub days: f64,
    /// Kinds of jobs by name, and their shares of all jobs.
    pub mix: Vec<(String, f64)>,
    pub arrivals: Arrivals,
    /// Requested over real run time is a draw of at least 1; this is the spread of its logarithm.
    pub estimate_sigma: f64,
    pub users: u32,
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// As a Poisson process.
    Uniform,
    /// More by day than by night, and on weekdays than at weekends.
    Daily,
    /// In bursts: each of a user's submits many alike jobs within minutes.
    Bursts,
}

/// Moments of a kind of job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kind {
    pub name: &'static str,
    pub mean_run_s: f64,
    pub median_run_s: f64,
    pub mean_devices: f64,
    pub max_devices: u32,
}

/// The first five from the summary of Hu et al., "Characterization of Large Language Model
/// Development in the Datacenter", NSDI 2024 (CC-BY-4.0); the last three are this project's own.
pub const KINDS: [Kind; 8] = [
    Kind { name: "philly", mean_run_s: 18_006.0, median_run_s: 874.0, mean_devices: 1.93, max_devices: 128 },
    Kind { name: "helios", mean_run_s: 6_652.0, median_run_s: 206.0, mean_devices: 3.72, max_devices: 2_048 },
    Kind { name: "pai", mean_run_s: 4_787.0, median_run_s: 481.0, mean_devices: 1.0, max_devices: 8 },
    Kind { name: "seren", mean_run_s: 1_414.0, median_run_s: 122.0, mean_devices: 5.68, max_devices: 1_024 },
    Kind { name: "kalos", mean_run_s: 1_260.0, median_run_s: 124.0, mean_devices: 26.77, max_devices: 1_024 },
    Kind { name: "train", mean_run_s: 43_200.0, median_run_s: 14_400.0, mean_devices: 32.0, max_devices: 512 },
    Kind { name: "finetune", mean_run_s: 7_200.0, median_run_s: 3_600.0, mean_devices: 8.0, max_devices: 64 },
    Kind { name: "debug", mean_run_s: 900.0, median_run_s: 300.0, mean_devices: 1.5, max_devices: 8 },
];

/// Most jobs of one trace.
const JOBS_MAX: usize = 10_000_000;
/// No job runs longer.
const RUN_MS_MAX: u64 = 60 * DAY_MS;
/// Requested times go up to so many times the run time.
const ESTIMATE_MAX: f64 = 20.0;
/// Mean jobs of a burst.
const BURST_MEAN: f64 = 8.0;

impl Kind {
    pub fn named(name: &str) -> Option<&'static Kind> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// Of a log-normal run time with this mean and median.
    fn sigma(&self) -> f64 {
        (2.0 * libm::log(self.mean_run_s / self.median_run_s)).max(0.0).sqrt()
    }

    /// Sizes are powers of two, each `q` times as frequent as the one below; `q` such that the mean
    /// is the given one. Cumulative.
    fn sizes(&self, devices: u32) -> Vec<(u32, f64)> {
        let largest = self.max_devices.min(devices).max(1);
        let sizes: Vec<u32> = (0..32).map(|power| 1u32 << power).take_while(|size| *size <= largest).collect();
        let mean = |q: f64| {
            let weights: Vec<f64> = (0..sizes.len()).map(|at| libm::pow(q, at as f64)).collect();
            let all: f64 = weights.iter().sum();
            weights.iter().zip(&sizes).map(|(weight, size)| weight * f64::from(*size)).sum::<f64>() / all
        };
        let (mut low, mut high) = (0.0, 4.0);
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if mean(middle) < self.mean_devices { low = middle } else { high = middle }
        }
        let weights: Vec<f64> = (0..sizes.len()).map(|at| libm::pow(low, at as f64)).collect();
        let all: f64 = weights.iter().sum();
        let mut sum = 0.0;
        sizes
            .iter()
            .zip(weights)
            .map(|(size, weight)| {
                sum += weight / all;
                (*size, sum)
            })
            .collect()
    }
}

impl GenArgs {
    fn check(&self) -> Result<Vec<(&'static Kind, f64)>, String> {
        if self.devices == 0 {
            return Err("there must be devices to make work for".into());
        }
        let within = |value: f64, most: f64| value > 0.0 && value <= most;
        if !within(self.load, 100.0) || !within(self.days, 10_000.0) {
            return Err("the load must be above 0 and at most 100, the days above 0 and at most 10000".into());
        }
        if !(0.0..=5.0).contains(&self.estimate_sigma) || self.users == 0 {
            return Err("the spread of estimates is from 0 to 5, and there are from 1 to 100000 users".into());
        }
        let all: f64 = self.mix.iter().map(|(_, share)| share).sum();
        let kind = |(name, share): &(String, f64)| {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            let kind = Kind::named(name)
                .ok_or_else(|| format!("there is no kind of job `{name}`; there are {}", known.join(", ")))?;
            if !(share.is_finite() && *share > 0.0) {
                return Err(format!("the share of `{name}` must be above 0"));
            }
            Ok((kind, share / all))
        };
        let kinds: Vec<_> = self.mix.iter().map(kind).collect::<Result<_, String>>()?;
        if kinds.is_empty() { Err("the mix is empty".into()) } else { Ok(kinds) }
    }
}

/// Makes jobs until the load is offered, in the order of their arrival. A job is named by its
/// place in it.
///
/// # Errors
/// What is wrong with the arguments, or that they make too many jobs.
pub fn generate(args: &GenArgs) -> Result<Vec<TraceJob>, String> {
    let kinds = args.check()?;
    let sizes: Vec<Vec<(u32, f64)>> = kinds.iter().map(|(kind, _)| kind.sizes(args.devices)).collect();
    let span_ms = (args.days * DAY_MS as f64) as u64;
    let wanted = args.load * f64::from(args.devices) * span_ms as f64;
    let mut draw = Draw::of(args.seed, "jobs", 0);
    let mut arrivals = Moments::new(args, span_ms);
    let (mut jobs, mut offered) = (Vec::new(), 0.0);
    while offered < wanted {
        if jobs.len() == JOBS_MAX {
            return Err(format!("that is more than {JOBS_MAX} jobs; lower the load or the days"));
        }
        let which = pick(&mut draw, kinds.iter().map(|(_, share)| *share));
        let mut job = job(&mut draw, kinds[which].0, &sizes[which], args);
        // The last one is cut, so that the load is met and not passed.
        let left_ms = ((wanted - offered) / f64::from(job.devices)).ceil() as u64;
        if job.run_ms > left_ms {
            job.run_ms = left_ms.max(1);
            job.requested_ms = job.requested_ms.max(job.run_ms);
        }
        offered += job.device_ms() as f64;
        let (submit_ms, user) = arrivals.next();
        job.submit_ms = submit_ms;
        job.user = Some(format!("u{user}"));
        jobs.push(job);
    }
    jobs.sort_by_key(|job| job.submit_ms);
    jobs.iter_mut().enumerate().for_each(|(at, job)| job.id = at.to_string());
    Ok(jobs)
}

fn pick(draw: &mut Draw, shares: impl Iterator<Item = f64>) -> usize {
    let at = draw.unit();
    let mut sum = 0.0;
    let mut last = 0;
    for (which, share) in shares.enumerate() {
        sum += share;
        last = which;
        if at <= sum {
            break;
        }
    }
    last
}

fn job(draw: &mut Draw, kind: &Kind, sizes: &[(u32, f64)], args: &GenArgs) -> TraceJob {
    let at = draw.unit();
    let devices = sizes.iter().find(|(_, upto)| at <= *upto).or(sizes.last()).map_or(1, |(size, _)| *size);
    let run_s = kind.median_run_s * draw.lognormal(kind.sigma());
    let run_ms = ((run_s * 1000.0) as u64).clamp(1_000, RUN_MS_MAX);
    let over = if args.estimate_sigma > 0.0 { draw.lognormal(args.estimate_sigma) } else { 1.0 };
    let requested_ms = (run_ms as f64 * if over < 1.0 { 1.0 / over } else { over }.min(ESTIMATE_MAX)) as u64;
    TraceJob {
        run_ms,
        requested_ms: requested_ms.max(run_ms),
        devices,
        account: Some(Name::literal(kind.name)),
        ..TraceJob::default()
    }
}

/// When jobs arrive, and whose they are.
struct Moments {
    draw: Draw,
    arrivals: Arrivals,
    span_ms: u64,
    /// Users by their share of jobs, cumulative.
    users: Vec<f64>,
    /// Of a burst that has not ended.
    burst: Option<(u64, u32, u64)>,
}

impl Moments {
    fn new(args: &GenArgs, span_ms: u64) -> Self {
        let draw = Draw::of(args.seed, "arrivals", 0);
        // The k-th user has a k-th of the first one's jobs.
        let all: f64 = (1..=args.users).map(|user| 1.0 / f64::from(user)).sum();
        let mut sum = 0.0;
        let share = |user: u32| {
            sum += 1.0 / f64::from(user) / all;
            sum
        };
        let users = (1..=args.users).map(share).collect();
        Self { draw, arrivals: args.arrivals, span_ms, users, burst: None }
    }

    fn next(&mut self) -> (u64, u32) {
        match self.arrivals {
            Arrivals::Uniform => (self.draw.below(self.span_ms), self.user()),
            Arrivals::Daily => loop {
                let at = self.draw.below(self.span_ms);
                if self.draw.unit() <= busyness(at) {
                    break (at, self.user());
                }
            },
            Arrivals::Bursts => {
                let (at, user, left) = match self.burst.take() {
                    Some(burst) => burst,
                    None => {
                        let jobs = self.draw.exponential_ms(BURST_MEAN);
                        (self.draw.below(self.span_ms), self.user(), jobs)
                    }
                };
                let later = at.saturating_add(self.draw.exponential_ms(30_000.0)).min(self.span_ms);
                self.burst = (left > 1).then_some((later, user, left - 1));
                (at, user)
            }
        }
    }

    fn user(&mut self) -> u32 {
        let at = self.draw.unit();
        self.users.partition_point(|upto| *upto < at).min(self.users.len() - 1) as u32
    }
}

/// From 0 to 1: full at two in the afternoon of a weekday, a fifth at night, half of it at
/// weekends. The first day is a Monday.
fn busyness(at_ms: u64) -> f64 {
    let hour = (at_ms % DAY_MS) as f64 / HOUR_MS as f64;
    let daily = 0.6 + 0.4 * libm::cos((hour - 14.0) * std::f64::consts::TAU / 24.0);
    if at_ms / DAY_MS % 7 >= 5 { daily / 2.0 } else { daily }
}

/// Jobs and device time by kind.
pub fn shares(jobs: &[TraceJob]) -> BTreeMap<String, (u64, f64)> {
    let mut shares: BTreeMap<String, (u64, f64)> = BTreeMap::new();
    for job in jobs {
        let entry = shares.entry(job.account.as_ref().map(ToString::to_string).unwrap_or_default()).or_default();
        entry.0 += 1;
        entry.1 += job.device_ms() as f64 / HOUR_MS as f64;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> GenArgs {
        GenArgs {
            devices: 1024,
            load: 0.9,
            days: 30.0,
            mix: vec![("philly".into(), 0.5), ("helios".into(), 0.5)],
            arrivals: Arrivals::Uniform,
            estimate_sigma: 0.0,
            users: 20,
            seed: 3,
        }
    }

    #[test]
    fn the_load_is_met_exactly() {
        let jobs = generate(&args()).unwrap();
        let offered: u128 = jobs.iter().map(TraceJob::device_ms).sum();
        let wanted = 0.9 * 1024.0 * 30.0 * DAY_MS as f64;
        assert!((offered as f64 / wanted - 1.0).abs() < 1e-6);
        assert!(jobs.windows(2).all(|pair| pair[0].submit_ms <= pair[1].submit_ms));
        assert_eq!(generate(&args()).unwrap(), jobs);
    }

    #[test]
    fn kinds_have_their_moments() {
        for kind in &KINDS {
            let mut draw = Draw::of(1, kind.name, 0);
            let sizes = kind.sizes(4096);
            let jobs: Vec<TraceJob> = (0..40_000).map(|_| job(&mut draw, kind, &sizes, &args())).collect();
            let mean_devices = jobs.iter().map(|job| f64::from(job.devices)).sum::<f64>() / jobs.len() as f64;
            assert!((mean_devices / kind.mean_devices - 1.0).abs() < 0.1, "{}: {mean_devices}", kind.name);
            let mut runs: Vec<u64> = jobs.iter().map(|job| job.run_ms).collect();
            runs.sort_unstable();
            let median_s = runs[runs.len() / 2] as f64 / 1000.0;
            assert!((median_s / kind.median_run_s - 1.0).abs() < 0.1, "{}: {median_s}", kind.name);
        }
    }

    #[test]
    fn days_have_their_nights() {
        let jobs = generate(&GenArgs { arrivals: Arrivals::Daily, ..args() }).unwrap();
        let in_hours = |from: u64, to: u64| {
            let hour = |job: &&TraceJob| (from..to).contains(&(job.submit_ms % DAY_MS / HOUR_MS));
            jobs.iter().filter(hour).count()
        };
        assert!(in_hours(12, 16) > 2 * in_hours(0, 4));
        let bursts = generate(&GenArgs { arrivals: Arrivals::Bursts, ..args() }).unwrap();
        let close =
            |jobs: &[TraceJob]| jobs.windows(2).filter(|pair| pair[1].submit_ms - pair[0].submit_ms < 1_000).count();
        assert!(close(&bursts) > close(&jobs));
    }

    #[test]
    fn mistakes_are_named() {
        let told = |args: GenArgs| generate(&args).unwrap_err();
        assert!(told(GenArgs { mix: vec![("llm".into(), 1.0)], ..args() }).contains("philly"));
        assert!(told(GenArgs { load: 0.0, ..args() }).contains("load"));
        assert!(told(GenArgs { mix: vec![("debug".into(), -1.0)], ..args() }).contains("above 0"));
    }
}
