//! Waiting items in order, those that ask for the same kept together: what one lacks, all lack, so a
//! cycle walks the first of each kind and not everybody behind it.
//!
//! Inside a lane the order never moves, and lanes are put before and behind each other as a whole: a
//! rank that changes moves a lane, not what waits in it.

use super::fill;
use super::order::{OrderKey, number_of, ordered_bits};
use super::stream::Stream;
use super::waiting::{Item, KindAt, Payer, Wanted};
use super::walk::Walk;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use super::stream::Sought;

/// Where a lane stands: first by place, then by score, to which its items' scores are added.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LaneRank {
    pub place: u32,
    pub score: f64,
}

/// Compares as the order goes.
pub type Place = (u32, u64, OrderKey);

/// By which an item is found again.
#[derive(Debug, Clone, Copy)]
pub struct Handle {
    kind: usize,
    stream: usize,
    pub key: OrderKey,
}

#[derive(Debug, Clone, Default)]
pub struct Lanes {
    /// By number; those that nothing waits in are used again.
    pub(super) kinds: Vec<Kind>,
    by_wanted: BTreeMap<Wanted, usize>,
    unused: Vec<usize>,
    payers: BTreeMap<Payer, u32>,
    /// By lane; a lane beyond has place 0 and score 0.
    ranks: Vec<LaneRank>,
    len: usize,
}

/// Everything that waits for the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Kind {
    pub(super) streams: Vec<Part>,
    by_key: BTreeMap<(u32, u32), usize>,
    unused: Vec<usize>,
    /// Where the first of each stream stands.
    pub(super) heads: BTreeSet<(Place, usize)>,
    /// Where the first of all stands: asked of every kind by every cycle.
    pub(super) first: Option<Place>,
    /// How its groups take nodes: the first, and the others.
    takes: Option<fill::Kind>,
    takes_more: Vec<fill::Kind>,
}

/// One lane's share of a kind, of one payer.
#[derive(Debug, Clone, Default)]
pub(super) struct Part {
    lane: u32,
    pub(super) payer: u32,
    pub(super) items: Stream,
}

/// Where a key stands among ranks.
fn place_of(ranks: &[LaneRank], key: &OrderKey) -> Place {
    let rank = ranks.get(key.lane as usize).copied().unwrap_or_default();
    // A lane without a score of its own leaves the bits as they are, those of no number too.
    let score = if rank.score == 0.0 { key.score } else { ordered_bits(number_of(key.score) + rank.score) };
    (rank.place, score, *key)
}

impl Kind {
    fn stream(&mut self, lane: u32, payer: u32) -> usize {
        if let Some(&known) = self.by_key.get(&(lane, payer)) {
            return known;
        }
        let part = Part { lane, payer, items: Stream::default() };
        let at = match self.unused.pop() {
            Some(at) => {
                self.streams[at] = part;
                at
            }
            None => {
                self.streams.push(part);
                self.streams.len() - 1
            }
        };
        self.by_key.insert((lane, payer), at);
        at
    }

    pub(super) fn takes(&self) -> impl Iterator<Item = &fill::Kind> {
        self.takes.iter().chain(&self.takes_more)
    }

    fn note_first(&mut self) {
        self.first = self.heads.first().map(|(place, _)| *place);
    }

    fn head(&self, stream: usize) -> Option<OrderKey> {
        self.streams[stream].items.first().map(|item| item.key)
    }

    /// Puts one lane where it stands among other ranks.
    fn move_lane(&mut self, lane: u32, before: &[LaneRank], after: &[LaneRank]) {
        for (_, stream) in self.by_key.range((lane, 0)..=(lane, u32::MAX)) {
            if let Some(key) = self.streams[*stream].items.first().map(|item| item.key) {
                self.heads.remove(&(place_of(before, &key), *stream));
                self.heads.insert((place_of(after, &key), *stream));
            }
        }
        self.note_first();
    }

