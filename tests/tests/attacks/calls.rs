//! Every call of the wire, as the descriptors name them: by every kind of caller, and with bodies that are no messages.

use super::raw::{Call, all_calls, call, call_slowly, framed};
use super::server::{Server, expired};
use bytes::Bytes;
use muster_runtime::identity::Role;
use muster_scheduler::gateway::roles::CALLS;
use std::time::{Duration, Instant};
use tonic::Code;
use tonic::transport::Channel;

/// Whoever may make a call; `None` = also a caller without a certificate.
fn allowed(call: &Call) -> Vec<Option<Role>> {
    let roles = |roles: &[Role]| roles.iter().copied().map(Some).collect();
    match (call.service.as_str(), call.method.as_str()) {
        ("muster.client.v1.Muster", method) => {
            let row = CALLS.iter().find(|(name, _)| *name == method);
            roles(row.unwrap_or_else(|| panic!("{method} is in no table of roles")).1)
        }
        ("muster.agent.v1.Agents", "Join") => {
            let mut all: Vec<_> = roles(Role::ALL.as_slice());
            all.push(None);
            all
        }
        ("muster.agent.v1.Agents", _) => roles(&[Role::Agent]),
        ("muster.peer.v1.Peer", _) => roles(&[Role::Server]),
        (service, _) => panic!("say here who may call {service}"),
    }
}

fn callers(server: &Server) -> Vec<(Option<Role>, Channel)> {
    let mut callers = vec![(None, server.nobody())];
    callers.extend(Role::ALL.iter().map(|role| (Some(*role), server.channel(server.identity(*role, "eve")))));
    callers
}

const REFUSED: [Code; 2] = [Code::Unauthenticated, Code::PermissionDenied];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_refused_to_every_role_it_is_not_for() {
    let server = Server::start().await;
    let callers = callers(&server);
    for call_of in all_calls() {
        let allowed = allowed(&call_of);
        for (role, channel) in &callers {
            let who = role.map_or("nobody".to_owned(), |role| role.to_string());
            let path = call_of.path();
            let asked = tokio::time::timeout(Duration::from_secs(20), call(channel, &path, framed(b""))).await;
            if allowed.contains(role) {
                // An empty message may be refused for what it does not say, and a stream may wait for more.
                assert_ne!(asked, Ok(Code::Unauthenticated), "{} is for a {who}", call_of.path());
            } else {
                let code = asked.unwrap_or_else(|_| panic!("{} leaves a {who} waiting", call_of.path()));
                assert!(REFUSED.contains(&code), "{} by {who}: {code:?}", call_of.path());
            }
        }
    }
    server.serves("every call by everybody").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_makes_no_call_at_all() {
    let server = Server::start().await;
    for role in Role::ALL {
        // No call gets as far as its method, so one of each service tells. A connection of its own for each: one
        // that was refused waits before it tries again.
        let mut calls = all_calls();
        calls.dedup_by(|next, first| next.service == first.service);
        for call_of in calls {
            let channel = server.channel(expired(&server.authority, role, "old"));
            let code = call(&channel, &call_of.path(), framed(b"")).await;
            assert_eq!(code, Code::Unavailable, "{} by an expired {role}", call_of.path());
        }
    }
    server.serves("expired callers").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_certificate_runs_out_is_ended_with_its_streams() {
    use muster_proto::client::EventsRequest;
    use muster_proto::client::muster_client::MusterClient;
    use muster_runtime::identity::{Name, Sans};
    let server = Server::start().await;
    let name = Name::new(super::server::CLUSTER, Role::User, "brief").expect("a name");
    let now_ms = super::server::now_ms();
    let brief = server.authority.issue(&name, &Sans::default(), now_ms, 3_000).expect("issued");
    let mut api = MusterClient::new(server.channel(brief));
    let follow = EventsRequest { follow: true, ..EventsRequest::default() };
    let mut events = api.events(follow).await.expect("it is still good").into_inner();
    let ended = async { while let Ok(Some(_)) = events.message().await {} };
    tokio::time::timeout(super::server::PATIENCE, ended).await.expect("a stream outlives its certificate");
    assert!(super::server::now_ms() >= now_ms + 2_000, "ended before its time");
}

/// A caller that may make the call.
fn welcome<'a>(callers: &'a [(Option<Role>, Channel)], call: &Call) -> &'a Channel {
    let allowed = allowed(call);
    let found = callers.iter().find(|(role, _)| role.is_some() && allowed.contains(role));
    &found.unwrap_or_else(|| panic!("nobody may call {}", call.path())).1
}

