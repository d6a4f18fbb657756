//! What a development cluster might leave behind: shims outlive their agent by design, so those of
//! this cluster are found by its folder in their arguments.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub fn end(dir: &Path) {
    for pid in shims(dir) {
        let _ = kill(pid, Signal::SIGKILL);
    }
}

/// Servers and agents too, should they not have ended.
pub fn end_all(dir: &Path) {
    for pid in found(|line| is_daemon_of(line, dir)).into_iter().chain(shims(dir)) {
        let _ = kill(pid, Signal::SIGKILL);
    }
}

/// Does a server or an agent of this cluster live?
pub fn has_daemons(dir: &Path) -> bool {
    !found(|line| is_daemon_of(line, dir)).is_empty()
}

/// Processes whose arguments are `... shim --dir <folder inside dir>`.
fn shims(dir: &Path) -> Vec<Pid> {
    found(|line| is_shim_of(line, dir))
}

fn found(wanted: impl Fn(&[u8]) -> bool) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| wanted(&line)))
        .map(Pid::from_raw)
        .collect()
}

fn is_shim_of(cmdline: &[u8], dir: &Path) -> bool {
    has_words(cmdline, &[b"shim"], b"--dir", dir)
}

/// `... server --config <file inside dir>`, and the same with `agent`.
fn is_daemon_of(cmdline: &[u8], dir: &Path) -> bool {
    has_words(cmdline, &[b"server", b"agent"], b"--config", dir)
}

fn has_words(cmdline: &[u8], commands: &[&[u8]], flag: &[u8], dir: &Path) -> bool {
    let words: Vec<&[u8]> = cmdline.split(|byte| *byte == 0).collect();
    let inside = |word: &[u8]| Path::new(std::ffi::OsStr::from_bytes(word)).starts_with(dir);
    words.windows(3).any(|three| commands.contains(&three[0]) && three[1] == flag && inside(three[2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shims_of_this_cluster_are_meant() {
        let dir = Path::new("/tmp/muster-dev-1");
        assert!(is_shim_of(b"/usr/bin/muster\0shim\0--dir\0/tmp/muster-dev-1/agents/n1/state/a\0", dir));
        assert!(!is_shim_of(b"/usr/bin/muster\0shim\0--dir\0/tmp/muster-dev-10/agents/n1/state/a\0", dir));
        assert!(is_daemon_of(b"muster\0agent\0--config\0/tmp/muster-dev-1/agents/n1/agent.toml\0", dir));
        assert!(!is_daemon_of(b"muster\0agent\0--config\0/etc/muster/agent.toml\0", dir));
        assert!(!is_shim_of(b"vim\0/tmp/muster-dev-1/agents/n1/agent.toml\0", dir));
    }
}
