//! Bounded mailboxes. An actor's file keeps its [`Mailbox`] inside a handle and its [`Inbox`] inside `run`; neither
//! leaves the file. Requests flow down through mailboxes; facts flow up through `tokio::sync::watch`.

use std::future::Future;

use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::reply::{Reply, reply};

/// Why an actor did not take or answer a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActorError {
    /// The actor has ended; nothing will read the message.
    #[error("{actor} has stopped")]
    Stopped {
        /// The actor's name.
        actor: &'static str,
    },
    /// The mailbox is full; the caller may try again later.
    #[error("{actor} is busy: {capacity} messages are waiting; try again")]
    Busy {
        /// The actor's name.
        actor: &'static str,
        /// Messages the mailbox holds.
        capacity: usize,
    },
    /// The actor took the message and dropped it without answering: the outcome is unknown.
    #[error("{actor} gave no answer; the outcome is unknown")]
    NoReply {
        /// The actor's name.
        actor: &'static str,
    },
    /// No answer within the limit: the outcome is unknown.
    #[error("{actor} gave no answer within {limit_ms} ms; the outcome is unknown")]
    Late {
        /// The actor's name.
        actor: &'static str,
        /// The limit the caller set.
        limit_ms: u64,
    },
}

/// How full a mailbox is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// The actor's name.
    pub actor: &'static str,
    /// Messages that wait to be read.
    pub messages: usize,
    /// Messages the mailbox holds at most.
    pub capacity: usize,
}

/// The sending half of an actor's mailbox.
#[derive(Debug)]
pub struct Mailbox<M> {
    actor: &'static str,
    sender: mpsc::Sender<M>,
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self { actor: self.actor, sender: self.sender.clone() }
    }
}

/// The receiving half; `recv` returns `None` once every [`Mailbox`] is gone and the queue is empty.
#[derive(Debug)]
pub struct Inbox<M> {
    receiver: mpsc::Receiver<M>,
}

/// Makes the mailbox of an actor; `actor` names it in errors, `capacity` is its bound (at least 1 is used).
pub fn mailbox<M>(actor: &'static str, capacity: usize) -> (Mailbox<M>, Inbox<M>) {
    let (sender, receiver) = mpsc::channel(capacity.max(1));
    (Mailbox { actor, sender }, Inbox { receiver })
}

impl<M> Mailbox<M> {
    /// Sends, waiting for room. Never use it upwards: a cycle of waiting sends can deadlock.
    pub async fn send(&self, message: M) -> Result<(), ActorError> {
        self.sender.send(message).await.map_err(|_| ActorError::Stopped { actor: self.actor })
    }

    /// Sends at once or refuses with [`ActorError::Busy`].
    pub fn try_send(&self, message: M) -> Result<(), ActorError> {
        self.sender.try_send(message).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => {
                ActorError::Busy { actor: self.actor, capacity: self.sender.max_capacity() }
            }
            mpsc::error::TrySendError::Closed(_) => ActorError::Stopped { actor: self.actor },
        })
    }

    /// Sends the message that `make` builds around a [`Reply`] and waits for the answer.
    pub async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> M) -> Result<T, ActorError> {
        let (to, answer) = reply();
        self.send(make(to)).await?;
        answer.await.ok_or(ActorError::NoReply { actor: self.actor })
    }

    /// Like [`Mailbox::ask`], giving up after `limit_ms` (sending included).
    pub async fn ask_within<T>(
        &self,
        clock: &dyn Clock,
        limit_ms: u64,
        make: impl FnOnce(Reply<T>) -> M,
    ) -> Result<T, ActorError> {
        let late = clock.sleep_ms(limit_ms);
        tokio::select! {
            biased;
            answer = self.ask(make) => answer,
            () = late => Err(ActorError::Late { actor: self.actor, limit_ms }),
        }
    }

    /// How many messages wait.
    pub fn depth(&self) -> Depth {
        let capacity = self.sender.max_capacity();
        Depth { actor: self.actor, messages: capacity - self.sender.capacity(), capacity }
    }

    /// Whether the actor has stopped reading.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Completes when the actor has stopped reading.
    pub fn closed(&self) -> impl Future<Output = ()> + '_ {
        self.sender.closed()
    }
}

impl<M> Inbox<M> {
    /// The next message; `None` when no sender is left.
    pub async fn recv(&mut self) -> Option<M> {
        self.receiver.recv().await
    }

    /// Waits for one message, then takes up to `limit` that are there already; 0 when no sender is left.
    pub async fn recv_many(&mut self, into: &mut Vec<M>, limit: usize) -> usize {
        self.receiver.recv_many(into, limit).await
    }

    /// A message that is there already.
    pub fn try_recv(&mut self) -> Option<M> {
        self.receiver.try_recv().ok()
    }

    /// Refuses new messages; those already queued can still be read.
    pub fn close(&mut self) {
        self.receiver.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualTime;

    enum Message {
        Double(u32, Reply<u32>),
        Forget(Reply<u32>),
    }

    #[tokio::test]
    async fn a_full_mailbox_refuses_and_a_dropped_inbox_is_stopped() {
        let (to, inbox) = mailbox::<u32>("echo", 1);
        to.try_send(1).expect("room for one");
        assert_eq!(to.depth(), Depth { actor: "echo", messages: 1, capacity: 1 });
        assert_eq!(to.try_send(2), Err(ActorError::Busy { actor: "echo", capacity: 1 }));
        drop(inbox);
        assert_eq!(to.send(3).await, Err(ActorError::Stopped { actor: "echo" }));
        to.closed().await;
    }

    #[tokio::test]
    async fn an_answer_comes_back_and_a_dropped_reply_is_told_apart() {
        let (to, mut inbox) = mailbox("math", 4);
        let actor = tokio::spawn(async move {
            while let Some(message) = inbox.recv().await {
                match message {
                    Message::Double(n, reply) => reply.send(n * 2),
                    Message::Forget(reply) => drop(reply),
                }
            }
        });
        assert_eq!(to.ask(|r| Message::Double(21, r)).await, Ok(42));
        assert_eq!(to.ask(Message::Forget).await, Err(ActorError::NoReply { actor: "math" }));
        drop(to);
        actor.await.expect("ends when no handle is left");
    }

    #[tokio::test]
    async fn a_silent_actor_is_late_by_the_given_clock() {
        let time = ManualTime::new(0);
        let clock = time.clock();
        let (to, _inbox) = mailbox("silent", 4);
        let asked = tokio::spawn(async move { to.ask_within(&clock, 50, Message::Forget).await });
        tokio::task::yield_now().await;
        time.advance(50);
        let answer = asked.await.expect("no panic");
        assert_eq!(answer, Err(ActorError::Late { actor: "silent", limit_ms: 50 }));
    }
}
