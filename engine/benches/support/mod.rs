//! The cluster and the queues of the engine's benches: 10,000 nodes of 8 devices, four levels,
//! three models.
#![allow(dead_code)]

#[path = "../../tests/plan_support/mod.rs"]
pub mod plan_support;

use muster_common::job::Scheduling;
use muster_common::time::HOUR_MS;
use muster_common::topology::TopologyMode::Required;
use muster_common::{GangId, Time};
use muster_engine::command::{Command, ConfigChange, Exit, NodeReport, ReportBody};
use muster_engine::forecast::{Hooks, Player, World};
use muster_engine::policy::{Backfill, Policy};
use muster_engine::state::gang::GangState;
use muster_engine::{State, cycle};
use plan_support::{configure, fabric, inventory, job, name, nodes, register, submit};
use std::time::{Duration, Instant};

pub const LEVELS: [&str; 4] = ["zone", "pod", "block", "leaf"];
const NODES_PER_LEAF: usize = 16;

/// Devices of a gang and how many of a thousand gangs ask for so many: sizes within a node as in the
/// public traces of research clusters, the tail as in those of clusters for large models, 5.0 in
/// the mean. `docs/BENCHMARKS.md` names the sources.
const SIZES: [(u32, u32); 11] =
    [(1, 700), (2, 60), (4, 65), (8, 125), (16, 25), (32, 12), (64, 7), (128, 3), (256, 1), (512, 1), (1024, 1)];
/// Of ten gangs, six want the first model, two the second, one the third and one any.
const MODELS: [&str; 3] = ["H100", "A100", "H200"];
const LIMITS_H: [u64; 5] = [1, 4, 12, 24, 72];
const TEAMS: u64 = 40;

/// A reproducible sequence (SplitMix64, Steele et al., OOPSLA'14).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

pub struct Silent;

impl Hooks for Silent {
    fn run_ms(&mut self, _state: &State, _gang: GangId) -> Option<u64> {
        None
    }
}

pub fn one_job(dice: &mut Dice) -> Scheduling {
    one_job_of(dice, TEAMS)
}

fn one_job_of(dice: &mut Dice, teams: u64) -> Scheduling {
    let mut at = dice.below(1000) as u32;
    let mut devices = 1;
    for (size, weight) in SIZES {
        devices = size;
        if at < weight {
            break;
        }
        at -= weight;
    }
    let count = if devices < 8 { nodes(1, devices) } else { nodes(devices / 8, 8) };
    let mut wish = job(count);
    wish.account = name(&format!("team-{}", dice.below(teams)));
    let model = dice.below(10);
    if model < 9 {
        wish.groups[0].models = vec![name(MODELS[[0, 0, 0, 0, 0, 0, 1, 1, 2][model as usize]])];
    }
    if (16..=128).contains(&devices) && dice.below(2) == 0 {
        wish = plan_support::within(wish, "block", Required, 1);
    }
    wish.limits.time_ms = Some(LIMITS_H[dice.below(5) as usize] * HOUR_MS);
    wish
}

/// An empty cluster of `count` nodes.
pub fn cluster(count: usize, policy: Policy) -> Player {
    let mut player = Player::new(State::new("bench"), World::default());
    let mut commit = |command| player.commit(Time(0), command, &mut Silent).unwrap();
    commit(configure(ConfigChange::Policy(policy)));
    commit(configure(ConfigChange::Fabric(fabric(&LEVELS))));
    for at in 0..count {
        let leaf = at / NODES_PER_LEAF;
        let (block, pod, zone) = (leaf / 5, leaf / 25, leaf / 125);
        let model = MODELS[[0, 0, 0, 1, 2][zone % 5]];
        let path = [format!("z{zone}"), format!("p{pod}"), format!("b{block}"), format!("l{leaf}")];
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        commit(register(&format!("n{at:05}"), inventory(model, 8, &path)));
    }
    player
}

pub fn easy(reserve_depth: u32) -> Policy {
    Policy { backfill: Backfill { reserve_depth, ..Backfill::default() }, ..Policy::default() }
}

/// A full cluster and a queue in front of it.
pub struct Busy {
    pub player: Player,
    dice: Dice,
    pub now: Time,
    submitted: u64,
    teams: u64,
    pub cycles: u64,
    pub spent: u64,
}

impl Busy {
    pub fn new(count: usize, waiting: usize, policy: Policy) -> Self {
        Self::of(count, waiting, policy, TEAMS)
    }

