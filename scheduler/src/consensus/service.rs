//! The answering side of server to server traffic.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures::{Stream, StreamExt};
use muster_proto::peer as pb;
use muster_proto::peer::peer_server::{Peer, PeerServer};
use prost::Message;
use tonic::{Code, Request, Response, Status, Streaming};

use super::error::ReadError;
use super::handle::Core;
use super::network::MESSAGE_BYTES_MAX;
use super::snapshot::{Incoming, SnapshotFile};
use super::types::{Snapshot, Vote};
use super::wire;

/// Records of history in one reply; their bytes are bounded by the history itself.
const HISTORY_RECORDS_MAX: usize = 4096;

/// Says whether a caller, known by what its connection put into the extensions, is a scheduler server.
pub type CallerCheck = Arc<dyn Fn(&tonic::Extensions) -> Result<(), Status> + Send + Sync>;

/// The peer service of one server.
pub struct PeerService {
    core: Arc<Core>,
    check: CallerCheck,
}

/// Why a server refused a call, as found in a status.
pub fn refusal_of(status: &Status) -> Option<pb::Refusal> {
    if status.code() != Code::FailedPrecondition || status.details().is_empty() {
        return None;
    }
    pb::Refusal::decode(status.details()).ok()
}

fn refuse(kind: pb::refusal::Kind, expected: impl ToString, got: impl ToString) -> Status {
    let refusal = pb::Refusal { kind: kind.into(), expected: expected.to_string(), got: got.to_string() };
    let what = match kind {
        pb::refusal::Kind::Cluster => "this server belongs to another cluster",
        pb::refusal::Kind::Target => "another server answers at this address",
        pb::refusal::Kind::Disk => "this server has lost its disk since it was first met; it needs a new id",
        pb::refusal::Kind::Self_ => "a server called itself; two servers share an id or an address",
        _ => "the call does not say whom it is for",
    };
    let message = format!("{what} (called as {:?}, is {:?})", refusal.got, refusal.expected);
    Status::with_details(Code::FailedPrecondition, message, refusal.encode_to_vec().into())
}

impl PeerService {
    pub(crate) fn server(core: Arc<Core>, check: CallerCheck) -> PeerServer<PeerService> {
        PeerServer::new(PeerService { core, check })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn admit<T>(&self, request: Request<T>, envelope: impl FnOnce(&T) -> &Option<pb::Envelope>) -> Result<T, Status> {
        (self.check)(request.extensions())?;
        let request = request.into_inner();
        check_envelope(&self.core, envelope(&request).as_ref())?;
        Ok(request)
    }
}

fn check_envelope(core: &Core, envelope: Option<&pb::Envelope>) -> Result<(), Status> {
    use pb::refusal::Kind;
    let net = &core.net;
    let Some(envelope) = envelope else {
        return Err(refuse(Kind::NoEnvelope, net.server_id, ""));
    };
    if envelope.cluster_id != net.cluster_id {
        return Err(refuse(Kind::Cluster, &net.cluster_id, &envelope.cluster_id));
    }
    if envelope.target_id != net.server_id {
        return Err(refuse(Kind::Target, net.server_id, envelope.target_id));
    }
    if envelope.source_id == net.server_id {
        return Err(refuse(Kind::Self_, net.server_id, envelope.source_id));
    }
    let disk_id = &core.disk_id;
    if !envelope.target_disk_id.is_empty() && envelope.target_disk_id != *disk_id {
        return Err(refuse(Kind::Disk, disk_id, &envelope.target_disk_id));
    }
    Ok(())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("this server's consensus has stopped: {error}"))
}

