//! A whole cluster in one process: three servers, some nodes with an agent each, and the network between them.

use crate::checks::{Checks, RankObserver};
use crate::clock::{SimClock, TrueTime, WALL_START_MS};
use crate::network::SimNetwork;
use crate::planted::Planted;
use crate::trace::Trace;
use muster_agent::inventory::{InventoryConfig, survey};
use muster_agent::launcher::InProcess;
use muster_common::Name;
use muster_common::heartbeat::Heartbeat;
use muster_engine::State;
use muster_engine::state::node::{DeviceState, Liveness};
use muster_runtime::identity::{Authority, Credentials, Identity, LEAF_VALID_MS, Name as CertificateName, Role, Sans};
use muster_runtime::shutdown::Shutdown;
use muster_scheduler::config::{Member, ServerConfig, Timing};
use muster_scheduler::consensus::MemDisk;
use muster_scheduler::history::MemHistory;
use muster_scheduler::seams::{Disk, Seams};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tempfile::TempDir;
use turmoil::Sim;

pub const CLUSTER: &str = "sim";
pub const SERVERS: u64 = 3;
pub const TICK_MS: u64 = 10;
const PORT: u16 = 7000;
const LATENCY_MAX_MS: u64 = 20;
const DEVICES_PER_NODE: usize = 2;
/// Bytes are cut into segments; a stream may hold many before its reader comes.
const STREAM_SEGMENTS: usize = 16_384;
/// Small, so that snapshots are made, sent and started from in every run.
const SNAPSHOT_EVERY: u64 = 150;
/// The chance that a disk has synced what was written, in each tick: most syncs take 10 to 30 ms, those of a slow disk
/// some hundred.
const SYNCED_IN_TICK: f64 = 0.6;
const SLOW_SYNCED_IN_TICK: f64 = 0.04;

/// The cluster's times, short, so that a run sees many of each. Of these follow a lease of 4 s and a fencing wait of 6 s.
pub fn settings() -> muster_engine::command::Settings {
    muster_engine::command::Settings {
        suspect_after_ms: 2_000,
        fence_after_ms: 6_000,
        kill_bound_ms: 1_000,
        drift_ms: 1_000,
        start_within_ms: 8_000,
        backoff_ms: 200,
        backoff_max_ms: 1_000,
        ..Default::default()
    }
}

pub fn address(server: u64) -> String {
    format!("server-{server}:{PORT}")
}

pub fn certificate_name(role: Role, name: &str) -> CertificateName {
    CertificateName::new(CLUSTER, role, name).expect("a good name")
}

fn authority() -> Arc<Authority> {
    static AUTHORITY: OnceLock<Arc<Authority>> = OnceLock::new();
    AUTHORITY.get_or_init(|| Arc::new(Authority::create(CLUSTER, WALL_START_MS).expect("an authority"))).clone()
}

pub fn credentials(role: Role, name: &str) -> Credentials {
    let issued: Result<Identity, _> =
        authority().issue(&certificate_name(role, name), &Sans::default(), WALL_START_MS, LEAF_VALID_MS);
    Credentials::new(issued.expect("an identity"))
}

/// A server's machine: what outlives its process.
pub struct Server {
    pub id: u64,
    pub name: String,
    pub clock: SimClock,
    pub log: MemDisk,
    pub slow_disk: AtomicBool,
    history: MemHistory,
    dir: PathBuf,
    checks: Checks,
}

impl Server {
    fn config(&self) -> ServerConfig {
        let member = |id| Member { id, name: format!("server-{id}"), address: address(id) };
        ServerConfig {
            id: self.id,
            name: self.name.clone(),
            cluster_id: CLUSTER.to_owned(),
            dir: self.dir.clone(),
            identity: self.dir.join("identity-is-elsewhere"),
            listen: ([0, 0, 0, 0], PORT).into(),
            members: (1..=SERVERS).map(member).collect(),
            timing: Timing { heartbeat_ms: 150, election_min_ms: 500, election_max_ms: 1_000 },
            snapshot_every: Some(SNAPSHOT_EVERY),
            decision_log_mib: 0,
            metrics_listen: None,
            elastic: None,
            join: false,
            heartbeat: Heartbeat::Grpc,
            heartbeat_port: None,
        }
    }

