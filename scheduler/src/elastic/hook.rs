//! The program that switches machines: one process for each call, in a group of its own, which ends with the call.

use super::Order;
use crate::config::ElasticConfig;
use muster_common::Name;
use muster_runtime::clock::Clock;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{AccessFlags, Pid, access};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::Stdio;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, Command};

/// Of what it writes to stderr so much is kept, the last of it.
const TAIL_BYTES_MAX: usize = 4096;
const LINE_CHARS_MAX: usize = 200;
/// What is in the pipe when it has ended is read for so long; something it has started may keep the pipe open.
const DRAIN_MS: u64 = 200;
/// A file that is being replaced cannot be run for a moment.
const BUSY_TRIES: u32 = 20;
const BUSY_MS: u64 = 50;
/// All that it learns of the server's environment.
const PASSED_ON: [&str; 5] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"];

/// Why a call was in vain.
#[derive(Debug, Error)]
pub enum HookError {
    #[error("the hook cannot be run: {0}")]
    Run(io::Error),
    #[error("the hook {how}{}", said(.line))]
    Failed { how: String, line: String },
    #[error("the hook did not end within {ms} ms and was killed{}", said(.line))]
    TimedOut { ms: u64, line: String },
}

fn said(line: &str) -> String {
    if line.is_empty() { String::new() } else { format!(": {line}") }
}

/// Why the program cannot be run, as far as its file says.
pub fn problem(program: &Path) -> Option<String> {
    match std::fs::metadata(program) {
        Err(error) => Some(error.to_string()),
        Ok(file) if !file.is_file() => Some("it is not a file".into()),
        Ok(_) if access(program, AccessFlags::X_OK).is_err() => Some("this server may not execute it".into()),
        Ok(_) => None,
    }
}

/// Runs it to its end. Dropped before, it is killed with all in its group.
pub async fn run(
    config: &ElasticConfig,
    cluster: &str,
    order: Order,
    nodes: &[&Name],
    clock: &dyn Clock,
) -> Result<(), HookError> {
    let mut child = started(config, cluster, order, nodes, clock).await.map_err(HookError::Run)?;
    let mut group = Group(child.id());
    let mut said = Said::of(&mut child);
    let mut late = clock.sleep_ms(config.timeout_ms);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(HookError::Run)?,
            () = said.more() => {}
            () = &mut late => return Err(HookError::TimedOut { ms: config.timeout_ms, line: said.line() }),
        }
    };
    // What it has left running on purpose lives on.
    group.0 = None;
    let mut drained = clock.sleep_ms(DRAIN_MS);
    while said.pipe.is_some() {
        tokio::select! {
            () = said.more() => {}
            () = &mut drained => break,
        }
    }
    if status.success() {
        return Ok(());
    }
    use std::os::unix::process::ExitStatusExt;
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with {code}"),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    };
    Err(HookError::Failed { how, line: said.line() })
}

async fn started(
    config: &ElasticConfig,
    cluster: &str,
    order: Order,
    nodes: &[&Name],
    clock: &dyn Clock,
) -> io::Result<Child> {
    let mut command = Command::new(&config.hook);
    command.arg(order.word()).args(nodes.iter().map(|name| name.as_str()));
    command.env_clear().envs(PASSED_ON.into_iter().filter_map(|key| Some((key, std::env::var_os(key)?))));
    command.env("MUSTER_CLUSTER", cluster);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    for _ in 1..BUSY_TRIES {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => clock.sleep_ms(BUSY_MS).await,
            started => return started,
        }
    }
    command.spawn()
}

/// The processes of a call that has not ended.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // Its leader is not reaped yet, so that the number is nobody else's.
            let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }
}

/// The last of what it has said.
struct Said {
    pipe: Option<ChildStderr>,
    tail: VecDeque<u8>,
}

impl Said {
    fn of(child: &mut Child) -> Self {
        Self { pipe: child.stderr.take(), tail: VecDeque::new() }
    }

