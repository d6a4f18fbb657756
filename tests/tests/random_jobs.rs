//! Random jobs on a small cluster under several policies, played with ideal agents: every one ends,
//! and no invariant of State breaks after any entry.

use muster_common::job::*;
use muster_common::node::{Device, Inventory, Link};
use muster_common::resources::Share;
use muster_common::topology::{FabricSpec, TopologyMode, TopologyRequest, TreeSpec};
use muster_common::{GangId, JobId, Name, Time};
use muster_engine::command::{Cancel, ConfigChange, Entry, NodeAction, Principal, Registration, Submit};
use muster_engine::forecast::{Hooks, Player, World};
use muster_engine::outcome::{Event, Outcome, Response};
use muster_engine::policy::{Admission, Order, Policy, Replan, RuntimeSource};
use muster_engine::{Command, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const JOBS: u64 = 200;
const NODES: u64 = 6;
const DEVICES: u16 = 8;
const ENTRIES_MAX: u64 = 100_000;
/// Moment at which the cluster is there, ms.
const BEGIN: u64 = 1_000;

/// Small, fast and good enough to draw jobs from (xorshift64*).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

fn operator() -> Principal {
    Principal("operator".into())
}

fn registration(number: u64) -> Registration {
    let name = Name::new(format!("n{number}")).unwrap();
    let device = |slot: u16| Device {
        uuid: format!("{name}-{slot}"),
        model: Name::literal("H100"),
        product: "H100".to_owned(),
        memory_bytes: 80 << 30,
        pci_address: String::new(),
        numa: None,
        parent: None,
        nearest_nics: Vec::new(),
    };
    let link = |a, b| if a == b { Link::Same } else { Link::NvLink(18) };
    let inventory = Inventory {
        cpu_milli: 64_000,
        memory_bytes: 1 << 40,
        numa: Vec::new(),
        devices: (0..DEVICES).map(device).collect(),
        links: (0..DEVICES).map(|a| (0..DEVICES).map(|b| link(a, b)).collect()).collect(),
        nics: Vec::new(),
        labels: BTreeMap::new(),
        place: [(Name::literal("network"), vec![Name::new(format!("leaf-{}", number / 3)).unwrap()])].into(),
        hardware_id: name.to_string(),
        boot_id: "boot".to_owned(),
        agent_version: String::new(),
        address: name.to_string(),
        port_base: 30_000,
        port_count: 64,
        weak_fencing: false,
    };
    Registration {
        name: name.clone(),
        inventory: Arc::new(inventory),
        store_id: name.to_string(),
        instance: name.to_string(),
        store_lost: false,
        old_boot_silent: false,
        held: Vec::new(),
    }
}

/// A job that an empty cluster could run.
fn random_scheduling(dice: &mut Dice) -> Scheduling {
    let nodes = 1 + dice.below(NODES) as u32;
    let per_node = 1 + dice.below(u64::from(DEVICES)) as u32;
    let fraction = nodes == 1 && per_node == 1 && dice.one_in(2);
    let topology = match dice.below(4) {
        0 => vec![(TopologyMode::Preferred, 1)],
        1 => vec![(TopologyMode::Required, nodes.div_ceil(3).max(1))],
        _ => Vec::new(),
    };
    let level = |(mode, at_most)| TopologyRequest { level: Name::literal("leaf"), mode, at_most };
    let count = if dice.one_in(4) {
        let devices = nodes * per_node;
        Count::Total(DeviceTotal { devices, per_node_min: 1, per_node_max: u32::from(DEVICES), step: 1 })
    } else {
        Count::Nodes { nodes, per_node }
    };
    let share = if fraction && matches!(count, Count::Nodes { .. }) {
        Share(100 + dice.below(800) as u16)
    } else {
        Share::WHOLE
    };
    Scheduling {
        queue: Name::literal("default"),
        account: Name::literal("default"),
        class: Name::literal("normal"),
        groups: vec![GroupRequest {
            share,
            cpu_milli_per_node: Some(1_000 * (1 + dice.below(8))),
            memory_bytes_per_node: dice.one_in(2).then(|| (1 + dice.below(64)) << 30),
            topology: topology.into_iter().map(level).collect(),
            ranks: if dice.one_in(2) { RanksPerNode::PerDevice } else { RanksPerNode::Fixed(1) },
            ..GroupRequest::of(count)
        }],
        together: Vec::new(),
        array: dice.one_in(8).then(|| ArraySpec {
            count: 1 + dice.below(6) as u32,
            at_once: dice.one_in(2).then(|| 1 + dice.below(3) as u32),
            stop_after_failures: None,
        }),
        limits: Limits {
            time_ms: dice.one_in(3).then(|| 10_000 + dice.below(600_000)),
            expected_ms: dice.one_in(2).then(|| 1_000 + dice.below(600_000)),
            wait_ms: dice.one_in(16).then(|| 60_000 + dice.below(600_000)),
            exact_ms: None,
        },
        retry: RetryBudget { infra: dice.below(3) as u32, app: 0, exclude_failed_node: dice.one_in(4) },
        checkpoint: CheckpointSpec::default(),
        preemptible: !dice.one_in(4),
        fence_after_ms: None,
        begin_at_ms: dice.one_in(16).then(|| BEGIN + dice.below(3_600_000)),
        deadline_at_ms: None,
        after: Default::default(),
    }
}

fn random_submit(number: u64, dice: &mut Dice) -> Submit {
    let launch = Launch {
        name: Name::literal("random"),
        run: Run::Argv(vec!["true".to_owned()]),
        env: BTreeMap::new(),
        groups: Vec::new(),
        workdir: None,
        logs: LogLimits::default(),
        elements: Vec::new(),
    };
    Submit {
        key: format!("random-{number}"),
        key_made_at: None,
        principal: operator(),
        name: Name::literal("random"),
        scheduling: random_scheduling(dice),
        launch: Arc::new(launch),
        body_hash: Hash([number as u8; 32]),
        hold: false,
        retry_of: None,
    }
}

/// Decides how long things take, and looks at State after every entry.
struct Witness {
    seed: u64,
    submitted: BTreeSet<JobId>,
    refused: Vec<String>,
    ended: BTreeMap<&'static str, u64>,
    attempts: u64,
}

impl Witness {
    /// The same for one gang however often it is asked.
    fn of(&self, gang: GangId, salt: u64) -> Dice {
        let mut dice = Dice::new(self.seed ^ (gang.job.0 << 20) ^ (u64::from(gang.ordinal) << 8) ^ salt);
        dice.below(1);
        dice
    }
}

impl Hooks for Witness {
    fn run_ms(&mut self, _state: &State, gang: GangId) -> Option<u64> {
        Some(1 + self.of(gang, 1).below(600_000))
    }

    fn prepare_ms(&mut self, _state: &State, gang: GangId) -> u64 {
        let mut dice = self.of(gang, 2);
        if dice.one_in(2) { 0 } else { dice.below(10_000) }
    }

    fn release_ms(&mut self, _state: &State, gang: GangId) -> u64 {
        let mut dice = self.of(gang, 3);
        if dice.one_in(2) { 0 } else { dice.below(30_000) }
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        match (&entry.command, &outcome.response) {
            (Command::Submit(_), Response::Submitted { job, .. }) => {
                self.submitted.insert(*job);
            }
            (Command::Submit(submit), other) => self.refused.push(format!("{}: {other:?}", submit.key)),
            _ => {}
        }
        for event in &outcome.events {
            match event {
                Event::GangEnded { end, .. } => *self.ended.entry(end.word()).or_default() += 1,
                Event::AttemptEnded { .. } => self.attempts += 1,
                _ => {}
            }
        }
        state.check()
    }
}

fn policies() -> Vec<(&'static str, Policy)> {
    let strict = |order| Policy { order, admission: Admission::HeadOfLine { sticky: false }, ..Policy::default() };
    let refill = Policy {
        order: Order::Srtf,
        replan: Replan::Refill { min_run_ms: 60_000, max_victims_per_cycle: 4 },
        runtime: vec![RuntimeSource::Expected, RuntimeSource::Limit],
        ..Policy::default()
    };
    let mut plain = strict(Order::Fifo);
    plain.backfill.reserve_depth = 0;
    vec![
        ("production", Policy::default()),
        ("fifo, strict", plain),
        ("smallest, strict, with backfill", strict(Order::Smallest)),
        ("srtf with refill", refill),
    ]
}

/// Jobs over an hour, some cancelled, and every node drained and given back once.
fn play(seed: u64, policy: Policy) -> (Player, Witness) {
    let mut dice = Dice::new(seed);
    let mut witness =
        Witness { seed, submitted: BTreeSet::new(), refused: Vec::new(), ended: BTreeMap::new(), attempts: 0 };
    let mut player = Player::new(State::new("random"), World::default());
    let begin = Time(BEGIN);
    let tree = TreeSpec { name: Name::literal("network"), levels: vec![Name::literal("leaf")] };
    for change in [ConfigChange::Policy(policy), ConfigChange::Fabric(FabricSpec { trees: vec![tree] })] {
        player.at(begin, Command::Configure { change: Box::new(change), by: operator() });
    }
    for number in 0..NODES {
        player.at(begin, Command::RegisterNode(Box::new(registration(number))));
    }
    player.step(&mut witness).expect("the cluster is set up");
    let nodes: Vec<_> = player.state.nodes().keys().copied().collect();
    assert_eq!(nodes.len() as u64, NODES);
    for number in 0..JOBS {
        let at = begin.plus_ms(1 + dice.below(3_600_000));
        player.at(at, Command::Submit(Box::new(random_submit(number, &mut dice))));
    }
    for node in nodes {
        let from = begin.plus_ms(dice.below(3_600_000));
        let deadline_ms = dice.one_in(2).then(|| dice.below(120_000));
        let drain = NodeAction::Drain { reason: "a test".to_owned(), deadline_ms };
        player.at(from, Command::NodeAdmin { node, action: drain, by: operator() });
        let back = Command::NodeAdmin { node, action: NodeAction::Undrain, by: operator() };
        player.at(from.plus_ms(60_000 + dice.below(600_000)), back);
    }
    let mut entries = 0;
    while player.step(&mut witness).unwrap_or_else(|error| panic!("seed {seed}: {error}")) {
        cancel_sometimes(&mut player, &mut witness, &mut dice);
        entries = player.stats().entries;
        assert!(entries < ENTRIES_MAX, "seed {seed}: no end after {entries} entries");
    }
    println!("seed {seed}: {entries} entries, {} attempts, ended {:?}", witness.attempts, witness.ended);
    (player, witness)
}

fn cancel_sometimes(player: &mut Player, witness: &mut Witness, dice: &mut Dice) {
    if !dice.one_in(100) {
        return;
    }
    let live: Vec<JobId> = player.state.jobs().keys().copied().collect();
    if live.is_empty() {
        return;
    }
    let job = live[dice.below(live.len() as u64) as usize];
    let cancel = Cancel { job, ordinal: None, reason: "a test".to_owned(), by: operator() };
    let now = player.state.now();
    player.commit(now, Command::Cancel(cancel), witness).expect("no invariant breaks");
    player.decide(now, witness).expect("the policy settles");
}

#[test]
fn two_hundred_random_jobs_all_end_and_no_invariant_breaks_after_any_entry() {
    for (name, policy) in policies() {
        for seed in [1, 2, 3] {
            println!("policy {name}");
            let (player, witness) = play(seed, policy.clone());
            assert_eq!(witness.refused, [""; 0], "policy {name}, seed {seed}");
            assert_eq!(witness.submitted.len() as u64, JOBS, "policy {name}, seed {seed}");
            let live: Vec<String> = player.state.jobs().values().map(|job| format!("{job:?}")).collect();
            assert!(live.is_empty(), "policy {name}, seed {seed}: {} jobs never end, first {}", live.len(), live[0]);
            assert!(player.state.gangs().is_empty(), "policy {name}, seed {seed}: gangs are left");
            let idle = player.state.nodes().values().all(|node| node.gangs.is_empty());
            assert!(idle, "policy {name}, seed {seed}: a node still has gangs");
        }
    }
}
