//! The client API: what people and programs say to the cluster, answered from State and history, or
//! turned into commands.
//!
//! Any server answers reads, linearizably. What only the leader can do is passed on to it.

mod arrays;
mod backup;
mod change;
mod cluster;
mod condition;
mod configure;
mod cost;
mod declaration;
mod edit;
mod ended;
pub mod errors;
mod events;
mod forward;
pub(crate) mod fuzz;
mod helped;
pub mod hurry;
mod jobs;
pub mod limits;
mod list;
mod logs;
mod members;
mod names;
mod never;
mod nodes;
mod past;
mod plan;
mod policy;
mod queues;
pub mod render;
mod reservations;
pub mod roles;
mod subject;
mod submit;
mod token;
mod trial;
mod wait;
mod waiting;
mod why;

#[cfg(test)]
pub(crate) mod tests;

use crate::consensus::ReadError;
use crate::context::Context;
use crate::instruments::Instruments;
use forward::{Where, answered, on_behalf};
use futures::Stream;
use limits::{Open, STREAMS_MAX, TURNS_MAX, Turns, WAITING_MAX, WAITS_MAX};
use muster_common::Time;
use muster_engine::apply::level_of;
use muster_engine::outcome::Refusal;
use muster_engine::{Command, Response as Applied, State};
use muster_proto::client as pb;
use muster_proto::client::muster_server::Muster;
use muster_proto::convert::error::ErrorInfo;
use muster_runtime::clock::Clock;
use muster_runtime::identity::ConnectInfo;
use roles::Caller;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

/// No cluster's state time is before the year 2020 once it is set.
const EARLIEST: Time = Time(1_577_836_800_000);
/// Long reads worked on at a time, of all principals together.
const READERS_MAX: usize = 4;
/// How long a command waits for the cluster's time to be set.
const TIME_WAIT_MS: u64 = 5_000;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    ctx: Arc<Context>,
    peers: forward::Peers,
    streams: Open,
    waits: Open,
    turns: Turns,
    /// Threads that read and render at a time; the rest of the machine is for those who renew leases and commit.
    readers: Arc<Semaphore>,
    estimates: why::Estimates,
    looks: why::Looks,
    /// Held by whoever plays states forward for a plan or for what would help: see [`Inner::playing`].
    planning: Arc<tokio::sync::Mutex<()>>,
    /// What submits and edits are checked against.
    emptied: never::Emptied,
}

