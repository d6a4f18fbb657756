//! Reading a decision log, from its files or out of a backup.

use super::Kept;
use super::segments::{BEGIN, ENTRIES, MAGIC, STATE, VERSION};
use crate::framed::{Broken, FrameReader, unpacked};
use crate::machine::Proposal;
use muster_common::Time;
use muster_engine::{Command, Entry, State};
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

const STATE_BYTES_MAX: u64 = 8 << 30;
const BLOCK_BYTES_MAX: u64 = 64 << 20;

/// What a decision log holds, in its order.
#[derive(Debug)]
pub enum Chapter {
    /// What follows was applied to this.
    State(Box<State>),
    Entry(Entry),
    /// A part that this version cannot read; nothing follows it before the next State.
    Unreadable(String),
}

/// Puts chapters together from parts.
#[derive(Debug, Default)]
pub struct Chapters {
    packed: Vec<u8>,
    begun: Option<u64>,
    /// Parts are passed over up to the next beginning.
    lost: bool,
}

impl Chapters {
    /// One part, as [`each_part`] shows it.
    pub fn part(&mut self, kind: u8, payload: &[u8], show: &mut dyn FnMut(Chapter)) {
        match kind {
            BEGIN => {
                self.packed.clear();
                self.lost = false;
                self.begun = payload.first_chunk().map(|index| u64::from_le_bytes(*index));
            }
            _ if self.lost => {}
            STATE => self.packed.extend_from_slice(payload),
            ENTRIES => match self.entries(payload, show) {
                Ok(()) => {}
                Err(why) => {
                    self.lost = true;
                    show(Chapter::Unreadable(why));
                }
            },
            other => {
                self.lost = true;
                show(Chapter::Unreadable(format!("a part of kind {other}")));
            }
        }
    }

    fn entries(&mut self, payload: &[u8], show: &mut dyn FnMut(Chapter)) -> Result<(), String> {
        if let Some(index) = self.begun.take() {
            let bytes = unpacked(&self.packed, STATE_BYTES_MAX).ok_or("a State cannot be unpacked")?;
            self.packed.clear();
            let state = State::decode(&bytes)?;
            if state.applied_index() != index {
                return Err(format!("a State of entry {} stands where {index} should", state.applied_index()));
            }
            show(Chapter::State(Box::new(state)));
        }
        let bytes = unpacked(payload, BLOCK_BYTES_MAX).ok_or("entries cannot be unpacked")?;
        let entries: Vec<Kept> = postcard::from_bytes(&bytes).map_err(|error| format!("entries: {error}"))?;
        for kept in entries {
            show(Chapter::Entry(entry(kept)?));
        }
        Ok(())
    }
}

fn entry(kept: Kept) -> Result<Entry, String> {
    let Kept { index, term, payload } = kept;
    let Some(payload) = payload else {
        return Ok(Entry { index, term, at: Time::ZERO, command: Command::Nothing });
    };
    let Proposal { at, command } = Proposal::decode(&payload).map_err(|error| error.to_string())?;
    Ok(Entry { index, term, at, command })
}

/// Every part of a file that is whole; a crash may have cut its end off.
///
/// # Errors
/// The disk's, the receiver's, or a file that is none of ours.
pub fn each_part(path: &Path, mut show: impl FnMut(u8, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let other = |why: &str| io::Error::other(format!("{}: {why}", path.display()));
    let told = |broken: Broken| match broken {
        Broken::Io(cause) => Err(cause),
        Broken::NotOurs | Broken::Version(_) => Err(other("is no decision log of this version")),
        Broken::Cut | Broken::Damaged(_) => Ok(()),
    };
    let mut frames = match FrameReader::begin(BufReader::new(File::open(path)?), MAGIC, VERSION..=VERSION) {
        Ok(frames) => frames,
        // It was begun when the crash came.
        Err(Broken::Cut | Broken::NotOurs) if path.metadata()?.len() < 10 => return Ok(()),
        Err(broken) => return told(broken),
    };
    loop {
        match frames.next() {
            Ok((kind, payload)) => show(kind, &payload)?,
            Err(broken) => return told(broken),
        }
    }
}
