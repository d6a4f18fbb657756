//! The keys of the history database, and the head of a record.

pub(super) const WATERMARK: &[u8] = b"mwatermark";
pub(super) const FLOOR: &[u8] = b"mfloor";
pub(super) const GAP: u8 = b'g';
const RECORD: u8 = b'r';
const JOB: u8 = b'j';
/// Behind the last possible record.
pub(super) const RECORDS_END: &[u8] = &[RECORD + 1];
const HEAD_VERSION: u8 = 1;
const HEAD_BYTES: usize = 13;

pub(super) fn record(index: u64, ordinal: u32, part: u16) -> Vec<u8> {
    let mut key = record_prefix(index, ordinal);
    key.extend(part.to_be_bytes());
    key
}

pub(super) fn record_prefix(index: u64, ordinal: u32) -> Vec<u8> {
    let mut key = vec![RECORD];
    key.extend(index.to_be_bytes());
    key.extend(ordinal.to_be_bytes());
    key
}

pub(super) fn job(job: u64, index: u64, ordinal: u32) -> Vec<u8> {
    let mut key = job_prefix(job);
    key.extend(index.to_be_bytes());
    key.extend(ordinal.to_be_bytes());
    key
}

pub(super) fn job_prefix(job: u64) -> Vec<u8> {
    let mut key = vec![JOB];
    key.extend(job.to_be_bytes());
    key
}

pub(super) fn gap(from: u64) -> Vec<u8> {
    let mut key = vec![GAP];
    key.extend(from.to_be_bytes());
    key
}

/// A key read back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    Record { index: u64, ordinal: u32, part: u16 },
    Job { job: u64, index: u64, ordinal: u32 },
    Gap { from: u64 },
}

impl Key {
    pub(super) fn parse(key: &[u8]) -> Option<Key> {
        let (&kind, rest) = key.split_first()?;
        let u64_at = |at: usize| Some(u64::from_be_bytes(rest.get(at..at + 8)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_be_bytes(rest.get(at..at + 4)?.try_into().ok()?));
        match (kind, rest.len()) {
            (RECORD, 14) => {
                let part = u16::from_be_bytes([rest[12], rest[13]]);
                Some(Key::Record { index: u64_at(0)?, ordinal: u32_at(8)?, part })
            }
            (JOB, 20) => Some(Key::Job { job: u64_at(0)?, index: u64_at(8)?, ordinal: u32_at(16)? }),
            (GAP, 8) => Some(Key::Gap { from: u64_at(0)? }),
            _ => None,
        }
    }
}

/// What stands before the bytes of a record, in its first part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) job: Option<u64>,
    pub(super) parts: u16,
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![HEAD_VERSION, self.kind, u8::from(self.job.is_some())];
        bytes.extend(self.job.unwrap_or(0).to_be_bytes());
        bytes.extend(self.parts.to_be_bytes());
        bytes
    }

    pub(super) fn parse(value: &[u8]) -> Option<(Head, &[u8])> {
        let (head, rest) = value.split_at_checked(HEAD_BYTES)?;
        let job = u64::from_be_bytes(head[3..11].try_into().ok()?);
        let job = match head[2] {
            0 => None,
            1 => Some(job),
            _ => return None,
        };
        let parts = u16::from_be_bytes([head[11], head[12]]);
        (head[0] == HEAD_VERSION && parts > 0).then_some((Head { kind: head[1], job, parts }, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_heads_read_back_and_keep_their_bytes() {
        assert_eq!(record(1, 2, 3), b"r\0\0\0\0\0\0\0\x01\0\0\0\x02\0\x03");
        assert_eq!(Key::parse(&record(1, 2, 3)), Some(Key::Record { index: 1, ordinal: 2, part: 3 }));
        assert_eq!(Key::parse(&job(9, 1, 2)), Some(Key::Job { job: 9, index: 1, ordinal: 2 }));
        assert_eq!(Key::parse(&gap(7)), Some(Key::Gap { from: 7 }));
        assert_eq!(Key::parse(b"r"), None);
        assert_eq!(Key::parse(WATERMARK), None);
        let head = Head { kind: 4, job: Some(258), parts: 1 };
        let mut bytes = head.encode();
        assert_eq!(bytes, b"\x01\x04\x01\0\0\0\0\0\0\x01\x02\0\x01");
        bytes.extend(b"rest");
        assert_eq!(Head::parse(&bytes), Some((head, &b"rest"[..])));
        assert_eq!(Head::parse(&bytes[..12]), None);
    }
}
