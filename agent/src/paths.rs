//! Where an agent keeps what.

use crate::assignment::Key;
use crate::config::Config;
use muster_common::{AttemptNo, Token};
use muster_runtime::durable::{self, DurableError};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// In `state_dir`: every `runtime_dir` that may still hold allocations, one a line, today's last.
const RUNTIME_DIRS_FILE: &str = "runtime-dirs";
const ALLOCATIONS: &str = "allocations";
const RUNTIME_DIRS_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Clone)]
pub struct Paths {
    pub state_dir: PathBuf,
    runtime_dir: PathBuf,
    /// Where allocations were made under other settings.
    former: Vec<PathBuf>,
    log_root: PathBuf,
    output_root: PathBuf,
    /// Tells this agent's processes from those of another agent on the same machine, even when its
    /// store is lost.
    mark: String,
}

impl Paths {
    pub fn of(config: &Config) -> Self {
        let place = Sha256::digest(config.state_dir.as_os_str().as_encoded_bytes());
        let place: String = place.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self {
            state_dir: config.state_dir.clone(),
            runtime_dir: config.runtime_dir(),
            former: vec![config.state_dir.clone()],
            log_root: config.log_root(),
            output_root: config.output_root(),
            mark: format!("{}@{place}/", config.name),
        }
    }

    /// Those of an agent that starts: they know each earlier `runtime_dir` in which a folder is left, and the next
    /// agent will know this one, so that the setting may change while ranks run.
    ///
    /// Errors: the list in `state_dir` cannot be read or written.
    pub fn open(config: &Config) -> Result<Self, DurableError> {
        let mut paths = Self::of(config);
        durable::create_folder(&paths.state_dir)?;
        let file = paths.state_dir.join(RUNTIME_DIRS_FILE);
        let known = match durable::read_limited(&file, RUNTIME_DIRS_BYTES_MAX) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).lines().map(PathBuf::from).collect(),
            Err(error) if error.is_missing() => Vec::new(),
            Err(error) => return Err(error),
        };
        let others = |dir: &&PathBuf| **dir != paths.runtime_dir && **dir != paths.state_dir;
        let used: Vec<PathBuf> = known.iter().filter(others).filter(|dir| has_allocations(dir)).cloned().collect();
        let listed: Vec<PathBuf> = used.iter().chain([&paths.runtime_dir]).cloned().collect();
        if listed != known {
            let lines: String = listed.iter().map(|dir| format!("{}\n", dir.display())).collect();
            durable::write_atomic(&file, lines.as_bytes())?;
        }
        paths.former.extend(used);
        Ok(paths)
    }

    /// The shim's folder: where it is, or where it is to be made.
    pub fn allocation(&self, key: &Key) -> PathBuf {
        let at = |dir: &PathBuf| dir.join(ALLOCATIONS).join(key.to_string());
        let mut places = [&self.runtime_dir].into_iter().chain(&self.former).map(at);
        places.find(|place| place.exists()).unwrap_or_else(|| at(&self.runtime_dir))
    }

    pub fn launches(&self) -> PathBuf {
        self.state_dir.join("launches")
    }

    pub fn logs(&self, key: &Key) -> PathBuf {
        self.log_root.join(key.gang.to_string()).join(attempt_folder(key))
    }

    pub fn log_root(&self) -> &std::path::Path {
        &self.log_root
    }

    pub fn output(&self, key: &Key) -> PathBuf {
        self.output_root.join(key.gang.to_string()).join(attempt_folder(key))
    }

    /// Start of the mark of every process below this agent's shims.
    pub fn mark_prefix(&self) -> &str {
        &self.mark
    }

    /// Ends in a stroke, so that no mark begins another.
    pub fn mark(&self, key: &Key) -> String {
        format!("{}{key}/", self.mark)
    }
}

fn has_allocations(dir: &Path) -> bool {
    dir.join(ALLOCATIONS).read_dir().is_ok_and(|mut folders| folders.next().is_some())
}

/// The token as well as the number: servers that are restored give a number again that has been here already.
fn attempt_folder(key: &Key) -> String {
    format!("attempt-{}-{}", key.attempt, key.token)
}

/// The attempt and the token that [`attempt_folder`] wrote.
pub fn read_attempt_folder(name: &str) -> Option<(AttemptNo, Token)> {
    let (attempt, token) = name.strip_prefix("attempt-")?.split_once('-')?;
    let (generation, index) = token.split_once('.')?;
    let token = Token { generation: generation.parse().ok()?, index: index.parse().ok()? };
    Some((AttemptNo(attempt.parse().ok()?), token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::{GangId, JobId, Name};

    #[test]
    fn no_allocations_mark_begins_anothers() {
        let at = |dir: &str| Paths::of(&Config::new(Vec::new(), Name::literal("n"), dir.into()));
        let key = |index| {
            let token = Token { generation: 1, index };
            Key { gang: GangId::new(JobId(1), 0), attempt: AttemptNo(1), token }
        };
        let paths = at("/a");
        assert!(!paths.mark(&key(50)).starts_with(&paths.mark(&key(5))));
        assert!(paths.mark(&key(5)).starts_with(paths.mark_prefix()));
        assert!(!at("/b").mark(&key(5)).starts_with(paths.mark_prefix()), "another agent's processes are ours");
    }

    #[test]
    fn rule_13_each_attempt_has_its_own_output_and_log_folder() {
        let config = Config::new(vec!["a:1".to_owned()], Name::literal("n"), PathBuf::from("/state"));
        let paths = Paths::of(&config);
        let key = |ordinal, attempt, generation| {
            let token = Token { generation, index: 50 };
            Key { gang: GangId::new(JobId(7), ordinal), attempt: AttemptNo(attempt), token }
        };
        let first = key(0, 1, 1);
        for other in [key(0, 2, 1), key(1, 1, 1), key(0, 1, 2)] {
            assert_ne!(paths.output(&first), paths.output(&other), "{other}");
            assert_ne!(paths.logs(&first), paths.logs(&other), "{other}");
        }
    }

    #[test]
    fn an_attempts_folder_says_whose_it_is() {
        let token = Token { generation: 3, index: 100_000_042 };
        let key = Key { gang: GangId::new(JobId(7), 0), attempt: AttemptNo(12), token };
        assert_eq!(read_attempt_folder(&attempt_folder(&key)), Some((key.attempt, token)));
        for nonsense in ["attempt-1", "attempt-1-", "attempt-1-3", "attempt--3.4", "1-3.4", "attempt-1-3.4x"] {
            assert_eq!(read_attempt_folder(nonsense), None, "{nonsense}");
        }
    }
}
