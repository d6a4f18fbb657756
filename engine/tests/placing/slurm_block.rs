//! Slurm's topology/block (peers: SchedMD/slurm, doc/html/topology.shtml, doc/man/man1/sbatch.1): the smallest level that
//! fits, best fit inside base blocks, and `--segment`: its size divides the nodes, each segment is inside one block,
//! several may share one, and `--spread-segments` puts them apart. What is wrong in a request is refused in `plan_wishes`.

use crate::plan_support;

use muster_common::NodeId;
use muster_engine::plan::never::fits_ever;
use muster_engine::policy::Policy;
use plan_support::blocks::{blocks, per_block, segments};
use plan_support::*;

#[test]
fn slurm_block_segments_share_a_block_unless_they_are_spread() {
    let (mut cluster, all) = blocks(&[18, 18], 4);
    let together = cluster.submit(segments(job(nodes(16, 4)), 4, false));
    cluster.decide();
    assert_eq!(per_block(&cluster, &all, together), [16, 0]);
    let (mut cluster, all) = blocks(&[18, 18], 4);
    let apart = cluster.submit(segments(job(nodes(8, 4)), 4, true));
    cluster.decide();
    assert_eq!(per_block(&cluster, &all, apart), [4, 4]);
    assert!(fits_ever(&cluster.player.state, &segments(job(nodes(12, 4)), 4, true)).is_err(), "there are two blocks");
    assert!(fits_ever(&cluster.player.state, &segments(job(nodes(19, 4)), 19, false)).is_err(), "a block has 18");
}

#[test]
fn slurm_block_a_segment_never_lies_across_two_blocks() {
    let (mut cluster, all) = blocks(&[6, 6, 6], 4);
    let first = cluster.submit(segments(job(nodes(12, 4)), 4, false));
    cluster.decide();
    assert_eq!(per_block(&cluster, &all, first), [4, 4, 4], "two blocks would hold the nodes, and not the segments");
    let segment = cluster.submit(segments(job(nodes(4, 4)), 4, false));
    let loose = cluster.submit(job(nodes(6, 4)));
    cluster.decide();
    assert_eq!(per_block(&cluster, &all, segment), [0, 0, 0]);
    assert_eq!(per_block(&cluster, &all, loose), [2, 2, 2]);
}

/// `BlockSizes=4,8`: four base blocks of four nodes, and two aggregates of two of them.
fn aggregates() -> (Cluster, Vec<Vec<NodeId>>) {
    let mut cluster = Cluster::new(Policy::default());
    cluster.fabric(&["aggregate", "block"]);
    let machine = |block: usize| inventory("GB200", 4, &[&format!("a{}", block / 2), &format!("b{block}")]);
    let base = |block: usize| (0..4).map(|n| cluster.node(&format!("b{block}-{n}"), machine(block))).collect();
    let all = (0..4).map(base).collect();
    (cluster, all)
}

#[test]
fn slurm_block_the_smallest_level_that_fits_is_taken() {
    let (mut cluster, all) = aggregates();
    let mut place = |count: u32| {
        let gang = cluster.submit(job(nodes(count, 4)));
        cluster.decide();
        per_block(&cluster, &all, gang)
    };
    assert_eq!(place(1), [1, 0, 0, 0]);
    assert_eq!(place(8), [0, 0, 4, 4], "one aggregate has eight nodes free, the other seven");
    assert_eq!(place(4), [0, 4, 0, 0], "a whole base block");
    assert_eq!(place(3), [3, 0, 0, 0]);
}

#[test]
fn slurm_block_inside_base_blocks_the_best_fit_is_taken() {
    let (mut cluster, all) = blocks(&[4, 3, 2], 4);
    let gangs = [2, 3, 4].map(|count| cluster.submit(job(nodes(count, 4))));
    cluster.decide();
    assert_eq!(gangs.map(|gang| per_block(&cluster, &all, gang)), [[0, 0, 2], [0, 3, 0], [4, 0, 0]]);
}
