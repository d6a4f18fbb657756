//! A disk at one point of a record: what is on it for good, and what is still under way.

use super::record::Event;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;

/// A number for a file or folder, whatever its names are.
pub type Id = usize;

/// A change of a file.
#[derive(Debug, Clone)]
pub enum Change {
    Write { offset: u64, bytes: Rc<[u8]> },
    Length(u64),
}

/// A change of names. Folders by id, names without a slash.
#[derive(Debug, Clone)]
pub enum NameChange {
    Put { folder: Id, name: String, id: Id },
    Remove { folder: Id, name: String },
    Move { from: (Id, String), to: (Id, String), id: Id },
}

impl NameChange {
    fn touches(&self, wanted: Id) -> bool {
        match self {
            NameChange::Put { folder, .. } | NameChange::Remove { folder, .. } => *folder == wanted,
            NameChange::Move { from, to, .. } => from.0 == wanted || to.0 == wanted,
        }
    }

    /// Carries it out. A move takes its file along even if an earlier change of the old name was lost.
    pub fn apply(&self, names: &mut Names) {
        match self {
            NameChange::Put { folder, name, id } => drop(names.insert((*folder, name.clone()), *id)),
            NameChange::Remove { folder, name } => drop(names.remove(&(*folder, name.clone()))),
            NameChange::Move { from, to, id } => {
                if names.get(from) == Some(id) {
                    names.remove(from);
                }
                names.insert(to.clone(), *id);
            }
        }
    }
}

/// (folder, name) to what it names.
pub type Names = BTreeMap<(Id, String), Id>;

#[derive(Debug, Clone, Default)]
pub struct File {
    /// What is on the disk for good.
    pub durable: Vec<u8>,
    /// Changes since, each with its place in the record.
    pub pending: Vec<(u64, Change)>,
    /// What a reader sees.
    pub now: Vec<u8>,
    /// Stretches that the last sync made durable.
    pub fresh: Vec<(usize, usize)>,
}

/// The folder itself.
pub const ROOT: Id = 0;

#[derive(Debug, Clone, Default)]
pub struct Disk {
    pub files: BTreeMap<Id, File>,
    /// Names for good.
    pub durable: Names,
    /// Changes of names since.
    pub pending: Vec<(u64, NameChange)>,
    now: Names,
    next_id: Id,
    /// The recorder's ids.
    ids: BTreeMap<u64, Id>,
    /// Syncs that have begun: what they cover, and since when.
    syncs: BTreeMap<u64, (Option<Id>, u64)>,
    at: u64,
}

impl Disk {
    /// A disk that holds this folder for good.
    pub fn holding(folder: &Path) -> Result<Self> {
        let mut disk = Disk { next_id: ROOT + 1, ..Disk::default() };
        disk.load(folder, ROOT)?;
        disk.now = disk.durable.clone();
        Ok(disk)
    }

    fn load(&mut self, folder: &Path, id: Id) -> Result<()> {
        let listed = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in listed {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().context("a name that is not UTF-8")?;
            let child = self.new_id();
            self.durable.insert((id, name), child);
            if entry.file_type()?.is_dir() {
                self.load(&entry.path(), child)?;
            } else {
                let durable = fs::read(entry.path())?;
                self.files.insert(child, File { now: durable.clone(), durable, ..File::default() });
            }
        }
        Ok(())
    }

    fn new_id(&mut self) -> Id {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Carries out the next event of the record.
    pub fn step(&mut self, event: &Event) -> Result<()> {
        self.at += 1;
        match event {
            Event::Known { id, path } => {
                let known = if path.is_empty() { ROOT } else { self.find(path)? };
                self.ids.insert(*id, known);
            }
            Event::Created { id, path } | Event::Folder { id, path } => {
                let new = self.new_id();
                self.ids.insert(*id, new);
                if matches!(event, Event::Created { .. }) {
                    self.files.insert(new, File::default());
                }
                let (folder, name) = self.place(path)?;
                self.rename(NameChange::Put { folder, name, id: new });
            }
            Event::Written { id, offset, bytes } => {
                self.change(*id, Change::Write { offset: *offset, bytes: bytes.as_slice().into() })?;
            }
            Event::Length { id, length } => self.change(*id, Change::Length(*length))?,
            Event::Renamed { from, to } => {
                let (id, from, to) = (self.find(from)?, self.place(from)?, self.place(to)?);
                self.rename(NameChange::Move { from, to, id });
            }
            Event::Removed { path } => {
                let (folder, name) = self.place(path)?;
                self.rename(NameChange::Remove { folder, name });
            }
            Event::Linked { from, to } => {
                let (id, (folder, name)) = (self.find(from)?, self.place(to)?);
                self.rename(NameChange::Put { folder, name, id });
            }
            Event::SyncBegan { token, id } => {
                let covers = id.map(|id| self.known(id)).transpose()?;
                self.syncs.insert(*token, (covers, self.at));
            }
            Event::SyncEnded { token, good } => {
                let (covers, since) = self.syncs.remove(token).context("a sync ends that never began")?;
                if *good {
                    self.settle(covers, since);
                } else {
                    self.lose(covers, since);
                }
            }
            Event::Mark(_) => {}
            Event::Unseen(what) => bail!("{what}"),
        }
        Ok(())
    }

    fn change(&mut self, id: u64, change: Change) -> Result<()> {
        let id = self.known(id)?;
        let file = self.files.get_mut(&id).context("bytes written into a folder")?;
        change.apply(&mut file.now);
        file.pending.push((self.at, change));
        Ok(())
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.now);
        self.pending.push((self.at, change));
    }

