//! Waiting for critical errors.

use super::Shared;
use crate::device::{DEVICES_MAX, DeviceEvent, DeviceEventKind};
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::event::EventSet;
use nvml_wrapper::struct_wrappers::event::EventData;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

/// How long one wait lasts, and so how late the thread sees that it is to stop.
const WAIT_MS: u32 = 250;
/// Pause after an error of the driver, which may come back at once for ever.
const ERROR_PAUSE_MS: u64 = 1000;
/// The number that stands for "some XID" in NVML.
const XID_UNKNOWN: u32 = 999;

/// Runs until the probe is dropped; returns at once if the driver has no events. `registered` is told
/// when events are collected from then on.
pub(super) fn watch(nvml: &Nvml, shared: &Shared, sender: &SyncSender<DeviceEvent>, registered: SyncSender<()>) {
    let mut uuids = BTreeMap::new();
    let Some(set) = register(nvml, &mut uuids) else {
        tracing::info!("the driver offers no device events; health is polled only");
        return;
    };
    if registered.try_send(()).is_err() {
        return;
    }
    while !shared.stop.load(Ordering::Relaxed) {
        match set.wait(WAIT_MS) {
            Ok(data) => {
                let Some(event) = event_of(&data, &uuids, shared) else {
                    continue;
                };
                match sender.try_send(event) {
                    Ok(()) => {}
                    Err(TrySendError::Full(event)) => {
                        tracing::warn!(uuid = %event.uuid, kind = ?event.kind, "device event dropped, as nobody collects them");
                    }
                    Err(TrySendError::Disconnected(_)) => return,
                }
            }
            Err(NvmlError::Timeout) => {}
            Err(error) => {
                tracing::warn!(%error, "waiting for device events failed");
                std::thread::sleep(Duration::from_millis(ERROR_PAUSE_MS));
            }
        }
    }
}

/// A set with every device that takes part, or `None`. A refused registration frees the whole set,
/// so each refusal starts over without that device.
fn register<'a>(nvml: &'a Nvml, uuids: &mut BTreeMap<usize, String>) -> Option<EventSet<'a>> {
    let wanted = EventTypes::CRITICAL_XID_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR | EventTypes::MIG_CONFIG_CHANGE;
    let count = nvml.device_count().ok()?.min(DEVICES_MAX as u32);
    let mut refused = BTreeSet::new();
    'again: loop {
        uuids.clear();
        let mut set = nvml.create_event_set().ok()?;
        for index in (0..count).filter(|index| !refused.contains(index)).collect::<Vec<_>>() {
            let Ok(device) = nvml.device_by_index(index) else {
                continue;
            };
            let offered = device.supported_event_types().unwrap_or_else(|_| EventTypes::empty()) & wanted;
            if offered.is_empty() {
                continue;
            }
            match device.register_events(offered, set) {
                Ok(kept) => set = kept,
                Err(error) => {
                    tracing::warn!(index, %error, "no events from this device");
                    refused.insert(index);
                    continue 'again;
                }
            }
            if let Ok(uuid) = device.uuid() {
                // SAFETY: only the number of the handle is kept, to know the device again later.
                uuids.insert(unsafe { device.handle() } as usize, uuid);
            }
        }
        return (!uuids.is_empty()).then_some(set);
    }
}

fn event_of(data: &EventData<'_>, uuids: &BTreeMap<usize, String>, shared: &Shared) -> Option<DeviceEvent> {
    // SAFETY: as in `register`. The UUID comes from the time of registration, as a device that fell
    // off the bus does not tell its own any more.
    let uuid = uuids.get(&(unsafe { data.device.handle() } as usize)).cloned().or_else(|| data.device.uuid().ok())?;
    let kind = match data.event_data {
        Some(XidError::Value(xid)) => DeviceEventKind::Xid(u32::try_from(xid).unwrap_or(XID_UNKNOWN)),
        Some(XidError::Unknown) => DeviceEventKind::Xid(XID_UNKNOWN),
        None if data.event_type.contains(EventTypes::DOUBLE_BIT_ECC_ERROR) => DeviceEventKind::DoubleBitEcc,
        None if data.event_type.contains(EventTypes::MIG_CONFIG_CHANGE) => DeviceEventKind::MigChanged,
        None => return None,
    };
    if let DeviceEventKind::Xid(xid) = kind {
        shared.last_xid.lock().unwrap_or_else(PoisonError::into_inner).insert(uuid.clone(), xid);
    }
    let slots = shared.slots.lock().unwrap_or_else(PoisonError::into_inner);
    let slot = slots.iter().position(|known| *known == uuid).and_then(|slot| u16::try_from(slot).ok());
    Some(DeviceEvent { uuid, slot, kind })
}