    async fn run(self: Arc<Self>) -> turmoil::Result {
        let (checks, id) = (self.checks.clone(), self.id);
        let seams = Seams {
            clock: Arc::new(self.clock.clone()),
            network: Arc::new(SimNetwork::of(certificate_name(Role::Server, &self.name))),
            disk: Disk::Memory { log: self.log.clone(), history: self.history.clone() },
            credentials: credentials(Role::Server, &self.name),
            authority: authority(),
            witness: Some(Arc::new(move |entry, state| checks.applied(id, entry, state))),
        };
        Ok(muster_scheduler::server::run_on(self.config(), seams, Shutdown::new()).await?)
    }
}

/// A node's machine: what outlives its agent.
pub struct Node {
    pub name: String,
    /// The machine's, by which shims live.
    pub clock: SimClock,
    /// The same as the agent sees it, which may be paused while shims are not.
    pub agent_clock: SimClock,
    pub launcher: InProcess,
    planted: Planted,
    dir: PathBuf,
    boots: AtomicU64,
    starts: AtomicU64,
}

impl Node {
    async fn run(self: Arc<Self>) -> turmoil::Result {
        let start = self.starts.fetch_add(1, Ordering::Relaxed) + 1;
        let name = Name::new(&self.name)?;
        let servers = (1..=SERVERS).map(address).collect();
        let mut config = muster_agent::Config::new(servers, name.clone(), self.dir.clone());
        config.kill_bound_ms = settings().kill_bound_ms;
        let boot = format!("boot-{}-of-{}", self.boots.load(Ordering::Relaxed), self.name);
        let about = InventoryConfig {
            node: name,
            labels: Default::default(),
            place: Default::default(),
            address: Some(self.name.clone()),
            cpus: None,
            port_base: 20_000,
            port_count: 100,
            pid_namespace: true,
            sysfs_root: "/sys".into(),
            proc_root: "/proc".into(),
            machine_id_path: "/etc/machine-id".into(),
        };
        let surveyed = survey(&"simulated:dgx-a100".parse()?, &about)?;
        let mut inventory = surveyed.inventory;
        inventory.devices.truncate(DEVICES_PER_NODE);
        inventory.links.truncate(DEVICES_PER_NODE);
        inventory.links.iter_mut().for_each(|row| row.truncate(DEVICES_PER_NODE));
        (inventory.boot_id, inventory.hardware_id) = (boot.clone(), format!("hardware-of-{}", self.name));
        let ids = muster_agent::Ids {
            boot,
            store: format!("store-{start}-of-{}", self.name),
            instance: format!("run-{start}-of-{}", self.name),
        };
        let seams = muster_agent::Seams {
            clock: Arc::new(self.agent_clock.clone()),
            network: Arc::new(SimNetwork::of(certificate_name(Role::Agent, &self.name)).with(self.planted)),
            launcher: self.planted.launcher(self.launcher.clone()),
            credentials: credentials(Role::Agent, &self.name),
            inventory,
            probe: surveyed.probe,
            pid_namespace: true,
            ids,
        };
        Ok(muster_agent::run_on(config, seams, Shutdown::new()).await?)
    }
}

pub struct World {
    pub sim: Sim<'static>,
    pub time: TrueTime,
    pub trace: Trace,
    pub checks: Checks,
    pub observer: RankObserver,
    pub servers: Vec<Arc<Server>>,
    pub nodes: Vec<Arc<Node>>,
    /// Decides when disks sync, and what a power cut spares.
    disks: SmallRng,
    planted: Planted,
    _dir: TempDir,
}

/// Memory, where there is such a folder: agents sync small files often.
fn scratch() -> TempDir {
    let shared = Path::new("/dev/shm");
    let made = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
    made.expect("a folder for files")
}

