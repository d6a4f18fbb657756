//! One attempt's logs: asked of the agents of its nodes, put together, and taken up again where they
//! broke off when an agent or its connection came back.

use super::jobs::{check_attempt, load};
use super::limits::Ticket;
use super::render::words::node_name;
use super::roles::Caller;
use super::subject::Subject;
use super::{Inner, Streamed, errors};
use muster_common::{GangId, NodeId, Token};
use muster_engine::state::gang::{Attempt, GangState};
use muster_proto::agent as wire;
use muster_proto::client as pb;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use splice::Splice;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

mod splice;

/// Ranks of one call; each has two streams.
pub const RANKS_MAX: usize = 4096;
/// Nodes of one call; each has a reader of its own.
const NODES_MAX: usize = 1024;
/// Chunks on their way to one reader.
const CHANNEL: usize = 64;
/// How long an agent may be away before its ranks' logs are given up.
const AWAY_MS: u64 = 3_000;
const AWAY_FOLLOWED_MS: u64 = 120_000;
const RETRY_MS: u64 = 200;

/// What is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    gang: GangId,
    attempt: u32,
    token: Token,
    world_size: u32,
    /// By node: its name and the ranks asked of it.
    nodes: BTreeMap<NodeId, (String, Vec<u32>)>,
}

type Sender = mpsc::Sender<Result<pb::LogChunk, Status>>;

