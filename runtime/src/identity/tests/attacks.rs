//! Hostile connections to a real listener: many, slow, malformed, overdue. Members are served meanwhile.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use super::handshake::{Served, ask_as, serve};
use super::*;

/// Half-open connections of one attacker; the kernel's queue for accepting is shorter.
const FLOOD: usize = 2_000;
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const ATTACKERS: [Ipv4Addr; 2] = [ATTACKER, Ipv4Addr::new(127, 0, 0, 3)];
/// Connections that each of two attackers keeps up; together fewer than the kernel's queue takes.
const KEPT_UP: usize = 400;
/// Before an attacker whose connection was dropped makes another; it must not take the processor from the test.
const AGAIN: Duration = Duration::from_millis(50);

async fn served_with(limits: ListenLimits) -> (Authority, Served) {
    let ca = authority();
    let served = serve(issue(&ca, Role::Server, "s1"), limits).await;
    (ca, served)
}

/// A bare connection from an address of the attacker's own.
async fn bare(served: &Served) -> TcpStream {
    bare_from(ATTACKER, served.address.parse().expect("an address")).await
}

async fn bare_from(attacker: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((attacker, 0))).expect("loopback is a whole network");
    socket.connect(to).await.expect("accepted")
}

async fn open(served: &Served, ca: &Authority, identity: Option<&Identity>) -> TlsStream<TcpStream> {
    secured(bare(served).await, ca, identity).await
}

async fn secured(stream: TcpStream, ca: &Authority, identity: Option<&Identity>) -> TlsStream<TcpStream> {
    let trust = Trust::Ca(ca.ca_pem().to_owned());
    let config = client_config(identity, &trust, Expect::server(), &[b"h2"]).expect("settings");
    let to = ServerName::try_from(Role::Server.dns()).expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(to, stream).await.expect("a good server")
}

/// Reads until the server ends it.
async fn cut(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let reading = stream.read_to_end(&mut all);
    tokio::time::timeout(DEADLINE, reading).await.expect("the server ends it in time").ok();
    all
}

async fn a_member_is_served(served: &Served, ca: &Authority) {
    ask_as(served, issue(ca, Role::Agent, "n1"), Expect::server()).await.expect("members are served");
}

#[tokio::test]
async fn a_flood_of_half_open_handshakes_keeps_no_member_out() {
    let (ca, served) = served_with(ListenLimits { handshake_timeout_ms: 2_000, ..ListenLimits::default() }).await;
    let mut half_open = Vec::new();
    for made in 0..FLOOD {
        half_open.push(bare(&served).await);
        if made % 500 == 250 {
            a_member_is_served(&served, &ca).await;
        }
    }
    a_member_is_served(&served, &ca).await;
    for mut stream in half_open {
        cut(&mut stream).await;
    }
    a_member_is_served(&served, &ca).await;
}

