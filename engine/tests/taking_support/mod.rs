//! A cluster in which agents take their time, and which remembers who was stopped for whom.
#![allow(dead_code)]

use super::plan_support::*;
use muster_common::job::Scheduling;
use muster_common::{AttemptNo, GangId, NodeId, Time};
use muster_engine::command::{Command, ConfigChange, Entry, NodeReport, PlanStep, ReportBody, StopFor};
use muster_engine::forecast::{Hooks, Player, World};
use muster_engine::organisation::{Account, Caps, Organisation, Quota};
use muster_engine::outcome::{Event, Outcome, Response};
use muster_engine::plan::explain::{Explanation, explain};
use muster_engine::policy::{Policy, Preempt, Taking};
use muster_engine::state::gang::Cause;
use muster_engine::state::reservation::{Reservation, ReservationKind};
use muster_engine::{Cycle, Memo, State, cycle};
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Default)]
pub struct Watch {
    pub exact: Exact,
    /// From the order to stop until all is released.
    pub release_ms: u64,
    /// Nodes that do not come back when they are woken, and such that cannot be put to sleep.
    pub lost: BTreeSet<NodeId>,
    pub stuck: BTreeSet<NodeId>,
    /// Who was stopped for whom, when.
    pub stops: Vec<(GangId, Option<GangId>, StopFor, Time)>,
}

impl Hooks for Watch {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        self.exact.run_ms(state, gang)
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        for event in &outcome.events {
            if let Event::GangStopping { gang, cause: Cause::Preempted { by, why }, .. } = event {
                self.stops.push((*gang, *by, *why, entry.at));
            }
        }
        self.exact.on_entry(state, entry, outcome)
    }

    fn on_cycle(&mut self, state: &State, now: Time, decided: &Cycle) {
        self.exact.compare_with_fresh(state, now, decided);
    }

    fn release_ms(&mut self, _state: &State, _gang: GangId) -> u64 {
        self.release_ms
    }

    fn sleep_ms(&mut self, _state: &State, node: NodeId) -> Option<u64> {
        (!self.stuck.contains(&node)).then_some(0)
    }

    fn wake_ms(&mut self, state: &State, node: NodeId) -> Option<u64> {
        if self.lost.contains(&node) { None } else { self.exact.wake_ms(state, node) }
    }
}

pub struct Cluster {
    pub player: Player,
    pub watch: Watch,
    keys: u32,
}

pub fn preempting() -> Policy {
    with(Preempt::default())
}

pub fn with(preempt: Preempt) -> Policy {
    Policy { taking: Taking { preempt: Some(preempt), ..Taking::default() }, ..Policy::default() }
}

pub fn class(mut job: Scheduling, class: &str) -> Scheduling {
    job.class = name(class);
    job
}

pub fn forever(count: muster_common::job::Count) -> Scheduling {
    job(count)
}

impl Cluster {
    pub fn new(policy: Policy) -> Self {
        let exact = Exact { check: true, ..Exact::default() };
        let player = Player::new(State::new("test"), World::default());
        let mut cluster = Self { player, watch: Watch { exact, ..Watch::default() }, keys: 0 };
        cluster.commit(configure(ConfigChange::Policy(policy)));
        cluster
    }

    pub fn commit(&mut self, command: Command) -> Outcome {
        let now = self.now();
        self.player.commit(now, command, &mut self.watch).unwrap()
    }

    /// `racks` domains of level `rack` with so many nodes of so many devices.
    pub fn racks(&mut self, racks: usize, nodes: usize, devices: usize) -> Vec<Vec<NodeId>> {
        self.commit(configure(ConfigChange::Fabric(fabric(&["rack"]))));
        let node = |cluster: &mut Self, rack: usize, at: usize| {
            cluster.node(&format!("r{rack}n{at}"), inventory("H100", devices, &[&format!("r{rack}")]))
        };
        (0..racks).map(|rack| (0..nodes).map(|at| node(self, rack, at)).collect()).collect()
    }

    pub fn node(&mut self, name: &str, inventory: muster_common::node::Inventory) -> NodeId {
        match self.commit(register(name, inventory)).response {
            Response::Registered { node, .. } => node,
            other => panic!("{other:?}"),
        }
    }

