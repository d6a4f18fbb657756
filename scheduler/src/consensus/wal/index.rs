//! Where each entry is: in memory while it is young, on disk once it is written.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::record::Change;
use super::sector::{self, DATA_BYTES, SECTOR_BYTES, Sector};
use crate::consensus::engine::{EngineState, Record};
use crate::consensus::types::LogPos;

/// Where an entry's body lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub segment: u64,
    pub batch: u64,
    /// Of the batch's first sector in the file.
    pub offset: u64,
    /// Of the body in the batch's payload.
    pub body: usize,
}

struct Slot {
    pos: LogPos,
    length: usize,
    body: Option<Bytes>,
    place: Option<Place>,
}

/// The entries that are not purged, in order and without holes.
pub(crate) struct Index {
    pub state: EngineState,
    slots: VecDeque<Slot>,
    /// How many slots at the front have given their body up.
    forgotten: usize,
    cached_bytes: usize,
    cache_bytes_max: usize,
    files: BTreeMap<u64, Arc<File>>,
}

/// An entry found: its body, or where to read it.
pub(crate) enum Found {
    Here(Record),
    There { pos: LogPos, length: usize, place: Place, file: Arc<File> },
}

impl Index {
    pub(crate) fn new(cache_bytes_max: usize) -> Self {
        Index {
            state: EngineState::default(),
            slots: VecDeque::new(),
            forgotten: 0,
            cached_bytes: 0,
            cache_bytes_max,
            files: BTreeMap::new(),
        }
    }

    /// Takes a change in; an entry's place may be told later.
    pub(crate) fn apply(&mut self, change: &Change, place: Option<Place>) {
        match change {
            Change::Entry(record) => {
                let (pos, length) = (record.pos, record.body.len());
                self.slots.push_back(Slot { pos, length, body: Some(record.body.clone()), place });
                self.cached_bytes += length;
                self.forget();
            }
            Change::Truncate(keep) => {
                let keep = keep.map_or(0, |pos| pos.index + 1);
                while self.slots.back().is_some_and(|slot| slot.pos.index >= keep) {
                    let gone = self.slots.pop_back().and_then(|slot| slot.body);
                    self.cached_bytes -= gone.map_or(0, |body| body.len());
                }
                self.forgotten = self.forgotten.min(self.slots.len());
            }
            Change::Purge(upto) => {
                while self.slots.front().is_some_and(|slot| slot.pos.index <= upto.index) {
                    let gone = self.slots.pop_front().and_then(|slot| slot.body);
                    self.cached_bytes -= gone.map_or(0, |body| body.len());
                    self.forgotten = self.forgotten.saturating_sub(1);
                }
            }
            Change::Vote(_) | Change::Committed(_) => {}
        }
        change.apply(&mut self.state);
    }

    /// An entry has been written. It may have been truncated or purged meanwhile.
    pub(crate) fn placed(&mut self, pos: LogPos, place: Place) {
        if let Some(slot) = self.at(pos.index).and_then(|at| self.slots.get_mut(at))
            && slot.pos == pos
        {
            slot.place = Some(place);
        }
    }

    /// Drops the oldest bodies that can be read from disk, down to the limit.
    pub(crate) fn forget(&mut self) {
        while self.cached_bytes > self.cache_bytes_max {
            let Some(slot) = self.slots.get_mut(self.forgotten).filter(|slot| slot.place.is_some()) else { return };
            self.cached_bytes -= slot.body.take().map_or(0, |body| body.len());
            self.forgotten += 1;
        }
    }

    pub(crate) fn has_file(&mut self, segment: u64, file: Arc<File>) {
        self.files.insert(segment, file);
    }

    pub(crate) fn lost_file(&mut self, segment: u64) {
        self.files.remove(&segment);
    }

    /// The first entry that is there.
    pub(crate) fn first(&self) -> Option<LogPos> {
        self.slots.front().map(|slot| slot.pos)
    }

    /// Entries of `[from, to)` until `max_bytes` of bodies are found; at least one, if there is one.
    pub(crate) fn find(&self, from: u64, to: u64, max_bytes: usize) -> Vec<Found> {
        let Some(first) = self.first() else { return Vec::new() };
        let mut found = Vec::new();
        let mut bytes: usize = 0;
        let skip = usize::try_from(from.saturating_sub(first.index)).unwrap_or(usize::MAX);
        for slot in self.slots.iter().skip(skip).take_while(|slot| slot.pos.index < to) {
            found.push(self.found(slot));
            bytes = bytes.saturating_add(slot.length.max(1));
            if bytes >= max_bytes {
                break;
            }
        }
        found
    }

    fn found(&self, slot: &Slot) -> Found {
        if let Some(body) = &slot.body {
            return Found::Here(Record { pos: slot.pos, body: body.clone() });
        }
        let place = slot.place.expect("a body is only given up once it is written");
        let file = self.files.get(&place.segment).expect("a file goes only after its entries").clone();
        Found::There { pos: slot.pos, length: slot.length, place, file }
    }

    fn at(&self, index: u64) -> Option<usize> {
        let first = self.first()?.index;
        usize::try_from(index.checked_sub(first)?).ok()
    }
}

impl Found {
    /// The entry, read from disk if it must be.
    pub(crate) fn read(self) -> io::Result<Record> {
        match self {
            Found::Here(record) => Ok(record),
            Found::There { pos, length, place, file } => {
                Ok(Record { pos, body: read_body(&file, place, length)?.into() })
            }
        }
    }
}

fn read_body(file: &File, place: Place, length: usize) -> io::Result<Vec<u8>> {
    let (first, end) = (place.body / DATA_BYTES, (place.body + length).div_ceil(DATA_BYTES));
    let mut bytes = vec![0; (end - first) * SECTOR_BYTES];
    file.read_exact_at(&mut bytes, place.offset + (first * SECTOR_BYTES) as u64)?;
    let mut payload = Vec::with_capacity((end - first) * DATA_BYTES);
    for (at, bytes) in bytes.chunks_exact(SECTOR_BYTES).enumerate() {
        match sector::read(place.segment, bytes) {
            Sector::Written { batch, ordinal, data, .. }
                if batch == place.batch && usize::from(ordinal) == first + at =>
            {
                payload.extend_from_slice(data);
            }
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a sector of the log is damaged")),
        }
    }
    let from = place.body - first * DATA_BYTES;
    payload.drain(..from);
    payload.truncate(length);
    if payload.len() < length {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a batch of the log is shorter than its entries"));
    }
    Ok(payload)
}