impl Gateway {
    pub fn new(ctx: Arc<Context>) -> Self {
        let inner = Inner {
            ctx,
            peers: forward::Peers::default(),
            streams: Open::new("streams", STREAMS_MAX),
            waits: Open::new("waits", WAITS_MAX),
            turns: Turns::new(TURNS_MAX, WAITING_MAX),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            estimates: why::Estimates::default(),
            looks: why::Looks::default(),
            planning: Arc::default(),
            emptied: never::Emptied::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The first line of every call: who is it, and may they?
    fn enter<T>(&self, call: &str, request: &Request<T>) -> Result<Caller, Status> {
        let info = request.extensions().get::<ConnectInfo>();
        roles::check(call, info, request.metadata(), self.wall_ms()).map_err(|error| self.refused(error))
    }

    /// Unix milliseconds as this server's wall clock shows them.
    pub fn wall_ms(&self) -> u64 {
        self.inner.ctx.clock.wall_ms()
    }

    pub fn clock(&self) -> &dyn Clock {
        &*self.inner.ctx.clock
    }

    pub fn instruments(&self) -> &Instruments {
        self.inner.ctx.consensus.instruments()
    }

    /// Streams and long polls that are open.
    pub fn open(&self) -> [(&'static str, usize); 2] {
        [("streams", self.inner.streams.count()), ("waits", self.inner.waits.count())]
    }

    /// Counts a refusal on its way out.
    fn refused(&self, error: ErrorInfo) -> Status {
        self.instruments().refused(error.code);
        errors::bounded(error).into()
    }

    fn reply<T>(&self, answer: Result<T, ErrorInfo>) -> Result<Response<T>, Status> {
        answer.map(Response::new).map_err(|error| self.refused(error))
    }

    async fn leader(&self, caller: &Caller) -> Result<Where, Status> {
        forward::to_leader(&self.inner.ctx, &self.inner.peers, caller).await.map_err(|error| self.refused(error))
    }
}

impl Inner {
    /// State with everything acknowledged before this call, on any server, once the cluster knows what time it is.
    async fn fresh(&self) -> Result<Arc<State>, ErrorInfo> {
        self.ctx.consensus.read_barrier().await.map_err(errors::not_read)?;
        self.has_time().await?;
        Ok(self.ctx.view())
    }

    /// State time as this server counts it.
    fn now(&self, state: &State) -> Time {
        self.ctx.proposer.now().max(state.now())
    }

    /// A cluster begins at moment zero, until its first leader brings it to the wall clock. What was committed
    /// before would be ages old after that step: keys forgotten, limits passed. What is judged by a state from before it
    /// seems to come from the future.
    async fn has_time(&self) -> Result<(), ErrorInfo> {
        let mut views = self.ctx.consensus.views();
        let set = views.wait_for(|viewed| viewed.view.now() >= EARLIEST);
        tokio::select! {
            set = set => match set {
                Ok(_) => Ok(()),
                Err(_) => Err(errors::not_read(ReadError::ShuttingDown)),
            },
            () = self.ctx.clock.sleep_ms(TIME_WAIT_MS) => {
                Err(errors::no_leader("the cluster's time is not set yet".into()))
            }
        }
    }

    /// Commits a command; a refusal by `apply` is an error.
    async fn commit(&self, command: Command) -> Result<Applied, ErrorInfo> {
        self.has_time().await?;
        let (level, needed) = (self.ctx.view().cluster().feature_level, level_of(&command));
        if level < needed {
            return Err(errors::refused(Refusal::FeatureLevel { level, needed }));
        }
        let committed = self.ctx.proposer.propose(command).await.map_err(errors::not_committed)?;
        match committed.response {
            Applied::Refused(refusal) => Err(errors::refused(refusal)),
            response => Ok(response),
        }
    }

    /// Like [`Inner::blocking`], for what may take long and nobody's lease waits for. The permit goes with the work, which goes
    /// on when the caller has left.
    async fn reading<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Inner) -> Result<T, ErrorInfo> + Send + 'static,
    ) -> Result<T, ErrorInfo> {
        let reader =
            self.readers.clone().acquire_owned().await.map_err(|_| errors::not_read(ReadError::ShuttingDown))?;
        self.blocking(move |inner| {
            let _reader = reader;
            work(inner)
        })
        .await
    }

    /// Like [`Inner::reading`], for many plays of a state: a leader has better uses for the time, and one at a time is
    /// enough for people. The turn is waited for before a reader's permit is taken, or a few of these would keep every
    /// list waiting. It goes with the work too.
    async fn playing<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Inner) -> Result<T, ErrorInfo> + Send + 'static,
    ) -> Result<T, ErrorInfo> {
        let turn = self.planning.clone().lock_owned().await;
        self.reading(move |inner| {
            let _turn = turn;
            work(inner)
        })
        .await
    }

    /// What reads history or plays a state forward runs on a thread of its own.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Inner) -> Result<T, ErrorInfo> + Send + 'static,
    ) -> Result<T, ErrorInfo> {
        let inner = self.clone();
        muster_runtime::aside::run(move || work(&inner)).await.map_err(errors::lost)?
    }
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Another server's answer, without its metadata.
fn passed_on<T>(answer: Result<Response<T>, Status>) -> Result<Response<T>, Status> {
    match answer {
        Ok(answer) => Ok(Response::new(answer.into_inner())),
        Err(status) => Err(answered(&status).into()),
    }
}

/// Answers a call here if this server leads, else at the leader's.
macro_rules! on_leader {
    ($self:ident, $call:literal, $request:ident, $method:ident, $here:path) => {{
        let caller = $self.enter($call, &$request)?;
        let request = $request.into_inner();
        match $self.leader(&caller).await? {
            Where::There(mut leader) => passed_on(leader.$method(on_behalf(request, &caller, false)).await),
            Where::Here => $self.reply($here(&$self.inner, &caller, request).await),
        }
    }};
}

