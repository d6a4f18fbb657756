//! "Durable" means: survives a power cut. Real stores under the recorder, the disks a cut could leave, and the real stores
//! again. Engines with a known flaw show that these images would notice.

use muster_tests::crash::engine::Engine;
use muster_tests::crash::planted::Flaw;
use muster_tests::crash::series::{Plan, Tally, run};
use std::path::PathBuf;

/// Images of the stores in use; `muster-crash-images` makes more.
const IMAGES: u64 = 200;
/// Within so many images each flaw is noticed.
const FLAW_IMAGES: u64 = 45;
const SEED: u64 = 1;

fn plan(engine: Engine) -> Plan {
    Plan {
        program: PathBuf::from(env!("CARGO_BIN_EXE_muster-crash-images")),
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
    for flaw in [Flaw::NoSync, Flaw::VoteUnsynced, Flaw::RenameWithoutFolderSync] {
        let tally = tally(&plan(Engine::Planted(flaw)), SEED);
        assert!(!tally.misses.is_empty(), "{flaw:?} was not noticed");
    }
}

#[test]
fn an_engine_without_a_flaw_passes_every_image() {
    let tally = tally(&plan(Engine::Planted(Flaw::None)), SEED);
    assert_eq!((tally.images, &tally.misses), (FLAW_IMAGES, &Vec::new()));
}
