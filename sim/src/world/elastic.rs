//! Machines that can be put to sleep and woken, and what the world makes of that. Which of them, and when, is policy.

use super::World;
use muster_common::Name;
use muster_common::time::SECOND_MS;
use serde::{Deserialize, Serialize};

/// How machines of a group go to sleep and come back. Those of other groups cannot be switched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elastic {
    /// A group of the world's nodes.
    pub nodes: Name,
    /// From the order until its agent is back: switching on, or renting, and booting.
    pub wake_s: u64,
    /// From the order until it is off.
    #[serde(default)]
    pub sleep_s: u64,
    /// Of a hundred orders to wake, so many bring nothing.
    #[serde(default)]
    pub fail_percent: f64,
    /// Asleep when the run begins.
    #[serde(default)]
    pub starts_asleep: bool,
    /// Owned machines are paid for while they sleep, rented ones that are given back are not.
    #[serde(default = "yes")]
    pub paid_asleep: bool,
}

const fn yes() -> bool {
    true
}

/// A day.
const SECONDS_MAX: u64 = 86_400;

impl Elastic {
    pub(crate) const fn wake_ms(&self) -> u64 {
        self.wake_s * SECOND_MS
    }

    /// Does it depend on the seed which orders bring something?
    pub(crate) fn is_random(&self) -> bool {
        self.fail_percent > 0.0 && self.fail_percent < 100.0
    }

    pub(crate) const fn sleep_ms(&self) -> u64 {
        self.sleep_s * SECOND_MS
    }
}

pub(super) fn check(world: &World) -> Result<(), String> {
    for (at, elastic) in world.elastic.iter().enumerate() {
        let name = &elastic.nodes;
        if !world.nodes.iter().any(|group| group.name == *name) {
            return Err(format!("elastic: there is no group of nodes `{name}`"));
        }
        if world.elastic[..at].iter().any(|earlier| earlier.nodes == *name) {
            return Err(format!("elastic: nodes `{name}` are named twice"));
        }
        if world.spot.iter().any(|spot| spot.nodes == *name) {
            return Err(format!("elastic: nodes `{name}` are taken away by their owner (spot); name other ones"));
        }
        if elastic.wake_s.max(elastic.sleep_s) > SECONDS_MAX {
            return Err(format!("elastic: nodes `{name}`: wake_s and sleep_s are at most {SECONDS_MAX}"));
        }
        if !(0.0..=100.0).contains(&elastic.fail_percent) {
            return Err(format!(
                "elastic: nodes `{name}`: fail_percent is {}; it is from 0 to 100",
                elastic.fail_percent
            ));
        }
    }
    Ok(())
}
