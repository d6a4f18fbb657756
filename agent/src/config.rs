//! What `agent.toml` may say: addresses, paths and facts about the node. Policy is never local.

use crate::device::DeviceSource;
use crate::inventory::InventoryConfig;
use muster_common::Name;
use muster_common::heartbeat::Heartbeat;
use muster_common::topology::Place;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Names a Muster agent; every key of the file is a field here, and an unknown one is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Scheduler servers as `host:port`; the agent finds the leader among them.
    pub servers: Vec<String>,
    /// This node's name, as in its certificate.
    pub name: Name,
    /// Holds the store and, unless said otherwise, allocations, logs, outputs and the identity.
    pub state_dir: PathBuf,
    /// Holds what lives no longer than the machine runs: the folders of allocations. A memory file system
    /// such as `/run` spares the disk a dozen files for each part of a gang. Left out: `state_dir`.
    #[serde(default)]
    pub runtime_dir: Option<PathBuf>,
    /// Folder with `identity.crt`, `identity.key` and `ca.crt`. Left out: `<state_dir>/identity`.
    #[serde(default)]
    pub identity_dir: Option<PathBuf>,
    /// `auto`, `none`, `nvml`, `nvml:PATH` or `simulated:FIXTURE`.
    #[serde(default = "default_devices")]
    pub devices: String,
    /// Address that ranks on other nodes can reach. Left out: found by itself.
    #[serde(default)]
    pub address: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<Name, String>,
    /// Place in the fabrics: tree name to domains, widest first.
    #[serde(default)]
    pub place: Place,
    /// CPUs offered to jobs, at most as many as the machine has. Left out: all of them.
    #[serde(default)]
    pub cpus: Option<u32>,
    /// First of the ports that gangs may lease on this node.
    #[serde(default = "default_port_base")]
    pub port_base: u16,
    #[serde(default = "default_port_count")]
    pub port_count: u16,
    /// Left out: `<state_dir>/logs`.
    #[serde(default)]
    pub log_root: Option<PathBuf>,
    /// Parent of the attempts' own output folders. Left out: `<state_dir>/output`.
    #[serde(default)]
    pub output_root: Option<PathBuf>,
    /// Attempts whose logs are kept after their end; the oldest go first.
    #[serde(default = "default_kept_logs")]
    pub kept_logs: usize,
    /// A process that survives SIGKILL for so long quarantines its devices.
    #[serde(default = "default_kill_bound_ms")]
    pub kill_bound_ms: u64,
    /// False keeps ranks out of PID namespaces; fencing is then weaker, and shown so.
    #[serde(default = "default_pid_namespace")]
    pub pid_namespace: bool,
    /// How leases are renewed: `quic` (UDP, and the control stream where that does not get through)
    /// or `grpc` (the control stream only).
    #[serde(default)]
    pub heartbeat: Heartbeat,
    /// How to start a shim; `--dir FOLDER` is added. Left out: `muster-shim` beside this program, or this program with `shim`.
    #[serde(default)]
    pub shim_command: Option<Vec<String>>,
}

fn default_devices() -> String {
    "auto".to_owned()
}

fn default_port_base() -> u16 {
    20_000
}

fn default_port_count() -> u16 {
    1_000
}

fn default_kept_logs() -> usize {
    1_000
}

fn default_kill_bound_ms() -> u64 {
    60_000
}

