//! What one cycle decided and a later one must honour.

use muster_common::{DeviceId, GangId, NodeId, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A record that holds capacity, or a place in the order, for a waiting gang.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    pub gang: GangId,
    pub kind: ReservationKind,
    pub start: Time,
    pub end: Time,
    /// Fabric tree and path of the domain, when one is named.
    pub domain: Option<(u16, Vec<muster_common::Name>)>,
    /// One set of devices that would do; another may be taken.
    pub witness: Vec<DeviceId>,
}

/// Slots of devices, in their order, by node.
pub fn slots_by_node(devices: impl IntoIterator<Item = DeviceId>) -> BTreeMap<NodeId, Vec<u16>> {
    let mut by_node: BTreeMap<NodeId, Vec<u16>> = BTreeMap::new();
    for device in devices {
        by_node.entry(device.node).or_default().push(device.slot);
    }
    by_node
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReservationKind {
    /// The committed head of the queue: nothing goes before it but backfill.
    Head,
    /// A start in the future that fillers may not delay.
    Booked,
    /// Devices about to be freed by victims, for this gang only.
    Victims,
    /// Nodes kept while a failed one is replaced.
    Wounded,
    /// An operator's hold for a window of time.
    Advance,
    /// Nodes that are being woken for the gang, and what it is to have beside them.
    Woken,
    /// The new place of a gang that is being moved.
    Moved,
}

impl ReservationKind {
    /// Are the devices named nobody else's, from now on?
    pub const fn keeps_devices(self) -> bool {
        use ReservationKind::{Moved, Victims, Woken, Wounded};
        matches!(self, Victims | Wounded | Woken | Moved)
    }

    /// May it be a gang's from when it is stopped on, before it waits again?
    pub const fn outlasts_attempt(self) -> bool {
        matches!(self, ReservationKind::Wounded | ReservationKind::Moved)
    }
}
