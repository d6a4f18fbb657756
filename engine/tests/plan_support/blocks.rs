//! NVLink domains, as Slurm's topology/block knows them.

use super::{Cluster, inventory, name};
use muster_common::job::Scheduling;
use muster_common::topology::SegmentRequest;
use muster_common::{GangId, NodeId};
use muster_engine::policy::Policy;

/// Blocks of so many nodes with so many devices each.
pub fn blocks(sizes: &[usize], devices: usize) -> (Cluster, Vec<Vec<NodeId>>) {
    let mut cluster = Cluster::new(Policy::default());
    cluster.fabric(&["block"]);
    let block = |(at, size): (usize, &usize)| {
        let machine = || inventory("GB200", devices, &[&format!("b{at}")]);
        (0..*size).map(|n| cluster.node(&format!("b{at}-{n:02}"), machine())).collect()
    };
    let all = sizes.iter().enumerate().map(block).collect();
    (cluster, all)
}

/// Nodes of a gang in each block.
pub fn per_block(cluster: &Cluster, blocks: &[Vec<NodeId>], gang: GangId) -> Vec<usize> {
    let held = cluster.held(gang);
    blocks.iter().map(|block| held.iter().filter(|(node, _)| block.contains(node)).count()).collect()
}

pub fn segments(mut job: Scheduling, nodes: u32, apart: bool) -> Scheduling {
    job.groups[0].segment = Some(SegmentRequest { level: name("block"), nodes, apart });
    job
}
