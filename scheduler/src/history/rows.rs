//! What lies under a history: ordered rows, written in batches. On disk by sled; in memory for simulated clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// The file sled syncs by itself would not reach the disk on Linux, so it is synced here.
const MAIN_FILE: &str = "db";
/// sled counts pages as they lie on the disk; in memory a page of rows is some four times that. History is written by
/// all and read by few.
const CACHE_BYTES: u64 = 8 << 20;
/// Rows and bytes that wait in memory. sled hands every batch to the disk and waits for it, so one for each log entry
/// would cost more than all else that is done for the entry.
const WAITING_ROWS: usize = 256;
const WAITING_BYTES: usize = 128 << 10;

pub(super) type Row = (Vec<u8>, Vec<u8>);
pub(super) type RowIter<'a> = Box<dyn Iterator<Item = Result<Row, Failure>> + 'a>;

pub(super) enum Failure {
    Io(io::Error),
    Damage(String),
}

impl Failure {
    pub(super) fn into_io(self) -> io::Error {
        match self {
            Failure::Io(error) => error,
            Failure::Damage(why) => io::Error::new(io::ErrorKind::InvalidData, format!("history is damaged: {why}")),
        }
    }
}

impl From<sled::Error> for Failure {
    fn from(error: sled::Error) -> Self {
        match error {
            // Not a torn history: the disk itself, or another process that has it open.
            sled::Error::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => Failure::Io(error),
            other => Failure::Damage(other.to_string()),
        }
    }
}

/// Changes that are made together or not at all.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch(Vec<(Vec<u8>, Option<Vec<u8>>)>);

impl Batch {
    pub(super) fn insert(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.0.push((key.into(), Some(value.into())));
    }

    pub(super) fn remove(&mut self, key: impl Into<Vec<u8>>) {
        self.0.push((key.into(), None));
    }
}

/// The seam under [`super::HistoryStore`]. A write is seen by every later read; only a sync makes it survive the end of the
/// process or a power cut. The log still holds what was not synced, and applying it again writes it again.
pub(super) trait Rows: Send + Sync {
    fn write(&self, batch: Batch) -> Result<(), Failure>;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Failure>;
    /// Rows in the order of their keys.
    fn range(&self, from: Vec<u8>, to: Bound<Vec<u8>>) -> RowIter<'_>;
    /// The rows of `from..below`, the last one first; `from` is not above `below`.
    fn range_back(&self, from: Vec<u8>, below: Vec<u8>) -> RowIter<'_>;
    fn sync(&self) -> Result<(), Failure>;
}

/// The rows whose keys begin with `prefix`.
pub(super) fn scan<'a>(rows: &'a dyn Rows, prefix: &[u8]) -> RowIter<'a> {
    let prefix = prefix.to_vec();
    let rows = rows.range(prefix.clone(), Bound::Unbounded);
    Box::new(rows.take_while(move |row| row.as_ref().map_or(true, |(key, _)| key.starts_with(&prefix))))
}

pub(super) struct SledRows {
    db: sled::Db,
    file: File,
    /// Where sled puts pages that are too large for its main file, one file each, and never syncs them.
    blobs: PathBuf,
    synced_blobs: Mutex<BTreeSet<OsString>>,
    waiting: Mutex<Waiting>,
}

/// Rows on their way to sled.
#[derive(Default)]
struct Waiting {
    rows: sled::Batch,
    count: usize,
    bytes: usize,
}

