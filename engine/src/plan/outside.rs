//! Who waits because of windows that are not its own: whether a request finds room outside of them, looked into
//! once for each set of windows and each request.

use super::capacity::GangKey;
use super::ledger::Ledger;
use super::place::{Request, place};
use super::round::Ever;
use crate::state::State;
use crate::state::window::{Window, longest_ms};
use muster_common::job::{Count, Scheduling};
use muster_common::{GangId, Name, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Sets of windows that one answer looks into: each takes up to two pictures of the cluster.
const SETS_MAX: usize = 32;

/// What is left of the cluster outside of some windows.
pub(super) struct Outside {
    pub nodes: BTreeSet<NodeId>,
    now: Ledger,
    empty: Option<Ledger>,
    known: BTreeMap<(bool, GangKey), bool>,
}

/// By the windows' numbers.
#[derive(Default)]
pub(super) struct Sets {
    sets: BTreeMap<Vec<u32>, Outside>,
    /// The models that a window's nodes have.
    models: BTreeMap<u32, BTreeSet<Name>>,
}

impl Sets {
    /// Has the window a node that such a request might be given?
    pub fn concerns(&mut self, state: &State, window: &Window, scheduling: &Scheduling) -> bool {
        let models = self.models.entry(window.number).or_insert_with(|| {
            let nodes = window.nodes.iter().filter_map(|name| state.node_named(name));
            nodes.flat_map(|node| node.inventory.devices.iter().map(|device| device.model.clone())).collect()
        });
        scheduling.groups.iter().any(|group| {
            let any = group.models.is_empty() || matches!(group.count, Count::Nodes { per_node: 0, .. });
            any || group.models.iter().any(|model| models.contains(model))
        })
    }

    /// `None` for windows without nodes, or beyond what one answer looks into.
    pub fn of(&mut self, state: &State, now: &Ledger, windows: &[&Arc<Window>]) -> Option<&mut Outside> {
        let numbers: Vec<u32> = windows.iter().map(|window| window.number).collect();
        if !self.sets.contains_key(&numbers) {
            let nodes = windows.iter().flat_map(|window| &window.nodes);
            let nodes: BTreeSet<NodeId> = nodes.filter_map(|name| Some(state.node_named(name)?.id)).collect();
            if nodes.is_empty() || self.sets.len() == SETS_MAX {
                return None;
            }
            let now = without(now, &nodes);
            self.sets.insert(numbers.clone(), Outside { nodes, now, empty: None, known: BTreeMap::new() });
        }
        self.sets.get_mut(&numbers)
    }
}

impl Outside {
    /// Is there room outside: on what is free now, or if nothing ran? `count`: by the number of devices only.
    pub fn has_room(
        &mut self,
        (state, ever): (&State, &mut Ever),
        (scheduling, excluded): (&Scheduling, &[NodeId]),
        now: bool,
        count: bool,
    ) -> bool {
        let key = (now, (scheduling.groups.clone(), scheduling.together.clone(), excluded.to_vec()));
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let nodes = &self.nodes;
        let ledger = match now {
            true => &self.now,
            false => self.empty.get_or_insert_with(|| without(ever.emptied(state), nodes)),
        };
        let request = Request::of(scheduling, excluded);
        let fits = match count {
            true => ledger.free_total() >= scheduling.devices(),
            false => place(ledger, state.fabric(), state.policy(), request, &mut 0).is_some(),
        };
        self.known.insert(key, fits);
        fits
    }
}

fn without(ledger: &Ledger, nodes: &BTreeSet<NodeId>) -> Ledger {
    let mut ledger = ledger.clone();
    nodes.iter().for_each(|node| ledger.shut(*node));
    ledger
}

/// Windows of others that a run from now on could reach into.
pub(super) fn met<'s>(state: &'s State, gang: GangId, scheduling: &Scheduling, now: Time) -> Vec<&'s Arc<Window>> {
    let until = now.plus_ms(longest_ms(scheduling));
    let met = state.windows().iter().filter(|window| window.meets(now, until));
    met.filter(|window| !window.holders.admit(state.accounts(), gang.job, &scheduling.account)).collect()
}
