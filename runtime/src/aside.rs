//! Work that blocks, done beside the tasks: on a thread for that, or at once where a simulated world has only one thread.

use std::cell::Cell;

use tokio::task::JoinError;

thread_local! {
    static AT_ONCE: Cell<bool> = const { Cell::new(false) };
}

/// From here on, this thread does such work itself. For worlds that must repeat themselves: a second thread would make
/// the order of events the machine's choice.
pub fn at_once_on_this_thread() {
    AT_ONCE.set(true);
}

/// Does `work` without holding up other tasks.
///
/// # Errors
/// `work` panicked, or the runtime is shutting down.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    if AT_ONCE.get() { Ok(work()) } else { tokio::task::spawn_blocking(work).await }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_on_another_thread_unless_this_one_was_told_to_do_it() {
        let own = std::thread::current().id();
        let elsewhere = run(|| std::thread::current().id()).await.expect("it does not panic");
        assert_ne!(elsewhere, own);
        at_once_on_this_thread();
        assert_eq!(run(|| std::thread::current().id()).await.expect("it does not panic"), own);
    }
}