impl SledRows {
    pub(super) fn open(dir: &Path) -> Result<Self, Failure> {
        let db = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::HighThroughput)
            .flush_every_ms(None)
            .open()?;
        db.flush()?;
        let file = File::options().write(true).open(dir.join(MAIN_FILE)).map_err(Failure::Io)?;
        // The folder and the small settings file are written once; later syncs need only the main file.
        for path in [dir.join("conf"), dir.join(MAIN_FILE), dir.to_owned()] {
            File::open(path).and_then(|file| file.sync_all()).map_err(Failure::Io)?;
        }
        let (blobs, synced_blobs) = (dir.join("blobs"), Mutex::default());
        Ok(Self { db, file, blobs, synced_blobs, waiting: Mutex::default() })
    }

    /// Before the main file, which points to them.
    fn sync_blobs(&self) -> io::Result<()> {
        let names: io::Result<BTreeSet<OsString>> =
            std::fs::read_dir(&self.blobs)?.map(|entry| Ok(entry?.file_name())).collect();
        let names = names?;
        let mut synced = self.synced_blobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut any = false;
        for name in names.difference(&synced) {
            match File::open(self.blobs.join(name)).and_then(|blob| blob.sync_all()) {
                Ok(()) => any = true,
                // sled removes what no page points to any more.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if any {
            File::open(&self.blobs)?.sync_all()?;
        }
        *synced = names;
        Ok(())
    }

    /// Gives sled what waits. What it refuses is lost, and the error says so.
    fn settle(&self, waiting: &mut Waiting) -> Result<(), Failure> {
        if waiting.count == 0 {
            return Ok(());
        }
        let Waiting { rows, .. } = std::mem::take(waiting);
        Ok(self.db.apply_batch(rows)?)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Looks at what a crash could have hurt.
    pub(super) fn probe(&self) -> Result<(), Failure> {
        self.db.first()?;
        self.db.last()?;
        Ok(())
    }
}

impl Rows for SledRows {
    fn write(&self, batch: Batch) -> Result<(), Failure> {
        let mut waiting = self.waiting();
        for (key, value) in batch.0 {
            waiting.count += 1;
            waiting.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            match value {
                Some(value) => waiting.rows.insert(key, value),
                None => waiting.rows.remove(key),
            }
        }
        if waiting.count >= WAITING_ROWS || waiting.bytes >= WAITING_BYTES { self.settle(&mut waiting) } else { Ok(()) }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        self.settle(&mut self.waiting())?;
        Ok(self.db.get(key)?.map(|value| value.to_vec()))
    }

    fn range(&self, from: Vec<u8>, to: Bound<Vec<u8>>) -> RowIter<'_> {
        if let Err(failure) = self.settle(&mut self.waiting()) {
            return Box::new(std::iter::once(Err(failure)));
        }
        let rows = self.db.range((Bound::Included(from), to));
        Box::new(rows.map(owned))
    }

    fn range_back(&self, from: Vec<u8>, below: Vec<u8>) -> RowIter<'_> {
        if let Err(failure) = self.settle(&mut self.waiting()) {
            return Box::new(std::iter::once(Err(failure)));
        }
        Box::new(self.db.range(from..below).rev().map(owned))
    }

    fn sync(&self) -> Result<(), Failure> {
        self.settle(&mut self.waiting())?;
        self.db.flush()?;
        self.sync_blobs().map_err(Failure::Io)?;
        self.file.sync_data().map_err(Failure::Io)
    }
}

fn owned(row: sled::Result<(sled::IVec, sled::IVec)>) -> Result<Row, Failure> {
    row.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(Failure::from)
}

impl Drop for SledRows {
    /// Saves the next start from writing it again; a failure only loses that.
    fn drop(&mut self) {
        let _ = self.settle(&mut self.waiting());
    }
}

#[derive(Default)]
struct Images {
    now: BTreeMap<Vec<u8>, Vec<u8>>,
    durable: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Rows read from the end, for tests of how much a look-up reads.
    read_back: u64,
}

/// A history's disk in memory; it outlives the store as a disk outlives a process.
#[derive(Clone, Default)]
pub struct MemHistory(Arc<Mutex<Images>>);

impl MemHistory {
    /// Forgets every write that was not synced, as a power cut does.
    pub fn crash(&self) {
        let mut images = self.lock();
        images.now = images.durable.clone();
    }

    /// Rows read from the end so far.
    #[cfg(test)]
    pub fn read_back(&self) -> u64 {
        self.lock().read_back
    }

    fn lock(&self) -> MutexGuard<'_, Images> {
        self.0.lock().expect("no code panics while it holds the rows")
    }
}

impl Rows for MemHistory {
    fn write(&self, batch: Batch) -> Result<(), Failure> {
        let mut images = self.lock();
        for (key, value) in batch.0 {
            match value {
                Some(value) => images.now.insert(key, value),
                None => images.now.remove(&key),
            };
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.lock().now.get(key).cloned())
    }

    fn range(&self, from: Vec<u8>, to: Bound<Vec<u8>>) -> RowIter<'_> {
        if matches!(&to, Bound::Included(to) | Bound::Excluded(to) if *to < from) {
            return Box::new(std::iter::empty());
        }
        let images = self.lock();
        let rows = images.now.range((Bound::Included(from), to));
        let rows: Vec<_> = rows.map(|(key, value)| Ok((key.clone(), value.clone()))).collect();
        Box::new(rows.into_iter())
    }

    fn range_back(&self, from: Vec<u8>, below: Vec<u8>) -> RowIter<'_> {
        let mut below = below;
        // One row at a time: whoever reads from the end mostly wants few.
        Box::new(std::iter::from_fn(move || {
            let mut images = self.lock();
            let (key, value) = images.now.range(from.clone()..below.clone()).next_back()?;
            let row = (key.clone(), value.clone());
            images.read_back += 1;
            below.clone_from(&row.0);
            Some(Ok(row))
        }))
    }

    fn sync(&self) -> Result<(), Failure> {
        let mut images = self.lock();
        images.durable = images.now.clone();
        Ok(())
    }
}
