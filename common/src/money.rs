//! Money and energy: what device time costs, and how a sum is split so that nothing is lost.

use crate::time::HOUR_MS;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Money, in millionths of a US dollar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MicroUsd(pub u64);

impl MicroUsd {
    /// Rounded to the nearest millionth; `None` for what is no amount.
    pub fn from_usd(usd: f64) -> Option<Self> {
        let micro = (usd * 1e6).round();
        (micro.is_finite() && (0.0..1e18).contains(&micro)).then_some(Self(micro as u64))
    }

    pub fn usd(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl fmt::Display for MicroUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 1_000_000, self.0 % 1_000_000 / 10_000)
    }
}

/// What so many thousandths of a device, times milliseconds, cost at a price for a device hour.
pub fn device_cost(milli_ms: u128, price: MicroUsd) -> MicroUsd {
    let micro = milli_ms.saturating_mul(u128::from(price.0)) / (1000 * u128::from(HOUR_MS));
    MicroUsd(u64::try_from(micro).unwrap_or(u64::MAX))
}

/// Splits a sum by weights so that the parts make up the sum to the last millionth. All of it goes
/// to the first part where nothing has weight.
pub fn split(sum: MicroUsd, weights: &[u128]) -> Vec<MicroUsd> {
    let all: u128 = weights.iter().sum();
    if all == 0 {
        return weights.iter().enumerate().map(|(at, _)| if at == 0 { sum } else { MicroUsd(0) }).collect();
    }
    // Products must not overflow; a common scale changes no share that could be seen.
    let shift = (all.leading_zeros() + u128::from(sum.0).leading_zeros()).saturating_sub(128);
    let scale = 64u32.saturating_sub(shift).min(64);
    let (mut upto, mut given) = (0u128, 0u64);
    let part = |weight: &u128| {
        upto += weight;
        let until = ((upto >> scale) * u128::from(sum.0) / (all >> scale).max(1)).min(u128::from(sum.0)) as u64;
        let until = if upto == all { sum.0 } else { until };
        let part = until.saturating_sub(given);
        given = given.max(until);
        MicroUsd(part)
    };
    weights.iter().map(part).collect()
}

/// Joules of so many device-milli-milliseconds at a power.
pub fn energy_j(milli_ms: u128, watts: u32) -> f64 {
    milli_ms as f64 / 1e6 * f64::from(watts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_hour_costs_its_price() {
        let price = MicroUsd::from_usd(2.5).unwrap();
        assert_eq!(device_cost(1000 * u128::from(HOUR_MS), price), price);
        assert_eq!(device_cost(8 * 500 * u128::from(HOUR_MS), price).to_string(), "10.00");
        assert_eq!(MicroUsd::from_usd(f64::NAN), None);
        assert_eq!(MicroUsd::from_usd(-1.0), None);
    }

    #[test]
    fn parts_make_up_the_sum() {
        for (sum, weights) in [
            (100, vec![1, 1, 1]),
            (7, vec![0, 0]),
            (u64::MAX / 4, vec![3 << 90, 5 << 90, 7]),
            (1_000_003, vec![u128::MAX / 8, 1, u128::MAX / 4]),
        ] {
            let parts = split(MicroUsd(sum), &weights);
            assert_eq!(parts.iter().map(|part| part.0).sum::<u64>(), sum, "{weights:?}");
        }
        assert_eq!(split(MicroUsd(90), &[1, 0, 2]), [MicroUsd(30), MicroUsd(0), MicroUsd(60)]);
    }
}
