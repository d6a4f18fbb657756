//! Which of the cells that are owned can be had: each is given a domain of its own, from the top level
//! down, so that wider free cells are split only for what is owed below them (HiveD's argument, ADR 7).
//!
//! A node serves anybody's cell while all of it is free or can be taken back in time, and its owner's
//! while what is in the way is that owner's own work. A cell that its owner has begun to use is completed
//! where it was begun: that takes fewer free nodes than a new one, and at its own level never more of them.

use super::search::search;
use std::cmp::Reverse;

/// An account, by its place in the document.
pub type Owner = u16;
/// A kind by its place in the list; for work that is of no one kind, [`ANY`].
pub type KindAt = u8;
pub const ANY: KindAt = u8::MAX;
/// Whose work is on a node, and cells of which kind it would use.
pub type Whose = (Owner, KindAt);

/// Cells of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// 1 = the widest level of the tree; 0 = single nodes, wherever they are.
    pub depth: usize,
    pub nodes: u32,
    /// In the document's order.
    pub owned: Vec<(Owner, u32)>,
    /// The level's domains, as places in the list of [`Bottom`]s.
    pub domains: Vec<Vec<usize>>,
}

/// What there is in one domain of the narrowest level at which cells are owned.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bottom {
    /// Nodes that serve anybody's cell.
    pub free: u32,
    /// Nodes that serve only their owner's. Nobody is listed with 0.
    pub own: Vec<(Whose, u32)>,
}

/// What became of one owner's cells of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Had {
    /// Its own work is in them.
    pub used: u32,
    /// Nodes of those that nothing of its own is on.
    pub spare: u32,
    /// They can be had whenever it wants them.
    pub obtainable: u32,
    /// Nowhere to be had.
    pub lost: u32,
}

/// By kind, then as in [`Kind::owned`].
pub type Assigned = Vec<Vec<Had>>;

/// What is drawn from.
#[derive(Debug, Clone, Copy)]
enum Source {
    Free,
    /// An owner's nodes with work that uses cells of this kind.
    Of(Whose),
    /// An owner's nodes, whatever is on them.
    All(Owner),
}

impl Bottom {
    fn have(&self, source: Source) -> u32 {
        let sum = |wanted: &dyn Fn(&Whose) -> bool| {
            self.own.iter().filter(|(whose, _)| wanted(whose)).map(|(_, nodes)| *nodes).sum()
        };
        match source {
            Source::Free => self.free,
            Source::Of(whose) => sum(&|other| *other == whose),
            Source::All(owner) => sum(&|other| other.0 == owner),
        }
    }

    fn take(&mut self, source: Source, mut nodes: u32) {
        let wanted = |whose: &Whose| match source {
            Source::Free => false,
            Source::Of(known) => *whose == known,
            Source::All(owner) => whose.0 == owner,
        };
        if let Source::Free = source {
            self.free -= nodes;
        }
        for (_, have) in self.own.iter_mut().filter(|(whose, _)| wanted(whose)) {
            let taken = (*have).min(nodes);
            (*have, nodes) = (*have - taken, nodes - taken);
        }
        self.own.retain(|(_, nodes)| *nodes > 0);
    }

    /// Nodes that serve one owner only.
    pub fn own_of(&self, owner: Owner) -> u32 {
        self.have(Source::All(owner))
    }

    /// The same, whatever kinds its owners' work is of.
    pub fn by_owner(&self) -> Self {
        let mut own: Vec<(Whose, u32)> = Vec::new();
        for ((owner, _), nodes) in &self.own {
            match own.last_mut() {
                Some(((other, _), known)) if other == owner => *known += nodes,
                _ => own.push(((*owner, ANY), *nodes)),
            }
        }
        Self { free: self.free, own }
    }

    /// Counts nodes of an owner, or no longer.
    pub fn change_own(&mut self, whose: Whose, more: i32) {
        match self.own.binary_search_by_key(&whose, |(whose, _)| *whose) {
            Ok(at) => {
                self.own[at].1 = self.own[at].1.saturating_add_signed(more);
                if self.own[at].1 == 0 {
                    self.own.remove(at);
                }
            }
            Err(at) if more > 0 => self.own.insert(at, (whose, more.unsigned_abs())),
            Err(_) => {}
        }
    }
}

