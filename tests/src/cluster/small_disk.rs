//! A small file system in memory over one folder, in a mount namespace of its own, so that a disk can be full.

use crate::cluster::process::die_with_the_test;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Keeps the namespace; the file system goes with it.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Child,
    folder: PathBuf,
}

const FILLER: &str = "filler";
/// Puts the new file system over the folder `$1`, with all that was in there, and says so.
const SCRIPT: &str = "mkdir \"$1.before\" && cp -a \"$1/.\" \"$1.before/\" && mount -t tmpfs -o size=\"$2\" none \"$1\" \
                      && cp -a \"$1.before/.\" \"$1/\" && echo ready && exec cat >/dev/null";

impl SmallDisk {
    /// Over a folder, keeping what is in it.
    ///
    /// # Panics
    /// When the system does not let an ordinary user make namespaces.
    pub fn over(folder: &Path, mib: u32) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"]);
        command.arg(folder).arg(format!("{mib}m")).stdin(Stdio::piped()).stdout(Stdio::piped());
        die_with_the_test(&mut command);
        let mut holder = command.spawn().expect("unshare starts");
        let mut said = String::new();
        let out = holder.stdout.take().expect("it was piped");
        BufReader::new(out).read_line(&mut said).expect("it speaks text");
        assert_eq!(said.trim(), "ready", "no small file system over {}", folder.display());
        Self { holder, folder: folder.to_owned() }
    }

    /// What comes before a program and its arguments, so that it sees this file system.
    pub fn entry(&self) -> [String; 6] {
        let target = self.holder.id().to_string();
        ["nsenter", "--preserve-credentials", "--user", "--mount", "--target", &target].map(str::to_owned)
    }

    /// Writes until nothing more fits.
    pub fn fill(&self) {
        let mut file = File::create(self.seen().join(FILLER)).expect("a file can still be made");
        for part in [1 << 20, 1 << 12, 1] {
            let block = vec![b'x'; part];
            loop {
                match file.write(&block) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("the filler: {error}"),
                }
            }
        }
    }

    /// Makes room again.
    pub fn make_room(&self) {
        std::fs::remove_file(self.seen().join(FILLER)).expect("the filler is there");
    }

    /// The folder as this process can see it.
    fn seen(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.folder.strip_prefix("/").expect("an absolute path"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
