//! How far the simulator can be believed: the same 200 short jobs on `muster dev`, with real processes, and in a
//! simulated copy that knows of them only how long they sleep, and of this machine how long the first half of them took
//! to start and to end. The waits of the other half are judged, and the order of all.
//!
//! The jobs come in waves on an idle cluster, so that a moment lost in one wave is not carried into the next. Those of
//! `data/fidelity_jobs.csv` were drawn at random, and kept where the order of starts stayed the same in eight plays with
//! each submit, start and run moved by up to a tenth of a second.

use super::dev::small;
use muster_proto::client::Job;
use muster_tests::cluster::alone;
use muster_tests::cluster::people::Person;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// By how much the mean wait of the second half may differ, in percent of the real one.
const WITHIN_PERCENT: f64 = 2.0;
/// Between the end of a wave and the next one: whatever the copy is late by is over then.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, serde::Deserialize)]
struct Planned {
    wave: u32,
    nodes: u32,
    gpus_per_node: u32,
    sleep_ms: u64,
}

fn planned() -> Vec<Planned> {
    let mut reader = csv::Reader::from_reader(include_str!("../../data/fidelity_jobs.csv").as_bytes());
    reader.deserialize().collect::<Result<_, _>>().expect("a table of ours")
}

fn spec(number: usize, job: &Planned) -> Value {
    let Planned { nodes, gpus_per_node, sleep_ms, .. } = job;
    json!({
        "name": format!("sleep-{number}"),
        "gang": {"nodes": nodes, "gpus_per_node": gpus_per_node, "run": format!("sleep {}.{:03}", sleep_ms / 1000, sleep_ms % 1000)},
        "limits": {"expected": format!("{sleep_ms}ms")},
    })
}

/// One job as it was, in State's milliseconds.
#[derive(Debug, Clone, Copy)]
struct Lived {
    id: u64,
    submitted: u64,
    placed: u64,
    started: u64,
    ended: u64,
    sleep: u64,
}

fn lived(job: &Job, sleep: u64) -> Lived {
    assert_eq!(job.state, "SUCCEEDED", "{}", job.cause_text);
    let [attempt] = job.gangs[0].attempts.as_slice() else { panic!("job {} took several attempts", job.id) };
    Lived {
        id: job.id,
        submitted: job.submitted_at_ms,
        placed: attempt.placed_at_ms,
        started: attempt.started_at_ms.expect("it ran"),
        ended: attempt.ended_at_ms.expect("it ended"),
        sleep,
    }
}

async fn live(person: &Person, planned: &[Planned]) -> Vec<Lived> {
    let mut all = Vec::new();
    let mut rest = planned;
    while let Some(first) = rest.first() {
        let (wave, later) = rest.split_at(rest.iter().take_while(|job| job.wave == first.wave).count());
        rest = later;
        let mut ids = Vec::new();
        for job in wave {
            ids.push(person.submit_job(&spec(all.len() + ids.len(), job)).await);
        }
        for (id, job) in ids.into_iter().zip(wave) {
            all.push(lived(&person.ended(id).await, job.sleep_ms));
        }
        // The pace of the work, not a wait for something.
        tokio::time::sleep(PAUSE).await;
    }
    all
}

fn mean(values: impl Iterator<Item = u64>) -> f64 {
    let values: Vec<u64> = values.collect();
    values.iter().sum::<u64>() as f64 / values.len() as f64
}

fn median(values: impl Iterator<Item = u64>) -> f64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values[values.len() / 2] as f64
}

/// What this machine takes to start a job, from the moment that let it start (a submit, or an end) until its ranks run;
/// and from the end of the sleep until the job has ended. Medians, in ms: what one node of a gang gives back before the
/// other may let a job start before any end is told.
fn measured(all: &[Lived]) -> (f64, f64) {
    let moments: Vec<u64> = all.iter().flat_map(|job| [job.submitted, job.ended]).collect();
    let since = |job: &Lived| {
        let let_it = moments.iter().copied().filter(|at| *at <= job.placed).max().expect("its own submit");
        job.started - let_it
    };
    let tail = |job: &Lived| (job.ended - job.started).saturating_sub(job.sleep);
    (median(all.iter().map(since)), median(all.iter().map(tail)))
}

/// The imported past with run times as planned and start-up as measured.
fn copy(imported: &Path, all: &[Lived], (start_ms, tail_ms): (f64, f64)) {
    let sleeps: BTreeMap<String, u64> = all.iter().map(|job| (job.id.to_string(), job.sleep)).collect();
    let trace = imported.join("trace.jsonl");
    let text = std::fs::read_to_string(&trace).expect("an imported trace");
    let line = |line: &str| {
        let mut job: Value = serde_json::from_str(line).expect("a line of a trace");
        if let Some(sleep) = job["job_id"].as_str().and_then(|id| sleeps.get(id)) {
            job["run_ms"] = json!(sleep + tail_ms.round() as u64);
            job["requested_ms"] = json!(sleep);
        }
        job.to_string() + "\n"
    };
    std::fs::write(&trace, text.lines().map(line).collect::<String>()).expect("written");
    let world = imported.join("world.toml");
    let mut table: toml::Table = std::fs::read_to_string(&world).expect("an imported world").parse().expect("TOML");
    let delays = table.entry("delays").or_insert_with(|| toml::Table::new().into());
    delays.as_table_mut().expect("a table").insert("start_ms".into(), (start_ms.round() as i64).into());
    std::fs::write(&world, table.to_string()).expect("written");
}