impl World {
    /// Begins a world on this thread, which must not have had one before.
    pub fn with(seed: u64, nodes: usize, planted: Planted) -> Self {
        muster_runtime::aside::at_once_on_this_thread();
        muster_scheduler::consensus::seed_this_thread(seed);
        crate::entropy::draw_from(seed);
        let sim = turmoil::Builder::new()
            .rng_seed(seed)
            .tick_duration(Duration::from_millis(TICK_MS))
            .max_message_latency(Duration::from_millis(LATENCY_MAX_MS))
            .tcp_capacity(STREAM_SEGMENTS)
            .simulation_duration(Duration::MAX)
            .epoch(std::time::UNIX_EPOCH)
            .enable_random_order()
            .build();
        let (time, dir) = (TrueTime::default(), scratch());
        let trace = Trace::new(time.clone());
        let checks = Checks::new(trace.clone());
        let mut world = World {
            sim,
            time,
            trace,
            checks,
            observer: RankObserver::default(),
            servers: Vec::new(),
            nodes: Vec::new(),
            disks: SmallRng::seed_from_u64(seed ^ 0xd15c),
            planted,
            _dir: dir,
        };
        (1..=SERVERS).for_each(|id| world.add_server(id));
        (1..=nodes).for_each(|number| world.add_node(number));
        world
    }

    fn add_server(&mut self, id: u64) {
        let name = format!("server-{id}");
        let log = MemDisk::new();
        log.hold_syncs(true);
        log.lie_about_votes(self.planted == Planted::UnsyncedVotes);
        let server = Arc::new(Server {
            id,
            clock: self.time.clock(),
            log,
            slow_disk: AtomicBool::new(false),
            history: MemHistory::default(),
            dir: self._dir.path().join(&name),
            checks: self.checks.clone(),
            name: name.clone(),
        });
        let running = server.clone();
        self.sim.host(name, move || running.clone().run());
        self.servers.push(server);
    }

    fn add_node(&mut self, number: usize) {
        let name = format!("node-{number}");
        let clock = self.time.clock();
        let node = Arc::new(Node {
            launcher: InProcess::new(Arc::new(clock.clone())),
            clock,
            agent_clock: self.time.clock(),
            planted: self.planted,
            dir: self._dir.path().join(&name),
            boots: AtomicU64::new(1),
            starts: AtomicU64::new(0),
            name: name.clone(),
        });
        let running = node.clone();
        self.sim.host(name, move || running.clone().run());
        self.nodes.push(node);
    }

    /// One tick of everything.
    ///
    /// # Panics
    /// When a promise is broken, or a process ends that should not.
    pub fn step(&mut self) {
        if let Err(error) = self.sim.step() {
            panic!("at {} ms a process ended: {error}", self.time.now_ms());
        }
        self.time.advance(TICK_MS);
        self.sync_disks();
        self.nodes.iter().for_each(|node| node.launcher.tick());
        let seen = |node: &Arc<Node>| node.launcher.seen().into_iter().map(|seen| (node.name.clone(), seen)).collect();
        let shims: Vec<_> = self.nodes.iter().flat_map(|node| -> Vec<_> { seen(node) }).collect();
        if let Err(what) = self.observer.look(&self.trace, &shims) {
            self.checks.break_with(what);
        }
        let broken = self.checks.lock().broken.clone();
        if let Some(what) = broken {
            panic!("at {} ms a promise was broken: {what}", self.time.now_ms());
        }
    }

    fn sync_disks(&mut self) {
        for server in &self.servers {
            let slow = server.slow_disk.load(Ordering::Relaxed);
            let chance = if slow { SLOW_SYNCED_IN_TICK } else { SYNCED_IN_TICK };
            if self.disks.random_bool(chance) {
                server.log.sync();
            }
        }
    }

    pub fn run_for(&mut self, ms: u64) {
        let until_ms = self.time.now_ms() + ms;
        while self.time.now_ms() < until_ms {
            self.step();
        }
    }

    /// Runs until `holds`.
    ///
    /// # Panics
    /// When it does not within the time.
    pub fn run_until(&mut self, what: &str, within_ms: u64, mut holds: impl FnMut(&mut World) -> bool) {
        let until_ms = self.time.now_ms() + within_ms;
        while !holds(self) {
            assert!(self.time.now_ms() < until_ms, "{what}: not within {within_ms} ms\n{}", self.describe());
            self.step();
        }
    }

    pub fn server(&self, id: u64) -> &Arc<Server> {
        self.servers.iter().find(|server| server.id == id).expect("servers have ids from 1")
    }

    /// The server's process dies and its machine loses power, and with it every unsynced write.
    pub fn crash_server(&mut self, id: u64) {
        self.crash_server_keeping(id, 0);
    }