    /// Nothing runs there yet, and nothing waits.
    pub fn on(player: Player) -> Self {
        Self { player, dice: Dice(7), now: Time(0), submitted: 0, teams: TEAMS, cycles: 0, spent: 0 }
    }

    pub fn decide(&mut self) {
        self.player.decide(self.now, &mut Silent).unwrap();
    }

    pub fn of(count: usize, waiting: usize, policy: Policy, teams: u64) -> Self {
        let mut busy = Self { teams, ..Self::on(cluster(count, policy)) };
        let devices = count as u64 * 8;
        let mut asked = 0;
        while asked < devices * 6 / 5 {
            let mut wish = one_job_of(&mut busy.dice, teams);
            // What runs is known to end at many different moments.
            let limit_ms = wish.limits.time_ms.unwrap_or(0);
            wish.limits.expected_ms = Some(600_000 + busy.dice.below(limit_ms));
            asked += wish.devices();
            busy.submit(wish);
        }
        busy.decide();
        busy.now = Time(300_000);
        while busy.player.state.jobs().len() < busy.player.state.gangs().len() + waiting {
            let wish = one_job_of(&mut busy.dice, teams);
            busy.submit(wish);
        }
        busy.decide();
        busy
    }

    pub fn submit(&mut self, wish: Scheduling) {
        self.submitted += 1;
        let command = submit(&format!("job-{}", self.submitted), wish);
        self.player.commit(self.now, command, &mut Silent).unwrap();
    }

    /// One running gang, by chance, ends with all its ranks.
    pub fn end_one(&mut self) {
        self.now = self.now.plus_ms(100);
        let state = &self.player.state;
        let ids: Vec<GangId> = state.gangs().keys().copied().collect();
        let runs = |id: &GangId| matches!(state.gang(*id).map(|gang| &gang.state), Some(GangState::Running(_)));
        let id = loop {
            let id = ids[self.dice.below(ids.len() as u64) as usize];
            if runs(&id) {
                break id;
            }
        };
        let record = state.gang(id).unwrap();
        let attempt = record.current().unwrap();
        let (mut exits, mut releases) = (Vec::new(), Vec::new());
        for part in &attempt.parts {
            let mut number = state.node(part.node).unwrap().reports_applied;
            let mut report = |body| {
                number += 1;
                let (gang, attempt_no, token) = (id, attempt.number, attempt.token);
                let (node, epoch) = (part.node, part.epoch);
                NodeReport { node, epoch, number, gang, attempt: attempt_no, token, body }
            };
            let ranks = part.rank_base..part.rank_base + part.ranks;
            exits
                .extend(ranks.map(|rank| report(ReportBody::Exited { rank, exit: Exit::Code(0), why: String::new() })));
            releases.push(report(ReportBody::Released { lease_expired: false }));
        }
        // A node that lets go before all ranks have ended would be one that the gang has lost.
        let reports: Vec<NodeReport> = exits.into_iter().chain(releases).collect();
        for batch in reports.chunks(256) {
            self.player.commit(self.now, Command::Reports { reports: batch.to_vec() }, &mut Silent).unwrap();
        }
    }

    /// Ends one gang and decides what starts; only the decision is timed. What starts is placed, and
    /// as much is submitted anew.
    pub fn decide_one(&mut self) -> Duration {
        self.end_one();
        let gangs = self.player.state.gangs().len();
        let (state, memo) = (&self.player.state, &mut self.player.memo);
        let began = Instant::now();
        let decided = cycle(state, memo, self.now);
        let took = began.elapsed();
        self.cycles += 1;
        self.spent += decided.spent;
        for command in decided.commands {
            self.player.commit(self.now, command, &mut Silent).unwrap();
        }
        for _ in gangs..self.player.state.gangs().len() {
            let wish = one_job_of(&mut self.dice, self.teams);
            self.submit(wish);
        }
        took
    }
}

/// Prints the least, the tenth percentile, the median, the 99th percentile and the maximum of what was measured:
/// where others use the machine too, the low ones say what the work itself takes.
pub fn tell(what: &str, samples: &mut [Duration]) {
    samples.sort_unstable();
    if let Some(last) = samples.last() {
        let at = |part: usize| samples[(samples.len() - 1) * part / 100];
        let count = samples.len();
        let (least, low, median) = (at(0), at(10), at(50));
        println!("{what}: min {least:?}, p10 {low:?}, median {median:?}, p99 {:?}, max {last:?} of {count}", at(99));
    }
}
