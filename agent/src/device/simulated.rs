//! Devices that are only told of: a machine of `fixtures/`, with switches for tests.

use super::fixture::Fixture;
use super::{
    DeviceEvent, DeviceEventKind, DeviceHealth, DeviceReport, Fabric, FabricState, Load, Probe, ProbeError, Recovery,
    SimulatedMachine, model,
};
use muster_common::node::{Device, Link, Nic, NumaNode};
use muster_proto::datagram::Sample;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

mod invented;

const GIB: u64 = 1 << 30;
/// Events kept when nobody asks for them; the oldest go first.
const EVENTS_MAX: usize = 1024;

/// Plays one machine of the fixtures. UUIDs and serials are derived from fixture, tray, node name and
/// index, so they are the same after every restart and differ between nodes.
#[derive(Debug)]
pub struct SimulatedProbe {
    name: String,
    machine: SimulatedMachine,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<DeviceReport>,
    events: Mutex<VecDeque<DeviceEvent>>,
    arrived: Condvar,
}

/// Makes a [`SimulatedProbe`] misbehave. All methods take the slot; a slot that is not there does nothing.
#[derive(Debug, Clone)]
pub struct SimulatedControl(Arc<Shared>);

impl SimulatedProbe {
    /// The machine `fixture` (of a rack the tray `tray`) under the node name `node`.
    pub fn new(fixture: &str, tray: Option<u16>, node: &str) -> Result<Self, ProbeError> {
        let machine = Fixture::load(fixture, tray)?;
        let name = match tray {
            Some(tray) => format!("{fixture}/{tray}"),
            None => fixture.to_owned(),
        };
        let bad = |cause| ProbeError::BadFixture { name: name.clone(), cause };
        let report = report_of(&machine, &name, node).map_err(bad)?;
        let machine = machine_of(&machine, &name).map_err(bad)?;
        let shared = Shared { state: Mutex::new(report), events: Mutex::default(), arrived: Condvar::new() };
        Ok(Self { name, machine, shared: Arc::new(shared) })
    }

    pub fn control(&self) -> SimulatedControl {
        SimulatedControl(self.shared.clone())
    }
}

impl Probe for SimulatedProbe {
    fn devices(&mut self) -> Result<DeviceReport, ProbeError> {
        Ok(lock(&self.shared.state).clone())
    }

    fn events(&mut self, wait_ms: u64) -> Vec<DeviceEvent> {
        let events = lock(&self.shared.events);
        let wait = Duration::from_millis(wait_ms);
        let waited = self.shared.arrived.wait_timeout_while(events, wait, |events| events.is_empty());
        let (mut events, _) = waited.unwrap_or_else(PoisonError::into_inner);
        events.drain(..).collect()
    }

    fn processes(&self, slot: u16) -> Result<Vec<u32>, ProbeError> {
        let state = lock(&self.shared.state);
        let count = state.health.len();
        let health = state.health.get(usize::from(slot)).ok_or(ProbeError::NoSuchSlot { slot, count })?;
        health.processes.clone().filter(|_| health.reachable).ok_or_else(|| ProbeError::Query {
            what: format!("the processes of slot {slot}"),
            cause: "the simulated device fell off the bus".to_owned(),
        })
    }

    fn samples(&mut self, load: &Load, now_ms: u64) -> Result<Vec<Sample>, ProbeError> {
        let state = lock(&self.shared.state);
        let slots = (0u16..).zip(state.devices.iter().zip(&state.health));
        let answering = slots.filter(|(_, (_, health))| health.reachable);
        Ok(answering.map(|(slot, (device, health))| invented::sample(slot, device, health, load, now_ms)).collect())
    }

    fn machine(&self) -> Option<SimulatedMachine> {
        Some(self.machine.clone())
    }

    fn describe(&self) -> String {
        format!("simulated {}", self.name)
    }
}

impl SimulatedControl {
    pub fn inject_xid(&self, slot: u16, xid: u32) {
        let Some(uuid) = self.change(slot, |health| {
            health.last_xid = Some(xid);
            health.uuid.clone()
        }) else {
            return;
        };
        let mut events = lock(&self.0.events);
        if events.len() >= EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(DeviceEvent { uuid, slot: Some(slot), kind: DeviceEventKind::Xid(xid) });
        self.0.arrived.notify_all();
    }

    pub fn set_temperature(&self, slot: u16, celsius: u32) {
        self.change(slot, |health| health.temperature_c = Some(celsius));
    }

    pub fn set_processes(&self, slot: u16, pids: Vec<u32>) {
        self.change(slot, |health| health.processes = Some(pids));
    }

