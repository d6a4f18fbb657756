//! What consensus replicates for: a deterministic machine it drives but knows nothing about.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use super::types::{Answer, LogPos, Payload, Reply};

/// A committed entry or snapshot the machine cannot take in. The server stops: it would otherwise differ from the others.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct MachineError(pub String);

/// Makes everything that is derived from the log, up to the given index, durable. Called off the apply path, before a
/// snapshot is published; only then may the log be purged.
pub type FlushBeforePurge = Arc<dyn Fn(u64) -> io::Result<()> + Send + Sync>;

/// A replicated machine: the scheduler's state, or a toy in tests.
///
/// Calls come one at a time and in log order. Equal logs must give equal machines.
pub trait Machine: Send + 'static {
    /// What a proposer learns; it never leaves the server that proposed.
    type Response: Send + Sync + 'static;
    /// A cheap, consistent copy for readers (an `Arc` inside).
    type View: Clone + Send + Sync + 'static;

    /// Applies a committed payload. An error stops the server, so it is only for payloads that cannot be decoded.
    fn apply(&mut self, index: u64, term: u64, payload: &[u8]) -> Result<Self::Response, MachineError>;

    /// Passes an entry that holds nothing for the machine: a new leader's blank, a membership, an entry of a past term.
    fn skip(&mut self, index: u64, term: u64) -> Result<(), MachineError>;

    /// The present state for readers.
    fn view(&self) -> Self::View;

    /// A view as the bytes of a snapshot. Runs on a thread of its own.
    fn encode(view: &Self::View) -> Result<Vec<u8>, MachineError>;

    /// Replaces the state by a snapshot that ends at `index`. On an error the state is as before.
    fn restore(&mut self, index: u64, bytes: &[u8]) -> Result<(), MachineError>;

    /// Asked for once, at the start.
    fn flush_before_purge(&self) -> FlushBeforePurge {
        Arc::new(|_| Ok(()))
    }
}

/// A view together with the entry it includes.
#[derive(Clone, Debug)]
pub struct Viewed<V> {
    /// The last entry applied; none before the first.
    pub applied: Option<LogPos>,
    /// The state after it.
    pub view: V,
}

pub(crate) type Encoder = Box<dyn FnOnce() -> Result<Vec<u8>, MachineError> + Send>;

/// A machine with its types erased, so that Raft is compiled once for all machines.
pub(crate) trait AnyMachine: Send + Sync {
    fn apply(&mut self, at: LogPos, payload: &Payload) -> Result<Reply, MachineError>;
    fn skip(&mut self, at: LogPos) -> Result<(), MachineError>;
    fn publish(&mut self, applied: Option<LogPos>);
    fn encoder(&self) -> Encoder;
    fn restore(&mut self, at: Option<LogPos>, bytes: &[u8]) -> Result<(), MachineError>;
}

pub(crate) struct Erased<M: Machine> {
    // A machine need not be Sync; openraft wants its parts to be. Only `&mut self` reaches it.
    machine: Exclusive<M>,
    views: watch::Sender<Viewed<M::View>>,
}

impl<M: Machine> Erased<M> {
    pub(crate) fn new(machine: M) -> (Self, watch::Receiver<Viewed<M::View>>) {
        let (views, seen) = watch::channel(Viewed { applied: None, view: machine.view() });
        (Erased { machine: Exclusive::new(machine), views }, seen)
    }
}

impl<M: Machine> AnyMachine for Erased<M> {
    fn apply(&mut self, at: LogPos, payload: &Payload) -> Result<Reply, MachineError> {
        if payload.in_term != 0 && payload.in_term != at.term {
            self.machine.get_mut().skip(at.index, at.term)?;
            return Ok(Reply(Answer::StaleTerm));
        }
        let response = self.machine.get_mut().apply(at.index, at.term, &payload.bytes)?;
        Ok(Reply(Answer::Machine(Box::new(response))))
    }

    fn skip(&mut self, at: LogPos) -> Result<(), MachineError> {
        self.machine.get_mut().skip(at.index, at.term)
    }

    fn publish(&mut self, applied: Option<LogPos>) {
        let view = self.machine.get_mut().view();
        self.views.send_replace(Viewed { applied, view });
    }

    fn encoder(&self) -> Encoder {
        let view = self.views.borrow().view.clone();
        Box::new(move || M::encode(&view))
    }

    fn restore(&mut self, at: Option<LogPos>, bytes: &[u8]) -> Result<(), MachineError> {
        self.machine.get_mut().restore(at.map_or(0, |at| at.index), bytes)
    }
}

/// Sync by allowing only exclusive access.
struct Exclusive<T>(std::sync::Mutex<T>);

impl<T> Exclusive<T> {
    fn new(inner: T) -> Self {
        Exclusive(std::sync::Mutex::new(inner))
    }

    fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
