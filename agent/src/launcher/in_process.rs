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
    spec: Arc<Spec>,
    machine: Mutex<Machine>,
    /// The shim itself was killed.
    vanished: Mutex<bool>,
    /// When ranks that run for a while end by themselves, and how.
    ends: Mutex<Option<(u64, i32)>>,
    changed: watch::Sender<u64>,
    poke: Notify,
}

/// What a world without processes looks like from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub dir: PathBuf,
    pub spec: Arc<Spec>,
    /// Ranks that were let go and have not ended.
    pub running: Vec<u32>,
}

/// What a rank does is the last word of its command: a number ends it with that code at once,
/// `run` ends at the first signal, `stubborn` only at SIGKILL, `unkillable` never. `1500:3` runs for
/// 1500 ms and ends with code 3, or at the first signal.
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

    /// Lets time have its effect on shims whose agent is gone: they live on without it.
    pub fn tick(&self) {
        let now_ms = self.clock.boottime_ms();
        let shims: Vec<_> = locked(&self.shims).values().cloned().collect();
        shims.iter().filter(|shim| shim.due_ms() <= now_ms).for_each(|shim| shim.pass(now_ms));
    }

    /// What the shim in `dir` was started with.
    pub fn spec(&self, dir: &Path) -> Option<Spec> {
        self.shim(dir).map(|shim| Spec::clone(&shim.spec))
    }

    /// Every shim that still holds ranks, for an observer who trusts nobody.
    pub fn seen(&self) -> Vec<Seen> {
        let shims = locked(&self.shims);
        let seen = shims.iter().filter(|(_, shim)| !shim.is_over()).map(|(dir, shim)| {
            let machine = locked(&shim.machine);
            let running = machine.ranks.iter().filter(|(_, exit)| machine.spawned && exit.is_none());
            Seen { dir: dir.clone(), spec: shim.spec.clone(), running: running.map(|(rank, _)| *rank).collect() }
        });
        seen.collect()
    }

    /// The machine loses power: nothing is left of any shim.
    pub fn lose_power(&self) {
        locked(&self.shims).clear();
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

/// `1500:3`: for how long, and the code at the end.
fn for_a_while(kind: &str) -> Option<(u64, i32)> {
    let (for_ms, code) = kind.split_once(':')?;
    Some((for_ms.parse().ok()?, code.parse().ok()?))
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

    /// When something happens here by itself.
    fn due_ms(&self) -> u64 {
        if self.is_over() {
            return u64::MAX;
        }
        let end_ms = locked(&self.ends).map_or(u64::MAX, |(at_ms, _)| at_ms);
        locked(&self.machine).next_deadline_ms().unwrap_or(u64::MAX).min(end_ms)
    }

    /// Does what is due.
    fn pass(&self, now_ms: u64) {
        self.take(now_ms, Event::Tick);
        let due = locked(&self.ends).take_if(|(at_ms, _)| *at_ms <= now_ms);
        let Some((_, code)) = due else { return };
        let ranks: Vec<u32> = locked(&self.machine).ranks.keys().copied().collect();
        for rank in ranks {
            self.take(now_ms, Event::RankExited(ended(rank, code, 0)));
        }
    }

    fn take(&self, now_ms: u64, event: Event) {
        let mut events = vec![event];
        {
            let mut machine = locked(&self.machine);
            while let Some(event) = events.pop() {
                for action in step(&mut machine, now_ms, event) {
                    self.pretend(&machine, now_ms, &action, &mut events);
                }
            }
        }
        self.tell();
    }

    fn pretend(&self, machine: &Machine, now_ms: u64, action: &Action, events: &mut Vec<Event>) {
        let kind = self.spec.argv.last().map_or("", String::as_str);
        let running = machine.ranks.iter().filter(|(_, exit)| exit.is_none()).map(|(rank, _)| *rank);
        match action {
            Action::Spawn => {
                if let Ok(code) = kind.parse() {
                    events.extend(running.map(|rank| Event::RankExited(ended(rank, code, 0))));
                } else if let Some((for_ms, code)) = for_a_while(kind) {
                    *locked(&self.ends) = Some((now_ms.saturating_add(for_ms), code));
                }
            }
            Action::Signal(signal) if kind == "run" || for_a_while(kind).is_some() => {
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
            spec: Arc::new(spec.clone()),
            machine: Mutex::new(Machine::new(spec.ranks.iter().map(|rank| rank.rank), spec.deadline_ms)),
            vanished: Mutex::new(false),
            ends: Mutex::new(None),
            changed: watch::Sender::new(0),
            poke: Notify::new(),
        });
        locked(&self.shims).insert(dir.to_owned(), shim.clone());
        shim.take(self.clock.boottime_ms(), Event::Checked(Ok(())));
        let clock = self.clock.clone();
        tokio::spawn(async move {
            while !shim.is_over() {
                tokio::select! {
                    () = shim.poke.notified() => {}
                    () = clock.sleep_until_ms(shim.due_ms()) => shim.pass(clock.boottime_ms()),
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
            if shim.spec.argv.last().is_some_and(|kind| kind == "unkillable") {
                continue;
            }
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
