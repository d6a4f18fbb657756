//! Sequences of commands that mean something: each op picks live jobs, gangs and nodes, as the engine's own random test
//! does, and coverage leads further.

use super::Target;
use muster_engine::{Memo, State, cycle, desired};
use muster_scheduler::machine::Proposal;
use support::Cluster;
use support::steps::{KINDS, Op, step};

#[allow(clippy::disallowed_methods)]
#[path = "../../../engine/tests/support/mod.rs"]
mod support;

pub const COMMANDS: Target = Target {
    name: "commands",
    what: "sequences of commands on live ids, cycles between them, every invariant after each",
    run,
    seeds,
    words: &[],
    length_max: OP_BYTES * OPS_MAX,
};

/// Kind, and four numbers of two bytes.
const OP_BYTES: usize = 9;
const OPS_MAX: usize = 64;
/// After the kinds of the random test.
const CYCLE: u8 = KINDS;

fn seeds() -> Vec<Vec<u8>> {
    let op = |kind: u8| [kind, 0, 0, 1, 0, 2, 0, 3, 0];
    let life = [0, CYCLE, 5, 7, 7, 10, 0, 2, 5, 12, 11, 13, 9, 14, 15, 8, CYCLE];
    let every: Vec<u8> = (0..=CYCLE).collect();
    [&life[..], &[0, 2, 5, 7], &every[..]]
        .map(|kinds| kinds.iter().flat_map(|kind| op(*kind)).collect::<Vec<u8>>())
        .into()
}

fn run(input: &[u8]) {
    let mut cluster = Cluster::new(3, 3);
    for bytes in input.chunks_exact(OP_BYTES).take(OPS_MAX) {
        let number = |at: usize| u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let op: Op = (bytes[0] % (CYCLE + 1), number(1), number(3), number(5), number(7));
        if op.0 == CYCLE {
            cluster.decide();
        } else {
            step(&mut cluster, op);
        }
    }
    survive_reads(&cluster.state);
}

/// Everything that is asked of a State must have an answer.
pub fn survive_reads(state: &State) {
    for node in state.nodes().keys() {
        desired(state, *node);
    }
    let decided = cycle(state, &mut Memo::default(), state.now());
    let mut copy = state.clone();
    for command in decided.commands {
        let entry = muster_engine::Entry { index: copy.applied_index() + 1, term: 1, at: copy.now(), command };
        muster_engine::apply(&mut copy, &entry);
        if let Err(broken) = copy.check() {
            panic!("invariant: a cycle's {:?} broke it: {broken}", entry.command);
        }
    }
}

/// Two nodes, and a job that waits for more than they have.
pub fn small_cluster() -> State {
    let mut cluster = Cluster::new(2, 2);
    cluster.submit(support::scheduling(3, 2));
    cluster.submit(support::scheduling(1, 1));
    cluster.state
}

/// A small cluster's log, each entry as its proposal without the format byte.
pub fn seed_log() -> Vec<Vec<u8>> {
    let mut cluster = Cluster::new(2, 2);
    for op in [(0, 0, 1, 1, 0), (2, 0, 1, 0, 0), (5, 0, 0, 0, 0), (7, 0, 0, 4, 0), (7, 0, 0, 7, 0), (9, 0, 1, 0, 0)] {
        step(&mut cluster, op);
    }
    cluster.decide();
    let proposal = |entry: &muster_engine::Entry| Proposal { at: entry.at, command: entry.command.clone() };
    cluster.log.iter().map(|entry| postcard::to_stdvec(&proposal(entry)).expect("commands encode")).collect()
}
