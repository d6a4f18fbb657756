//! Waking: for a gang that has waited as long as a pool asks for, and that the placer would put on its nodes.

use super::Powers;
use super::trial::{Opened, Sleepers, Trial};
use crate::apply::ORDERED_MAX;
use crate::command::{Command, PlacedPart, RequestNodes};
use crate::cycle::sticky_head;
use crate::plan::explain::Reason;
use crate::plan::lanes::Sought;
use crate::plan::round::Round;
use crate::plan::waiting::{Asked, Item, waits_since};
use crate::policy::Admission;
use crate::state::node::{DeviceState, Power};
use crate::state::reservation::ReservationKind;
use muster_common::{DeviceId, GangId, NodeId, Time};
use std::collections::BTreeSet;

/// Most gangs that one cycle tries to place on nodes that sleep; who asks for what was not found is none of them.
const SEARCHES_MAX: u32 = 1024;
/// Most places of the order that one cycle looks at for this.
const LOOKS_MAX: u32 = 16_384;
/// Of the searches so many in the order itself, before others would be stopped.
const FIRST_MAX: u32 = 64;

/// What came of looking for nodes to wake.
enum Woken {
    Asked(RequestNodes, Vec<PlacedPart>),
    /// There will be room for it beside others on what is on its way, of CPU and memory alone.
    Beside(Vec<PlacedPart>),
    /// Not with any of these nodes.
    Unfit,
    /// Only with more of them on their way than may be.
    Crowded,
    /// It has not waited long enough, or starts before they would come.
    Later,
}

/// One cycle's looking for gangs to wake nodes for.
pub(crate) struct Search<'p> {
    powers: &'p Powers,
    sleepers: Sleepers,
    opened: Opened,
    asked: Vec<Command>,
    /// Nobody is looked at behind one that could start here and cannot now.
    strict: bool,
    /// When that would be something else without any entry.
    next: Option<Time>,
    looks: u32,
    searches: u32,
    /// Requests that no nodes of the first so many pools are good for.
    in_vain: BTreeSet<(Asked, usize)>,
    /// Such as would take more than may be on their way.
    crowded: BTreeSet<(Asked, usize)>,
    /// Pools in which somebody waits for others to be on their way no more.
    waited_for: BTreeSet<usize>,
}

/// What a gang that was looked at means for others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Go,
    /// Of the same place in the order none is looked at any more.
    Leave,
    /// Nor any that asks for the same.
    LeaveKind,
    /// Nor any of that on the same account.
    LeavePayer,
    Stop,
}

impl Powers {
    /// What this cycle may wake, if anybody waits for it.
    pub fn search<'p>(&'p self, round: &Round) -> Option<Search<'p>> {
        if self.pools.is_empty() || round.waiting.by_order.is_empty() {
            return None;
        }
        let sleepers = self.sleepers(round);
        if sleepers.asleep.iter().all(BTreeSet::is_empty) && sleepers.waking.is_empty() {
            return None;
        }
        Some(Search {
            powers: self,
            sleepers,
            opened: Opened::default(),
            asked: Vec::new(),
            strict: matches!(round.state.policy().admission, Admission::HeadOfLine { .. }),
            next: None,
            looks: 0,
            searches: 0,
            in_vain: BTreeSet::new(),
            crowded: BTreeSet::new(),
            waited_for: BTreeSet::new(),
        })
    }

    /// Asks for nodes; returns when somebody will have waited long enough, or a node may be tried again, and the pools in
    /// which somebody waits for fewer nodes to be on their way.
    pub(super) fn wake(&self, round: &mut Round, commands: &mut Vec<Command>) -> (Option<Time>, BTreeSet<usize>) {
        if round.waiting.by_order.is_empty() {
            return (None, BTreeSet::new());
        }
        let rested_at = self.rested_at(round);
        let Some(mut search) = round.waking.take() else { return (rested_at, BTreeSet::new()) };
        round.count_kept();
        search.seat(round);
        search.walk(round);
        search.opened.close(round);
        commands.append(&mut search.asked);
        (rested_at.into_iter().chain(search.next).min(), search.waited_for)
    }

    fn sleepers(&self, round: &Round) -> Sleepers {
        let may = |node: &&NodeId| round.state.node(**node).is_some_and(|record| record.may_wake(round.now));
        let in_time = |power| matches!(power, Power::Waking { by, .. } if by > round.now);
        let comes = |node: &&NodeId| {
            round.state.node(**node).is_some_and(|record| record.is_in_service() && in_time(record.power))
        };
        Sleepers {
            asleep: self.pools.iter().map(|pool| pool.asleep.iter().filter(may).copied().collect()).collect(),
            waking: self.pools.iter().flat_map(|pool| pool.waking.iter().filter(comes).copied()).collect(),
            room: self
                .pools
                .iter()
                .map(|pool| {
                    let most = pool.rules.nodes_at_once;
                    (pool.changing > 0).then(|| most.saturating_sub(pool.changing) as usize)
                })
                .collect(),
        }
    }

    /// When the first of the nodes that did not wake may be tried again.
    fn rested_at(&self, round: &Round) -> Option<Time> {
        let rests = |node: &NodeId| match round.state.node(*node)?.power {
            Power::Asleep { rests_until, .. } => Some(rests_until).filter(|at| *at > round.now),
            _ => None,
        };
        self.pools.iter().flat_map(|pool| &pool.asleep).filter_map(rests).min()
    }

    /// How many pools the gang has waited long enough for, by which they come, and when it has for one more.
    fn ripe(&self, round: &Round, gang: GangId, item: &Item) -> (usize, Option<Time>) {
        let Some(since) = waits_since(round.state, gang, &item.scheduling) else { return (0, None) };
        let at = |pool: &super::Pool| since.plus_ms(pool.rules.wake_after_ms);
        let ripe = self.pools.iter().take_while(|pool| at(pool) <= round.now).count();
        (ripe, self.pools.get(ripe).map(at))
    }
}

