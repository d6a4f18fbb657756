//! Proof 2: the leader dies while gangs run.

use super::job;
use muster_proto::agent::Hello;
use muster_proto::client::ListJobsRequest;
use muster_runtime::identity::Credentials;
use muster_tests::cluster::ranks::check_lines;
use muster_tests::cluster::{Options, TestCluster};
use muster_tests::virtual_agent::{VirtualAgent, agent_identity, authority, hello};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_leader_stops_no_job_and_a_submit_during_the_election_succeeds_once() {
    let mut cluster = TestCluster::start(3, 4, Options { fence_after_ms: 20_000, ..Options::default() }).await;
    let (user, gate) = (cluster.user.clone(), cluster.gate("lines"));
    let ring = user.submit_job(&job("ring", 4, 2, "\"$MUSTER_EXE\" rank allreduce --seconds 6")).await;
    let lines = user.submit_job(&job("lines", 2, 1, &gate.script())).await;
    cluster.ranks_running(ring, 1, 8).await;
    cluster.ranks_running(lines, 1, 2).await;

    let (leader, moment) = cluster.freeze_with_report_pending(|| gate.open_for(1, 0)).await;
    moment.stands_for("SIGKILL to the leader");
    assert_eq!(cluster.ranks_of(ring).len(), 8, "all ranks of the ring run");
    cluster.servers[leader].kill_9();

    let file = cluster.folder().join("during.json");
    let during = job("during-election", 1, 1, "echo hello");
    std::fs::write(&file, during.to_string()).unwrap();
    let submit = ["submit", "--json", "--key", "one-key", file.to_str().unwrap()];
    let (one, two, three) = tokio::join!(user.run(&submit), user.run(&submit), user.submit(&during, "one-key"));
    let id = three.job.expect("a job").id;
    for output in [one, two] {
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
        assert_eq!(answer["job"]["id"], id, "one key, one job");
    }
    assert_ne!(cluster.leader().await, leader);
    gate.open();
    for id in [ring, lines, id] {
        let job = user.ended(id).await;
        assert_eq!(
            (job.state.as_str(), job.exit_code, job.attempt),
            ("SUCCEEDED", Some(0), 1),
            "{}: {}",
            job.name,
            job.cause_text
        );
    }
    let request = ListJobsRequest { ended: true, ..ListJobsRequest::default() };
    let jobs = user.call("ps", async |mut api| api.list_jobs(request.clone()).await).await.jobs;
    assert_eq!(jobs.len(), 3, "{jobs:?}");

    for (rank, text) in user.logs(ring, 1).await {
        assert!(text.contains(&format!("rank {rank}/8 on ")) && text.contains(" sum ok"), "rank {rank} said:\n{text}");
    }
    for (rank, text) in user.logs(lines, 1).await {
        check_lines(rank, &text);
    }
    // A dead server costs the new leader little: it knocks a few times a second, not a thousand times.
    let log = std::fs::read_to_string(&cluster.servers[cluster.leader().await].log).unwrap_or_default();
    assert!(log.lines().count() < 1_000, "{} lines in the log of the new leader", log.lines().count());
    cluster.servers[leader].start();
    let settled = cluster.settled().await;
    assert!(settled.iter().all(|status| status.state_hash == settled[0].state_hash), "{settled:#?}");
}

/// One question: it does not knock until somebody leads, and is not sent to the dead leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_lost_its_leader_is_told_of_the_next_one_by_the_first_server_it_asks() {
    let mut cluster = TestCluster::start(3, 0, Options::default()).await;
    let leader = cluster.leader().await;
    let dead = cluster.addresses[leader].clone();
    let credentials = Credentials::new(agent_identity(&authority(cluster.folder()), "v1"));
    let asked = cluster.addresses[(leader + 1) % 3].clone();
    cluster.servers[leader].kill_9();

    let hello = Hello { unreachable_leader: dead.clone(), ..hello("v1", "a") };
    let address = match VirtualAgent::try_connect(&asked, &credentials, hello).await {
        // It leads now.
        Ok(agent) => agent.address,
        Err(status) => status.message().to_owned(),
    };
    assert!(cluster.addresses.contains(&address) && address != dead, "sent to `{address}`; {dead} is dead");
}