/// Now, and at last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outlook {
    /// Own work uses any cells of its owner: what is lost then is lost because of others, or of the hardware.
    pub at_least: Assigned,
    /// Lost even when all work of owners has ended, by kind. Empty while nothing is lost: nothing will be then.
    pub at_last: Vec<u32>,
}

impl Outlook {
    /// Cells that nobody can have, by kind: first now, then at last.
    pub fn lost(&self) -> Vec<u32> {
        let mut lost = sums(&self.at_least);
        lost.extend(&self.at_last);
        lost
    }

    /// Those that are lost because of others, or of the hardware.
    pub fn lost_of_others(&self) -> u64 {
        sums(&self.at_least).into_iter().map(u64::from).sum()
    }

    /// What one owner has of one kind, as far as both can be said at once: where its own work could be in other cells
    /// than the smallest and nobody lacked one then, it is in those.
    pub fn had(&self, kind: usize, place: usize) -> Had {
        self.at_least[kind][place]
    }
}

/// Nodes of all cells that are lost.
pub fn missing(kinds: &[Kind], assigned: &Assigned) -> u64 {
    kinds.iter().zip(sums(assigned)).map(|(kind, lost)| u64::from(kind.nodes) * u64::from(lost)).sum()
}

fn sums(assigned: &Assigned) -> Vec<u32> {
    assigned.iter().map(|kind| kind.iter().map(|had| had.lost).sum()).collect()
}

/// Cells that are lost, by kind, where so many nodes of each bottom are free and nobody has begun any.
pub fn lost_of(kinds: &[Kind], free: &[u32]) -> Vec<u32> {
    let bottoms: Vec<Bottom> = free.iter().map(|free| Bottom { free: *free, own: Vec::new() }).collect();
    sums(&attempt(kinds, &bottoms, Order::Widest).0)
}

/// Cells that are lost, by kind, where work of one owner uses the smallest of its cells that hold it, and wider ones
/// only where those are too few; others' work uses any.
pub fn strictly_lost(kinds: &[Kind], bottoms: &[Bottom], owner: Owner) -> Vec<u32> {
    sums(&attempt(kinds, bottoms, Order::Smallest(Some(owner))).0)
}

/// `kinds`: the widest level first and the most nodes first in it, single nodes last. `at_last`: of each bottom, nodes that
/// are whole when all work of owners has ended. `most`: where more nodes of cells than that are lost, nobody asks how many.
pub fn assign(kinds: &[Kind], bottoms: &[Bottom], at_last: &[u32], most: u64) -> Outlook {
    let mut best = attempt(kinds, bottoms, Order::Smallest(None));
    for order in [Order::Widest, Order::Narrowest] {
        if best.1 > 0 {
            let other = attempt(kinds, bottoms, order);
            best = if other.1 < best.1 { other } else { best };
        }
    }
    if best.1 == 0 {
        return Outlook { at_least: best.0, at_last: Vec::new() };
    }
    // What is lost even then is lost for certain; of the rest, greed may just not have found it.
    let at_last = lost_of(kinds, at_last);
    let floor = kinds.iter().zip(&at_last).map(|(kind, lost)| u64::from(kind.nodes) * u64::from(*lost)).sum();
    let worth = best.1 > floor && floor <= most;
    let better = if worth { search(kinds, bottoms, best.1.min(most.saturating_add(1)), floor) } else { None };
    let at_least = better.unwrap_or(best.0);
    let any = sums(&at_least).iter().any(|lost| *lost > 0);
    Outlook { at_least, at_last: if any { at_last } else { Vec::new() } }
}

/// Which cells are given the nodes first that their owners' work is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The smallest that hold it: of one owner's work, or of everybody's.
    Smallest(Option<Owner>),
    Widest,
    Narrowest,
}

/// With the nodes of all cells that are lost.
fn attempt(kinds: &[Kind], bottoms: &[Bottom], order: Order) -> (Assigned, u64) {
    let mut left = bottoms.to_vec();
    let mut found: Assigned = kinds.iter().map(|kind| vec![Had::default(); kind.owned.len()]).collect();
    for at in (0..kinds.len()).rev() {
        let mut serving = Serving { kinds, at, left: &mut left };
        match order {
            Order::Smallest(whose) => {
                overflow(kinds, (at, whose), serving.left, &mut found);
                serving.complete(&mut found[at], (whose, Some(at as KindAt)));
            }
            Order::Widest => {}
            Order::Narrowest => serving.complete(&mut found[at], (None, None)),
        }
    }
    for (at, found) in found.iter_mut().enumerate() {
        let mut serving = Serving { kinds, at, left: &mut left };
        serving.complete(found, (None, None));
        serving.split_off(found);
    }
    let missing = missing(kinds, &found);
    (found, missing)
}

