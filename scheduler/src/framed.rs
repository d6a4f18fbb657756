//! Frames: what a backup and a decision log are made of on disk: kind (u8), length (u32), payload, and the CRC-32 of all
//! three (u32), behind eight letters and a version (u16). Integers are little-endian.

use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};
use std::ops::RangeInclusive;

pub type Magic = [u8; 8];
/// The last frame, of a file that has one: a number and the digest of everything before it.
pub const END: u8 = 4;
/// The longest payload. A page of history is far below it.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;
const SHA_BYTES: usize = 32;
/// What is written once and read rarely is packed at this level.
const ZSTD_LEVEL: i32 = 3;
/// Bytes of a packed State in one frame.
const STATE_PART_BYTES: usize = 1 << 20;
/// A State, unpacked, is not longer than this.
pub const STATE_BYTES_MAX: u64 = 8 << 30;

/// Writes frames, and remembers the digest of all of them.
pub struct FrameWriter<W> {
    out: W,
    sha: Sha256,
}

impl<W: Write> FrameWriter<W> {
    pub fn begin(out: W, magic: &Magic, version: u16) -> io::Result<Self> {
        let mut writer = FrameWriter { out, sha: Sha256::new() };
        writer.put(magic)?;
        writer.put(&version.to_le_bytes())?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sha.update(bytes);
        self.out.write_all(bytes)
    }

    pub fn frame(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= PAYLOAD_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other(format!("a frame of {} bytes", payload.len())))?;
        let mut head = [kind, 0, 0, 0, 0];
        head[1..].copy_from_slice(&length.to_le_bytes());
        self.put(&head)?;
        self.put(payload)?;
        self.put(&crc(&head, payload).to_le_bytes())
    }

    /// A packed State, in frames of one kind.
    pub fn state(&mut self, kind: u8, packed: &[u8]) -> io::Result<()> {
        packed.chunks(STATE_PART_BYTES).try_for_each(|part| self.frame(kind, part))
    }

    /// Hands on what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// The last frame.
    pub fn end(mut self, records: u64) -> io::Result<()> {
        let mut payload = records.to_le_bytes().to_vec();
        payload.extend_from_slice(&self.sha.clone().finalize());
        self.frame(END, &payload)?;
        self.out.flush()
    }
}

fn crc(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// Why the next frame cannot be read.
pub enum Broken {
    Io(io::Error),
    Cut,
    /// It begins with other letters.
    NotOurs,
    Version(u16),
    Damaged(String),
}

/// Reads frames and checks each of them.
pub struct FrameReader<R> {
    input: R,
    sha: Sha256,
    /// Bytes read.
    pub at: u64,
}

impl<R: Read> FrameReader<R> {
    pub fn begin(input: R, magic: &Magic, versions: RangeInclusive<u16>) -> Result<Self, Broken> {
        let mut reader = FrameReader { input, sha: Sha256::new(), at: 0 };
        let found = reader.take(magic.len()).map_err(|broken| match broken {
            Broken::Cut => Broken::NotOurs,
            other => other,
        })?;
        if found != magic {
            return Err(Broken::NotOurs);
        }
        let version = reader.take(2)?;
        match u16::from_le_bytes([version[0], version[1]]) {
            version if versions.contains(&version) => Ok(reader),
            other => Err(Broken::Version(other)),
        }
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>, Broken> {
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(count as u64).read_to_end(&mut bytes).map_err(Broken::Io)?;
        self.at += read as u64;
        if read < count {
            return Err(Broken::Cut);
        }
        self.sha.update(&bytes);
        Ok(bytes)
    }

    /// The next frame's kind and payload; the last one is [`END`], whose digest is checked here.
    pub fn next(&mut self) -> Result<(u8, Vec<u8>), Broken> {
        let before = self.sha.clone();
        let head = self.take(5)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > PAYLOAD_BYTES_MAX {
            return Err(Broken::Damaged(format!("a part of {length} bytes")));
        }
        let payload = self.take(length)?;
        let sum = self.take(4)?;
        if crc(&head, &payload).to_le_bytes()[..] != sum[..] {
            return Err(Broken::Damaged("the checksum of a part is wrong".to_owned()));
        }
        if head[0] == END {
            self.check_end(&payload, &before.finalize())?;
        }
        Ok((head[0], payload))
    }

    fn check_end(&mut self, payload: &[u8], digest: &[u8]) -> Result<(), Broken> {
        if payload.len() != 8 + SHA_BYTES || payload[8..] != *digest {
            return Err(Broken::Damaged("its checksum is wrong".to_owned()));
        }
        match self.take(1) {
            Err(Broken::Cut) => Ok(()),
            Err(other) => Err(other),
            Ok(_) => Err(Broken::Damaged("there is more behind its end".to_owned())),
        }
    }
}

/// Compressed, as [`unpacked`] takes it.
pub fn packed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    zstd::encode_all(bytes, ZSTD_LEVEL)
}

/// Decompressed, unless it would be longer than `limit`.
pub fn unpacked(packed: &[u8], limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(packed).ok()?;
    decoder.take(limit + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= limit).then_some(bytes)
}
