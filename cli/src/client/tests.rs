//! Against a scripted server on loopback, over the real TLS.

use super::*;
use crate::commands::events::{self, EventsArgs};
use crate::commands::follow::{self, Streams};
use crate::commands::logs::{Target, Unread};
use crate::commands::node::admin;
use crate::commands::submit as submitting;
use crate::context::Context;
use crate::jobfile;
use crate::output::{Color, Printer};
use crate::settings::Flags;
use muster_proto::client::muster_server::{Muster, MusterServer};
use muster_proto::client::*;
use muster_runtime::identity::{Authority, ListenLimits, Name, Role, Sans, TlsIncoming, server_builder};
use muster_runtime::shutdown::Shutdown;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use tonic::{Request, Response, Status};

type Stream<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

/// Answers `Submit` with what it was given, in turn, and notes the keys it saw. The last answer is
/// for ever. Of the name of a job it knows that it is job 1, which fails, and the next time job 2, which succeeds.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Option<ErrorInfo>>>>,
    keys: Arc<Mutex<Vec<String>>>,
    /// Jobs as they were named by waits, logs and events.
    named: Arc<Mutex<Vec<JobRef>>>,
    /// What waits are told first, one each, before the end.
    lives: Arc<Mutex<VecDeque<Job>>>,
    /// State and attempt that each wait had seen.
    seen: Arc<Mutex<Vec<(String, u32)>>>,
    /// Logs that were asked for. Those of the third attempt cannot be read, and there has been none after it.
    read: Arc<Mutex<Vec<LogsRequest>>>,
    /// Where streams of events were to begin. The first breaks at once, the second is refused.
    followed: Arc<Mutex<Vec<Option<u64>>>>,
    /// A node, until it is removed; the answer to that is lost.
    removed: Arc<Mutex<bool>>,
}

impl Script {
    fn meant(&self, job: Option<JobRef>) -> Job {
        let job = job.expect("a job is named");
        let mut named = self.named.lock().expect("whole");
        let by_name = named.iter().filter(|job| job.id == 0).count() as u64;
        let id = if job.id > 0 { job.id } else { by_name + 1 };
        named.push(job);
        let state = if id == 1 { "FAILED" } else { "SUCCEEDED" };
        Job { id, state: state.into(), attempt: 1, ..Job::default() }
    }
}

macro_rules! unscripted {
    ($($call:ident($request:ty) -> $reply:ty;)*) => {
        #[tonic::async_trait]
        impl Muster for Script {
            type LogsStream = Stream<LogChunk>;
            type EventsStream = Stream<Event>;
            type BackupStream = Stream<BackupChunk>;

            async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitReply>, Status> {
                self.keys.lock().expect("whole").push(request.into_inner().key);
                let mut answers = self.answers.lock().expect("whole");
                let answer = if answers.len() > 1 { answers.pop_front().flatten() } else { answers.front().cloned().flatten() };
                match answer {
                    Some(info) => Err(info.into()),
                    None => Ok(Response::new(SubmitReply::default())),
                }
            }

            async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitReply>, Status> {
                let request = request.into_inner();
                self.seen.lock().expect("whole").push((request.seen_state.clone(), request.seen_attempt));
                if let Some(job) = self.lives.lock().expect("whole").pop_front() {
                    return Ok(Response::new(WaitReply { job: Some(job), ended: false }));
                }
                // By name it has just begun, whichever it is.
                let ended = request.job.as_ref().is_some_and(|job| job.id > 0);
                Ok(Response::new(WaitReply { job: Some(self.meant(request.job)), ended }))
            }

            async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
                let request = request.into_inner();
                self.read.lock().expect("whole").push(request.clone());
                let attempt = request.job.as_ref().and_then(|job| job.attempt);
                if attempt.is_some_and(|attempt| attempt > 3) {
                    return Err(ErrorInfo::new(ErrorCode::AttemptNotFound, "there was no such attempt").into());
                }
                self.meant(request.job);
                let error = "the agent of n1 is not connected".to_owned();
                let away = LogChunk { end: true, error, agent_away: true, ..LogChunk::default() };
                let chunks = (attempt == Some(3)).then_some(Ok(away));
                let chunks: Stream<LogChunk> = Box::pin(tokio_stream::iter(chunks));
                Ok(Response::new(chunks))
            }

            async fn node_admin(&self, _: Request<NodeAdminRequest>) -> Result<Response<NodeAdminReply>, Status> {
                match std::mem::replace(&mut *self.removed.lock().expect("whole"), true) {
                    false => Err(ErrorInfo::new(ErrorCode::Unavailable, "the outcome is not known").into()),
                    true => Err(ErrorInfo::new(ErrorCode::NodeNotFound, "there is no node `n1`").into()),
                }
            }

            async fn events(&self, request: Request<EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
                let request = request.into_inner();
                let mut followed = self.followed.lock().expect("whole");
                if request.follow {
                    followed.push(request.from_index);
                }
                let told = match (request.follow, followed.len()) {
                    (false, _) => Ok(Event { index: 41, ..Event::default() }),
                    (true, 1) => Err(ErrorInfo::new(ErrorCode::Unavailable, "this server is shutting down").into()),
                    _ => return Err(ErrorInfo::new(ErrorCode::Internal, "enough was seen").into()),
                };
                let events: Stream<Event> = Box::pin(tokio_stream::iter([told]));
                Ok(Response::new(events))
            }

            $(async fn $call(&self, _: Request<$request>) -> Result<Response<$reply>, Status> {
                Err(Status::unimplemented("not in the script"))
            })*
        }
    };
}

