//! Breadth-first search over every reachable state of a small world.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::rules::Rules;

/// A world small enough to be searched to the end.
pub trait World: Clone + Eq + Hash {
    /// One thing that can happen; its debug form is a line of a counterexample.
    type Event: Copy + fmt::Debug;

    /// Appends every event possible now together with the state it leads to.
    fn steps(&self, rules: &Rules, out: &mut Vec<(Self::Event, Self)>);

    /// Whether this state breaks the named invariant.
    fn breaks(&self, rules: &Rules, invariant: &str) -> bool;
}

/// The size of a finished search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Distinct states reached.
    pub states: usize,
    /// Events taken, counted once per state and event.
    pub transitions: usize,
    /// Length in events of the longest of the shortest paths.
    pub depth: usize,
}

/// Why a search found no proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counterexample {
    /// A reachable state breaks an invariant; `trace` is a shortest way there.
    Broken { scenario: &'static str, invariant: &'static str, start: usize, trace: Vec<String> },
    /// The world has more states than the search may hold.
    TooLarge { scenario: &'static str, states_max: usize },
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Counterexample::Broken { scenario, invariant, start, trace } => {
                writeln!(
                    f,
                    "scenario {scenario}: invariant {invariant} breaks from start {start} in {} events:",
                    trace.len()
                )?;
                for (number, event) in trace.iter().enumerate() {
                    writeln!(f, "  {:>2}. {event}", number + 1)?;
                }
                Ok(())
            }
            Counterexample::TooLarge { scenario, states_max } => {
                write!(f, "scenario {scenario}: more than {states_max} states; narrow its alphabet or its bounds")
            }
        }
    }
}

impl std::error::Error for Counterexample {}

/// States one search may hold.
pub const STATES_MAX: usize = 2_000_000;

/// FNV-1a: the keys are small and come from no adversary.
#[derive(Clone)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn write_isize(&mut self, value: isize) {
        // Derived hashes write an enum's discriminant this wide; all of ours fit a byte.
        self.write(&[value as u8]);
    }

    fn write_usize(&mut self, value: usize) {
        self.write(&[value as u8]);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// Searches all states reachable from `starts`; every state must keep every one of `invariants`.
///
/// # Errors
/// The first counterexample in breadth-first order, so a shortest one, or that the world is too large.
pub fn explore<W: World>(
    scenario: &'static str,
    starts: &[W],
    rules: &Rules,
    invariants: &[&'static str],
) -> Result<Stats, Counterexample> {
    let mut seen: HashMap<W, (), BuildHasherDefault<Fnv>> = HashMap::default();
    let mut came_from: Vec<Option<(u32, W::Event)>> = Vec::new();
    let mut queue: VecDeque<(W, u32, usize)> = VecDeque::new();
    let broken = |world: &W| invariants.iter().copied().find(|name| world.breaks(rules, name));
    for world in starts {
        seen.insert(world.clone(), ());
        queue.push_back((world.clone(), came_from.len() as u32, 0));
        came_from.push(None);
    }
    let mut stats = Stats { states: starts.len(), transitions: 0, depth: 0 };
    let mut next = Vec::new();
    while let Some((world, id, depth)) = queue.pop_front() {
        if let Some(invariant) = broken(&world) {
            let (start, trace) = trace_to(&came_from, id);
            return Err(Counterexample::Broken { scenario, invariant, start, trace });
        }
        stats.depth = depth;
        next.clear();
        world.steps(rules, &mut next);
        stats.transitions += next.len();
        for (event, reached) in next.drain(..) {
            if seen.contains_key(&reached) {
                continue;
            }
            if seen.len() >= STATES_MAX {
                return Err(Counterexample::TooLarge { scenario, states_max: STATES_MAX });
            }
            queue.push_back((reached.clone(), came_from.len() as u32, depth + 1));
            seen.insert(reached, ());
            came_from.push(Some((id, event)));
        }
    }
    stats.states = came_from.len();
    Ok(stats)
}

/// The start a state was reached from, and the events on the way in order.
fn trace_to<E: Copy + fmt::Debug>(came_from: &[Option<(u32, E)>], id: u32) -> (usize, Vec<String>) {
    let mut trace = Vec::new();
    let mut at = id;
    while let Some((parent, event)) = came_from[at as usize] {
        trace.push(format!("{event:?}"));
        at = parent;
    }
    trace.reverse();
    (at as usize, trace)
}
