//! What must hold after every applied entry, and at every moment for whoever looks at the ranks.

use crate::trace::Trace;
use muster_agent::launcher::Seen;
use muster_common::JobId;
use muster_engine::{Command, Entry, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by all servers' witnesses.
#[derive(Clone)]
pub struct Checks {
    trace: Trace,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
pub struct Inner {
    /// The first broken promise, in words.
    pub broken: Option<String>,
    /// Term and hash of the state after each index.
    applied: BTreeMap<u64, (u64, [u8; 32])>,
    /// The job of every key ever committed.
    pub keys: BTreeMap<String, JobId>,
    /// What each server holds now.
    pub states: BTreeMap<u64, State>,
    /// Entries by name, counted once each.
    pub entries: BTreeMap<&'static str, u64>,
    /// Nodes that were declared silent or fenced, with the entry's index.
    pub silences: Vec<(u64, Entry)>,
}

impl Checks {
    pub fn new(trace: Trace) -> Self {
        Self { trace, inner: Arc::default() }
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn break_with(&self, what: String) {
        self.trace.note("broken", &what);
        self.lock().broken.get_or_insert(what);
    }

    /// The state that has applied most.
    pub fn newest(&self) -> Option<State> {
        self.lock().states.values().max_by_key(|state| state.applied_index()).cloned()
    }

    /// Takes note of an entry that `server` has applied.
    pub fn applied(&self, server: u64, entry: &Entry, state: &State) {
        let hash = state.hash().0;
        let short: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let name = word(&entry.command);
        self.trace.note(&format!("server-{server}"), format_args!("{}@{} {name} {short}", entry.index, entry.term));
        if let Err(why) = state.check() {
            self.break_with(format!("server {server} at entry {} ({name}): {why}", entry.index));
        }
        let mut inner = self.lock();
        let before = inner.applied.insert(entry.index, (entry.term, hash));
        match before {
            None => {
                *inner.entries.entry(name).or_default() += 1;
                if matches!(entry.command, Command::NodeSilent { .. } | Command::NodeFenced { .. }) {
                    inner.silences.push((entry.index, entry.clone()));
                }
            }
            Some(other) if other != (entry.term, hash) => {
                drop(inner);
                self.break_with(format!("server {server} differs from another one after entry {}", entry.index));
                return;
            }
            Some(_) => {}
        }
        if let Command::Submit(submit) = &entry.command
            && let Some(record) = state.key(&submit.key)
        {
            let known = *inner.keys.entry(submit.key.clone()).or_insert(record.job);
            if known != record.job {
                drop(inner);
                self.break_with(format!("key {} stands for jobs {known} and {}", submit.key, record.job));
                return;
            }
        }
        inner.states.insert(server, state.clone());
    }
}

fn word(command: &Command) -> &'static str {
    match command {
        Command::Nothing => "nothing",
        Command::AdvanceTime { .. } => "advance-time",
        Command::Submit(_) => "submit",
        Command::Cancel(_) => "cancel",
        Command::Hold { .. } => "hold",
        Command::RegisterNode(_) => "register",
        Command::NodeSeen { .. } => "seen",
        Command::Reports { .. } => "reports",
        Command::CommitPlan(_) => "plan",
        Command::Expire { .. } => "expire",
        Command::NodeSilent { .. } => "silent",
        Command::NodeFenced { .. } => "fenced",
        Command::NodeAdmin { .. } => "node-admin",
        Command::IssueToken { .. } | Command::UseToken { .. } => "token",
        Command::Configure { .. } => "configure",
        Command::Edit(_) => "edit",
        Command::MakeWindow(_) | Command::EndWindow { .. } => "window",
        Command::RequestNodes(_) | Command::SleepNodes { .. } | Command::NodePower { .. } => "power",
    }
}

/// One attempt's part on a node, as its ranks' environment names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    gang: String,
    attempt: u32,
    token: String,
    node: String,
}

/// Looks at the ranks of all nodes and trusts neither servers nor agents.
#[derive(Default)]
pub struct RankObserver {
    /// Parts that have a shim, ever.
    prepared: BTreeSet<Part>,
    /// Parts whose ranks run now.
    running: BTreeSet<Part>,
    /// Parts whose ranks ran and have ended.
    over: BTreeSet<Part>,
    pub started: u64,
    pub most_at_once: usize,
}

impl RankObserver {
    /// Ranks that run now.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    pub fn is_running(&self, gang: &str, attempt: u32) -> bool {
        self.running.iter().any(|part| part.gang == gang && part.attempt == attempt)
    }

    pub fn runs_on(&self, node: &str) -> bool {
        self.running.iter().any(|part| part.node == node)
    }

    pub fn nodes_of(&self, gang: &str) -> Vec<String> {
        self.running.iter().filter(|part| part.gang == gang).map(|part| part.node.clone()).collect()
    }

    /// Takes a look; the first broken promise, in words.
    pub fn look(&mut self, trace: &Trace, shims: &[(String, Seen)]) -> Result<(), String> {
        let mut now = BTreeSet::new();
        let mut devices: BTreeMap<String, String> = BTreeMap::new();
        let mut sizes: BTreeMap<Part, usize> = BTreeMap::new();
        for (node, seen) in shims {
            let part = part_of(node, seen);
            self.prepared.insert(part.clone());
            if seen.running.is_empty() {
                continue;
            }
            let env = &seen.spec.env;
            for device in env["CUDA_VISIBLE_DEVICES"].split(',').filter(|uuid| !uuid.is_empty()) {
                if let Some(other) = devices.insert(device.to_owned(), part.gang.clone())
                    && other != part.gang
                {
                    return Err(format!("gangs {other} and {} run on device {device} at once", part.gang));
                }
            }
            sizes.insert(part.clone(), env["MUSTER_NODES"].parse().expect("a number"));
            now.insert(part);
        }
        self.compare(trace, &now, &sizes)?;
        self.over.extend(self.running.difference(&now).cloned());
        self.running = now;
        self.most_at_once = self.most_at_once.max(self.running.len());
        Ok(())
    }

    fn compare(&mut self, trace: &Trace, now: &BTreeSet<Part>, sizes: &BTreeMap<Part, usize>) -> Result<(), String> {
        let mut attempts: BTreeMap<&str, u32> = BTreeMap::new();
        for part in now {
            let other = *attempts.entry(&part.gang).or_insert(part.attempt);
            if other != part.attempt {
                return Err(format!("attempts {other} and {} of gang {} are alive at once", part.attempt, part.gang));
            }
        }
        for part in self.running.difference(now) {
            trace.note(&part.node, format_args!("ranks of {}@{} ended", part.gang, part.attempt));
        }
        for part in now.difference(&self.running) {
            trace.note(&part.node, format_args!("ranks of {}@{} run", part.gang, part.attempt));
            self.started += 1;
            if self.over.contains(part) {
                return Err(format!("{part:?} was started a second time"));
            }
            let prepared =
                self.prepared.iter().filter(|other| (&other.gang, other.attempt) == (&part.gang, part.attempt));
            if prepared.count() < sizes[part] {
                return Err(format!("{part:?} passed the barrier before all its parts had prepared"));
            }
            let later =
                self.over.iter().chain(&self.running).find(|old| old.gang == part.gang && old.attempt > part.attempt);
            if let Some(later) = later {
                return Err(format!("{part:?} started although attempt {} had run", later.attempt));
            }
        }
        Ok(())
    }
}

fn part_of(node: &str, seen: &Seen) -> Part {
    let env = &seen.spec.env;
    let (gang, attempt) = env["MUSTER_RDZV_ID"].split_once('@').expect("gang@attempt-token");
    let attempt = attempt.split('-').next().expect("never empty").parse().expect("a number");
    Part { gang: gang.to_owned(), attempt, token: env["MUSTER_TOKEN"].clone(), node: node.to_owned() }
}