/// Answers a call on whichever server it came to, when it is the principal's turn.
macro_rules! in_turn {
    ($self:ident, $call:literal, $request:ident, $here:path) => {{
        let caller = $self.enter($call, &$request)?;
        let _turn = $self.inner.turns.take(&caller.name).await?;
        $self.reply($here(&$self.inner, &caller, $request.into_inner()).await)
    }};
}

/// Answers a call on whichever server it came to.
macro_rules! anywhere {
    ($self:ident, $call:literal, $request:ident, $here:path) => {{
        let caller = $self.enter($call, &$request)?;
        $self.reply($here(&$self.inner, &caller, $request.into_inner()).await)
    }};
}

#[tonic::async_trait]
impl Muster for Gateway {
    async fn submit(&self, request: Request<pb::SubmitRequest>) -> Result<Response<pb::SubmitReply>, Status> {
        if request.get_ref().dry_run {
            return in_turn!(self, "Submit", request, change::dry_run);
        }
        on_leader!(self, "Submit", request, submit, change::submit)
    }

    async fn list_jobs(&self, request: Request<pb::ListJobsRequest>) -> Result<Response<pb::ListJobsReply>, Status> {
        in_turn!(self, "ListJobs", request, list::list)
    }

    async fn show_job(&self, request: Request<pb::ShowJobRequest>) -> Result<Response<pb::Job>, Status> {
        in_turn!(self, "ShowJob", request, jobs::show)
    }

    async fn why(&self, request: Request<pb::WhyRequest>) -> Result<Response<pb::WhyReply>, Status> {
        in_turn!(self, "Why", request, jobs::why)
    }

    async fn why_all(&self, request: Request<pb::WhyAllRequest>) -> Result<Response<pb::WhyAllReply>, Status> {
        in_turn!(self, "WhyAll", request, waiting::why_all)
    }

    async fn cancel(&self, request: Request<pb::CancelRequest>) -> Result<Response<pb::CancelReply>, Status> {
        on_leader!(self, "Cancel", request, cancel, change::cancel)
    }

    async fn hold(&self, request: Request<pb::HoldRequest>) -> Result<Response<pb::HoldReply>, Status> {
        on_leader!(self, "Hold", request, hold, change::hold)
    }

    async fn retry(&self, request: Request<pb::RetryRequest>) -> Result<Response<pb::SubmitReply>, Status> {
        on_leader!(self, "Retry", request, retry, change::retry)
    }

    async fn wait(&self, request: Request<pb::WaitRequest>) -> Result<Response<pb::WaitReply>, Status> {
        anywhere!(self, "Wait", request, wait::wait)
    }

    type LogsStream = Streamed<pb::LogChunk>;

    async fn logs(&self, request: Request<pb::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let caller = self.enter("Logs", &request)?;
        let ticket = self.inner.streams.enter(&caller.name).map_err(|error| self.refused(error))?;
        let request = request.into_inner();
        match self.leader(&caller).await? {
            Where::There(mut leader) => {
                let stream = passed_on(leader.logs(on_behalf(request, &caller, true)).await)?.into_inner();
                Ok(Response::new(forward::relay(stream, ticket)))
            }
            Where::Here => self.reply(logs::logs(&self.inner, &caller, request, ticket).await),
        }
    }

    type EventsStream = Streamed<pb::Event>;

    async fn events(&self, request: Request<pb::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let caller = self.enter("Events", &request)?;
        let ticket = self.inner.streams.enter(&caller.name).map_err(|error| self.refused(error))?;
        self.reply(events::events(&self.inner, &caller, request.into_inner(), ticket).await)
    }

    async fn list_nodes(&self, request: Request<pb::ListNodesRequest>) -> Result<Response<pb::ListNodesReply>, Status> {
        in_turn!(self, "ListNodes", request, nodes::list)
    }

