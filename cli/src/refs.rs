//! Job references as people write them: `4711`, `4711_3`, `4711@2`, a name, or `-` for the job last
//! submitted from this shell.

use crate::error::CliError;
use muster_proto::client::JobRef;
use muster_proto::convert::error::ErrorCode;
use std::fs;
use std::path::PathBuf;

const EXAMPLES: &str = "write a job's number (4711), an element (4711_3), an attempt (4711@2), its name, or `-`";

/// Reads a reference; `last` answers for `-`.
pub fn parse(text: &str, last: impl FnOnce() -> Option<u64>) -> Result<JobRef, CliError> {
    let wrong = || CliError::new(ErrorCode::Usage, format!("`{text}` names no job")).hint(EXAMPLES);
    if text == "-" {
        let id = last().ok_or_else(|| {
            CliError::new(ErrorCode::JobNotFound, "no job was submitted from this shell yet").hint(EXAMPLES)
        })?;
        return Ok(JobRef { id, ..JobRef::default() });
    }
    let (job, attempt) = match text.split_once('@') {
        Some((job, attempt)) => (job, Some(attempt.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?)),
        None => (text, None),
    };
    if job.starts_with(|c: char| c.is_ascii_digit()) {
        let (id, ordinal) = match job.split_once('_') {
            Some((id, ordinal)) => (id, Some(ordinal.parse().map_err(|_| wrong())?)),
            None => (job, None),
        };
        if let Ok(id) = id.parse() {
            return if id == 0 { Err(wrong()) } else { Ok(JobRef { id, name: String::new(), ordinal, attempt }) };
        }
    }
    let name = muster_common::Name::new(job).map_err(|_| wrong())?;
    Ok(JobRef { id: 0, name: name.to_string(), ordinal: None, attempt })
}

/// As a person would write it.
pub fn show(job: &JobRef) -> String {
    let mut text = if job.id == 0 { job.name.clone() } else { job.id.to_string() };
    if let Some(ordinal) = job.ordinal {
        text.push_str(&format!("_{ordinal}"));
    }
    if let Some(attempt) = job.attempt {
        text.push_str(&format!("@{attempt}"));
    }
    text
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

    fn job(id: u64, name: &str, ordinal: Option<u32>, attempt: Option<u32>) -> JobRef {
        JobRef { id, name: name.into(), ordinal, attempt }
    }

    #[test]
    fn every_documented_form_is_read_and_shown_alike() {
        for (text, expected) in [
            ("4711", job(4711, "", None, None)),
            ("4711_3", job(4711, "", Some(3), None)),
            ("4711@2", job(4711, "", None, Some(2))),
            ("4711_3@2", job(4711, "", Some(3), Some(2))),
            ("llama-sft", job(0, "llama-sft", None, None)),
            ("7b-sft", job(0, "7b-sft", None, None)),
            ("llama_3@1", job(0, "llama_3", None, Some(1))),
        ] {
            let read = parse(text, || None).expect(text);
            assert_eq!(read, expected);
            assert_eq!(show(&read), text);
        }
        assert_eq!(parse("-", || Some(12)).expect("noted"), job(12, "", None, None));
    }

    #[test]
    fn what_names_no_job_is_refused() {
        for text in ["", "0", "a b", "4711@0", "4711@x", "4711_x", "../etc", "-x"] {
            assert_eq!(parse(text, || None).expect_err(text).code(), ErrorCode::Usage, "{text:?}");
        }
        assert_eq!(parse("-", || None).expect_err("nothing noted").code(), ErrorCode::JobNotFound);
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
