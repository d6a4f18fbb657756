//! Gangs that move to make room for another: each is stopped only while its new place is kept for it.

use super::{Applying, Result};
use crate::command::{Consolidation, StopFor};
use crate::outcome::Rejection;
use crate::policy::PER_HOUR_MAX;
use crate::state::gang::{Cause, GangState};
use crate::state::node::{DeviceState, NodeRecord};
use crate::state::reservation::{Reservation, ReservationKind};
use muster_common::time::HOUR_MS;
use muster_common::{DeviceId, GangId, Time};
use std::collections::BTreeSet;

/// From this feature level on, gangs may be moved.
pub const MOVE_LEVEL: u32 = 8;

impl Applying<'_> {
    /// Everybody as the plan saw them: the one waits, the others run, and all that is to be kept is free, or will be once
    /// they have gone, and is kept for nobody else.
    pub(super) fn check_consolidation(&self, wanted: &Consolidation) -> Result<(), Rejection> {
        self.needs_level(MOVE_LEVEL).map_err(|refusal| Rejection::Limit(refusal.to_string()))?;
        let Consolidation { room, moves } = wanted;
        let mut going: BTreeSet<GangId> = BTreeSet::new();
        for moved in moves {
            let record = self.state.gangs.get(&moved.place.gang).filter(|record| record.attempt == moved.attempt);
            let runs = record.is_some_and(|record| matches!(record.state, GangState::Running(_)));
            if !runs || moved.place.kind != ReservationKind::Moved || !going.insert(moved.place.gang) {
                return Err(Rejection::NotWaiting);
            }
        }
        if room.kind != ReservationKind::Victims || moves.is_empty() || !self.is_waiting(room.gang) {
            return Err(Rejection::NotWaiting);
        }
        let mut taken = self.kept_for_others(room.gang);
        for moved in moves {
            self.check_kept_place(&moved.place, &BTreeSet::new(), &mut taken)?;
        }
        self.check_kept_place(room, &going, &mut taken)
    }

    fn kept_for_others(&self, gang: GangId) -> BTreeSet<DeviceId> {
        let kept = self.state.reservations.values().filter(|known| known.gang != gang && known.kind.keeps_devices());
        kept.flat_map(|known| known.witness.iter().copied()).collect()
    }

    /// Each device on a node that takes work, held by nobody but those that go, and not taken before.
    fn check_kept_place(
        &self,
        place: &Reservation,
        going: &BTreeSet<GangId>,
        taken: &mut BTreeSet<DeviceId>,
    ) -> Result<(), Rejection> {
        if place.witness.is_empty() {
            return Err(Rejection::Shape("no device".into()));
        }
        for device in &place.witness {
            let node = self.state.nodes.get(&device.node).ok_or(Rejection::NodeChanged(device.node))?;
            if !node.is_open() {
                return Err(Rejection::NodeClosed(device.node));
            }
            if !self.comes_free(node, device.slot, going) || !taken.insert(*device) {
                return Err(Rejection::DeviceTaken { node: device.node, slot: device.slot });
            }
        }
        Ok(())
    }

    fn comes_free(&self, node: &NodeRecord, slot: u16, going: &BTreeSet<GangId>) -> bool {
        let Some(DeviceState::Ok(holders)) = node.devices.get(usize::from(slot)) else { return false };
        let leaves = |gang: &GangId| {
            let state = self.state.gangs.get(gang).map(|record| &record.state);
            going.contains(gang) || !going.is_empty() && matches!(state, Some(GangState::Stopping(..)))
        };
        holders.iter().all(|holder| leaves(&holder.gang))
    }

    /// What was checked. Returns how much was done.
    pub(super) fn consolidate(&mut self, wanted: &Consolidation) -> u32 {
        let by = Some(wanted.room.gang);
        for moved in &wanted.moves {
            let gang = moved.place.gang;
            self.stop(gang, Cause::Preempted { by, why: StopFor::Consolidation });
            self.keep(moved.place.clone());
            self.remember_move(gang);
        }
        self.keep(wanted.room.clone());
        wanted.moves.len() as u32 + 1
    }

    fn remember_move(&mut self, gang: GangId) {
        let now = self.now();
        let known = &mut self.state.moved;
        let is_old = |(at, _): &(Time, GangId)| now.since_ms(*at) >= HOUR_MS;
        while known.first().is_some_and(is_old) || known.len() >= PER_HOUR_MAX as usize {
            known.pop_first();
        }
        known.insert((now, gang));
    }
}
