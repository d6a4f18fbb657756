//! A state with its history, made with engine commands and decided by the engine's own cycle.

use crate::gateway::past::Past;
use crate::gateway::subject::Subject;
use crate::history::{HistoryStore, MemHistory};
use crate::records::{self, Recorded, job_of};
use muster_common::job::file::{JobFile, compile};
use muster_common::job::{Launch, Scheduling};
use muster_common::node::{Device, Inventory, Link, Nic, NumaNode};
use muster_common::topology::{FabricSpec, TreeSpec};
use muster_common::{GangId, JobId, Name, NodeId, Time};
use muster_engine::command::{Cancel, ConfigChange, Exit, NodeReport, Principal, Registration, ReportBody, Submit};
use muster_engine::state::gang::GangState;
use muster_engine::{Command, Entry, Memo, Outcome, Response, State, apply, cycle};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const START: Time = Time(1_700_000_000_000);

pub fn principal(name: &str) -> Principal {
    Principal(name.into())
}

pub fn inventory(devices: usize, leaf: &str) -> Inventory {
    let device = |slot: usize| Device {
        uuid: format!("GPU-{leaf}-{slot}"),
        model: Name::literal("H100"),
        product: "NVIDIA H100 80GB HBM3".into(),
        memory_bytes: 80 << 30,
        pci_address: format!("0000:{slot:02x}:00.0"),
        numa: Some(0),
        parent: None,
        nearest_nics: vec!["mlx5_0".into()],
    };
    let link = |a: usize, b: usize| if a == b { Link::Same } else { Link::NvLink(18) };
    let nic = Nic {
        name: "mlx5_0".into(),
        netdev: Some("ib0".into()),
        pci_address: String::new(),
        numa: Some(0),
        rate_gbps: 400,
        rail: Some(0),
        compute: true,
    };
    Inventory {
        cpu_milli: 64_000,
        memory_bytes: 1 << 40,
        numa: vec![NumaNode { id: 0, cpus: "0-63".into(), memory_bytes: 1 << 40 }],
        devices: (0..devices).map(device).collect(),
        links: (0..devices).map(|a| (0..devices).map(|b| link(a, b)).collect()).collect(),
        nics: vec![nic],
        labels: [(Name::literal("zone"), "a".to_owned())].into(),
        place: [(Name::literal("network"), vec![Name::new(leaf).unwrap()])].into(),
        hardware_id: "hw".into(),
        boot_id: "boot-1".into(),
        agent_version: "0.1.0".into(),
        address: "10.0.0.1".into(),
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

pub fn fabric() -> Command {
    let tree = TreeSpec { name: Name::literal("network"), levels: vec![Name::literal("leaf")] };
    let change = ConfigChange::Fabric(FabricSpec { trees: vec![tree] });
    Command::Configure { change: Box::new(change), by: principal("root") }
}

/// A job file as JSON into its parts.
pub fn spec(json: &str) -> (Scheduling, Launch) {
    compile(&serde_json::from_str::<JobFile>(json).unwrap()).unwrap()
}

pub struct Cluster {
    pub state: State,
    pub events: Vec<Recorded>,
    pub at: Time,
    reports: BTreeMap<NodeId, u64>,
}

impl Cluster {
    /// `nodes` nodes of `devices` H100 each, named n1 and so on.
    pub fn new(nodes: usize, devices: usize) -> Self {
        let mut cluster = Self { state: State::new("dev"), events: Vec::new(), at: START, reports: BTreeMap::new() };
        cluster.apply(Command::AdvanceTime { to: START });
        cluster.apply(fabric());
        for n in 1..=nodes {
            cluster.apply(Command::RegisterNode(Box::new(registration(&format!("n{n}"), devices))));
        }
        cluster
    }

    pub fn apply(&mut self, command: Command) -> Outcome {
        let index = self.state.applied_index() + 1;
        let outcome = apply(&mut self.state, &Entry { index, term: 1, at: self.at, command });
        self.state.check().unwrap();
        for (ordinal, event) in (0..).zip(&outcome.events) {
            self.events.push(Recorded { index, ordinal, at: self.state.now(), event: event.clone() });
        }
        outcome
    }

    pub fn pass(&mut self, ms: u64) {
        self.at = self.at.plus_ms(ms);
        self.apply(Command::Nothing);
    }

    pub fn submit(&mut self, user: &str, json: &str) -> JobId {
        let (scheduling, launch) = spec(json);
        let submit = Submit {
            key: format!("key-{}", self.state.applied_index()),
            key_made_at: None,
            principal: principal(user),
            name: launch.name.clone(),
            body_hash: crate::gateway::submit::body_hash(&scheduling, &launch),
            scheduling,
            launch: Arc::new(launch),
            hold: false,
            retry_of: None,
        };
        match self.apply(Command::Submit(Box::new(submit))).response {
            Response::Submitted { job, .. } => job,
            other => panic!("submit answered {other:?}"),
        }
    }

    /// Commits what the cycle decides.
    pub fn decide(&mut self) {
        for command in cycle(&self.state, &mut Memo::default(), self.state.now()).commands {
            self.apply(command);
        }
    }

    /// Places what fits, and lets every part prepare.
    pub fn start(&mut self, gang: GangId) {
        self.decide();
        for node in self.nodes_of(gang) {
            self.report(node, gang, ReportBody::Prepared);
        }
        assert!(matches!(self.state.gang(gang).unwrap().state, GangState::Running(_)));
    }

    pub fn nodes_of(&self, gang: GangId) -> Vec<NodeId> {
        let attempt = self.state.gang(gang).and_then(|gang| gang.current());
        attempt.map(|attempt| attempt.parts.iter().map(|part| part.node).collect()).unwrap_or_default()
    }

    pub fn report(&mut self, node: NodeId, gang: GangId, body: ReportBody) {
        let attempt = self.state.gang(gang).and_then(|gang| gang.current()).unwrap();
        let number = self.reports.entry(node).or_default();
        *number += 1;
        let report = NodeReport {
            node,
            epoch: self.state.node(node).unwrap().epoch,
            number: *number,
            gang,
            attempt: attempt.number,
            token: attempt.token,
            body,
        };
        self.apply(Command::Reports { reports: vec![report] });
    }

    /// Every rank of the node ends alike.
    pub fn exit(&mut self, node: NodeId, gang: GangId, exit: Exit) {
        let attempt = self.state.gang(gang).and_then(|gang| gang.current()).unwrap();
        let part = &attempt.parts[attempt.part_on(node).unwrap()];
        for rank in part.rank_base..part.rank_base + part.ranks {
            self.report(node, gang, ReportBody::Exited { rank, exit, why: String::new() });
        }
    }

    pub fn release(&mut self, gang: GangId) {
        for node in self.nodes_of(gang) {
            self.report(node, gang, ReportBody::Released { lease_expired: false });
        }
    }

    pub fn past(&self, job: JobId) -> Past {
        let events: Vec<Recorded> =
            self.events.iter().filter(|recorded| job_of(&recorded.event) == Some(job)).cloned().collect();
        Past::gather(&events)
    }

    /// What happened so far, as a server keeps it.
    pub fn history(&self) -> HistoryStore {
        self.history_on_rows().1
    }

    /// The same with the rows it lies on, which count what is read.
    pub fn history_on_rows(&self) -> (MemHistory, HistoryStore) {
        let rows = MemHistory::default();
        let history = HistoryStore::open_memory(rows.clone()).unwrap();
        for entry in self.events.chunk_by(|one, next| one.index == next.index) {
            let events: Vec<_> = entry.iter().map(|recorded| recorded.event.clone()).collect();
            history.append(entry[0].index, &records::encode(entry[0].at, &events).unwrap()).unwrap();
        }
        (rows, history)
    }

    /// Submits a job and cancels it.
    pub fn end(&mut self, user: &str, json: &str) -> JobId {
        let job = self.submit(user, json);
        self.apply(Command::Cancel(Cancel { job, ordinal: None, reason: String::new(), by: principal(user) }));
        job
    }

    /// The job as the gateway would load it.
    pub fn subject(&self, job: JobId) -> Subject {
        let state = Arc::new(self.state.clone());
        match self.state.job(job) {
            Some(_) => Subject::live(&state, job, self.past(job), self.state.now()).unwrap(),
            None => Subject::ended(&state, self.past(job)).unwrap(),
        }
    }
}
