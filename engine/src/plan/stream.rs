//! Items of one lane in order, in chunks that know the least of what is in them: the next one that is
//! ripe and short enough is found without looking at those before it.

use super::order::OrderKey;
use super::waiting::Item;
use muster_common::Time;
use std::sync::Arc;

const CHUNK_MAX: usize = 128;

#[derive(Debug, Clone)]
struct Entry {
    key: OrderKey,
    item: Arc<Item>,
}

#[derive(Debug, Clone)]
struct Chunk {
    /// Never empty.
    entries: Vec<Entry>,
    /// The shortest that is left of any run.
    shortest_ms: u64,
    /// The first moment at which any may start.
    ripe_at: Time,
}

/// What an item must be to be of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sought {
    pub now: Time,
    /// At most so much of its run may be left.
    pub most_ms: u64,
}

impl Sought {
    pub const ANYTHING: Sought = Sought { now: Time::NEVER, most_ms: u64::MAX };

    pub fn is(&self, item: &Item) -> bool {
        item.ripe_at <= self.now && item.left() <= self.most_ms
    }
}

/// A place in a stream, good until the stream changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Spot {
    chunk: usize,
    at: usize,
}

#[derive(Debug, Clone, Default)]
pub struct Stream {
    chunks: Vec<Chunk>,
}

impl Chunk {
    fn of(entries: Vec<Entry>) -> Self {
        let mut chunk = Chunk { entries, shortest_ms: u64::MAX, ripe_at: Time::NEVER };
        chunk.learn();
        chunk
    }

    fn learn(&mut self) {
        self.shortest_ms = self.entries.iter().map(|entry| entry.item.left()).min().unwrap_or(u64::MAX);
        self.ripe_at = self.entries.iter().map(|entry| entry.item.ripe_at).min().unwrap_or(Time::NEVER);
    }

    fn find(&self, key: &OrderKey) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.key.cmp(key))
    }
}

impl Stream {
    /// The chunk that holds the key, or would.
    fn chunk_of(&self, key: &OrderKey) -> usize {
        self.chunks.partition_point(|chunk| chunk.entries[0].key <= *key).saturating_sub(1)
    }

    pub fn first(&self) -> Option<&Arc<Item>> {
        self.chunks.first().map(|chunk| &chunk.entries[0].item)
    }

