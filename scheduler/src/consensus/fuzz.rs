//! The decoders of consensus for the fuzz targets. True: the bytes meant something.

use std::path::Path;

use bytes::Bytes;
use muster_proto::peer as pb;
use prost::Message;

use super::engine::{EngineState, Record};
use super::snapshot::SnapshotFile;
use super::types::LogPos;
use super::wal::{record, sector};
use super::{entry, wire};

/// The body of a log entry.
pub fn log_entry(body: &[u8]) -> bool {
    let record = Record { pos: LogPos { term: 1, index: 1 }, body: Bytes::copy_from_slice(body) };
    let Ok(entry) = entry::decode(&record) else { return false };
    let again = entry::encode(&entry);
    let back = entry::decode(&again).expect("what was written is read");
    assert_eq!(format!("{back:?}"), format!("{entry:?}"), "an entry changed between two readings");
    true
}

/// A message of another server; `kind` picks which.
pub fn peer_message(kind: u8, bytes: &[u8]) -> bool {
    fn read<M: Message + Default, T>(bytes: &[u8], back: impl Fn(M) -> Result<T, tonic::Status>) -> bool {
        M::decode(bytes).is_ok_and(|message| back(message).is_ok())
    }
    match kind % 7 {
        0 => read(bytes, wire::append_back),
        1 => read(bytes, wire::vote_request_back),
        2 => read(bytes, wire::vote_reply_back),
        3 => read(bytes, wire::append_reply_back),
        4 => read(bytes, wire::transfer_back),
        5 => read(bytes, wire::history_record_back),
        _ => read(bytes, |message: pb::SnapshotPart| Ok(message)),
    }
}

/// A snapshot file.
pub fn snapshot(path: &Path) -> bool {
    let Ok(snapshot) = SnapshotFile::open(path) else { return false };
    let meta = snapshot.meta().is_ok();
    snapshot.state().is_ok() && meta
}

/// The payload of one batch of the write-ahead log.
pub fn wal_batch(payload: &[u8]) -> bool {
    let Ok(changes) = record::read_all(&Bytes::copy_from_slice(payload)) else { return false };
    let (mut again, mut state) = (Vec::new(), EngineState::default());
    for (change, _) in &changes {
        change.write(&mut again);
        change.apply(&mut state);
    }
    assert_eq!(again, payload, "two batches hold the same changes");
    true
}

/// A segment of the write-ahead log, sector by sector; how many of them prove to be whole.
pub fn wal_sectors(segment: u64, bytes: &[u8]) -> usize {
    let written = |bytes: &&[u8]| matches!(sector::read(segment, bytes), sector::Sector::Written { .. });
    bytes.chunks_exact(sector::SECTOR_BYTES).filter(written).count()
}

/// A batch as it lies on disk.
pub fn wal_laid_out(segment: u64, batch: u64, payload: &[u8]) -> Vec<u8> {
    sector::lay_out(segment, batch, payload)
}
