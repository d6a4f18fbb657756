use super::*;
use std::fs::File;
use std::time::{Duration, Instant};

fn record(ordinal: u32, job: Option<u64>, bytes: &[u8]) -> Record {
    Record { ordinal, kind: 1, job, bytes: Bytes::copy_from_slice(bytes) }
}

fn filled(dir: &Path) -> HistoryStore {
    let store = HistoryStore::open(dir).unwrap();
    for index in 1..=20u64 {
        let records = [record(0, Some(index % 3), format!("a{index}").as_bytes()), record(1, None, b"b")];
        store.append(index, &records).unwrap();
    }
    store
}

fn indexes(records: &[(u64, Record)]) -> Vec<u64> {
    records.iter().map(|(index, _)| *index).collect()
}

/// A store that was dropped may hold its lock for a moment more, until its own thread has ended.
fn reopened(path: &Path) -> HistoryStore {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match HistoryStore::open(path) {
            Err(error) if error.to_string().contains("acquire lock") && Instant::now() < until => {
                std::thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

#[test]
fn records_come_back_in_order_and_by_job() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history");
    filled(&path).flush_durable().unwrap();
    let store = reopened(&path);
    assert_eq!(store.watermark(), Some(20));
    assert_eq!(store.moved_aside(), None);
    let read = store.read_range(5, 3).unwrap();
    assert_eq!(indexes(&read), [5, 5, 6, 6], "an entry's records are never parted");
    assert_eq!(read[0].1, record(0, Some(2), b"a5"));
    let of_job = store.job_records(0).unwrap();
    assert_eq!(indexes(&of_job), [3, 6, 9, 12, 15, 18]);
    assert!(of_job.iter().all(|(_, record)| record.job == Some(0)));
    assert!(store.job_records(77).unwrap().is_empty());
}

#[test]
fn a_job_with_more_records_than_fit_a_page_is_told_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = HistoryStore::open(&dir.path().join("history")).unwrap();
    const ENTRIES: u64 = 120;
    const EACH: u32 = 100;
    for index in 1..=ENTRIES {
        let records: Vec<Record> = (0..EACH).map(|ordinal| record(ordinal, Some(7), b"x")).collect();
        store.append(index, &records).unwrap();
    }
    let mut seen = Vec::new();
    store
        .visit_job(7, |index, record| {
            seen.push((index, record.ordinal));
            Ok(())
        })
        .unwrap();
    assert_eq!(seen.len() as u64, ENTRIES * u64::from(EACH));
    assert_eq!(seen.last(), Some(&(ENTRIES, EACH - 1)));
    assert!(seen.is_sorted());
}

#[test]
fn a_jobs_records_come_from_the_end_as_they_do_from_the_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let on_disk = HistoryStore::open(&dir.path().join("history")).unwrap();
    let in_memory = HistoryStore::open_memory(MemHistory::default()).unwrap();
    for store in [on_disk, in_memory] {
        for index in 1..=30u64 {
            let long = vec![index as u8; PART_BYTES + 1];
            let others = record(1, Some(6 + index % 3), b"other");
            let records = [record(0, Some(7), b"first"), others, record(2, None, b"none"), record(3, Some(7), &long)];
            store.append(index, &records).unwrap();
        }
        store.delete_below(4).unwrap();
        let mut all = store.job_records(7).unwrap();
        all.reverse();
        assert_eq!(all.len(), 27 * 2 + 9, "those of every kept entry");
        for limit in [1, 2, 7, usize::MAX] {
            let (mut before, mut read): (Place, Vec<(u64, Record)>) = ((u64::MAX, 0), Vec::new());
            loop {
                let page = store.job_back(7, before, limit).unwrap();
                assert!(page.len() <= limit);
                let Some((index, record)) = page.last() else { break };
                before = (*index, record.ordinal);
                read.extend(page);
            }
            assert!(read == all, "{:?} in pages of {limit}", indexes(&read));
        }
        assert!(store.job_back(77, (u64::MAX, 0), 9).unwrap().is_empty());
        assert!(store.job_back(7, (4, 0), 9).unwrap().is_empty(), "the first kept place has nothing before it");
    }
}

/// Everything before a place, page by page.
fn back(store: &HistoryStore, before: Place, limit: usize) -> Vec<(u64, Record)> {
    let (mut at, mut read) = (before, Vec::new());
    loop {
        let page = store.read_back(at, limit).unwrap();
        assert!(page.len() <= limit);
        let Some((index, record)) = page.last() else { return read };
        at = (*index, record.ordinal);
        read.extend(page);
    }
}

