//! Named tasks with one of two exit policies: *escalate* (a failure stops the process, which restarts from durable
//! state) or *restart* with a growing pause (for stateless edges only).

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinHandle};

use crate::actor::ActorError;
use crate::clock::Clock;
use crate::shutdown::Shutdown;

/// Any error a task may end with.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The failure that stopped the process. A task that failed only because another had ended is one when no other failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{task} {}: {message}", if *.panicked { "panicked" } else { "failed" })]
pub struct Cause {
    /// Name of the task that failed.
    pub task: String,
    /// The error with its sources, or the panic's message.
    pub message: String,
    /// Whether it panicked rather than returned an error.
    pub panicked: bool,
}

/// The pause before a restart: doubles from `first_ms` to `most_ms`, and starts afresh after a run longer than `most_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Pause before the first restart.
    pub first_ms: u64,
    /// Longest pause.
    pub most_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first_ms: 100, most_ms: 10_000 }
    }
}

impl Backoff {
    /// The pause before restart number `restart` (from 0).
    pub fn pause_ms(&self, restart: u32) -> u64 {
        let doubled = self.first_ms.saturating_mul(1u64.checked_shl(restart).unwrap_or(u64::MAX));
        doubled.min(self.most_ms)
    }
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    tasks: BTreeMap<u64, (String, AbortHandle)>,
    failure: Option<Failure>,
}

/// A failed task.
#[derive(Debug)]
struct Failure {
    cause: Cause,
    /// Whether all that it says is that another task has ended.
    follows: bool,
}

/// The error a task ended with, with its sources.
#[derive(Debug)]
struct Ended {
    message: String,
    follows: bool,
}

#[derive(Debug)]
struct Inner {
    shutdown: Shutdown,
    clock: Arc<dyn Clock>,
    table: Mutex<Table>,
    running: watch::Sender<usize>,
}

/// Starts and watches the tasks of one process. Clones share one table.
#[derive(Debug, Clone)]
pub struct Supervisor(Arc<Inner>);

impl Supervisor {
    /// A supervisor that triggers `shutdown` on the first escalated failure and measures pauses with `clock`.
    pub fn new(shutdown: Shutdown, clock: Arc<dyn Clock>) -> Self {
        let running = watch::Sender::new(0);
        Self(Arc::new(Inner { shutdown, clock, table: Mutex::default(), running }))
    }

