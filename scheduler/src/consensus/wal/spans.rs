//! Which files still hold entries that are needed, counting only what is durable.

use std::collections::VecDeque;

use super::record::Change;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    segment: u64,
    first: u64,
    last: u64,
}

/// Runs of entries by file, oldest first. Later entries never lie in older files.
#[derive(Debug, Default)]
pub(crate) struct Spans(VecDeque<Span>);

impl Spans {
    /// A change became durable in that file.
    pub(crate) fn apply(&mut self, change: &Change, segment: u64) {
        match change {
            Change::Entry(record) => {
                let index = record.pos.index;
                match self.0.back_mut() {
                    Some(span) if span.segment == segment && span.last + 1 == index => span.last = index,
                    _ => self.0.push_back(Span { segment, first: index, last: index }),
                }
            }
            Change::Truncate(keep) => {
                let end = keep.map_or(0, |pos| pos.index + 1);
                while self.0.back().is_some_and(|span| span.first >= end) {
                    self.0.pop_back();
                }
                if let Some(span) = self.0.back_mut() {
                    span.last = span.last.min(end.saturating_sub(1));
                }
            }
            Change::Purge(upto) => {
                while self.0.front().is_some_and(|span| span.last <= upto.index) {
                    self.0.pop_front();
                }
                if let Some(span) = self.0.front_mut() {
                    span.first = span.first.max(upto.index + 1);
                }
            }
            Change::Vote(_) | Change::Committed(_) => {}
        }
    }

    /// The oldest file that holds an entry still needed.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.0.front().map(|span| span.segment)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::consensus::engine::Record;
    use crate::consensus::types::LogPos;

    #[test]
    fn a_file_is_needed_until_its_entries_are_purged_or_truncated() {
        let pos = |index| LogPos { term: 1, index };
        let entry = |index| Change::Entry(Record { pos: pos(index), body: Bytes::new() });
        let mut spans = Spans::default();
        for index in 0..30 {
            spans.apply(&entry(index), 1 + index / 10);
        }
        assert_eq!(spans.oldest(), Some(1));
        spans.apply(&Change::Purge(pos(8)), 3);
        assert_eq!(spans.oldest(), Some(1));
        spans.apply(&Change::Purge(pos(9)), 3);
        assert_eq!(spans.oldest(), Some(2));
        spans.apply(&Change::Truncate(Some(pos(14))), 3);
        spans.apply(&entry(15), 4);
        spans.apply(&Change::Purge(pos(14)), 4);
        assert_eq!(spans.oldest(), Some(4));
        spans.apply(&Change::Truncate(None), 4);
        assert_eq!(spans.oldest(), None);
    }
}
