//! The agent's centre: holds the store and the newest desired state, takes the steps between them
//! and what runs, and makes every fact durable before it is told.

mod facts;
mod faults;
mod saving;
mod startup;
mod steps;

use crate::assignment::{Desired, DeviceShare, Key, Position};
use crate::device::Load;
use crate::health::Devices;
use crate::launcher::Launcher;
use crate::reconcile::Progress;
use crate::runner::{Beginning, Fact, Orders, Runner, Witness, Workplace};
use crate::store::{Held, Report, ReportBody, Store};
use muster_runtime::actor::{ActorError, Inbox, Mailbox, mailbox};
use muster_runtime::clock::Clock;
use muster_runtime::durable::DurableError;
use muster_runtime::reply::Reply;
use muster_runtime::shutdown::Shutdown;
use saving::{Effect, Unsaved};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

const MAILBOX: usize = 256;
/// Messages handled between two writes of the store.
const AT_ONCE: usize = 64;
/// What need not be saved at once is saved after so long without a message.
const SAVE_WHEN_IDLE_MS: u64 = 100;
/// Remembered refusals and releases.
const SAID_MAX: usize = 10_000;

/// Reports that wait for a server, by number.
pub type Pending = Arc<BTreeMap<u64, Report>>;
/// Allocations with something left on this node.
pub type Live = Arc<BTreeSet<Key>>;

/// What a server is told when the agent connects.
#[derive(Debug, Clone)]
pub struct Introduction {
    pub seen: Position,
    /// With what each occupies, unless it is proven gone. Ends that are remembered are among them.
    pub held: Vec<(Key, &'static str, Option<Occupied>)>,
    pub store_lost: bool,
    pub first_report: u64,
    pub store_id: String,
}

/// What an allocation occupies until it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupied {
    pub devices: Vec<DeviceShare>,
    pub cpu_milli: u64,
    pub memory_bytes: u64,
    pub grace_ms: u64,
}

impl Occupied {
    fn of(held: &Held) -> Self {
        let Held { run, stop, .. } = held;
        let (cpu_milli, memory_bytes) = (run.cpu_milli, run.memory_bytes);
        Self { devices: run.devices.clone(), cpu_milli, memory_bytes, grace_ms: stop.grace_ms }
    }
}

enum Message {
    Introduce(Reply<Introduction>),
    Joined { cluster_id: String, unregistered: Vec<String>, reply: Reply<bool> },
    Desired(Box<Desired>),
    LeaseExtended { sent_ms: u64 },
    Acknowledged { number: u64 },
    Happened { key: Key, fact: Fact, reply: Reply<()> },
    Node(ReportBody),
    Swept,
}

/// The way to the centre.
#[derive(Clone)]
pub struct CoreHandle {
    mailbox: Mailbox<Message>,
    pending: watch::Receiver<Pending>,
    live: watch::Receiver<Live>,
    load: watch::Receiver<Load>,
}

impl CoreHandle {
    pub async fn introduce(&self) -> Result<Introduction, ActorError> {
        self.mailbox.ask(Message::Introduce).await
    }

    /// `unregistered` are the devices of this node, by UUID, that servers do not have. False when the store belongs to
    /// another cluster.
    pub async fn joined(&self, cluster_id: String, unregistered: Vec<String>) -> Result<bool, ActorError> {
        self.mailbox.ask(|reply| Message::Joined { cluster_id, unregistered, reply }).await
    }

    pub async fn desired(&self, desired: Desired) -> Result<(), ActorError> {
        self.mailbox.send(Message::Desired(Box::new(desired))).await
    }

    /// A leader acknowledged the renewal that was sent at this boot time.
    pub async fn lease_extended(&self, sent_ms: u64) -> Result<(), ActorError> {
        self.mailbox.send(Message::LeaseExtended { sent_ms }).await
    }

    pub async fn acknowledged(&self, number: u64) -> Result<(), ActorError> {
        self.mailbox.send(Message::Acknowledged { number }).await
    }

    /// A fact about the node itself.
    pub async fn report(&self, body: ReportBody) -> Result<(), ActorError> {
        self.mailbox.send(Message::Node(body)).await
    }

    pub fn pending(&self) -> watch::Receiver<Pending> {
        self.pending.clone()
    }

    /// What allocations hold of each device.
    pub fn load(&self) -> Load {
        self.load.borrow().clone()
    }

    pub fn live(&self) -> watch::Receiver<Live> {
        self.live.clone()
    }
}

impl Witness for CoreHandle {
    fn tell(&self, key: Key, fact: Fact) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let told = self.mailbox.ask(|reply| Message::Happened { key, fact, reply }).await;
            if told.is_err() {
                // The agent is ending; the next one learns it from the shim's files.
                std::future::pending::<()>().await;
            }
        })
    }
}

/// What the centre works with.
pub struct CoreParts {
    pub store: Store,
    pub workplace: Workplace,
    pub launcher: Arc<dyn Launcher>,
    pub devices: Devices,
    pub clock: Arc<dyn Clock>,
    pub kill_bound_ms: u64,
    pub kept_logs: usize,
}

