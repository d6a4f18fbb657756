//! The node table: machines, their devices, and who holds what.

use crate::command::Principal;
use muster_common::node::Inventory;
use muster_common::resources::{Amount, Share};
use muster_common::{AttemptNo, GangId, Name, NodeId, Time, Token};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub id: NodeId,
    pub name: Name,
    /// Log index of the latest registration.
    pub epoch: u64,
    pub registered_at: Time,
    pub store_id: String,
    /// The registration that first named this store, as a token: for what was placed earlier the
    /// store's silence proves nothing (rule 8).
    pub store_since: Token,
    pub instance: String,
    /// State was restored from a backup, and this node's agent has not registered since: what it runs is not known.
    pub from_backup: bool,
    pub inventory: Arc<Inventory>,
    pub liveness: Liveness,
    pub closed: Option<Closed>,
    /// One per device of the inventory, by slot.
    pub devices: Vec<DeviceState>,
    pub used: Amount,
    pub ports: BTreeMap<u16, GangId>,
    /// Gangs with an unsettled part here.
    pub gangs: BTreeSet<GangId>,
    /// Parts of attempts that ended without proof; the agent is told to stop them.
    pub orphans: Vec<Orphan>,
    /// Highest report number applied, within `store_id`.
    pub reports_applied: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Liveness {
    Up,
    Silent { since: Time },
    Fenced { since: Time },
}

/// No new work is placed on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    pub reason: String,
    pub by: Principal,
    pub at: Time,
    pub drain: Option<Drain>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// When what still runs is moved; `None` = it may end by itself.
    pub deadline: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum DeviceState {
    /// By holders whose shares sum to at most 1000; free when there is none.
    Ok(Vec<Holder>),
    /// What ran there is not proven gone.
    Unknown {
        since: Time,
        holders: Vec<Holder>,
    },
    Quarantined {
        since: Time,
        why: String,
        holders: Vec<Holder>,
    },
}

/// The holder of a device is a gang; the attempt and token are the fencing detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub gang: GangId,
    pub attempt: AttemptNo,
    pub token: Token,
    pub milli: u16,
}

/// What an ended attempt may still occupy on a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Orphan {
    pub gang: GangId,
    pub attempt: AttemptNo,
    pub token: Token,
    pub devices: Vec<(u16, u16)>,
    pub amount: Amount,
    /// A leased port that may still be bound.
    pub port: Option<u16>,
    pub grace_ms: u64,
}

impl DeviceState {
    pub fn holders(&self) -> &[Holder] {
        match self {
            DeviceState::Ok(holders)
            | DeviceState::Unknown { holders, .. }
            | DeviceState::Quarantined { holders, .. } => holders,
        }
    }

    /// Thousandths that could be placed now.
    pub fn free_milli(&self) -> u16 {
        match self {
            DeviceState::Ok(holders) => {
                Share::WHOLE.0.saturating_sub(holders.iter().map(|holder| holder.milli).sum::<u16>())
            }
            _ => 0,
        }
    }

    pub fn is_free(&self) -> bool {
        matches!(self, DeviceState::Ok(holders) if holders.is_empty())
    }
}

impl NodeRecord {
    /// May new work be placed here? The one predicate both `cycle` and `apply` ask.
    pub fn is_open(&self) -> bool {
        self.liveness == Liveness::Up && self.closed.is_none()
    }

    pub fn free_amount(&self) -> Amount {
        self.inventory.amount().minus(&self.used).unwrap_or_default()
    }

    pub fn free_devices(&self) -> usize {
        self.devices.iter().filter(|device| device.is_free()).count()
    }

    /// The lowest port nobody leases.
    pub fn free_port(&self) -> Option<u16> {
        let (base, count) = (self.inventory.port_base, self.inventory.port_count);
        (0..count).filter_map(|offset| base.checked_add(offset)).find(|port| !self.ports.contains_key(port))
    }
}
