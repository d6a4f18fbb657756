//! Answers of the simulator's commands, from small runs of their own.

use super::*;
use muster_sim::compare::CompareArgs;
use muster_sim::explain::ExplainArgs;
use muster_sim::replay::counterfactual::{Past, SAYS};
use muster_sim::sweep::{Axis, SweepArgs};
use muster_sim::trace::BadRows;
use muster_sim::tune::{Constraint, Goal, Range, TuneArgs};
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

#[test]
fn sim_run_of_three_jobs() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| file(folder.path(), name, text);
    let args = muster_sim::RunArgs {
        policy: write("fifo.toml", "order = \"fifo\"\n"),
        scene: SceneArgs {
            prices: Some(write("prices.toml", "[[price]]\ncontract = \"owned\"\nusd_per_gpu_hour = 2.0\n")),
            check: true,
            ..SceneArgs::of(
                write("world.toml", "[[nodes]]\ncount = 2\ndevices = 8\n"),
                write("t.csv", "job_id,num_gpu,submit_time,duration\n0,8,0,60\n1,16,10,30\n2,4,20,5\n"),
            )
        },
        seed: 0,
        output: folder.path().join("out"),
        events: true,
        estimates: 3,
    };
    // Nobody asked: then there are no errors of estimates to tell. The same work with its real starts is held against them, without
    // prices, on a machine that does not tell its memory.
    let jobs = [(0, 8, 0, 60_000, 0), (1, 16, 10_000, 30_000, 58_000), (2, 4, 20_000, 5_000, 20_000)];
    let line = |(id, devices, submit_ms, run_ms, start_ms): (u32, u32, u32, u32, u32)| {
        format!(
            "{{\"job_id\":\"{id}\",\"submit_ms\":{submit_ms},\"run_ms\":{run_ms},\"devices\":{devices},\
             \"recorded_start_ms\":{start_ms}}}\n"
        )
    };
    let recorded = format!("{{\"schema\":\"muster.trace/1\"}}\n{}", jobs.map(line).concat());
    let unasked = muster_sim::RunArgs {
        scene: SceneArgs { trace: write("t.jsonl", &recorded), prices: None, ..args.scene.clone() },
        estimates: 0,
        output: folder.path().join("unasked"),
        ..args.clone()
    };
    for (name, args) in [("sim_run", args), ("sim_run_unasked", unasked)] {
        let report = muster_sim::run(&args, &mut |_| muster_sim::Going::On).expect("it runs");
        // Every machine has its own.
        let timing = muster_sim::stopwatch::Timing {
            decisions: 10,
            decision_p50_us: 41.5,
            decision_p99_us: 212.25,
            decision_max_us: 500.5,
            play_s: 0.25,
            events: 40,
            events_per_s: 160.5,
            peak_memory_bytes: args.scene.prices.is_some().then_some(64 << 20),
        };
        let document = plain(&sim::run::document(&report.summary, &report.manifest, &timing));
        check(name, sim::run::render(&report.summary, &report.manifest), document);
    }
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
            "job_id,num_gpu,submit_time,duration\n0,8,0,3600\n1,16,10,1800\n2,4,20,300\n3,4,21,5000\n",
        ),
        ..scene(dir)
    };
    let args = CompareArgs {
        policies: vec![
            file(dir, "fifo.toml", "order = \"fifo\"\n\n[backfill]\nreserve_depth = 1\n"),
            file(dir, "smallest.toml", "order = \"smallest\"\n"),
        ],
        scene,
        seeds: Some(6),
        threads: 2,
        output: dir.join("out"),
        past: None,
    };
    let compared = muster_sim::compare::compare(&args, &AtomicBool::new(false), |_, _| ()).expect("it runs");
    check("sim_compare", sim::compare::render(&compared), plain(&sim::compare::document(&compared)));
}

/// As of two days of a cluster: nothing fails but what failed then, so there is one run of each policy.
#[test]
fn replay_of_a_past_under_another_policy() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let args = CompareArgs {
        policies: vec![
            file(dir, "policy.toml", "order = \"fifo\"\n\n[backfill]\nreserve_depth = 1\n"),
            file(dir, "smallest.toml", "order = \"smallest\"\n"),
        ],
        scene: scene(dir),
        seeds: Some(1),
        threads: 1,
        output: dir.join("out"),
        past: Some(Past {
            mode: "counterfactual",
            says: SAYS,
            not_modelled: vec!["2 devices were put into quarantine; here they stay in use".into()],
            assumed: vec!["1 jobs: had several attempts: runs as long as the last of them".into()],
        }),
    };
    let compared = muster_sim::compare::compare(&args, &AtomicBool::new(false), |_, _| ()).expect("it runs");
    let document = plain(&sim::replay::document_counterfactual(&compared));
    check("replay_counterfactual", sim::replay::render_counterfactual(&compared), document);
}

#[test]
fn explain_a_wait() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let scene = scene(dir);
    let trace = scene.trace.clone();
    let args = muster_sim::RunArgs {
        policy: file(dir, "fifo.toml", "order = \"fifo\"\n"),
        scene,
        seed: 0,
        output: dir.join("out"),
        events: false,
        estimates: 0,
    };
    muster_sim::run(&args, &mut |_| muster_sim::Going::On).expect("it runs");
    let args = ExplainArgs {
        folder: args.output,
        trace,
        format: None,
        throughputs: None,
        organisation: None,
        job: "1".into(),
        at: None,
    };
    let explained = muster_sim::explain::explain(&args, &mut |_| muster_sim::Going::On).expect("it is played again");
    check("sim_explain", sim::explain::render(&explained), plain(&sim::explain::document(&explained)));
}

#[test]
fn report_made_anew() {
    let page = Path::new("out/fair/report.html");
    check("sim_report", sim::report::render(page), sim::report::document(page));
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

#[test]
fn tune_of_two_parameters() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let jobs: String = (0..24)
        .map(|at| format!("{at},{},{},{}\n", 1 + at * 5 % 8, at * 20, if at % 4 == 0 { 900 } else { 40 + at }))
        .collect();
    let args = TuneArgs {
        policy: file(dir, "fifo.toml", "order = \"fifo\"\n"),
        scene: SceneArgs {
            trace: file(dir, "queue.csv", &format!("job_id,num_gpu,submit_time,duration\n{jobs}")),
            ..scene(dir)
        },
        ranges: vec![
            Range::parse("policy.order=fifo,smallest,sjf,{ priority = { hours_per_class = 0 } }").expect("a range"),
            Range::parse("policy.backfill.reserve_depth=0..2").expect("a range"),
        ],
        goal: Goal::minimize("wait_mean_s").expect("a figure"),
        constraints: vec![Constraint::parse("utilisation>=base").expect("a limit")],
        budget: 40,
        seeds: Some(1),
        parts: 2,
        threads: 2,
        output: dir.join("out"),
    };
    let tuned = muster_sim::tune::tune(&args, &AtomicBool::new(false), |_, _| ()).expect("it runs");
    check("sim_tune", sim::tune::render(&tuned), plain(&sim::tune::document(&tuned)));
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
