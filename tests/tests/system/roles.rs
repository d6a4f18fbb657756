//! Who may call what, over real TLS, and what a caller sees when it may not.

use super::job;
use muster_proto::client::muster_client::MusterClient;
use muster_proto::client::{CancelRequest, ConfigureRequest, ListJobsRequest, NodeTokenRequest, VersionRequest};
use muster_proto::convert::error::ErrorCode;
use muster_runtime::identity::{Authority, Credentials, DAY_MS, Expect, Name, Role, Sans, connect, connect_anonymous};
use muster_tests::cluster::people::{Api, Person, by_id, describe, error_of, wall_ms};
use muster_tests::cluster::{Options, TestCluster, free_addresses};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use tonic::Status;

/// Who calls: how it is named in a failure, and its client.
fn callers(cluster: &TestCluster) -> Vec<(&'static str, Api)> {
    let address = &cluster.addresses[0];
    let agent = Person::new(cluster.addresses.clone(), &cluster.places[0].state_dir.with_file_name("identity"));
    let server = Person::new(cluster.addresses.clone(), &cluster.folder().join("cluster/servers/s1/identity"));
    let ca = std::fs::read_to_string(cluster.folder().join("cluster/ca/ca.crt")).expect("the CA's certificate");
    let nobody = connect_anonymous(address, &ca, Expect::server()).expect("an address");
    vec![
        ("nobody", MusterClient::new(nobody)),
        ("agent", agent.api(address)),
        ("server", server.api(address)),
        ("user", cluster.user.api(address)),
        ("admin", cluster.admin.api(address)),
    ]
}

/// `None` = allowed.
fn refusal<T>(answer: Result<T, Status>) -> Option<ErrorCode> {
    answer.err().map(|status| error_of(&status).code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_checked_against_the_role_in_the_certificate() {
    let cluster = TestCluster::start(1, 1, Options::default()).await;
    let (none, not_in, forbidden) = (None, Some(ErrorCode::NotLoggedIn), Some(ErrorCode::Forbidden));
    for (who, mut api) in callers(&cluster) {
        let list = refusal(api.list_jobs(ListJobsRequest::default()).await);
        let version = refusal(api.version(VersionRequest::default()).await);
        let token = refusal(
            api.node_token(NodeTokenRequest { request_id: format!("{who}-token"), ..NodeTokenRequest::default() })
                .await,
        );
        let settings = ConfigureRequest {
            request_id: format!("{who}-look"),
            kind: "settings".to_owned(),
            ..ConfigureRequest::default()
        };
        let configure = refusal(api.configure(settings).await);
        let expected = match who {
            "nobody" => [not_in, not_in, not_in, not_in],
            "user" => [none, none, forbidden, forbidden],
            "admin" => [none; 4],
            _ => [forbidden; 4],
        };
        assert_eq!([list, version, token, configure], expected, "{who}");
    }

    // Jobs are changed by their owner or an admin.
    let held = cluster.user.submit_job(&job("mine", 1, 1, "true")).await;
    let bob = issue(&cluster, "bob", wall_ms(), DAY_MS);
    let bob = Person::new(cluster.addresses.clone(), &bob);
    let cancel = CancelRequest { request_id: "c".to_owned(), job: Some(by_id(held)), reason: String::new() };
    let refused = bob.try_call(async |mut api| api.cancel(cancel.clone()).await).await;
    assert_eq!(refusal(refused), forbidden, "bob does not own alice's job");
}

/// Folder with a new identity of a user.
fn issue(cluster: &TestCluster, name: &str, now_ms: u64, valid_ms: u64) -> PathBuf {
    let authority = Authority::load(&cluster.folder().join("cluster/ca"), now_ms).expect("the CA");
    let name_in_full = Name::new("testing", Role::User, name).expect("a name");
    let identity = authority.issue(&name_in_full, &Sans::default(), now_ms, valid_ms).expect("issued");
    let folder = cluster.folder().join("identities").join(name);
    identity.save(&folder).expect("saved");
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_a_plain_connection_and_a_silent_address_are_refused_with_a_hint() {
    let cluster = TestCluster::start(1, 1, Options::default()).await;
    // The command line refuses an expired identity before it calls anybody ...
    let folder = issue(&cluster, "old", wall_ms() - 2 * DAY_MS, DAY_MS);
    let output = cluster.user.run(&["ps", "--identity", folder.to_str().unwrap()]).await;
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{talk}");
    assert!(talk.contains("E042") && talk.contains("expired"), "{talk}");
    // ... and a server refuses whoever does not look: a day more of validity is all the difference.
    let authority = Authority::load(&cluster.folder().join("cluster/ca"), wall_ms()).expect("the CA");
    let name = Name::new("testing", Role::User, "old").expect("a name");
    for (valid_ms, accepted) in [(DAY_MS, false), (3 * DAY_MS, true)] {
        let old = authority.issue(&name, &Sans::default(), wall_ms() - 2 * DAY_MS, valid_ms).expect("issued");
        let channel = connect(&cluster.addresses[0], &Credentials::new(old), Expect::server()).expect("an address");
        let answer = MusterClient::new(channel).list_jobs(ListJobsRequest::default()).await;
        assert_eq!(answer.is_ok(), accepted, "{:?}", answer.err().map(|status| describe(&status)));
    }

    // Nothing is said in the clear.
    let mut plain = TcpStream::connect(&cluster.addresses[0]).expect("something listens");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&answer));

    let nobody = free_addresses(1).remove(0);
    let output = cluster.user.run(&["ps", "--server", &nobody]).await;
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{talk}");
    assert!(talk.contains(&nobody) && talk.contains("help"), "{talk}");
}
