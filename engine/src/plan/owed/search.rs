//! Which cells can be had, by trying ways one after another: for where greed has found less than there might be.
//!
//! Cells are given domains in the order of their kinds; the ways of one cell are tried those first that spoil least for
//! narrower kinds. What is reached twice is not tried twice. Work is bounded, so over many domains this may end before all
//! ways are tried: then it knows no better than greed.

use super::assign::{ANY, Assigned, Bottom, Had, Kind, Owner, drain};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Domains of the narrowest level that are looked at, over all ways.
const WORK_MAX: usize = 3_000;
/// Cells that are searched for at most, each a level of the search. Where there are more, greed's answer stands.
const CELLS_MAX: usize = 256;
/// Of so few of them in all, every way to spread a cell over those of its domain is tried.
const EVERY_MAX: usize = 16;

/// Cells that are had in the best way found, if it lacks fewer nodes of cells than `best`. `floor`: that few are enough.
pub fn search(kinds: &[Kind], bottoms: &[Bottom], best: u64, floor: u64) -> Option<Assigned> {
    let singles = kinds.iter().position(|kind| kind.depth == super::NODES);
    let of_kind = |(at, kind): (usize, &Kind)| {
        let owned = kind.owned.clone();
        owned.into_iter().flat_map(move |(owner, number)| (0..number).map(move |_| (at, owner)))
    };
    let wide = kinds.iter().enumerate().filter(|(at, _)| Some(*at) != singles);
    let cells: Vec<(usize, Owner)> = wide.flat_map(of_kind).take(CELLS_MAX + 1).collect();
    if cells.len() > CELLS_MAX {
        return None;
    }
    let mut searching = Searching {
        kinds,
        needs: needs(kinds, &cells, singles),
        cells,
        singles,
        seen: BTreeMap::new(),
        best,
        floor,
        work: 0,
        ways: Vec::new(),
        found: None,
    };
    searching.from(0, bottoms.iter().map(Bottom::by_owner).collect(), 0);
    searching.found
}

/// Nodes that each owner needs for a cell and all after it.
fn needs(kinds: &[Kind], cells: &[(usize, Owner)], singles: Option<usize>) -> Vec<BTreeMap<Owner, u32>> {
    let singles = singles.map_or(&[][..], |at| &kinds[at].owned);
    let mut need: BTreeMap<Owner, u32> = singles.iter().copied().collect();
    let mut needs = vec![need.clone()];
    for (kind, owner) in cells.iter().rev() {
        let known = need.entry(*owner).or_default();
        *known = known.saturating_add(kinds[*kind].nodes);
        needs.push(need.clone());
    }
    needs.reverse();
    needs
}

struct Searching<'a> {
    kinds: &'a [Kind],
    needs: Vec<BTreeMap<Owner, u32>>,
    cells: Vec<(usize, Owner)>,
    singles: Option<usize>,
    /// Fewest nodes lacked when this was reached.
    seen: BTreeMap<(usize, Vec<Bottom>), u64>,
    best: u64,
    floor: u64,
    work: usize,
    /// Nodes with own work of each cell so far; `None` = it is not had.
    ways: Vec<Option<u32>>,
    found: Option<Assigned>,
}

/// One way to make a cell.
struct Way {
    /// How many cells of narrower kinds fewer there are room for, the larger first.
    spoils: Vec<u32>,
    lacking: u32,
    left: Vec<(usize, Bottom)>,
}

