//! Waking: for a gang that has waited as long as a pool asks for, and that the placer would put on its nodes.

use super::Powers;
use crate::apply::ORDERED_MAX;
use crate::command::{Command, PlacedPart, RequestNodes};
use crate::cycle::sticky_head;
use crate::plan::explain::Reason;
use crate::plan::lanes::Sought;
use crate::plan::round::Round;
use crate::plan::waiting::{Asked, Item};
use crate::policy::Admission;
use crate::state::node::{DeviceState, Power};
use muster_common::{DeviceId, GangId, NodeId, Time};
use std::collections::BTreeSet;

/// Most places of the order that one cycle looks at for this.
const LOOKS_MAX: u32 = 1024;
/// Most trials of doing with fewer nodes; of a larger gang's nodes several are left out at a time.
const TRIALS_MAX: usize = 32;

/// What one cycle has to wake with.
struct Sleepers {
    /// May be woken now, by pool.
    asleep: Vec<BTreeSet<NodeId>>,
    /// On their way already, this cycle's own included; there may be room on them.
    waking: BTreeSet<NodeId>,
    /// How many more may be on their way, by pool; `None` = none is yet, so that a whole gang may.
    room: Vec<Option<usize>>,
}

/// What came of looking for nodes to wake.
enum Woken {
    Asked(RequestNodes),
    /// Not with any of these nodes.
    Unfit,
    /// With fewer of them on their way.
    Later,
}

/// One cycle's looking for gangs to wake nodes for.
struct Search<'p> {
    powers: &'p Powers,
    sleepers: Sleepers,
    asked: Vec<Command>,
    /// Nobody is looked at behind one that could start here and cannot now.
    strict: bool,
    /// When that would be something else without any entry.
    next: Option<Time>,
    looked: u32,
    /// Requests that no nodes of the first so many pools are good for.
    in_vain: BTreeSet<(Asked, usize)>,
}

/// What a gang that was looked at means for others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Go,
    /// Of the same place in the order none is looked at any more.
    Leave,
    Stop,
}

impl Powers {
    /// Asks for nodes; returns when somebody will have waited long enough, or a node may be tried again.
    pub(super) fn wake(&self, round: &mut Round, commands: &mut Vec<Command>) -> Option<Time> {
        let sleepers = self.sleepers(round);
        let next = self.rested_at(round);
        if sleepers.asleep.iter().all(BTreeSet::is_empty) && sleepers.waking.is_empty() {
            return next;
        }
        let strict = matches!(round.state.policy().admission, Admission::HeadOfLine { .. });
        let (asked, in_vain) = (Vec::new(), BTreeSet::new());
        let mut search = Search { powers: self, sleepers, asked, strict, next, looked: 0, in_vain };
        round.count_kept();
        search.walk(round);
        commands.append(&mut search.asked);
        search.next
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
    fn ripe(&self, round: &Round, gang: GangId) -> (usize, Option<Time>) {
        let job = round.state.job(gang.job);
        let queued = round.state.gang(gang).map(|record| record.queued_at);
        let Some(since) = queued.or(job.map(|job| job.submitted_at)) else { return (0, None) };
        let at = |pool: &super::Pool| since.plus_ms(pool.rules.wake_after_ms);
        let ripe = self.pools.iter().take_while(|pool| at(pool) <= round.now).count();
        (ripe, self.pools.get(ripe).map(at))
    }

    fn wake_for(&self, round: &mut Round, gang: GangId, item: &Item, ripe: usize, sleepers: &Sleepers) -> Woken {
        let wake_ms = self.pools[..ripe].iter().map(|pool| pool.rules.wake_ms).max().unwrap_or(0);
        // A full cluster is not worked out anew: what was booked before stands.
        let known = round.state.reservations().get(&gang).map(|known| known.start);
        let booked = round.booked.get(gang).map(|booking| booking.start).or(known);
        if ripe == 0 || booked.is_some_and(|start| start <= round.now.plus_ms(wake_ms)) {
            return Woken::Later;
        }
        round.put_back();
        let own = round.booked.remove(gang);
        let parts = round.within_own(gang, |round| self.parts_with(round, gang, item, wake_ms, ripe, sleepers));
        round.put_back();
        own.into_iter().for_each(|own| round.booked.insert(own));
        let Some((parts, nodes)) = parts.filter(|(_, nodes)| nodes.len() <= ORDERED_MAX) else { return Woken::Unfit };
        let fits = self.pools.iter().zip(&sleepers.asleep).zip(&sleepers.room).all(|((_, asleep), room)| {
            let asked = nodes.iter().filter(|node| asleep.contains(node)).count();
            asked == 0 || room.is_none_or(|room| asked <= room)
        });
        if !fits {
            return Woken::Later;
        }
        let devices = |part: &PlacedPart| {
            let node = part.node;
            part.devices.iter().map(move |&(slot, _)| DeviceId { node, slot }).collect::<Vec<_>>()
        };
        Woken::Asked(RequestNodes { gang, nodes, witness: parts.iter().flat_map(devices).collect() })
    }

    /// Where it would go, and what of that has to be woken: from as few pools as will do, the first ones, and no node
    /// that is not needed.
    fn parts_with(
        &self,
        round: &mut Round,
        gang: GangId,
        item: &Item,
        wake_ms: u64,
        ripe: usize,
        sleepers: &Sleepers,
    ) -> Option<(Vec<PlacedPart>, Vec<NodeId>)> {
        let mark = round.ledger.mark();
        sleepers.waking.iter().for_each(|node| round.ledger.open(*node));
        let mut found = None;
        for pools in 0..=ripe {
            if let Some(asleep) = pools.checked_sub(1).map(|last| &sleepers.asleep[last]) {
                asleep.iter().for_each(|node| round.ledger.open(*node));
                round.spent += asleep.len() as u64;
            }
            let inner = round.ledger.mark();
            // Nobody whose start is booked comes later for it, however long it will run by then.
            round.set_aside(usize::MAX);
            round.shut(item.longest().saturating_add(wake_ms), 0);
            found = round.search(gang, item).map(|parts| fewest(round, gang, item, parts, sleepers));
            round.put_back();
            round.ledger.rollback(inner);
            if found.is_some() {
                break;
            }
        }
        round.ledger.rollback(mark);
        let parts = found?;
        let used: BTreeSet<NodeId> = parts.iter().map(|part| part.node).collect();
        let nodes: Vec<NodeId> = used.iter().copied().filter(|node| asleep_in(sleepers, *node)).collect();
        // On what is awake it is for the order to start it, or not to.
        let joins = |part: &PlacedPart| !part.devices.is_empty() && sleepers.waking.contains(&part.node);
        let needs = !nodes.is_empty() || parts.iter().any(joins);
        (needs && are_free(round, &parts)).then_some((parts, nodes))
    }

    fn take_for(&self, round: &mut Round, sleepers: &mut Sleepers, asked: &RequestNodes) {
        for node in &asked.nodes {
            for (at, asleep) in sleepers.asleep.iter_mut().enumerate() {
                if asleep.remove(node) {
                    let most = self.pools[at].rules.nodes_at_once as usize;
                    sleepers.room[at] = Some(sleepers.room[at].unwrap_or(most).saturating_sub(1));
                }
            }
            sleepers.waking.insert(*node);
        }
        round.keep_for(asked.gang, &asked.witness);
    }
}

impl Search<'_> {
    fn walk(&mut self, round: &mut Round) {
        if let Some((gang, item)) = sticky_head(round)
            && self.look(round, gang, &item) != Then::Go
        {
            return;
        }
        let waiting = round.waiting;
        for item in waiting.by_order.walk(Sought { now: round.now, most_ms: u64::MAX }) {
            for gang in item.gangs(round.state) {
                match self.look(round, gang, item) {
                    Then::Go => {}
                    Then::Leave => break,
                    Then::Stop => return,
                }
            }
        }
    }

