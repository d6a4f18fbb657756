//! The machine being played, and the handles by which NVML's callers name its devices.

use crate::fixture::{self, Machine, Product};
use nvml_wrapper_sys::bindings::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub const FIXTURE_VARIABLE: &str = "MUSTER_FAKE_NVML";
/// Makes UUIDs differ between nodes that play the same fixture.
pub const NODE_VARIABLE: &str = "MUSTER_FAKE_NVML_NODE";

static NODE: Mutex<Option<Node>> = Mutex::new(None);
/// Signalled at every change, for waits on events and on the end of a hang.
pub static CHANGED: Condvar = Condvar::new();

/// A machine and its present troubles.
pub struct Node {
    pub machine: Machine,
    pub product: Product,
    pub gpus: Vec<GpuState>,
    pub sets: BTreeMap<usize, EventSet>,
    pub next_set: usize,
    /// Calls on devices wait until this is false again, as in a wedged driver.
    pub hangs: bool,
    /// Calls that came with later drivers say that they are not there.
    pub old_driver: bool,
    name: String,
}

/// What tests may change of one GPU.
#[derive(Default)]
pub struct GpuState {
    pub lost: Lost,
    pub temperature_c: u32,
    pub links_down: BTreeSet<u32>,
    pub remap_pending: bool,
    pub remap_failed: bool,
    pub recovery: u32,
    pub pids: BTreeMap<Option<u32>, Vec<u32>>,
    /// MIG instances; `None` is MIG off.
    pub instances: Option<u32>,
}

/// How a device is off the bus: some drivers then refuse everything, others still tell its name.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    #[default]
    No,
    Wholly,
    ButNamed,
}

#[derive(Default)]
pub struct EventSet {
    /// Mask of event types by GPU.
    pub wanted: BTreeMap<usize, u64>,
    pub queue: VecDeque<Event>,
}

#[derive(Clone, Copy)]
pub struct Event {
    pub gpu: usize,
    pub kind: u64,
    pub data: u64,
}

/// A GPU, or one MIG instance of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handle {
    pub gpu: usize,
    pub instance: Option<u32>,
}

impl Handle {
    /// Handles are numbers in a pointer's clothes: never null, never followed.
    pub fn encode(self) -> nvmlDevice_t {
        let instance = self.instance.map_or(0, |instance| instance as usize + 1);
        std::ptr::without_provenance_mut((self.gpu + 1) | instance << 16)
    }

    pub fn decode(device: nvmlDevice_t) -> Option<Self> {
        let number = device.addr();
        let gpu = (number & 0xffff).checked_sub(1)?;
        let instance = (number >> 16).checked_sub(1).and_then(|instance| u32::try_from(instance).ok());
        Some(Self { gpu, instance })
    }
}

impl Node {
    pub fn load(path: &Path) -> Result<Self, String> {
        let (machine, product) = fixture::load(path)?;
        let gpus = machine.gpus.iter().map(|_| GpuState { temperature_c: 35, ..GpuState::default() }).collect();
        let name = std::env::var(NODE_VARIABLE).unwrap_or_default();
        let sets = BTreeMap::new();
        Ok(Self { machine, product, gpus, sets, next_set: 1, hangs: false, old_driver: false, name })
    }

    pub fn uuid(&self, handle: Handle) -> String {
        let kind = if handle.instance.is_some() { "MIG" } else { "GPU" };
        let text = format!("{}\0{}\0{}\0{:?}", self.machine.id, self.name, handle.gpu, handle.instance);
        let hex = format!("{:016x}{:016x}", hash(1, &text), hash(2, &text));
        format!("{kind}-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// All handles there are, GPUs and instances.
    pub fn handles(&self) -> impl Iterator<Item = Handle> {
        self.gpus.iter().enumerate().flat_map(|(gpu, state)| {
            let instances = (0..state.instances.unwrap_or(0)).map(Some);
            std::iter::once(None).chain(instances).map(move |instance| Handle { gpu, instance })
        })
    }

    pub fn push_event(&mut self, event: Event) {
        for set in self.sets.values_mut() {
            if set.wanted.get(&event.gpu).is_some_and(|mask| mask & event.kind != 0) {
                set.queue.push_back(event);
            }
        }
    }
}

/// FNV-1a with a seed: enough to make numbers that look like a UUID.
fn hash(seed: u64, text: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325u64.wrapping_add(seed);
    let mixed = text.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    mixed ^ mixed >> 29
}

pub fn lock() -> MutexGuard<'static, Option<Node>> {
    NODE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `call` on the machine once it is loaded.
pub fn with_node(call: impl FnOnce(&mut Node) -> nvmlReturn_t) -> nvmlReturn_t {
    match lock().as_mut() {
        Some(node) => call(node),
        None => nvmlReturn_enum_NVML_ERROR_UNINITIALIZED,
    }
}

/// Runs `call` on a device that is there and not lost; waits while the driver "hangs".
pub fn with_device(device: nvmlDevice_t, call: impl FnOnce(&mut Node, Handle) -> nvmlReturn_t) -> nvmlReturn_t {
    with(device, |lost| lost != Lost::No, call)
}

/// As [`with_device`], for what a driver remembers of a device when it is gone.
pub fn with_identity(device: nvmlDevice_t, call: impl FnOnce(&mut Node, Handle) -> nvmlReturn_t) -> nvmlReturn_t {
    with(device, |lost| lost == Lost::Wholly, call)
}

fn with(
    device: nvmlDevice_t,
    refused: impl FnOnce(Lost) -> bool,
    call: impl FnOnce(&mut Node, Handle) -> nvmlReturn_t,
) -> nvmlReturn_t {
    let hanging = |node: &mut Option<Node>| node.as_ref().is_some_and(|node| node.hangs);
    let mut guard = CHANGED.wait_while(lock(), hanging).unwrap_or_else(PoisonError::into_inner);
    let Some(node) = guard.as_mut() else {
        return nvmlReturn_enum_NVML_ERROR_UNINITIALIZED;
    };
    match Handle::decode(device) {
        Some(handle) if handle.gpu < node.gpus.len() => {
            if refused(node.gpus[handle.gpu].lost) {
                return nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST;
            }
            call(node, handle)
        }
        _ => nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT,
    }
}
