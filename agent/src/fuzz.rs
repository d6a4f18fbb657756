//! The private decoders of this crate, from bytes, for the fuzz targets.

use crate::assignment::Desired;
use crate::shim::wire::{self, Request, Status};
use crate::{Config, launches, store};
use muster_common::job::Hash;
use muster_runtime::config::{self, ConfigError};
use prost::Message;
use sha2::{Digest, Sha256};
use std::io;

/// A launch part with the right hash. True: the bytes meant something.
pub fn launch_part(bytes: &[u8]) -> bool {
    let hash = Hash(Sha256::digest(bytes).into());
    launches::decode(hash, bytes).is_ok()
}

/// A store's file, right in its frame, with any content.
pub fn store_file(payload: &[u8]) -> Vec<u8> {
    store::file_of(payload)
}

/// What a server wants of this node.
pub fn desired(bytes: &[u8]) -> Option<Desired> {
    Desired::try_from(muster_proto::agent::Desired::decode(bytes).ok()?).ok()
}

/// A frame from the agent to a shim.
pub fn shim_request(buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    wire::decode(buffer)
}

/// A frame from a shim to the agent.
pub fn shim_status(buffer: &mut Vec<u8>) -> io::Result<Option<Status>> {
    wire::decode(buffer)
}

/// `agent.toml`.
pub fn agent_config(text: &str) -> Result<Config, ConfigError> {
    config::parse("agent.toml", text)
}
