//! Stamps commands with state time and has them committed.

use crate::consensus::{ConsensusHandle, ProposeError};
use crate::machine::{EngineMachine, Proposal};
use muster_common::Time;
use muster_engine::command::ConfigChange;
use muster_engine::{Command, Response};
use muster_runtime::clock::Clock;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What became of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    pub index: u64,
    pub term: u64,
    pub response: Response,
}

/// State time as this leader counts it: what State said when the term began, plus the boot clock
/// since.
#[derive(Debug, Clone, Copy, Default)]
struct Base {
    term: u64,
    state: Time,
    boottime_ms: u64,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Proposer {
    consensus: ConsensusHandle<EngineMachine>,
    clock: Arc<dyn Clock>,
    base: Arc<Mutex<Base>>,
}

impl Proposer {
    pub fn new(consensus: ConsensusHandle<EngineMachine>, clock: Arc<dyn Clock>) -> Self {
        Self { consensus, clock, base: Arc::default() }
    }

    /// State time now. Only a leader's is worth anything.
    pub fn now(&self) -> Time {
        let term = self.consensus.leadership().borrow().term;
        let boottime_ms = self.clock.boottime_ms();
        let state = self.consensus.view().now();
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = base.state.plus_ms(boottime_ms.saturating_sub(base.boottime_ms));
        // A new term, or an `AdvanceTime` that left the count behind.
        if base.term != term || state > counted {
            *base = Base { term, state, boottime_ms };
            return state;
        }
        counted
    }

    pub async fn propose(&self, command: Command) -> Result<Committed, ProposeError> {
        // A plan is cut into small entries, but one gang of thousands of nodes cannot be cut.
        let begun_us = self.clock.boottime_us();
        let large = match &command {
            Command::Submit(_) | Command::Edit(_) | Command::CommitPlan(_) | Command::MakeWindow(_) => true,
            Command::Configure { change, .. } => {
                matches!(**change, ConfigChange::Organisation(_) | ConfigChange::Declare(_))
            }
            _ => false,
        };
        let bytes = Proposal { at: self.now(), command }.encode().into();
        let applied =
            if large { self.consensus.propose_large(bytes).await } else { self.consensus.propose(bytes).await };
        self.count(begun_us, applied.is_ok());
        let applied = applied?;
        Ok(Committed { index: applied.index, term: applied.term, response: applied.response.response })
    }

    fn count(&self, begun_us: u64, committed: bool) {
        let took = Duration::from_micros(self.clock.boottime_us().saturating_sub(begun_us));
        self.consensus.instruments().proposed(took, committed);
    }

    /// The same for what is void in any other term.
    pub async fn propose_in_term(&self, term: u64, command: Command) -> Result<Committed, ProposeError> {
        let begun_us = self.clock.boottime_us();
        let bytes = Proposal { at: self.now(), command }.encode().into();
        let applied = self.consensus.propose_in_term(term, bytes).await;
        self.count(begun_us, applied.is_ok());
        let applied = applied?;
        Ok(Committed { index: applied.index, term: applied.term, response: applied.response.response })
    }
}
