//! What devices say about themselves, and what that means for the work on them.

use crate::device::{DeviceEvent, DeviceEventKind, DeviceHealth, Load, Probe, ProbeError, Recovery};
use crate::store::ReportBody;
use muster_proto::datagram::Sample;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Between two looks at the devices' events.
pub const LOOK_EVERY_MS: u64 = 1_000;
/// Between two samples of how busy, full and warm they are.
pub const SAMPLE_EVERY_MS: u64 = 5_000;
/// Between two looks at what they say of their own state.
pub const HEALTH_EVERY_MS: u64 = 60_000;

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

    /// Where this agent has the device. Servers may have it in another slot: while work is on a node they keep the slots of
    /// an earlier registration.
    pub fn slot_of(&self, uuid: &str) -> Option<u16> {
        slot_in(&self.uuids, uuid)
    }

    /// Processes on a device. An error means "not known", never "none".
    pub async fn processes(&self, slot: u16) -> Result<Vec<u32>, ProbeError> {
        self.ask(move |probe| probe.processes(slot)).await.unwrap_or(Err(ProbeError::Stopped))
    }

    /// The same by the device's own name.
    pub async fn processes_on(&self, uuid: &str) -> Result<Vec<u32>, ProbeError> {
        match self.slot_of(uuid) {
            Some(slot) => self.processes(slot).await,
            None => Err(ProbeError::NotFound { uuid: uuid.to_owned() }),
        }
    }

    /// What happened since the last call.
    pub async fn events(&self) -> Vec<DeviceEvent> {
        self.ask(|probe| probe.events(0)).await.unwrap_or_default()
    }

    /// What every device that the agent found at its start says of its state, in slot order; nothing when the driver does
    /// not say.
    pub async fn health(&self) -> Vec<DeviceHealth> {
        let mut health = match self.ask(|probe| probe.devices()).await {
            Some(Ok(report)) => report.health,
            Some(Err(error)) => {
                tracing::debug!(%error, "the devices' own state could not be read");
                Vec::new()
            }
            None => Vec::new(),
        };
        health.truncate(self.uuids.len());
        health
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

/// The slot of a device among `uuids`, which are in slot order.
pub fn slot_in(uuids: &[String], uuid: &str) -> Option<u16> {
    (0u16..).zip(uuids).find(|(_, known)| *known == uuid).map(|(slot, _)| slot)
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

/// The report that a device's own state is worth, if any: it tells of what happened while nobody listened for events.
/// What endangers nothing that runs may run on.
fn report_of_health(slot: u16, health: &DeviceHealth, is_loaded: bool) -> Option<ReportBody> {
    let (why, fatal) = match (health.remap_failed, health.recovery) {
        (Some(true), _) => ("no spare row of its memory is left: it is to be replaced", !is_loaded),
        (_, Some(Recovery::GpuReset | Recovery::BusReset)) => ("the driver asks for its reset", true),
        (_, Some(Recovery::NodeReboot | Recovery::SystemReboot)) => ("the driver asks for a reboot of the node", true),
        (_, Some(Recovery::DrainAndReset)) => ("the driver asks for its reset once nothing runs on it", !is_loaded),
        _ => return None,
    };
    Some(ReportBody::DeviceFault { slot, xid: 0, why: why.to_owned(), fatal })
}

/// What has been told of the devices' own state: each fault once, and again when it comes back.
#[derive(Debug, Default)]
pub struct FaultsTold(BTreeMap<u16, ReportBody>);

impl FaultsTold {
    /// What is new. A device that does not answer, or is left out of `health`, has not become well.
    /// `load` is what allocations hold, by slot.
    pub fn news(&mut self, health: &[DeviceHealth], load: &Load) -> Vec<ReportBody> {
        let mut news = Vec::new();
        for (slot, health) in (0u16..).zip(health).filter(|(_, health)| health.reachable) {
            match report_of_health(slot, health, load.contains_key(&slot)) {
                Some(report) if self.0.get(&slot) == Some(&report) => {}
                Some(report) => {
                    self.0.insert(slot, report.clone());
                    news.push(report);
                }
                None => drop(self.0.remove(&slot)),
            }
        }
        news
    }
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
    fn a_device_that_asks_for_a_reset_or_has_no_spare_rows_is_told_of_without_any_event() {
        let fatal_beside = |is_loaded, change: fn(&mut DeviceHealth)| {
            let mut health = DeviceHealth { recovery: Some(Recovery::None), ..DeviceHealth::default() };
            change(&mut health);
            report_of_health(3, &health, is_loaded).map(|report| match report {
                ReportBody::DeviceFault { slot: 3, fatal, .. } => fatal,
                other => panic!("{other:?}"),
            })
        };
        let fatal = |change| fatal_beside(false, change);
        assert_eq!(fatal(|_| {}), None);
        assert_eq!(fatal(|health| health.remap_pending = Some(true)), None, "new work is allowed");
        assert_eq!(fatal(|health| health.remap_failed = Some(true)), Some(true));
        assert_eq!(fatal(|health| health.recovery = Some(Recovery::NodeReboot)), Some(true));
        assert_eq!(fatal(|health| health.recovery = Some(Recovery::DrainAndReset)), Some(true));
        let beside_work = |change| fatal_beside(true, change);
        assert_eq!(beside_work(|health| health.remap_failed = Some(true)), Some(false), "it serves what runs");
        assert_eq!(beside_work(|health| health.recovery = Some(Recovery::DrainAndReset)), Some(false));
        assert_eq!(beside_work(|health| health.recovery = Some(Recovery::GpuReset)), Some(true));
    }

    #[test]
    fn a_device_that_is_unwell_is_told_of_once_until_it_was_well_again() {
        let well = DeviceHealth { reachable: true, remap_failed: Some(false), ..DeviceHealth::default() };
        let unwell = DeviceHealth { remap_failed: Some(true), ..well.clone() };
        let silent = DeviceHealth { reachable: false, ..DeviceHealth::default() };
        let mut told = FaultsTold::default();
        let mut slots = |second: &DeviceHealth| -> Vec<u16> {
            let slot = |report: &ReportBody| match report {
                ReportBody::DeviceFault { slot, .. } => *slot,
                other => panic!("{other:?}"),
            };
            told.news(&[well.clone(), second.clone()], &Load::default()).iter().map(slot).collect()
        };
        assert_eq!(slots(&unwell), [1]);
        assert_eq!(slots(&unwell), [0u16; 0]);
        assert_eq!(slots(&silent), [0u16; 0]);
        assert_eq!(slots(&unwell), [0u16; 0], "it only did not answer in between");
        assert_eq!(slots(&well), [0u16; 0]);
        assert_eq!(slots(&unwell), [1], "after its reset");
    }

    #[tokio::test]
    async fn the_agents_own_slots_are_asked_whatever_a_server_calls_a_device() {
        use crate::device::SimulatedProbe;
        let probe = SimulatedProbe::new("dgx-h100", None, "n").expect("a fixture");
        let control = probe.control();
        control.set_processes(1, vec![4711]);
        control.set_remap(2, false, true);
        let devices = Devices::new(Box::new(probe), vec!["GPU-a".to_owned(), "GPU-b".to_owned(), "GPU-c".to_owned()]);
        assert_eq!(devices.processes_on("GPU-b").await.expect("it answers"), [4711]);
        assert!(matches!(devices.processes_on("GPU-z").await, Err(ProbeError::NotFound { .. })));
        let health = devices.health().await;
        assert_eq!(health.len(), 3, "devices that came later are not the agent's");
        assert_eq!(FaultsTold::default().news(&health, &Load::default()).len(), 1);
    }

    #[test]
    fn an_event_of_no_known_device_is_no_report() {
        let event = DeviceEvent { uuid: "GPU-9".to_owned(), slot: None, kind: DeviceEventKind::Xid(79) };
        assert_eq!(report_of(&event), None);
    }
}
