//! Shims without processes: the same machine, driven by a task, with ranks that only pretend. For
//! worlds under a simulated clock.

use super::{Found, IN_FLIGHT, Launcher, LauncherError, ShimLink};
use crate::shim::machine::{Action, Event, Machine, Phase, RankExit, step};
use crate::shim::wire::{Released, Request, Spec, Status};
use async_trait::async_trait;
use muster_runtime::clock::Clock;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

const SIGKILL: u32 = 9;

/// One pretended shim.
#[derive(Debug)]
struct Pretended {
    spec: Spec,
    machine: Mutex<Machine>,
    /// The shim itself was killed.
    vanished: Mutex<bool>,
    changed: watch::Sender<u64>,
    poke: Notify,
}

/// What a rank does is the last word of its command: a number ends it with that code at once,
/// `run` ends at the first signal, `stubborn` only at SIGKILL, `unkillable` never.
#[derive(Debug, Clone)]
pub struct InProcess {
    clock: Arc<dyn Clock>,
    shims: Arc<Mutex<BTreeMap<PathBuf, Arc<Pretended>>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl InProcess {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, shims: Arc::default() }
    }

    /// Ends one rank as by its own doing.
    pub fn end_rank(&self, dir: &Path, rank: u32, code: i32) {
        if let Some(shim) = self.shim(dir) {
            shim.take(self.clock.boottime_ms(), Event::RankExited(ended(rank, code, 0)));
        }
    }

    /// Kills the shim; its ranks die with it.
    pub fn vanish(&self, dir: &Path) {
        if let Some(shim) = self.shim(dir) {
            *locked(&shim.vanished) = true;
            shim.tell();
        }
    }

    /// How far the shim in `dir` is.
    pub fn status(&self, dir: &Path) -> Option<Status> {
        self.shim(dir).map(|shim| shim.status())
    }

    /// Every folder a shim was ever started in.
    pub fn started(&self) -> Vec<PathBuf> {
        locked(&self.shims).keys().cloned().collect()
    }

    fn shim(&self, dir: &Path) -> Option<Arc<Pretended>> {
        locked(&self.shims).get(dir).cloned()
    }
}

fn ended(rank: u32, code: i32, signal: u32) -> RankExit {
    RankExit { rank, code, signal, why: String::new(), wall_ms: 0 }
}

impl Pretended {
    fn status(&self) -> Status {
        Status::of(&locked(&self.machine), false)
    }

    fn is_over(&self) -> bool {
        *locked(&self.vanished) || locked(&self.machine).phase == Phase::Dead
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
        self.poke.notify_one();
    }

    fn take(&self, now_ms: u64, event: Event) {
        let mut events = vec![event];
        {
            let mut machine = locked(&self.machine);
            while let Some(event) = events.pop() {
                for action in step(&mut machine, now_ms, event) {
                    self.pretend(&machine, &action, &mut events);
                }
            }
        }
        self.tell();
    }

    fn pretend(&self, machine: &Machine, action: &Action, events: &mut Vec<Event>) {
        let kind = self.spec.argv.last().map_or("", String::as_str);
        let running = machine.ranks.iter().filter(|(_, exit)| exit.is_none()).map(|(rank, _)| *rank);
        match action {
            Action::Spawn => {
                if let Ok(code) = kind.parse() {
                    events.extend(running.map(|rank| Event::RankExited(ended(rank, code, 0))));
                }
            }
            Action::Signal(signal) if kind == "run" => {
                let signal = *signal as u32;
                events.extend(running.map(|rank| Event::RankExited(ended(rank, 128 + signal as i32, signal))));
            }
            Action::KillTree if kind != "unkillable" || !machine.spawned => {
                events.push(Event::TreeEmpty);
                if machine.spawned {
                    events.extend(running.map(|rank| Event::RankExited(ended(rank, 137, SIGKILL))));
                }
            }
            Action::Drain => events.push(Event::TreeEmpty),
            _ => {}
        }
    }
}

#[async_trait]
impl Launcher for InProcess {
    async fn start(&self, dir: &Path, spec: &Spec) -> Result<(), LauncherError> {
        let shim = Arc::new(Pretended {
            spec: spec.clone(),
            machine: Mutex::new(Machine::new(spec.ranks.iter().map(|rank| rank.rank), spec.deadline_ms)),
            vanished: Mutex::new(false),
            changed: watch::Sender::new(0),
            poke: Notify::new(),
        });
        locked(&self.shims).insert(dir.to_owned(), shim.clone());
        shim.take(self.clock.boottime_ms(), Event::Checked(Ok(())));
        let clock = self.clock.clone();
        tokio::spawn(async move {
            while !shim.is_over() {
                let due_ms = locked(&shim.machine).next_deadline_ms().unwrap_or(u64::MAX);
                tokio::select! {
                    () = shim.poke.notified() => {}
                    () = clock.sleep_until_ms(due_ms) => shim.take(clock.boottime_ms(), Event::Tick),
                }
            }
        });
        Ok(())
    }

    async fn find(&self, dir: &Path, _marker: &str) -> Found {
        let Some(shim) = self.shim(dir) else { return Found::Vanished(Vec::new()) };
        let status = shim.status();
        if status.phase == Phase::Dead {
            let Status { lease_expired, failure, exits, .. } = status;
            return Found::Ended(Released { lease_expired, failure, exits });
        }
        if *locked(&shim.vanished) {
            return Found::Vanished(status.exits);
        }
        Found::Live(carry(shim, self.clock.clone()))
    }

    async fn kill_marked(&self, prefix: &str, keep: &BTreeSet<String>) -> usize {
        let shims: Vec<_> = locked(&self.shims).values().cloned().collect();
        let marked = |shim: &&Arc<Pretended>| shim.spec.marker.starts_with(prefix) && !keep.contains(&shim.spec.marker);
        let mut found = 0;
        for shim in shims.iter().filter(marked).filter(|shim| !shim.is_over()) {
            found += 1;
            *locked(&shim.vanished) = true;
            shim.tell();
        }
        found
    }
}

fn carry(shim: Arc<Pretended>, clock: Arc<dyn Clock>) -> ShimLink {
    let (requests, mut outbox) = tokio::sync::mpsc::channel(IN_FLIGHT);
    let (inbox, statuses) = tokio::sync::mpsc::channel(IN_FLIGHT);
    tokio::spawn(async move {
        let mut changed = shim.changed.subscribe();
        loop {
            if inbox.send(shim.status()).await.is_err() || shim.is_over() {
                return;
            }
            tokio::select! {
                request = outbox.recv() => match request {
                    None => return,
                    Some(Request::Status) => {}
                    Some(Request::Go) => shim.take(clock.boottime_ms(), Event::Go),
                    Some(Request::Stop { signal, grace_ms }) => {
                        shim.take(clock.boottime_ms(), Event::Stop { signal, grace_ms });
                    }
                    Some(Request::Extend { deadline_ms }) => {
                        shim.take(clock.boottime_ms(), Event::LeaseExtended { deadline_ms });
                    }
                },
                _ = changed.changed() => {}
            }
        }
    });
    ShimLink { requests, statuses }
}
