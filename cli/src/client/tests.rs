//! Against a scripted server on loopback, over the real TLS.

use super::*;
use crate::commands::follow::{self, Streams};
use crate::commands::logs::Target;
use crate::context::Context;
use crate::output::{Color, Printer};
use crate::settings::Flags;
use muster_proto::client::muster_server::{Muster, MusterServer};
use muster_proto::client::*;
use muster_runtime::identity::{Authority, ListenLimits, Name, Role, Sans, TlsIncoming, server_builder};
use muster_runtime::shutdown::Shutdown;
use std::collections::VecDeque;
use std::net::SocketAddr;
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
                // By name it has just begun, whichever it is.
                let ended = request.job.as_ref().is_some_and(|job| job.id > 0);
                Ok(Response::new(WaitReply { job: Some(self.meant(request.job)), ended }))
            }

            async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
                self.meant(request.into_inner().job);
                Ok(Response::new(Box::pin(tokio_stream::empty())))
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
    events(EventsRequest) -> Stream<Event>;
    list_nodes(ListNodesRequest) -> ListNodesReply;
    show_node(ShowNodeRequest) -> Node;
    cluster_status(ClusterStatusRequest) -> ClusterStatusReply;
    version(VersionRequest) -> VersionReply;
    node_admin(NodeAdminRequest) -> NodeAdminReply;
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
        Client::with(servers, self.credentials(Role::User, "alice"), timeout_ms).expect("a client")
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
    let client = Client::with(vec![server], Credentials::new(identity), 5_000).expect("a client");
    let error = submit(&client, "k").await.expect_err("expired");
    assert_eq!((error.code(), error.exit_code()), (ErrorCode::CertificateExpired, 4), "{}", error.text(false));
}

#[test]
fn an_address_that_is_none_is_a_mistake_at_once() {
    let bench = Bench::new();
    let error =
        Client::with(vec!["localhost".into()], bench.credentials(Role::User, "alice"), 1000).expect_err("no port");
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
