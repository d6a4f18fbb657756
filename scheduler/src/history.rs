//! History: what happened, kept on every server beyond the life of the state it happened to.
//!
//! A sled database of its own. It can always be rebuilt, from the log or from another server, so damage here is moved
//! aside and reported, and never stops a server from voting. Everything is in one tree, so that the records of an entry,
//! their index and the watermark are written in one batch:
//!
//! | key | value |
//! |---|---|
//! | `r` index(8) ordinal(4) part(2) | part 0: version(1) kind(1) has-job(1) job(8) parts(2) bytes; others: bytes |
//! | `j` job(8) index(8) ordinal(4) | nothing |
//! | `g` from(8) | the last index of a gap that began at `from` |
//! | `m` name | a number: `watermark`, `floor` |
//!
//! Numbers are big-endian, so that keys stand in the order of the log.

use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

use bytes::Bytes;

mod back;
mod keys;
mod rows;
mod transfer;

pub use back::Place;
use keys::{Head, Key};
pub use rows::MemHistory;
use rows::{Batch, Failure, Row, Rows, SledRows, scan};
pub use transfer::Page;

/// Values stay far below sled's limit for keeping them in its main file.
const PART_BYTES: usize = 60 << 10;
/// A record longer than this is refused, which stops every server that applies its entry: the end of an attempt with four
/// million ranks, each with its exit, must fit.
pub const RECORD_BYTES_MAX: usize = 32 << 20;
/// A read stops after this many bytes, at the end of an entry.
const READ_BYTES_MAX: usize = 4 << 20;
const DELETE_BATCH: usize = 1_000;
const DAMAGE_MARK: &str = "history-is-damaged";
/// Beside the database: the watermark of the last sync. sled cuts off damage at its end without a word; this tells.
const DURABLE_MARK: &str = "durable-through";

/// One thing that happened, as its writer encoded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place among the records of its log entry.
    pub ordinal: u32,
    /// The writer's format.
    pub kind: u8,
    /// The job it is about, for [`HistoryStore::visit_job`].
    pub job: Option<u64>,
    /// The writer's bytes.
    pub bytes: Bytes,
}

/// A stretch of the log whose records are missing, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first missing index.
    pub from: u64,
    /// The last one.
    pub to: u64,
}

/// The history of one server.
pub struct HistoryStore {
    /// None when it lives in memory.
    dir: Option<PathBuf>,
    open: RwLock<Open>,
    /// The highest index recorded, ahead of the one on disk while entries make no records.
    watermark: Mutex<Option<u64>>,
    /// Once a sync has failed nothing can be called durable any more.
    failed: AtomicBool,
}

struct Open {
    rows: Box<dyn Rows>,
    moved: Option<PathBuf>,
}

impl HistoryStore {
    /// Opens the history in `dir`, made if missing. A damaged one is renamed and an empty one begun: see
    /// [`HistoryStore::moved_aside`].
    pub fn open(dir: &Path) -> io::Result<Self> {
        let open = match open_checked(dir) {
            Ok(open) => open,
            Err(Failure::Io(error)) => return Err(error),
            Err(Failure::Damage(why)) => begin_anew(dir, &why)?,
        };
        Self::on(Some(dir.to_owned()), open)
    }

    /// Opens a history in memory, for a simulated cluster.
    ///
    /// # Errors
    /// None: memory does not fail. The signature is that of [`HistoryStore::open`].
    pub fn open_memory(rows: MemHistory) -> io::Result<Self> {
        Self::on(None, Open { rows: Box::new(rows), moved: None })
    }

    fn on(dir: Option<PathBuf>, open: Open) -> io::Result<Self> {
        let watermark = number(&*open.rows, keys::WATERMARK)?;
        let (open, watermark) = (RwLock::new(open), Mutex::new(watermark));
        Ok(HistoryStore { dir, open, watermark, failed: AtomicBool::new(false) })
    }

    /// Where a damaged history was put, if one was found since this server started.
    pub fn moved_aside(&self) -> Option<PathBuf> {
        self.read().moved.clone()
    }

    /// Writes the records of one entry. Writing an entry again replaces its records by equal ones. Every later read sees the
    /// write; only [`HistoryStore::flush_durable`] makes it survive the end of the process, and until then the log has it.
    pub fn append(&self, index: u64, records: &[Record]) -> io::Result<()> {
        let mut watermark = self.lock_watermark();
        if records.is_empty() {
            *watermark = (*watermark).max(Some(index));
            return Ok(());
        }
        let mark = (*watermark).max(Some(index)).unwrap_or(index);
        let mut batch = Batch::default();
        put_records(&mut batch, index, records)?;
        batch.insert(keys::WATERMARK, mark.to_be_bytes());
        match self.write(batch.clone()) {
            Ok(()) => *watermark = Some(mark),
            Err(Failure::Io(error)) => return Err(error),
            Err(Failure::Damage(why)) => {
                // What was recorded before is lost here; the log or another server still has it.
                self.replace(&why)?;
                if let Some(lost) = index.checked_sub(1) {
                    put_gap(&mut batch, Gap { from: 0, to: lost });
                }
                self.write(batch).map_err(Failure::into_io)?;
                *watermark = Some(mark);
            }
        }
        Ok(())
    }