pub struct Core {
    parts: CoreParts,
    inbox: Inbox<Message>,
    handle: CoreHandle,
    pending: watch::Sender<Pending>,
    live: watch::Sender<Live>,
    load: watch::Sender<Load>,
    progress: BTreeMap<Key, Progress>,
    orders: BTreeMap<Key, watch::Sender<Orders>>,
    desired: Option<Desired>,
    /// When the last renewal that a leader acknowledged was sent.
    renewed_ms: Option<u64>,
    /// Something waits for a lease that has more than half of its time left.
    lapsed: bool,
    /// Until then a driver that has not answered is left alone.
    ask_again_ms: u64,
    /// When devices that were in use, or not known to be free, are to be looked at again: no message may tell of it.
    look_again_ms: Option<u64>,
    swept: bool,
    /// Told once each, however often they are asked for again.
    refused: BTreeSet<Key>,
    /// The desired state at which a release was acknowledged: only a newer one asks for it again.
    released_at: BTreeMap<Key, Position>,
    /// Told once to the servers of this generation.
    ends_told: BTreeSet<Key>,
    /// Devices that servers did not have when they were joined last, by UUID.
    unregistered: BTreeSet<String>,
    runners: JoinSet<()>,
    unsaved: Unsaved,
    /// What is done once the store is saved, in order.
    effects: Vec<Effect>,
    /// Allocations that ended since old logs were last looked for.
    ended: usize,
}

