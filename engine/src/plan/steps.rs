//! Cutting a plan into entries: bounded in gangs and bytes, and never two gangs on one device in
//! one entry, because the fencing token of a placement is its entry's index.

use crate::ENGINE_VERSION;
use crate::command::{Command, CommitPlan, PLAN_GANGS_MAX, PlanStep};
use crate::state::State;
use muster_common::{NodeId, Time};
use std::collections::BTreeSet;

/// Largest plan entry, in bytes, with room for its header.
const PLAN_BYTES_MAX: usize = 63 * 1024;

pub fn commands(state: &State, now: Time, steps: Vec<PlanStep>) -> Vec<Command> {
    let mut entries: Vec<Vec<PlanStep>> = Vec::new();
    let mut bytes = 0;
    let mut shared: BTreeSet<(NodeId, u16)> = BTreeSet::new();
    for step in steps {
        let size = postcard::experimental::serialized_size(&step).expect("a step always encodes");
        let here = shared_devices(&step);
        let full = entries.last().is_none_or(|entry| entry.len() == PLAN_GANGS_MAX)
            || bytes + size > PLAN_BYTES_MAX
            || here.iter().any(|device| shared.contains(device));
        if full {
            entries.push(Vec::new());
            shared.clear();
            bytes = 0;
        }
        bytes += size;
        shared.extend(here);
        entries.last_mut().expect("just pushed").push(step);
    }
    let plan = |steps| {
        Command::CommitPlan(Box::new(CommitPlan {
            made_at: state.applied_index(),
            now,
            policy_version: state.config_version(),
            engine_version: ENGINE_VERSION,
            steps,
        }))
    };
    entries.into_iter().map(plan).collect()
}

fn shared_devices(step: &PlanStep) -> Vec<(NodeId, u16)> {
    let PlanStep::Place(placement) = step else { return Vec::new() };
    let parts = placement.parts.iter();
    let slots = parts.flat_map(|part| part.devices.iter().map(|&(slot, milli)| (part.node, slot, milli)));
    slots.filter(|(_, _, milli)| *milli < 1000).map(|(node, slot, _)| (node, slot)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{PlacedPart, Placement};
    use crate::plan::feasible::{GANG_DEVICES_MAX, GANG_NODES_MAX};
    use crate::state::reservation::{Reservation, ReservationKind};
    use muster_common::resources::Amount;
    use muster_common::{AttemptNo, GangId, JobId};

    /// What the log takes of one large entry, less its header.
    const LARGE_ENTRY_BYTES: usize = (320 << 10) - 1024;

    #[test]
    fn the_largest_gang_fits_into_one_entry() {
        let (id, gang) = (1u64 << 40, GangId::new(JobId(1 << 40), 0));
        let per_node = GANG_DEVICES_MAX / u64::from(GANG_NODES_MAX);
        let part = |n: u64| PlacedPart {
            group: 0,
            node: NodeId(id + n),
            epoch: id + n,
            devices: (0..per_node as u16).map(|slot| (slot, 1000)).collect(),
            amount: Amount { cpu_milli: 1 << 20, memory_bytes: 1 << 41 },
        };
        let parts: Vec<PlacedPart> = (0..u64::from(GANG_NODES_MAX)).map(part).collect();
        let reservation = Reservation {
            gang,
            kind: ReservationKind::Booked,
            start: Time(id),
            end: Time(id),
            domain: None,
            witness: parts.iter().flat_map(PlacedPart::device_ids).collect(),
        };
        let place = PlanStep::Place(Placement { gang, attempt: AttemptNo(1), revision: 1, parts });
        for step in [place, PlanStep::Reserve(reservation)] {
            let bytes = postcard::experimental::serialized_size(&step).unwrap();
            assert!(bytes <= LARGE_ENTRY_BYTES, "{bytes} bytes");
        }
    }
}
