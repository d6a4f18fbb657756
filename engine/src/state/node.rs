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
    pub power: Power,
    /// When the last of its work left; kept from feature level 7 on.
    pub worked_until: Time,
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

/// Is the machine switched on, as far as policy has it switched? One that is not awake is known and of no use, and its
/// silence means nothing. From feature level 7; all are awake before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Power {
    /// Not to be put to sleep before that moment, since it could not be when that was tried.
    Awake { stays_until: Time },
    /// Whoever switches machines has been asked, and has not said that it is off; it counts as awake at `by`, which is
    /// never before feature level 8.
    FallingAsleep { since: Time, by: Time },
    /// Not to be woken before that moment, since it did not wake when that was tried.
    Asleep { since: Time, rests_until: Time },
    /// For a gang; it counts as not woken at `by`.
    Waking { since: Time, by: Time, gang: GangId },
}

impl Power {
    pub const AWAKE: Power = Power::Awake { stays_until: Time::ZERO };

    pub const fn word(self) -> &'static str {
        match self {
            Power::Awake { .. } => "awake",
            Power::FallingAsleep { .. } => "falling-asleep",
            Power::Asleep { .. } => "asleep",
            Power::Waking { .. } => "waking",
        }
    }

    pub const fn is_awake(self) -> bool {
        matches!(self, Power::Awake { .. })
    }

    /// Between awake and asleep, one way or the other.
    pub const fn is_changing(self) -> bool {
        matches!(self, Power::FallingAsleep { .. } | Power::Waking { .. })
    }
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
        self.power.is_awake() && self.is_in_service()
    }

    /// Would it be open if it were awake?
    pub fn is_in_service(&self) -> bool {
        self.liveness == Liveness::Up && self.closed.is_none()
    }

    /// Nothing runs on it, and nothing that ran is unproven gone.
    pub fn is_idle(&self) -> bool {
        let empty = self.gangs.is_empty() && self.orphans.is_empty() && self.ports.is_empty();
        empty && self.devices.iter().all(DeviceState::is_free)
    }

    /// Since when nothing has run on it, as far as it is idle.
    pub fn idle_since(&self) -> Time {
        self.worked_until.max(self.registered_at)
    }

    /// Could it be put to sleep, if nothing is kept or booked on it?
    pub fn may_sleep(&self) -> bool {
        self.is_open() && self.is_idle()
    }

    /// Could it be woken at that moment?
    pub fn may_wake(&self, now: Time) -> bool {
        self.is_in_service() && matches!(self.power, Power::Asleep { rests_until, .. } if rests_until <= now)
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
