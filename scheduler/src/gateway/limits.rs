//! How much of a server one principal may have at a time: streams, waits, and turns at reading.

use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Log and event streams of one principal.
pub const STREAMS_MAX: usize = 64;
/// Long polls of one principal: cheap, and a script waits for many jobs at once.
pub const WAITS_MAX: usize = 1024;

/// Reads of one principal that are worked on at a time; the others of it wait.
pub const TURNS_MAX: usize = 8;
/// Reads of one principal that may wait for a turn.
pub const WAITING_MAX: usize = 256;

/// Gives each principal its turns at reading, so that one with a thousand lists waits for itself alone.
pub struct Turns {
    lines: Arc<Mutex<BTreeMap<String, Line>>>,
    at_once: usize,
    waiting_max: usize,
}

/// Those of one principal.
struct Line {
    turns: Arc<Semaphore>,
    /// Who has a turn or waits for one.
    members: usize,
}

/// A turn, given back when it is dropped.
pub struct Turn {
    _permit: OwnedSemaphorePermit,
    _place: InLine,
}

struct InLine {
    lines: Arc<Mutex<BTreeMap<String, Line>>>,
    name: String,
}

impl Turns {
    pub fn new(at_once: usize, waiting_max: usize) -> Self {
        Self { lines: Arc::default(), at_once, waiting_max }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`ErrorCode::Overloaded`] when too many of the principal's own wait already.
    pub async fn take(&self, name: &str) -> Result<Turn, ErrorInfo> {
        let (place, turns) = self.stand_in_line(name)?;
        let permit = turns.acquire_owned().await;
        let permit = permit.map_err(|_| ErrorInfo::new(ErrorCode::Internal, "the turns at reading are over"))?;
        Ok(Turn { _permit: permit, _place: place })
    }

    fn stand_in_line(&self, name: &str) -> Result<(InLine, Arc<Semaphore>), ErrorInfo> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Line { turns: Arc::new(Semaphore::new(self.at_once)), members: 0 };
        let line = lines.entry(name.to_owned()).or_insert_with(fresh);
        if line.members >= self.at_once + self.waiting_max {
            let message = format!("{name} has {} reads waiting on a server, the most one may have", self.waiting_max);
            return Err(ErrorInfo::new(ErrorCode::Overloaded, message).hint("wait for answers before you ask more"));
        }
        line.members += 1;
        Ok((InLine { lines: self.lines.clone(), name: name.to_owned() }, line.turns.clone()))
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get_mut(&self.name) {
            line.members -= 1;
            if line.members == 0 {
                lines.remove(&self.name);
            }
        }
    }
}

/// Counts what is open, by principal.
#[derive(Clone)]
pub struct Open {
    counts: Arc<Mutex<BTreeMap<String, usize>>>,
    most: usize,
    what: &'static str,
}

/// One open stream; closed when it is dropped.
pub struct Ticket {
    open: Open,
    name: String,
}

impl Open {
    pub fn new(what: &'static str, most: usize) -> Self {
        Self { counts: Arc::default(), most, what }
    }

    /// Of all principals.
    pub fn count(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// # Errors
    /// [`ErrorCode::Overloaded`] when the principal has its most open.
    pub fn enter(&self, name: &str) -> Result<Ticket, ErrorInfo> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(name.to_owned()).or_default();
        if *count >= self.most {
            let message = format!("{name} has {} {} open, the most one may have on a server", self.most, self.what);
            return Err(ErrorInfo::new(ErrorCode::Overloaded, message).hint("close some, then try again"));
        }
        *count += 1;
        Ok(Ticket { open: self.clone(), name: name.to_owned() })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.open.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_principal_waits_for_itself_alone() {
        let turns = Turns::new(1, 1);
        let first = turns.take("alice").await.map_err(|_| "refused").unwrap();
        let mut second = Box::pin(turns.take("alice"));
        let waits = futures::poll!(&mut second);
        assert!(waits.is_pending(), "two at once");
        assert_eq!(turns.take("alice").await.err().unwrap().code, ErrorCode::Overloaded);
        assert!(turns.take("bob").await.is_ok(), "bob waits for alice");
        drop(first);
        drop(second.await.map_err(|_| "refused").unwrap());
        assert!(turns.lines.lock().unwrap().is_empty(), "a line stays behind");
    }

    #[tokio::test]
    async fn whoever_gives_up_waiting_leaves_the_line() {
        let turns = Turns::new(1, 1);
        let first = turns.take("alice").await.map_err(|_| "refused").unwrap();
        let mut second = Box::pin(turns.take("alice"));
        assert!(futures::poll!(&mut second).is_pending());
        drop(second);
        let mut third = Box::pin(turns.take("alice"));
        assert!(futures::poll!(&mut third).is_pending(), "its place was not given back");
        drop(first);
        assert!(third.await.is_ok());
    }

    #[test]
    fn one_principal_fills_only_its_own_places_and_gets_them_back() {
        let open = Open::new("streams", 2);
        let first = open.enter("alice").map_err(|_| "refused").unwrap();
        let _second = open.enter("alice").map_err(|_| "refused").unwrap();
        assert_eq!(open.enter("alice").err().unwrap().code, ErrorCode::Overloaded);
        assert!(open.enter("bob").is_ok());
        drop(first);
        assert!(open.enter("alice").is_ok());
        assert_eq!(open.counts.lock().unwrap().len(), 1);
    }
}
