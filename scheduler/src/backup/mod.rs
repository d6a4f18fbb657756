//! A backup: State at one log index and the history up to it, in one file that proves itself whole. Any server writes
//! one; a restore makes the data folders of a new cluster from it, without a server.
//!
//! Layout: `MSTRBKUP`, version (u16), then frames: one head (JSON); the state, compressed, in parts; pages of history,
//! compressed; from version 2 on, the parts of the decision log, each behind its kind; one end with the number of history
//! records (u64) and the SHA-256 of everything before the frame.

mod error;
mod read;
mod restore;
#[cfg(test)]
mod tests;
mod write;

use crate::framed;
use crate::history::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use error::BackupError;
pub use read::{Inspected, decisions, events, inspect};
pub use restore::{Restored, SKIPPED_INDEXES, restore};
pub use write::{Decisions, Take, decision_files, write};

const MAGIC: &framed::Magic = b"MSTRBKUP";
/// Without the decision log, and with it.
const VERSION_PLAIN: u16 = 1;
const VERSION_DECISIONS: u16 = 2;
const HEAD: u8 = 1;
const STATE: u8 = 2;
const HISTORY: u8 = 3;
const DECISIONS: u8 = 5;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub cluster_id: String,
    /// The last entry whose effects are inside.
    pub index: u64,
    pub term: u64,
    pub generation: u32,
    pub feature_level: u32,
    /// Of State, as `muster cluster status` shows it.
    pub state_hash: String,
    pub state_bytes: u64,
    /// Records of history below this index were removed before.
    pub history_from: u64,
    /// The servers, as the one that wrote it knew them.
    pub members: Vec<Member>,
    /// Unix milliseconds, by the wall clock of the server that wrote it.
    pub made_at_ms: u64,
    pub made_by: String,
    /// Of the program that wrote it.
    pub version: String,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub id: u64,
    pub name: String,
    pub address: String,
}

/// Records of history: all there are from where the page before it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Page {
    through: u64,
    records: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    index: u64,
    ordinal: u32,
    kind: u8,
    job: Option<u64>,
    bytes: Vec<u8>,
}

impl From<Row> for Record {
    fn from(row: Row) -> Self {
        Self { ordinal: row.ordinal, kind: row.kind, job: row.job, bytes: row.bytes.into() }
    }
}

/// The servers of a restored cluster, by id.
pub type Servers = BTreeMap<u64, Member>;
