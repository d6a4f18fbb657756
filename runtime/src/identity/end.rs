//! When a connection is over: with its certificate, or a short while after a stranger came.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Timers do not count time asleep and do not see the wall clock step, so the clock is looked at this often at least.
const NAP_MS_MAX: u64 = 60_000;
/// The timer takes no more; whoever is cut then connects again.
const LIFE_MS_MAX: u64 = 365 * 24 * 3_600_000;

/// The end of one connection, asked for by the task that serves it.
#[derive(Debug)]
pub(super) struct End {
    /// By the wall clock; `None`: with the first nap.
    not_after_ms: Option<u64>,
    nap_ms_max: u64,
    nap: Pin<Box<Sleep>>,
}

impl End {
    /// With a certificate that is good until `not_after_ms`.
    pub(super) fn at(not_after_ms: u64, now_ms: u64) -> Self {
        Self::looking_every(NAP_MS_MAX, not_after_ms, now_ms)
    }

    /// After so much time, whatever the wall clock shows.
    pub(super) fn after(life_ms: u64) -> Self {
        let nap = Box::pin(sleep(Duration::from_millis(life_ms.min(LIFE_MS_MAX))));
        Self { not_after_ms: None, nap_ms_max: NAP_MS_MAX, nap }
    }

    fn looking_every(nap_ms_max: u64, not_after_ms: u64, now_ms: u64) -> Self {
        let left_ms = not_after_ms.saturating_sub(now_ms);
        let nap = Box::pin(sleep(Duration::from_millis(left_ms.min(nap_ms_max))));
        Self { not_after_ms: Some(not_after_ms), nap_ms_max, nap }
    }

    /// Whether it has come; else the task of `cx` is woken when it may have.
    pub(super) fn has_come(&mut self, cx: &mut Context<'_>, now_ms: impl Fn() -> u64) -> bool {
        while self.nap.as_mut().poll(cx).is_ready() {
            let left_ms = self.not_after_ms.map_or(0, |not_after_ms| not_after_ms.saturating_sub(now_ms()));
            if left_ms == 0 {
                return true;
            }
            let nap = Duration::from_millis(left_ms.min(self.nap_ms_max));
            self.nap.as_mut().reset(Instant::now() + nap);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::task::Poll;

    const DEADLINE: Duration = Duration::from_secs(20);
    const HOUR_MS: u64 = 3_600_000;

    async fn comes(end: &mut End, now_ms: impl Fn() -> u64) {
        let end = poll_fn(|cx| if end.has_come(cx, &now_ms) { Poll::Ready(()) } else { Poll::Pending });
        tokio::time::timeout(DEADLINE, end).await.expect("it comes");
    }

    async fn has_come(end: &mut End, now_ms: impl Fn() -> u64) -> bool {
        poll_fn(|cx| Poll::Ready(end.has_come(cx, &now_ms))).await
    }

    #[tokio::test]
    async fn a_step_of_the_clock_or_a_suspend_brings_the_end_at_the_next_look() {
        let wall = Cell::new(0);
        let mut end = End::looking_every(10, HOUR_MS, wall.get());
        assert!(!has_come(&mut end, || wall.get()).await, "an hour too early");
        wall.set(HOUR_MS);
        comes(&mut end, || wall.get()).await;
        assert!(has_come(&mut end, || wall.get()).await, "it does not go away again");
    }

    #[tokio::test]
    async fn a_clock_that_was_put_back_puts_the_end_off() {
        let (looks, not_after_ms) = (Cell::new(0), HOUR_MS);
        let mut end = End::looking_every(5, not_after_ms, not_after_ms - 1);
        // Stands still at a minute before the end, for the first three looks.
        comes(&mut end, || {
            looks.set(looks.get() + 1);
            if looks.get() > 3 { not_after_ms } else { not_after_ms - 60_000 }
        })
        .await;
        assert_eq!(looks.get(), 4, "it came before the clock said so");
    }

    #[tokio::test]
    async fn a_stranger_s_end_asks_no_clock() {
        comes(&mut End::after(1), || unreachable!("a stranger has no certificate")).await;
    }
}
