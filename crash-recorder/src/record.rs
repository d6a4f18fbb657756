//! The events and the file they go to.

use crate::watch::look;
use std::cell::Cell;
use std::os::fd::RawFd;

/// What happened to a file; the table in the crate's documentation is the format.
pub enum Event<'a> {
    Known { id: u64, path: &'a [u8] },
    Created { id: u64, path: &'a [u8] },
    Folder { id: u64, path: &'a [u8] },
    Written { id: u64, offset: u64, bytes: &'a [u8] },
    Length { id: u64, length: u64 },
    Renamed { from: &'a [u8], to: &'a [u8] },
    Removed { path: &'a [u8] },
    Linked { from: &'a [u8], to: &'a [u8] },
    SyncBegan { token: u64, id: u64 },
    SyncEnded { token: u64, good: bool },
    Mark { bytes: &'a [u8] },
    Unseen { what: &'a [u8] },
}

/// The id that stands for everything below the folder.
pub const EVERYTHING: u64 = u64::MAX;

impl Event<'_> {
    fn encode(&self) -> Vec<u8> {
        let mut rest = Vec::new();
        let mut number = |value: u64| rest.extend_from_slice(&value.to_le_bytes());
        let kind = match self {
            Event::Known { id, path } => {
                number(*id);
                rest.extend_from_slice(path);
                1
            }
            Event::Created { id, path } => {
                number(*id);
                rest.extend_from_slice(path);
                2
            }
            Event::Folder { id, path } => {
                number(*id);
                rest.extend_from_slice(path);
                3
            }
            Event::Written { id, offset, bytes } => {
                number(*id);
                number(*offset);
                rest.extend_from_slice(bytes);
                4
            }
            Event::Length { id, length } => {
                number(*id);
                number(*length);
                5
            }
            Event::Renamed { from, to } => {
                two_paths(&mut rest, from, to);
                6
            }
            Event::Removed { path } => {
                rest.extend_from_slice(path);
                7
            }
            Event::Linked { from, to } => {
                two_paths(&mut rest, from, to);
                8
            }
            Event::SyncBegan { token, id } => {
                number(*token);
                number(*id);
                9
            }
            Event::SyncEnded { token, good } => {
                number(*token);
                rest.push(u8::from(*good));
                10
            }
            Event::Mark { bytes } => {
                rest.extend_from_slice(bytes);
                11
            }
            Event::Unseen { what } => {
                rest.extend_from_slice(what);
                12
            }
        };
        let mut whole = vec![kind];
        whole.extend_from_slice(&length_of(&rest));
        whole.append(&mut rest);
        whole
    }
}

fn two_paths(rest: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    rest.extend_from_slice(&length_of(from));
    rest.extend_from_slice(from);
    rest.extend_from_slice(to);
}

fn length_of(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("one call writes less than 4 GiB").to_le_bytes()
}

/// The open record, and how long this process has made it.
pub struct Record {
    fd: RawFd,
    bytes: Cell<u64>,
}

impl Record {
    /// Opens the file for appending, made if missing.
    pub fn open(path: &std::ffi::CStr) -> Option<Self> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
        // SAFETY: a C string that lives through the call.
        let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o644) };
        RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).map(|fd| Record { fd, bytes: Cell::new(0) })
    }

    /// Appends an event. Another process has ids of its own, so a record that grew by itself says that it is not whole.
    pub fn put(&self, event: &Event<'_>) {
        let there = look(self.fd).map_or(self.bytes.get(), |(_, length)| length);
        if there != self.bytes.replace(there) {
            self.append(&Event::Unseen { what: b"a second process wrote into the same record" });
        }
        self.append(event);
    }

    /// A record with a hole would prove nothing, so a failure ends the process.
    fn append(&self, event: &Event<'_>) {
        let whole = event.encode();
        self.bytes.set(self.bytes.get() + whole.len() as u64);
        let mut rest = &whole[..];
        while !rest.is_empty() {
            // SAFETY: the buffer is as long as said.
            let wrote = unsafe { libc::syscall(libc::SYS_write, self.fd, rest.as_ptr(), rest.len()) };
            match usize::try_from(wrote) {
                Ok(wrote) => rest = &rest[wrote..],
                Err(_) => {
                    eprintln!("crash-recorder: the record cannot be written");
                    std::process::abort();
                }
            }
        }
    }
}
