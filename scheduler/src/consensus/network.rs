//! The calling side of server to server traffic: openraft's network over the gRPC peer service.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use muster_proto::peer as pb;
use muster_proto::peer::peer_client::PeerClient;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::identity::Identity;
use super::types::{LogId, Member, Snapshot, TypeConfig, Vote};
use super::wire::{self, StreamAppendResult};

/// Bytes of a snapshot in one message.
pub(crate) const PART_BYTES: usize = 1 << 20;
/// The longest message either side accepts: an append of [`super::log_store::READ_BYTES_MAX`] and one entry over it, or a
/// page of history that ends with the longest record.
pub(crate) const MESSAGE_BYTES_MAX: usize = (8 << 20) + crate::history::RECORD_BYTES_MAX;
/// A stream is set up over a connection that may have to be made first.
const SETUP_MS_MIN: u64 = 1_000;
/// Between two tries to open a stream of appends. openraft's own back-off is taken with the stream's
/// next request, which a stream that does not open never asks for.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// Which of the three connections to a server is meant, so that a bulk transfer never delays a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Log entries.
    Append,
    /// Heartbeats, votes, read barriers, leadership transfer.
    Heartbeat,
    /// Snapshots.
    Snapshot,
}

/// How to reach the other servers.
pub trait PeerConnector: Send + Sync + 'static {
    /// A lazily connected channel to server `id` at `addr` (`host:port`). It must verify that a server of this cluster
    /// answers, reconnect by itself, and use keep-alives. Asked for once per server, address and lane.
    fn channel(&self, id: u64, addr: &str, lane: Lane) -> Channel;
}

/// Shared by every client of this server.
pub(crate) struct Net {
    pub(crate) cluster_id: String,
    pub(crate) server_id: u64,
    pub(crate) identity: Arc<Identity>,
    pub(crate) connector: Arc<dyn PeerConnector>,
    /// Configured addresses; they win over those in the replicated membership.
    pub(crate) peers: BTreeMap<u64, String>,
    /// A stream of appends with requests outstanding and no reply for this long is broken off.
    pub(crate) stall_ms: u64,
    pub(crate) channels: Mutex<BTreeMap<(u64, String, Lane), Channel>>,
}

impl Net {
    pub(crate) fn addr<'a>(&'a self, id: u64, member: &'a Member) -> &'a str {
        self.peers.get(&id).unwrap_or(&member.addr)
    }

    pub(crate) fn client(&self, id: u64, addr: &str, lane: Lane) -> PeerClient<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let key = (id, addr.to_owned(), lane);
        let channel = channels.entry(key).or_insert_with(|| self.connector.channel(id, addr, lane)).clone();
        PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn envelope(&self, target: u64) -> pb::Envelope {
        pb::Envelope {
            cluster_id: self.cluster_id.clone(),
            source_id: self.server_id,
            target_id: target,
            target_disk_id: self.identity.disk_of(target),
        }
    }

    fn meet(&self, id: u64, disk_id: &str) {
        if let Err(error) = self.identity.meet(id, disk_id) {
            tracing::error!(server = id, %error, "cannot remember the disk of a server; its loss would go unnoticed");
        }
    }
}

/// Makes openraft's clients.
pub(crate) struct Clients(pub(crate) Arc<Net>);

impl Clients {
    fn make(&self, target: u64, member: &Member, lane: Lane) -> Client {
        Client { net: self.0.clone(), target, addr: self.0.addr(target, member).to_owned(), lane }
    }
}

