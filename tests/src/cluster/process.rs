//! One server or agent as a process that tests kill, freeze and start again.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A daemon of the cluster under test. Killed when dropped; what it said is kept in `log`.
#[derive(Debug)]
pub struct Daemon {
    pub name: String,
    program: PathBuf,
    arguments: Vec<String>,
    pub log: PathBuf,
    environment: Vec<(String, OsString)>,
    /// A program and its arguments that start the daemon, such as one that enters a namespace.
    wrapper: Vec<String>,
    child: Option<Child>,
}

impl Daemon {
    /// Known, but not started yet.
    pub fn new(name: &str, program: &Path, arguments: &[&str], log: PathBuf) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (environment, wrapper) = (Vec::new(), Vec::new());
        Self { name: name.to_owned(), program: program.to_owned(), arguments, log, environment, wrapper, child: None }
    }

    /// What its next starts have in their environment besides this process's own.
    pub fn set_environment(&mut self, environment: Vec<(String, OsString)>) {
        self.environment = environment;
    }

    /// The program and arguments that its next starts go through; it must become the daemon.
    pub fn set_wrapper(&mut self, wrapper: &[String]) {
        self.wrapper = wrapper.to_vec();
    }

    /// # Panics
    /// When it runs already or the binary cannot be executed.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let out = open_log(&self.log);
        let mut command = match self.wrapper.split_first() {
            Some((wrapper, arguments)) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(&self.arguments).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command.stdout(out.try_clone().expect("a file handle can be copied")).stderr(out);
        command.env("MUSTER_LOG", std::env::var("MUSTER_LOG").unwrap_or_else(|_| "info".to_owned()));
        command.env("RUST_BACKTRACE", "1");
        die_with_the_test(&mut command);
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.name)));
    }

    /// The next start is of another program.
    pub fn upgrade_to(&mut self, program: &Path) {
        self.program = program.to_owned();
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// True when it was started and has neither ended nor been killed.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill_9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGSTOP: it neither answers nor dies.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.pid().unwrap_or_else(|| panic!("{} does not run", self.name));
        kill(Pid::from_raw(pid as i32), signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Waits for its end, for a polite stop. `None` when it is still there after `patience`.
    pub fn ended_within(&mut self, patience: std::time::Duration) -> Option<std::process::ExitStatus> {
        let begun = std::time::Instant::now();
        let child = self.child.as_mut()?;
        while begun.elapsed() < patience {
            if let Ok(Some(status)) = child.try_wait() {
                self.child = None;
                return Some(status);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill_9();
    }
}

/// A test that is itself killed leaves no cluster behind: daemons go with the thread that started
/// them, and their ranks when the leases run out.
pub fn die_with_the_test(command: &mut Command) {
    // SAFETY: one system call, which neither allocates nor locks.
    unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)) };
}

fn open_log(path: &Path) -> File {
    let open = OpenOptions::new().create(true).append(true).open(path);
    open.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
