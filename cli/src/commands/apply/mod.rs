//! `muster apply`: accounts, queues, policy and reservations from a folder of TOML files, as a whole.

pub mod diff;
pub mod folder;

use crate::client::Client;
use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::output::table::{Align, Table, cell};
use crate::output::{Style, human};
use clap::{ArgGroup, Args, ValueHint};
use diff::Change;
use folder::Folder;
use muster_proto::client::{ConfigureReply, ConfigureRequest};
use muster_proto::convert::error::ErrorCode;
use serde_json::{Value, json};
use std::path::PathBuf;

pub const NOTES: &str = "\
A folder holds any number of *.toml files with [[account]], [[queue]], [policy] and
[[reservation]]. All of it comes in force at once, or none of it. A cluster has one such folder:
reservations that were applied from it and are no longer in it end. Accounts with queues, and the
policy, stay as they are where no file speaks of them. A single file ends no reservation.

Examples:
  muster apply -f cluster/ --dry-run     what would change; ends with 9 when anything would
  muster apply -f cluster/ --yes         without a question, for scripts
  muster apply --history                 what was applied, by whom and when
  muster apply --rollback 41             policy, accounts and queues as version 41 left them";

/// Ends a dry run that found something to change.
pub const WOULD_CHANGE: u8 = 9;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["file", "history", "rollback"])))]
pub struct ApplyArgs {
    /// Folder with TOML files, or one file
    #[arg(short, long = "file", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub file: Option<PathBuf>,
    /// Only tell what would change; ends with 9 when anything would
    #[arg(long, conflicts_with = "history")]
    pub dry_run: bool,
    /// List what was applied
    #[arg(long)]
    pub history: bool,
    /// Put policy, accounts and queues back as this version left them
    #[arg(long, value_name = "VERSION")]
    pub rollback: Option<u32>,
}

pub async fn run(context: &Context, args: ApplyArgs) -> Result<u8, CliError> {
    let change = match (&args.file, args.rollback) {
        (Some(path), _) => Some(Wanted::Folder(Folder::read(path)?)),
        (None, Some(version)) => Some(Wanted::Version(version)),
        (None, None) => None,
    };
    let client = context.client()?;
    let before = call(&client, "declaration", String::new(), true).await?;
    let Some(change) = change else {
        let shown = value(&before)?;
        context.printer.answer(|| history_document(&shown), || history(&shown, &context.style()))?;
        return Ok(0);
    };
    let after = change.call(&client, None, true).await?;
    let changes = diff::changes(&value(&before)?, &value(&after)?);
    let mut applied = Applied { source: change.source(), changes, version: before.version, done: false };
    if args.dry_run || applied.changes.is_empty() {
        context.printer.answer(|| document(&applied, args.dry_run), || render(&applied, args.dry_run))?;
        return Ok(if args.dry_run && !applied.changes.is_empty() { WOULD_CHANGE } else { 0 });
    }
    if !context.yes {
        context.printer.say(diff::render(&applied.changes).trim_end());
    }
    context.confirm(&format!("apply {}", human::count(applied.changes.len() as u64, "change")))?;
    let reply = change.call(&client, Some(before.version), false).await?;
    (applied.version, applied.done) = (reply.version, true);
    context.printer.answer(|| document(&applied, false), || render(&applied, false))?;
    Ok(0)
}

/// What is to be put in force.
enum Wanted {
    Folder(Folder),
    Version(u32),
}

impl Wanted {
    fn source(&self) -> String {
        match self {
            Wanted::Folder(folder) => folder.source().to_owned(),
            Wanted::Version(version) => format!("version {version}"),
        }
    }

    /// `made_from`: the configuration version that was looked at.
    async fn call(&self, client: &Client, made_from: Option<u32>, plan_only: bool) -> Result<ConfigureReply, CliError> {
        match self {
            Wanted::Folder(folder) => {
                let json = folder.json(made_from);
                let reply = call(client, "declaration", json, plan_only).await;
                reply.map_err(|error| folder.with_places(error))
            }
            Wanted::Version(version) => {
                let json = json!({"version": version, "made_from": made_from}).to_string();
                call(client, "rollback", json, plan_only).await
            }
        }
    }
}

async fn call(client: &Client, kind: &str, json: String, plan_only: bool) -> Result<ConfigureReply, CliError> {
    let request = ConfigureRequest { request_id: request_id(), kind: kind.into(), json, plan_only };
    client.call(async |mut api| api.configure(request.clone()).await).await
}

fn value(reply: &ConfigureReply) -> Result<Value, CliError> {
    serde_json::from_str(&reply.json)
        .map_err(|error| CliError::new(ErrorCode::VersionMismatch, format!("the configuration in force: {error}")))
}

/// What came of it.
#[derive(Debug)]
pub struct Applied {
    pub source: String,
    pub changes: Vec<Change>,
    /// Of the configuration in force at the end.
    pub version: u32,
    pub done: bool,
}

pub fn render(applied: &Applied, dry_run: bool) -> String {
    let source = cell(&applied.source);
    if applied.changes.is_empty() {
        return format!("nothing differs from {source}; configuration {}\n", applied.version);
    }
    let changes = human::count(applied.changes.len() as u64, "change");
    let said = match (dry_run, applied.done) {
        (false, true) => format!("{source} is in force: {changes}; configuration {}\n", applied.version),
        _ => format!("{source} would make {changes}\n"),
    };
    diff::render(&applied.changes) + &said
}

pub fn document(applied: &Applied, dry_run: bool) -> Value {
    let change = |change: &Change| json!({"path": change.path, "before": change.before, "after": change.after});
    json!({
        "schema": "muster.applied/1", "source": applied.source, "dry_run": dry_run, "changed": applied.done,
        "version": applied.version, "changes": applied.changes.iter().map(change).collect::<Vec<_>>(),
    })
}

pub fn history(shown: &Value, style: &Style) -> String {
    use Align::{Left, Right};
    let rows = shown["history"].as_array().map_or(&[][..], Vec::as_slice);
    if rows.is_empty() {
        return "nothing was applied yet\n".into();
    }
    let mut table = Table::new(&[("VERSION", Right), ("WHEN", Left), ("BY", Left), ("FROM", Left)]);
    for row in rows {
        let text = |field: &str| cell(row[field].as_str().unwrap_or_default());
        let at_ms = row["at_ms"].as_u64().unwrap_or_default();
        let when = human::moment_and_distance(at_ms, style.now_ms);
        table.row([row["version"].to_string(), when, text("by"), text("source")]);
    }
    table.text()
}

pub fn history_document(shown: &Value) -> Value {
    json!({"schema": "muster.apply_history/1", "version": shown["version"], "history": shown["history"]})
}
