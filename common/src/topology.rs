//! Where a node stands in the fabrics, and what a gang may ask of them.

use crate::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The fabric trees of a cluster. Rails, leaf switches and NVLink domains do not nest, so there
/// may be several trees over the same nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FabricSpec {
    pub trees: Vec<TreeSpec>,
}

/// One tree: its levels from the widest to the narrowest. The root (everything) and the node
/// itself are implied and not listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeSpec {
    pub name: Name,
    pub levels: Vec<Name>,
}

impl FabricSpec {
    /// The tree and the depth (1 = the widest listed level) at which a level name occurs. The
    /// level `node` is below the narrowest listed level of the first tree.
    pub fn find_level(&self, level: &str) -> Option<(usize, usize)> {
        for (tree, spec) in self.trees.iter().enumerate() {
            if let Some(at) = spec.levels.iter().position(|name| name.as_str() == level) {
                return Some((tree, at + 1));
            }
        }
        let first = self.trees.first()?;
        (level == "node").then_some((0, first.levels.len() + 1))
    }

    pub fn level_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.trees.iter().flat_map(|tree| tree.levels.iter().map(Name::as_str)).collect();
        names.push("node");
        names
    }
}

/// A node's place: per tree, the domain at each level, widest first. A domain is identified by
/// its whole path, so `leaf-1` in two pods is two domains.
pub type Place = BTreeMap<Name, Vec<Name>>;

/// What a gang asks of the fabric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopologyRequest {
    pub level: Name,
    pub mode: TopologyMode,
    /// At most so many domains of that level. 1 = all nodes in one domain.
    pub at_most: u32,
}

/// A group cut into segments of equal size, each inside one domain of a level: what an all-to-all
/// that must not leave an NVLink domain asks for. The group's nodes are a multiple of the segment's.
///
/// The meaning is that of Slurm's block topology (`--segment`, `--spread-segments`): several segments
/// may share a domain unless they are to be `apart`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentRequest {
    pub level: Name,
    /// Nodes of one segment.
    pub nodes: u32,
    /// Each segment in a domain of its own.
    pub apart: bool,
}

/// At most so many nodes of a group in any one domain of a level, so that what takes a domain down
/// takes no more of the group with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpreadRequest {
    pub level: Name,
    pub nodes: u32,
}

/// Nodes that carry a label are better by `weight` than those that do not. Never keeps a gang from
/// starting.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LabelWish {
    pub label: Name,
    /// `None` = whatever its value.
    pub value: Option<String>,
    /// 1 to [`LabelWish::WEIGHT_MAX`].
    pub weight: u16,
}

impl LabelWish {
    pub const WEIGHT_MAX: u16 = 1000;
    /// Labels that say which data a node has at hand start with this.
    pub const DATA: &str = "data.";

    pub fn holds(&self, labels: &BTreeMap<Name, String>) -> bool {
        labels.get(&self.label).is_some_and(|have| self.value.as_ref().is_none_or(|value| value == have))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopologyMode {
    /// Wait rather than spread wider.
    Required,
    /// Spread wider rather than wait.
    Preferred,
}
