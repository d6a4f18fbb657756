//! The servers and agents of a development cluster, each a process of its own.

use super::files::Files;
use crate::error::CliError;
use crate::output::talk;
use muster_proto::convert::error::ErrorCode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

const STOP_WITHIN: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOG_TAIL_LINES: usize = 15;

#[derive(Debug)]
pub struct Processes(Vec<Process>);

#[derive(Debug)]
struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: bool,
}

impl Processes {
    pub fn start(files: &Files) -> Result<Self, CliError> {
        let program = std::env::current_exe()?;
        let mut processes = Self(Vec::new());
        for member in files.members() {
            processes.spawn(
                &program,
                &member.name,
                "server",
                &files.server_config(&member.name),
                &files.log(&member.name),
            )?;
        }
        for name in files.agents() {
            processes.spawn(&program, name, "agent", &files.agent_config(name), &files.log(name))?;
        }
        Ok(processes)
    }

    fn spawn(&mut self, program: &Path, name: &str, daemon: &str, config: &Path, log: &Path) -> Result<(), CliError> {
        let out = File::create(log)?;
        let mut command = Command::new(program);
        command
            .arg(daemon)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            // Ctrl-C on the terminal is for us; they are told in the right order.
            .process_group(0)
            .kill_on_drop(true);
        // A throw-away cluster must not outlive its owner, even one that is killed with -9.
        let die_with_us = || nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(std::io::Error::from);
        // SAFETY: between fork and exec only prctl is called, which takes no lock and allocates nothing.
        unsafe { command.pre_exec(die_with_us) };
        let child = command.spawn().map_err(|error| {
            CliError::new(ErrorCode::Internal, format!("cannot start {} {daemon}: {error}", program.display()))
        })?;
        self.0.push(Process { name: name.to_owned(), child, log: log.to_owned(), ended: false });
        Ok(())
    }

    pub fn pids(&self) -> Vec<(String, u32)> {
        self.0.iter().filter_map(|process| Some((process.name.clone(), process.child.id()?))).collect()
    }

    /// While the cluster comes up, nobody may end.
    pub fn check_alive(&mut self) -> Result<(), CliError> {
        for process in &mut self.0 {
            if let Some(status) = process.child.try_wait()? {
                let message = format!("{} ended at its start ({status}):\n{}", process.name, tail(&process.log));
                return Err(CliError::new(ErrorCode::Internal, message));
            }
        }
        Ok(())
    }

    /// Afterwards a process may be killed for an experiment; it is said once.
    pub fn say_ended(&mut self) {
        for process in self.0.iter_mut().filter(|process| !process.ended) {
            if let Ok(Some(status)) = process.child.try_wait() {
                process.ended = true;
                talk(&format!("{} ended ({status})\n", process.name));
            }
        }
    }

    /// Agents first, so that servers hear their last reports; SIGKILL for those that do not go.
    pub async fn stop(&mut self) {
        for process in self.0.iter().rev() {
            signal(process, Signal::SIGTERM);
        }
        let deadline = Instant::now() + STOP_WITHIN;
        while Instant::now() < deadline {
            let running = self.0.iter_mut().any(|process| matches!(process.child.try_wait(), Ok(None)));
            if !running {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        for process in &mut self.0 {
            signal(process, Signal::SIGKILL);
            let _ = process.child.wait().await;
        }
    }
}

/// `Child::id` is empty once the process was reaped, so no other process can be meant.
fn signal(process: &Process, signal: Signal) {
    if let Some(pid) = process.child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