/// The centre can no longer be trusted with its promises.
#[derive(Debug, thiserror::Error)]
#[error("the agent's store cannot be written, so nothing may be started or promised: {0}")]
pub struct CoreError(#[from] DurableError);

impl Core {
    pub fn new(parts: CoreParts) -> (Self, CoreHandle) {
        let (mailbox, inbox) = mailbox("core", MAILBOX);
        let pending = watch::Sender::new(Pending::default());
        let (live, load) = (watch::Sender::new(Live::default()), watch::Sender::new(Load::default()));
        let handle =
            CoreHandle { mailbox, pending: pending.subscribe(), live: live.subscribe(), load: load.subscribe() };
        let core = Self {
            parts,
            inbox,
            handle: handle.clone(),
            pending,
            live,
            load,
            progress: BTreeMap::new(),
            orders: BTreeMap::new(),
            desired: None,
            renewed_ms: None,
            lapsed: false,
            ask_again_ms: 0,
            look_again_ms: None,
            swept: false,
            refused: BTreeSet::new(),
            released_at: BTreeMap::new(),
            ends_told: BTreeSet::new(),
            unregistered: BTreeSet::new(),
            runners: JoinSet::new(),
            unsaved: Unsaved::Nothing,
            effects: Vec::new(),
            ended: 0,
        };
        (core, handle)
    }

    /// Ends with `shutdown`, leaving every rank as it is, or with the first failed write.
    ///
    /// Messages that wait are handled together and saved by one write; what depends on it comes after.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), CoreError> {
        self.start_up()?;
        let clock = self.parts.clock.clone();
        loop {
            let message = tokio::select! {
                biased;
                () = shutdown.triggered() => return self.save(),
                message = self.inbox.recv() => message,
                Some(_) = self.runners.join_next() => continue,
                () = clock.sleep_ms(SAVE_WHEN_IDLE_MS), if self.unsaved != Unsaved::Nothing => {
                    self.save()?;
                    continue;
                }
                () = clock.sleep_until_ms(self.look_again_ms.unwrap_or_default()), if self.look_again_ms.is_some() => {
                    self.reconcile().await;
                    self.settle()?;
                    continue;
                }
            };
            let Some(message) = message else { return self.save() };
            self.handle(message).await;
            for _ in 1..AT_ONCE {
                let Some(message) = self.inbox.try_recv() else { break };
                self.handle(message).await;
            }
            self.settle()?;
        }
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Introduce(reply) => self.effects.push(Effect::Introduce(reply)),
            Message::Joined { cluster_id, unregistered, reply } => {
                self.handle_joined(&cluster_id, unregistered, reply);
            }
            Message::Desired(desired) => self.handle_desired(*desired).await,
            Message::LeaseExtended { sent_ms } => self.handle_lease_extended(sent_ms).await,
            Message::Acknowledged { number } => self.handle_acknowledged(number).await,
            Message::Happened { key, fact, reply } => {
                self.handle_fact(key, fact).await;
                self.effects.push(Effect::Told(reply));
            }
            Message::Node(body) => self.handle_node(body),
            Message::Swept => {
                self.swept = true;
                self.reconcile().await;
            }
        }
    }

    fn introduction(&self) -> Introduction {
        let store = &self.parts.store;
        let word = |key| match self.progress.get(key) {
            Some(Progress::Preparing) | None => "preparing",
            Some(Progress::Barrier) => "barrier",
            Some(Progress::Running) => "running",
            Some(Progress::Ending) => "ending",
            Some(Progress::Gone) => "gone",
        };
        let held = store.held().iter();
        let held = held.map(|(key, held)| (*key, word(key), (!held.gone).then(|| Occupied::of(held))));
        // Else a server that believes they run would take them for vanished.
        let ended = store.ends().keys().map(|key| (key, "ended", None));
        Introduction {
            seen: store.seen(),
            held: held.chain(ended).collect(),
            store_lost: store.is_lost(),
            first_report: store.first_report(),
            store_id: store.id().to_owned(),
        }
    }

    fn handle_joined(&mut self, cluster_id: &str, unregistered: Vec<String>, reply: Reply<bool>) {
        let ours = self.parts.store.cluster_id().is_none_or(|known| known == cluster_id);
        if self.parts.store.cluster_id().is_none() {
            self.parts.store.set_cluster_id(cluster_id);
            self.must_save();
        }
        if ours {
            self.take_unregistered(unregistered);
        }
        self.effects.push(Effect::Joined(reply, ours));
    }

    async fn handle_desired(&mut self, desired: Desired) {
        let store = &mut self.parts.store;
        let other_cluster = store.cluster_id().is_some_and(|id| id != desired.cluster_id);
        if other_cluster || desired.position < store.seen() {
            tracing::info!(position = ?desired.position, seen = ?store.seen(), "an outdated desired state is ignored");
            return;
        }
        let known = store.seen().generation;
        let registered = store.ledger_mut().raise_floor(desired.floor());
        let moved = store.advance_seen(desired.position);
        if known != 0 && desired.position.generation > known {
            self.tell_again();
        }
        if moved || registered {
            self.must_save();
        }
        self.take_leases(&desired);
        self.desired = Some(desired);
        // Only memory of what was said: at worst something is said twice.
        if self.refused.len() + self.released_at.len() + self.ends_told.len() > SAID_MAX {
            self.refused.clear();
            self.released_at.clear();
            self.ends_told.clear();
        }
        self.reconcile().await;
    }

    /// Ranks outlive their servers for as long as these servers wait, also when that was changed since they began: a
    /// planned move needs longer, and servers from a backup may know only less. It counts from the next renewal on; no
    /// end that was promised before comes sooner.
    fn take_leases(&mut self, desired: &Desired) {
        for assignment in &desired.assignments {
            let Some(lease_ms) = assignment.run.as_ref().map(|run| run.lease_ms) else { continue };
            let held = self.parts.store.held_mut(&assignment.key);
            if let Some(held) = held.filter(|held| lease_ms != held.run.lease_ms) {
                held.run.lease_ms = lease_ms;
                self.must_save();
            }
        }
    }

    async fn handle_acknowledged(&mut self, number: u64) {
        let store = &mut self.parts.store;
        let covered = store.reports().range(..=number).map(|(_, report)| report);
        let released = covered.filter(|report| matches!(report.body, ReportBody::Released { .. }));
        let released: Vec<Key> = released.filter_map(|report| report.key).collect();
        if !store.acknowledge(number) {
            return;
        }
        let seen = store.seen();
        self.released_at.extend(released.into_iter().map(|key| (key, seen)));
        // A report that comes back is said twice, which servers are used to.
        self.may_save();
        self.reconcile().await;
    }

    /// Whether a server still has to be told of a release that it asks for.
    fn must_tell_release(&self, key: &Key) -> bool {
        let store = &self.parts.store;
        let waits = store
            .reports()
            .values()
            .any(|report| report.key == Some(*key) && matches!(report.body, ReportBody::Released { .. }));
        !waits && self.released_at.get(key).is_none_or(|at| store.seen() > *at)
    }

    /// Leases run from when the renewal was *sent*: the leader may have heard it any time later.
    async fn handle_lease_extended(&mut self, sent_ms: u64) {
        let awaited = self.renewed_ms.is_none() || self.lapsed;
        if self.renewed_ms.is_some_and(|before| before >= sent_ms) {
            return;
        }
        self.renewed_ms = Some(sent_ms);
        self.lapsed = false;
        for (key, orders) in &self.orders {
            let Some(held) = self.parts.store.held().get(key) else { continue };
            let deadline_ms = sent_ms.saturating_add(held.run.lease_ms);
            orders.send_modify(|orders| orders.deadline_ms = orders.deadline_ms.max(deadline_ms));
        }
        if awaited {
            self.reconcile().await;
        }
    }

    fn start_runner(&mut self, key: Key, held: &Held, beginning: Beginning) {
        let deadline_ms = match beginning {
            Beginning::Fresh { deadline_ms } => deadline_ms,
            Beginning::Adopt => 0,
        };
        let stop = held.stop_wanted.then(|| held.stop.clone());
        let (orders, receiver) = watch::channel(Orders { go: false, stop, deadline_ms });
        let runner = Runner {
            key,
            run: held.run.clone(),
            orders: receiver,
            workplace: self.parts.workplace.clone(),
            launcher: self.parts.launcher.clone(),
            devices: self.parts.devices.clone(),
            clock: self.parts.clock.clone(),
            kill_bound_ms: self.parts.kill_bound_ms,
            witness: self.handle.clone(),
        };
        self.orders.insert(key, orders);
        self.progress.insert(key, Progress::Preparing);
        self.runners.spawn(runner.run(beginning));
    }
}

#[cfg(test)]
mod tests;
