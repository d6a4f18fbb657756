//! The shim's end of its socket: a few connections, whole frames in, statuses out, nothing that
//! blocks.

use super::wire::{self, Request, SOCKET_FILE, Status};
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The agent, an agent that takes over, and a look by hand.
const CONNECTIONS_MAX: usize = 4;
const READ_BYTES: usize = 16 * 1024;

/// A path of any depth within the 108 bytes a socket address has: through the open folder.
/// The folder must stay open while the path is used.
pub fn short_path(dir: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_FILE}", dir.as_raw_fd()))
}

struct Connection {
    stream: UnixStream,
    unread: Vec<u8>,
    /// The part of the last status the peer has not taken yet.
    unsent: Vec<u8>,
    greeted: bool,
}

/// Listener and connections.
pub struct Socket {
    listener: UnixListener,
    connections: Vec<Connection>,
    last: Option<Status>,
    /// A connection ended since the last look.
    lost: bool,
}

impl Socket {
    /// Binds in `dir`, for its owner only.
    pub fn bind(dir: &Path) -> io::Result<Self> {
        let folder = File::open(dir)?;
        let path = short_path(&folder);
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, connections: Vec::new(), last: None, lost: false })
    }

    pub fn add_to_poll(&self, polled: &mut Vec<libc::pollfd>) {
        polled.push(libc::pollfd { fd: self.listener.as_raw_fd(), events: libc::POLLIN, revents: 0 });
        for connection in &self.connections {
            let writing = if connection.unsent.is_empty() { 0 } else { libc::POLLOUT };
            let events = libc::POLLIN | writing;
            polled.push(libc::pollfd { fd: connection.stream.as_raw_fd(), events, revents: 0 });
        }
    }

    /// Tells every connection; one that leaves too much unread is dropped.
    pub fn publish(&mut self, status: &Status) {
        self.last = Some(status.clone());
        self.connections.retain_mut(|connection| connection.send(status));
    }

    /// Whether a connection has ended since the last call.
    pub fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// Accepts, reads and finishes writing. A connection that errs or speaks nonsense is dropped.
    pub fn take_requests(&mut self) -> Vec<Request> {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.connections.len() < CONNECTIONS_MAX && stream.set_nonblocking(true).is_ok() {
                self.connections.push(Connection { stream, unread: Vec::new(), unsent: Vec::new(), greeted: false });
            }
        }
        let mut requests = Vec::new();
        let before = self.connections.len();
        let last = self.last.as_ref();
        self.connections.retain_mut(|connection| {
            if !connection.greeted {
                connection.greeted = true;
                if last.is_some_and(|status| !connection.send(status)) {
                    return false;
                }
            }
            connection.read(&mut requests) && connection.flush()
        });
        self.lost |= self.connections.len() < before;
        requests
    }
}

impl Connection {
    fn send(&mut self, status: &Status) -> bool {
        let Ok(frame) = wire::encode(status) else { return false };
        if self.unsent.len() > wire::FRAME_BYTES_MAX {
            return false;
        }
        self.unsent.extend_from_slice(&frame);
        self.flush()
    }

    fn flush(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => return false,
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn read(&mut self, requests: &mut Vec<Request>) -> bool {
        let mut chunk = [0; READ_BYTES];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            }
            loop {
                match wire::decode(&mut self.unread) {
                    Ok(Some(request)) => requests.push(request),
                    Ok(None) => break,
                    Err(_) => return false,
                }
            }
        }
    }
}
