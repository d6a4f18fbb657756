//! From what a server wants and what this node has, the steps to take. Pure: nothing is remembered
//! and nothing is done here, so a step that cannot be taken yet simply comes again.

use crate::assignment::{Assignment, Desired, Key, Position, RunPart, Wanted};
use crate::health::slot_in;
use crate::store::{Ends, Held, Ledger, Refusal};
use std::collections::{BTreeMap, BTreeSet};

/// How far an allocation of the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Preparing,
    /// Prepared and waiting for the start.
    Barrier,
    Running,
    /// Told to end, or ended but not proven gone.
    Ending,
    /// Nothing of it is left.
    Gone,
}

/// What this node has.
#[derive(Debug)]
pub struct Observed<'a> {
    pub cluster_id: Option<&'a str>,
    pub seen: Position,
    pub ledger: &'a Ledger,
    pub held: &'a BTreeMap<Key, Held>,
    /// How allocations ended that are no longer held.
    pub ends: &'a Ends,
    pub progress: &'a BTreeMap<Key, Progress>,
    /// Everything that ran before this agent and is not in its store was found and killed.
    pub swept: bool,
    /// A server has extended a renewal, so a lease can begin.
    pub has_lease: bool,
    /// UUIDs in the order of this agent's slots. A device is its UUID: the slot in a message is the server's, who keeps those
    /// of an earlier registration while work is on the node.
    pub devices: &'a [String],
    /// A process on each slot of `devices` that is in use by none of ours; `None` where that is not known.
    pub foreign: &'a BTreeMap<u16, Option<u32>>,
    /// Allocations with a report that nobody has acknowledged yet.
    pub unacknowledged: &'a BTreeSet<Key>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
    /// Record it, then prepare.
    Accept(&'a Assignment, &'a RunPart),
    /// Say why not, and never take it.
    Refuse(&'a Assignment, Refusal),
    Go(Key),
    Stop(&'a Assignment),
    /// Say that nothing of it is here, and never take it.
    ConfirmReleased(&'a Assignment),
    /// It has ended, which a server from a backup does not know: say how.
    TellEnd(Key),
    /// The server knows all there is to know of it.
    Forget(Key),
}

/// The steps in the order to take them: ends before beginnings.
///
/// An older desired state than the one seen last, or one of another cluster, has no steps at all.
pub fn reconcile<'a>(desired: &'a Desired, observed: &Observed<'_>) -> Vec<Step<'a>> {
    if desired.position < observed.seen || observed.cluster_id.is_some_and(|id| id != desired.cluster_id) {
        return Vec::new();
    }
    let mut ends = Vec::new();
    let mut begins = Vec::new();
    for assignment in &desired.assignments {
        let held = observed.held.get(&assignment.key);
        match (assignment.wanted, held) {
            (Wanted::Stop, _) if !desired.position.covers(assignment.key.token) => {}
            (Wanted::Stop, Some(_)) => ends.push(Step::Stop(assignment)),
            (Wanted::Stop, None) => ends.extend(confirm_released(assignment, observed)),
            (Wanted::Forget, Some(held)) if held.gone => ends.push(Step::Forget(assignment.key)),
            (Wanted::Forget, _) => {}
            (Wanted::Prepare | Wanted::Run, Some(held)) => begins.extend(go_on(assignment, held, observed)),
            (Wanted::Prepare | Wanted::Run, None) if observed.ends.told(&assignment.key).is_some() => {
                ends.push(Step::TellEnd(assignment.key));
            }
            (Wanted::Prepare, None) => begins.extend(begin(assignment, observed)),
            (Wanted::Run, None) => {
                let unreadable = assignment.unreadable.clone().map(|why| Refusal::Unreadable { why });
                begins.push(Step::Refuse(assignment, unreadable.unwrap_or(Refusal::NeverPrepared)));
            }
        }
    }
    ends.extend(settled(desired, observed).map(Step::Forget));
    ends.extend(begins);
    ends
}

/// Gone, told, acknowledged, and no longer spoken of by a server that knows its token.
fn settled<'o>(desired: &Desired, observed: &'o Observed<'_>) -> impl Iterator<Item = Key> + use<'o> {
    let named: BTreeSet<Key> = desired.assignments.iter().map(|assignment| assignment.key).collect();
    let position = desired.position;
    observed.held.iter().filter_map(move |(key, held)| {
        let told = held.released_reported && !observed.unacknowledged.contains(key);
        (held.gone && told && position.covers(key.token) && !named.contains(key)).then_some(*key)
    })
}

fn go_on<'a>(assignment: &'a Assignment, held: &Held, observed: &Observed<'_>) -> Option<Step<'a>> {
    let run = assignment.run.as_ref()?;
    if !run.same_content(&held.run) {
        let (token, device) = (assignment.key.token, held.run.devices.first());
        let device = device.map_or_else(|| "none".to_owned(), |share| share.uuid.clone());
        return Some(Step::Refuse(assignment, Refusal::OtherContent { token, device }));
    }
    let waits = observed.progress.get(&assignment.key) == Some(&Progress::Barrier);
    (assignment.wanted == Wanted::Run && waits).then_some(Step::Go(assignment.key))
}

fn begin<'a>(assignment: &'a Assignment, observed: &Observed<'_>) -> Option<Step<'a>> {
    let run = assignment.run.as_ref()?;
    let refuse = |refusal| Some(Step::Refuse(assignment, refusal));
    if let Err(refusal) = observed.ledger.check(assignment, run) {
        return refuse(refusal);
    }
    let mut slots = Vec::new();
    for share in &run.devices {
        let Some(slot) = slot_in(observed.devices, &share.uuid) else {
            let have = observed.devices.get(usize::from(share.slot)).cloned().unwrap_or_else(|| "missing".to_owned());
            return refuse(Refusal::OtherDevice { slot: share.slot, want: share.uuid.clone(), have });
        };
        slots.push((slot, &share.uuid));
    }
    // Not yet: what is not proven gone may still write to the device, and without a lease there is
    // nothing that would end it.
    if !observed.swept || !observed.has_lease || !previous_gone(run, observed) {
        return None;
    }
    for (slot, uuid) in slots {
        let device = uuid.clone();
        match observed.foreign.get(&slot) {
            Some(Some(pid)) => return refuse(Refusal::DeviceBusy { device, pid: *pid }),
            Some(None) => return refuse(Refusal::DeviceUnknown { device }),
            None => {}
        }
    }
    Some(Step::Accept(assignment, run))
}

/// Whether every earlier holder of these devices, shares that fit beside it apart, is proven gone.
fn previous_gone(run: &RunPart, observed: &Observed<'_>) -> bool {
    run.devices.iter().all(|share| {
        let live = observed.held.values().filter(|held| !held.gone);
        let taken: u32 = live
            .flat_map(|held| &held.run.devices)
            .filter(|other| other.uuid == share.uuid)
            .map(|other| u32::from(other.milli))
            .sum();
        taken + u32::from(share.milli) <= 1000
    })
}

/// For a token the store does not know, the proof is the sweep and devices without processes.
fn confirm_released<'a>(assignment: &'a Assignment, observed: &Observed<'_>) -> Option<Step<'a>> {
    let busy = match &assignment.run {
        Some(run) => {
            // Of a device that is not here any more nothing is known. But no end is remembered before the work was proven
            // gone, and its token opens nothing since.
            let was_gone = observed.ends.told(&assignment.key).is_some();
            let in_use = |uuid: &str| match slot_in(observed.devices, uuid) {
                Some(slot) => observed.foreign.contains_key(&slot),
                None => !was_gone,
            };
            run.devices.iter().any(|share| in_use(&share.uuid)) || !previous_gone(run, observed)
        }
        // The message does not say which devices it was, so all must be accounted for.
        None => !observed.foreign.is_empty(),
    };
    // Attempts of one gang may hand devices on: the release of one must not speak for another.
    let gang = assignment.key.gang;
    let alive = observed.held.iter().any(|(key, held)| key.gang == gang && !held.gone);
    (observed.swept && !busy && !alive).then_some(Step::ConfirmReleased(assignment))
}

#[cfg(test)]
mod tests;