    pub fn get(&self, key: &OrderKey) -> Option<&Arc<Item>> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        chunk.find(key).ok().map(|at| &chunk.entries[at].item)
    }

    /// True when nothing was there under this key.
    pub fn insert(&mut self, item: Arc<Item>) -> bool {
        let entry = Entry { key: item.key, item };
        let chunk_at = self.chunk_of(&entry.key);
        let Some(chunk) = self.chunks.get_mut(chunk_at) else {
            self.chunks.push(Chunk::of(vec![entry]));
            return true;
        };
        let at = match chunk.find(&entry.key) {
            Ok(at) => {
                chunk.entries[at] = entry;
                chunk.learn();
                return false;
            }
            Err(at) => at,
        };
        chunk.shortest_ms = chunk.shortest_ms.min(entry.item.left());
        chunk.ripe_at = chunk.ripe_at.min(entry.item.ripe_at);
        chunk.entries.insert(at, entry);
        if chunk.entries.len() > CHUNK_MAX {
            // What is submitted last often goes last: an overflow at the end leaves the old chunk full.
            let tail = chunk.entries.split_off(if at == CHUNK_MAX { CHUNK_MAX } else { CHUNK_MAX / 2 });
            chunk.learn();
            self.chunks.insert(chunk_at + 1, Chunk::of(tail));
        }
        true
    }

    pub fn remove(&mut self, key: &OrderKey) -> Option<Arc<Item>> {
        let chunk_at = self.chunk_of(key);
        let chunk = self.chunks.get_mut(chunk_at)?;
        let at = chunk.find(key).ok()?;
        let item = chunk.entries.remove(at).item;
        if chunk.entries.is_empty() {
            self.chunks.remove(chunk_at);
        } else if item.left() == chunk.shortest_ms || item.ripe_at == chunk.ripe_at {
            chunk.learn();
        }
        Some(item)
    }

    pub fn at(&self, spot: Spot) -> Option<&Arc<Item>> {
        self.chunks.get(spot.chunk)?.entries.get(spot.at).map(|entry| &entry.item)
    }

    /// The first at this spot or behind it that is sought.
    pub fn seek(&self, mut spot: Spot, sought: Sought) -> Option<Spot> {
        while let Some(chunk) = self.chunks.get(spot.chunk) {
            if chunk.shortest_ms <= sought.most_ms && chunk.ripe_at <= sought.now {
                let mut here = chunk.entries.iter().skip(spot.at);
                if let Some(more) = here.position(|entry| sought.is(&entry.item)) {
                    return Some(Spot { at: spot.at + more, ..spot });
                }
            }
            spot = Spot { chunk: spot.chunk + 1, at: 0 };
        }
        None
    }

    pub fn after(spot: Spot) -> Spot {
        Spot { at: spot.at + 1, ..spot }
    }

    /// How many are before a key.
    pub fn before(&self, is_before: impl Fn(&OrderKey) -> bool) -> usize {
        let full = self.chunks.partition_point(|chunk| is_before(&chunk.entries[0].key));
        let whole: usize = self.chunks.iter().take(full.saturating_sub(1)).map(|chunk| chunk.entries.len()).sum();
        let last = full.checked_sub(1).map(|at| &self.chunks[at].entries);
        whole + last.map_or(0, |entries| entries.partition_point(|entry| is_before(&entry.key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::job::{Count, GroupRequest, Hash};
    use muster_common::{GangId, JobId};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn item(score: u64, left_ms: Option<u64>, ripe_at: u64) -> Arc<Item> {
        let gang = GangId::new(JobId(score), 0);
        let key = OrderKey { score, since: Time::ZERO, submitted_at: Time::ZERO, gang, lane: 0 };
        let count = Count::Nodes { nodes: 1, per_node: 1 };
        let scheduling = Arc::new(super::super::fixtures::scheduling(GroupRequest::of(count)));
        Arc::new(Item {
            key,
            lane: false,
            kind: super::super::waiting::KindAt::NONE,
            scheduling,
            shape: Hash::default(),
            run_ms: left_ms,
            left_ms,
            ripe_at: Time(ripe_at),
        })
    }

    proptest! {
        #[test]
        fn seeks_as_a_walk_over_a_map_would(
            ops in proptest::collection::vec((0u64..600, any::<bool>(), proptest::option::of(0u64..50), 0u64..50), 0..1500),
            most_ms in 0u64..60,
            now in 0u64..60,
        ) {
            let (mut stream, mut model) = (Stream::default(), BTreeMap::new());
            for (score, insert, left_ms, ripe_at) in ops {
                let new = item(score, left_ms, ripe_at);
                if insert {
                    prop_assert_eq!(stream.insert(new.clone()), model.insert(new.key, new).is_none());
                } else {
                    prop_assert_eq!(stream.remove(&new.key).is_some(), model.remove(&new.key).is_some());
                }
            }
            let sought = Sought { now: Time(now), most_ms };
            for sought in [sought, Sought::ANYTHING] {
                let (mut found, mut spot) = (Vec::new(), Spot::default());
                while let Some(at) = stream.seek(spot, sought) {
                    found.push(stream.at(at).unwrap().key);
                    spot = Stream::after(at);
                }
                let wanted = model.values().filter(|item| item.ripe_at <= sought.now && item.left() <= sought.most_ms);
                prop_assert!(found.iter().eq(wanted.map(|item| &item.key)));
            }
            for (at, key) in model.keys().enumerate() {
                prop_assert_eq!(stream.before(|other| other < key), at);
                prop_assert!(stream.get(key).is_some());
            }
        }
    }
}
