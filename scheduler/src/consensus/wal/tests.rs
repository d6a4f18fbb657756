use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use bytes::Bytes;

use super::sector::SECTOR_BYTES;
use super::*;

/// Small files, and no seal: what a test writes stays the last batch.
fn limits() -> WalLimits {
    WalLimits { segment_bytes: 16 << 10, seal_after_ms: 60_000, ..WalLimits::default() }
}

fn open(dir: &Path) -> WalEngine {
    WalEngine::open(dir, limits(), OnSync::ignored()).unwrap()
}

fn counted() -> (OnSync, Arc<AtomicU64>) {
    let syncs = Arc::new(AtomicU64::new(0));
    let count = syncs.clone();
    (
        OnSync::new(move |_, _, _| {
            count.fetch_add(1, Ordering::Relaxed);
        }),
        syncs,
    )
}

fn pos(index: u64) -> LogPos {
    LogPos { term: 1, index }
}

fn record(index: u64) -> Record {
    Record { pos: pos(index), body: Bytes::from(format!("body of {index}")) }
}

fn waited(write: impl FnOnce(OnDurable) -> io::Result<()>) {
    let (tx, rx) = mpsc::sync_channel(1);
    write(OnDurable::new(move |result| tx.send(result).unwrap())).unwrap();
    rx.recv().unwrap().unwrap();
}

fn append(engine: &mut WalEngine, records: Vec<Record>) {
    waited(|done| engine.append(records, done));
}

fn files(dir: &Path) -> Vec<PathBuf> {
    segment::list(dir).unwrap().0.into_iter().map(|(_, path)| path).collect()
}

fn overwrite(file: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(file).unwrap().write_all_at(bytes, at).unwrap();
}

/// Where the batch that holds `needle` begins in the file: entries here are smaller than a sector.
fn sector_of(file: &Path, needle: &str) -> u64 {
    let bytes = std::fs::read(file).unwrap();
    let at = bytes.windows(needle.len()).position(|window| window == needle.as_bytes()).unwrap();
    (at / SECTOR_BYTES * SECTOR_BYTES) as u64
}

fn refused(dir: &Path) -> String {
    match WalEngine::open(dir, limits(), OnSync::ignored()) {
        Err(error @ OpenError::Damaged { .. }) => error.to_string(),
        Err(error) => panic!("refused for another reason: {error}"),
        Ok(_) => panic!("damage was accepted"),
    }
}

#[test]
fn acknowledged_writes_are_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let vote = SavedVote { term: 4, committed: true, server: 2 };
    {
        let mut engine = open(dir.path());
        waited(|done| engine.save_vote(vote, done));
        append(&mut engine, (0..10).map(record).collect());
        engine.save_committed(pos(8)).unwrap();
        engine.purge(pos(2)).unwrap();
        waited(|done| engine.truncate_after(Some(pos(8)), done));
    }
    let want = EngineState { vote: Some(vote), committed: Some(pos(8)), purged: Some(pos(2)), last: Some(pos(8)) };
    for _ in 0..3 {
        let engine = open(dir.path());
        assert_eq!(engine.state(), want);
        assert_eq!(engine.read(0, 20, usize::MAX).unwrap(), (3..9).map(record).collect::<Vec<_>>());
        assert_eq!(engine.read(3, 20, 1).unwrap(), vec![record(3)]);
    }
    assert!(files(dir.path()).len() <= 2, "a restart without writes makes no new file each time");
}

#[test]
fn a_second_opener_is_told_who_is_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    assert!(matches!(WalEngine::open(dir.path(), limits(), OnSync::ignored()), Err(OpenError::InUse { .. })));
}

#[test]
fn a_torn_last_batch_is_dropped_and_the_rest_kept() {
    let dir = tempfile::tempdir().unwrap();
    let big = Record { pos: pos(2), body: Bytes::from(vec![b'x'; 3 * SECTOR_BYTES]) };
    {
        let mut engine = open(dir.path());
        append(&mut engine, vec![record(0), record(1)]);
        append(&mut engine, vec![big]);
    }
    // Any of its sectors may be missing, the first one too.
    for missing in [0, 1, 3] {
        let copy = tempfile::tempdir().unwrap();
        let file = copy.path().join(files(dir.path())[0].file_name().unwrap());
        std::fs::copy(&files(dir.path())[0], &file).unwrap();
        let batch = sector_of(&file, "body of 0") + SECTOR_BYTES as u64;
        overwrite(&file, batch + missing * SECTOR_BYTES as u64, &[0; SECTOR_BYTES]);
        let mut engine = open(copy.path());
        assert_eq!(engine.read(0, 9, usize::MAX).unwrap(), vec![record(0), record(1)]);
        append(&mut engine, vec![record(2)]);
        drop(engine);
        assert_eq!(open(copy.path()).read(0, 9, usize::MAX).unwrap(), vec![record(0), record(1), record(2)]);
    }
}