    /// Tells that the state has jumped to `index` by a snapshot: entries up to there that were not recorded are a gap.
    pub fn note_restore(&self, index: u64) -> io::Result<()> {
        let mut watermark = self.lock_watermark();
        let from = watermark.map_or(0, |mark| mark + 1);
        if from > index {
            return Ok(());
        }
        let mut batch = Batch::default();
        put_gap(&mut batch, Gap { from, to: index });
        batch.insert(keys::WATERMARK, index.to_be_bytes());
        self.write(batch).map_err(Failure::into_io)?;
        *watermark = Some(index);
        Ok(())
    }

    /// The highest index recorded.
    pub fn watermark(&self) -> Option<u64> {
        *self.lock_watermark()
    }

    /// The lowest index kept: everything below was removed by retention.
    pub fn floor(&self) -> io::Result<u64> {
        Ok(number(&*self.read().rows, keys::FLOOR)?.unwrap_or(0))
    }

    /// Tells an empty history that it begins at an index: what is below was removed before.
    pub fn begin_at(&self, floor: u64) -> io::Result<()> {
        let mut batch = Batch::default();
        batch.insert(keys::FLOOR, floor.to_be_bytes());
        self.write(batch).map_err(Failure::into_io)
    }

    /// Makes everything appended so far survive a power cut. A failure is final.
    pub fn flush_durable(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier sync of history failed; restart this server"));
        }
        let mark = *self.lock_watermark();
        let open = self.read();
        let flushed = (|| {
            if let Some(mark) = mark {
                let mut batch = Batch::default();
                batch.insert(keys::WATERMARK, mark.to_be_bytes());
                open.rows.write(batch).map_err(Failure::into_io)?;
            }
            open.rows.sync().map_err(Failure::into_io)?;
            let Some(dir) = &self.dir else { return Ok(()) };
            let Some(mark) = mark else { return Ok(()) };
            let text = durable_mark(mark);
            muster_runtime::durable::write_atomic(&dir.join(DURABLE_MARK), text.as_bytes()).map_err(io::Error::other)
        })();
        flushed.inspect_err(|_| self.failed.store(true, Ordering::Release))
    }

    /// Records from an index on, in order, at most about `limit` of them: the records of one entry are never parted.
    pub fn read_range(&self, from: u64, limit: usize) -> io::Result<Vec<(u64, Record)>> {
        let open = self.read();
        let rows = open.rows.range(keys::record(from, 0, 0), Bound::Excluded(keys::RECORDS_END.to_vec()));
        Ok(self.collect(rows, limit)?.0)
    }

    /// Shows every record about a job, in order, one at a time: a large array has millions.
    pub fn visit_job(&self, job: u64, mut visit: impl FnMut(u64, &Record) -> io::Result<()>) -> io::Result<()> {
        let open = self.read();
        for row in scan(&*open.rows, &keys::job_prefix(job)) {
            let Some(Key::Job { index, ordinal, .. }) = Key::parse(&row.map_err(Failure::into_io)?.0) else {
                return Err(self.damage("a key of the index by job is malformed"));
            };
            let rows = scan(&*open.rows, &keys::record_prefix(index, ordinal));
            for (index, record) in &self.collect(rows, 1)?.0 {
                visit(*index, record)?;
            }
        }
        Ok(())
    }

    /// Everything recorded about a job, in order.
    #[cfg(test)]
    pub fn job_records(&self, job: u64) -> io::Result<Vec<(u64, Record)>> {
        let mut found = Vec::new();
        self.visit_job(job, |index, record| {
            found.push((index, record.clone()));
            Ok(())
        })?;
        Ok(found)
    }

    /// Removes every record below an index; returns how many records went.
    pub fn delete_below(&self, index: u64) -> io::Result<u64> {
        if index <= self.floor()? {
            return Ok(0);
        }
        let mut removed = 0;
        loop {
            // Readers wait: between two batches, and never inside one, they may look.
            let open = self.open.write().unwrap_or_else(|poisoned| poisoned.into_inner());
            let (count, more) = delete_some(&*open.rows, index).map_err(Failure::into_io)?;
            removed += count;
            if !more {
                return Ok(removed);
            }
        }
    }

    /// Stretches whose records are missing and not yet fetched from another server.
    pub fn gaps(&self) -> io::Result<Vec<Gap>> {
        let open = self.read();
        let mut gaps = Vec::new();
        for row in scan(&*open.rows, &[keys::GAP]) {
            let (key, value) = row.map_err(Failure::into_io)?;
            match (Key::parse(&key), <[u8; 8]>::try_from(&value[..])) {
                (Some(Key::Gap { from }), Ok(to)) => gaps.push(Gap { from, to: u64::from_be_bytes(to) }),
                _ => return Err(self.damage("a gap is malformed")),
            }
        }
        Ok(gaps)
    }

    /// Fills the beginning of a gap: `records` are all there are from its beginning through `upto`.
    pub fn fill(&self, gap: Gap, upto: u64, records: &[(u64, Record)]) -> io::Result<()> {
        if upto < gap.from || records.iter().any(|(index, _)| *index < gap.from || *index > upto) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "records outside the gap they are to fill"));
        }
        let mut batch = Batch::default();
        for (index, record) in records {
            put_records(&mut batch, *index, std::slice::from_ref(record))?;
        }
        batch.remove(keys::gap(gap.from));
        if upto < gap.to {
            put_gap(&mut batch, Gap { from: upto + 1, to: gap.to });
        }
        self.write(batch).map_err(Failure::into_io)
    }

    fn write(&self, batch: Batch) -> Result<(), Failure> {
        self.read().rows.write(batch)
    }

    /// Moves a history that turned out damaged while it was in use aside and begins an empty one.
    fn replace(&self, why: &str) -> io::Result<()> {
        let mut open = self.open.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(dir) = &self.dir {
            *open = begin_anew(dir, why)?;
        }
        Ok(())
    }

    /// Joins the parts of records, up to the limits; tells whether it stopped before the end of `rows`.
    fn collect(
        &self,
        rows: impl Iterator<Item = Result<Row, Failure>>,
        limit: usize,
    ) -> io::Result<(Vec<(u64, Record)>, bool)> {
        let mut found: Vec<(u64, Record)> = Vec::new();
        let (mut bytes, mut whole) = (0, Vec::new());
        let mut pending: Option<(u64, u32, Head)> = None;
        for row in rows {
            let (key, value) = row.map_err(Failure::into_io)?;
            let Some(Key::Record { index, ordinal, part }) = Key::parse(&key) else {
                return Err(self.damage("a record's key is malformed"));
            };
            let full = found.len() >= limit || bytes >= READ_BYTES_MAX;
            if pending.is_none() && full && found.last().is_some_and(|(last, _)| *last != index) {
                return Ok((found, true));
            }
            match (&pending, part) {
                (None, 0) => {
                    let (head, rest) =
                        Head::parse(&value).ok_or_else(|| self.damage("a record's head is malformed"))?;
                    whole = rest.to_vec();
                    pending = Some((index, ordinal, head));
                }
                (Some((of, at, _)), 1..) if (*of, *at) == (index, ordinal) => whole.extend_from_slice(&value),
                _ => return Err(self.damage("a part of a record is missing")),
            }
            if let Some((index, ordinal, head)) = pending.take_if(|(_, _, head)| part + 1 >= head.parts) {
                bytes += whole.len();
                let record =
                    Record { ordinal, kind: head.kind, job: head.job, bytes: std::mem::take(&mut whole).into() };
                found.push((index, record));
            }
        }
        if pending.is_some() {
            return Err(self.damage("the last part of a record is missing"));
        }
        Ok((found, false))
    }

    /// Remembers damage found while reading, so that the next start moves it aside.
    fn damage(&self, why: &str) -> io::Error {
        tracing::error!(dir = ?self.dir, why, "history is damaged; it is rebuilt at the next start");
        let marked = self.dir.as_ref().map_or(Ok(()), |dir| std::fs::write(dir.join(DAMAGE_MARK), why));
        if let Err(error) = marked {
            tracing::error!(%error, "cannot mark the damaged history");
        }
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("history is damaged: {why}; restart this server to rebuild it"),
        )
    }

    fn read(&self) -> RwLockReadGuard<'_, Open> {
        self.open.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lock_watermark(&self) -> MutexGuard<'_, Option<u64>> {
        self.watermark.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn number(rows: &dyn Rows, key: &[u8]) -> io::Result<Option<u64>> {
    let value = rows.get(key).map_err(Failure::into_io)?;
    Ok(value.and_then(|value| Some(u64::from_be_bytes(<[u8; 8]>::try_from(&value[..]).ok()?))))
}