/// Bodies that are no message of any call, and some that are one only to calls which do not know the field.
fn malformed() -> Vec<(&'static str, Bytes, bool)> {
    let deep =
        (0..2_000).fold(Vec::new(), |inner, _| [&[0x0a, 0x80 | (inner.len() % 128) as u8, 1][..], &inner].concat());
    let random: Vec<u8> = (0..4_096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    vec![
        ("no frame", Bytes::new(), false),
        ("half a frame's head", Bytes::from_static(&[0, 0, 0]), false),
        ("a frame that promises more", Bytes::from_static(&[0, 0, 0, 1, 0, 1, 2, 3]), false),
        ("a frame of 4 GiB", Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]), false),
        ("an unknown compression", Bytes::from_static(&[1, 0, 0, 0, 1, 0]), false),
        ("a flag that is none", Bytes::from_static(&[7, 0, 0, 0, 1, 0]), false),
        ("a field without end", framed(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1]), false),
        ("a number without end", framed(&[0x88; 64]), false),
        ("a group that never closes", framed(&[0x0b; 300]), false),
        ("text that is not UTF-8", framed(&[0x0a, 2, 0xff, 0xfe]), true),
        ("messages in messages", framed(&deep), true),
        ("random bytes", framed(&random), false),
        ("16 MiB", framed(&vec![0x0a; 16 << 20]), false),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_malformed_or_oversized_message_is_taken_or_harms_anybody() {
    let server = Server::start().await;
    let callers = callers(&server);
    for call_of in all_calls() {
        for (what, body, may_be_taken) in malformed() {
            let channel = welcome(&callers, &call_of);
            let asked = tokio::time::timeout(Duration::from_secs(20), call(channel, &call_of.path(), body)).await;
            let code = asked.unwrap_or_else(|_| panic!("{} hangs on {what}", call_of.path()));
            // Agents and servers open streams before they say anything; what they say then is refused on the stream.
            let allowed = may_be_taken || call_of.streaming;
            assert!(allowed || code != Code::Ok, "{} takes {what}", call_of.path());
        }
        server.serves(&format!("malformed bodies of {}", call_of.path())).await;
    }
}

/// Far below the time in which a message must be whole.
const AT_ONCE: Duration = Duration::from_secs(5);
/// The head of a frame that promises 30 MiB.
const LARGE: Bytes = Bytes::from_static(&[0, 0x01, 0xe0, 0, 0]);
const JOIN: &str = "/muster.agent.v1.Agents/Join";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_not_call_is_refused_before_the_message_comes() {
    let server = Server::start().await;
    let callers = callers(&server);
    for call_of in all_calls() {
        let (path, allowed) = (call_of.path(), allowed(&call_of));
        // Which people may call what, the gateway tells them once it has their message; a stranger is told before.
        let by_role = call_of.service != "muster.client.v1.Muster";
        for (role, channel) in &callers {
            if allowed.contains(role) || (role.is_some() && !by_role) {
                continue;
            }
            let who = role.map_or("nobody".to_owned(), |role| role.to_string());
            let asked = call_slowly(channel, &path, vec![LARGE], Duration::ZERO);
            let asked = tokio::time::timeout(AT_ONCE, asked).await;
            let code = asked.unwrap_or_else(|_| panic!("{path} waits for what a {who} sends"));
            assert!(REFUSED.contains(&code), "{path} by {who}: {code:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_may_send_one_small_join_at_a_time() {
    let server = Server::start().await;
    let code = call(&server.nobody(), JOIN, framed(&vec![0x0a; 65 << 10])).await;
    assert_eq!(code, Code::OutOfRange, "a join of 65 KiB");
    let stranger = server.nobody();
    let held = tokio::spawn({
        let stranger = stranger.clone();
        // The one beside it may have come first.
        async move { while call_slowly(&stranger, JOIN, vec![LARGE], Duration::ZERO).await == Code::ResourceExhausted {} }
    });
    let second = async { while call(&stranger, JOIN, framed(b"")).await != Code::ResourceExhausted {} };
    tokio::time::timeout(AT_ONCE, second).await.expect("a second join beside the first");
    // Whoever comes on a connection of its own is not held up by it.
    let other = tokio::time::timeout(AT_ONCE, call(&server.nobody(), JOIN, framed(b""))).await;
    assert_eq!(other, Ok(Code::InvalidArgument), "a join without a name");
    held.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_trickles_in_holds_up_nobody_and_does_not_stay() {
    let server = Server::start().await;
    let slow = server.channel(server.identity(Role::User, "eve"));
    let agent = server.channel(server.identity(Role::Agent, "eve"));
    let submit = |n: usize| ("/muster.client.v1.Muster/Submit".to_owned(), format!("a user, {n}"), slow.clone());
    let mut calls: Vec<_> = (0..64).map(submit).collect();
    // The messages of a stream may come as slowly as they like.
    for call_of in all_calls().into_iter().filter(|call_of| !call_of.streaming) {
        for (who, channel) in [("nobody", server.nobody()), ("a user", slow.clone()), ("an agent", agent.clone())] {
            calls.push((call_of.path(), who.to_owned(), channel));
        }
    }
    let begun = Instant::now();
    let trickles = calls.into_iter().map(|(path, who, channel)| {
        let pieces = vec![Bytes::from_static(&[0]), Bytes::from_static(&[0, 0]), Bytes::from_static(&[1, 0, 9])];
        let what = format!("{path} by {who}");
        let trickle =
            tokio::spawn(async move { call_slowly(&channel, &path, pieces, Duration::from_millis(500)).await });
        (what, trickle)
    });
    let trickles: Vec<_> = trickles.collect();
    while begun.elapsed() < Duration::from_secs(3) {
        server.serves("slow bodies").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (what, trickle) in trickles {
        let ended = tokio::time::timeout(super::server::PATIENCE, trickle).await;
        let code = ended.unwrap_or_else(|_| panic!("half a message stays for ever: {what}")).expect("no panic");
        assert_ne!(code, Code::Ok, "{what}");
    }
}
