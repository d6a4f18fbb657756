//! What machines draw over time.

use crate::meter::Cell;
use crate::prices::{Prices, drawing};
use crate::world::World;

/// Watts of one device, of all models as the world mixes them; with what the building adds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watts {
    running_w: f64,
    rest_w: f64,
    asleep_w: f64,
}

impl Watts {
    /// `None` where the list says nothing of power.
    pub fn of(prices: Option<&Prices>, world: &World) -> Option<Self> {
        let prices = prices?;
        let mut sum = Self { running_w: 0.0, rest_w: 0.0, asleep_w: 0.0 };
        let mut devices = 0.0;
        for group in &world.nodes {
            let Some(power) = prices.power(&group.model) else { continue };
            let count = f64::from(group.count) * f64::from(group.devices);
            sum.running_w += count * f64::from(power.busy_w);
            sum.rest_w += count * f64::from(power.idle_w);
            sum.asleep_w += count * f64::from(power.asleep_w);
            devices += count;
        }
        let of_one = prices.pue.unwrap_or(1.0) / devices;
        let Self { running_w, rest_w, asleep_w } = sum;
        let watts = Self { running_w: running_w * of_one, rest_w: rest_w * of_one, asleep_w: asleep_w * of_one };
        (devices > 0.0).then_some(watts)
    }

    /// Mean kilowatts of a cell that is so long.
    pub fn kw(&self, cell: &Cell, span_ms: u64) -> f64 {
        let [running, rest, asleep] = drawing(&cell.device_time).map(|time| time as f64);
        let watts = running * self.running_w + rest * self.rest_w + asleep * self.asleep_w;
        // Thousandths of devices, and watts in kilowatts.
        watts / 1e6 / span_ms.max(1) as f64
    }
}
