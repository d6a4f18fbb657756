//! The proof: with these gangs gone the other fits, by the very search that will place it, and with
//! any one of them left it does not.

use super::{Offers, Taken};
use crate::command::PlacedPart;
use crate::plan::backfill::{give_back, held_parts};
use crate::plan::round::Round;
use crate::plan::waiting::Item;
use crate::state::node::DeviceState;
use muster_common::{DeviceId, GangId, NodeId};
use std::collections::BTreeSet;

impl Round<'_> {
    pub(super) fn trimmed(
        &mut self,
        gang: GangId,
        item: &Item,
        offers: &Offers,
        avoid: &BTreeSet<NodeId>,
        victims: Vec<GangId>,
        rest: Vec<GangId>,
    ) -> Option<Taken> {
        let mark = self.ledger.mark();
        avoid.iter().for_each(|node| self.ledger.shut(*node));
        let found = self.proven(gang, item, (offers, avoid), victims, rest);
        self.ledger.rollback(mark);
        let is_victim = |gang: &GangId| !offers.leaving.contains(gang);
        let taken = found.map(|(gone, parts)| Taken {
            victims: gone.into_iter().filter(is_victim).collect(),
            parts,
            ripe_at: None,
        });
        // Where nobody has to be stopped, those that leave anyway make the room.
        taken.filter(|taken| {
            let many = taken.victims.len();
            many > 0 && many <= offers.victims_max && offers.are_fair(&taken.victims)
        })
    }

    fn proven(
        &mut self,
        gang: GangId,
        item: &Item,
        (offers, avoid): (&Offers, &BTreeSet<NodeId>),
        mut gone: Vec<GangId>,
        rest: Vec<GangId>,
    ) -> Option<(Vec<GangId>, Vec<PlacedPart>)> {
        gone.iter().for_each(|victim| self.let_go(*victim, avoid));
        let mut parts = self.search(gang, item);
        if parts.is_none() && !rest.is_empty() {
            rest.iter().for_each(|victim| self.let_go(*victim, avoid));
            gone.extend(rest);
            parts = self.search(gang, item);
        }
        let mut parts = parts?;
        let used: BTreeSet<NodeId> = parts.iter().map(|part| part.node).collect();
        let touches = |state: &crate::state::State, victim: &GangId| {
            state.gang(*victim).is_some_and(|record| held_parts(record).any(|part| used.contains(&part.node)))
        };
        // Where quota is owed, somebody's end may be needed though nothing of it is taken.
        let by_quota = self.ledger.quotas.is_on();
        let (mut kept, spared): (Vec<GangId>, Vec<GangId>) =
            gone.into_iter().partition(|victim| by_quota || touches(self.state, victim));
        spared.iter().for_each(|victim| self.hold_again(*victim, avoid));
        // The dearest first. Who leaves anyway costs nothing, so nobody tries to spare it.
        kept.sort_by_key(|victim| (std::cmp::Reverse(offers.prices.get(victim).copied()), *victim));
        let mut needed = Vec::new();
        for victim in kept {
            if !offers.prices.contains_key(&victim) {
                needed.push(victim);
                continue;
            }
            let mark = self.ledger.mark();
            self.hold_again(victim, avoid);
            match self.search(gang, item) {
                Some(without) => parts = without,
                None => {
                    self.ledger.rollback(mark);
                    needed.push(victim);
                }
            }
        }
        Some((needed, parts))
    }

    /// The ledger as it will be without the gang; what is kept for somebody, or on nodes to avoid, stays kept.
    fn let_go(&mut self, gang: GangId, avoid: &BTreeSet<NodeId>) {
        for part in self.parts_of(gang, avoid) {
            give_back(self.state, self.ledger, &part);
        }
        self.ledger.set_gone(gang, true);
        // Who leaves anyway is no longer charged for what it holds.
        if !self.leaves(gang) {
            self.uncharge(gang, -1);
        }
    }

    /// The opposite.
    fn hold_again(&mut self, gang: GangId, avoid: &BTreeSet<NodeId>) {
        let state = self.state;
        self.ledger.set_gone(gang, false);
        for part in self.parts_of(gang, avoid) {
            let Some(record) = state.node(part.node) else { continue };
            self.ledger.change(part.node, |view| {
                for &(slot, milli) in &part.devices {
                    let at = usize::from(slot);
                    if matches!(record.devices.get(at), Some(DeviceState::Ok(_))) && view.facts.usable[at] {
                        view.free[at] = view.free[at].saturating_sub(milli);
                    }
                }
                view.amount = view.amount.minus(&part.amount).unwrap_or_default();
                view.ports = view.ports.saturating_sub(1);
            });
        }
        if !self.leaves(gang) {
            self.uncharge(gang, 1);
        }
    }

    /// What its account will no longer hold, or will again.
    pub(super) fn uncharge(&mut self, gang: GangId, sign: i64) {
        let Some(charge) = self.ledger.quotas.held_by(gang).cloned() else { return };
        charge.held.iter().for_each(|(model, milli)| self.ledger.hold(charge.at, *model, charge.firm, sign * milli));
    }

    fn parts_of(&self, gang: GangId, avoid: &BTreeSet<NodeId>) -> Vec<PlacedPart> {
        let Some(record) = self.state.gang(gang) else { return Vec::new() };
        let free_for_us = |part: PlacedPart| {
            let node = part.node;
            let is_kept = |slot: u16| self.taking.masked_slots.contains(&DeviceId { node, slot });
            let devices = part.devices.iter().filter(|(slot, _)| !is_kept(*slot)).copied().collect();
            PlacedPart { devices, ..part }
        };
        held_parts(record).filter(|part| !avoid.contains(&part.node)).map(free_for_us).collect()
    }
}
