//! Who is in the way of a gang that would fit on what is free: found on a ledger, by withholding from it what each of
//! the others takes.

use super::backfill::leave_no_more;
use super::bookings::{Booking, Bookings};
use super::explain::NAMED_MAX;
use super::lanes::Place;
use super::ledger::Ledger;
use super::order::OrderKey;
use super::place::{Request, place};
use super::quota;
use super::replan::occupy;
use super::round::charge;
use super::take::hide;
use super::waiting::{Item, Waiting, Wanted};
use crate::command::Placement;
use crate::policy::Edge;
use crate::state::State;
use crate::state::reservation::Reservation;
use muster_common::{GangId, Name, NodeId, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Others that are tried one by one, before the fewest are looked for that take enough together.
const ALONE_MAX: usize = 16;
/// Looks for one list in which others are tried one by one; in as many more only the last needed of the others is told, and
/// beyond those nobody looks.
const LOOKS_MAX: usize = 64;
/// Beyond these others it is not asked who of them it is.
const OTHERS_MAX: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InTheWay {
    /// What it would need is kept for these.
    Kept(Vec<GangId>),
    /// These are started now, and take it.
    Started(Vec<GangId>),
    /// These are to start on it; the first of them then.
    Booked(Vec<GangId>, Time),
}

/// What one cycle decided for others.
pub(super) struct Others<'a> {
    now: Time,
    state: &'a State,
    waiting: &'a Waiting,
    /// What was free when the cycle began.
    free: &'a Ledger,
    kept: Vec<(First, Reservation)>,
    started: Vec<(First, Placement)>,
    /// By start.
    booked: Vec<(First, Arc<Booking>)>,
    /// How many of what is kept, and of what is started, go before whom.
    sizes: [Sizes; 2],
    trial: Option<Ledger>,
    known: BTreeMap<Key, Option<InTheWay>>,
    looks: usize,
}

/// Places in the order, sorted.
#[derive(Debug, Default)]
struct Sizes {
    everybody: usize,
    own: Vec<Place>,
    rest: Vec<Place>,
}

impl Sizes {
    fn of(all: impl Iterator<Item = First>) -> Self {
        let mut sizes = Self::default();
        for first in all {
            match first.place {
                None => sizes.everybody += 1,
                Some(place) if first.own => sizes.own.push(place),
                Some(place) => sizes.rest.push(place),
            }
        }
        sizes.own.sort_unstable();
        sizes.rest.sort_unstable();
        sizes
    }

    /// As many as [`Asks::comes_after`] says of.
    fn before(&self, asks: &Asks) -> usize {
        let sooner = |places: &Vec<Place>| places.partition_point(|place| *place < asks.place);
        let own = if asks.own { sooner(&self.own) } else { self.own.len() };
        self.everybody + own + sooner(&self.rest)
    }
}

/// Before whom it goes.
#[derive(Debug, Clone, Copy)]
struct First {
    /// `None`: before everybody.
    place: Option<Place>,
    /// Within what its account owns: before what would be borrowed.
    own: bool,
}

/// Gangs with equal keys have the same in their way: who asks for what, on whose account where there are quotas, within
/// its own and for good or not, how many of each go before it, and which booked starts its run reaches into.
type Key = (Wanted, Vec<NodeId>, Option<(Name, bool)>, bool, [usize; 2], Vec<GangId>);

/// The gang that is asked about.
struct Asks<'b> {
    gang: GangId,
    item: &'b Item,
    excluded: &'b [NodeId],
    place: Place,
    own: bool,
}

