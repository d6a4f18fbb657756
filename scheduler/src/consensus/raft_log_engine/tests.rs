use std::os::unix::fs::FileExt;
use std::sync::mpsc;

use super::*;

fn record(index: u64) -> Record {
    Record { pos: LogPos { term: 1, index }, body: Bytes::from(format!("body of {index}")) }
}

fn append(engine: &mut RaftLogEngine, records: Vec<Record>) {
    let (tx, rx) = mpsc::sync_channel(1);
    engine.append(records, OnDurable::new(move |result| tx.send(result).unwrap())).unwrap();
    rx.recv().unwrap().unwrap();
}

fn wal_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ext| ext == "wal"));
    files.sort();
    files
}

/// Where `needle` stands in the file.
fn find(file: &Path, needle: &str) -> u64 {
    let bytes = std::fs::read(file).unwrap();
    bytes.windows(needle.len()).position(|window| window == needle.as_bytes()).unwrap() as u64
}

fn overwrite(file: &Path, at: u64, bytes: &[u8]) {
    std::fs::OpenOptions::new().write(true).open(file).unwrap().write_all_at(bytes, at).unwrap();
}

#[test]
fn acknowledged_writes_are_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let vote = SavedVote { term: 4, committed: true, server: 2 };
    {
        let mut engine = RaftLogEngine::open(dir.path(), RaftLogLimits::default()).unwrap();
        let (tx, rx) = mpsc::sync_channel(1);
        engine.save_vote(vote, OnDurable::new(move |result| tx.send(result).unwrap())).unwrap();
        rx.recv().unwrap().unwrap();
        append(&mut engine, (0..10).map(record).collect());
        engine.save_committed(LogPos { term: 1, index: 8 }).unwrap();
        engine.purge(LogPos { term: 1, index: 2 }).unwrap();
    }
    let engine = RaftLogEngine::open(dir.path(), RaftLogLimits::default()).unwrap();
    let pos = |index| Some(LogPos { term: 1, index });
    let want = EngineState { vote: Some(vote), committed: pos(8), purged: pos(2), last: pos(9) };
    assert_eq!(engine.state(), want);
    assert_eq!(engine.read(0, 20, usize::MAX).unwrap(), (3..10).map(record).collect::<Vec<_>>());
    assert_eq!(engine.read(3, 20, 1).unwrap(), vec![record(3)]);
}

#[test]
fn a_second_opener_is_told_who_is_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let _first = RaftLogEngine::open(dir.path(), RaftLogLimits::default()).unwrap();
    let second = RaftLogEngine::open(dir.path(), RaftLogLimits::default());
    assert!(matches!(second, Err(OpenError::InUse { .. })));
}

#[test]
fn a_torn_last_write_is_dropped_and_the_rest_kept() {
    let dir = tempfile::tempdir().unwrap();
    append(&mut RaftLogEngine::open(dir.path(), RaftLogLimits::default()).unwrap(), (0..3).map(record).collect());
    let file = wal_files(dir.path()).pop().unwrap();
    let cut = find(&file, "body of 2") + 3;
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(cut).unwrap();
    let engine = RaftLogEngine::open(dir.path(), RaftLogLimits::default()).unwrap();
    assert_eq!(engine.read(0, 9, usize::MAX).unwrap(), vec![record(0), record(1)]);
}

#[test]
fn damage_is_refused_and_nothing_is_removed() {
    // A flipped byte in an entry, and a damaged length that would reach beyond the end of the file.
    for (back, bytes) in [(0, &b"B"[..]), (8, &[0, 0, 0x40, 0][..])] {
        let dir = tempfile::tempdir().unwrap();
        append(&mut RaftLogEngine::open(dir.path(), RaftLogLimits::default()).unwrap(), (0..3).map(record).collect());
        let file = wal_files(dir.path()).pop().unwrap();
        overwrite(&file, find(&file, "body of 1") - back, bytes);
        let before = std::fs::read(&file).unwrap();
        let Err(error) = RaftLogEngine::open(dir.path(), RaftLogLimits::default()) else {
            panic!("damage {back} bytes before the entry was accepted");
        };
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("under a new id"), "{error}");
        assert_eq!(std::fs::read(&file).unwrap(), before);
    }
}

#[test]
fn purging_removes_whole_files() {
    let dir = tempfile::tempdir().unwrap();
    let limits = RaftLogLimits { file_bytes: 4096, ..RaftLogLimits::default() };
    let mut engine = RaftLogEngine::open(dir.path(), limits).unwrap();
    for index in 0..400 {
        append(&mut engine, vec![record(index)]);
    }
    let before = wal_files(dir.path()).len();
    engine.purge(LogPos { term: 1, index: 390 }).unwrap();
    append(&mut engine, vec![record(400)]);
    engine.log.wait_worker_idle().unwrap();
    let after = wal_files(dir.path()).len();
    assert!(before > 4 && after <= 2, "{before} files became {after}");
}
