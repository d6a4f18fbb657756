//! The private decoders of this crate, from bytes, for the fuzz targets. True: the bytes meant something.
//!
//! Generic decoders have a plain form here: generic code is compiled, and its coverage counted, where it is used.

use crate::config::ServerConfig;
use crate::decisions::{self, Chapter, Chapters};
use crate::history::Record;
use crate::machine::Proposal;
use crate::{gateway, records};
use bytes::Bytes;
use muster_proto::agent::AgentMessage;
use muster_runtime::config::{self, ConfigError};
use prost::Message;
use std::path::Path;

pub use crate::consensus::fuzz::{log_entry, peer_message, snapshot, wal_batch, wal_laid_out, wal_sectors};

/// A job file as a client sends it: JSON.
pub fn job_file(json: &str) -> Option<(muster_common::job::Scheduling, muster_common::job::Launch)> {
    gateway::fuzz::job_file(json)
}

/// Where a page of a list begins; what is taken must read back from what it prints.
pub fn list_page(text: &str) -> bool {
    gateway::fuzz::list_page(text)
}

/// One record of the history.
pub fn history_record(kind: u8, bytes: &[u8]) -> bool {
    let record = Record { ordinal: 0, kind, job: None, bytes: Bytes::copy_from_slice(bytes) };
    let Ok(recorded) = records::decode(1, &record) else { return false };
    let again = records::encode(recorded.at, std::slice::from_ref(&recorded.event)).expect("what was read is written");
    let back = records::decode(1, &again[0]).expect("what was written is read");
    assert_eq!(back.event, recorded.event, "a record changed between two readings");
    true
}

/// The checksum of a snapshot's head.
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// The checksum of a snapshot.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

/// The first of several proposals without their format bytes, and the rest.
pub fn take_proposal(bytes: &[u8]) -> Option<(Proposal, &[u8])> {
    postcard::take_from_bytes(bytes).ok()
}

/// A decision log's file, of parts that are framed as they should be.
pub fn decision_file(parts: &[(u8, Vec<u8>)]) -> Vec<u8> {
    decisions::file_of(parts)
}

/// What a decision log's file holds; of the newest one a crash may have cut off the end.
pub fn decision_log(path: &Path, newest: bool, show: &mut dyn FnMut(Chapter)) {
    let mut chapters = Chapters::default();
    let read = decisions::each_part(path, newest, |kind, payload| {
        chapters.part(kind, payload, show);
        Ok(())
    });
    read.expect("the receiver takes everything");
}

/// As States and entries are compressed.
pub fn packed(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory")
}

/// The opposite.
pub fn unpacked(bytes: &[u8]) -> Option<Vec<u8>> {
    crate::framed::unpacked(bytes, 64 << 20)
}

/// What an agent sends.
pub fn agent_message(bytes: &[u8]) -> Option<AgentMessage> {
    AgentMessage::decode(bytes).ok()
}

/// `server.toml`.
pub fn server_config(text: &str) -> Result<ServerConfig, ConfigError> {
    config::parse("server.toml", text)
}
