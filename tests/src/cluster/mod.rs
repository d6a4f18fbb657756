//! A real cluster on this machine: server and agent processes, mutual TLS, real ranks under shims.
//! Its folder is temporary; whatever it started is killed when it is dropped.

pub mod flood;
pub mod moment;
pub mod observer;
pub mod people;
pub mod process;
pub mod ranks;
pub mod small_disk;
pub mod wait;
pub mod web;

use crate::binary::muster;
use muster_proto::client::{ClusterStatusReply, ConfigureRequest, ListNodesRequest};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use people::Person;
use process::Daemon;
use ranks::{Gate, Rank};
use serde_json::json;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};
use wait::until;

/// Clusters need the machine for themselves, or their short waits mean nothing.
static MACHINE: Mutex<()> = Mutex::const_new(());

/// The machine, for a test that starts a cluster by other means than [`TestCluster`].
pub async fn alone() -> MutexGuard<'static, ()> {
    MACHINE.lock().await
}

/// Silence after which nothing is placed on a node.
pub const SUSPECT_AFTER_MS: u64 = 1_000;

#[derive(Debug, Clone)]
pub struct Options {
    /// Silence after which nothing is placed on a node.
    pub suspect_after_ms: u64,
    /// Silence after which a node's work may go elsewhere.
    pub fence_after_ms: u64,
    /// Entries between snapshots, by server; the default where there is none.
    pub snapshot_every: Vec<u64>,
    /// Elections that a busy machine does not disturb, in place of the production times.
    pub calm_elections: bool,
    /// Agents keep their allocations in a memory file system, as an installed agent does in `/run`.
    pub runtime_in_memory: bool,
    /// A shell script for servers to have machines switched by; it begins in the cluster's folder.
    pub hook: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            suspect_after_ms: SUSPECT_AFTER_MS,
            fence_after_ms: 5_000,
            snapshot_every: Vec::new(),
            calm_elections: true,
            runtime_in_memory: false,
            hook: None,
        }
    }
}

/// Where one agent keeps its files.
#[derive(Debug, Clone)]
pub struct AgentPlace {
    pub name: String,
    pub leaf: String,
    pub state_dir: PathBuf,
    pub runtime_dir: Option<PathBuf>,
}

#[derive(Debug)]
pub struct TestCluster {
    pub servers: Vec<Daemon>,
    pub agents: Vec<Daemon>,
    /// Of the servers.
    pub addresses: Vec<String>,
    /// Of the agents.
    pub places: Vec<AgentPlace>,
    pub admin: Person,
    /// `alice`, a user.
    pub user: Person,
    pub options: Options,
    folder: PathBuf,
    kept: Option<tempfile::TempDir>,
    _machine: MutexGuard<'static, ()>,
}

