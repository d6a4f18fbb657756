//! Who this server is: a small durable file that outlives a lost log and gives it away.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use muster_runtime::durable::{self, DurableError};
use serde::{Deserialize, Serialize};

use super::engine::EngineState;

const FILE: &str = "identity";
const VERSION: u8 = 1;
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Why a server may not start with the folder it was given.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The folder belongs to another cluster or another server.
    #[error("{} belongs to {what} {found:?}, not {wanted:?}; give this server its own folder", path.display())]
    Other {
        /// The identity file.
        path: PathBuf,
        /// `cluster` or `server`.
        what: &'static str,
        /// What the file says.
        found: String,
        /// What the configuration says.
        wanted: String,
    },
    /// The log of a server that has voted is gone or is older than its votes.
    #[error(
        "server {server_id} has voted in term {voted_term}, but its log knows of {log_term}: the log was lost or replaced. \
         It may have promised what it no longer remembers and must not vote again: remove it from the cluster and add it \
         under a new id, with an empty folder ({})", path.display()
    )]
    LogLost {
        /// The identity file.
        path: PathBuf,
        /// This server.
        server_id: u64,
        /// The last term it voted in.
        voted_term: u64,
        /// What the log says, in words.
        log_term: String,
    },
    /// There is a log, but nothing that says whose.
    #[error(
        "{} is missing, but there is a log beside it; restore the file, or remove the server and add it under a new id",
        path.display()
    )]
    Missing {
        /// The identity file.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] DurableError),
    /// A later build of muster wrote the file in a format that this one does not know.
    #[error(
        "{} has format {version}, and this muster knows formats up to {}; run the version of muster that wrote it; the \
         file was not changed", path.display(), VERSION
    )]
    Newer {
        /// The identity file.
        path: PathBuf,
        /// Its format.
        version: u8,
    },
    /// The file is whole but makes no sense.
    #[error("{} is damaged: {why}; restore it, or remove the server and add it under a new id", path.display())]
    Damaged {
        /// The identity file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    cluster_id: String,
    server_id: u64,
    disk_id: String,
    /// The highest term this server has voted in; absent before its first vote.
    voted_term: Option<u64>,
    /// The disks of the other servers, as they were first met.
    peers: BTreeMap<u64, String>,
}

/// The identity of this server and of the disks it has met.
pub(crate) struct Identity {
    path: PathBuf,
    facts: Mutex<Facts>,
}

impl Identity {
    /// Reads the identity in `dir`, or makes one if `log` is still empty.
    pub(crate) fn open(dir: &Path, cluster_id: &str, server_id: u64, log: &EngineState) -> Result<Self, IdentityError> {
        let path = dir.join(FILE);
        let facts = match durable::read_sealed(&path, FILE_BYTES_MAX) {
            Ok(sealed) => parse(&path, sealed.version, &sealed.bytes)?,
            Err(error) if error.is_missing() => {
                if *log != EngineState::default() {
                    return Err(IdentityError::Missing { path });
                }
                let facts = Facts {
                    cluster_id: cluster_id.to_owned(),
                    server_id,
                    disk_id: uuid::Uuid::new_v4().simple().to_string(),
                    voted_term: None,
                    peers: BTreeMap::new(),
                };
                write(&path, &facts)?;
                facts
            }
            Err(error) => return Err(error.into()),
        };
        check(&path, &facts, cluster_id, server_id, log)?;
        Ok(Identity { path, facts: Mutex::new(facts) })
    }

    pub(crate) fn disk_id(&self) -> String {
        self.lock().disk_id.clone()
    }

    pub(crate) fn has_voted(&self) -> bool {
        self.lock().voted_term.is_some()
    }

    /// Durably remembers the term of a vote. A few milliseconds, once a term.
    pub(crate) fn record_vote(&self, term: u64) -> io::Result<()> {
        let facts = self.lock();
        if facts.voted_term >= Some(term) {
            return Ok(());
        }
        self.change(facts, |facts| facts.voted_term = Some(term))
    }

    /// The disk the server `id` had when it was first met; empty if it was not.
    pub(crate) fn disk_of(&self, id: u64) -> String {
        self.lock().peers.get(&id).cloned().unwrap_or_default()
    }

    /// The highest id of another server that was ever met; 0 before the first.
    pub(crate) fn highest_met(&self) -> u64 {
        self.lock().peers.last_key_value().map_or(0, |(id, _)| *id)
    }

    /// Remembers the disk of a server met for the first time.
    pub(crate) fn meet(&self, id: u64, disk_id: &str) -> io::Result<()> {
        let facts = self.lock();
        if disk_id.is_empty() || facts.peers.contains_key(&id) {
            return Ok(());
        }
        self.change(facts, |facts| drop(facts.peers.insert(id, disk_id.to_owned())))
    }

