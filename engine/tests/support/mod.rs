//! A cluster in a test: State, a log, and shorthand for the commands and reports around it.
#![allow(dead_code)]

pub mod steps;

use muster_common::job::*;
use muster_common::node::{Device, Inventory, Link};
use muster_common::resources::Share;
use muster_common::topology::{FabricSpec, TreeSpec};
use muster_common::{AttemptNo, GangId, JobId, Name, NodeId, Time, Token};
use muster_engine::command::*;
use muster_engine::desired::{Touched, desired, touched};
use muster_engine::state::gang::GangState;
use muster_engine::state::timer::Timer;
use muster_engine::{Command, Entry, Memo, Outcome, Response, State, apply, cycle};
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct Cluster {
    pub state: State,
    pub log: Vec<Entry>,
    pub term: u64,
    pub at: Time,
    numbers: BTreeMap<NodeId, u64>,
    /// What a server last looked at when it told agents.
    told: State,
}

/// Larger clusters are not looked through after each entry.
const LOOKED_THROUGH_MAX: usize = 32;
/// Entries that come to a server at once.
const ENTRIES_AT_ONCE: u64 = 3;

pub fn principal() -> Principal {
    Principal("alice".into())
}

pub fn inventory(devices: usize, leaf: &str) -> Inventory {
    let device = |slot: usize| Device {
        uuid: format!("GPU-{slot}"),
        model: Name::literal("H100"),
        product: "NVIDIA H100 80GB HBM3".into(),
        memory_bytes: 80 << 30,
        pci_address: format!("0000:{slot:02x}:00.0"),
        numa: Some((slot / 4) as u16),
        parent: None,
        nearest_nics: Vec::new(),
    };
    let link = |a: usize, b: usize| if a == b { Link::Same } else { Link::NvLink(18) };
    Inventory {
        cpu_milli: 64_000,
        memory_bytes: 1 << 40,
        numa: Vec::new(),
        devices: (0..devices).map(device).collect(),
        links: (0..devices).map(|a| (0..devices).map(|b| link(a, b)).collect()).collect(),
        nics: Vec::new(),
        labels: BTreeMap::new(),
        place: [(Name::literal("network"), vec![Name::new(leaf).unwrap()])].into(),
        hardware_id: "hw".into(),
        boot_id: "boot-1".into(),
        agent_version: "test".into(),
        address: "127.0.0.1".into(),
        port_base: 30_000,
        port_count: 64,
        weak_fencing: false,
    }
}

pub fn registration(name: &str, devices: usize) -> Registration {
    Registration {
        name: Name::new(name).unwrap(),
        inventory: Arc::new(inventory(devices, "leaf-a")),
        store_id: format!("store-{name}"),
        instance: "one".into(),
        store_lost: false,
        old_boot_silent: false,
        held: Vec::new(),
    }
}

pub fn scheduling(nodes: u32, per_node: u32) -> Scheduling {
    Scheduling {
        queue: Name::literal("default"),
        account: Name::literal("default"),
        class: Name::literal("normal"),
        groups: vec![GroupRequest {
            cpu_milli_per_node: Some(1000),
            ranks: RanksPerNode::PerDevice,
            ..GroupRequest::of(Count::Nodes { nodes, per_node })
        }],
        together: Vec::new(),
        array: None,
        limits: Limits::default(),
        retry: RetryBudget::default(),
        checkpoint: CheckpointSpec::default(),
        preemptible: true,
        fence_after_ms: None,
        begin_at_ms: None,
        deadline_at_ms: None,
        after: Dependencies::default(),
    }
}

pub fn submit(key: &str, scheduling: Scheduling) -> Submit {
    let launch = Launch {
        name: Name::literal("job"),
        run: Run::Script("true".into()),
        env: BTreeMap::new(),
        groups: Vec::new(),
        workdir: None,
        logs: LogLimits::default(),
        elements: Vec::new(),
    };
    Submit {
        key: key.into(),
        key_made_at: None,
        principal: principal(),
        name: Name::literal("job"),
        scheduling,
        launch: Arc::new(launch),
        body_hash: Hash([1; 32]),
        hold: false,
        retry_of: None,
    }
}

