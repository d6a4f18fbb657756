//! One actor per allocation: prepares it, passes orders to its shim, and tells what became of it.
//!
//! Orders come down through a `watch`, so only the newest counts and nobody waits; facts go up in
//! order. A runner that ends with its agent leaves the shim alone.

mod checkpoints;
mod prepare;

pub use checkpoints::checkpoint_file;
pub use prepare::Workplace;

use self::checkpoints::Checkpoints;
use crate::assignment::{DeviceShare, Key, RunPart, StopRules};
use crate::health::Devices;
use crate::launcher::{Found, Launcher, ShimLink, UNKNOWN};
use crate::shim::machine::{Failure, LEASE_RAN_OUT, Phase, RankExit};
use crate::shim::wire::{Released, Request, Status};
use muster_common::job::StopSignal;
use muster_runtime::clock::Clock;
use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;

/// Between two looks for leftovers and for processes on devices.
const LOOK_AGAIN_MS: u64 = 50;
/// The same while they cannot be looked at at all.
const LOOK_IN_VAIN_MS: u64 = 2_000;
/// A shim in the middle of a kill is looked at this often.
const WATCH_KILL_MS: u64 = 500;

/// Connections to one shim are at least so far apart.
const CONNECT_EVERY_MS: u64 = 1_000;

/// What a runner is to do. Each part only ever goes forward.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Orders {
    pub go: bool,
    pub stop: Option<StopRules>,
    /// End of the lease, boot time in ms; 0 = as the shim has it.
    pub deadline_ms: u64,
}

/// What happened to an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    Barrier,
    Failed(Failure),
    Started,
    /// A rank says that a checkpoint is complete.
    Checkpointed,
    Exited(RankExit),
    Ending,
    /// It survives SIGKILL.
    Stuck {
        slots: Vec<u16>,
        why: String,
    },
    /// The process tree is proven empty, and so are its devices. `vanished`: its shim left no
    /// evidence, so the proof is a sweep's.
    Gone {
        lease_expired: bool,
        vanished: bool,
    },
}

/// Where facts go.
pub trait Witness: Send + Sync + 'static {
    /// Takes a fact; returns once it is as safe as it will be.
    fn tell(&self, key: Key, fact: Fact) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// How a runner begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// Nothing of it exists yet.
    Fresh { deadline_ms: u64 },
    /// An earlier agent may have left a shim.
    Adopt,
}

/// One allocation's actor.
pub struct Runner<W> {
    pub key: Key,
    pub run: RunPart,
    pub orders: watch::Receiver<Orders>,
    pub workplace: Workplace,
    pub launcher: Arc<dyn Launcher>,
    pub devices: Devices,
    pub clock: Arc<dyn Clock>,
    pub kill_bound_ms: u64,
    pub witness: W,
}

/// What has been told of the shim's statuses.
#[derive(Default)]
struct Told {
    barrier: bool,
    failed: bool,
    started: bool,
    ending: bool,
    stuck: bool,
    weak: bool,
    exits: BTreeSet<u32>,
    /// What the shim has been asked for in this connection.
    asked_deadline_ms: u64,
    asked_go: bool,
    asked_stop: Option<StopRules>,
}

impl<W: Witness> Runner<W> {
    /// Ends when the allocation is proven gone.
    pub async fn run(mut self, beginning: Beginning) {
        if let Beginning::Fresh { deadline_ms } = beginning
            && let Err(failure) = self.prepare(deadline_ms).await
        {
            if let Some(failure) = failure {
                self.tell(Fact::Failed(failure)).await;
            }
            return self.prove_gone(false, false, Told::default()).await;
        }
        let (dir, mark) = (self.dir(), self.workplace.mark(&self.key));
        let mut told = Told::default();
        let adopted = beginning == Beginning::Adopt;
        let mut checkpoints = Checkpoints::of(&self.workplace.paths.output(&self.key), adopted);
        let mut connect_at_ms = 0;
        loop {
            match self.launcher.find(&dir, &mark).await {
                Found::Live(link) => {
                    // A shim that ends every connection, such as one of another version, is not stormed.
                    self.clock.sleep_until_ms(connect_at_ms).await;
                    connect_at_ms = self.clock.boottime_ms() + CONNECT_EVERY_MS;
                    self.follow(link, &mut told, &mut checkpoints).await;
                }
                Found::Ended(Released { lease_expired, failure, exits }) => {
                    self.tell_ends(failure, exits, &mut told).await;
                    return self.prove_gone(lease_expired, false, told).await;
                }
                Found::Vanished(exits) => {
                    tracing::warn!(allocation = %self.key, "its shim is gone without a word; looking for leftovers");
                    self.tell_ends(None, exits, &mut told).await;
                    return self.prove_gone(false, true, told).await;
                }
            }
        }
    }

    fn dir(&self) -> PathBuf {
        self.workplace.allocation(&self.key)
    }

    async fn tell(&self, fact: Fact) {
        self.witness.tell(self.key, fact).await;
    }

