//! Placing beside the cells that others own: what stays goes where everybody can still have theirs.

use super::Take;
use crate::command::PlacedPart;
use crate::plan::ledger::{Ledger, NodeView};
use crate::plan::place::{Request, place};
use crate::plan::round::Round;
use crate::plan::waiting::{Asked, Item};
use crate::state::State;
use crate::state::reservation::Reservation;
use muster_common::job::Scheduling;
use muster_common::{GangId, Name, NodeId};
use std::collections::BTreeSet;

/// Placements that are tried where the first would leave somebody without a cell.
const TRIES_MAX: usize = 8;

/// Requests for which no room was found beside others' cells, in one cycle: account, whether it stays, and what.
pub type BeyondCells = BTreeSet<(Name, bool, Asked)>;

/// The parts found, if they leave everybody's cells, or others that do. For work that stays.
pub fn beside(
    state: &State,
    ledger: &mut Ledger,
    scheduling: &Scheduling,
    request: Request,
    found: Vec<PlacedPart>,
    steps: &mut u64,
) -> Option<Vec<PlacedPart>> {
    let takes = ledger.owed.takes(state, scheduling, &found);
    if ledger.owed.admits(request.gang, &takes) {
        *steps += ledger.owed.worked();
        return Some(found);
    }
    let barred = ledger.owed.barred(request.gang, scheduling, state.fabric());
    if !is_enough_left(ledger, scheduling, &barred, steps) {
        *steps += ledger.owed.worked();
        return None;
    }
    let mark = ledger.mark();
    close(ledger, barred, steps);
    let parts = tried(state, ledger, scheduling, request, steps);
    ledger.rollback(mark);
    *steps += ledger.owed.worked();
    parts
}

/// Is as much free as it asks for, on nodes that are not closed to it?
fn is_enough_left(ledger: &Ledger, scheduling: &Scheduling, barred: &BTreeSet<NodeId>, steps: &mut u64) -> bool {
    let asked = milli_of(scheduling);
    let with_any: BTreeSet<NodeId> = ledger.with_free().iter().chain(ledger.partial()).copied().collect();
    let mut left = 0;
    for view in with_any.iter().filter(|id| !barred.contains(id)).filter_map(|id| ledger.node(*id)) {
        *steps += 1;
        left += free_milli(view);
        if left >= asked {
            return true;
        }
    }
    left >= asked
}

fn milli_of(scheduling: &Scheduling) -> u64 {
    scheduling.groups.iter().map(|group| group.devices() * u64::from(group.share.0.min(1000))).sum()
}

fn free_milli(view: &NodeView) -> u64 {
    view.free.iter().map(|milli| u64::from(*milli)).sum()
}

fn tried(
    state: &State,
    ledger: &mut Ledger,
    scheduling: &Scheduling,
    request: Request,
    steps: &mut u64,
) -> Option<Vec<PlacedPart>> {
    for _ in 0..TRIES_MAX {
        let parts = place(ledger, state.fabric(), state.policy(), request, steps)?;
        let takes = ledger.owed.takes(state, scheduling, &parts);
        let Some(at) = ledger.owed.first_refused(request.gang, &takes) else { return Some(parts) };
        let nodes = ledger.owed.beside(takes[at]);
        close(ledger, nodes, steps);
    }
    None
}

/// Nothing is to be had of these nodes.
fn close(ledger: &mut Ledger, nodes: impl IntoIterator<Item = NodeId>, steps: &mut u64) {
    for node in nodes {
        *steps += 1;
        ledger.change(node, |view| view.free.fill(0));
    }
}

impl Round<'_> {
    pub fn beside_cells(&mut self, gang: GangId, item: &Item, found: Vec<PlacedPart>) -> Option<Vec<PlacedPart>> {
        let owed = &self.ledger.owed;
        if !owed.is_on() || !owed.is_firm(&item.scheduling) {
            return Some(found);
        }
        let request = Request::of(&item.scheduling, self.excluded(gang)).for_gang(gang);
        beside(self.state, self.ledger, &item.scheduling, request, found, &mut self.spent)
    }

    /// Where cells are owned, room on what is kept for a gang, once all of it is free: all else may be closed to it, and be
    /// found first.
    pub fn found_on_kept(&mut self, known: &Reservation, item: &Item) -> Option<Vec<PlacedPart>> {
        let owed = &self.ledger.owed;
        if !owed.is_on() || !owed.is_firm(&item.scheduling) || !known.witness.iter().all(|device| self.is_free(*device))
        {
            return None;
        }
        let kept: BTreeSet<NodeId> = known.witness.iter().map(|device| device.node).collect();
        let free = kept.iter().filter_map(|node| self.ledger.node(*node)).map(free_milli).sum::<u64>();
        if free < milli_of(&item.scheduling) {
            return None;
        }
        let with_any = self.ledger.with_free().iter().chain(self.ledger.partial());
        let others: BTreeSet<NodeId> = with_any.filter(|node| !kept.contains(node)).copied().collect();
        let mark = self.ledger.mark();
        close(self.ledger, others, &mut self.spent);
        let found = self.search(known.gang, item);
        self.ledger.rollback(mark);
        found
    }

    /// Nodes that a gang keeps off because of others' cells.
    pub fn barred_for(&mut self, gang: GangId, item: &Item) -> BTreeSet<NodeId> {
        let owed = &mut self.ledger.owed;
        match owed.is_on() && owed.is_firm(&item.scheduling) {
            true => owed.barred(gang, &item.scheduling, self.state.fabric()),
            false => BTreeSet::new(),
        }
    }

    fn beyond(&self, item: &Item) -> (Name, bool, Asked) {
        (item.scheduling.account.clone(), self.ledger.owed.is_firm(&item.scheduling), item.asked())
    }

    /// There is room for the item, but not beside what others own.
    pub fn note_beyond_cells(&mut self, item: &Item) {
        let beyond = self.beyond(item);
        self.beyond_cells.insert(beyond);
    }

    /// Is that known of the item's request?
    pub fn is_beyond_cells(&self, item: &Item) -> bool {
        !self.beyond_cells.is_empty() && self.beyond_cells.contains(&self.beyond(item))
    }

    /// The same of what is kept for it: others may have to do without that again.
    pub fn keep_cells(&mut self, gang: GangId, parts: &[PlacedPart]) -> Vec<Take> {
        let takes = self.hold_cells(gang, parts, 1);
        self.ledger.owed.note_kept(gang, &takes);
        takes
    }

    /// What a gang holds for good, or will, counts for its account from now on (`sign` 1), or no longer (-1),
    /// until the ledger is rolled back. Returns what was counted.
    pub fn hold_cells(&mut self, gang: GangId, parts: &[PlacedPart], sign: i32) -> Vec<Take> {
        let (owed, state) = (&self.ledger.owed, self.state);
        if !owed.is_on() {
            return Vec::new();
        }
        let Some(job) = state.job(gang.job) else { return Vec::new() };
        let scheduling = state.scheduling(job);
        if !owed.is_firm(scheduling) {
            return Vec::new();
        }
        let takes = owed.takes(state, scheduling, parts);
        takes.iter().for_each(|take| self.ledger.hold_cells(*take, sign));
        takes
    }
}
