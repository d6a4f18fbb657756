//! The same server, session, agent and shim-machine code as in production, in one thread of one process: a seed decides
//! everything that happens, so that a failure can be repeated.
//!
//! `cargo test -p muster-tests -F simulated --test simulated_cluster` plays 50 seeds and the named scenarios.
//! `MUSTER_SIM_SEEDS=1000` plays so many, `MUSTER_SIM_SEED=4711` only that one, `MUSTER_SIM_TRACE=FILE` writes down what
//! happened.

mod checks;
mod checks_checked;
mod clock;
mod entropy;
mod faults;
mod network;
mod people;
mod planted;
mod play;
mod stage;
mod stories;
mod trace;
mod world;

use planted::Planted;
use play::play;
use std::fmt::Display;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds in a plain test run.
const SEEDS: u64 = 50;
/// Threads that play a seed are called so.
const OF_SEED: &str = "seed ";
/// Threads that play seeds beside each other.
const PLAYERS: u64 = 2;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Does something on a thread of its own: whatever a thread remembers would make the next run another one. The error is
/// what broke.
fn alone<T: Send + 'static>(name: String, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    std::thread::Builder::new().name(name).spawn(work).expect("a thread").join().map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

fn play_alone(seed: u64) -> Result<(), String> {
    tell_seeds_of_panics();
    alone(format!("{OF_SEED}{seed}"), move || play(seed, Planted::Nothing))
}

/// A server that panics may take the whole process down before anybody can sum up: the seed is told at once.
fn tell_seeds_of_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            let thread = std::thread::current();
            if let Some(seed) = thread.name().and_then(|name| name.strip_prefix(OF_SEED)) {
                eprintln!("repeat this with\n  {}", repeat(seed));
            }
        }));
    });
}

/// The command that repeats a seed.
fn repeat(seed: impl Display) -> String {
    format!(
        "MUSTER_SIM_SEED={seed} cargo test -p muster-tests -F simulated --test simulated_cluster seeds -- --nocapture"
    )
}

/// Each seed is played by a process of its own, as when it is repeated: something that a process keeps makes its second play
/// of a seed differ from its first by ticks of 10 ms.
#[test]
fn seeds_break_no_promise() {
    if let Some(seed) = number("MUSTER_SIM_SEED") {
        play_alone(seed).unwrap_or_else(|why| panic!("seed {seed} failed; repeat it with\n  {}\n{why}", repeat(seed)));
        return;
    }
    let (first, count) = (number("MUSTER_SIM_FIRST").unwrap_or(1), number("MUSTER_SIM_SEEDS").unwrap_or(SEEDS));
    let next = AtomicU64::new(first);
    let play_some = || {
        let mut failures = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return failures;
            }
            match played_by_itself(seed) {
                Ok(told) => println!("seed {seed}: {told}"),
                Err(said) => failures.push(format!("seed {seed} failed; repeat it with\n  {}\n{said}\n", repeat(seed))),
            }
        }
    };
    let failures: Vec<_> = std::thread::scope(|scope| {
        let players: Vec<_> = (0..PLAYERS.min(count)).map(|_| scope.spawn(play_some)).collect();
        players.into_iter().flat_map(|player| player.join().expect("a player")).collect()
    });
    assert!(failures.is_empty(), "{} of {count} seeds failed\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn a_seed_played_twice_happens_twice() {
    let seed = number("MUSTER_SIM_SEED").unwrap_or(7);
    let played = || played_by_itself(seed).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(played(), played(), "seed {seed} is not repeatable");
}

/// What a process of its own tells of a seed; the error is all that it said.
fn played_by_itself(seed: u64) -> Result<String, String> {
    let own = std::env::current_exe().expect("this program has a path");
    let mut command = std::process::Command::new(own);
    command.args(["seeds_break_no_promise", "--exact", "--nocapture"]).env("MUSTER_SIM_SEED", seed.to_string());
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let told = said.lines().find_map(|line| line.split_once(&format!("seed {seed}: "))?.1.split_once(", took "));
    match told {
        Some((told, _)) if output.status.success() => Ok(told.to_owned()),
        _ => Err(said),
    }
}
