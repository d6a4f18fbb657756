//! Fan-out of events as they are applied. A reader that falls behind reads history and comes back.

use muster_common::Time;
use muster_engine::Event;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::broadcast;

/// Entries with events that a slow reader may lag behind before it has to read history.
const LAG_MAX: usize = 4096;

/// The events of one applied entry; none = State has jumped to it, and the events up to it are not told here.
#[derive(Debug, Clone)]
pub struct AppliedEvents {
    pub index: u64,
    pub at: Time,
    pub events: Vec<Event>,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct WatchHandle {
    sender: broadcast::Sender<Arc<AppliedEvents>>,
    published: Arc<AtomicU64>,
}

impl Default for WatchHandle {
    fn default() -> Self {
        Self { sender: broadcast::channel(LAG_MAX).0, published: Arc::default() }
    }
}

impl WatchHandle {
    pub fn publish(&self, events: AppliedEvents) {
        self.published.fetch_add(events.events.len() as u64, Ordering::Relaxed);
        // Nobody listening is no error.
        let _ = self.sender.send(Arc::new(events));
    }

    /// Events told since this server began.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Arc<AppliedEvents>> {
        self.sender.subscribe()
    }
}
