//! From a backup to the data folders of a new cluster. See docs/adr/0005-restore.md for why each step is there.

use super::read::{each_page, inspect};
use super::{BackupError, Page, Servers};
use crate::consensus::{self, LogPos, Member};
use crate::history::{HistoryStore, Record};
use crate::records;
use muster_engine::command::{ConfigChange, Principal};
use muster_engine::{Command, Entry, Response, State, apply};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Log indexes left out behind the backup. Ids are indexes: those given after the backup, to jobs and nodes it does not
/// know, must not be given again. Enough for a day with a thousand entries a second.
pub const SKIPPED_INDEXES: u64 = 100_000_000;

/// What a restore made.
#[derive(Debug)]
pub struct Restored {
    /// Data folders, by server id.
    pub folders: BTreeMap<u64, PathBuf>,
    /// The entry that ends the state of each.
    pub index: u64,
    pub generation: u32,
    /// Of the state that every server starts with.
    pub state_hash: String,
    /// The backup's own.
    pub backup: super::Inspected,
}

/// Makes `dir`/NAME for each server: its log, snapshot, history and identity. The folders are made aside and renamed when
/// all of them are whole.
///
/// # Errors
/// A backup that is not whole, or a folder that is there: then nothing was written. Or a disk that fails.
pub fn restore(file: &Path, dir: &Path, servers: &Servers, skip: u64) -> Result<Restored, BackupError> {
    refuse_used(dir)?;
    let backup = inspect(file)?;
    let head = &backup.head;
    let mut state = backup.state.clone();
    let last = LogPos { term: head.term + 1, index: head.index.saturating_add(skip).saturating_add(1) };
    let command = Command::Configure { change: Box::new(ConfigChange::Restore), by: Principal("restore".into()) };
    let entry = Entry { index: last.index, term: last.term, at: state.now(), command };
    let outcome = apply(&mut state, &entry);
    if let Response::Refused(why) = outcome.response {
        return Err(BackupError::Folder(format!("the state cannot be restored: {why}")));
    }
    let events = records::encode(state.now(), &outcome.events).map_err(|cause| failed(file, cause))?;

    let aside = dir.with_extension("restoring");
    refuse_used(&aside)?;
    let folders: BTreeMap<u64, PathBuf> = servers.iter().map(|(id, server)| (*id, aside.join(&server.name))).collect();
    let write_all = || {
        write_folders(&folders, servers, &head.cluster_id, last, &state)?;
        for folder in folders.values() {
            write_history(file, &folder.join("history"), head.history_from, last.index, &events)?;
        }
        put_in_place(&aside, dir)
    };
    if let Err(error) = write_all() {
        // Half of it is of no use, and what cannot be removed is named by the next try.
        let _ = fs::remove_dir_all(&aside);
        return Err(error);
    }
    let folders = servers.iter().map(|(id, server)| (*id, dir.join(&server.name))).collect();
    let (generation, state_hash) = (state.cluster().generation, state.hash().to_string());
    Ok(Restored { folders, index: last.index, generation, state_hash, backup })
}

fn failed(path: &Path, cause: io::Error) -> BackupError {
    BackupError::Io { path: path.to_owned(), cause }
}

fn refuse_used(dir: &Path) -> Result<(), BackupError> {
    match fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(BackupError::NotEmpty { path: dir.to_owned() }),
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(failed(dir, cause)),
        _ => Ok(()),
    }
}

fn write_folders(
    folders: &BTreeMap<u64, PathBuf>,
    servers: &Servers,
    cluster_id: &str,
    last: LogPos,
    state: &State,
) -> Result<(), BackupError> {
    let member = |server: &super::Member| Member { name: server.name.clone(), addr: server.address.clone() };
    let members = servers.iter().map(|(id, server)| (*id, member(server))).collect();
    consensus::found_again(cluster_id, folders, &members, last, &state.encode())
        .map_err(|error| BackupError::Folder(error.to_string()))
}

/// All records of the backup, and those of the restore itself.
fn write_history(file: &Path, dir: &Path, floor: u64, last: u64, events: &[Record]) -> Result<(), BackupError> {
    let io = |cause| failed(dir, cause);
    let history = HistoryStore::open(dir).map_err(io)?;
    history.begin_at(floor).map_err(io)?;
    each_page(file, |page: Page| {
        let mut rows = page.records.into_iter().peekable();
        while let Some(first) = rows.next() {
            let index = first.index;
            let mut records = vec![Record::from(first)];
            while let Some(row) = rows.next_if(|row| row.index == index) {
                records.push(row.into());
            }
            history.append(index, &records).map_err(io)?;
        }
        Ok(())
    })?;
    history.append(last, events).map_err(io)?;
    history.flush_durable().map_err(io)
}

fn put_in_place(aside: &Path, dir: &Path) -> Result<(), BackupError> {
    let io = |cause| failed(dir, cause);
    match fs::remove_dir(dir) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(io(cause)),
        _ => {}
    }
    fs::rename(aside, dir).map_err(io)?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(io)
}
