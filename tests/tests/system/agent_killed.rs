//! Proof 3: an agent dies and comes back while its ranks run.

use super::{job, job_off, others};
use muster_tests::cluster::ranks::{Rank, check_lines};
use muster_tests::cluster::wait::until;
use muster_tests::cluster::{Options, TestCluster};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_adopts_its_ranks_and_learns_the_exits_it_missed() {
    let mut cluster = TestCluster::start(3, 4, Options { fence_after_ms: 20_000, ..Options::default() }).await;
    let user = cluster.user.clone();
    let (wide_gate, narrow_gate) = (cluster.gate("wide"), cluster.gate("narrow"));
    let wide = user.submit_job(&job("wide", 2, 2, &wide_gate.script())).await;
    let node = cluster.ranks_running(wide, 1, 4).await[0].node.clone();
    let narrow = user.submit_job(&job_off("narrow", 1, 1, &narrow_gate.script(), &others(&cluster, &node))).await;
    assert_eq!(cluster.ranks_running(narrow, 1, 1).await[0].node, node);
    let before: Vec<Rank> = cluster.ranks_of(wide);

    // Rank 0 is the first one of `node`.
    let (leader, moment) = cluster.freeze_with_report_pending(|| wide_gate.open_for(0, 0)).await;
    moment.stands_for(&format!("SIGKILL to the agent of {node}"));
    assert!(moment.unacknowledged.iter().any(|(at, _)| *at == node), "the report waits at the agent that dies");
    let agent = cluster.agent_named(&node);
    cluster.agents[agent].kill_9();
    cluster.servers[leader].thaw();

    narrow_gate.open_for(0, 7);
    until("the end of a rank that no agent watches", async || cluster.ranks_of(narrow).is_empty().then_some(())).await;
    cluster.agents[agent].start();
    let failed = user.ended(narrow).await;
    assert_eq!((failed.state.as_str(), failed.exit_code, failed.attempt), ("FAILED", Some(7), 1));

    let after = cluster.ranks_of(wide);
    let expected: Vec<Rank> = before.into_iter().filter(|rank| rank.rank != 0).collect();
    assert_eq!(after, expected, "the same processes, apart from the one that ended");
    cluster.all_up().await;
    wide_gate.open();
    let done = user.ended(wide).await;
    assert_eq!((done.state.as_str(), done.exit_code, done.attempt), ("SUCCEEDED", Some(0), 1));
    let exits = done.gangs[0].attempts[0].parts.iter().flat_map(|part| &part.exits);
    let codes: Vec<(u32, Option<i32>)> = exits.map(|exit| (exit.rank, exit.code)).collect();
    assert_eq!(codes, [(0, Some(0)), (1, Some(0)), (2, Some(0)), (3, Some(0))]);

    for (job, ranks) in [(wide, 4), (narrow, 1)] {
        let logs = user.logs(job, 1).await;
        assert_eq!(logs.len(), ranks);
        for (rank, text) in logs {
            assert!(check_lines(rank, &text) > 0, "rank {rank} of job {job} said nothing");
        }
    }
}
