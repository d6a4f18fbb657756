//! `muster cluster backup`: the whole cluster in one file.

use crate::client::status_error;
use crate::context::Context;
use crate::error::CliError;
use crate::output::human;
use crate::output::table::cell;
use clap::{Args, ValueHint};
use muster_proto::client::BackupRequest;
use muster_proto::convert::error::ErrorCode;
use muster_proto::document::rfc3339;
use muster_scheduler::backup::{BackupError, Head, Inspected, inspect};
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SAY_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct BackupArgs {
    /// File to write; it must not exist
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Read a backup that is there and check every byte of it, instead of making one
    #[arg(long)]
    pub check: bool,
    /// Leave out the decision log, with which decisions of the recent past can be made again
    #[arg(long, conflicts_with = "check")]
    pub no_decisions: bool,
}

pub async fn run(context: &Context, args: BackupArgs) -> Result<u8, CliError> {
    if !args.check {
        fetch(context, &args.file, !args.no_decisions).await?;
    }
    // What was written is read back: a backup that cannot be restored is none.
    let read = inspect(&args.file).map_err(refused)?;
    context.printer.answer(|| document(&args.file, &read), || render(&args.file, &read))?;
    Ok(0)
}

pub fn refused(error: BackupError) -> CliError {
    let code = match &error {
        BackupError::Io { cause, .. } => match cause.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::FileNotFound,
            std::io::ErrorKind::PermissionDenied => ErrorCode::FileDenied,
            _ => ErrorCode::FileUnusable,
        },
        BackupError::NotEmpty { .. } => ErrorCode::Conflict,
        BackupError::Version { .. } => ErrorCode::VersionMismatch,
        _ => ErrorCode::FileUnusable,
    };
    CliError::new(code, error.to_string()).hint(error.hint())
}

/// Has the servers write a backup into a file that is not there yet, and reads it back.
pub async fn fetch(context: &Context, file: &Path, decisions: bool) -> Result<(), CliError> {
    if file.exists() {
        return Err(CliError::new(ErrorCode::Conflict, format!("{} is there already", file.display()))
            .hint("give a name that no file has: a backup never replaces another"));
    }
    let client = context.client()?;
    let aside = Aside::create(file)?;
    let mut chunks = client.call(async |mut api| api.backup(BackupRequest { decisions }).await).await?;
    let (mut bytes, mut said) = (0, Instant::now());
    while let Some(chunk) = chunks.message().await.map_err(|status| status_error(&status))? {
        (&aside.file).write_all(&chunk.data)?;
        bytes += chunk.data.len() as u64;
        if said.elapsed() > SAY_EVERY {
            said = Instant::now();
            context.printer.say(&format!("{} written", human::bytes(bytes)));
        }
    }
    aside.finish(file)
}

/// A file on its way; removed unless it is finished. It holds every job file, so nobody else may read it.
struct Aside {
    path: PathBuf,
    file: File,
    done: bool,
}

impl Aside {
    fn create(file: &Path) -> Result<Self, CliError> {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let path = file.with_file_name(name);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.map_err(|error| CliError::from(error).hint(format!("cannot write {}", path.display())))?;
        Ok(Self { path, file, done: false })
    }

    fn finish(mut self, file: &Path) -> Result<(), CliError> {
        self.file.sync_all()?;
        inspect(&self.path).map_err(refused)?;
        fs::rename(&self.path, file)?;
        self.done = true;
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(File::open(parent).and_then(|parent| parent.sync_all())?)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.done {
            // At worst a part stays, under a name that says so.
            let _ = fs::remove_file(&self.path);
        }
    }
}

pub fn render(file: &Path, read: &Inspected) -> String {
    let Head { cluster_id, index, generation, made_at_ms, made_by, state_hash, .. } = &read.head;
    let names: Vec<String> = read.head.members.iter().map(|member| cell(&member.name)).collect();
    format!(
        "{}: cluster {} at entry {index}, generation {generation}\n  made   {} by {}\n  holds  {}, {}, {} of history, {}{}\n  \
         state  {}\n  whole  every checksum was read back\n",
        file.display(),
        cell(cluster_id),
        human::moment(*made_at_ms),
        cell(made_by),
        human::count(read.state.jobs().len() as u64, "live job"),
        human::count(read.state.nodes().len() as u64, "node"),
        human::count(read.records, "record"),
        human::bytes(read.file_bytes),
        match read.decision_bytes {
            0 => String::new(),
            bytes => format!(", of that {} of decisions", human::bytes(bytes)),
        },
        cell(state_hash),
    ) + &format!("  servers {}\n", names.join(", "))
}

pub fn document(file: &Path, read: &Inspected) -> Value {
    let Head { cluster_id, index, term, generation, feature_level, made_at_ms, made_by, .. } = &read.head;
    json!({
        "schema": "muster.backup/1", "file": file, "file_bytes": read.file_bytes, "cluster_id": cluster_id,
        "index": index, "term": term, "generation": generation, "feature_level": feature_level,
        "state_hash": read.head.state_hash, "jobs": read.state.jobs().len(), "nodes": read.state.nodes().len(),
        "history_records": read.records, "decision_bytes": read.decision_bytes, "history_from": read.head.history_from, "members": read.head.members,
        "made_at_ms": made_at_ms, "made_at": rfc3339(*made_at_ms), "made_by": made_by, "version": read.head.version,
    })
}
