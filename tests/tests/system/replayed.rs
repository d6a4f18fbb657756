//! A cluster's own past, played again: its decisions come out the same, a changed one is found, another policy is tried on
//! its States and on its work.

use super::plain;
use muster_engine::command::PlanStep;
use muster_engine::{Command, Entry};
use muster_scheduler::backup;
use muster_scheduler::decisions::{BEGIN, Chapter, ENTRIES, Kept, STATE, pack};
use muster_scheduler::history::{HistoryStore, MemHistory};
use muster_scheduler::machine::Proposal;
use muster_tests::cluster::people::Person;
use muster_tests::cluster::wait::until;
use muster_tests::cluster::{Options, TestCluster};
use serde_json::{Value, json};
use std::io;
use std::path::Path;

fn of_class(name: &str, class: &str, run: &str) -> Value {
    let mut job = super::of_class(name, class, run);
    job["limits"] = json!({"time": "10m"});
    job
}

/// One node, one job at a time: what starts when is the policy's choice. Job ids in the order of their starts.
async fn work(cluster: &TestCluster, day: &str) -> Vec<u64> {
    let user = &cluster.user;
    let gate = cluster.gate(day);
    // It runs on for a while, so that a copy in which it starts sooner still knows of all the others when it ends.
    let first = format!("{}\nsleep 1", gate.script());
    let mut jobs = vec![user.submit_job(&of_class(&format!("{day}-first"), "normal", &first)).await];
    cluster.ranks_running(jobs[0], 1, 8).await;
    for class in ["low", "normal", "high", "low", "high"] {
        let name = format!("{day}-{class}-{}", jobs.len());
        jobs.push(user.submit_job(&of_class(&name, class, "sleep 0.2")).await);
    }
    gate.open();
    let mut starts = Vec::new();
    for id in jobs {
        let ended = user.ended(id).await;
        assert_eq!(ended.state, "SUCCEEDED", "{}", ended.cause_text);
        starts.push((ended.gangs[0].attempts[0].started_at_ms, id));
    }
    starts.sort_unstable();
    starts.into_iter().map(|(_, id)| id).collect()
}

/// The same backup with one placement moved by a device slot; returns the entry it is in.
fn tamper(from: &Path, to: &Path) -> u64 {
    let mut chapters = Vec::new();
    let read = backup::decisions(from, |chapter| chapters.push(chapter)).expect("a backup");
    let is_place = |step: &&mut PlanStep| matches!(step, PlanStep::Place(_));
    let mut changed = 0;
    for chapter in chapters.iter_mut().rev() {
        let Chapter::Entry(entry) = chapter else { continue };
        let Command::CommitPlan(plan) = &mut entry.command else { continue };
        if let Some(PlanStep::Place(placed)) = plan.steps.iter_mut().find(is_place) {
            placed.parts[0].devices.swap(0, 1);
            changed = entry.index;
            break;
        }
    }
    let kept = |Entry { index, term, at, command }: Entry| {
        let payload = Some(Proposal { at, command }.encode());
        Kept { index, term, payload }
    };
    let mut parts: Vec<(u8, Vec<u8>)> = Vec::new();
    for chapter in chapters {
        match chapter {
            Chapter::State(state) => {
                parts.push((BEGIN, state.applied_index().to_le_bytes().to_vec()));
                parts.push((STATE, zstd::encode_all(&state.encode()[..], 1).expect("packed")));
            }
            Chapter::Entry(entry) => parts.push((ENTRIES, pack(&[kept(entry)]).expect("packed"))),
            Chapter::Unreadable(why) => panic!("{why}"),
        }
    }
    let history = HistoryStore::open_memory(MemHistory::default()).expect("memory");
    let head = backup::Head { history_from: read.head.index + 1, ..read.head };
    history.begin_at(head.history_from).expect("memory");
    let all = |show: &mut dyn FnMut(u8, &[u8]) -> io::Result<()>| {
        parts.iter().try_for_each(|(kind, payload)| show(*kind, payload))
    };
    let file = std::fs::File::create(to).expect("created");
    backup::write(file, &head, &read.state, &history, Some(&all)).expect("written");
    changed
}

async fn backup_of(admin: &Person, file: &Path) {
    let made = admin.json(&["cluster", "backup", plain(file)]).await;
    assert!(made["decision_bytes"].as_u64() > Some(100), "{made}");
}