pub(super) async fn logs(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::LogsRequest,
    ticket: Ticket,
) -> Result<Streamed<pb::LogChunk>, ErrorInfo> {
    let subject = load(inner, caller, request.job.clone()).await?;
    let target = Arc::new(target(&subject, &request)?);
    let ticket = Arc::new(ticket);
    let (sender, receiver) = mpsc::channel(CHANNEL);
    for node in target.nodes.keys() {
        let reader = NodeReader {
            inner: inner.clone(),
            target: target.clone(),
            node: *node,
            follow: request.follow,
            tail_bytes: request.tail_bytes,
            sender: sender.clone(),
            _ticket: ticket.clone(),
        };
        tokio::spawn(reader.run());
    }
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// The attempt and the ranks a request names.
fn target(subject: &Subject, request: &pb::LogsRequest) -> Result<Target, ErrorInfo> {
    let reference = request.job.clone().unwrap_or_default();
    let id = subject.id();
    if subject.is_array() && reference.ordinal.is_none() && subject.scheduling.gangs() > 1 {
        let message = format!("job {id} is an array; logs are of one element");
        return Err(errors::usage(message).hint(format!("`muster logs {id}_0` shows the first")));
    }
    let ordinal = reference.ordinal.unwrap_or(0);
    if let Some(attempt) = reference.attempt {
        check_attempt(subject, ordinal, attempt)?;
    }
    let gang = subject.gang_id(ordinal);
    let live = subject.state.gang(gang).filter(|_| subject.end.is_none()).and_then(|gang| gang.current());
    let ended = subject.ended_attempts(ordinal);
    let mut all = ended.iter().map(|record| &record.attempt).chain(live);
    let chosen = all.rfind(|attempt| reference.attempt.is_none_or(|number| attempt.number.0 == number));
    let attempt = chosen.ok_or_else(|| {
        let message = format!("job {id} has not been placed yet; there are no logs");
        ErrorInfo::new(ErrorCode::AttemptNotFound, message).hint(format!("`muster why {id}` says what it waits for"))
    })?;
    let ranks = ranks(attempt, request)?;
    let mut nodes: BTreeMap<NodeId, (String, Vec<u32>)> = BTreeMap::new();
    for part in &attempt.parts {
        let here = |rank: &&u32| (part.rank_base..part.rank_base + part.ranks).contains(*rank);
        let here: Vec<u32> = ranks.iter().filter(here).copied().collect();
        if !here.is_empty() {
            let entry = nodes.entry(part.node).or_insert_with(|| (node_name(&subject.state, part.node), Vec::new()));
            entry.1.extend(here);
        }
    }
    if nodes.len() > NODES_MAX {
        let message = format!("the ranks are on {} nodes; at most {NODES_MAX} are read at once", nodes.len());
        return Err(errors::usage(message).hint("choose some with `--rank`"));
    }
    Ok(Target { gang, attempt: attempt.number.0, token: attempt.token, world_size: attempt.world_size, nodes })
}

fn ranks(attempt: &Attempt, request: &pb::LogsRequest) -> Result<Vec<u32>, ErrorInfo> {
    let world = attempt.world_size;
    let mut ranks = match (request.ranks.is_empty(), request.last_rank) {
        (true, false) => (0..world).collect(),
        _ => request.ranks.clone(),
    };
    if request.last_rank {
        ranks.push(world.saturating_sub(1));
    }
    ranks.sort_unstable();
    ranks.dedup();
    if ranks.len() > RANKS_MAX {
        let message = format!("logs of {} ranks are asked for; at most {RANKS_MAX} are read at once", ranks.len());
        return Err(errors::usage(message).hint("choose some with `--rank`"));
    }
    match ranks.last().filter(|rank| **rank >= world) {
        Some(rank) => {
            Err(ErrorInfo::new(ErrorCode::LogNotFound, format!("there is no rank {rank}; the last is {}", world - 1))
                .hint("ranks are numbered from 0"))
        }
        None => Ok(ranks),
    }
}

/// Reads the ranks of one node.
struct NodeReader {
    inner: Arc<Inner>,
    target: Arc<Target>,
    node: NodeId,
    follow: bool,
    tail_bytes: u64,
    sender: Sender,
    _ticket: Arc<Ticket>,
}

/// How one turn at the agent ended.
enum Turn {
    /// Everything was read, or the reader is gone.
    Done,
    /// The agent is not there (any more).
    Away,
    Refused(String),
}

impl NodeReader {
    async fn run(mut self) {
        let Some((name, ranks)) = self.target.nodes.get(&self.node).cloned() else { return };
        let mut splice = Splice::new(&ranks);
        if self.follow {
            self.until_started().await;
        }
        let clock = self.inner.ctx.clock.clone();
        let patience_ms = if self.follow { AWAY_FOLLOWED_MS } else { AWAY_MS };
        let mut away_since_ms = clock.boottime_ms();
        let (why, agent_away) = loop {
            let before = splice.taken();
            match self.turn(&mut splice, &name, &ranks).await {
                Turn::Done => return,
                Turn::Refused(why) => break (why, false),
                Turn::Away => {}
            }
            if !self.inner.ctx.leads() {
                let leader = self.inner.ctx.leader().map(|(_, address)| address);
                let _ = self.sender.send(Err(ErrorInfo::not_leader(leader).hint("repeat the call").into())).await;
                return;
            }
            if splice.taken() > before {
                away_since_ms = clock.boottime_ms();
            } else if clock.boottime_ms().saturating_sub(away_since_ms) > patience_ms {
                break (format!("the agent of {name} is not connected"), true);
            }
            tokio::select! {
                () = self.sender.closed() => return,
                () = clock.sleep_ms(RETRY_MS) => {}
            }
        };
        for (rank, stream) in splice.unfinished() {
            let (stream, error) = (stream.to_owned(), why.clone());
            let chunk = pb::LogChunk { rank, stream, end: true, error, agent_away, ..self.blank(&name) };
            if self.sender.send(Ok(chunk)).await.is_err() {
                return;
            }
        }
    }

    /// Until an agent can have files to read: the attempt has started, or is over.
    async fn until_started(&self) {
        let mut views = self.inner.ctx.consensus.views();
        let (gang, attempt) = (self.target.gang, self.target.attempt);
        let started = views.wait_for(|viewed| match viewed.view.gang(gang).map(|gang| &gang.state) {
            Some(GangState::Starting(current)) => current.number.0 != attempt,
            _ => true,
        });
        tokio::select! {
            // An error means that the server stops; the agent is asked all the same.
            _ = started => {}
            () = self.sender.closed() => {}
        }
    }

    async fn turn(&mut self, splice: &mut Splice, name: &str, ranks: &[u32]) -> Turn {
        let request = wire::LogRequest {
            gang: Some(self.target.gang.into()),
            attempt: self.target.attempt,
            token: Some(self.target.token.into()),
            ranks: ranks.to_vec(),
            follow: self.follow,
            tail_bytes: self.tail_bytes,
            ..Default::default()
        };
        let mut chunks = match self.inner.ctx.sessions.logs(self.node, request).await {
            Ok(chunks) => chunks,
            Err(crate::sessions::LogError::NotConnected) => return Turn::Away,
            Err(refused) => return Turn::Refused(format!("{name}: {refused}")),
        };
        loop {
            let chunk = tokio::select! {
                () = self.sender.closed() => return Turn::Done,
                chunk = chunks.recv() => chunk,
            };
            let Some(chunk) = chunk else { return Turn::Away };
            // From here on a new request must reach back to what was read last.
            self.tail_bytes = 0;
            for chunk in splice.take(chunk, &self.blank(name)) {
                if self.sender.send(Ok(chunk)).await.is_err() {
                    return Turn::Done;
                }
            }
            if splice.is_finished() {
                return Turn::Done;
            }
        }
    }

    fn blank(&self, node: &str) -> pb::LogChunk {
        pb::LogChunk {
            ordinal: self.target.gang.ordinal,
            attempt: self.target.attempt,
            world_size: self.target.world_size,
            node: node.to_owned(),
            ..pb::LogChunk::default()
        }
    }
}
