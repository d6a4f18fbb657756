use super::client::{One, Web, somebody, whole};
use crate::gateway::limits::STREAMS_MAX;
use axum::body::Body;
use http::Request;
use muster_common::{GangId, JobId};
use muster_engine::command::Exit;
use muster_runtime::clock::{Clock, SystemClock};
use muster_runtime::identity::Role;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_resumed_at_any_id_are_told_without_gap_or_repetition() {
    let web = Web::start(1).await;
    let id = web.submit("k1").await;
    web.server.prepare(GangId::new(JobId(id), 0)).await;
    web.server.finish(GangId::new(JobId(id), 0), Exit::Code(0)).await;
    let mut all = Vec::new();
    let mut told = web.listen(somebody(Role::User), "/v1/events?from_index=1", None).await;
    while all.last().is_none_or(|one: &One| one.data["kind"] != "job_ended") {
        all.push(told.next().await.expect("the stream goes on"));
    }
    drop(told);
    assert!(all.len() > 5 && all.iter().any(|one| one.id.ends_with(".1")), "{all:?}");
    assert!(all.iter().all(|one| one.data["schema"] == "muster.event/1"));
    for (at, one) in all.iter().enumerate() {
        let mut told = web.listen(somebody(Role::User), "/v1/events", Some(&one.id)).await;
        for expected in &all[at + 1..] {
            assert_eq!(told.next().await.as_ref(), Some(expected), "after {}", one.id);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_when_the_server_stops_or_the_certificate_does() {
    let web = Web::start(0).await;
    let mut brief = somebody(Role::User);
    brief.peer.as_mut().unwrap().not_after_ms = SystemClock.wall_ms() + 300;
    let mut told = web.listen(brief, "/v1/events", None).await;
    let last = told.next().await.expect("it says why");
    assert_eq!((last.event.as_str(), &last.data["error"]["code"]), ("refused", &"CERTIFICATE_EXPIRED".into()));
    assert_eq!(told.next().await, None);

    let mut told = web.listen(somebody(Role::User), "/v1/events", None).await;
    web.shutdown.trigger();
    let last = told.next().await.expect("it says why");
    assert_eq!((last.event.as_str(), &last.data["error"]["code"]), ("refused", &"UNAVAILABLE".into()));
    assert_eq!(told.next().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_caller_has_a_bounded_number_of_streams_and_gets_them_back() {
    let web = Web::start(0).await;
    let mut open = Vec::new();
    for _ in 0..STREAMS_MAX {
        open.push(web.listen(somebody(Role::User), "/v1/events", None).await);
    }
    assert_eq!(web.get("/v1/version").await.status.as_u16(), 200, "other calls go on");
    let refused = web.ask(Role::User, "GET", "/v1/events", "").await;
    assert_eq!(refused.error(), (429, "OVERLOADED".to_owned()));
    assert_eq!(refused.headers["retry-after"], "1");
    open.clear();
    let deadline = SystemClock.boottime_ms() + 20_000;
    while web.ask(Role::User, "GET", "/v1/events?follow=false", "").await.status.as_u16() != 200 {
        assert!(SystemClock.boottime_ms() < deadline, "closed streams are given back");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_with_an_end_says_so_and_is_not_begun_again() {
    let web = Web::start(1).await;
    let id = web.submit("k1").await;
    web.server.prepare(GangId::new(JobId(id), 0)).await;
    // No agent is there to read from: each log says so and ends.
    let mut told = web.listen(somebody(Role::User), &format!("/v1/jobs/{id}/logs?follow=false"), None).await;
    let mut all = Vec::new();
    while let Some(one) = told.next().await {
        all.push(one);
    }
    assert_eq!(all.len(), 5, "two logs of two ranks, and the end: {all:?}");
    assert!(all[..4].iter().all(|one| one.data["notice"].as_str().is_some_and(|text| text.contains("n1"))));
    assert_eq!((all[4].event.as_str(), all[4].id.as_str()), ("end", "end"));
    let again = |last: &str| {
        Request::get(format!("/v1/jobs/{id}/logs")).header("last-event-id", last).body(Body::empty()).unwrap()
    };
    assert_eq!(web.send(Some(somebody(Role::User)), again("end")).await.status().as_u16(), 204);
    let odd = whole(web.send(Some(somebody(Role::User)), again("nonsense")).await).await;
    assert_eq!(odd.error(), (400, "USAGE".to_owned()));

    let lines = Request::get("/v1/events?from_index=1").header("accept", "application/x-ndjson");
    let lines = whole(web.send(Some(somebody(Role::User)), lines.body(Body::empty()).unwrap()).await).await;
    let indexes: Vec<u64> = lines
        .text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["index"].as_u64().unwrap())
        .collect();
    assert!(indexes.len() > 3 && indexes.is_sorted(), "{indexes:?}");
}
