//! The log engines that can be put under the recorder.

use super::planted::{Flaw, Planted};
use anyhow::{Result, bail};
use muster_scheduler::consensus::{LogEngine, LogPos, OnSync, Record, WalEngine, WalLimits};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The one that servers use.
    Wal,
    Planted(Flaw),
}

const NAMES: [(&str, Engine); 6] = [
    ("wal", Engine::Wal),
    ("planted-none", Engine::Planted(Flaw::None)),
    ("planted-no-sync", Engine::Planted(Flaw::NoSync)),
    ("planted-vote-unsynced", Engine::Planted(Flaw::VoteUnsynced)),
    ("planted-rename-without-folder-sync", Engine::Planted(Flaw::RenameWithoutFolderSync)),
    ("planted-retry-after-failed-sync", Engine::Planted(Flaw::RetryAfterFailedSync)),
];

impl Engine {
    /// Opens a log. The error is a refusal.
    pub fn open(self, dir: &Path, file_bytes: u64) -> Result<Box<dyn LogEngine>> {
        Ok(match self {
            Engine::Wal => {
                let limits = WalLimits { segment_bytes: file_bytes, ..WalLimits::default() };
                Box::new(WalEngine::open(dir, limits, OnSync::ignored())?)
            }
            Engine::Planted(flaw) => Box::new(Planted::open(dir, flaw)?),
        })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(_, engine)| engine == self).expect("every engine has a name").0)
    }
}

impl FromStr for Engine {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match NAMES.iter().find(|(name, _)| *name == text) {
            Some((_, engine)) => Ok(*engine),
            None => {
                let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                bail!("there is no engine `{text}`; there are {}", names.join(", "))
            }
        }
    }
}

/// Everything a log holds, read in several steps as a server does.
pub fn all_entries(engine: &dyn LogEngine) -> std::io::Result<Vec<Record>> {
    const STEP_BYTES: usize = 1 << 20;
    let state = engine.state();
    let first = state.purged.map_or(0, |LogPos { index, .. }| index + 1);
    let end = state.last.map_or(0, |LogPos { index, .. }| index + 1);
    let mut all: Vec<Record> = Vec::new();
    let mut next = first;
    while next < end {
        let part = engine.read(next, end, STEP_BYTES)?;
        let Some(last) = part.last() else { break };
        next = last.pos.index + 1;
        all.extend(part);
    }
    Ok(all)
}