impl Searching<'_> {
    fn is_over(&self) -> bool {
        self.best <= self.floor || self.work > WORK_MAX
    }

    fn from(&mut self, at: usize, left: Vec<Bottom>, missing: u64) {
        if self.is_over() {
            return;
        }
        self.work += left.len();
        if missing + self.lacks(at, &left) >= self.best {
            return;
        }
        let Some(&(kind, owner)) = self.cells.get(at) else { return self.end(&left, missing) };
        let key = (at, left);
        if self.seen.get(&key).is_some_and(|known| *known <= missing) {
            return;
        }
        let (_, left) = &key;
        let mut ways = Vec::new();
        for members in &self.kinds[kind].domains {
            let found = self.ways_in(kind, owner, members, left);
            self.work += members.len() * found.len().max(1);
            ways.extend(found);
            if self.work > WORK_MAX {
                break;
            }
        }
        ways.sort_by(|a, b| (&a.spoils, a.lacking).cmp(&(&b.spoils, b.lacking)));
        let nodes = self.kinds[kind].nodes;
        for way in ways {
            if self.is_over() {
                return;
            }
            let mut after = left.clone();
            way.left.into_iter().for_each(|(at, bottom)| after[at] = bottom);
            self.ways.push(Some(nodes - way.lacking));
            self.from(at + 1, after, missing);
            self.ways.pop();
        }
        self.ways.push(None);
        self.from(at + 1, left.clone(), missing + u64::from(nodes));
        self.ways.pop();
        // What was cut short was not looked at.
        if !self.is_over() {
            self.seen.insert(key, missing);
        }
    }

    /// Nodes that are too few for a cell and all after it, wherever they are.
    fn lacks(&self, at: usize, left: &[Bottom]) -> u64 {
        let own = |owner: Owner| left.iter().map(|bottom| bottom.own_of(owner)).sum::<u32>();
        let lacks = self.needs[at].iter().map(|(owner, need)| u64::from(need.saturating_sub(own(*owner)))).sum::<u64>();
        lacks.saturating_sub(left.iter().map(|bottom| u64::from(bottom.free)).sum())
    }

    /// Single nodes are wherever they are: that leaves nothing to choose.
    fn end(&mut self, left: &[Bottom], missing: u64) {
        let mut free: u32 = left.iter().map(|bottom| bottom.free).sum();
        let mut singles = Vec::new();
        for (owner, owed) in self.singles.map_or(&[][..], |at| &self.kinds[at].owned) {
            let used = left.iter().map(|bottom| bottom.own_of(*owner)).sum::<u32>().min(*owed);
            let obtainable = (owed - used).min(free);
            free -= obtainable;
            singles.push(Had { used, spare: 0, obtainable, lost: owed - used - obtainable });
        }
        let missing = missing + singles.iter().map(|had| u64::from(had.lost)).sum::<u64>();
        if missing >= self.best {
            return;
        }
        self.best = missing;
        let mut found: Assigned = self.kinds.iter().map(|kind| vec![Had::default(); kind.owned.len()]).collect();
        for ((kind, owner), way) in self.cells.iter().zip(&self.ways) {
            let kind_of = &self.kinds[*kind];
            let Some(place) = kind_of.owned.iter().position(|(other, _)| other == owner) else { continue };
            let had = &mut found[*kind][place];
            match way {
                None => had.lost += 1,
                Some(0) => had.obtainable += 1,
                Some(own) => (had.used, had.spare) = (had.used + 1, had.spare + kind_of.nodes - own),
            }
        }
        if let Some(at) = self.singles {
            found[at] = singles;
        }
        self.found = Some(found);
    }

    fn ways_in(&self, kind: usize, owner: Owner, members: &[usize], left: &[Bottom]) -> Vec<Way> {
        let nodes = self.kinds[kind].nodes;
        let own: Vec<u32> = members.iter().map(|&at| left[at].own_of(owner)).collect();
        let free: Vec<u32> = members.iter().map(|&at| left[at].free).collect();
        let (owns, frees) = (own.iter().sum::<u32>(), free.iter().sum::<u32>());
        let mut ways: Vec<Way> = Vec::new();
        if owns.saturating_add(frees) < nodes {
            return ways;
        }
        let sizes = self.narrower(kind);
        let all = left.len() <= EVERY_MAX;
        let most = WORK_MAX.saturating_sub(self.work) / members.len().max(1) + 1;
        for of_own in (nodes.saturating_sub(frees)..=owns.min(nodes)).rev() {
            for own_after in spreads(&own, of_own, &sizes, all.then_some(most)) {
                for free_after in spreads(&free, nodes - of_own, &sizes, all.then_some(most)) {
                    let changed = members.iter().zip(own_after.iter().zip(&free_after)).map(|(&at, (own, free))| {
                        let others = left[at].own.iter().filter(|((other, _), _)| *other != owner).copied();
                        let mut all: Vec<_> = others.chain((*own > 0).then_some(((owner, ANY), *own))).collect();
                        all.sort_unstable();
                        (at, Bottom { free: *free, own: all })
                    });
                    let spoils = spoiled(&free, &free_after, &sizes);
                    if ways.len() >= most {
                        return ways;
                    }
                    ways.push(Way { spoils, lacking: nodes - of_own, left: changed.collect() });
                }
            }
        }
        ways
    }

    /// Sizes of the kinds at narrower levels, the smallest first.
    fn narrower(&self, kind: usize) -> Vec<u32> {
        let below = self.kinds[kind + 1..].iter().filter(|other| other.depth > self.kinds[kind].depth);
        let mut sizes: Vec<u32> = below.map(|kind| kind.nodes).filter(|nodes| *nodes > 1).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}

fn spoiled(before: &[u32], after: &[u32], sizes: &[u32]) -> Vec<u32> {
    let whole = |free: &[u32], nodes: u32| free.iter().map(|free| free / nodes).sum::<u32>();
    sizes.iter().rev().map(|&nodes| whole(before, nodes) - whole(after, nodes)).collect()
}

/// What is left when so many nodes are drawn: those left over from narrower cells first, or the fewest, or in so many of
/// all ways.
fn spreads(have: &[u32], wanted: u32, sizes: &[u32], all: Option<usize>) -> Vec<Vec<u32>> {
    let drained = |sizes: &[u32]| {
        let mut after = have.to_vec();
        drain(&mut after, wanted, sizes);
        after
    };
    let mut found = vec![drained(sizes), drained(&[])];
    if let Some(most) = all {
        every((have, most), wanted, &mut have.to_vec(), 0, &mut found);
    }
    found.sort_by_key(|after| Reverse(after.clone()));
    found.dedup();
    found
}

fn every((have, most): (&[u32], usize), wanted: u32, after: &mut Vec<u32>, at: usize, found: &mut Vec<Vec<u32>>) {
    if wanted == 0 {
        return found.push(after.clone());
    }
    let left: u64 = have[at..].iter().map(|nodes| u64::from(*nodes)).sum();
    if found.len() >= most || left < u64::from(wanted) {
        return;
    }
    for taken in 0..=have[at].min(wanted) {
        after[at] = have[at] - taken;
        every((have, most), wanted - taken, after, at + 1, found);
    }
    after[at] = have[at];
}
