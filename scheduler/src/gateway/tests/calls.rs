//! Calls on one real server.

use super::server::{Server, within};
use crate::gateway::{EARLIEST, READERS_MAX};
use muster_common::{GangId, JobId};
use muster_engine::command::Exit;
use muster_engine::state::gang::GangState;
use muster_proto::client as pb;
use muster_proto::client::muster_server::Muster;
use muster_proto::convert::error::{ErrorCode, ErrorInfo, decode};
use muster_runtime::clock::{Clock, Sleep, SystemClock};
use muster_runtime::identity::Role;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_stream::StreamExt;
use tonic::{Response, Status};

const JOB: &str =
    r#"{"name":"train","gang":{"nodes":1,"gpus_per_node":2,"ranks_per_node":"gpu","run":"x"},"limits":{"time":"1h"}}"#;

fn job(id: u64) -> Option<pb::JobRef> {
    Some(pb::JobRef { id, ..pb::JobRef::default() })
}

fn error<T>(answer: Result<Response<T>, Status>) -> ErrorInfo {
    let status = answer.err().expect("the call was answered");
    decode(&status).expect("every error says what it is")
}

fn submission(key: &str, spec: &str) -> pb::SubmitRequest {
    pb::SubmitRequest { key: key.into(), spec_json: spec.into(), ..pb::SubmitRequest::default() }
}

impl Server {
    async fn submit(&self, key: &str, spec: &str) -> pb::SubmitReply {
        let request = Server::call(Role::User, submission(key, spec));
        within("a submit", self.gateway.submit(request)).await.unwrap().into_inner()
    }

    async fn show(&self, id: u64) -> pb::Job {
        let request = Server::call(Role::User, pb::ShowJobRequest { job: job(id) });
        within("show", self.gateway.show_job(request)).await.unwrap().into_inner()
    }

    async fn wait(&self, request: pb::WaitRequest) -> pb::WaitReply {
        within("wait", self.gateway.wait(Server::call(Role::User, request))).await.unwrap().into_inner()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_gives_one_job_and_another_body_is_refused() {
    let server = Server::start(1).await;
    let first = server.submit("k1", JOB).await;
    let again = server.submit("k1", JOB).await;
    let id = |reply: &pb::SubmitReply| reply.job.as_ref().map(|job| job.id);
    assert_eq!((id(&first), first.existing, again.existing), (id(&again), false, true));
    let other = Server::call(Role::User, submission("k1", &JOB.replace("\"x\"", "\"y\"")));
    let error = error(server.gateway.submit(other).await);
    assert_eq!((error.code, error.exit_code), (ErrorCode::KeyReused, 5));
}

/// State time steps from zero to the wall clock once; a key from before that step would be forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_taken_before_the_cluster_knows_what_time_it_is() {
    let server = Server::start_without_time(0).await;
    let made_now = pb::SubmitRequest { key_made_at_ms: Some(SystemClock.wall_ms()), ..submission("k1", JOB) };
    let mut submit = std::pin::pin!(server.gateway.submit(Server::call(Role::User, made_now)));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut submit).await;
    assert!(early.is_err(), "answered before there is a time: {early:?}");
    server.begin();
    within("a submit", submit).await.unwrap();
    let submitted_at = server.ctx.view().jobs().values().next().unwrap().submitted_at;
    let wall_ms = server.ctx.clock.wall_ms();
    assert!(wall_ms.abs_diff(submitted_at.0) < 60_000, "{submitted_at} is far from {wall_ms}");
}

/// The machine's clocks, moved on by as much as the test says.
#[derive(Debug, Clone, Default)]
struct Later(Arc<AtomicU64>);

