//! What a job has used and for how long it ran, as far as it is known.

use super::fixture::{Cluster, principal};
use super::server::{Server, within};
use crate::gateway::past::Past;
use crate::gateway::render::job;
use crate::gateway::subject::Subject;
use crate::history::HistoryStore;
use muster_common::{GangId, JobId};
use muster_engine::Command;
use muster_engine::command::{Cancel, Exit, ReportBody};
use muster_proto::client as pb;
use muster_proto::client::muster_server::Muster;
use muster_runtime::identity::Role;
use std::sync::Arc;

const ONE: &str = r#"{"gang":{"nodes":1,"gpus_per_node":2,"run":"x"},"retry":{"app":1}}"#;
const QUARTER: &str = r#"{"gang":{"nodes":1,"gpus_per_node":1,"share":0.25,"run":"x"}}"#;
const SWEEP: &str = r#"{"name":"sweep","gang":{"nodes":1,"gpus_per_node":1,"run":"x"},"array":{"range":"0-2"}}"#;

fn gang0(job: JobId) -> GangId {
    GangId::new(job, 0)
}

fn succeed(cluster: &mut Cluster, gang: GangId) {
    for node in cluster.nodes_of(gang) {
        cluster.exit(node, gang, Exit::Code(0));
    }
    cluster.release(gang);
}

/// As a list has it.
fn line(cluster: &Cluster, job: JobId) -> pb::Job {
    let state = Arc::new(cluster.state.clone());
    job::summary(&Subject::live(&state, job, Past::default(), state.now()).unwrap(), None)
}

#[test]
fn what_runs_has_used_what_its_end_would_charge_now() {
    for (spec, used_ms) in [(ONE, 60_000), (QUARTER, 7_500)] {
        let mut cluster = Cluster::new(1, 2);
        let job = cluster.submit("alice", spec);
        cluster.start(gang0(job));
        cluster.pass(30_000);
        let running = job::whole(&cluster.subject(job), None, None, false);
        assert_eq!((running.device_ms, running.gangs[0].attempts[0].device_ms), (used_ms, used_ms), "{spec}");
        let listed = line(&cluster, job);
        assert_eq!((listed.device_ms, listed.partial), (used_ms, false), "{spec}");
        succeed(&mut cluster, gang0(job));
        let ended = job::summary(&cluster.subject(job), None);
        assert_eq!((ended.state.as_str(), ended.device_ms, ended.partial), ("SUCCEEDED", used_ms, false), "{spec}");
    }
}

#[test]
fn a_later_attempt_is_added_to_those_before_it() {
    let mut cluster = Cluster::new(1, 2);
    let job = cluster.submit("alice", ONE);
    cluster.start(gang0(job));
    cluster.pass(5_000);
    let node = cluster.nodes_of(gang0(job))[0];
    cluster.report(node, gang0(job), ReportBody::Exited { rank: 0, exit: Exit::Code(1), why: String::new() });
    cluster.release(gang0(job));
    cluster.pass(50_000);
    assert_eq!(line(&cluster, job).device_ms, 10_000, "nothing is held while it waits");
    cluster.start(gang0(job));
    cluster.pass(20_000);
    assert_eq!(line(&cluster, job).device_ms, 10_000 + 40_000);
}

/// History is read after the view was taken, and may know more.
#[test]
fn an_attempt_that_history_knows_the_end_of_is_counted_once() {
    let mut cluster = Cluster::new(1, 2);
    let job = cluster.submit("alice", ONE);
    cluster.start(gang0(job));
    cluster.pass(30_000);
    let before = Arc::new(cluster.state.clone());
    succeed(&mut cluster, gang0(job));
    let subject = Subject::live(&before, job, cluster.past(job), before.now()).unwrap();
    assert_eq!(job::summary(&subject, None).device_ms, 60_000);
}

#[test]
fn a_list_says_that_it_lacks_what_ended_elements_used() {
    let mut cluster = Cluster::new(1, 2);
    let job = cluster.submit("alice", SWEEP);
    cluster.start(gang0(job));
    assert!(!line(&cluster, job).partial);
    cluster.pass(10_000);
    succeed(&mut cluster, gang0(job));
    let (listed, shown) = (line(&cluster, job), job::summary(&cluster.subject(job), None));
    assert!(listed.partial && !shown.partial);
    // The second element was placed beside the first, and still is.
    assert_eq!((listed.device_ms, shown.device_ms), (10_000, 20_000));
}

