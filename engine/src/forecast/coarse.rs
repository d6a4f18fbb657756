//! Starts that a play did not reach before it was cut, reckoned instead of played: the work ahead of a gang,
//! divided by the devices it may use. Knows models, run times and the order, and nothing of topology, CPU,
//! limits and quotas.

use super::{Assume, Forecast, Player};
use crate::plan::feasible::device_allowed;
use crate::plan::waiting::{Item, Waiting, has_failed, is_full};
use crate::policy::Admission;
use crate::state::State;
use crate::state::gang::Parked;
use crate::state::node::{DeviceState, NodeRecord};
use muster_common::job::GroupRequest;
use muster_common::node::Device;
use muster_common::{GangId, Name, Time};
use std::collections::{BTreeMap, BTreeSet};

/// The open devices of one model, and what they have to do before somebody's turn.
struct Pool<'a> {
    like: &'a Device,
    /// Thousandths of devices that ever come free.
    milli: u64,
    /// Thousandths of device-milliseconds.
    work: u128,
}

struct Pools<'a>(Vec<Pool<'a>>);

/// Starts of those that wait at the end of a play that was cut; of elements of an array that were never placed,
/// of the first. One walk over the queue. Who has no known end keeps its devices for ever; who finds too few that ever
/// come free has no start, and is no work for them either; nor has one who asks for no devices, or is parked. Who may not
/// start yet when its turn comes is no work for those behind it.
pub(super) fn coarse(player: &mut Player, played: &Forecast, assume: Assume) -> BTreeMap<GangId, Time> {
    let Player { state, memo, .. } = player;
    let state: &State = state;
    let waiting = memo.known(state, state.now()).waiting;
    let mut pools = Pools::of(state);
    pools.add_running(state, waiting, assume);
    let strict = matches!(state.policy().admission, Admission::HeadOfLine { .. });
    let mut starts = BTreeMap::new();
    for item in waiting.by_order.values() {
        let gang = item.key.gang;
        let never = played.unplaceable.contains_key(&gang.job) || state.parked(gang).is_some_and(Parked::is_parked);
        if never || item.scheduling.devices() == 0 {
            continue;
        }
        match pools.turn_of(item, state.now()) {
            Some(turn) => {
                let known = played.starts.get(&gang).is_some_and(Option::is_some);
                if !known && item.ripe_at < Time::NEVER {
                    starts.insert(gang, turn.max(item.ripe_at));
                }
                if comes_by(state, item, turn) {
                    pools.add_waiting(state, item, assume);
                }
            }
            None if strict && comes_by(state, item, state.now()) => break,
            None => {}
        }
    }
    starts
}

/// Does it come before those behind it? The elements that an array has no more room for come as others of it end.
fn comes_by(state: &State, item: &Item, turn: Time) -> bool {
    let full = item.lane
        && state.job(item.key.gang.job).is_some_and(|job| {
            let array = item.scheduling.array.as_ref();
            array.is_some_and(|array| is_full(array, job) && !has_failed(array, job))
        });
    full || item.ripe_at <= turn
}

impl<'a> Pools<'a> {
    fn of(state: &'a State) -> Self {
        let mut pools: BTreeMap<(&Name, bool), Pool> = BTreeMap::new();
        for node in state.nodes().values() {
            for (_, like) in open_devices(node) {
                let pool = pools.entry((&like.model, like.parent.is_some()));
                pool.or_insert(Pool { like, milli: 0, work: 0 }).milli += 1000;
            }
        }
        Self(pools.into_values().collect())
    }

    /// What is left of the runs of those that hold devices.
    fn add_running(&mut self, state: &State, waiting: &Waiting, assume: Assume) {
        for gang in waiting.active.iter().filter_map(|gang| state.gang(*gang)) {
            let Some(attempt) = gang.current() else { continue };
            let ran_ms = state.now().since_ms(attempt.started_at.unwrap_or(attempt.placed_at));
            let left_ms = left_ms(state, gang.id, assume).map(|left| left.saturating_sub(ran_ms));
            for part in &attempt.parts {
                let Some(node) = state.node(part.node) else { continue };
                let open: BTreeMap<u16, &Device> = open_devices(node).collect();
                for (slot, milli) in &part.devices {
                    let held = open.get(slot);
                    let pool = self.0.iter_mut().find(|pool| held.is_some_and(|held| is_alike(pool.like, held)));
                    if let Some(pool) = pool {
                        pool.add(u64::from(*milli), left_ms);
                    }
                }
            }
        }
    }

