//! A backup as a stream, from whichever server is asked.

use super::limits::Ticket;
use super::roles::Caller;
use super::{Inner, Streamed, errors, render};
use crate::backup::{self, Head, Member};
use crate::consensus::{MemberStatus, Viewed};
use muster_engine::State;
use muster_proto::client as pb;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use std::io::{self, Write};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Bytes of one message.
const CHUNK_BYTES: usize = 256 << 10;
/// Messages on their way to a reader that is slow.
const CHUNKS_MAX: usize = 8;

type Chunks = mpsc::Sender<Result<pb::BackupChunk, Status>>;

/// Everything acknowledged before the call is in it.
pub(super) async fn backup(
    inner: &Arc<Inner>,
    caller: &Caller,
    ticket: Ticket,
    request: pb::BackupRequest,
) -> Result<Streamed<pb::BackupChunk>, ErrorInfo> {
    inner.fresh().await?;
    let viewed: Viewed<Arc<State>> = inner.ctx.consensus.views().borrow().clone();
    let by = caller.name.clone();
    let checked = viewed.clone();
    let head = inner.blocking(move |inner| head(inner, &checked)).await?;
    tracing::info!(by, index = head.index, "writing a backup");
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let inner = inner.clone();
    tokio::spawn(async move {
        let done = muster_runtime::aside::run(move || {
            let _open = ticket;
            send(&inner, &head, &viewed.view, &sender, request.decisions);
        });
        if let Err(error) = done.await {
            tracing::error!(%error, "a backup was lost");
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

fn head(inner: &Inner, viewed: &Viewed<Arc<State>>) -> Result<Head, ErrorInfo> {
    let (ctx, state) = (&inner.ctx, &viewed.view);
    if let Some(gap) = ctx.history.gaps().map_err(errors::history)?.first() {
        let message = format!("this server's history lacks entries {} to {}", gap.from, gap.to);
        return Err(ErrorInfo::new(ErrorCode::Unavailable, message)
            .hint("ask another server with --server, or wait: it is fetched from the others"));
    }
    let member = |member: &MemberStatus| {
        let shown = render::cluster::member(member, ctx.members.get(&member.id));
        Member { id: shown.id, name: shown.name, address: shown.address }
    };
    let status = ctx.consensus.status();
    Ok(Head {
        cluster_id: status.cluster_id.clone(),
        index: state.applied_index(),
        term: viewed.applied.map_or(0, |at| at.term),
        generation: state.cluster().generation,
        feature_level: state.cluster().feature_level,
        state_hash: state.hash().to_string(),
        state_bytes: state.encode().len() as u64,
        history_from: ctx.history.floor().map_err(errors::history)?,
        members: status.members.iter().filter(|known| known.voter).map(member).collect(),
        made_at_ms: ctx.clock.wall_ms(),
        made_by: ctx.server.name.clone(),
        version: ctx.version.to_owned(),
    })
}

fn send(inner: &Inner, head: &Head, state: &State, chunks: &Chunks, decisions: bool) {
    let mut out = ChunkWriter { chunks, buffer: Vec::with_capacity(CHUNK_BYTES) };
    let log = inner.ctx.decisions.as_ref().filter(|_| decisions);
    let parts = log.map(|log| backup::decision_files(log.written()));
    let parts = parts.as_ref().map(|parts| parts as backup::Decisions<'_>);
    let written = backup::write(&mut out, head, state, &inner.ctx.history, parts);
    match written {
        // The caller has gone away; nobody is left to be told.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            tracing::error!(%error, "a backup was not finished");
            let _ = chunks.blocking_send(Err(errors::history(error).into()));
        }
        Ok(records) => tracing::info!(index = head.index, records, "a backup was written"),
    }
}

struct ChunkWriter<'a> {
    chunks: &'a Chunks,
    buffer: Vec<u8>,
}

impl Write for ChunkWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES - self.buffer.len();
        let taken = bytes.len().min(room);
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        let sent = self.chunks.blocking_send(Ok(pb::BackupChunk { data: data.into() }));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}
