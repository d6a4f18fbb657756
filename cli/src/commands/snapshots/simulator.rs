//! Answers of the simulator's commands, from small runs of their own.

use super::*;
use muster_sim::compare::CompareArgs;
use muster_sim::sweep::{Axis, SweepArgs};
use muster_sim::trace::BadRows;
use muster_sim::{ImportArgs, SceneArgs};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const TRACE: &str = "job_id,num_gpu,submit_time,duration\n0,8,0,60\n1,16,10,30\n2,4,20,5\n3,4,21,40\n";

fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    std::fs::write(folder.join(name), text).expect("written");
    folder.join(name)
}

fn scene(folder: &Path) -> SceneArgs {
    let world = file(folder, "world.toml", "[[nodes]]\ncount = 2\ndevices = 8\n");
    SceneArgs { check: true, ..SceneArgs::of(world, file(folder, "t.csv", TRACE)) }
}

fn plain(document: &Value) -> Value {
    serde_json::from_str(&without_digests(&document.to_string())).expect("still a document")
}

/// Software fails at random, so that seeds differ.
#[test]
fn compare_of_two_policies() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let scene = SceneArgs {
        world: file(
            dir,
            "frail.toml",
            "[[nodes]]\ncount = 2\ndevices = 8\n\n[failures.software]\nper_1000_days = 50000.0\n",
        ),
        trace: file(
            dir,
            "long.csv",
            "job_id,num_gpu,submit_time,duration\n0,8,0,3600\n1,16,10,1800\n2,4,20,300\n3,4,21,2400\n",
        ),
        ..scene(dir)
    };
    let args = CompareArgs {
        policies: vec![
            file(dir, "fifo.toml", "order = \"fifo\"\n\n[backfill]\nreserve_depth = 1\n"),
            file(dir, "smallest.toml", "order = \"smallest\"\n"),
        ],
        scene,
        seeds: 4,
        threads: 2,
        output: dir.join("out"),
    };
    let compared = muster_sim::compare::compare(&args, &AtomicBool::new(false), |_, _| ()).expect("it runs");
    check("sim_compare", sim::compare::render(&compared), plain(&sim::compare::document(&compared)));
}

#[test]
fn sweep_over_two_orders() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let args = SweepArgs {
        policy: file(dir, "fifo.toml", "order = \"fifo\"\n"),
        scene: scene(dir),
        grid: vec![
            Axis::parse("policy.order=fifo,smallest").expect("an axis"),
            Axis::parse("policy.backfill.reserve_depth=0,1").expect("an axis"),
        ],
        seeds: 1,
        threads: 2,
        output: dir.join("out"),
    };
    let sweep = muster_sim::sweep::sweep(&args, &AtomicBool::new(false), |_, _| ()).expect("it runs");
    check("sim_sweep", sim::sweep::render(&sweep), plain(&sim::sweep::document(&sweep)));
}

/// `sim gen` answers with the same card.
#[test]
fn import_with_a_bad_row() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let trace = file(dir, "t.csv", &format!("{TRACE}4,2,thirty,1\n5,0,40,10\n"));
    let args = ImportArgs {
        trace,
        format: None,
        throughputs: None,
        bad_rows: BadRows::Skip,
        start_job: 0,
        jobs: None,
        output: Some(dir.join("t.jsonl")),
    };
    let card = muster_sim::import(&args).expect("it is read");
    check("sim_import", sim::import::render(&card), plain(&sim::import::document(&card)));
}