    /// The same, and it is left to chance which unsynced writes of the log were on the disk nonetheless.
    pub fn crash_server_somehow(&mut self, id: u64) {
        let unsynced = self.server(id).log.unsynced();
        let kept = self.disks.random_range(0..=unsynced);
        self.trace.note("faults", format_args!("server-{id} keeps {kept} of {unsynced} unsynced writes"));
        self.crash_server_keeping(id, kept);
    }

    fn crash_server_keeping(&mut self, id: u64, kept: usize) {
        let server = self.server(id).clone();
        self.sim.crash(server.name.as_str());
        server.log.crash_keeping(kept);
        server.history.crash();
        // What a server holds in memory is gone; entries are applied again from the log.
        self.checks.lock().states.remove(&id);
    }

    /// The agent's process dies; shims and ranks live on.
    pub fn crash_agent(&mut self, name: &str) {
        self.sim.crash(name);
    }

    /// The node loses power: ranks are gone, and it will have another boot id.
    pub fn lose_power(&mut self, name: &str) {
        self.sim.crash(name);
        let node = self.node(name);
        node.launcher.lose_power();
        node.boots.fetch_add(1, Ordering::Relaxed);
    }

    /// The agent's files are gone, while its processes live on.
    pub fn wipe_store(&mut self, name: &str) {
        self.sim.crash(name);
        std::fs::remove_dir_all(&self.node(name).dir).expect("the folder is there");
    }

    pub fn start(&mut self, name: &str) {
        self.sim.bounce(name);
    }

    pub fn node(&self, name: &str) -> Arc<Node> {
        self.nodes.iter().find(|node| node.name == name).expect("a known node").clone()
    }

    /// A node's clock runs too fast or too slow, for its agent as for its shims.
    pub fn misset_rate(&self, node: usize, rate_ppm: u32) {
        let node = &self.nodes[node];
        node.clock.set_rate_ppm(rate_ppm);
        node.agent_clock.set_rate_ppm(rate_ppm);
    }

    /// Servers and nodes.
    pub fn hosts(&self) -> Vec<String> {
        self.server_names().into_iter().chain(self.nodes.iter().map(|node| node.name.clone())).collect()
    }

    pub fn server_names(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.name.clone()).collect()
    }

    /// The server whose term is the newest in the newest state, if it runs.
    pub fn state(&self) -> Option<State> {
        self.checks.newest()
    }

    /// Every job has ended, every node is there, and every device is free or quarantined.
    pub fn is_at_rest(&self) -> bool {
        let Some(state) = self.state() else { return false };
        let whole = state.nodes().len() == self.nodes.len();
        let settled = |device: &DeviceState| device.is_free() || matches!(device, DeviceState::Quarantined { .. });
        whole
            && state.jobs().is_empty()
            && state.gangs().is_empty()
            && state.nodes().values().all(|node| node.liveness == Liveness::Up && node.devices.iter().all(settled))
    }

    /// All servers have applied the same entries.
    pub fn agree(&self) -> bool {
        let inner = self.checks.lock();
        let mut indexes = inner.states.values().map(State::applied_index);
        let first = indexes.next();
        inner.states.len() == self.servers.len() && indexes.all(|index| Some(index) == first)
    }

    /// For whoever has to find out why.
    pub fn describe(&self) -> String {
        let Some(state) = self.state() else { return "nothing was applied".to_owned() };
        let mut text = format!("state at entry {}, time {}\n", state.applied_index(), state.now());
        for job in state.jobs().values() {
            text.push_str(&format!("job {} {} held {}\n", job.id, job.name, job.held));
        }
        for gang in state.gangs().values() {
            text.push_str(&format!("gang {} {:?}\n", gang.id, gang.state));
        }
        for node in state.nodes().values() {
            let orphans = node.orphans.len();
            text.push_str(&format!("{} {:?} {:?} orphans {orphans}\n", node.name, node.liveness, node.devices));
        }
        let applied: Vec<_> =
            self.checks.lock().states.iter().map(|(id, state)| (*id, state.applied_index())).collect();
        text.push_str(&format!("applied {applied:?}, ranks on {} parts\n", self.observer.running()));
        text
    }
}
