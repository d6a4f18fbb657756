//! The least moment at which one admissible domain has room for a gang, from what is known of each
//! node's future: nodes are taken up in the order in which they could be ready at the soonest.

use super::bookings::{BookedPart, Booking};
use super::cells::Cut;
use super::feasible::{amount_on, per_node_max};
use super::fill::Kind;
use super::foreseen::Ground;
use super::ledger::{DomainId, NodeView};
use super::place::models_of;
use super::round::Round;
use super::scope::Wish;
use super::search::{self, Search};
use super::take::KeptAhead;
use super::timeline::whole_bits;
use super::waiting::{Item, is_fungible};
use crate::command::PlacedPart;
use crate::policy::{Domains, Policy};
use muster_common::job::GroupRequest;
use muster_common::node::Inventory;
use muster_common::resources::Amount;
use muster_common::topology::FabricSpec;
use muster_common::{DeviceId, GangId, Name, NodeId, Time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// A start that can be had, and the nodes as they will be then, without the gang and without others that
/// are booked.
pub struct Start {
    pub at: Time,
    pub parts: Vec<PlacedPart>,
    pub views: Vec<NodeView>,
}

/// A request whose room adds up from what each node of a domain gives.
struct Plain {
    need: u64,
    /// Devices by which nodes are listed.
    listed: u32,
    unit: Unit,
    homes: Vec<(usize, usize)>,
}

/// What one node gives.
#[derive(Clone, Copy)]
enum Unit {
    /// 1, when it has so many whole devices.
    Whole(u32),
    /// 1, when it has such shares of so many devices.
    Shares(u32, u16),
    /// As many whole devices as it has, up to so many.
    Devices(u32),
}

impl Plain {
    /// `None` for a request that has to be searched for.
    fn of(group: &GroupRequest, fabric: &FabricSpec, policy: &Policy) -> Option<Self> {
        let wish = Wish::of(group, fabric);
        if Cut::of(group, fabric).is_some() || wish.few.is_some() {
            return None;
        }
        let kind = Kind::of(group);
        let (need, listed, unit) = match &kind {
            Kind::Whole { per_node, .. } => (kind.need(), *per_node, Unit::Whole(*per_node)),
            Kind::Shared { per_node, .. } => (kind.need(), 0, Unit::Shares(*per_node, group.share.0.min(1000))),
            Kind::CpuOnly { .. } => (kind.need(), 0, Unit::Whole(0)),
            Kind::Total(total) if policy.domains == Domains::NodeThenLevel || total.step > 1 => return None,
            Kind::Total(total) if wish.one_node && kind.fits_one_node() => {
                (1, total.devices, Unit::Whole(total.devices))
            }
            Kind::Total(total) if total.per_node_min <= 1 => (kind.need(), 1, Unit::Devices(per_node_max(total))),
            Kind::Total(_) => return None,
        };
        // More than one node's worth on one node: never.
        let need = if wish.one_node && need > 1 { u64::MAX } else { need };
        Some(Self { need, listed, unit, homes: wish.homes })
    }

    fn gives(&self, search: &Search, view: &NodeView, steps: &mut u64) -> u64 {
        match self.unit {
            Unit::Whole(devices) => u64::from(search.gives(view, devices, steps)),
            Unit::Shares(devices, milli) => u64::from(search.shared_slots(view, devices, milli, steps).is_some()),
            Unit::Devices(most) => {
                let most = most.min(self.need.min(u64::from(u32::MAX)) as u32);
                u64::from(search.gives_up_to(view, most, steps))
            }
        }
    }
}

impl Plain {
    /// As [`Self::gives`], of a node that has so many whole devices free, each as good as any other. Not for shares.
    fn gives_of(&self, search: &Search, inventory: &Inventory, (free, left): (u32, Amount), steps: &mut u64) -> u64 {
        let mut enough = |devices: u32| {
            *steps += 1;
            free >= devices && left.covers(&amount_on(search.group, inventory, devices))
        };
        match self.unit {
            Unit::Whole(devices) => u64::from(enough(devices)),
            Unit::Devices(most) => {
                let most = most.min(self.need.min(u64::from(u32::MAX)) as u32).min(free);
                (1..=most).rev().find(|devices| enough(*devices)).unwrap_or(0).into()
            }
            Unit::Shares(..) => 0,
        }
    }
}

/// What one node of the sweep gives now, and since when it gives anything.
struct Given {
    id: NodeId,
    /// Place in [`Sums`].
    domain: usize,
    gives: u64,
    since: Time,
}

/// What the nodes of each domain give together.
#[derive(Default)]
struct Sums {
    places: BTreeMap<Vec<DomainId>, usize>,
    sums: Vec<u64>,
}

impl Sums {
    fn place_of(&mut self, domain: Vec<DomainId>) -> usize {
        let next = self.sums.len();
        let at = *self.places.entry(domain).or_insert(next);
        if at == next {
            self.sums.push(0);
        }
        at
    }
}

/// What is booked on one node, for a gang that would run so long beside it.
struct Beside<'a> {
    start: Time,
    end: Time,
    run_ms: u64,
    share: &'a BookedPart,
    /// Its devices as bits, where all of them are whole.
    whole: Option<u64>,
}