#[tokio::test]
async fn two_addresses_that_keep_their_handshakes_open_keep_no_member_out() {
    let (ca, served) = served_with(ListenLimits::default()).await;
    let to: SocketAddr = served.address.parse().expect("an address");
    let made = Arc::new(AtomicUsize::new(0));
    let mut flood: JoinSet<()> = JoinSet::new();
    for n in 0..2 * KEPT_UP {
        let made = made.clone();
        flood.spawn(async move {
            loop {
                let mut silent = bare_from(ATTACKERS[n % 2], to).await;
                made.fetch_add(1, Ordering::Relaxed);
                silent.read_to_end(&mut Vec::new()).await.ok();
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
    let flooded = async {
        while made.load(Ordering::Relaxed) < 2 * KEPT_UP {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, flooded).await.expect("the flood comes in");
    for _ in 0..3 {
        // Less than a handshake of theirs lasts, and as long as an agent's may.
        let asked = tokio::time::timeout(Duration::from_secs(4), a_member_is_served(&served, &ca));
        asked.await.expect("a member does not wait for silent ones");
    }
    assert!(flood.try_join_next().is_none(), "the flood ebbed");
}

#[tokio::test]
async fn a_newcomer_takes_the_place_of_the_oldest_unfinished_handshake() {
    let (ca, served) = served_with(ListenLimits { max_handshakes: 2, ..ListenLimits::default() }).await;
    let (mut oldest, _younger) = (bare(&served).await, bare(&served).await);
    // The places would come free by themselves only after 5 s, which is longer than a member tries.
    a_member_is_served(&served, &ca).await;
    cut(&mut oldest).await;
}

#[tokio::test]
async fn a_handshake_that_trickles_in_is_cut_in_time() {
    let (ca, served) = served_with(ListenLimits { handshake_timeout_ms: 500, ..ListenLimits::default() }).await;
    let (mut reader, mut writer) = bare(&served).await.into_split();
    // The head of a TLS record that promises 4096 bytes of hello.
    let trickle = tokio::spawn(async move {
        let head = [0x16, 3, 1, 0x10, 0x00, 1, 0, 0x0f, 0xfc, 3, 3];
        for byte in head.into_iter().chain(std::iter::repeat_n(0, 4_000)) {
            if writer.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the server took every byte of it");
    });
    a_member_is_served(&served, &ca).await;
    cut(&mut reader).await;
    trickle.await.expect("it was cut");
}

#[tokio::test]
async fn one_name_cannot_take_every_connection() {
    let (ca, served) = served_with(ListenLimits { max_connections_per_name: 2, ..ListenLimits::default() }).await;
    let eve = issue(&ca, Role::User, "eve");
    let mut greeting = [0; 9];
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = open(&served, &ca, Some(&eve)).await;
        stream.read_exact(&mut greeting).await.expect("within the bound");
        held.push(stream);
    }
    assert_eq!(cut(&mut open(&served, &ca, Some(&eve)).await).await, b"", "beyond the bound");
    a_member_is_served(&served, &ca).await;
    // The same name in another role is somebody else.
    ask_as(&served, issue(&ca, Role::Agent, "eve"), Expect::server()).await.expect("another holder");
    drop(held);
    let again = async {
        while open(&served, &ca, Some(&eve)).await.read_exact(&mut greeting).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.expect("a closed connection gives its place back");
}

#[tokio::test]
async fn a_connection_ends_when_its_certificate_does() {
    let (ca, served) = served_with(ListenLimits::default()).await;
    // Certificates count in whole seconds.
    let brief = ca.issue(&name(Role::Agent, "n2"), &Sans::default(), now_ms(), 2_000).expect("issued");
    let not_after_ms = brief.not_after_ms();
    let mut stream = open(&served, &ca, Some(&brief)).await;
    stream.write_all(PREFACE).await.expect("it is still good");
    let all = cut(&mut stream).await;
    assert!(!all.is_empty(), "it was served while it was good");
    assert!(now_ms() >= not_after_ms, "cut before its time");
}

/// A write that takes longer on loopback waits for the other side to read.
const STUCK: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_stranger_who_never_reads_does_not_stay() {
    let limits = ListenLimits { max_anonymous: 1, anonymous_life_ms: 10_000, ..ListenLimits::default() };
    let (ca, served) = served_with(limits).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("little room");
    let stream = socket.connect(served.address.parse().expect("an address")).await.expect("accepted");
    let mut deaf = secured(stream, &ca, None).await;
    deaf.write_all(PREFACE).await.expect("greeted");
    // Each is answered, until no answer can be written any more; then none is read either.
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(1_000);
    while let Ok(written) = tokio::time::timeout(STUCK, deaf.write_all(&pings)).await {
        written.expect("cut before anything was stuck");
    }
    let mut greeting = [0; 9];
    let another = async {
        while open(&served, &ca, None).await.read_exact(&mut greeting).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, another).await.expect("whoever does not read keeps the strangers' only place");
    drop(deaf);
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `GET https /` of the authority `x`, from the static table but for the last.
const GET: &[u8] = b"\x82\x87\x84\x41\x01x";

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// Whether the server's frames say that it goes away.
fn says_goaway(mut bytes: &[u8]) -> bool {
    while let Some(head) = bytes.first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if head[3] == GOAWAY {
            return true;
        }
        bytes = bytes.get(9 + length..).unwrap_or_default();
    }
    false
}

/// Sends frames without end on a member's connection; what the server said until it had enough.
async fn flooded(served: &Served, ca: &Authority, frames: impl Iterator<Item = Vec<u8>> + Send + 'static) -> Vec<u8> {
    let eve = issue(ca, Role::User, "eve");
    let (mut reader, mut writer) = tokio::io::split(open(served, ca, Some(&eve)).await);
    let flood = tokio::spawn(async move {
        writer.write_all(PREFACE).await.expect("greeted");
        for frame in frames {
            if writer.write_all(&frame).await.is_err() {
                return;
            }
        }
        panic!("the server took all of it");
    });
    let said = cut(&mut reader).await;
    flood.await.expect("it was stopped");
    said
}

#[tokio::test]
async fn a_flood_of_streams_opened_and_reset_ends_the_connection() {
    let (ca, served) = served_with(ListenLimits::default()).await;
    let pair = |n: u32| {
        let opened = frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, GET);
        [opened, frame(RST_STREAM, 0, 2 * n + 1, &8u32.to_be_bytes())].concat()
    };
    let said = flooded(&served, &ca, (0..2_000_000).map(pair)).await;
    assert!(says_goaway(&said), "{said:02x?}");
    a_member_is_served(&served, &ca).await;
}

#[tokio::test]
async fn headers_without_end_end_the_connection() {
    let (ca, served) = served_with(ListenLimits::default()).await;
    // A literal header, never indexed, again and again.
    let piece: Vec<u8> = b"\x10\x01a\x01b".repeat(3_000);
    let more = move |_: u32| frame(CONTINUATION, 0, 1, &piece);
    let frames = std::iter::once(frame(HEADERS, END_STREAM, 1, GET)).chain((0..100_000).map(more));
    let said = flooded(&served, &ca, frames).await;
    assert!(says_goaway(&said), "{said:02x?}");
    a_member_is_served(&served, &ca).await;
}
