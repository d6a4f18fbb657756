//! What becomes of a fact: durable, reported, and the next step.

use super::{Core, CoreError};
use crate::assignment::Key;
use crate::reconcile::Progress;
use crate::runner::Fact;
use crate::store::{Held, ReportBody};

impl Core {
    pub(super) async fn handle_fact(&mut self, key: Key, fact: Fact) -> Result<(), CoreError> {
        let progress = progress_of(&fact);
        let Some(held) = self.parts.store.held_mut(&key) else { return Ok(()) };
        if let Some(report) = note(held, fact) {
            self.parts.store.report(Some(key), report);
        }
        if let Some(progress) = progress {
            tracing::info!(allocation = %key, ?progress, "an allocation went on");
            self.progress.insert(key, progress);
        }
        if progress == Some(Progress::Gone) {
            self.orders.remove(&key);
            let store = &mut self.parts.store;
            if let Some(run) = store.held().get(&key).map(|held| held.run.clone()) {
                store.ledger_mut().spend(key, &run);
            }
            self.prune();
        }
        self.save()?;
        self.reconcile().await
    }
}

fn progress_of(fact: &Fact) -> Option<Progress> {
    match fact {
        Fact::Barrier => Some(Progress::Barrier),
        Fact::Started => Some(Progress::Running),
        Fact::Failed(_) | Fact::Ending | Fact::Stuck { .. } => Some(Progress::Ending),
        Fact::Gone { .. } => Some(Progress::Gone),
        Fact::Exited(_) => None,
    }
}

/// Changes the record; `None` when the fact is known already or is nobody's business.
fn note(held: &mut Held, fact: Fact) -> Option<ReportBody> {
    let first = |flag: &mut bool| !std::mem::replace(flag, true);
    match fact {
        Fact::Barrier => first(&mut held.prepared_reported).then_some(ReportBody::Prepared),
        Fact::Failed(failure) => {
            let report = ReportBody::Failed { infra: failure.infra, why: failure.why };
            first(&mut held.failed_reported).then_some(report)
        }
        Fact::Started => first(&mut held.started_reported).then_some(ReportBody::Started),
        Fact::Exited(exit) => held.exits_reported.insert(exit.rank).then_some(ReportBody::Exited(exit)),
        Fact::Ending => None,
        Fact::Stuck { slots, why } => {
            first(&mut held.quarantine_reported).then_some(ReportBody::Quarantined { slots, why })
        }
        Fact::Gone { lease_expired, vanished } => {
            held.gone = true;
            held.lease_expired = lease_expired;
            // An ordinary end is the server's to conclude: it asks for the release by a stop.
            let unasked = lease_expired || vanished;
            let tell = (held.stop_wanted || unasked) && first(&mut held.released_reported);
            tell.then_some(ReportBody::Released { lease_expired })
        }
    }
}
