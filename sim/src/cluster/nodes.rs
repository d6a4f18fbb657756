//! The machines of a cluster, and when they could not be used.

use crate::world::failures::REPAIR_S_MAX;
use crate::world::planned::{PlannedDrain, PlannedOutage, joined};
use crate::world::{NodeGroup, World};
use muster_common::node::Inventory;
use muster_common::time::SECOND_MS;
use muster_common::{Name, NodeId, Time};
use muster_engine::State;
use muster_engine::command::{NodeAction, Settings};
use muster_engine::outcome::Event;
use std::collections::BTreeMap;

/// Out of service since then; what runs may go on for so long.
#[derive(Debug, Clone, Copy)]
struct Out {
    since: Time,
    deadline_s: Option<u64>,
    until: Option<Time>,
}

/// Not heard of, until it was certain that nothing runs there any more.
#[derive(Debug, Clone, Copy)]
struct Loss {
    silent: Option<Time>,
    fenced: Time,
    until: Option<Time>,
}

#[derive(Debug, Default)]
struct NodeNote {
    closed: Option<Out>,
    closures: Vec<Out>,
    silent: Option<Time>,
    lost: Option<Loss>,
    losses: Vec<Loss>,
}

#[derive(Debug)]
pub(super) struct Nodes {
    from: Time,
    notes: BTreeMap<NodeId, NodeNote>,
    quarantines: u64,
    windows: u32,
}

pub(super) struct Machines {
    pub world: World,
    pub not_modelled: Vec<String>,
}

impl Nodes {
    pub fn new(from: Time) -> Self {
        Self { from, notes: BTreeMap::new(), quarantines: 0, windows: 0 }
    }

    pub fn event(&mut self, at: Time, event: &Event) {
        let from = self.from;
        match event {
            Event::NodeRegistered { node, epoch, .. } => {
                let note = self.notes.entry(*node).or_default();
                if *epoch == node.0 && at > from {
                    let before = Out { since: from, deadline_s: Some(0), until: Some(at) };
                    note.closures.push(before);
                }
                note.heard(at);
            }
            Event::NodeSilent { node } => drop(self.notes.entry(*node).or_default().silent.get_or_insert(at)),
            Event::NodeSeen { node } => self.notes.entry(*node).or_default().heard(at),
            Event::NodeFenced { node } => {
                let note = self.notes.entry(*node).or_default();
                note.lost.get_or_insert(Loss { silent: note.silent, fenced: at, until: None });
            }
            Event::NodeAdmin { node, action, .. } => self.admin(at, *node, action),
            Event::DeviceQuarantined { .. } if at >= from => self.quarantines += 1,
            Event::WindowMade { end, .. } if *end > from => self.windows += 1,
            _ => {}
        }
    }

    fn admin(&mut self, at: Time, node: NodeId, action: &NodeAction) {
        let note = self.notes.entry(node).or_default();
        match action {
            NodeAction::Cordon { .. } => {
                note.closed.get_or_insert(Out { since: at, deadline_s: None, until: None });
            }
            NodeAction::Drain { deadline_ms, .. } => {
                let deadline_s = deadline_ms.map(|ms| ms.div_ceil(SECOND_MS));
                note.opened(at);
                note.closed = Some(Out { since: at, deadline_s, until: None });
            }
            NodeAction::Uncordon | NodeAction::Undrain => note.opened(at),
            NodeAction::StateReleased { .. } | NodeAction::EndQuarantine { .. } | NodeAction::Remove { .. } => {}
        }
    }

    /// The nodes that there are at the end, and their outages from a moment on.
    pub fn world(mut self, state: &State, from: Time) -> Result<Machines, String> {
        let mut not_modelled = Vec::new();
        let mut groups: Vec<NodeGroup> = Vec::new();
        let (mut bare, mut drains, mut outages) = (0_u32, Vec::new(), Vec::new());
        for node in state.nodes().values() {
            if node.inventory.devices.is_empty() {
                bare += 1;
                self.notes.remove(&node.id);
                continue;
            }
            let template = template(&node.inventory);
            match groups.last_mut().filter(|group| group.inventory.as_deref() == Some(&template)) {
                Some(group) => {
                    group.count += 1;
                    group.names.push(node.name.clone());
                }
                None => groups.push(group(groups.len(), &node.name, template)?),
            }
            let mut note = self.notes.remove(&node.id).unwrap_or_default();
            outages.extend(note.outages(&node.name, from, state.settings()));
            drains.extend(note.drains(&node.name, from));
        }
        if groups.is_empty() {
            return Err("the cluster has no node with a device".into());
        }
        if bare > 0 {
            not_modelled.push(format!("{bare} nodes without devices are left out"));
        }
        if !self.notes.is_empty() {
            not_modelled.push(format!("{} nodes were removed since and are left out", self.notes.len()));
        }
        if self.quarantines > 0 {
            let what = "devices were put into quarantine; here they stay in use";
            not_modelled.push(format!("{} {what}", self.quarantines));
        }
        if self.windows > 0 {
            let what = "advance reservations were made; here nobody is kept off their nodes";
            not_modelled.push(format!("{} {what}", self.windows));
        }
        let mut world = World::of(groups);
        world.fabric = (**state.fabric()).clone();
        world.drains = drains;
        world.outages = outages;
        Ok(Machines { world, not_modelled })
    }
}