    fn move_head(&mut self, ranks: &[LaneRank], stream: usize, before: Option<OrderKey>) {
        let after = self.head(stream);
        if before == after {
            return;
        }
        if let Some(key) = before {
            self.heads.remove(&(place_of(ranks, &key), stream));
        }
        match after {
            Some(key) => _ = self.heads.insert((place_of(ranks, &key), stream)),
            None => {
                let Part { lane, payer, .. } = self.streams[stream];
                self.by_key.remove(&(lane, payer));
                self.unused.push(stream);
            }
        }
        self.note_first();
    }
}

impl Lanes {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get(&self, handle: &Handle) -> Option<&Arc<Item>> {
        self.kinds.get(handle.kind)?.streams.get(handle.stream)?.items.get(&handle.key)
    }

    pub fn insert(&mut self, mut item: Item, payer: Payer) -> (Handle, Arc<Item>) {
        let wanted = item.wanted();
        let kind = match self.by_wanted.get(&wanted) {
            Some(kind) => *kind,
            None => {
                let kind = self.unused.pop().unwrap_or_else(|| {
                    self.kinds.push(Kind::default());
                    self.kinds.len() - 1
                });
                self.by_wanted.insert(wanted, kind);
                let mut takes = item.scheduling.groups.iter().map(fill::Kind::of);
                let known = &mut self.kinds[kind];
                (known.takes, known.takes_more) = (takes.next(), takes.collect());
                kind
            }
        };
        let next = self.payers.len() as u32;
        let payer = *self.payers.entry(payer).or_insert(next);
        item.kind = KindAt(kind as u32);
        let (key, item) = (item.key, Arc::new(item));
        let known = &mut self.kinds[kind];
        let stream = known.stream(key.lane, payer);
        let before = known.head(stream);
        self.len += usize::from(known.streams[stream].items.insert(item.clone()));
        known.move_head(&self.ranks, stream, before);
        (Handle { kind, stream, key }, item)
    }

    pub fn remove(&mut self, handle: &Handle) -> Option<Arc<Item>> {
        let kind = self.kinds.get_mut(handle.kind)?;
        let before = kind.head(handle.stream);
        let item = kind.streams[handle.stream].items.remove(&handle.key)?;
        kind.move_head(&self.ranks, handle.stream, before);
        self.len -= 1;
        if kind.heads.is_empty() {
            *kind = Kind::default();
            self.by_wanted.remove(&item.wanted());
            self.unused.push(handle.kind);
        }
        Some(item)
    }

    /// Puts the lanes in another order.
    pub fn set_ranks(&mut self, ranks: Vec<LaneRank>) {
        let before = std::mem::replace(&mut self.ranks, ranks);
        let (count, after) = (before.len().max(self.ranks.len()), &self.ranks);
        let rank = |ranks: &[LaneRank], lane: usize| ranks.get(lane).copied().unwrap_or_default();
        let moved: Vec<usize> = (0..count).filter(|lane| rank(&before, *lane) != rank(after, *lane)).collect();
        let few = moved.len() * 4 < count;
        for kind in &mut self.kinds {
            if few {
                moved.iter().for_each(|lane| kind.move_lane(*lane as u32, &before, after));
                continue;
            }
            let heads = kind.by_key.values().filter_map(|stream| Some((kind.head(*stream)?, *stream)));
            kind.heads = heads.map(|(key, stream)| (place_of(after, &key), stream)).collect();
            kind.note_first();
        }
    }

    /// Where a key stands, or would.
    pub fn place(&self, key: &OrderKey) -> Place {
        place_of(&self.ranks, key)
    }

    /// How many stand before a key.
    pub fn count_before(&self, key: &OrderKey) -> usize {
        let place = self.place(key);
        let parts = self.kinds.iter().flat_map(|kind| &kind.streams);
        parts.map(|part| part.items.before(|other| self.place(other) < place)).sum()
    }

    /// All items, the first first.
    pub fn values(&self) -> Walk<'_> {
        self.walk(Sought::ANYTHING)
    }

    /// Those that are sought, the first first.
    pub fn walk(&self, sought: Sought) -> Walk<'_> {
        Walk::new(self, sought)
    }

    /// Items before one, the first first.
    pub fn before(&self, key: OrderKey) -> impl Iterator<Item = &Arc<Item>> {
        self.values().take_while(move |item| item.key != key)
    }
}
