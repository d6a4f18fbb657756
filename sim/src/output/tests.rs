use crate::columnar::in_seconds;
use crate::columnar::read::{Cell, Table};
use crate::given::files_in;
use crate::{Going, RunArgs, SceneArgs, run};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Failures, preemptions, a job that never fits and one that is cancelled.
const WORLD: &str = "[[nodes]]\ncount = 3\ndevices = 8\n\n[failures.node]\nper_1000_days = 40000.0\nrepair_mean_s = 300\n\n\
    [[cancellations]]\njob = \"7\"\nat_s = 360\n";

fn args(folder: &Path, output: &str) -> RunArgs {
    let file = files_in(folder);
    let jobs: String =
        (0..60).map(|at| format!("{at},{},{},{}\n", 1 + at * 5 % 11, at * 50, 300 + at * 97 % 900)).collect();
    let trace = file("t.csv", &format!("job_id,num_gpu,submit_time,duration\n{jobs}big,99,3000,5\n"));
    let prices = Some(file("prices.toml", "pue = 1.5\n[[power]]\nidle_w = 100\nbusy_w = 700\n"));
    let scene = SceneArgs { check: true, prices, ..SceneArgs::of(file("world.toml", WORLD), trace) };
    RunArgs {
        policy: file("policy.toml", ""),
        scene,
        seed: 3,
        output: folder.join(output),
        events: false,
        estimates: 30,
    }
}

/// A cell as the CSV tells it; reals with as many digits as it does.
fn told(cell: &Cell, csv: &str, name: &str) -> String {
    match cell {
        Cell::Unknown => String::new(),
        Cell::Whole(value) => value.to_string(),
        Cell::Flag(value) => value.to_string(),
        Cell::Text(text) => text.clone(),
        Cell::Real(value) if csv.contains('.') && !name.ends_with("_s") => {
            format!("{value:.*}", csv.split_once('.').map_or(0, |(_, digits)| digits.len()))
        }
        // Of seconds, those that are no times but figures of many.
        Cell::Real(value) if ["_mean_", "_median_", "_max_", "_p9"].iter().any(|part| name.contains(part)) => {
            format!("{value:.3}")
        }
        Cell::Real(value) => in_seconds((value * 1000.0).round() as u64),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_table_is_the_same_as_csv_and_as_parquet() {
    let folder = tempfile::tempdir().unwrap();
    run(&args(folder.path(), "out"), &mut |_| Going::On).unwrap();
    let output = folder.path().join("out");
    for name in ["jobs", "attempts", "placements", "samples", "nodes", "groups"] {
        let mut csv = csv::Reader::from_path(output.join(format!("{name}.csv"))).unwrap();
        let table = Table::open(std::fs::File::open(output.join(format!("{name}.parquet"))).unwrap()).unwrap();
        assert_eq!(csv.headers().unwrap().iter().collect::<Vec<_>>(), table.columns, "{name}");
        assert_eq!(table.note("muster.schema"), Some(format!("muster.sim.{name}/1").as_str()));
        let mut records = csv.records().map(Result::unwrap);
        let mut unknown = 0;
        table
            .each(|number, cells| {
                let record = records.next().expect("as many rows in both");
                for ((cell, csv), column) in cells.iter().zip(&record).zip(&table.columns) {
                    unknown += u64::from(*cell == Cell::Unknown);
                    assert_eq!(told(cell, csv, column), csv, "{name}, row {number}, {column}");
                }
                Ok(())
            })
            .unwrap();
        assert!(records.next().is_none() && table.rows > 0, "{name}");
        assert_eq!(unknown > 0, name == "jobs", "{name} has {unknown} unknown cells");
    }
}

/// What a run cost is told beside its results: no file of them has it.
#[test]
fn every_decision_is_timed_and_no_file_tells() {
    let folder = tempfile::tempdir().unwrap();
    let report = run(&args(folder.path(), "out"), &mut |_| Going::On).unwrap();
    let timing = report.timing;
    assert_eq!(timing.decisions, report.manifest.cycles);
    assert!(timing.decision_p50_us > 0.0 && timing.decision_p50_us <= timing.decision_p99_us, "{timing:?}");
    assert!(timing.decision_p99_us <= timing.decision_max_us && timing.events_per_s > 0.0, "{timing:?}");
    for name in ["summary.json", "manifest.json", "report.html"] {
        let text = std::fs::read_to_string(folder.path().join("out").join(name)).unwrap();
        assert!(!text.contains("decision_p50") && !text.contains("events_per_s"), "{name}");
    }
}

#[test]
fn power_over_time_sums_to_the_energy_of_the_bill() {
    let folder = tempfile::tempdir().unwrap();
    let report = run(&args(folder.path(), "out"), &mut |_| Going::On).unwrap();
    let samples = |output: &str| -> Vec<BTreeMap<String, String>> {
        let mut csv = csv::Reader::from_path(folder.path().join(output).join("samples.csv")).unwrap();
        csv.deserialize().map(Result::unwrap).collect()
    };
    let of = |row: &BTreeMap<String, String>, name: &str| row[name].parse::<f64>().unwrap();
    let kwh = |row: &BTreeMap<String, String>| of(row, "power_kw") * (of(row, "to_s") - of(row, "from_s")) / 3600.0;
    let sum: f64 = samples("out").iter().map(kwh).sum();
    let billed = report.summary.cost.unwrap().energy_kwh;
    assert!(billed > 0.0 && (sum - billed).abs() < billed / 1000.0, "{sum} {billed}");
    let mut unpriced = args(folder.path(), "unpriced");
    unpriced.scene.prices = None;
    run(&unpriced, &mut |_| Going::On).unwrap();
    assert!(samples("unpriced").iter().all(|row| row["power_kw"].is_empty()));
}

/// The tail is as long for each figure of a group as for all jobs.
#[test]
fn groups_have_the_tail_of_every_figure() {
    let folder = tempfile::tempdir().unwrap();
    let report = run(&args(folder.path(), "out"), &mut |_| Going::On).unwrap();
    let mut csv = csv::Reader::from_path(folder.path().join("out/groups.csv")).unwrap();
    let row = csv.deserialize().map(Result::unwrap).find(|row: &BTreeMap<String, String>| row["by"] == "user").unwrap();
    let group = &report.summary.by_user[0];
    let figures = [("wait", &group.wait_s, "_s"), ("turnaround", &group.turnaround_s, "_s"), ("bsld", &group.bsld, "")];
    for (name, spread, unit) in figures {
        let parts = [
            ("mean", spread.mean),
            ("median", spread.median),
            ("p95", spread.p95),
            ("p99", spread.p99),
            ("p999", spread.p999),
            ("max", spread.max),
        ];
        for (part, value) in parts {
            assert_eq!(row[&format!("{name}_{part}{unit}")], format!("{value:.3}"), "{name} {part}");
        }
    }
    assert!(group.turnaround_s.median < group.turnaround_s.max);
}

#[test]
fn two_runs_leave_the_same_bytes_in_every_file() {
    let folder = tempfile::tempdir().unwrap();
    let files = |output: &str| {
        run(&args(folder.path(), output), &mut |_| Going::On).unwrap();
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(folder.path().join(output)).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        files
            .into_iter()
            .map(|path| (path.file_name().unwrap().to_owned(), std::fs::read(path).unwrap()))
            .collect::<Vec<_>>()
    };
    let (first, second) = (files("a"), files("b"));
    assert_eq!(first.len(), 15);
    for ((name, bytes), (other, again)) in first.iter().zip(&second) {
        assert!(name == other && bytes == again, "{name:?} differs");
    }
}
