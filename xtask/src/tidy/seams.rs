//! Servers and agents meet clocks, files, processes and randomness only in the files of their
//! seams, so that the same code runs in a simulated cluster.

use super::{Finding, RustFile};
use Outside::{Clock, Files, Processes, Random};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outside {
    Clock,
    Files,
    Processes,
    Random,
}

/// (start of the path, what those files may reach, which seam they are).
const SEAMS: &[(&str, &[Outside], &str)] = &[
    ("scheduler/src/consensus/", &[Clock, Files, Random], "LogEngine and SnapshotStore"),
    ("scheduler/src/history", &[Files], "HistoryStore"),
    ("scheduler/src/backup/", &[Files], "a backup's file, and the folders made of it, without a server"),
    ("scheduler/src/decisions/", &[Clock, Files], "the decision log, which simulated disks do without"),
    ("scheduler/src/store", &[Files], "a server's own files"),
    ("scheduler/src/elastic/hook.rs", &[Files, Processes], "the hook that switches machines"),
    ("scheduler/src/config.rs", &[Files], "the start-up configuration"),
    ("agent/src/store", &[Files], "the agent's store"),
    ("agent/src/shim", &[Clock, Files, Processes], "the shim process"),
    ("agent/src/launcher", &[Clock, Files, Processes], "Launcher"),
    ("agent/src/device/", &[Clock, Files], "Probe"),
    ("agent/src/procfs", &[Files], "Launcher, what it sees of processes"),
    ("agent/src/inventory", &[Files, Processes], "Probe, for what is no device"),
    ("agent/src/config.rs", &[Files], "the start-up configuration"),
    ("agent/src/runner/checkpoints.rs", &[Files], "what ranks say by touching a file"),
];

const BANS: &[(Outside, &[&str])] = &[
    (Clock, &["SystemTime", "Instant::now", "now_utc", "now_local", "Uuid::now_v7", "clock_gettime"]),
    (Files, &["std::fs", "tokio::fs"]),
    (Processes, &["process::Command", "tokio::process", "unistd::fork", "libc::fork"]),
    (Random, &["rand::rng", "rand::random", "thread_rng", "OsRng", "SysRng", "from_os_rng", "Uuid::new_v4"]),
];

pub fn check(files: &[RustFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_under("scheduler/src") || file.is_under("agent/src")) {
        for (outside, banned) in BANS.iter().filter(|(outside, _)| !may_reach(file.path, *outside)) {
            for name in file.shipped_names() {
                let Some(ban) = banned.iter().find(|ban| name.mentions(ban)) else {
                    continue;
                };
                let what = format!("`{ban}` outside the seams");
                findings.push(Finding::new(file.path, name.line, what, why(*outside), fix(*outside)));
            }
        }
    }
    findings
}

fn may_reach(path: &str, outside: Outside) -> bool {
    SEAMS.iter().any(|(start, allowed, _)| path.starts_with(start) && allowed.contains(&outside))
}

fn why(outside: Outside) -> &'static str {
    match outside {
        Clock => "a simulated cluster has its own clocks",
        Files => "a simulated cluster has its own disks",
        Processes => "a simulated cluster starts no processes",
        Random => "a simulated cluster repeats itself from one seed",
    }
}

fn fix(outside: Outside) -> &'static str {
    match outside {
        Clock => "take the time from the Clock seam",
        Files => "go through the store or config of this crate; a new seam is listed in xtask/src/tidy/seams.rs",
        Processes => "go through Launcher; a new seam is listed in xtask/src/tidy/seams.rs",
        Random => "take a seeded generator from whoever builds this part",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::brief;
    use crate::tidy::rust_files::rust_files;
    use crate::tree::made_up;

    fn found(path: &str, text: &str) -> Vec<String> {
        brief(&check(&rust_files(&made_up(&[(path, text)]))))
    }

    const REACHES: &str =
        "use std::{fs, process::Command};\nlet a = std::time::Instant::now();\nlet b = rand::rng();\n";

    #[test]
    fn outside_the_seams_everything_is_found() {
        assert_eq!(
            found("agent/src/link.rs", REACHES),
            [
                "agent/src/link.rs:2 `Instant::now` outside the seams",
                "agent/src/link.rs:1 `std::fs` outside the seams",
                "agent/src/link.rs:1 `process::Command` outside the seams",
                "agent/src/link.rs:3 `rand::rng` outside the seams",
            ]
        );
    }

    #[test]
    fn a_seam_reaches_only_what_it_is_for() {
        assert_eq!(
            found("agent/src/shim/main.rs", REACHES),
            ["agent/src/shim/main.rs:3 `rand::rng` outside the seams"]
        );
        assert_eq!(found("scheduler/src/history.rs", "use std::fs;"), [""; 0]);
        assert_eq!(found("scheduler/src/history.rs", "fn f() { SystemTime::now() }").len(), 1);
    }

    #[test]
    fn tests_and_other_crates_are_free() {
        assert_eq!(found("agent/tests/it.rs", REACHES), [""; 0]);
        assert_eq!(found("cli/src/main.rs", REACHES), [""; 0]);
        assert_eq!(found("scheduler/src/session.rs", "#[cfg(test)]\nmod tests { use std::fs; }"), [""; 0]);
    }
}