impl Cluster {
    /// `nodes` nodes of `devices` devices each.
    pub fn new(nodes: usize, devices: usize) -> Self {
        let mut cluster = Self {
            state: State::new("test"),
            log: Vec::new(),
            term: 1,
            at: Time(1_000_000),
            numbers: BTreeMap::new(),
            told: State::new("test"),
        };
        let tree = TreeSpec { name: Name::literal("network"), levels: vec![Name::literal("leaf")] };
        let change = ConfigChange::Fabric(FabricSpec { trees: vec![tree] });
        cluster.apply(Command::Configure { change: Box::new(change), by: principal() });
        cluster.apply(Command::AdvanceTime { to: Time(1_000_000) });
        for n in 0..nodes {
            cluster.apply(Command::RegisterNode(Box::new(registration(&format!("n{n}"), devices))));
        }
        cluster
    }

    pub fn apply(&mut self, command: Command) -> Outcome {
        let index = self.state.applied_index() + 1;
        let entry = Entry { index, term: self.term, at: self.at, command };
        let outcome = apply(&mut self.state, &entry);
        self.log.push(entry);
        if let Err(broken) = self.state.check() {
            panic!("entry {index} {:?} broke an invariant: {broken}", self.log.last().unwrap().command);
        }
        if index.is_multiple_of(ENTRIES_AT_ONCE) && self.state.nodes().len() <= LOOKED_THROUGH_MAX {
            self.nobody_else_is_touched();
        }
        outcome
    }

    /// Whoever is not touched by what happened has the same record and the same to do.
    fn nobody_else_is_touched(&mut self) {
        let older = std::mem::replace(&mut self.told, self.state.clone());
        let Touched::Nodes(touched) = touched(&older, &self.state) else { return };
        for node in older.nodes().keys().chain(self.state.nodes().keys()).filter(|node| !touched.contains(node)) {
            let (was, is) = (desired(&older, *node), desired(&self.state, *node));
            let last = &self.log.last().unwrap().command;
            assert_eq!(was.parts, is.parts, "node {node:?} was not touched, and the last entry is {last:?}");
            assert_eq!(older.node(*node), self.state.node(*node), "node {node:?} was not touched by {last:?}");
        }
    }

    pub fn respond(&mut self, command: Command) -> Response {
        self.apply(command).response
    }

    /// A cycle, committed at once: nothing of it may be refused, unless something expired in between.
    pub fn decide(&mut self) {
        let decided = cycle(&self.state, &mut Memo::default(), self.state.now());
        let expiring = decided.commands.iter().any(|command| matches!(command, Command::Expire { .. }));
        for command in decided.commands {
            if let Response::Plan { rejected, .. } = self.respond(command.clone()) {
                let taken = rejected.is_empty() || expiring;
                assert!(taken, "a plan was refused by the state it was made from: {rejected:?}, {command:?}");
            }
        }
    }

    pub fn submit(&mut self, scheduling: Scheduling) -> JobId {
        let key = format!("key-{}", self.state.applied_index());
        match self.respond(Command::Submit(Box::new(submit(&key, scheduling)))) {
            Response::Submitted { job, .. } => job,
            other => panic!("submit answered {other:?}"),
        }
    }

    /// An edit of the job as it is now.
    pub fn edit_of(&self, job: JobId, request_id: &str, change: impl FnOnce(&mut Edit)) -> Command {
        let record = self.state.job(job).expect("the job lives");
        let mut edit = Edit {
            request_id: request_id.into(),
            job,
            from_revision: record.revision().number,
            name: record.name.clone(),
            scheduling: (**self.state.scheduling(record)).clone(),
            launch: self.state.launch(&record.revision().launch).expect("counted").clone(),
            by: principal(),
        };
        change(&mut edit);
        Command::Edit(Box::new(edit))
    }

    pub fn node(&self, n: usize) -> NodeId {
        *self.state.nodes().keys().nth(n).unwrap()
    }

