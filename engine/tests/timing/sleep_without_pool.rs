//! Nobody puts to sleep what no pool would wake again.

use crate::plan_support;
use crate::taking_support;

use muster_common::Time;
use muster_engine::command::{Command, ConfigChange};
use muster_engine::policy::{ElasticPool, Policy};
use muster_engine::state::node::Power;
use plan_support::{configure, name};
use taking_support::*;

#[test]
fn a_node_of_no_pool_any_more_is_not_put_to_sleep_for_ever() {
    let pool = ElasticPool::default();
    let mut cluster = Cluster::new(Policy { elastic: [(name("all"), pool)].into(), ..Policy::default() });
    let node = cluster.racks(1, 1, 8)[0][0];
    let epoch = cluster.player.state.node(node).unwrap().epoch;
    // A cycle decided `asked` under the pool; the policy is changed before that is committed.
    let asked = Command::SleepNodes { nodes: vec![(node, epoch)] };
    cluster.commit(configure(ConfigChange::Policy(Policy::default())));
    cluster.commit(asked);
    let power = cluster.player.state.node(node).unwrap().power;
    assert!(power.is_awake(), "no pool has it, so that nothing wakes it again: {power:?}");
    assert!(!matches!(power, Power::FallingAsleep { by, .. } if by == Time::NEVER), "nor is there a time-out");
}