    /// A sync that began at `since` makes everything before it last.
    fn settle(&mut self, covers: Option<Id>, since: u64) {
        for (id, file) in &mut self.files {
            if covers.is_none_or(|covered| covered == *id) {
                let later = file.pending.partition_point(|(at, _)| *at < since);
                if later > 0 {
                    file.fresh.clear();
                }
                for (_, change) in file.pending.drain(..later) {
                    if let Change::Write { offset, bytes } = &change {
                        file.fresh.push((*offset as usize, *offset as usize + bytes.len()));
                    }
                    change.apply(&mut file.durable);
                }
            }
        }
        let durable = &mut self.durable;
        self.pending.retain(|(at, change)| {
            let settled = *at < since && covers.is_none_or(|covered| change.touches(covered));
            if settled {
                change.apply(durable);
            }
            !settled
        });
    }

    /// A sync that failed: Linux takes the pages it covers for written, so no later sync brings them to the disk, and yet a
    /// reader sees them until the power goes. Lengths and names are the file system's own and go on waiting.
    fn lose(&mut self, covers: Option<Id>, since: u64) {
        for (id, file) in &mut self.files {
            if covers.is_none_or(|covered| covered == *id) {
                file.pending.retain(|(at, change)| *at >= since || matches!(change, Change::Length(_)));
            }
        }
    }

    fn known(&self, id: u64) -> Result<Id> {
        self.ids.get(&id).copied().with_context(|| format!("the record never said what {id} is"))
    }

    fn find(&self, path: &str) -> Result<Id> {
        let place = self.place(path)?;
        self.now.get(&place).copied().with_context(|| format!("{path} is not there"))
    }

    fn place(&self, path: &str) -> Result<(Id, String)> {
        let mut folder = ROOT;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                ensure!(!part.is_empty(), "the folder itself has no name");
                return Ok((folder, part.to_owned()));
            }
            let place = (folder, part.to_owned());
            folder = *self.now.get(&place).with_context(|| format!("the folder of {path} is not there"))?;
        }
        bail!("an empty path")
    }

    /// What a reader sees, as an image.
    pub fn seen(&self) -> (Names, BTreeMap<Id, Vec<u8>>) {
        let contents = self.files.iter().map(|(id, file)| (*id, file.now.clone())).collect();
        (self.now.clone(), contents)
    }
}

impl Change {
    pub fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => {
                let end = *offset as usize + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset as usize..end].copy_from_slice(bytes);
            }
            Change::Length(length) => content.resize(*length as usize, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_sync_covered_is_lost_whatever_is_synced_later() {
        let written = |offset, bytes: &[u8]| Event::Written { id: 7, offset, bytes: bytes.to_vec() };
        let sync = |token, good| [Event::SyncBegan { token, id: Some(7) }, Event::SyncEnded { token, good }];
        let mut disk = Disk { next_id: ROOT + 1, ..Disk::default() };
        let mut play = |events: &[Event]| events.iter().for_each(|event| disk.step(event).unwrap());
        play(&[Event::Created { id: 7, path: "file".into() }, written(0, b"kept")]);
        play(&sync(1, true));
        play(&[written(4, b"lost"), Event::SyncBegan { token: 2, id: Some(7) }, written(8, b"late")]);
        play(&[Event::SyncEnded { token: 2, good: false }]);
        play(&sync(3, true));
        let file = disk.files.values().next().unwrap();
        assert_eq!(file.durable, b"kept\0\0\0\0late");
        assert_eq!(file.now, b"keptlostlate");
        assert!(file.pending.is_empty());
    }
}
