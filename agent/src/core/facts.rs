//! What becomes of a fact: durable, reported, and the next step.

use super::Core;
use crate::assignment::Key;
use crate::reconcile::Progress;
use crate::runner::Fact;
use crate::store::{Held, ReportBody};
use std::collections::btree_map::Entry;

impl Core {
    pub(super) async fn handle_fact(&mut self, key: Key, fact: Fact) {
        let progress = progress_of(&fact);
        let Some(held) = self.parts.store.held_mut(&key) else { return };
        if let Some(report) = note(held, fact) {
            self.parts.store.report(Some(key), report);
            self.must_save();
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
            self.must_save();
            self.prune_sometimes();
        }
        self.reconcile().await;
    }
}

impl Core {
    /// Tells servers of another generation what those before them have heard already: they come from a backup, and what
    /// was acknowledged since is not in it.
    pub(super) fn tell_again(&mut self) {
        let store = &mut self.parts.store;
        let all: Vec<(Key, ReportBody)> = store
            .held()
            .iter()
            .flat_map(|(key, held)| held.told().into_iter().map(|body| (*key, body)))
            .filter(|(key, body)| !store.is_waiting(key, body))
            .collect();
        tracing::warn!(reports = all.len(), "the servers were restored from a backup; telling them what happened here");
        for (key, body) in all {
            store.report(Some(key), body);
        }
        self.released_at.clear();
        self.ends_told.clear();
    }

    /// Tells a server that believes it runs how it ended. Once: the report is kept until it is applied, and the server
    /// may wait for others' ends.
    pub(super) fn tell_end(&mut self, key: Key) {
        if !self.ends_told.insert(key) {
            return;
        }
        tracing::warn!(allocation = %key, "it ended before the servers were restored; telling its end again");
        let store = &mut self.parts.store;
        let told = store.ends().told(&key).unwrap_or_default().to_vec();
        for body in told {
            if !store.is_waiting(&key, &body) {
                store.report(Some(key), body);
            }
        }
        self.must_save();
    }
}

fn progress_of(fact: &Fact) -> Option<Progress> {
    match fact {
        Fact::Barrier => Some(Progress::Barrier),
        Fact::Started => Some(Progress::Running),
        Fact::Failed(_) | Fact::Ending | Fact::Stuck { .. } => Some(Progress::Ending),
        Fact::Gone { .. } => Some(Progress::Gone),
        Fact::Exited(_) | Fact::Checkpointed => None,
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
        Fact::Checkpointed => Some(ReportBody::Checkpointed),
        Fact::Exited(exit) => match held.exits.entry(exit.rank) {
            Entry::Vacant(free) => Some(ReportBody::Exited(free.insert(exit).clone())),
            Entry::Occupied(_) => None,
        },
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