#[test]
fn from_the_end_come_the_same_records_in_pages_of_any_size() {
    let dir = tempfile::tempdir().unwrap();
    let on_disk = HistoryStore::open(&dir.path().join("history")).unwrap();
    let in_memory = HistoryStore::open_memory(MemHistory::default()).unwrap();
    for store in [on_disk, in_memory] {
        for index in 1..=40u64 {
            let sizes = [0, 3, PART_BYTES + 1, 5 * PART_BYTES, 1];
            let sizes = sizes.into_iter().take(index as usize % 6);
            let records = sizes.enumerate().map(|(at, size)| record(at as u32, Some(index), &vec![index as u8; size]));
            store.append(index, &records.collect::<Vec<_>>()).unwrap();
        }
        store.delete_below(4).unwrap();
        let mut all: Vec<(u64, Record)> = Vec::new();
        loop {
            // A page forward is bounded by bytes too.
            let page = store.read_range(all.last().map_or(0, |(last, _)| last + 1), 9).unwrap();
            if page.is_empty() {
                break;
            }
            all.extend(page);
        }
        all.reverse();
        // Their bytes would be megabytes of a failure's text.
        for limit in [1, 2, 7, usize::MAX] {
            assert!(back(&store, (41, 0), limit) == all, "in pages of {limit}");
        }
        let earlier: Vec<_> = all.iter().filter(|(at, record)| (*at, record.ordinal) < (23, 2)).cloned().collect();
        assert!(!earlier.is_empty() && back(&store, (23, 2), 3) == earlier);
        for nothing in [(4, 0), (1, 0), (0, 0)] {
            assert!(store.read_back(nothing, 9).unwrap().is_empty());
        }
    }
}

#[test]
fn a_page_from_the_end_is_bounded_by_bytes_too() {
    let store = HistoryStore::open_memory(MemHistory::default()).unwrap();
    let large = vec![7; READ_BYTES_MAX / 2];
    for index in 1..=9 {
        store.append(index, &[record(0, None, &large)]).unwrap();
    }
    assert_eq!(indexes(&store.read_back((10, 0), usize::MAX).unwrap()), [9, 8]);
    assert_eq!(back(&store, (10, 0), usize::MAX).len(), 9);
}

#[test]
fn a_part_that_is_missing_is_damage_from_the_end_too() {
    for part in 0..3 {
        let store = HistoryStore::open_memory(MemHistory::default()).unwrap();
        store.append(1, &[record(0, None, b"whole"), record(1, None, &vec![7; 3 * PART_BYTES])]).unwrap();
        let mut batch = rows::Batch::default();
        batch.remove(keys::record(1, 1, part));
        store.write(batch).map_err(rows::Failure::into_io).unwrap();
        let error = store.read_back((2, 0), 9).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "part {part}");
    }
}

#[test]
fn writing_an_entry_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&dir.path().join("history"));
    let before = store.read_range(0, 1000).unwrap();
    for index in 10..=20u64 {
        let records = [record(0, Some(index % 3), format!("a{index}").as_bytes()), record(1, None, b"b")];
        store.append(index, &records).unwrap();
    }
    assert_eq!(store.read_range(0, 1000).unwrap(), before);
    assert_eq!(store.watermark(), Some(20));
}

#[test]
fn large_records_are_split_and_joined() {
    let dir = tempfile::tempdir().unwrap();
    let store = HistoryStore::open(&dir.path().join("history")).unwrap();
    let sizes = [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 5 * PART_BYTES + 7];
    for (index, size) in sizes.into_iter().enumerate() {
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        store.append(index as u64, &[record(0, Some(1), &bytes), record(1, None, b"after")]).unwrap();
    }
    let read = store.read_range(0, 1000).unwrap();
    for (index, size) in sizes.into_iter().enumerate() {
        assert_eq!(read[2 * index].1.bytes.len(), size);
        assert!(read[2 * index].1.bytes.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
        assert_eq!(&read[2 * index + 1].1.bytes[..], b"after");
    }
    assert_eq!(store.job_records(1).unwrap().len(), sizes.len());
    let error = store.append(9, &[record(0, None, &vec![0; RECORD_BYTES_MAX + 1])]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn entries_without_records_move_the_watermark() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history");
    let store = filled(&path);
    store.append(30, &[]).unwrap();
    assert_eq!(store.watermark(), Some(30));
    store.flush_durable().unwrap();
    drop(store);
    assert_eq!(reopened(&path).watermark(), Some(30));
}

#[test]
fn retention_removes_records_and_their_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&dir.path().join("history"));
    assert_eq!(store.delete_below(11).unwrap(), 20);
    assert_eq!(store.delete_below(11).unwrap(), 0);
    assert_eq!(store.floor().unwrap(), 11);
    assert_eq!(indexes(&store.read_range(0, 1).unwrap()), [11, 11]);
    assert_eq!(indexes(&store.job_records(0).unwrap()), [12, 15, 18]);
    assert_eq!(store.watermark(), Some(20));
}