#[derive(Clone, Copy)]
enum Other<'b> {
    Kept(&'b Reservation),
    Started(&'b Placement),
    Booked(&'b Arc<Booking>),
}

impl Other<'_> {
    fn gang(&self) -> GangId {
        match self {
            Other::Kept(known) => known.gang,
            Other::Started(placement) => placement.gang,
            Other::Booked(booking) => booking.gang,
        }
    }
}

impl<'a> Others<'a> {
    /// `kept`: devices that are nobody else's, with whether they are so by this very cycle.
    pub fn new(
        (state, now): (&'a State, Time),
        (waiting, free): (&'a Waiting, &'a Ledger),
        booked: &Bookings,
        kept: Vec<(bool, Reservation)>,
        started: Vec<Placement>,
    ) -> Self {
        let first = |gang: GangId, anew: bool| {
            let item = waiting.item_of(state, gang).filter(|_| anew);
            let place = item.map(|item| waiting.by_order.place(&OrderKey { gang, ..item.key }));
            First { place, own: item.is_none_or(|item| quota::is_within_own(&free.quotas, &item.scheduling)) }
        };
        let kept: Vec<_> = kept.into_iter().map(|(anew, known)| (first(known.gang, anew), known)).collect();
        let keeps = |gang: GangId| state.reservations().get(&gang).is_some_and(|known| known.kind.keeps_devices());
        let started: Vec<_> =
            started.into_iter().map(|placed| (first(placed.gang, !keeps(placed.gang)), placed)).collect();
        // Of windows `why` tells apart from this.
        let of_gangs = booked.of_the_last_cycle().filter(|booking| !booking.is_window());
        let mut booked: Vec<_> = of_gangs.map(|known| (first(known.gang, !known.fixed), known.clone())).collect();
        booked.sort_by_key(|(_, booking)| (booking.start, booking.gang));
        let sizes = [
            Sizes::of(kept.iter().map(|(first, _): &(First, Reservation)| *first)),
            Sizes::of(started.iter().map(|(first, _): &(First, Placement)| *first)),
        ];
        let known = BTreeMap::new();
        Self { now, state, waiting, free, kept, started, booked, sizes, trial: None, known, looks: 0 }
    }

    /// Who of the others takes what a gang would need; `None` where that is not seen.
    pub fn before(&mut self, gang: GangId, excluded: &[NodeId]) -> Option<InTheWay> {
        let item = self.waiting.item_of(self.state, gang)?.clone();
        let place = self.waiting.by_order.place(&OrderKey { gang, ..item.key });
        let own = quota::is_within_own(&self.free.quotas, &item.scheduling);
        let asks = Asks { gang, item: &item, excluded, place, own };
        let sizes = [self.sizes[0].before(&asks), self.sizes[1].before(&asks)];
        let quotas = &self.free.quotas;
        let payer = quotas.is_on().then(|| (item.scheduling.account.clone(), quotas.is_firm(&item.scheduling)));
        let hit = self.hit_by(&asks).iter().map(|booking| booking.gang).collect();
        let key = (item.wanted(), excluded.to_vec(), payer, own, sizes, hit);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        if self.looks >= 2 * LOOKS_MAX {
            return None;
        }
        self.looks += 1;
        let mut trial = self.trial.take().unwrap_or_else(|| self.free.clone());
        let found = self.look(&mut trial, &asks);
        trial.rollback(0);
        self.trial = Some(trial);
        self.known.insert(key, found.clone());
        found
    }

    /// Booked starts that a run from now on reaches into. Whoever has been told no start of its own delays only those
    /// that go before it.
    fn hit_by(&self, asks: &Asks) -> Vec<&Arc<Booking>> {
        let told = self.booked.iter().any(|(_, booking)| booking.gang == asks.gang);
        let end = self.now.plus_ms(asks.item.left());
        let edge = if self.fills() { self.state.policy().backfill.edge } else { Edge::AtOrBefore };
        let hit = |booking: &Booking| match edge {
            Edge::Before => end >= booking.start,
            Edge::AtOrBefore => end > booking.start,
        };
        let own = |booking: &Booking| booking.gang == asks.gang || booking.fixed && booking.gang.job == asks.gang.job;
        let before = self.booked.iter().filter(|(first, _)| told || asks.comes_after(first));
        before.map(|(_, booking)| booking).filter(|booking| hit(booking) && !own(booking)).collect()
    }

    /// Are as many starts booked as the policy tells, so that all others only fill?
    fn fills(&self) -> bool {
        let told = self.booked.iter().filter(|(_, booking)| !booking.fixed).count();
        told >= self.state.policy().backfill.reserve_depth as usize
    }

    /// In the order in which the cycle came to them. What does not keep the gang out stays withheld.
    fn look(&self, ledger: &mut Ledger, asks: &Asks) -> Option<InTheWay> {
        // What its quota leaves to it may lack room whoever goes first.
        if !self.fits(ledger, asks) {
            return None;
        }
        let kept = self.kept.iter().filter(|(first, _)| asks.comes_after(first));
        let kept: Vec<Other> = kept.map(|(_, known)| Other::Kept(known)).collect();
        if let Some(gangs) = self.keep_out(ledger, asks, &kept) {
            return Some(InTheWay::Kept(gangs));
        }
        let started = |before: bool| {
            let some = self.started.iter().filter(move |(first, _)| asks.comes_after(first) == before);
            some.map(|(_, placement)| Other::Started(placement)).collect::<Vec<_>>()
        };
        if let Some(gangs) = self.keep_out(ledger, asks, &started(true)) {
            return Some(InTheWay::Started(gangs));
        }
        let hit = self.hit_by(asks);
        let booked: Vec<Other> = hit.iter().map(|booking| Other::Booked(booking)).collect();
        let all = || hit.iter().map(|booking| booking.gang).take(NAMED_MAX).collect();
        let none_beside = !self.state.policy().backfill.spare && self.fills() && hit.iter().any(|known| !known.fixed);
        let gangs = if none_beside { Some(all()) } else { self.keep_out(ledger, asks, &booked) };
        if let Some(gangs) = gangs {
            let first = hit.iter().filter(|booking| gangs.contains(&booking.gang)).map(|booking| booking.start).min();
            return Some(InTheWay::Booked(gangs, first.unwrap_or(Time::NEVER)));
        }
        // Fillers may go by when they were submitted.
        self.keep_out(ledger, asks, &started(false)).map(InTheWay::Started)
    }

    /// Those of the others that leave the gang no room, nobody by name where too many would have to be asked about; `None`
    /// where it has room beside all of them, who then stay on the ledger.
    fn keep_out(&self, ledger: &mut Ledger, asks: &Asks, others: &[Other]) -> Option<Vec<GangId>> {
        let mark = ledger.mark();
        self.withhold(ledger, others);
        if others.is_empty() || self.fits(ledger, asks) {
            return None;
        }
        ledger.rollback(mark);
        let mut lacks = |some: &[Other]| {
            self.withhold(ledger, some);
            let fits = self.fits(ledger, asks);
            ledger.rollback(mark);
            !fits
        };
        let many = others.len() > OTHERS_MAX;
        let others = &others[..others.len().min(OTHERS_MAX)];
        if many && !lacks(others) {
            return Some(Vec::new());
        }
        if many || self.looks > LOOKS_MAX {
            return Some(together(others, 1, lacks));
        }
        let alone = others.iter().take(ALONE_MAX).filter(|other| lacks(&[**other]));
        let alone: Vec<GangId> = alone.map(Other::gang).take(NAMED_MAX).collect();
        Some(if alone.is_empty() { together(others, NAMED_MAX, lacks) } else { alone })
    }

    fn withhold(&self, ledger: &mut Ledger, others: &[Other]) {
        let mut beside = Bookings::default();
        for other in others {
            match other {
                Other::Kept(known) => _ = hide(self.state, ledger, known),
                Other::Started(placement) => {
                    occupy(ledger, &placement.parts);
                    charge(self.state, ledger, placement.gang, &placement.parts, 1);
                }
                Other::Booked(booking) => beside.insert((*booking).clone()),
            }
        }
        for booking in beside.iter() {
            for node in booking.on.keys() {
                if let Some((slots, left)) = beside.leaves(booking, *node) {
                    leave_no_more(ledger, *node, slots, left);
                }
            }
        }
    }

    fn fits(&self, ledger: &Ledger, asks: &Asks) -> bool {
        let scheduling = &asks.item.scheduling;
        let Ok(left) = quota::allowed(&ledger.quotas, scheduling) else { return false };
        let request = Request::of(left.as_ref().unwrap_or(scheduling), asks.excluded).for_gang(asks.gang);
        place(ledger, self.state.fabric(), self.state.policy(), request, &mut 0).is_some()
    }
}

impl Asks<'_> {
    fn comes_after(&self, first: &First) -> bool {
        first.place.is_none_or(|place| place < self.place) || first.own && !self.own
    }
}

/// As few as take enough only together: of those that do, always the last of the first so many without whom it would fit.
fn together(others: &[Other], most: usize, mut lacks: impl FnMut(&[Other]) -> bool) -> Vec<GangId> {
    let mut found: Vec<Other> = Vec::new();
    let mut upto = others.len();
    while upto > 0 && found.len() < most && (found.is_empty() || !lacks(&found)) {
        let (mut low, mut high) = (1, upto);
        while low < high {
            let middle = low + (high - low) / 2;
            let some: Vec<Other> = found.iter().chain(&others[..middle]).copied().collect();
            if lacks(&some) { high = middle } else { low = middle + 1 }
        }
        found.push(others[low - 1]);
        upto = low - 1;
    }
    found.iter().rev().map(Other::gang).collect()
}
