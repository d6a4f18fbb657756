use super::dial::dial_found;
use super::*;
use crate::clock::{Clock, SystemClock};
use crate::identity::{
    Authority, Credentials, DAY_MS, DialError, Expect, Identity, LEAF_VALID_MS, Name, Role, Sans, install_crypto,
};
use crate::shutdown::Shutdown;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::timeout;

const ALPN: &[u8] = b"muster-test";
const DEADLINE: Duration = Duration::from_secs(20);
/// First packets of strangers.
const FLOOD: u64 = 5_000;

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

fn issue(authority: &Authority, role: Role, name: &str) -> Identity {
    let name = Name::new(authority.cluster(), role, name).expect("valid");
    authority.issue(&name, &Sans::default(), SystemClock.wall_ms(), LEAF_VALID_MS).expect("issued")
}

fn cluster(name: &str) -> Authority {
    install_crypto();
    Authority::create(name, SystemClock.wall_ms()).expect("made")
}

fn listen(authority: &Authority, limits: DatagramLimits) -> DatagramListener {
    let own = Credentials::new(issue(authority, Role::Server, "s1"));
    let any = "127.0.0.1:0".parse().expect("an address");
    DatagramListener::bind(any, own, ALPN, limits, &Shutdown::new()).expect("bound")
}

async fn call(listener: &DatagramListener, own: Identity) -> Result<DatagramConnection, DialError> {
    let port = listener.local_addr().port();
    within("a dial", dial("127.0.0.1:1", port, &Credentials::new(own), Expect::server(), ALPN)).await
}

