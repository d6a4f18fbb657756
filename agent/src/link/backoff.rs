//! Growing, jittered waits, so that ten thousand agents do not come back at one instant.

const FIRST_MS: u64 = 100;
const MOST_MS: u64 = 5_000;

/// A wait is between half and all of the present bound, which doubles.
#[derive(Debug, Clone)]
pub struct Backoff {
    bound_ms: u64,
    random: u64,
}

impl Backoff {
    /// Agents with different seeds wait differently.
    pub fn new(seed: u64) -> Self {
        Self { bound_ms: FIRST_MS, random: seed | 1 }
    }

    pub fn next_ms(&mut self) -> u64 {
        let bound_ms = self.bound_ms;
        self.bound_ms = (bound_ms * 2).min(MOST_MS);
        // Xorshift: spread is all that is asked of it.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        bound_ms / 2 + self.random % (bound_ms / 2 + 1)
    }

    pub fn reset(&mut self) {
        self.bound_ms = FIRST_MS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_differ_by_seed() {
        let waits = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..20).map(|_| backoff.next_ms()).collect::<Vec<_>>()
        };
        for (wait_ms, bound_ms) in waits(7).into_iter().zip([100, 200, 400, 800, 1600, 3200, 5000, 5000]) {
            assert!((bound_ms / 2..=bound_ms).contains(&wait_ms), "{wait_ms} of {bound_ms}");
        }
        assert!(waits(7).iter().all(|wait_ms| *wait_ms <= MOST_MS));
        assert_ne!(waits(7), waits(8));
        let mut backoff = Backoff::new(7);
        backoff.next_ms();
        backoff.reset();
        assert!(backoff.next_ms() <= FIRST_MS);
    }
}
