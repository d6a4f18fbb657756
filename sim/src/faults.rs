//! What breaks in a run, and when: draws failures, and turns them into what a cluster would see of
//! them. A machine that goes down is silent, is fenced once the wait is over, and comes back with
//! another boot; a device reports a fatal fault; software ends a rank.

mod spot;

use crate::draw::Draw;
use crate::world::World;
use crate::world::failures::{Kind, Rate, Rates};
use muster_common::time::{DAY_MS, SECOND_MS};
use muster_common::{AttemptNo, GangId, JobId, NodeId, Time, Token};
use muster_engine::command::{Exit, NodeAction, NodeReport, Principal, Registration, ReportBody};
use muster_engine::forecast::Act;
use muster_engine::state::gang::GangState;
use muster_engine::state::node::{DeviceState, Orphan};
use muster_engine::{Command, State};
use std::collections::BTreeMap;

/// The XID of a device that fell off the bus.
const XID_GONE: u32 = 79;

/// What a call of the player's stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    Fail(Kind, usize),
    /// Of an outage by its number, so that a later one is not mixed up with it.
    Silent(usize, u64),
    Fence(usize, u64),
    Return(usize, u64),
    Repaired(usize, u16),
    LeafReturn(usize),
    /// As planned: a machine, and for how long; without that, for good.
    Outage(usize, Option<u64>),
    /// Of a spot machine's owner: notice, its end, and another in its place.
    Notice(usize),
    Taken(usize),
    Given(usize),
    Drain(usize),
    Undrain(usize),
    /// By position among the jobs.
    Cancel(usize),
}

/// One machine's record.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub node: NodeId,
    pub name: String,
    pub devices: u16,
    pub lemon: bool,
    /// By [`Kind`]; of a leaf, the outages it took part in.
    pub failures: [u64; 4],
    pub down_ms: u64,
    /// Of machines that may be taken away.
    pub spot: Option<spot::Standing>,
    /// Since when, through which cause.
    down: Option<(Time, Kind)>,
    /// Not before, while it is down.
    back_at: Time,
    outages: u64,
    /// Down, and nobody repairs it.
    gone: bool,
    registration: Registration,
    draws: [Draw; 3],
}

#[derive(Debug)]
pub(crate) struct Faults {
    rates: Rates,
    lemon_times: f64,
    pub machines: Vec<Machine>,
    of_node: BTreeMap<NodeId, usize>,
    leaves: Vec<(Vec<usize>, Draw)>,
    calls: BTreeMap<u64, Call>,
    called: u64,
    /// Gangs whose work stopped with a machine, until State knows.
    pub halted: BTreeMap<GangId, Time>,
    /// By [`Kind`].
    pub counts: [u64; 4],
}

impl Faults {
    /// `nodes` are the registered ones, in the order of the world.
    pub fn new(world: &World, rates: Rates, seed: u64, nodes: &[NodeId]) -> Self {
        let lemons = world.failures.lemons;
        let machines: Vec<Machine> = (0..)
            .zip(world.registrations().zip(nodes).zip(spot::standings(world, seed)))
            .map(|(number, ((registration, &node), spot))| {
                let lemon = Draw::of(seed, "lemon", number).unit() * 100.0 <= lemons.percent_of_nodes;
                Machine {
                    node,
                    name: registration.name.to_string(),
                    devices: registration.inventory.devices.len() as u16,
                    lemon,
                    failures: [0; 4],
                    down_ms: 0,
                    spot,
                    down: None,
                    back_at: Time::NEVER,
                    outages: 0,
                    gone: false,
                    registration,
                    draws: ["gpu", "node", "software"].map(|stream| Draw::of(seed, stream, number)),
                }
            })
            .collect();
        let leaves = leaves(world, &machines);
        Self {
            rates,
            lemon_times: lemons.times,
            of_node: machines.iter().enumerate().map(|(at, machine)| (machine.node, at)).collect(),
            leaves: (0..).zip(leaves).map(|(number, nodes)| (nodes, Draw::of(seed, "leaf", number))).collect(),
            machines,
            calls: BTreeMap::new(),
            called: 0,
            halted: BTreeMap::new(),
            counts: [0; 4],
        }
    }

    /// The first failure of everything.
    pub fn begin(&mut self, at: Time) -> Vec<(Time, u64)> {
        let mut first = Vec::new();
        for kind in [Kind::Gpu, Kind::Node, Kind::Software] {
            for machine in 0..self.machines.len() {
                first.extend(self.next_failure(kind, machine, at));
            }
        }
        for leaf in 0..self.leaves.len() {
            first.extend(self.next_failure(Kind::Leaf, leaf, at));
        }
        first.extend(self.first_notices(at));
        first
    }