impl Beside<'_> {
    /// Is it in the way of a start then?
    fn is_met(&self, start: Time) -> bool {
        self.start < start.plus_ms(self.run_ms) && start < self.end
    }
}

/// Wholly free slots as bits; `None` where any is shared.
fn whole_of(free: &[u16]) -> Option<u64> {
    let bit = |bits, (slot, milli): (usize, &u16)| match milli {
        0 => Some(bits),
        1000 => Some(bits | 1 << slot),
        _ => None,
    };
    (free.len() <= 64).then(|| free.iter().enumerate().try_fold(0, bit)).flatten()
}

/// Writes down what bookings leave of a node to a gang that starts then. False: all of it.
fn left_beside(beside: &[Beside], start: Time, view: &NodeView, left: &mut Option<NodeView>) -> bool {
    let mut met = beside.iter().filter(|other| other.is_met(start)).peekable();
    if met.peek().is_none() {
        return false;
    }
    let left = match left {
        Some(left) => {
            left.resemble(view);
            left
        }
        None => left.insert(view.clone()),
    };
    for Beside { share, .. } in met {
        for &(slot, milli) in &share.devices {
            let free = &mut left.free[usize::from(slot)];
            *free = free.saturating_sub(milli);
        }
        left.amount = left.amount.minus(&share.amount).unwrap_or_default();
    }
    left.count_whole();
    true
}

/// The earliest start, and what it was found on.
pub struct Foresight {
    pub start: Option<Start>,
    pub ground: Ground,
}