    async fn show_node(&self, request: Request<pb::ShowNodeRequest>) -> Result<Response<pb::Node>, Status> {
        on_leader!(self, "ShowNode", request, show_node, nodes::show)
    }

    async fn cluster_status(
        &self,
        request: Request<pb::ClusterStatusRequest>,
    ) -> Result<Response<pb::ClusterStatusReply>, Status> {
        anywhere!(self, "ClusterStatus", request, cluster::status)
    }

    async fn version(&self, request: Request<pb::VersionRequest>) -> Result<Response<pb::VersionReply>, Status> {
        anywhere!(self, "Version", request, cluster::version)
    }

    async fn node_admin(&self, request: Request<pb::NodeAdminRequest>) -> Result<Response<pb::NodeAdminReply>, Status> {
        on_leader!(self, "NodeAdmin", request, node_admin, nodes::admin)
    }

    async fn node_token(&self, request: Request<pb::NodeTokenRequest>) -> Result<Response<pb::NodeTokenReply>, Status> {
        on_leader!(self, "NodeToken", request, node_token, token::issue)
    }

    async fn configure(&self, request: Request<pb::ConfigureRequest>) -> Result<Response<pb::ConfigureReply>, Status> {
        on_leader!(self, "Configure", request, configure, configure::configure)
    }

    async fn change_members(
        &self,
        request: Request<pb::ChangeMembersRequest>,
    ) -> Result<Response<pb::ChangeMembersReply>, Status> {
        on_leader!(self, "ChangeMembers", request, change_members, members::change)
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderReply>, Status> {
        on_leader!(self, "TransferLeader", request, transfer_leader, members::transfer)
    }

    type BackupStream = Streamed<pb::BackupChunk>;

    async fn backup(&self, request: Request<pb::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let caller = self.enter("Backup", &request)?;
        let ticket = self.inner.streams.enter(&caller.name).map_err(|error| self.refused(error))?;
        self.reply(backup::backup(&self.inner, &caller, ticket, request.into_inner()).await)
    }

    async fn plan(&self, request: Request<pb::PlanRequest>) -> Result<Response<pb::PlanReply>, Status> {
        in_turn!(self, "Plan", request, plan::plan)
    }

    async fn list_queues(
        &self,
        request: Request<pb::ListQueuesRequest>,
    ) -> Result<Response<pb::ListQueuesReply>, Status> {
        in_turn!(self, "ListQueues", request, queues::list)
    }

    async fn show_queue(&self, request: Request<pb::ShowQueueRequest>) -> Result<Response<pb::ShowQueueReply>, Status> {
        in_turn!(self, "ShowQueue", request, queues::show)
    }

    async fn edit_job(&self, request: Request<pb::EditJobRequest>) -> Result<Response<pb::EditJobReply>, Status> {
        on_leader!(self, "EditJob", request, edit_job, edit::edit)
    }

    async fn show_policy(
        &self,
        request: Request<pb::ShowPolicyRequest>,
    ) -> Result<Response<pb::ShowPolicyReply>, Status> {
        on_leader!(self, "ShowPolicy", request, show_policy, policy::show)
    }

    async fn make_reservation(
        &self,
        request: Request<pb::MakeReservationRequest>,
    ) -> Result<Response<pb::MakeReservationReply>, Status> {
        on_leader!(self, "MakeReservation", request, make_reservation, reservations::make)
    }

    async fn end_reservation(
        &self,
        request: Request<pb::EndReservationRequest>,
    ) -> Result<Response<pb::EndReservationReply>, Status> {
        on_leader!(self, "EndReservation", request, end_reservation, reservations::end)
    }

    async fn list_reservations(
        &self,
        request: Request<pb::ListReservationsRequest>,
    ) -> Result<Response<pb::ListReservationsReply>, Status> {
        in_turn!(self, "ListReservations", request, reservations::list)
    }

    async fn show_reservation(
        &self,
        request: Request<pb::ShowReservationRequest>,
    ) -> Result<Response<pb::Reservation>, Status> {
        in_turn!(self, "ShowReservation", request, reservations::show)
    }
}
