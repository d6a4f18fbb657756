//! Nobody starves under `fair`: beside a user whose small jobs never stop coming, every gang of the others starts
//! within a time that follows from their own work.

use crate::plan_support;
use crate::property;

use muster_common::job::Scheduling;
use muster_common::topology::TopologyMode::Required;
use muster_common::{GangId, Time};
use muster_engine::command::{Command, ConfigChange, Entry};
use muster_engine::forecast::{Hooks, Player, World};
use muster_engine::outcome::{Outcome, Response};
use muster_engine::policy::{Backfill, Order, Policy};
use muster_engine::{Cycle, State};
use plan_support::*;
use property::cases;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NODES: usize = 5;
const DEVICES: usize = 4;
const RUN_S_MAX: u64 = 60;
/// Jobs of the flood that wait at any time.
const FLOOD: usize = 8;

struct Watch {
    exact: Exact,
    jobs: BTreeMap<String, GangId>,
}

impl Hooks for Watch {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        self.exact.run_ms(state, gang)
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        if let (Command::Submit(submit), Response::Submitted { job, .. }) = (&entry.command, &outcome.response) {
            self.jobs.insert(submit.key.clone(), GangId::new(*job, 0));
        }
        self.exact.on_entry(state, entry, outcome)
    }

    fn on_cycle(&mut self, _state: &State, _now: Time, _decided: &Cycle) {}
}

/// Moment, account, shape, size, run time in seconds.
type Given = (u64, u8, u8, u32, u64);

fn wish((_, who, shape, size, run_s): Given) -> Scheduling {
    let mut wish = match shape {
        0 => exact(nodes(1 + size % NODES as u32, DEVICES as u32), run_s),
        1 => within(exact(nodes(1 + size % 3, DEVICES as u32), run_s), "leaf", Required, 1),
        2 => exact(total((NODES * DEVICES) as u32), run_s),
        _ => exact(total(1 + size % (NODES * DEVICES) as u32), run_s),
    };
    wish.account = name(["x", "y", "z"][usize::from(who % 3)]);
    wish
}

/// By when each has to have started, from its submit on: all that its like have asked for, several times over, and
/// what can run already.
fn bound_ms(given: &[Given]) -> u64 {
    let work: u64 = given.iter().map(|given| wish(*given).devices() * given.4).sum();
    1000 * (10 * RUN_S_MAX + 4 * work / (NODES * DEVICES) as u64)
}

fn play(policy: Policy, given: &[Given], flood: &[(u32, u64)]) -> Result<(), String> {
    let mut watch = Watch { exact: Exact { check: true, ..Exact::default() }, jobs: BTreeMap::new() };
    let mut player = Player::new(State::new("test"), World::default());
    let mut commit = |command| player.commit(Time(0), command, &mut watch).map_err(|error| error.to_string());
    commit(configure(ConfigChange::Policy(policy)))?;
    commit(configure(ConfigChange::Fabric(fabric(&["leaf"]))))?;
    for at in 0..NODES {
        let leaf = if at < 3 { "a" } else { "b" };
        commit(register(&format!("n{at}"), inventory("H100", DEVICES, &[leaf])))?;
    }
    let key = |at: usize| format!("rare-{at}");
    for (at, given) in given.iter().enumerate() {
        player.at(Time(given.0 * 1000), submit(&key(at), wish(*given)));
    }
    let (bound_ms, mut sent) = (bound_ms(given), 0);
    let last = given.iter().map(|given| given.0 * 1000 + bound_ms).max().unwrap_or(0);
    loop {
        let now = player.state.now();
        let is_flood = |state: &State, job| state.scheduling(job).account == name("flood");
        let state = &player.state;
        let waits = state.jobs().values().filter(|job| !job.unstarted.is_empty() && is_flood(state, job)).count();
        for _ in waits..FLOOD {
            let (devices, run_s) = flood[sent % flood.len()];
            let mut small = exact(total(devices), run_s);
            small.account = name("flood");
            player.at(now, submit(&format!("flood-{sent}"), small));
            sent += 1;
        }
        player.step(&mut watch).map_err(|error| error.to_string())?;
        let now = player.state.now();
        let started = |at: usize| watch.jobs.get(&key(at)).is_some_and(|gang| watch.exact.starts.contains_key(gang));
        let waiting: Vec<usize> = (0..given.len()).filter(|at| !started(*at)).collect();
        let late = waiting.iter().find(|at| now.0 > given[**at].0 * 1000 + bound_ms);
        if let Some(at) = late {
            return Err(format!("{:?} waits after {} s", given[*at], bound_ms / 1000));
        }
        if waiting.is_empty() {
            return Ok(());
        }
        assert!(now.0 <= last, "somebody is late by then");
    }
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn every_runnable_gang_starts_in_bounded_time_under_fair(
        given in proptest::collection::vec((0u64..200, 0u8..3, 0u8..5, 0u32..100, 1u64..RUN_S_MAX), 1..8),
        flood in proptest::collection::vec((1u32..5, 1u64..RUN_S_MAX), 1..20),
        reserve_depth in prop_oneof![Just(1u32), 2u32..6],
        rematch in any::<bool>(),
    ) {
        let backfill = Backfill { reserve_depth, rematch, ..Backfill::default() };
        let played = play(Policy { order: Order::Fair, backfill, ..Policy::default() }, &given, &flood);
        prop_assert!(played.is_ok(), "{}", played.unwrap_err());
    }
}
