//! Acknowledges lease renewals, in batches, each after a ReadIndex round that began after they
//! arrived (rule 6). Never from a timer or a leader's own belief that it leads.

use crate::consensus::ConsensusHandle;
use crate::liveness::Liveness;
use crate::machine::EngineMachine;
use crate::session::Outgoing;
use muster_common::NodeId;
use muster_engine::state::node;
use muster_proto::agent as wire;
use muster_runtime::actor::{Inbox, Mailbox, mailbox};
use muster_runtime::shutdown::Shutdown;

/// Renewals waiting for a round. More are dropped: the agent sends another soon.
const WAITING_MAX: usize = 16_384;

/// A renewal that has arrived.
pub struct Renewed {
    pub node: NodeId,
    pub epoch: u64,
    /// The control session it names, which must be the one it came on.
    pub session: u64,
    pub number: u64,
    /// Of the session it came on.
    pub answer: Outgoing,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct LeasesHandle {
    mailbox: Mailbox<Renewed>,
}

impl LeasesHandle {
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
            return;
        }
        // A new leader acknowledges nothing before it has applied the first entry of its own term.
        if !self.consensus.leadership().borrow().first_index_of_term_applied {
            return;
        }
        let state = self.consensus.view();
        for renewed in batch {
            let known = state.node(renewed.node);
            let current = known.is_some_and(|node| node.epoch == renewed.epoch && node.liveness == node::Liveness::Up);
            if current && self.liveness.may_acknowledge(renewed.node) {
                let lease = wire::LeaseExtended { session: renewed.session, number: renewed.number };
                renewed.answer.try_send(wire::server_message::Body::Lease(lease));
            }
        }
    }
}
