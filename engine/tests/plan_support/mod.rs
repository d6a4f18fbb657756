//! Clusters and jobs for the tests of planning.
#![allow(dead_code)]

pub mod blocks;
pub mod windows;

use muster_common::job::{
    ArraySpec, CheckpointSpec, Count, DeviceTotal, GroupRequest, Hash, Launch, Limits, LogLimits, RetryBudget, Run,
    Scheduling,
};
use muster_common::node::{Device, Inventory, Link};
use muster_common::topology::{FabricSpec, TopologyMode, TopologyRequest, TreeSpec};
use muster_common::{AttemptNo, GangId, JobId, Name, NodeId, Time, Token};
use muster_engine::command::{
    Command, ConfigChange, Entry, NodeAction, NodeReport, Principal, Registration, ReportBody, Submit,
};
use muster_engine::forecast::{Hooks, Player, World};
use muster_engine::outcome::{Event, Outcome, Response};
use muster_engine::policy::Policy;
use muster_engine::{Cycle, Memo, State, cycle};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn inventory(model: &str, devices: usize, path: &[&str]) -> Inventory {
    let device = |slot: usize| Device {
        uuid: format!("GPU-{slot}"),
        model: name(model),
        product: model.into(),
        memory_bytes: 80 << 30,
        pci_address: String::new(),
        numa: None,
        parent: None,
        nearest_nics: Vec::new(),
    };
    let link = |a, b| if a == b { Link::Same } else { Link::NvLink(18) };
    Inventory {
        cpu_milli: 64_000.max(devices as u64 * 4000),
        memory_bytes: 1 << 40,
        numa: Vec::new(),
        devices: (0..devices).map(device).collect(),
        links: (0..devices).map(|a| (0..devices).map(|b| link(a, b)).collect()).collect(),
        nics: Vec::new(),
        labels: BTreeMap::new(),
        place: if path.is_empty() {
            BTreeMap::new()
        } else {
            BTreeMap::from([(name("network"), path.iter().map(|part| name(part)).collect())])
        },
        hardware_id: "hw".into(),
        boot_id: "boot".into(),
        agent_version: "0".into(),
        address: "127.0.0.1".into(),
        port_base: 20_000,
        port_count: 1000,
        weak_fencing: false,
    }
}

pub fn register(node: &str, inventory: Inventory) -> Command {
    Command::RegisterNode(Box::new(Registration {
        name: name(node),
        inventory: Arc::new(inventory),
        store_id: format!("store-{node}"),
        instance: "1".into(),
        store_lost: false,
        old_boot_silent: false,
        held: Vec::new(),
    }))
}

/// Its first device falls off the bus.
pub fn device_lost(node: NodeId, number: u64) -> Command {
    let body = ReportBody::DeviceFault { slot: 0, xid: 79, why: "test".into(), fatal: true };
    let gang = GangId::new(JobId(0), 0);
    let (attempt, token) = (AttemptNo(1), Token::default());
    Command::Reports { reports: vec![NodeReport { node, epoch: node.0, number, gang, attempt, token, body }] }
}

pub fn device_mended(node: NodeId) -> Command {
    let action = NodeAction::EndQuarantine { slot: 0, reason: "mended".into() };
    Command::NodeAdmin { node, action, by: Principal("test".into()) }
}

pub fn configure(change: ConfigChange) -> Command {
    Command::Configure { change: Box::new(change), by: Principal("test".into()) }
}

pub fn fabric(levels: &[&str]) -> FabricSpec {
    FabricSpec {
        trees: vec![TreeSpec { name: name("network"), levels: levels.iter().map(|level| name(level)).collect() }],
    }
}

pub fn total(devices: u32) -> Count {
    Count::Total(DeviceTotal { devices, per_node_min: 1, per_node_max: 0, step: 1 })
}

pub fn nodes(nodes: u32, per_node: u32) -> Count {
    Count::Nodes { nodes, per_node }
}

pub fn job(count: Count) -> Scheduling {
    Scheduling {
        queue: name("main"),
        account: name("me"),
        class: name("normal"),
        groups: vec![GroupRequest::of(count)],
        together: Vec::new(),
        array: None,
        limits: Limits::default(),
        retry: RetryBudget::default(),
        checkpoint: CheckpointSpec::default(),
        preemptible: true,
        fence_after_ms: None,
        begin_at_ms: None,
        deadline_at_ms: None,
        after: Default::default(),
    }
}

pub fn exact(count: Count, run_s: u64) -> Scheduling {
    let mut job = job(count);
    job.limits.exact_ms = Some(run_s * 1000);
    job
}

pub fn within(mut job: Scheduling, level: &str, mode: TopologyMode, at_most: u32) -> Scheduling {
    job.groups[0].topology.push(TopologyRequest { level: name(level), mode, at_most });
    job
}

pub fn array(mut job: Scheduling, count: u32, at_once: Option<u32>) -> Scheduling {
    job.array = Some(ArraySpec { count, at_once, stop_after_failures: None });
    job
}

pub fn submit(key: &str, scheduling: Scheduling) -> Command {
    let launch = Launch {
        name: name("job"),
        run: Run::Script("true".into()),
        env: BTreeMap::new(),
        groups: Vec::new(),
        workdir: None,
        logs: LogLimits::default(),
        elements: Vec::new(),
    };
    Command::Submit(Box::new(Submit {
        key: key.into(),
        key_made_at: None,
        principal: Principal("test".into()),
        name: name("job"),
        scheduling,
        launch: Arc::new(launch),
        body_hash: Hash::default(),
        hold: false,
        retry_of: None,
    }))
}