impl Later {
    fn by_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Clock for Later {
    fn boottime_ms(&self) -> u64 {
        SystemClock.boottime_ms() + self.by_ms()
    }

    fn wall_ms(&self) -> u64 {
        SystemClock.wall_ms() + self.by_ms()
    }

    fn sleep_until_ms(&self, boottime_ms: u64) -> Sleep {
        let clock = self.clone();
        Box::pin(async move {
            while clock.boottime_ms() < boottime_ms {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }
}

/// An entry takes State a minute on at most. Were it an hour behind, a start deadline would be over when it is set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_hour_without_any_entry_a_job_has_all_the_time_to_start_that_it_should_have() {
    let clock = Later::default();
    let server = Server::start_on(1, None, Arc::new(clock.clone())).await;
    server.begin();
    let mut views = server.ctx.consensus.views();
    within("the cluster's time", views.wait_for(|seen| seen.view.now() >= EARLIEST)).await.unwrap();
    // Once the coordinator has decided something it has looked at the clocks, and does so next in half a minute.
    let first = GangId::new(JobId(server.submit("k0", JOB).await.job.unwrap().id), 0);
    server.prepare(first).await;
    server.finish(first, Exit::Code(0)).await;
    clock.0.store(3_600_000, Ordering::SeqCst);
    let now_ms = clock.wall_ms();
    let caught_up = views.wait_for(|seen| seen.view.now().0 + 60_000 > now_ms);
    within("State's time, an hour later", caught_up).await.unwrap();

    let id = server.submit("k1", JOB).await.job.unwrap().id;
    let gang = GangId::new(JobId(id), 0);
    server.prepare(gang).await;
    server.until(gang, "a start", |state| matches!(state, Some(GangState::Running(_)))).await;
    assert_eq!(server.ctx.view().gang(gang).unwrap().attempt.0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_waited_for_shown_and_retried_after_its_end() {
    let server = Server::start(1).await;
    let id = server.submit("k1", JOB).await.job.unwrap().id;
    let gang = GangId::new(JobId(id), 0);
    server.prepare(gang).await;
    let seen = pb::WaitRequest { job: job(id), timeout_ms: 30_000, seen_state: "STARTING".into(), seen_attempt: 1 };
    let running = server.wait(seen).await;
    assert_eq!((running.job.unwrap().state.as_str(), running.ended), ("RUNNING", false));

    let end = pb::WaitRequest { job: job(id), timeout_ms: 30_000, ..pb::WaitRequest::default() };
    let (ended, ()) = tokio::join!(server.wait(end), server.finish(gang, Exit::Code(4)));
    let ended_job = ended.job.unwrap();
    assert_eq!((ended_job.state.as_str(), ended_job.exit_code, ended.ended), ("FAILED", Some(4), true));

    let shown = server.show(id).await;
    assert_eq!((shown.gpus, shown.gangs[0].attempts.len()), (2, 1));
    assert!(shown.gangs[0].attempts[0].parts[0].exits.iter().all(|exit| exit.code == Some(4)));

    let retry = || {
        let request = pb::RetryRequest { request_id: "r1".into(), job: job(id), ..pb::RetryRequest::default() };
        server.gateway.retry(Server::call(Role::User, request))
    };
    let first = within("retry", retry()).await.unwrap().into_inner();
    let again = within("retry", retry()).await.unwrap().into_inner();
    let (first_job, again_job) = (first.job.unwrap(), again.job.unwrap());
    assert_eq!((first_job.id, first_job.retry_of), (again_job.id, Some(id)));
    assert!(again.existing && first_job.id != id);

    let list = pb::ListJobsRequest { ended: true, ..pb::ListJobsRequest::default() };
    let listed = within("list", server.gateway.list_jobs(Server::call(Role::User, list))).await.unwrap().into_inner();
    let ids: Vec<u64> = listed.jobs.iter().map(|job| job.id).collect();
    assert_eq!((ids, listed.next_page.as_str()), (vec![first_job.id, id], ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_jobs_are_listed_page_by_page_the_newest_first() {
    let server = Server::start(0).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let id = server.submit(&format!("k{n}"), JOB).await.job.unwrap().id;
        let request = pb::CancelRequest { request_id: "c".into(), job: job(id), reason: String::new() };
        within("cancel", server.gateway.cancel(Server::call(Role::User, request))).await.unwrap();
        ids.insert(0, id);
    }
    let mut listed = Vec::new();
    let mut page = String::new();
    loop {
        let list = pb::ListJobsRequest { ended: true, limit: 2, page, ..pb::ListJobsRequest::default() };
        let answer =
            within("list", server.gateway.list_jobs(Server::call(Role::User, list))).await.unwrap().into_inner();
        listed.extend(answer.jobs.iter().map(|job| job.id));
        page = answer.next_page;
        if page.is_empty() {
            break;
        }
    }
    assert_eq!(listed, ids);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_the_last_id_there_is_can_be_no_page() {
    let server = Server::start(0).await;
    server.submit("k1", JOB).await;
    let list = pb::ListJobsRequest { page: format!("live:{}", u64::MAX), ..pb::ListJobsRequest::default() };
    let listed = within("list", server.gateway.list_jobs(Server::call(Role::User, list))).await.unwrap().into_inner();
    assert_eq!((listed.jobs.len(), listed.next_page.as_str()), (0, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_twice_is_no_error_and_strangers_may_not() {
    let server = Server::start(1).await;
    let request = Server::call(Role::Admin, submission("k1", JOB));
    let id = server.gateway.submit(request).await.unwrap().into_inner().job.unwrap().id;
    let cancel = |role| {
        let request = pb::CancelRequest { request_id: "c1".into(), job: job(id), reason: "why not".into() };
        server.gateway.cancel(Server::call(role, request))
    };
    assert_eq!(error(cancel(Role::User).await).code, ErrorCode::Forbidden);
    server.prepare(GangId::new(JobId(id), 0)).await;
    assert_eq!(cancel(Role::Admin).await.unwrap().into_inner().gangs, 1);
    assert_eq!(cancel(Role::Admin).await.unwrap().into_inner().gangs, 0);
    server.finish(GangId::new(JobId(id), 0), Exit::Signal(15)).await;
    let ended = cancel(Role::Admin).await.unwrap().into_inner();
    let ended_job = ended.job.unwrap();
    assert_eq!((ended.gangs, ended_job.state.as_str(), ended_job.exit_code), (0, "CANCELLED", Some(143)));

    let hold = pb::HoldRequest { request_id: "h1".into(), job: job(id), hold: true };
    assert_eq!(error(server.gateway.hold(Server::call(Role::Admin, hold)).await).code, ErrorCode::JobEnded);
}

/// A script that says a name twice means the same job, whatever happened to it in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_that_of_the_job_that_ended_last_when_no_live_one_has_it() {
    let server = Server::start(0).await;
    let named = || Some(pb::JobRef { name: "train".into(), ..pb::JobRef::default() });
    let mut last = 0;
    for key in ["k1", "k2"] {
        last = server.submit(key, JOB).await.job.unwrap().id;
        let request = pb::CancelRequest { request_id: key.into(), job: named(), reason: String::new() };
        within("cancel", server.gateway.cancel(Server::call(Role::User, request))).await.unwrap();
    }
    let reply = server.wait(pb::WaitRequest { job: named(), timeout_ms: 30_000, ..pb::WaitRequest::default() }).await;
    let job = reply.job.unwrap();
    assert_eq!((job.id, job.state.as_str(), reply.ended), (last, "CANCELLED", true));
    let hold = pb::HoldRequest { request_id: "h1".into(), job: named(), hold: true };
    assert_eq!(error(server.gateway.hold(Server::call(Role::User, hold)).await).code, ErrorCode::JobEnded);
    let live = server.submit("k3", JOB).await.job.unwrap().id;
    let show = server.gateway.show_job(Server::call(Role::User, pb::ShowJobRequest { job: named() }));
    assert_eq!(within("show", show).await.unwrap().into_inner().id, live);
}

/// What would help takes seconds on a large cluster and is worked out one at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whys_that_wait_their_turn_keep_no_list_waiting() {
    let server = Server::start(0).await;
    let id = server.submit("k1", JOB).await.job.unwrap().id;
    let planning = &server.gateway.inner.planning;
    let turn = planning.clone().lock_owned().await;
    let others = Arc::strong_count(planning);
    let whys: Vec<_> = (0..READERS_MAX + 1)
        .map(|_| {
            let gateway = server.gateway.clone();
            tokio::spawn(async move { gateway.why(Server::call(Role::User, pb::WhyRequest { job: job(id) })).await })
        })
        .collect();
    let all_wait = async {
        while Arc::strong_count(planning) < others + whys.len() {
            tokio::task::yield_now().await;
        }
    };
    within("whys that wait", all_wait).await;
    let list = server.gateway.list_jobs(Server::call(Role::User, pb::ListJobsRequest::default()));
    let listed = within("a list beside waiting whys", list).await.unwrap().into_inner();
    assert_eq!(listed.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [id]);
    drop(turn);
    for why in whys {
        let reply = within("a why", why).await.unwrap().unwrap().into_inner();
        assert_eq!(reply.job.unwrap().id, id);
    }
}

/// Each holds a thread of the pool in which cycles run, and most of them wait for one look at everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_all_its_turns_waits_with_queues_and_plans_too() {
    let server = Server::start(0).await;
    let turns = &server.gateway.inner.turns;
    let mut taken = Vec::new();
    for _ in 0..crate::gateway::TURNS_MAX {
        taken.push(turns.take("the-user").await.map_err(|_| "refused").unwrap());
    }
    let gateway = &server.gateway;
    let jobs = vec![pb::PlanJob { spec_json: JOB.into(), ..pb::PlanJob::default() }];
    let plan = gateway.plan(Server::call(Role::User, pb::PlanRequest { jobs, ..pb::PlanRequest::default() }));
    let shown = pb::ShowQueueRequest { name: "default".into(), limit: 0 };
    let show = gateway.show_queue(Server::call(Role::User, shown));
    let list = gateway.list_queues(Server::call(Role::User, pb::ListQueuesRequest {}));
    let (mut plan, mut show, mut list) = (std::pin::pin!(plan), std::pin::pin!(show), std::pin::pin!(list));
    let early = tokio::time::timeout(Duration::from_millis(300), async {
        tokio::select! {
            _ = &mut plan => "a plan",
            _ = &mut show => "a queue",
            _ = &mut list => "queues",
        }
    });
    assert_eq!(early.await.ok(), None, "answered out of turn");
    drop(taken);
    drop(within("a plan", plan).await);
    drop(within("a queue", show).await);
    drop(within("queues", list).await);
}

/// `muster wait train && deploy` must not deploy because another's `train` went well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_never_another_users_job_while_the_caller_has_one_of_it() {
    let server = Server::start(0).await;
    let named = || Some(pb::JobRef { name: "train".into(), ..pb::JobRef::default() });
    let submit = |role, key: &str| server.gateway.submit(Server::call(role, submission(key, JOB)));
    let shown = async |role| {
        let request = Server::call(role, pb::ShowJobRequest { job: named() });
        within("show", server.gateway.show_job(request)).await.unwrap().into_inner().id
    };
    let anns = submit(Role::User, "k1").await.unwrap().into_inner().job.unwrap().id;
    assert_eq!(shown(Role::Admin).await, anns, "another's is meant where it is the only one");
    let bobs = submit(Role::Admin, "k2").await.unwrap().into_inner().job.unwrap().id;
    assert_eq!((shown(Role::User).await, shown(Role::Admin).await), (anns, bobs));
    let cancel = pb::CancelRequest { request_id: "c1".into(), job: named(), reason: String::new() };
    within("cancel", server.gateway.cancel(Server::call(Role::User, cancel))).await.unwrap();
    let waited = pb::WaitRequest { job: named(), timeout_ms: 30_000, ..pb::WaitRequest::default() };
    let ended = server.wait(waited).await;
    assert_eq!((ended.job.unwrap().id, ended.ended), (anns, true));
    let events = pb::EventsRequest { job: named(), from_index: Some(1), limit: 9, ..pb::EventsRequest::default() };
    let stream = server.gateway.events(Server::call(Role::User, events)).await.unwrap().into_inner();
    let told: Vec<_> = within("her events", stream.collect::<Vec<_>>()).await;
    assert!(told.iter().all(|event| event.as_ref().unwrap().job == Some(anns)), "{told:?}");
    let list = pb::ListJobsRequest { jobs: vec![named().unwrap()], all_users: true, ..pb::ListJobsRequest::default() };
    let listed = within("list", server.gateway.list_jobs(Server::call(Role::User, list))).await.unwrap().into_inner();
    assert_eq!(listed.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [anns]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait_answers_with_the_present_when_its_time_is_over() {
    let server = Server::start(0).await;
    let id = server.submit("k1", JOB).await.job.unwrap().id;
    let reply = server.wait(pb::WaitRequest { job: job(id), timeout_ms: 50, ..pb::WaitRequest::default() }).await;
    assert_eq!((reply.job.unwrap().state.as_str(), reply.ended), ("QUEUED", false));
    let long = pb::WaitRequest { job: job(id), timeout_ms: 60_001, ..pb::WaitRequest::default() };
    assert_eq!(error(server.gateway.wait(Server::call(Role::User, long)).await).code, ErrorCode::Usage);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_nobody_knows_and_names_of_two_are_refused() {
    let server = Server::start(1).await;
    let show = |reference| server.gateway.show_job(Server::call(Role::User, pb::ShowJobRequest { job: reference }));
    assert_eq!(error(show(job(999)).await).code, ErrorCode::JobNotFound);
    assert_eq!(error(show(None).await).code, ErrorCode::Usage);
    let named = Some(pb::JobRef { name: "train".into(), ..pb::JobRef::default() });
    assert_eq!(error(show(named.clone()).await).code, ErrorCode::JobNotFound);
    let id = server.submit("k1", JOB).await.job.unwrap().id;
    assert_eq!(show(named.clone()).await.unwrap().into_inner().id, id);
    server.submit("k2", JOB).await;
    assert_eq!(error(show(named).await).code, ErrorCode::JobAmbiguous);
    let element = Some(pb::JobRef { id, ordinal: Some(3), ..pb::JobRef::default() });
    assert_eq!(error(show(element).await).code, ErrorCode::JobNotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_told_from_history_and_then_as_they_come_each_once() {
    let server = Server::start(1).await;
    let first = server.submit("k1", JOB).await.job.unwrap().id;
    let request = pb::EventsRequest { from_index: Some(1), follow: true, ..pb::EventsRequest::default() };
    let mut stream = server.gateway.events(Server::call(Role::User, request)).await.unwrap().into_inner();
    let second = server.submit("k2", JOB).await.job.unwrap().id;
    let mut ids = Vec::new();
    let mut submitted = Vec::new();
    while submitted.len() < 2 {
        let event = within("an event", stream.next()).await.unwrap().unwrap();
        ids.push((event.index, event.ordinal));
        submitted.extend(event.job.filter(|_| event.kind == "job_submitted"));
    }
    assert_eq!(submitted, [first, second]);
    assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");

    let last = pb::EventsRequest { kinds: vec!["job_submitted".into()], limit: 1, ..pb::EventsRequest::default() };
    let stream = server.gateway.events(Server::call(Role::User, last)).await.unwrap().into_inner();
    let told: Vec<_> = within("the last event", stream.collect::<Vec<_>>()).await;
    let told: Vec<Option<u64>> = told.into_iter().map(|event| event.unwrap().job).collect();
    assert_eq!(told, [Some(second)]);
    let unknown = pb::EventsRequest { kinds: vec!["job_eaten".into()], ..pb::EventsRequest::default() };
    assert!(server.gateway.events(Server::call(Role::User, unknown)).await.is_err());
}

/// As after a snapshot from another server, until what it passed over has been fetched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_history_lacks_is_not_told_as_if_it_had_not_happened() {
    let server = Server::start(0).await;
    let id = server.submit("k1", JOB).await.job.unwrap().id;
    let followed = pb::EventsRequest { follow: true, ..pb::EventsRequest::default() };
    let mut following = server.gateway.events(Server::call(Role::User, followed)).await.unwrap().into_inner();
    let missing = id + 100;
    server.ctx.history.note_restore(missing).unwrap();
    let jumped = crate::watch::AppliedEvents { index: missing, at: server.ctx.view().now(), events: Vec::new() };
    server.ctx.watch.publish(jumped);
    let told = within("an error", following.next()).await.unwrap().expect_err("events were passed over");
    assert_eq!(decode(&told).unwrap().code, ErrorCode::Unavailable);

    let gone = server.submit("k2", JOB).await.job.unwrap().id;
    assert!(gone < missing);
    let past = pb::EventsRequest { from_index: Some(gone), ..pb::EventsRequest::default() };
    let mut past = server.gateway.events(Server::call(Role::User, past)).await.unwrap().into_inner();
    let told = within("an error", past.next()).await.unwrap().expect_err("events were passed over");
    assert_eq!(decode(&told).unwrap().code, ErrorCode::Unavailable);

    // A job that may have ended in there, and an id that nobody can have had yet.
    let show = |id| server.gateway.show_job(Server::call(Role::User, pb::ShowJobRequest { job: job(id) }));
    assert_eq!(error(show(gone + 1).await).code, ErrorCode::JobNotFound);
    let request = pb::CancelRequest { request_id: "c".into(), job: job(gone), reason: String::new() };
    within("cancel", server.gateway.cancel(Server::call(Role::User, request))).await.unwrap();
    let known = server.ctx.view();
    let empty = crate::history::HistoryStore::open_memory(Default::default()).unwrap();
    let load = || crate::gateway::subject::Subject::load(&known, &empty, JobId(gone), known.now());
    assert_eq!(load().unwrap_err().code, ErrorCode::JobNotFound);
    empty.note_restore(known.applied_index()).unwrap();
    assert_eq!(load().unwrap_err().code, ErrorCode::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_of_what_was_never_placed_are_not_found_and_an_absent_agent_is_told_per_stream() {
    let server = Server::start(1).await;
    let first = server.submit("k1", JOB).await.job.unwrap().id;
    let waiting = server.submit("k2", JOB).await.job.unwrap().id;
    let logs =
        |id| server.gateway.logs(Server::call(Role::User, pb::LogsRequest { job: job(id), ..Default::default() }));
    assert_eq!(error(logs(waiting).await).code, ErrorCode::AttemptNotFound);
    server.prepare(GangId::new(JobId(first), 0)).await;
    let stream = logs(first).await.unwrap().into_inner();
    let chunks: Vec<_> = within("the end of the logs", stream.collect::<Vec<_>>()).await;
    let chunks: Vec<pb::LogChunk> = chunks.into_iter().map(|chunk| chunk.unwrap()).collect();
    let told: Vec<(u32, &str)> = chunks.iter().map(|chunk| (chunk.rank, chunk.stream.as_str())).collect();
    assert_eq!(told, [(0, "stdout"), (0, "stderr"), (1, "stdout"), (1, "stderr")]);
    assert!(chunks.iter().all(|chunk| chunk.end && chunk.agent_away && chunk.error.contains("n1")));
    let request = pb::LogsRequest { job: job(first), ranks: vec![9], ..Default::default() };
    assert_eq!(error(server.gateway.logs(Server::call(Role::User, request)).await).code, ErrorCode::LogNotFound);
}

/// A hung rank writes nothing, and its logs are looked at again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_hears_of_readers_that_left_a_quiet_rank_before_the_next_one_comes() {
    use crate::session::Outgoing;
    use crate::sessions::Member;
    use muster_proto::agent as wire;
    let server = Server::start(1).await;
    let sessions = &server.ctx.sessions;
    let record = server.ctx.view().nodes().values().next().unwrap().clone();
    let (node, epoch) = (record.id, record.epoch);
    let (outgoing, mut messages, _ending) = Outgoing::new();
    let member = Member { node, epoch, session: sessions.next_session() };
    sessions.enter(member, "n1".into(), "boot-1".into(), record.inventory.clone(), outgoing);
    drop(sessions.logs(node, wire::LogRequest::default()).await.unwrap());
    let _second = sessions.logs(node, wire::LogRequest::default()).await.unwrap();
    let mut told = Vec::new();
    while let Ok(message) = messages.try_recv() {
        if let Some(wire::server_message::Body::Log(request)) = message.unwrap().body {
            told.push((request.request, request.cancel));
        }
    }
    let [(first, false), (left, true), (second, false)] = told[..] else { panic!("{told:?}") };
    assert!(left == first && second != first, "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_closed_once_with_a_reason_and_by_admins_only() {
    let server = Server::start(1).await;
    let admin = |role, action: &str, reason: &str, plan_only| {
        let request = pb::NodeAdminRequest {
            request_id: "a1".into(),
            node: "n1".into(),
            action: action.into(),
            reason: reason.into(),
            plan_only,
            ..pb::NodeAdminRequest::default()
        };
        server.gateway.node_admin(Server::call(role, request))
    };
    assert_eq!(error(admin(Role::User, "cordon", "x", false).await).code, ErrorCode::Forbidden);
    for (action, reason) in [("cordon", " "), ("cordon", "a\x07"), ("explode", "x"), ("end-quarantine", "x")] {
        assert_eq!(
            error(admin(Role::Admin, action, reason, false).await).code,
            ErrorCode::Usage,
            "{action} {reason:?}"
        );
    }
    assert_eq!(error(admin(Role::Admin, "state-released", "gone", false).await).code, ErrorCode::Conflict);
    let plan = admin(Role::Admin, "drain", "fan", true).await.unwrap().into_inner();
    assert_eq!((plan.changed, plan.node.unwrap().state.as_str()), (false, "UP"));
    let drained = admin(Role::Admin, "drain", "fan", false).await.unwrap().into_inner();
    assert_eq!((drained.changed, drained.node.unwrap().state.as_str()), (true, "DRAINED"));
    assert!(!admin(Role::Admin, "drain", "fan", false).await.unwrap().into_inner().changed);
    assert!(admin(Role::Admin, "undrain", "", false).await.unwrap().into_inner().changed);
    assert!(!admin(Role::Admin, "undrain", "", false).await.unwrap().into_inner().changed);
    let removed = admin(Role::Admin, "remove", "sold", false).await.unwrap().into_inner();
    assert_eq!((removed.changed, removed.node.unwrap().name.as_str()), (true, "n1"));
    assert_eq!(error(admin(Role::Admin, "cordon", "x", false).await).code, ErrorCode::NodeNotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_is_shown_tried_and_changed() {
    let server = Server::start(0).await;
    let configure = |json: &str, plan_only| {
        let request =
            pb::ConfigureRequest { request_id: "c1".into(), kind: "settings".into(), json: json.into(), plan_only };
        server.gateway.configure(Server::call(Role::Admin, request))
    };
    let shown = configure("", false).await.unwrap().into_inner();
    assert!(!shown.changed && shown.json.contains("suspect_after_ms"));
    let wanted = r#"{"suspect_after_ms":2000}"#;
    assert!(configure(wanted, true).await.unwrap().into_inner().changed);
    let changed = configure(wanted, false).await.unwrap().into_inner();
    assert!(changed.changed && changed.version > shown.version && changed.json.contains("2000"));
    assert!(!configure(wanted, false).await.unwrap().into_inner().changed);
    for bad in ["{", r#"{"suspect_after":1}"#, r#"{"suspect_after_ms":0}"#] {
        assert_eq!(error(configure(bad, true).await).code, ErrorCode::ConfigInvalid, "{bad}");
        assert_eq!(error(configure(bad, false).await).code, ErrorCode::ConfigInvalid, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feature_level_that_a_server_cannot_compute_is_refused_with_its_name() {
    let server = Server::start(0).await;
    let most = muster_engine::apply::FEATURE_LEVEL;
    let set = |level: u32, plan_only| {
        let kind = "feature_level".into();
        let request = pb::ConfigureRequest { request_id: "c1".into(), kind, json: level.to_string(), plan_only };
        server.gateway.configure(Server::call(Role::Admin, request))
    };
    for plan_only in [true, false] {
        let beyond = error(set(most + 1, plan_only).await);
        assert_eq!(beyond.code, ErrorCode::NotThereYet);
        assert!(beyond.message.contains(&format!("s1 (up to {most})")), "{}", beyond.message);
        assert_eq!(error(set(most - 1, plan_only).await).code, ErrorCode::ConfigInvalid);
        let same = set(most, plan_only).await.unwrap().into_inner();
        assert_eq!((same.json, same.changed), (most.to_string(), false));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_token_is_a_secret_that_state_knows_by_its_hash() {
    let server = Server::start(0).await;
    let request = pb::NodeTokenRequest { request_id: "t1".into(), node: "n7".into(), ttl_ms: 0 };
    let reply = server.gateway.node_token(Server::call(Role::Admin, request)).await.unwrap().into_inner();
    let state = server.ctx.view();
    let token = state.tokens().get(&crate::gateway::token::hash(&reply.secret)).unwrap();
    assert_eq!((token.node.as_ref().unwrap().as_str(), token.expires_at.0), ("n7", reply.expires_at_ms));
    assert!(reply.ca_fingerprint.starts_with("sha256:"));
    let long = pb::NodeTokenRequest { request_id: "t1".into(), node: String::new(), ttl_ms: u64::MAX };
    assert_eq!(error(server.gateway.node_token(Server::call(Role::Admin, long)).await).code, ErrorCode::Usage);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_commits_nothing_and_says_when_it_would_start() {
    let server = Server::start(1).await;
    let plan = |spec: &str| {
        let request = pb::SubmitRequest { dry_run: true, ..submission("", spec) };
        server.gateway.submit(Server::call(Role::User, request))
    };
    let free = plan(JOB).await.unwrap().into_inner();
    assert!(free.why.is_none() && free.job.as_ref().is_some_and(|job| job.id == 0));
    let id = server.submit("k1", JOB).await.job.unwrap().id;
    server.prepare(GangId::new(JobId(id), 0)).await;
    let waits = plan(JOB).await.unwrap().into_inner();
    assert!(waits.job.unwrap().start_estimate_at_ms.is_some());
    assert!(!waits.why.unwrap().blockers.is_empty());
    assert_eq!(server.ctx.view().jobs().len(), 1);
    let never = error(plan(&JOB.replace("\"nodes\":1", "\"nodes\":7")).await);
    assert_eq!((never.code, never.path.as_deref()), (ErrorCode::NeverFits, Some("gang.nodes")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_tells_its_state_and_version() {
    let server = Server::start(2).await;
    let request = Server::call(Role::User, pb::ClusterStatusRequest { local: false });
    let status = within("status", server.gateway.cluster_status(request)).await.unwrap().into_inner();
    assert_eq!((status.leader_id, status.server_name.as_str(), status.members.len()), (1, "s1", 1));
    assert_eq!((status.members[0].state.as_str(), status.members[0].version.as_str()), ("leader", "0.0.0-test"));
    assert_eq!(status.state_hash.len(), 64);
    assert_eq!((status.nodes.unwrap().up, status.devices.unwrap().free), (2, 4));
    let version = server.gateway.version(Server::call(Role::User, pb::VersionRequest {})).await.unwrap().into_inner();
    assert_eq!((version.api, version.server_name.as_str()), (1, "s1"));
    assert_eq!(
        error(server.gateway.version(Server::call(Role::Agent, pb::VersionRequest {})).await).code,
        ErrorCode::Forbidden
    );
}
