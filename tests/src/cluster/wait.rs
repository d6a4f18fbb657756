//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// For whatever has no reason to take longer, on a slow machine with everything built for tests.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Looks until there is something.
///
/// # Panics
/// When nothing was there within [`PATIENCE`]; `what` is what was waited for.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look).await
}

/// [`until`] with another deadline.
pub async fn until_within<T>(patience: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < patience, "waited {patience:?} in vain for {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Milliseconds since boot, comparable between processes.
pub fn boot_ms() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).expect("the clock can be read");
    now.tv_sec() as u64 * 1000 + now.tv_nsec() as u64 / 1_000_000
}
