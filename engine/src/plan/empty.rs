//! The cluster as it would be if nothing ran, kept from one question to the next.

use super::ledger::{Ledger, Suppose};
use crate::organisation::Organisation;
use crate::policy::Policy;
use crate::state::State;
use crate::state::node::NodeRecord;
use crate::table::Table;
use muster_common::NodeId;
use muster_common::topology::FabricSpec;
use std::sync::Arc;

/// What [`super::never::fits_on`] is asked on: who submits ten thousand jobs pays once for looking at ten thousand nodes.
#[derive(Debug)]
pub struct Empty {
    ledger: Arc<Ledger>,
    nodes: Table<NodeId, NodeRecord>,
    fabric: Arc<FabricSpec>,
    policy: Arc<Policy>,
    /// Prices say in which order models are tried.
    organisation: Arc<Organisation>,
}

impl Empty {
    pub fn of(state: &State) -> Self {
        Self {
            ledger: Arc::new(Ledger::of(state, Suppose::NOTHING_RUNS)),
            nodes: state.nodes().clone(),
            fabric: state.fabric().clone(),
            policy: state.policy().clone(),
            organisation: state.accounts().document().clone(),
        }
    }

    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Is this what `state` would be, emptied, too? Costs what has changed of its nodes since the last question.
    pub fn is_of(&mut self, state: &State) -> bool {
        let configured = Arc::ptr_eq(&self.fabric, state.fabric())
            && Arc::ptr_eq(&self.policy, state.policy())
            && Arc::ptr_eq(&self.organisation, state.accounts().document());
        // Which nodes are tried first, and with it where several groups find room, may be for the jobs of today to say.
        let by_jobs = self.policy.ranks_by_workload() && self.policy.workload.is_empty();
        if !configured || by_jobs {
            return false;
        }
        let mut same = true;
        state.nodes().changes_since(&self.nodes, |node, _, _| {
            let view = self.ledger.node(*node);
            same &= view.is_some_and(|view| view.could_still(state, Suppose::NOTHING_RUNS));
        });
        if same {
            self.nodes = state.nodes().clone();
        }
        same
    }
}