    pub fn call(&mut self, call: Call) -> u64 {
        self.called += 1;
        self.calls.insert(self.called, call);
        self.called
    }

    pub fn take(&mut self, call: u64) -> Option<Call> {
        self.calls.remove(&call)
    }

    /// Is every machine up that will ever be, and nobody yet to go, so that nothing can start later that cannot start now?
    pub fn all_up(&self) -> bool {
        self.machines.iter().all(|machine| (machine.down.is_none() || machine.gone) && !machine.is_leaving())
            && !self.calls.values().any(|call| matches!(call, Call::Repaired(..) | Call::Undrain(_) | Call::Cancel(_)))
    }

    /// Closes the books of a run.
    pub fn finish(&mut self, at: Time) {
        for machine in &mut self.machines {
            if let Some((since, _)) = machine.down.take() {
                machine.down_ms += at.since_ms(since);
            }
            machine.finish_away(at);
        }
    }

    pub fn position(&self, node: NodeId) -> Option<usize> {
        self.of_node.get(&node).copied()
    }

    fn next_failure(&mut self, kind: Kind, which: usize, after: Time) -> Option<(Time, u64)> {
        let rate = self.rates.of(kind)?;
        let mean_ms = DAY_MS as f64 * 1000.0 / rate.per_1000_days;
        let wait_ms = if kind == Kind::Leaf {
            self.leaves[which].1.exponential_ms(mean_ms)
        } else {
            let machine = &mut self.machines[which];
            let times = if machine.lemon { self.lemon_times } else { 1.0 };
            machine.draws[kind as usize].exponential_ms(mean_ms / times)
        };
        let at = after.plus_ms(wait_ms);
        (at < Time::NEVER).then(|| (at, self.call(Call::Fail(kind, which))))
    }

    fn repair_ms(rate: Rate, draw: &mut Draw) -> u64 {
        match rate.repair_mean_s {
            0 => 0,
            mean_s => draw.exponential_ms((mean_s * SECOND_MS) as f64),
        }
    }

    pub fn act(&mut self, state: &State, at: Time, call: Call) -> Vec<Act> {
        match call {
            Call::Fail(Kind::Leaf, leaf) => self.leaf_fails(state, leaf, at),
            Call::Fail(kind, machine) => self.machine_fails(state, kind, machine, at),
            Call::Silent(machine, outage) => {
                self.while_down(machine, outage, |node, epoch, term| Command::NodeSilent { node, epoch, term }, state)
            }
            Call::Fence(machine, outage) => {
                let waited_ms = state.settings().fence_after_ms(None);
                self.while_down(
                    machine,
                    outage,
                    |node, epoch, term| Command::NodeFenced { node, epoch, term, waited_ms },
                    state,
                )
            }
            Call::Return(machine, outage) if self.machines[machine].outages == outage => self.comes_back(machine, at),
            Call::Repaired(machine, slot) => {
                let action = NodeAction::EndQuarantine { slot, reason: "replaced".into() };
                vec![Act::Commit(admin(self.machines[machine].node, action))]
            }
            Call::LeafReturn(leaf) => self.leaf_returns(state, leaf, at),
            Call::Outage(machine, for_ms) => self.outage(state, machine, for_ms, at),
            Call::Notice(machine) => self.notice(state, machine, at),
            Call::Taken(machine) => self.taken(state, machine, at),
            Call::Given(machine) => self.given(machine, at),
            Call::Return(..) | Call::Drain(_) | Call::Undrain(_) | Call::Cancel(_) => Vec::new(),
        }
    }

    /// A session's word about a machine that is still down.
    fn while_down(
        &self,
        machine: usize,
        outage: u64,
        command: impl Fn(NodeId, u64, u64) -> Command,
        state: &State,
    ) -> Vec<Act> {
        let machine = &self.machines[machine];
        let epoch = state.node(machine.node).map(|record| record.epoch);
        match epoch.filter(|_| machine.down.is_some() && machine.outages == outage) {
            Some(epoch) => vec![Act::Commit(command(machine.node, epoch, state.applied_term().max(1)))],
            None => Vec::new(),
        }
    }

