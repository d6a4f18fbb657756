//! The starts that are booked, as one cycle knows them: by gang, by moment and by node.

use super::ledger::NodeView;
use crate::command::PlacedPart;
use crate::policy::Edge;
use muster_common::resources::Amount;
use muster_common::{DeviceId, GangId, JobId, Name, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// One gang's start in the future, and what stays free beside it from then on.
#[derive(Debug, Clone)]
pub struct Booking {
    pub gang: GangId,
    pub start: Time,
    pub end: Time,
    pub witness: Vec<DeviceId>,
    pub domain: Option<(u16, Vec<Name>)>,
    pub on: BTreeMap<NodeId, Share>,
    /// It stands where somebody has put it, whoever could fill around it.
    pub fixed: bool,
}

/// What a booking takes of a node, and what there is of it at the start, others that are booked left out.
#[derive(Debug, Clone)]
pub struct Share {
    pub devices: Vec<(u16, u16)>,
    pub amount: Amount,
    pub free: Vec<u16>,
    pub left: Amount,
}

impl Share {
    /// `view`: the node as it will be at the start.
    pub fn of(devices: Vec<(u16, u16)>, amount: Amount, view: &NodeView) -> Self {
        Self { devices, amount, free: view.free.clone(), left: view.amount }
    }
}

#[derive(Debug, Default)]
pub struct Bookings {
    by_gang: BTreeMap<GangId, Booking>,
    by_start: BTreeSet<(Time, GangId)>,
    by_node: BTreeMap<NodeId, BTreeSet<GangId>>,
}

impl Bookings {
    pub fn is_empty(&self) -> bool {
        self.by_gang.is_empty()
    }

    pub fn insert(&mut self, booking: Booking) {
        self.by_start.insert((booking.start, booking.gang));
        for node in booking.on.keys() {
            self.by_node.entry(*node).or_default().insert(booking.gang);
        }
        self.by_gang.insert(booking.gang, booking);
    }

    pub fn remove(&mut self, gang: GangId) -> Option<Booking> {
        let booking = self.by_gang.remove(&gang)?;
        self.by_start.remove(&(booking.start, gang));
        for node in booking.on.keys() {
            let Some(gangs) = self.by_node.get_mut(node) else { continue };
            gangs.remove(&gang);
            if gangs.is_empty() {
                self.by_node.remove(node);
            }
        }
        Some(booking)
    }

    /// Those that somebody has put there for a job.
    pub fn fixed_for(&self, job: JobId) -> Vec<GangId> {
        let of_job = self.by_gang.range(GangId::new(job, 0)..=GangId::new(job, u32::MAX));
        of_job.filter(|(_, booking)| booking.fixed).map(|(gang, _)| *gang).collect()
    }

    pub fn get(&self, gang: GangId) -> Option<&Booking> {
        self.by_gang.get(&gang)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Booking> {
        self.by_gang.values()
    }

    /// The booking with so many before it, by start.
    pub fn nth(&self, at: usize) -> Option<&Booking> {
        self.by_start.iter().nth(at).and_then(|(_, gang)| self.by_gang.get(gang))
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

    /// What is booked on a node.
    pub fn on(&self, node: NodeId) -> impl Iterator<Item = (&Booking, &Share)> {
        let gangs = self.by_node.get(&node).into_iter().flatten().filter_map(|gang| self.by_gang.get(gang));
        gangs.filter_map(move |booking| Some((booking, booking.on.get(&node)?)))
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

    /// Nodes on which a start is booked.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.by_node.keys().copied().collect()
    }

    /// What runs on beyond the first so many starts uses up what is left beside them.
    pub fn spend(&mut self, hit: usize, parts: &[PlacedPart]) {
        let gangs: Vec<GangId> = self.by_start.iter().take(hit).map(|(_, gang)| *gang).collect();
        for gang in gangs {
            let Some(booking) = self.by_gang.get_mut(&gang) else { continue };
            for part in parts {
                let Some(share) = booking.on.get_mut(&part.node) else { continue };
                for &(slot, milli) in &part.devices {
                    let free = &mut share.free[usize::from(slot)];
                    *free = free.saturating_sub(milli);
                }
                share.left = share.left.minus(&part.amount).unwrap_or_default();
            }
        }
    }
}
