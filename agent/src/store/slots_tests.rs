use super::*;
use std::fs;

const LIMIT: u64 = 1024 * 1024;
const SLOT: usize = SLOT_BYTES_MIN as usize;

fn value(text: &str) -> Value {
    Value { version: 7, bytes: text.as_bytes().to_vec() }
}

fn written(texts: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temp folder");
    let path = folder.path().join("store");
    let mut file = SlotFile::create(&path, 7, texts[0].as_bytes()).expect("created");
    for text in &texts[1..] {
        file.write(7, text.as_bytes()).expect("written");
    }
    (folder, path)
}

fn read(path: &Path) -> Result<Value, SlotError> {
    SlotFile::open(path, LIMIT).map(|(_, value)| value)
}

/// Where a value's frame lies in the file.
fn place(number: usize, text: &str) -> std::ops::Range<usize> {
    let at = slot_at(SLOT_BYTES_MIN, number as u64) as usize;
    at..at + SLOT_HEAD_BYTES + text.len() + CRC_BYTES
}

#[test]
fn the_newest_value_is_read_and_written_on() {
    let (_folder, path) = written(&["one", "two", "three"]);
    assert_eq!(read(&path).expect("whole"), value("three"));
    let (mut file, _) = SlotFile::open(&path, LIMIT).expect("whole");
    file.write(7, b"four").expect("written");
    assert_eq!(read(&path).expect("whole"), value("four"));
    assert_eq!(fs::metadata(&path).expect("there").len(), SLOTS_AT + 2 * SLOT_BYTES_MIN, "it is replaced in place");
}

#[test]
fn a_value_that_outgrows_its_slot_gets_a_larger_file() {
    let (_folder, path) = written(&["one", "two"]);
    let big = "x".repeat(SLOT + 1);
    let (mut file, _) = SlotFile::open(&path, LIMIT).expect("whole");
    file.write(7, big.as_bytes()).expect("written");
    assert_eq!(read(&path).expect("whole"), value(&big));
    file.write(7, b"small again").expect("written");
    assert_eq!(read(&path).expect("whole"), value("small again"));
}

/// A power cut or a kill in the middle of the third write: any part of it may be there, the head never is.
#[test]
fn a_write_cut_anywhere_leaves_the_value_before_it() {
    let (_folder, path) = written(&["first", "second"]);
    let before = fs::read(&path).expect("there");
    let (mut file, _) = SlotFile::open(&path, LIMIT).expect("whole");
    file.write(7, b"the third").expect("written");
    let after = fs::read(&path).expect("there");
    let third = place(3, "the third");
    for cut in third.clone() {
        for (front, back) in [(&after, &before), (&before, &after)] {
            let mut torn = before.clone();
            torn[third.start..cut].copy_from_slice(&front[third.start..cut]);
            torn[cut..third.end].copy_from_slice(&back[cut..third.end]);
            let whole = torn[third.clone()] == after[third.clone()];
            fs::write(&path, &torn).expect("torn");
            let want = value(if whole { "the third" } else { "second" });
            assert_eq!(read(&path).expect("the older is whole"), want, "cut at {cut}");
        }
    }
    for bit in 0..third.len() * 8 {
        let mut bad = before.clone();
        bad[third.clone()].copy_from_slice(&after[third.clone()]);
        bad[third.start + bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).expect("flipped");
        assert_eq!(read(&path).expect("the older is whole"), value("second"), "bit {bit}");
    }
}

#[test]
fn a_synced_value_that_is_damaged_is_missed_and_never_replaced_by_an_older_one() {
    let (_folder, path) = written(&["first", "second"]);
    let good = fs::read(&path).expect("there");
    for bit in place(2, "second").flat_map(|byte| (0..8).map(move |bit| byte * 8 + bit)) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).expect("flipped");
        assert!(matches!(read(&path), Err(SlotError::Damaged { .. })), "bit {bit}");
    }
    for byte in (0..HEAD_BYTES).chain(place(1, "first")) {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[byte] ^= 1 << bit;
            fs::write(&path, &bad).expect("flipped");
            assert_eq!(read(&path).expect("the newest is whole"), value("second"), "bit {bit} of {byte}");
        }
    }
}

#[test]
fn a_file_cut_short_is_damaged_unless_its_newest_value_is_whole() {
    let (_folder, path) = written(&["first", "second"]);
    let good = fs::read(&path).expect("there");
    let end = place(2, "second").end;
    let cuts =
        (0..end).filter(|cut| *cut < 64 || *cut >= SLOTS_AT as usize).chain([SLOTS_AT as usize + SLOT, good.len() - 1]);
    for cut in cuts {
        fs::write(&path, &good[..cut]).expect("cut");
        let seen = read(&path);
        match cut < end {
            true => assert!(matches!(seen, Err(SlotError::Damaged { .. })), "cut at {cut}: {seen:?}"),
            false => assert_eq!(seen.expect("whole"), value("second"), "cut at {cut}"),
        }
    }
    let gone = read(&path.with_file_name("other"));
    assert!(matches!(gone, Err(SlotError::Durable(DurableError::Missing { .. }))), "{gone:?}");
}

#[test]
fn without_its_head_one_slot_alone_proves_nothing() {
    let (_folder, path) = written(&["first", "second"]);
    let good = fs::read(&path).expect("there");
    for slot in [place(1, "first"), place(2, "second")] {
        let mut bad = good.clone();
        bad[..HEAD_BYTES].fill(0);
        bad[slot.start] ^= 1;
        fs::write(&path, &bad).expect("damaged");
        assert!(matches!(read(&path), Err(SlotError::Damaged { .. })));
    }
}

#[test]
fn a_file_that_was_removed_or_replaced_takes_no_more_values() {
    let (_folder, path) = written(&["first"]);
    let (mut file, _) = SlotFile::open(&path, LIMIT).expect("whole");
    fs::rename(&path, path.with_extension("moved")).expect("moved");
    assert!(matches!(file.write(7, b"second"), Err(DurableError::Io { .. })));
    fs::copy(path.with_extension("moved"), &path).expect("copied");
    assert!(file.write(7, b"second").expect_err("it is another file").to_string().contains("taken its place"));
}