    /// When its devices have done what is ahead of it; `None` when too few of them ever come free.
    fn turn_of(&self, item: &Item, now: Time) -> Option<Time> {
        let groups = item.scheduling.groups.iter().filter(|group| group.devices() > 0);
        let turns: Option<Vec<Time>> = groups.map(|group| self.turn_of_group(group, now)).collect();
        turns?.into_iter().max().filter(|turn| *turn < Time::NEVER)
    }

    fn turn_of_group(&self, group: &GroupRequest, now: Time) -> Option<Time> {
        let milli: u64 = self.allowed(group).map(|pool| pool.milli).sum();
        if milli < asked_milli(group) {
            return None;
        }
        let work: u128 = self.allowed(group).filter(|pool| pool.milli > 0).map(|pool| pool.work).sum();
        let wait_ms = work.checked_div(milli.into())?;
        Some(now.plus_ms(u64::try_from(wait_ms).unwrap_or(u64::MAX)))
    }

    fn allowed(&self, group: &GroupRequest) -> impl Iterator<Item = &Pool<'a>> {
        self.0.iter().filter(|pool| device_allowed(group, pool.like))
    }

    /// The work of all gangs of an item, spread over the models that each group may use as these have devices.
    fn add_waiting(&mut self, state: &State, item: &Item, assume: Assume) {
        let left_ms = left_ms(state, item.key.gang, assume);
        let gangs = match state.job(item.key.gang.job) {
            Some(job) if item.lane => {
                let all = job.unstarted.len();
                let at_once = item.scheduling.array.as_ref().and_then(|array| array.at_once).unwrap_or(all);
                // What never ends holds devices only for those that run at the same time.
                let room = || all.min(at_once.saturating_sub(job.gangs_active));
                u64::from(if left_ms.is_some() { all } else { room() })
            }
            _ => 1,
        };
        for group in &item.scheduling.groups {
            let all: u64 = self.allowed(group).map(|pool| pool.milli).sum();
            let asked = u128::from(asked_milli(group).saturating_mul(gangs));
            for pool in self.0.iter_mut().filter(|pool| device_allowed(group, pool.like)) {
                let part = (asked * u128::from(pool.milli)).checked_div(all.into());
                pool.add(u64::try_from(part.unwrap_or(0)).unwrap_or(u64::MAX), left_ms);
            }
        }
    }
}

impl Pool<'_> {
    fn add(&mut self, milli: u64, left_ms: Option<u64>) {
        match left_ms {
            Some(left_ms) => self.work = self.work.saturating_add(u128::from(milli) * u128::from(left_ms)),
            None => self.milli = self.milli.saturating_sub(milli),
        }
    }
}

/// Devices of an open node that may be had, but those that are cut into instances, by slot.
fn open_devices(node: &NodeRecord) -> impl Iterator<Item = (u16, &Device)> {
    let devices = &node.inventory.devices;
    let cut: BTreeSet<u16> = devices.iter().filter_map(|device| device.parent).collect();
    let known = (0u16..).zip(devices).zip(&node.devices).filter(move |_| node.is_open());
    known.filter(move |((slot, _), state)| matches!(state, DeviceState::Ok(_)) && !cut.contains(slot)).map(|(at, _)| at)
}

fn is_alike(a: &Device, b: &Device) -> bool {
    (&a.model, a.parent.is_some()) == (&b.model, b.parent.is_some())
}

fn asked_milli(group: &GroupRequest) -> u64 {
    group.devices().saturating_mul(group.share.0.into())
}

/// What is left of a gang's run when its present or next attempt starts, as the play has it.
fn left_ms(state: &State, gang: GangId, assume: Assume) -> Option<u64> {
    let served_ms = state.gang(gang).map_or(0, |record| record.served_ms);
    Some(assume.run_ms(state, gang)?.saturating_sub(served_ms))
}
