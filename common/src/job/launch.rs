//! What only agents need of a job: the command and its surroundings.

use crate::Name;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

/// Kept once per content, counted, by [`Hash`]; never in the interned scheduling part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    pub name: Name,
    /// What every rank runs whose group says nothing else.
    pub run: Run,
    pub env: BTreeMap<String, String>,
    /// By number, when there are several groups; empty when there is one.
    pub groups: Vec<GroupLaunch>,
    /// Absolute path on the nodes; `None` = the attempt's own directory.
    pub workdir: Option<String>,
    pub logs: LogLimits,
    /// One map per array element with the variables of its grid point, line or JSON object.
    pub elements: Vec<BTreeMap<String, String>>,
}

impl Launch {
    /// What ranks of a group run.
    pub fn run_of(&self, group: usize) -> &Run {
        self.groups.get(group).and_then(|group| group.run.as_ref()).unwrap_or(&self.run)
    }
}

/// What differs for one group of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLaunch {
    pub name: Name,
    pub run: Option<Run>,
    /// Over those of the job.
    pub env: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// Given to `/bin/sh -c`.
    Script(String),
    Argv(Vec<String>),
}

/// Bounds on what one rank may write to each of its two streams before the oldest part goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    pub file_bytes: u64,
    pub files: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { file_bytes: 10 * 1024 * 1024, files: 10 }
    }
}

/// SHA-256 of a content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// By which nearly all differ.
    fn head(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// As bytes compare, mostly by one number: tables are searched by these.
impl Ord for Hash {
    fn cmp(&self, other: &Self) -> Ordering {
        self.head().cmp(&other.head()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Hash {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
