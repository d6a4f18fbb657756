//! Use that fades with a half-life, in integers and without touching what is not used.
//!
//! Forward decay (Cormode, Shkapenyuk, Srivastava and Xu, ICDE'09): instead of shrinking every sum as
//! time passes, what happens later weighs more. At `t` the weight is 2^((t - landmark) / half-life), so
//! sums of different payers compare as the decayed sums do, at every moment, and only what is added is
//! ever computed. The landmark moves on before weights grow out of their range.

use muster_common::Time;
use muster_common::time::DAY_MS;
use serde::{Deserialize, Serialize};

/// Half-lives after which the landmark moves on.
const HALF_LIVES_MAX: u64 = 16;
/// Weights beyond this are not told apart; only a clock that jumps gets there before the landmark moves.
const DOUBLINGS_MAX: u64 = 20;
/// Longest half-life.
pub const HALF_LIFE_MS_MAX: u64 = 366 * DAY_MS;
/// Weighted milliseconds have so many bits below the point.
pub const FRACTION_BITS: u32 = 24;
/// Weights have so many.
const WEIGHT_BITS: u32 = 48;
/// 1 / ln 2 with 30 bits below the point.
const INVERSE_LN_2: i128 = 1_549_082_005;

/// 2^(2^-i) for i = 1.., with 62 bits below the point: each the root of the one before.
const ROOTS: [u64; 52] = {
    let mut roots = [0; 52];
    let mut value: u128 = 2 << 62;
    let mut at = 0;
    while at < roots.len() {
        value = (value << 62).isqrt();
        roots[at] = value as u64;
        at += 1;
    }
    roots
};

/// From when weights count, and how fast they double.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decay {
    landmark: Time,
    /// 0 = nothing fades.
    half_life_ms: u64,
}

impl Default for Decay {
    fn default() -> Self {
        Self::new(Time::ZERO, crate::command::Settings::default().usage_half_life_ms)
    }
}

impl Decay {
    pub fn new(landmark: Time, half_life_ms: u64) -> Self {
        Self { landmark, half_life_ms: half_life_ms.min(HALF_LIFE_MS_MAX) }
    }

    pub fn half_life_ms(self) -> u64 {
        self.half_life_ms
    }

    /// The weight of a moment, with 48 bits below the point.
    fn weight(self, at: Time) -> u128 {
        if self.half_life_ms == 0 {
            return 1 << WEIGHT_BITS;
        }
        let half_life = u128::from(self.half_life_ms);
        let (ahead, behind) = (at.since_ms(self.landmark), self.landmark.since_ms(at));
        let whole = if ahead > 0 { ahead / self.half_life_ms } else { behind.div_ceil(self.half_life_ms) };
        // What is left of the exponent, between 0 and 1, with 64 bits below the point.
        let rest_ms =
            if ahead > 0 { ahead % self.half_life_ms } else { whole.saturating_mul(self.half_life_ms) - behind };
        let rest = (u128::from(rest_ms) << 64) / half_life;
        let mut power: u128 = 1 << 62;
        for (at, root) in ROOTS.iter().enumerate() {
            if rest >> (63 - at) & 1 == 1 {
                power = (power * u128::from(*root)) >> 62;
            }
        }
        match ahead > 0 {
            true if whole >= DOUBLINGS_MAX => 1 << (WEIGHT_BITS as u64 + DOUBLINGS_MAX),
            true => power << whole >> (62 - WEIGHT_BITS),
            false if whole > 62 => 0,
            false => power >> whole >> (62 - WEIGHT_BITS),
        }
    }

