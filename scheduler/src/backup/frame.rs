//! Frames: what a backup is made of on disk.

use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};

pub(super) const MAGIC: &[u8; 8] = b"MSTRBKUP";
pub(super) const VERSION: u16 = 1;
pub(super) const HEAD: u8 = 1;
pub(super) const STATE: u8 = 2;
pub(super) const HISTORY: u8 = 3;
pub(super) const END: u8 = 4;
/// The longest payload. A page of history is far below it.
pub(super) const PAYLOAD_BYTES_MAX: usize = 64 << 20;
const SHA_BYTES: usize = 32;

/// Writes frames, and remembers the digest of all of them.
pub(super) struct FrameWriter<W> {
    out: W,
    sha: Sha256,
}

impl<W: Write> FrameWriter<W> {
    pub(super) fn begin(out: W) -> io::Result<Self> {
        let mut writer = FrameWriter { out, sha: Sha256::new() };
        writer.put(MAGIC)?;
        writer.put(&VERSION.to_le_bytes())?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sha.update(bytes);
        self.out.write_all(bytes)
    }

    pub(super) fn frame(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= PAYLOAD_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other(format!("a frame of {} bytes", payload.len())))?;
        let mut head = [kind, 0, 0, 0, 0];
        head[1..].copy_from_slice(&length.to_le_bytes());
        self.put(&head)?;
        self.put(payload)?;
        self.put(&crc(&head, payload).to_le_bytes())
    }

    /// The last frame.
    pub(super) fn end(mut self, records: u64) -> io::Result<()> {
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
pub(super) enum Broken {
    Io(io::Error),
    Cut,
    NotABackup,
    Version(u16),
    Damaged(String),
}

/// Reads frames and checks each of them.
pub(super) struct FrameReader<R> {
    input: R,
    sha: Sha256,
    /// Bytes read.
    pub(super) at: u64,
}

impl<R: Read> FrameReader<R> {
    pub(super) fn begin(input: R) -> Result<Self, Broken> {
        let mut reader = FrameReader { input, sha: Sha256::new(), at: 0 };
        let magic = reader.take(MAGIC.len()).map_err(|broken| match broken {
            Broken::Cut => Broken::NotABackup,
            other => other,
        })?;
        if magic != MAGIC {
            return Err(Broken::NotABackup);
        }
        let version = reader.take(2)?;
        match u16::from_le_bytes([version[0], version[1]]) {
            VERSION => Ok(reader),
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
    pub(super) fn next(&mut self) -> Result<(u8, Vec<u8>), Broken> {
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
