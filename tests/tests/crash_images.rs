//! "Durable" means: survives a power cut. Real stores under the recorder, the disks a cut could leave, and the real stores
//! again. Engines with a known flaw show that these images would notice.

use muster_tests::crash::engine::Engine;
use muster_tests::crash::life::live;
use muster_tests::crash::planted::Flaw;
use muster_tests::crash::record::{Event, parse};
use muster_tests::crash::series::{Plan, Tally, run};
use muster_tests::crash::workload::{Life, folders};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Images of the stores in use; `muster-crash-images` makes more.
const IMAGES: u64 = 200;
/// Within so many images each flaw is noticed.
const FLAW_IMAGES: u64 = 45;
const SEED: u64 = 1;
const PROGRAM: &str = env!("CARGO_BIN_EXE_muster-crash-images");

fn plan(engine: Engine) -> Plan {
    Plan {
        program: PathBuf::from(PROGRAM),
        engine,
        with_history: false,
        ops: 100,
        images: FLAW_IMAGES,
        damage_percent: 0,
        keep: None,
    }
}

fn tally(plan: &Plan, seed: u64) -> Tally {
    let tally = run(plan, seed).expect("the images can be made");
    println!("engine {}, seed {seed}: {tally}", plan.engine);
    tally
}

#[test]
fn no_power_cut_loses_what_was_acknowledged_and_only_damage_is_refused() {
    // Half with the history, which takes longer to open.
    let mut total = Tally::default();
    for (number, with_history) in [(1, true), (2, false)] {
        let keep = Some(std::env::temp_dir().join("muster-crash-images"));
        let plan = Plan { images: IMAGES / 2, with_history, damage_percent: 25, keep, ops: 150, ..plan(Engine::Wal) };
        total.add(tally(&plan, SEED + number));
    }
    for miss in &total.misses {
        println!("MISS {}\n     {}", miss.what, miss.repeat);
    }
    assert_eq!(total.misses.len(), 0, "{total}");
    assert_eq!(total.images, IMAGES);
    assert!(total.refused > 0, "no damage was ever refused: {total}");
}

#[test]
fn each_planted_flaw_is_noticed_within_the_images_of_a_test_run() {
    for flaw in [Flaw::NoSync, Flaw::VoteUnsynced, Flaw::RenameWithoutFolderSync, Flaw::RetryAfterFailedSync] {
        let tally = tally(&plan(Engine::Planted(flaw)), SEED);
        // A life that could not be recorded is a miss too, and judges no image.
        let noticed = tally.misses.iter().any(|miss| miss.repeat.contains("--image"));
        assert!(noticed, "{flaw:?} was not noticed: {:?}", tally.misses);
    }
}

#[test]
fn an_engine_without_a_flaw_passes_every_image() {
    let tally = tally(&plan(Engine::Planted(Flaw::None)), SEED);
    assert_eq!((tally.images, &tally.misses), (FLAW_IMAGES, &Vec::new()));
}

/// Stores on which processes live one after another; nothing is lost between them, as when only a process dies.
struct Stores(tempfile::TempDir);

impl Stores {
    fn new() -> Self {
        let stores = Self(tempfile::tempdir().unwrap());
        folders(&stores.data()).iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
        stores
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn live(&self, ops: u64, record: &Path) {
        let (engine, with_history) = (Engine::Wal, false);
        let life = Life { engine, seed: SEED, ops, file_bytes: 4 << 20, with_history, committed: None };
        live(Path::new(PROGRAM), &self.data(), record, &life).unwrap();
    }

    /// Lets a process make so many calls; what it did.
    fn lived(&self, ops: u64) -> Vec<Event> {
        let record = self.0.path().join("record");
        self.live(ops, &record);
        let events = parse(&fs::read(&record).unwrap()).unwrap();
        fs::remove_file(record).unwrap();
        events
    }

    /// The newest file of the log: its path in records, and its bytes.
    fn newest_of_log(&self) -> (String, Vec<u8>) {
        let listed = fs::read_dir(self.data().join("log")).unwrap().map(|entry| entry.unwrap().path());
        let newest = listed.filter(|path| path.extension().is_some_and(|extension| extension == "wal")).max().unwrap();
        let name = newest.file_name().unwrap().to_str().unwrap();
        (format!("log/{name}"), fs::read(&newest).unwrap())
    }
}

/// Whether a sync of what was there under this path succeeded.
fn was_synced(events: &[Event], wanted: &str) -> bool {
    let (mut ids, mut syncs) = (BTreeSet::new(), BTreeSet::new());
    for event in events {
        match event {
            Event::Known { id, path } if path == wanted => drop(ids.insert(*id)),
            Event::SyncBegan { token, id: Some(id) } if ids.contains(id) => drop(syncs.insert(*token)),
            Event::SyncEnded { token, good: true } if syncs.contains(token) => return true,
            _ => {}
        }
    }
    false
}

#[test]
fn what_only_the_page_cache_may_hold_is_written_again_before_it_is_synced_and_trusted() {
    /// Of a sector's head: where its place in the batch stands.
    const ORDINAL: std::ops::Range<usize> = 12..14;
    let stores = Stores::new();
    stores.lived(30);
    let (path, before) = stores.newest_of_log();
    let events = stores.lived(0);
    let known = |event: &Event| matches!(event, Event::Known { path: known, .. } if *known == path);
    let Some(Event::Known { id: wanted, .. }) = events.iter().find(|event| known(event)) else {
        panic!("{path} was not opened");
    };
    let first = events.iter().find(|event| match event {
        Event::Written { id, .. } | Event::SyncBegan { id: Some(id), .. } => id == wanted,
        _ => false,
    });
    let Some(Event::Written { offset, bytes, .. }) = first else {
        panic!("its last batch was trusted as the page cache has it: {first:?}");
    };
    let (from, to) = (*offset as usize, *offset as usize + bytes.len());
    assert!(before[from..to] == bytes[..] && bytes[ORDINAL] == [0, 0], "what was written is no batch of the file");
    assert!(before[to..].iter().all(|byte| *byte == 0), "a later batch follows");
    assert!(was_synced(&events, &path));
}

#[test]
fn a_name_that_was_found_is_synced_before_anything_is_written_under_it() {
    let stores = Stores::new();
    stores.lived(0);
    let events = stores.lived(0);
    let opened = events.iter().position(|event| matches!(event, Event::Mark(_))).expect("the stores were opened");
    let opening = &events[..opened];
    let made = opening.iter().find(|event| matches!(event, Event::Renamed { .. }));
    assert_eq!(made, None, "the empty file of the log was not taken on, and this test shows nothing");
    for folder in ["log", "snapshots"] {
        assert!(was_synced(opening, folder), "{folder} was trusted as the page cache has it");
    }
}

#[test]
fn a_record_into_which_a_second_process_wrote_is_refused() {
    let stores = Stores::new();
    let record = stores.0.path().join("record");
    stores.live(0, &record);
    stores.live(0, &record);
    let refused =
        parse(&fs::read(record).unwrap()).expect_err("two processes count their files each from 0").to_string();
    assert!(refused.contains("second process"), "{refused}");
}
