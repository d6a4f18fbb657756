//! Founding a cluster anew from a state: the folders of its servers, made without any of them running.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use openraft::Membership;

use super::engine::{EngineState, LogEngine, OnDurable};
use super::error::StartError;
use super::folder;
use super::identity::Identity;
use super::snapshot::SnapshotStore;
use super::types::{LogPos, Member, SavedVote, SnapshotMeta, StoredMembership};
use super::wal::{OnSync, WalEngine, WalLimits};

/// Makes the data folders of all servers, which must not exist: a snapshot of `state` that ends at `last`, a log that
/// begins behind it, and identities that know each other's disks, so that no server of an earlier life of the cluster is
/// ever taken for one of them.
pub fn found_again(
    cluster_id: &str,
    folders: &BTreeMap<u64, PathBuf>,
    members: &BTreeMap<u64, Member>,
    last: LogPos,
    state: &[u8],
) -> Result<(), StartError> {
    let at = last.log_id();
    let voters: BTreeSet<u64> = members.keys().copied().collect();
    let membership = Membership::new(vec![voters], members.clone());
    let membership = membership.map_err(|error| StartError::Config { setting: "members", why: error.to_string() })?;
    let meta = SnapshotMeta { last_log_id: Some(at), last_membership: StoredMembership::new(Some(at), membership) };
    let mut identities = BTreeMap::new();
    for (id, dir) in folders {
        for part in ["log", "snapshots"] {
            folder(&dir.join(part))?;
        }
        SnapshotStore::open(&dir.join("snapshots"), None)?.write(&meta, state)?;
        // The vote of nobody's election: it only keeps terms from being used again.
        let vote = SavedVote { term: last.term, committed: false, server: *id };
        write_log(&dir.join("log"), vote, last).map_err(|cause| failed(dir, cause))?;
        let identity = Identity::open(dir, cluster_id, *id, &EngineState::default())?;
        identity.record_vote(last.term).map_err(|cause| failed(dir, cause))?;
        identities.insert(*id, (dir, identity));
    }
    for (id, (dir, identity)) in &identities {
        for (other, (_, met)) in identities.iter().filter(|(other, _)| *other != id) {
            identity.meet(*other, &met.disk_id()).map_err(|cause| failed(dir, cause))?;
        }
    }
    Ok(())
}

fn failed(dir: &Path, cause: io::Error) -> StartError {
    StartError::Folder { path: dir.to_owned(), cause }
}

fn write_log(dir: &Path, vote: SavedVote, last: LogPos) -> io::Result<()> {
    let mut engine = WalEngine::open(dir, WalLimits::default(), OnSync::ignored()).map_err(io::Error::other)?;
    engine.purge(last)?;
    let (done, waits) = mpsc::sync_channel(1);
    engine.save_vote(vote, OnDurable::new(move |result| drop(done.send(result))))?;
    waits.recv().map_err(io::Error::other)?
}
