//! Amounts: whole numbers in fixed units, never floats.

use serde::{Deserialize, Serialize};

/// CPU and memory of a node, or of a gang's part on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Amount {
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    pub memory_bytes: u64,
}

impl Amount {
    pub const fn covers(&self, other: &Amount) -> bool {
        self.cpu_milli >= other.cpu_milli && self.memory_bytes >= other.memory_bytes
    }

    pub const fn plus(&self, other: &Amount) -> Amount {
        Amount {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// `None` when `other` is more than is here.
    pub const fn minus(&self, other: &Amount) -> Option<Amount> {
        if !self.covers(other) {
            return None;
        }
        Some(Amount {
            cpu_milli: self.cpu_milli - other.cpu_milli,
            memory_bytes: self.memory_bytes - other.memory_bytes,
        })
    }
}

/// The share of a device, in thousandths. A whole device is [`Share::WHOLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(pub u16);

impl Share {
    pub const WHOLE: Share = Share(1000);

    pub const fn is_whole(self) -> bool {
        self.0 >= 1000
    }
}

impl Default for Share {
    fn default() -> Self {
        Share::WHOLE
    }
}
