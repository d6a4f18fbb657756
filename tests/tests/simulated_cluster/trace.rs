//! Everything that happens in a world, hashed with its moment: equal hashes mean equal runs.

use crate::clock::TrueTime;
use sha2::{Digest, Sha256};
use std::fmt::Display;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

/// Names a file that gets every line of the trace, for finding where two runs part.
pub const TRACE_FILE: &str = "MUSTER_SIM_TRACE";

#[derive(Clone)]
pub struct Trace {
    time: TrueTime,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    hash: Sha256,
    lines: u64,
    file: Option<std::io::BufWriter<std::fs::File>>,
}

impl Trace {
    pub fn new(time: TrueTime) -> Self {
        let file = std::env::var_os(TRACE_FILE).and_then(|path| std::fs::File::create(path).ok());
        let inner = Inner { hash: Sha256::new(), lines: 0, file: file.map(std::io::BufWriter::new) };
        Self { time, inner: Arc::new(Mutex::new(inner)) }
    }

    pub fn note(&self, who: &str, what: impl Display) {
        let line = format!("{:>8} {who}: {what}\n", self.time.now_ms());
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.hash.update(line.as_bytes());
        inner.lines += 1;
        if let Some(file) = &mut inner.file {
            file.write_all(line.as_bytes()).expect("the trace can be written");
        }
    }

    /// (lines, hash) so far.
    pub fn sum(&self) -> (u64, String) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &mut inner.file {
            file.flush().expect("the trace can be written");
        }
        let hash = inner.hash.clone().finalize();
        (inner.lines, hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }
}
