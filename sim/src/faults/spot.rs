//! Spot machines: their owner gives notice, takes them away and brings others. What ran there is
//! stopped at the notice, or lost with the machine where there is none.

use super::{Call, Faults, Machine, admin};
use crate::draw::Draw;
use crate::world::World;
use crate::world::spot::Spot;
use muster_common::time::{DAY_MS, SECOND_MS};
use muster_common::{NodeId, Time};
use muster_engine::command::NodeAction;
use muster_engine::forecast::Act;
use muster_engine::{Command, State};

/// One machine's standing with its owner.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    rule: Spot,
    draw: Draw,
    /// Notice was given, and the node is drained for it.
    noticed: bool,
    away: Option<Time>,
    /// When it was last taken away after notice.
    taken_at: Option<Time>,
    pub evictions: u64,
    pub away_ms: u64,
}

/// Of each machine, in the order of the world.
pub(super) fn standings(world: &World, seed: u64) -> impl Iterator<Item = Option<Standing>> + '_ {
    let rules = world.nodes.iter().flat_map(|group| {
        let rule = world.spot.iter().find(|spot| spot.nodes == group.name);
        (0..group.count).map(move |_| rule)
    });
    (0..).zip(rules).map(move |(number, rule)| {
        let draw = Draw::of(seed, "spot", number);
        let rule = rule?.clone();
        Some(Standing { rule, draw, noticed: false, away: None, taken_at: None, evictions: 0, away_ms: 0 })
    })
}

impl Machine {
    pub(super) fn is_away(&self) -> bool {
        self.spot.as_ref().is_some_and(|spot| spot.away.is_some())
    }

    /// Away, or soon to be.
    pub(super) fn is_leaving(&self) -> bool {
        self.spot.as_ref().is_some_and(|spot| spot.noticed || spot.away.is_some())
    }

    /// Closes the books of a run.
    pub(super) fn finish_away(&mut self, at: Time) {
        if let Some(spot) = &mut self.spot
            && let Some(since) = spot.away.take()
        {
            spot.away_ms += at.since_ms(since);
        }
    }
}

impl Faults {
    /// The first notice for every spot machine, or its end where there is no notice.
    pub(super) fn first_notices(&mut self, at: Time) -> Vec<(Time, u64)> {
        (0..self.machines.len()).filter_map(|which| self.next_notice(which, at)).collect()
    }

    fn next_notice(&mut self, which: usize, after: Time) -> Option<(Time, u64)> {
        let spot = self.machines[which].spot.as_mut()?;
        let mean_ms = DAY_MS as f64 * 1000.0 / spot.rule.evictions_per_1000_days;
        let at = after.plus_ms(spot.draw.exponential_ms(mean_ms));
        (at < Time::NEVER).then(|| (at, self.call(Call::Notice(which))))
    }

    /// How long before its end the node's owner gave notice, if that is why what had started there by then was drained.
    /// It may end only when another machine has taken the place.
    pub fn notice_ms(&self, node: NodeId, started: Time) -> Option<u64> {
        let spot = self.machines[self.position(node)?].spot.as_ref()?;
        (spot.noticed || spot.taken_at.is_some_and(|taken| started < taken)).then(|| spot.rule.notice_ms())
    }

    /// Is a machine away, so that nobody pays for it?
    pub fn away(&self, which: usize) -> (NodeId, bool) {
        (self.machines[which].node, self.machines[which].is_away())
    }

    pub fn evictions(&self) -> u64 {
        self.machines.iter().filter_map(|machine| Some(machine.spot.as_ref()?.evictions)).sum()
    }

    /// What its owner does about a machine. One that is down anyway is left alone this time.
    pub(super) fn notice(&mut self, state: &State, which: usize, at: Time) -> Vec<Act> {
        let machine = &mut self.machines[which];
        let Some(spot) = &mut machine.spot else { return Vec::new() };
        if machine.down.is_some() {
            return self.next_notice(which, at).map(|(at, call)| Act::CallAt(at, call)).into_iter().collect();
        }
        if spot.rule.notice_s == 0 {
            return self.taken(state, which, at);
        }
        spot.noticed = true;
        let (node, gone_at) = (machine.node, at.plus_ms(spot.rule.notice_ms()));
        let action = NodeAction::Drain { reason: "taken back by its owner".into(), deadline_ms: Some(0) };
        vec![Act::Commit(admin(node, action)), Act::CallAt(gone_at, self.call(Call::Taken(which)))]
    }

    /// The machine is gone, and the cluster is told so: nobody has to wait to be sure.
    pub(super) fn taken(&mut self, state: &State, which: usize, at: Time) -> Vec<Act> {
        let machine = &mut self.machines[which];
        let node = machine.node;
        let Some(spot) = &mut machine.spot else { return Vec::new() };
        if machine.down.is_some() {
            spot.noticed = false;
            let mut acts = vec![Act::Commit(admin(node, NodeAction::Undrain))];
            acts.extend(self.next_notice(which, at).map(|(at, call)| Act::CallAt(at, call)));
            return acts;
        }
        spot.evictions += 1;
        spot.taken_at = spot.noticed.then_some(at).or(spot.taken_at);
        spot.away = Some(at);
        let away_ms = match spot.rule.away_mean_s {
            0 => 0,
            mean_s => spot.draw.exponential_ms((mean_s * SECOND_MS) as f64),
        };
        machine.outages += 1;
        let mut acts = vec![Act::Mute(node)];
        if let Some(record) = state.node(node) {
            let (epoch, term) = (record.epoch, state.applied_term().max(1));
            acts.push(Act::Commit(Command::NodeSilent { node, epoch, term }));
            acts.push(Act::Commit(Command::NodeFenced { node, epoch, term, waited_ms: u64::MAX }));
        }
        acts.push(Act::CallAt(at.plus_ms(away_ms), self.call(Call::Given(which))));
        acts
    }

    /// Another machine of the kind takes its place, under its name.
    pub(super) fn given(&mut self, which: usize, at: Time) -> Vec<Act> {
        let machine = &mut self.machines[which];
        machine.finish_away(at);
        let mut acts = machine.registers_anew();
        if let Some(spot) = &mut machine.spot
            && std::mem::take(&mut spot.noticed)
        {
            acts.push(Act::Commit(admin(machine.node, NodeAction::Undrain)));
        }
        acts.extend(self.next_notice(which, at).map(|(at, call)| Act::CallAt(at, call)));
        acts
    }
}
