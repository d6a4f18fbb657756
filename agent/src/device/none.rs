//! A node without devices.

use super::{DeviceEvent, DeviceReport, Load, Probe, ProbeError};
use muster_proto::datagram::Sample;
use std::time::Duration;

/// Reports nothing, ever: a CPU-only node.
#[derive(Debug, Clone, Default)]
pub struct NoDevices {
    why: String,
}

impl NoDevices {
    /// `why` is shown to operators, such as "no NVIDIA driver on this node".
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }
}

impl Probe for NoDevices {
    fn devices(&mut self) -> Result<DeviceReport, ProbeError> {
        Ok(DeviceReport::default())
    }

    /// Waits the whole time, so that a loop over `events` does not spin.
    fn events(&mut self, wait_ms: u64) -> Vec<DeviceEvent> {
        std::thread::sleep(Duration::from_millis(wait_ms));
        Vec::new()
    }

    fn processes(&self, slot: u16) -> Result<Vec<u32>, ProbeError> {
        Err(ProbeError::NoSuchSlot { slot, count: 0 })
    }

    fn samples(&mut self, _load: &Load, _now_ms: u64) -> Result<Vec<Sample>, ProbeError> {
        Ok(Vec::new())
    }

    fn describe(&self) -> String {
        format!("none ({})", self.why)
    }
}
