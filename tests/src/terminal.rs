//! A reader's terminals: shells that type what a page says and compare what they see with it.

use crate::cluster::process::die_with_the_test;
use crate::cluster::{kill_all, ranks};
use crate::page::{self, Deed, Step};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// For one command, or for a line of a command that goes on running.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a command that only looks is repeated, and the pause between two.
const LOOK_AGAIN_FOR: Duration = Duration::from_secs(30);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(300);

/// Where a page is followed.
#[derive(Debug)]
pub struct Desk {
    /// Scripts and what was seen; also the mark of all processes.
    folder: PathBuf,
    /// Starts a shell that reads commands from its standard input; `bash` where it is empty.
    shell: Vec<String>,
    /// Where terminals open.
    starts_in: PathBuf,
    /// Where files are saved that the page names with a relative path.
    saves_in: PathBuf,
    env: Vec<(String, String)>,
    /// What the page says, and what stands in its place here.
    replace: Vec<(String, String)>,
    terminals: BTreeMap<String, Terminal>,
}

#[derive(Debug)]
struct Terminal {
    child: Child,
    input: ChildStdin,
    seen: PathBuf,
    /// Bytes of `seen` that belong to earlier commands.
    read: usize,
    /// A command goes on running.
    busy: bool,
}

impl Desk {
    /// `folder` marks everything that is started: it is killed when the desk is dropped.
    pub fn new(folder: &Path, starts_in: &Path, saves_in: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder can be made");
        Self {
            folder: folder.to_owned(),
            starts_in: starts_in.to_owned(),
            shell: vec!["bash".to_owned(), "--noprofile".to_owned(), "--norc".to_owned()],
            saves_in: saves_in.to_owned(),
            env: Vec::new(),
            replace: Vec::new(),
            terminals: BTreeMap::new(),
        }
    }

    /// The whole environment of the shells.
    pub fn with_env(mut self, env: Vec<(String, String)>) -> Self {
        self.env = env;
        self
    }

    /// What stands here in the place of words of the page: ports that are free, paths.
    pub fn with_words(mut self, replace: Vec<(String, String)>) -> Self {
        self.replace = replace;
        self
    }

    /// Another shell, such as one inside a container.
    pub fn with_shell(mut self, shell: Vec<String>) -> Self {
        self.shell = shell;
        self
    }

