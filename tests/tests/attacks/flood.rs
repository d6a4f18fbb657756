//! One tenant asks for all it can; the others are served, and no lease is late.

use super::rogue::{Agent, hello};
use super::server::Server;
use muster_proto::agent as wire;
use muster_proto::client::muster_client::MusterClient;
use muster_proto::client::{ListJobsRequest, ListNodesRequest, SubmitRequest, VersionRequest};
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use wire::agent_message::Body as Up;
use wire::server_message::Body as Down;

const JOBS: u32 = 500;
const LISTS: usize = 1_000;

async fn submit(api: &mut MusterClient<Channel>, key: String) {
    let spec = serde_json::json!({
        "name": "waits", "gang": {"nodes": 1, "gpus_per_node": 8, "run": "true"}, "limits": {"time": "1h"},
    });
    let request = SubmitRequest { spec_json: spec.to_string(), key, hold: true, ..SubmitRequest::default() };
    api.submit(request).await.expect("taken");
}

/// Renews every 100 ms until told to stop; the longest wait for an extension.
async fn renew(mut agent: Agent, session: u64, stop: tokio::sync::oneshot::Receiver<()>) -> Duration {
    let mut stop = stop;
    let mut longest = Duration::ZERO;
    for number in 1.. {
        let sent = Instant::now();
        agent.send(Up::Renewal(wire::Renewal { session, number })).await;
        agent
            .until("an extended lease", |down| match down {
                Down::Lease(lease) => (lease.number >= number).then_some(()),
                _ => None,
            })
            .await;
        longest = longest.max(sent.elapsed());
        if stop.try_recv().is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    longest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_with_a_thousand_lists_delays_no_lease_and_no_other_tenant() {
    let server = Server::start().await;
    let mut agent = Agent::connect(&server, "n1", hello("n1", 8)).await.expect("admitted");
    let welcome = agent.welcome().await;
    let mut mallory = server.user("mallory");
    for n in 0..JOBS {
        submit(&mut mallory, format!("m-{n}")).await;
    }
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let renewing = tokio::spawn(renew(agent, welcome.session, stopped));

    let everything = ListJobsRequest { all_users: true, ended: true, limit: 1_000, ..ListJobsRequest::default() };
    let lists: Vec<_> = (0..LISTS)
        .map(|_| {
            let (mut mallory, everything) = (mallory.clone(), everything.clone());
            tokio::spawn(async move { mallory.list_jobs(everything).await.map(|reply| reply.get_ref().jobs.len()) })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    let mut asked = 0;
    while asked < 10 || lists.iter().any(|list| !list.is_finished()) && asked < 60 {
        let begun = Instant::now();
        let mut alice = server.user("alice");
        alice.version(VersionRequest::default()).await.expect("served");
        alice.list_nodes(ListNodesRequest::default()).await.expect("served");
        submit(&mut alice, format!("a-{asked}")).await;
        slowest = slowest.max(begun.elapsed());
        asked += 1;
    }
    let (mut answered, mut refused) = (0, 0);
    for list in lists {
        match list.await.expect("no panic") {
            Ok(jobs) => {
                assert!(jobs >= JOBS as usize, "{jobs} of {JOBS} jobs");
                answered += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
                refused += 1;
            }
        }
    }
    stop.send(()).expect("it still renews");
    let longest = renewing.await.expect("no panic");
    println!(
        "{answered} lists answered, {refused} refused; alice's slowest round {slowest:?}, longest renewal {longest:?}"
    );
    assert!(answered > 0, "the flood was no flood");
    // A third of the shortest silence that is noticed in production, and of its lease.
    assert!(longest < Duration::from_secs(5), "a renewal took {longest:?}");
    assert!(slowest < Duration::from_secs(10), "alice waited {slowest:?}");
}
