//! The same server, session, agent and shim-machine code as in production, in one thread of one process: a seed decides
//! everything that happens, so that a failure can be repeated.
//!
//! `cargo test -p muster-tests -F simulated --test simulated_cluster` plays 50 seeds and the named scenarios.
//! `MUSTER_SIM_SEEDS=1000` plays so many, `MUSTER_SIM_SEED=4711` only that one, `MUSTER_SIM_TRACE=FILE` writes down what
//! happened.

mod checks;
mod clock;
mod faults;
mod network;
mod people;
mod play;
mod stage;
mod stories;
mod trace;
mod world;

use play::{Played, play};
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds in a plain test run.
const SEEDS: u64 = 50;
/// Threads that play seeds beside each other.
const PLAYERS: u64 = 2;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Plays one seed on a thread of its own: whatever a thread remembers would make the next run another one.
fn on_own_thread(seed: u64) -> Result<Played, String> {
    let played = std::thread::Builder::new().name(format!("seed {seed}")).spawn(move || play(seed));
    played.expect("a thread").join().map_err(|_| {
        format!(
            "seed {seed} failed; repeat it with\n  MUSTER_SIM_SEED={seed} cargo test -p muster-tests -F simulated --test \
             simulated_cluster seeds -- --nocapture"
        )
    })
}

#[test]
fn seeds_break_no_promise() {
    let (first, count) = match number("MUSTER_SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (number("MUSTER_SIM_FIRST").unwrap_or(1), number("MUSTER_SIM_SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(first);
    let play_some = || {
        let mut results = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return results;
            }
            results.push(on_own_thread(seed));
        }
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let players: Vec<_> = (0..PLAYERS.min(count)).map(|_| scope.spawn(play_some)).collect();
        players.into_iter().flat_map(|player| player.join().expect("a player")).collect()
    });
    let failures: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(failures.is_empty(), "{} of {count} seeds failed; the first:\n{}", failures.len(), failures[0]);
}

#[test]
fn a_seed_played_twice_happens_twice() {
    let seed = number("MUSTER_SIM_SEED").unwrap_or(7);
    let (one, other) = (on_own_thread(seed), on_own_thread(seed));
    let (one, other) = (one.expect("it plays"), other.expect("it plays"));
    assert_eq!((one.lines, one.hash), (other.lines, other.hash), "seed {seed} is not repeatable");
}
