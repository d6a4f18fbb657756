//! Tasks that watch Raft: who leads, and when the log can be purged.

use std::sync::Arc;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::network::Net;
use super::snapshot::SnapshotStore;
use super::types::{LogPos, Raft};

/// Who leads, as this server knows it. Never proof by itself: only a quorum round or an applied entry is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// This server's present term.
    pub term: u64,
    /// The leader of that term, if known.
    pub leader: Option<u64>,
    /// Where it is reached.
    pub leader_addr: Option<String>,
    /// Whether it is this server.
    pub is_leader: bool,
    /// Whether this server leads and has applied the first entry of its own term: from then on its state includes
    /// everything committed before it was elected.
    pub first_index_of_term_applied: bool,
}

pub(crate) fn leadership(
    raft: &Raft,
    net: Arc<Net>,
    mut applied: watch::Receiver<Option<LogPos>>,
    stop: CancellationToken,
) -> watch::Receiver<Leadership> {
    let (tx, rx) = watch::channel(Leadership::default());
    let mut metrics = raft.server_metrics();
    tokio::spawn(async move {
        loop {
            let now = {
                let seen = metrics.borrow_watched();
                let applied = *applied.borrow_and_update();
                let term = seen.vote.leader_id().term;
                let is_leader = seen.state == ServerState::Leader && seen.current_leader == Some(net.server_id);
                let addr = |id| seen.membership_config.get_node(&id).map(|member| net.addr(id, member).to_owned());
                Leadership {
                    term,
                    leader: seen.current_leader,
                    leader_addr: seen.current_leader.and_then(addr),
                    is_leader,
                    first_index_of_term_applied: is_leader && applied.is_some_and(|at| at.term == term),
                }
            };
            tx.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = metrics.changed() => if changed.is_err() { break },
                changed = applied.changed() => if changed.is_err() { break },
            }
        }
        // Nobody may go on believing that this server leads.
        tx.send_modify(|known| {
            known.is_leader = false;
            known.first_index_of_term_applied = false;
            known.leader = None;
            known.leader_addr = None;
        });
    });
    rx
}

/// Purges the log up to the older of the two snapshots kept, and leaves at least `keep` entries behind the newest.
pub(crate) fn purging(raft: Raft, snapshots: SnapshotStore, keep: u64, stop: CancellationToken) {
    let mut metrics = raft.data_metrics();
    tokio::spawn(async move {
        let mut asked = None;
        loop {
            let newest = metrics.borrow_watched().snapshot.as_ref().map(LogPos::of);
            let upto = match (snapshots.fallback(), newest) {
                (Some(fallback), Some(newest)) => newest.index.checked_sub(keep).map(|kept| kept.min(fallback.index)),
                _ => None,
            };
            if upto > asked {
                asked = upto;
                if let Some(upto) = upto
                    && raft.trigger().purge_log(upto).await.is_err()
                {
                    return;
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = metrics.changed() => if changed.is_err() { return },
            }
        }
    });
}
