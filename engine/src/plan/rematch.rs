//! Letting a gang have devices that bookings count on, where each gang that is booked finds others that do as
//! well: in its own domain, and no later.

use super::bookings::Booking;
use super::round::Round;
use super::waiting::Item;
use crate::command::PlacedPart;
use crate::policy::Edge;
use muster_common::{GangId, NodeId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most trials of one cycle: each looks ahead once for every booking that it hits.
const REMATCHES_MAX: u32 = 64;

impl Round<'_> {
    /// Starts a gang on what is booked, if every booking that it runs into finds another witness. `hit`: how many
    /// it may run into.
    pub(super) fn try_rematch(&mut self, gang: GangId, item: &Item, hit: usize) -> bool {
        if !self.state.policy().backfill.rematch {
            return false;
        }
        self.put_back();
        let movable = |booking: &&Arc<Booking>| !booking.fixed;
        let mut movable: Vec<Arc<Booking>> = self.booked.by_start().take(hit).filter(movable).cloned().collect();
        while !movable.is_empty() && self.rematches < REMATCHES_MAX {
            self.rematches += 1;
            movable.iter().for_each(|booking| _ = self.booked.remove(booking.gang));
            let parts = self.search_beside(gang, item, self.hit_by(item));
            self.put_back();
            let stuck = match parts {
                None => None,
                Some(parts) => match self.move_around(&movable, item, &parts) {
                    Ok(moved) => {
                        self.start_between(gang, item, parts, moved);
                        return true;
                    }
                    Err(stuck) => Some(stuck),
                },
            };
            movable.iter().for_each(|booking| self.booked.insert(booking.clone()));
            let Some(stuck) = stuck else { return false };
            // That one keeps what it has; others may give way elsewhere.
            movable.retain(|booking| booking.gang != stuck);
        }
        false
    }

    /// Bookings that were taken out, as they are once these parts are taken; or the gang for which there is no
    /// other way. Leaves everything as it was.
    fn move_around(
        &mut self,
        hits: &[Arc<Booking>],
        item: &Item,
        parts: &[PlacedPart],
    ) -> Result<Vec<Arc<Booking>>, GangId> {
        let mark = self.ledger.mark();
        self.take(parts);
        // One that has to be gone before a start is in its way for a moment longer.
        let late_ms = u64::from(self.edge() == Edge::Before);
        if let Some(left_ms) = item.left_ms {
            let end = self.now.plus_ms(left_ms).plus_ms(late_ms);
            parts.iter().for_each(|part| self.own.entry(part.node).or_default().push((end, part.clone())));
        }
        let mut put: Vec<Arc<Booking>> = Vec::new();
        let stuck = self.put_anew(hits, parts, &mut put);
        put.iter().for_each(|booking| _ = self.booked.remove(booking.gang));
        if item.left_ms.is_some() {
            for part in parts {
                let Some(own) = self.own.get_mut(&part.node) else { continue };
                own.pop();
                if own.is_empty() {
                    self.own.remove(&part.node);
                }
            }
        }
        self.ledger.rollback(mark);
        stuck.map_or(Ok(put), Err)
    }

    /// First those that can stay as they are, then the others in the order of their starts.
    fn put_anew(&mut self, hits: &[Arc<Booking>], parts: &[PlacedPart], put: &mut Vec<Arc<Booking>>) -> Option<GangId> {
        let nodes: BTreeSet<NodeId> = parts.iter().map(|part| part.node).collect();
        let mut moves: Vec<&Arc<Booking>> = Vec::new();
        for booking in hits {
            let touched = nodes.iter().any(|node| booking.on.contains_key(node));
            let same = match touched {
                true => self.within_own(booking.gang, |round| round.holds_still(booking.clone())),
                false => Some(booking.clone()),
            };
            match same {
                Some(same) => {
                    self.booked.insert(same.clone());
                    put.push(same);
                }
                None => moves.push(booking),
            }
        }
        for booking in moves {
            let other = self.within_own(booking.gang, |round| round.another_witness(booking));
            let Some(other) = other else { return Some(booking.gang) };
            self.booked.insert(other.clone());
            put.push(other);
        }
        None
    }

    /// A start of a booked gang on other devices of its domain, no later than the one it has.
    fn another_witness(&mut self, booking: &Booking) -> Option<Arc<Booking>> {
        let (gang, start) = (booking.gang, booking.start.max(self.now));
        let item = self.waiting.item_of(self.state, gang)?.clone();
        let item = self.within_quota(&item)?;
        let within = match &booking.domain {
            Some((tree, path)) if !path.is_empty() => Some(self.ledger.domain_at(usize::from(*tree), path)?),
            _ => None,
        };
        let found = match self.is_plain(&item) {
            true => self.earliest(gang, &item, start.plus_ms(1), within)?.start?,
            false => self.search_at(gang, &item, start)?,
        };
        let inside = |part: &PlacedPart| {
            within.is_none_or(|domain| self.ledger.node(part.node).is_some_and(|view| view.is_in(domain)))
        };
        if !found.parts.iter().all(inside) {
            return None;
        }
        let found = self.booking(gang, &item, found);
        Some(Arc::new(Booking { domain: booking.domain.clone(), ..found }))
    }

    /// Starts a gang, with the bookings around it as they are then.
    fn start_between(&mut self, gang: GangId, item: &Item, parts: Vec<PlacedPart>, moved: Vec<Arc<Booking>>) {
        // Those that were not moved leave it what they do not need.
        let hit = self.hit_by(item);
        self.booked.spend(hit, &parts);
        moved.into_iter().for_each(|booking| self.booked.insert(booking));
        self.take(&parts);
        self.place(gang, item, parts);
    }
}
