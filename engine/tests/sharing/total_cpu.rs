//! CPU is taken back for a gang that counts devices, too.

use crate::plan_support::{nodes, total};
use crate::taking_support::*;
use muster_common::job::Count;

fn preempts_for(count: Count) -> bool {
    let mut cluster = Cluster::new(preempting());
    cluster.racks(1, 1, 8);
    let mut hog = class(forever(nodes(1, 0)), "low");
    hog.groups[0].cpu_milli_per_node = Some(60_000);
    let hog = cluster.submit(hog);
    assert!(cluster.runs(hog));
    let high = cluster.submit(class(forever(count), "high"));
    cluster.pass(600);
    cluster.runs(high)
}

#[test]
fn cpu_is_taken_back_for_whole_nodes() {
    assert!(preempts_for(nodes(1, 8)));
}

#[test]
fn cpu_is_taken_back_for_a_number_of_devices() {
    assert!(preempts_for(total(8)));
}
