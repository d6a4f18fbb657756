//! History from its end: the newest first, a page at a time.

use super::keys::{self, Head, Key};
use super::rows::Failure;
use super::{HistoryStore, READ_BYTES_MAX, Record};
use std::io;
use std::ops::Bound;

/// A place in history: log index, and the place among the records of that entry.
pub type Place = (u64, u32);

impl HistoryStore {
    /// Records before a place, the newest first: at most `limit`, and none more once a page holds four MiB. The records of
    /// an entry may be parted; where the last one stands is where to go on. None at all: there are no more.
    ///
    /// # Errors
    /// The disk's, and damage that was found.
    pub fn read_back(&self, before: Place, limit: usize) -> io::Result<Vec<(u64, Record)>> {
        let floor = self.floor()?;
        if before <= (floor, 0) {
            return Ok(Vec::new());
        }
        // Let go between two pages: retention waits for readers, and writers wait for retention.
        let open = self.read();
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut parts = Parts::default();
        for row in open.rows.range_back(keys::record(floor, 0, 0), keys::record(before.0, before.1, 0)) {
            let (key, value) = row.map_err(Failure::into_io)?;
            let Some(record) = parts.take(&key, value).map_err(|why| self.damage(why))? else { continue };
            bytes += record.1.bytes.len();
            found.push(record);
            if found.len() >= limit || bytes >= READ_BYTES_MAX {
                return Ok(found);
            }
        }
        match parts.values.is_empty() {
            true => Ok(found),
            false => Err(self.damage("the first part of a record is missing")),
        }
    }

    /// As [`HistoryStore::read_back`], of the records about one job.
    ///
    /// # Errors
    /// The disk's, and damage that was found.
    pub fn job_back(&self, job: u64, before: Place, limit: usize) -> io::Result<Vec<(u64, Record)>> {
        let open = self.read();
        let (mut found, mut bytes) = (Vec::new(), 0);
        for row in open.rows.range_back(keys::job_prefix(job), keys::job(job, before.0, before.1)) {
            let Some(Key::Job { index, ordinal, .. }) = Key::parse(&row.map_err(Failure::into_io)?.0) else {
                return Err(self.damage("a key of the index by job is malformed"));
            };
            let last_part = Bound::Included(keys::record(index, ordinal, u16::MAX));
            let parts = open.rows.range(keys::record(index, ordinal, 0), last_part);
            for record in self.collect(parts, 1)?.0 {
                bytes += record.1.bytes.len();
                found.push(record);
            }
            if found.len() >= limit || bytes >= READ_BYTES_MAX {
                break;
            }
        }
        Ok(found)
    }
}

/// The parts of one record as they come, the last one first.
#[derive(Default)]
struct Parts {
    values: Vec<Vec<u8>>,
    /// Which record, and its part that came last.
    of: Option<(Place, u16)>,
}

impl Parts {
    /// Another part; the whole record with its first one. Fails with what is damaged.
    fn take(&mut self, key: &[u8], value: Vec<u8>) -> Result<Option<(u64, Record)>, &'static str> {
        let Some(Key::Record { index, ordinal, part }) = Key::parse(key) else {
            return Err("a record's key is malformed");
        };
        let place = (index, ordinal);
        if self.of.is_some_and(|(of, later)| of != place || part.checked_add(1) != Some(later)) {
            return Err("a part of a record is missing");
        }
        self.values.push(value);
        if part > 0 {
            self.of = Some((place, part));
            return Ok(None);
        }
        self.of = None;
        let values = std::mem::take(&mut self.values);
        let first = values.last().map_or(&[][..], Vec::as_slice);
        let (head, rest) = Head::parse(first).ok_or("a record's head is malformed")?;
        if usize::from(head.parts) != values.len() {
            return Err("the last part of a record is missing");
        }
        let mut whole = rest.to_vec();
        values.iter().rev().skip(1).for_each(|value| whole.extend_from_slice(value));
        Ok(Some((index, Record { ordinal, kind: head.kind, job: head.job, bytes: whole.into() })))
    }
}
