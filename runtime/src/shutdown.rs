//! One token that every task watches to end in order.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a process that is interrupted a second time while it is stopping.
const EXIT_INTERRUPTED: i32 = 130;

/// A cloneable "please stop". Triggering any clone triggers all of them and every child; a child does not trigger its parent.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A token that has not been triggered.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everyone to stop; safe to call again.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Whether stopping has been asked for.
    pub fn is_triggered(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Completes when stopping is asked for; at once if it was before.
    pub async fn triggered(&self) {
        self.0.cancelled().await;
    }

    /// A token that also stops when this one does, and can be stopped alone.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Runs `work` to its end, or drops it and returns `None` when stopping comes first.
    pub async fn unless<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.0.cancelled() => None,
            value = work => Some(value),
        }
    }

    /// Triggers on SIGINT or SIGTERM. A second signal ends the process at once with code 130, for a person who cannot wait.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed. Needs a tokio runtime.
    pub fn on_signals(&self) -> io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let token = self.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    heard = interrupt.recv() => heard.map(|()| "SIGINT"),
                    heard = terminate.recv() => heard.map(|()| "SIGTERM"),
                };
                let Some(name) = name else { return };
                if token.is_triggered() {
                    tracing::warn!(signal = name, "second signal: ending at once");
                    std::process::exit(EXIT_INTERRUPTED);
                }
                tracing::info!(signal = name, "stopping");
                token.trigger();
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_stops_with_its_parent_but_not_the_other_way_round() {
        let parent = Shutdown::new();
        let child = parent.child();
        let other = parent.child();
        child.trigger();
        assert!(!parent.is_triggered() && !other.is_triggered());
        assert_eq!(child.unless(std::future::pending::<()>()).await, None);
        parent.trigger();
        other.triggered().await;
        assert_eq!(Shutdown::new().unless(async { 3 }).await, Some(3));
    }

    #[tokio::test]
    async fn a_first_signal_asks_to_stop() {
        let shutdown = Shutdown::new();
        shutdown.on_signals().expect("handlers are installed");
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).expect("sent to this process");
        let stopped = tokio::time::timeout(std::time::Duration::from_secs(20), shutdown.triggered());
        stopped.await.expect("the signal is heard");
    }
}
