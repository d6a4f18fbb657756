//! Real shims: processes of their own, found again by socket, identity and mark.

use super::{Found, IN_FLIGHT, Launcher, LauncherError, ShimLink, UNKNOWN};
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
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::ChildStdout;
use tokio::sync::mpsc;

/// A starting shim answers within this, or counts as vanished.
const ANSWER_WITHIN_MS: u64 = 10_000;
const LOOK_AGAIN_MS: u64 = 10;
/// Between two tries to reach a shim for which this side has no files or no memory.
const LACK_NAP_MS: u64 = 200;
/// So long a start waits for the shim's word that it listens.
const READY_WITHIN_MS: u64 = 1_000;
/// For so long a process that was just executed may show no mark.
const UNMARKED_MS: u64 = 500;

/// The program that holds the ranks of one allocation and nothing else: small, so that starting it is cheap.
const SMALL_SHIM: &str = "muster-shim";

/// Starts `command... --dir <folder>`.
#[derive(Debug, Clone)]
pub struct RealLauncher {
    command: Vec<OsString>,
    boot_id: String,
    /// The small shim, held open: an upgrade that replaces it does not change what this agent starts.
    small: Option<Arc<File>>,
}

impl RealLauncher {
    /// `command` = `None` is the small shim that was installed with this program, or without one this very program with
    /// `shim`.
    pub fn new(command: Option<Vec<String>>, boot_id: String) -> Self {
        if let Some(words) = command {
            return Self { command: words.into_iter().map(OsString::from).collect(), boot_id, small: None };
        }
        match std::env::current_exe().ok().and_then(|own| small_shim(own.parent()?)) {
            Some(program) => {
                let path = format!("/proc/self/fd/{}", program.as_raw_fd());
                let command = [path.as_str(), "shim"].map(OsString::from).to_vec();
                Self { command, boot_id, small: Some(Arc::new(program)) }
            }
            None => Self { command: ["/proc/self/exe", "shim"].map(OsString::from).to_vec(), boot_id, small: None },
        }
    }

    /// Returns what the shim says when it listens.
    fn spawn(&self, dir: &Path, marker: &str) -> std::io::Result<Option<ChildStdout>> {
        let log = OpenOptions::new().create(true).append(true).open(dir.join("shim.log"))?;
        let (program, arguments) = self.command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let mut command = tokio::process::Command::new(program);
        if self.small.is_some() {
            command.arg0(SMALL_SHIM);
        }
        command.args(arguments).arg("--dir").arg(dir).current_dir("/");
        command.env_clear().env(MARKER, marker);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        // A session of its own from the start: a terminal's Ctrl-C is not for ranks.
        // SAFETY: one system call that neither allocates nor locks.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                Ok(())
            })
        };
        // Dropped, not waited for: tokio reaps it when it ends.
        command.spawn().map(|mut child| child.stdout.take())
    }

    fn identity(&self, dir: &Path) -> Option<ProcessIdentity> {
        read_json(&dir.join(wire::IDENTITY_FILE))
    }

    /// Whether a shim lives in `dir`: by its identity, or before it has one, by its mark. What cannot be looked at may.
    fn is_alive(&self, dir: &Path, marker: &str) -> bool {
        match self.identity(dir) {
            Some(identity) => !matches!(identity.open(&self.boot_id), Ok(None)),
            None => is_marked(marker).unwrap_or(true),
        }
    }
}

