//! Ordered tables that are cheap to copy: chunks of records behind `Arc`, copied on write.
//!
//! A copy of a table with a hundred thousand records costs about fifteen hundred reference counts,
//! so every cycle, read, forecast and snapshot may take one of its own.

use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

const CHUNK_MAX: usize = 64;

type Chunk<K, V> = Arc<Vec<(K, Arc<V>)>>;

/// A sorted map. Chunks are never empty and hold at most `CHUNK_MAX` records.
#[derive(Debug)]
pub struct Table<K, V> {
    chunks: Vec<Chunk<K, V>>,
    /// The first key of each chunk, so that a search for one touches no others.
    firsts: Arc<Vec<K>>,
    len: usize,
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), firsts: self.firsts.clone(), len: self.len }
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { chunks: Vec::new(), firsts: Arc::default(), len: 0 }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Table<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len
            && self.chunks.iter().flat_map(|c| c.iter()).eq(other.chunks.iter().flat_map(|c| c.iter()))
    }
}

impl<K: Ord + Clone, V: Clone> Table<K, V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The chunk that holds `key` or would: the last one that starts at or before it.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.firsts.partition_point(|first| Borrow::<Q>::borrow(first) <= key).saturating_sub(1)
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let at = chunk.binary_search_by(|(k, _)| Borrow::<Q>::borrow(k).cmp(key)).ok()?;
        Some(&chunk[at].1)
    }

    pub fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let chunk_at = self.chunk_of(key);
        let chunk = self.chunks.get_mut(chunk_at)?;
        let at = chunk.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
        Some(Arc::make_mut(&mut Arc::make_mut(chunk)[at].1))
    }

    /// Returns the record that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<Arc<V>> {
        let value = Arc::new(value);
        if self.chunks.is_empty() {
            Arc::make_mut(&mut self.firsts).push(key.clone());
            self.chunks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        }
        let chunk_at = self.chunk_of(&key);
        let chunk = Arc::make_mut(&mut self.chunks[chunk_at]);
        match chunk.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(at) => Some(std::mem::replace(&mut chunk[at].1, value)),
            Err(at) => {
                if at == 0 {
                    Arc::make_mut(&mut self.firsts)[chunk_at] = key.clone();
                }
                chunk.insert(at, (key, value));
                self.len += 1;
                if chunk.len() > CHUNK_MAX {
                    // Ids grow, so an overflow at the end leaves the old chunk full.
                    let cut = if at == CHUNK_MAX { CHUNK_MAX } else { CHUNK_MAX / 2 };
                    let tail = chunk.split_off(cut);
                    Arc::make_mut(&mut self.firsts).insert(chunk_at + 1, tail[0].0.clone());
                    self.chunks.insert(chunk_at + 1, Arc::new(tail));
                }
                None
            }
        }
    }

    pub fn remove(&mut self, key: &K) -> Option<Arc<V>> {
        let chunk_at = self.chunk_of(key);
        let chunk = self.chunks.get_mut(chunk_at)?;
        let at = chunk.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
        let (_, value) = Arc::make_mut(chunk).remove(at);
        if chunk.is_empty() {
            self.chunks.remove(chunk_at);
            Arc::make_mut(&mut self.firsts).remove(chunk_at);
        } else if at == 0 {
            Arc::make_mut(&mut self.firsts)[chunk_at] = chunk[0].0.clone();
        }
        self.len -= 1;
        Some(value)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|(key, value)| (key, &**value))
    }

    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    pub fn first(&self) -> Option<(&K, &V)> {
        self.chunks.first().map(|chunk| (&chunk[0].0, &*chunk[0].1))
    }

    /// Records with a key at or after `from`, in order.
    pub fn range_from<'a>(&'a self, from: &K) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V> {
        let at = self.chunk_of(from);
        let inside = self.chunks.get(at).map_or(0, |chunk| chunk.partition_point(|(key, _)| key < from));
        let first = self.chunks.get(at).map_or(&[][..], |chunk| &chunk[inside..]);
        let rest = self.chunks.iter().skip(at + 1).flat_map(|chunk| chunk.iter());
        first.iter().chain(rest).map(|(key, value)| (key, &**value))
    }

    /// Tells each record that is not the same one in `older`, a copy of this table from before: its key, what it was and what it is. One
    /// that was rewritten as it was may be told too. Costs a comparison of pointers for each chunk and for each record of those that differ.
    pub fn changes_since<'a>(&'a self, older: &'a Self, mut tell: impl FnMut(&'a K, Option<&'a V>, Option<&'a V>)) {
        let (mut was, mut is) = (Cursor::default(), Cursor::default());
        loop {
            if was.skip_same(&mut is, &older.chunks, &self.chunks) {
                continue;
            }
            let (before, now) = (was.get(&older.chunks), is.get(&self.chunks));
            let order = match (before, now) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((before, _)), Some((now, _))) => before.cmp(now),
            };
            match (before, now) {
                (Some((key, before)), Some((_, now))) if order.is_eq() => {
                    if !Arc::ptr_eq(before, now) {
                        tell(key, Some(before), Some(now));
                    }
                }
                (Some((key, before)), _) if order.is_lt() => tell(key, Some(before), None),
                (_, now) => now.into_iter().for_each(|(key, now)| tell(key, None, Some(now))),
            }
            if order.is_le() {
                was.advance(&older.chunks);
            }
            if order.is_ge() {
                is.advance(&self.chunks);
            }
        }
    }
}

