//! Why a run was refused or broken off.

use crate::trace::BadRow;
use std::path::PathBuf;
use thiserror::Error;

/// Each names the file, what is wrong with it and what to do about it.
#[derive(Debug, Error)]
pub enum SimError {
    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}: {source}", path = path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{path} is larger than {limit_bytes} bytes once unpacked; cut it into windows", path = path.display())]
    TooLarge { path: PathBuf, limit_bytes: u64 },
    #[error("{path}: {why}", path = path.display())]
    Trace { path: PathBuf, why: String },
    #[error("{}", bad_rows(path, *count, first))]
    BadRows { path: PathBuf, count: u64, first: Vec<BadRow> },
    #[error("{path}: {why}", path = path.display())]
    World { path: PathBuf, why: String },
    #[error("{path}: {why}", path = path.display())]
    Policy { path: PathBuf, why: String },
    #[error("the window starts at job {start}, but the trace has {jobs} jobs, counted from 0")]
    Window { start: usize, jobs: usize },
    #[error("a window of 0 jobs has nothing to play; ask for at least 1")]
    EmptyWindow,
    #[error(
        "the output folder {path} is not empty; name another one or remove it first",
        path = path.display()
    )]
    OutputNotEmpty { path: PathBuf },
    #[error("{path} is there already; name another file or remove it first", path = path.display())]
    FileExists { path: PathBuf },
    #[error("nothing was generated: {0}")]
    Generate(String),
    #[error("{0}")]
    Arguments(String),
    #[error("{path} is not a table of a run: {why}", path = path.display())]
    Report { path: PathBuf, why: String },
    /// The engine refused what the simulator proposed, or an invariant broke: a defect of ours.
    #[error("the run was broken off: {0}")]
    Play(String),
}

impl SimError {
    /// Is it the input that has to change, rather than the machine or the program?
    pub fn is_input(&self) -> bool {
        !matches!(self, SimError::Write { .. } | SimError::Play(_))
    }
}

fn bad_rows(path: &std::path::Path, count: u64, first: &[BadRow]) -> String {
    let mut text = format!("{}: {count} bad rows", path.display());
    for row in first {
        text.push_str(&format!("\n  line {}: {}", row.line, row.why));
    }
    if count > first.len() as u64 {
        text.push_str("\n  ...");
    }
    text.push_str("\ncorrect them, or leave them out with `--bad-rows skip`");
    text
}
