//! Random draws that are the same on every machine: a stream for each purpose, from one seed.

/// A stream of draws (SplitMix64, Steele, Lea and Flood, OOPSLA 2014). Streams of different names
/// or numbers have nothing to do with each other, so that one thing drawn more never moves another.
#[derive(Debug, Clone)]
pub struct Draw(u64);

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Draw {
    pub fn of(seed: u64, stream: &str, number: u64) -> Self {
        let mut state = mixed(seed ^ GOLDEN);
        for byte in stream.bytes() {
            state = mixed(state ^ u64::from(byte));
        }
        Self(mixed(state ^ number))
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mixed(self.0)
    }

    /// Above 0, at most 1.
    pub fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// From 0, below `count`; 0 where there is nothing to choose from.
    pub fn below(&mut self, count: u64) -> u64 {
        // The bias is below count / 2^64.
        ((u128::from(self.bits()) * u128::from(count)) >> 64) as u64
    }

    /// The time to the next event of a Poisson process, at least 1 ms.
    pub fn exponential_ms(&mut self, mean_ms: f64) -> u64 {
        let ms = -libm::log(self.unit()) * mean_ms;
        if ms.is_finite() { (ms as u64).max(1) } else { u64::MAX }
    }

    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(self.unit()));
        radius * libm::cos(std::f64::consts::TAU * self.unit())
    }

    /// With median 1; `sigma` is that of the logarithm.
    pub fn lognormal(&mut self, sigma: f64) -> f64 {
        libm::exp(sigma * self.normal())
    }
}

const fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_their_means() {
        let mut draw = Draw::of(7, "test", 0);
        let mean = |draws: &mut dyn FnMut() -> f64| (0..100_000).map(|_| draws()).sum::<f64>() / 100_000.0;
        assert!((mean(&mut || draw.unit()) - 0.5).abs() < 0.005);
        assert!((mean(&mut || draw.exponential_ms(1000.0) as f64) - 1000.0).abs() < 15.0);
        assert!(mean(&mut || draw.normal()).abs() < 0.02);
        assert!((mean(&mut || draw.below(10) as f64) - 4.5).abs() < 0.05);
    }

    #[test]
    fn streams_differ_and_repeat() {
        let first = |seed, stream, number| Draw::of(seed, stream, number).bits();
        assert_eq!(first(1, "a", 2), first(1, "a", 2));
        let all = [first(1, "a", 2), first(2, "a", 2), first(1, "b", 2), first(1, "a", 3)];
        assert!((0..4).all(|at| (0..at).all(|other| all[at] != all[other])));
    }
}