/// A place in a table.
#[derive(Clone, Copy, Default)]
struct Cursor {
    chunk: usize,
    at: usize,
}

impl Cursor {
    fn get<K, V>(self, chunks: &[Chunk<K, V>]) -> Option<&(K, Arc<V>)> {
        chunks.get(self.chunk).map(|chunk| &chunk[self.at])
    }

    fn advance<K, V>(&mut self, chunks: &[Chunk<K, V>]) {
        self.at += 1;
        if self.at == chunks[self.chunk].len() {
            *self = Self { chunk: self.chunk + 1, at: 0 };
        }
    }

    /// Goes on behind a chunk that both tables share, if both are at its beginning.
    fn skip_same<K, V>(&mut self, other: &mut Self, ours: &[Chunk<K, V>], others: &[Chunk<K, V>]) -> bool {
        let (Some(mine), Some(its)) = (ours.get(self.chunk), others.get(other.chunk)) else { return false };
        let same = self.at == 0 && other.at == 0 && Arc::ptr_eq(mine, its);
        if same {
            self.chunk += 1;
            other.chunk += 1;
        }
        same
    }
}

impl<K: Serialize, V: Serialize> Serialize for Table<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.len))?;
        for (key, value) in self.chunks.iter().flat_map(|chunk| chunk.iter()) {
            seq.serialize_element(&(key, &**value))?;
        }
        seq.end()
    }
}

struct TableVisitor<K, V>(PhantomData<(K, V)>);

impl<'de, K, V> Visitor<'de> for TableVisitor<K, V>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    type Value = Table<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence of records in key order")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut table = Table::default();
        while let Some((key, value)) = seq.next_element::<(K, V)>()? {
            table.insert(key, value);
        }
        Ok(table)
    }
}

impl<'de, K, V> Deserialize<'de> for Table<K, V>
where
    K: Deserialize<'de> + Ord + Clone,
    V: Deserialize<'de> + Clone,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(TableVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn behaves_as_a_btree_map(ops in proptest::collection::vec((0u16..400, any::<bool>(), any::<u8>()), 0..2000)) {
            let mut table = Table::default();
            let mut model = BTreeMap::new();
            for (key, insert, value) in ops {
                if insert {
                    prop_assert_eq!(table.insert(key, value).map(|v| *v), model.insert(key, value));
                } else {
                    prop_assert_eq!(table.remove(&key).map(|v| *v), model.remove(&key));
                }
            }
            prop_assert_eq!(table.len(), model.len());
            prop_assert!(table.iter().eq(model.iter()));
            for from in [0u16, 57, 399] {
                prop_assert!(table.range_from(&from).eq(model.range(from..)));
            }
            let bytes = postcard::to_stdvec(&table).unwrap();
            prop_assert_eq!(&postcard::from_bytes::<Table<u16, u8>>(&bytes).unwrap(), &table);
        }
    }

    proptest! {
        #[test]
        fn what_changed_since_a_copy_is_told_and_nothing_else(
            ops in proptest::collection::vec((0u16..400, any::<bool>(), any::<u8>()), 0..1000),
            later in proptest::collection::vec((0u16..400, any::<bool>(), any::<u8>()), 0..40),
        ) {
            let mut table = Table::default();
            let play = |table: &mut Table<u16, u8>, ops: Vec<(u16, bool, u8)>| {
                for (key, insert, value) in ops {
                    if !insert {
                        table.remove(&key);
                    } else if table.get(&key) != Some(&value) {
                        table.insert(key, value);
                    }
                }
            };
            play(&mut table, ops);
            let older = table.clone();
            play(&mut table, later);
            let mut told = BTreeMap::new();
            table.changes_since(&older, |key, before, now| {
                assert!(told.insert(*key, (before.copied(), now.copied())).is_none(), "{key} told twice");
            });
            for key in 0..400 {
                let (before, now) = (older.get(&key).copied(), table.get(&key).copied());
                match told.get(&key) {
                    Some(change) => prop_assert_eq!(*change, (before, now)),
                    None => prop_assert_eq!(before, now),
                }
            }
            // A value that came back to what it was may be told; one that nobody touched is not.
            let whole = |table: &Table<u16, u8>| table.chunks.iter().flat_map(|c| c.iter().cloned()).collect::<Vec<_>>();
            let (before, now) = (whole(&older), whole(&table));
            let same = before.iter().filter(|(key, value)| now.iter().any(|(k, v)| k == key && Arc::ptr_eq(v, value)));
            for (key, _) in same {
                prop_assert!(!told.contains_key(key));
            }
        }
    }

    #[test]
    fn a_copy_does_not_see_later_changes() {
        let mut table = Table::default();
        (0..200u64).for_each(|key| {
            table.insert(key, key);
        });
        let view = table.clone();
        *table.get_mut(&7).unwrap() = 99;
        table.remove(&8);
        assert_eq!((view.get(&7), view.get(&8)), (Some(&7), Some(&8)));
    }
}
