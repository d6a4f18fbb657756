//! Checkpoints that ranks say are complete: they touch a file, whose name is in their environment.

use muster_runtime::aside;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// In an attempt's own folder on each node.
const FILE: &str = "checkpoint-complete";
/// Between two looks at the file.
const LOOK_EVERY_MS: u64 = 1_000;
/// Between two reports of one allocation: each is an entry in the servers' log.
const TELL_EVERY_MS: u64 = 10_000;

/// Where ranks with this output folder say that a checkpoint is complete.
pub fn checkpoint_file(output: &Path) -> PathBuf {
    output.join(FILE)
}

/// Seconds, and nanoseconds beside them.
type Touched = (i64, i64);

/// What is known of one allocation's file.
#[derive(Debug)]
pub struct Checkpoints {
    file: PathBuf,
    /// When it was last touched by the clock of its file system, as far as that was told.
    told: Option<Touched>,
    look_at_ms: u64,
}

impl Checkpoints {
    /// Whatever the file says already was said to an agent before this one.
    pub async fn of(output: &Path) -> Self {
        let mut checkpoints = Self { file: checkpoint_file(output), told: None, look_at_ms: 0 };
        checkpoints.told = checkpoints.touched().await;
        checkpoints
    }

    /// When to look next, boot time in ms.
    pub fn look_at_ms(&self) -> u64 {
        self.look_at_ms
    }

    /// Has a checkpoint become complete that is to be told now?
    pub async fn is_new(&mut self, now_ms: u64) -> bool {
        let touched = self.touched().await;
        let is_new = touched.is_some() && touched != self.told;
        self.look_at_ms = now_ms + if is_new { TELL_EVERY_MS } else { LOOK_EVERY_MS };
        if is_new {
            self.told = touched;
        }
        is_new
    }

    /// The folder may be on a file server that does not answer.
    async fn touched(&self) -> Option<Touched> {
        let file = self.file.clone();
        let touched = move || std::fs::metadata(file).ok().map(|meta| (meta.mtime(), meta.mtime_nsec()));
        aside::run(touched).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(file: &Path, at_s: u64) {
        let file = std::fs::File::create(file).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(at_s)).unwrap();
    }

    #[tokio::test]
    async fn each_touch_is_told_once_and_not_more_often_than_a_log_can_bear() {
        let dir = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::of(dir.path()).await;
        assert!(!checkpoints.is_new(0).await);
        assert_eq!(checkpoints.look_at_ms(), LOOK_EVERY_MS);
        touch(&checkpoint_file(dir.path()), 1);
        assert!(checkpoints.is_new(1_000).await);
        assert_eq!(checkpoints.look_at_ms(), 1_000 + TELL_EVERY_MS);
        assert!(!checkpoints.is_new(11_000).await);
        touch(&checkpoint_file(dir.path()), 2);
        assert!(checkpoints.is_new(12_000).await);
    }

    #[tokio::test]
    async fn the_next_agent_tells_nothing_that_was_told() {
        let dir = tempfile::tempdir().unwrap();
        touch(&checkpoint_file(dir.path()), 1);
        let mut checkpoints = Checkpoints::of(dir.path()).await;
        assert!(!checkpoints.is_new(0).await);
        touch(&checkpoint_file(dir.path()), 2);
        assert!(checkpoints.is_new(1_000).await);
    }
}
