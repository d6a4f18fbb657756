//! Machines that their owner may take back: rented at a spot price, and gone when somebody pays more.

use super::World;
use muster_common::Name;
use muster_common::time::SECOND_MS;
use serde::{Deserialize, Serialize};

/// How often machines of a group are taken away, and for how long. Each machine is a Poisson process
/// of its own while it is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spot {
    /// A group of the world's nodes.
    pub nodes: Name,
    /// Of one machine.
    pub evictions_per_1000_days: f64,
    /// From the owner's notice to the end of the machine. The notice drains the node at once; with 0
    /// there is none.
    #[serde(default)]
    pub notice_s: u64,
    /// Mean of the exponential time until it, or another of its kind, is back. It is not paid for
    /// meanwhile. 0: back at once, as another boot.
    #[serde(default)]
    pub away_mean_s: u64,
}

/// More than one eviction of a machine in about a minute is a mistake.
const PER_1000_DAYS_MAX: f64 = 1e6;
/// A year.
const SECONDS_MAX: u64 = 366 * 86_400;

impl Spot {
    pub(crate) const fn notice_ms(&self) -> u64 {
        self.notice_s * SECOND_MS
    }
}

pub(super) fn check(world: &World) -> Result<(), String> {
    for (at, spot) in world.spot.iter().enumerate() {
        let Some(group) = world.nodes.iter().find(|group| group.name == spot.nodes) else {
            return Err(format!("spot: there is no group of nodes `{}`", spot.nodes));
        };
        if world.spot[..at].iter().any(|earlier| earlier.nodes == spot.nodes) {
            return Err(format!("spot: nodes `{}` are named twice", spot.nodes));
        }
        let rate = spot.evictions_per_1000_days;
        if !(rate > 0.0 && rate <= PER_1000_DAYS_MAX) {
            return Err(format!(
                "spot: nodes `{}`: {rate} evictions in 1000 days; there must be more than 0 and at most {PER_1000_DAYS_MAX}",
                spot.nodes
            ));
        }
        if spot.notice_s.max(spot.away_mean_s) > SECONDS_MAX {
            return Err(format!("spot: nodes `{}`: notice_s and away_mean_s are at most {SECONDS_MAX}", spot.nodes));
        }
        let names: Vec<Name> = world.names_of(group);
        if let Some(drain) = world.drains.iter().find(|drain| names.contains(&drain.node)) {
            return Err(format!(
                "drains: node `{}` may be taken away by its owner (spot), and would come back open; drain another one",
                drain.node
            ));
        }
    }
    Ok(())
}
