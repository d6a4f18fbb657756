//! Conversions between openraft's messages and those of `peer.proto`.

use muster_proto::peer as pb;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use tonic::Status;

use super::engine::Record;
use super::entry;
use super::types::{LogId, LogPos, SavedVote, TypeConfig, Vote};
use crate::history;

pub(crate) type StreamAppendResult = Result<Option<LogId>, StreamAppendError<TypeConfig>>;

fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("a peer's message has no {what}"))
}

pub(crate) fn log_id(id: &LogId) -> pb::LogId {
    pos(LogPos::of(id))
}

fn pos(at: LogPos) -> pb::LogId {
    pb::LogId { term: at.term, index: at.index }
}

fn log_id_back(id: pb::LogId) -> LogId {
    LogPos { term: id.term, index: id.index }.log_id()
}

pub(crate) fn vote(vote: &Vote) -> pb::Vote {
    let SavedVote { term, committed, server } = SavedVote::of(vote);
    pb::Vote { term, server_id: server, committed }
}

pub(crate) fn vote_back(vote: Option<pb::Vote>) -> Result<Vote, Status> {
    let pb::Vote { term, server_id, committed } = vote.ok_or_else(|| missing("vote"))?;
    Ok(SavedVote { term, committed, server: server_id }.vote())
}

pub(crate) fn vote_request(envelope: pb::Envelope, request: &VoteRequest<TypeConfig>) -> pb::VoteRequest {
    pb::VoteRequest {
        envelope: Some(envelope),
        vote: Some(vote(&request.vote)),
        last: request.last_log_id.as_ref().map(log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_back(request: pb::VoteRequest) -> Result<VoteRequest<TypeConfig>, Status> {
    let mut back = VoteRequest::new(vote_back(request.vote)?, request.last.map(log_id_back));
    back.leadership_transfer = request.leadership_transfer;
    Ok(back)
}

pub(crate) fn vote_reply(reply: &VoteResponse<TypeConfig>, disk_id: String) -> pb::VoteReply {
    pb::VoteReply {
        vote: Some(vote(&reply.vote)),
        last: reply.last_log_id.as_ref().map(log_id),
        granted: reply.vote_granted,
        disk_id,
    }
}

pub(crate) fn vote_reply_back(reply: pb::VoteReply) -> Result<VoteResponse<TypeConfig>, Status> {
    Ok(VoteResponse::new(vote_back(reply.vote)?, reply.last.map(log_id_back), reply.granted))
}

pub(crate) fn append(envelope: pb::Envelope, request: &AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    let entries = request.entries.iter().map(|item| {
        let Record { pos: at, body } = entry::encode(item);
        pb::Entry { id: Some(pos(at)), body }
    });
    pb::AppendRequest {
        envelope: Some(envelope),
        vote: Some(vote(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id),
        entries: entries.collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id),
    }
}

pub(crate) fn append_back(request: pb::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
    let mut entries = Vec::with_capacity(request.entries.len());
    for item in request.entries {
        let id = item.id.ok_or_else(|| missing("log id in an entry"))?;
        let record = Record { pos: LogPos { term: id.term, index: id.index }, body: item.body };
        let entry = entry::decode(&record).map_err(|error| Status::invalid_argument(error.to_string()))?;
        entries.push(entry);
    }
    Ok(AppendEntriesRequest {
        vote: vote_back(request.vote)?,
        prev_log_id: request.previous.map(log_id_back),
        entries,
        leader_commit: request.leader_commit.map(log_id_back),
    })
}

pub(crate) fn append_reply(result: &StreamAppendResult, disk_id: String) -> pb::AppendReply {
    use pb::append_reply::Outcome;
    let outcome = match result {
        Ok(upto) => Outcome::Matched(pb::Matched { upto: upto.as_ref().map(log_id) }),
        Err(StreamAppendError::Conflict(at)) => Outcome::Conflict(log_id(at)),
        Err(StreamAppendError::HigherVote(higher)) => Outcome::HigherVote(vote(higher)),
    };
    pb::AppendReply { outcome: Some(outcome), disk_id }
}

pub(crate) fn append_reply_back(reply: pb::AppendReply) -> Result<StreamAppendResult, Status> {
    use pb::append_reply::Outcome;
    Ok(match reply.outcome.ok_or_else(|| missing("outcome"))? {
        Outcome::Matched(matched) => Ok(matched.upto.map(log_id_back)),
        Outcome::Conflict(at) => Err(StreamAppendError::Conflict(log_id_back(at))),
        Outcome::HigherVote(higher) => Err(StreamAppendError::HigherVote(vote_back(Some(higher))?)),
    })
}

/// The reply to one append as the reply in a stream of them. `request` is what was answered.
pub(crate) fn single_reply(
    request_previous: Option<LogId>,
    request_last: Option<LogId>,
    reply: AppendEntriesResponse<TypeConfig>,
) -> StreamAppendResult {
    match (reply, request_previous) {
        (AppendEntriesResponse::Success, _) => Ok(request_last),
        (AppendEntriesResponse::PartialSuccess(upto), _) => Ok(upto),
        (AppendEntriesResponse::HigherVote(higher), _) => Err(StreamAppendError::HigherVote(higher)),
        (AppendEntriesResponse::Conflict, Some(previous)) => Err(StreamAppendError::Conflict(previous)),
        // Nothing precedes the log's beginning, so nothing can conflict there.
        (AppendEntriesResponse::Conflict, None) => Ok(None),
    }
}

pub(crate) fn transfer(
    envelope: pb::Envelope,
    request: &TransferLeaderRequest<TypeConfig>,
) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        envelope: Some(envelope),
        from_leader: Some(vote(request.from_leader())),
        to_server_id: *request.to_node_id(),
        last: request.last_log_id().map(log_id),
    }
}

pub(crate) fn transfer_back(request: pb::TransferLeaderRequest) -> Result<TransferLeaderRequest<TypeConfig>, Status> {
    let from = vote_back(request.from_leader)?;
    Ok(TransferLeaderRequest::new(from, request.to_server_id, request.last.map(log_id_back)))
}

pub(crate) fn history_record((index, record): (u64, history::Record)) -> pb::HistoryRecord {
    let history::Record { ordinal, kind, job, bytes } = record;
    pb::HistoryRecord { index, ordinal, kind: kind.into(), job, bytes }
}

pub(crate) fn history_record_back(record: pb::HistoryRecord) -> Result<(u64, history::Record), Status> {
    let pb::HistoryRecord { index, ordinal, kind, job, bytes } = record;
    let kind = u8::try_from(kind).map_err(|_| Status::invalid_argument(format!("history kind {kind} is unknown")))?;
    Ok((index, history::Record { ordinal, kind, job, bytes }))
}
