use super::*;
use crate::machine::Proposal;
use muster_common::Time;
use muster_engine::{Command, Entry, apply};

const STEP_MS: u64 = 1_000;

/// Text that does not compress well.
fn noise(seed: u64, length: usize) -> String {
    let mut number = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let letter = |_| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + ((number >> 40) % 90) as u8)
    };
    (0..length).map(letter).collect()
}

/// What a machine does around each entry.
fn enter(log: &DecisionLog, state: &mut State, index: u64, padding: usize) {
    let command = Command::IssueToken {
        hash: muster_common::job::Hash([index as u8; 32]),
        node: None,
        expires_at: Time(index * STEP_MS + 60_000),
        by: muster_engine::command::Principal(noise(index, padding).as_str().into()),
    };
    let proposal = Proposal { at: Time(index * STEP_MS), command };
    if log.wants_state() {
        log.begin(state.clone());
    }
    apply(state, &Entry { index, term: 1, at: proposal.at, command: proposal.command.clone() });
    log.entry(index, 1, Some(&proposal.encode()));
}

fn read(log: &DecisionLog) -> Vec<Chapter> {
    let mut chapters = Chapters::default();
    let mut found = Vec::new();
    for path in log.written().unwrap() {
        each_part(&path, |kind, payload| {
            chapters.part(kind, payload, &mut |chapter| found.push(chapter));
            Ok(())
        })
        .unwrap();
    }
    found
}

/// Applies what is read; returns the States it began with and the State it ends with.
fn rebuilt(chapters: Vec<Chapter>) -> (Vec<u64>, State) {
    let (mut begins, mut state) = (Vec::new(), State::default());
    for chapter in chapters {
        match chapter {
            Chapter::State(begun) => {
                begins.push(begun.applied_index());
                state = *begun;
            }
            Chapter::Entry(entry) => {
                assert_eq!(entry.index, state.applied_index() + 1);
                apply(&mut state, &entry);
            }
            Chapter::Unreadable(why) => panic!("{why}"),
        }
    }
    (begins, state)
}

#[test]
fn what_was_entered_is_read_back_and_leads_to_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let log = DecisionLog::open(dir.path(), 64 << 20).unwrap();
    let mut state = State::new("testing");
    (1..=300).for_each(|index| enter(&log, &mut state, index, 10));
    log.entry(301, 2, None);
    apply(&mut state, &Entry { index: 301, term: 2, at: Time::ZERO, command: Command::Nothing });
    let (begins, read) = rebuilt(read(&log));
    assert_eq!((begins, read.hash(), read.applied_index()), (vec![0], state.hash(), 301));
}

#[test]
fn old_segments_go_and_the_rest_begins_with_a_state_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let log = DecisionLog::open(dir.path(), 256 << 10).unwrap();
    let mut state = State::new("testing");
    for index in 1..=4_000 {
        enter(&log, &mut state, index, 10 + (index as usize * 7_919) % 200);
        // The thread is let through, as a leader's commits let it.
        if index % 50 == 0 {
            log.written().unwrap();
        }
    }
    let files = log.written().unwrap();
    let bytes: u64 = files.iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes <= 320 << 10, "{bytes} bytes in {} files", files.len());
    let (begins, read) = rebuilt(read(&log));
    assert!(begins.len() > 1 && begins[0] > 0, "{begins:?}");
    assert_eq!(read.hash(), state.hash());
}

#[test]
fn a_restart_begins_anew_behind_what_is_there_and_a_torn_end_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::new("testing");
    let log = DecisionLog::open(dir.path(), 64 << 20).unwrap();
    (1..=50).for_each(|index| enter(&log, &mut state, index, 10));
    let files = log.written().unwrap();
    drop(log);
    let whole = std::fs::read(&files[0]).unwrap();
    for cut in [3, 9, 40, whole.len() - 1] {
        std::fs::write(&files[0], &whole[..cut]).unwrap();
        let dir_again = tempfile::tempdir().unwrap();
        std::fs::copy(&files[0], dir_again.path().join(files[0].file_name().unwrap())).unwrap();
        let log = DecisionLog::open(dir_again.path(), 64 << 20).unwrap();
        let mut again = state.clone();
        (51..=60).for_each(|index| enter(&log, &mut again, index, 10));
        let (begins, read) = rebuilt(read(&log));
        assert_eq!((begins.last(), read.hash()), (Some(&50), again.hash()), "cut at {cut}");
    }
}

#[test]
fn a_jump_of_the_state_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let log = DecisionLog::open(dir.path(), 64 << 20).unwrap();
    let mut state = State::new("testing");
    (1..=5).for_each(|index| enter(&log, &mut state, index, 10));
    apply(&mut state, &Entry { index: 90, term: 1, at: Time(90_000), command: Command::Nothing });
    log.interrupt();
    enter(&log, &mut state, 91, 10);
    let (begins, read) = rebuilt(read(&log));
    assert_eq!((begins, read.hash()), (vec![0, 90], state.hash()));
}

#[test]
fn a_part_that_cannot_be_read_is_said_and_the_next_state_goes_on() {
    let mut chapters = Chapters::default();
    let mut found = Vec::new();
    let mut part = |kind, payload: &[u8]| chapters.part(kind, payload, &mut |chapter| found.push(chapter));
    let state = State::new("testing");
    let packed = zstd::encode_all(&state.encode()[..], 1).unwrap();
    let entries = pack(&[Kept { index: 1, term: 1, payload: None }]).unwrap();
    part(BEGIN, &0_u64.to_le_bytes());
    part(STATE, &packed[..packed.len() / 2]);
    part(ENTRIES, &entries);
    part(ENTRIES, &entries);
    part(BEGIN, &0_u64.to_le_bytes());
    part(STATE, &packed);
    part(ENTRIES, &entries);
    part(9, &[]);
    let words: Vec<&str> = found
        .iter()
        .map(|chapter| match chapter {
            Chapter::State(_) => "state",
            Chapter::Entry(_) => "entry",
            Chapter::Unreadable(_) => "unreadable",
        })
        .collect();
    assert_eq!(words, ["unreadable", "state", "entry", "unreadable"]);
}
