//! openraft's state machine: applies committed entries to the machine, publishes views, builds and installs snapshots.

use std::io;
use std::sync::Mutex;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;

use super::machine::{AnyMachine, Encoder, FlushBeforePurge, MachineError};
use super::snapshot::{SnapshotFile, SnapshotStore};
use super::types::{Answer, Entry, LogId, LogPos, Reply, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// Entries applied between two views. Proposers hear only after the view that includes their entry is out.
const BATCH_MAX: usize = 64;

/// The applying half of a server.
pub struct Applier {
    machine: Box<dyn AnyMachine>,
    flush: FlushBeforePurge,
    snapshots: SnapshotStore,
    applied: Option<LogPos>,
    membership: StoredMembership,
    progress: watch::Sender<Option<LogPos>>,
}

impl Applier {
    pub(crate) fn new(
        machine: Box<dyn AnyMachine>,
        flush: FlushBeforePurge,
        snapshots: SnapshotStore,
    ) -> (Self, watch::Receiver<Option<LogPos>>) {
        let (progress, seen) = watch::channel(None);
        let membership = StoredMembership::default();
        (Applier { machine, flush, snapshots, applied: None, membership, progress }, seen)
    }

    fn apply_one(&mut self, entry: Entry) -> Result<Reply, io::Error> {
        let at = LogPos::of(&entry.log_id);
        let stop = |error: MachineError| {
            let what = format!("entry {at} cannot be applied: {error}; run the version of muster that wrote it");
            io::Error::new(io::ErrorKind::InvalidData, what)
        };
        let reply = match entry.payload {
            EntryPayload::Normal(payload) => self.machine.apply(at, &payload).map_err(stop)?,
            EntryPayload::Blank => {
                self.machine.skip(at).map_err(stop)?;
                Reply(Answer::Nothing)
            }
            EntryPayload::Membership(membership) => {
                self.machine.skip(at).map_err(stop)?;
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Reply(Answer::Nothing)
            }
        };
        self.applied = Some(at);
        Ok(reply)
    }

    fn publish(&mut self) {
        self.machine.publish(self.applied);
        self.progress.send_replace(self.applied);
    }
}

impl RaftStateMachine<TypeConfig> for Applier {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied.map(LogPos::log_id), self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut batches = entries.ready_chunks(BATCH_MAX);
        while let Some(batch) = batches.next().await {
            let mut answers = Vec::with_capacity(batch.len());
            for item in batch {
                let (entry, responder) = item?;
                let reply = self.apply_one(entry)?;
                answers.extend(responder.map(|responder| (responder, reply)));
            }
            self.publish();
            for (responder, reply) in answers {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // The view published last is the present state: `apply` publishes before it returns.
        let meta =
            SnapshotMeta { last_log_id: self.applied.map(LogPos::log_id), last_membership: self.membership.clone() };
        Builder {
            meta,
            encoder: Mutex::new(Some(self.machine.encoder())),
            flush: self.flush.clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        let at = LogPos::of_opt(meta.last_log_id.as_ref());
        let read = snapshot.clone();
        let state = blocking(move || Ok(read.state()?)).await?;
        // The machine first: a snapshot it cannot read must not become the one this server starts from.
        self.machine.restore(at, &state).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("snapshot at {at:?} cannot be restored: {error}"))
        })?;
        drop(state);
        let store = self.snapshots.clone();
        blocking(move || Ok(store.adopt(&snapshot)?)).await?;
        self.applied = at;
        self.membership = meta.last_membership.clone();
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let Some(file) = self.snapshots.newest() else {
            return Ok(None);
        };
        Ok(Some(Snapshot { meta: file.meta()?, snapshot: file }))
    }
}

/// Builds one snapshot from a view taken when it was made.
pub struct Builder {
    meta: SnapshotMeta,
    encoder: Mutex<Option<Encoder>>,
    flush: FlushBeforePurge,
    snapshots: SnapshotStore,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let encoder = self.encoder.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let encoder = encoder.ok_or_else(|| io::Error::other("a snapshot builder builds only once"))?;
        let (meta, flush, snapshots) = (self.meta.clone(), self.flush.clone(), self.snapshots.clone());
        let file = blocking(move || {
            if let Some(last) = &meta.last_log_id {
                flush(last.index)?;
            }
            let state = encoder().map_err(io::Error::other)?;
            Ok(snapshots.write(&meta, &state)?)
        })
        .await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: file })
    }
}

async fn blocking<T: Send + 'static>(call: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    muster_runtime::aside::run(call).await.map_err(io::Error::other)?
}