/// Work that there are too few cells of its kind for begins wider ones, where those lack least.
fn overflow(kinds: &[Kind], (at, whose): (usize, Option<Owner>), left: &mut [Bottom], found: &mut Assigned) {
    let every: Vec<usize> = (0..left.len()).collect();
    let theirs = |(owner, _): &&(Owner, u32)| whose.is_none_or(|whose| whose == *owner);
    for (owner, number) in kinds[at].owned.iter().filter(theirs).copied() {
        let source = Source::Of((owner, at as KindAt));
        let own = Serving { kinds, at, left }.have(&every, source);
        let mut over = own.saturating_sub(number.saturating_mul(kinds[at].nodes));
        while over > 0 {
            let Some((wider, domain, nodes)) = begun_by(kinds, at, left, found, (owner, over)) else { break };
            let kind = &kinds[wider];
            let members = &kind.domains[domain];
            let mut serving = Serving { kinds, at: wider, left };
            serving.draw(members, source, nodes);
            serving.draw(members, Source::Free, kind.nodes - nodes);
            if let Some(place) = kind.owned.iter().position(|(other, _)| *other == owner) {
                found[wider][place].used += 1;
                found[wider][place].spare += kind.nodes - nodes;
            }
            over -= nodes;
        }
    }
}

/// The wider kind, its domain, and how many of an owner's nodes there it takes, where that lacks least.
fn begun_by(
    kinds: &[Kind],
    at: usize,
    left: &mut [Bottom],
    found: &Assigned,
    (owner, over): (Owner, u32),
) -> Option<(usize, usize, u32)> {
    let mut best: Option<(u32, usize, usize, u32)> = None;
    for wider in 0..at {
        let kind = &kinds[wider];
        let serving = Serving { kinds, at: wider, left };
        let place = kind.owned.iter().position(|(other, _)| *other == owner);
        // Cells that work of their own kind is in are not for it.
        let in_use = || -> u32 {
            let own = Source::Of((owner, wider as KindAt));
            kind.domains.iter().map(|members| serving.have(members, own).div_ceil(kind.nodes)).sum()
        };
        if place.is_none_or(|place| serving.owing(&found[wider], place) <= in_use()) {
            continue;
        }
        for (domain, members) in kind.domains.iter().enumerate() {
            let nodes = serving.have(members, Source::Of((owner, at as KindAt))).min(over).min(kind.nodes);
            let lacking = kind.nodes - nodes;
            let known = best.is_some_and(|(known, ..)| known <= lacking);
            if nodes > 0 && !known && serving.have(members, Source::Free) >= lacking {
                best = Some((lacking, wider, domain, nodes));
            }
        }
    }
    best.map(|(_, wider, domain, nodes)| (wider, domain, nodes))
}

/// One kind's turn.
struct Serving<'a, 'l> {
    kinds: &'a [Kind],
    at: usize,
    left: &'l mut [Bottom],
}

