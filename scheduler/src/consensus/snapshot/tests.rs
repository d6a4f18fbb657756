use super::*;

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta { last_log_id: Some(LogPos { term: 2, index }.log_id()), last_membership: StoredMembership::default() }
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn two_snapshots_are_kept_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), None).unwrap();
    assert!(store.newest().is_none() && store.fallback().is_none());
    for index in [10, 20, 30] {
        store.write(&meta(index), format!("state at {index}").as_bytes()).unwrap();
    }
    assert_eq!(files(dir.path()).len(), 2);
    assert_eq!(store.fallback().map(|last| last.index), Some(20));
    let again = SnapshotStore::open(dir.path(), None).unwrap();
    let newest = again.newest().unwrap();
    assert_eq!(newest.meta().unwrap(), meta(30));
    assert_eq!(newest.state().unwrap(), b"state at 30");
}

#[test]
fn a_damaged_newest_is_moved_aside_and_the_older_used() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), None).unwrap();
    store.write(&meta(10), b"older").unwrap();
    let newest = store.write(&meta(20), b"newer").unwrap();
    let mut bytes = fs::read(&newest.path).unwrap();
    let middle = bytes.len() - SHA_BYTES - 2;
    bytes[middle] ^= 1;
    fs::write(&newest.path, bytes).unwrap();
    let purged = |index| Some(LogPos { term: 2, index });
    let store = SnapshotStore::open(dir.path(), purged(10)).unwrap();
    assert_eq!(store.newest().unwrap().state().unwrap(), b"older");
    assert!(files(dir.path()).iter().any(|name| name.ends_with(".damaged")));
    let gap = SnapshotStore::open(dir.path(), purged(11)).err().unwrap();
    assert!(matches!(gap, SnapshotError::Gap { .. }), "{gap}");
    assert!(gap.to_string().contains("under a new id"));
}

#[test]
fn a_newest_that_cannot_be_read_is_left_and_the_older_used_if_the_log_reaches_back_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), None).unwrap();
    let older = store.write(&meta(10), b"older").unwrap();
    let newer = store.write(&meta(20), b"newer").unwrap();
    // A folder cannot be read as a file, and neither can a bad sector.
    let unreadable = dir.path().join(format!("snapshot-{:020}-{:020}.snap", 2, 30));
    fs::create_dir(&unreadable).unwrap();
    let purged = |index| Some(LogPos { term: 2, index });
    let store = SnapshotStore::open(dir.path(), purged(10)).unwrap();
    assert_eq!(store.newest().unwrap().state().unwrap(), b"newer");
    assert!(unreadable.is_dir(), "it was moved: {:?}", files(dir.path()));
    let refused = |purged| match SnapshotStore::open(dir.path(), purged) {
        Err(SnapshotError::Io { path, .. }) => path == unreadable,
        _ => false,
    };
    assert!(refused(purged(21)), "the log begins behind what can be read");
    fs::remove_file(&older.path).unwrap();
    fs::remove_file(&newer.path).unwrap();
    assert!(refused(None), "nothing can be read");
}

#[test]
fn a_snapshot_of_a_newer_format_ends_the_start_and_keeps_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), None).unwrap();
    store.write(&meta(10), b"older").unwrap();
    let newest = store.write(&meta(20), b"newer").unwrap();
    let mut bytes = fs::read(&newest.path).unwrap();
    bytes[8..10].copy_from_slice(&(VERSION + 1).to_le_bytes());
    // By damage alone it is no newer format: the checksum is still that of ours.
    fs::write(&newest.path, &bytes).unwrap();
    assert!(matches!(SnapshotFile::open(&newest.path), Err(SnapshotError::Damaged { .. })));
    let head_end = newest.body_at as usize - CRC_BYTES;
    let crc = crc32fast::hash(&bytes[..head_end]).to_le_bytes();
    bytes[head_end..head_end + CRC_BYTES].copy_from_slice(&crc);
    let sha_at = bytes.len() - SHA_BYTES;
    let sha = Sha256::digest(&bytes[..sha_at]);
    bytes[sha_at..].copy_from_slice(&sha);
    fs::write(&newest.path, &bytes).unwrap();
    fs::write(dir.path().join("new.tmp"), b"half a snapshot").unwrap();
    let before = files(dir.path());
    let refused = SnapshotStore::open(dir.path(), None).err().unwrap();
    assert!(matches!(refused, SnapshotError::Newer { version: 2, .. }), "{refused}");
    assert!(refused.to_string().contains("the file was not changed"), "{refused}");
    assert_eq!((files(dir.path()), fs::read(&newest.path).unwrap()), (before, bytes));
}

#[test]
fn every_flipped_byte_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), None).unwrap();
    let good = store.write(&meta(10), b"some state").unwrap();
    let bytes = fs::read(&good.path).unwrap();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x20;
        let path = dir.path().join("flipped");
        fs::write(&path, bad).unwrap();
        assert!(SnapshotFile::open(&path).is_err(), "byte {at}");
    }
}

#[test]
fn a_snapshot_in_parts_is_adopted_whole_or_not_at_all() {
    let source_dir = tempfile::tempdir().unwrap();
    let source = SnapshotStore::open(source_dir.path(), None).unwrap().write(&meta(10), &[7; 100_000]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), None).unwrap();
    let mut half = store.receive(source.file_bytes()).unwrap();
    half.write(&source.read_at(0, 20).unwrap()).unwrap();
    assert!(half.finish().is_err());
    assert!(files(dir.path()).is_empty(), "the half stayed: {:?}", files(dir.path()));

    let mut incoming = store.receive(source.file_bytes()).unwrap();
    let mut at = 0;
    while at < source.file_bytes() {
        let part = source.read_at(at, 16).unwrap();
        at += part.len() as u64;
        incoming.write(&part).unwrap();
    }
    assert!(incoming.write(b"more").is_err());
    let mut incoming = store.receive(source.file_bytes()).unwrap();
    incoming.write(&source.read_at(0, usize::MAX).unwrap()).unwrap();
    let whole = incoming.finish().unwrap();
    assert!(store.newest().is_none(), "not adopted yet");
    store.adopt(&whole).unwrap();
    drop(whole);
    assert_eq!(store.newest().unwrap().state().unwrap(), vec![7; 100_000]);
}

#[test]
fn a_snapshot_that_came_and_was_never_adopted_leaves_no_file() {
    let source_dir = tempfile::tempdir().unwrap();
    let source = SnapshotStore::open(source_dir.path(), None).unwrap().write(&meta(10), b"some state").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), None).unwrap();
    let mut incoming = store.receive(source.file_bytes()).unwrap();
    incoming.write(&source.read_at(0, usize::MAX).unwrap()).unwrap();
    let whole = incoming.finish().unwrap();
    let other_handle = whole.clone();
    drop(whole);
    assert_eq!(other_handle.state().unwrap(), b"some state");
    drop(other_handle);
    assert!(files(dir.path()).is_empty(), "it stayed: {:?}", files(dir.path()));
}
