//! The whole API over HTTP and TLS as people use it: with `curl` and a certificate.

use super::job;
use muster_tests::cluster::people::Person;
use muster_tests::cluster::wait::until;
use muster_tests::cluster::{Options, TestCluster};
use serde_json::Value;
use std::path::Path;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1 as reflection;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/http.md");

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_reference_of_http_runs_and_answers_what_the_command_line_prints() {
    let cluster = TestCluster::start(1, 1, Options::default()).await;
    let (admin, address) = (&cluster.admin, &cluster.addresses[0]);
    run_reference(admin, address, cluster.folder()).await;

    let id = admin.submit_job(&job("same", 1, 2, "echo hello")).await;
    assert_eq!(admin.ended(id).await.state, "SUCCEEDED");
    let number = id.to_string();
    for (arguments, target) in [
        (vec!["show", number.as_str()], format!("/v1/jobs/{id}")),
        (vec!["ps", "-A", "-e"], "/v1/jobs?ended=true&all_users=true".to_owned()),
        (vec!["node", "ls"], "/v1/nodes".to_owned()),
        (vec!["node", "show", "n0"], "/v1/nodes/n0".to_owned()),
    ] {
        let printed = still(admin.json(&arguments).await);
        let (status, answered) = admin.web(address, &target, &[]).await;
        assert_eq!((status, still(answered)), (200, printed), "muster {arguments:?} and {target}");
    }
    let missing = admin.run(&["show", "999", "--json"]).await;
    let printed: Value = serde_json::from_slice(&missing.stderr).expect("an error is JSON too");
    assert_eq!(admin.web(address, "/v1/jobs/999", &[]).await, (404, printed));

    let lines = admin.web(address, &format!("/v1/jobs/{id}/logs?follow=true"), &[]).await.1;
    let lines = lines.as_str().expect("a stream");
    assert_eq!(lines.matches(r#""line":"hello""#).count(), 2, "both ranks: {lines}");
    assert!(lines.ends_with(r#"data: {"schema":"muster.end/1"}"#), "{lines}");
    let (status, _) = cluster.user.web(address, "/v1/node-tokens", &["--request", "POST"]).await;
    assert_eq!(status, 403, "a user makes no join tokens");
}

/// Without the values of telemetry, which move between two looks; that they are told stays.
fn still(mut document: Value) -> Value {
    const MOVING: [&str; 6] =
        ["sampled_at", "sampled_at_ms", "power_mw", "temperature_c", "busy_percent", "memory_used_bytes"];
    for device in document.get_mut("devices").and_then(Value::as_array_mut).into_iter().flatten() {
        for name in MOVING {
            if let Some(value) = device.get_mut(name) {
                *value = Value::from("moves");
            }
        }
    }
    document
}

/// Every block of the reference, one after the other, as one person would type them.
async fn run_reference(person: &Person, address: &str, folder: &Path) {
    let text = std::fs::read_to_string(REFERENCE).expect("the reference is there");
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let script: String = std::iter::once("set -euo pipefail\n").chain(blocks).collect();
    assert!(script.matches("muster_curl").count() > 8, "the reference shows how to call");
    let mut command = tokio::process::Command::new("bash");
    command.arg("-c").arg(&script).current_dir(folder);
    command.env("SERVER", format!("https://{address}")).env("ID", &person.identity_dir);
    let output = command.output().await.expect("bash is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{said}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    for part in ["muster.submitted/1", "muster.wait/1", "hello from rank 0", "muster.node_change/1", "job_ended"] {
        assert!(said.contains(part), "the reference's examples do not show {part}:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_go_on_at_another_server_without_gap_or_repetition_and_health_tells_the_truth() {
    let mut cluster = TestCluster::start(3, 0, Options::default()).await;
    let leader = cluster.leader().await;
    let first = (leader + 1) % 3;
    let second = (leader + 2) % 3;
    let (user, addresses) = (cluster.user.clone(), cluster.addresses.clone());
    let submit = async |name: &str| user.submit_job(&job(name, 1, 1, "true")).await;

    let mut told: Vec<String> = Vec::new();
    let mut stream = user.listen(&addresses[first], "/v1/events?from_index=1", None);
    // The connection is cut in the middle, then the server is killed in the middle.
    for (name, at) in [("a", first), ("b", first), ("c", second)] {
        let id = submit(name).await;
        loop {
            let (event, data) = stream.next().await.expect("the server is up");
            told.push(event);
            if data["kind"] == "job_submitted" && data["job"] == id {
                break;
            }
        }
        drop(stream);
        if name == "b" {
            cluster.servers[first].kill_9();
        }
        let at = if name == "b" { second } else { at };
        stream = user.listen(&addresses[at], "/v1/events", told.last().map(String::as_str));
    }
    let last = submit("d").await;
    let mut seen = false;
    while !seen {
        let (event, data) = stream.next().await.expect("the server is up");
        told.push(event);
        seen = data["kind"] == "job_submitted" && data["job"] == last;
    }
    let whole = ["--header", "Accept: application/x-ndjson"];
    let (_, lines) = user.web(&addresses[second], "/v1/events?from_index=1", &whole).await;
    let all: Vec<String> = lines.as_str().expect("lines").lines().map(id_of).collect();
    assert_eq!(told, all[..told.len()], "each event once, in order");

    describes_itself(&user, &addresses[leader]).await;
    let health = |at: usize| healthy(user.clone(), addresses[at].clone());
    until("a majority serves", async || (health(second).await == (true, 200)).then_some(())).await;
    cluster.servers[leader].kill_9();
    until("one of three is of no use", async || (health(second).await == (false, 503)).then_some(())).await;
    cluster.servers[first].start();
    until("two of three serve", async || (health(second).await == (true, 200)).then_some(())).await;
}

fn id_of(line: &str) -> String {
    let event: Value = serde_json::from_str(line).expect("a document a line");
    format!("{}.{}", event["index"], event["ordinal"])
}

/// What gRPC's health service says of the client API, and the status of `/healthz`.
async fn healthy(user: Person, address: String) -> (bool, u16) {
    let mut client = HealthClient::new(user.channel(&address));
    let request = HealthCheckRequest { service: "muster.client.v1.Muster".to_owned() };
    let serves = client.check(request).await.is_ok_and(|reply| reply.into_inner().status == 1);
    (serves, user.web(&address, "/healthz", &[]).await.0)
}

/// gRPC reflection tells the client API, and only that.
async fn describes_itself(user: &Person, address: &str) {
    use reflection::server_reflection_client::ServerReflectionClient;
    use reflection::server_reflection_request::MessageRequest;
    use reflection::server_reflection_response::MessageResponse;
    let mut client = ServerReflectionClient::new(user.channel(address));
    let ask = |message| reflection::ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let asked = vec![
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("muster.client.v1.Muster".to_owned())),
        ask(MessageRequest::FileContainingSymbol("muster.peer.v1.Peer".to_owned())),
    ];
    let requests = tokio_stream::iter(asked);
    let mut replies = client.server_reflection_info(requests).await.expect("reflection answers").into_inner();
    let mut next = async || replies.message().await.ok().flatten().and_then(|reply| reply.message_response);
    let Some(MessageResponse::ListServicesResponse(listed)) = next().await else { panic!("no list of services") };
    let names: Vec<&str> = listed.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"muster.client.v1.Muster") && !names.iter().any(|name| name.contains("peer")), "{names:?}");
    assert!(matches!(next().await, Some(MessageResponse::FileDescriptorResponse(_))));
    assert!(!matches!(next().await, Some(MessageResponse::FileDescriptorResponse(_))), "servers' own protocol");
}
