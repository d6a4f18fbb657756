//! Putting to sleep: nodes that have had nothing to do for as long as their pool says, and that nobody has a claim on.

use super::Powers;
use crate::apply::ORDERED_MAX;
use crate::command::{Command, PlanStep};
use crate::plan::round::Round;
use muster_common::time::DAY_MS;
use muster_common::{NodeId, Time};
use std::collections::BTreeSet;

/// A window that begins so soon finds its nodes awake.
const SOON_MS: u64 = DAY_MS;

impl Powers {
    /// None of a pool in which somebody waits for fewer nodes to be on their way. Returns when the next node will have been idle long enough.
    pub(super) fn sleep(
        &self,
        round: &Round,
        commands: &mut Vec<Command>,
        waited_for: &BTreeSet<usize>,
    ) -> Option<Time> {
        let now = round.now;
        let later = |pool: &super::Pool| pool.idle.iter().map(|(at, _)| *at).find(|at| *at > now);
        let next = self.pools.iter().filter_map(later).min();
        let is_due = |pool: &super::Pool| pool.idle.first().is_some_and(|(at, _)| *at <= now);
        if !self.pools.iter().any(is_due) {
            return next;
        }
        let claimed = claimed(round, commands);
        let mut nodes = Vec::new();
        let pools = self.pools.iter().enumerate().filter(|(at, _)| !waited_for.contains(at));
        for (_, pool) in pools {
            let woken = requested(commands).filter(|node| pool.asleep.contains(node)).count() as u32;
            let room = pool.rules.nodes_at_once.saturating_sub(pool.changing + woken);
            let most = room.min(pool.awake.saturating_sub(pool.rules.keep_awake)) as usize;
            let due = pool.idle.iter().take_while(|(at, _)| *at <= now).map(|(_, node)| *node);
            let free = due.filter(|node| !claimed.contains(node) && is_untouched(round, *node));
            nodes.extend(free.take(most));
        }
        let epochs = nodes.into_iter().filter_map(|node| Some((node, round.state.node(node)?.epoch)));
        let nodes: Vec<(NodeId, u64)> = epochs.collect();
        commands.extend(nodes.chunks(ORDERED_MAX).map(|part| Command::SleepNodes { nodes: part.to_vec() }));
        next
    }
}

fn requested(commands: &[Command]) -> impl Iterator<Item = NodeId> + '_ {
    commands
        .iter()
        .flat_map(|command| match command {
            Command::RequestNodes(asked) => asked.nodes.as_slice(),
            _ => &[],
        })
        .copied()
}

/// Nodes on which something is kept, booked or planned.
fn claimed(round: &Round, commands: &[Command]) -> BTreeSet<NodeId> {
    let known = round.state.reservations().values().flat_map(|known| &known.witness);
    let planned = round.steps.iter().flat_map(|step| match step {
        PlanStep::Reserve(reservation) => reservation.witness.as_slice(),
        _ => &[],
    });
    let asked = commands.iter().flat_map(|command| match command {
        Command::RequestNodes(asked) => asked.witness.as_slice(),
        _ => &[],
    });
    known.chain(planned).chain(asked).map(|device| device.node).collect()
}

/// Nothing is placed on it in this cycle, no start is booked on it, and no window begins on it soon.
fn is_untouched(round: &Round, node: NodeId) -> bool {
    let Some(view) = round.ledger.node(node) else { return false };
    let whole = view.free.iter().zip(&view.facts.usable).all(|(free, usable)| !usable || *free == 1000);
    let soon = round.now.plus_ms(SOON_MS);
    let booked = round.booked.on(node).any(|(booking, _)| !booking.is_window() || booking.start <= soon);
    whole && view.amount == view.facts.inventory.amount() && !booked
}
