//! What an agent does with what an earlier one left.

use super::{Core, CoreError, Message};
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
        self.save()?;
        self.start_sweep(kept);
        Ok(())
    }

    fn start_sweep(&mut self, kept: BTreeSet<String>) {
        let (launcher, clock) = (self.parts.launcher.clone(), self.parts.clock.clone());
        let prefix = self.parts.workplace.paths.mark_prefix().to_owned();
        let mailbox = self.handle.mailbox.clone();
        self.runners.spawn(async move {
            let mut said = false;
            loop {
                let left = launcher.kill_marked(&prefix, &kept).await;
                if left == 0 {
                    break;
                }
                if !said {
                    tracing::warn!(left, "processes that the store does not name were found and are being killed");
                    said = true;
                }
                clock.sleep_ms(SWEEP_AGAIN_MS).await;
            }
            // A centre that has ended does not need it.
            let _ = mailbox.send(Message::Swept).await;
        });
    }
}
