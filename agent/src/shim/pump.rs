//! Carries what ranks write from their pipes into bounded files. A thread of its own, so that a
//! slow disk delays output and never the lease.
//!
//! A stream is cut into parts of exactly `file_bytes`: part k begins at offset k * `file_bytes`. The
//! newest part is `rank-<n>.out`, older ones are `rank-<n>.out.<k>`, and `rank-<n>.out.dropped` holds
//! how many bytes at the front are gone.

use muster_common::job::LogLimits;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

/// Read from a pipe at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Ranks handed over and not yet taken up.
const HANDOVER: usize = 16;
const IDLE_NAP_MS: i32 = 1_000;
const PART_MODE: u32 = 0o640;

/// The file that holds the newest part of a stream (`out` or `err`).
pub fn stream_file(log_dir: &Path, rank: u32, stream: &str) -> PathBuf {
    log_dir.join(format!("rank-{rank}.{stream}"))
}

/// Where part `k` of the stream goes once it is full.
pub fn part_file(stream: &Path, k: u64) -> PathBuf {
    beside(stream, &k.to_string())
}

/// Where the number of dropped bytes stands.
pub fn dropped_file(stream: &Path) -> PathBuf {
    beside(stream, "dropped")
}

fn beside(stream: &Path, ending: &str) -> PathBuf {
    let mut name = stream.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// Writes one stream of one rank.
#[derive(Debug)]
pub struct StreamWriter {
    path: PathBuf,
    limits: LogLimits,
    file: File,
    /// Index of the newest part, and its length.
    part: u64,
    length: u64,
    /// Bytes that could not be written at all (a full disk); once there is room the stream goes on without them.
    pub lost_bytes: u64,
}

impl StreamWriter {
    /// Begins an empty stream.
    pub fn create(path: PathBuf, limits: LogLimits) -> io::Result<Self> {
        let limits = LogLimits { file_bytes: limits.file_bytes.max(1), files: limits.files.max(1) };
        let file = OpenOptions::new().write(true).create_new(true).mode(PART_MODE).open(&path)?;
        Ok(Self { path, limits, file, part: 0, length: 0, lost_bytes: 0 })
    }

    /// Appends; what cannot be written is counted, since a full disk must not stop the rank.
    pub fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.length == self.limits.file_bytes && self.rotate().is_err() {
                self.lost_bytes += bytes.len() as u64;
                return;
            }
            let room = (self.limits.file_bytes - self.length).min(bytes.len() as u64) as usize;
            match self.file.write(&bytes[..room]) {
                Ok(written) if written > 0 => {
                    self.length += written as u64;
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => {
                    self.lost_bytes += bytes.len() as u64;
                    return;
                }
            }
        }
    }

    /// May be tried again after any of its steps failed. What takes room comes first, so that a full disk leaves to readers
    /// all that was there.
    fn rotate(&mut self) -> io::Result<()> {
        let older_kept = u64::from(self.limits.files) - 1;
        let next = self.part + 1;
        let first_kept = next.saturating_sub(older_kept);
        let (fresh, dropped) = (aside(&self.path), dropped_file(&self.path));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(PART_MODE).open(&fresh)?;
        if first_kept > 0 {
            fs::write(aside(&dropped), (first_kept * self.limits.file_bytes).to_string())?;
        }
        unless_missing(fs::rename(&self.path, part_file(&self.path, self.part)))?;
        if first_kept > 0 {
            // Said before it is done: a reader never looks for bytes that are gone unannounced.
            fs::rename(aside(&dropped), &dropped)?;
            unless_missing(fs::remove_file(part_file(&self.path, first_kept - 1)))?;
        }
        fs::rename(&fresh, &self.path)?;
        (self.file, self.part, self.length) = (file, next, 0);
        Ok(())
    }
}

/// Where a file is made that takes its place whole.
fn aside(path: &Path) -> PathBuf {
    beside(path, "new")
}

/// An earlier try may have done it.
fn unless_missing(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

struct Source {
    pipe: File,
    writer: StreamWriter,
}

enum Handover {
    Add(Source),
    Finish,
}

/// The handle on the pump's thread.
pub struct Pump {
    handovers: SyncSender<Handover>,
    wake: File,
    thread: JoinHandle<u64>,
}

impl Pump {
    /// Starts the thread. Must be called before the process leaves its PID namespace for its
    /// children: the kernel refuses new threads after that.
    pub fn start() -> io::Result<Self> {
        let (awake, wake) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK)?;
        let (handovers, inbox) = sync_channel(HANDOVER);
        let thread = std::thread::Builder::new().name("log-pump".to_owned()).spawn(move || run(&inbox, awake))?;
        Ok(Self { handovers, wake: File::from(wake), thread })
    }

    /// Carries `pipe` into the files of `path` until it ends.
    pub fn add(&self, pipe: OwnedFd, path: PathBuf, limits: LogLimits) -> io::Result<()> {
        set_nonblocking(&pipe)?;
        let writer = StreamWriter::create(path, limits)?;
        self.send(Handover::Add(Source { pipe: File::from(pipe), writer }))
    }

    /// Asks the thread to end once every pipe has ended; [`Pump::is_finished`] tells when.
    pub fn finish(&self) -> io::Result<()> {
        self.send(Handover::Finish)
    }

    /// Whether all that ranks wrote is in the files.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    fn send(&self, handover: Handover) -> io::Result<()> {
        self.handovers.send(handover).map_err(|_| io::Error::other("the log pump has ended"))?;
        match (&self.wake).write(&[1]) {
            // A full pipe wakes as well as a fresh byte.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }
}

pub(super) fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

fn run(inbox: &Receiver<Handover>, awake: OwnedFd) -> u64 {
    let mut awake = File::from(awake);
    let mut sources: Vec<Source> = Vec::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut finishing, mut lost_bytes) = (false, 0);
    loop {
        while matches!(awake.read(&mut chunk), Ok(count) if count > 0) {}
        loop {
            match inbox.try_recv() {
                Ok(Handover::Add(source)) => sources.push(source),
                Ok(Handover::Finish) | Err(TryRecvError::Disconnected) => {
                    finishing = true;
                    break;
                }
                Err(TryRecvError::Empty) => break,
            }
        }
        sources.retain_mut(|source| {
            let open = drain(source, &mut chunk);
            if !open {
                lost_bytes += source.writer.lost_bytes;
            }
            open
        });
        if finishing && sources.is_empty() {
            return lost_bytes;
        }
        wait(&awake, &sources);
    }
}

