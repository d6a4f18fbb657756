//! Where every device's time went: exact integrals, and averages over a regular grid of time.
//!
//! At each instant a device is starting, running or stopping for a gang, or free, or down (closed,
//! broken, unknown), or asleep. Free capacity is split by what it is good for; see [`Use`]. Intervals are
//! half-open, so what ends and what starts at one instant never overlap.

use muster_common::{GangId, NodeId, Time};
use muster_engine::command::Command;
use muster_engine::outcome::{Event, Outcome};
use muster_engine::state::gang::GangState;
use muster_engine::state::node::{DeviceState, NodeRecord, Power};
use muster_engine::{Entry, State};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a thousandth of a device is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    Starting,
    Running,
    Stopping,
    /// Closed, broken, or not proven free.
    Down,
    /// Free while nothing waits.
    IdleNoDemand,
    /// Free while something waits, where a typical job could not use it: the expected fragment of
    /// Weng et al., "Beware of Fragmentation", USENIX ATC 2023.
    Fragmented,
    /// Free while something waits, for reasons of order, reservations, models or topology.
    IdleWaiting,
    /// Between awake and asleep, one way or the other.
    Switching,
    /// Asleep, and paid for.
    Asleep,
}

pub const USES: usize = 9;

/// Thousandths of devices times milliseconds, by [`Use`].
pub type DeviceTime = [u128; USES];

/// A kind of request, and how often it occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Whole devices on one node; 0 with a share asks for none.
    pub devices: u32,
    /// Of one device, when less than whole.
    pub milli: u16,
    pub cpu_milli: u64,
    /// Parts in a million of all requests.
    pub weight: u64,
}

/// Most cells of the grid; when there would be more, two become one.
pub const CELLS_MAX: usize = 1_440;
/// Width of a cell to begin with.
const CELL_MS: u64 = 1_000;

/// One cell of the grid: integrals over its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cell {
    pub device_time: DeviceTime,
    /// Expected fragment whether or not anything waits.
    pub fragment: u128,
    pub waiting_gangs: u128,
    pub waiting_devices: u128,
    /// Milliwatts, times milliseconds.
    pub drawn: u128,
}

impl Cell {
    fn add(&mut self, rates: &Rates, ms: u64) {
        let ms = u128::from(ms);
        for (at, rate) in rates.device_time.iter().enumerate() {
            self.device_time[at] += u128::from(*rate) * ms;
        }
        self.fragment += u128::from(rates.fragment) * ms;
        self.waiting_gangs += u128::from(rates.waiting_gangs) * ms;
        self.waiting_devices += u128::from(rates.waiting_devices) * ms;
        self.drawn += u128::from(rates.drawn) * ms;
    }

