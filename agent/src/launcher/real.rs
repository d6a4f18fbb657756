//! Real shims: processes of their own, found again by socket, identity and mark.

use super::{Found, IN_FLIGHT, Launcher, LauncherError, ShimLink};
use crate::procfs::{self, ProcessIdentity};
use crate::shim::machine::RankExit;
use crate::shim::socket::short_path;
use crate::shim::wire::{self, MARKER, Released, Request, Spec, Status};
use async_trait::async_trait;
use muster_runtime::clock::{Clock, SystemClock};
use muster_runtime::durable;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// A starting shim answers within this, or counts as vanished.
const ANSWER_WITHIN_MS: u64 = 10_000;
const LOOK_AGAIN_MS: u64 = 10;
/// For so long a process that was just executed may show no mark.
const UNMARKED_MS: u64 = 500;

/// Starts `command... --dir <folder>`.
#[derive(Debug, Clone)]
pub struct RealLauncher {
    command: Vec<OsString>,
    boot_id: String,
}

impl RealLauncher {
    /// `command` = `None` is this very binary with `shim`.
    pub fn new(command: Option<Vec<String>>, boot_id: String) -> Self {
        let own = || ["/proc/self/exe", "shim"].map(OsString::from).to_vec();
        let command = command.map_or_else(own, |words| words.into_iter().map(OsString::from).collect());
        Self { command, boot_id }
    }

    fn spawn(&self, dir: &Path, marker: &str) -> std::io::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(dir.join("shim.log"))?;
        let (program, arguments) = self.command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).arg("--dir").arg(dir).current_dir("/");
        command.env_clear().env(MARKER, marker);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // A session of its own from the start: a terminal's Ctrl-C is not for ranks.
        // SAFETY: one system call that neither allocates nor locks.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                Ok(())
            })
        };
        // Dropped, not waited for: tokio reaps it when it ends.
        command.spawn().map(drop)
    }

    fn identity(&self, dir: &Path) -> Option<ProcessIdentity> {
        read_json(&dir.join(wire::IDENTITY_FILE))
    }

    /// Whether a shim lives in `dir`: by its identity, or before it has one, by its mark.
    fn is_alive(&self, dir: &Path, marker: &str) -> bool {
        match self.identity(dir) {
            Some(identity) => identity.open(&self.boot_id).is_ok_and(|handle| handle.is_some()),
            None => procfs::pids().into_iter().any(|pid| procfs::started_with(pid, MARKER).as_deref() == Some(marker)),
        }
    }
}

#[async_trait]
impl Launcher for RealLauncher {
    async fn start(&self, dir: &Path, spec: &Spec) -> Result<(), LauncherError> {
        durable::create_folder(dir)?;
        durable::write_private(&dir.join(wire::SPEC_FILE), &serde_json::to_vec(spec).expect("plain data encodes"))?;
        let failed = |cause| LauncherError::Start { dir: dir.to_owned(), cause };
        self.spawn(dir, &spec.marker).map_err(failed)
    }

    async fn find(&self, dir: &Path, marker: &str) -> Found {
        let begun_ms = SystemClock.boottime_ms();
        loop {
            if let Ok(folder) = File::open(dir)
                && let Ok(stream) = UnixStream::connect(short_path(&folder)).await
            {
                return Found::Live(carry(stream));
            }
            let alive = self.is_alive(dir, marker);
            // Looked for after the look at the process: a shim writes it before it ends.
            if let Some(released) = read_json::<Released>(&dir.join(wire::RELEASED_FILE)) {
                return Found::Ended(released);
            }
            let waited_ms = SystemClock.boottime_ms() - begun_ms;
            let may_be_starting = self.identity(dir).is_none() && waited_ms < UNMARKED_MS;
            if waited_ms >= ANSWER_WITHIN_MS || !alive && !may_be_starting {
                return Found::Vanished(read_exits(dir));
            }
            SystemClock.sleep_ms(LOOK_AGAIN_MS).await;
        }
    }

    async fn kill_marked(&self, prefix: &str, keep: &BTreeSet<String>) -> usize {
        let (prefix, keep, boot_id) = (prefix.to_owned(), keep.clone(), self.boot_id.clone());
        let sweep = move || sweep(&prefix, &keep, &boot_id);
        // A sweep that did not come to an end has proven nothing.
        tokio::task::spawn_blocking(sweep).await.unwrap_or(usize::MAX)
    }
}

/// Looks twice before it says that nothing is there: a process caught in the middle of its start
/// shows no mark.
fn sweep(prefix: &str, keep: &BTreeSet<String>, boot_id: &str) -> usize {
    match sweep_once(prefix, keep, boot_id) {
        0 => {
            std::thread::sleep(std::time::Duration::from_millis(LOOK_AGAIN_MS));
            sweep_once(prefix, keep, boot_id)
        }
        found => found,
    }
}

fn sweep_once(prefix: &str, keep: &BTreeSet<String>, boot_id: &str) -> usize {
    let mut marked = BTreeSet::new();
    for pid in procfs::pids() {
        let Some(marker) = procfs::started_with(pid, MARKER) else { continue };
        if marker.starts_with(prefix) && !keep.contains(&marker) {
            marked.insert(pid);
        }
    }
    let below = procfs::descendants(&marked);
    marked.extend(below);
    let mut found = 0;
    for pid in marked {
        let Some(identity) = ProcessIdentity::of(pid, boot_id) else { continue };
        match identity.open(boot_id) {
            Ok(None) => {}
            Ok(Some(handle)) => {
                found += 1;
                if let Err(error) = handle.signal(libc::SIGKILL) {
                    tracing::error!(pid, %error, "a leftover process cannot be killed");
                }
            }
            Err(error) => {
                found += 1;
                tracing::error!(pid, %error, "a leftover process cannot be opened");
            }
        }
    }
    found
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = durable::read_limited(path, wire::FRAME_BYTES_MAX as u64).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn read_exits(dir: &Path) -> Vec<RankExit> {
    let Some(spec) = read_json::<Spec>(&dir.join(wire::SPEC_FILE)) else { return Vec::new() };
    spec.ranks.iter().filter_map(|rank| read_json(&dir.join(wire::exit_file(rank.rank)))).collect()
}

/// Carries frames both ways until either side ends.
fn carry(stream: UnixStream) -> ShimLink {
    let (requests, outbox) = mpsc::channel(IN_FLIGHT);
    let (inbox, statuses) = mpsc::channel(IN_FLIGHT);
    tokio::spawn(async move {
        let (mut read, mut write) = stream.into_split();
        tokio::select! {
            () = carry_out(&mut write, outbox) => {}
            () = carry_in(&mut read, inbox) => {}
        }
    });
    ShimLink { requests, statuses }
}

async fn carry_out(write: &mut tokio::net::unix::OwnedWriteHalf, mut outbox: mpsc::Receiver<Request>) {
    while let Some(request) = outbox.recv().await {
        let Ok(frame) = wire::encode(&request) else { return };
        if write.write_all(&frame).await.is_err() {
            return;
        }
    }
}

async fn carry_in(read: &mut tokio::net::unix::OwnedReadHalf, inbox: mpsc::Sender<Status>) {
    let mut unread = Vec::new();
    loop {
        match read.read_buf(&mut unread).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        loop {
            match wire::decode::<Status>(&mut unread) {
                Ok(Some(status)) => {
                    if inbox.send(status).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "a shim cannot be understood; its ranks run on under its lease");
                    return;
                }
            }
        }
    }
}
