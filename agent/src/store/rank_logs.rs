//! Ranks' output as files: reads it back across rotation, and finds what may go.

use crate::assignment::Key;
use crate::paths::read_attempt_folder;
use crate::shim::pump::{dropped_file, part_file};
use muster_common::{AttemptNo, GangId, JobId};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A rotation between two looks at a folder is tried again so often.
const TRIES: u32 = 5;

/// A piece of a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    pub offset: u64,
    pub data: Vec<u8>,
    /// Bytes at the front of the stream that are gone.
    pub dropped: u64,
}

/// The parts of a stream as the folder shows them.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    dropped: u64,
    /// Numbers of the full parts, oldest first.
    parts: Vec<u64>,
}

fn layout(stream: &Path) -> io::Result<Layout> {
    let name = stream.file_name().map(|name| format!("{}.", name.to_string_lossy())).unwrap_or_default();
    let folder = stream.parent().unwrap_or(Path::new("."));
    let mut parts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let file = entry?.file_name();
        parts.extend(file.to_string_lossy().strip_prefix(&name).and_then(|ending| ending.parse::<u64>().ok()));
    }
    parts.sort_unstable();
    let dropped = match fs::read_to_string(dropped_file(stream)) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(Layout { dropped, parts })
}

/// Reads at most `limit` bytes at `offset`, or from the oldest byte that is left if that is later.
/// Empty at the end. Errors: there is no such stream, or its files cannot be read.
pub fn read_at(stream: &Path, offset: u64, limit: u64) -> io::Result<Piece> {
    for _ in 0..TRIES {
        let before = layout(stream)?;
        let (file, start) = open_at(stream, &before, offset)?;
        let from = offset.max(start);
        let mut file = file;
        file.seek(SeekFrom::Start(from - start))?;
        let mut data = Vec::new();
        file.take(limit).read_to_end(&mut data)?;
        // The same folder on both sides of the opening: the names meant what they seemed to mean.
        if layout(stream)? == before {
            return Ok(Piece { offset: from, data, dropped: before.dropped });
        }
    }
    Ok(Piece { offset, data: Vec::new(), dropped: 0 })
}

/// The file that holds `offset`, and the offset at which it begins.
fn open_at(stream: &Path, layout: &Layout, offset: u64) -> io::Result<(File, u64)> {
    let mut start = layout.dropped;
    for &part in &layout.parts {
        let file = File::open(part_file(stream, part))?;
        let length = file.metadata()?.len();
        // One part more than may be kept exists for a moment, with its bytes counted as dropped.
        if part * length < layout.dropped {
            continue;
        }
        if offset < start + length {
            return Ok((file, start));
        }
        start += length;
    }
    Ok((File::open(stream)?, start))
}

/// Where the last `tail_bytes` of a stream begin.
pub fn tail_offset(stream: &Path, tail_bytes: u64) -> io::Result<u64> {
    let layout = layout(stream)?;
    let (file, start) = open_at(stream, &layout, u64::MAX)?;
    Ok((start + file.metadata()?.len()).saturating_sub(tail_bytes))
}

/// Attempts with logs here, the oldest first.
pub fn kept_attempts(log_root: &Path) -> Vec<Key> {
    let mut found = Vec::new();
    for gang_folder in fs::read_dir(log_root).into_iter().flatten().flatten() {
        let Some(gang) = gang_of(&gang_folder.file_name().to_string_lossy()) else { continue };
        found.extend(attempts_in(&gang_folder.path(), gang));
    }
    found.sort_unstable();
    found.into_iter().map(|(_, key)| key).collect()
}

/// With when each was last changed, in seconds and nanoseconds.
fn attempts_in(gang_folder: &Path, gang: GangId) -> impl Iterator<Item = ((i64, i64), Key)> + use<> {
    fs::read_dir(gang_folder).into_iter().flatten().flatten().filter_map(move |folder| {
        let (attempt, token) = read_attempt_folder(folder.file_name().to_str()?)?;
        let about = folder.metadata().ok()?;
        Some(((about.mtime(), about.mtime_nsec()), Key { gang, attempt, token }))
    })
}

/// The newest of the attempts with this number that have logs here: restored servers give a number again.
pub fn newest_attempt(log_root: &Path, gang: GangId, attempt: AttemptNo) -> Option<Key> {
    let all = attempts_in(&log_root.join(gang.to_string()), gang).map(|(_, key)| key);
    all.filter(|key| key.attempt == attempt).max()
}

fn gang_of(text: &str) -> Option<GangId> {
    let (job, ordinal) = text.split_once('_')?;
    Some(GangId::new(JobId(job.parse().ok()?), ordinal.parse().ok()?))
}

/// Ranks with logs in `folder`.
pub fn ranks_in(folder: &Path) -> BTreeSet<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let rank = |name: &str| name.strip_prefix("rank-")?.strip_suffix(".out")?.parse().ok();
    entries.filter_map(|entry| rank(&entry.file_name().to_string_lossy())).collect()
}

/// Removes the logs of one attempt, and its gang's folder once that is empty.
pub fn remove_logs(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder) {
        tracing::warn!(path = %folder.display(), %error, "old logs cannot be removed");
    }
    // Fails while other attempts' logs are in it.
    let _ = folder.parent().map(fs::remove_dir);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::pump::{StreamWriter, stream_file};
    use muster_common::job::LogLimits;

    fn whole(stream: &Path) -> (String, u64) {
        let (mut text, mut offset, mut dropped) = (String::new(), 0, 0);
        loop {
            let piece = read_at(stream, offset, 3).expect("readable");
            if piece.data.is_empty() {
                return (text, dropped);
            }
            dropped = piece.dropped;
            offset = piece.offset + piece.data.len() as u64;
            text.push_str(&String::from_utf8(piece.data).expect("text"));
        }
    }

    #[test]
    fn a_rotated_stream_reads_as_one_and_says_what_is_gone() {
        let folder = tempfile::tempdir().expect("a temp folder");
        for (files, kept, gone) in
            [(1, "uvwxyz", 20), (3, "klmnopqrstuvwxyz", 10), (9, "abcdefghijklmnopqrstuvwxyz", 0)]
        {
            let stream = stream_file(folder.path(), files, "out");
            let mut writer = StreamWriter::create(stream.clone(), LogLimits { file_bytes: 10, files }).expect("made");
            let (first, rest) = (b"abcdefghijklmno", b"pqrstuvwxyz");
            writer.write(first);
            assert!(whole(&stream).0.ends_with("klmno"));
            writer.write(rest);
            let (kept, gone) = if files == 3 { ("abcdefghijklmnopqrstuvwxyz", 0) } else { (kept, gone) };
            assert_eq!(whole(&stream), (kept.to_owned(), gone), "{files} files");
            assert_eq!(tail_offset(&stream, 4).expect("readable"), 22);
        }
    }
}
