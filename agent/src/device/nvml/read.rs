//! Reading all devices once, and answering the handle's questions.

use super::links::{self, NvLinks};
use super::{Question, Shared, query, raw};
use crate::device::{DEVICES_MAX, DeviceHealth, DeviceReport, Fabric, ProbeError, Recovery, model};
use crate::inventory::cpulist;
use muster_common::node::{Device as DeviceFacts, Link};
use muster_proto::datagram::Sample;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::PciInfo;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION;
use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::mpsc::Receiver;

/// Machine words of a CPU mask: 2048 CPUs.
const AFFINITY_WORDS: usize = 32;
const MIG_ENABLED: u32 = 1;

/// The thread that owns the conversation with the driver.
pub(super) struct Reader<'a> {
    nvml: &'a Nvml,
    shared: &'a Shared,
    /// What was told, in slot order: a slot is never given to another device.
    known: Vec<Known>,
}

#[derive(Clone)]
struct Known {
    device: DeviceFacts,
    serial: String,
    affinity: String,
}

/// One device as just read; `gpu` is `None` for one that is known but no longer answers.
pub(super) struct Reading<'a> {
    pub device: DeviceFacts,
    /// The UUID of the whole GPU, which a MIG instance shares with its siblings.
    pub gpu_uuid: String,
    pub gpu: Option<Device<'a>>,
    pub links: NvLinks,
    /// The MIG instance's own handle.
    instance: Option<Device<'a>>,
    serial: String,
    affinity: String,
}

impl<'a> Reading<'a> {
    pub fn is_instance(&self) -> bool {
        self.instance.is_some() || self.device.uuid != self.gpu_uuid
    }

    fn handle(&self) -> Option<&Device<'a>> {
        self.instance.as_ref().or(self.gpu.as_ref())
    }
}

impl<'a> Reader<'a> {
    pub fn new(nvml: &'a Nvml, shared: &'a Shared) -> Self {
        Self { nvml, shared, known: Vec::new() }
    }

    /// Until the handle is dropped. A reply nobody waits for any more is dropped too.
    pub fn answer_all(mut self, questions: &Receiver<Question>) {
        for question in questions {
            match question {
                Question::Devices(reply) => drop(reply.try_send(self.report())),
                Question::Samples(reply) => drop(reply.try_send(Ok(self.samples()))),
                Question::Processes { uuid, reply } => drop(reply.try_send(self.processes(&uuid))),
            }
        }
    }