    /// Orders down and statuses up, until the connection ends.
    async fn follow(&mut self, mut link: ShimLink, told: &mut Told, checkpoints: &mut Checkpoints) {
        (told.asked_deadline_ms, told.asked_go, told.asked_stop) = (0, false, None);
        loop {
            if !self.pass_orders(&link, told).await {
                return;
            }
            tokio::select! {
                status = link.statuses.recv() => match status {
                    Some(status) => self.take_status(status, told).await,
                    None => return,
                },
                changed = self.orders.changed() => if changed.is_err() {
                    // The agent is ending; ranks are not.
                    return std::future::pending().await;
                },
                is_new = checkpoints.next(self.clock.as_ref()), if told.started && !told.ending => if is_new {
                    self.tell(Fact::Checkpointed).await;
                },
                () = self.clock.sleep_ms(WATCH_KILL_MS), if told.ending && !told.stuck => {
                    if link.requests.send(Request::Status).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// False when the shim no longer listens.
    async fn pass_orders(&mut self, link: &ShimLink, told: &mut Told) -> bool {
        let orders = self.orders.borrow_and_update().clone();
        let mut requests = Vec::new();
        if orders.deadline_ms > told.asked_deadline_ms {
            told.asked_deadline_ms = orders.deadline_ms;
            requests.push(Request::Extend { deadline_ms: orders.deadline_ms });
        }
        // Before the barrier a shim would not hear it.
        if orders.go && told.barrier && !told.asked_go {
            told.asked_go = true;
            requests.push(Request::Go);
        }
        if let Some(stop) = orders.stop.filter(|stop| told.asked_stop.as_ref() != Some(stop)) {
            requests.push(Request::Stop { signal: stop.signal.map(signal_number), grace_ms: stop.grace_ms });
            told.asked_stop = Some(stop);
        }
        for request in requests {
            if link.requests.send(request).await.is_err() {
                return false;
            }
        }
        true
    }

    async fn take_status(&self, status: Status, told: &mut Told) {
        let Status { phase, spawned, failure, exits, weak_fencing, .. } = status;
        if weak_fencing && self.workplace.pid_namespace && !told.weak {
            told.weak = true;
            tracing::warn!(allocation = %self.key, "its shim got no PID namespace: its fencing is weaker than registered");
        }
        if phase != Phase::Preparing && failure.is_none() && !told.barrier {
            told.barrier = true;
            self.tell(Fact::Barrier).await;
        }
        if spawned && !told.started {
            told.started = true;
            self.tell(Fact::Started).await;
        }
        self.tell_ends(failure, exits, told).await;
        let ending = matches!(phase, Phase::Stopping { .. } | Phase::Killing { .. });
        if ending && !told.ending {
            told.ending = true;
            self.tell(Fact::Ending).await;
        }
        if let Phase::Killing { since_ms, .. } = phase {
            let waited_ms = self.clock.boottime_ms().saturating_sub(since_ms);
            self.tell_if_stuck(waited_ms, "processes survive SIGKILL".to_owned(), told).await;
        }
    }

    async fn tell_ends(&self, failure: Option<Failure>, exits: Vec<RankExit>, told: &mut Told) {
        if let Some(failure) = failure.filter(|_| !told.failed) {
            told.failed = true;
            self.tell(Fact::Failed(failure)).await;
        }
        // The release tells of those the lease killed: as ends of ranks they would look like the job's own fault.
        for exit in exits.into_iter().filter(|exit| exit.why != LEASE_RAN_OUT) {
            if told.exits.insert(exit.rank) {
                self.tell(Fact::Exited(exit)).await;
            }
        }
    }

    async fn tell_if_stuck(&self, waited_ms: u64, why: String, told: &mut Told) {
        if waited_ms < self.kill_bound_ms || told.stuck {
            return;
        }
        told.stuck = true;
        let slots = self.run.devices.iter().map(|device| device.slot).collect();
        self.tell(Fact::Stuck { slots, why: format!("{why} for {waited_ms} ms") }).await;
    }

    /// Waits until no process is left that carries the mark, and none on the devices. Without a
    /// shim's evidence the first is brought about, not only awaited.
    async fn prove_gone(&self, lease_expired: bool, vanished: bool, mut told: Told) {
        let begun_ms = self.clock.boottime_ms();
        let mark = self.workplace.mark(&self.key);
        loop {
            let left = if vanished { self.launcher.kill_marked(&mark, &BTreeSet::new()).await } else { 0 };
            let why = match (self.find_on_devices().await, left) {
                (_, UNKNOWN) => "the processes of this machine cannot be looked at".to_owned(),
                (None, 0) => break,
                (Some(why), 0) => why,
                _ => format!("{left} processes without a shim survive SIGKILL"),
            };
            let waited_ms = self.clock.boottime_ms().saturating_sub(begun_ms);
            self.tell_if_stuck(waited_ms, why, &mut told).await;
            self.clock.sleep_ms(if left == UNKNOWN { LOOK_IN_VAIN_MS } else { LOOK_AGAIN_MS }).await;
        }
        self.tell(Fact::Gone { lease_expired, vanished }).await;
    }

    /// What speaks against the devices being free. Of a shared device only the tree is proven: its
    /// other holders' processes are on it by right.
    async fn find_on_devices(&self) -> Option<String> {
        for DeviceShare { uuid, .. } in self.run.devices.iter().filter(|device| device.milli >= 1000) {
            match self.devices.processes_on(uuid).await {
                Ok(pids) if pids.is_empty() => {}
                Ok(pids) => return Some(format!("processes {pids:?} stay on device {uuid}")),
                Err(error) => return Some(format!("the processes on device {uuid} are not known: {error}")),
            }
        }
        None
    }
}

fn signal_number(signal: StopSignal) -> i32 {
    match signal {
        StopSignal::Usr1 => libc::SIGUSR1,
        StopSignal::Usr2 => libc::SIGUSR2,
        StopSignal::Term => libc::SIGTERM,
        StopSignal::Int => libc::SIGINT,
        StopSignal::Hup => libc::SIGHUP,
    }
}