/// Of each job of a simulated run: when it was placed and how long it had waited by its start, in seconds.
fn simulated(folder: &Path) -> BTreeMap<u64, (f64, f64)> {
    let rows = |name: &str, pick: &dyn Fn(&BTreeMap<String, String>) -> f64| -> BTreeMap<u64, f64> {
        let mut reader = csv::Reader::from_path(folder.join(name)).expect("a table of the run");
        let rows = reader.deserialize::<BTreeMap<String, String>>().map(Result::unwrap);
        rows.map(|row| (row["job_id"].parse().expect("an id"), pick(&row))).collect()
    };
    let number = |row: &BTreeMap<String, String>, column: &str| row[column].parse::<f64>().expect("a number");
    let placed = rows("attempts.csv", &|row| number(row, "placed_s"));
    let waited = rows("jobs.csv", &|row| number(row, "start_s") - number(row, "submit_s"));
    placed.into_iter().map(|(id, at)| (id, (at, waited[&id]))).collect()
}

/// Ids by the moment of their placement; what is decided in one moment is decided in the order of the queue.
fn order(placed: impl Iterator<Item = (u64, f64)>) -> Vec<u64> {
    let mut all: Vec<(u64, f64)> = placed.collect();
    all.sort_by(|one, other| one.1.total_cmp(&other.1).then(one.0.cmp(&other.0)));
    all.into_iter().map(|(id, _)| id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_jobs_start_in_the_same_order_and_wait_as_long_in_the_simulator() {
    let _machine = alone().await;
    let folder = tempfile::tempdir().expect("a temp folder");
    let mut dev = small(folder.path()).await;
    let client = folder.path().join("dev/client");
    let config: toml::Table =
        std::fs::read_to_string(client.join("config.toml")).expect("a file").parse().expect("TOML");
    let servers = config["server"].as_array().expect("a list of servers").iter().filter_map(toml::Value::as_str);
    let person = Person::new(servers.map(str::to_owned).collect(), &client.join("identity"));

    let planned = planned();
    let all = live(&person, &planned).await;
    assert_eq!(all.len(), 200);
    let (fitted, judged) = all.split_at(all.len() / 2);
    assert_ne!(planned[fitted.len() - 1].wave, planned[fitted.len()].wave, "no wave is in both halves");
    let measured = measured(fitted);
    let plain = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let (imported, out) = (folder.path().join("imported"), folder.path().join("out"));
    person.json(&["sim", "import", "--from", "live", "-o", &plain(&imported)]).await;
    copy(&imported, &all, measured);
    let file = |name: &str| plain(&imported.join(name));
    let (policy, world, trace) = (file("policy.toml"), file("world.toml"), file("trace.jsonl"));
    let scene = ["--policy", &policy, "--world", &world, "--trace", &trace];
    person.json(&[&["sim", "run"], &scene[..], &["-o", &plain(&out)]].concat()).await;
    let copied = simulated(&out);
    dev.signal(Signal::SIGINT);
    dev.ended_within(Duration::from_secs(30));

    let real = order(all.iter().map(|job| (job.id, job.placed as f64)));
    let played = order(copied.iter().map(|(id, (placed, _))| (*id, *placed)));
    let real_wait = mean(judged.iter().map(|job| job.started - job.submitted)) / 1000.0;
    let played_wait = judged.iter().map(|job| copied[&job.id].1).sum::<f64>() / judged.len() as f64;
    let percent = 100.0 * (played_wait - real_wait) / real_wait;
    println!(
        "of the first half: start-up {:.1} ms, end {:.1} ms; mean wait of the second {real_wait:.3} s, simulated \
         {played_wait:.3} s, {percent:+.2} %",
        measured.0, measured.1
    );
    let first = real.iter().zip(&played).position(|(one, other)| one != other);
    if let Some(at) = first {
        let of = all.iter().position(|job| job.id == real[at]).expect("one of them");
        let wave = all.iter().zip(&planned).filter(|(_, job)| job.wave == planned[of].wave);
        let row = |(job, planned): (&Lived, &Planned)| {
            let Planned { nodes, gpus_per_node, sleep_ms, .. } = planned;
            let (real_ms, played_ms) = (job.placed - job.submitted, copied[&job.id].0 * 1000.0 - job.submitted as f64);
            format!(
                "{}: {nodes} x {gpus_per_node} for {sleep_ms} ms, placed {real_ms} ms after its submit, simulated {played_ms:.0}\n",
                job.id
            )
        };
        let wave: String = wave.map(row).collect();
        panic!("start {at} is of another job, in this wave:\n{wave}");
    }
    assert_eq!(real.len(), played.len());
    assert!(!real.is_sorted(), "the order of starts is more than that of submits");
    assert!(
        percent.abs() <= WITHIN_PERCENT,
        "mean wait of the second half {real_wait:.3} s, simulated {played_wait:.3} s, {percent:+.2} %"
    );
}
