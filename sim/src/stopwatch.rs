//! What a play costs whoever waits for it: time of decisions, events a second, memory. None of it is in the files of
//! results, whose bytes depend on the inputs alone.

use serde::Serialize;
use std::time::{Duration, Instant};

/// Parts of each doubling that are told apart: a percentile is too large by less than 4 %.
const PARTS_LOG2: u32 = 5;
const BUCKETS: usize = (64 - PARTS_LOG2 as usize + 1) << PARTS_LOG2;

/// How long a play took, by the clock of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Timing {
    /// Cycles, whether or not they decided something.
    pub decisions: u64,
    pub decision_p50_us: f64,
    pub decision_p99_us: f64,
    pub decision_max_us: f64,
    /// From the first submit to the end, without reading inputs and writing results.
    pub play_s: f64,
    pub events: u64,
    pub events_per_s: f64,
    /// The most that this process ever had; only Linux tells.
    pub peak_memory_bytes: Option<u64>,
}

/// Runs while something is played.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    begun: Instant,
    cycle: Option<Instant>,
    /// Cycles by how long they took.
    buckets: Vec<u64>,
    decisions: u64,
    longest_ns: u64,
    pub events: u64,
}

impl Stopwatch {
    pub fn start() -> Self {
        let buckets = vec![0; BUCKETS];
        Self { begun: Instant::now(), cycle: None, buckets, decisions: 0, longest_ns: 0, events: 0 }
    }

    pub fn cycle_begins(&mut self) {
        self.cycle = Some(Instant::now());
    }

    pub fn cycle_ends(&mut self) {
        if let Some(begun) = self.cycle.take() {
            self.took(begun.elapsed());
        }
    }

    fn took(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(ns)] += 1;
        self.decisions += 1;
        self.longest_ns = self.longest_ns.max(ns);
    }

    fn percentile_us(&self, share: f64) -> f64 {
        let wanted = ((self.decisions as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let at = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        at.map_or(0.0, |at| most_ns(at).min(self.longest_ns) as f64 / 1000.0)
    }

    pub fn stop(&self) -> Timing {
        let play_s = self.begun.elapsed().as_secs_f64();
        Timing {
            decisions: self.decisions,
            decision_p50_us: self.percentile_us(0.5),
            decision_p99_us: self.percentile_us(0.99),
            decision_max_us: self.longest_ns as f64 / 1000.0,
            play_s,
            events: self.events,
            events_per_s: if play_s > 0.0 { self.events as f64 / play_s } else { 0.0 },
            peak_memory_bytes: std::fs::read_to_string("/proc/self/status").ok().and_then(|text| peak_bytes(&text)),
        }
    }
}

/// Small ones each have their own; of each doubling above there are equal parts.
fn bucket(ns: u64) -> usize {
    let doublings = (u64::BITS - ns.leading_zeros()).saturating_sub(PARTS_LOG2 + 1);
    ((doublings as usize) << PARTS_LOG2) + (ns >> doublings) as usize
}

/// The largest of a bucket.
fn most_ns(bucket: usize) -> u64 {
    let parts = 1 << PARTS_LOG2;
    let doublings = (bucket / parts).saturating_sub(1);
    let part = (bucket - doublings * parts) as u64;
    u64::try_from((u128::from(part + 1) << doublings) - 1).unwrap_or(u64::MAX)
}

/// Out of `/proc/self/status`.
fn peak_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_counted_in_it_and_little_else() {
        let mut last = 0;
        for ns in (0..5_000).chain((6..58).map(|at| 97_u64 << at)).chain([u64::MAX]) {
            let at = bucket(ns);
            assert!(at >= last && at < BUCKETS, "{ns}");
            let most = most_ns(at);
            assert!(most >= ns && (most - ns) as f64 <= ns as f64 / 32.0, "{ns} is told as {most}");
            last = at;
        }
    }

    #[test]
    fn percentiles_are_those_of_the_times_measured() {
        let mut watch = Stopwatch::start();
        (1..=200).for_each(|us| watch.took(Duration::from_micros(us)));
        let timing = watch.stop();
        assert_eq!((timing.decisions, timing.decision_max_us), (200, 200.0));
        assert!((100.0..104.0).contains(&timing.decision_p50_us), "{timing:?}");
        assert!((198.0..=200.0).contains(&timing.decision_p99_us), "{timing:?}");
        assert_eq!(Stopwatch::start().stop().decision_p99_us, 0.0);
    }

    #[test]
    fn peak_memory_is_read_where_it_is_told() {
        assert_eq!(peak_bytes("VmPeak:\t 9 kB\nVmHWM:\t    1536 kB\nVmRSS:\t 4 kB\n"), Some(1_572_864));
        assert_eq!((peak_bytes("VmRSS: 4 kB\n"), peak_bytes("VmHWM: much\n")), (None, None));
    }
}
