//! What only datagrams have: servers that hold another's session, nonsense, floods.

use super::renewed;
use muster_agent::heartbeat::{Renewal, Way};
use muster_proto::datagram::{self, Datagram, Refusal, Why};
use muster_runtime::datagram::{DatagramConnection, dial};
use muster_runtime::identity::{Credentials, Expect};
use muster_tests::cluster::{Options, TestCluster};
use muster_tests::virtual_agent::{VirtualAgent, agent_identity, authority, hello, port_of};
use std::time::Duration;

pub async fn connection(address: &str, credentials: &Credentials) -> DatagramConnection {
    let made = dial(address, port_of(address), credentials, Expect::server(), datagram::ALPN).await;
    made.unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// Sends these bytes until something comes back.
pub async fn answer_to(connection: &DatagramConnection, bytes: &[u8]) -> Datagram {
    for _ in 0..20 {
        connection.send(bytes.to_vec()).expect("the connection lives");
        if let Ok(got) = tokio::time::timeout(Duration::from_millis(1_100), connection.receive()).await {
            return datagram::decode(&got.expect("the connection lives")).expect("well formed");
        }
    }
    panic!("nothing came back to {bytes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_server_that_holds_the_session_answers_and_nonsense_is_refused_with_a_word() {
    let options = Options { suspect_after_ms: 60_000, fence_after_ms: 180_000, ..Options::default() };
    let cluster = TestCluster::start(3, 0, options).await;
    let authority = authority(cluster.folder());
    let agent = VirtualAgent::connect(&cluster.addresses, agent_identity(&authority, "v1"), hello("v1", "a")).await;
    let renewal = Datagram::Renewal(Renewal { session: agent.session(), number: 1 });
    let refused = |why| Datagram::Refusal(Refusal::ours(why));
    for address in cluster.addresses.iter().filter(|address| **address != agent.address) {
        let follower = connection(address, &agent.credentials).await;
        assert_eq!(answer_to(&follower, &datagram::encode(&renewal)).await, refused(Why::NotHere), "{address}");
    }
    let leader = connection(&agent.address, &agent.credentials).await;
    assert_eq!(answer_to(&leader, &[1, 1, 1]).await, refused(Why::Malformed));
    assert_eq!(answer_to(&leader, &[]).await, refused(Why::Malformed));
    let extended = Datagram::Extended(Renewal { session: agent.session(), number: 1 });
    assert_eq!(
        answer_to(&leader, &datagram::encode(&extended)).await,
        refused(Why::Malformed),
        "servers answer, agents ask"
    );
    // All that changed nothing for those who speak well, on the same connection.
    assert_eq!(answer_to(&leader, &datagram::encode(&renewal)).await, extended);
}

/// One agent that sends far above its bounds delays nobody, and gets its own renewals through again
/// when it has calmed down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_floods_is_held_to_its_rate_and_disturbs_no_other() {
    let options = Options { suspect_after_ms: 60_000, fence_after_ms: 180_000, ..Options::default() };
    let cluster = TestCluster::start(1, 0, options).await;
    let authority = authority(cluster.folder());
    let agent = async |name: &str| {
        VirtualAgent::connect(&cluster.addresses, agent_identity(&authority, name), hello(name, "a")).await
    };
    let (loud, calm) = (agent("v1").await, agent("v2").await);
    let flood = connection(&loud.address, &loud.credentials).await;
    let bytes = datagram::encode(&Datagram::Renewal(Renewal { session: loud.session(), number: 1 }));
    let flooding = tokio::spawn(async move {
        for sent in 0..20_000u32 {
            flood.send(bytes.clone()).expect("the connection lives");
            if sent.is_multiple_of(50) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        flood
    });
    let mut carrier = calm.carrier(Way::Quic).await;
    for number in 1..=20 {
        renewed(&mut *carrier, calm.session(), number).await;
    }
    let flood = flooding.await.expect("no panic");
    let extended = Datagram::Extended(Renewal { session: loud.session(), number: 2 });
    let asked = datagram::encode(&Datagram::Renewal(Renewal { session: loud.session(), number: 2 }));
    while answer_to(&flood, &asked).await != extended {}
}