    pub fn set_remap(&self, slot: u16, pending: bool, failed: bool) {
        self.change(slot, |health| {
            health.remap_pending = Some(pending);
            health.remap_failed = Some(failed);
        });
    }

    pub fn set_reachable(&self, slot: u16, reachable: bool) {
        self.change(slot, |health| health.reachable = reachable);
    }

    fn change<T>(&self, slot: u16, change: impl FnOnce(&mut DeviceHealth) -> T) -> Option<T> {
        lock(&self.0.state).health.get_mut(usize::from(slot)).map(change)
    }
}

/// A panic in a holder leaves plain data behind, so a poisoned lock is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report_of(machine: &Fixture, name: &str, node: &str) -> Result<DeviceReport, String> {
    let product = model::product(&machine.gpu_model).ok_or_else(|| format!("no product `{}`", machine.gpu_model))?;
    let mut order: Vec<usize> = (0..machine.gpus.len()).collect();
    order.sort_by(|a, b| machine.gpus[*a].pci_bus_id.cmp(&machine.gpus[*b].pci_bus_id));
    let links = machine.links()?;
    let links = order.iter().map(|a| order.iter().map(|b| links[*a][*b]).collect::<Vec<Link>>()).collect();
    let fabric = fabric_of(machine);
    let mut report = DeviceReport { links, nvlink_domain: fabric.domain(), ..DeviceReport::default() };
    for gpu in order.iter().map(|at| &machine.gpus[*at]) {
        let digest = digest(name, node, gpu.index);
        let uuid = uuid_of(&digest);
        report.devices.push(Device {
            uuid: uuid.clone(),
            model: product.model.clone(),
            product: product.product.clone(),
            memory_bytes: product.memory_gib * GIB,
            pci_address: gpu.pci_bus_id.clone(),
            numa: Some(gpu.numa_node),
            parent: None,
            nearest_nics: gpu.nearest_nics.clone(),
        });
        report.affinity.push(gpu.cpu_affinity.clone());
        report.serials.push(format!("{}", u64::from_be_bytes(digest[16..24].try_into().expect("8 bytes"))));
        report.health.push(DeviceHealth {
            uuid,
            reachable: true,
            memory_used_bytes: Some(0),
            processes: Some(Vec::new()),
            temperature_c: Some(35),
            power_mw: Some(product.tdp_w * 100),
            busy_percent: Some(0),
            ecc_uncorrected: Some(0),
            remap_pending: Some(false),
            remap_failed: Some(false),
            recovery: Some(Recovery::None),
            nvlinks_active: (gpu.nvlinks_max > 0).then_some(gpu.nvlinks_active),
            fabric: fabric.clone(),
            last_xid: None,
        });
    }
    Ok(report)
}

fn fabric_of(machine: &Fixture) -> Fabric {
    let Some(fabric) = &machine.fabric else {
        return Fabric::default();
    };
    let state = match fabric.state.as_str() {
        "completed" => FabricState::Completed,
        "in_progress" => FabricState::InProgress,
        _ => FabricState::NotStarted,
    };
    Fabric { state, cluster_uuid: fabric.cluster_uuid.clone(), clique: fabric.clique_id, health_mask: 0 }
}

fn machine_of(machine: &Fixture, name: &str) -> Result<SimulatedMachine, String> {
    let memory_bytes = machine.cpu.host_mem_gib * GIB;
    let nodes = machine.cpu.numa.len().max(1) as u64;
    let mut cpus = 0;
    let mut numa = Vec::new();
    for node in &machine.cpu.numa {
        cpus += crate::inventory::cpulist::parse(&node.cpus)?.len() as u64;
        numa.push(NumaNode { id: node.id, cpus: node.cpus.clone(), memory_bytes: memory_bytes / nodes });
    }
    let nics = machine.nics.iter().map(|nic| Nic {
        name: nic.name.clone(),
        netdev: nic.netdev.clone(),
        pci_address: nic.pci_bus_id.clone(),
        numa: Some(nic.numa_node),
        rate_gbps: nic.rate_gbps,
        rail: nic.rail,
        compute: nic.role == "compute",
    });
    let labels = BTreeMap::from([("simulated".to_owned(), name.to_owned())]);
    Ok(SimulatedMachine { cpu_milli: cpus * 1000, memory_bytes, numa, nics: nics.collect(), labels })
}

fn digest(name: &str, node: &str, index: u16) -> [u8; 32] {
    // Names hold no NUL, so the parts cannot run into each other.
    Sha256::digest(format!("muster simulated device\0{name}\0{node}\0{index}")).into()
}