    /// The token tasks watch.
    pub fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }

    /// The first escalated failure, if there was one.
    pub fn cause(&self) -> Option<Cause> {
        self.table().failure.as_ref().map(|failure| failure.cause.clone())
    }

    /// Starts a task that escalates: an error or panic is recorded as the cause and stops the process. `Ok` is a normal end.
    pub fn spawn<F, E>(&self, name: impl Into<String>, work: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let name = name.into();
        let running = tokio::spawn(async move { work.await.map_err(describe) });
        let this = self.clone();
        let watched = name.clone();
        self.watch(name, running, move |ended| {
            if let Some(failure) = failure(&watched, ended) {
                this.escalate(failure);
            }
        });
    }

    /// Starts a task that is made again by `make` after an error or panic, following `backoff`. `Ok` ends it for good.
    pub fn spawn_restarting<F, E, M>(&self, name: impl Into<String>, backoff: Backoff, mut make: M)
    where
        M: FnMut() -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let name = name.into();
        let (clock, shutdown) = (self.0.clock.clone(), self.0.shutdown.clone());
        let label = name.clone();
        let running = tokio::spawn(async move {
            let mut restarts = 0;
            loop {
                let started_ms = clock.boottime_ms();
                let work = make();
                let mut task = AbortOnDrop(tokio::spawn(async move { work.await.map_err(describe) }));
                let Some(Failure { cause, .. }) = failure(&label, (&mut task.0).await) else {
                    return Ok(());
                };
                if clock.boottime_ms().saturating_sub(started_ms) > backoff.most_ms {
                    restarts = 0;
                }
                let pause_ms = backoff.pause_ms(restarts);
                tracing::warn!(task = %label, %cause, pause_ms, "restarting");
                if shutdown.unless(clock.sleep_ms(pause_ms)).await.is_none() {
                    return Ok(());
                }
                restarts = restarts.saturating_add(1);
            }
        });
        let this = self.clone();
        let watched = name.clone();
        self.watch(name, running, move |ended| {
            // Only `make` itself can fail here, and a task that cannot be made again is an edge no longer.
            if let Some(failure) = failure(&watched, ended) {
                this.escalate(failure);
            }
        });
    }

    /// Waits until stopping is asked for, then until every task has ended; those still there after `grace_ms` are dropped.
    ///
    /// # Errors
    /// The cause, when a failure rather than a request stopped the process.
    pub async fn wait(&self, grace_ms: u64) -> Result<(), Cause> {
        self.0.shutdown.triggered().await;
        let mut running = self.0.running.subscribe();
        let all_ended = async {
            running.wait_for(|n| *n == 0).await.ok();
        };
        tokio::select! {
            biased;
            () = all_ended => {}
            () = self.0.clock.sleep_ms(grace_ms) => {
                for (name, task) in self.table().tasks.values() {
                    tracing::warn!(task = %name, grace_ms, "still running after the grace time: dropped");
                    task.abort();
                }
            }
        }
        self.cause().map_or(Ok(()), Err)
    }

    fn watch<H>(&self, name: String, running: JoinHandle<Result<(), Ended>>, on_end: H)
    where
        H: FnOnce(Result<Result<(), Ended>, JoinError>) + Send + 'static,
    {
        let id = {
            let mut table = self.table();
            table.next += 1;
            let id = table.next;
            table.tasks.insert(id, (name, running.abort_handle()));
            id
        };
        self.0.running.send_modify(|n| *n += 1);
        let this = self.clone();
        tokio::spawn(async move {
            on_end(running.await);
            this.table().tasks.remove(&id);
            this.0.running.send_modify(|n| *n -= 1);
        });
    }

    fn escalate(&self, failure: Failure) {
        let cause = &failure.cause;
        if failure.follows && self.0.shutdown.is_triggered() {
            tracing::debug!(%cause, "ended after another task while stopping");
            return;
        }
        tracing::error!(%cause, "stopping the process");
        let mut table = self.table();
        if table.failure.as_ref().is_none_or(|first| first.follows && !failure.follows) {
            table.failure = Some(failure);
        }
        drop(table);
        self.0.shutdown.trigger();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing under the lock can leave the table half-changed, so a poisoned lock is still good.
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A child run that ends with the loop that started it, so that dropping the loop leaves nothing behind.
struct AbortOnDrop(JoinHandle<Result<(), Ended>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn failure(task: &str, ended: Result<Result<(), Ended>, JoinError>) -> Option<Failure> {
    let (message, panicked, follows) = match ended {
        Ok(Ok(())) => return None,
        Ok(Err(Ended { message, follows })) => (message, false, follows),
        Err(join) => match join.try_into_panic() {
            Ok(payload) => (panic_message(payload.as_ref()), true, false),
            Err(_cancelled) => return None,
        },
    };
    Some(Failure { cause: Cause { task: task.to_owned(), message, panicked }, follows })
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "panic without a message".to_owned()
    }
}

fn describe<E: Into<BoxError>>(error: E) -> Ended {
    let error: BoxError = error.into();
    let mut ended = Ended { message: error.to_string(), follows: says_another_ended(error.as_ref()) };
    let mut source = error.source();
    while let Some(cause) = source {
        ended.message.push_str(": ");
        ended.message.push_str(&cause.to_string());
        ended.follows |= says_another_ended(cause);
        source = cause.source();
    }
    ended
}

fn says_another_ended(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(ActorError::Stopped { .. } | ActorError::NoReply { .. }))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::clock::ManualTime;

    fn supervisor() -> (Supervisor, ManualTime) {
        let time = ManualTime::new(0);
        (Supervisor::new(Shutdown::new(), Arc::new(time.clock())), time)
    }

    #[tokio::test]
    async fn an_error_stops_the_process_and_is_the_cause() {
        let (all, _time) = supervisor();
        let token = all.shutdown().clone();
        all.spawn("bystander", async move {
            token.triggered().await;
            Ok::<(), BoxError>(())
        });
        all.spawn("writer", async { Err::<(), BoxError>("disk is gone".into()) });
        let cause = all.wait(1_000).await.expect_err("a failure");
        assert_eq!(cause.to_string(), "writer failed: disk is gone");
    }

    #[tokio::test]
    async fn a_panic_stops_the_process_too_and_the_first_cause_stays() {
        let (all, _time) = supervisor();
        all.spawn("counter", async {
            assert_eq!(1 + 1, 3, "arithmetic");
            Ok::<(), BoxError>(())
        });
        let cause = all.wait(1_000).await.expect_err("a failure");
        assert!(cause.panicked && cause.task == "counter" && cause.message.contains("arithmetic"));
        all.spawn("late", async { Err::<(), BoxError>("too late".into()) });
        assert_eq!(all.wait(1_000).await.expect_err("still the first").task, "counter");
    }

    fn gone() -> BoxError {
        ActorError::Stopped { actor: "core" }.into()
    }

    #[tokio::test]
    async fn a_task_that_misses_one_that_was_asked_to_stop_is_no_failure() {
        let (all, _time) = supervisor();
        let token = all.shutdown().clone();
        all.spawn("link", async move {
            // It looked before the stop was asked for, and at its peer afterwards.
            token.triggered().await;
            Err::<(), BoxError>(gone())
        });
        all.shutdown().trigger();
        all.wait(1_000).await.expect("a clean stop");
    }

    #[tokio::test]
    async fn the_task_that_failed_is_the_cause_and_not_the_one_that_missed_it() {
        let (all, _time) = supervisor();
        let token = all.shutdown().clone();
        all.spawn("link", async { Err::<(), BoxError>(gone()) });
        all.spawn("core", async move {
            token.triggered().await;
            Err::<(), BoxError>("disk is gone".into())
        });
        assert_eq!(all.wait(1_000).await.expect_err("a failure").to_string(), "core failed: disk is gone");
    }

    #[tokio::test]
    async fn a_task_that_misses_another_before_any_stop_is_the_cause() {
        let (all, _time) = supervisor();
        all.spawn("link", async { Err::<(), BoxError>(gone()) });
        assert_eq!(all.wait(1_000).await.expect_err("a failure").to_string(), "link failed: core has stopped");
    }

    #[tokio::test]
    async fn a_restarting_task_runs_again_after_its_pause_and_escalates_nothing() {
        let (all, time) = supervisor();
        let runs = Arc::new(AtomicU32::new(0));
        let (counted, token) = (runs.clone(), all.shutdown().clone());
        all.spawn_restarting("edge", Backoff { first_ms: 10, most_ms: 40 }, move || {
            let (run, token) = (counted.fetch_add(1, Ordering::SeqCst), token.clone());
            async move {
                match run {
                    0 => Err::<(), BoxError>("first".into()),
                    1 => panic!("second"),
                    _ => {
                        token.trigger();
                        Ok(())
                    }
                }
            }
        });
        while !all.shutdown().is_triggered() {
            time.advance(1);
            tokio::task::yield_now().await;
        }
        all.wait(1_000).await.expect("no cause");
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_task_that_ignores_the_stop_is_dropped_after_the_grace_time() {
        let (all, time) = supervisor();
        all.spawn("deaf", std::future::pending::<Result<(), BoxError>>());
        all.shutdown().trigger();
        let waiting = tokio::spawn({
            let all = all.clone();
            async move { all.wait(500).await }
        });
        tokio::task::yield_now().await;
        time.advance(500);
        waiting.await.expect("no panic").expect("a clean stop");
        let mut running = all.0.running.subscribe();
        running.wait_for(|n| *n == 0).await.expect("the sender lives");
    }

    #[test]
    fn the_pause_doubles_up_to_its_limit() {
        let pauses: Vec<u64> = (0..6).map(|n| Backoff { first_ms: 100, most_ms: 1_000 }.pause_ms(n)).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(Backoff::default().pause_ms(400), 10_000);
    }
}