/// Whether any process carries exactly this mark.
fn is_marked(marker: &str) -> std::io::Result<bool> {
    for pid in procfs::pids()? {
        if procfs::started_with(pid, MARKER)?.as_deref() == Some(marker) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[async_trait]
impl Launcher for RealLauncher {
    async fn start(&self, dir: &Path, spec: &Spec) -> Result<(), LauncherError> {
        durable::make_folder(dir)?;
        durable::write_for_boot(&dir.join(wire::SPEC_FILE), &serde_json::to_vec(spec).expect("plain data encodes"))?;
        let failed = |cause| LauncherError::Start { dir: dir.to_owned(), cause };
        let ready = self.spawn(dir, &spec.marker).map_err(failed)?;
        if let Some(mut ready) = ready {
            // One byte, or the end of a shim that failed. Without either, `find` looks for it.
            let mut word = [0];
            tokio::select! {
                _ = ready.read(&mut word) => {}
                () = SystemClock.sleep_ms(READY_WITHIN_MS) => {}
            }
        }
        Ok(())
    }

    async fn find(&self, dir: &Path, marker: &str) -> Found {
        let mut begun_ms = SystemClock.boottime_ms();
        loop {
            let reached = match File::open(dir) {
                Ok(folder) => UnixStream::connect(short_path(&folder)).await,
                Err(error) => Err(error),
            };
            match reached {
                Ok(stream) => return Found::Live(carry(stream)),
                // It says nothing about the shim, whose time begins once there is room to look.
                Err(error) if is_lack(&error) => {
                    SystemClock.sleep_ms(LACK_NAP_MS).await;
                    begun_ms = SystemClock.boottime_ms();
                    continue;
                }
                Err(_) => {}
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
        let sweep = move || sweep(&prefix, &keep, &boot_id, Path::new("/proc"));
        // A sweep that did not come to an end has proven nothing.
        tokio::task::spawn_blocking(sweep).await.unwrap_or(UNKNOWN)
    }
}

/// Whether this side, not the other, is to blame.
fn is_lack(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

/// Looks twice before it says that nothing is there: a process caught in the middle of its start
/// shows no mark.
fn sweep(prefix: &str, keep: &BTreeSet<String>, boot_id: &str, proc_root: &Path) -> usize {
    let look = || {
        sweep_once(prefix, keep, boot_id, proc_root).unwrap_or_else(|error| {
            tracing::error!(%error, "not all processes of this machine can be looked at");
            UNKNOWN
        })
    };
    match look() {
        0 => {
            std::thread::sleep(std::time::Duration::from_millis(LOOK_AGAIN_MS));
            look()
        }
        found => found,
    }
}

/// Kills what it sees. Errors: it could not see all.
fn sweep_once(prefix: &str, keep: &BTreeSet<String>, boot_id: &str, proc_root: &Path) -> std::io::Result<usize> {
    let (mut marked, mut unseen) = (BTreeSet::new(), None);
    for pid in procfs::pids_in(proc_root)? {
        match procfs::started_with(pid, MARKER) {
            Ok(Some(marker)) if marker.starts_with(prefix) && !keep.contains(&marker) => {
                marked.insert(pid);
            }
            Ok(_) => {}
            Err(error) => unseen = Some(error),
        }
    }
    let (below, unseen_below) = procfs::descendants(&marked);
    marked.extend(below);
    let mut found = 0;
    for pid in marked {
        match procfs::open(pid, boot_id) {
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
    unseen.or(unseen_below).map_or(Ok(found), Err)
}

/// Beside the program, or where a package puts what nobody calls by hand.
fn small_shim(folder: &Path) -> Option<File> {
    let places = [folder.join(SMALL_SHIM), folder.join("../libexec/muster").join(SMALL_SHIM)];
    places.iter().find_map(|path| open_program(path))
}

/// An executable file, if there is one.
fn open_program(path: &Path) -> Option<File> {
    let program = File::open(path).ok()?;
    let about = program.metadata().ok()?;
    (about.is_file() && about.permissions().mode() & 0o111 != 0).then_some(program)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_files_says_nothing_about_a_shim() {
        let is_lack = |number| is_lack(&std::io::Error::from_raw_os_error(number));
        assert!(is_lack(libc::EMFILE) && is_lack(libc::ENOMEM));
        assert!(![libc::ENOENT, libc::ECONNREFUSED, libc::EAGAIN].into_iter().any(is_lack));
    }
    use std::fs;

    fn put(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        fs::write(path, path.to_string_lossy().as_bytes()).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    }

    fn found(bin: &Path) -> Option<String> {
        let mut file = small_shim(bin)?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut file, &mut text).expect("read");
        Some(text)
    }

    #[test]
    fn the_small_shim_is_found_beside_the_program_and_where_a_package_puts_it() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let bin = folder.path().join("bin");
        put(&bin.join("muster"), 0o755);
        assert_eq!(found(&bin), None);
        let packaged = bin.join("../libexec/muster/muster-shim");
        put(&packaged, 0o755);
        assert_eq!(found(&bin), Some(packaged.to_string_lossy().into_owned()));
        let beside = bin.join("muster-shim");
        put(&beside, 0o644);
        assert_eq!(found(&bin), Some(packaged.to_string_lossy().into_owned()), "what cannot be executed is no program");
        put(&beside, 0o755);
        assert_eq!(found(&bin), Some(beside.to_string_lossy().into_owned()));
    }

    #[test]
    fn rule_8_a_process_table_that_cannot_be_read_proves_nothing() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let none = BTreeSet::new();
        assert_eq!(sweep("nobody@here/", &none, "boot", folder.path()), 0, "an empty one does");
        assert_eq!(sweep("nobody@here/", &none, "boot", &folder.path().join("gone")), UNKNOWN);
    }
}
