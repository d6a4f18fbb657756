//! How allocations ended that the store has dropped. Servers restored from a backup may believe that they run; who can tell
//! them otherwise saves them from running the work again.
//!
//! A file of its own, written only when an allocation is dropped. It holds no promise: what is not in it runs once more.

use super::{Held, ReportBody};
use crate::assignment::Key;
use muster_runtime::durable::{self, DurableError};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::path::Path;

pub const FILE: &str = "ends";
const VERSION: u8 = 1;
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The newest ends are kept: so many allocations, and so many reports of them all.
pub const ENDS_MAX: usize = 256;
const REPORTS_MAX: usize = 16_384;
/// Longer reasons are cut.
const WHY_CHARS_MAX: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    key: Key,
    told: Vec<ReportBody>,
}

/// What ended last, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ends {
    /// The store it belongs to.
    store_id: String,
    ends: VecDeque<End>,
    #[serde(skip)]
    changed: bool,
}

impl Ends {
    /// Reads those of store `store_id`. Errors: the file is there and cannot be read; a damaged one counts as empty.
    pub(super) fn open(path: &Path, store_id: &str) -> Result<Self, DurableError> {
        let empty = || Self { store_id: store_id.to_owned(), ..Self::default() };
        let decoded: Option<Self> = match durable::read_sealed(path, BYTES_MAX) {
            Ok(sealed) if sealed.version == VERSION => postcard::from_bytes(&sealed.bytes).ok(),
            Ok(sealed) if sealed.version > VERSION => {
                let cause = std::io::Error::other("a later agent wrote it in a newer format; run that one");
                return Err(DurableError::Io { path: path.to_owned(), doing: "read", cause });
            }
            Err(DurableError::Missing { .. }) => return Ok(empty()),
            Ok(_) | Err(DurableError::Torn { .. } | DurableError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        let ours = decoded.filter(|ends| ends.store_id == store_id && ends.ends.len() <= ENDS_MAX);
        Ok(ours.unwrap_or_else(|| {
            tracing::warn!(path = %path.display(), "not a record of this store's ends; what ended before is not remembered");
            empty()
        }))
    }

    /// Makes what was noted since the last time survive a power cut.
    pub(super) fn save(&mut self, path: &Path) -> Result<(), DurableError> {
        if self.changed {
            let bytes = postcard::to_stdvec(self).expect("plain data encodes");
            durable::write_sealed(path, VERSION, &bytes)?;
            self.changed = false;
        }
        Ok(())
    }

    /// Notes how `held` ended, if that is the end of its work and not a server's or a lease's doing.
    pub fn note(&mut self, key: Key, held: &Held) {
        if !held.is_concluded() {
            return;
        }
        let mut told = held.told();
        for report in &mut told {
            if let ReportBody::Exited(exit) = report {
                exit.why = exit.why.chars().take(WHY_CHARS_MAX).collect();
            }
        }
        self.ends.retain(|end| end.key != key);
        self.ends.push_back(End { key, told });
        let mut reports: usize = self.ends.iter().map(|end| end.told.len()).sum();
        while self.ends.len() > ENDS_MAX || reports > REPORTS_MAX {
            reports -= self.ends.pop_front().map_or(0, |end| end.told.len());
        }
        self.changed = true;
    }

    /// What servers were told of it, in the order in which it happened.
    pub fn told(&self, key: &Key) -> Option<&[ReportBody]> {
        self.ends.iter().find(|end| end.key == *key).map(|end| &end.told[..])
    }

    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.ends.iter().map(|end| end.key)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{exit, held};
    use super::*;
    use muster_common::job::Hash;

    fn ended(job: u64, code: i32) -> (Key, Held) {
        let (key, mut held) = held(job, 50, &[0]);
        (held.gone, held.prepared_reported) = (true, true);
        held.exits = (2..4).map(|rank| (rank, exit(rank, code))).collect();
        (key, held)
    }

    #[test]
    fn the_newest_ends_are_kept_and_no_more() {
        let mut ends = Ends::default();
        for job in 1..=ENDS_MAX as u64 + 2 {
            let (key, held) = ended(job, 0);
            ends.note(key, &held);
        }
        assert_eq!(ends.keys().count(), ENDS_MAX);
        assert_eq!(ends.told(&ended(2, 0).0), None);
        let told = ends.told(&ended(3, 0).0).expect("kept");
        assert_eq!(told[0], ReportBody::Prepared);
        assert_eq!(told.len(), 3);
        let (key, mut large) = ended(9_999, 0);
        large.run.launch = Hash([1; 32]);
        large.run.ranks = REPORTS_MAX as u32 - 1;
        large.exits = (0..large.run.ranks).map(|rank| (rank, exit(rank, 0))).collect();
        ends.note(key, &large);
        assert_eq!(ends.keys().collect::<Vec<_>>(), [key], "all that is kept is bounded");
    }

    #[test]
    fn an_end_that_a_server_or_a_lease_brought_about_is_not_the_works_own() {
        let mut ends = Ends::default();
        let changes: [fn(&mut Held); 3] =
            [|held| held.stop_wanted = true, |held| held.lease_expired = true, |held| held.exits.clear()];
        for change in changes {
            let (key, mut held) = ended(1, 143);
            change(&mut held);
            ends.note(key, &held);
            assert_eq!(ends.told(&key), None);
        }
        let (key, mut held) = ended(1, 0);
        held.stop_wanted = true;
        ends.note(key, &held);
        assert!(ends.told(&key).is_some(), "what succeeded was only asked to be released");
    }

    #[test]
    fn another_stores_ends_and_damaged_ones_are_not_believed() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let path = folder.path().join(FILE);
        let mut ends = Ends::open(&path, "one").expect("none yet");
        let (key, held) = ended(1, 3);
        ends.note(key, &held);
        ends.save(&path).expect("saved");
        assert_eq!(Ends::open(&path, "one").expect("readable"), ends);
        assert_eq!(Ends::open(&path, "other").expect("readable").keys().count(), 0);
        let good = std::fs::read(&path).expect("there");
        std::fs::write(&path, &good[..good.len() - 1]).expect("damaged");
        assert_eq!(Ends::open(&path, "one").expect("readable").keys().count(), 0);
    }
}
