//! The job a person means: a reference as in `muster_proto::refs`, or `-` for the job last submitted from this shell.

use crate::error::CliError;
use muster_proto::client::JobRef;
use muster_proto::convert::error::ErrorCode;
pub use muster_proto::refs::show;
use std::fs;
use std::path::PathBuf;

/// Reads a reference; `last` answers for `-`.
pub fn parse(text: &str, last: impl FnOnce() -> Option<u64>) -> Result<JobRef, CliError> {
    if text != "-" {
        return Ok(muster_proto::refs::parse(text)?);
    }
    let id = last().ok_or_else(|| {
        CliError::new(ErrorCode::JobNotFound, "no job was submitted from this shell yet")
            .hint("name it by its number or its name; `muster ps` lists them")
    })?;
    Ok(JobRef { id, ..JobRef::default() })
}

/// Where the last job of this shell is noted: under the process that started us, and, because that
/// may be a wrapper such as `timeout`, under the terminal session too. A process is known by its
/// number and the moment it began, so that another one with the same number is not taken for it.
pub struct LastJob {
    /// File and the moment written into it, the more exact one first.
    notes: Vec<(PathBuf, String)>,
}

impl LastJob {
    pub fn of_this_shell(variable: impl Fn(&str) -> Option<String>) -> Self {
        let state = variable("XDG_STATE_HOME")
            .map(PathBuf::from)
            .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".local/state")))
            .filter(|folder| folder.is_absolute());
        let Some(folder) = state.map(|state| state.join("muster").join("last")) else {
            return Self { notes: Vec::new() };
        };
        let parent = nix::unistd::getppid().as_raw();
        let session = nix::unistd::getsid(None).map_or(parent, |session| session.as_raw());
        let note = |pid: i32| (folder.join(pid.to_string()), began(pid));
        Self { notes: vec![note(parent), note(session)] }
    }

    pub fn get(&self) -> Option<u64> {
        self.notes.iter().find_map(|(file, moment)| {
            let text = fs::read_to_string(file).ok()?;
            let (noted, id) = text.trim().split_once(' ')?;
            (noted == moment).then(|| id.parse().ok()).flatten()
        })
    }

    /// A note that cannot be written costs only the convenience.
    pub fn set(&self, id: u64) {
        for (file, moment) in &self.notes {
            if let Some(folder) = file.parent() {
                let _ = fs::create_dir_all(folder);
            }
            let _ = fs::write(file, format!("{moment} {id}\n"));
        }
    }
}

/// When a process began, in the kernel's ticks; `0` when it cannot be told.
fn began(pid: i32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Field 22 counts from the process's name, which may contain spaces, in parentheses.
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(19)).unwrap_or("0").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dash_is_the_job_noted_last() {
        assert_eq!(parse("-", || Some(12)).expect("noted"), JobRef { id: 12, ..JobRef::default() });
        assert_eq!(parse("-", || None).expect_err("nothing noted").code(), ErrorCode::JobNotFound);
        assert_eq!(parse("7", || Some(12)).expect("a number"), JobRef { id: 7, ..JobRef::default() });
    }

    #[test]
    fn the_last_job_is_remembered_for_this_shell_only() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let path = folder.path().display().to_string();
        let place = |name: &str| (name == "XDG_STATE_HOME").then(|| path.clone());
        let last = LastJob::of_this_shell(place);
        assert_eq!(last.get(), None);
        last.set(42);
        assert_eq!(LastJob::of_this_shell(place).get(), Some(42));
        let mut other = LastJob::of_this_shell(place);
        other.notes.iter_mut().for_each(|(_, moment)| moment.push('1'));
        assert_eq!(other.get(), None);
    }
}
