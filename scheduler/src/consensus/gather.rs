//! Proposals that come together, written together: one append, one round to the followers, one view.
//!
//! While two writes are under way, what comes waits and makes the next one. A server with little to do writes each proposal
//! at once; one with much to do pays for its rounds, syncs and views once for many.

use std::sync::Arc;

use futures::StreamExt;
use openraft::raft::WriteResult;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::log_store::READ_BYTES_MAX;
use super::types::{Payload, Raft, TypeConfig};

/// Proposals that wait for a place.
const WAITING_MAX: usize = 4096;
/// One write.
const ENTRIES_MAX: usize = 256;
/// Writes under way: one on its way to the disks, one being applied.
const UNDER_WAY: usize = 2;
/// Turns given to other tasks, so that who is about to propose comes along.
const TURNS: usize = 4;

/// What Raft made of a proposal; the error says why consensus has stopped.
pub(crate) type Written = Result<WriteResult<TypeConfig>, String>;

struct Waiting {
    payload: Payload,
    answer: oneshot::Sender<Written>,
}

/// Takes proposals. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gather(mpsc::Sender<Waiting>);

impl Gather {
    pub(crate) fn start(raft: Raft, stop: CancellationToken) -> Self {
        let (tx, rx) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = run(raft, rx) => {}
            }
        });
        Gather(tx)
    }

    /// Replicates one payload; answered once it is applied here, or refused. Who stops waiting before it was its turn has
    /// proposed nothing.
    pub(crate) async fn write(&self, payload: Payload) -> Written {
        let (answer, written) = oneshot::channel();
        let stopped = || "it is shutting down".to_owned();
        self.0.send(Waiting { payload, answer }).await.map_err(|_| stopped())?;
        written.await.unwrap_or_else(|_| Err(stopped()))
    }
}

async fn run(raft: Raft, mut inbox: mpsc::Receiver<Waiting>) {
    let room = Arc::new(Semaphore::new(UNDER_WAY));
    let mut waiting = Vec::new();
    loop {
        if waiting.is_empty() && inbox.recv_many(&mut waiting, ENTRIES_MAX).await == 0 {
            return;
        }
        let Ok(place) = room.clone().acquire_owned().await else { return };
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
            while waiting.len() < ENTRIES_MAX
                && let Ok(more) = inbox.try_recv()
            {
                waiting.push(more);
            }
        }
        waiting.retain(|one| !one.answer.is_closed());
        let batch: Vec<Waiting> = waiting.drain(..fitting(&waiting)).collect();
        if !batch.is_empty() {
            write(&raft, batch, place).await;
        }
    }
}

/// How many of those that wait make one write. The first always does.
fn fitting(waiting: &[Waiting]) -> usize {
    let mut bytes = 0;
    let within = waiting.iter().take_while(|one| {
        bytes += one.payload.bytes.len();
        bytes <= READ_BYTES_MAX
    });
    within.count().max(1).min(waiting.len())
}

async fn write(raft: &Raft, batch: Vec<Waiting>, place: OwnedSemaphorePermit) {
    let (payloads, answers): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.payload, one.answer)).unzip();
    let mut written = match raft.client_write_many(payloads).await {
        Ok(written) => written,
        Err(fatal) => {
            for answer in answers {
                // Who has gone away needs no answer.
                let _ = answer.send(Err(fatal.to_string()));
            }
            return;
        }
    };
    tokio::spawn(async move {
        for answer in answers {
            let result = match written.next().await {
                Some(result) => result.map_err(|fatal| fatal.to_string()),
                None => Err("raft stopped".to_owned()),
            };
            // As above.
            let _ = answer.send(result);
        }
        drop(place);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn waiting(bytes: usize) -> Waiting {
        let payload = Payload { in_term: 0, bytes: Bytes::from(vec![0; bytes]) };
        Waiting { payload, answer: oneshot::channel().0 }
    }

    #[test]
    fn a_write_is_bounded_in_bytes_and_never_empty() {
        let third = READ_BYTES_MAX / 3;
        assert_eq!(fitting(&[]), 0);
        assert_eq!(fitting(&[waiting(third), waiting(third), waiting(third), waiting(third)]), 3);
        assert_eq!(fitting(&[waiting(READ_BYTES_MAX + 1), waiting(1)]), 1);
    }
}
