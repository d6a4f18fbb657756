use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Extension;
use axum::http::HeaderValue;
use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::codegen::Service;
use tonic::transport::Channel;

use super::*;

pub(super) struct Served {
    pub(super) address: String,
    credentials: Credentials,
    shutdown: Shutdown,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

/// Serves one page that answers with who asked.
pub(super) async fn serve(identity: Identity, limits: ListenLimits) -> Served {
    let (credentials, shutdown) = (Credentials::new(identity), Shutdown::new());
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let incoming = TlsIncoming::bind(any_port, credentials.clone(), limits, &shutdown).await.expect("bound");
    let address = incoming.local_addr().to_string();
    let echo = async |Extension(caller): Extension<ConnectInfo>| {
        let shown = caller.peer.map_or("nobody".to_owned(), |peer| peer.as_name().uri());
        [("caller", HeaderValue::from_str(&shown).expect("names are ASCII"))]
    };
    let routes = tonic::service::Routes::from(axum::Router::new().route("/", axum::routing::get(echo)));
    let stop = shutdown.clone();
    tokio::spawn(async move {
        let server = server_builder().add_routes(routes);
        server.serve_with_incoming_shutdown(incoming, stop.triggered()).await.expect("serves to its end");
    });
    Served { address, credentials, shutdown }
}

async fn server(authority: &Authority) -> Served {
    serve(issue(authority, Role::Server, "s1"), ListenLimits::default()).await
}

/// One request; `Err` is what a person would be told.
async fn ask(mut channel: Channel) -> Result<String, String> {
    let explain = |error: tonic::transport::Error| {
        let status = tonic::Status::from_error(Box::new(error));
        explain_transport(&status).expect("a transport failure has a reason")
    };
    let work = async {
        poll_fn(|cx| channel.poll_ready(cx)).await.map_err(explain)?;
        let request = http::Request::get("/").body(tonic::body::Body::empty()).expect("a request");
        let response = channel.call(request).await.map_err(explain)?;
        Ok(response.headers()["caller"].to_str().expect("names are ASCII").to_owned())
    };
    tokio::time::timeout(DEADLINE, work).await.expect("an answer before the deadline")
}

pub(super) async fn ask_as(served: &Served, identity: Identity, expect: Expect) -> Result<String, String> {
    ask(connect(&served.address, &Credentials::new(identity), expect).expect("a good address")).await
}

#[track_caller]
fn refused(answer: Result<String, String>, reason: &str) {
    let why = answer.expect_err("must be refused");
    assert!(why.contains(reason), "refused for another reason: {why}");
}

#[tokio::test]
async fn each_role_reaches_the_handler_under_its_own_name() {
    let ca = authority();
    let served = server(&ca).await;
    for role in Role::ALL {
        let answer = ask_as(&served, issue(&ca, role, "p7"), Expect::server()).await;
        assert_eq!(answer.as_deref(), Ok(name(role, "p7").uri().as_str()));
    }
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_nobody() {
    let ca = authority();
    let served = server(&ca).await;
    let channel = connect_anonymous(&served.address, ca.ca_pem(), Expect::server()).expect("a good address");
    assert_eq!(ask(channel).await.as_deref(), Ok("nobody"));
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_either_side() {
    let ca = authority();
    let served = server(&ca).await;
    let answer = ask_as(&served, issue_expired(&ca, Role::Agent, "n1"), Expect::server()).await;
    refused(answer, "it has expired; issue a new one");
    let stale = serve(issue_expired(&ca, Role::Server, "s1"), ListenLimits::default()).await;
    refused(ask_as(&stale, issue(&ca, Role::Agent, "n1"), Expect::server()).await, "its certificate has expired");
}

#[tokio::test]
async fn another_ca_of_the_same_cluster_name_is_refused_on_either_side() {
    let (ca, other) = (authority(), authority());
    let served = server(&ca).await;
    let answer = ask_as(&served, issue(&other, Role::Admin, "eve"), Expect::server()).await;
    refused(answer, "not from this cluster's CA");
    // A client that believes the right CA and shows a certificate of the wrong one.
    let eve = issue(&other, Role::Admin, "eve");
    let mixed = Identity::assemble(eve.cert_pem(), eve.key_pem(), ca.ca_pem()).expect("well-formed");
    refused(ask_as(&served, mixed, Expect::server()).await, "refused our certificate");
}

#[tokio::test]
async fn only_the_expected_server_may_answer() {
    let ca = authority();
    let served = server(&ca).await;
    let me = || issue(&ca, Role::Server, "s2");
    ask_as(&served, me(), Expect::server().named("s1")).await.expect("the right one");
    refused(ask_as(&served, me(), Expect::server().named("s")).await, "wanted server s of cluster c1, found server s1");
    refused(ask_as(&served, me(), Expect::server().of_cluster("c")).await, "found server s1 of cluster c1");
    let agent = serve(issue(&ca, Role::Agent, "s1"), ListenLimits::default()).await;
    refused(ask_as(&agent, me(), Expect::server()).await, "found agent s1");
    let user = serve(issue(&ca, Role::User, "s1"), ListenLimits::default()).await;
    refused(ask_as(&user, me(), Expect::server()).await, "not acceptable");
}

#[tokio::test]
async fn joining_believes_the_pinned_ca_only() {
    let (ca, other) = (authority(), authority());
    let served = server(&ca).await;
    let to = |pin| connect_pinned(&served.address, pin, Expect::server()).expect("a good address");
    assert_eq!(ask(to(ca.fingerprint())).await.as_deref(), Ok("nobody"));
    refused(ask(to(other.fingerprint())).await, "did not present the CA");
    // The leaf's own fingerprint is no CA's.
    let leaf = served.credentials.current().peer().fingerprint;
    refused(ask(to(leaf)).await, "did not present the CA");
    // A server of another CA that sends the pinned CA along still has no signature of it.
    let thief = issue(&other, Role::Server, "s1");
    let thief = Identity::assemble(thief.cert_pem(), thief.key_pem(), ca.ca_pem()).expect("well-formed");
    let thief = serve(thief, ListenLimits::default()).await;
    let to_thief = connect_pinned(&thief.address, ca.fingerprint(), Expect::server()).expect("a good address");
    refused(ask(to_thief).await, "not from this cluster's CA");
}

#[tokio::test]
async fn half_open_handshakes_keep_nobody_out_and_are_dropped_in_time() {
    let ca = authority();
    let limits = ListenLimits { handshake_timeout_ms: 300, max_handshakes: 101, ..ListenLimits::default() };
    let served = serve(issue(&ca, Role::Server, "s1"), limits).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(&served.address).await.expect("accepted"));
    }
    ask_as(&served, issue(&ca, Role::Agent, "n1"), Expect::server()).await.expect("served meanwhile");
    for mut stream in silent {
        let dropped = tokio::time::timeout(DEADLINE, stream.read(&mut [0; 64])).await.expect("dropped in time");
        assert!(matches!(dropped, Ok(0) | Err(_)), "a silent client must get nothing");
    }
    // Each of them has given its place back.
    ask_as(&served, issue(&ca, Role::Agent, "n1"), Expect::server()).await.expect("served afterwards");
}

#[tokio::test]
async fn one_address_cannot_take_every_handshake() {
    let ca = authority();
    let limits = ListenLimits { max_handshakes_per_address: 2, ..ListenLimits::default() };
    let served = serve(issue(&ca, Role::Server, "s1"), limits).await;
    let _first = TcpStream::connect(&served.address).await.expect("accepted");
    let _second = TcpStream::connect(&served.address).await.expect("accepted");
    let mut third = TcpStream::connect(&served.address).await.expect("the kernel takes it");
    let dropped = tokio::time::timeout(DEADLINE, third.read(&mut [0; 1])).await.expect("dropped at once");
    assert!(matches!(dropped, Ok(0) | Err(_)));
}

#[tokio::test]
async fn agents_behind_one_address_all_get_in_by_coming_again() {
    let ca = authority();
    let limits = ListenLimits { max_handshakes_per_address: 4, ..ListenLimits::default() };
    let served = serve(issue(&ca, Role::Server, "s1"), limits).await;
    let mut agents = JoinSet::new();
    for n in 0..64 {
        let own = Credentials::new(issue(&ca, Role::Agent, &format!("n{n}")));
        let channel = connect(&served.address, &own, Expect::server()).expect("a good address");
        agents.spawn(async move {
            let mut tries = 1u32;
            while ask(channel.clone()).await.is_err() {
                tries += 1;
                // As agents do, each a little later than the others.
                tokio::time::sleep(Duration::from_millis(10 + n)).await;
            }
            tries
        });
    }
    let all_in = async {
        let mut most_tries = 0u32;
        while let Some(tries) = agents.join_next().await {
            most_tries = most_tries.max(tries.expect("no panic"));
        }
        most_tries
    };
    let most_tries = tokio::time::timeout(DEADLINE, all_in).await.expect("every one of them gets in");
    assert!(most_tries > 1, "nobody was dropped, so it was no storm");
}

async fn open_anonymous(served: &Served, ca: &Authority) -> tokio_rustls::client::TlsStream<TcpStream> {
    let trust = Trust::Ca(ca.ca_pem().to_owned());
    let config = client_config(None, &trust, Expect::server(), &[b"h2"]).expect("settings");
    let stream = TcpStream::connect(&served.address).await.expect("accepted");
    let to = ServerName::try_from(Role::Server.dns()).expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(to, stream).await.expect("a good server")
}

#[tokio::test]
async fn strangers_are_few_and_hold_up_no_member() {
    let ca = authority();
    let limits = ListenLimits { max_anonymous: 1, ..ListenLimits::default() };
    let served = serve(issue(&ca, Role::Server, "s1"), limits).await;
    let mut greeting = [0; 1];
    let mut first = open_anonymous(&served, &ca).await;
    first.read_exact(&mut greeting).await.expect("the one stranger is served");
    let mut second = open_anonymous(&served, &ca).await;
    let dropped = tokio::time::timeout(DEADLINE, second.read(&mut greeting)).await;
    assert!(matches!(dropped.expect("dropped for the bound"), Ok(0) | Err(_)));
    let member = issue(&ca, Role::Agent, "n1");
    ask_as(&served, member, Expect::server()).await.expect("members are not held up");
}

#[tokio::test]
async fn a_stranger_does_not_stay() {
    let ca = authority();
    let limits = ListenLimits { anonymous_life_ms: 100, ..ListenLimits::default() };
    let served = serve(issue(&ca, Role::Server, "s1"), limits).await;
    let mut stranger = open_anonymous(&served, &ca).await;
    let mut rest = Vec::new();
    let reading = stranger.read_to_end(&mut rest);
    tokio::time::timeout(DEADLINE, reading).await.expect("cut at its end").ok();
}

#[tokio::test]
async fn tls_1_2_and_plain_text_are_refused() {
    let ca = authority();
    let served = server(&ca).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(tls::certificates(ca.ca_pem(), "CA").expect("PEM").swap_remove(0)).expect("a CA");
    let old = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("the library still has it")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(&served.address).await.expect("accepted");
    let to = ServerName::try_from(Role::Server.dns()).expect("a name");
    let error = tokio_rustls::TlsConnector::from(Arc::new(old)).connect(to, stream).await.expect_err("refused");
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    let mut plain = TcpStream::connect(&served.address).await.expect("accepted");
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    let reading = plain.read_to_end(&mut answer);
    tokio::time::timeout(DEADLINE, reading).await.expect("closed in time").ok();
    assert!(!answer.starts_with(b"HTTP"), "plain text must not be served");
}

#[tokio::test]
async fn a_replaced_identity_serves_new_connections_and_must_keep_its_name() {
    let ca = authority();
    let served = serve(issue_expired(&ca, Role::Server, "s1"), ListenLimits::default()).await;
    let own = Credentials::new(issue_expired(&ca, Role::Agent, "n1"));
    let channel = connect(&served.address, &own, Expect::server()).expect("a good address");
    refused(ask(channel.clone()).await, "expired");
    served.credentials.replace(issue(&ca, Role::Server, "s1")).expect("the same name");
    refused(ask(channel.clone()).await, "refused our certificate: it has expired");
    own.replace(issue(&ca, Role::Agent, "n1")).expect("the same name");
    assert_eq!(ask(channel).await.as_deref(), Ok("muster://c1/agent/n1"));
    let error = own.replace(issue(&ca, Role::Admin, "n1")).expect_err("another role").to_string();
    assert!(error.contains("muster://c1/admin/n1, not for muster://c1/agent/n1"), "{error}");
}

#[tokio::test]
async fn an_address_that_nobody_listens_on_is_explained() {
    let ca = authority();
    let free = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let address = free.local_addr().expect("bound").to_string();
    drop(free);
    let own = Credentials::new(issue(&ca, Role::User, "ada"));
    let answer = ask(connect(&address, &own, Expect::server()).expect("a good address")).await;
    refused(answer, &format!("cannot reach {address}"));
    for bad in ["localhost", "host:0", "http://h:1", ":7", "a b:1", "u@h:1", "h:70000", ""] {
        assert!(matches!(connect(bad, &own, Expect::server()), Err(IdentityError::BadAddress(_))), "{bad:?}");
    }
}

#[tokio::test]
async fn a_stopped_listener_gives_its_port_back() {
    let ca = authority();
    let shutdown = Shutdown::new();
    let credentials = Credentials::new(issue(&ca, Role::Server, "s1"));
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bind = async |to| TlsIncoming::bind(to, credentials.clone(), ListenLimits::default(), &shutdown).await;
    let first = bind(any_port).await.expect("bound");
    let port = first.local_addr();
    assert!(bind(port).await.is_err(), "taken while it lives");
    drop(first);
    let again = async {
        while bind(port).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.expect("free after it is dropped");
}
