//! Proof 4: one rank dies.

use super::{job, observe};
use muster_tests::cluster::wait::until;
use muster_tests::cluster::{Options, TestCluster};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_rank_stops_its_whole_gang_and_the_second_attempt_runs() {
    let cluster = TestCluster::start(3, 4, Options::default()).await;
    let (user, gate, side_gate) = (cluster.user.clone(), cluster.gate("retried"), cluster.gate("side"));
    let observer = observe(&cluster);
    let mut retried = job("retried", 2, 2, &gate.script());
    retried["retry"] = json!({"app": 1});
    let id = user.submit_job(&retried).await;
    let side = user.submit_job(&job("side", 1, 2, &side_gate.script())).await;
    let first = cluster.ranks_running(id, 1, 4).await;
    cluster.ranks_running(side, 1, 2).await;

    let (leader, moment) = cluster.freeze_with_report_pending(|| side_gate.open_for(1, 0)).await;
    moment.stands_for("SIGKILL to rank 2");
    kill(Pid::from_raw(first[2].pid as i32), Signal::SIGKILL).expect("the rank is there");
    cluster.servers[leader].thaw();

    cluster.ranks_running(id, 2, 4).await;
    let left: Vec<_> = cluster.ranks_of(id).into_iter().filter(|rank| rank.attempt == 1).collect();
    assert_eq!(left, [], "no rank of attempt 1 is left");
    gate.open();
    side_gate.open();
    let job = user.ended(id).await;
    assert_eq!((job.state.as_str(), job.exit_code, job.attempt), ("SUCCEEDED", Some(0), 2));
    user.ended(side).await;

    let shown = user.json(&["show", &id.to_string()]).await;
    let attempts = shown["gangs"][0]["attempts"].as_array().expect("attempts");
    assert_eq!(attempts.len(), 2, "{shown:#}");
    assert_eq!((&attempts[0]["number"], &attempts[0]["cause"]), (&json!(1), &json!("rank_failed")));
    let exits: Vec<_> = attempts[0]["parts"]
        .as_array()
        .expect("parts")
        .iter()
        .flat_map(|part| part["exits"].as_array().unwrap())
        .collect();
    assert!(exits.iter().any(|exit| exit["rank"] == 2 && exit["signal"] == 9), "{exits:?}");
    assert_eq!((&attempts[1]["number"], &attempts[1]["cause"]), (&json!(2), &json!("completed")));

    until("the end of all ranks", async || cluster.ranks().is_empty().then_some(())).await;
    let seen = observer.finish();
    seen.assert_attempts_apart(id, 1);
    seen.assert_devices_never_shared();
}
