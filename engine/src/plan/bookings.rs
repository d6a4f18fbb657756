//! The starts that are booked, as one cycle knows them: by gang, by moment and by node.

use super::by_node::ByNode;
use super::ledger::NodeView;
use crate::command::PlacedPart;
use crate::policy::Edge;
use muster_common::resources::Amount;
use muster_common::{DeviceId, GangId, JobId, Name, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One gang's start in the future, and what stays free beside it from then on.
#[derive(Debug, Clone)]
pub struct Booking {
    pub gang: GangId,
    pub start: Time,
    pub end: Time,
    pub witness: Vec<DeviceId>,
    pub domain: Option<(u16, Vec<Name>)>,
    pub on: ByNode<BookedPart>,
    /// It stands where somebody has put it, whoever could fill around it.
    pub fixed: bool,
}

/// What a booking takes of a node, and what there is of it at the start, others that are booked left out.
#[derive(Debug, Clone)]
pub struct BookedPart {
    pub devices: Vec<(u16, u16)>,
    pub amount: Amount,
    pub free: Vec<u16>,
    pub left: Amount,
}

impl BookedPart {
    /// `view`: the node as it will be at the start.
    pub fn of(devices: Vec<(u16, u16)>, amount: Amount, view: &NodeView) -> Self {
        Self { devices, amount, free: view.free.clone(), left: view.amount }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Bookings {
    by_gang: BTreeMap<GangId, Arc<Booking>>,
    by_start: BTreeSet<(Time, GangId)>,
    /// The gangs of each, in their order; a node on which nothing is booked any more keeps its place.
    by_node: ByNode<Vec<GangId>>,
    /// Taken out and listed in `by_node` all the same: most of them are put back as they were.
    out: BTreeMap<GangId, Arc<Booking>>,
}

impl Bookings {
    pub fn is_empty(&self) -> bool {
        self.by_gang.is_empty()
    }

    pub fn insert(&mut self, booking: Arc<Booking>) {
        let gang = booking.gang;
        self.by_start.insert((booking.start, gang));
        match self.out.remove(&gang) {
            Some(out) if Arc::ptr_eq(&out, &booking) => {}
            out => {
                out.iter().for_each(|out| unlist(&mut self.by_node, out));
                list(&mut self.by_node, &booking);
            }
        }
        self.by_gang.insert(gang, booking);
    }

    pub fn remove(&mut self, gang: GangId) -> Option<Arc<Booking>> {
        let booking = self.by_gang.remove(&gang)?;
        self.by_start.remove(&(booking.start, gang));
        self.out.insert(gang, booking.clone());
        Some(booking)
    }

    /// Takes out all, for the next cycle to put back what it takes over.
    pub fn take_out(&mut self) {
        let gone: Vec<Arc<Booking>> = std::mem::take(&mut self.out).into_values().collect();
        gone.iter().for_each(|out| unlist(&mut self.by_node, out));
        self.out = std::mem::take(&mut self.by_gang);
        self.by_start.clear();
    }

    /// Those that somebody has put there for a job.
    pub fn fixed_for(&self, job: JobId) -> Vec<GangId> {
        let of_job = self.by_gang.range(GangId::new(job, 0)..=GangId::new(job, u32::MAX));
        of_job.filter(|(_, booking)| booking.fixed).map(|(gang, _)| *gang).collect()
    }

    pub fn get(&self, gang: GangId) -> Option<&Arc<Booking>> {
        self.by_gang.get(&gang)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Booking>> {
        self.by_gang.values()
    }

    /// The first to start first.
    pub fn by_start(&self) -> impl Iterator<Item = &Arc<Booking>> {
        self.by_start.iter().filter_map(|(_, gang)| self.by_gang.get(gang))
    }

    /// Those that stood when the last cycle ended.
    pub fn of_the_last_cycle(&self) -> impl Iterator<Item = &Arc<Booking>> {
        self.out.values()
    }

    /// The booking with so many before it, by start.
    pub fn nth(&self, at: usize) -> Option<&Booking> {
        self.between(at, at + 1).next().map(|booking| &**booking)
    }

    /// Those with so many before them and up to so many, by start.
    pub fn between(&self, from: usize, to: usize) -> impl Iterator<Item = &Arc<Booking>> {
        let some = self.by_start.iter().skip(from).take(to.saturating_sub(from));
        some.filter_map(|(_, gang)| self.by_gang.get(gang))
    }

    /// How many starts are in the way of what ends then: those that stand first.
    pub fn hit_by(&self, end: Time, edge: Edge) -> usize {
        let in_time = |start: Time| match edge {
            Edge::Before => end < start,
            Edge::AtOrBefore => end <= start,
        };
        self.by_start.iter().take_while(|(start, _)| !in_time(*start)).count()
    }

    /// Is nothing but what somebody has put there in the way of what ends beyond so many starts?
    pub fn are_fixed(&self, hit: usize) -> bool {
        self.by_start.iter().take(hit).all(|(_, gang)| self.by_gang[gang].fixed)
    }

    /// Is nothing booked on a node?
    pub fn is_free(&self, node: NodeId) -> bool {
        self.on(node).next().is_none()
    }

    /// What is booked on a node.
    pub fn on(&self, node: NodeId) -> impl Iterator<Item = (&Booking, &BookedPart)> {
        let gangs = self.by_node.get(&node).into_iter().flatten().filter_map(|gang| self.by_gang.get(gang));
        gangs.filter_map(move |booking| Some((&**booking, booking.on.get(&node)?)))
    }

    /// What a booking and those beside it leave of a node at its start: of its own devices, and of CPU and
    /// memory.
    pub fn leaves(&self, booking: &Booking, node: NodeId) -> Option<(Vec<(u16, u16)>, Amount)> {
        let share = booking.on.get(&node)?;
        let mut left = share.left;
        let mut free: Vec<(u16, u16)> = share
            .devices
            .iter()
            .map(|(slot, _)| (*slot, share.free.get(usize::from(*slot)).copied().unwrap_or(0)))
            .collect();
        for (_, other) in self.on(node).filter(|(other, _)| other.start <= booking.start && booking.start < other.end) {
            left = left.minus(&other.amount).unwrap_or_default();
            for (slot, free) in &mut free {
                let taken = other.devices.iter().filter(|(other, _)| other == slot).map(|(_, milli)| *milli).sum();
                *free = free.saturating_sub(taken);
            }
        }
        Some((free, left))
    }

    /// Has somebody put any of them where it is?
    pub fn any_fixed(&self) -> bool {
        self.by_gang.values().any(|booking| booking.fixed)
    }

    /// Has somebody put any of them where it is for a gang, which may go where no other may?
    pub fn any_put_for_a_gang(&self) -> bool {
        self.by_gang.values().any(|booking| booking.fixed && !booking.is_window())
    }

    /// Nodes on which a start is booked before some moment, but for those of some gangs.
    pub fn nodes_before(&self, end: Time, without: &BTreeSet<GangId>) -> BTreeSet<NodeId> {
        let before = self.by_start().take_while(|booking| booking.start < end);
        let before = before.filter(|booking| !without.contains(&booking.gang));
        before.flat_map(|booking| booking.on.keys().copied()).collect()
    }

    /// Windows that begin before a moment, those of the first so many starts left out.
    pub fn windows_until(&self, hit: usize, until: Time) -> impl Iterator<Item = &Arc<Booking>> {
        let later = self.by_start.iter().skip(hit).take_while(move |(start, _)| *start < until);
        later.filter_map(|(_, gang)| self.by_gang.get(gang)).filter(|booking| booking.is_window())
    }

    /// Takes out every window.
    pub fn remove_windows(&mut self) -> Vec<Arc<Booking>> {
        let windows = self.by_gang.values().filter(|booking| booking.is_window()).map(|booking| booking.gang);
        let windows: Vec<GangId> = windows.collect();
        windows.into_iter().filter_map(|gang| self.remove(gang)).collect()
    }

    /// What runs on beyond the first so many starts uses up what is left beside them.
    pub fn spend(&mut self, hit: usize, parts: &[PlacedPart]) {
        let gangs: Vec<GangId> = self.by_start.iter().take(hit).map(|(_, gang)| *gang).collect();
        for gang in gangs {
            let Some(booking) = self.by_gang.get_mut(&gang) else { continue };
            for part in parts {
                if !booking.on.contains_key(&part.node) {
                    continue;
                }
                let Some(share) = Arc::make_mut(booking).on.get_mut(&part.node) else { continue };
                for &(slot, milli) in &part.devices {
                    let free = &mut share.free[usize::from(slot)];
                    *free = free.saturating_sub(milli);
                }
                share.left = share.left.minus(&part.amount).unwrap_or_default();
            }
        }
    }
}

fn list(by_node: &mut ByNode<Vec<GangId>>, booking: &Booking) {
    by_node.make_places(booking.on.keys().copied());
    for node in booking.on.keys() {
        let gangs = by_node.or_default(*node);
        if let Err(at) = gangs.binary_search(&booking.gang) {
            gangs.insert(at, booking.gang);
        }
    }
}

fn unlist(by_node: &mut ByNode<Vec<GangId>>, booking: &Booking) {
    for node in booking.on.keys() {
        if let Some(gangs) = by_node.get_mut(node) {
            gangs.retain(|gang| *gang != booking.gang);
        }
    }
}