    /// Does what a page says, step by step.
    ///
    /// # Panics
    /// At the first step that does not show what the page says.
    pub fn follow(&mut self, page: &Path) {
        let text = fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        let steps = page::steps(&text);
        assert!(!steps.is_empty(), "{} tells its reader to do nothing", page.display());
        for step in steps {
            if let Err(problem) = self.take(&step) {
                panic!("{}:{}: {problem}", page.display(), step.line);
            }
        }
        if let Some((name, _)) = self.terminals.iter().find(|(_, terminal)| terminal.busy) {
            panic!("{}: at its end, something still runs in terminal `{name}`", page.display());
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        match &step.deed {
            Deed::Save { file, text } => {
                let path = self.saves_in.join(self.here(file));
                fs::write(&path, self.here(text)).map_err(|error| format!("cannot save {}: {error}", path.display()))
            }
            Deed::Type { terminal, command, output, exit_code, may_stay } => {
                let command = self.here(command);
                let output: Vec<String> = output.iter().map(|line| self.here(line)).collect();
                let begun = Instant::now();
                loop {
                    let result = self.terminal(terminal).see(&command, &output, *exit_code, *may_stay);
                    if result.is_ok() || !page::only_looks(&command) || begun.elapsed() > LOOK_AGAIN_FOR {
                        return result;
                    }
                    std::thread::sleep(LOOK_AGAIN_AFTER);
                }
            }
            Deed::Interrupt { terminal, output } => {
                let output: Vec<String> = output.iter().map(|line| self.here(line)).collect();
                let terminal = self.terminal(terminal);
                terminal.interrupt()?;
                terminal.wait(&output, false).map(drop).map_err(|why| format!("^C\n{why}"))
            }
        }
    }

    /// The page's text with this desk's ports and paths.
    fn here(&self, text: &str) -> String {
        self.replace.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    fn terminal(&mut self, name: &str) -> &mut Terminal {
        if !self.terminals.contains_key(name) {
            let seen = self.folder.join(format!("seen-{}", if name.is_empty() { "first" } else { name }));
            let terminal = Terminal::open(&self.shell, &self.starts_in, &self.env, seen);
            self.terminals.insert(name.to_owned(), terminal);
        }
        self.terminals.get_mut(name).expect("it was just made")
    }
}

impl Terminal {
    fn open(shell: &[String], starts_in: &Path, env: &[(String, String)], seen: PathBuf) -> Self {
        let out = File::create(&seen).unwrap_or_else(|error| panic!("{}: {error}", seen.display()));
        let mut command = Command::new(&shell[0]);
        command.args(&shell[1..]).current_dir(starts_in).env_clear().envs(env.iter().cloned()).stdin(Stdio::piped());
        command.stdout(out.try_clone().expect("a file handle can be copied")).stderr(out).process_group(0);
        die_with_the_test(&mut command);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", shell[0]));
        let input = child.stdin.take().expect("it is piped");
        Self { child, input, seen, read: 0, busy: false }
    }

    fn see(&mut self, command: &str, output: &[String], exit_code: i32, may_stay: bool) -> Result<(), String> {
        self.run(command)?;
        match self.wait(output, may_stay).map_err(|why| format!("$ {command}\n{why}"))? {
            Some(code) if code != exit_code => Err(format!("$ {command}\nended with {code}, not {exit_code}")),
            _ => Ok(()),
        }
    }

    /// Types a command. Its standard input is empty, so that it cannot read the next one.
    fn run(&mut self, command: &str) -> Result<(), String> {
        if self.busy {
            return Err(format!("$ {command}\na command still runs in this terminal"));
        }
        self.read = self.all().len();
        self.busy = true;
        let typed = format!("{{ {command}\n}} </dev/null; printf '\\n%s %d\\n' '{END}' $?\n");
        self.input.write_all(typed.as_bytes()).map_err(|error| format!("$ {command}\nthe shell is gone: {error}"))
    }

    /// The exit code; `None` for a command that has shown what it should and goes on.
    fn wait(&mut self, output: &[String], may_stay: bool) -> Result<Option<i32>, String> {
        let begun = Instant::now();
        loop {
            let all = self.all();
            let new = String::from_utf8_lossy(&all[self.read..]).into_owned();
            let (text, ended) = match new.split_once(&format!("\n{END} ")) {
                Some((text, code)) if code.ends_with('\n') => (text, code.trim().parse::<i32>().ok()),
                _ => (new.as_str(), None),
            };
            let lines: Vec<&str> = text.lines().collect();
            let shown = page::matches(output, &lines);
            let told = |what: &str| {
                format!("{what}\nthe page says:\n  {}\nseen:\n  {}", output.join("\n  "), lines.join("\n  "))
            };
            if ended.is_some() {
                self.busy = false;
                self.read = all.len();
                return if shown { Ok(ended) } else { Err(told(&format!("ended with {}", ended.unwrap_or(-1)))) };
            }
            if may_stay && shown && !output.is_empty() {
                self.read = all.len();
                return Ok(None);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(told(&format!("the shell ended: {status}")));
            }
            if begun.elapsed() > PATIENCE {
                return Err(told(&format!("after {PATIENCE:?}")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// SIGINT to what runs in the foreground, as a terminal does on Ctrl-C.
    fn interrupt(&mut self) -> Result<(), String> {
        let shell = self.child.id();
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap_or_default();
        let pids: Vec<i32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        if !self.busy || pids.is_empty() {
            return Err("^C, but nothing runs in this terminal".to_owned());
        }
        for pid in pids {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        Ok(())
    }

    fn all(&self) -> Vec<u8> {
        fs::read(&self.seen).unwrap_or_default()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.terminals.clear();
        kill_all(|| ranks::all_of(&self.folder));
    }
}

/// No program prints it.
const END: &str = "\u{1}the command ended:";

impl Drop for Terminal {
    fn drop(&mut self) {
        let group = Pid::from_raw(-(self.child.id() as i32));
        let _ = kill(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
