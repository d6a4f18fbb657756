//! More ranks than agents take: such a part would be refused by its node, so its job is refused at once.

use crate::plan_support;
use muster_common::job::{Count, RanksPerNode};
use muster_engine::outcome::Response;
use muster_engine::policy::Policy;
use plan_support::*;

fn answer(count: Count, ranks: u32) -> Response {
    let mut cluster = Cluster::new(Policy::default());
    cluster.seen.lenient = true;
    cluster.nodes(2, 8);
    let mut wish = job(count);
    wish.groups[0].ranks = RanksPerNode::Fixed(ranks);
    // With CPU said, "at least one a rank" binds nobody.
    wish.groups[0].cpu_milli_per_node = Some(1000);
    cluster.commit(submit("ranks", wish)).response
}

#[test]
fn more_ranks_on_a_node_than_an_agent_takes_are_refused() {
    assert!(matches!(answer(nodes(2, 1), 1024), Response::Submitted { .. }));
    for ranks in [0, 1025, u32::MAX] {
        assert!(matches!(answer(nodes(2, 1), ranks), Response::Refused(_)), "{ranks} ranks");
    }
}

#[test]
fn more_ranks_in_a_gang_than_state_keeps_are_refused() {
    assert!(matches!(answer(nodes(2048, 1), 1024), Response::Submitted { .. }));
    assert!(matches!(answer(nodes(4096, 1), 1024), Response::Refused(_)));
    // Spread one by one, it is on as many nodes as it has devices.
    assert!(matches!(answer(total(32_768), 1024), Response::Refused(_)));
    assert!(matches!(answer(total(32_768), 8), Response::Submitted { .. }));
}
