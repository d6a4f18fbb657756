//! Hashes over the same bytes that travel and are stored.

use muster_common::job::{Hash, Launch};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::io::Write;

struct Sink(Sha256);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// SHA-256 of a value's postcard form.
pub fn of<T: Serialize + ?Sized>(value: &T) -> Hash {
    chained(&Hash::default(), value)
}

/// SHA-256 of a hash and a value: one link of a rolling hash.
pub fn chained<T: Serialize + ?Sized>(before: &Hash, value: &T) -> Hash {
    let mut sink = Sink(Sha256::new());
    sink.0.update(before.0);
    let sink = postcard::to_io(value, sink).expect("values of the log always encode");
    Hash(sink.0.finalize().into())
}

/// A launch part as agents fetch it: a version byte and its postcard form.
pub fn launch_bytes(launch: &Launch) -> Vec<u8> {
    let mut bytes = vec![crate::state::FORMAT];
    bytes.extend(postcard::to_stdvec(launch).expect("a launch part always encodes"));
    bytes
}

/// What a launch part is called: the SHA-256 of [`launch_bytes`].
pub fn launch_hash(launch: &Launch) -> Hash {
    Hash(Sha256::digest(launch_bytes(launch)).into())
}

/// SHA-256 of a text, as it is.
pub fn of_text(text: &str) -> Hash {
    Hash(Sha256::digest(text.as_bytes()).into())
}