    fn merge(&mut self, other: &Cell) {
        for (at, time) in other.device_time.iter().enumerate() {
            self.device_time[at] += time;
        }
        self.fragment += other.fragment;
        self.waiting_gangs += other.waiting_gangs;
        self.waiting_devices += other.waiting_devices;
        self.drawn += other.drawn;
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    device_time: [u64; USES],
    fragment: u64,
    waiting_gangs: u64,
    waiting_devices: u64,
    drawn: u64,
}

/// Of one device: while it runs, while it is on, and while it sleeps. What is down draws nothing.
pub type Watts = [u32; 3];

#[derive(Debug, Clone, Copy, Default)]
struct NodeShare {
    class: usize,
    /// Everything on it, and whether it is there and paid for.
    all: u64,
    away: bool,
    free: u64,
    fragment: u64,
    switching: u64,
    asleep: u64,
    /// Held by gangs.
    held: u64,
    /// The integral of `held`, up to `since`.
    held_time: u128,
    since: Time,
}

/// What a class of nodes is doing now, in thousandths of devices.
#[derive(Debug, Clone, Copy, Default)]
struct ClassShare {
    all: u64,
    free: u64,
    fragment: u64,
    switching: u64,
    asleep: u64,
    held: [u64; 3],
}

impl ClassShare {
    fn rates(&self, something_waits: bool) -> ([u64; USES], u64) {
        let [starting, running, stopping] = self.held;
        let Self { switching, asleep, .. } = *self;
        let down = self.all.saturating_sub(starting + running + stopping + self.free + switching + asleep);
        let fragment = self.fragment.min(self.free);
        let free = if something_waits { [0, fragment, self.free - fragment] } else { [self.free, 0, 0] };
        ([starting, running, stopping, down, free[0], free[1], free[2], switching, asleep], fragment)
    }
}

/// Device time of one class of nodes in one period.
pub type ByClass = Vec<DeviceTime>;

#[derive(Debug)]
pub struct Meter {
    shapes: Vec<Shape>,
    nodes: BTreeMap<NodeId, NodeShare>,
    classes: Vec<ClassShare>,
    /// By class; empty where nobody asks.
    watts: Vec<Watts>,
    /// What each gang holds of each class.
    gangs: BTreeMap<GangId, (Use, Vec<(usize, u64)>)>,
    /// When another period begins, the next one last.
    bounds: Vec<Time>,
    waiting_gangs: u64,
    waiting_devices: u64,
    begin: Time,
    now: Time,
    pub total: Cell,
    /// Thousandths of devices that were there, times milliseconds.
    paid: u128,
    /// By period, then by class.
    pub periods: Vec<ByClass>,
    pub cells: Vec<Cell>,
    pub cell_ms: u64,
}

impl Meter {
    /// `classes` are counts of nodes, in the order of their registration. A period begins at
    /// each of the `bounds`.
    pub fn new(state: &State, shapes: Vec<Shape>, classes: &[u32], bounds: &[Time], begin: Time) -> Self {
        let mut bounds: Vec<Time> = bounds.iter().copied().filter(|bound| *bound > begin).collect();
        bounds.sort_by(|a, b| b.cmp(a));
        let mut meter = Self {
            shapes,
            nodes: BTreeMap::new(),
            classes: vec![ClassShare::default(); classes.len()],
            watts: Vec::new(),
            gangs: BTreeMap::new(),
            bounds,
            waiting_gangs: 0,
            waiting_devices: 0,
            begin,
            now: begin,
            total: Cell::default(),
            paid: 0,
            periods: vec![vec![DeviceTime::default(); classes.len()]],
            cells: Vec::new(),
            cell_ms: CELL_MS,
        };
        let of_node = classes.iter().enumerate().flat_map(|(class, count)| (0..*count).map(move |_| class));
        for (record, class) in state.nodes().values().zip(of_node) {
            let all = record.devices.len() as u64 * 1000;
            meter.nodes.insert(record.id, NodeShare { class, all, since: begin, ..NodeShare::default() });
            meter.classes[class].all += all;
            meter.refresh_node(state, record.id);
        }
        meter
    }

    /// With what a device of each class draws.
    pub fn drawing(self, watts: Vec<Watts>) -> Self {
        Self { watts, ..self }
    }

    pub fn begin(&self) -> Time {
        self.begin
    }

    pub fn now(&self) -> Time {
        self.now
    }

    /// Thousandths of all devices that were there, over the whole time.
    pub fn paid(&self) -> u128 {
        self.paid
    }

    /// As if none had ever been taken away.
    pub fn whole(&self) -> u128 {
        let all: u64 = self.nodes.values().map(|share| share.all).sum();
        u128::from(all) * u128::from(self.now.since_ms(self.begin))
    }

    /// From now on a node is not there and not paid for, or is back.
    pub fn set_away(&mut self, now: Time, node: NodeId, away: bool) {
        self.advance(now);
        let Some(share) = self.nodes.get_mut(&node).filter(|share| share.away != away) else { return };
        share.away = away;
        let class = &mut self.classes[share.class];
        class.all = if away { class.all - share.all } else { class.all + share.all };
    }

    /// A gang began to wait, or waits no more.
    pub fn waits(&mut self, devices: u64, waits: bool) {
        if waits {
            self.waiting_gangs += 1;
            self.waiting_devices += devices;
        } else {
            self.waiting_gangs = self.waiting_gangs.saturating_sub(1);
            self.waiting_devices = self.waiting_devices.saturating_sub(devices);
        }
    }

    /// Counts what was so until now. Before the changes of this moment are taken note of.
    pub fn advance(&mut self, now: Time) {
        while let Some(bound) = self.bounds.pop_if(|bound| *bound <= now) {
            self.advance_within(bound);
            self.periods.push(vec![DeviceTime::default(); self.classes.len()]);
        }
        self.advance_within(now);
    }

