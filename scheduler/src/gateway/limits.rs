//! How many streams and waits one principal may have open.

use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Log and event streams of one principal.
pub const STREAMS_MAX: usize = 64;
/// Long polls of one principal: cheap, and a script waits for many jobs at once.
pub const WAITS_MAX: usize = 1024;

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
