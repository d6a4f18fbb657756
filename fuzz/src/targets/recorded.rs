//! What servers keep of their past, as whoever replays it reads it.

use super::commands::seed_log;
use super::files::MemoryFile;
use super::{Target, choice, chosen};
use muster_engine::{Entry, State, apply};
use muster_scheduler::decisions::{BEGIN, Chapter, ENTRIES, Kept, STATE, pack};
use muster_scheduler::fuzz;

pub const DECISIONS: Target = Target {
    name: "decisions",
    what: "a decision log's file, its parts, and the States and entries in them",
    run: run_decisions,
    seeds: seeds_decisions,
    words: &[b"MSTRDCSN\x01\x00", b"\x28\xb5\x2f\xfd"],
    length_max: 32 << 10,
};

/// Kind, length, and what a part holds, not compressed yet.
fn part(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a small part");
    [&[kind], &length.to_le_bytes()[..], payload].concat()
}

fn parts(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut parts, mut rest) = (Vec::new(), bytes);
    while let [kind, low, high, after @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        parts.push((*kind, after[..length].to_vec()));
        rest = &after[length..];
    }
    parts
}

/// A State of so many entries, and those that follow it.
fn log_from(count: usize) -> (State, Vec<Kept>) {
    let mut state = State::new("test");
    let mut kept = Vec::new();
    for (index, bytes) in (1..).zip(seed_log()) {
        let (proposal, _) = fuzz::take_proposal(&bytes).expect("a seed");
        let payload = Some(proposal.encode());
        if index <= count as u64 {
            let entry = Entry { index, term: 1, at: proposal.at, command: proposal.command };
            apply(&mut state, &entry);
        } else {
            kept.push(Kept { index, term: 1, payload });
        }
    }
    kept.push(Kept { index: 1 + kept.last().map_or(count as u64, |last| last.index), term: 2, payload: None });
    (state, kept)
}

fn seeds_decisions() -> Vec<Vec<u8>> {
    let plain = |count| {
        let (state, kept) = log_from(count);
        let entries = fuzz::unpacked(&pack(&kept).expect("packed")).expect("just packed");
        [part(BEGIN, &state.applied_index().to_le_bytes()), part(STATE, &state.encode()), part(ENTRIES, &entries)]
            .concat()
    };
    let (first, second) = (plain(0), plain(4));
    let compressed: Vec<u8> = framed(&first, true).iter().flat_map(|(kind, payload)| part(*kind, payload)).collect();
    let file = fuzz::decision_file(&framed(&first, true));
    vec![chosen(0, &file), chosen(1, &compressed), chosen(2, &first), chosen(2, &[first, second].concat())]
}

fn framed(bytes: &[u8], compress: bool) -> Vec<(u8, Vec<u8>)> {
    let mut parts = parts(bytes);
    for (kind, payload) in parts.iter_mut().filter(|_| compress) {
        if matches!(*kind, STATE | ENTRIES) {
            *payload = fuzz::packed(payload);
        }
    }
    parts
}

/// Any bytes as a file; parts as a faulty writer could frame them; and what such parts unpack to.
fn run_decisions(input: &[u8]) {
    let bytes = match choice(input) {
        Some((kind, bytes)) if kind % 3 == 0 => bytes.to_vec(),
        Some((kind, bytes)) => fuzz::decision_file(&framed(bytes, kind % 3 == 2)),
        None => return,
    };
    let file = MemoryFile::new(&bytes);
    for newest in [false, true] {
        let mut placed = false;
        fuzz::decision_log(&file.path(), newest, &mut |chapter| match chapter {
            Chapter::State(state) => {
                state.check().expect("a State that is begun with keeps every rule");
                placed = true;
            }
            Chapter::Entry(_) => assert!(placed, "an entry is shown without the State before it"),
            Chapter::Unreadable(_) => placed = false,
        });
    }
}
