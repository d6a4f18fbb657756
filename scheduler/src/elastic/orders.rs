//! Which nodes the hook is to be asked for, and which it has been. No clock, no processes.

use super::Order;
use muster_common::{Name, NodeId, Time};
use muster_engine::State;
use muster_engine::state::node::{NodeRecord, Power};
use std::collections::BTreeMap;

/// Most nodes of one call.
const NODES_MAX: usize = 64;

/// One order of the cycle for one node. Another order for the same node began at another moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    pub order: Order,
    since: Time,
}

impl Ask {
    pub fn of(record: &NodeRecord) -> Option<Self> {
        match record.power {
            Power::FallingAsleep { since, .. } => Some(Self { order: Order::Sleep, since }),
            Power::Waking { since, .. } => Some(Self { order: Order::Wake, since }),
            Power::Awake { .. } | Power::Asleep { .. } => None,
        }
    }

    /// Is that still what is wanted of the node?
    pub fn stands(self, state: &State, node: NodeId) -> bool {
        state.node(node).is_some_and(|record| Self::of(record) == Some(self))
    }
}

/// Nodes for one call of the hook, all for the same order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub order: Order,
    /// Nobody joins its one node.
    alone: bool,
    pub nodes: Vec<(NodeId, Name, Ask)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A call with others has failed: the next is for this node alone.
    Alone,
    Called,
    Answered,
}

/// What this leader has asked for in its term.
#[derive(Debug, Default)]
pub struct Orders {
    known: BTreeMap<NodeId, (Ask, Stage)>,
}

impl Orders {
    /// The next calls, at most so many. A node is in one call at a time, whatever has been ordered since.
    pub fn next_calls(&mut self, state: &State, most: usize) -> Vec<Call> {
        self.known.retain(|node, (ask, stage)| *stage == Stage::Called || ask.stands(state, *node));
        let mut calls: Vec<Call> = Vec::new();
        for record in state.nodes().values() {
            let Some(ask) = Ask::of(record) else { continue };
            let alone = match self.known.get(&record.id) {
                None => false,
                Some((_, Stage::Alone)) => true,
                Some((_, Stage::Called | Stage::Answered)) => continue,
            };
            let joins = |call: &Call| !alone && !call.alone && call.order == ask.order && call.nodes.len() < NODES_MAX;
            let at = match calls.iter().rposition(joins) {
                Some(at) => at,
                None if calls.len() >= most => continue,
                None => {
                    calls.push(Call { order: ask.order, alone, nodes: Vec::new() });
                    calls.len() - 1
                }
            };
            calls[at].nodes.push((record.id, record.name.clone(), ask));
            self.known.insert(record.id, (ask, Stage::Called));
        }
        calls
    }

    /// Nothing is left to ask of these nodes.
    pub fn answered(&mut self, call: &Call) {
        self.known.extend(call.nodes.iter().map(|(node, _, ask)| (*node, (*ask, Stage::Answered))));
    }

    /// One bad machine must not stand for the others: each is asked for by itself.
    pub fn one_by_one(&mut self, call: &Call) {
        self.known.extend(call.nodes.iter().map(|(node, _, ask)| (*node, (*ask, Stage::Alone))));
    }

    /// As if they had not been asked for.
    pub fn forget(&mut self, call: &Call) {
        self.known.retain(|node, _| call.nodes.iter().all(|(known, ..)| known != node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_engine::command::{Command, ConfigChange, Entry, PowerAnswer, Principal};
    use muster_engine::policy::{ElasticPool, Policy};
    use muster_engine::{Response, apply};

    struct Cluster(State);

    impl Cluster {
        /// Nodes that are put to sleep at once.
        fn new(nodes: usize) -> Self {
            let mut cluster = Self(State::new("dev"));
            let elastic = [(Name::literal("all"), ElasticPool::default())].into();
            let change = Box::new(ConfigChange::Policy(Policy { elastic, ..Policy::default() }));
            cluster.commit(Command::Configure { change, by: Principal("root".into()) });
            for at in 0..nodes {
                let registration = crate::gateway::tests::fixture::registration(&format!("n{at}"), 1);
                cluster.commit(Command::RegisterNode(Box::new(registration)));
            }
            cluster.sleep();
            cluster
        }

        fn commit(&mut self, command: Command) -> Response {
            let entry = Entry { index: self.0.applied_index() + 1, term: 1, at: Time(self.0.now().0 + 1), command };
            apply(&mut self.0, &entry).response
        }

        fn sleep(&mut self) {
            let nodes = self.0.nodes().values().map(|record| (record.id, record.epoch)).collect();
            assert_eq!(self.commit(Command::SleepNodes { nodes }), Response::Done);
        }

        fn answer(&mut self, answer: PowerAnswer) {
            for (node, epoch) in self.0.nodes().values().map(|record| (record.id, record.epoch)).collect::<Vec<_>>() {
                self.commit(Command::NodePower { node, epoch, answer: answer.clone() });
            }
        }
    }

    fn sizes(calls: &[Call]) -> Vec<usize> {
        calls.iter().map(|call| call.nodes.len()).collect()
    }

    #[test]
    fn each_order_is_asked_once_and_what_is_asked_again_later_once_more() {
        let mut cluster = Cluster::new(NODES_MAX + 1);
        let mut orders = Orders::default();
        let first = orders.next_calls(&cluster.0, 1);
        assert_eq!(sizes(&first), [NODES_MAX], "what finds no room waits");
        let second = orders.next_calls(&cluster.0, 4);
        assert_eq!(sizes(&second), [1]);
        first.iter().chain(&second).for_each(|call| orders.answered(call));
        assert_eq!(orders.next_calls(&cluster.0, 4), []);

        cluster.answer(PowerAnswer::NotAsleep { why: "no".into() });
        assert_eq!(orders.next_calls(&cluster.0, 4), []);
        cluster.sleep();
        assert_eq!(sizes(&orders.next_calls(&cluster.0, 4)), [NODES_MAX, 1]);
    }

    #[test]
    fn a_new_leader_asks_again_for_what_is_under_way() {
        let cluster = Cluster::new(2);
        let calls = Orders::default().next_calls(&cluster.0, 4);
        assert_eq!(calls, Orders::default().next_calls(&cluster.0, 4));
        assert_eq!((calls[0].order, sizes(&calls)), (Order::Sleep, vec![2]));
    }

    #[test]
    fn a_node_in_a_call_is_in_no_other_though_it_is_to_do_something_else_by_now() {
        let mut cluster = Cluster::new(1);
        let mut orders = Orders::default();
        let call = orders.next_calls(&cluster.0, 4).remove(0);
        cluster.answer(PowerAnswer::NotAsleep { why: "too late".into() });
        cluster.sleep();
        assert_eq!(orders.next_calls(&cluster.0, 4), []);
        orders.answered(&call);
        assert_eq!(sizes(&orders.next_calls(&cluster.0, 4)), [1]);
    }

    #[test]
    fn nodes_of_a_call_in_vain_are_asked_for_one_by_one() {
        let cluster = Cluster::new(3);
        let mut orders = Orders::default();
        let call = orders.next_calls(&cluster.0, 4).remove(0);
        orders.one_by_one(&call);
        assert_eq!(sizes(&orders.next_calls(&cluster.0, 2)), [1, 1]);
        assert_eq!(sizes(&orders.next_calls(&cluster.0, 2)), [1]);
    }
}
