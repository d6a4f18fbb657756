//! Trials on the ledger as if nodes that sleep were awake.

use crate::command::PlacedPart;
use crate::plan::round::Round;
use crate::plan::waiting::Item;
use muster_common::{GangId, NodeId};
use std::collections::BTreeSet;

/// Most trials of doing with fewer nodes; of a larger gang's nodes several are left out at a time.
const TRIALS_MAX: usize = 32;

/// What one cycle has to wake with.
pub(super) struct Sleepers {
    /// May be woken now, by pool.
    pub asleep: Vec<BTreeSet<NodeId>>,
    /// On their way already, this cycle's own included; there may be room on them.
    pub waking: BTreeSet<NodeId>,
    /// How many more may be on their way, by pool; `None` = none is yet, so that a whole gang may.
    pub room: Vec<Option<usize>>,
}

impl Sleepers {
    pub fn is_asleep(&self, node: NodeId) -> bool {
        self.asleep.iter().any(|asleep| asleep.contains(&node))
    }
}

/// What of the sleepers is open on the ledger: where it stood before, for those on their way and for each pool. Most
/// gangs are tried with all pools, so that thousands of nodes are not opened anew for each.
#[derive(Default)]
pub(super) struct Opened(Vec<usize>);

impl Opened {
    /// Those on their way and the first so many pools. Nothing but what is rolled back may change the ledger before it
    /// is closed.
    pub fn open(&mut self, round: &mut Round, sleepers: &Sleepers, pools: usize) {
        if let Some(mark) = self.0.get(pools + 1).copied() {
            round.ledger.rollback(mark);
            self.0.truncate(pools + 1);
        }
        while self.0.len() <= pools {
            let nodes = match self.0.len().checked_sub(1) {
                None => &sleepers.waking,
                Some(pool) => &sleepers.asleep[pool],
            };
            self.0.push(round.ledger.mark());
            nodes.iter().for_each(|node| round.ledger.open(*node));
            round.spent += nodes.len() as u64;
        }
    }

    pub fn close(&mut self, round: &mut Round) {
        if let Some(mark) = self.0.first().copied() {
            round.ledger.rollback(mark);
            self.0.clear();
        }
    }
}

/// A gang that nodes may be woken for.
pub(super) struct Trial<'t> {
    pub gang: GangId,
    pub item: &'t Item,
    /// How long waking usually takes.
    pub wake_ms: u64,
    /// How many pools it has waited long enough for.
    pub ripe: usize,
}

impl Trial<'_> {
    /// Where it would go: with as few pools as will do, the first ones, and no node that is not needed.
    pub fn parts(&self, round: &mut Round, opened: &mut Opened, sleepers: &Sleepers) -> Option<Vec<PlacedPart>> {
        let first = usize::from(sleepers.waking.is_empty());
        if first < self.ripe {
            opened.open(round, sleepers, self.ripe);
            self.found(round, None)?;
        }
        (first..=self.ripe).find_map(|pools| {
            opened.open(round, sleepers, pools);
            self.found(round, Some(&sleepers.asleep[..pools]))
        })
    }

    fn found(&self, round: &mut Round, asleep: Option<&[BTreeSet<NodeId>]>) -> Option<Vec<PlacedPart>> {
        let mark = round.ledger.mark();
        // Nobody whose start is booked comes later for it, however long it will run by then.
        round.set_aside(usize::MAX);
        round.shut(self.item.longest().saturating_add(self.wake_ms), 0);
        let found = round.search(self.gang, self.item);
        let found = found.map(|parts| match asleep {
            Some(asleep) => self.fewest(round, parts, asleep),
            None => parts,
        });
        round.put_back();
        round.ledger.rollback(mark);
        found
    }

    /// The same gang on fewer nodes that sleep, as far as some trials show.
    fn fewest(&self, round: &mut Round, parts: Vec<PlacedPart>, asleep: &[BTreeSet<NodeId>]) -> Vec<PlacedPart> {
        let is_asleep = |node: &NodeId| asleep.iter().any(|asleep| asleep.contains(node));
        let used: BTreeSet<NodeId> = parts.iter().map(|part| part.node).filter(is_asleep).collect();
        let mut best = parts;
        let others: Vec<NodeId> = asleep.iter().flatten().copied().filter(|node| !used.contains(node)).collect();
        // Other sleepers in their place would be no gain.
        others.iter().for_each(|node| round.ledger.shut(*node));
        round.spent += others.len() as u64;
        let used: Vec<NodeId> = used.into_iter().collect();
        for left_out in used.chunks(used.len().div_ceil(TRIALS_MAX).max(1)) {
            let mark = round.ledger.mark();
            left_out.iter().for_each(|node| round.ledger.shut(*node));
            match round.search(self.gang, self.item) {
                Some(fewer) => best = fewer,
                None => round.ledger.rollback(mark),
            }
        }
        best
    }
}
