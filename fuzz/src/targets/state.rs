//! What is replicated: log entries, the state they make, and the state a snapshot brings.

use super::Target;
use super::commands::{seed_log, survive_reads};
use muster_common::Time;
use muster_engine::state::FORMAT;
use muster_engine::{Entry, State, apply};
use muster_scheduler::fuzz;
use muster_scheduler::machine::Proposal;

pub const ENTRY: Target = Target {
    name: "entry",
    what: "a log entry, its body and the proposal inside",
    run: run_entry,
    seeds: || seed_log().into_iter().map(|proposal| entry_of(&proposal)).collect(),
    words: &[],
    length_max: 8 << 10,
};

pub const APPLY: Target = Target {
    name: "apply",
    what: "proposals one after another, applied to a State that is checked after each",
    run: run_apply,
    seeds: || vec![seed_log().concat(), seed_log().into_iter().take(6).collect::<Vec<_>>().concat()],
    words: &[],
    length_max: 32 << 10,
};

pub const SNAPSHOT_STATE: Target = Target {
    name: "state",
    what: "a State as a snapshot holds it, and its check",
    run: run_state,
    seeds: || {
        let whole = seed_log();
        [4, 8, whole.len()].into_iter().map(|count| applied(&whole[..count.min(whole.len())]).encode()).collect()
    },
    words: &[],
    length_max: 32 << 10,
};

/// Body of a normal log entry: version, kind, any term, payload.
fn entry_of(proposal: &[u8]) -> Vec<u8> {
    [&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, FORMAT], proposal].concat()
}

fn run_entry(input: &[u8]) {
    if !fuzz::log_entry(input) {
        return;
    }
    if let Some(Ok(proposal)) = input.get(10..).map(Proposal::decode) {
        let again = Proposal::decode(&proposal.encode()).expect("what was written is read");
        assert_eq!(again.encode(), proposal.encode(), "a proposal changed between two readings");
    }
}

fn applied(log: &[Vec<u8>]) -> State {
    let mut state = State::new("test");
    for (index, proposal) in (1..).zip(log) {
        let Proposal { at, command } = postcard::from_bytes(proposal).expect("a seed");
        apply(&mut state, &Entry { index, term: 1, at, command });
    }
    state
}

fn run_apply(input: &[u8]) {
    let mut state = State::new("test");
    let mut rest = input;
    for index in 1..=64 {
        let Some((Proposal { at, command }, left)) = fuzz::take_proposal(rest) else { break };
        rest = left;
        let entry = Entry { index, term: 1, at, command };
        apply(&mut state, &entry);
        if let Err(broken) = state.check() {
            panic!("invariant: entry {index} {:?} broke it: {broken}", entry.command);
        }
    }
    let back = State::decode(&state.encode()).expect("a State reads back");
    assert_eq!(back.hash(), state.hash(), "a State changed between writing and reading");
    survive_reads(&state);
}

fn run_state(input: &[u8]) {
    let Ok(state) = State::decode(input) else { return };
    // A snapshot's checksum keeps damage out; what is left is another program's mistake, which the check must name.
    if state.check().is_ok() && state.now() < Time::NEVER {
        assert_eq!(State::decode(&state.encode()).map(|back| back.hash()), Ok(state.hash()));
    }
}