    fn report(&mut self) -> Result<DeviceReport, ProbeError> {
        let mut report = DeviceReport::default();
        let readings = self.in_slot_order(self.read_all(&mut report.unreadable)?);
        report.links = links::matrix(self.nvml, &readings);
        for reading in &readings {
            report.health.push(self.health(reading));
            report.devices.push(reading.device.clone());
            report.serials.push(reading.serial.clone());
            report.affinity.push(reading.affinity.clone());
        }
        report.nvlink_domain = common_domain(&report.health);
        let known = readings.iter().map(|reading| Known {
            device: reading.device.clone(),
            serial: reading.serial.clone(),
            affinity: reading.affinity.clone(),
        });
        self.known = known.collect();
        let uuids = report.devices.iter().map(|device| device.uuid.clone()).collect();
        *self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner) = uuids;
        debug_assert!(report.links.iter().enumerate().all(|(at, row)| row[at] == Link::Same));
        Ok(report)
    }

    /// All devices the driver shows, MIG instances after their GPU, in PCI order.
    fn read_all(&self, unreadable: &mut Vec<String>) -> Result<Vec<Reading<'a>>, ProbeError> {
        let count = self.nvml.device_count().map_err(|error| query("the number of devices", error))?;
        let mut readings = Vec::new();
        for index in 0..count.min(DEVICES_MAX as u32) {
            match self.read_gpu(index) {
                Ok(read) => readings.extend(read),
                Err(error) => unreadable.push(format!("device {index}: {error}")),
            }
        }
        // A stable sort keeps instances behind their GPU.
        readings.sort_by(|a, b| a.device.pci_address.cmp(&b.device.pci_address));
        readings.truncate(DEVICES_MAX);
        Ok(readings)
    }

    fn read_gpu(&self, index: u32) -> Result<Vec<Reading<'a>>, NvmlError> {
        let gpu = self.nvml.device_by_index(index)?;
        let device = facts(&gpu, pci_address(&gpu.pci_info()?))?;
        let affinity = gpu.cpu_affinity(AFFINITY_WORDS).map(|words| cpulist_of(&words)).unwrap_or_default();
        let serial = gpu.serial().unwrap_or_else(|_| device.uuid.clone());
        let links = NvLinks::read(self.nvml, &gpu);
        let mut readings = Vec::new();
        if gpu.mig_mode().is_ok_and(|mode| mode.current == MIG_ENABLED) {
            for number in 0..gpu.mig_device_count().unwrap_or(0) {
                // Numbers without an instance are errors.
                let Ok(instance) = gpu.mig_device_by_index(number) else {
                    continue;
                };
                let Ok(part) = facts(&instance, device.pci_address.clone()) else {
                    continue;
                };
                readings.push(Reading {
                    device: DeviceFacts { model: device.model.clone(), ..part },
                    gpu_uuid: device.uuid.clone(),
                    gpu: Some(self.nvml.device_by_index(index)?),
                    links: NvLinks::default(),
                    instance: Some(instance),
                    serial: serial.clone(),
                    affinity: affinity.clone(),
                });
            }
        }
        let gpu_uuid = device.uuid.clone();
        readings.insert(0, Reading { device, gpu_uuid, gpu: Some(gpu), links, instance: None, serial, affinity });
        Ok(readings)
    }

    /// Known devices first, in their slots, then new ones; the lost keep their place.
    fn in_slot_order(&self, read: Vec<Reading<'a>>) -> Vec<Reading<'a>> {
        let mut fresh: Vec<Option<Reading<'a>>> = read.into_iter().map(Some).collect();
        let mut ordered: Vec<Reading<'a>> = Vec::new();
        for known in &self.known {
            let found = fresh.iter_mut().find(|slot| slot.as_ref().is_some_and(|r| r.device.uuid == known.device.uuid));
            ordered.push(match found.and_then(Option::take) {
                Some(reading) => reading,
                None => self.lost(known),
            });
        }
        ordered.extend(fresh.into_iter().flatten());
        let parents: Vec<Option<u16>> = ordered
            .iter()
            .map(|reading| {
                let at = ordered.iter().position(|gpu| gpu.device.uuid == reading.gpu_uuid && reading.is_instance());
                at.and_then(|at| u16::try_from(at).ok())
            })
            .collect();
        for (reading, parent) in ordered.iter_mut().zip(parents) {
            reading.device.parent = parent;
        }
        ordered
    }

    fn lost(&self, known: &Known) -> Reading<'a> {
        let parent = known.device.parent.and_then(|slot| self.known.get(usize::from(slot)));
        Reading {
            device: known.device.clone(),
            gpu_uuid: parent.unwrap_or(known).device.uuid.clone(),
            gpu: None,
            links: NvLinks::default(),
            instance: None,
            serial: known.serial.clone(),
            affinity: known.affinity.clone(),
        }
    }

    fn health(&self, reading: &Reading<'_>) -> DeviceHealth {
        let uuid = reading.device.uuid.clone();
        let last_xid = {
            let seen = self.shared.last_xid.lock().unwrap_or_else(PoisonError::into_inner);
            seen.get(&reading.gpu_uuid).copied()
        };
        let (Some(handle), Some(gpu)) = (reading.handle(), reading.gpu.as_ref()) else {
            return DeviceHealth { uuid, last_xid, ..DeviceHealth::default() };
        };
        let rows = raw::remapped_rows(self.nvml, gpu);
        let fabric = if reading.is_instance() { Fabric::default() } else { raw::fabric(self.nvml, gpu) };
        DeviceHealth {
            uuid,
            reachable: true,
            memory_used_bytes: handle.memory_info().ok().map(|memory| memory.used),
            processes: compute_processes(handle).ok(),
            // Readings of 0 are what broken sensors give.
            temperature_c: gpu.temperature(TemperatureSensor::Gpu).ok().filter(|celsius| *celsius > 0),
            power_mw: gpu.power_usage().ok(),
            busy_percent: gpu.utilization_rates().ok().map(|rates| rates.gpu),
            ecc_uncorrected: gpu.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Aggregate).ok(),
            remap_pending: rows.as_ref().map(|rows| rows.pending),
            remap_failed: rows.as_ref().map(|rows| rows.failed),
            recovery: recovery(gpu),
            nvlinks_active: reading.links.active(),
            fabric,
            last_xid,
        }
    }

    /// Of the devices that were reported and still answer. An instance has its own memory; the rest
    /// the driver tells of whole GPUs only.
    fn samples(&self) -> Vec<Sample> {
        let known = self.known.iter().zip(0u16..);
        let answering = known.filter_map(|(known, slot)| {
            let device = self.nvml.device_by_uuid(known.device.uuid.as_str()).ok()?;
            Some(Sample {
                slot,
                busy_percent: device.utilization_rates().ok().and_then(|rates| u8::try_from(rates.gpu.min(100)).ok()),
                memory_used_bytes: device.memory_info().ok().map(|memory| memory.used),
                // Readings of 0 are what broken sensors give.
                temperature_c: device
                    .temperature(TemperatureSensor::Gpu)
                    .ok()
                    .filter(|celsius| *celsius > 0)
                    .and_then(|celsius| u16::try_from(celsius).ok()),
                power_mw: device.power_usage().ok(),
            })
        });
        answering.collect()
    }

    fn processes(&self, uuid: &str) -> Result<Vec<u32>, ProbeError> {
        let what = format!("the processes on {uuid}");
        let device = self.nvml.device_by_uuid(uuid).map_err(|error| query(&what, error))?;
        compute_processes(&device).map_err(|error| query(&what, error))
    }
}

