//! How good a node is for one part, under the scores that look at more than its free devices.

use super::feasible::amount_on;
use super::ledger::NodeView;
use super::search::Search;
use crate::mix::mixed;
use crate::policy::{DeviceChoice, Score};
use muster_common::NodeId;
use muster_common::resources::Amount;

/// Nodes of one pool with as many free devices that are scored; beyond them the lowest ids stand for all.
const SCORED_MAX: usize = 256;

impl Search<'_> {
    /// Under other scores the number of free devices says everything.
    pub fn is_scored(&self) -> bool {
        !matches!(self.policy.score, Score::BestFit | Score::Spread | Score::TopologyCost)
    }

    /// How many nodes with equally many free devices are worth a look, when so many are wanted.
    pub fn looked_at(&self, count: usize) -> usize {
        match self.policy.score {
            Score::Random { .. } => usize::MAX,
            _ if self.is_scored() => count.max(SCORED_MAX),
            _ => count,
        }
    }

    /// The lower the better, for a part of so many devices. Published scores are whole numbers up to 100, and
    /// ties between them matter: with chance in their place fragmentation gradient descent loses 5 points.
    pub fn rank(&self, view: &NodeView, devices: u32) -> u64 {
        match self.policy.score {
            Score::BestFit | Score::TopologyCost => u64::from(view.whole),
            Score::Spread => u64::MAX - u64::from(view.whole),
            Score::Pack => 100 - self.packing(view, devices),
            Score::LeastLeft => 100 - self.least_left(view, devices),
            Score::Clustering => 100 - self.clustering(view, devices),
            Score::Fgd => 100 - self.after(view, devices).0,
            Score::Random { seed } => self.chance(seed, view.facts.id.0),
        }
    }

    /// What chance says of something, for this gang.
    pub fn chance(&self, seed: u64, of: u64) -> u64 {
        let gang = self.ground.gang;
        mixed(mixed(mixed(seed ^ gang.job.0) ^ u64::from(gang.ordinal)) ^ of)
    }

    fn milli(&self) -> u16 {
        self.group.share.0.min(1000)
    }

    /// A wholly idle node: 33 less its devices. Else 50 less the whole devices that are broken into, at least
    /// 33; or, when devices in use suffice, 100 less a tenth of their free percents, at least 50.
    fn packing(&self, view: &NodeView, devices: u32) -> u64 {
        if devices == 0 {
            return 0;
        }
        let facts = &view.facts;
        let usable: Vec<u16> =
            (0..view.free.len()).filter(|&slot| facts.usable[slot]).map(|slot| view.free[slot]).collect();
        if usable.iter().all(|&free| free == 1000) {
            return 33u64.saturating_sub(usable.len() as u64);
        }
        let mut enough: Vec<u16> = usable.into_iter().filter(|&free| free >= self.milli()).collect();
        enough.sort_unstable();
        enough.truncate(devices as usize);
        let whole = enough.iter().filter(|&&free| free == 1000).count() as u64;
        if whole > 0 {
            return 50u64.saturating_sub(whole).max(33);
        }
        let percents: u64 = enough.iter().map(|&free| u64::from(free) / 10).sum();
        100u64.saturating_sub(percents / 10).max(50)
    }

    /// Against the largest machine of the cluster.
    fn least_left(&self, view: &NodeView, devices: u32) -> u64 {
        let most_cpu = self.ledger.classes.largest().cpu_milli.max(1) as f64;
        let wants = amount_on(self.group, &view.facts.inventory, devices);
        let cpu = view.amount.cpu_milli.saturating_sub(wants.cpu_milli) as f64 / most_cpu;
        let taken = u64::from(devices) * u64::from(self.milli());
        let left = free_milli(view).saturating_sub(taken) as f64 / self.most_milli() as f64;
        floor(100.0 * (1.0 - (0.5 * cpu + 0.5 * left)))
    }

    /// Thousandths of devices of the largest machine of the cluster.
    fn most_milli(&self) -> u64 {
        1000 * u64::from(self.ledger.classes.largest().devices.max(1))
    }

    /// Up to 25 for devices that are not free, against the largest machine, and 75 where all parts are of this size,
    /// 50 where some are, 25 on an idle node.
    fn clustering(&self, view: &NodeView, devices: u32) -> u64 {
        if devices == 0 {
            return 0;
        }
        let most = self.most_milli();
        let base = 25 * most.saturating_sub(free_milli(view)) / most;
        let size = size_bit(devices, self.milli());
        base + match view.sizes {
            0 => 25,
            sizes if sizes == size => 75,
            sizes if sizes & size != 0 => 50,
            _ => 0,
        }
    }

    /// The score of the node after the part, from 0 to 100, and the slots of a part of shares.
    fn after(&self, view: &NodeView, devices: u32) -> (u64, Vec<u16>) {
        let wants = amount_on(self.group, &view.facts.inventory, devices);
        let amount = view.amount.minus(&wants).unwrap_or_default();
        let before = self.ledger.workload().fragment(view, &view.free, view.amount);
        if self.milli() < 1000 {
            let sets = self.share_sets(view, devices, self.milli());
            let found = sets.into_iter().filter_map(|set| self.shares_on(view, set, devices, amount, before));
            if let Some(best) = found.min_by(|a, b| (b.0, &a.1).cmp(&(a.0, &b.1))) {
                return best;
            }
        }
        let mut free = view.free.clone();
        if self.milli() == 1000 {
            // Which of the wholly free ones makes no difference.
            let whole = (0..free.len()).filter(|&slot| free[slot] == 1000 && self.wants_slot(view, slot));
            let taken: Vec<usize> = whole.take(devices as usize).collect();
            taken.into_iter().for_each(|slot| free[slot] = 0);
        }
        (self.gain(before, self.ledger.workload().fragment(view, &free, amount)), Vec::new())
    }

    /// As many shares one after the other, each where it breaks the least.
    fn shares_on(
        &self,
        view: &NodeView,
        mut left: Vec<u16>,
        devices: u32,
        amount: Amount,
        before: u64,
    ) -> Option<(u64, Vec<u16>)> {
        let mut free = view.free.clone();
        let mut slots: Vec<u16> = Vec::new();
        let mut score = None;
        for _ in 0..devices {
            let Some((best, slot)) = self.best_slot(view, &mut free, &left, amount, before) else { break };
            free[usize::from(slot)] -= self.milli();
            left.retain(|&other| other != slot);
            slots.push(slot);
            score = Some(best);
        }
        score.map(|score| (score, slots))
    }

    /// The one of these devices on which a share more breaks the least; the lowest of several.
    fn best_slot(
        &self,
        view: &NodeView,
        free: &mut [u16],
        left: &[u16],
        amount: Amount,
        before: u64,
    ) -> Option<(u64, u16)> {
        let mut best: Option<(u64, u16)> = None;
        for (place, &slot) in left.iter().enumerate() {
            let at = usize::from(slot);
            // On a node of one model devices with as much free are as good as each other.
            let same = |other: &u16| free[usize::from(*other)] == free[at];
            if !view.facts.varied && left[..place].iter().any(same) {
                continue;
            }
            free[at] -= self.milli();
            let score = self.gain(before, self.ledger.workload().fragment(view, free, amount));
            free[at] += self.milli();
            if best.is_none_or(|(known, _)| score > known) {
                best = Some((score, slot));
            }
        }
        best
    }

    /// A change of fragmentation, in devices, as a score from 0 to 100.
    fn gain(&self, before: u64, after: u64) -> u64 {
        let parts = (1000 * self.ledger.workload().covered().max(1)) as f64;
        floor(100.0 / (1.0 + libm::exp((after as f64 - before as f64) / parts)))
    }

    /// Slots of a part of shares under `fgd_best`.
    pub fn fgd_slots(&self, view: &NodeView, devices: u32) -> Option<Vec<u16>> {
        (self.policy.device == DeviceChoice::FgdBest).then(|| self.after(view, devices).1)
    }

    fn wants_slot(&self, view: &NodeView, slot: usize) -> bool {
        self.wants(&view.facts.inventory.devices[slot])
    }
}

fn free_milli(view: &NodeView) -> u64 {
    view.free.iter().map(|&milli| u64::from(milli)).sum()
}

fn floor(score: f64) -> u64 {
    libm::floor(score).clamp(0.0, 100.0) as u64
}

/// Parts of shares are one size, parts of so many whole devices another each.
pub fn size_bit(devices: u32, milli: u16) -> u64 {
    if milli < 1000 { 1 } else { 1 << devices.clamp(1, 63) }
}

/// As many nodes as are worth a look from each level of free devices.
pub fn per_level(
    nodes: impl Iterator<Item = (u32, NodeId)>,
    most: usize,
    mut fits: impl FnMut(NodeId) -> bool,
) -> Vec<NodeId> {
    let (mut level, mut here) = (u32::MAX, 0);
    let mut found = Vec::new();
    for (free, id) in nodes {
        if free != level {
            (level, here) = (free, 0);
        }
        if here < most && fits(id) {
            here += 1;
            found.push(id);
        }
    }
    found
}