impl Round<'_> {
    /// Can the request's room be added up from nodes?
    pub(super) fn is_plain(&self, item: &Item) -> bool {
        let ([group], []) = (item.scheduling.groups.as_slice(), item.scheduling.together.as_slice()) else {
            return false;
        };
        Plain::of(group, self.state.fabric(), self.state.policy()).is_some()
    }

    /// The earliest start of a plain request before some moment that leaves all bookings as they are, anywhere or
    /// within one domain.
    pub(super) fn earliest(
        &mut self,
        gang: GangId,
        item: &Item,
        before: Time,
        within: Option<DomainId>,
    ) -> Option<Foresight> {
        let group = item.scheduling.groups.first()?;
        let plain = Plain::of(group, self.state.fabric(), self.state.policy())?;
        let none = BTreeSet::new();
        let classes: BTreeSet<_> = models_of(group, self.ledger)
            .into_iter()
            .flat_map(|models| Search::of(self.searched(gang, &none), group, models).classes)
            .collect();
        for class in &classes {
            self.times.list(*class, plain.listed);
        }
        let mut steps = 0;
        let mut best: Option<Start> = None;
        let mut upto = Time::ZERO;
        for models in models_of(group, self.ledger) {
            let until = best.as_ref().map_or(before, |start| start.at);
            let search = Search::of(self.searched(gang, &none), group, models);
            let found = self.sweep(&plain, &search, item, (until, within), &mut steps);
            upto = upto.max(found.as_ref().map_or(until, |start| start.at));
            best = found.or(best);
        }
        self.spent += steps;
        Some(Foresight { start: best, ground: Ground { classes, devices: plain.listed, upto } })
    }

    fn searched<'g>(&'g self, gang: GangId, taken: &'g BTreeSet<NodeId>) -> search::Ground<'g> {
        search::Ground {
            ledger: self.ledger,
            fabric: self.state.fabric(),
            policy: self.state.policy(),
            excluded: self.excluded(gang),
            taken,
            gang,
        }
    }

    /// Takes up nodes and what changes on them, moment by moment, until one domain has enough.
    fn sweep(
        &self,
        plain: &Plain,
        search: &Search,
        item: &Item,
        (until, within): (Time, Option<DomainId>),
        steps: &mut u64,
    ) -> Option<Start> {
        let ready = search.classes.iter().map(|class| self.times.ready(*class, plain.listed).peekable());
        let mut ready: Vec<_> = ready.collect();
        let mut nodes: Vec<Given> = Vec::new();
        let mut events: BinaryHeap<Reverse<(Time, usize, u64)>> = BinaryHeap::new();
        let mut sums = Sums::default();
        let mut beside = Vec::new();
        loop {
            let soonest = ready.iter_mut().filter_map(|nodes| nodes.peek()).map(|(at, _)| (*at).max(self.now)).min();
            let next = events.peek().map(|Reverse((at, ..))| *at);
            let at = soonest.into_iter().chain(next).min().filter(|at| *at < until)?;
            for list in &mut ready {
                while let Some((_, id)) = list.next_if(|(soonest, _)| *soonest <= at) {
                    *steps += 1;
                    let Some(domain) = self.homes_of(id, &plain.homes, within) else { continue };
                    let node = nodes.len();
                    let mut see = |at, gives| events.push(Reverse((at, node, gives)));
                    if self.gives_plainly(id, plain, search, &mut see) {
                        *steps += 1;
                    } else {
                        self.gives_when(id, (plain, search), item, &mut beside, steps, &mut see);
                    }
                    nodes.push(Given { id, domain: sums.place_of(domain), gives: 0, since: Time::NEVER });
                }
            }
            let mut reached: BTreeSet<usize> = BTreeSet::new();
            while let Some(Reverse((_, node, gives))) = events.peek().copied().filter(|Reverse((when, ..))| *when <= at)
            {
                events.pop();
                let node = &mut nodes[node];
                if node.gives == 0 {
                    node.since = at;
                }
                let sum = &mut sums.sums[node.domain];
                *sum = *sum - node.gives + gives;
                node.gives = gives;
                if *sum >= plain.need {
                    reached.insert(node.domain);
                }
            }
            reached.retain(|domain| sums.sums[*domain] >= plain.need);
            if reached.is_empty() {
                continue;
            }
            let path = |domain: &Vec<DomainId>| -> Vec<Vec<Name>> {
                domain.iter().map(|domain| self.ledger.domain_view(*domain).path.clone()).collect()
            };
            let reached = sums.places.iter().filter(|(_, at)| reached.contains(at));
            if let Some((_, &domain)) = reached.min_by_key(|(domain, _)| path(domain)) {
                nodes.retain(|node| node.gives > 0 && node.domain == domain);
                return Some(self.start_at(at, nodes, plain, search, item, steps));
            }
        }
    }

    /// The domains of a node in which all of the gang must be; `None` where it is in none, or outside of `within`.
    fn homes_of(&self, id: NodeId, homes: &[(usize, usize)], within: Option<DomainId>) -> Option<Vec<DomainId>> {
        let view = self.ledger.node(id).filter(|view| within.is_none_or(|domain| view.is_in(domain)))?;
        let domains = &view.facts.domains;
        let home = |(tree, depth): &(usize, usize)| {
            domains.iter().copied().find(|domain| {
                let view = self.ledger.domain_view(*domain);
                view.tree == *tree && view.depth == *depth
            })
        };
        homes.iter().map(home).collect()
    }

    /// As [`Self::gives_when`], for a node that nothing is booked on and no part of which is short of anything
    /// but devices. False for any other: it has to be looked at more closely.
    fn gives_plainly(&self, id: NodeId, plain: &Plain, search: &Search, see: &mut dyn FnMut(Time, u64)) -> bool {
        let (first, last) = match plain.unit {
            Unit::Whole(devices @ 1..) => (devices, devices),
            Unit::Devices(most) => (1, most.min(plain.need.min(u64::from(u32::MAX)) as u32)),
            Unit::Whole(0) | Unit::Shares(..) => return false,
        };
        let (Some(view), Some(line)) = (self.ledger.node(id), self.times.line(id)) else { return false };
        if self.own.contains_key(&id)
            || self.taking.ahead.contains_key(&id)
            || !self.booked.is_free(id)
            || !search.may_use(view)
            || !line.is_plain(view)
        {
            return false;
        }
        let each = || (first..=last).map_while(|devices| Some((devices, line.ready_for(devices)?.max(self.now))));
        let enough = |(devices, at): (u32, Time)| {
            line.amount_at(view, at).covers(&amount_on(search.group, &view.facts.inventory, devices))
        };
        if !each().all(enough) {
            return false;
        }
        let whole = first == last && matches!(plain.unit, Unit::Whole(_));
        each().for_each(|(devices, at)| see(at, if whole { 1 } else { u64::from(devices) }));
        true
    }

    /// From when on a node gives how much to a gang that starts then, each change of it.
    fn gives_when<'r>(
        &'r self,
        id: NodeId,
        (plain, search): (&Plain, &Search),
        item: &Item,
        beside: &mut Vec<Beside<'r>>,
        steps: &mut u64,
        see: &mut dyn FnMut(Time, u64),
    ) {
        let mut moments: Vec<Time> = Vec::new();
        let counts = matches!(plain.unit, Unit::Devices(_));
        self.beside(id, item, beside);
        self.kept_ahead(id, beside);
        for other in beside.iter() {
            // Whoever starts then reaches into the booking; from its end on nobody does.
            let too_late = Time(other.start.0.saturating_sub(other.run_ms)).plus_ms(1);
            moments.extend([too_late, other.end].into_iter().filter(|at| *at > self.now && *at < Time::NEVER));
        }
        let booked = !beside.is_empty();
        let mut before = 0;
        let mut see = |at, gives| {
            if std::mem::replace(&mut before, gives) != gives {
                see(at, gives);
            }
            // What is freed later takes no room away, and one node gives no more than once.
            gives == 0 || counts || booked
        };
        let Some(moments) = self.futures_of_whole(id, (plain, search), (beside, moments), steps, &mut see) else {
            return;
        };
        let mut left: Option<NodeView> = None;
        self.futures(id, moments, &mut |at, view| {
            let gives = match left_beside(beside, at, view, &mut left) {
                true => plain.gives(search, left.as_ref().unwrap_or(view), steps),
                false => plain.gives(search, view, steps),
            };
            see(at, gives)
        });
    }

    /// As [`Self::futures`] of a node on which nothing is shared, its devices as bits, seen as what they give. The
    /// moments again for any other.
    fn futures_of_whole(
        &self,
        id: NodeId,
        (plain, search): (&Plain, &Search),
        (beside, mut moments): (&[Beside], Vec<Time>),
        steps: &mut u64,
        see: &mut dyn FnMut(Time, u64) -> bool,
    ) -> Option<Vec<Time>> {
        let (Some(view), Some(line)) = (self.ledger.node(id), self.times.line(id)) else { return Some(moments) };
        let is_even = !view.facts.varied && view.facts.islands.cut.is_empty() && !self.own.contains_key(&id);
        let are_whole = beside.iter().all(|other| other.whole.is_some());
        let releases = || line.releases().iter().map(|release| release.gives_whole(line));
        let free = whole_of(&view.free).filter(|_| is_even && are_whole && search.may_use(view));
        let (Some(mut free), false) = (free, matches!(plain.unit, Unit::Shares(..))) else { return Some(moments) };
        if releases().any(|release| release.is_none()) {
            return Some(moments);
        }
        moments.push(self.now);
        moments.extend(line.releases().iter().map(|release| release.at).filter(|at| *at > self.now));
        moments.sort_unstable();
        moments.dedup();
        let mut amount = view.amount;
        let mut next = line.releases().iter().zip(releases().flatten()).peekable();
        for at in moments {
            while let Some((_, (slots, more))) = next.next_if(|(release, _)| release.at <= at) {
                free |= slots;
                amount = amount.plus(more);
            }
            let (mut slots, mut left) = (free, amount);
            for other in beside.iter().filter(|other| other.is_met(at)) {
                slots &= !other.whole.unwrap_or(0);
                left = left.minus(&other.share.amount).unwrap_or_default();
            }
            if !see(at, plain.gives_of(search, &view.facts.inventory, (slots.count_ones(), left), steps)) {
                break;
            }
        }
        None
    }

    /// Shows a node as it will be now and at each moment at which somebody lets go of something, for as
    /// long as anybody cares to see more.
    fn futures(&self, id: NodeId, moments: Vec<Time>, see: &mut dyn FnMut(Time, &NodeView) -> bool) {
        let (Some(view), Some(line)) = (self.ledger.node(id), self.times.line(id)) else { return };
        let mut view = view.clone();
        let own: &[(Time, PlacedPart)] = self.own.get(&id).map_or(&[], Vec::as_slice);
        let all = line.releases().iter().map(|release| release.at).chain(own.iter().map(|(at, _)| *at));
        let mut later = moments;
        later.extend(all.filter(|at| *at > self.now));
        later.sort_unstable();
        later.dedup();
        let mut releases = line.releases().iter().peekable();
        for at in std::iter::once(self.now).chain(later) {
            while let Some(release) = releases.next_if(|release| release.at <= at) {
                line.give_back(&mut view, release);
            }
            own.iter()
                .filter(|(end, _)| *end == at)
                .for_each(|(_, part)| line.give(&mut view, &part.devices, &part.amount));
            view.count_whole();
            if !see(at, &view) {
                return;
            }
        }
    }

    /// What is booked on a node, as a gang looks at it.
    fn beside<'r>(&'r self, id: NodeId, item: &Item, found: &mut Vec<Beside<'r>>) {
        let beside = |(booking, share): (&'r Booking, &'r BookedPart)| {
            let Booking { start, end, .. } = *booking;
            Beside { start, end, run_ms: booking.run_beside(item), share, whole: whole_bits(&share.devices) }
        };
        found.clear();
        found.extend(self.booked.on(id).map(beside));
    }

    /// What is kept of a node for others. Whoever starts before that is kept has it from whom it comes from.
    fn kept_ahead<'r>(&'r self, id: NodeId, found: &mut Vec<Beside<'r>>) {
        let kept = self.taking.ahead.get(&id).into_iter().flatten().flat_map(KeptAhead::parts);
        let beside = |(start, end, share): (Time, Time, &'r BookedPart)| Beside {
            start,
            end,
            run_ms: 1,
            share,
            whole: whole_bits(&share.devices),
        };
        found.extend(kept.map(beside));
    }

    /// The node as it will be then, and the same less what is booked of it meanwhile, if anything is.
    pub(super) fn view_at(&self, id: NodeId, start: Time, item: &Item) -> Option<(NodeView, Option<NodeView>)> {
        let (line, mut view) = (self.times.line(id)?, self.ledger.node(id)?.clone());
        for release in line.releases().iter().take_while(|release| release.at <= start) {
            line.give_back(&mut view, release);
        }
        let own = self.own.get(&id).into_iter().flatten().filter(|(end, _)| *end <= start);
        own.for_each(|(_, part)| line.give(&mut view, &part.devices, &part.amount));
        view.count_whole();
        let (mut left, mut beside) = (None, Vec::new());
        self.kept_ahead(id, &mut beside);
        if left_beside(&beside, start, &view, &mut left) {
            view = left.take().unwrap_or(view);
        }
        self.beside(id, item, &mut beside);
        let met = left_beside(&beside, start, &view, &mut left);
        Some((view, left.filter(|_| met)))
    }

    /// One set of devices that will do. Nodes that come free last are taken first: what is free now
    /// stays for fillers.
    fn start_at(
        &self,
        at: Time,
        mut nodes: Vec<Given>,
        plain: &Plain,
        search: &Search,
        item: &Item,
        steps: &mut u64,
    ) -> Start {
        let anywhere = is_fungible(&item.scheduling) && self.state.policy().domains == Domains::Anywhere;
        nodes.sort_unstable_by_key(|node| (Reverse(node.since), node.id));
        let views = nodes.iter().filter_map(|node| Some((node.gives, self.view_at(node.id, at, item)?)));
        let (mut parts, mut kept) = (Vec::new(), Vec::new());
        if anywhere {
            let views = views.map(|(_, views)| views).collect();
            return self.any_devices(at, views, search, plain.need as usize);
        }
        let mut left = plain.need;
        for (gives, (view, beside)) in views {
            if left == 0 {
                break;
            }
            let (count, used) = match plain.unit {
                Unit::Devices(_) => (gives.min(left), gives.min(left)),
                Unit::Whole(devices) | Unit::Shares(devices, _) => (u64::from(devices), 1),
            };
            left -= used;
            parts.push(search.part_on(beside.as_ref().unwrap_or(&view), count as u32, 0, steps));
            kept.push(view);
        }
        Start { at, parts, views: kept }
    }

    /// Any so many devices, those that are busy now before the others.
    fn any_devices(&self, at: Time, views: Vec<(NodeView, Option<NodeView>)>, search: &Search, need: usize) -> Start {
        let mut slots: Vec<(bool, Reverse<DeviceId>)> = Vec::new();
        for (view, beside) in &views {
            let node = view.facts.id;
            let now = self.ledger.node(node).map_or(&[][..], |view| &view.free);
            for slot in search.free_slots(beside.as_ref().unwrap_or(view)) {
                slots.push((now.get(usize::from(slot)) == Some(&1000), Reverse(DeviceId { node, slot })));
            }
        }
        slots.sort_unstable();
        slots.truncate(need);
        let mut by_node: BTreeMap<NodeId, Vec<(u16, u16)>> = BTreeMap::new();
        for (_, Reverse(device)) in slots {
            by_node.entry(device.node).or_default().push((device.slot, 1000));
        }
        let (mut parts, mut kept) = (Vec::new(), Vec::new());
        for (view, _) in views {
            let Some(devices) = by_node.remove(&view.facts.id) else { continue };
            let amount = amount_on(search.group, &view.facts.inventory, devices.len() as u32);
            let (node, epoch) = (view.facts.id, view.facts.epoch);
            parts.push(PlacedPart { group: 0, node, epoch, devices, amount });
            kept.push(view);
        }
        Start { at, parts, views: kept }
    }
}
