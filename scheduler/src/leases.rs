//! Acknowledges lease renewals, in batches, each after a ReadIndex round that began after they
//! arrived (rule 6). Never from a timer or a leader's own belief that it leads.

use crate::consensus::{ConsensusHandle, Leadership};
use crate::liveness::Liveness;
use crate::machine::EngineMachine;
use crate::session::Outgoing;
use muster_common::NodeId;
use muster_engine::State;
use muster_engine::state::node;
use muster_proto::agent as wire;
use muster_proto::datagram::{Datagram, Renewal, encode};
use muster_runtime::actor::{Depth, Inbox, Mailbox, mailbox};
use muster_runtime::datagram::DatagramConnection;
use muster_runtime::shutdown::Shutdown;

/// Renewals waiting for a round. More are dropped: the agent sends another soon.
const WAITING_MAX: usize = 16_384;

/// A renewal that has arrived.
pub struct Renewed {
    pub node: NodeId,
    pub epoch: u64,
    /// The control session it names, which must be the one it came on.
    pub named: u64,
    pub session: u64,
    pub number: u64,
    pub answer: Answer,
}

/// The way back to the agent: the one its renewal came by.
#[derive(Clone)]
pub struct Answer {
    /// Of the session that the renewal belongs to.
    pub outgoing: Outgoing,
    /// When it came as a datagram.
    pub datagrams: Option<DatagramConnection>,
}

impl Answer {
    /// Lost when the agent does not keep up, or its session is over by now: it renews again soon.
    fn extend(&self, session: u64, number: u64) {
        match &self.datagrams {
            None => {
                let lease = wire::LeaseExtended { session, number };
                self.outgoing.try_send(wire::server_message::Body::Lease(lease));
            }
            Some(_) if self.outgoing.is_over() => {}
            Some(connection) => {
                let extended = Datagram::Extended(Renewal { session, number });
                // A connection that is over is the agent's to make again.
                let _ = connection.send(encode(&extended));
            }
        }
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct LeasesHandle {
    mailbox: Mailbox<Renewed>,
}

impl LeasesHandle {
    /// Renewals that wait for a round.
    pub fn depth(&self) -> Depth {
        self.mailbox.depth()
    }

    /// False when too many wait already.
    pub fn renew(&self, renewed: Renewed) -> bool {
        self.mailbox.try_send(renewed).is_ok()
    }
}

pub struct Leases {
    consensus: ConsensusHandle<EngineMachine>,
    liveness: Liveness,
    inbox: Inbox<Renewed>,
}

impl Leases {
    pub fn new(consensus: ConsensusHandle<EngineMachine>, liveness: Liveness) -> (LeasesHandle, Self) {
        let (mailbox, inbox) = mailbox("leases", WAITING_MAX);
        (LeasesHandle { mailbox }, Self { consensus, liveness, inbox })
    }

    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
        let mut batch = Vec::new();
        while let Some(count) = shutdown.unless(self.inbox.recv_many(&mut batch, WAITING_MAX)).await {
            if count == 0 {
                break;
            }
            self.acknowledge(std::mem::take(&mut batch)).await;
        }
        Ok(())
    }

    async fn acknowledge(&self, batch: Vec<Renewed>) {
        // The round begins here, after every renewal of the batch has arrived.
        if let Err(error) = self.consensus.leader_read_barrier().await {
            tracing::debug!(%error, renewals = batch.len(), "renewals are not acknowledged");
            self.consensus.instruments().leases(0, batch.len() as u64);
            return;
        }
        let leadership = self.consensus.leadership().borrow().clone();
        let state = self.consensus.view();
        let (all, mut acknowledged) = (batch.len() as u64, 0);
        for renewed in batch {
            if may_acknowledge(&leadership, &state, &self.liveness, &renewed) {
                renewed.answer.extend(renewed.session, renewed.number);
                acknowledged += 1;
            }
        }
        self.consensus.instruments().leases(acknowledged, all - acknowledged);
    }
}

/// After a quorum round that began after the renewal had come.
fn may_acknowledge(leadership: &Leadership, state: &State, liveness: &Liveness, renewed: &Renewed) -> bool {
    // A new leader acknowledges nothing before it has applied the first entry of its own term.
    if !leadership.first_index_of_term_applied {
        return false;
    }
    let known = state.node(renewed.node);
    let current = known.is_some_and(|node| node.epoch == renewed.epoch && node.liveness == node::Liveness::Up);
    current && renewed.named == renewed.session && liveness.may_acknowledge(renewed.node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_engine::Command;
    use muster_engine::command::Entry;

    fn of_one_node() -> (State, Leadership, Renewed) {
        let mut state = State::new("test");
        let registration = crate::gateway::tests::fixture::registration("n1", 2);
        applied(&mut state, Command::RegisterNode(Box::new(registration)));
        let node = *state.nodes().keys().next().unwrap();
        let epoch = state.node(node).unwrap().epoch;
        let leadership = Leadership { is_leader: true, first_index_of_term_applied: true, ..Leadership::default() };
        let answer = Answer { outgoing: Outgoing::new().0, datagrams: None };
        let renewed = Renewed { node, epoch, named: 1, session: 1, number: 1, answer };
        (state, leadership, renewed)
    }

    fn applied(state: &mut State, command: Command) {
        let entry = Entry { index: state.applied_index() + 1, term: 1, at: muster_common::Time(1), command };
        muster_engine::apply(state, &entry);
    }

    #[test]
    fn rule_6d_a_renewal_that_names_another_session_is_not_acknowledged() {
        let (state, leadership, mut renewed) = of_one_node();
        assert!(may_acknowledge(&leadership, &state, &Liveness::default(), &renewed));
        renewed.named = 2;
        assert!(!may_acknowledge(&leadership, &state, &Liveness::default(), &renewed));
    }

    #[test]
    fn rule_6c_a_new_leader_acknowledges_nothing_before_the_first_entry_of_its_term() {
        let (mut state, mut leadership, renewed) = of_one_node();
        let (node, epoch, liveness) = (renewed.node, renewed.epoch, Liveness::default());
        leadership.first_index_of_term_applied = false;
        assert!(!may_acknowledge(&leadership, &state, &liveness, &renewed));
        leadership.first_index_of_term_applied = true;
        assert!(may_acknowledge(&leadership, &state, &liveness, &renewed));

        liveness.decide(node, 60_000, 1);
        assert!(!may_acknowledge(&leadership, &state, &liveness, &renewed), "its silence is being decided");
        liveness.decided(node);
        applied(&mut state, Command::NodeSilent { node, epoch, term: 1 });
        assert!(!may_acknowledge(&leadership, &state, &liveness, &renewed), "it counts as silent");
    }
}
