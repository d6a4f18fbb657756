//! Owners of cells of many shapes do not stop each other in turn, whatever they ask for: what is decided settles.

use crate::hived_random::owner;
use crate::plan_support;
use crate::property;

use muster_common::job::Scheduling;
use muster_common::topology::TopologyMode::Required;
use muster_common::{GangId, Time};
use muster_engine::command::{ConfigChange, Entry};
use muster_engine::forecast::{Hooks, Player, World};
use muster_engine::organisation::Organisation;
use muster_engine::outcome::{Event, Outcome, Response};
use muster_engine::plan::owed::{CellsOf, cells_of};
use muster_engine::policy::{Policy, Reclaim, Score, Taking};
use muster_engine::state::gang::Cause;
use muster_engine::{Cycle, State};
use plan_support::*;
use property::cases;
use proptest::prelude::*;
use std::sync::Arc;

const ACCOUNTS: [&str; 4] = ["wide", "middle", "narrow", "rest"];

#[derive(Default)]
struct Watch {
    exact: Exact,
    stops: usize,
}

impl Hooks for Watch {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        self.exact.run_ms(state, gang)
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        let stopped = |event: &&Event| matches!(event, Event::GangStopping { cause: Cause::Preempted { .. }, .. });
        self.stops += outcome.events.iter().filter(stopped).count();
        let lost: Vec<CellsOf> = cells_of(state).into_iter().filter(|of| of.lost > 0).collect();
        // The fabric has 12 nodes, of which 10 are owned, and none ever breaks.
        if state.accounts().version() > 0 && !lost.is_empty() {
            return Err(format!("lost without a fault after {:?}: {lost:?}", entry.command));
        }
        self.exact.on_entry(state, entry, outcome)
    }

    fn on_cycle(&mut self, state: &State, now: Time, decided: &Cycle) {
        self.exact.compare_with_fresh(state, now, decided);
    }
}

/// Anybody asks for anything; most of it may be stopped.
fn wish((who, shape, a, run_s): (u8, u8, u32, u64)) -> Scheduling {
    let mut job = match shape % 8 {
        0 => within(exact(nodes(1 + a % 4, 4), run_s), "block", Required, 1),
        1 | 2 => within(exact(nodes(1 + a % 3, 4), run_s), "rack", Required, 1),
        3 => exact(nodes(1 + a % 4, 4), run_s),
        4 => exact(total(1 + a % 14), run_s),
        5 => exact(nodes(1, 1 + a % 3), run_s),
        6 => exact(nodes(2, 1 + a % 3), run_s),
        _ => exact(nodes(1, 4), run_s),
    };
    job.account = name(ACCOUNTS[usize::from(who % 4)]);
    job.preemptible = !(shape / 8).is_multiple_of(6);
    job
}

/// Two blocks of two racks of three nodes.
fn cluster(watch: &mut Watch, spread: bool, min_run_ms: u64) -> Result<Player, String> {
    let score = if spread { Score::Spread } else { Score::BestFit };
    let reclaim = Reclaim { min_run_ms, ..Reclaim::default() };
    let policy = Policy { score, taking: Taking { reclaim, ..Taking::default() }, ..Policy::default() };
    let mut player = Player::new(State::new("test"), World::default());
    let mut commands = vec![configure(ConfigChange::Policy(policy))];
    commands.push(configure(ConfigChange::Fabric(fabric(&["block", "rack"]))));
    for at in 0..12 {
        let machine = inventory("H100", 4, &[&format!("b{}", at / 6), &format!("r{}", at / 3)]);
        commands.push(register(&format!("n{at:02}"), machine));
    }
    let accounts = vec![
        owner("wide", 20, &[("block", 4, 1), ("node", 1, 1)]),
        owner("middle", 16, &[("rack", 3, 1)]),
        owner("narrow", 8, &[("node", 1, 2)]),
        owner("rest", 4, &[]),
    ];
    let document = Arc::new(Organisation { accounts, ..Organisation::default() });
    commands.push(configure(ConfigChange::Organisation(document)));
    for command in commands {
        let outcome = player.commit(Time(0), command, watch).map_err(|error| error.to_string())?;
        if let Response::Refused(why) = outcome.response {
            return Err(format!("refused: {why}"));
        }
    }
    Ok(player)
}

type Given = (u64, u8, u8, u32, u64);

fn play(given: &[Given], spread: bool, min_run_ms: u64) -> Result<usize, String> {
    let mut watch = Watch { exact: Exact { check: true, lenient: true, ..Exact::default() }, stops: 0 };
    let mut player = cluster(&mut watch, spread, min_run_ms)?;
    for (at, (at_s, who, shape, a, run_s)) in given.iter().enumerate() {
        player.at(Time(at_s * 1000), submit(&format!("job-{at}"), wish((*who, *shape, *a, *run_s))));
    }
    player.run(&mut watch, 100_000).map_err(|error| error.to_string())?;
    watch.exact.wrong.take().map_or(Ok(watch.stops), Err)
}

/// A job within its cells begins beside another that its account borrows for: who is owed the number has the other one
/// stopped, and not what would have it stopped in turn.
#[test]
fn what_is_within_its_cells_is_not_stopped_for_somebodys_number() {
    let given = [
        (1265, 80, 152, 24, 647),
        (1257, 39, 60, 58, 680),
        (121, 202, 37, 88, 679),
        (301, 48, 30, 75, 145),
        (631, 188, 144, 75, 303),
        (994, 106, 221, 70, 643),
        (444, 128, 66, 91, 366),
        (869, 112, 187, 77, 42),
        (72, 71, 216, 85, 886),
        (1329, 232, 164, 27, 809),
        (153, 215, 30, 72, 831),
        (584, 170, 177, 52, 476),
        (1103, 180, 131, 64, 203),
        (1413, 214, 208, 12, 308),
        (274, 32, 21, 28, 831),
        (13, 229, 251, 37, 776),
        (953, 239, 127, 85, 219),
        (365, 132, 43, 61, 731),
        (1339, 59, 144, 72, 597),
        (148, 147, 130, 76, 688),
        (1315, 213, 53, 16, 858),
        (1062, 1, 166, 96, 895),
        (1201, 25, 184, 22, 310),
    ];
    assert!(play(&given, true, 0).is_ok());
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn owners_of_cells_of_any_shape_do_not_stop_each_other_for_ever(
        given in prop::collection::vec((0u64..1500, any::<u8>(), any::<u8>(), 0u32..100, 1u64..900), 1..50),
        spread in any::<bool>(),
        min_run_ms in prop_oneof![Just(0u64), Just(60_000)],
    ) {
        let stops = play(&given, spread, min_run_ms).map_err(TestCaseError::fail)?;
        // Whenever a job comes or goes each may have to move at most.
        let moments = 2 * given.len();
        prop_assert!(stops <= moments * given.len() + 10, "{} stops", stops);
    }
}