    fn machine_fails(&mut self, state: &State, kind: Kind, which: usize, at: Time) -> Vec<Act> {
        let is_up = self.machines[which].is_there() && is_on(state, self.machines[which].node);
        // Drawn whether it is up or not: a policy may have put it to sleep, and what fails later is the same under all.
        let rate = self.rates.of(kind).expect("it has just failed");
        let machine = &mut self.machines[which];
        let devices = u64::from(machine.devices);
        let draw = &mut machine.draws[kind as usize];
        let slot = if kind == Kind::Gpu { draw.below(devices) as u16 } else { 0 };
        let repair_ms = if kind == Kind::Software { 0 } else { Self::repair_ms(rate, draw) };
        let after = if kind == Kind::Node { at.plus_ms(repair_ms) } else { at };
        let mut acts = Vec::new();
        if is_up {
            self.counts[kind as usize] += 1;
            self.machines[which].failures[kind as usize] += 1;
            match kind {
                Kind::Gpu => acts = self.device_fails(state, which, slot, at.plus_ms(repair_ms)),
                Kind::Software => acts = software_fails(state, self.machines[which].node),
                Kind::Node | Kind::Leaf => {
                    acts = self.goes_down(state, which, Kind::Node, at, after);
                    let outage = self.machines[which].outages;
                    acts.push(Act::CallAt(after, self.call(Call::Return(which, outage))));
                }
            }
        }
        acts.extend(self.next_failure(kind, which, after).map(|(at, call)| Act::CallAt(at, call)));
        acts
    }

    /// One that is away or switched off is left alone; one that is down already comes back when the later of both is over.
    fn outage(&mut self, state: &State, which: usize, for_ms: Option<u64>, at: Time) -> Vec<Act> {
        let back_at = for_ms.map_or(Time::NEVER, |ms| at.plus_ms(ms));
        let machine = &mut self.machines[which];
        if machine.down.is_some() && back_at > machine.back_at {
            machine.back_at = back_at;
            machine.gone = for_ms.is_none();
            let outage = machine.outages;
            return for_ms.map(|_| Act::CallAt(back_at, self.call(Call::Return(which, outage)))).into_iter().collect();
        }
        if !(self.machines[which].is_there() && is_on(state, self.machines[which].node)) {
            return Vec::new();
        }
        self.counts[Kind::Node as usize] += 1;
        self.machines[which].failures[Kind::Node as usize] += 1;
        self.machines[which].gone = for_ms.is_none();
        let mut acts = self.goes_down(state, which, Kind::Node, at, back_at);
        let outage = self.machines[which].outages;
        acts.extend(for_ms.map(|_| Act::CallAt(back_at, self.call(Call::Return(which, outage)))));
        acts
    }

    fn device_fails(&mut self, state: &State, which: usize, slot: u16, repaired_at: Time) -> Vec<Act> {
        let machine = &self.machines[which];
        let Some(record) = state.node(machine.node) else { return Vec::new() };
        if matches!(record.devices.get(usize::from(slot)), Some(DeviceState::Quarantined { .. })) {
            return Vec::new();
        }
        let body = ReportBody::DeviceFault { slot, xid: XID_GONE, why: "fell off the bus".into(), fatal: true };
        let report = Act::Report(NodeReport {
            node: machine.node,
            epoch: record.epoch,
            number: 0,
            gang: GangId::new(JobId(0), 0),
            attempt: AttemptNo(0),
            token: Token::default(),
            body,
        });
        vec![report, Act::CallAt(repaired_at, self.call(Call::Repaired(which, slot)))]
    }

    /// Nothing is heard of it from now on.
    fn goes_down(&mut self, state: &State, which: usize, kind: Kind, at: Time, back_at: Time) -> Vec<Act> {
        let machine = &mut self.machines[which];
        machine.down = Some((at, kind));
        machine.back_at = back_at;
        machine.outages += 1;
        let (node, outage) = (machine.node, machine.outages);
        for gang in state.node(node).into_iter().flat_map(|record| &record.gangs) {
            self.halted.entry(*gang).or_insert(at);
        }
        let settings = state.settings();
        let silent_at = at.plus_ms(settings.suspect_after_ms);
        let fence_at = at.plus_ms(settings.fence_after_ms(None));
        vec![
            Act::Mute(node),
            Act::CallAt(silent_at, self.call(Call::Silent(which, outage))),
            Act::CallAt(fence_at, self.call(Call::Fence(which, outage))),
        ]
    }

    fn comes_back(&mut self, which: usize, at: Time) -> Vec<Act> {
        let machine = &mut self.machines[which];
        if at < machine.back_at {
            return Vec::new();
        }
        let Some((since, _)) = machine.down.take() else { return Vec::new() };
        machine.down_ms += at.since_ms(since);
        machine.registers_anew()
    }

