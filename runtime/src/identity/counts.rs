//! How many of something each key holds, bounded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts what is open, by key. Clones count together.
#[derive(Debug)]
pub(super) struct Counts<K>(Arc<Mutex<BTreeMap<K, usize>>>);

impl<K> Clone for Counts<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// One of a key's places; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place<K: Ord> {
    key: K,
    counts: Counts<K>,
}

impl<K: Ord + Clone> Counts<K> {
    /// A place, unless the key has `most` already.
    pub(super) fn enter(&self, key: K, most: usize) -> Option<Place<K>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_default();
        if *count >= most {
            // A limit of 0 must not leave a key behind.
            if *count == 0 {
                counts.remove(&key);
            }
            return None;
        }
        *count += 1;
        Some(Place { key, counts: self.clone() })
    }
}

impl<K: Ord> Drop for Place<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_places_and_gets_them_back() {
        let counts = Counts::default();
        let first = counts.enter("a", 1);
        assert!(first.is_some() && counts.enter("a", 1).is_none() && counts.enter("b", 1).is_some());
        drop(first);
        assert!(counts.enter("a", 1).is_some());
        assert!(counts.enter("c", 0).is_none());
        assert!(counts.0.lock().unwrap().is_empty(), "a key stays behind");
    }
}