    /// On the disk first: what could not be written is not known either, so that the next call tries again.
    fn change(&self, mut known: MutexGuard<'_, Facts>, change: impl FnOnce(&mut Facts)) -> io::Result<()> {
        let mut next = known.clone();
        change(&mut next);
        write(&self.path, &next).map_err(io::Error::other)?;
        *known = next;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().expect("no code panics while it holds the identity")
    }
}

fn parse(path: &Path, version: u8, bytes: &[u8]) -> Result<Facts, IdentityError> {
    let damaged = |why: String| IdentityError::Damaged { path: path.to_owned(), why };
    if version > VERSION {
        return Err(IdentityError::Newer { path: path.to_owned(), version });
    }
    if version < VERSION {
        return Err(damaged(format!("no muster ever wrote format {version}")));
    }
    serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))
}

fn write(path: &Path, facts: &Facts) -> Result<(), DurableError> {
    let bytes = serde_json::to_vec(facts).expect("numbers and strings always encode");
    durable::write_sealed(path, VERSION, &bytes)
}

fn check(path: &Path, facts: &Facts, cluster_id: &str, server_id: u64, log: &EngineState) -> Result<(), IdentityError> {
    let other = |what, found: &str, wanted: &str| {
        let (found, wanted) = (found.to_owned(), wanted.to_owned());
        Err(IdentityError::Other { path: path.to_owned(), what, found, wanted })
    };
    if facts.cluster_id != cluster_id {
        return other("cluster", &facts.cluster_id, cluster_id);
    }
    if facts.server_id != server_id {
        return other("server", &facts.server_id.to_string(), &server_id.to_string());
    }
    let known = log.vote.map(|vote| vote.term);
    match facts.voted_term {
        Some(voted_term) if known < Some(voted_term) => Err(IdentityError::LogLost {
            path: path.to_owned(),
            server_id,
            voted_term,
            log_term: known.map_or("no vote at all".to_owned(), |term| format!("term {term}")),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::types::SavedVote;

    fn voted(term: u64) -> EngineState {
        EngineState { vote: Some(SavedVote { term, committed: false, server: 1 }), ..EngineState::default() }
    }

    #[test]
    fn a_disk_keeps_its_id_and_what_it_met() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::open(dir.path(), "c", 1, &EngineState::default()).unwrap();
        first.meet(2, "disk-of-2").unwrap();
        first.meet(2, "another").unwrap();
        let again = Identity::open(dir.path(), "c", 1, &EngineState::default()).unwrap();
        assert_eq!(again.disk_id(), first.disk_id());
        assert_eq!(again.disk_of(2), "disk-of-2");
        assert_eq!(again.disk_of(3), "");
    }

    #[test]
    fn what_could_not_be_written_is_written_by_the_next_call() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(dir.path(), "c", 1, &EngineState::default()).unwrap();
        let in_the_way = dir.path().join("identity.new");
        std::fs::create_dir(&in_the_way).unwrap();
        assert!(identity.meet(2, "disk-of-2").is_err() && identity.record_vote(5).is_err());
        assert_eq!((identity.disk_of(2), identity.has_voted()), (String::new(), false));
        std::fs::remove_dir(&in_the_way).unwrap();
        identity.meet(2, "disk-of-2").unwrap();
        identity.record_vote(5).unwrap();
        let again = Identity::open(dir.path(), "c", 1, &voted(5)).unwrap();
        assert_eq!((again.disk_of(2).as_str(), again.has_voted()), ("disk-of-2", true));
    }

    #[test]
    fn a_lost_log_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        Identity::open(dir.path(), "c", 1, &EngineState::default()).unwrap().record_vote(5).unwrap();
        for log in [EngineState::default(), voted(4)] {
            let refused = Identity::open(dir.path(), "c", 1, &log);
            assert!(matches!(refused, Err(IdentityError::LogLost { voted_term: 5, .. })), "{log:?}");
        }
        assert!(Identity::open(dir.path(), "c", 1, &voted(5)).is_ok());
    }

    #[test]
    fn an_identity_of_a_newer_format_is_refused_as_such_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        durable::write_sealed(&path, VERSION + 1, b"whatever it will be").unwrap();
        let before = std::fs::read(&path).unwrap();
        let refused = Identity::open(dir.path(), "c", 1, &EngineState::default()).err().unwrap();
        assert!(matches!(refused, IdentityError::Newer { version: 2, .. }), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_folder_of_someone_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Identity::open(dir.path(), "c", 1, &EngineState::default()).unwrap();
        let refused = |cluster, id| Identity::open(dir.path(), cluster, id, &EngineState::default()).err();
        assert!(matches!(refused("d", 1), Some(IdentityError::Other { what: "cluster", .. })));
        assert!(matches!(refused("c", 2), Some(IdentityError::Other { what: "server", .. })));
        let empty = tempfile::tempdir().unwrap();
        let orphan = Identity::open(empty.path(), "c", 1, &voted(1));
        assert!(matches!(orphan, Err(IdentityError::Missing { .. })));
    }
}
