//! The job file of a job in the user's editor.

use crate::context::Context;
use crate::error::CliError;
use crate::jobfile::{self, Loaded};
use muster_common::job::file::JobFile;
use muster_proto::client::Job;
use muster_proto::convert::error::ErrorCode;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::Command;
use tempfile::NamedTempFile;

const EDITOR: &str = "vi";

/// # Errors
/// [`ErrorCode::Usage`] where there is nobody to edit anything.
pub fn check_terminal() -> Result<(), CliError> {
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        return Ok(());
    }
    let message = "nothing to change was named, and without a terminal no editor is opened";
    Err(CliError::new(ErrorCode::Usage, message)
        .hint("name it: muster edit JOB --priority high, --time-limit 4h, --set gang.nodes=8, or --file FILE"))
}

/// What came back from the editor.
#[derive(Debug)]
pub struct Edited {
    file: NamedTempFile,
    text: String,
}

impl Edited {
    pub fn load(&self) -> Result<Loaded, CliError> {
        jobfile::parse_whole(&self.file.path().display().to_string(), self.text.clone())
    }

    /// Somebody's work is not thrown away for a mistake in it.
    pub fn keep(self, job: u64, error: CliError) -> CliError {
        let Ok((_, path)) = self.file.keep() else { return error };
        let hint = format!("your edit is kept; correct it and run: muster edit {job} --file {}", path.display());
        match error.info().hint.clone() {
            Some(first) => error.hint(format!("{first}\n{hint}")),
            None => error.hint(hint),
        }
    }
}

/// Opens the job's file. `None` when it was left as it is, or emptied.
pub fn edit(context: &Context, shown: &Job) -> Result<Option<Edited>, CliError> {
    let before = text(shown)?;
    let mut file = tempfile::Builder::new().prefix(&format!("muster-{}-", shown.id)).suffix(".toml").tempfile()?;
    file.write_all(before.as_bytes())?;
    file.flush()?;
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|name| context.variable(name).filter(|value| !value.is_empty()));
    open(editor.as_deref().unwrap_or(EDITOR), file.path())?;
    let text = std::fs::read_to_string(file.path())?;
    let says = |text: &str| text.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#'));
    if text == before || !says(&text) {
        return Ok(None);
    }
    Ok(Some(Edited { file, text }))
}

/// An editor may come with flags of its own, as in `EDITOR="code --wait"`.
fn open(editor: &str, path: &Path) -> Result<(), CliError> {
    let status = Command::new("/bin/sh").arg("-c").arg(format!("{editor} \"$1\"")).arg(editor).arg(path).status()?;
    if status.success() {
        return Ok(());
    }
    Err(CliError::new(
        ErrorCode::FileUnusable,
        format!("the editor `{editor}` ended with {status}; nothing was changed"),
    )
    .hint("set EDITOR to an editor that is installed"))
}

fn text(shown: &Job) -> Result<String, CliError> {
    let file: JobFile =
        serde_json::from_str(&shown.file_json).map_err(|error| super::unreadable(&error.to_string()))?;
    let toml = toml::to_string_pretty(&file).map_err(|error| super::unreadable(&error.to_string()))?;
    let head = format!(
        "# Job {} at revision {}. Save and leave to change it; leave it as it is, or empty it, to change nothing.\n\
         # What waits takes every change. What runs takes name, priority, limits, retries, checkpoint and at_once.\n\n",
        shown.id, shown.revision
    );
    Ok(head + &without_empty_tables(&toml))
}

/// A heading with nothing under it says nothing.
fn without_empty_tables(toml: &str) -> String {
    let lines: Vec<&str> = toml.lines().collect();
    let mut kept = String::new();
    for (at, line) in lines.iter().enumerate() {
        let next = lines[at + 1..].iter().find(|line| !line.trim().is_empty());
        let heading = |line: &str| line.starts_with('[') && line.ends_with(']');
        if heading(line)
            && next.is_none_or(|next| heading(next) && !next.starts_with(&format!("{}.", &line[..line.len() - 1])))
        {
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept.trim_end().replace("\n\n\n", "\n\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Job {
        let file =
            r#"{"name":"train","queue":"research","gang":{"nodes":2,"run":"a\nb\n","topology":{"within":"leaf"}}}"#;
        Job { id: 4711, revision: 2, file_json: file.into(), ..Job::default() }
    }

    #[test]
    fn the_editor_is_given_a_job_file_that_reads_back() {
        let text = text(&shown()).expect("a file");
        insta::assert_snapshot!("edit_file", text);
        let loaded = jobfile::parse_whole("edited.toml", text).expect("sound");
        let back: JobFile = serde_json::from_str(&loaded.spec_json).expect("a job file");
        assert_eq!(back, serde_json::from_str::<JobFile>(&shown().file_json).expect("a job file"));
    }

    #[test]
    fn an_editor_may_have_flags_and_a_failing_one_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a file.toml");
        std::fs::write(&path, "name = 'a'\n").expect("written");
        open("sed -i s/a/b/2", &path).expect("sed is an editor");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "name = 'b'\n");
        assert!(open("false", &path).expect_err("it failed").text(false).contains("`false`"));
    }
}
