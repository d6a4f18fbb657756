//! Whom a change of State concerns, so that a thousand agents need not be looked at for one start.

use super::{Phase, phase};
use crate::state::State;
use crate::state::gang::{Attempt, GangRecord};
use crate::state::job::{JobRecord, Revision};
use crate::state::node::NodeRecord;
use muster_common::{GangId, NodeId};
use std::collections::BTreeSet;

/// Nodes whose record, or whose desired state, may not be what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// Settings that hold everywhere have changed, or a node has gone or moved of which any gang may be told.
    All,
    Nodes(BTreeSet<NodeId>),
}

/// Whom what happened between `older` and `newer` concerns. Costs what has changed, and a comparison of pointers for each 64 records.
pub fn touched(older: &State, newer: &State) -> Touched {
    if older.cluster().generation != newer.cluster().generation || older.settings() != newer.settings() {
        return Touched::All;
    }
    let mut nodes = BTreeSet::new();
    let mut peers_changed = false;
    newer.nodes().changes_since(older.nodes(), |node, before, now| {
        nodes.insert(*node);
        peers_changed |= before.is_some() && before.map(address) != now.map(address);
    });
    if peers_changed {
        return Touched::All;
    }
    newer.gangs().changes_since(older.gangs(), |_, before, now| of_gang(&mut nodes, before, now));
    newer.jobs().changes_since(older.jobs(), |job, before, now| {
        if before.map(revisions) != now.map(revisions) {
            nodes.extend([older, newer].into_iter().flat_map(|state| {
                let records = state.gangs().range_from(&GangId::new(*job, 0));
                let its = records.take_while(|(gang, _)| gang.job == *job);
                its.flat_map(|(_, record)| on(record.current()))
            }));
        }
    });
    Touched::Nodes(nodes)
}

/// What others of its gangs are told of a node.
fn address(node: &NodeRecord) -> (&str, &str) {
    (node.name.as_str(), &node.inventory.address)
}

/// What agents are told of a job, beside what never changes.
fn revisions(job: &JobRecord) -> &[Revision] {
    &job.revisions
}

fn of_gang(nodes: &mut BTreeSet<NodeId>, before: Option<&GangRecord>, now: Option<&GangRecord>) {
    let (was, is) = (before.and_then(GangRecord::current), now.and_then(GangRecord::current));
    if let (Some(was), Some(is)) = (was, is)
        && before.map(asked) == now.map(asked)
        && same_attempt(was, is)
    {
        // One rank has said something: that is nothing to the others.
        let parts = was.parts.iter().zip(&is.parts);
        nodes.extend(parts.filter(|(was, is)| was != is).map(|(_, is)| is.node));
        return;
    }
    nodes.extend(on(was).chain(on(is)));
}

/// What all its agents are asked to do, of which specification.
fn asked(gang: &GangRecord) -> (u32, Option<(Phase, &'static str)>) {
    (gang.revision, phase(gang))
}

/// But for what its parts have come to.
fn same_attempt(was: &Attempt, is: &Attempt) -> bool {
    (was.number, was.token, was.placed_at, was.master_port, was.world_size)
        == (is.number, is.token, is.placed_at, is.master_port, is.world_size)
        && was.parts.len() == is.parts.len()
        && was.parts.iter().zip(&is.parts).all(|(was, is)| {
            (was.node, was.group, was.ranks, was.devices.len()) == (is.node, is.group, is.ranks, is.devices.len())
        })
}

fn on(attempt: Option<&Attempt>) -> impl Iterator<Item = NodeId> + '_ {
    attempt.into_iter().flat_map(|attempt| attempt.parts.iter().map(|part| part.node))
}
