//! The machines of a cluster, and when they could not be used.

use crate::world::planned::PlannedDrain;
use crate::world::{NodeGroup, World};
use muster_common::node::Inventory;
use muster_common::time::SECOND_MS;
use muster_common::{Name, NodeId, Time};
use muster_engine::State;
use muster_engine::command::NodeAction;
use muster_engine::outcome::Event;
use std::collections::BTreeMap;

/// Out of service since then; what runs may go on for so long.
#[derive(Debug, Clone, Copy)]
struct Out {
    since: Time,
    deadline_s: Option<u64>,
    until: Option<Time>,
}

#[derive(Debug, Default)]
struct NodeNote {
    closed: Option<Out>,
    lost: Option<Out>,
    outages: Vec<Out>,
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
                    note.outages.push(before);
                }
                note.back(at, |note| &mut note.lost);
            }
            Event::NodeSeen { node } => self.notes.entry(*node).or_default().back(at, |note| &mut note.lost),
            Event::NodeFenced { node } => {
                let out = Out { since: at, deadline_s: Some(0), until: None };
                self.notes.entry(*node).or_default().lost.get_or_insert(out);
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
                note.back(at, |note| &mut note.closed);
                note.closed = Some(Out { since: at, deadline_s, until: None });
            }
            NodeAction::Uncordon | NodeAction::Undrain => note.back(at, |note| &mut note.closed),
            NodeAction::StateReleased { .. } | NodeAction::EndQuarantine { .. } | NodeAction::Remove { .. } => {}
        }
    }

    /// The nodes that there are at the end, and their outages from a moment on.
    pub fn world(mut self, state: &State, from: Time) -> Result<Machines, String> {
        let mut not_modelled = Vec::new();
        let mut groups: Vec<NodeGroup> = Vec::new();
        let (mut bare, mut drains) = (0_u32, Vec::new());
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
            let note = self.notes.remove(&node.id).unwrap_or_default();
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
        Ok(Machines { world, not_modelled })
    }
}

impl NodeNote {
    fn back(&mut self, at: Time, which: fn(&mut NodeNote) -> &mut Option<Out>) {
        if let Some(out) = which(self).take() {
            self.outages.push(Out { until: Some(at), ..out });
        }
    }

    /// From a moment on; several at once are one after the other, as whole seconds.
    fn drains(self, node: &Name, from: Time) -> Vec<PlannedDrain> {
        let NodeNote { closed, lost, mut outages } = self;
        outages.extend(closed.into_iter().chain(lost));
        outages.retain(|out| out.until.is_none_or(|until| until > from));
        outages.sort_by_key(|out| (out.since, out.until));
        let drain = |out: Out| {
            let at_s = out.since.max(from).0 / SECOND_MS;
            let until_s = out.until.map(|until| until.0.div_ceil(SECOND_MS).max(at_s + 1));
            PlannedDrain { node: node.clone(), at_s, deadline_s: out.deadline_s, until_s }
        };
        outages.into_iter().map(drain).collect()
    }
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