impl RaftNetworkFactory<TypeConfig> for Clients {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &Member) -> Client {
        self.make(target, node, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Client {
        self.make(target, node, Lane::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> Client {
        self.make(target, node, Lane::Snapshot)
    }
}

/// A client for one other server.
pub(crate) struct Client {
    net: Arc<Net>,
    target: u64,
    addr: String,
    lane: Lane,
}

type RpcError = RPCError<TypeConfig>;

impl Client {
    fn late(&self, action: RPCTypes, within: Duration) -> Timeout<TypeConfig> {
        Timeout { action, id: self.net.server_id, target: self.target, timeout: within }
    }

    fn failed(&self, status: &Status) -> RpcError {
        failed(self.target, status)
    }

    /// One unary call under a deadline.
    async fn call<Req, Reply, Fut>(
        &self,
        action: RPCTypes,
        within: Duration,
        request: Req,
        call: impl FnOnce(PeerClient<Channel>, tonic::Request<Req>) -> Fut,
    ) -> Result<Reply, RpcError>
    where
        Fut: Future<Output = Result<tonic::Response<Reply>, Status>>,
    {
        let mut request = tonic::Request::new(request);
        request.set_timeout(within);
        // Everything but log entries and snapshots is urgent and small.
        let client = self.net.client(self.target, &self.addr, Lane::Heartbeat);
        match timeout(within, call(client, request)).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) if status.code() == Code::DeadlineExceeded => Err(self.late(action, within).into()),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => Err(self.late(action, within).into()),
        }
    }

    async fn ask_vote(
        &self,
        request: VoteRequest<TypeConfig>,
        within: Duration,
        pre: bool,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let request = wire::vote_request(self.net.envelope(self.target), &request);
        let reply: pb::VoteReply = self
            .call(RPCTypes::Vote, within, request, |mut client, request| async move {
                if pre { client.pre_vote(request).await } else { client.vote(request).await }
            })
            .await?;
        self.net.meet(self.target, &reply.disk_id);
        wire::vote_reply_back(reply).map_err(|status| self.failed(&status))
    }

    async fn append_one(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
        within: Duration,
    ) -> Result<StreamAppendResult, RpcError> {
        let request = wire::append(self.net.envelope(self.target), &request);
        let reply = self
            .call(RPCTypes::AppendEntries, within, request, |mut client, request| async move {
                client.append(request).await
            })
            .await?;
        self.net.meet(self.target, &reply.disk_id);
        wire::append_reply_back(reply).map_err(|status| self.failed(&status))
    }

    async fn append_stream<'s>(
        &'s self,
        input: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static,
        within: Duration,
    ) -> Result<BoxStream<'s, Result<StreamAppendResult, RpcError>>, RpcError> {
        let sent = Arc::new(AtomicU64::new(0));
        let requests = {
            let (sent, net, target) = (sent.clone(), self.net.clone(), self.target);
            input.map(move |request| {
                sent.fetch_add(1, Ordering::Relaxed);
                wire::append(net.envelope(target), &request)
            })
        };
        let setup = within.max(Duration::from_millis(SETUP_MS_MIN));
        let mut client = self.net.client(self.target, &self.addr, Lane::Append);
        let replies = match timeout(setup, client.append_stream(requests)).await {
            Ok(Ok(replies)) => replies.into_inner(),
            Ok(Err(status)) => {
                sleep(REOPEN_PAUSE).await;
                return Err(self.failed(&status));
            }
            Err(_) => return Err(self.late(RPCTypes::AppendEntries, setup).into()),
        };
        let stall = within.max(Duration::from_millis(self.net.stall_ms));
        let state = Pipeline { client: self, replies, sent, received: 0, stall, over: false };
        Ok(futures::stream::unfold(state, Pipeline::next).boxed())
    }
}

/// The replies of a stream of appends.
struct Pipeline<'s> {
    client: &'s Client,
    replies: tonic::Streaming<pb::AppendReply>,
    sent: Arc<AtomicU64>,
    received: u64,
    stall: Duration,
    over: bool,
}

impl Pipeline<'_> {
    async fn next(mut self) -> Option<(Result<StreamAppendResult, RpcError>, Self)> {
        if self.over {
            return None;
        }
        let mut waiting_since_before = false;
        let item = loop {
            match timeout(self.stall, self.replies.next()).await {
                Ok(Some(item)) => break item,
                // Told as a failure: openraft holds the log back for a request it believes to be under way.
                Ok(None) if self.sent.load(Ordering::Relaxed) > self.received => {
                    self.over = true;
                    let cut = Unreachable::from_string("the stream of appends ended with requests unanswered");
                    return Some((Err(cut.into()), self));
                }
                Ok(None) => return None,
                // An idle stream is healthy; one with a request outstanding for a whole interval is not.
                Err(_) if waiting_since_before => {
                    self.over = true;
                    let late = self.client.late(RPCTypes::AppendEntries, self.stall).into();
                    return Some((Err(late), self));
                }
                Err(_) => waiting_since_before = self.sent.load(Ordering::Relaxed) > self.received,
            }
        };
        self.received += 1;
        let result = match item {
            Ok(reply) => {
                if self.received == 1 {
                    self.client.net.meet(self.client.target, &reply.disk_id);
                }
                wire::append_reply_back(reply).map_err(|status| self.client.failed(&status))
            }
            Err(status) => Err(self.client.failed(&status)),
        };
        self.over = !matches!(result, Ok(Ok(_)));
        Some((result, self))
    }
}

