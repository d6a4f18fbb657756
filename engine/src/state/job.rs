//! The job table: one record per live job; an array's elements are kept as ranges until they start.

use super::depend::Waits;
use crate::command::Principal;
use muster_common::job::Hash;
use muster_common::{JobId, Name, Time};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    pub id: JobId,
    pub name: Name,
    pub principal: Principal,
    pub key: String,
    pub body_hash: Hash,
    pub submitted_at: Time,
    /// Specs the job has had; gangs point to one of them. The last is current.
    pub revisions: Vec<Revision>,
    pub held: bool,
    /// Nothing more of it is started.
    pub cancelled: bool,
    /// Elements that have never been placed.
    pub unstarted: Ranges,
    /// Gangs with a record (queued again, starting, running or stopping).
    pub gangs_live: u32,
    /// Of those, the ones that hold devices.
    pub gangs_active: u32,
    pub tally: Tally,
    pub retry_of: Option<JobId>,
    /// A gang of it has run.
    pub started: bool,
    /// Other jobs it waits for.
    pub waits: Option<Box<Waits>>,
    /// The median run time of the user's earlier jobs of that name, when it was submitted.
    pub learned_ms: Option<u64>,
    /// When it was last let go, by whoever held it or by the jobs it waited for; kept from feature level 8 on.
    pub released_at: Time,
}

impl JobRecord {
    pub fn revision(&self) -> &Revision {
        self.revisions.last().expect("a job has at least its first revision")
    }

    pub fn is_over(&self) -> bool {
        self.gangs_live == 0 && self.unstarted.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Counted from 1.
    pub number: u32,
    /// Digest of the interned scheduling part.
    pub scheduling: Hash,
    pub launch: Hash,
}

/// How a job's gangs ended so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    pub succeeded: u32,
    pub failed: u32,
    pub cancelled: u32,
    pub timed_out: u32,
}

impl Tally {
    pub fn total(&self) -> u32 {
        self.succeeded + self.failed + self.cancelled + self.timed_out
    }
}

/// A set of ordinals as sorted, disjoint, half-open ranges.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    pub fn upto(count: u32) -> Self {
        if count == 0 { Self::default() } else { Self(vec![(0, count)]) }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn first(&self) -> Option<u32> {
        self.0.first().map(|range| range.0)
    }

    pub fn len(&self) -> u32 {
        self.0.iter().map(|(from, to)| to - from).sum()
    }

    pub fn contains(&self, ordinal: u32) -> bool {
        let at = self.0.partition_point(|range| range.1 <= ordinal);
        self.0.get(at).is_some_and(|range| range.0 <= ordinal)
    }

    /// Takes one ordinal out; false when it was not in.
    pub fn remove(&mut self, ordinal: u32) -> bool {
        let at = self.0.partition_point(|range| range.1 <= ordinal);
        let Some(&(from, to)) = self.0.get(at).filter(|range| range.0 <= ordinal) else {
            return false;
        };
        let pieces = [(from, ordinal), (ordinal + 1, to)];
        self.0.splice(at..=at, pieces.into_iter().filter(|(from, to)| from < to));
        true
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|&(from, to)| from..to)
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// What stays of a job for repeated keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    pub job: JobId,
    pub body_hash: Hash,
    pub at: Time,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_split_where_an_ordinal_is_taken() {
        let mut ranges = Ranges::upto(5);
        assert!(ranges.remove(2) && !ranges.remove(2) && ranges.remove(0) && ranges.remove(4));
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [1, 3]);
        assert_eq!((ranges.len(), ranges.first(), ranges.contains(2)), (2, Some(1), false));
    }
}
