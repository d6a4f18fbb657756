//! A cluster of ideal agents that writes its history and its log down, for tests of what reads them.

use crate::world::World;
use muster_common::job::{CheckpointSpec, Count, GroupRequest, Hash, Limits, RetryBudget, Scheduling};
use muster_common::{GangId, Name, NodeId, Time};
use muster_engine::command::{Principal, Submit};
use muster_engine::forecast::{AttemptEnd, Hooks, Player};
use muster_engine::outcome::{Event, Outcome, Response};
use muster_engine::{Command, Entry, State};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const BEGIN: Time = Time(1_700_000_000_000);
pub const SECOND: u64 = 1_000;

pub struct Lived {
    pub player: Player,
    pub history: History,
    pub nodes: Vec<NodeId>,
}

#[derive(Default)]
pub struct History {
    pub events: Vec<(Time, Event)>,
    pub entries: Vec<Entry>,
    /// By job name.
    pub run_ms: BTreeMap<String, u64>,
    pub starts: Vec<(String, u64)>,
}

impl History {
    fn name(state: &State, gang: GangId) -> String {
        state.job(gang.job).map(|job| job.name.to_string()).unwrap_or_default()
    }
}

impl Hooks for History {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        self.run_ms.get(&Self::name(state, gang)).copied()
    }

    fn attempt_end(&mut self, state: &State, gang: GangId) -> Option<AttemptEnd> {
        let fails = Self::name(state, gang).starts_with("fails");
        let started = state.gang(gang)?.current()?.started_at?;
        let run_ms = self.run_ms(state, gang)?;
        let exit = muster_engine::command::Exit::Code(i32::from(fails));
        Some(AttemptEnd { at: started.plus_ms(run_ms), exit })
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        self.entries.push(entry.clone());
        for event in &outcome.events {
            if let Event::GangStarted { gang, .. } = event {
                self.starts.push((Self::name(state, *gang), state.now().0));
            }
            self.events.push((state.now(), event.clone()));
        }
        Ok(())
    }
}

pub fn scheduling(nodes: u32, per_node: u32) -> Scheduling {
    Scheduling {
        queue: Name::literal("default"),
        account: Name::literal("default"),
        class: Name::literal("normal"),
        groups: vec![GroupRequest::of(Count::Nodes { nodes, per_node })],
        together: Vec::new(),
        array: None,
        limits: Limits { expected_ms: Some(300 * SECOND), ..Limits::default() },
        retry: RetryBudget::default(),
        checkpoint: CheckpointSpec::default(),
        preemptible: false,
        fence_after_ms: None,
        begin_at_ms: None,
        deadline_at_ms: None,
        after: Default::default(),
    }
}

impl Lived {
    pub fn new(nodes: usize) -> Self {
        let world = World::parse(&format!("[[nodes]]\nname = \"n\"\ncount = {nodes}\ndevices = 8\n")).unwrap();
        let mut lived = Self {
            player: Player::new(State::new("lived"), Default::default()),
            history: History::default(),
            nodes: Vec::new(),
        };
        for registration in world.registrations() {
            let response = lived.commit(0, Command::RegisterNode(Box::new(registration)));
            let Response::Registered { node, .. } = response else { panic!("{response:?}") };
            lived.nodes.push(node);
        }
        lived
    }

    pub fn commit(&mut self, at_s: u64, command: Command) -> Response {
        self.player.commit(BEGIN.plus_ms(at_s * SECOND), command, &mut self.history).unwrap().response
    }

    pub fn submit(&mut self, at_s: u64, name: &str, run_s: u64, scheduling: Scheduling) {
        self.history.run_ms.insert(name.to_owned(), run_s * SECOND);
        let launch = muster_common::job::Launch {
            name: Name::literal("recorded"),
            run: muster_common::job::Run::Argv(Vec::new()),
            env: BTreeMap::new(),
            groups: Vec::new(),
            workdir: None,
            logs: Default::default(),
            elements: Vec::new(),
        };
        let submit = Submit {
            key: name.to_owned(),
            key_made_at: None,
            principal: Principal("ann".into()),
            name: Name::new(name).unwrap(),
            scheduling,
            launch: Arc::new(launch),
            body_hash: Hash::default(),
            hold: false,
            retry_of: None,
        };
        self.player.at(BEGIN.plus_ms(at_s * SECOND), Command::Submit(Box::new(submit)));
    }

    pub fn at(&mut self, at_s: u64, command: Command) {
        self.player.at(BEGIN.plus_ms(at_s * SECOND), command);
    }

    pub fn until(&mut self, at_s: u64) {
        while self.player.next_at().is_some_and(|at| at <= BEGIN.plus_ms(at_s * SECOND)) {
            self.player.step(&mut self.history).unwrap();
        }
    }
}

/// Three nodes with more work than they can do.
pub fn busy() -> Lived {
    let mut lived = Lived::new(3);
    for number in 0..40_u64 {
        let nodes = 1 + (number % 3) as u32;
        let per_node = [8, 4, 2, 1][(number % 4) as usize];
        lived.submit(number * 20, &format!("job-{number}"), 60 + number * 37 % 400, scheduling(nodes, per_node));
    }
    lived
}