/// Takes a bounded bite, so that one loud rank does not starve the others. False at the end.
fn drain(source: &mut Source, chunk: &mut [u8]) -> bool {
    for _ in 0..8 {
        match source.pipe.read(chunk) {
            Ok(0) => return false,
            Ok(count) => source.writer.write(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

fn wait(awake: &File, sources: &[Source]) {
    let all = std::iter::once(awake.as_raw_fd()).chain(sources.iter().map(|source| source.pipe.as_raw_fd()));
    let mut polled: Vec<libc::pollfd> = all.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: the pointer and the length are those of a live vector. An error (EINTR) only means
    // an earlier look.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, IDLE_NAP_MS) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn rotation_keeps_the_limit_and_drops_the_oldest() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let path = stream_file(folder.path(), 3, "out");
        let mut writer = StreamWriter::create(path.clone(), LogLimits { file_bytes: 4, files: 3 }).expect("created");
        for byte in b'a'..=b'r' {
            writer.write(&[byte]);
        }
        assert_eq!(contents(&path), "qr");
        assert_eq!(contents(&part_file(&path, 3)), "mnop");
        assert_eq!(contents(&part_file(&path, 2)), "ijkl");
        assert_eq!(contents(&dropped_file(&path)), "8");
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 4, "an old part was left behind");
        writer.write(&[b'z'; 100]);
        let kept: u64 = fs::read_dir(folder.path())
            .expect("listed")
            .flatten()
            .filter(|entry| !entry.file_name().to_string_lossy().ends_with("dropped"))
            .map(|entry| entry.metadata().expect("there").len())
            .sum();
        assert!(kept <= 12, "{kept} bytes kept under a limit of 12");
        assert_eq!(writer.lost_bytes, 0);
    }

    #[test]
    fn one_file_keeps_only_the_newest_part() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let path = stream_file(folder.path(), 0, "err");
        let mut writer = StreamWriter::create(path.clone(), LogLimits { file_bytes: 4, files: 1 }).expect("created");
        writer.write(b"abcdefghi");
        assert_eq!((contents(&path).as_str(), contents(&dropped_file(&path)).as_str()), ("i", "8"));
        assert!(!part_file(&path, 1).exists());
    }

    #[test]
    fn a_stream_that_cannot_be_kept_is_counted_and_never_blocks() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let path = stream_file(folder.path(), 0, "out");
        let mut writer = StreamWriter::create(path.clone(), LogLimits { file_bytes: 4, files: 2 }).expect("created");
        writer.write(b"abcd");
        fs::remove_dir_all(folder.path()).expect("gone");
        writer.write(b"efg");
        assert_eq!(writer.lost_bytes, 3);
    }

    /// A folder in the way of a file fails as a full disk does.
    fn rotate_around(in_the_way: &dyn Fn(&Path) -> PathBuf, meanwhile: &str) {
        let folder = tempfile::tempdir().expect("a temp folder");
        let path = stream_file(folder.path(), 0, "out");
        let mut writer = StreamWriter::create(path.clone(), LogLimits { file_bytes: 4, files: 2 }).expect("created");
        writer.write(b"abcdefgh");
        let in_the_way = in_the_way(&path);
        fs::create_dir_all(in_the_way.join("full")).expect("made");
        writer.write(b"lost");
        writer.write(b"too");
        assert_eq!((contents(&path).as_str(), writer.lost_bytes), (meanwhile, 7));
        fs::remove_dir_all(&in_the_way).expect("room again");
        writer.write(b"ijkl");
        assert_eq!((contents(&path).as_str(), contents(&part_file(&path, 1)).as_str()), ("ijkl", "efgh"));
        assert_eq!((contents(&dropped_file(&path)).as_str(), writer.lost_bytes), ("4", 7));
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 3, "something was left behind");
    }

    #[test]
    fn a_rotation_that_failed_is_made_good_once_there_is_room() {
        rotate_around(&aside, "efgh");
        rotate_around(&|path: &Path| aside(&dropped_file(path)), "efgh");
        rotate_around(&dropped_file, "");
    }
}
