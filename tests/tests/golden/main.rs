//! The golden runs: `muster sim run` on public traces, job by job against what other simulators
//! decided. They judge every change of the engine; see `data/golden/README.md`.

mod fgd;
mod gavel;

use muster_tests::binary::muster;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

type Table = BTreeMap<u64, BTreeMap<String, String>>;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden").join(name)
}

fn reader(path: &Path) -> csv::Reader<Box<dyn Read>> {
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let packed = path.extension().is_some_and(|ending| ending == "gz");
    csv::Reader::from_reader(if packed { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// Records by the number in column `key`.
fn table(path: &Path, key: &str) -> Table {
    let mut reader = reader(path);
    let rows = reader.deserialize::<BTreeMap<String, String>>();
    rows.map(|row| row.unwrap()).map(|row| (row[key].parse().unwrap(), row)).collect()
}

/// What one run wrote.
struct Run {
    jobs: Table,
    /// What was printed.
    document: serde_json::Value,
    folder: tempfile::TempDir,
}

fn example(folder: &str, name: &str) -> PathBuf {
    repository().join("examples").join(folder).join(format!("{name}.toml"))
}

/// With an example's policy and world.
fn sim(policy: &str, world: &str, trace: &str, more: &[&str]) -> Run {
    run(&example("policies", policy), &example("worlds", world), &data(trace), more)
}

fn run(policy: &Path, world: &Path, trace: &Path, more: &[&str]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(muster())
        .current_dir(repository())
        .args(["sim", "run", "--json", "--policy"])
        .arg(policy)
        .arg("--world")
        .arg(world)
        .arg("--trace")
        .arg(trace)
        .arg("--output")
        .arg(folder.path())
        .args(more)
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} on {}: {}\n{talk}", policy.display(), trace.display(), output.status);
    Run {
        jobs: table(&folder.path().join("jobs.csv"), "job_id"),
        document: serde_json::from_slice(&output.stdout).unwrap(),
        folder,
    }
}

/// Every named column of every job equal to the expected one; all differences counted, ten shown.
fn assert_jobs_equal(what: &str, run: &Run, expected: &Table, columns: &[(&str, String)]) {
    assert!(run.jobs.keys().eq(expected.keys()), "{what}: not the same jobs");
    let mut differences = Vec::new();
    for (id, row) in expected {
        for (ours, theirs) in columns {
            let (got, want) = (&run.jobs[id][*ours], &row[theirs]);
            if got.parse::<f64>() != Ok(want.parse().unwrap()) {
                differences.push(format!("job {id}: {ours} is {got}, {theirs} is {want}"));
            }
        }
    }
    let count = differences.len();
    differences.truncate(10);
    assert!(count == 0, "{what}: {count} differences\n{}", differences.join("\n"));
}

fn whole_batch_trace(name: &str) {
    let expected = table(&data("hpcsim_lublin256_full_starts.csv.gz"), "job_id");
    for (policy, column) in [
        (format!("{name}-strict"), format!("start_{name}_nobf")),
        (format!("{name}-strict-backfill"), format!("start_{name}_bf")),
    ] {
        let run = sim(&policy, "256-processors", "lublin_256.swf.gz", &[]);
        assert_eq!(run.jobs.len(), 10_000);
        assert_jobs_equal(&policy, &run, &expected, &[("start_s", column)]);
    }
}

#[test]
fn fcfs_starts_all_10_000_jobs_as_expected() {
    whole_batch_trace("fcfs");
}

/// The same, where every processor is a node of its own.
#[test]
fn whole_nodes_start_all_10_000_jobs_as_expected() {
    let expected = table(&data("hpcsim_lublin256_full_starts.csv.gz"), "job_id");
    let run = sim("fcfs-strict", "256x1", "lublin_256.swf.gz", &[]);
    let column = "start_fcfs_nobf".to_owned();
    assert_jobs_equal("fcfs-strict on 256 nodes", &run, &expected, &[("start_s", column)]);
}

/// Two runs of one input leave the same bytes behind, and no invariant breaks on the way.
#[test]
fn equal_inputs_give_equal_bytes() {
    let of = |more: &[&str]| sim("srtf-refill", "2x8", "60_job.csv", more);
    let (first, second) = (of(&["--check"]), of(&[]));
    for name in ["jobs.csv", "summary.json", "manifest.json"] {
        let bytes = |run: &Run| std::fs::read(run.folder.path().join(name)).unwrap();
        assert!(bytes(&first) == bytes(&second), "{name} differs");
    }
}

#[test]
fn sjf_starts_all_10_000_jobs_as_expected() {
    whole_batch_trace("sjf");
}

#[test]
fn f1_starts_all_10_000_jobs_as_expected() {
    whole_batch_trace("f1");
}

#[test]
fn smallest_first_starts_all_10_000_jobs_as_expected() {
    whole_batch_trace("smallest");
}

/// One row of the published windows against the summary, to the last printed digit.
fn assert_window(policy: &Path, row: &csv::StringRecord, heads: &csv::StringRecord) {
    let field = |name: &str| &row[heads.iter().position(|head| head == name).unwrap()];
    let start = field("start_index0");
    let window = ["--start-job", start, "--jobs", "1024"];
    let run = run(policy, &example("worlds", "256-processors"), &data("lublin_256.swf.gz"), &window);
    assert_eq!(run.jobs.len(), 1_024);
    assert_eq!(run.jobs.keys().next().unwrap().to_string(), field("first_job_id"));
    for (name, pointer) in [
        ("avg_bsld", "/bsld/mean"),
        ("avg_wait_s", "/wait_s/mean"),
        ("avg_turnaround_s", "/turnaround_s/mean"),
        ("max_wait_s", "/wait_s/max"),
        ("makespan_s", "/makespan_s"),
        ("util_published_def", "/utilisation/until_last_start"),
        ("util_full_span", "/utilisation/full_span"),
    ] {
        let want = field(name);
        let digits = want.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        let got = run.document["summary"].pointer(pointer).and_then(serde_json::Value::as_f64).unwrap();
        assert_eq!(format!("{got:.digits$}"), want, "{}, window from {start}: {name}", policy.display());
    }
}

/// Without and with backfill.
fn windows(published: &str, policy: &str) {
    let policies = ["strict", "strict-backfill"].map(|kind| example("policies", &format!("{policy}-{kind}")));
    windows_of(published, &policies);
}

fn windows_of(published: &str, policies: &[PathBuf; 2]) {
    let mut reader = csv::Reader::from_path(data("hpcsim_lublin256_windows.csv")).unwrap();
    let heads = reader.headers().unwrap().clone();
    let column = |name: &str| heads.iter().position(|head| head == name).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    for (backfill, policy) in ["0", "1"].into_iter().zip(policies) {
        let of_policy =
            |row: &&csv::StringRecord| &row[column("policy")] == published && &row[column("backfill")] == backfill;
        let rows: Vec<_> = rows.iter().filter(of_policy).collect();
        assert_eq!(rows.len(), 10, "{published} with backfill {backfill}");
        rows.iter().for_each(|row| assert_window(policy, row, &heads));
    }
}

#[test]
fn fcfs_averages_of_all_ten_windows_are_as_published() {
    windows("FCFS", "fcfs");
}

#[test]
fn sjf_averages_of_all_ten_windows_are_as_published() {
    windows("SJF", "sjf");
}

#[test]
fn f1_averages_of_all_ten_windows_are_as_published() {
    windows("F1", "f1");
}

#[test]
fn smallest_first_averages_of_all_ten_windows_are_as_printed() {
    windows("SMALLEST", "smallest");
}

/// An order of WFP3 or UNICEP as RLScheduler computes them: with the wait of a job that waits taken as -1 less its
/// submit time, so that what is oldest goes last.
fn windows_with_the_defect(published: &str, formula: &str) {
    let folder = tempfile::tempdir().unwrap();
    let policies = ["f1-strict", "f1-strict-backfill"].map(|name| {
        let text = std::fs::read_to_string(example("policies", name)).unwrap();
        let changed = text.replace("order = \"f1\"", &format!("order = {{ formula = \"{formula}\" }}"));
        assert_ne!(text, changed);
        let path = folder.path().join(format!("{name}.toml"));
        std::fs::write(&path, changed).unwrap();
        path
    });
    windows_of(published, &policies);
}

#[test]
fn wfp3_averages_of_all_ten_windows_are_as_printed() {
    windows("WFP3_true_wait", "wfp3");
}

#[test]
fn unicep_averages_of_all_ten_windows_are_as_printed() {
    windows("UNICEP_true_wait", "unicep");
}

#[test]
fn wfp3_with_its_authors_wait_is_as_published() {
    windows_with_the_defect("WFP3_as_published", "((1 + submit) / run)^3 * devices");
}

#[test]
fn unicep_with_its_authors_wait_is_as_published() {
    windows_with_the_defect("UNICEP_as_published", "(1 + submit) / (log2(devices + 1e-15) * run)");
}

/// First starts, ends and preemptions of every job.
fn gpu_trace(policy: &str, world: &str, trace: &str, expected: &str, prefix: &str) {
    let expected = table(&data(expected), "job_id");
    let run = sim(policy, world, trace, &[]);
    let columns = [
        ("start_s", format!("{prefix}_start")),
        ("end_s", format!("{prefix}_end")),
        ("preemptions", format!("{prefix}_preempt")),
    ];
    assert_jobs_equal(&format!("{policy} on {trace}"), &run, &expected, &columns);
}

fn window_a(policy: &str, prefix: &str) {
    gpu_trace(policy, "32x8", "philly_window_A.csv.gz", "philly_windowA_32x8_jobs.csv.gz", prefix);
}

fn sixty_jobs(policy: &str, prefix: &str) {
    gpu_trace(policy, "2x8", "60_job.csv", "tiresias_60job_n2g8_jobs.csv", prefix);
}

#[test]
fn fifo_equals_on_the_gpu_window_and_on_sixty_jobs() {
    window_a("fifo", "tir_fifo");
    sixty_jobs("fifo", "fifo-count");
}

#[test]
fn fit_first_equals_on_the_gpu_window_and_on_sixty_jobs() {
    window_a("fit-first", "tir_fjf");
    sixty_jobs("fit-first", "fjf-count");
}

#[test]
fn shortest_remaining_first_equals_with_every_preemption() {
    window_a("srtf-refill", "tir_shortest");
    sixty_jobs("srtf-refill", "shortest-count");
}

/// An order without a name of its own: a formula. On the sixty jobs two gangs come level once.
#[test]
fn least_remaining_work_first_equals_with_every_preemption() {
    window_a("srtf-gpu-refill", "tir_shortest-gpu");
    sixty_jobs("srtf-gpu-refill", "shortest-gpu-count");
}

/// Their program moves a gang to the next queue only at some event, computes its moment from run time where device time
/// is meant, and divides whole numbers; so not every start is the same, and the means are compared.
#[test]
fn least_attained_service_waits_as_long_on_the_gpu_window() {
    let expected = table(&data("philly_windowA_32x8_jobs.csv.gz"), "job_id");
    let run = sim("las-anywhere", "32x8", "philly_window_A.csv.gz", &[]);
    let of = |row: &BTreeMap<String, String>, column: &str| row[column].parse::<f64>().unwrap();
    let mean = |sum: f64| sum / expected.len() as f64;
    let theirs = expected.iter().map(|(id, row)| of(row, "tir_dlas-gpu_end") - of(&run.jobs[id], "submit_s")).sum();
    let ours = run.jobs.values().map(|row| of(row, "end_s") - of(row, "submit_s")).sum();
    let (ours, theirs): (f64, f64) = (mean(ours), mean(theirs));
    let percent = 100.0 * (ours - theirs) / theirs;
    println!("mean turnaround: {ours:.3} s, printed {theirs:.3} s, {percent:+.3} %");
    assert!(percent.abs() <= 0.5, "mean turnaround {ours:.3} s, printed {theirs:.3} s, {percent:+.3} %");
}

/// On the sixty jobs nothing reaches a second queue before something else would have been stopped for it.
#[test]
fn least_attained_service_equals_on_sixty_jobs() {
    for prefix in ["dlas-count", "dlas-gpu-count"] {
        sixty_jobs("las-anywhere", prefix);
    }
}

#[test]
fn consolidated_fifo_equals_on_the_gpu_window() {
    window_a("fifo-consolidated", "lucid_fifo");
}

#[test]
fn consolidated_sjf_equals_on_the_gpu_window() {
    window_a("sjf-consolidated", "lucid_sjf");
}
