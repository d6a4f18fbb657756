use super::*;
use crate::assignment::tests::assignment;
use muster_proto::agent::Phase::Prepare;

pub fn held(job: u64, index: u64, slots: &[u32]) -> (Key, Held) {
    let assignment = assignment(job, index, Prepare, slots);
    let run = assignment.run.expect("it runs");
    let held = Held::new(run, assignment.stop, 1_000, "boot".to_owned());
    (assignment.key, held)
}

pub fn exit(rank: u32, code: i32) -> RankExit {
    RankExit { rank, code, signal: 0, why: String::new(), wall_ms: 1_000 }
}

fn open(dir: &Path) -> Store {
    Store::open(dir, || "fresh".to_owned()).expect("a usable folder")
}

#[test]
fn what_is_saved_is_there_after_opening_again() {
    let dir = tempfile::tempdir().expect("a temp folder");
    let mut store = Store::open(dir.path(), || "first".to_owned()).expect("a usable folder");
    assert!(store.is_lost(), "an absent store proves nothing");
    let (key, record) = held(1, 50, &[0]);
    store.accept(key, record.clone());
    store.report(Some(key), ReportBody::Prepared);
    store.advance_seen(Position { generation: 1, term: 2, applied_index: 51 });
    store.save().expect("saved");
    let again = open(dir.path());
    assert!(!again.is_lost());
    assert_eq!((again.id(), again.seen().term), ("first", 2));
    assert_eq!(again.held().get(&key), Some(&record));
    assert_eq!(again.reports().len(), 1);
}

#[test]
fn rule_5b_a_report_is_kept_until_it_is_acknowledged() {
    let dir = tempfile::tempdir().expect("a temp folder");
    let mut store = open(dir.path());
    let (key, _) = held(1, 50, &[0]);
    for _ in 0..3 {
        store.report(Some(key), ReportBody::Started);
    }
    assert!(!store.acknowledge(99), "a number never given out was believed");
    assert_eq!(store.reports().len(), 3);
    assert!(store.acknowledge(2));
    store.save().expect("saved");
    let mut again = open(dir.path());
    assert_eq!((again.first_report(), again.reports().len()), (3, 1));
    assert!(again.acknowledge(3));
    assert_eq!(again.first_report(), 4, "a number is never used twice");
}

/// A store with a fault of slot 1, then GPU-1, that waits for a server.
fn with_fault(dir: &Path) -> Store {
    let mut store = open(dir);
    let fault = ReportBody::DeviceFault { slot: 1, xid: 79, why: "lost".to_owned(), fatal: true };
    store.report_of(Some("GPU-1".to_owned()), fault);
    store.save().expect("saved");
    store
}

#[test]
fn a_fault_that_waits_keeps_the_name_of_its_device() {
    let dir = tempfile::tempdir().expect("a temp folder");
    let store = with_fault(dir.path());
    let again = open(dir.path());
    assert_eq!(again.reports(), store.reports());
    assert_eq!(again.reports()[&1].device.as_deref(), Some("GPU-1"));
}

#[test]
fn a_store_from_before_faults_named_their_device_is_read_and_the_other_way_round() {
    let dir = tempfile::tempdir().expect("a temp folder");
    let store = with_fault(dir.path());
    // The image alone is what an earlier agent writes, and all that it reads.
    let earlier = postcard::to_stdvec(&store.image).expect("plain data");
    let read = postcard::from_bytes::<Image>(&store.image.encode()).expect("an earlier agent reads it");
    assert_eq!(postcard::to_stdvec(&read).expect("plain data"), earlier);
    SlotFile::create(&dir.path().join(FILE), VERSION, &earlier).expect("written");
    let again = open(dir.path());
    assert!(!again.is_lost(), "it was not believed");
    let report = &again.reports()[&1];
    assert_eq!((&report.body, report.device.as_deref()), (&store.reports()[&1].body, None));
}

#[test]
fn a_fault_is_put_off_once_for_each_device_and_numbered_after_all_others() {
    let dir = tempfile::tempdir().expect("a temp folder");
    let mut store = with_fault(dir.path());
    store.report(None, ReportBody::Released { lease_expired: false });
    let unregistered = BTreeSet::from(["GPU-1".to_owned()]);
    assert!(store.sort_faults(&unregistered));
    assert!(!store.sort_faults(&unregistered), "it is put off already");
    for xid in 0..3 {
        let fault = ReportBody::DeviceFault { slot: 1, xid, why: String::new(), fatal: true };
        store.put_off("GPU-1".to_owned(), fault);
    }
    assert_eq!(store.reports().keys().collect::<Vec<_>>(), [&2]);
    store.acknowledge(2);
    store.save().expect("saved");
    let mut again = open(dir.path());
    assert!(again.sort_faults(&BTreeSet::new()));
    assert_eq!(again.reports().len(), 1);
    let (number, report) = again.reports().first_key_value().expect("one");
    assert_eq!((*number, report.device.as_deref()), (3, Some("GPU-1")));
    assert!(matches!(report.body, ReportBody::DeviceFault { xid: 79, .. }), "the first that was told: {report:?}");
}

#[test]
fn no_more_devices_faults_are_put_off_than_a_node_has() {
    let dir = tempfile::tempdir().expect("a temp folder");
    let mut store = open(dir.path());
    for device in 0..PUT_OFF_MAX + 2 {
        let fault = ReportBody::DeviceFault { slot: 0, xid: 79, why: String::new(), fatal: true };
        store.put_off(format!("GPU-{device}"), fault);
    }
    store.sort_faults(&BTreeSet::new());
    assert_eq!(store.reports().len(), PUT_OFF_MAX);
}

