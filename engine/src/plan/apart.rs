//! Jobs that stand apart from the order, because they themselves or other jobs keep them from starting.

use super::explain::{Blocker, Reason, blocker};
use crate::state::State;
use crate::state::job::JobRecord;
use muster_common::GangId;
use muster_common::job::DependencyKind;

/// Conditions that one blocker tells of.
const TOLD_MAX: usize = 4;

/// Why no cycle looks at the job; `None` for one that a cycle looks at.
pub fn apart(state: &State, job: &JobRecord) -> Option<Blocker> {
    if job.cancelled {
        return Some(blocker(Reason::Cancelled, "the job is being ended"));
    }
    if job.held {
        return Some(blocker(Reason::Hold, "the job is held").help(format!("muster release {}", job.id)));
    }
    waits_for_jobs(state, job)
}

/// The other jobs that keep it waiting.
pub(super) fn waits_for_jobs(state: &State, job: &JobRecord) -> Option<Blocker> {
    let id = job.id;
    if let Some(waits) = &job.waits {
        if let Some((kind, other, end)) = waits.broken.first() {
            let detail = format!("it was to start after job {other} ({}), which ended {}", kind.word(), end.word());
            let help = format!("muster cancel {id}, or change what it waits for: muster edit {id}");
            return Some(blocker(Reason::DependencyNever, detail).help(help));
        }
        let told = waits.unmet.iter().take(TOLD_MAX).map(|(kind, other)| format!("job {other} {}", awaited(*kind)));
        let more = match waits.unmet.len().saturating_sub(TOLD_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let detail = format!("it starts after {}{more}", told.collect::<Vec<_>>().join(", "));
        let others = waits.unmet.iter().map(|(_, other)| GangId::new(*other, 0));
        return Some(blocker(Reason::Dependency, detail).by(others));
    }
    let first = state.namesake_before(job)?;
    let detail = format!("it runs alone under its name, and job {first} of that name was submitted before");
    Some(blocker(Reason::Dependency, detail).by([GangId::new(first, 0)]))
}

fn awaited(kind: DependencyKind) -> &'static str {
    match kind {
        DependencyKind::Started => "has started",
        DependencyKind::Any => "has ended",
        DependencyKind::Ok => "has succeeded",
        DependencyKind::NotOk => "has ended without success",
    }
}
