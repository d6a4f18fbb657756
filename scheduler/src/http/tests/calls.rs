use super::super::table::ROUTES;
use super::client::{JOB, Web, somebody, whole};
use crate::gateway::roles::CALLS;
use axum::body::Body;
use futures::stream;
use http::Request;
use muster_runtime::identity::Role;
use serde_json::json;
use std::convert::Infallible;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_in_and_comes_back_and_a_repeat_is_the_same_job() {
    let web = Web::start(1).await;
    let id = web.submit("k1").await;
    assert_eq!(web.submit("k1").await, id);
    let shown = web.get(&format!("/v1/jobs/{id}")).await;
    assert_eq!(shown.headers["content-type"], "application/json");
    let job = shown.json();
    assert_eq!(
        (&job["schema"], &job["name"], &job["user"]),
        (&json!("muster.job/1"), &json!("train"), &json!("the-admin"))
    );
    assert_eq!(job["spec"]["scheduling"]["groups"].as_array().map(Vec::len), Some(1));
    let listed = web.get("/v1/jobs?states=QUEUED&states=STARTING").await.json();
    assert_eq!(listed["jobs"][0]["id"], id);
    let cancelled = web.post(&format!("/v1/jobs/{id}/cancel"), "").await.json();
    assert_eq!((&cancelled["schema"], &cancelled["jobs"][0]["job"]["id"]), (&json!("muster.cancelled/1"), &json!(id)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_checked_against_the_role_in_the_certificate() {
    let web = Web::start(0).await;
    for route in ROUTES {
        let target = route
            .path
            .replace("{job}", "7")
            .replace("{name}", "n1")
            .replace("{node}", "n1")
            .replace("{kind}", "policy");
        let request = || Request::builder().method(route.method.word()).uri(&target).body(Body::empty()).unwrap();
        let nobody = whole(web.send(None, request()).await).await;
        assert_eq!(nobody.error(), (401, "NOT_LOGGED_IN".to_owned()), "{target}");
        let mut old = somebody(Role::Admin);
        old.peer.as_mut().unwrap().not_after_ms = 1;
        let expired = whole(web.send(Some(old), request()).await).await;
        assert_eq!(expired.error(), (401, "CERTIFICATE_EXPIRED".to_owned()), "{target}");
        let allowed = CALLS.iter().find(|(call, _)| *call == route.call).map(|(_, roles)| *roles).unwrap();
        for role in [Role::User, Role::Agent, Role::Server].into_iter().filter(|role| !allowed.contains(role)) {
            let refused = whole(web.send(Some(somebody(role)), request()).await).await;
            assert_eq!(refused.error(), (403, "FORBIDDEN".to_owned()), "{target} by a {role}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_answered_is_refused_with_a_status_that_fits() {
    let web = Web::start(1).await;
    let spec = |text: &str| format!(r#"{{"spec": {text}, "key": "s"}}"#);
    let big = spec(&JOB.replace("\"gpus_per_node\":2", "\"gpus_per_node\":64"));
    let unknown = spec(&JOB.replace("\"run\"", "\"rnu\""));
    let huge = " ".repeat((512 << 10) + 1);
    for (method, target, body, status, code) in [
        ("GET", "/v1/jobs/999", "", 404, "JOB_NOT_FOUND"),
        ("GET", "/v1/jbos", "", 404, "USAGE"),
        ("DELETE", "/v1/jobs", "", 405, "USAGE"),
        ("GET", "/v1/jobs?limt=1", "", 400, "USAGE"),
        ("POST", "/v1/jobs", "{", 400, "SPEC_SYNTAX"),
        ("POST", "/v1/jobs", &unknown, 400, "SPEC_UNKNOWN_KEY"),
        ("POST", "/v1/jobs", &big, 422, "NEVER_FITS"),
        ("POST", "/v1/jobs", &huge, 413, "SPEC_TOO_BIG"),
        ("POST", "/v1/nodes/n7/drain", r#"{"reason": "x"}"#, 404, "NODE_NOT_FOUND"),
        ("GET", "/v1/configuration/nonsense", "", 400, "USAGE"),
    ] {
        let answered = web.ask(Role::Admin, method, target, body).await;
        assert_eq!(answered.error(), (status, code.to_owned()), "{method} {target}: {}", answered.text);
    }
    let wrong = web.ask(Role::Admin, "DELETE", "/v1/jobs/7", "").await;
    assert_eq!(wrong.headers["allow"], "GET");
    let near = web.get("/v1/nods").await.json();
    assert!(near["error"]["hint"].as_str().is_some_and(|hint| hint.contains("/v1/nodes")), "{near}");
    let place = web.post("/v1/jobs", "{\n \"spec\" 1}").await.json();
    assert_eq!((&place["error"]["line"], &place["error"]["column"]), (&json!(2), &json!(9)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_bounded_in_size_time_and_origin() {
    let web = Web::start(0).await;
    let admin = || Some(somebody(Role::Admin));
    let ask = |name: &str, value: &str, body| Request::post("/v1/jobs").header(name, value).body(body).unwrap();
    let endless = stream::repeat(Ok::<_, Infallible>(axum::body::Bytes::from(vec![b' '; 4096])));
    let long =
        whole(web.send(admin(), ask("content-type", "application/json", Body::from_stream(endless))).await).await;
    assert_eq!(long.error(), (413, "SPEC_TOO_BIG".to_owned()));
    let form = whole(web.send(admin(), ask("content-type", "text/plain", Body::from("{}"))).await).await;
    assert_eq!(form.status.as_u16(), 415);
    let other = whole(web.send(admin(), ask("sec-fetch-site", "cross-site", Body::empty())).await).await;
    assert_eq!(other.status.as_u16(), 403);
    let heavy = whole(web.send(admin(), ask("x-heavy", &"x".repeat(40 << 10), Body::empty())).await).await;
    assert_eq!(heavy.status.as_u16(), 431);
    let far = format!("/v1/jobs?user={}", "x".repeat(9 << 10));
    assert_eq!(web.get(&far).await.status.as_u16(), 414);
    let slow = stream::pending::<Result<axum::body::Bytes, Infallible>>();
    let slow = whole(web.send(admin(), ask("content-type", "application/json", Body::from_stream(slow))).await).await;
    assert_eq!(slow.status.as_u16(), 408);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_call_of_an_unknown_service_is_answered_as_grpc_does() {
    let web = Web::start(0).await;
    let request = Request::post("/x.Y/Z").header("content-type", "application/grpc").body(Body::empty()).unwrap();
    let answered = web.send(Some(somebody(Role::User)), request).await;
    assert_eq!((answered.status().as_u16(), &answered.headers()["grpc-status"]), (200, &"12".parse().unwrap()));
}
