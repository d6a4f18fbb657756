//! The format of a log entry's body, on disk and on the wire.
//!
//! `version(1) kind(1)` and then, by kind: blank: nothing; normal: `in_term` as 8 bytes big-endian and the machine's
//! bytes to the end; membership: postcard.

use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;

use super::engine::Record;
use super::types::{Entry, LogPos, Payload};

const VERSION: u8 = 1;
const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;
/// Bytes a normal entry's body has beyond the machine's.
pub(crate) const NORMAL_HEAD_BYTES: usize = 10;

/// A body this program cannot read: written by a newer version, or damaged in a way no checksum saw.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("log entry {pos} cannot be decoded: {why}; run the version of muster that wrote it")]
pub struct EntryError {
    /// The entry.
    pub pos: LogPos,
    /// What is wrong with it.
    pub why: String,
}

impl From<EntryError> for std::io::Error {
    fn from(error: EntryError) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

pub(crate) fn encode(entry: &Entry) -> Record {
    let mut body = BytesMut::new();
    body.put_u8(VERSION);
    match &entry.payload {
        EntryPayload::Blank => body.put_u8(BLANK),
        EntryPayload::Normal(payload) => {
            body.reserve(NORMAL_HEAD_BYTES + payload.bytes.len());
            body.put_u8(NORMAL);
            body.put_u64(payload.in_term);
            body.put_slice(&payload.bytes);
        }
        EntryPayload::Membership(membership) => {
            body.put_u8(MEMBERSHIP);
            let bytes = postcard::to_stdvec(membership).expect("a membership of numbers and strings always encodes");
            body.put_slice(&bytes);
        }
    }
    Record { pos: LogPos::of(&entry.log_id), body: body.freeze() }
}

pub(crate) fn decode(record: &Record) -> Result<Entry, EntryError> {
    let bad = |why: &str| EntryError { pos: record.pos, why: why.to_owned() };
    let body = &record.body;
    let (&version, &kind) = match (body.first(), body.get(1)) {
        (Some(version), Some(kind)) => (version, kind),
        _ => return Err(bad("it is shorter than its head")),
    };
    if version != VERSION {
        return Err(bad(&format!("version {version} is not {VERSION}")));
    }
    let payload = match kind {
        BLANK => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(decode_normal(body).ok_or_else(|| bad("its term is cut off"))?),
        MEMBERSHIP => {
            let membership = postcard::from_bytes(&body[2..]).map_err(|error| bad(&error.to_string()))?;
            EntryPayload::Membership(membership)
        }
        other => return Err(bad(&format!("kind {other} is unknown"))),
    };
    Ok(Entry { log_id: record.pos.log_id(), payload })
}

fn decode_normal(body: &Bytes) -> Option<Payload> {
    let term: [u8; 8] = body.get(2..NORMAL_HEAD_BYTES)?.try_into().ok()?;
    Some(Payload { in_term: u64::from_be_bytes(term), bytes: body.slice(NORMAL_HEAD_BYTES..) })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::Membership;

    use super::*;
    use crate::consensus::types::Member;

    fn at(payload: EntryPayload<Payload, u64, Member>) -> Entry {
        Entry { log_id: LogPos { term: 3, index: 7 }.log_id(), payload }
    }

    #[test]
    fn bodies_keep_their_bytes() {
        let normal = at(EntryPayload::Normal(Payload { in_term: 258, bytes: Bytes::from_static(b"hi") }));
        assert_eq!(&encode(&normal).body[..], b"\x01\x01\0\0\0\0\0\0\x01\x02hi");
        assert_eq!(&encode(&at(EntryPayload::Blank)).body[..], b"\x01\x00");
        let nodes = BTreeMap::from([(1, Member { name: "a".into(), addr: "a:1".into() })]);
        let membership = Membership::new(vec![BTreeSet::from([1])], nodes).unwrap();
        let body = encode(&at(EntryPayload::Membership(membership))).body;
        assert_eq!(&body[..], b"\x01\x02\x01\x01\x01\x01\x01\x01a\x03a:1");
    }

    #[test]
    fn bodies_read_back() {
        for payload in
            [EntryPayload::Blank, EntryPayload::Normal(Payload { in_term: 0, bytes: Bytes::from_static(b"x") })]
        {
            let entry = at(payload);
            let back = decode(&encode(&entry)).unwrap();
            assert_eq!(format!("{back:?}"), format!("{entry:?}"));
        }
    }

    #[test]
    fn unknown_bodies_are_refused() {
        for body in [&b""[..], b"\x01", b"\x02\x00", b"\x01\x09", b"\x01\x01\0\0", b"\x01\x02\xff"] {
            let record = Record { pos: LogPos { term: 1, index: 2 }, body: Bytes::copy_from_slice(body) };
            assert!(decode(&record).is_err(), "{body:?} was accepted");
        }
    }
}
