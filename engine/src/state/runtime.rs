//! Run times seen, for each user and job name: bounded sketches of their quantiles, in integers.
//!
//! A sketch counts run times in buckets that grow with their value, eight to each doubling (as DDSketch
//! does, Masson, Rim and Lee, VLDB'19), so that a quantile is off by at most a sixteenth. Old counts are
//! halved when there are many, so what is seen lately weighs more.

use crate::command::Principal;
use crate::table::Table;
use muster_common::Name;
use serde::{Deserialize, Serialize};

/// Most pairs of user and job name; beyond, those not seen for longest are forgotten.
pub const SKETCHES_MAX: usize = 20_000;
/// Counts of one sketch together; then all are halved.
const COUNTS_MAX: u32 = 256;
/// Buckets to a doubling, as a power of two.
const STEP_BITS: u32 = 3;

/// A user and the name of a job.
pub type Kind = (Principal, Name);

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RunTimes {
    sketches: Table<Kind, Sketch>,
    /// By the log index that last added to them.
    ages: Table<(u64, Kind), ()>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sketch {
    /// Bucket and count, by rising bucket; none is empty.
    buckets: Vec<(u16, u16)>,
    seen_at: u64,
}

/// The bucket of a run time: its highest four bits and where they stand.
fn bucket_of(ms: u64) -> u16 {
    let ms = ms.max(1);
    let doublings = ms.ilog2();
    let step = if doublings >= STEP_BITS { ms >> (doublings - STEP_BITS) } else { ms << (STEP_BITS - doublings) };
    (doublings << STEP_BITS) as u16 + (step & ((1 << STEP_BITS) - 1)) as u16
}

/// The middle of a bucket.
fn middle_of(bucket: u16) -> u64 {
    let doublings = u32::from(bucket) >> STEP_BITS;
    let step = u128::from(bucket & ((1 << STEP_BITS) - 1)) + (1 << STEP_BITS);
    // (step + 1/2) eighths of the doubling.
    u64::try_from((2 * step + 1) << doublings >> (STEP_BITS + 1)).unwrap_or(u64::MAX)
}

impl Sketch {
    fn add(&mut self, ms: u64, index: u64) {
        self.seen_at = index;
        let bucket = bucket_of(ms);
        match self.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => self.buckets[at].1 += 1,
            Err(at) => self.buckets.insert(at, (bucket, 1)),
        }
        if self.count() > COUNTS_MAX {
            self.buckets.iter_mut().for_each(|(_, count)| *count /= 2);
            self.buckets.retain(|(_, count)| *count > 0);
        }
    }

    /// Run times that count.
    pub fn count(&self) -> u32 {
        self.buckets.iter().map(|(_, count)| u32::from(*count)).sum()
    }

    /// The run time that so many thousandths of all do not exceed, within a sixteenth; `None` of none.
    pub fn quantile_ms(&self, thousandths: u32) -> Option<u64> {
        let wanted = (u64::from(self.count()) * u64::from(thousandths.min(1000))).div_ceil(1000).max(1);
        let mut seen = 0;
        self.buckets.iter().find_map(|(bucket, count)| {
            seen += u64::from(*count);
            (seen >= wanted).then(|| middle_of(*bucket))
        })
    }
}

impl RunTimes {
    pub fn get(&self, user: &Principal, name: &Name) -> Option<&Sketch> {
        self.sketches.get(&(user.clone(), name.clone()))
    }

    pub fn len(&self) -> usize {
        self.sketches.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sketches.is_empty()
    }

    pub(crate) fn add(&mut self, kind: Kind, ms: u64, index: u64) {
        let mut sketch = self.sketches.get(&kind).cloned().unwrap_or_default();
        self.ages.remove(&(sketch.seen_at, kind.clone()));
        sketch.add(ms, index);
        self.ages.insert((index, kind.clone()), ());
        self.sketches.insert(kind, sketch);
        while self.sketches.len() > SKETCHES_MAX
            && let Some(((seen_at, oldest), ())) = self.ages.first().map(|(key, ())| (key.clone(), ()))
        {
            self.ages.remove(&(seen_at, oldest.clone()));
            self.sketches.remove(&oldest);
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let aged =
            |(seen_at, kind): &(u64, Kind)| self.sketches.get(kind).is_some_and(|known| known.seen_at == *seen_at);
        if self.sketches.len() != self.ages.len() || !self.ages.keys().all(aged) {
            return Err("sketches of run times and their ages differ".into());
        }
        match self.sketches.len() > SKETCHES_MAX || self.sketches.values().any(|sketch| sketch.count() > COUNTS_MAX) {
            true => Err("sketches of run times are beyond their bounds".into()),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_within_a_sixteenth_of_what_is_in_it() {
        for ms in (1..5000).chain([1 << 40, (1 << 40) + 12345, u64::MAX / 3]) {
            let middle = middle_of(bucket_of(ms)) as f64;
            assert!((middle / ms as f64 - 1.0).abs() <= 1.0 / 16.0 + 1.0 / ms as f64, "{ms} in {middle}");
        }
        assert!((0..10_000u64).map(bucket_of).is_sorted());
    }

    #[test]
    fn quantiles_follow_what_was_seen_lately() {
        let mut sketch = Sketch::default();
        assert_eq!(sketch.quantile_ms(500), None);
        (1..=100).for_each(|n| sketch.add(n * 1000, n));
        let near = |ms: Option<u64>, expected: f64| (ms.unwrap() as f64 / expected - 1.0).abs() < 0.07;
        assert!(near(sketch.quantile_ms(500), 50_000.0) && near(sketch.quantile_ms(900), 90_000.0));
        assert!(near(sketch.quantile_ms(0), 1000.0) && near(sketch.quantile_ms(1000), 100_000.0));
        (0..1000).for_each(|n| sketch.add(5000, n));
        assert!(near(sketch.quantile_ms(500), 5000.0) && sketch.count() <= COUNTS_MAX);
    }

    #[test]
    fn what_was_not_seen_for_longest_is_forgotten_first() {
        let kind = |n: usize| (Principal("alice".into()), Name::new(format!("job-{n}")).unwrap());
        let mut known = RunTimes::default();
        (0..SKETCHES_MAX).for_each(|n| known.add(kind(n), 1000, n as u64));
        known.add(kind(0), 1000, 1_000_000);
        known.add(kind(SKETCHES_MAX), 1000, 1_000_001);
        assert_eq!(known.len(), SKETCHES_MAX);
        assert!(known.get(&kind(0).0, &kind(0).1).is_some() && known.get(&kind(1).0, &kind(1).1).is_none());
        known.check().unwrap();
    }
}