fn facts(device: &Device<'_>, pci_address: String) -> Result<DeviceFacts, NvmlError> {
    let product = device.name()?;
    Ok(DeviceFacts {
        uuid: device.uuid()?,
        model: model::model_of(&product),
        product,
        memory_bytes: match device.memory_info() {
            Ok(memory) => memory.total,
            // Some integrated GPUs have no memory of their own to tell of.
            Err(NvmlError::NotSupported) => 0,
            // Names may come from a driver's memory; this question shows that a device is gone.
            Err(error) => return Err(error),
        },
        pci_address,
        numa: None,
        parent: None,
        nearest_nics: Vec::new(),
    })
}

/// Contexts of plain processes and of MPS clients.
fn compute_processes(device: &Device<'_>) -> Result<Vec<u32>, NvmlError> {
    let mut pids: BTreeSet<u32> = device.running_compute_processes()?.into_iter().map(|process| process.pid).collect();
    // MPS is not everywhere; its server is in the first list either way.
    pids.extend(device.mps_running_compute_processes().unwrap_or_default().into_iter().map(|process| process.pid));
    Ok(pids.into_iter().collect())
}

fn recovery(device: &Device<'_>) -> Option<Recovery> {
    let samples = device.field_values_for(&[FieldId(NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)]).ok()?;
    let value = match samples.into_iter().next()?.ok()?.value.ok()? {
        SampleValue::U32(value) => value,
        SampleValue::U64(value) => u32::try_from(value).ok()?,
        SampleValue::I64(value) => u32::try_from(value).ok()?,
        SampleValue::F64(_) => return None,
    };
    Some(Recovery::from_nvml(value))
}

/// The domain if every whole GPU is in the same one; a node with mixed answers is in none.
fn common_domain(health: &[DeviceHealth]) -> Option<String> {
    let mut whole = health.iter().filter(|health| health.reachable && !health.uuid.starts_with("MIG-"));
    let first = whole.next()?.fabric.domain()?;
    whole.all(|health| health.fabric.domain().as_deref() == Some(&first)).then_some(first)
}

/// The kernel's form: `0000:1b:00.0`, lower case, four digits of domain unless more are needed.
pub(super) fn pci_address(pci: &PciInfo) -> String {
    format!("{:04x}:{:02x}:{:02x}.0", pci.domain, pci.bus, pci.device)
}

fn cpulist_of(words: &[std::ffi::c_ulong]) -> String {
    let bits = std::ffi::c_ulong::BITS as usize;
    let cpus: Vec<u32> = (0..words.len() * bits)
        .filter(|cpu| words[cpu / bits] >> (cpu % bits) & 1 == 1)
        .filter_map(|cpu| u32::try_from(cpu).ok())
        .collect();
    cpulist::format(&cpus)
}