    fn leaf_fails(&mut self, state: &State, leaf: usize, at: Time) -> Vec<Act> {
        let rate = self.rates.of(Kind::Leaf).expect("it has just failed");
        self.counts[Kind::Leaf as usize] += 1;
        let (nodes, draw) = &mut self.leaves[leaf];
        let back_at = at.plus_ms(Self::repair_ms(rate, draw));
        let mut acts = Vec::new();
        for which in nodes.clone() {
            if self.machines[which].is_there() && is_on(state, self.machines[which].node) {
                self.machines[which].failures[Kind::Leaf as usize] += 1;
                acts.extend(self.goes_down(state, which, Kind::Leaf, at, back_at));
            }
        }
        acts.push(Act::CallAt(back_at, self.call(Call::LeafReturn(leaf))));
        acts.extend(self.next_failure(Kind::Leaf, leaf, back_at).map(|(at, call)| Act::CallAt(at, call)));
        acts
    }

    /// The machines are heard again. Their ranks are gone: leases ran out, or their peers did.
    fn leaf_returns(&mut self, state: &State, leaf: usize, at: Time) -> Vec<Act> {
        let mut acts = Vec::new();
        for which in self.leaves[leaf].0.clone() {
            let machine = &mut self.machines[which];
            let Some((since, Kind::Leaf)) = machine.down.filter(|_| at >= machine.back_at) else { continue };
            machine.down = None;
            machine.down_ms += at.since_ms(since);
            let node = machine.node;
            let Some(record) = state.node(node) else { continue };
            acts.push(Act::Unmute(node));
            acts.push(Act::Commit(Command::NodeSeen { node, epoch: record.epoch }));
            let live = record.gangs.iter().filter_map(|gang| {
                let attempt = state.gang(*gang)?.current()?;
                Some((*gang, attempt.number, attempt.token))
            });
            let orphans = record.orphans.iter().map(|Orphan { gang, attempt, token, .. }| (*gang, *attempt, *token));
            let released = live.chain(orphans).map(|(gang, attempt, token)| {
                let body = ReportBody::Released { lease_expired: true };
                Act::Report(NodeReport { node, epoch: record.epoch, number: 0, gang, attempt, token, body })
            });
            acts.extend(released);
        }
        acts
    }
}

impl Machine {
    pub fn is_there(&self) -> bool {
        self.down.is_none() && !self.is_away()
    }

    /// With another boot, which proves that nothing of the last one runs any more.
    fn registers_anew(&self) -> Vec<Act> {
        let mut registration = self.registration.clone();
        let mut inventory = (*registration.inventory).clone();
        inventory.boot_id = format!("simulated-{}", self.outages);
        registration.inventory = inventory.into();
        registration.instance = format!("{}-{}", self.name, self.outages);
        registration.old_boot_silent = true;
        vec![Act::Unmute(self.node), Act::Commit(Command::RegisterNode(Box::new(registration)))]
    }
}

pub(crate) fn admin(node: NodeId, action: NodeAction) -> Command {
    Command::NodeAdmin { node, action, by: Principal("simulator".into()) }
}

/// What is switched off does not fail.
fn is_on(state: &State, node: NodeId) -> bool {
    state.node(node).is_some_and(|record| record.power.is_awake())
}

/// A rank of every gang that runs on the node fails.
fn software_fails(state: &State, node: NodeId) -> Vec<Act> {
    let Some(record) = state.node(node) else { return Vec::new() };
    let reports = record.gangs.iter().filter_map(|gang| {
        let record = state.gang(*gang)?;
        let GangState::Running(attempt) = &record.state else { return None };
        let part = &attempt.parts[attempt.part_on(node)?];
        let body = ReportBody::Exited { rank: part.rank_base, exit: Exit::Code(1), why: String::new() };
        Some(Act::Report(NodeReport {
            node,
            epoch: part.epoch,
            number: 0,
            gang: *gang,
            attempt: attempt.number,
            token: attempt.token,
            body,
        }))
    });
    reports.collect()
}

/// Nodes by the domain that fails as one.
fn leaves(world: &World, machines: &[Machine]) -> Vec<Vec<usize>> {
    let Some((tree, depth)) =
        world.failures.leaf_level.as_ref().and_then(|level| world.fabric.find_level(level.as_str()))
    else {
        return Vec::new();
    };
    let Some(tree) = world.fabric.trees.get(tree) else { return Vec::new() };
    let mut leaves: BTreeMap<Vec<String>, Vec<usize>> = BTreeMap::new();
    for (at, machine) in machines.iter().enumerate() {
        if let Some(path) = machine.registration.inventory.place.get(&tree.name).filter(|path| path.len() >= depth) {
            leaves.entry(path[..depth].iter().map(ToString::to_string).collect()).or_default().push(at);
        }
    }
    leaves.into_values().collect()
}
