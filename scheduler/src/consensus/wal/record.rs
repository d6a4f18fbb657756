//! What a batch is made of: the changes of vote and log, in the order in which they were asked for.
//!
//! `kind(1)` and then, little-endian: vote: `term(8) server(8) committed(1)`; entry: `term(8) index(8) length(4) body`;
//! truncate: `any(1) term(8) index(8)`; purge and committed: `term(8) index(8)`.

use bytes::Bytes;

use super::sector::{le_u32, le_u64};
use crate::consensus::engine::{EngineState, Record};
use crate::consensus::types::{LogPos, SavedVote};

const VOTE: u8 = 1;
const ENTRY: u8 = 2;
const TRUNCATE: u8 = 3;
const PURGE: u8 = 4;
const COMMITTED: u8 = 5;
/// Bytes of an entry before its body.
const ENTRY_HEAD_BYTES: usize = 1 + 8 + 8 + 4;
/// A body longer than this is damage: no caller may append one.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Vote(SavedVote),
    Entry(Record),
    /// Everything after this position goes; all of it for `None`.
    Truncate(Option<LogPos>),
    Purge(LogPos),
    Committed(LogPos),
}

impl Change {
    /// Bytes that [`Change::write`] adds.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Change::Vote(_) | Change::Truncate(_) => 18,
            Change::Entry(record) => ENTRY_HEAD_BYTES + record.body.len(),
            Change::Purge(_) | Change::Committed(_) => 17,
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Change::Vote(vote) => {
                out.push(VOTE);
                out.extend_from_slice(&vote.term.to_le_bytes());
                out.extend_from_slice(&vote.server.to_le_bytes());
                out.push(u8::from(vote.committed));
            }
            Change::Entry(record) => {
                out.push(ENTRY);
                write_pos(record.pos, out);
                out.extend_from_slice(&(record.body.len() as u32).to_le_bytes());
                out.extend_from_slice(&record.body);
            }
            Change::Truncate(keep) => {
                out.push(TRUNCATE);
                out.push(u8::from(keep.is_some()));
                write_pos(keep.unwrap_or_default(), out);
            }
            Change::Purge(upto) => {
                out.push(PURGE);
                write_pos(*upto, out);
            }
            Change::Committed(upto) => {
                out.push(COMMITTED);
                write_pos(*upto, out);
            }
        }
    }

    /// What the engine remembers besides the entries, after this change.
    pub(crate) fn apply(&self, state: &mut EngineState) {
        match self {
            Change::Vote(vote) => state.vote = Some(*vote),
            Change::Entry(record) => state.last = Some(record.pos),
            Change::Truncate(keep) => state.last = (*keep).max(state.purged),
            Change::Purge(upto) => {
                state.purged = state.purged.max(Some(*upto));
                state.last = state.last.max(Some(*upto));
            }
            Change::Committed(upto) => state.committed = Some(*upto),
        }
    }
}

/// Why a batch cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    Malformed,
    /// A change of a kind that only a later build knows.
    Newer(u8),
}

/// Reads the changes of one batch; with each, where in the payload its body begins (0 unless it is an entry).
pub(crate) fn read_all(payload: &Bytes) -> Result<Vec<(Change, usize)>, Unread> {
    let mut changes = Vec::new();
    let mut at = 0;
    while at < payload.len() {
        if payload[at] > COMMITTED {
            return Err(Unread::Newer(payload[at]));
        }
        let (change, next) = read_one(payload, at).ok_or(Unread::Malformed)?;
        let body = if matches!(change, Change::Entry(_)) { at + ENTRY_HEAD_BYTES } else { 0 };
        changes.push((change, body));
        at = next;
    }
    Ok(changes)
}

fn read_one(payload: &Bytes, at: usize) -> Option<(Change, usize)> {
    let rest = &payload[at..];
    let (&kind, fields) = rest.split_first()?;
    Some(match kind {
        VOTE => {
            let fields = fields.get(..17)?;
            let committed = match fields[16] {
                0 => false,
                1 => true,
                _ => return None,
            };
            let vote = SavedVote { term: le_u64(fields), server: le_u64(&fields[8..]), committed };
            (Change::Vote(vote), at + 18)
        }
        ENTRY => {
            let fields = fields.get(..ENTRY_HEAD_BYTES - 1)?;
            let length = le_u32(&fields[16..]) as usize;
            let body = at + ENTRY_HEAD_BYTES;
            if length > BODY_BYTES_MAX || payload.len() - body < length {
                return None;
            }
            let record = Record { pos: read_pos(fields), body: payload.slice(body..body + length) };
            (Change::Entry(record), body + length)
        }
        TRUNCATE => {
            let fields = fields.get(..17)?;
            let keep = match fields[0] {
                0 if fields[1..].iter().all(|byte| *byte == 0) => None,
                1 => Some(read_pos(&fields[1..])),
                _ => return None,
            };
            (Change::Truncate(keep), at + 18)
        }
        PURGE => (Change::Purge(read_pos(fields.get(..16)?)), at + 17),
        COMMITTED => (Change::Committed(read_pos(fields.get(..16)?)), at + 17),
        _ => return None,
    })
}

fn write_pos(pos: LogPos, out: &mut Vec<u8>) {
    out.extend_from_slice(&pos.term.to_le_bytes());
    out.extend_from_slice(&pos.index.to_le_bytes());
}

fn read_pos(fields: &[u8]) -> LogPos {
    LogPos { term: le_u64(fields), index: le_u64(&fields[8..]) }
}

/// Where the body of the entry written at `at` of a payload begins.
pub(crate) fn body_at(at: usize) -> usize {
    at + ENTRY_HEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_read_back_and_cut_ones_do_not() {
        let pos = LogPos { term: 3, index: 9 };
        let changes = [
            Change::Vote(SavedVote { term: 3, committed: true, server: 2 }),
            Change::Entry(Record { pos, body: Bytes::from_static(b"body") }),
            Change::Truncate(None),
            Change::Truncate(Some(pos)),
            Change::Purge(pos),
            Change::Committed(pos),
        ];
        let mut payload = Vec::new();
        for change in &changes {
            let before = payload.len();
            change.write(&mut payload);
            assert_eq!(payload.len() - before, change.bytes());
        }
        let payload = Bytes::from(payload);
        let back = read_all(&payload).unwrap();
        assert_eq!(back.iter().map(|(change, _)| change.clone()).collect::<Vec<_>>(), changes);
        assert_eq!(&payload[back[1].1..back[1].1 + 4], b"body");
        let ends: Vec<usize> = changes
            .iter()
            .scan(0, |at, change| {
                Some({
                    *at += change.bytes();
                    *at
                })
            })
            .collect();
        for cut in 0..payload.len() {
            assert_eq!(read_all(&payload.slice(..cut)).is_ok(), cut == 0 || ends.contains(&cut), "cut at {cut}");
        }
        assert_eq!(read_all(&Bytes::from_static(b"\x09")), Err(Unread::Newer(9)));
        assert_eq!(read_all(&Bytes::from_static(b"\x00")), Err(Unread::Malformed));
        let mut two_ways = vec![TRUNCATE];
        two_ways.extend([0; 16]);
        two_ways.push(1);
        assert!(read_all(&Bytes::from(two_ways)).is_err(), "nothing kept, and yet a position");
    }
}
