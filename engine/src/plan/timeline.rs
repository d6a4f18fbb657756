//! Who lets go of what when, by node, and from when on each node could have so many whole devices
//! free. Kept up from the ring of changes, so a start is foreseen without looking at all that runs.

use super::backfill::{expected_end, held_parts};
use super::bookings::Bookings;
use super::by_node::ByNode;
use super::foreseen::{Answers, Ground};
use super::ledger::{ClassId, Ledger, NodeView};
use super::waiting::Waiting;
use crate::command::PlacedPart;
use crate::state::State;
use crate::state::gang::GangRecord;
use crate::state::node::{DeviceState, NodeRecord};
use muster_common::resources::Amount;
use muster_common::{GangId, JobId, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const LAST: GangId = GangId::new(JobId(u64::MAX), u32::MAX);

#[derive(Debug, Clone, Default)]
pub struct Timelines {
    lines: ByNode<Arc<Line>>,
    gangs: BTreeMap<GangId, Holds>,
    by_end: BTreeSet<(Time, GangId)>,
    /// Open nodes by the first moment at which so many whole devices could be free, as far as anybody
    /// has asked; with no devices, at any moment.
    ready: BTreeMap<(ClassId, u32), BTreeSet<(Time, NodeId)>>,
    pub(super) answers: Answers,
    /// What was booked in the last cycle, taken out.
    pub(super) booked: Bookings,
}

#[derive(Debug, Clone)]
struct Holds {
    end: Time,
    nodes: Vec<NodeId>,
}

/// One node's future.
#[derive(Debug, Clone, Default)]
pub struct Line {
    class: ClassId,
    open: bool,
    /// By slot: what is given back here can be used again.
    sound: Vec<bool>,
    /// The same as bits, of the first 64.
    sound_bits: u64,
    /// By slot: what of it is free, between cycles.
    free: Vec<u16>,
    ports: u32,
    releases: Vec<Release>,
    /// From when on 1, 2, ... devices could be free.
    ready: Vec<Time>,
}

/// What one gang gives back on a node.
#[derive(Debug, Clone)]
pub struct Release {
    pub at: Time,
    gang: GangId,
    devices: Vec<(u16, u16)>,
    /// The devices as bits, where all of them are whole.
    whole: Option<u64>,
    amount: Amount,
}

impl Timelines {
    pub fn of(state: &State, ledger: &Ledger, waiting: &Waiting, now: Time) -> Self {
        let all = ledger.nodes().map(|view| (view.facts.id, Arc::default()));
        let mut times = Self { lines: all.collect(), ..Self::default() };
        for gang in waiting.active.iter().filter_map(|id| state.gang(*id)) {
            times.put_gang(state, gang, now, &mut BTreeSet::new());
        }
        for view in ledger.nodes() {
            times.put_node(state, view);
        }
        times
    }

    /// Follows gangs and nodes that were touched, and what should have ended by now.
    pub fn follow(
        &mut self,
        state: &State,
        ledger: &Ledger,
        gangs: impl Iterator<Item = GangId>,
        nodes: BTreeSet<NodeId>,
        now: Time,
    ) {
        let mut dirty = nodes;
        let late = self.by_end.range(..=(now, LAST)).map(|(_, gang)| *gang);
        let touched: BTreeSet<GangId> = gangs.chain(late).collect();
        for id in touched {
            self.drop_gang(id, &mut dirty);
            if let Some(gang) = state.gang(id).filter(|gang| gang.current().is_some()) {
                self.put_gang(state, gang, now, &mut dirty);
            }
        }
        for id in dirty {
            self.drop_node(id);
            match ledger.node(id) {
                Some(view) => self.put_node(state, view),
                None => _ = self.lines.remove(&id),
            }
        }
    }

    fn put_gang(&mut self, state: &State, gang: &GangRecord, now: Time, dirty: &mut BTreeSet<NodeId>) {
        let end = expected_end(state, gang, now);
        let mut nodes = Vec::new();
        for PlacedPart { node, devices, amount, .. } in held_parts(gang) {
            nodes.push(node);
            dirty.insert(node);
            if end < Time::NEVER {
                let releases = &mut Arc::make_mut(self.lines.or_default(node)).releases;
                let at = releases.partition_point(|other| (other.at, other.gang) < (end, gang.id));
                let whole = whole_bits(&devices);
                releases.insert(at, Release { at: end, gang: gang.id, devices, whole, amount });
            }
        }
        self.by_end.insert((end, gang.id));
        self.gangs.insert(gang.id, Holds { end, nodes });
    }

    fn drop_gang(&mut self, id: GangId, dirty: &mut BTreeSet<NodeId>) {
        let Some(Holds { end, nodes }) = self.gangs.remove(&id) else { return };
        self.by_end.remove(&(end, id));
        for node in nodes {
            if let Some(line) = self.lines.get_mut(&node) {
                Arc::make_mut(line).releases.retain(|release| release.gang != id);
            }
            dirty.insert(node);
        }
    }

    fn put_node(&mut self, state: &State, view: &NodeView) {
        let id = view.facts.id;
        let Some(record) = state.node(id) else { return };
        let line = Arc::make_mut(self.lines.or_default(id));
        line.learn(record, view);
        if !line.open {
            return;
        }
        self.answers.forget(id, line.class, |devices| line.ready_for(devices));
        for ((class, devices), nodes) in &mut self.ready {
            if *class == line.class
                && let Some(at) = line.ready_for(*devices)
            {
                nodes.insert((at, id));
            }
        }
    }

    fn drop_node(&mut self, id: NodeId) {
        let Some(line) = self.lines.get(&id) else { return };
        self.answers.forget(id, line.class, |devices| line.ready_for(devices));
        for ((class, devices), nodes) in &mut self.ready {
            if *class == line.class
                && let Some(at) = line.ready_for(*devices)
            {
                nodes.remove(&(at, id));
            }
        }
    }

    /// What was foreseen rests on nodes that are no longer all there are.
    pub fn forget_starts(&mut self) {
        self.answers.foreseen.clear();
    }

    pub fn booked(&self) -> &Bookings {
        &self.booked
    }

    /// Nobody but these will be asked about again soon.
    pub fn keep(&mut self, gangs: &BTreeSet<GangId>) {
        self.answers.keep(gangs);
    }

    /// Does what is foreseen from this ground rest on a node?
    pub(super) fn rests_on(&self, ground: &Ground, id: NodeId) -> bool {
        self.lines.get(&id).is_some_and(|line| ground.holds(line.class, line.ready_for(ground.devices)))
    }

    /// Makes sure that nodes of a class are listed by so many devices.
    pub fn list(&mut self, class: ClassId, devices: u32) {
        if self.ready.contains_key(&(class, devices)) {
            return;
        }
        let lines = self.lines.iter().filter(|(_, line)| line.open && line.class == class);
        let nodes = lines.filter_map(|(id, line)| Some((line.ready_for(devices)?, *id))).collect();
        self.ready.insert((class, devices), nodes);
    }

    /// The nodes of a class that was listed, the first ready first. None has so many devices any sooner.
    pub fn ready(&self, class: ClassId, devices: u32) -> impl Iterator<Item = (Time, NodeId)> + '_ {
        self.ready.get(&(class, devices)).into_iter().flatten().copied()
    }

    pub fn line(&self, id: NodeId) -> Option<&Line> {
        self.lines.get(&id).map(|line| &**line)
    }

    /// When the first of those that hold something is later than was expected.
    pub fn next_late(&self, now: Time) -> Option<Time> {
        self.by_end().map(|(end, _)| end.plus_ms(1)).find(|late| *late > now)
    }

    /// Those that hold something, by when they are expected to let go of it.
    pub fn by_end(&self) -> impl Iterator<Item = (Time, GangId)> + '_ {
        self.by_end.iter().copied().take_while(|(end, _)| *end < Time::NEVER)
    }
}