    /// Weighted milliseconds from the landmark to a moment; before the landmark they are negative.
    pub fn forward(self, at: Time) -> i128 {
        if self.half_life_ms == 0 {
            let (ahead, behind) = (at.since_ms(self.landmark), self.landmark.since_ms(at));
            return (i128::from(ahead) - i128::from(behind)) << FRACTION_BITS;
        }
        let grown = self.weight(at) as i128 - (1 << WEIGHT_BITS);
        let by_half_life = (grown * i128::from(self.half_life_ms)) >> (WEIGHT_BITS - FRACTION_BITS);
        (by_half_life * INVERSE_LN_2) >> 30
    }

    /// A weighted sum as it has faded by `now`, in whole milliseconds.
    pub fn faded(self, sum: u128, now: Time) -> u128 {
        self.rescaled(sum, now) >> FRACTION_BITS
    }

    /// A weighted sum for a landmark at `now`.
    pub fn rescaled(self, sum: u128, now: Time) -> u128 {
        let weight = self.weight(now).max(1);
        let (whole, rest) = (sum / weight, sum % weight);
        (whole << WEIGHT_BITS).saturating_add((rest << WEIGHT_BITS) / weight)
    }

    /// By how many half-lives the landmark has to move on; `None` while weights are in their range.
    pub fn overdue(self, now: Time) -> Option<u64> {
        let passed = now.since_ms(self.landmark).checked_div(self.half_life_ms)?;
        (passed >= HALF_LIVES_MAX).then_some(passed)
    }

    /// Moves the landmark on by whole half-lives: sums are then to be halved as often.
    pub fn advanced(self, half_lives: u64) -> Self {
        Self { landmark: self.landmark.plus_ms(half_lives.saturating_mul(self.half_life_ms)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Decay = Decay { landmark: Time(1_000_000), half_life_ms: DAY_MS };

    #[test]
    fn weights_double_and_halve_with_each_half_life() {
        for (days, weight) in [(0, 1.0), (1, 2.0), (3, 8.0), (16, 65536.0)] {
            let ahead = DAY.weight(Time(1_000_000 + days * DAY_MS)) as f64 / 2f64.powi(48);
            assert!((ahead / weight - 1.0).abs() < 1e-12, "{days} days ahead: {ahead}");
        }
        let half = Decay { landmark: Time(10 * DAY_MS), ..DAY };
        let before = half.weight(Time(9 * DAY_MS + DAY_MS / 2)) as f64 / 2f64.powi(48);
        assert!((before - 0.5f64.sqrt()).abs() < 1e-12, "{before}");
    }

    #[test]
    fn an_hour_counts_half_a_half_life_later() {
        let start = 5 * DAY_MS;
        let hour = |at: u64| (DAY.forward(Time(at + 3_600_000)) - DAY.forward(Time(at))) as u128;
        let now = Time(start + 3_600_000);
        let fresh = DAY.faded(hour(start), now) as f64;
        let old = DAY.faded(hour(start), now.plus_ms(DAY_MS)) as f64;
        // The integral of 2^(-t/day) over the hour: (1 - 2^(-1/24)) days / ln 2.
        let exact = (1.0 - 2f64.powf(-1.0 / 24.0)) * DAY_MS as f64 / std::f64::consts::LN_2;
        assert!((fresh - exact).abs() < 2.0, "{fresh} {exact}");
        assert!((old - exact / 2.0).abs() < 2.0, "{old}");
    }

    #[test]
    fn forward_never_falls_and_never_overflows() {
        for half_life_ms in [0, 1, 1000, DAY_MS, HALF_LIFE_MS_MAX] {
            let decay = Decay::new(Time(1_800_000_000_000), half_life_ms);
            let moments = [0, 1, 1_700_000_000_000, 1_799_999_999_999, 1_800_000_000_000, 1_800_000_000_001];
            let later = [1_900_000_000_000, 10_000_000_000_000, u64::MAX - 1, u64::MAX];
            let all: Vec<i128> = moments.into_iter().chain(later).map(|at| decay.forward(Time(at))).collect();
            assert!(all.windows(2).all(|pair| pair[0] <= pair[1]), "{half_life_ms}: {all:?}");
        }
    }
}