    fn look(&mut self, round: &mut Round, gang: GangId, item: &Item) -> Then {
        if round.placed.contains(&gang) || round.waits_for_kept(gang) {
            return Then::Go;
        }
        self.looked += 1;
        if self.looked > LOOKS_MAX || round.spent >= round.state.policy().budget.steps {
            return Then::Stop;
        }
        match round.not_eligible(gang, item) {
            None if round.fills_array(gang, item) => return Then::Leave,
            None => {}
            Some(Reason::Parked) => return Then::Go,
            Some(_) => return Then::Leave,
        }
        let (ripe, later) = self.powers.ripe(round, gang);
        self.next = self.next.into_iter().chain(later).min();
        let wanted = (item.asked(), ripe);
        // Elsewhere the same request may do better for another gang.
        let alike = !round.has_quotas() && !round.booked.any_fixed() && round.excluded(gang).is_empty();
        let woken = match alike && self.in_vain.contains(&wanted) {
            true => Woken::Unfit,
            false => self.powers.wake_for(round, gang, item, ripe, &self.sleepers),
        };
        match woken {
            Woken::Asked(asked) => {
                self.powers.take_for(round, &mut self.sleepers, &asked);
                self.asked.push(Command::RequestNodes(Box::new(asked)));
                return Then::Go;
            }
            Woken::Unfit if alike => drop(self.in_vain.insert(wanted)),
            Woken::Unfit | Woken::Later => {}
        }
        // Who cannot start now keeps back those behind it, as in the order itself, but for who never can.
        if self.strict && round.could_ever(item) { Then::Stop } else { Then::Leave }
    }
}

/// Whole devices can be kept; a share beside another's cannot.
fn are_free(round: &Round, parts: &[PlacedPart]) -> bool {
    parts.iter().all(|part| {
        let devices = round.state.node(part.node).map(|record| &record.devices);
        let is_free = |(slot, _): &(u16, u16)| {
            devices.and_then(|all| all.get(usize::from(*slot))).is_some_and(DeviceState::is_free)
        };
        part.devices.iter().all(is_free)
    })
}

fn asleep_in(sleepers: &Sleepers, node: NodeId) -> bool {
    sleepers.asleep.iter().any(|asleep| asleep.contains(&node))
}

/// The same gang on fewer nodes that sleep, as far as some trials show.
fn fewest(round: &mut Round, gang: GangId, item: &Item, parts: Vec<PlacedPart>, all: &Sleepers) -> Vec<PlacedPart> {
    let asleep_of = |parts: &[PlacedPart]| -> Vec<NodeId> {
        parts.iter().map(|part| part.node).filter(|node| asleep_in(all, *node)).collect()
    };
    let used = asleep_of(&parts);
    let mut best = parts;
    let others: Vec<NodeId> = all.asleep.iter().flatten().copied().filter(|node| !used.contains(node)).collect();
    // Other sleepers in their place would be no gain.
    others.iter().for_each(|node| round.ledger.shut(*node));
    for left_out in used.chunks(used.len().div_ceil(TRIALS_MAX).max(1)) {
        let mark = round.ledger.mark();
        left_out.iter().for_each(|node| round.ledger.shut(*node));
        match round.search(gang, item) {
            Some(fewer) => best = fewer,
            None => round.ledger.rollback(mark),
        }
    }
    best
}
