//! The answer slot that travels inside a message.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

/// Where an actor puts the answer to one request. Dropping it tells the asker that no answer will come.
#[derive(Debug)]
#[must_use = "a request must be answered; drop it on purpose only"]
pub struct Reply<T>(oneshot::Sender<T>);

/// The asker's half: resolves to `None` if the [`Reply`] was dropped.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Answer<T>(oneshot::Receiver<T>);

/// Makes one answer slot.
pub fn reply<T>() -> (Reply<T>, Answer<T>) {
    let (sender, receiver) = oneshot::channel();
    (Reply(sender), Answer(receiver))
}

impl<T> Reply<T> {
    /// Answers. An asker that no longer waits is no error: the work is done either way.
    pub fn send(self, value: T) {
        self.0.send(value).ok();
    }

    /// Whether the asker has gone, so that costly work for it may be skipped.
    pub fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }
}

impl<T> Future for Answer<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.0).poll(cx).map(Result::ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_arrives_and_abandonment_is_seen_on_both_sides() {
        let (to, answer) = reply();
        to.send(7);
        assert_eq!(answer.await, Some(7));
        let (to, answer) = reply::<u8>();
        drop(to);
        assert_eq!(answer.await, None);
        let (to, answer) = reply::<u8>();
        drop(answer);
        assert!(to.is_abandoned());
    }
}
