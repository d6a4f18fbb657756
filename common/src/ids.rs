//! Identifiers. Each is a number taken from a log index, so no two replicas can disagree on one.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map($name)
            }
        }
    };
}

number_id! {
    /// A job: the log index of its Submit entry.
    JobId(u64)
}
number_id! {
    /// A node: the log index of its first registration.
    NodeId(u64)
}
number_id! {
    /// One execution of a gang, counted from 1. Zero means "none yet".
    AttemptNo(u32)
}

/// The all-or-nothing unit: an element of an array, a replica, or (ordinal 0) a plain job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct GangId {
    pub job: JobId,
    pub ordinal: u32,
}

impl GangId {
    pub const fn new(job: JobId, ordinal: u32) -> Self {
        Self { job, ordinal }
    }
}

impl fmt::Display for GangId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.job, self.ordinal)
    }
}

/// A schedulable accelerator: its node and its slot in that node's inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct DeviceId {
    pub node: NodeId,
    pub slot: u16,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.node, self.slot)
    }
}

/// A placement's fencing token: an agent refuses any lower one on the same device.
///
/// Ordered by generation, then by the log index of the plan that made the placement. A restore
/// from backup raises the generation, so tokens handed out after the backup can never win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Token {
    pub generation: u32,
    pub index: u64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_generation_beats_any_index() {
        let old = Token { generation: 1, index: 900 };
        let new = Token { generation: 2, index: 3 };
        assert!(new > old);
    }

    #[test]
    fn ids_print_as_users_write_them() {
        assert_eq!(GangId::new(JobId(4713), 3).to_string(), "4713_3");
        assert_eq!("4713".parse::<JobId>(), Ok(JobId(4713)));
    }
}
