//! Handing history to a server that lacks some of it.

use std::io;
use std::ops::Bound;

use super::{HistoryStore, Record, keys};

/// Records for another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// All there are from the asked index through `through`.
    pub records: Vec<(u64, Record)>,
    /// The last index they cover.
    pub through: u64,
}

impl HistoryStore {
    /// The records of `from..=to`, or of the beginning of that stretch. None if this history does not have `from`
    /// itself: not recorded yet, or missing here as well.
    pub fn page(&self, from: u64, to: u64, limit: usize) -> io::Result<Option<Page>> {
        let Some(watermark) = self.watermark().filter(|mark| *mark >= from) else {
            return Ok(None);
        };
        let mut to = to.min(watermark);
        for gap in self.gaps()? {
            if gap.from <= from && from <= gap.to {
                return Ok(None);
            }
            if gap.from > from {
                to = to.min(gap.from - 1);
            }
        }
        if to < from {
            return Ok(None);
        }
        let open = self.read();
        let rows = open.rows.range(keys::record(from, 0, 0), Bound::Included(keys::record(to, u32::MAX, u16::MAX)));
        let (records, cut) = self.collect(rows, limit)?;
        let through = match records.last() {
            Some((last, _)) if cut => *last,
            _ => to,
        };
        Ok(Some(Page { records, through }))
    }
}
