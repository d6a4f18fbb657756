//! What an agent does with what an earlier one left.

use super::{Core, CoreError, CoreHandle, Message};
use crate::launcher::UNKNOWN;
use crate::reconcile::Progress;
use crate::runner::Beginning;
use crate::store::ReportBody;
use std::collections::BTreeSet;

/// Between two sweeps while leftovers are still dying.
const SWEEP_AGAIN_MS: u64 = 100;

impl Core {
    /// Adopts what the store names and sweeps away what it does not.
    pub(super) fn start_up(&mut self) -> Result<(), CoreError> {
        let boot_id = self.parts.workplace.boot_id.clone();
        let store = &mut self.parts.store;
        let held: Vec<_> = store.held().iter().map(|(key, held)| (*key, held.clone())).collect();
        let mut kept = BTreeSet::new();
        for (key, held) in held {
            if held.gone {
                self.progress.insert(key, Progress::Gone);
            } else if held.boot_id == boot_id {
                kept.insert(self.parts.workplace.mark(&key));
                self.start_runner(key, &held, Beginning::Adopt);
            } else {
                // No process outlives a boot.
                self.progress.insert(key, Progress::Gone);
                let store = &mut self.parts.store;
                if let Some(held) = store.held_mut(&key) {
                    (held.gone, held.released_reported) = (true, true);
                }
                store.ledger_mut().spend(key, &held.run);
                store.report(Some(key), ReportBody::Released { lease_expired: false });
            }
        }
        self.must_save();
        self.save()?;
        self.prune();
        self.start_sweep(kept);
        Ok(())
    }

    fn start_sweep(&mut self, kept: BTreeSet<String>) {
        let (launcher, clock) = (self.parts.launcher.clone(), self.parts.clock.clone());
        let prefix = self.parts.workplace.paths.mark_prefix().to_owned();
        let mailbox = self.handle.mailbox.clone();
        let (handle, kill_bound_ms, idle) = (self.handle.clone(), self.parts.kill_bound_ms, self.idle_slots());
        self.runners.spawn(async move {
            let begun_ms = clock.boottime_ms();
            let (mut said, mut given_up) = (false, false);
            loop {
                let left = launcher.kill_marked(&prefix, &kept).await;
                if left == 0 {
                    break;
                }
                if !said && left != UNKNOWN {
                    tracing::warn!(left, "processes that the store does not name were found and are being killed");
                    said = true;
                }
                if !given_up && clock.boottime_ms() - begun_ms >= kill_bound_ms {
                    given_up = true;
                    quarantine(&handle, &idle, left).await;
                }
                clock.sleep_ms(SWEEP_AGAIN_MS).await;
            }
            // A centre that has ended does not need it.
            let _ = mailbox.send(Message::Swept).await;
        });
    }

    /// Slots that no allocation of the store holds.
    fn idle_slots(&self) -> Vec<u16> {
        let held = self.parts.store.held().values().filter(|held| !held.gone);
        let held: BTreeSet<&String> = held.flat_map(|held| &held.run.devices).map(|share| &share.uuid).collect();
        let all = (0u16..).zip(self.parts.devices.uuids());
        all.filter(|(_, uuid)| !held.contains(uuid)).map(|(slot, _)| slot).collect()
    }
}

/// Rule 12: what cannot be killed may be on any device that no known allocation has. Nothing is prepared before the
/// sweep has ended, so the server is told instead of left to wonder why nothing starts here.
async fn quarantine(core: &CoreHandle, slots: &[u16], left: usize) {
    let why = match left {
        UNKNOWN => "the processes of this machine cannot be looked at; those of an earlier agent may use it".to_owned(),
        _ => format!("{left} processes of an earlier agent survive SIGKILL and may use it"),
    };
    tracing::error!(%why, "the devices are quarantined until an operator has looked");
    for slot in slots {
        let fault = ReportBody::DeviceFault { slot: *slot, xid: 0, why: why.clone(), fatal: true };
        // A centre that has ended reports no more.
        let _ = core.report(fault).await;
    }
}
