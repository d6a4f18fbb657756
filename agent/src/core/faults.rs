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
        let store = &mut self.parts.store;
        match device {
            Some(device) if body.is_fatal_fault() && self.unregistered.contains(&device) => store.put_off(device, body),
            device => store.report_of(device, body),
        }
        self.must_save();
    }

    /// Of devices that servers do not have, faults wait: a server acknowledges what means nothing to it as well, and the
    /// device would be taken for sound once work has left the node and it is registered.
    pub(super) fn take_unregistered(&mut self, uuids: Vec<String>) {
        let devices = &self.parts.devices;
        self.unregistered = uuids.into_iter().filter(|uuid| devices.slot_of(uuid).is_some()).collect();
        // A device that is not here now is in no hello: whether servers will have it shows once it is back.
        let mut waits = self.unregistered.clone();
        let missing = self.parts.store.waiting_faults().filter(|uuid| devices.slot_of(uuid).is_none());
        waits.extend(missing.cloned());
        if self.parts.store.sort_faults(&waits) {
            self.must_save();
        }
    }
}