/// A world in which every gang runs exactly as long as its job says.
#[derive(Default)]
pub struct Exact {
    pub starts: BTreeMap<GangId, Vec<Time>>,
    pub ends: BTreeMap<GangId, Time>,
    pub check: bool,
    /// Commands may be refused; plans may not.
    pub lenient: bool,
    /// What somebody has seen to be wrong: the next entry is an error.
    pub wrong: Option<String>,
    pub decisions: u32,
}

/// A fresh memo is half the cost of a case: a long run has eight times as many cases instead of all decisions of each.
fn compared_each() -> u32 {
    static EACH: OnceLock<u32> = OnceLock::new();
    let cases = || std::env::var("MUSTER_CASES").ok().and_then(|cases| cases.parse::<u32>().ok());
    *EACH.get_or_init(|| if cases().is_some_and(|cases| cases > 2_000) { 8 } else { 1 })
}

impl Exact {
    /// A memo may be thrown away at any moment without changing a decision.
    pub fn compare_with_fresh(&mut self, state: &State, now: Time, decided: &Cycle) {
        self.decisions += 1;
        if !self.decisions.is_multiple_of(compared_each()) {
            return;
        }
        let fresh = cycle(state, &mut Memo::default(), now);
        if fresh != *decided {
            self.wrong = Some(format!("a kept memo decided {decided:?}, a fresh one {fresh:?}"));
        }
    }
}

impl Hooks for Exact {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        let limits = &state.scheduling(state.job(gang.job)?).limits;
        limits.exact_ms
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        for event in &outcome.events {
            match event {
                Event::GangStarted { gang, .. } => self.starts.entry(*gang).or_default().push(entry.at),
                Event::GangEnded { gang, .. } => drop(self.ends.insert(*gang, entry.at)),
                _ => {}
            }
        }
        match &outcome.response {
            Response::Plan { rejected, .. } if !rejected.is_empty() => {
                return Err(format!(
                    "a plan was refused on the state it was made from: {rejected:?}, {:?}",
                    entry.command
                ));
            }
            Response::Refused(why) if !self.lenient => return Err(format!("refused: {why}")),
            _ => {}
        }
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        if self.check { state.check().map_err(|error| format!("{error:?}")) } else { Ok(()) }
    }
}

/// It runs for `run_s`, which nobody knows, and may run for `limit_s`.
pub fn limited(mut wish: Scheduling, run_s: u64, limit_s: u64) -> Scheduling {
    wish.limits.exact_ms = Some(run_s * 1000);
    wish.limits.time_ms = Some(limit_s * 1000);
    wish
}

pub fn lasting(wish: Scheduling, run_s: u64) -> Scheduling {
    limited(wish, run_s, run_s)
}

/// A cluster under test and its watcher.
pub struct Cluster {
    pub player: Player,
    pub seen: Exact,
    keys: u32,
}

impl Cluster {
    pub fn new(policy: Policy) -> Self {
        Self::in_world(policy, World::default())
    }

    pub fn in_world(policy: Policy, world: World) -> Self {
        let mut cluster = Self {
            player: Player::new(State::new("test"), world),
            seen: Exact { check: true, ..Exact::default() },
            keys: 0,
        };
        cluster.commit(configure(ConfigChange::Policy(policy)));
        cluster
    }

    pub fn commit(&mut self, command: Command) -> Outcome {
        let now = self.player.state.now();
        self.player.commit(now, command, &mut self.seen).unwrap()
    }

    pub fn fabric(&mut self, levels: &[&str]) {
        self.commit(configure(ConfigChange::Fabric(fabric(levels))));
    }

    pub fn node(&mut self, node: &str, inventory: Inventory) -> NodeId {
        match self.commit(register(node, inventory)).response {
            Response::Registered { node, .. } => node,
            other => panic!("{other:?}"),
        }
    }

    /// `count` nodes `n00`, `n01`, ... of so many devices, without a place.
    pub fn nodes(&mut self, count: usize, devices: usize) -> Vec<NodeId> {
        (0..count).map(|at| self.node(&format!("n{at:02}"), inventory("H100", devices, &[]))).collect()
    }

    pub fn submit(&mut self, scheduling: Scheduling) -> GangId {
        self.keys += 1;
        match self.commit(submit(&format!("key-{}", self.keys), scheduling)).response {
            Response::Submitted { job, .. } => GangId::new(job, 0),
            other => panic!("{other:?}"),
        }
    }

    pub fn submit_at(&mut self, at_s: u64, scheduling: Scheduling) {
        self.keys += 1;
        self.player.at(Time(at_s * 1000), submit(&format!("key-{}", self.keys), scheduling));
    }

    pub fn now(&self) -> Time {
        self.player.state.now()
    }

    pub fn decide(&mut self) {
        let now = self.now();
        self.player.decide(now, &mut self.seen).unwrap();
    }

    pub fn run(&mut self) {
        self.player.run(&mut self.seen, 1_000_000).unwrap();
    }

    /// Nodes and device numbers a gang holds now, in rank order.
    pub fn held(&self, gang: GangId) -> Vec<(NodeId, Vec<u16>)> {
        let attempt = self.player.state.gang(gang).and_then(|gang| gang.current());
        attempt.map_or(Vec::new(), |attempt| {
            attempt.parts.iter().map(|part| (part.node, part.devices.iter().map(|device| device.0).collect())).collect()
        })
    }

    pub fn start_s(&self, gang: GangId) -> Option<u64> {
        self.seen.starts.get(&gang).and_then(|starts| starts.first()).map(|at| at.0 / 1000)
    }
}

pub fn gang(job: u64) -> GangId {
    GangId::new(JobId(job), 0)
}