type Replies = Pin<Box<dyn Stream<Item = Result<pb::AppendReply, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStreamStream = Replies;

    async fn identify(&self, request: Request<pb::IdentifyRequest>) -> Result<Response<pb::IdentifyReply>, Status> {
        (self.check)(request.extensions())?;
        let asked = request.into_inner();
        let net = &self.core.net;
        if asked.cluster_id != net.cluster_id {
            return Err(refuse(pb::refusal::Kind::Cluster, &net.cluster_id, asked.cluster_id));
        }
        Ok(Response::new(pb::IdentifyReply {
            cluster_id: net.cluster_id.clone(),
            server_id: net.server_id,
            disk_id: self.core.disk_id.clone(),
            has_voted: net.identity.has_voted(),
            wall_ms: self.core.config.clock.wall_ms(),
        }))
    }

    async fn pre_vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteReply>, Status> {
        let request = wire::vote_request_back(self.admit(request, |request| &request.envelope)?)?;
        let reply = self.core.raft.pre_vote(request).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_reply(&reply, self.core.disk_id.clone())))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteReply>, Status> {
        let request = wire::vote_request_back(self.admit(request, |request| &request.envelope)?)?;
        let reply = self.core.raft.vote(request).await.map_err(stopped)?;
        Ok(Response::new(wire::vote_reply(&reply, self.core.disk_id.clone())))
    }

    async fn append(&self, request: Request<pb::AppendRequest>) -> Result<Response<pb::AppendReply>, Status> {
        let request = wire::append_back(self.admit(request, |request| &request.envelope)?)?;
        let previous = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(previous);
        let reply = self.core.raft.append_entries(request).await.map_err(stopped)?;
        let result = wire::single_reply(previous, last, reply);
        Ok(Response::new(wire::append_reply(&result, self.core.disk_id.clone())))
    }

    async fn append_stream(&self, request: Request<Streaming<pb::AppendRequest>>) -> Result<Response<Replies>, Status> {
        (self.check)(request.extensions())?;
        // What ended the input for a reason the caller must hear; told after the replies to what came before.
        let broken = Arc::new(Mutex::new(None));
        let input = {
            let (core, broken) = (self.core.clone(), broken.clone());
            request.into_inner().scan((), move |(), item| {
                let request = item.and_then(|request| {
                    check_envelope(&core, request.envelope.as_ref())?;
                    wire::append_back(request)
                });
                let kept = request.map_err(|status| *lock(&broken) = Some(status)).ok();
                std::future::ready(kept)
            })
        };
        let disk_id = self.core.disk_id.clone();
        let replies = self.core.raft.stream_append(input).map(move |item| match item {
            Ok(result) => Ok(wire::append_reply(&result, disk_id.clone())),
            Err(error) => Err(stopped(error)),
        });
        let stop = self.core.stop.clone();
        let end = futures::stream::once(async move {
            let down = || stop.is_cancelled().then(|| stopped("it is shutting down"));
            lock(&broken).take().or_else(down)
        });
        let end = end.filter_map(std::future::ready).map(Err);
        Ok(Response::new(Box::pin(replies.chain(end))))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotPart>>,
    ) -> Result<Response<pb::SnapshotReply>, Status> {
        (self.check)(request.extensions())?;
        let (vote, file) = self.receive(request.into_inner()).await?;
        let meta = file.meta().map_err(|error| Status::data_loss(error.to_string()))?;
        let snapshot = Snapshot { meta, snapshot: file };
        let reply = self.core.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        let disk_id = self.core.disk_id.clone();
        Ok(Response::new(pb::SnapshotReply { vote: Some(wire::vote(&reply.vote)), disk_id }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderReply>, Status> {
        let request = wire::transfer_back(self.admit(request, |request| &request.envelope)?)?;
        let outcome = self.core.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        let refused = outcome.err().map_or(String::new(), |error| error.to_string());
        Ok(Response::new(pb::TransferLeaderReply { refused, disk_id: self.core.disk_id.clone() }))
    }

    async fn read_index(&self, request: Request<pb::ReadIndexRequest>) -> Result<Response<pb::ReadIndexReply>, Status> {
        use pb::read_index_reply::Outcome;
        self.admit(request, |request| &request.envelope)?;
        let outcome = match self.core.reads.index().await {
            Ok(index) => Outcome::Index(index),
            Err(ReadError::NotLeader { leader }) => Outcome::LeaderId(leader.map_or(0, |(id, _)| id)),
            Err(ReadError::ShuttingDown) => return Err(stopped("it is shutting down")),
            Err(error) => Outcome::NoQuorum(error.to_string()),
        };
        Ok(Response::new(pb::ReadIndexReply { outcome: Some(outcome), disk_id: self.core.disk_id.clone() }))
    }

    async fn read_history(
        &self,
        request: Request<pb::ReadHistoryRequest>,
    ) -> Result<Response<pb::ReadHistoryReply>, Status> {
        let asked = self.admit(request, |request| &request.envelope)?;
        Ok(Response::new(self.history_page(&asked).await?))
    }
}

impl PeerService {
    /// A page of history for a server that lacks it; empty if this one does not serve any.
    async fn history_page(&self, asked: &pb::ReadHistoryRequest) -> Result<pb::ReadHistoryReply, Status> {
        let mut reply = pb::ReadHistoryReply { disk_id: self.core.disk_id.clone(), ..Default::default() };
        let Some(history) = self.core.history.get().cloned() else {
            return Ok(reply);
        };
        let (from, to) = (asked.from, asked.to);
        let page = muster_runtime::aside::run(move || history.page(from, to, HISTORY_RECORDS_MAX)).await;
        let page = page.map_err(|error| Status::internal(error.to_string()))?;
        if let Some(page) = page.map_err(|error| Status::internal(error.to_string()))? {
            reply.complete_through = Some(page.through);
            reply.records = page.records.into_iter().map(wire::history_record).collect();
        }
        Ok(reply)
    }

    async fn receive(&self, mut parts: Streaming<pb::SnapshotPart>) -> Result<(Vote, SnapshotFile), Status> {
        use pb::snapshot_part::Part;
        let Some(pb::SnapshotPart { part: Some(Part::Head(head)) }) = parts.message().await? else {
            return Err(Status::invalid_argument("a snapshot begins with its head"));
        };
        check_envelope(&self.core, head.envelope.as_ref())?;
        let vote = wire::vote_back(head.vote)?;
        let mut incoming = self.core.snapshots.receive(head.file_bytes).map_err(refused_snapshot)?;
        while let Some(part) = parts.message().await? {
            let Some(Part::Data(data)) = part.part else {
                return Err(Status::invalid_argument("a snapshot has only one head"));
            };
            incoming = on_disk(incoming, move |mut incoming| incoming.write(&data).map(|()| incoming)).await?;
        }
        let file = on_disk(incoming, Incoming::finish).await?;
        Ok((vote, file))
    }
}

/// Runs a step that touches the disk on a thread for that.
async fn on_disk<T: Send + 'static>(
    incoming: Incoming,
    step: impl FnOnce(Incoming) -> Result<T, super::snapshot::SnapshotError> + Send + 'static,
) -> Result<T, Status> {
    let done = muster_runtime::aside::run(move || step(incoming)).await;
    done.map_err(|error| Status::internal(error.to_string()))?.map_err(refused_snapshot)
}

fn refused_snapshot(error: super::snapshot::SnapshotError) -> Status {
    Status::data_loss(error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
