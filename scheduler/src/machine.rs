//! The engine as the machine that consensus drives: State, and the history its events make.

use crate::consensus::{FlushBeforePurge, Machine, MachineError};
use crate::decisions::DecisionLog;
use crate::history::HistoryStore;
use crate::records;
use crate::watch::{AppliedEvents, WatchHandle};
use muster_common::Time;
use muster_engine::state::FORMAT;
use muster_engine::{Command, Entry, Outcome, State, apply};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What is in a log entry, behind the format byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    pub at: Time,
    pub command: Command,
}

impl Proposal {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend(postcard::to_stdvec(self).expect("commands always encode"));
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MachineError> {
        let damaged = |why: String| MachineError(format!("a committed entry cannot be read: {why}"));
        let (&format, rest) = bytes.split_first().ok_or_else(|| damaged("it is empty".into()))?;
        if format != FORMAT {
            return Err(damaged(format!("its format is {format}, this version reads {FORMAT}; upgrade this server")));
        }
        postcard::from_bytes(rest).map_err(|error| damaged(error.to_string()))
    }
}

/// Told of every entry as it is applied, with the state after it. For checkers of simulated clusters.
pub type Witness = Arc<dyn Fn(&Entry, &State) + Send + Sync>;

/// State behind consensus. Every server applies the same entries and writes the same history.
pub struct EngineMachine {
    state: State,
    history: Arc<HistoryStore>,
    watch: WatchHandle,
    witness: Option<Witness>,
    decisions: Option<DecisionLog>,
}

impl EngineMachine {
    pub fn new(history: Arc<HistoryStore>, watch: WatchHandle) -> Self {
        Self { state: State::default(), history, watch, witness: None, decisions: None }
    }

    /// The same, watched.
    pub fn witnessed(self, witness: Option<Witness>) -> Self {
        Self { witness, ..self }
    }

    /// The same, with a log of what is applied.
    pub fn remembered(self, decisions: Option<DecisionLog>) -> Self {
        Self { decisions, ..self }
    }

    /// Before the state changes.
    fn before_entry(&self) {
        if let Some(log) = self.decisions.as_ref().filter(|log| log.wants_state()) {
            log.begin(self.state.clone());
        }
    }

    fn enter(&mut self, entry: &Entry) -> Outcome {
        let outcome = apply(&mut self.state, entry);
        if let Some(witness) = &self.witness {
            witness(entry, &self.state);
        }
        outcome
    }

    fn record(&self, index: u64, outcome: &mut Outcome) -> Result<(), MachineError> {
        let events = std::mem::take(&mut outcome.events);
        let at = self.state.now();
        let failed = |error: std::io::Error| MachineError(format!("history of entry {index}: {error}"));
        let records = records::encode(at, &events).map_err(failed)?;
        self.history.append(index, &records).map_err(failed)?;
        if !events.is_empty() {
            self.watch.publish(AppliedEvents { index, at, events });
        }
        Ok(())
    }
}

impl Machine for EngineMachine {
    type Response = Outcome;
    type View = Arc<State>;

    fn apply(&mut self, index: u64, term: u64, payload: &[u8]) -> Result<Outcome, MachineError> {
        let Proposal { at, command } = Proposal::decode(payload)?;
        self.before_entry();
        let mut outcome = self.enter(&Entry { index, term, at, command });
        if let Some(log) = &self.decisions {
            log.entry(index, term, Some(payload));
        }
        self.record(index, &mut outcome)?;
        Ok(outcome)
    }

    /// A blank or a membership entry: the state's index moves, its time does not.
    fn skip(&mut self, index: u64, term: u64) -> Result<(), MachineError> {
        // The membership a cluster is born with is entry 0, which State starts from.
        if index > self.state.applied_index() {
            self.before_entry();
            self.enter(&Entry { index, term, at: Time::ZERO, command: Command::Nothing });
            if let Some(log) = &self.decisions {
                log.entry(index, term, None);
            }
            // Nothing to write, and whoever reads history through this index has all of it.
            let failed = |error: std::io::Error| MachineError(format!("history of entry {index}: {error}"));
            self.history.append(index, &[]).map_err(failed)?;
        }
        Ok(())
    }

    fn view(&self) -> Arc<State> {
        Arc::new(self.state.clone())
    }

    fn encode(view: &Arc<State>) -> Result<Vec<u8>, MachineError> {
        Ok(view.encode())
    }

    fn restore(&mut self, index: u64, bytes: &[u8]) -> Result<(), MachineError> {
        let state = State::decode(bytes).map_err(MachineError)?;
        // Entries up to here that this server never applied: their records come from another server.
        self.history.note_restore(index).map_err(|error| MachineError(format!("history: {error}")))?;
        self.state = state;
        // Nothing happened here in between: who follows has to look into history.
        self.watch.publish(AppliedEvents { index, at: self.state.now(), events: Vec::new() });
        if let Some(log) = &self.decisions {
            log.interrupt();
        }
        Ok(())
    }

    fn flush_before_purge(&self) -> FlushBeforePurge {
        let (history, decisions) = (self.history.clone(), self.decisions.clone());
        Arc::new(move |_| {
            // After a restart the log goes on behind the snapshot: what comes before it must be in the file by then.
            if let Some(Err(error)) = decisions.as_ref().map(DecisionLog::written) {
                tracing::warn!(%error, "the decision log may have a gap before the snapshot that is made now");
            }
            history.flush_durable()
        })
    }
}