    fn advance_within(&mut self, now: Time) {
        if now <= self.now {
            return;
        }
        let ms = now.since_ms(self.now);
        let mut sum =
            Rates { waiting_gangs: self.waiting_gangs, waiting_devices: self.waiting_devices, ..Rates::default() };
        let period = self.periods.last_mut().expect("there is always a period");
        for (class, share) in self.classes.iter().enumerate() {
            let (rates, fragment) = share.rates(self.waiting_gangs > 0);
            for (at, rate) in rates.into_iter().enumerate() {
                sum.device_time[at] += rate;
                period[class][at] += u128::from(rate) * u128::from(ms);
            }
            sum.fragment += fragment;
            if let Some([running_w, rest_w, asleep_w]) = self.watts.get(class) {
                let [running, down, asleep] = [Use::Running, Use::Down, Use::Asleep].map(|of| rates[of as usize]);
                let rest = rates.iter().sum::<u64>() - running - down - asleep;
                sum.drawn +=
                    running * u64::from(*running_w) + rest * u64::from(*rest_w) + asleep * u64::from(*asleep_w);
            }
            self.paid += u128::from(share.all) * u128::from(ms);
        }
        self.total.add(&sum, ms);
        self.fill_cells(&sum, now);
        self.now = now;
    }

    fn fill_cells(&mut self, rates: &Rates, now: Time) {
        while now.since_ms(self.begin) > self.cell_ms.saturating_mul(CELLS_MAX as u64) {
            self.cell_ms = self.cell_ms.saturating_mul(2);
            self.cells = self
                .cells
                .chunks(2)
                .map(|pair| {
                    let mut sum = pair[0];
                    pair[1..].iter().for_each(|other| sum.merge(other));
                    sum
                })
                .collect();
        }
        let mut from = self.now;
        while from < now {
            let cell = (from.since_ms(self.begin) / self.cell_ms) as usize;
            let until = self.begin.plus_ms((cell as u64 + 1).saturating_mul(self.cell_ms)).min(now);
            if self.cells.len() <= cell {
                self.cells.resize(cell + 1, Cell::default());
            }
            self.cells[cell].add(rates, until.since_ms(from));
            from = until;
        }
    }

    /// Takes note of what an entry changed.
    pub fn note(&mut self, state: &State, entry: &Entry, outcome: &Outcome) {
        let mut last = None;
        if let Command::Reports { reports } = &entry.command {
            for report in reports {
                if last != Some(report.gang) {
                    self.refresh_gang(state, report.gang);
                    last = Some(report.gang);
                }
            }
        }
        for event in &outcome.events {
            match event {
                Event::GangPlaced { gang, nodes, .. } => {
                    self.refresh_gang(state, *gang);
                    nodes.iter().for_each(|node| self.refresh_node(state, *node));
                }
                Event::GangStarted { gang, .. }
                | Event::GangStopping { gang, .. }
                | Event::AttemptEnded { gang, .. } => self.refresh_gang(state, *gang),
                Event::NodesRequested { nodes, .. } | Event::NodesSleeping { nodes } => {
                    nodes.iter().for_each(|node| self.refresh_node(state, *node));
                }
                Event::DevicesFree { node, .. }
                | Event::DeviceQuarantined { node, .. }
                | Event::NodeAsleep { node }
                | Event::NodeAwake { node }
                | Event::NodePowerFailed { node, .. } => self.refresh_node(state, *node),
                Event::NodeRegistered { node, .. }
                | Event::NodeSeen { node }
                | Event::NodeSilent { node }
                | Event::NodeFenced { node }
                | Event::NodeAdmin { node, .. }
                | Event::DevicesUnknown { node, .. } => {
                    self.refresh_node(state, *node);
                    let gangs: Vec<GangId> = self.gangs.keys().copied().collect();
                    gangs.into_iter().for_each(|gang| self.refresh_gang(state, gang));
                }
                _ => {}
            }
        }
    }

