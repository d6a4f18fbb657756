//! The deciding reason of every waiting gang, from one cycle: for lists, where explaining each gang
//! by itself would cost a cycle each.

use super::apart::apart;
use super::blockers::Blockers;
use super::explain::{Blocker, Reason, booked};
use crate::cycle::{Memo, cycle};
use crate::state::State;
use crate::state::job::JobRecord;
use muster_common::{GangId, JobId, Time};
use std::collections::BTreeMap;

/// Different requests that are looked into; those after them are only counted.
const REQUESTS_MAX: usize = 256;
/// Gangs ahead that a blocker may name; nobody reads them here.
const NOBODY: &[GangId] = &[];

/// One place in the order: a gang that waits for another attempt, or all elements of a job that
/// were never placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brief {
    /// Of a job's elements, the first.
    pub gang: GangId,
    pub gangs: u32,
    /// From 1.
    pub position: u32,
    /// The next cycle starts it.
    pub starts_now: bool,
    /// What decides that it waits; `None` where it does not, or nothing was seen in its way.
    pub reason: Option<(Reason, String)>,
    pub booked: Option<Time>,
}

/// What one cycle leaves waiting, in the order in which the policy offers the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Briefs {
    pub order: Vec<Brief>,
    places: BTreeMap<GangId, usize>,
    /// Jobs that no cycle looks at, with how many of their gangs wait.
    pub apart: BTreeMap<JobId, (Blocker, u32)>,
}

impl Briefs {
    /// Of a waiting gang; of an array's elements that were never placed only the first has one. Those
    /// of a job in [`Self::apart`] have none.
    pub fn get(&self, gang: GangId) -> Option<&Brief> {
        self.order.get(*self.places.get(&gang)?)
    }
}

/// Looks once at everything that waits.
pub fn briefs(state: &State, memo: &mut Memo, now: Time) -> Briefs {
    let decided = cycle(state, memo, now);
    let known = memo.known(state, now);
    let waiting = known.waiting;
    let mut blockers = Blockers::new((state, now), &decided, known);
    let mut briefs = Briefs::default();
    for (position, item) in (1u32..).zip(waiting.by_order.values()) {
        let gang = item.key.gang;
        let gangs = match item.lane {
            true => state.job(gang.job).map_or(0, |job| job.unstarted.len()),
            false => 1,
        };
        if blockers.looked_into() >= REQUESTS_MAX {
            blockers.only_count();
        }
        let starts_now = blockers.places(gang);
        let reason = match starts_now {
            true => None,
            false => {
                let first = blockers.of(gang, Some(position), NOBODY).into_iter().next();
                first.map(|first| (first.reason, first.detail))
            }
        };
        briefs.places.insert(gang, briefs.order.len());
        briefs.order.push(Brief { gang, gangs, position, starts_now, reason, booked: booked(state, gang) });
    }
    briefs.apart =
        state.jobs().values().filter_map(|job| Some((job.id, (apart(state, job)?, waiting_gangs(job))))).collect();
    briefs
}

fn waiting_gangs(job: &JobRecord) -> u32 {
    job.unstarted.len() + (job.gangs_live - job.gangs_active)
}