/// Slots as bits, where all of them are among the first 64 and none is shared.
pub fn whole_bits(devices: &[(u16, u16)]) -> Option<u64> {
    devices.iter().try_fold(0, |bits, (slot, milli)| (*slot < 64 && *milli == 1000).then(|| bits | 1 << slot))
}

impl Release {
    /// What can be used again of whole devices and of CPU and memory; `None` where a device is shared.
    pub fn gives_whole(&self, line: &Line) -> Option<(u64, &Amount)> {
        Some((self.whole? & line.sound_bits, &self.amount))
    }
}

impl Line {
    fn learn(&mut self, record: &NodeRecord, view: &NodeView) {
        self.class = view.facts.class;
        self.open = view.open;
        self.ports = u32::from(record.inventory.port_count);
        let sound = record.devices.iter().zip(&view.facts.usable);
        self.sound = sound.map(|(device, usable)| *usable && matches!(device, DeviceState::Ok(_))).collect();
        let bits = self.sound.iter().take(64).enumerate().filter(|(_, sound)| **sound);
        self.sound_bits = bits.fold(0, |bits, (slot, _)| bits | 1 << slot);
        self.free.clone_from(&view.free);
        let mut free = view.free.clone();
        self.ready.clear();
        self.ready.extend(free.iter().filter(|milli| **milli == 1000).map(|_| Time::ZERO));
        for release in &self.releases {
            for &(slot, milli) in release.devices.iter().filter(|(slot, _)| self.sound[usize::from(*slot)]) {
                let free = &mut free[usize::from(slot)];
                let before = std::mem::replace(free, free.saturating_add(milli).min(1000));
                if before < 1000 && *free == 1000 {
                    self.ready.push(release.at);
                }
            }
        }
    }