    /// Waits for more; for ever when there will be none.
    async fn more(&mut self) {
        let Some(pipe) = &mut self.pipe else { return std::future::pending().await };
        let mut part = [0; 1024];
        match pipe.read(&mut part).await {
            Ok(0) | Err(_) => self.pipe = None,
            Ok(length) => {
                self.tail.extend(&part[..length]);
                self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES_MAX));
            }
        }
    }

    fn line(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        line.chars().filter(|one| !one.is_control()).take(LINE_CHARS_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_runtime::clock::SystemClock;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    struct Script {
        folder: tempfile::TempDir,
        config: ElasticConfig,
    }

    impl Script {
        fn new(text: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let hook = folder.path().join("hook");
            std::fs::write(&hook, format!("#!/bin/sh\ncd {}\n{text}\n", folder.path().display())).unwrap();
            std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
            Self { folder, config: ElasticConfig { hook, timeout_ms: 20_000 } }
        }

        async fn run(&self) -> Result<(), String> {
            let nodes = [Name::literal("n1"), Name::literal("n2")];
            let nodes: Vec<&Name> = nodes.iter().collect();
            let ran = run(&self.config, "dev", Order::Wake, &nodes, &SystemClock).await;
            ran.map_err(|error| error.to_string())
        }

        fn read(&self, file: &str) -> String {
            std::fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
        }
    }

    /// Nobody answers to that number any more, but for who waits to be reaped.
    async fn until_gone(pid: &str) {
        let stat = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
        let gone = || std::fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z "));
        for _ in 0..2_000 {
            if gone() {
                return;
            }
            SystemClock.sleep_ms(5).await;
        }
        panic!("process {pid} lives on");
    }

    #[tokio::test]
    async fn it_is_told_what_to_do_with_which_nodes_and_little_of_its_server() {
        let script = Script::new("echo \"$@\" > told; env > env; echo ignored");
        assert_eq!(script.run().await, Ok(()));
        assert_eq!(script.read("told"), "wake n1 n2\n");
        let env = script.read("env");
        assert!(env.contains("MUSTER_CLUSTER=dev") && env.contains("PATH="), "{env}");
        assert!(!env.contains("CARGO"), "{env}");
    }

    #[tokio::test]
    async fn its_last_line_says_why_it_failed() {
        let script = Script::new(
            "for i in 1 2 3 4 5 6 7 8 9; do head -c 100000 /dev/zero >&2; done; echo >&2; \
                                  echo 'n1: no answer' >&2; echo >&2; exit 3",
        );
        assert_eq!(script.run().await, Err("the hook ended with 3: n1: no answer".into()));
        let missing = Script::new("");
        std::fs::remove_file(&missing.config.hook).unwrap();
        let why = missing.run().await.unwrap_err();
        assert!(why.starts_with("the hook cannot be run: "), "{why}");
        assert!(problem(&missing.config.hook).is_some() && problem(&script.config.hook).is_none());
        assert_eq!(problem(script.folder.path()).as_deref(), Some("it is not a file"));
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_killed_with_what_it_started() {
        let mut script = Script::new("sleep 1000 & echo $! > child; echo 'still at it' >&2; wait");
        script.config.timeout_ms = 1_000;
        assert_eq!(
            script.run().await,
            Err("the hook did not end within 1000 ms and was killed: still at it".to_owned())
        );
        until_gone(&script.read("child")).await;
    }

    #[tokio::test]
    async fn one_that_nobody_waits_for_any_more_is_killed() {
        let script = Script::new("echo $$ > self; exec sleep 1000");
        let known = async {
            while script.read("self").is_empty() {
                SystemClock.sleep_ms(5).await;
            }
        };
        tokio::select! {
            ended = script.run() => panic!("{ended:?}"),
            () = known => {}
        }
        until_gone(&script.read("self")).await;
    }

    #[tokio::test]
    async fn what_it_leaves_running_on_purpose_keeps_nobody_waiting_and_lives_on() {
        let script = Script::new("sleep 1000 & echo $! > child");
        assert_eq!(script.run().await, Ok(()));
        let child: i32 = script.read("child").trim().parse().unwrap();
        assert_eq!(nix::sys::signal::kill(Pid::from_raw(child), None), Ok(()));
        nix::sys::signal::kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
    }
}
