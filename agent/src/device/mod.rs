//! Devices of this node: what they are, how they are joined, how they are doing.
//!
//! [`Probe`] is the seam. [`NvmlProbe`](nvml::NvmlProbe) asks the NVIDIA driver,
//! [`SimulatedProbe`](simulated::SimulatedProbe) plays a machine from a fixture, and [`NoDevices`] is
//! a node without any. A probe only reports; what a fact means for work is decided elsewhere.

pub mod fixture;
pub mod model;
mod none;
pub mod nvml;
pub mod simulated;
mod source;

pub use none::NoDevices;
pub use nvml::NvmlProbe;
pub use simulated::{SimulatedControl, SimulatedProbe};
pub use source::{DeviceSource, open_auto};

use muster_common::node::{Device, Link, Nic, NumaNode};
use muster_proto::datagram::Sample;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;

/// Devices a node may have, MIG instances counted. More is taken for a broken driver's answer.
pub const DEVICES_MAX: usize = 256;

/// A source of facts about this node's devices.
pub trait Probe: Send + fmt::Debug {
    /// What is there now. A slot, once given to a device, stays with it for the life of the probe: a
    /// device that vanishes keeps its slot with `reachable = false`, a new one gets the next slot.
    fn devices(&mut self) -> Result<DeviceReport, ProbeError>;

    /// Events since the last call. Waits at most `wait_ms` for the first one; 0 polls.
    fn events(&mut self, wait_ms: u64) -> Vec<DeviceEvent>;

    /// Process ids with a compute context on the device: the evidence that it is free. An error
    /// means "not known" and must never be read as an empty list. The ids are those of the host's
    /// PID namespace.
    fn processes(&self, slot: u16) -> Result<Vec<u32>, ProbeError>;

    /// How the devices are doing at this moment, one sample for each that answers. Cheap enough for
    /// every few seconds. Only an invented machine needs to be told what runs on it: `load`, at
    /// `now_ms` of the boot clock.
    fn samples(&mut self, load: &Load, now_ms: u64) -> Result<Vec<Sample>, ProbeError>;

    /// The machine around the devices, when the probe invents it too. `None` means that the real
    /// machine is to be read.
    fn machine(&self) -> Option<SimulatedMachine> {
        None
    }

    /// How to name this source in logs and in `--show-inventory`, such as `nvml 580.65.06`.
    fn describe(&self) -> String;
}

/// Thousandths of each slot that allocations of this node hold; slots that none holds are left out.
pub type Load = Arc<BTreeMap<u16, u32>>;

/// CPUs, memory and NICs that come with a fixture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedMachine {
    pub cpu_milli: u64,
    pub memory_bytes: u64,
    pub numa: Vec<NumaNode>,
    pub nics: Vec<Nic>,
    pub labels: BTreeMap<String, String>,
}

/// One look at all devices. Every list is in slot order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceReport {
    pub devices: Vec<Device>,
    pub links: Vec<Vec<Link>>,
    pub health: Vec<DeviceHealth>,
    /// Board serials where the driver tells them, else the UUID; part of the hardware identity.
    pub serials: Vec<String>,
    /// The CPUs near each device as a kernel cpulist; empty when the driver does not say.
    pub affinity: Vec<String>,
    /// `<cluster uuid>.<clique>` of the multi-node NVLink domain all devices are in, if they are.
    pub nvlink_domain: Option<String>,
    /// Devices the driver counts but cannot open, in words. Not empty means a suspect node.
    pub unreadable: Vec<String>,
}

/// How one device is doing. `None` means that the driver does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeviceHealth {
    pub uuid: String,
    /// False when the device fell off the bus or its driver no longer answers for it.
    pub reachable: bool,
    pub memory_used_bytes: Option<u64>,
    /// Compute processes; `None` is not the same as none running.
    pub processes: Option<Vec<u32>>,
    pub temperature_c: Option<u32>,
    pub power_mw: Option<u32>,
    pub busy_percent: Option<u32>,
    /// Uncorrected ECC errors over the device's life.
    pub ecc_uncorrected: Option<u64>,
    /// A row is to be remapped at the next reset: new work is allowed, reset when idle.
    pub remap_pending: Option<bool>,
    /// No spare row was left: the device is to be replaced.
    pub remap_failed: Option<bool>,
    /// What the driver asks for; overrides any table of XIDs.
    pub recovery: Option<Recovery>,
    /// Links that are up; `None` for a device without NVLink.
    pub nvlinks_active: Option<u8>,
    pub fabric: Fabric,
    /// The last XID seen since the probe was opened.
    pub last_xid: Option<u32>,
}