#[test]
fn damage_is_refused_and_nothing_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = open(dir.path());
    (0..3).for_each(|index| append(&mut engine, vec![record(index)]));
    drop(engine);
    let file = files(dir.path()).remove(0);
    let whole = std::fs::read(&file).unwrap();
    // What a crash left of the next file.
    let unfinished = dir.path().join("next.tmp");
    std::fs::write(&unfinished, b"half a header").unwrap();
    // A flipped byte anywhere, also in the last batch; and a sector of zeros that later batches stand behind.
    let flips = ["body of 0", "body of 1", "body of 2"].map(|body| (sector_of(&file, body) + 20, vec![0xFF]));
    let zeros = ["body of 0", "body of 1"].map(|body| (sector_of(&file, body), vec![0; SECTOR_BYTES]));
    for (at, bytes) in flips.into_iter().chain(zeros).chain([(3, vec![0])]) {
        overwrite(&file, at, &bytes);
        let before = std::fs::read(&file).unwrap();
        assert!(refused(dir.path()).contains("under a new id"));
        assert_eq!(std::fs::read(&file).unwrap(), before);
        assert!(unfinished.exists(), "a refused log was changed");
        std::fs::write(&file, &whole).unwrap();
    }
    assert_eq!(open(dir.path()).read(0, 9, usize::MAX).unwrap().len(), 3);
    assert!(!unfinished.exists());
}

#[test]
fn a_log_of_a_newer_format_is_refused_as_such_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = open(dir.path());
    append(&mut engine, vec![record(0)]);
    drop(engine);
    let unfinished = dir.path().join("next.tmp");
    std::fs::write(&unfinished, b"half a header").unwrap();
    let file = files(dir.path()).remove(0);
    let version = std::fs::read(&file).unwrap()[8];
    // By damage alone it is no newer format: the checksum is still that of ours.
    overwrite(&file, 8, &[version + 1]);
    assert!(refused(dir.path()).contains("checksum"));
    segment::seal_again(&file);
    let before = std::fs::read(&file).unwrap();
    let refused = WalEngine::open(dir.path(), limits(), OnSync::ignored()).err().unwrap();
    assert!(matches!(refused, OpenError::Newer { .. }), "{refused}");
    assert!(refused.to_string().contains("nothing was changed"), "{refused}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
    assert!(unfinished.exists(), "a refused log was changed");
}

#[test]
fn a_sealed_log_refuses_a_vanished_last_batch() {
    let dir = tempfile::tempdir().unwrap();
    let (on_sync, syncs) = counted();
    let mut engine = WalEngine::open(dir.path(), WalLimits { seal_after_ms: 1, ..limits() }, on_sync).unwrap();
    append(&mut engine, vec![record(0)]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while syncs.load(Ordering::Relaxed) < 2 {
        assert!(std::time::Instant::now() < deadline, "no seal");
        std::thread::yield_now();
    }
    drop(engine);
    let file = files(dir.path()).remove(0);
    overwrite(&file, sector_of(&file, "body of 0"), &[0; SECTOR_BYTES]);
    assert!(refused(dir.path()).contains("batch 1"));
}

#[test]
fn purging_removes_files_and_any_of_them_may_come_back() {
    let (dir, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut engine = open(dir.path());
    (0..100).for_each(|index| append(&mut engine, vec![record(index)]));
    let before = files(dir.path());
    for file in &before {
        std::fs::copy(file, kept.path().join(file.file_name().unwrap())).unwrap();
    }
    engine.purge(pos(95)).unwrap();
    append(&mut engine, vec![record(100)]);
    drop(engine);
    assert!(before.len() > 3 && files(dir.path()).len() <= 2, "{} files became {:?}", before.len(), files(dir.path()));
    let back = before[1].file_name().unwrap();
    std::fs::copy(kept.path().join(back), dir.path().join(back)).unwrap();
    let engine = open(dir.path());
    assert_eq!(engine.read(0, 200, usize::MAX).unwrap(), (96..101).map(record).collect::<Vec<_>>());
    assert!(!dir.path().join(back).exists());
}

#[test]
fn a_missing_file_in_the_middle_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = open(dir.path());
    (0..100).for_each(|index| append(&mut engine, vec![record(index)]));
    drop(engine);
    std::fs::remove_file(&files(dir.path())[1]).unwrap();
    assert!(refused(dir.path()).contains("missing"));
}

#[test]
fn entries_beyond_the_cache_are_read_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine =
        WalEngine::open(dir.path(), WalLimits { cache_bytes: 2_000, ..limits() }, OnSync::ignored()).unwrap();
    let body = |index: u64| Bytes::from(vec![index as u8; 100 + 37 * index as usize]);
    let records: Vec<_> = (0..60).map(|index| Record { pos: pos(index), body: body(index) }).collect();
    records.chunks(7).for_each(|chunk| append(&mut engine, chunk.to_vec()));
    assert_eq!(engine.read(0, 60, usize::MAX).unwrap(), records);
    drop(engine);
    let engine = WalEngine::open(dir.path(), WalLimits { cache_bytes: 0, ..limits() }, OnSync::ignored()).unwrap();
    assert_eq!(engine.read(0, 60, usize::MAX).unwrap(), records);
}

#[test]
fn concurrent_appends_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let (on_sync, syncs) = counted();
    let mut engine = WalEngine::open(dir.path(), WalLimits::default(), on_sync).unwrap();
    let (tx, rx) = mpsc::sync_channel(500);
    for index in 0..500 {
        let tx = tx.clone();
        engine.append(vec![record(index)], OnDurable::new(move |result| tx.send(result.is_ok()).unwrap())).unwrap();
    }
    assert!(rx.iter().take(500).all(|ok| ok));
    let syncs = syncs.load(Ordering::Relaxed);
    assert!(syncs < 250, "{syncs} syncs for 500 appends");
}