impl NodeNote {
    fn opened(&mut self, at: Time) {
        self.closures.extend(self.closed.take().map(|out| Out { until: Some(at), ..out }));
    }

    fn heard(&mut self, at: Time) {
        self.silent = None;
        self.losses.extend(self.lost.take().map(|loss| Loss { until: Some(at), ..loss }));
    }

    /// Those that took work with them in the stretch: from when the machine was heard last, as a run waits to be sure too.
    fn outages(&mut self, node: &Name, from: Time, settings: &Settings) -> Vec<PlannedOutage> {
        self.losses.extend(self.lost.take());
        let (later, before): (Vec<Loss>, Vec<Loss>) = self.losses.drain(..).partition(|loss| loss.fenced > from);
        // Nothing ran there at the beginning.
        self.closures.extend(before.into_iter().map(|Loss { fenced, until, .. }| Out {
            since: fenced,
            deadline_s: Some(0),
            until,
        }));
        let outage = |loss: Loss| {
            let heard_ms = match loss.silent {
                Some(silent) => silent.0.saturating_sub(settings.suspect_after_ms),
                None => loss.fenced.0.saturating_sub(settings.fence_after_ms(None)),
            };
            let at_s = heard_ms.max(from.0) / SECOND_MS;
            let for_s = loss.until.map(|until| until.0.div_ceil(SECOND_MS).saturating_sub(at_s).max(1));
            PlannedOutage { node: node.clone(), at_s, for_s }
        };
        // Heard for a moment only, or for less than whole seconds can tell.
        let mut outages = joined(later.into_iter().map(outage).collect());
        // No world has longer ones.
        outages.iter_mut().for_each(|outage| outage.for_s = outage.for_s.map(|for_s| for_s.min(REPAIR_S_MAX)));
        outages
    }

    /// From a moment on, as whole seconds.
    fn drains(self, node: &Name, from: Time) -> Vec<PlannedDrain> {
        let NodeNote { closed, mut closures, .. } = self;
        closures.extend(closed);
        closures.retain(|out| out.until.is_none_or(|until| until > from));
        closures.sort_by_key(|out| (out.since, out.until));
        let drain = |out: Out| {
            let at_s = out.since.max(from).0 / SECOND_MS;
            let until_s = out.until.map(|until| until.0.div_ceil(SECOND_MS).max(at_s + 1));
            PlannedDrain { node: node.clone(), at_s, deadline_s: out.deadline_s, until_s }
        };
        one_after_the_other(closures.into_iter().map(drain))
    }
}

/// Those of one node, by time: whoever ends a drain opens the node, so that one that begins within another takes it over
/// and ends no sooner.
fn one_after_the_other(drains: impl Iterator<Item = PlannedDrain>) -> Vec<PlannedDrain> {
    let mut apart: Vec<PlannedDrain> = Vec::new();
    for mut drain in drains {
        if let Some(last) = apart.last_mut().filter(|last| last.until_s.is_none_or(|until_s| drain.at_s <= until_s)) {
            drain.until_s = last.until_s.zip(drain.until_s).map(|(one, other)| one.max(other));
            last.until_s = Some(drain.at_s);
            if last.at_s == drain.at_s {
                drain.deadline_s = last.deadline_s.into_iter().chain(drain.deadline_s).min();
                apart.pop();
            }
        }
        apart.push(drain);
    }
    apart
}

/// An inventory without what tells one machine from another.
fn template(known: &Inventory) -> Inventory {
    let mut inventory = known.clone();
    for text in
        [&mut inventory.hardware_id, &mut inventory.boot_id, &mut inventory.agent_version, &mut inventory.address]
    {
        text.clear();
    }
    for device in &mut inventory.devices {
        device.uuid.clear();
    }
    inventory
}

fn group(number: usize, name: &Name, inventory: Inventory) -> Result<NodeGroup, String> {
    let devices = u16::try_from(inventory.devices.len()).map_err(|_| format!("node `{name}` has too many devices"))?;
    Ok(NodeGroup {
        name: Name::new(format!("group-{number}")).map_err(|error| error.to_string())?,
        count: 1,
        devices,
        model: inventory.devices[0].model.clone(),
        cpus: None,
        memory_gib: u32::try_from(inventory.memory_bytes >> 30).unwrap_or(u32::MAX),
        labels: inventory.labels.clone(),
        place: inventory.place.clone(),
        place_every: BTreeMap::new(),
        names: vec![name.clone()],
        inventory: Some(Box::new(inventory)),
    })
}