fn failed(target: u64, status: &Status) -> RpcError {
    if status.code() == Code::FailedPrecondition {
        tracing::error!(server = target, why = status.message(), "a server refused to talk to this one");
    }
    // Unreachable makes openraft back off; an immediate retry would help in none of these cases.
    match status.code() {
        Code::ResourceExhausted => NetworkError::from_string(status).into(),
        _ => Unreachable::from_string(status).into(),
    }
}

fn last_of(request: &AppendEntriesRequest<TypeConfig>) -> Option<LogId> {
    request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id)
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = super::snapshot::SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let last = last_of(&rpc);
        Ok(match self.append_one(rpc, option.soft_ttl()).await? {
            Ok(upto) if upto == last => AppendEntriesResponse::Success,
            Ok(upto) => AppendEntriesResponse::PartialSuccess(upto),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let within = option.soft_ttl();
        let client: &'s Client = self;
        Box::pin(async move {
            if client.lane != Lane::Heartbeat {
                return client.append_stream(input, within).await;
            }
            // A heartbeat is a stream of one: a unary call is cheaper than a stream.
            let replies = async_one_by_one(client, &mut input, within).await;
            Ok(futures::stream::iter(replies).boxed())
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_vote(rpc, option.soft_ttl(), false).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_vote(rpc, option.soft_ttl(), true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let file = snapshot.snapshot;
        let head = pb::SnapshotHead {
            envelope: Some(self.net.envelope(self.target)),
            vote: Some(wire::vote(&vote)),
            file_bytes: file.file_bytes(),
        };
        let head = pb::SnapshotPart { part: Some(pb::snapshot_part::Part::Head(head)) };
        let parts = futures::stream::unfold((file, 0u64), |(file, at)| async move {
            if at >= file.file_bytes() {
                return None;
            }
            let read = file.clone();
            let part = muster_runtime::aside::run(move || read.read_at(at, PART_BYTES)).await;
            // A part that cannot be read ends the stream early, and the receiver refuses what it got.
            let part =
                part.ok()?.inspect_err(|error| tracing::error!(%error, "cannot read a snapshot to send")).ok()?;
            let next = at + part.len() as u64;
            Some((pb::SnapshotPart { part: Some(pb::snapshot_part::Part::Data(part.into())) }, (file, next)))
        });
        let stream = futures::stream::once(async { head }).chain(parts);
        let mut client = self.net.client(self.target, &self.addr, Lane::Snapshot);
        let within = option.soft_ttl();
        let sent = timeout(within, client.install_snapshot(stream));
        let reply = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            reply = sent => reply,
        };
        let reply = match reply {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => return Err(self.failed(&status).into()),
            Err(_) => return Err(self.late(RPCTypes::InstallSnapshot, within).into()),
        };
        self.net.meet(self.target, &reply.disk_id);
        let vote = wire::vote_back(reply.vote).map_err(|status| StreamingError::from(self.failed(&status)))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let request = wire::transfer(self.net.envelope(self.target), &req);
        let reply = self
            .call(RPCTypes::TransferLeader, option.soft_ttl(), request, |mut client, request| async move {
                client.transfer_leader(request).await
            })
            .await?;
        if reply.refused.is_empty() {
            return Ok(Ok(()));
        }
        Err(Unreachable::from_string(reply.refused).into())
    }
}

async fn async_one_by_one<S>(
    client: &Client,
    input: &mut S,
    within: Duration,
) -> Vec<Result<StreamAppendResult, RpcError>>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    let mut replies = Vec::new();
    while let Some(request) = input.next().await {
        let reply = client.append_one(request, within).await;
        let over = !matches!(reply, Ok(Ok(_)));
        replies.push(reply);
        if over {
            break;
        }
    }
    replies
}