/// Job ids in the order of their starts in a simulated run.
fn started(folder: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(folder.join("jobs.csv")).expect("a table of jobs");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        (cells[2].parse::<f64>().expect("a start"), cells[0].parse().expect("an id"))
    };
    let mut rows: Vec<(f64, u64)> = text.lines().skip(1).map(row).collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    rows.into_iter().map(|(_, id)| id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn decisions_are_made_again_and_the_same_work_is_played_under_other_policies() {
    // Snapshots and a restart in between: the log has several beginnings.
    let options = Options { snapshot_every: vec![40], ..Options::default() };
    let mut cluster = TestCluster::start(1, 1, options).await;
    let (user, admin) = (cluster.user.clone(), cluster.admin.clone());
    let mut order = work(&cluster, "monday").await;
    cluster.servers[0].kill_9();
    cluster.servers[0].start();
    cluster.all_up().await;
    order.extend(work(&cluster, "tuesday").await);

    // Every decision of the live cluster comes out the same; asking is for admins.
    let refused = user.run(&["sim", "replay", "--verify", "live"]).await;
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));
    let verified = admin.json(&["sim", "replay", "--verify", "live"]).await;
    assert_eq!((&verified["differ"], &verified["account"]["states_differ"]), (&json!(0), &json!([])), "{verified:#}");
    assert!(verified["same"].as_u64() >= Some(order.len() as u64), "{verified:#}");
    assert_eq!(verified["account"]["from_index"], json!(0), "the log is whole: {verified:#}");
    assert!(verified["account"]["states_compared"].as_u64() >= Some(1), "{verified:#}");

    // A changed decision is found, and named.
    let (file, tampered) = (cluster.folder().join("the.backup"), cluster.folder().join("tampered.backup"));
    backup_of(&admin, &file).await;
    let index = tamper(&file, &tampered);
    let found = user.run(&["sim", "replay", "--verify", plain(&tampered), "--json"]).await;
    assert_eq!(found.status.code(), Some(5), "{}", String::from_utf8_lossy(&found.stderr));
    let found: Value = serde_json::from_slice(&found.stdout).expect("a report");
    assert_eq!((&found["differ"], &found["different"][0]["index"]), (&json!(1), &json!(index)), "{found:#}");
    let bare = cluster.folder().join("bare.backup");
    admin.json(&["cluster", "backup", plain(&bare), "--no-decisions"]).await;
    let nothing = user.run(&["sim", "replay", "--verify", plain(&bare)]).await;
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("no decision log"), "{nothing:?}");

    // Another policy on each recorded State.
    let fifo = cluster.folder().join("fifo.toml");
    std::fs::write(&fifo, "order = \"fifo\"\n").expect("written");
    let shadowed = user.json(&["sim", "replay", "--shadow", plain(&file), "--policy", plain(&fifo)]).await;
    let kinds = shadowed["by_kind"].as_array().expect("kinds");
    assert!(kinds.iter().any(|kind| kind["kind"] == "other_gangs"), "{shadowed:#}");
    assert!(shadowed["says"].as_str().is_some_and(|says| says.contains("nothing here tells")), "{shadowed:#}");

    // The work of both days in a simulated copy: under the same policy in the same order, under another in another.
    let imported = cluster.folder().join("imported");
    let from = format!("backup:{}", plain(&file));
    let card = user.json(&["sim", "import", "--from", &from, "-o", plain(&imported)]).await;
    assert_eq!((&card["trace"]["jobs"], &card["nodes"]), (&json!(order.len()), &json!(1)), "{card:#}");
    let play = async |policy: &Path, name: &str| {
        let out = cluster.folder().join(name);
        let (world, trace) = (imported.join("world.toml"), imported.join("trace.jsonl"));
        let scene = ["--world", plain(&world), "--trace", plain(&trace), "--policy", plain(policy)];
        user.json(&[&["sim", "run"], &scene[..], &["-o", plain(&out)]].concat()).await;
        started(&out)
    };
    assert_eq!(play(&imported.join("policy.toml"), "same").await, order);
    let other = play(&fifo, "other").await;
    assert!(other.is_sorted() && other != order, "{other:?}");

    let out = cluster.folder().join("counterfactual");
    let live = ["sim", "replay", "--counterfactual", "live", "--policy", plain(&fifo), "-o", plain(&out)];
    let compared = admin.json(&live).await;
    assert_eq!(compared["base"], "policy.toml", "{compared:#}");
    assert!(out.join("imported/card.json").exists() && out.join("compared/report.html").exists());
    until("nothing is left of what was fetched", async || {
        let left = std::fs::read_dir(std::env::temp_dir()).expect("a folder").flatten();
        let mine = |name: &str| name.starts_with("muster-") && name.ends_with(".backup");
        left.map(|file| file.file_name().to_string_lossy().into_owned()).all(|name| !mine(&name)).then_some(())
    })
    .await;
}
