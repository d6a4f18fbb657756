//! Which node, and which devices of it, out of those that would do.

use muster_common::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Lower ids first where the score is equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// The node with the fewest sufficient free devices.
    #[default]
    BestFit,
    /// The node with the most free devices.
    Spread,
    /// Devices in use before whole ones, nodes in use before idle ones: `GpuPacking` of Weng et al.,
    /// "Beware of Fragmentation", ATC'23, as its published simulator scores it.
    Pack,
    /// The least left of CPU and devices, half and half: `BestFit` of the same paper.
    LeastLeft,
    /// Nodes with parts of the same size before others: `GpuClustering` of the same paper.
    Clustering,
    /// The least growth of fragmentation for the typical workload: fragmentation gradient descent, the
    /// same paper. The typical workload is the policy's `workload`, or else what waits and runs.
    Fgd,
    /// The two-term cost model of `muster_common::cost`, by the share of communication that a job
    /// declares, against what a placement leaves stranded; see [`CostBelief`].
    TopologyCost,
    /// By chance, repeatable; for comparison only, since it looks at every node.
    Random { seed: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// The set with the best links, leaving the best links for those who come later.
    #[default]
    Links,
    /// The lowest free slots.
    FirstFit,
    /// For shares the device with the least growth of fragmentation; for whole devices as `links`.
    FgdBest,
    /// For shares any device that will do, repeatable; for whole devices as `links`. For comparison only.
    ByChance,
}

/// One shape of the typical workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypicalShape {
    /// Devices on one node; 0 = CPU only.
    pub gpus: u32,
    /// Of each device, in thousandths.
    #[serde(default = "whole")]
    pub share_milli: u16,
    /// `None` = in proportion to the devices.
    #[serde(default)]
    pub cpu_milli: Option<u64>,
    #[serde(default)]
    pub memory_bytes: u64,
    /// Empty = any.
    #[serde(default)]
    pub models: Vec<Name>,
    /// How often it comes, relative to the others.
    pub weight: u32,
}

const fn whole() -> u16 {
    1000
}

/// What the scheduler believes of distances. Only ratios matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CostBelief {
    /// For each device inside a node, in gigabytes per second: over NVLink, and over PCIe.
    pub nvlink_gbytes: u32,
    pub pcie_gbytes: u32,
    /// For each device between nodes, where a node's NICs do not say.
    pub network_gbytes: u32,
    /// What is left of the network when a gang spans several domains of a level, in percent.
    pub crossing_percent: BTreeMap<Name, u32>,
    /// The same for levels that are not named.
    pub other_crossing_percent: u32,
    /// What a free node is worth less when its domain is broken, in percent of a node.
    pub stranded_percent: u32,
    /// Communication of a job that does not declare it, in percent of its run time.
    pub communication_percent: u32,
}

impl Default for CostBelief {
    fn default() -> Self {
        Self {
            nvlink_gbytes: 400,
            pcie_gbytes: 40,
            network_gbytes: 50,
            crossing_percent: BTreeMap::new(),
            other_crossing_percent: 50,
            stranded_percent: 5,
            communication_percent: 20,
        }
    }
}

/// Most shapes of a typical workload.
pub const WORKLOAD_MAX: usize = 256;

impl TypicalShape {
    pub(super) fn is_sound(&self) -> bool {
        (1..=1000).contains(&self.share_milli) && self.weight > 0 && self.gpus <= 1024
    }
}

impl CostBelief {
    /// The first field that makes no sense.
    pub(super) fn wrong(&self) -> Option<&'static str> {
        let percent = |percent: &u32| (1..=100).contains(percent);
        match self {
            _ if self.nvlink_gbytes == 0 => Some("nvlink_gbytes"),
            _ if self.pcie_gbytes == 0 => Some("pcie_gbytes"),
            _ if self.network_gbytes == 0 => Some("network_gbytes"),
            _ if !self.crossing_percent.values().all(percent) => Some("crossing_percent"),
            _ if !percent(&self.other_crossing_percent) => Some("other_crossing_percent"),
            _ if self.stranded_percent > 100 => Some("stranded_percent"),
            _ if self.communication_percent > 100 => Some("communication_percent"),
            _ => None,
        }
    }
}