/// Removes about a batch of records below `index`; whole records only. Tells how many, and whether more are left.
fn delete_some(rows: &dyn Rows, index: u64) -> Result<(u64, bool), Failure> {
    let mut batch = Batch::default();
    let (mut removed, mut count) = (0, 0);
    for row in rows.range(keys::record(0, 0, 0), Bound::Excluded(keys::record(index, 0, 0))) {
        let (key, value) = row?;
        if let Some(Key::Record { index, ordinal, part: 0 }) = Key::parse(&key) {
            if count >= DELETE_BATCH {
                rows.write(batch)?;
                return Ok((removed, true));
            }
            removed += 1;
            if let Some(job) = Head::parse(&value).and_then(|(head, _)| head.job) {
                batch.remove(keys::job(job, index, ordinal));
            }
        }
        batch.remove(key);
        count += 1;
    }
    batch.insert(keys::FLOOR, index.to_be_bytes());
    rows.write(batch)?;
    Ok((removed, false))
}

fn put_gap(batch: &mut Batch, gap: Gap) {
    batch.insert(keys::gap(gap.from), gap.to.to_be_bytes());
}

fn put_records(batch: &mut Batch, index: u64, records: &[Record]) -> io::Result<()> {
    for record in records {
        if record.bytes.len() > RECORD_BYTES_MAX {
            let what = format!("a history record of {} bytes; the limit is {RECORD_BYTES_MAX}", record.bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let parts = record.bytes.len().div_ceil(PART_BYTES).max(1);
        let parts = u16::try_from(parts).expect("the largest record has far fewer parts");
        let mut value = Head { kind: record.kind, job: record.job, parts }.encode();
        for part in 0..parts {
            let from = usize::from(part) * PART_BYTES;
            let to = record.bytes.len().min(from + PART_BYTES);
            value.extend_from_slice(&record.bytes[from..to]);
            batch.insert(keys::record(index, record.ordinal, part), std::mem::take(&mut value));
        }
        if let Some(job) = record.job {
            batch.insert(keys::job(job, index, record.ordinal), []);
        }
    }
    Ok(())
}

/// Opens and looks at what a crash could have hurt.
fn open_checked(dir: &Path) -> Result<Open, Failure> {
    muster_runtime::durable::create_folder(dir).map_err(|error| Failure::Io(io::Error::other(error)))?;
    if let Ok(why) = std::fs::read_to_string(dir.join(DAMAGE_MARK)) {
        return Err(Failure::Damage(why));
    }
    // sled panics on some kinds of damage.
    let opened = std::panic::catch_unwind(|| SledRows::open(dir));
    let rows = opened.unwrap_or_else(|_| Err(Failure::Damage("the database cannot be opened".to_owned())))?;
    let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        rows.probe()?;
        rows.get(keys::WATERMARK)
    }));
    let watermark = looked.unwrap_or_else(|_| Err(Failure::Damage("the database cannot be read".to_owned())))?;
    let watermark = watermark.and_then(|value| Some(u64::from_be_bytes(<[u8; 8]>::try_from(&value[..]).ok()?)));
    let durable = read_durable_mark(&dir.join(DURABLE_MARK))?;
    if watermark < durable {
        let why = format!("it ends at {watermark:?}, although it was durable through {durable:?}");
        return Err(Failure::Damage(why));
    }
    Ok(Open { rows: Box::new(rows), moved: None })
}

/// The mark and its checksum, as a line of text.
fn durable_mark(through: u64) -> String {
    format!("{through} {:08x}\n", crc32fast::hash(&through.to_be_bytes()))
}

/// None before the first sync. A mark that is not as it was written tells nothing, and then neither does the database.
fn read_durable_mark(path: &Path) -> Result<Option<u64>, Failure> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::Io(error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let through = text.split(' ').next().and_then(|number| number.parse().ok());
    match through.filter(|through| durable_mark(*through) == text) {
        Some(through) => Ok(Some(through)),
        None => Err(Failure::Damage(format!("{} is not as it was written", path.display()))),
    }
}

fn begin_anew(dir: &Path, why: &str) -> io::Result<Open> {
    let moved = (1u32..)
        .map(|number| dir.with_extension(format!("damaged-{number}")))
        .find(|path| !path.exists())
        .expect("some number is free");
    tracing::error!(dir = %dir.display(), moved = %moved.display(), why, "a damaged history was moved aside");
    std::fs::rename(dir, &moved)?;
    let open = open_checked(dir).map_err(Failure::into_io)?;
    Ok(Open { moved: Some(moved), ..open })
}

#[cfg(test)]
mod tests;