    /// Submits and decides at once, so that it starts if it can.
    pub fn submit(&mut self, scheduling: Scheduling) -> GangId {
        let gang = self.only_submit(scheduling);
        self.decide();
        gang
    }

    pub fn only_submit(&mut self, scheduling: Scheduling) -> GangId {
        self.keys += 1;
        match self.commit(submit(&format!("key-{}", self.keys), scheduling)).response {
            Response::Submitted { job, .. } => GangId::new(job, 0),
            other => panic!("{other:?}"),
        }
    }

    pub fn now(&self) -> Time {
        self.player.state.now()
    }

    pub fn decide(&mut self) {
        let now = self.now();
        self.player.decide(now, &mut self.watch).unwrap();
    }

    /// Plays until that many seconds from now, and decides then.
    pub fn pass(&mut self, seconds: u64) {
        let until = self.now().plus_ms(seconds * 1000);
        while self.player.next_at().is_some_and(|at| at <= until) {
            self.player.step(&mut self.watch).unwrap();
        }
        self.player.commit(until, Command::Nothing, &mut self.watch).unwrap();
        self.decide();
    }

    pub fn word(&self, gang: GangId) -> &'static str {
        self.player.state.gang(gang).map_or("WAITING", |record| record.state.word())
    }

    pub fn runs(&self, gang: GangId) -> bool {
        self.word(gang) == "RUNNING"
    }

    pub fn nodes_of(&self, gang: GangId) -> Vec<NodeId> {
        let attempt = self.player.state.gang(gang).and_then(|gang| gang.current());
        attempt.map_or(Vec::new(), |attempt| attempt.parts.iter().map(|part| part.node).collect())
    }

    pub fn kept(&self, gang: GangId, kind: ReservationKind) -> Option<&Reservation> {
        self.player.state.reservations().get(&gang).filter(|known| known.kind == kind)
    }

    pub fn stopped(&self) -> Vec<GangId> {
        self.watch.stops.iter().map(|stop| stop.0).collect()
    }

    pub fn why(&mut self, gang: GangId) -> Explanation {
        let now = self.now();
        explain(&self.player.state, &mut self.player.memo, gang, now).unwrap()
    }

    pub fn report(&mut self, gang: GangId, body: ReportBody) -> Outcome {
        let node = self.nodes_of(gang)[0];
        self.report_from(node, gang, body)
    }

    pub fn report_from(&mut self, node: NodeId, gang: GangId, body: ReportBody) -> Outcome {
        let record = self.player.state.node(node).unwrap();
        let (epoch, number) = (record.epoch, record.reports_applied + 1);
        let attempt = self.player.state.gang(gang).and_then(|gang| gang.current());
        let (attempt, token) = attempt.map_or((AttemptNo(0), Default::default()), |at| (at.number, at.token));
        let report = NodeReport { node, epoch, number, gang, attempt, token, body };
        self.commit(Command::Reports { reports: vec![report] })
    }

    /// What one cycle would decide now.
    pub fn steps(&self) -> Vec<PlanStep> {
        let decided = cycle(&self.player.state, &mut Memo::default(), self.now());
        let plans = decided.commands.into_iter().filter_map(|command| match command {
            Command::CommitPlan(plan) => Some(plan.steps),
            _ => None,
        });
        plans.flatten().collect()
    }
}

/// An account by name, parent, and what it owns of H100: nominal, borrow limit, lend limit.
pub fn account(
    account: &str,
    parent: Option<&str>,
    (nominal, borrow_limit, lend_limit): (u32, Option<u32>, Option<u32>),
) -> Account {
    Account {
        name: name(account),
        parent: parent.map(name),
        priority: Default::default(),
        weight: 1,
        quota: [(name("H100"), Quota { nominal, borrow_limit, lend_limit })].into(),
        limits: Caps::default(),
        user_limits: Caps::default(),
        users: Default::default(),
        cells: Vec::new(),
        budget: None,
        reclaim_within_ms: None,
    }
}

pub fn charged(mut job: Scheduling, account: &str) -> Scheduling {
    job.account = name(account);
    job
}

impl Cluster {
    pub fn organise(&mut self, accounts: Vec<Account>) {
        let organisation = Organisation { accounts, ..Organisation::default() };
        let outcome = self.commit(configure(ConfigChange::Organisation(Arc::new(organisation))));
        assert_eq!(outcome.response, Response::Done);
    }
}
