//! Fetching from the other servers what this one's history lacks: after it was brought up by a snapshot, or because its
//! history was damaged.

use std::sync::Arc;
use std::time::Duration;

use muster_proto::peer as pb;
use openraft::async_runtime::WatchReceiver;
use tokio::time::timeout;

use super::handle::Core;
use super::network::Lane;
use super::wire;
use crate::history::{Gap, HistoryStore};

const PAGE_MS: u64 = 10_000;
const LOOK_MS: u64 = 5_000;

/// Why history could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum RefillError {
    /// This server's own history cannot be read or written.
    #[error("history: {0}")]
    Own(#[from] std::io::Error),
    /// No other server has the records at the moment.
    #[error("no server has the history of entries {from} to {to}: {why}; it is tried again later")]
    Nowhere {
        /// The first missing entry.
        from: u64,
        /// The last one.
        to: u64,
        /// What the servers said.
        why: String,
    },
}

/// Looks for gaps for as long as the server runs, and fills them.
pub(crate) async fn keep_whole(core: &Core, history: &Arc<HistoryStore>) {
    loop {
        match refill(core, history).await {
            Ok(0) => {}
            Ok(records) => tracing::info!(records, "history was completed from another server"),
            Err(error) => tracing::warn!(%error, "history has a gap"),
        }
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(LOOK_MS)) => {}
        }
    }
}

/// Fills every gap; returns how many records came.
pub(crate) async fn refill(core: &Core, history: &Arc<HistoryStore>) -> Result<u64, RefillError> {
    let mut fetched = 0;
    while let Some(gap) = first_gap(history).await? {
        fetched += fill_some(core, history, gap).await?;
    }
    Ok(fetched)
}

async fn first_gap(history: &Arc<HistoryStore>) -> Result<Option<Gap>, RefillError> {
    let history = history.clone();
    Ok(on_disk(move || history.gaps()).await?.into_iter().next())
}

/// Asks one server after the other for the beginning of a gap.
async fn fill_some(core: &Core, history: &Arc<HistoryStore>, gap: Gap) -> Result<u64, RefillError> {
    let members: Vec<(u64, String)> = {
        let metrics = core.raft.metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.nodes();
        members.map(|(id, member)| (*id, core.net.addr(*id, member).to_owned())).collect()
    };
    let mut why = vec!["this server is alone".to_owned()];
    for (id, addr) in members.into_iter().filter(|(id, _)| *id != core.net.server_id) {
        match page(core, id, &addr, gap).await {
            Ok(Some((records, through))) => {
                let count = records.len() as u64;
                let history = history.clone();
                on_disk(move || history.fill(gap, through, &records)).await?;
                return Ok(count);
            }
            Ok(None) => why.push(format!("server {id} lacks it too")),
            Err(error) => why.push(format!("server {id}: {error}")),
        }
    }
    if why.len() > 1 {
        why.remove(0);
    }
    Err(RefillError::Nowhere { from: gap.from, to: gap.to, why: why.join("; ") })
}

type Fetched = Option<(Vec<(u64, crate::history::Record)>, u64)>;

async fn page(core: &Core, id: u64, addr: &str, gap: Gap) -> Result<Fetched, String> {
    // A bulk transfer, so it shares the lane of the snapshots.
    let mut client = core.net.client(id, addr, Lane::Snapshot);
    let envelope = Some(core.net.envelope(id));
    let asked = client.read_history(pb::ReadHistoryRequest { envelope, from: gap.from, to: gap.to });
    let reply = timeout(Duration::from_millis(PAGE_MS), asked).await.map_err(|_| "no answer in time".to_owned())?;
    let reply = reply.map_err(|status| status.message().to_owned())?.into_inner();
    let Some(through) = reply.complete_through else {
        return Ok(None);
    };
    let records: Result<Vec<_>, _> = reply.records.into_iter().map(wire::history_record_back).collect();
    Ok(Some((records.map_err(|status| status.message().to_owned())?, through.min(gap.to))))
}

async fn on_disk<T: Send + 'static>(call: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    muster_runtime::aside::run(call).await.map_err(std::io::Error::other)?
}
