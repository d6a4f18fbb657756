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
    let files = log.written().unwrap();
    for (at, path) in files.iter().enumerate() {
        each_part(path, at + 1 == files.len(), |kind, payload| {
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

/// Two segments: one that was begun at the beginning, one after a restart.
fn two_segments(dir: &Path) -> (Vec<PathBuf>, State) {
    let mut state = State::new("testing");
    for first in [1, 51] {
        let log = DecisionLog::open(dir, 64 << 20).unwrap();
        for index in first..first + 50 {
            enter(&log, &mut state, index, 10);
            // Each entry is a part of its own.
            log.written().unwrap();
        }
    }
    let log = DecisionLog::open(dir, 64 << 20).unwrap();
    (log.written().unwrap(), state)
}

type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

#[test]
fn a_damaged_file_is_named_and_what_is_whole_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let (files, state) = two_segments(dir.path());
    let whole = std::fs::read(&files[0]).unwrap();
    let name = files[0].file_name().unwrap().to_string_lossy().into_owned();
    // The letters, the version, the State, an entry in the middle; and nothing but zeros at the end, as after a power cut.
    let damage: [Damage<'_>; 5] = [
        &|bytes| bytes[2] ^= 1,
        &|bytes| bytes[8] ^= 2,
        &|bytes| bytes[60] ^= 1,
        &|bytes| bytes[whole.len() / 2] ^= 1,
        &|bytes| bytes.extend([0; 100]),
    ];
    for (which, damage) in damage.iter().enumerate() {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        std::fs::write(&files[0], bytes).unwrap();
        let found = read(&DecisionLog::open(dir.path(), 64 << 20).unwrap());
        let told: Vec<&String> = found
            .iter()
            .filter_map(|chapter| match chapter {
                Chapter::Unreadable(why) => Some(why),
                _ => None,
            })
            .collect();
        assert!(told.len() == 1 && told[0].starts_with(&name), "damage {which}: {told:?}");
        let after = found.iter().position(|chapter| matches!(chapter, Chapter::Unreadable(_))).unwrap() + 1;
        let (begins, rebuilt) = rebuilt(found.into_iter().skip(after).collect());
        assert_eq!((begins, rebuilt.hash()), (vec![50], state.hash()), "damage {which}");
    }
}

/// A restart mends what a crash tore, so an older file that is cut off was cut off by somebody.
#[test]
fn only_the_newest_file_may_be_cut_off_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let (files, _) = two_segments(dir.path());
    assert_eq!(files.len(), 2);
    let unreadable = || {
        let found = read(&DecisionLog::open(dir.path(), 64 << 20).unwrap());
        let told = found.into_iter().filter_map(|chapter| match chapter {
            Chapter::Unreadable(why) => Some(why),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    for (which, file) in files.iter().enumerate() {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let whole = std::fs::read(file).unwrap();
        for cut in [3, 9, 40, whole.len() / 2, whole.len() - 1] {
            std::fs::write(file, &whole[..cut]).unwrap();
            let told = unreadable();
            match which {
                0 => assert!(told.len() == 1 && told[0].starts_with(&name), "cut at {cut}: {told:?}"),
                _ => assert!(told.is_empty(), "cut at {cut}: {told:?}"),
            }
        }
        std::fs::write(file, whole).unwrap();
        assert!(unreadable().is_empty());
    }
}

#[test]
fn what_comes_faster_than_segments_are_begun_is_a_gap_and_never_more_bytes() {
    const BYTES_MAX: u64 = 256 << 10;
    let dir = tempfile::tempdir().unwrap();
    let log = DecisionLog::open(dir.path(), BYTES_MAX).unwrap();
    let mut state = State::new("testing");
    for index in 1..=20_000 {
        enter(&log, &mut state, index, 200);
    }
    let bytes: u64 = log.written().unwrap().iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes <= BYTES_MAX, "{bytes}");
    // After that it goes on.
    let written = |index: u64| {
        let found = read(&log);
        found.iter().any(|chapter| matches!(chapter, Chapter::Entry(entry) if entry.index == index))
    };
    let mut index = 20_001;
    enter(&log, &mut state, index, 10);
    while !written(index) {
        index += 1;
        assert!(index < 40_000, "it never went on");
        enter(&log, &mut state, index, 10);
    }
}

/// As many States as entries that found no room would push every older segment out.
#[test]
fn what_overflows_the_queue_is_one_gap_and_one_state() {
    let dir = tempfile::tempdir().unwrap();
    let log = DecisionLog::open(dir.path(), 64 << 20).unwrap();
    let mut state = State::new("testing");
    (1..=50).for_each(|index| enter(&log, &mut state, index, 10));
    log.written().unwrap();
    // The thread stands still until somebody takes its answer, as it does while a disk does.
    let (answer, answered) = sync_channel(0);
    log.queue.send(Message::Written(answer)).unwrap();
    (51..=100).for_each(|index| enter(&log, &mut state, index, 1 << 20));
    answered.recv().unwrap().unwrap();
    log.written().unwrap();
    (101..=150).for_each(|index| enter(&log, &mut state, index, 10));
    let chapters = read(&log);
    let begins: Vec<u64> = chapters
        .iter()
        .filter_map(|chapter| match chapter {
            Chapter::State(state) => Some(state.applied_index()),
            _ => None,
        })
        .collect();
    assert_eq!((begins, log.written().unwrap().len()), (vec![0, 100], 2));
    let last = chapters.into_iter().rev().find_map(|chapter| match chapter {
        Chapter::Entry(entry) => Some(entry.index),
        _ => None,
    });
    assert_eq!(last, Some(150));
}

/// A full segment takes more for a while, so a busy queue makes no gap where one segment ends.
#[test]
fn a_state_is_waited_for_without_a_gap_while_the_queue_is_long() {
    let dir = tempfile::tempdir().unwrap();
    let log = DecisionLog::open(dir.path(), 64 << 20).unwrap();
    let mut state = State::new("testing");
    enter(&log, &mut state, 1, 10);
    log.written().unwrap();
    let (answer, answered) = sync_channel(0);
    log.queue.send(Message::Written(answer)).unwrap();
    log.shared.full.store(true, Ordering::Release);
    log.shared.queued_bytes.fetch_add(QUEUE_BYTES / 2 + 1, Ordering::AcqRel);
    assert!(!log.wants_state());
    enter(&log, &mut state, 2, 10);
    log.shared.queued_bytes.fetch_sub(QUEUE_BYTES / 2 + 1, Ordering::AcqRel);
    assert!(log.wants_state());
    enter(&log, &mut state, 3, 10);
    assert!(!log.wants_state());
    answered.recv().unwrap().unwrap();
    let (begins, read) = rebuilt(read(&log));
    assert_eq!((begins, read.hash()), (vec![0, 2], state.hash()));
}

#[test]
fn a_state_that_leaves_no_room_for_entries_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let (_, mut state) = two_segments(dir.path());
    let before: Vec<u64> = sizes(dir.path());
    let log = DecisionLog::open(dir.path(), 256).unwrap();
    (101..=200).for_each(|index| enter(&log, &mut state, index, 10));
    log.written().unwrap();
    assert_eq!(sizes(dir.path()), before);
}

fn sizes(dir: &Path) -> Vec<u64> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap()).collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    files.iter().map(|file| file.metadata().unwrap().len()).collect()
}

/// Entries that come one by one are not kept back until there are many.
#[test]
fn what_was_applied_is_in_the_file_soon_however_often_something_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = DecisionLog::open(dir.path(), 64 << 20).unwrap();
    let mut state = State::new("testing");
    enter(&log, &mut state, 1, 10);
    let begun: u64 = log.written().map(|files| files[0].metadata().unwrap().len()).unwrap();
    let mut index = 1;
    while sizes(dir.path()) == [begun] {
        index += 1;
        // Far fewer than one block takes.
        assert!(index < 1_500, "nothing was written");
        enter(&log, &mut state, index, 10);
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