impl TestCluster {
    /// Starts servers `s1`.. and agents `n0`.., every second one in `leaf-a` and the others in
    /// `leaf-b`, and waits until all nodes are up.
    pub async fn start(servers: usize, agents: usize, options: Options) -> Self {
        let machine = alone().await;
        let kept = tempfile::tempdir().expect("a temp folder");
        let folder = kept.path().canonicalize().expect("the folder is there");
        let addresses = free_addresses(servers);
        let init = init(&folder, &addresses);
        for (at, server) in init.iter().enumerate() {
            extend_server_file(server, options.snapshot_every.get(at).copied(), options.calm_elections);
            options.hook.iter().for_each(|script| add_hook(server, &folder, script));
        }
        let logs = folder.join("logs");
        std::fs::create_dir_all(&logs).expect("a folder can be made");
        let daemon = |name: &str, kind: &str, file: &Path| {
            let file = file.to_str().expect("a plain path");
            Daemon::new(name, muster(), &[kind, "--config", file], logs.join(name))
        };
        let person =
            |name: &str| Person::new(addresses.clone(), &folder.join("cluster/users").join(name).join("identity"));
        let (admin, user) = (person("admin"), person("alice"));
        let memory = options.runtime_in_memory.then(|| in_memory(&folder));
        let places: Vec<AgentPlace> = (0..agents).map(|at| place(&folder, memory.as_deref(), at)).collect();
        let mut cluster = Self {
            servers: init.iter().zip(1..).map(|(file, id)| daemon(&format!("s{id}"), "server", file)).collect(),
            agents: places.iter().map(|place| daemon(&place.name, "agent", &agent_file(place))).collect(),
            addresses,
            places,
            admin,
            user,
            options,
            folder,
            kept: Some(kept),
            _machine: machine,
        };
        cluster.servers.iter_mut().for_each(Daemon::start);
        cluster.configure().await;
        cluster.join_agents().await;
        cluster.agents.iter_mut().for_each(Daemon::start);
        cluster.all_up().await;
        cluster
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a server keeps its log, snapshots and history.
    pub fn data_dir(&self, server: usize) -> PathBuf {
        self.folder.join(format!("cluster/servers/s{}/data", server + 1))
    }

    pub fn gate(&self, name: &str) -> Gate {
        Gate::new(&self.folder, name)
    }

    /// Position of the server that leads.
    pub async fn leader(&self) -> usize {
        until("a leader", async || {
            let mut best: Option<(u64, usize)> = None;
            for (at, address) in self.addresses.iter().enumerate() {
                if self.servers[at].pid().is_none() {
                    continue;
                }
                if let Some(status) = self.admin.status_of(address).await
                    && status.leader_id == status.server_id
                {
                    best = best.max(Some((status.term, at)));
                }
            }
            best.map(|(_, at)| at)
        })
        .await
    }

    /// What every server says of itself, as soon as all answer with one applied index.
    pub async fn settled(&self) -> Vec<ClusterStatusReply> {
        until("equal applied indexes", async || {
            let mut all = Vec::new();
            for address in &self.addresses {
                all.push(self.admin.status_of(address).await?);
            }
            all.iter().all(|status| status.applied_index == all[0].applied_index).then_some(all)
        })
        .await
    }

    /// Waits until every server answers and is not far behind the first one, under load too.
    pub async fn settled_enough(&self) {
        const BEHIND_MAX: u64 = 1_000;
        until("servers that keep up", async || {
            let mut indexes = Vec::new();
            for address in &self.addresses {
                indexes.push(self.admin.status_of(address).await?.applied_index);
            }
            let (low, high) = (indexes.iter().min()?, indexes.iter().max()?);
            (high - low < BEHIND_MAX).then_some(())
        })
        .await;
    }

    /// Waits until every node takes work.
    pub async fn all_up(&self) {
        let count = self.places.len();
        until("all nodes up", async || {
            let request = ListNodesRequest::default();
            let nodes = self.admin.call("node ls", async |mut api| api.list_nodes(request.clone()).await).await.nodes;
            (nodes.len() == count && nodes.iter().all(|node| node.state == "UP" && node.schedulable)).then_some(())
        })
        .await;
    }

    /// All live ranks of this cluster, from `/proc`.
    pub fn ranks(&self) -> Vec<Rank> {
        ranks::live_ranks(&self.folder)
    }

    /// Live ranks of one job.
    pub fn ranks_of(&self, job: u64) -> Vec<Rank> {
        self.ranks().into_iter().filter(|rank| rank.job == job).collect()
    }

    /// Waits until so many ranks of one attempt run.
    pub async fn ranks_running(&self, job: u64, attempt: u32, count: usize) -> Vec<Rank> {
        until(&format!("{count} ranks of job {job} attempt {attempt}"), async || {
            let mut ranks = self.ranks_of(job);
            ranks.retain(|rank| rank.attempt == attempt);
            (ranks.len() == count).then_some(ranks)
        })
        .await
    }

    pub fn agent_named(&self, node: &str) -> usize {
        self.places.iter().position(|place| place.name == node).expect("a node of this cluster")
    }

    /// Kills every shim, and what runs below it, of one node.
    pub fn kill_below(&self, node: &str) {
        kill_all(|| ranks::below_node(&self.folder, node));
    }

    async fn configure(&self) {
        let settings = json!({
            "suspect_after_ms": self.options.suspect_after_ms, "fence_after_ms": self.options.fence_after_ms,
            "kill_bound_ms": 1_000, "drift_ms": 500, "backoff_ms": 100,
        });
        let request = ConfigureRequest {
            request_id: "short-times".to_owned(),
            kind: "settings".to_owned(),
            json: settings.to_string(),
            ..ConfigureRequest::default()
        };
        self.admin.call("configure", async |mut api| api.configure(request.clone()).await).await;
    }

    async fn join_agents(&self) {
        let joins: Vec<_> =
            self.places.iter().cloned().map(|place| tokio::spawn(join(self.admin.clone(), place))).collect();
        for join in joins {
            join.await.expect("no panic");
        }
    }

    fn show_logs(&self) {
        const LINES: usize = 80;
        for daemon in self.servers.iter().chain(&self.agents) {
            let text = std::fs::read_to_string(&daemon.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            println!("---- {}, the last of {} lines", daemon.name, lines.len());
            lines[lines.len().saturating_sub(LINES)..].iter().for_each(|line| println!("{line}"));
        }
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
            if std::env::var_os("MUSTER_TEST_KEEP").is_some()
                && let Some(kept) = self.kept.take()
            {
                println!("kept {}", kept.keep().display());
            }
        }
        self.agents.iter_mut().chain(&mut self.servers).for_each(Daemon::kill_9);
        kill_all(|| ranks::all_of(&self.folder));
        if self.options.runtime_in_memory {
            let _ = std::fs::remove_dir_all(in_memory(&self.folder));
        }
    }
}

/// Kills until none of them is found any more.
pub fn kill_all(find: impl Fn() -> Vec<u32>) {
    let begun = Instant::now();
    loop {
        let pids = find();
        if pids.is_empty() || begun.elapsed() > Duration::from_secs(10) {
            return;
        }
        for pid in pids {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ports that were free a moment ago, for TCP and for UDP.
pub fn free_addresses(count: usize) -> Vec<String> {
    let both = || loop {
        let stream = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = stream.local_addr().expect("it is bound");
        if let Ok(datagrams) = UdpSocket::bind(address) {
            return (address, stream, datagrams);
        }
    };
    // All are held until all are found.
    let held: Vec<_> = (0..count).map(|_| both()).collect();
    held.iter().map(|(address, ..)| address.to_string()).collect()
}

/// Runs `muster cluster init`; returns the servers' settings files.
fn init(folder: &Path, addresses: &[String]) -> Vec<PathBuf> {
    let dir = folder.join("cluster");
    let mut command = std::process::Command::new(muster());
    command.args(["cluster", "init", "--cluster", "testing", "--user", "alice"]).arg(&dir);
    for (address, id) in addresses.iter().zip(1..) {
        command.arg("--server-at").arg(format!("s{id}={address}"));
    }
    let output = command.output().expect("muster starts");
    assert!(output.status.success(), "muster cluster init: {}", String::from_utf8_lossy(&output.stderr));
    (1..=addresses.len()).map(|id| dir.join(format!("servers/s{id}/server.toml"))).collect()
}

fn extend_server_file(file: &Path, snapshot_every: Option<u64>, calm: bool) {
    let made = std::fs::read_to_string(file).expect("init has written it");
    let snapshots = snapshot_every.map(|entries| format!("snapshot_every = {entries}\n")).unwrap_or_default();
    // Servers, agents and ranks share a few cores here.
    let calm_timing = "\n[timing]\nheartbeat_ms = 100\nelection_min_ms = 600\nelection_max_ms = 1200\n";
    let timing = if calm { calm_timing } else { "" };
    std::fs::write(file, format!("{snapshots}{made}{timing}")).expect("it can be written");
}

fn add_hook(file: &Path, folder: &Path, script: &str) {
    let hook = folder.join("hook");
    std::fs::write(&hook, format!("#!/bin/sh\ncd {}\n{script}\n", folder.display())).expect("it can be written");
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let made = std::fs::read_to_string(file).expect("init has written it");
    let elastic = format!("\n[elastic]\nhook = \"{}\"\ntimeout_ms = 20000\n", hook.display());
    std::fs::write(file, made + &elastic).expect("it can be written");
}

/// The folder's twin in Linux's memory file system. What lies in it has the folder's path in its own, so that its
/// processes are found.
fn in_memory(folder: &Path) -> PathBuf {
    Path::new("/dev/shm").join(folder.strip_prefix("/").unwrap_or(folder))
}

fn place(folder: &Path, memory: Option<&Path>, at: usize) -> AgentPlace {
    let name = format!("n{at}");
    let leaf = if at.is_multiple_of(2) { "leaf-a" } else { "leaf-b" }.to_owned();
    let runtime_dir = memory.map(|memory| memory.join(&name));
    AgentPlace { state_dir: folder.join(&name).join("state"), runtime_dir, name, leaf }
}

fn agent_file(place: &AgentPlace) -> PathBuf {
    place.state_dir.with_file_name("agent.toml")
}

/// `muster node token`, then `muster agent join` with it, then what only tests need.
async fn join(admin: Person, place: AgentPlace) {
    let answer = admin.json(&["node", "token", "--node", &place.name]).await;
    let token = answer["token"].as_str().expect("a token").to_owned();
    let dir = place.state_dir.parent().expect("it has a folder").to_str().expect("a plain path").to_owned();
    let joined = admin
        .run(&[
            "agent",
            "join",
            "--token",
            &token,
            "--dir",
            &dir,
            "--name",
            &place.name,
            "--devices",
            "simulated:dgx-h100",
        ])
        .await;
    assert!(joined.status.success(), "muster agent join: {}", String::from_utf8_lossy(&joined.stderr));
    let number: u32 = place.name[1..].parse().expect("nodes are n0, n1, ...");
    // Ports of their own for each agent of this machine, below those the system gives out.
    let port_base = 10_000 + std::process::id() % 50 * 400 + number * 50;
    let mut text = std::fs::read_to_string(agent_file(&place)).expect("join has written it");
    text.push_str(&format!("address = \"127.0.0.1\"\nport_base = {port_base}\nport_count = 50\n"));
    if let Some(dir) = &place.runtime_dir {
        text.push_str(&format!("runtime_dir = \"{}\"\n", dir.display()));
    }
    text.push_str(&format!("[place]\nnetwork = [\"{}\"]\n", place.leaf));
    std::fs::write(agent_file(&place), text).expect("it can be written");
}