/// A refused certificate is told after the client's side of the handshake is done.
async fn is_refused(listener: &DatagramListener, own: Identity) -> String {
    match call(listener, own).await {
        Err(error) => error.to_string(),
        Ok(connection) => within("the refusal", connection.receive()).await.expect_err("refused").to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_go_both_ways_and_both_know_the_other() {
    let cluster = cluster("c1");
    let mut listener = listen(&cluster, DatagramLimits::default());
    let agent = call(&listener, issue(&cluster, Role::Agent, "n1")).await.expect("connected");
    let server = within("a connection", listener.accept()).await.expect("one");
    assert!(server.peer().is_named(Role::Agent, "n1") && agent.peer().is_named(Role::Server, "s1"));
    let longest = vec![7; DATAGRAM_BYTES_MAX];
    agent.send(longest.clone()).expect("sent");
    assert_eq!(within("a datagram", server.receive()).await.expect("arrived"), longest);
    server.send(vec![1, 2]).expect("sent");
    assert_eq!(within("an answer", agent.receive()).await.expect("arrived"), [1, 2][..]);
    assert_eq!(agent.send(vec![0; DATAGRAM_BYTES_MAX + 1]), Err(DatagramError::TooLong(DATAGRAM_BYTES_MAX + 1)));
    assert!(listener.stats().retried.load(Relaxed) >= 1, "no address had to prove itself");
    server.close("enough");
    let end = within("the end", agent.receive()).await.expect_err("over");
    assert!(end.to_string().contains("enough"), "{end}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_where_nobody_is_does_not_hide_the_next() {
    let cluster = cluster("c1");
    let mut listener = listen(&cluster, DatagramLimits::default());
    let port = listener.local_addr().port();
    let both = vec![SocketAddr::from((Ipv6Addr::LOCALHOST, port)), SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
    let own = Credentials::new(issue(&cluster, Role::Agent, "n1"));
    let called = dial_found(async { Ok(both) }, "two addresses".to_owned(), &own, Expect::server(), ALPN);
    let agent = within("a dial", called).await.expect("the second answers");
    let server = within("a connection", listener.accept()).await.expect("one");
    agent.send(vec![1]).expect("sent");
    assert_eq!(within("a datagram", server.receive()).await.expect("arrived"), [1][..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_without_an_address_is_told_as_one() {
    let own = Credentials::new(issue(&cluster("c1"), Role::Agent, "n1"));
    let called = dial_found(async { Ok(Vec::new()) }, "nowhere".to_owned(), &own, Expect::server(), ALPN);
    let error = within("a dial", called).await.expect_err("nobody is there");
    assert!(matches!(error, DialError::Unreachable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_expired_certificates_are_refused_on_either_side() {
    let (own, other) = (cluster("c1"), cluster("c1"));
    let listener = listen(&own, DatagramLimits::default());
    let why = is_refused(&listener, issue(&other, Role::Agent, "n1")).await;
    assert!(why.contains("certificate") || why.contains("CA") || why.contains("crypt"), "{why}");

    let name = Name::new("c1", Role::Agent, "n1").expect("valid");
    let long_ago = SystemClock.wall_ms() - 3 * DAY_MS;
    let expired = own.issue(&name, &Sans::default(), long_ago, DAY_MS).expect("issued");
    is_refused(&listener, expired).await;
    assert_eq!(listener.stats().accepted.load(Relaxed), 0);

    // An agent's certificate does not make a server.
    let false_server = Credentials::new(issue(&own, Role::Agent, "n9"));
    let any = "127.0.0.1:0".parse().expect("an address");
    let imposter = DatagramListener::bind(any, false_server, ALPN, DatagramLimits::default(), &Shutdown::new());
    let error = call(&imposter.expect("bound"), issue(&own, Role::Agent, "n1")).await.expect_err("refused");
    assert!(matches!(error, DialError::Refused { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_protocol_is_not_spoken_with() {
    let cluster = cluster("c1");
    let listener = listen(&cluster, DatagramLimits::default());
    let own = Credentials::new(issue(&cluster, Role::Agent, "n1"));
    let port = listener.local_addr().port();
    let called = within("a dial", dial("127.0.0.1:1", port, &own, Expect::server(), b"something-else")).await;
    assert!(matches!(called, Err(DialError::Refused { .. })), "{called:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_rate_is_dropped_and_counted() {
    let cluster = cluster("c1");
    let limits = DatagramLimits { per_second: 1, burst: 4, ..DatagramLimits::default() };
    let mut listener = listen(&cluster, limits);
    let agent = call(&listener, issue(&cluster, Role::Agent, "n1")).await.expect("connected");
    let server = within("a connection", listener.accept()).await.expect("one");
    let taken = tokio::spawn({
        let server = server.clone();
        async move {
            let mut taken = 0;
            while server.receive().await.is_ok() {
                taken += 1;
            }
            taken
        }
    });
    let dropped = async {
        let mut dropped = 0;
        while dropped < 20 {
            agent.send(vec![1]).expect("sent");
            tokio::time::sleep(Duration::from_millis(2)).await;
            dropped += server.take_dropped();
        }
    };
    within("dropped datagrams", dropped).await;
    agent.close("done");
    let taken = within("the end", taken).await.expect("no panic");
    assert!((4..20).contains(&taken), "{taken} of a burst of 4 and one a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_bound_further_connections_are_refused_until_one_ends() {
    let cluster = cluster("c1");
    let mut listener = listen(&cluster, DatagramLimits { max_connections: 1, ..DatagramLimits::default() });
    let first = call(&listener, issue(&cluster, Role::Agent, "n1")).await.expect("connected");
    let served = within("a connection", listener.accept()).await.expect("one");
    assert!(call(&listener, issue(&cluster, Role::Agent, "n2")).await.is_err());
    assert!(listener.stats().refused.load(Relaxed) >= 1);
    drop((first, served));
    let again = async {
        while call(&listener, issue(&cluster, Role::Agent, "n2")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("a free place", again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_first_packets_keeps_nobody_out_and_starts_no_handshake() {
    let cluster = cluster("c1");
    let limits = DatagramLimits { max_handshakes: 4, per_second: 1_000_000, ..DatagramLimits::default() };
    let mut listener = listen(&cluster, limits);
    let agent = call(&listener, issue(&cluster, Role::Agent, "n1")).await.expect("connected");
    let server = within("a connection", listener.accept()).await.expect("one");
    let (to, stop, sent) = (listener.local_addr(), Shutdown::new(), Arc::new(AtomicU64::new(0)));
    let flood = std::thread::spawn({
        let (stop, sent) = (stop.clone(), sent.clone());
        move || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
            let mut packet = first_packet();
            while !stop.is_triggered() {
                // Another connection each time.
                let number = sent.load(Relaxed);
                packet[6..14].copy_from_slice(&number.to_le_bytes());
                sent.fetch_add(u64::from(socket.send_to(&packet, to).is_ok()), Relaxed);
                if number.is_multiple_of(16) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    });
    let (mut rounds, mut answered) = (0u32, 0u32);
    while rounds < 50 || sent.load(Relaxed) < FLOOD {
        rounds += 1;
        agent.send(vec![1]).expect("sent");
        // A lost one is made good by the next.
        if let Ok(got) = timeout(Duration::from_millis(500), server.receive()).await {
            got.expect("the connection lives");
            answered += 1;
        }
    }
    // On a small machine the flood may push a handshake's packets out of the socket's buffer; like an agent, it tries again.
    let mut tries = 1;
    let newcomer = within("a place for a newcomer", async {
        loop {
            match call(&listener, issue(&cluster, Role::Agent, "n2")).await {
                Ok(connection) => break connection,
                Err(_) => tries += 1,
            }
        }
    })
    .await;
    stop.trigger();
    flood.join().expect("no panic");
    let sent = sent.load(Relaxed);
    println!("{sent} first packets; {answered} of {rounds} datagrams arrived");
    assert!(answered * 10 >= rounds * 8, "{sent} first packets, {answered} of {rounds} arrived");
    within("the newcomer", listener.accept()).await.expect("one");
    drop(newcomer);
    let stats = listener.stats();
    let begun = stats.accepted.load(Relaxed) + stats.failed.load(Relaxed);
    assert!(begun <= 1 + tries, "the flood reached a handshake: {begun} begun, {tries} tries of the newcomer");
}

/// What any stranger can send: the head of a QUIC version 1 first packet, then nonsense.
fn first_packet() -> Vec<u8> {
    let mut packet = vec![0xC0, 0, 0, 0, 1, 8];
    packet.extend([0; 8]);
    packet.extend([0, 0, 0x44, 0x80]);
    packet.resize(1_200, 0x5A);
    packet
}
