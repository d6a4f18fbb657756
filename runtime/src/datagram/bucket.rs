//! How much one peer may send.

/// So many at once, and so many a second in the long run.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: u64,
    burst_milli: u64,
    /// Thousandths of a datagram.
    left_milli: u64,
    at_ms: u64,
}

impl Bucket {
    /// Full at `now_ms`.
    pub(super) fn new(per_second: u32, burst: u32, now_ms: u64) -> Self {
        let burst_milli = u64::from(burst) * 1000;
        Self { per_second: per_second.into(), burst_milli, left_milli: burst_milli, at_ms: now_ms }
    }

    /// True when one more is within bounds.
    pub(super) fn take(&mut self, now_ms: u64) -> bool {
        // Thousandths a second are whole ones a millisecond.
        let fresh = now_ms.saturating_sub(self.at_ms).saturating_mul(self.per_second);
        self.at_ms = self.at_ms.max(now_ms);
        self.left_milli = self.left_milli.saturating_add(fresh).min(self.burst_milli);
        let within = self.left_milli >= 1000;
        if within {
            self.left_milli -= 1000;
        }
        within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_and_then_the_rate() {
        let mut bucket = Bucket::new(10, 3, 5_000);
        let taken = |bucket: &mut Bucket, now_ms| (0..10).filter(|_| bucket.take(now_ms)).count();
        assert_eq!(taken(&mut bucket, 5_000), 3);
        assert_eq!(taken(&mut bucket, 5_099), 0);
        assert_eq!(taken(&mut bucket, 5_100), 1);
        assert_eq!(taken(&mut bucket, 5_000), 0, "time does not go back");
        assert_eq!(taken(&mut bucket, 90_000), 3, "what was not used does not pile up");
    }
}
