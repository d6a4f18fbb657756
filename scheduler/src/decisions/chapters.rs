//! Reading a decision log, from its files or out of a backup.

use super::Kept;
use super::segments::{BEGIN, DAMAGED, ENTRIES, MAGIC, STATE, VERSION};
use crate::framed::{Broken, FrameReader, STATE_BYTES_MAX, unpacked};
use crate::machine::Proposal;
use muster_common::Time;
use muster_engine::{Command, Entry, State};
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

const PACKED_BYTES_MAX: u64 = 1 << 30;
/// A block is closed at a 64th of this; one entry may be longer.
const BLOCK_BYTES_MAX: u64 = 16 << 20;
/// Letters and version.
const HEAD_BYTES: u64 = 10;

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
    at: At,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    /// A beginning.
    #[default]
    Start,
    /// Parts of the State of this index, then entries.
    State(u64),
    Entries,
    /// Parts are passed over up to the next beginning; why was said.
    Lost,
}

impl Chapters {
    /// One part, as [`each_part`] shows it.
    pub fn part(&mut self, kind: u8, payload: &[u8], show: &mut dyn FnMut(Chapter)) {
        if kind != BEGIN && self.at == At::Lost {
            return;
        }
        if let Err(why) = self.next(kind, payload, show) {
            self.packed = Vec::new();
            self.at = At::Lost;
            show(Chapter::Unreadable(why));
        }
    }

    fn next(&mut self, kind: u8, payload: &[u8], show: &mut dyn FnMut(Chapter)) -> Result<(), String> {
        match (kind, self.at) {
            (BEGIN, _) => {
                let index = payload.try_into().map_err(|_| format!("a beginning of {} bytes", payload.len()))?;
                self.packed.clear();
                self.at = At::State(u64::from_le_bytes(index));
            }
            (STATE, At::State(_)) => {
                if (self.packed.len() + payload.len()) as u64 > PACKED_BYTES_MAX {
                    return Err(format!("a State of more than {PACKED_BYTES_MAX} bytes"));
                }
                self.packed.extend_from_slice(payload);
            }
            (ENTRIES, At::State(index)) => {
                show(Chapter::State(Box::new(self.state(index)?)));
                self.at = At::Entries;
                entries(payload, show)?;
            }
            (ENTRIES, At::Entries) => entries(payload, show)?,
            (DAMAGED, _) => return Err(String::from_utf8_lossy(payload).into_owned()),
            (STATE | ENTRIES, _) => return Err("a part without its beginning".to_owned()),
            (other, _) => return Err(format!("a part of kind {other}")),
        }
        Ok(())
    }

    fn state(&mut self, index: u64) -> Result<State, String> {
        let packed = std::mem::take(&mut self.packed);
        let bytes = unpacked(&packed, STATE_BYTES_MAX).ok_or("a State cannot be unpacked")?;
        let state = State::decode(&bytes)?;
        if state.applied_index() != index {
            return Err(format!("a State of entry {} stands where {index} should", state.applied_index()));
        }
        // Entries are applied to it: nothing may rest on a State that breaks the rules of all of them.
        state.check().map_err(|why| format!("the State of entry {index} contradicts itself: {why}"))?;
        Ok(state)
    }
}

fn entries(payload: &[u8], show: &mut dyn FnMut(Chapter)) -> Result<(), String> {
    let bytes = unpacked(payload, BLOCK_BYTES_MAX).ok_or("entries cannot be unpacked")?;
    let entries: Vec<Kept> = postcard::from_bytes(&bytes).map_err(|error| format!("entries: {error}"))?;
    for kept in entries {
        show(Chapter::Entry(entry(kept)?));
    }
    Ok(())
}

fn entry(kept: Kept) -> Result<Entry, String> {
    let Kept { index, term, payload } = kept;
    let Some(payload) = payload else {
        return Ok(Entry { index, term, at: Time::ZERO, command: Command::Nothing });
    };
    let Proposal { at, command } = Proposal::decode(&payload).map_err(|error| error.to_string())?;
    Ok(Entry { index, term, at, command })
}

/// Every part of a file that is whole. A crash may have cut off the end of the newest file, and the log itself may have
/// removed an older one; what else keeps the rest from being read is shown as [`DAMAGED`].
///
/// # Errors
/// The receiver's.
pub fn each_part(path: &Path, newest: bool, mut show: impl FnMut(u8, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let broken = match opened {
        Ok((bytes, file)) => each_whole(file, bytes < HEAD_BYTES, newest, &mut show)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(error.to_string()),
    };
    let Some(why) = broken else { return Ok(()) };
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    show(DAMAGED, format!("{name}: {why}").as_bytes())
}

/// Until the end, or what the next part is broken by.
fn each_whole(
    file: File,
    without_head: bool,
    newest: bool,
    show: &mut dyn FnMut(u8, &[u8]) -> io::Result<()>,
) -> io::Result<Option<String>> {
    let mut frames = match begin(file) {
        Ok(frames) => frames,
        // A crash came when it was begun.
        Err(_) if without_head && newest => return Ok(None),
        Err(_) if without_head => return Ok(Some(told(&Broken::Cut, 0))),
        Err(broken) => return Ok(Some(told(&broken, 0))),
    };
    loop {
        let whole = frames.at;
        match frames.next() {
            Ok((kind, payload)) => show(kind, &payload)?,
            Err(Broken::Cut) if newest || frames.at == whole => return Ok(None),
            Err(Broken::Cut) => return Ok(Some(told(&Broken::Cut, whole))),
            Err(broken) => return Ok(Some(told(&broken, frames.at))),
        }
    }
}

fn begin(file: File) -> Result<FrameReader<BufReader<File>>, Broken> {
    FrameReader::begin(BufReader::new(file), MAGIC, VERSION..=VERSION)
}

fn told(broken: &Broken, at: u64) -> String {
    match broken {
        Broken::Cut => format!("is cut off behind byte {at}, and a newer file follows"),
        Broken::Io(cause) => cause.to_string(),
        Broken::NotOurs => "is no decision log".to_owned(),
        Broken::Version(found) => format!("is of version {found}; this program reads {VERSION}"),
        Broken::Damaged(why) => format!("is damaged before byte {at}: {why}"),
    }
}

/// Of a file that ends in the middle of a part: how many bytes before that are whole, 0 when not even its head is. None
/// of any other file, damaged ones too: those are named when they are read.
///
/// # Errors
/// It cannot be opened.
pub(super) fn torn_behind(path: &Path) -> io::Result<Option<u64>> {
    let file = File::open(path)?;
    if file.metadata()?.len() < HEAD_BYTES {
        return Ok(Some(0));
    }
    let Ok(mut frames) = begin(file) else { return Ok(None) };
    loop {
        let whole = frames.at;
        match frames.next() {
            Ok(_) => {}
            Err(Broken::Cut) => return Ok((frames.at > whole).then_some(whole)),
            Err(_) => return Ok(None),
        }
    }
}