#[test]
fn a_jump_by_snapshot_leaves_a_gap_that_can_be_filled() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&dir.path().join("history"));
    store.note_restore(15).unwrap();
    assert!(store.gaps().unwrap().is_empty(), "nothing was missed");
    store.note_restore(40).unwrap();
    store.append(41, &[record(0, None, b"live")]).unwrap();
    let gap = Gap { from: 21, to: 40 };
    assert_eq!(store.gaps().unwrap(), [gap]);
    store.fill(gap, 30, &[(25, record(0, Some(5), b"fetched"))]).unwrap();
    let rest = Gap { from: 31, to: 40 };
    assert_eq!(store.gaps().unwrap(), [rest]);
    assert!(store.fill(rest, 40, &[(41, record(0, None, b"beyond"))]).is_err());
    store.fill(rest, 40, &[]).unwrap();
    assert!(store.gaps().unwrap().is_empty());
    assert_eq!(indexes(&store.read_range(21, 9).unwrap()), [25, 41]);
    assert_eq!(store.job_records(5).unwrap().len(), 1);
}

#[test]
fn retention_goes_through_more_than_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    let store = HistoryStore::open(&dir.path().join("history")).unwrap();
    let large = vec![7; 3 * PART_BYTES];
    let count = DELETE_BATCH as u64 + 200;
    for index in 0..count {
        let bytes: &[u8] = if index % 100 == 0 { &large } else { b"small" };
        store.append(index, &[record(0, Some(1), bytes)]).unwrap();
    }
    assert_eq!(store.delete_below(count - 10).unwrap(), count - 10);
    assert_eq!(store.read_range(0, usize::MAX).unwrap().len(), 10);
    assert_eq!(store.job_records(1).unwrap().len(), 10);
}

#[test]
fn a_page_for_another_server_never_claims_what_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&dir.path().join("history"));
    let through = |from, to| store.page(from, to, 1000).unwrap().map(|page| (page.records.len(), page.through));
    assert_eq!(through(1, 5), Some((10, 5)));
    assert_eq!(through(15, 99), Some((12, 20)), "no further than the watermark");
    assert_eq!(through(21, 99), None);
    let cut = store.page(1, 20, 3).unwrap().unwrap();
    assert_eq!((indexes(&cut.records), cut.through), (vec![1, 1, 2, 2], 2));
    store.note_restore(40).unwrap();
    store.append(41, &[record(0, None, b"x")]).unwrap();
    assert_eq!(through(15, 99), Some((12, 20)), "no further than the gap");
    assert_eq!(through(30, 99), None);
    assert_eq!(through(41, 99), Some((1, 41)));
    store.delete_below(11).unwrap();
    assert_eq!(through(1, 5), Some((0, 5)), "retention removed them everywhere");
    assert_eq!(through(9, 12), Some((4, 12)));
}

#[test]
fn a_history_whose_durable_mark_is_damaged_is_not_believed() {
    for damage in ["", "1", "12 00000000\n", "\u{fffd}0 9a41d3e2\n"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history");
        filled(&path).flush_durable().unwrap();
        std::fs::write(path.join(DURABLE_MARK), damage).unwrap();
        let store = reopened(&path);
        assert!(store.moved_aside().is_some(), "{damage:?} was believed");
    }
}

#[test]
fn a_damaged_history_is_moved_aside_and_begun_anew() {
    use std::os::unix::fs::FileExt;

    let mut moved_aside = 0;
    for at in (0..16).map(|step| step * 256) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history");
        let store = filled(&path);
        store.flush_durable().unwrap();
        let before = store.read_range(0, 1000).unwrap();
        drop(store);
        let db = File::options().write(true).open(path.join("db")).unwrap();
        db.write_all_at(&[0xAA; 256], at).unwrap();
        drop(db);
        let store = reopened(&path);
        let Some(moved) = store.moved_aside() else {
            // Not every byte of the file matters; but nothing may be missing without a word.
            match store.read_range(0, 1000) {
                Ok(read) => assert_eq!(read, before, "damage at {at} lost records silently"),
                Err(error) => println!("damage at {at} is met while reading: {error}"),
            }
            continue;
        };
        moved_aside += 1;
        assert!(moved.join("db").exists(), "the damaged history was deleted");
        assert_eq!(store.watermark(), None);
        store.note_restore(20).unwrap();
        assert_eq!(store.gaps().unwrap(), [Gap { from: 0, to: 20 }]);
        store.append(21, &[record(0, None, b"goes on")]).unwrap();
    }
    assert!(moved_aside > 0, "no damage was noticed at all");
}

#[test]
fn damage_met_while_reading_is_moved_aside_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history");
    let store = filled(&path);
    let mut batch = rows::Batch::default();
    batch.insert(keys::record(7, 0, 0), *b"nonsense");
    store.write(batch).map_err(rows::Failure::into_io).unwrap();
    let error = store.read_range(0, 1000).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    store.append(21, &[record(0, None, b"still written")]).unwrap();
    drop(store);
    let store = reopened(&path);
    assert!(store.moved_aside().is_some());
    assert!(store.read_range(0, 1000).unwrap().is_empty());
}
