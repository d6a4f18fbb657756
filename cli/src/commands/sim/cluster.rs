//! What a cluster has lived through: from its servers, or from a backup of theirs.

use super::{failed, import};
use crate::commands::cluster::backup::{fetch, refused};
use crate::context::Context;
use crate::error::CliError;
use crate::output::human;
use crate::output::table::cell;
use muster_common::Time;
use muster_common::job::file::parse_duration_ms;
use muster_proto::convert::error::ErrorCode;
use muster_scheduler::backup::{events, inspect};
use muster_sim::cluster::{ClusterCard, Gatherer, Imported};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Where a cluster's past is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Its servers, asked for a backup.
    Live,
    Backup(PathBuf),
}

/// A source, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    pub source: Source,
    /// `None` = all that is kept.
    pub last_ms: Option<u64>,
}

/// As `--from` takes it: `live`, `live:30d` or `backup:FILE`.
pub fn stretch(text: &str) -> Result<Stretch, String> {
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    match (kind, rest) {
        ("live", "") => Ok(Stretch { source: Source::Live, last_ms: None }),
        ("live", last) => {
            let last_ms = parse_duration_ms(last).map_err(|error| format!("`{last}`: {error}"))?;
            Ok(Stretch { source: Source::Live, last_ms: Some(last_ms) })
        }
        ("backup", file) if !file.is_empty() => Ok(Stretch { source: Source::Backup(file.into()), last_ms: None }),
        _ => Err("there are `live`, `live:TIME` such as live:30d, and `backup:FILE`".into()),
    }
}

/// As a bare argument: `live`, or a backup's file.
pub fn source(text: &str) -> Source {
    if text == "live" { Source::Live } else { Source::Backup(text.into()) }
}

/// A backup on this machine; one that was fetched for the moment goes away with it.
pub struct Local {
    path: PathBuf,
    fetched: bool,
}

impl Local {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if self.fetched {
            // At worst it stays in the folder for temporary files, readable by its owner only.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Has the backup at hand, asking the servers for one if need be.
///
/// # Errors
/// Servers that cannot be reached, or a caller who may make no backup.
pub fn local(context: &Context, source: &Source, decisions: bool) -> Result<Local, CliError> {
    match source {
        Source::Backup(path) => Ok(Local { path: path.clone(), fetched: false }),
        Source::Live => {
            let name = format!("muster-{}-{}.backup", std::process::id(), crate::context::request_id());
            let path = std::env::temp_dir().join(name);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            context.printer.say("asking a server for its history");
            runtime.block_on(fetch(context, &path, decisions))?;
            Ok(Local { path, fetched: true })
        }
    }
}

/// Reads a stretch of a cluster's life.
///
/// # Errors
/// As [`local`]; a backup that is damaged; a stretch without work.
pub fn gather(context: &Context, stretch: &Stretch) -> Result<Imported, CliError> {
    let local = local(context, &stretch.source, false)?;
    gather_from(local.path(), stretch.last_ms)
}

pub fn gather_from(path: &Path, last_ms: Option<u64>) -> Result<Imported, CliError> {
    let state = inspect(path).map_err(refused)?.state;
    let from = last_ms.map_or(Time::ZERO, |last_ms| Time(state.now().0.saturating_sub(last_ms)));
    let mut gatherer = Gatherer::new(from);
    events(path, |recorded| gatherer.event(recorded.at, &recorded.event)).map_err(refused)?;
    gatherer.finish(&state).map_err(failed)
}

/// `muster sim import --from`.
pub fn run(context: &Context, stretch: &Stretch, output: Option<&Path>) -> Result<u8, CliError> {
    let imported = gather(context, stretch)?;
    if let Some(output) = output {
        imported.write(output).map_err(failed)?;
    }
    context.printer.answer(|| document(&imported.card), || render(&imported.card))?;
    match output {
        Some(output) => context.printer.say(&format!("written to {}", output.display())),
        None => context.printer.say("nothing was written; name a folder with -o to play it"),
    }
    Ok(0)
}

pub fn render(card: &ClusterCard) -> String {
    let mut text = format!(
        "cluster {} from {} to {}, entry {}\n  nodes        {}, {}\n  cancelled    {}\n  \
         policy       version {}\n{}\n",
        cell(&card.cluster_id),
        human::moment(card.from_ms),
        human::moment(card.to_ms),
        card.index,
        card.nodes,
        human::count(card.outages as u64, "outage"),
        human::count(card.cancellations as u64, "job"),
        card.policy_version,
        import::render(&card.trace)
    );
    for missing in &card.not_modelled {
        text.push_str(&format!("not played: {missing}\n"));
    }
    text
}

pub fn document(card: &ClusterCard) -> Value {
    serde_json::to_value(card).unwrap_or_default()
}

/// What is wrong with arguments that do not go together.
pub fn usage(why: &str) -> CliError {
    CliError::new(ErrorCode::Usage, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_as_documented() {
        let day = 24 * 3_600_000;
        assert_eq!(stretch("live").unwrap(), Stretch { source: Source::Live, last_ms: None });
        assert_eq!(stretch("live:30d").unwrap().last_ms, Some(30 * day));
        let file = stretch("backup:a/b.backup").unwrap();
        assert_eq!(file, Stretch { source: Source::Backup("a/b.backup".into()), last_ms: None });
        for wrong in ["", "backup", "backup:", "live:x", "sacct.txt"] {
            assert!(stretch(wrong).is_err(), "{wrong}");
        }
    }
}
