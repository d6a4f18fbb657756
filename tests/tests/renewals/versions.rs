//! Releases that differ: refused with a word, or spoken; never garbled.

use super::datagrams::{answer_to, connection};
use super::renewed;
use muster_agent::heartbeat::{Renewal, Way};
use muster_proto::datagram::{self, Datagram, Refusal, Why};
use muster_runtime::identity::Credentials;
use muster_tests::cluster::{Options, TestCluster};
use muster_tests::virtual_agent::{VirtualAgent, agent_identity, authority, hello};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_versions_of_the_protocol_and_of_datagrams_are_refused_with_a_word_or_spoken() {
    let options = Options { suspect_after_ms: 1_000, fence_after_ms: 180_000, ..Options::default() };
    let cluster = TestCluster::start(1, 0, options).await;
    let authority = authority(cluster.folder());
    let address = &cluster.addresses[cluster.leader().await];
    let credentials = Credentials::new(agent_identity(&authority, "v1"));

    for version in [0, 2, u32::MAX] {
        let other = muster_proto::agent::Hello { protocol_version: version, ..hello("v1", "a") };
        let status = VirtualAgent::try_connect(address, &credentials, other).await.err().expect("refused");
        let said = status.message();
        assert!(said.contains(&format!("protocol version {version}")) && said.contains("speaks 1"), "{said}");
    }

    // An older agent sends no datagrams, a newer one only those that this server does not speak:
    // both are served over the stream, and nobody looks for their UDP.
    for (node, spoken) in [("v2", 0), ("v3", u32::from(datagram::NEWEST) + 1)] {
        let other = muster_proto::agent::Hello { datagram_version: spoken, ..hello(node, "a") };
        let agent = VirtualAgent::connect(&cluster.addresses, agent_identity(&authority, node), other).await;
        let offered = agent.welcome.datagrams.expect("this server takes datagrams");
        assert_eq!(
            (offered.oldest_version, offered.newest_version),
            (datagram::OLDEST.into(), datagram::NEWEST.into())
        );
        let mut carrier = agent.carrier(Way::Stream).await;
        renewed(&mut *carrier, agent.session(), 1).await;
        let shown = cluster.user.node(node).await;
        assert_eq!((shown.heartbeat.as_str(), shown.udp_lost_at_ms), ("stream", None), "{node}");
    }

    // A datagram of a newer version, on a connection that goes on.
    let agent = VirtualAgent::connect(&cluster.addresses, agent_identity(&authority, "v1"), hello("v1", "a")).await;
    let wire = connection(address, &agent.credentials).await;
    let renewal = Renewal { session: agent.session(), number: 1 };
    let mut newer = datagram::encode(&Datagram::Renewal(renewal));
    newer[0] = datagram::NEWEST + 1;
    newer.extend([9; 40]);
    assert_eq!(answer_to(&wire, &newer).await, Datagram::Refusal(Refusal::ours(Why::Version)));
    let spoken = datagram::encode(&Datagram::Renewal(renewal));
    assert_eq!(answer_to(&wire, &spoken).await, Datagram::Extended(renewal));
}

/// Every device joined to every other takes its square in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inventory_too_large_for_a_log_entry_is_refused_with_its_size_and_what_to_do() {
    const DEVICES: usize = 256;
    let cluster = TestCluster::start(1, 0, Options::default()).await;
    let authority = authority(cluster.folder());
    let address = &cluster.addresses[cluster.leader().await];
    let credentials = Credentials::new(agent_identity(&authority, "v1"));
    let mut large = hello("v1", "a");
    let inventory = large.inventory.as_mut().expect("always there");
    let one = inventory.devices[0].clone();
    let numbered = |at: usize| muster_proto::agent::Device {
        uuid: format!("GPU-{at}"),
        pci_address: format!("0000:{at:02x}:00.0"),
        ..one.clone()
    };
    inventory.devices = (0..DEVICES).map(numbered).collect();
    let link = |at: usize| if at.is_multiple_of(DEVICES + 1) { "same" } else { "nv18" };
    inventory.links = (0..DEVICES * DEVICES).map(|at| link(at).to_owned()).collect();
    let status = VirtualAgent::try_connect(address, &credentials, large).await.err().expect("refused");
    let said = status.message();
    assert!(said.contains("bytes") && said.contains("fewer devices"), "{status:?}");
}
