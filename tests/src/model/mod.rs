//! The small model of the safety protocol: every reachable state of a few small worlds, searched to the end.
//!
//! Each clause of the protocol is a switch in [`Rules`]. With all of them the invariants hold in every state; without
//! one of them a named invariant breaks, and the search prints a shortest way there. `docs/MODEL.md` tells what is
//! modelled, what is not, and how large the searches are.

mod barrier;
mod lease;
mod rules;
mod search;
mod token;
mod unknown;

#[cfg(test)]
mod tests;

pub use rules::{CLAUSES, Clause, Rules};
pub use search::{Counterexample, STATES_MAX, Stats};

use barrier::BarrierWorld;
use lease::LeaseWorld;
use search::explore;
use token::TokenWorld;
use unknown::UnknownWorld;

/// One bounded world with its alphabet of events, and what must hold in each of its states.
pub struct Scenario {
    /// The name clauses refer to.
    pub name: &'static str,
    /// What happens in it, in one line.
    pub about: &'static str,
    /// Invariants checked in every state.
    pub invariants: &'static [&'static str],
    /// States that must be reachable, so that the invariants do not hold only because nothing happens.
    pub goals: &'static [&'static str],
    search: fn(&Scenario, &Rules, &[&'static str]) -> Result<Stats, Counterexample>,
}

/// The environment variable that names a clause to leave out of `all_rules_hold`.
pub const WITHOUT_VARIABLE: &str = "MUSTER_MODEL_WITHOUT";

const ON_THE_LEASE: &[&str] = &["no-attempt-overlap", "fenced-holds-no-lease"];
const ON_THE_DEVICE: &[&str] =
    &["one-live-per-device", "freed-only-when-empty", "no-causeless-stop", "runs-what-it-says"];

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "lease",
        about: "two leaders, a drifting agent clock, renewals lost, late and twice, fencing through the log",
        invariants: ON_THE_LEASE,
        goals: &["goal: fenced after start", "goal: runs under the second leader", "goal: started through the log"],
        search: |scenario, rules, invariants| {
            let alphabet = lease::Alphabet { second_leader: true, agent_faults: false, clock_jump: false };
            explore(scenario.name, &LeaseWorld::starts(alphabet), rules, invariants)
        },
    },
    Scenario {
        name: "cut-off",
        about: "one leader whose clock jumps once; the agent restarts, or dies for good while its rank runs on",
        invariants: ON_THE_LEASE,
        goals: &["goal: fenced after start", "goal: fenced without its agent"],
        search: |scenario, rules, invariants| {
            let alphabet = lease::Alphabet { second_leader: false, agent_faults: true, clock_jump: true };
            explore(scenario.name, &LeaseWorld::starts(alphabet), rules, invariants)
        },
    },
    Scenario {
        name: "token",
        about: "placements on one device one after another; the agent crashes and may lose its store",
        invariants: ON_THE_DEVICE,
        goals: &["goal: second placement runs", "goal: freed after a crash"],
        search: |scenario, rules, invariants| {
            let alphabet = token::Alphabet {
                placements: 3,
                crashes: 2,
                registrations: 2,
                store_may_be_lost: true,
                restores: 0,
                rollbacks: 0,
                lagging_server: true,
            };
            explore(scenario.name, &TokenWorld::starts(alphabet), rules, invariants)
        },
    },
    Scenario {
        name: "restore",
        about: "the servers are restored from a backup, twice, while old messages are still on their way",
        invariants: ON_THE_DEVICE,
        goals: &["goal: restored servers run a job"],
        search: |scenario, rules, invariants| {
            let alphabet = token::Alphabet {
                placements: 3,
                crashes: 1,
                registrations: 3,
                store_may_be_lost: true,
                restores: 2,
                rollbacks: 0,
                lagging_server: false,
            };
            explore(scenario.name, &TokenWorld::starts(alphabet), rules, invariants)
        },
    },
    Scenario {
        name: "token-reuse",
        about: "the log silently loses its tail, so that one token names two allocations",
        invariants: &["one-live-per-device", "runs-what-it-says"],
        goals: &["goal: second placement runs"],
        search: |scenario, rules, invariants| {
            let alphabet = token::Alphabet {
                placements: 3,
                crashes: 1,
                registrations: 1,
                store_may_be_lost: false,
                restores: 0,
                rollbacks: 1,
                lagging_server: false,
            };
            explore(scenario.name, &TokenWorld::starts(alphabet), rules, invariants)
        },
    },
    Scenario {
        name: "barrier",
        about: "a gang of two: prepare, start, abort, cancel, exits and stops; the leader crashes with unlogged reports",
        invariants: &[
            "start-after-all-prepared",
            "no-attempt-overlap",
            "no-half-gang",
            "exit-not-lost",
            "no-causeless-stop",
            "one-outcome",
        ],
        goals: &["goal: succeeded", "goal: retried after failure", "goal: aborted", "goal: cancelled"],
        search: |scenario, rules, invariants| explore(scenario.name, &BarrierWorld::starts(), rules, invariants),
    },
    Scenario {
        name: "unknown",
        about: "a fenced node whose process is stuck: releases, reboots, lost stores and late registrations",
        invariants: &["freed-only-when-empty"],
        goals: &["goal: third allocation runs", "goal: unknown while stuck"],
        search: |scenario, rules, invariants| explore(scenario.name, &UnknownWorld::starts(), rules, invariants),
    },
];

/// Every scenario.
pub fn scenarios() -> &'static [Scenario] {
    SCENARIOS
}

/// The scenario of that name.
pub fn scenario(name: &str) -> Option<&'static Scenario> {
    scenarios().iter().find(|scenario| scenario.name == name)
}

/// Searches a scenario to its end under `rules`, with all its invariants.
///
/// # Errors
/// A shortest counterexample, or that the world is too large to be searched.
pub fn check(scenario: &Scenario, rules: &Rules) -> Result<Stats, Counterexample> {
    (scenario.search)(scenario, rules, scenario.invariants)
}

/// As [`check`], but looks for one invariant only, past states that break others.
///
/// # Errors
/// As for [`check`].
pub fn check_only(scenario: &Scenario, rules: &Rules, invariant: &'static str) -> Result<Stats, Counterexample> {
    (scenario.search)(scenario, rules, &[invariant])
}