#[test]
fn rule_8b_a_damaged_store_is_moved_aside_and_counts_as_lost() {
    let dir = tempfile::tempdir().expect("a temp folder");
    let mut store = Store::open(dir.path(), || "first".to_owned()).expect("a usable folder");
    let (key, record) = held(1, 50, &[0]);
    store.accept(key, record);
    store.save().expect("saved");
    let path = dir.path().join(FILE);
    let good = fs::read(&path).expect("there");
    let mut flipped = good.clone();
    // In the slot of the second value, the newest.
    flipped[4096 + 30] ^= 1;
    for (n, bad) in [flipped.as_slice(), &good[..4096], &[], b"nonsense"].into_iter().enumerate() {
        fs::write(&path, bad).expect("damaged");
        let opened = open(dir.path());
        assert!(opened.is_lost(), "damage {n} was taken for an empty store");
        assert_eq!((opened.id(), opened.held().len()), ("fresh", 0));
        assert_eq!(fs::read(path.with_extension(format!("damaged-{}", n + 1))).expect("kept"), bad);
    }
}

#[test]
fn a_store_of_another_release_is_refused_with_what_to_do_and_left_as_it_is() {
    let dir = tempfile::tempdir().expect("a temp folder");
    let path = dir.path().join(FILE);
    let refused = || {
        let before = fs::read(&path).expect("there");
        let error = Store::open(dir.path(), || "fresh".to_owned()).expect_err("refused").to_string();
        assert_eq!(fs::read(&path).expect("left alone"), before);
        error
    };
    durable::write_sealed(&path, 2, b"an earlier one").expect("written");
    let error = refused();
    assert!(error.contains("format 2") && error.contains("move the file away"), "{error}");
    SlotFile::create(&path, VERSION + 1, b"a later one").expect("written");
    assert!(refused().contains("has format 4"));
}

#[test]
fn rule_8b_a_store_whose_report_numbers_cannot_be_true_counts_as_lost() {
    for next_report in [0, 1, u64::MAX] {
        let dir = tempfile::tempdir().expect("a temp folder");
        let mut store = open(dir.path());
        store.report(None, ReportBody::Released { lease_expired: false });
        store.image.next_report = next_report;
        store.save().expect("saved");
        let mut again = open(dir.path());
        assert!(again.is_lost(), "{next_report} was believed");
        again.report(None, ReportBody::Released { lease_expired: false });
        assert_eq!(again.reports().len(), 1);
    }
}

#[test]
fn a_forgotten_allocation_leaves_its_token_spent() {
    let dir = tempfile::tempdir().expect("a temp folder");
    let mut store = open(dir.path());
    let (key, record) = held(1, 50, &[0]);
    store.accept(key, record);
    store.forget(&key);
    let again = assignment(1, 50, Prepare, &[0]);
    let refusal = store.ledger().check(&again, again.run.as_ref().expect("it runs"));
    assert!(matches!(refusal, Err(Refusal::Spent { .. })), "{refusal:?}");
}

#[test]
fn what_a_restored_server_is_told_again_ends_in_something_that_it_can_conclude() {
    let (_, mut record) = held(1, 50, &[0]);
    let ranks = |exits: &[(u32, i32)]| exits.iter().map(|(rank, code)| (*rank, exit(*rank, *code))).collect();
    record.gone = true;
    let released = ReportBody::Released { lease_expired: false };
    for (exits, concluded) in
        [(&[][..], false), (&[(2, 0)], false), (&[(2, 0), (3, 0)], true), (&[(2, 0), (3, 9)], true), (&[(3, 9)], true)]
    {
        record.exits = ranks(exits);
        let told = record.told();
        assert_eq!(told.contains(&released), !concluded, "a shim vanished after {exits:?}: {told:?}");
        assert_eq!(told.len(), exits.len() + usize::from(!concluded));
    }
}

#[test]
fn a_forgotten_allocations_end_is_remembered() {
    let dir = tempfile::tempdir().expect("a temp folder");
    let mut store = open(dir.path());
    let (key, mut record) = held(1, 50, &[0]);
    record.gone = true;
    record.exits = (2..4).map(|rank| (rank, exit(rank, 0))).collect();
    let told = record.told();
    store.accept(key, record);
    store.forget(&key);
    store.save().expect("saved");
    assert_eq!(open(dir.path()).ends().told(&key), Some(&told[..]));
    fs::remove_file(dir.path().join(FILE)).expect("it was there");
    let lost = Store::open(dir.path(), || "another".to_owned()).expect("a usable folder");
    assert_eq!(lost.ends().told(&key), None, "a lost store's word");
}

#[test]
fn idle_talk_is_left_out_before_evidence_is() {
    let dir = tempfile::tempdir().expect("a temp folder");
    let mut store = open(dir.path());
    for _ in 0..REPORTS_SOFT_MAX + 10 {
        store.report(None, ReportBody::DeviceFault { slot: 0, xid: 13, why: String::new(), fatal: false });
    }
    assert_eq!(store.reports().len(), REPORTS_SOFT_MAX);
    store.report(None, ReportBody::Released { lease_expired: false });
    assert_eq!(store.reports().len(), REPORTS_SOFT_MAX + 1);
}