impl<'a> Serving<'a, '_> {
    fn kind(&self) -> &'a Kind {
        &self.kinds[self.at]
    }

    fn owing(&self, found: &[Had], place: usize) -> u32 {
        self.kind().owned[place].1 - found[place].used
    }

    fn have(&self, members: &[usize], source: Source) -> u32 {
        members.iter().map(|&at| self.left[at].have(source)).sum()
    }

    /// Cells with work of their owner in them, those that lack least first. `whose`: cells of one owner. `only`: work
    /// that uses this kind.
    fn complete(&mut self, found: &mut [Had], (whose, only): (Option<Owner>, Option<KindAt>)) {
        let kind = self.kind();
        let source = |owner| only.map_or(Source::All(owner), |only| Source::Of((owner, only)));
        let mut begun: Vec<(u32, usize, usize)> = Vec::new();
        for (domain, members) in kind.domains.iter().enumerate() {
            if members.iter().all(|&at| self.left[at].own.is_empty()) {
                continue;
            }
            let owned = kind.owned.iter().enumerate();
            for (place, (owner, _)) in owned.filter(|(_, (owner, _))| whose.is_none_or(|whose| whose == *owner)) {
                let own = self.have(members, source(*owner));
                let whole = (own / kind.nodes).min(self.owing(found, place));
                if whole > 0 {
                    self.draw(members, source(*owner), whole * kind.nodes);
                    found[place].used += whole;
                }
                let rest = own - whole * kind.nodes;
                if rest > 0 && rest < kind.nodes && self.owing(found, place) > 0 {
                    begun.push((kind.nodes - rest, domain, place));
                }
            }
        }
        begun.sort_unstable();
        for (lacking, domain, place) in begun {
            let members = &kind.domains[domain];
            if self.owing(found, place) > 0 && self.have(members, Source::Free) >= lacking {
                self.draw(members, source(kind.owned[place].0), kind.nodes - lacking);
                self.draw(members, Source::Free, lacking);
                found[place].used += 1;
                found[place].spare += lacking;
            }
        }
    }

    /// The other cells, out of what is free, where that spoils least for narrower ones.
    fn split_off(&mut self, found: &mut [Had]) {
        let kind = self.kind();
        let owed: u32 = (0..found.len()).map(|place| self.owing(found, place)).sum();
        let mut had = 0;
        let simple = kind.nodes == 1 || kind.domains.iter().all(|members| members.len() == 1);
        while had < owed {
            let fits = |members: &&Vec<usize>| self.have(members, Source::Free) >= kind.nodes;
            let best = match simple {
                true => kind.domains.iter().find(fits),
                false => kind.domains.iter().filter(fits).min_by_key(|members| self.spoiled(members)),
            };
            let Some(members) = best else { break };
            let cells = if simple { (self.have(members, Source::Free) / kind.nodes).min(owed - had) } else { 1 };
            self.draw(members, Source::Free, cells * kind.nodes);
            had += cells;
        }
        for place in 0..found.len() {
            let owing = self.owing(found, place);
            found[place].obtainable = owing.min(had);
            had -= found[place].obtainable;
            found[place].lost = owing - found[place].obtainable;
        }
    }

    /// Cells of narrower kinds that one cell out of here leaves no room for, the larger ones first.
    fn spoiled(&self, members: &[usize]) -> Vec<u32> {
        let whole = |free: &[u32], nodes: u32| free.iter().map(|free| free / nodes).sum::<u32>();
        let before: Vec<u32> = members.iter().map(|&at| self.left[at].free).collect();
        let mut after = before.clone();
        let sizes = self.narrower();
        drain(&mut after, self.kind().nodes, &sizes);
        sizes.iter().rev().map(|&nodes| whole(&before, nodes) - whole(&after, nodes)).collect()
    }

    /// Sizes of the kinds at narrower levels, the smallest first.
    fn narrower(&self) -> Vec<u32> {
        let below = self.kinds[self.at + 1..].iter().filter(|kind| kind.depth > self.kind().depth);
        let mut sizes: Vec<u32> = below.map(|kind| kind.nodes).filter(|nodes| *nodes > 1).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    fn draw(&mut self, members: &[usize], source: Source, nodes: u32) {
        let before: Vec<u32> = members.iter().map(|&at| self.left[at].have(source)).collect();
        let mut after = before.clone();
        drain(&mut after, nodes, &self.narrower());
        for ((&at, before), after) in members.iter().zip(before).zip(after) {
            self.left[at].take(source, before - after);
        }
    }
}

/// Takes nodes first where they are left over from cells of these sizes, the smallest size first.
pub(super) fn drain(have: &mut [u32], mut wanted: u32, sizes: &[u32]) {
    for size in sizes {
        for left in have.iter_mut() {
            let taken = (*left % size).min(wanted);
            (*left, wanted) = (*left - taken, wanted - taken);
        }
    }
    // As few of the others as will do: the least that is enough, or the fullest.
    while wanted > 0 {
        let enough = (0..have.len()).filter(|&at| have[at] >= wanted).min_by_key(|&at| have[at]);
        let Some(at) = enough.or_else(|| (0..have.len()).max_by_key(|&at| (have[at], Reverse(at)))) else { return };
        let taken = have[at].min(wanted);
        if taken == 0 {
            return;
        }
        (have[at], wanted) = (have[at] - taken, wanted - taken);
    }
}
