//! One connection, from either end.

use super::bucket::Bucket;
use super::settings::{DATAGRAM_BYTES_MAX, DatagramLimits};
use crate::identity::Peer;
use bytes::Bytes;
use quinn::{Connection, ConnectionError, SendDatagramError, VarInt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;

/// Why a datagram did not leave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    #[error("{0} bytes; a datagram has at most {DATAGRAM_BYTES_MAX}")]
    TooLong(usize),
    #[error("the connection is over: {0}")]
    Over(String),
}

/// Datagrams to and from one peer whose certificate was verified. Clones are the same connection,
/// which ends with the last of them.
#[derive(Debug, Clone)]
pub struct DatagramConnection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection: Connection,
    peer: Peer,
    bucket: Mutex<Bucket>,
    born: Instant,
    dropped: AtomicU64,
    /// Keeps a dialling endpoint alive; its share of a listener's bound.
    _endpoint: Option<quinn::Endpoint>,
    _share: Option<OwnedSemaphorePermit>,
}

impl DatagramConnection {
    pub(super) fn new(
        connection: Connection,
        peer: Peer,
        limits: &DatagramLimits,
        endpoint: Option<quinn::Endpoint>,
        share: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let bucket = Mutex::new(Bucket::new(limits.per_second, limits.burst, 0));
        let (born, dropped) = (Instant::now(), AtomicU64::new(0));
        Self(Arc::new(Inner { connection, peer, bucket, born, dropped, _endpoint: endpoint, _share: share }))
    }

    /// Whoever is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// Sends, or leaves it to chance: when too many wait, the oldest of them is dropped.
    ///
    /// # Errors
    /// A datagram that is too long, or a connection that is over.
    pub fn send(&self, bytes: Vec<u8>) -> Result<(), DatagramError> {
        let length = bytes.len();
        if length > DATAGRAM_BYTES_MAX {
            return Err(DatagramError::TooLong(length));
        }
        self.0.connection.send_datagram(Bytes::from(bytes)).map_err(|error| match error {
            SendDatagramError::TooLarge => DatagramError::TooLong(length),
            SendDatagramError::ConnectionLost(why) => DatagramError::Over(words(&why)),
            other => DatagramError::Over(other.to_string()),
        })
    }

    /// The next datagram within the bounds. Safe to drop.
    ///
    /// # Errors
    /// Why the connection is over.
    pub async fn receive(&self) -> Result<Bytes, DatagramError> {
        loop {
            let bytes = self.0.connection.read_datagram().await;
            let bytes = bytes.map_err(|why| DatagramError::Over(words(&why)))?;
            let now_ms = u64::try_from(self.0.born.elapsed().as_millis()).unwrap_or(u64::MAX);
            if self.0.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now_ms) {
                return Ok(bytes);
            }
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Datagrams beyond the bounds that were thrown away, since it was asked last.
    pub fn take_dropped(&self) -> u64 {
        self.0.dropped.swap(0, Ordering::Relaxed)
    }

    /// Ends it; the other side hears why.
    pub fn close(&self, why: &str) {
        self.0.connection.close(VarInt::from_u32(0), why.as_bytes());
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.0.connection.close_reason().is_some()
    }
}

/// In words for people; what the other side said is cut to one printable line.
pub(super) fn words(why: &ConnectionError) -> String {
    match why {
        ConnectionError::ApplicationClosed(closed) => {
            let said = String::from_utf8_lossy(&closed.reason);
            let said: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
            format!("the other side ended it: {said}")
        }
        ConnectionError::TimedOut => "nothing comes through any more; is UDP blocked?".to_owned(),
        ConnectionError::LocallyClosed => "it was closed here".to_owned(),
        other => other.to_string(),
    }
}