    fn refresh_gang(&mut self, state: &State, gang: GangId) {
        for (before, class, milli) in
            self.gangs.remove(&gang).into_iter().flat_map(|(of, held)| held.into_iter().map(move |(c, m)| (of, c, m)))
        {
            self.classes[class].held[before as usize] -= milli;
        }
        let Some(record) = state.gang(gang) else { return };
        let Some(attempt) = record.current() else { return };
        let now = match record.state {
            GangState::Starting(_) => Use::Starting,
            GangState::Running(_) => Use::Running,
            _ => Use::Stopping,
        };
        let mut held: Vec<(usize, u64)> = Vec::new();
        for part in attempt.parts.iter().filter(|part| !part.state.is_settled()) {
            let milli = part.devices.iter().map(|(_, milli)| u64::from(*milli)).sum();
            let class = self.nodes.get(&part.node).map_or(0, |share| share.class);
            match held.iter_mut().find(|(known, _)| *known == class) {
                Some((_, sum)) => *sum += milli,
                None => held.push((class, milli)),
            }
        }
        held.iter().for_each(|(class, milli)| self.classes[*class].held[now as usize] += milli);
        self.gangs.insert(gang, (now, held));
    }

    fn refresh_node(&mut self, state: &State, node: NodeId) {
        let now = self.now;
        let before = self.nodes.entry(node).or_default();
        let held_time = before.held_time + u128::from(before.held) * u128::from(now.since_ms(before.since));
        let mut after =
            NodeShare { free: 0, fragment: 0, switching: 0, asleep: 0, held: 0, held_time, since: now, ..*before };
        if let Some(record) = state.node(node) {
            let milli = record.devices.iter().flat_map(DeviceState::holders).map(|holder| u64::from(holder.milli));
            after.held = milli.sum();
            if record.is_open() {
                after.free = record.devices.iter().map(|device| u64::from(device.free_milli())).sum();
                after.fragment = fragment(record, &self.shapes);
            }
            match record.power {
                Power::Awake { .. } => {}
                Power::Asleep { .. } if after.away => {}
                Power::Asleep { .. } => after.asleep = after.all,
                Power::FallingAsleep { .. } | Power::Waking { .. } => after.switching = after.all,
            }
        }
        let class = &mut self.classes[before.class];
        class.free = class.free - before.free + after.free;
        class.fragment = class.fragment - before.fragment + after.fragment;
        class.switching = class.switching - before.switching + after.switching;
        class.asleep = class.asleep - before.asleep + after.asleep;
        *before = after;
    }

    /// Device-milli-milliseconds held on a node so far.
    pub fn held_time(&self, node: NodeId) -> u128 {
        self.nodes
            .get(&node)
            .map_or(0, |share| share.held_time + u128::from(share.held) * u128::from(self.now.since_ms(share.since)))
    }
}

/// Expected thousandths on the node that a typical request cannot use: all that is free if the
/// request does not fit there, else what is free on devices with too little left for it.
pub fn fragment(node: &NodeRecord, shapes: &[Shape]) -> u64 {
    let free: Vec<u16> = node.devices.iter().map(DeviceState::free_milli).filter(|milli| *milli > 0).collect();
    if free.is_empty() {
        return 0;
    }
    let whole = free.iter().filter(|milli| **milli >= 1000).count() as u64;
    let all: u64 = free.iter().map(|milli| u64::from(*milli)).sum();
    let cpu_milli = node.free_amount().cpu_milli;
    let useless = |shape: &Shape| {
        if cpu_milli < shape.cpu_milli || (shape.devices == 0 && shape.milli == 0) {
            return all;
        }
        if shape.milli > 0 {
            let enough: u64 = free.iter().filter(|milli| **milli >= shape.milli).map(|milli| u64::from(*milli)).sum();
            return all - enough;
        }
        if whole < u64::from(shape.devices) { all } else { all - whole * 1000 }
    };
    let weighted: u64 = shapes.iter().map(|shape| useless(shape) * shape.weight).sum();
    weighted / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A job may run for as long as its trace says.
    #[test]
    fn the_grid_covers_any_time() {
        let begin = Time(1_000);
        let mut meter = Meter::new(&State::new("any"), Vec::new(), &[], &[], begin);
        meter.waits(1, true);
        for now in [Time(5_000), Time(20_000_000_000_000_000), Time(u64::MAX)] {
            meter.advance(now);
            assert!(meter.cells.len() <= CELLS_MAX, "{} cells", meter.cells.len());
            let waiting: u128 = meter.cells.iter().map(|cell| cell.waiting_gangs).sum();
            assert_eq!(waiting, u128::from(now.since_ms(begin)));
        }
    }
}