fn uuid_of(digest: &[u8; 32]) -> String {
    let hex: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::fixture;
    use std::collections::BTreeSet;

    fn probe(name: &str) -> SimulatedProbe {
        SimulatedProbe::new(name, None, "node-1").unwrap()
    }

    #[test]
    fn every_fixture_gives_a_whole_and_symmetric_report() {
        for name in fixture::names() {
            let report = probe(name).devices().unwrap();
            let count = report.devices.len();
            assert!(count >= 4, "{name}");
            for lists in [report.links.len(), report.health.len(), report.serials.len(), report.affinity.len()] {
                assert_eq!(lists, count, "{name}");
            }
            for a in 0..count {
                for b in 0..count {
                    assert_eq!(report.links[a][b], report.links[b][a], "{name} {a} {b}");
                    assert_eq!(report.links[a][b] == Link::Same, a == b, "{name} {a} {b}");
                }
            }
            assert!(report.devices.is_sorted_by_key(|device| &device.pci_address), "{name}");
        }
    }

    #[test]
    fn uuids_stay_over_restarts_and_differ_between_nodes_and_trays() {
        let uuids = |tray, node: &str| -> BTreeSet<String> {
            let mut probe = SimulatedProbe::new("gb200-nvl72", tray, node).unwrap();
            probe.devices().unwrap().devices.into_iter().map(|device| device.uuid).collect()
        };
        let first = uuids(Some(1), "a");
        assert_eq!(first, uuids(Some(1), "a"));
        assert!(first.is_disjoint(&uuids(Some(1), "b")));
        assert!(first.is_disjoint(&uuids(Some(2), "a")));
        let example = first.first().unwrap();
        assert_eq!(example.len(), "GPU-".len() + 36, "{example}");
    }

    #[test]
    fn a_degraded_b200_keeps_seven_devices_on_nvlink() {
        let report = probe("hgx-b200-degraded").devices().unwrap();
        assert_eq!(report.health[2].nvlinks_active, Some(0));
        for other in (0..8).filter(|other| *other != 2) {
            assert!(matches!(report.links[2][other], Link::Node | Link::Sys));
        }
        assert_eq!(report.links[0][7], Link::NvLink(18));
    }

    #[test]
    fn only_a_rack_is_in_a_multi_node_nvlink_domain() {
        let domain = probe("gb200-nvl72").devices().unwrap().nvlink_domain;
        assert_eq!(domain.as_deref(), Some("7a1c0e52-9d3b-4f60-8e21-5b6f0c9d7a11.32766"));
        assert_eq!(probe("dgx-h100").devices().unwrap().nvlink_domain, None);
    }

    #[test]
    fn injected_faults_are_seen() {
        let mut probe = probe("dgx-h100");
        let control = probe.control();
        assert!(probe.events(0).is_empty());
        let waiter = std::thread::spawn(move || probe.events(10_000));
        control.inject_xid(3, 79);
        let events = waiter.join().unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].slot, events[0].kind), (Some(3), DeviceEventKind::Xid(79)));
    }

    #[test]
    fn samples_move_with_what_a_device_runs_and_a_lost_one_gives_none() {
        let mut probe = probe("dgx-h100");
        let control = probe.control();
        let load = Load::new(BTreeMap::from([(0, 1000), (1, 500)]));
        let samples = probe.samples(&load, 60_000).unwrap();
        assert_eq!(samples.len(), 8);
        assert_eq!(samples, probe.samples(&load, 60_000).unwrap(), "one moment, one answer");
        let memory = |slot: usize| samples[slot].memory_used_bytes.unwrap();
        assert!(memory(0) > memory(1) && memory(1) > memory(2), "{samples:?}");
        let whole = probe.devices().unwrap().devices[0].memory_bytes;
        assert!(memory(0) < whole && samples[0].busy_percent.unwrap() >= 90);
        assert_eq!((samples[2].busy_percent, samples[2].memory_used_bytes), (Some(0), Some(0)));
        assert!(samples[0].power_mw.unwrap() > 500_000 && samples[2].power_mw.unwrap() < 100_000, "{samples:?}");
        assert!(samples[0].temperature_c > samples[2].temperature_c);
        control.set_reachable(0, false);
        let slots: Vec<u16> = probe.samples(&load, 60_000).unwrap().iter().map(|sample| sample.slot).collect();
        assert_eq!(slots, [1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_lost_device_gives_no_evidence_of_being_free() {
        let probe = probe("dgx-h100");
        let control = probe.control();
        assert_eq!(probe.processes(0).unwrap(), Vec::<u32>::new());
        control.set_processes(0, vec![4711]);
        assert_eq!(probe.processes(0).unwrap(), vec![4711]);
        control.set_reachable(0, false);
        assert!(probe.processes(0).is_err());
        assert!(matches!(probe.processes(8), Err(ProbeError::NoSuchSlot { slot: 8, count: 8 })));
    }
}
