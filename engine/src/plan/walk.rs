//! A walk over waiting items in order, by the first of each kind through a heap. Whoever walks says
//! what is known of a kind; what cannot be of interest then is not walked.

use super::fill;
use super::lanes::{Kind, Lanes, Place, Sought};
use super::stream::{Spot, Stream};
use super::waiting::Item;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, btree_set};
use std::iter::Peekable;
use std::sync::Arc;

pub struct Walk<'a> {
    lanes: &'a Lanes,
    sought: Sought,
    /// No kind's next item stands before this.
    next: BinaryHeap<Reverse<(Place, usize)>>,
    opened: Vec<Option<Opened<'a>>>,
    last: Option<(usize, usize, Spot)>,
}

/// A kind that the walk has come to.
struct Opened<'a> {
    kind: &'a Kind,
    most_ms: u64,
    /// Payers of whom nothing more of the kind can start.
    spent: BTreeSet<u32>,
    heads: Peekable<btree_set::Iter<'a, (Place, usize)>>,
    streams: BinaryHeap<Reverse<(Place, usize, Spot)>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(lanes: &'a Lanes, sought: Sought) -> Self {
        let first = |(at, kind): (usize, &Kind)| Some(Reverse((kind.first?, at)));
        let next = lanes.kinds.iter().enumerate().filter_map(first).collect();
        let opened = lanes.kinds.iter().map(|_| None).collect();
        Self { lanes, sought, next, opened, last: None }
    }

    /// Nothing more of the kind of the last item.
    pub fn leave_kind(&mut self) {
        if let Some((kind, ..)) = self.last.take() {
            self.opened[kind] = None;
        }
    }

    /// Nothing more of that kind on the account of the same payer.
    pub fn leave_payer(&mut self) {
        if let Some((kind, stream, _)) = self.last
            && let Some(opened) = &mut self.opened[kind]
        {
            opened.spent.insert(opened.kind.streams[stream].payer);
        }
    }

    /// Of that kind only what has at most so much of its run left.
    pub fn leave_longer(&mut self, most_ms: u64) {
        if let Some((kind, ..)) = self.last
            && let Some(opened) = &mut self.opened[kind]
        {
            opened.most_ms = opened.most_ms.min(most_ms);
        }
    }

    /// Of any kind only what has at most so much of its run left.
    pub fn leave_all_longer(&mut self, most_ms: u64) {
        self.sought.most_ms = self.sought.most_ms.min(most_ms);
    }

    /// Nothing more of the kinds of which one group shows that none of them is of interest.
    pub fn leave_kinds(&mut self, mut leave: impl FnMut(&fill::Kind) -> bool) {
        let lanes = self.lanes;
        let mut leaves = |at: usize| lanes.kinds[at].takes().any(&mut leave);
        self.next.retain(|Reverse((_, at))| !leaves(*at));
        if let Some((kind, ..)) = self.last
            && leaves(kind)
        {
            self.leave_kind();
        }
    }

    /// Nothing more at all.
    pub fn leave_all(&mut self) {
        self.next.clear();
        self.last = None;
    }

    fn sought(&self, opened: &Opened) -> Sought {
        Sought { most_ms: self.sought.most_ms.min(opened.most_ms), ..self.sought }
    }

    /// Puts the kind of the last item back in its place.
    fn settle(&mut self) {
        let Some((at, stream, spot)) = self.last.take() else { return };
        let Some(mut opened) = self.opened[at].take() else { return };
        let sought = self.sought(&opened);
        opened.follow(self.lanes, stream, Stream::after(spot), sought);
        if let Some(place) = opened.place(self.lanes, sought) {
            self.next.push(Reverse((place, at)));
            self.opened[at] = Some(opened);
        }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = &'a Arc<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        self.settle();
        while let Some(Reverse((least, at))) = self.next.pop() {
            let lanes = self.lanes;
            let mut opened = self.opened[at].take().unwrap_or_else(|| Opened::of(&lanes.kinds[at]));
            let Some(place) = opened.place(lanes, self.sought(&opened)) else { continue };
            if place > least && self.next.peek().is_some_and(|Reverse((other, _))| *other < place) {
                self.next.push(Reverse((place, at)));
                self.opened[at] = Some(opened);
                continue;
            }
            let Reverse((_, stream, spot)) = opened.streams.pop()?;
            let item = opened.kind.streams[stream].items.at(spot);
            self.opened[at] = Some(opened);
            self.last = Some((at, stream, spot));
            return item;
        }
        None
    }
}

impl<'a> Opened<'a> {
    fn of(kind: &'a Kind) -> Self {
        Self {
            kind,
            most_ms: u64::MAX,
            spent: BTreeSet::new(),
            heads: kind.heads.iter().peekable(),
            streams: BinaryHeap::new(),
        }
    }

    /// Looks for the next item of a stream from a spot on.
    fn follow(&mut self, lanes: &Lanes, stream: usize, from: Spot, sought: Sought) {
        let part = &self.kind.streams[stream];
        if self.spent.contains(&part.payer) {
            return;
        }
        if let Some(spot) = part.items.seek(from, sought)
            && let Some(item) = part.items.at(spot)
        {
            self.streams.push(Reverse((lanes.place(&item.key), stream, spot)));
        }
    }

    /// Where the next item of the kind stands, which is then the first of `streams`.
    fn place(&mut self, lanes: &Lanes, sought: Sought) -> Option<Place> {
        loop {
            let first = self.streams.peek().map(|Reverse((place, ..))| *place);
            let opens = |(place, _): &&(Place, usize)| first.is_none_or(|first| *place < first);
            if let Some(&(_, stream)) = self.heads.next_if(opens) {
                self.follow(lanes, stream, Spot::default(), sought);
                continue;
            }
            let &Reverse((place, stream, spot)) = self.streams.peek()?;
            let part = &self.kind.streams[stream];
            // What was found earlier may not be sought any more.
            if !self.spent.contains(&part.payer) && part.items.at(spot).is_some_and(|item| sought.is(item)) {
                return Some(place);
            }
            self.streams.pop();
            self.follow(lanes, stream, spot, sought);
        }
    }
}