fn default_pid_namespace() -> bool {
    true
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigFault {
    #[error("`servers` is empty; name at least one scheduler server as host:port")]
    NoServers,
    #[error("`{address}` in `servers` is not host:port")]
    Server { address: String },
    #[error("`{key}` must be an absolute path, not {}", path.display())]
    Relative { key: &'static str, path: PathBuf },
    #[error("`devices`: {why}")]
    Devices { why: String },
    #[error("`shim_command` is empty; leave it out or name a program")]
    ShimCommand,
    #[error("`cpus` is 0; a node offers at least one, or leave it out to offer all")]
    Cpus,
}

impl Config {
    /// The least an agent needs; the rest as when left out of the file.
    pub fn new(servers: Vec<String>, name: Name, state_dir: PathBuf) -> Self {
        Self {
            servers,
            name,
            state_dir,
            runtime_dir: None,
            identity_dir: None,
            devices: default_devices(),
            address: None,
            labels: BTreeMap::new(),
            place: Place::new(),
            cpus: None,
            port_base: default_port_base(),
            port_count: default_port_count(),
            log_root: None,
            output_root: None,
            kept_logs: default_kept_logs(),
            kill_bound_ms: default_kill_bound_ms(),
            pid_namespace: default_pid_namespace(),
            heartbeat: Heartbeat::default(),
            shim_command: None,
        }
    }

    /// What the types alone do not say.
    pub fn validate(&self) -> Result<(), ConfigFault> {
        if self.servers.is_empty() {
            return Err(ConfigFault::NoServers);
        }
        for address in &self.servers {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
            if !port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
                return Err(ConfigFault::Server { address: address.clone() });
            }
        }
        let paths = [
            ("state_dir", Some(&self.state_dir)),
            ("runtime_dir", self.runtime_dir.as_ref()),
            ("identity_dir", self.identity_dir.as_ref()),
            ("log_root", self.log_root.as_ref()),
            ("output_root", self.output_root.as_ref()),
        ];
        for (key, path) in paths {
            if let Some(path) = path.filter(|path| !path.is_absolute()) {
                return Err(ConfigFault::Relative { key, path: path.clone() });
            }
        }
        if self.shim_command.as_ref().is_some_and(Vec::is_empty) {
            return Err(ConfigFault::ShimCommand);
        }
        if self.cpus == Some(0) {
            return Err(ConfigFault::Cpus);
        }
        self.device_source().map(drop)
    }

    pub fn device_source(&self) -> Result<DeviceSource, ConfigFault> {
        self.devices.parse().map_err(|error: crate::device::ProbeError| ConfigFault::Devices { why: error.to_string() })
    }

    pub fn identity_dir(&self) -> PathBuf {
        self.identity_dir.clone().unwrap_or_else(|| self.state_dir.join("identity"))
    }

    pub fn runtime_dir(&self) -> PathBuf {
        self.runtime_dir.clone().unwrap_or_else(|| self.state_dir.clone())
    }

    pub fn log_root(&self) -> PathBuf {
        self.log_root.clone().unwrap_or_else(|| self.state_dir.join("logs"))
    }

    pub fn output_root(&self) -> PathBuf {
        self.output_root.clone().unwrap_or_else(|| self.state_dir.join("output"))
    }

    /// What the operator says about the node, for its inventory.
    pub fn inventory(&self, pid_namespace: bool) -> InventoryConfig {
        let mut inventory = InventoryConfig::new(self.name.clone());
        inventory.labels = self.labels.clone();
        inventory.place = self.place.clone();
        inventory.address = self.address.clone();
        inventory.cpus = self.cpus;
        (inventory.port_base, inventory.port_count) = (self.port_base, self.port_count);
        inventory.pid_namespace = pid_namespace;
        inventory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: &str = "servers = [\"a:1\"]\nname = \"n1\"\nstate_dir = \"/var/lib/muster\"\n";

    #[test]
    fn a_short_file_is_enough_and_an_unknown_key_is_an_error() {
        let config: Config = muster_runtime::config::parse("agent.toml", SHORT).expect("valid");
        assert_eq!(config, Config::new(vec!["a:1".to_owned()], Name::literal("n1"), "/var/lib/muster".into()));
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.log_root(), PathBuf::from("/var/lib/muster/logs"));
        let unknown = format!("{SHORT}stat_dir = \"/x\"\n");
        assert!(muster_runtime::config::parse::<Config>("agent.toml", &unknown).is_err());
        let grpc = format!("{SHORT}heartbeat = \"grpc\"\n");
        let config: Config = muster_runtime::config::parse("agent.toml", &grpc).expect("valid");
        assert_eq!((config.heartbeat, Heartbeat::default()), (Heartbeat::Grpc, Heartbeat::Quic));
        let wrong = muster_runtime::config::parse::<Config>("agent.toml", &format!("{SHORT}heartbeat = \"udp\"\n"));
        let why = wrong.expect_err("there is no such way").to_string();
        assert!(why.contains("udp") && why.contains("quic") && why.contains("grpc"), "{why}");
    }

    #[test]
    fn what_cannot_work_is_said_at_once() {
        let good = Config::new(vec!["a:1".to_owned()], Name::literal("n1"), "/s".into());
        let bad = |change: fn(&mut Config)| {
            let mut config = good.clone();
            change(&mut config);
            config.validate().expect_err("it cannot work").to_string()
        };
        assert!(bad(|config| config.servers.clear()).contains("at least one"));
        assert!(bad(|config| config.servers = vec!["host".to_owned()]).contains("`host`"));
        assert!(bad(|config| config.servers = vec!["host:0".to_owned()]).contains("`host:0`"));
        assert!(bad(|config| config.state_dir = "x".into()).contains("`state_dir`"));
        assert!(bad(|config| config.runtime_dir = Some("run".into())).contains("`runtime_dir`"));
        assert!(bad(|config| config.devices = "simulated:dgx-9".to_owned()).contains("dgx-9"));
        assert!(bad(|config| config.shim_command = Some(Vec::new())).contains("shim_command"));
        assert!(bad(|config| config.cpus = Some(0)).contains("`cpus`"));
    }
}
