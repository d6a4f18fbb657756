//! What earlier cycles worked out about starts, kept as long as nothing it rests on has changed: a start
//! foreseen for a gang, and what a booking takes and leaves on its nodes.

use super::bookings::Booking;
use super::ledger::ClassId;
use super::waiting::Item;
use crate::state::reservation::Reservation;
use muster_common::{GangId, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Nodes that decided a start: those of some classes that could have so many devices up to a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    pub classes: BTreeSet<ClassId>,
    pub devices: u32,
    pub upto: Time,
}

impl Ground {
    pub fn holds(&self, class: ClassId, ready: Option<Time>) -> bool {
        self.classes.contains(&class) && ready.is_some_and(|at| at <= self.upto)
    }
}

/// A gang's earliest start before some moment, or that there is none.
#[derive(Debug, Clone)]
pub struct Foreseen {
    pub item: Arc<Item>,
    pub before: Time,
    /// What was booked for others.
    pub beside: Vec<Arc<Booking>>,
    pub ground: Ground,
    /// Until then no booking of others begins or ends to matter.
    pub until: Time,
    pub booking: Option<Arc<Booking>>,
    /// Steps that it took.
    pub steps: u64,
}

impl Foreseen {
    /// Is it the answer to the same question, asked at another moment?
    pub fn answers<'b>(
        &self,
        (item, before, now): (&Arc<Item>, Time, Time),
        mut beside: impl Iterator<Item = &'b Arc<Booking>>,
    ) -> bool {
        let begins = self.booking.as_ref().map_or(Time::NEVER, |booking| booking.start);
        Arc::ptr_eq(&self.item, item)
            && self.before == before
            && now < self.until
            && now <= begins
            && self.beside.iter().all(|known| beside.next().is_some_and(|other| Arc::ptr_eq(known, other)))
            && beside.next().is_none()
    }
}

/// A booking as it was taken over from State.
#[derive(Debug, Clone)]
pub struct Held {
    pub item: Arc<Item>,
    pub known: Reservation,
    /// What was taken over before it, in turn.
    pub beside: Vec<Arc<Booking>>,
    pub booking: Arc<Booking>,
}

impl Held {
    /// Can it be taken over again, beside these? Fewer than before leave it no less.
    pub fn holds<'b>(
        &self,
        (item, known, now): (&Arc<Item>, &Reservation, Time),
        beside: impl Iterator<Item = &'b Arc<Booking>>,
    ) -> bool {
        let mut before = self.beside.iter();
        Arc::ptr_eq(&self.item, item) && now <= known.start && self.known == *known && { beside }
            .all(|other| before.any(|known| Arc::ptr_eq(known, other)))
    }
}

/// By gang; void where a node changes that they rest on.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    pub foreseen: BTreeMap<GangId, Foreseen>,
    pub held: BTreeMap<GangId, Held>,
}

impl Answers {
    /// A node of a class changed, which could have devices from such moments on.
    pub fn forget(&mut self, node: NodeId, class: ClassId, ready: impl Fn(u32) -> Option<Time>) {
        self.foreseen.retain(|_, known| !known.ground.holds(class, ready(known.ground.devices)));
        self.held.retain(|_, held| !held.booking.on.contains_key(&node));
    }

    /// Of those that are not among these nobody asks again soon.
    pub fn keep(&mut self, gangs: &BTreeSet<GangId>) {
        self.foreseen.retain(|gang, _| gangs.contains(gang));
        self.held.retain(|gang, _| gangs.contains(gang));
    }
}
