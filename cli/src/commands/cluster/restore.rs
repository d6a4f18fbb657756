//! `muster cluster restore`: data folders of a new cluster from a backup, without a server.

use super::backup::{self, refused};
use super::members::prepare::named;
use crate::context::Context;
use crate::error::CliError;
use clap::{Args, ValueHint};
use muster_proto::convert::error::ErrorCode;
use muster_scheduler::backup::{Inspected, Member, Restored, SKIPPED_INDEXES, Servers, inspect, restore};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Folder to make, with a data folder for each server in it; it must not exist or be empty
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// A server of the new cluster, as NAME=HOST:PORT; unless given, those of the backup
    #[arg(long = "server-at", value_name = "NAME=HOST:PORT")]
    pub servers: Vec<String>,
    /// Log indexes to leave out, so that no id that was given after the backup is given again
    #[arg(long, value_name = "COUNT", default_value_t = SKIPPED_INDEXES)]
    pub skip_indexes: u64,
    /// Read the backup and tell what would be made
    #[arg(long)]
    pub dry_run: bool,
}

pub fn run(context: &Context, args: &RestoreArgs) -> Result<u8, CliError> {
    let backup = inspect(&args.file).map_err(refused)?;
    let servers = servers(&backup, &args.servers)?;
    if args.dry_run {
        context.printer.answer(
            || backup::document(&args.file, &backup),
            || backup::render(&args.file, &backup) + &would(&args.dir, &servers),
        )?;
        return Ok(0);
    }
    context.printer.say("writing the data folders");
    let restored = restore(&args.file, &args.dir, &servers, args.skip_indexes).map_err(refused)?;
    context.printer.answer(|| document(&restored, &servers), || render(&args.dir, &restored, &servers))?;
    Ok(0)
}

/// Servers of the backup keep their ids; others get ids that none had.
fn servers(backup: &Inspected, named_at: &[String]) -> Result<Servers, CliError> {
    let known = &backup.head.members;
    if named_at.is_empty() {
        let servers: Servers = known.iter().map(|member| (member.id, member.clone())).collect();
        if servers.is_empty() || servers.values().any(|member| member.name.is_empty() || member.address.is_empty()) {
            let error = CliError::new(ErrorCode::Usage, "the backup does not name its servers");
            return Err(error.hint("name each of them with --server-at NAME=HOST:PORT"));
        }
        return Ok(servers);
    }
    let mut next = known.iter().map(|member| member.id).max().unwrap_or(0) + 1;
    let mut servers = Servers::new();
    for text in named_at {
        let (name, address) = named(text)?;
        if servers.values().any(|server| server.name == name || server.address == address) {
            let message = format!("--server-at {text}: the name or the address is given twice");
            return Err(CliError::new(ErrorCode::Usage, message));
        }
        let id = known.iter().find(|member| member.name == name).map_or(next, |member| member.id);
        next += u64::from(id == next);
        servers.insert(id, Member { id, name: name.to_owned(), address: address.to_owned() });
    }
    if !matches!(servers.len(), 1 | 3 | 5) {
        let message = format!("{} servers; use 1, 3 or 5, so that a majority is clear", servers.len());
        return Err(CliError::new(ErrorCode::Usage, message).hint("write for example --server-at s1=10.0.0.1:7070"));
    }
    Ok(servers)
}

fn would(dir: &Path, servers: &Servers) -> String {
    servers.values().map(|server| format!("would make {} for {}\n", folder(dir, server), server.address)).collect()
}

fn folder(dir: &Path, server: &Member) -> String {
    dir.join(&server.name).display().to_string()
}

pub fn render(dir: &Path, restored: &Restored, servers: &Servers) -> String {
    let mut text = format!(
        "Restored cluster {} as of entry {}; its log goes on at {}, generation {}\nFor each server, with every server \
         stopped and its old data folder moved away:\n",
        restored.backup.head.cluster_id, restored.backup.head.index, restored.index, restored.generation
    );
    for server in servers.values() {
        text.push_str(&format!(
            "  {} -> the `dir` of its server.toml    # {} (id {})\n",
            folder(dir, server),
            server.address,
            server.id
        ));
    }
    text.push_str(
        "Then start all of them. Agents find them by themselves; `muster cluster doctor` tells how it goes.\n",
    );
    text
}

pub fn document(restored: &Restored, servers: &Servers) -> Value {
    let server = |(id, server): (&u64, &Member)| json!({"id": id, "name": server.name, "address": server.address, "data": restored.folders[id]});
    json!({
        "schema": "muster.restored/1", "cluster_id": restored.backup.head.cluster_id,
        "backup_index": restored.backup.head.index, "index": restored.index, "generation": restored.generation,
        "backup_state_hash": restored.backup.head.state_hash, "state_hash": restored.state_hash,
        "servers": servers.iter().map(server).collect::<Vec<_>>(),
    })
}
