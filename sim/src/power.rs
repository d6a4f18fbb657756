//! What machines draw over time.

use crate::meter::Cell;
use crate::prices::Prices;
use crate::world::World;

/// How much the building adds to what was metered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watts {
    pue: f64,
}

impl Watts {
    /// `None` where the list says nothing of power.
    pub fn of(prices: Option<&Prices>, world: &World) -> Option<Self> {
        let prices = prices?;
        let known = world.nodes.iter().any(|group| prices.power(&group.model).is_some());
        known.then(|| Self { pue: prices.pue.unwrap_or(1.0) })
    }

    /// Mean kilowatts of a cell that is so long.
    pub fn kw(&self, cell: &Cell, span_ms: u64) -> f64 {
        // Milliwatts in kilowatts.
        cell.drawn as f64 * self.pue / 1e6 / span_ms.max(1) as f64
    }
}
