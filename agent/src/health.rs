//! What devices say about themselves, and what that means for the work on them.

use crate::device::{DeviceEvent, DeviceEventKind, Load, Probe, ProbeError};
use crate::store::ReportBody;
use muster_proto::datagram::Sample;
use std::sync::{Arc, Mutex, PoisonError};

/// Between two looks at the devices' events.
pub const LOOK_EVERY_MS: u64 = 1_000;
/// Between two samples of how busy, full and warm they are.
pub const SAMPLE_EVERY_MS: u64 = 5_000;

/// The latest sample of every device.
pub type Samples = Arc<Vec<Sample>>;

/// The probe, shared by those who ask. Asking blocks, so it is done aside.
#[derive(Debug, Clone)]
pub struct Devices {
    probe: Arc<Mutex<Box<dyn Probe>>>,
    uuids: Arc<[String]>,
}

impl Devices {
    /// `uuids` in slot order.
    pub fn new(probe: Box<dyn Probe>, uuids: Vec<String>) -> Self {
        Self { probe: Arc::new(Mutex::new(probe)), uuids: uuids.into() }
    }

    pub fn uuids(&self) -> &[String] {
        &self.uuids
    }

    /// Processes on a device. An error means "not known", never "none".
    pub async fn processes(&self, slot: u16) -> Result<Vec<u32>, ProbeError> {
        self.ask(move |probe| probe.processes(slot)).await.unwrap_or(Err(ProbeError::Stopped))
    }

    /// What happened since the last call.
    pub async fn events(&self) -> Vec<DeviceEvent> {
        self.ask(|probe| probe.events(0)).await.unwrap_or_default()
    }

    /// How every device is doing; nothing when the driver does not say. `load` is what this node's
    /// allocations hold.
    pub async fn samples(&self, load: Load, now_ms: u64) -> Vec<Sample> {
        match self.ask(move |probe| probe.samples(&load, now_ms)).await {
            Some(Ok(samples)) => samples,
            Some(Err(error)) => {
                tracing::debug!(%error, "the devices could not be sampled");
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut dyn Probe) -> T + Send + 'static) -> Option<T> {
        let probe = self.probe.clone();
        let asked = move || question(probe.lock().unwrap_or_else(PoisonError::into_inner).as_mut());
        muster_runtime::aside::run(asked).await.ok()
    }
}

/// What an XID asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For the record.
    Note,
    /// Counts against the device; by itself it changes nothing.
    Watch,
    /// Ends the program that caused it; the rank's own exit tells the rest.
    Application,
    /// The device needs a reset, a reboot or a human: nothing may run on it.
    Fatal,
}

/// What an XID means by itself, after the public catalogue. An unknown one is watched.
pub fn severity(xid: u32) -> Severity {
    match xid {
        8
        | 11
        | 13
        | 25
        | 31
        | 32
        | 39..=42
        | 60
        | 68..=72
        | 75..=77
        | 80
        | 82..=86
        | 88
        | 89
        | 94
        | 96..=105
        | 126..=135
        | 139
        | 142 => Severity::Application,
        14 | 37 | 43 | 45 | 66 | 67 | 93 | 106..=108 | 137 | 141 | 152..=154 | 162 | 164 | 165 | 170..=172 => {
            Severity::Note
        }
        46 | 48 | 54 | 62 | 64 | 74 | 79 | 95 | 109 | 110 | 119 | 120 | 136 | 140 | 143 | 150 | 151 | 155 | 158
        | 166 | 167 | 169 => Severity::Fatal,
        _ => Severity::Watch,
    }
}

/// The report an event is worth, if any.
pub fn report_of(event: &DeviceEvent) -> Option<ReportBody> {
    let slot = event.slot?;
    let (xid, why, fatal) = match event.kind {
        DeviceEventKind::Xid(xid) => match severity(xid) {
            Severity::Note => return None,
            Severity::Watch => (xid, format!("XID {xid}: to be watched"), false),
            Severity::Application => (xid, format!("XID {xid}: a program was ended by its own fault"), false),
            Severity::Fatal => (xid, format!("XID {xid}: the device needs a reset, a reboot or an inspection"), true),
        },
        // The driver sends XID 48 for it as well; either may be lost.
        DeviceEventKind::DoubleBitEcc => (48, "a double-bit ECC error".to_owned(), true),
        DeviceEventKind::MigChanged => {
            (0, "its MIG layout changed; restart the agent to register it".to_owned(), false)
        }
    };
    Some(ReportBody::DeviceFault { slot, xid, why, fatal })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: DeviceEventKind) -> Option<bool> {
        let event = DeviceEvent { uuid: "GPU-1".to_owned(), slot: Some(3), kind };
        report_of(&event).map(|report| match report {
            ReportBody::DeviceFault { slot: 3, fatal, .. } => fatal,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn only_what_leaves_a_device_unusable_is_fatal() {
        for xid in [48, 62, 74, 79, 95, 119, 140, 158, 167] {
            assert_eq!(fault(DeviceEventKind::Xid(xid)), Some(true), "{xid}");
        }
        for xid in [13, 31, 63, 92, 94, 121, 144, 999, 4_000] {
            assert_eq!(fault(DeviceEventKind::Xid(xid)), Some(false), "{xid}");
        }
        for xid in [43, 45, 93, 154] {
            assert_eq!(fault(DeviceEventKind::Xid(xid)), None, "{xid}");
        }
        assert_eq!(fault(DeviceEventKind::DoubleBitEcc), Some(true));
    }

    #[test]
    fn an_event_of_no_known_device_is_no_report() {
        let event = DeviceEvent { uuid: "GPU-9".to_owned(), slot: None, kind: DeviceEventKind::Xid(79) };
        assert_eq!(report_of(&event), None);
    }
}
