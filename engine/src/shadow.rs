//! Another policy on the same State, and how what it decides differs. What would have followed from its decisions is
//! not played: the next State is again the real one.

use crate::command::{Command, PlanStep};
use crate::policy::{Budget, Policy};
use crate::state::State;
use muster_common::{AttemptNo, GangId, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The same State as if another policy were in force.
pub fn under(state: &State, policy: &Arc<Policy>) -> State {
    State { policy: policy.clone(), ..state.clone() }
}

/// The policy with no more than so many steps a cycle.
pub fn within(policy: &Policy, steps_max: u64) -> Policy {
    let budget = Budget { steps: policy.budget.steps.min(steps_max), ..policy.budget };
    Policy { budget, ..policy.clone() }
}

/// The nodes of a gang, and of each the slots and how much of them.
pub type Parts = Vec<(NodeId, Vec<(u16, u16)>)>;

/// What a cycle decided, without the order in which it said so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decided {
    /// Where each gang is to start.
    pub starts: BTreeMap<(GangId, AttemptNo), Parts>,
    pub stops: BTreeSet<GangId>,
    /// Gangs that get a booking, or lose one.
    pub bookings: BTreeSet<GangId>,
}

impl Decided {
    pub fn of<'a>(commands: impl IntoIterator<Item = &'a Command>) -> Self {
        let plans = commands.into_iter().filter_map(|command| match command {
            Command::CommitPlan(plan) => Some(&plan.steps),
            _ => None,
        });
        Self::of_steps(plans.flatten())
    }

    pub fn of_steps<'a>(steps: impl IntoIterator<Item = &'a PlanStep>) -> Self {
        let mut decided = Self::default();
        for step in steps {
            match step {
                PlanStep::Place(placed) => {
                    let parts = placed.parts.iter().map(|part| (part.node, part.devices.clone())).collect();
                    decided.starts.insert((placed.gang, placed.attempt), parts);
                }
                PlanStep::Stop { gang, .. } => drop(decided.stops.insert(*gang)),
                PlanStep::Reserve(reservation) => drop(decided.bookings.insert(reservation.gang)),
                PlanStep::Unreserve { gang } => drop(decided.bookings.insert(*gang)),
                PlanStep::Consolidate(wanted) => {
                    decided.stops.extend(wanted.moves.iter().map(|moved| moved.place.gang));
                    decided.bookings.insert(wanted.room.gang);
                }
            }
        }
        decided
    }

    /// How another's decisions on the same State differ from these.
    pub fn against(&self, other: &Decided) -> Difference {
        let starts = |decided: &Decided| decided.starts.keys().map(|(gang, _)| *gang).collect::<BTreeSet<_>>();
        let (own, others) = (starts(self), starts(other));
        let only_real: Vec<GangId> = own.difference(&others).copied().collect();
        let only_other: Vec<GangId> = others.difference(&own).copied().collect();
        let kind = match (only_real.is_empty(), only_other.is_empty()) {
            _ if self.stops != other.stops => Kind::OtherStops,
            (false, false) => Kind::OtherGangs,
            (true, false) => Kind::StartsMore,
            (false, true) => Kind::StartsFewer,
            _ if self.starts != other.starts => Kind::OtherDevices,
            _ if self.bookings != other.bookings => Kind::OtherBookings,
            _ => Kind::Same,
        };
        Difference { kind, only_real, only_other }
    }
}

/// In what two decisions differ most, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Same,
    /// The same gangs start on the same devices; what is held for others differs.
    OtherBookings,
    /// The same gangs start, elsewhere.
    OtherDevices,
    /// The other policy starts further gangs.
    StartsMore,
    /// The other policy leaves gangs waiting.
    StartsFewer,
    /// Each starts gangs that the other leaves waiting.
    OtherGangs,
    /// Other gangs are stopped for the sake of others.
    OtherStops,
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::Same,
        Kind::OtherBookings,
        Kind::OtherDevices,
        Kind::StartsMore,
        Kind::StartsFewer,
        Kind::OtherGangs,
        Kind::OtherStops,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Kind::Same => "same",
            Kind::OtherBookings => "other_bookings",
            Kind::OtherDevices => "other_devices",
            Kind::StartsMore => "starts_more",
            Kind::StartsFewer => "starts_fewer",
            Kind::OtherGangs => "other_gangs",
            Kind::OtherStops => "other_stops",
        }
    }

    pub const fn text(self) -> &'static str {
        match self {
            Kind::Same => "the same in all",
            Kind::OtherBookings => "the same starts, other bookings",
            Kind::OtherDevices => "the same gangs, on other devices",
            Kind::StartsMore => "starts further gangs",
            Kind::StartsFewer => "leaves gangs waiting",
            Kind::OtherGangs => "starts others instead",
            Kind::OtherStops => "stops others",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub kind: Kind,
    /// Gangs that only the policy in force starts now.
    pub only_real: Vec<GangId>,
    pub only_other: Vec<GangId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{PlacedPart, Placement, StopFor};
    use muster_common::JobId;
    use muster_common::resources::Amount;

    fn gang(job: u64) -> GangId {
        GangId::new(JobId(job), 0)
    }

    fn place(job: u64, slot: u16) -> PlanStep {
        let part = PlacedPart {
            group: 0,
            node: NodeId(1),
            epoch: 1,
            devices: vec![(slot, 1000)],
            amount: Amount { cpu_milli: 0, memory_bytes: 0 },
        };
        PlanStep::Place(Placement { gang: gang(job), attempt: AttemptNo(1), revision: 1, parts: vec![part] })
    }

    fn stop(job: u64) -> PlanStep {
        PlanStep::Stop { gang: gang(job), attempt: AttemptNo(1), by: None, why: StopFor::Priority }
    }

    #[test]
    fn each_kind_of_difference_is_told_from_the_others() {
        let told = |real: &[PlanStep], other: &[PlanStep]| {
            let difference = Decided::of_steps(real).against(&Decided::of_steps(other));
            (difference.kind, difference.only_real.len(), difference.only_other.len())
        };
        let (a, b) = (place(1, 0), place(2, 1));
        assert_eq!(told(&[a.clone(), b.clone()], &[b.clone(), a.clone()]), (Kind::Same, 0, 0));
        assert_eq!(told(std::slice::from_ref(&a), &[place(1, 3)]), (Kind::OtherDevices, 0, 0));
        assert_eq!(told(std::slice::from_ref(&a), &[a.clone(), b.clone()]), (Kind::StartsMore, 0, 1));
        assert_eq!(told(&[a.clone(), b.clone()], std::slice::from_ref(&b)), (Kind::StartsFewer, 1, 0));
        assert_eq!(told(std::slice::from_ref(&a), std::slice::from_ref(&b)), (Kind::OtherGangs, 1, 1));
        assert_eq!(told(&[a.clone(), stop(9)], &[a]), (Kind::OtherStops, 0, 0));
        assert_eq!(told(&[], &[PlanStep::Unreserve { gang: gang(4) }]), (Kind::OtherBookings, 0, 0));
    }

    #[test]
    fn another_policy_leaves_the_rest_of_the_state_alone() {
        let state = State::new("x");
        let policy = Arc::new(Policy { order: crate::policy::Order::Smallest, ..Policy::default() });
        let other = under(&state, &policy);
        assert_eq!((other.policy(), other.applied_index()), (&policy, state.applied_index()));
        assert_eq!(under(&other, state.policy()).hash(), state.hash());
        assert_eq!(within(&policy, 5).budget.steps, 5);
        assert_eq!(within(&policy, u64::MAX).budget, policy.budget);
    }
}