impl Round<'_> {
    /// Wakes nodes for a gang for whom others would be stopped otherwise. True when it now waits for them.
    pub(crate) fn wake_first(&mut self, gang: GangId, item: &Item) -> bool {
        let stops = self.may_reclaim() || self.may_guarantee() || self.may_preempt(item);
        // What is guaranteed by shape is guaranteed within a time, which waking may take longer than.
        if !stops || self.may_guarantee() && self.is_within_shape(item) {
            return false;
        }
        let Some(mut search) = self.waking.take() else { return false };
        let woken = search.searches < FIRST_MAX && search.find_for(self, gang, item);
        search.opened.close(self);
        self.waking = Some(search);
        woken
    }
}

impl Search<'_> {
    /// What is on its way for gangs of CPU and memory alone is theirs, though no device is kept for it.
    fn seat(&mut self, round: &mut Round) {
        let known = round.state.reservations().values();
        let woken = known.filter(|known| known.kind == ReservationKind::Woken && known.witness.is_empty());
        let gangs: Vec<GangId> = woken.map(|known| known.gang).filter(|gang| !round.placed.contains(gang)).collect();
        for gang in gangs.into_iter().take(SEARCHES_MAX as usize) {
            let Some(item) = round.waiting.item_of(round.state, gang).cloned() else { continue };
            self.opened.open(round, &self.sleepers, 0);
            let parts = round.search(gang, &item);
            self.opened.close(round);
            parts.iter().for_each(|parts| round.take(parts));
        }
    }

    fn walk(&mut self, round: &mut Round) {
        if let Some((gang, item)) = sticky_head(round)
            && self.look(round, gang, &item) == Then::Stop
        {
            return;
        }
        let mut walk = round.waiting.by_order.walk(Sought { now: round.now, most_ms: u64::MAX });
        while let Some(item) = walk.next() {
            for gang in item.gangs(round.state) {
                match self.look(round, gang, item) {
                    Then::Go => continue,
                    Then::Leave => {}
                    Then::LeaveKind => walk.leave_kind(),
                    Then::LeavePayer => walk.leave_payer(),
                    Then::Stop => return,
                }
                break;
            }
        }
    }

    fn look(&mut self, round: &mut Round, gang: GangId, item: &Item) -> Then {
        if round.placed.contains(&gang) || round.waits_for_kept(gang) {
            return Then::Go;
        }
        (self.looks, round.spent) = (self.looks + 1, round.spent + 1);
        if self.looks > LOOKS_MAX || self.searches >= SEARCHES_MAX || round.spent >= round.state.policy().budget.steps {
            return Then::Stop;
        }
        match round.not_eligible(gang, item) {
            None if round.fills_array(gang, item) => return Then::Leave,
            None => {}
            Some(Reason::Parked) => return Then::Go,
            Some(_) if round.is_at_limit(item) => return Then::LeavePayer,
            Some(_) => return Then::Leave,
        }
        if self.find_for(round, gang, item) {
            return Then::Go;
        }
        // Who cannot start now keeps back those behind it, as in the order itself, but for who never can.
        if self.strict && round.could_ever(gang, item) {
            return Then::Stop;
        }
        let with_all = (item.asked(), self.powers.pools.len());
        let settled = self.in_vain.contains(&with_all) || self.crowded.contains(&with_all);
        if settled && self.are_alike(round, gang) { Then::LeaveKind } else { Then::Leave }
    }

    /// Does what one gang lacks tell what all lack that ask for the same?
    fn are_alike(&self, round: &Round, gang: GangId) -> bool {
        !round.has_quotas() && !round.booked.any_fixed() && round.excluded(gang).is_empty()
    }

    /// Asks for nodes for a gang. True when it has all it needs for now.
    fn find_for(&mut self, round: &mut Round, gang: GangId, item: &Item) -> bool {
        let (ripe, later) = self.powers.ripe(round, gang, item);
        self.next = self.next.into_iter().chain(later).min();
        let wanted = (item.asked(), ripe);
        let alike = self.are_alike(round, gang);
        if alike && (self.in_vain.contains(&wanted) || self.crowded.contains(&wanted)) {
            return false;
        }
        match self.wake_for(round, gang, item, ripe) {
            Woken::Asked(asked, parts) => {
                self.opened.close(round);
                self.take_for(round, &asked, &parts);
                self.asked.push(Command::RequestNodes(Box::new(asked)));
                return true;
            }
            Woken::Beside(parts) => {
                self.opened.close(round);
                round.take(&parts);
                return true;
            }
            Woken::Unfit if alike => drop(self.in_vain.insert(wanted)),
            Woken::Crowded if alike => drop(self.crowded.insert(wanted)),
            Woken::Unfit | Woken::Crowded | Woken::Later => {}
        }
        false
    }

    fn wake_for(&mut self, round: &mut Round, gang: GangId, item: &Item, ripe: usize) -> Woken {
        let pools = &self.powers.pools[..ripe];
        let wake_ms = pools.iter().map(|pool| pool.rules.wake_ms).max().unwrap_or(0);
        // A full cluster is not worked out anew: what was booked before stands, but for a start that did not come.
        let known = round.state.reservations().get(&gang).map(|known| known.start).filter(|start| *start > round.now);
        let booked = round.booked.get(gang).map(|booking| booking.start).or(known);
        if ripe == 0 || booked.is_some_and(|start| start <= round.now.plus_ms(wake_ms)) {
            return Woken::Later;
        }
        self.searches += 1;
        round.put_back();
        let own = round.booked.remove(gang);
        let trial = Trial { gang, item, wake_ms, ripe };
        let (opened, sleepers) = (&mut self.opened, &self.sleepers);
        let parts = round.within_own(gang, |round| trial.parts(round, opened, sleepers));
        round.put_back();
        own.into_iter().for_each(|own| round.booked.insert(own));
        let Some(parts) = parts else { return Woken::Unfit };
        self.what_for(round, gang, parts)
    }

    /// What of the nodes of a placement has to be asked for.
    fn what_for(&mut self, round: &Round, gang: GangId, parts: Vec<PlacedPart>) -> Woken {
        let used: BTreeSet<NodeId> = parts.iter().map(|part| part.node).collect();
        let nodes: Vec<NodeId> = used.iter().copied().filter(|node| self.sleepers.is_asleep(*node)).collect();
        let comes = |part: &&PlacedPart| self.sleepers.waking.contains(&part.node);
        if nodes.len() > ORDERED_MAX || nodes.is_empty() && !parts.iter().any(|part| comes(&part)) {
            // On what is awake it is for the order to start it, or not to.
            return Woken::Unfit;
        }
        if nodes.is_empty() && parts.iter().filter(comes).all(|part| part.devices.is_empty()) {
            return Woken::Beside(parts);
        }
        let full = |(at, asleep): &(usize, &BTreeSet<NodeId>)| {
            let asked = nodes.iter().filter(|node| asleep.contains(node)).count();
            asked > 0 && self.sleepers.room[*at].is_some_and(|room| asked > room)
        };
        let full: Vec<usize> = self.sleepers.asleep.iter().enumerate().filter(full).map(|(at, _)| at).collect();
        if !full.is_empty() {
            // Those behind it would take its turn for ever.
            full.iter().for_each(|at| self.sleepers.room[*at] = Some(0));
            self.waited_for.extend(full);
            return Woken::Crowded;
        }
        // Whole devices can be kept; a share beside another's cannot, also of who starts in this cycle.
        let is_free = |device: &DeviceId| {
            let slot = usize::from(device.slot);
            let node = round.state.node(device.node);
            let was_free = node.and_then(|record| record.devices.get(slot)).is_some_and(DeviceState::is_free);
            was_free && round.ledger.node(device.node).is_some_and(|view| view.free.get(slot) == Some(&1000))
        };
        let witness: Vec<DeviceId> = parts.iter().flat_map(PlacedPart::device_ids).filter(is_free).collect();
        match nodes.is_empty() && witness.is_empty() {
            true => Woken::Unfit,
            false => Woken::Asked(RequestNodes { gang, nodes, witness }, parts),
        }
    }

    fn take_for(&mut self, round: &mut Round, asked: &RequestNodes, parts: &[PlacedPart]) {
        for node in &asked.nodes {
            for (at, asleep) in self.sleepers.asleep.iter_mut().enumerate() {
                if asleep.remove(node) {
                    let most = self.powers.pools[at].rules.nodes_at_once as usize;
                    self.sleepers.room[at] = Some(self.sleepers.room[at].unwrap_or(most).saturating_sub(1));
                }
            }
            self.sleepers.waking.insert(*node);
        }
        let without: Vec<PlacedPart> = parts.iter().filter(|part| part.devices.is_empty()).cloned().collect();
        round.take(&without);
        round.keep_for(asked.gang, &asked.witness);
    }
}