/// The recovery action the driver reports (NVML field 230).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    None,
    GpuReset,
    NodeReboot,
    DrainP2p,
    DrainAndReset,
    RecoverImexDomain,
    BusReset,
    SystemReboot,
    /// A value this version does not know.
    Other(u32),
}

impl Recovery {
    pub const fn from_nvml(value: u32) -> Self {
        match value {
            0 => Recovery::None,
            1 => Recovery::GpuReset,
            2 => Recovery::NodeReboot,
            3 => Recovery::DrainP2p,
            4 => Recovery::DrainAndReset,
            5 => Recovery::RecoverImexDomain,
            6 => Recovery::BusReset,
            7 => Recovery::SystemReboot,
            other => Recovery::Other(other),
        }
    }
}

/// What NVML says of a device's membership in an NVLink fabric.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fabric {
    pub state: FabricState,
    /// Lower-case, with dashes; empty when there is none. All zeros on a single-node NVSwitch board.
    pub cluster_uuid: String,
    pub clique: u32,
    /// The raw health bits, kept because their meaning grows with drivers; 0 = nothing reported.
    pub health_mask: u32,
}

impl Fabric {
    /// The key of the multi-node domain, if there is one and it is complete.
    pub fn domain(&self) -> Option<String> {
        let real = self.cluster_uuid.chars().any(|c| c != '0' && c != '-');
        (self.state == FabricState::Completed && real).then(|| format!("{}.{}", self.cluster_uuid, self.clique))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FabricState {
    #[default]
    NotSupported,
    NotStarted,
    InProgress,
    Completed,
}

/// Something a device did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceEvent {
    pub uuid: String,
    /// `None` for a device that no report has named yet.
    pub slot: Option<u16>,
    pub kind: DeviceEventKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceEventKind {
    /// A critical error by its XID; 999 when the driver does not know which.
    Xid(u32),
    DoubleBitEcc,
    MigChanged,
}

/// Why the devices cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProbeError {
    #[error(
        "the NVIDIA management library `{path}` cannot be loaded: {cause}\n  \
         help: install the driver, give its path with `--devices nvml:PATH`, or run without GPUs with `--devices none`"
    )]
    LibraryMissing { path: String, cause: String },
    #[error(
        "the NVIDIA management library `{path}` does not start: {cause}\n  \
         help: run `nvidia-smi` on this node; a node must not join as CPU-only because its driver is broken"
    )]
    Init { path: String, cause: String },
    #[error(
        "asking the driver for {what} failed: {cause}\n  help: run `nvidia-smi -q` on this node and see the kernel log"
    )]
    Query { what: String, cause: String },
    #[error(
        "the driver has not answered a question for {what} within {limit_ms} ms\n  \
         help: see the kernel log for XIDs; processes stuck in the driver usually need a reset or a reboot"
    )]
    Stuck { what: String, limit_ms: u64 },
    #[error("the device thread has ended; this is a bug\n  help: restart the agent; running ranks are not touched")]
    Stopped,
    #[error("there is no device in slot {slot}; this node has {count}")]
    NoSuchSlot { slot: u16, count: usize },
    #[error("device {uuid} is none of those that this agent found when it started")]
    NotFound { uuid: String },
    #[error(
        "`{text}` is not a source of devices{hint}\n  help: use one of `auto`, `nvml`, `nvml:PATH`, `none`, `simulated:FIXTURE`"
    )]
    UnknownSource { text: String, hint: String },
    #[error("there is no hardware fixture `{name}`{hint}\n  help: known fixtures: {known}")]
    UnknownFixture { name: String, known: String, hint: String },
    #[error("`{name}` has no tray {tray}\n  help: {help}")]
    NoSuchTray { name: String, tray: u16, help: String },
    #[error("the hardware fixture `{name}` cannot be used: {cause}")]
    BadFixture { name: String, cause: String },
    #[error("the path `{}` in `--devices nvml:PATH` is not an absolute path", path.display())]
    RelativeLibrary { path: PathBuf },
}
