//! The folder of a development cluster: PKI, settings, ports.

use crate::error::CliError;
use crate::layout::{AGENT_FILE, CLIENT_FILE, IDENTITY, Layout, Member, SERVER_FILE, write_toml};
use muster_agent::config::Config;
use muster_common::Name;
use muster_proto::convert::error::ErrorCode;
use muster_runtime::durable::create_folder;
use muster_runtime::identity::{Authority, Role};
use rand::RngExt;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

const CLUSTER: &str = "dev";
/// Below the range from which the system takes ports for outgoing connections.
const RANK_PORTS: std::ops::Range<u16> = 10_240..32_000;
const RANK_PORTS_PER_NODE: u16 = 64;
const PORT_TRIES: u32 = 50;
/// A node offers at least so many CPUs: one for each GPU of the fixtures.
const CPUS_MIN: u32 = 8;

#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    members: Vec<Member>,
    agents: Vec<String>,
}

impl Files {
    pub fn make(dir: &Path, servers: u32, agents: u32, devices: &str, now_ms: u64) -> Result<Self, CliError> {
        let addresses = free_addresses(servers as usize)?;
        let members: Vec<Member> = (1..)
            .zip(&addresses)
            .map(|(id, address)| Member { id, name: format!("s{id}"), address: address.to_string() })
            .collect();
        let authority = Authority::create(CLUSTER, now_ms)?;
        let layout = Layout { authority: &authority, members: &members, now_ms };
        create_folder(&dir.join("logs"))?;
        for (member, address) in members.iter().zip(&addresses) {
            layout.server(&dir.join("servers").join(&member.name), member, *address, None)?;
        }
        layout.client(&dir.join("client"), Role::Admin, "dev")?;
        let files =
            Self { dir: dir.to_owned(), members, agents: (1..=agents).map(|number| format!("n{number}")).collect() };
        let ports = rank_ports(agents)?;
        for (at, port_base) in (0..agents).zip(ports) {
            files.agent(&authority, at, devices, port_base, now_ms)?;
        }
        Ok(files)
    }

    /// Half of the nodes stand under each of two leaves.
    fn agent(
        &self,
        authority: &Authority,
        at: u32,
        devices: &str,
        port_base: u16,
        now_ms: u64,
    ) -> Result<(), CliError> {
        let name = &self.agents[at as usize];
        let folder = self.dir.join("agents").join(name);
        let identity = folder.join(IDENTITY);
        create_folder(&identity)?;
        let layout = Layout { authority, members: &self.members, now_ms };
        layout.issue(Role::Agent, name)?.save(&identity)?;
        let servers = self.members.iter().map(|member| member.address.clone()).collect();
        let node = Name::new(name.clone()).map_err(|error| CliError::new(ErrorCode::Internal, error.to_string()))?;
        let mut config = Config::new(servers, node, folder.join("state"));
        config.identity_dir = Some(identity);
        config.devices = devices.to_owned();
        config.address = Some("127.0.0.1".to_owned());
        let leaf = if at < (self.agents.len() as u32).div_ceil(2) { "leaf-a" } else { "leaf-b" };
        config.place.insert(Name::literal("network"), vec![Name::literal(leaf)]);
        // A simulated machine has hundreds, and what runs on them are processes of this one.
        config.cpus = Some(cpus_each(self.agents.len() as u32));
        config.port_base = port_base;
        config.port_count = RANK_PORTS_PER_NODE;
        write_toml(&folder.join(AGENT_FILE), "An agent of a development cluster", &config)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn agents(&self) -> &[String] {
        &self.agents
    }

    pub fn client_config(&self) -> PathBuf {
        self.dir.join("client").join(CLIENT_FILE)
    }

    pub fn server_config(&self, name: &str) -> PathBuf {
        self.dir.join("servers").join(name).join(SERVER_FILE)
    }

    pub fn agent_config(&self, name: &str) -> PathBuf {
        self.dir.join("agents").join(name).join(AGENT_FILE)
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }
}

/// An even share of this machine for each node.
fn cpus_each(agents: u32) -> u32 {
    let here = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32);
    (here / agents.max(1)).max(CPUS_MIN)
}

/// For TCP and UDP. All are held until all are known, so that no two are the same.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, CliError> {
    let held: Vec<_> = (0..count).map(|_| free_address()).collect::<Result<_, _>>()?;
    Ok(held.iter().map(|(address, ..)| *address).collect())
}

fn free_address() -> Result<(SocketAddr, TcpListener, UdpSocket), CliError> {
    loop {
        let stream = TcpListener::bind("127.0.0.1:0")?;
        let address = stream.local_addr()?;
        if let Ok(datagrams) = UdpSocket::bind(address) {
            return Ok((address, stream, datagrams));
        }
    }
}

/// The first port of each node's own range; several clusters may live on one machine, so the start
/// is random and a look is taken at every port.
fn rank_ports(agents: u32) -> Result<Vec<u16>, CliError> {
    let span = agents as u16 * RANK_PORTS_PER_NODE;
    for _ in 0..PORT_TRIES {
        let first = rand::rng().random_range(RANK_PORTS.start..RANK_PORTS.end - span);
        if (first..first + span).step_by(8).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return Ok((0..agents as u16).map(|at| first + at * RANK_PORTS_PER_NODE).collect());
        }
    }
    Err(CliError::new(
        ErrorCode::Internal,
        format!("no {span} free ports in a row between {} and {}", RANK_PORTS.start, RANK_PORTS.end),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_runtime::clock::{Clock, SystemClock};
    use muster_runtime::config::load_file;
    use muster_runtime::identity::Identity;
    use muster_scheduler::config::ServerConfig;

    #[test]
    fn what_dev_writes_is_what_the_daemons_read() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let now_ms = SystemClock.wall_ms();
        let files = Files::make(folder.path(), 3, 4, "simulated:dgx-h100", now_ms).expect("made");
        for member in files.members() {
            let config: ServerConfig = load_file(&files.server_config(&member.name)).expect("read");
            config.validate().expect("sound");
            assert_eq!((config.name.as_str(), config.members.len()), (member.name.as_str(), 3));
        }
        let mut ports = Vec::new();
        for name in files.agents() {
            let config: Config = load_file(&files.agent_config(name)).expect("read");
            config.validate().expect("sound");
            let identity = Identity::load(config.identity_dir.as_ref().expect("set"), now_ms).expect("sound");
            assert_eq!(identity.name().uri(), format!("muster://dev/agent/{name}"));
            ports.push(config.port_base);
        }
        assert!(ports.windows(2).all(|pair| pair[1] - pair[0] == RANK_PORTS_PER_NODE), "{ports:?}");
    }
}