#[test]
fn what_history_lacks_of_a_job_is_told_as_lacking() {
    let dir = tempfile::tempdir().unwrap();
    let history = HistoryStore::open(&dir.path().join("history")).unwrap();
    let is_whole = |job| Past::of(&history, JobId(job)).unwrap().whole;
    assert!(is_whole(5));
    history.note_restore(20).unwrap();
    assert_eq!((is_whole(5), is_whole(21)), (false, true), "the second came after what is lacking");
}

#[test]
fn a_job_ran_only_while_its_attempts_did() {
    let mut cluster = Cluster::new(1, 2);
    let job = cluster.submit("alice", ONE);
    assert_eq!(line(&cluster, job).ran_ms, Some(0));
    cluster.start(gang0(job));
    cluster.pass(5_000);
    assert_eq!(line(&cluster, job).ran_ms, Some(0), "what runs is told by its start");
    let node = cluster.nodes_of(gang0(job))[0];
    cluster.report(node, gang0(job), ReportBody::Exited { rank: 0, exit: Exit::Code(1), why: String::new() });
    cluster.release(gang0(job));
    cluster.pass(50_000);
    let waits = line(&cluster, job);
    assert_eq!((waits.state.as_str(), waits.started_at_ms, waits.ran_ms), ("QUEUED", None, Some(5_000)));
    cluster.apply(Command::Cancel(Cancel { job, ordinal: None, reason: String::new(), by: principal("alice") }));
    let ended = job::summary(&cluster.subject(job), None);
    assert_eq!((ended.state.as_str(), ended.ran_ms), ("CANCELLED", Some(5_000)));
    assert_eq!(ended.ended_at_ms.unwrap() - ended.started_at_ms.unwrap(), 55_000, "with what it waited");
}

#[test]
fn elements_that_ran_side_by_side_count_once_and_what_is_not_known_is_left_out() {
    let mut cluster = Cluster::new(1, 2);
    let job = cluster.submit("alice", SWEEP);
    cluster.start(gang0(job));
    let second = GangId::new(job, 1);
    cluster.pass(10_000);
    cluster.start(second);
    cluster.pass(10_000);
    succeed(&mut cluster, gang0(job));
    let live = cluster.subject(job);
    assert_eq!(job::summary(&live, None).ran_ms, None, "an array tells it at its end");
    assert_eq!([0, 1, 2].map(|n| job::summary(&live, Some(n)).ran_ms), [Some(20_000), Some(0), Some(0)]);
    let state = Arc::new(cluster.state.clone());
    let unread = Subject::live(&state, job, Past::default(), state.now()).unwrap();
    assert_eq!([0, 1].map(|n| job::summary(&unread, Some(n)).ran_ms), [None, Some(0)]);
    cluster.pass(10_000);
    succeed(&mut cluster, second);
    cluster.pass(30_000);
    cluster.apply(Command::Cancel(Cancel { job, ordinal: None, reason: String::new(), by: principal("alice") }));
    let ended = job::summary(&cluster.subject(job), None);
    assert_eq!((ended.state.as_str(), ended.ran_ms), ("CANCELLED", Some(30_000)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_a_cancel_knows_what_ended_elements_used() {
    let server = Server::start(1).await;
    let request = pb::SubmitRequest { key: "k".into(), spec_json: SWEEP.into(), ..pb::SubmitRequest::default() };
    let submitted = within("a submit", server.gateway.submit(Server::call(Role::User, request))).await.unwrap();
    let id = submitted.into_inner().job.unwrap().id;
    server.prepare(GangId::new(JobId(id), 0)).await;
    server.finish(GangId::new(JobId(id), 0), Exit::Code(0)).await;
    let job = Some(pb::JobRef { id, ..pb::JobRef::default() });
    let hold = pb::HoldRequest { request_id: "h".into(), job: job.clone(), hold: true };
    let held = within("a hold", server.gateway.hold(Server::call(Role::User, hold))).await.unwrap().into_inner();
    assert!(held.job.unwrap().partial, "which tells nothing of it");
    let cancel = pb::CancelRequest { request_id: "c".into(), job: job.clone(), reason: String::new() };
    let answer = within("a cancel", server.gateway.cancel(Server::call(Role::User, cancel))).await.unwrap();
    let told = answer.into_inner().job.unwrap();
    assert_eq!((told.counts.unwrap().succeeded, told.partial), (1, false));
    let shown = server.gateway.show_job(Server::call(Role::User, pb::ShowJobRequest { job }));
    assert!(within("show", shown).await.unwrap().into_inner().device_ms >= told.device_ms);
}
