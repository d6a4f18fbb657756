//! The files of a decision log: `NUMBER-INDEX.decisions`, each a State and the entries that follow.

use super::Kept;
use super::chapters::torn_behind;
use crate::framed::{FrameWriter, packed};
use muster_engine::State;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

pub const MAGIC: &[u8; 8] = b"MSTRDCSN";
pub const VERSION: u16 = 1;
/// The index of the State that comes next.
pub const BEGIN: u8 = 1;
/// A part of it, compressed.
pub const STATE: u8 = 2;
/// Entries, compressed.
pub const ENTRIES: u8 = 3;
/// Never in a file: why its rest cannot be read, for whoever reads a log through a backup.
pub const DAMAGED: u8 = 5;

/// Entries are compressed together up to this.
const BLOCK_BYTES: usize = 256 << 10;
/// Of all segments, this many are worth their State.
const SEGMENTS: u64 = 8;
/// Entries passed over after a disk failed, before it is tried again.
const PASS_OVER: u32 = 10_000;

pub struct Segments {
    dir: PathBuf,
    bytes_max: u64,
    next: u64,
    file: Option<FrameWriter<BufWriter<File>>>,
    block: Vec<Kept>,
    block_bytes: usize,
    /// Entries written into the present segment.
    entry_bytes: u64,
    /// It takes no more.
    closed: bool,
    pass_over: u32,
    /// A crash or a failed write may have cut the newest file off.
    torn: bool,
}

impl Segments {
    pub fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut segments = Self {
            dir: dir.to_owned(),
            bytes_max,
            next: 0,
            file: None,
            block: Vec::new(),
            block_bytes: 0,
            entry_bytes: 0,
            closed: false,
            pass_over: 0,
            torn: true,
        };
        segments.next = segments.files()?.iter().filter_map(|path| number(path)).max().map_or(0, |last| last + 1);
        Ok(segments)
    }

    /// The oldest first.
    pub fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(&self.dir)?.map(|file| Ok(file?.path())).collect::<io::Result<_>>()?;
        files.retain(|path| number(path).is_some());
        files.sort_unstable();
        Ok(files)
    }

    /// Nothing can be added before a State is given.
    pub fn want_state(&self) -> bool {
        let full = self.entry_bytes > self.share();
        (self.file.is_none() || full) && self.pass_over == 0
    }

    /// After so many bytes of entries the next segment is wanted; after twice as many no more are taken.
    fn share(&self) -> u64 {
        self.bytes_max / SEGMENTS
    }

    /// A new segment; the oldest ones go when there are too many bytes.
    pub fn begin(&mut self, state: &State) -> io::Result<()> {
        self.write_out()?;
        self.end();
        if self.torn {
            self.mend()?;
            self.torn = false;
        }
        let packed = packed(&state.encode())?;
        self.make_room(packed.len() as u64)?;
        let path = self.dir.join(format!("{:010}-{}.decisions", self.next, state.applied_index()));
        self.next += 1;
        let file = BufWriter::new(File::options().write(true).create_new(true).open(path)?);
        let mut frames = FrameWriter::begin(file, MAGIC, VERSION)?;
        frames.frame(BEGIN, &state.applied_index().to_le_bytes())?;
        frames.state(STATE, &packed)?;
        frames.flush()?;
        self.file = Some(frames);
        Ok(())
    }

    pub fn entry(&mut self, kept: Kept) -> io::Result<()> {
        self.pass_over = self.pass_over.saturating_sub(1);
        let bytes = kept.payload.as_ref().map_or(0, Vec::len) + size_of::<Kept>();
        self.closed |= self.entry_bytes + (self.block_bytes + bytes) as u64 > 2 * self.share();
        if self.file.is_none() || self.closed {
            return Ok(());
        }
        self.block_bytes += bytes;
        self.block.push(kept);
        let full = self.block_bytes >= BLOCK_BYTES || self.block_bytes as u64 >= self.share();
        if full { self.write_out() } else { Ok(()) }
    }

    /// Everything given so far is in the file.
    pub fn write_out(&mut self) -> io::Result<()> {
        let Some(file) = self.file.as_mut().filter(|_| !self.block.is_empty()) else { return Ok(()) };
        let packed = pack(&self.block)?;
        self.block.clear();
        self.block_bytes = 0;
        self.entry_bytes += packed.len() as u64;
        file.frame(ENTRIES, &packed)?;
        file.flush()
    }

    /// After a failure there is no segment for a while.
    pub fn failed(&mut self) {
        self.end();
        self.pass_over = PASS_OVER;
        self.torn = true;
    }

    /// Takes away what the newest file ends in, if that is half a part: of those that follow each other only the last
    /// may be torn, so that one that was cut off later is told from it.
    fn mend(&self) -> io::Result<()> {
        let Some(newest) = self.files()?.pop() else { return Ok(()) };
        match torn_behind(&newest)? {
            None => Ok(()),
            Some(0) => fs::remove_file(&newest),
            Some(whole) => File::options().write(true).open(&newest)?.set_len(whole),
        }
    }

    fn end(&mut self) {
        self.file = None;
        self.block.clear();
        (self.block_bytes, self.entry_bytes, self.closed) = (0, 0, false);
    }

    /// For a State and the entries that may follow it.
    fn make_room(&self, state_bytes: u64) -> io::Result<()> {
        let needed = state_bytes + 2 * self.share();
        if needed > self.bytes_max {
            let why = format!("a State of {state_bytes} bytes leaves no room for entries within {}", self.bytes_max);
            return Err(io::Error::other(format!("{why}; raise decision_log_mib")));
        }
        let files = self.files()?;
        let sizes = files.iter().map(|path| Ok(fs::metadata(path)?.len())).collect::<io::Result<Vec<u64>>>()?;
        let mut total: u64 = sizes.iter().sum();
        for (path, size) in files.iter().zip(sizes) {
            if total + needed <= self.bytes_max {
                break;
            }
            fs::remove_file(path)?;
            total -= size;
        }
        Ok(())
    }
}

/// Entries as one frame holds them.
///
/// # Errors
/// None that is known; the encoder's.
pub fn pack(entries: &[Kept]) -> io::Result<Vec<u8>> {
    let bytes = postcard::to_stdvec(entries).map_err(io::Error::other)?;
    packed(&bytes)
}

/// The bytes of a file that holds these parts.
pub(crate) fn file_of(parts: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = FrameWriter::begin(&mut bytes, MAGIC, VERSION)
        .and_then(|mut frames| parts.iter().try_for_each(|(kind, payload)| frames.frame(*kind, payload)));
    written.expect("memory, and parts below the limit");
    bytes
}

fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".decisions")?;
    name.split_once('-')?.0.parse().ok()
}