    /// A first-fit placement of the gang, if there is one.
    pub fn naive_placement(&self, gang: GangId) -> Option<Placement> {
        let job = self.state.job(gang.job)?;
        let scheduling = self.state.scheduling(job);
        let Count::Nodes { nodes, per_node } = scheduling.groups[0].count else {
            return None;
        };
        let mut parts = Vec::new();
        for node in self.state.nodes().values().filter(|node| node.is_open()) {
            let excluded = self.state.gang(gang).is_some_and(|record| record.excluded.contains(&node.id));
            let amount = muster_engine::plan::feasible::part_amount(&scheduling.groups[0], node, per_node);
            let milli = scheduling.groups[0].share.0;
            let fits = |slot: &usize| node.devices[*slot].free_milli() >= milli;
            let free: Vec<usize> = (0..node.devices.len()).filter(fits).collect();
            if excluded || parts.len() == nodes as usize || free.len() < per_node as usize {
                continue;
            }
            if !node.free_amount().covers(&amount) {
                continue;
            }
            let devices = free[..per_node as usize].iter().map(|slot| (*slot as u16, milli)).collect();
            parts.push(PlacedPart { group: 0, node: node.id, epoch: node.epoch, devices, amount });
        }
        let attempt = AttemptNo(self.state.gang(gang).map_or(0, |record| record.attempt.0) + 1);
        let revision = job.revision().number;
        (parts.len() == nodes as usize).then_some(Placement { gang, attempt, revision, parts })
    }

    pub fn plan(&self, steps: Vec<PlanStep>) -> Command {
        Command::CommitPlan(Box::new(CommitPlan {
            made_at: self.state.applied_index(),
            now: self.state.now(),
            policy_version: self.state.config_version(),
            engine_version: 1,
            steps,
        }))
    }

    pub fn place(&mut self, gang: GangId) -> Response {
        let placement = self.naive_placement(gang).expect("there is room");
        let plan = self.plan(vec![PlanStep::Place(placement)]);
        self.respond(plan)
    }

    pub fn token(&self, gang: GangId) -> (AttemptNo, Token) {
        let attempt = self.state.gang(gang).and_then(|record| record.current()).expect("the gang is placed");
        (attempt.number, attempt.token)
    }

    pub fn parts(&self, gang: GangId) -> Vec<NodeId> {
        let attempt = self.state.gang(gang).and_then(|record| record.current());
        attempt.map(|attempt| attempt.parts.iter().map(|part| part.node).collect()).unwrap_or_default()
    }

    pub fn report_as(&mut self, node: NodeId, gang: GangId, token: (AttemptNo, Token), body: ReportBody) -> Response {
        let number = self.numbers.entry(node).or_default();
        *number += 1;
        let number = (*number).max(self.state.node(node).map_or(0, |node| node.reports_applied + 1));
        self.numbers.insert(node, number);
        let epoch = self.state.node(node).map_or(0, |node| node.epoch);
        let report = NodeReport { node, epoch, number, gang, attempt: token.0, token: token.1, body };
        self.respond(Command::Reports { reports: vec![report] })
    }

    pub fn report(&mut self, node: NodeId, gang: GangId, body: ReportBody) -> Response {
        let token = self.token(gang);
        self.report_as(node, gang, token, body)
    }

    pub fn start(&mut self, gang: GangId) {
        self.place(gang);
        for node in self.parts(gang) {
            self.report(node, gang, ReportBody::Prepared);
        }
        assert_eq!(self.word(gang), "RUNNING");
    }

    pub fn exit(&mut self, gang: GangId, node: NodeId, rank: u32, exit: Exit) {
        self.report(node, gang, ReportBody::Exited { rank, exit, why: String::new() });
    }

    pub fn release_all(&mut self, gang: GangId) {
        let token = self.token(gang);
        for node in self.parts(gang) {
            self.report_as(node, gang, token, ReportBody::Released { lease_expired: false });
        }
    }

    /// The state of a gang in a word; `GONE` when it has no record.
    pub fn word(&self, gang: GangId) -> &'static str {
        self.state.gang(gang).map_or("GONE", |record| record.state.word())
    }

    pub fn cause(&self, gang: GangId) -> Option<muster_engine::state::gang::Cause> {
        match &self.state.gang(gang)?.state {
            GangState::Stopping(_, cause) => Some((**cause).clone()),
            _ => None,
        }
    }

    pub fn pass(&mut self, ms: u64) {
        self.at = self.at.plus_ms(ms);
        let to = self.at;
        self.apply(Command::AdvanceTime { to });
    }

    pub fn due(&self) -> Vec<Timer> {
        self.state.timers().take_while(|(at, _)| *at <= self.state.now()).map(|(_, timer)| timer).collect()
    }

    pub fn expire(&mut self) {
        let timers = self.due();
        self.apply(Command::Expire { timers });
    }
}

pub const OK: Exit = Exit::Code(0);
