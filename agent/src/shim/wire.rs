//! What passes between an agent and its shims: files in the allocation's folder and length-prefixed
//! JSON frames on its socket. Versioned, because a shim outlives the agent that started it.
//!
//! The files are whole or absent and are not synced: they speak of processes of this boot to readers in this boot. A power
//! cut ends the processes, and the next agent goes by its own store, which names the boot (`core/startup.rs`), and opens
//! none of these files. What was promised to a server is in that store, synced.

use super::machine::{Failure, Machine, Phase, RankExit};
use muster_common::job::LogLimits;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// Both sides refuse another version.
pub const VERSION: u32 = 1;
/// The largest frame, and the largest of the JSON files.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Set in the environment of a shim and everything below it, so that a sweep finds them.
pub const MARKER: &str = "MUSTER_SHIM";

pub const SPEC_FILE: &str = "spec.json";
pub const IDENTITY_FILE: &str = "shim.json";
pub const LEASE_FILE: &str = "lease.json";
pub const RELEASED_FILE: &str = "released.json";
pub const LOCK_FILE: &str = "shim.lock";
pub const SOCKET_FILE: &str = "shim.sock";

/// The record of one rank's end.
pub fn exit_file(rank: u32) -> String {
    format!("exit-{rank}.json")
}

/// All a shim needs; written by the agent before the shim starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    pub version: u32,
    /// Value of [`MARKER`].
    pub marker: String,
    /// The boot in which `deadline_ms` means anything.
    pub boot_id: String,
    /// First end of the lease, boot time in ms.
    pub deadline_ms: u64,
    pub log_dir: PathBuf,
    pub logs: LogLimits,
    /// Made when missing only if `make_workdir`.
    pub workdir: PathBuf,
    pub make_workdir: bool,
    pub argv: Vec<String>,
    /// Of every rank.
    pub env: BTreeMap<String, String>,
    /// In rank order.
    pub ranks: Vec<RankSpec>,
    /// Try to put the ranks into a PID namespace of their own.
    pub pid_namespace: bool,
}

/// What differs from rank to rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankSpec {
    pub rank: u32,
    pub env: BTreeMap<String, String>,
}

/// The persisted end of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub boot_id: String,
    pub deadline_ms: u64,
}

/// The evidence that nothing of the allocation runs any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    pub lease_expired: bool,
    pub failure: Option<Failure>,
    pub exits: Vec<RankExit>,
}

/// From the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    Status,
    Go,
    Stop { signal: Option<i32>, grace_ms: u64 },
    Extend { deadline_ms: u64 },
}

/// From the shim: once on connection, after every change, and as the answer to `Status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub phase: Phase,
    pub deadline_ms: u64,
    pub spawned: bool,
    pub lease_expired: bool,
    pub failure: Option<Failure>,
    pub exits: Vec<RankExit>,
    /// True when ranks could outlive a killed shim.
    pub weak_fencing: bool,
}

impl Status {
    pub fn of(machine: &Machine, weak_fencing: bool) -> Self {
        Self {
            phase: machine.phase.clone(),
            deadline_ms: machine.deadline_ms,
            spawned: machine.spawned,
            lease_expired: machine.lease_expired,
            failure: machine.failure.clone(),
            exits: machine.ranks.values().flatten().cloned().collect(),
            weak_fencing,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Frame<T> {
    version: u32,
    body: T,
}

/// One frame: four bytes of length, little end first, and the JSON.
pub fn encode<T: Serialize>(body: &T) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(&Frame { version: VERSION, body })?;
    if json.len() > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a frame of the shim's protocol is over its limit"));
    }
    let mut bytes = (json.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(&json);
    Ok(bytes)
}

/// Takes the first whole frame out of `buffer`; `None` while it is incomplete.
pub fn decode<T: DeserializeOwned>(buffer: &mut Vec<u8>) -> io::Result<Option<T>> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*head) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame of the shim's protocol is over its limit"));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let frame: Frame<serde_json::Value> = serde_json::from_slice(&buffer[4..4 + length])?;
    if frame.version != VERSION {
        let why =
            format!("the other side speaks version {} of the shim's protocol, this side {VERSION}", frame.version);
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let body = serde_json::from_value(frame.body)?;
    buffer.drain(..4 + length);
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut_and_another_version_is_refused() {
        let sent = [Request::Go, Request::Stop { signal: Some(10), grace_ms: 5 }, Request::Extend { deadline_ms: 9 }];
        let bytes: Vec<u8> = sent.iter().flat_map(|request| encode(request).expect("small")).collect();
        let (mut buffer, mut seen) = (Vec::new(), Vec::new());
        for byte in bytes {
            buffer.push(byte);
            while let Some(request) = decode::<Request>(&mut buffer).expect("whole frames") {
                seen.push(request);
            }
        }
        assert_eq!(seen, sent);
        let mut other = encode(&Request::Go).expect("small");
        let at = other.windows(3).position(|three| three == b"\":1").expect("the version is there") + 2;
        other[at] = b'7';
        assert!(decode::<Request>(&mut other).expect_err("refused").to_string().contains("version 7"));
        assert!(decode::<Request>(&mut vec![0xff; 8]).is_err(), "a frame without end was accepted");
    }
}