unscripted! {
    plan(PlanRequest) -> PlanReply;
    list_queues(ListQueuesRequest) -> ListQueuesReply;
    show_queue(ShowQueueRequest) -> ShowQueueReply;
    edit_job(EditJobRequest) -> EditJobReply;
    show_policy(ShowPolicyRequest) -> ShowPolicyReply;
    make_reservation(MakeReservationRequest) -> MakeReservationReply;
    end_reservation(EndReservationRequest) -> EndReservationReply;
    list_reservations(ListReservationsRequest) -> ListReservationsReply;
    show_reservation(ShowReservationRequest) -> Reservation;
    list_jobs(ListJobsRequest) -> ListJobsReply;
    show_job(ShowJobRequest) -> Job;
    why(WhyRequest) -> WhyReply;
    why_all(WhyAllRequest) -> WhyAllReply;
    cancel(CancelRequest) -> CancelReply;
    hold(HoldRequest) -> HoldReply;
    retry(RetryRequest) -> SubmitReply;
    list_nodes(ListNodesRequest) -> ListNodesReply;
    show_node(ShowNodeRequest) -> Node;
    cluster_status(ClusterStatusRequest) -> ClusterStatusReply;
    version(VersionRequest) -> VersionReply;
    node_token(NodeTokenRequest) -> NodeTokenReply;
    configure(ConfigureRequest) -> ConfigureReply;
    change_members(ChangeMembersRequest) -> ChangeMembersReply;
    transfer_leader(TransferLeaderRequest) -> TransferLeaderReply;
    backup(BackupRequest) -> Stream<BackupChunk>;
}

struct Bench {
    authority: Authority,
    shutdown: Shutdown,
}

impl Bench {
    fn new() -> Self {
        let authority = Authority::create("c1", SystemClock.wall_ms()).expect("a CA");
        Self { authority, shutdown: Shutdown::new() }
    }

    fn credentials(&self, role: Role, name: &str) -> Credentials {
        let name = Name::new("c1", role, name).expect("a name");
        let identity = self.authority.issue(&name, &Sans::default(), SystemClock.wall_ms(), 3_600_000).expect("issued");
        Credentials::new(identity)
    }