    /// From when on the node could have so many whole devices free.
    pub fn ready_for(&self, devices: u32) -> Option<Time> {
        match devices.checked_sub(1) {
            None => Some(Time::ZERO),
            Some(at) => self.ready.get(at as usize).copied(),
        }
    }

    /// When whoever holds a device lets go of it, the last if several do.
    pub fn released_at(&self, slot: u16) -> Option<Time> {
        let holds = |release: &&Release| release.devices.iter().any(|(other, _)| *other == slot);
        self.releases.iter().rev().find(holds).map(|release| release.at)
    }

    pub fn releases(&self) -> &[Release] {
        &self.releases
    }

    /// Is every whole device of the node, as this cycle has it, as good as any other?
    pub fn is_plain(&self, view: &NodeView) -> bool {
        !view.facts.varied && view.facts.islands.cut.is_empty() && view.free == self.free
    }

    /// CPU and memory that are free at a moment.
    pub fn amount_at(&self, view: &NodeView, at: Time) -> Amount {
        let given = self.releases.iter().take_while(|release| release.at <= at);
        given.fold(view.amount, |sum, release| sum.plus(&release.amount))
    }

    /// The node once a gang has let go of its part. `whole` is left to whoever has seen all of it.
    pub fn give_back(&self, view: &mut NodeView, release: &Release) {
        self.give(view, &release.devices, &release.amount);
    }

    /// As [`Self::give_back`], of what is placed in this very cycle.
    pub fn give(&self, view: &mut NodeView, devices: &[(u16, u16)], amount: &Amount) {
        for &(slot, milli) in devices.iter().filter(|(slot, _)| self.sound[usize::from(*slot)]) {
            let free = &mut view.free[usize::from(slot)];
            *free = free.saturating_add(milli).min(1000);
        }
        view.amount = view.amount.plus(amount);
        view.ports = (view.ports + 1).min(self.ports);
    }
}
