//! Plans, queues, edits and lists, on one real server.

use super::server::{Server, within};
use muster_common::{GangId, JobId};
use muster_proto::client as pb;
use muster_proto::client::muster_server::Muster;
use muster_proto::convert::error::{ErrorCode, ErrorInfo, decode};
use muster_runtime::identity::Role;
use tokio_stream::StreamExt;
use tonic::{Response, Status};

fn spec(name: &str, gpus: u32, rest: &str) -> String {
    format!(r#"{{"name":"{name}","gang":{{"gpus_per_node":{gpus},"run":"x"}}{rest}}}"#)
}

fn hour(name: &str) -> String {
    spec(name, 2, r#","limits":{"time":"2h","expected":"1h"}"#)
}

fn job(id: u64) -> Option<pb::JobRef> {
    Some(pb::JobRef { id, ..pb::JobRef::default() })
}

fn error<T>(answer: Result<Response<T>, Status>) -> ErrorInfo {
    decode(&answer.err().expect("the call was answered")).expect("every error says what it is")
}

impl Server {
    async fn submitted(&self, key: &str, spec: &str) -> u64 {
        let request = pb::SubmitRequest { key: key.into(), spec_json: spec.into(), ..pb::SubmitRequest::default() };
        let reply = within("a submit", self.gateway.submit(Server::call(Role::User, request))).await.unwrap();
        reply.into_inner().job.unwrap().id
    }

    async fn planned(&self, specs: &[String]) -> pb::PlanReply {
        let jobs = specs.iter().map(|spec| pb::PlanJob { spec_json: spec.clone(), hold: false }).collect();
        let call = Server::call(Role::User, pb::PlanRequest { jobs, prices: Vec::new() });
        within("a plan", self.gateway.plan(call)).await.unwrap().into_inner()
    }

    async fn shown(&self, id: u64) -> pb::Job {
        let call = Server::call(Role::User, pb::ShowJobRequest { job: job(id) });
        within("show", self.gateway.show_job(call)).await.unwrap().into_inner()
    }

    async fn edited(&self, role: Role, request: pb::EditJobRequest) -> Result<Response<pb::EditJobReply>, Status> {
        within("an edit", self.gateway.edit_job(Server::call(role, request))).await
    }
}

/// An edit of the job file as it is, by text.
fn edit(shown: &pb::Job, request_id: &str, from: &str, to: &str) -> pb::EditJobRequest {
    assert!(shown.file_json.contains(from), "{}", shown.file_json);
    pb::EditJobRequest {
        request_id: request_id.into(),
        job: job(shown.id),
        revision: shown.revision,
        spec_json: shown.file_json.replace(from, to),
        plan_only: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_tells_where_when_behind_whom_and_whom_it_pushes_back() {
    let server = Server::start(1).await;
    let first = server.submitted("k1", &hour("first")).await;
    server.prepare(GangId::new(JobId(first), 0)).await;
    let waiting = server.submitted("k2", &spec("waiting", 1, r#","limits":{"time":"3h"},"priority":"low""#)).await;
    let urgent = spec("urgent", 2, r#","limits":{"time":"1h"},"priority":"high""#);
    let reply = server.planned(&[urgent, hour("after"), spec("giant", 64, "")]).await;
    assert!(reply.complete);
    let [urgent, after, giant] = reply.jobs.as_slice() else { panic!("{reply:?}") };
    assert_eq!(
        (urgent.verdict.as_str(), after.verdict.as_str(), giant.verdict.as_str()),
        ("waits", "waits", "refused")
    );
    let places: Vec<&str> = urgent.placement.iter().map(|part| part.node.as_str()).collect();
    assert_eq!((places, urgent.placement[0].devices.len()), (vec!["n1"], 2));
    let awaited: Vec<&str> = urgent.waits_for.iter().map(|awaited| awaited.name.as_str()).collect();
    assert_eq!(awaited, ["first"]);
    let (likely, latest) = (urgent.start_estimate_at_ms.unwrap(), urgent.start_latest_at_ms.unwrap());
    assert!(latest.abs_diff(likely + 3_600_000) < 60_000, "the first is expected to take 1h and may take 2h");
    assert!(after.start_estimate_at_ms.unwrap() > likely);
    assert!(!urgent.why.as_ref().unwrap().blockers.is_empty());
    let refusal = giant.refusal.as_ref().unwrap();
    assert_eq!(
        (refusal.code.as_str(), refusal.path.as_str(), refusal.exit_code),
        ("NEVER_FITS", "gang.gpus_per_node", 6)
    );
    let delayed: Vec<&str> = reply.delays.iter().map(|delay| delay.gang.as_str()).collect();
    assert_eq!(delayed, [waiting.to_string()]);
    assert_eq!(server.ctx.view().jobs().len(), 2, "nothing was submitted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fits_starts_and_takes_its_room_from_what_is_planned_after_it() {
    let server = Server::start(2).await;
    let reply = server.planned(&[hour("one"), hour("two"), hour("three")]).await;
    let verdicts: Vec<&str> = reply.jobs.iter().map(|job| job.verdict.as_str()).collect();
    assert_eq!(verdicts, ["starts", "starts", "waits"]);
    let places: Vec<&str> = reply.jobs.iter().map(|job| job.placement[0].node.as_str()).collect();
    assert_ne!(places[0], places[1]);
    let held = pb::PlanRequest { jobs: vec![pb::PlanJob { spec_json: hour("held"), hold: true }], prices: Vec::new() };
    let held = server.gateway.plan(Server::call(Role::User, held)).await.unwrap().into_inner();
    assert_eq!((held.jobs[0].verdict.as_str(), held.jobs[0].start_estimate_at_ms), ("held", None));
    let none = server.gateway.plan(Server::call(Role::User, pb::PlanRequest::default())).await;
    assert_eq!(error(none).code, ErrorCode::Usage);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_count_what_waits_and_list_it_in_the_order_of_the_policy() {
    let server = Server::start(1).await;
    let running = server.submitted("k1", &hour("running")).await;
    server.prepare(GangId::new(JobId(running), 0)).await;
    let sweep = spec("sweep", 1, r#","queue":"research","array":{"range":"0-3"},"limits":{"time":"1h"}"#);
    let sweep = server.submitted("k2", &sweep).await;
    let urgent = server.submitted("k3", &spec("urgent", 2, r#","queue":"research","priority":"high""#)).await;
    let held = server.submitted("k4", &spec("held", 1, r#","queue":"research""#)).await;
    let hold = pb::HoldRequest { request_id: "h".into(), job: job(held), hold: true };
    within("hold", server.gateway.hold(Server::call(Role::User, hold))).await.unwrap();

    let call = Server::call(Role::User, pb::ListQueuesRequest {});
    let queues = within("queues", server.gateway.list_queues(call)).await.unwrap().into_inner().queues;
    let [default, research] = queues.as_slice() else { panic!("{queues:?}") };
    assert_eq!(
        (default.name.as_str(), default.gangs_active, default.gpus_active, default.gangs_waiting),
        ("default", 1, 2, 0)
    );
    let counts = (research.jobs, research.gangs_waiting, research.gangs_held, research.gpus_waiting, research.users);
    assert_eq!(counts, (3, 5, 1, 6, 1));
    assert!(research.oldest_wait_since_at_ms.is_some());

    let show = |name: &str| {
        let request = pb::ShowQueueRequest { name: name.into(), limit: 0 };
        server.gateway.show_queue(Server::call(Role::User, request))
    };
    let shown = within("a queue", show("research")).await.unwrap().into_inner();
    let order: Vec<(u64, u32)> = shown.entries.iter().map(|entry| (entry.job, entry.gangs)).collect();
    assert_eq!(order, [(urgent, 1), (sweep, 4)], "held ones have no place");
    assert!(shown.entries.iter().all(|entry| !entry.reason.is_empty()));
    let unknown = error(show("nowhere").await);
    assert_eq!(unknown.code, ErrorCode::QueueUnknown);
    assert!(unknown.hint.unwrap().contains("default, research"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_is_another_revision_with_its_author_and_what_changed() {
    let server = Server::start(0).await;
    let id = server.submitted("k1", &spec("train", 2, r#","limits":{"time":"1h"},"env":{"A":"1"}"#)).await;
    let before = server.shown(id).await;
    assert_eq!((before.revision, before.revisions.len()), (1, 0));
    let mut request = edit(&before, "e1", "\"1h\"", "\"3h\"");
    request.plan_only = true;
    let plan = server.edited(Role::User, request.clone()).await.unwrap().into_inner();
    assert_eq!((plan.job.unwrap().time_limit_ms, plan.unchanged), (Some(3_600_000), false));
    request.plan_only = false;
    let reply = server.edited(Role::User, request.clone()).await.unwrap().into_inner();
    assert_eq!(reply.job.as_ref().unwrap().time_limit_ms, Some(3 * 3_600_000));
    assert_eq!(reply.changes, [pb::Change { path: "limits.time".into(), before: "1h".into(), after: "3h".into() }]);
    let again = server.edited(Role::User, request.clone()).await.unwrap().into_inner();
    assert!(again.unchanged, "the same request again");
    request.request_id = "e2".into();
    let stale = error(server.edited(Role::User, request).await);
    assert_eq!((stale.code, stale.exit_code), (ErrorCode::Conflict, 5));

    let now = server.shown(id).await;
    let renamed = edit(&now, "e3", "\"name\":\"train\"", "\"name\":\"sft\"");
    let reply = server.edited(Role::Admin, renamed).await.unwrap().into_inner();
    assert_eq!(reply.job.unwrap().name, "sft");
    let shown = server.shown(id).await;
    let told: Vec<(u32, &str, &str)> = shown
        .revisions
        .iter()
        .map(|revision| (revision.number, revision.by.as_str(), revision.changes[0].path.as_str()))
        .collect();
    assert_eq!(told, [(2, "the-user", "limits.time"), (3, "the-admin", "name")]);
    assert_eq!(shown.revision, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_edit_nothing_and_only_admins_give_a_running_job_more_time() {
    let server = Server::start(1).await;
    let submit = async |role: Role, key: &str| {
        let (key, spec_json) = (key.to_owned(), hour(key));
        let request = pb::SubmitRequest { key, spec_json, hold: true, ..pb::SubmitRequest::default() };
        let reply = within("a submit", server.gateway.submit(Server::call(role, request))).await.unwrap();
        reply.into_inner().job.unwrap().id
    };
    let (theirs, mine) = (submit(Role::Admin, "theirs").await, submit(Role::User, "mine").await);
    let shown = server.shown(theirs).await;
    let refused = error(server.edited(Role::User, edit(&shown, "e1", "\"2h\"", "\"90m\"")).await);
    assert_eq!(refused.code, ErrorCode::Forbidden);
    let cancel = pb::CancelRequest { request_id: "c".into(), job: job(theirs), reason: String::new() };
    within("cancel", server.gateway.cancel(Server::call(Role::Admin, cancel))).await.unwrap();
    let gone = error(server.edited(Role::Admin, edit(&shown, "e2", "\"2h\"", "\"90m\"")).await);
    assert!(matches!(gone.code, ErrorCode::JobEnded | ErrorCode::Conflict), "{gone:?}");

    let waits = server.shown(mine).await;
    server.edited(Role::User, edit(&waits, "e3", "\"2h\"", "\"3h\"")).await.unwrap();
    let release = pb::HoldRequest { request_id: "h".into(), job: job(mine), hold: false };
    within("release", server.gateway.hold(Server::call(Role::User, release))).await.unwrap();
    server.prepare(GangId::new(JobId(mine), 0)).await;
    let runs = server.shown(mine).await;
    let refused = error(server.edited(Role::User, edit(&runs, "e4", "\"3h\"", "\"4h\"")).await);
    assert_eq!((refused.code, refused.path.as_deref()), (ErrorCode::Forbidden, Some("limits.time")));
    server.edited(Role::User, edit(&runs, "e5", "\"3h\"", "\"2h\"")).await.unwrap();
    let runs = server.shown(mine).await;
    let reply = server.edited(Role::Admin, edit(&runs, "e6", "\"2h\"", "\"9h\"")).await.unwrap().into_inner();
    assert_eq!(reply.job.unwrap().time_limit_ms, Some(9 * 3_600_000));
    let runs = server.shown(mine).await;
    let shape = edit(&runs, "e7", "\"gpus_per_node\":2", "\"gpus_per_node\":1");
    assert_eq!(error(server.edited(Role::Admin, shape).await).code, ErrorCode::Conflict);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_for_a_token_is_answered_with_the_same_one() {
    let server = Server::start(0).await;
    let token = async |id: &str, node: &str| {
        let request = pb::NodeTokenRequest { request_id: id.into(), node: node.into(), ttl_ms: 0 };
        within("a token", server.gateway.node_token(Server::call(Role::Admin, request))).await.unwrap().into_inner()
    };
    let first = token("t1", "n7").await;
    assert_eq!(token("t1", "n7").await, first);
    assert_eq!(server.ctx.view().tokens().len(), 1);
    assert_ne!(token("t2", "n7").await.secret, first.secret);
    assert_ne!(token("t1", "n8").await.secret, first.secret);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_reads_as_a_number_is_refused_with_advice() {
    let server = Server::start(0).await;
    let request = pb::SubmitRequest { key: "k".into(), spec_json: spec("4711", 0, ""), ..Default::default() };
    let refused = error(within("a submit", server.gateway.submit(Server::call(Role::User, request))).await);
    assert_eq!((refused.code, refused.path.as_deref()), (ErrorCode::SpecValue, Some("name")));
    assert!(refused.hint.unwrap().contains("run-4711"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_element_of_an_ended_array_is_named_as_one() {
    let server = Server::start(0).await;
    let id = server.submitted("k1", &spec("sweep", 0, r#","array":{"range":"0-1"}"#)).await;
    for ordinal in [0, 1] {
        let job = Some(pb::JobRef { id, ordinal: Some(ordinal), ..pb::JobRef::default() });
        let request = pb::CancelRequest { request_id: format!("c{ordinal}"), job, reason: String::new() };
        within("cancel", server.gateway.cancel(Server::call(Role::User, request))).await.unwrap();
    }
    assert!(server.ctx.view().jobs().is_empty());
    let request = pb::EventsRequest { job: job(id), kinds: vec!["job_cancelled".into()], ..Default::default() };
    let stream = server.gateway.events(Server::call(Role::User, request)).await.unwrap().into_inner();
    let events: Vec<_> = within("the events", stream.collect::<Vec<_>>()).await;
    let texts: Vec<String> = events.into_iter().map(|event| event.unwrap().text).collect();
    assert_eq!(texts, [0, 1].map(|ordinal| format!("{id}_{ordinal} cancelled by the-user")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_listed_as_people_count() {
    let server = Server::start(11).await;
    let call = Server::call(Role::User, pb::ListNodesRequest::default());
    let nodes = within("nodes", server.gateway.list_nodes(call)).await.unwrap().into_inner().nodes;
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "n10", "n11"]);
}
