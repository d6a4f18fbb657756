//! Checkpoints that ranks say are complete: they touch a file, whose name is in their environment.

use muster_runtime::aside;
use muster_runtime::clock::Clock;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;

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

/// By the clock of the file system: seconds, and nanoseconds beside them.
type Touched = (i64, i64);

/// A look that may take long: the folder may be on a file server that does not answer.
type Look = Pin<Box<dyn Future<Output = Option<Touched>> + Send>>;

/// What is known of one allocation's file.
pub struct Checkpoints {
    file: PathBuf,
    /// When it was last touched, as far as that was told; `None` before the first look, if an earlier agent may have told.
    told: Option<Option<Touched>>,
    look_at_ms: u64,
    looking: Option<Look>,
}

impl Checkpoints {
    /// `adopted`: whatever the file says already was said to an agent before this one.
    pub fn of(output: &Path, adopted: bool) -> Self {
        let told = if adopted { None } else { Some(None) };
        Self { file: checkpoint_file(output), told, look_at_ms: 0, looking: None }
    }

    /// Looks when it is time to. Has a checkpoint become complete that is to be told now? May be dropped and asked again:
    /// a look that has begun goes on.
    pub async fn next(&mut self, clock: &dyn Clock) -> bool {
        if self.looking.is_none() {
            clock.sleep_until_ms(self.look_at_ms).await;
        }
        let file = self.file.clone();
        let looking = self.looking.get_or_insert_with(|| {
            // The file itself: a link could lead where nobody answers.
            let touched = move || std::fs::symlink_metadata(file).ok().map(|meta| (meta.mtime(), meta.mtime_nsec()));
            Box::pin(async move { aside::run(touched).await.ok().flatten() })
        });
        let touched = looking.await;
        self.looking = None;
        let is_new = touched.is_some() && self.told.is_some_and(|told| told != touched);
        if touched.is_some() || self.told.is_none() {
            self.told = Some(touched);
        }
        self.look_at_ms = clock.boottime_ms() + if is_new { TELL_EVERY_MS } else { LOOK_EVERY_MS };
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_runtime::clock::SystemClock;

    fn touch(file: &Path, at_s: u64) {
        let file = std::fs::File::create(file).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(at_s)).unwrap();
    }

    /// The next look, without the wait before it.
    async fn look(checkpoints: &mut Checkpoints) -> bool {
        checkpoints.look_at_ms = 0;
        checkpoints.next(&SystemClock).await
    }

    #[tokio::test]
    async fn each_touch_is_told_once_and_not_more_often_than_a_log_can_bear() {
        let dir = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::of(dir.path(), false);
        assert!(!look(&mut checkpoints).await);
        touch(&checkpoint_file(dir.path()), 1);
        assert!(look(&mut checkpoints).await);
        assert!(checkpoints.look_at_ms + LOOK_EVERY_MS > SystemClock.boottime_ms() + TELL_EVERY_MS);
        assert!(!look(&mut checkpoints).await);
        touch(&checkpoint_file(dir.path()), 2);
        assert!(look(&mut checkpoints).await);
    }

    #[tokio::test]
    async fn the_next_agent_tells_nothing_that_was_told() {
        let dir = tempfile::tempdir().unwrap();
        touch(&checkpoint_file(dir.path()), 1);
        let mut checkpoints = Checkpoints::of(dir.path(), true);
        assert!(!look(&mut checkpoints).await);
        touch(&checkpoint_file(dir.path()), 2);
        assert!(look(&mut checkpoints).await);
    }

    /// Orders come between: they must not make it begin anew, nor wait for it.
    #[tokio::test]
    async fn a_look_that_was_left_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        touch(&checkpoint_file(dir.path()), 1);
        let mut checkpoints = Checkpoints::of(dir.path(), false);
        checkpoints.looking = Some(Box::pin(std::future::pending()));
        let left = tokio::time::timeout(std::time::Duration::from_millis(10), checkpoints.next(&SystemClock)).await;
        assert!(left.is_err());
        checkpoints.looking = Some(Box::pin(async { Some((5, 0)) }));
        assert!(checkpoints.next(&SystemClock).await);
    }
}
