//! The seam to processes: starts shims, finds them again, and kills what has no shim any more.

mod in_process;
mod real;

pub use in_process::{InProcess, Seen};
pub use real::RealLauncher;

use crate::shim::machine::RankExit;
use crate::shim::wire::{Released, Request, Spec, Status};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Requests and statuses on their way.
pub const IN_FLIGHT: usize = 16;

/// So many are left when it is not known how many: the processes could not be looked at.
pub const UNKNOWN: usize = usize::MAX;

/// A connection to a live shim. Closed on one side, it is closed on the other.
#[derive(Debug)]
pub struct ShimLink {
    pub requests: mpsc::Sender<Request>,
    pub statuses: mpsc::Receiver<Status>,
}

/// What there is in an allocation's folder.
#[derive(Debug)]
pub enum Found {
    Live(ShimLink),
    /// The shim has ended and left the evidence that nothing runs any more.
    Ended(Released),
    /// There is no shim and no evidence. What it may have left behind has to be looked for; these
    /// ends it still wrote.
    Vanished(Vec<RankExit>),
}

#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    #[error(transparent)]
    Durable(#[from] muster_runtime::durable::DurableError),
    #[error("cannot start the shim of {}: {cause}", dir.display())]
    Start { dir: PathBuf, cause: std::io::Error },
}

/// Starts and finds shims.
#[async_trait]
pub trait Launcher: Send + Sync + Debug {
    /// Writes `spec` into `dir` and starts a shim there; waits a moment for it to listen.
    async fn start(&self, dir: &Path, spec: &Spec) -> Result<(), LauncherError>;

    /// Finds what became of the shim in `dir`; waits a bounded time for one that is just starting.
    async fn find(&self, dir: &Path, marker: &str) -> Found;

    /// Kills every process whose marker starts with `prefix` and is not in `keep`, and everything
    /// below it. Returns how many were still there; zero is the proof that none is, and [`UNKNOWN`]
    /// proves nothing.
    async fn kill_marked(&self, prefix: &str, keep: &BTreeSet<String>) -> usize;
}
