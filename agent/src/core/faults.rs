//! Facts about the node itself, which are faults of its devices.

use super::Core;
use crate::store::ReportBody;

impl Core {
    /// Notes a fact under its device's own name: slots are of this run of the agent, and the report may outlive it.
    pub(super) fn handle_node(&mut self, body: ReportBody) {
        let device = match &body {
            ReportBody::DeviceFault { slot, .. } => self.parts.devices.uuids().get(usize::from(*slot)).cloned(),
            _ => None,
        };
        self.parts.store.report_of(device, body);
        self.must_save();
    }
}
