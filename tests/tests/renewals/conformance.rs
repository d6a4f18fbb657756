//! What every carrier owes, run over each.

use super::{ANSWER, renewed};
use muster_agent::heartbeat::{Carrier, Ledger, Renewal, Way};
use muster_runtime::identity::{Authority, Credentials, LEAF_VALID_MS, Role};
use muster_tests::cluster::people::wall_ms;
use muster_tests::cluster::{Options, TestCluster};
use muster_tests::virtual_agent::{VirtualAgent, agent_identity, authority, hello, issue, quic};
use std::time::Duration;

struct Suite {
    cluster: TestCluster,
    authority: Authority,
    way: Way,
}

impl Suite {
    async fn agent(&self, node: &str, instance: &str) -> VirtualAgent {
        let identity = agent_identity(&self.authority, node);
        VirtualAgent::connect(&self.cluster.addresses, identity, hello(node, instance)).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_over_quic_conform() {
    conforms(Way::Quic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_over_the_stream_conform() {
    conforms(Way::Stream).await;
}

async fn conforms(way: Way) {
    // Nobody falls silent meanwhile: these agents renew when the test wants.
    let cluster =
        TestCluster::start(3, 0, Options { suspect_after_ms: 60_000, fence_after_ms: 180_000, ..Options::default() })
            .await;
    let authority = authority(cluster.folder());
    let mut suite = Suite { cluster, authority, way };
    is_extended_once_for_each_and_in_any_order(&suite).await;
    makes_good_what_was_lost(&suite).await;
    refuses_another_sessions(&suite).await;
    refuses_an_old_epochs(&suite).await;
    refuses_wrong_certificates(&suite).await;
    moves_to_a_new_leader(&mut suite).await;
}

/// Repeated and overtaken renewals are answered as what they are, and change no lease.
async fn is_extended_once_for_each_and_in_any_order(suite: &Suite) {
    let agent = suite.agent("v1", "a").await;
    let (session, mut carrier) = (agent.session(), agent.carrier(suite.way).await);
    assert_eq!(carrier.way(), suite.way);
    let mut ledger = Ledger::new(0, 1_000, suite.way == Way::Quic);
    let sent: Vec<u64> = (0..4).map(|at| ledger.due(at * 1_000).expect("due").number).collect();
    assert_eq!(sent, [1, 2, 3, 4]);
    assert_eq!(renewed(&mut *carrier, session, 1).await, [Renewal { session, number: 1 }]);
    assert_eq!(ledger.answered(1, suite.way, 1), Some(0));
    for number in [3, 2, 3, 2] {
        carrier.renew(Renewal { session, number }).await;
    }
    let mut answers = renewed(&mut *carrier, session, 4).await;
    assert!(answers.iter().all(|answer| answer.session == session && (2..=4).contains(&answer.number)), "{answers:?}");
    answers.dedup();
    let mut lease_ms = 0;
    for answer in answers.iter().chain(answers.clone().iter().rev()) {
        if let Some(counted_ms) = ledger.answered(answer.number, suite.way, 9_000) {
            assert!(counted_ms > lease_ms, "a lease went back");
            lease_ms = counted_ms;
        }
    }
    assert_eq!(lease_ms, 3_000, "counted from when the newest was sent");
}

/// One that never arrived is made good by the next.
async fn makes_good_what_was_lost(suite: &Suite) {
    let agent = suite.agent("v1", "a").await;
    let (session, mut carrier) = (agent.session(), agent.carrier(suite.way).await);
    let mut ledger = Ledger::new(0, 1_000, suite.way == Way::Quic);
    let lost = ledger.due(0).expect("due").number;
    let next = ledger.due(1_000).expect("due").number;
    let answers = renewed(&mut *carrier, session, next).await;
    assert!(answers.iter().all(|answer| answer.number != lost), "an answer to what was not sent: {answers:?}");
    assert_eq!(ledger.answered(next, suite.way, 1_010), Some(1_000));
}

async fn refuses_another_sessions(suite: &Suite) {
    let (mine, others) = (suite.agent("v1", "a").await, suite.agent("v2", "a").await);
    let (session, mut carrier) = (mine.session(), mine.carrier(suite.way).await);
    for foreign in [others.session(), session + 1_000, 0] {
        carrier.renew(Renewal { session: foreign, number: 1 }).await;
    }
    // Of one connection, answers come in the order of renewals: a wrong one would be there by now.
    let answers = renewed(&mut *carrier, session, 2).await;
    assert!(answers.iter().all(|answer| answer.session == session), "a foreign session was extended: {answers:?}");
    assert_eq!(mine.ended(), None, "the session lives on");
}

/// The node registered again, so that the older process's session is none any more.
async fn refuses_an_old_epochs(suite: &Suite) {
    let older = suite.agent("v3", "first process").await;
    let mut old = older.carrier(suite.way).await;
    renewed(&mut *old, older.session(), 1).await;
    let newer = suite.agent("v3", "second process").await;
    assert!(newer.welcome.epoch > older.welcome.epoch, "registered again");
    old.renew(Renewal { session: older.session(), number: 2 }).await;
    let mut carrier = newer.carrier(suite.way).await;
    renewed(&mut *carrier, newer.session(), 1).await;
    old.renew(Renewal { session: older.session(), number: 3 }).await;
    renewed(&mut *carrier, newer.session(), 2).await;
    let late = tokio::time::timeout(Duration::from_millis(300), old.extended()).await;
    assert!(late.is_err(), "an old epoch was extended: {late:?}");
}

async fn refuses_wrong_certificates(suite: &Suite) {
    let agent = suite.agent("v1", "a").await;
    let session = agent.session();
    let day_ms = 24 * 3_600_000;
    let wrong = [
        ("a user's", issue(&suite.authority, Role::User, "v1", wall_ms(), LEAF_VALID_MS)),
        ("a server's", issue(&suite.authority, Role::Server, "v1", wall_ms(), LEAF_VALID_MS)),
        ("an expired", issue(&suite.authority, Role::Agent, "v1", wall_ms() - 3 * day_ms, day_ms)),
        ("another node's", agent_identity(&suite.authority, "v9")),
    ];
    for (what, identity) in wrong {
        let credentials = Credentials::new(identity);
        match suite.way {
            Way::Stream => {
                let refused = VirtualAgent::try_connect(&agent.address, &credentials, hello("v1", "a")).await;
                assert!(refused.is_err(), "{what} certificate was welcomed");
            }
            Way::Quic => {
                // Refused in the handshake, or right after it; either way nothing is answered.
                let asked = async {
                    let mut carrier = quic(&agent.address, credentials).await;
                    carrier.renew(Renewal { session, number: 77 }).await;
                    carrier.extended().await
                };
                let answer = tokio::time::timeout(Duration::from_millis(700), asked).await;
                assert!(answer.is_err(), "{what} certificate extended a lease: {answer:?}");
            }
        }
    }
    let mut carrier = agent.carrier(suite.way).await;
    renewed(&mut *carrier, session, 78).await;
}

async fn moves_to_a_new_leader(suite: &mut Suite) {
    let before = suite.agent("v1", "a").await;
    let mut old = before.carrier(suite.way).await;
    renewed(&mut *old, before.session(), 1).await;
    let leader = suite.cluster.leader().await;
    assert_eq!(suite.cluster.addresses[leader], before.address, "sessions are the leader's");
    suite.cluster.servers[leader].kill_9();
    let after = suite.agent("v1", "a").await;
    assert_ne!(after.address, before.address);
    let mut carrier = after.carrier(suite.way).await;
    // The old leader's session is nobody's here.
    carrier.renew(Renewal { session: before.session(), number: 9 }).await;
    let answers = tokio::time::timeout(ANSWER, renewed(&mut *carrier, after.session(), 1)).await.expect("an answer");
    assert!(answers.iter().all(|answer| answer.session == after.session()), "{answers:?}");
    suite.cluster.servers[leader].start();
}
