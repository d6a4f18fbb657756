//! For people: what cells an account owns and has, and whose cells a gang would be in the way of.

use super::assign::Outlook;
use super::{OfModel, Owed, Take};
use crate::command::PlacedPart;
use crate::organisation::{CellQuota, Organisation};
use crate::state::State;
use crate::state::reservation::slots_by_node;
use muster_common::Name;
use muster_common::job::Scheduling;
use muster_common::resources::Amount;
use muster_common::topology::FabricSpec;
use std::collections::BTreeMap;

/// One account's cells of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellsOf {
    pub account: Name,
    /// Owned, in `number`.
    pub cells: CellQuota,
    /// Work of its own that stays is in them.
    pub used: u32,
    /// Free, or held by what can be stopped in time.
    pub obtainable: u32,
    /// Nowhere to be had: hardware is gone or out of order, or was never there.
    pub lost: u32,
}

/// The cells of all accounts, in the document's order.
pub fn cells_of(state: &State) -> Vec<CellsOf> {
    let document = state.accounts().document();
    if !document.has_cells() {
        return Vec::new();
    }
    let mut owed = Owed::of(state);
    owed.hold_kept(state);
    owed.by_account(document, state.fabric())
}

impl Owed {
    /// What is kept for a gang that will stay counts as its own already.
    pub fn hold_kept(&mut self, state: &State) {
        for known in state.reservations().values().filter(|known| known.kind.keeps_devices()) {
            let Some(job) = state.job(known.gang.job) else { continue };
            let scheduling = state.scheduling(job).clone();
            if !self.is_firm(&scheduling) {
                continue;
            }
            let part = |(node, slots): (_, Vec<u16>)| {
                let devices = slots.into_iter().map(|slot| (slot, 1000)).collect();
                PlacedPart { group: 0, node, epoch: 0, devices, amount: Amount::default() }
            };
            let parts: Vec<PlacedPart> = slots_by_node(known.witness.iter().copied()).into_iter().map(part).collect();
            for take in self.takes(state, &scheduling, &parts) {
                self.hold(take, 1);
            }
        }
    }

    /// By account and shape, lines of one shape together.
    pub fn by_account(&self, document: &Organisation, fabric: &FabricSpec) -> Vec<CellsOf> {
        let outlooks: Vec<Outlook> = self.models.iter().map(OfModel::outlook).collect();
        let mut found: Vec<CellsOf> = Vec::new();
        for (owner, account) in (0..).zip(&document.accounts) {
            let mut shapes: BTreeMap<(Name, Name, u32), CellQuota> = BTreeMap::new();
            for cells in &account.cells {
                let key = (cells.model.clone(), cells.level.clone(), cells.nodes);
                let known = shapes.entry(key).or_insert(CellQuota { number: 0, ..cells.clone() });
                known.number += cells.number;
            }
            for cells in shapes.into_values() {
                let had = self.models.iter().zip(&outlooks).find(|(model, _)| model.name == cells.model);
                let had = had.and_then(|(model, outlook)| {
                    let kind = model.kind_of(&cells, fabric)?;
                    let at = model.kinds[kind].owned.iter().position(|(other, _)| *other == owner)?;
                    Some(outlook.had(kind, at))
                });
                let had = had.unwrap_or_default();
                let (used, obtainable, lost) = (had.used, had.obtainable, had.lost);
                found.push(CellsOf { account: account.name.clone(), cells, used, obtainable, lost });
            }
        }
        found
    }

    /// Whose cells could not be had if these were taken.
    fn lacking(&mut self, takes: &[Take], state: &State) -> Vec<CellsOf> {
        let (document, fabric) = (state.accounts().document(), state.fabric());
        let before = self.by_account(document, fabric);
        takes.iter().for_each(|take| self.hold(*take, 1));
        let after = self.by_account(document, fabric);
        takes.iter().for_each(|take| self.hold(*take, -1));
        let more = before
            .into_iter()
            .zip(after)
            .filter(|(before, after)| (after.lost, before.obtainable) > (before.lost, after.obtainable));
        more.map(|(before, after)| CellsOf {
            lost: after.lost.saturating_sub(before.lost).max(before.obtainable.saturating_sub(after.obtainable)),
            ..before
        })
        .collect()
    }
}

/// Who is owed what, that a gang would be in the way of on these devices.
pub fn told(owed: &mut Owed, state: &State, scheduling: &Scheduling, parts: &[PlacedPart]) -> String {
    let takes = owed.takes(state, scheduling, parts);
    let lacking = owed.lacking(&takes, state);
    let one = |of: &CellsOf| {
        let (account, lost) = (&of.account, of.lost);
        let what = CellQuota { number: of.cells.number, ..of.cells.clone() }.told();
        format!("account `{account}` owns {what}, and {lost} could not be had any more")
    };
    if lacking.is_empty() {
        // Each could be had still, if work moved that nobody moves.
        return "it would begin a wider cell of its own account than it needs".into();
    }
    lacking.iter().take(3).map(one).collect::<Vec<_>>().join("; ")
}