    async fn serve(&self, answers: impl IntoIterator<Item = Option<ErrorInfo>>) -> (String, Script) {
        let script = Script { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Script::default() };
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let own = self.credentials(Role::Server, "s1");
        let incoming = TlsIncoming::bind(any, own, ListenLimits::default(), &self.shutdown).await.expect("bound");
        let address = incoming.local_addr().to_string();
        let service = MusterServer::new(script.clone());
        tokio::spawn(server_builder().add_service(service).serve_with_incoming(incoming));
        (address, script)
    }

    fn client(&self, servers: &[&str], timeout_ms: u64) -> Client {
        let servers = servers.iter().map(|server| (*server).to_owned()).collect();
        Client::with(servers, self.credentials(Role::User, "alice"), Some(timeout_ms)).expect("a client")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

async fn submit(client: &Client, key: &str) -> Result<SubmitReply, CliError> {
    let request = SubmitRequest { key: key.to_owned(), ..SubmitRequest::default() };
    client.call(async |mut api| api.submit(request.clone()).await).await
}

fn keys(script: &Script) -> Vec<String> {
    script.keys.lock().expect("whole").clone()
}

/// A port that was free a moment ago.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").to_string()
}

#[tokio::test]
async fn it_goes_where_the_leader_is_even_if_it_did_not_know_that_server() {
    let bench = Bench::new();
    let (leader, at_leader) = bench.serve([None]).await;
    let (follower, at_follower) = bench.serve([Some(ErrorInfo::not_leader(Some(leader)))]).await;
    let client = bench.client(&[&follower], 10_000);
    submit(&client, "k").await.expect("taken");
    submit(&client, "k2").await.expect("taken");
    assert_eq!((keys(&at_follower), keys(&at_leader)), (vec!["k".to_owned()], vec!["k".to_owned(), "k2".to_owned()]));
}

#[tokio::test]
async fn it_repeats_with_the_same_key_while_nobody_leads() {
    let bench = Bench::new();
    let no_leader = || Some(ErrorInfo::new(ErrorCode::NoLeader, "an election is held"));
    let (server, script) = bench.serve([no_leader(), no_leader(), None]).await;
    submit(&bench.client(&[&server], 10_000), "k").await.expect("taken at last");
    assert_eq!(keys(&script), ["k", "k", "k"]);
}

#[tokio::test]
async fn it_tries_the_next_server_when_one_is_gone() {
    let bench = Bench::new();
    let (server, script) = bench.serve([None]).await;
    submit(&bench.client(&[&nobody(), &server], 10_000), "k").await.expect("taken");
    assert_eq!(keys(&script), ["k"]);
}

#[tokio::test]
async fn what_is_refused_is_not_repeated() {
    let bench = Bench::new();
    let (server, script) = bench.serve([Some(ErrorInfo::new(ErrorCode::KeyReused, "used with another body"))]).await;
    let error = submit(&bench.client(&[&server], 10_000), "k").await.expect_err("refused");
    assert_eq!((error.code(), error.exit_code(), keys(&script).len()), (ErrorCode::KeyReused, 5, 1));
}

#[tokio::test]
async fn an_address_nobody_listens_on_is_exit_7_in_time() {
    let bench = Bench::new();
    let error = submit(&bench.client(&[&nobody()], 300), "k").await.expect_err("nobody there");
    assert_eq!((error.code(), error.exit_code(), error.info().retryable), (ErrorCode::Unavailable, 7, true));
    assert!(error.info().hint.is_some());
}

#[tokio::test]
async fn a_redirect_loop_ends_when_the_time_is_over() {
    let bench = Bench::new();
    let (server, script) = bench.serve([None]).await;
    *script.answers.lock().expect("whole") = [Some(ErrorInfo::not_leader(Some(server.clone())))].into();
    let error = submit(&bench.client(&[&server], 500), "k").await.expect_err("never a leader");
    assert_eq!(error.code(), ErrorCode::NotLeader);
}

#[tokio::test]
async fn a_server_of_another_cluster_is_not_trusted_and_not_tried_again() {
    let (ours, theirs) = (Bench::new(), Bench::new());
    let (server, script) = theirs.serve([None]).await;
    let error = submit(&ours.client(&[&server], 10_000), "k").await.expect_err("another CA");
    assert_eq!((error.code(), error.exit_code(), keys(&script).len()), (ErrorCode::ServerNotTrusted, 4, 0));
}

#[tokio::test]
async fn an_expired_certificate_says_so() {
    let bench = Bench::new();
    let (server, _script) = bench.serve([None]).await;
    let name = Name::new("c1", Role::User, "alice").expect("a name");
    let past_ms = SystemClock.wall_ms() - 86_400_000;
    let Ok(identity) = bench.authority.issue(&name, &Sans::default(), past_ms, 3_600_000) else {
        panic!("a certificate for yesterday can be issued");
    };
    let client = Client::with(vec![server], Credentials::new(identity), Some(5_000)).expect("a client");
    let error = submit(&client, "k").await.expect_err("expired");
    assert_eq!((error.code(), error.exit_code()), (ErrorCode::CertificateExpired, 4), "{}", error.text(false));
}

#[test]
fn an_address_that_is_none_is_a_mistake_at_once() {
    let bench = Bench::new();
    let error =
        Client::with(vec!["localhost".into()], bench.credentials(Role::User, "alice"), None).expect_err("no port");
    assert_eq!(error.exit_code(), 2);
}

fn context() -> Context {
    let printer = Printer::new(false, true, Color::Never, true);
    Context { printer, flags: Flags::default(), env: Vec::new(), yes: false, verbose: 0 }
}

/// `muster wait train && deploy`: another's `train` that succeeds later must not let it deploy.
#[tokio::test]
async fn whoever_follows_a_name_stays_with_its_job_when_another_takes_the_name() {
    let bench = Bench::new();
    let train = JobRef { name: "train".into(), ..JobRef::default() };
    for what in ["wait", "run", "logs"] {
        let (server, script) = bench.serve([None]).await;
        let client = bench.client(&[&server], 10_000);
        match what {
            "wait" => assert_eq!(follow::to_end(&client, &train, None).await.expect("ended").state, "FAILED"),
            "run" => {
                let ended = follow::logs_to_end(&context(), &client, &train, Streams::Together).await.expect("ended");
                assert_eq!(ended.state, "FAILED");
            }
            _ => {
                let request = LogsRequest { job: Some(train.clone()), ..LogsRequest::default() };
                follow::stream(&context(), &client, request, Target::new(Streams::Together)).await.expect("read");
            }
        }
        let named = script.named.lock().expect("whole").clone();
        assert_eq!(named[0], train, "{what}");
        assert!(named.len() > 1 && named[1..].iter().all(|job| job.id == 1), "{what}: {named:?}");
    }
}

/// A server answers at once to who has seen less than there is: to ask so while an attempt prepares would never pause.
#[tokio::test]
async fn whoever_follows_says_what_was_seen_though_nothing_of_it_was_printed() {
    let bench = Bench::new();
    let (server, script) = bench.serve([None]).await;
    let live = |state: &str, attempt| Job { id: 1, state: state.into(), attempt, ..Job::default() };
    *script.lives.lock().expect("whole") = [live("STARTING", 1), live("QUEUED", 1)].into();
    let (client, job) = (bench.client(&[&server], 10_000), JobRef { id: 1, ..JobRef::default() });
    follow::logs_to_end(&context(), &client, &job, Streams::Together).await.expect("ended");
    let seen = script.seen.lock().expect("whole").clone();
    assert_eq!(seen[1..3], [("STARTING".to_owned(), 1), ("QUEUED".to_owned(), 1)], "{seen:?}");
}

/// A loop such as `until muster submit train.toml` must not make a job with each turn.
#[tokio::test]
async fn whoever_may_have_submitted_is_told_the_key_and_nobody_else_is() {
    let bench = Bench::new();
    let (lost, script) = bench.serve([Some(ErrorInfo::new(ErrorCode::Unavailable, "the outcome is not known"))]).await;
    let (idle, _) = bench.serve([Some(ErrorInfo::new(ErrorCode::NoLeader, "an election is held"))]).await;
    let text = "[gang]\nrun = 'x'\n".to_owned();
    let loaded = jobfile::parse("train.toml", text, &[], Path::new("/home/a")).expect("sound");
    let said = async |server: &str, key: Option<&str>| {
        let options = submitting::Options { key: key.map(str::to_owned), ..submitting::Options::default() };
        // Longer than a handshake takes on a busy machine: whoever is cut off in one knows nothing either.
        let client = bench.client(&[server], 1_500);
        submitting::send(&context(), &client, &loaded, options).await.expect_err("no answer").text(false)
    };
    let unsure = said(&lost, None).await;
    assert!(unsure.contains(&format!("--key {}", keys(&script)[0])), "{unsure}");
    for sure in [said(&lost, Some("k")).await, said(&idle, None).await, said(&nobody(), None).await] {
        assert!(!sure.contains("may have taken effect"), "{sure}");
    }
}

/// `muster logs -f --rank 0 --tail 5` of a job that waits has not come to an end.
#[tokio::test]
async fn chosen_logs_are_followed_over_all_attempts_too() {
    let bench = Bench::new();
    let (server, script) = bench.serve([None]).await;
    let live = |state: &str, attempt| Job { id: 1, state: state.into(), attempt, ..Job::default() };
    *script.lives.lock().expect("whole") = [live("QUEUED", 0), live("RUNNING", 2), live("RUNNING", 3)].into();
    let request = LogsRequest {
        job: Some(JobRef { id: 1, ..JobRef::default() }),
        ranks: vec![0],
        follow: true,
        tail_bytes: 100,
        ..LogsRequest::default()
    };
    let target = Target { tail: Some(5), ..Target::new(Streams::Together) };
    let client = bench.client(&[&server], 10_000);
    follow::chosen_to_end(&context(), &client, request, target).await.expect("ended");
    let read = script.read.lock().expect("whole").clone();
    let told: Vec<_> = read
        .iter()
        .map(|request| (request.job.as_ref().and_then(|job| job.attempt), request.ranks.len(), request.tail_bytes))
        .collect();
    assert_eq!(told, [(Some(2), 1, 100), (Some(3), 1, 0)]);
}

#[tokio::test]
async fn an_attempt_that_was_named_and_is_not_there_is_an_error_for_who_follows_too() {
    let bench = Bench::new();
    let (server, _script) = bench.serve([None]).await;
    let job = Some(JobRef { id: 1, attempt: Some(9), ..JobRef::default() });
    let request = LogsRequest { job, follow: true, ..LogsRequest::default() };
    let client = bench.client(&[&server], 10_000);
    let read = follow::stream(&context(), &client, request, Target::new(Streams::Together)).await;
    assert_eq!(read.expect_err("there is none").code(), ErrorCode::AttemptNotFound);
}

/// What happens while a server is exchanged is what somebody follows events for.
#[tokio::test]
async fn events_that_are_followed_from_now_on_have_no_gap_when_the_stream_breaks() {
    let bench = Bench::new();
    let (server, script) = bench.serve([None]).await;
    let args = EventsArgs { follow: true, from: None, job: None, node: None, kind: Vec::new(), limit: 1000 };
    let ended = events::tell(&context(), &bench.client(&[&server], 10_000), args).await;
    assert_eq!(ended.expect_err("the script ends so").code(), ErrorCode::Internal);
    assert_eq!(*script.followed.lock().expect("whole"), [Some(42), Some(42)]);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for_beyond_the_time_that_was_given() {
    let bench = Bench::new();
    // The system takes the connection; nobody shakes hands.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound").to_string();
    let begun = Instant::now();
    let error = submit(&bench.client(&[&address], 200), "k").await.expect_err("nobody speaks");
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn nobody_is_given_up_before_every_server_was_tried() {
    let client = Bench::new().client(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"], 30_000);
    let all = Duration::from_secs(30);
    let after = |tries| client.limit(true, tries, all);
    assert_eq!((after(1), after(2), after(3)), (all, all, NOBODY_LIMIT));
    assert_eq!(client.limit(false, 3, all), all);
}

#[tokio::test]
async fn a_call_ends_in_the_time_that_was_given_with_all_its_tries_and_tells_what_it_was_answered() {
    let bench = Bench::new();
    let (idle, _script) = bench.serve([Some(ErrorInfo::new(ErrorCode::NoLeader, "an election is held"))]).await;
    // The system takes the connection; nobody shakes hands.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound").to_string();
    // Longer than a handshake takes on a busy machine.
    let client = bench.client(&[&idle, &address], 1_500);
    let (begun, request) = (Instant::now(), SubmitRequest::default());
    let called = client.call_within(60_000, async |mut api| api.submit(request.clone()).await).await;
    let error = called.expect_err("nobody leads");
    // Whoever listens without a word is given up after that by itself.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!((error.code(), error.info().message.as_str()), (ErrorCode::NoLeader, "an election is held"));
    let hint = error.info().hint.clone().unwrap_or_default();
    assert!(hint.contains(&idle) && hint.contains(&address), "{hint}");
}

#[tokio::test]
async fn slow_calls_have_their_own_time_unless_one_was_given() {
    let bench = Bench::new();
    let given = bench.client(&["127.0.0.1:1"], 5_000);
    let free = Client::with(vec!["127.0.0.1:1".into()], bench.credentials(Role::User, "alice"), None);
    let free = free.expect("a client");
    let seconds = Duration::from_secs;
    let bounds = |one, begin, end| Bounds { one: seconds(one), begin: seconds(begin), end: seconds(end) };
    assert_eq!(given.slow(seconds(60)), bounds(60, 5, 5));
    assert_eq!(free.slow(seconds(60)), bounds(60, 30, 90));
    // A server that keeps a call on purpose is no silent one.
    assert_eq!(given.held(seconds(20), None), bounds(30, 25, 25));
    assert_eq!(given.held(seconds(3), Some(seconds(3))), bounds(13, 3, 5));
}

#[tokio::test]
async fn whoever_waits_for_a_time_hears_that_it_is_over_and_not_that_nobody_answered() {
    let bench = Bench::new();
    let (server, script) = bench.serve([None]).await;
    let live = Job { id: 1, state: "RUNNING".into(), attempt: 1, ..Job::default() };
    *script.lives.lock().expect("whole") = [live].into();
    // Shorter than any handshake.
    let (client, job) = (bench.client(&[&server], 0), JobRef { id: 1, ..JobRef::default() });
    let error = follow::to_end(&client, &job, Some(Duration::ZERO)).await.expect_err("it runs");
    assert_eq!(error.code(), ErrorCode::TimedOut);
}

#[tokio::test]
async fn a_node_that_an_earlier_try_has_removed_is_removed() {
    let bench = Bench::new();
    let (server, _script) = bench.serve([None]).await;
    let client = bench.client(&[&server], 10_000);
    let request = NodeAdminRequest { node: "n1".into(), action: "remove".into(), ..NodeAdminRequest::default() };
    let reply = admin::send(&client, request.clone()).await.expect("it is gone");
    assert_eq!((reply.changed, reply.node.unwrap_or_default().name.as_str()), (true, "n1"));
    let error = admin::send(&client, request).await.expect_err("somebody else removed it");
    assert_eq!(error.code(), ErrorCode::NodeNotFound);
}

#[tokio::test]
async fn logs_that_could_not_be_read_are_told_from_those_without_a_line() {
    let bench = Bench::new();
    let (server, _script) = bench.serve([None]).await;
    let client = bench.client(&[&server], 10_000);
    let away = Unread { why: "the agent of n1 is not connected".to_owned(), agent_away: true };
    for (attempt, unread) in [(2, None), (3, Some(away))] {
        let job = Some(JobRef { id: 1, attempt: Some(attempt), ..JobRef::default() });
        let request = LogsRequest { job, ..LogsRequest::default() };
        let read = follow::stream(&context(), &client, request, Target::new(Streams::Together)).await;
        assert_eq!(read.expect("it ended"), unread);
    }
}
