//! Cells while devices are kept for a gang whose holders leave slowly. They count as that gang's own, yet it may start
//! elsewhere meanwhile, and then they are their holders' until those have left. So whatever else is placed is to leave
//! everybody's cells both ways.

use super::assign::{Outlook, Owner, Whose};
use super::{Owed, Take};
use muster_common::{GangId, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most gangs that are thought away one by one; of more only all together.
const ALONE_MAX: usize = 4;

/// What was found out about the cells of a model as they are.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// What can be had.
    pub outlook: Option<Arc<Outlook>>,
    /// What is lost while an owner's work uses the smallest of its cells.
    pub strict: BTreeMap<Owner, Arc<Vec<u32>>>,
    /// Nodes that are closed to somebody's work.
    pub barred: BTreeMap<Option<Whose>, Arc<Vec<NodeId>>>,
}

impl Owed {
    /// What is kept for a gang has been counted as its own, for the rest of the cycle.
    pub fn note_kept(&mut self, gang: GangId, takes: &[Take]) {
        if takes.iter().any(|take| take.devices < 0) {
            self.kept.insert(gang, takes.to_vec());
            self.barred_each_way.clear();
        }
    }

    /// The gang has started, or what was kept for it counts no longer.
    pub fn forget_kept(&mut self, gang: GangId) {
        self.kept.remove(&gang);
        self.barred_each_way.clear();
    }

    pub fn forget_all_kept(&mut self) {
        self.kept.clear();
        self.barred_each_way.clear();
    }

    /// Ways in which what is kept for others than `gang` may be given up.
    fn given_up(&self, gang: GangId) -> Vec<Vec<Take>> {
        let others: Vec<&Vec<Take>> =
            self.kept.iter().filter(|(other, _)| **other != gang).map(|(_, takes)| takes).collect();
        let alone = if others.len() <= ALONE_MAX { &others[..] } else { &[] };
        let mut ways: Vec<Vec<Take>> = alone.iter().map(|takes| (*takes).clone()).collect();
        if others.len() > 1 {
            ways.push(others.into_iter().flatten().copied().collect());
        }
        ways
    }

    /// Asks something of the cells as they are, then as they would be if others than `gang` gave up what is kept for them.
    pub(super) fn each_way(&mut self, gang: GangId, mut ask: impl FnMut(&mut Self) -> bool) -> bool {
        if !ask(self) {
            return false;
        }
        self.given_up(gang).into_iter().all(|takes| {
            let known: Vec<Known> = self.models.iter().map(|model| model.known.clone()).collect();
            takes.iter().for_each(|take| self.try_hold(*take, -1));
            let good = ask(self);
            takes.iter().for_each(|take| self.try_hold(*take, 1));
            self.models.iter_mut().zip(known).for_each(|(model, known)| model.known = known);
            good
        })
    }
}
