//! Waiting items in order, by lane: inside a lane the order never moves, and lanes are put before and
//! behind each other as a whole. A rank that changes moves a lane, not what waits in it.

use super::order::{OrderKey, number_of, ordered_bits};
use super::waiting::Item;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

/// Where a lane stands: first by place, then by score, to which its items' scores are added.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LaneRank {
    pub place: u32,
    pub score: f64,
}

/// Compares as the order goes.
pub type Place = (u32, u64, OrderKey);

#[derive(Debug, Default)]
pub struct Lanes {
    lanes: BTreeMap<u32, BTreeMap<OrderKey, Arc<Item>>>,
    /// Lanes that hold something, by place.
    places: BTreeSet<(u32, u32)>,
    /// By lane; a lane beyond has place 0 and score 0.
    ranks: Vec<LaneRank>,
    len: usize,
}

type Walk<'a> = std::collections::btree_map::Values<'a, OrderKey, Arc<Item>>;

impl Lanes {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get(&self, key: &OrderKey) -> Option<&Arc<Item>> {
        self.lanes.get(&key.lane)?.get(key)
    }

    pub fn insert(&mut self, item: Arc<Item>) {
        let lane = item.key.lane;
        let items = self.lanes.entry(lane).or_default();
        self.len += usize::from(items.insert(item.key, item).is_none());
        self.places.insert((self.rank(lane).place, lane));
    }

    pub fn remove(&mut self, key: &OrderKey) -> Option<Arc<Item>> {
        let items = self.lanes.get_mut(&key.lane)?;
        let item = items.remove(key)?;
        self.len -= 1;
        if items.is_empty() {
            self.lanes.remove(&key.lane);
            self.places.remove(&(self.rank(key.lane).place, key.lane));
        }
        Some(item)
    }

    fn rank(&self, lane: u32) -> LaneRank {
        self.ranks.get(lane as usize).copied().unwrap_or_default()
    }

    /// Puts the lanes in another order.
    pub fn set_ranks(&mut self, ranks: Vec<LaneRank>) {
        self.ranks = ranks;
        self.places = self.lanes.keys().map(|lane| (self.rank(*lane).place, *lane)).collect();
    }

    /// Where a key stands, or would.
    pub fn place(&self, key: &OrderKey) -> Place {
        let rank = self.rank(key.lane);
        // A lane without a score of its own leaves the bits as they are, those of no number too.
        let score = if rank.score == 0.0 { key.score } else { ordered_bits(number_of(key.score) + rank.score) };
        (rank.place, score, *key)
    }

    /// All items, the first first.
    pub fn values(&self) -> Values<'_> {
        Values { lanes: self, places: self.places.iter(), waiting: None, heads: BinaryHeap::new(), walks: Vec::new() }
    }

    /// Items before one, the first first.
    pub fn before(&self, key: OrderKey) -> impl Iterator<Item = &Arc<Item>> {
        self.values().take_while(move |item| item.key != key)
    }
}

/// Walks lanes of one place at a time, the heads of all of them merged.
pub struct Values<'a> {
    lanes: &'a Lanes,
    places: std::collections::btree_set::Iter<'a, (u32, u32)>,
    /// The first lane of the next place.
    waiting: Option<(u32, u32)>,
    heads: BinaryHeap<Reverse<(Place, usize)>>,
    walks: Vec<(Walk<'a>, Option<&'a Arc<Item>>)>,
}

impl<'a> Values<'a> {
    /// Opens all lanes of the next place.
    fn open(&mut self) {
        self.walks.clear();
        let Some((place, lane)) = self.waiting.take().or_else(|| self.places.next().copied()) else { return };
        self.walk(lane);
        while let Some(&(other, lane)) = self.places.next() {
            if other != place {
                self.waiting = Some((other, lane));
                break;
            }
            self.walk(lane);
        }
        if self.walks.len() > 1 {
            (0..self.walks.len()).for_each(|at| self.advance(at));
        }
    }

    fn walk(&mut self, lane: u32) {
        if let Some(items) = self.lanes.lanes.get(&lane) {
            self.walks.push((items.values(), None));
        }
    }

    fn advance(&mut self, at: usize) {
        let (walk, head) = &mut self.walks[at];
        *head = walk.next();
        if let Some(item) = head {
            self.heads.push(Reverse((self.lanes.place(&item.key), at)));
        }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a Arc<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let [(walk, _)] = self.walks.as_mut_slice() {
                if let Some(item) = walk.next() {
                    return Some(item);
                }
            } else if let Some(Reverse((_, at))) = self.heads.pop() {
                let item = self.walks[at].1;
                self.advance(at);
                return item;
            }
            if self.waiting.is_none() && self.places.len() == 0 {
                return None;
            }
            self.open();
        }
    }
}
