use super::super::openapi::{self, document};
use super::super::route::{Answer, Method};
use super::super::schema::Api;
use super::super::table::ROUTES;
use super::client::Web;
use super::validate::check;
use muster_common::{GangId, JobId};
use muster_engine::command::Exit;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// `UPDATE=1` writes the file anew.
#[test]
fn the_openapi_document_in_the_reference_is_the_one_that_is_served() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/openapi.json");
    let made = serde_json::to_string_pretty(&document(&Api::new())).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(made == kept, "run `UPDATE=1 cargo test -p muster-scheduler --lib openapi`, and look at what changes");
}

/// What was published stays: a client of yesterday finds every field.
#[test]
fn every_schema_of_a_document_names_its_version() {
    let document = document(&Api::new());
    for route in ROUTES {
        if let Answer::Document { schema, .. } = &route.answer {
            let component = &document["components"]["schemas"][schema.replace('/', ".")];
            assert_eq!(component["properties"]["schema"]["const"], *schema);
        }
    }
}

/// The answer of every route that gives a document, and its schema.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_real_reply_is_what_its_schema_says() {
    let web = Web::start(2).await;
    let [id, other] = [web.submit("a").await, web.submit("b").await];
    web.server.prepare(GangId::new(JobId(id), 0)).await;
    web.server.prepare(GangId::new(JobId(other), 0)).await;
    web.server.finish(GangId::new(JobId(other), 0), Exit::Code(3)).await;
    let waiting = web.submit("c").await;
    let big = web.submit("d").await;
    let whole = document(&Api::new());
    let mut seen = BTreeSet::new();
    let settings = web.get("/v1/configuration/settings").await.json()["value"].clone();
    let spec = serde_json::from_str::<Value>(super::client::JOB).unwrap();
    let member = web.get("/v1/cluster").await.json()["members"][0].clone();
    let (server, address) = (member["name"].as_str().expect("a name"), &member["address"]);
    let asked: Vec<(Method, &str, String, Value)> = vec![
        (Method::Get, "/v1/jobs", "/v1/jobs?ended=true&all_users=true".into(), Value::Null),
        (
            Method::Post,
            "/v1/jobs",
            "/v1/jobs".into(),
            json!({"spec": serde_json::from_str::<Value>(super::client::JOB).unwrap(), "key": "x", "dry_run": true}),
        ),
        (Method::Get, "/v1/jobs/{job}", format!("/v1/jobs/{id}"), Value::Null),
        (Method::Get, "/v1/jobs/{job}", format!("/v1/jobs/{other}"), Value::Null),
        (Method::Get, "/v1/jobs/{job}/why", format!("/v1/jobs/{big}/why"), Value::Null),
        (Method::Get, "/v1/why", "/v1/why".into(), Value::Null),
        (Method::Get, "/v1/jobs/{job}/wait", format!("/v1/jobs/{id}/wait?timeout_ms=1"), Value::Null),
        (Method::Post, "/v1/jobs/{job}/hold", format!("/v1/jobs/{waiting}/hold"), json!({})),
        (Method::Post, "/v1/jobs/{job}/release", format!("/v1/jobs/{waiting}/release"), json!({})),
        (Method::Post, "/v1/jobs/{job}/retry", format!("/v1/jobs/{other}/retry"), json!({"hold": true})),
        (Method::Post, "/v1/jobs/{job}/cancel", format!("/v1/jobs/{waiting}/cancel"), json!({"reason": "done"})),
        (Method::Get, "/v1/nodes", "/v1/nodes".into(), Value::Null),
        (Method::Get, "/v1/nodes/{name}", "/v1/nodes/n1".into(), Value::Null),
        (
            Method::Post,
            "/v1/nodes/{node}/cordon",
            "/v1/nodes/n2/cordon".into(),
            json!({"reason": "fan", "plan_only": true}),
        ),
        (Method::Post, "/v1/nodes/{node}/uncordon", "/v1/nodes/n2/uncordon".into(), json!({})),
        (Method::Post, "/v1/nodes/{node}/drain", "/v1/nodes/n1/drain".into(), json!({"reason": "fan"})),
        (Method::Post, "/v1/nodes/{node}/undrain", "/v1/nodes/n1/undrain".into(), json!({})),
        (Method::Post, "/v1/node-tokens", "/v1/node-tokens".into(), json!({"node": "n9"})),
        (Method::Get, "/v1/cluster", "/v1/cluster".into(), Value::Null),
        (
            Method::Post,
            "/v1/cluster/members/{server}/add",
            format!("/v1/cluster/members/{server}/add"),
            json!({"request_id": "m-add", "address": address}),
        ),
        (
            Method::Post,
            "/v1/cluster/members/{server}/promote",
            format!("/v1/cluster/members/{server}/promote"),
            json!({"request_id": "m-promote"}),
        ),
        (
            Method::Post,
            "/v1/cluster/members/{server}/remove",
            "/v1/cluster/members/s9/remove".into(),
            json!({"request_id": "m-remove"}),
        ),
        (Method::Post, "/v1/cluster/transfer", "/v1/cluster/transfer".into(), json!({"request_id": "t", "to": server})),
        (Method::Get, "/v1/configuration/{kind}", "/v1/configuration/policy".into(), Value::Null),
        (Method::Put, "/v1/configuration/{kind}", "/v1/configuration/settings".into(), json!({"value": settings})),
        (Method::Get, "/v1/version", "/v1/version".into(), Value::Null),
        (Method::Post, "/v1/plans", "/v1/plans".into(), json!({"jobs": [{"spec": spec.clone()}]})),
        (Method::Get, "/v1/policy", "/v1/policy".into(), Value::Null),
        (
            Method::Post,
            "/v1/reservations",
            "/v1/reservations".into(),
            json!({"request_id": "r", "name": "firmware", "duration_ms": 3_600_000, "nodes": ["n1"]}),
        ),
        (Method::Get, "/v1/reservations", "/v1/reservations".into(), Value::Null),
        (Method::Get, "/v1/reservations/{name}", "/v1/reservations/firmware".into(), Value::Null),
        (
            Method::Post,
            "/v1/reservations/{name}/delete",
            "/v1/reservations/firmware/delete".into(),
            json!({"request_id": "end"}),
        ),
        (Method::Get, "/v1/queues", "/v1/queues".into(), Value::Null),
        (Method::Get, "/v1/queues/{name}", "/v1/queues/default".into(), Value::Null),
        (
            Method::Post,
            "/v1/jobs/{job}/edit",
            format!("/v1/jobs/{big}/edit"),
            json!({"request_id": "e", "revision": 1, "spec": spec}),
        ),
    ];
    for (method, path, target, body) in asked {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answered = web.ask(muster_runtime::identity::Role::Admin, method.word(), &target, &body).await;
        assert!(answered.status.is_success(), "{method} {target}: {}", answered.text);
        let route = ROUTES.iter().find(|route| (route.method, route.path) == (method, path)).unwrap();
        let Answer::Document { schema, .. } = &route.answer else { panic!("{path} gives no document") };
        let schema = &whole["components"]["schemas"][schema.replace('/', ".")];
        check(&whole, schema, &answered.json(), schema["properties"]["schema"]["const"].as_str().unwrap())
            .unwrap_or_else(|wrong| panic!("{method} {target}: {wrong}\n{}", answered.text));
        seen.insert((method, path));
    }
    // These change a node in ways that a healthy one refuses; the reply is the one of the other changes.
    let unasked = ["/v1/nodes/{node}/state-released", "/v1/nodes/{node}/end-quarantine", "/v1/nodes/{node}/remove"];
    for route in ROUTES.iter().filter(|route| matches!(route.answer, Answer::Document { .. })) {
        assert!(seen.contains(&(route.method, route.path)) || unasked.contains(&route.path), "ask {} too", route.path);
    }
    let error = web.get("/v1/jobs/999").await.json();
    check(&whole, &whole["components"]["schemas"]["Error"], &error, "error").unwrap();
    assert_eq!(web.get(openapi::PATH).await.json(), whole);
}
