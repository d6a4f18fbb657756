//! What a request lacks on the cluster as it is. Each reason is tried alone: would it fit if only
//! that were otherwise?

use super::explain::{Blocker, Reason, blocker};
use super::holders;
use super::ledger::{Ledger, Suppose};
use super::never::pairs;
use super::place::{Request, place};
use crate::state::State;
use crate::state::node::DeviceState;
use muster_common::job::{Count, GroupRequest, Scheduling};
use muster_common::topology::TopologyRequest;
use muster_common::{GangId, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is lacking; `None` = it fits on what is free.
type Lacks = Option<Arc<[Blocker]>>;

/// A request of several groups, and the nodes it keeps off.
pub(super) type GangKey = (Vec<GroupRequest>, Vec<TopologyRequest>, Vec<NodeId>);

/// Answers by request, and by the nodes a gang keeps off since attempts failed there.
pub(super) struct Capacity<'a> {
    state: &'a State,
    now: &'a Ledger,
    awake: Option<Ledger>,
    /// With the sleepers of the first so many elastic pools.
    awake_upto: BTreeMap<usize, Ledger>,
    opened: Option<Ledger>,
    proven: Option<Ledger>,
    known: BTreeMap<GroupRequest, BTreeMap<Vec<NodeId>, Lacks>>,
    gangs: BTreeMap<GangKey, Lacks>,
    looked_into: usize,
    only_count: bool,
}

impl<'a> Capacity<'a> {
    /// `now`: what is free.
    pub fn new(state: &'a State, now: &'a Ledger) -> Self {
        Self {
            state,
            now,
            awake: None,
            awake_upto: BTreeMap::new(),
            opened: None,
            proven: None,
            known: BTreeMap::new(),
            gangs: BTreeMap::new(),
            looked_into: 0,
            only_count: false,
        }
    }

    pub fn only_count(&mut self) {
        self.only_count = true;
    }

    pub fn counts_only(&self) -> bool {
        self.only_count
    }

    pub fn known(&self) -> usize {
        self.looked_into
    }

    pub fn of(&mut self, group: &GroupRequest, excluded: &[NodeId]) -> Lacks {
        if let Some(lacks) = self.known.get(group).and_then(|known| known.get(excluded)) {
            return lacks.clone();
        }
        let lacks = if self.only_count { self.count_only(group) } else { self.look_into(group, excluded) };
        self.known.entry(group.clone()).or_default().insert(excluded.to_vec(), lacks.clone());
        lacks
    }

    /// What a gang of several groups lacks: what each group lacks alone, or else room for all at once.
    pub fn of_gang(&mut self, scheduling: &Scheduling, excluded: &[NodeId]) -> Lacks {
        if let ([group], []) = (scheduling.groups.as_slice(), scheduling.together.as_slice()) {
            return self.of(group, excluded);
        }
        let key = (scheduling.groups.clone(), scheduling.together.clone(), excluded.to_vec());
        if let Some(lacks) = self.gangs.get(&key) {
            return lacks.clone();
        }
        let mut lacks: Vec<Blocker> = Vec::new();
        for group in &scheduling.groups {
            for lack in self.of(group, excluded).iter().flat_map(|lacks| lacks.iter()) {
                let detail = format!("group `{}`: {}", group.name, lack.detail);
                lacks.push(Blocker { detail, ..lack.clone() });
            }
        }
        if lacks.is_empty() {
            lacks.extend(self.all_at_once(scheduling, excluded));
        }
        let lacks: Lacks = (!lacks.is_empty()).then(|| lacks.into());
        self.gangs.insert(key, lacks.clone());
        lacks
    }

    fn all_at_once(&self, scheduling: &Scheduling, excluded: &[NodeId]) -> Option<Blocker> {
        let fits = |request| place(self.now, self.state.fabric(), self.state.policy(), request, &mut 0).is_some();
        let request = Request::of(scheduling, excluded);
        if fits(request) {
            return None;
        }
        let apart = fits(Request { together: &[], ..request });
        let level = scheduling.together.first().filter(|_| apart);
        Some(match level {
            Some(level) => {
                let detail = format!("all groups would fit, but not in one domain of level {}", level.level);
                blocker(Reason::Topology, detail).help("name a wider level for the groups together")
            }
            None => blocker(Reason::Nodes, "each group would fit alone, but not all of them at once"),
        })
    }

    fn fits(&self, ledger: &Ledger, group: &GroupRequest, excluded: &[NodeId]) -> bool {
        let groups = std::slice::from_ref(group);
        let request = Request { groups, together: &[], excluded, gang: GangId::default() };
        place(ledger, self.state.fabric(), self.state.policy(), request, &mut 0).is_some()
    }

    fn count_only(&self, group: &GroupRequest) -> Lacks {
        let (lack, short) = self.too_few(group);
        let mut lack = blocker(Reason::Nodes, lack);
        if !short {
            lack.detail.push_str("; `muster why` looks closer");
        }
        Some([lack].into())
    }

    fn look_into(&mut self, group: &GroupRequest, excluded: &[NodeId]) -> Lacks {
        self.looked_into += 1;
        if self.fits(self.now, group, excluded) {
            return None;
        }
        let mut lacks = self.of_the_request(group, excluded);
        lacks.extend(self.of_the_cluster(group, excluded));
        let (few, short) = self.too_few(group);
        // Where the number is there, what else is wrong with it says more.
        if short || lacks.is_empty() {
            let (who, gangs) = holders::told(self.state, group, excluded);
            lacks.push(blocker(Reason::Nodes, format!("{few}{who}")).by(gangs));
        }
        Some(lacks.into())
    }

    fn of_the_request(&self, group: &GroupRequest, excluded: &[NodeId]) -> Vec<Blocker> {
        let mut lacks = Vec::new();
        let only = |change: &dyn Fn(&mut GroupRequest)| {
            let mut other = group.clone();
            change(&mut other);
            other != *group && self.fits(self.now, &other, excluded)
        };
        let no_place = |group: &mut GroupRequest| {
            group.topology.clear();
            group.segment = None;
            group.spread = None;
        };
        if only(&no_place) {
            lacks.push(not_placed_so(group));
        }
        if only(&|group| group.models.clear()) {
            let models: Vec<&str> = group.models.iter().map(|model| model.as_str()).collect();
            let detail = format!("enough of other models is free, but not of {}", models.join(" or "));
            lacks.push(blocker(Reason::GpuModel, detail).help("accept more models"));
        }
        if only(&|group| group.exclusive = false) {
            let detail = "enough is free, but not on nodes that nobody else is on (`exclusive`)";
            lacks.push(blocker(Reason::CpuMemory, detail).help("share the nodes with others"));
        }
        let no_amount = |group: &mut GroupRequest| {
            group.cpu_milli_per_node = Some(0);
            group.memory_bytes_per_node = None;
        };
        if only(&no_amount) {
            let detail = "enough devices are free, but too little CPU or memory beside them";
            lacks.push(blocker(Reason::CpuMemory, detail).help("ask for less CPU or memory"));
        }
        if only(&|group| group.labels.clear()) {
            lacks.push(blocker(Reason::Label, "what is free does not carry the labels asked for"));
        }
        if only(&|group| group.avoid.clear()) {
            let avoid = pairs(&group.avoid);
            lacks.push(blocker(Reason::Label, format!("what is free carries a label to keep off: {avoid}")));
        }
        if only(&|group| group.exclude.clear()) || (!excluded.is_empty() && self.fits(self.now, group, &[])) {
            let detail = "what is free is on nodes that are excluded, or where an earlier attempt failed";
            lacks.push(blocker(Reason::Excluded, detail).on(excluded.iter().copied()));
        }
        lacks
    }

    fn of_the_cluster(&mut self, group: &GroupRequest, excluded: &[NodeId]) -> Vec<Blocker> {
        let state = self.state;
        let mut lacks = Vec::new();
        lacks.extend(self.of_sleepers(group, excluded));
        let suppose = Suppose { closed_are_open: true, ..Suppose::default() };
        let is_awake = |node: &NodeId| state.node(*node).is_some_and(|node| node.power.is_awake());
        let closed = self.now.nodes().filter(|view| !view.open).map(|view| view.facts.id);
        let closed: Vec<NodeId> = closed.filter(is_awake).collect();
        if !closed.is_empty() && self.fits_if(suppose, group, excluded) {
            let detail = match closed.len() {
                1 => "1 node takes no new work (cordoned, drained or silent)".to_owned(),
                many => format!("{many} nodes take no new work (cordoned, drained or silent)"),
            };
            lacks.push(blocker(Reason::ClosedNodes, detail).on(closed).help("muster node undrain NODE"));
        }
        let suppose = Suppose { unknown_are_free: true, ..Suppose::default() };
        let unknown = |device: &DeviceState| matches!(device, DeviceState::Unknown { .. });
        let nodes = state.nodes().values().filter(|node| node.devices.iter().any(unknown));
        let nodes: Vec<NodeId> = nodes.map(|node| node.id).collect();
        if !nodes.is_empty() && self.fits_if(suppose, group, excluded) {
            lacks.push(blocker(Reason::UnknownDevices, "devices of silent nodes are not proven free").on(nodes));
        }
        lacks
    }

    fn of_sleepers(&mut self, group: &GroupRequest, excluded: &[NodeId]) -> Option<Blocker> {
        let state = self.state;
        let sleeps = |node: &NodeId| state.node(*node).is_some_and(|node| !node.power.is_awake());
        let nodes: Vec<NodeId> = self.now.nodes().map(|view| view.facts.id).filter(sleeps).collect();
        let suppose = Suppose { asleep_are_awake: true, ..Suppose::default() };
        if nodes.is_empty() || !self.fits_if(suppose, group, excluded) {
            return None;
        }
        let pools = state.policy().elastic_pools();
        let enough = (1..=pools.len()).find(|pools| self.fits_with(*pools, &nodes, group, excluded));
        let wakes = match enough.and_then(|enough| pools.get(enough - 1)) {
            None => "and no `elastic` pool of the policy wakes enough of them".to_owned(),
            Some((name, pool)) => {
                format!("`elastic.{name}` wakes nodes for what has waited for {} s", pool.wake_after_ms.div_ceil(1000))
            }
        };
        let asleep = match nodes.len() {
            1 => "1 node is asleep".to_owned(),
            many => format!("{many} nodes are asleep"),
        };
        Some(blocker(Reason::Asleep, format!("{asleep}; {wakes}")).on(nodes))
    }

    /// Would it fit if those of the nodes were awake that are in the first so many elastic pools?
    fn fits_with(&mut self, pools: usize, asleep: &[NodeId], group: &GroupRequest, excluded: &[NodeId]) -> bool {
        let ledger = self.awake_upto.remove(&pools).unwrap_or_else(|| {
            let pool = |node: &NodeId| {
                let record = self.state.node(*node).filter(|record| record.is_in_service())?;
                self.state.policy().elastic_of(&record.name, &record.inventory)
            };
            let mut ledger = self.now.clone();
            let within = asleep.iter().filter(|node| pool(node).is_some_and(|(at, _)| at < pools));
            within.for_each(|node| ledger.open(*node));
            ledger
        });
        let fits = self.fits(&ledger, group, excluded);
        self.awake_upto.insert(pools, ledger);
        fits
    }

    /// Would it fit if only that were otherwise?
    fn fits_if(&mut self, suppose: Suppose, group: &GroupRequest, excluded: &[NodeId]) -> bool {
        let state = self.state;
        let ledger = self.supposed(suppose).take().unwrap_or_else(|| Ledger::of(state, suppose));
        let fits = self.fits(&ledger, group, excluded);
        *self.supposed(suppose) = Some(ledger);
        fits
    }

    fn supposed(&mut self, suppose: Suppose) -> &mut Option<Ledger> {
        match suppose {
            Suppose { asleep_are_awake: true, .. } => &mut self.awake,
            Suppose { closed_are_open: true, .. } => &mut self.opened,
            _ => &mut self.proven,
        }
    }

    /// How much of what it asks for is free, and whether that is too little.
    fn too_few(&self, group: &GroupRequest) -> (String, bool) {
        let open = || self.now.nodes().filter(|view| view.open);
        match &group.count {
            Count::Nodes { nodes, per_node: 0 } => {
                let have = open().count();
                let what = nodes_text(*nodes);
                (format!("needs {what} with CPU and memory to spare; {}", are(have, "open")), have < *nodes as usize)
            }
            Count::Nodes { nodes, per_node } if group.share.is_whole() => {
                let have = self.now.nodes_with(*per_node) as usize;
                let devices = devices_text(*per_node, "free ");
                (format!("needs {} with {devices}; {}", nodes_text(*nodes), have_it(have)), have < *nodes as usize)
            }
            Count::Nodes { nodes, per_node } => {
                let milli = group.share.0;
                let enough = |free: &[u16]| free.iter().filter(|&&free| free >= milli).count() >= *per_node as usize;
                let have = open().filter(|view| enough(&view.free)).count();
                let devices = devices_text(*per_node, "");
                let (what, have_it) = (nodes_text(*nodes), have_it(have));
                let detail = format!("needs {what} with {devices} of which {milli} thousandths are free; {have_it}");
                (detail, have < *nodes as usize)
            }
            Count::Total(total) => {
                let have = self.now.free_total() as u32;
                let what = devices_text(total.devices, "");
                (format!("needs {what}; {}", are(have as usize, "free")), have < total.devices)
            }
        }
    }
}

/// Enough is free, and not where the group wants it.
fn not_placed_so(group: &GroupRequest) -> Blocker {
    let levels: Vec<&str> = group.topology.iter().map(|request| request.level.as_str()).collect();
    let (wish, help) = match (&group.segment, &group.spread) {
        (Some(segment), _) => {
            let wish = format!("not in segments of {} nodes inside level {}", segment.nodes, segment.level);
            (wish, "ask for smaller segments")
        }
        (None, Some(spread)) => {
            let wish = format!("not with at most {} nodes in one domain of level {}", spread.nodes, spread.level);
            (wish, "allow more nodes in a domain")
        }
        (None, None) => {
            let wish = format!("not close enough together: asked for level {}", levels.join(", "));
            (wish, "prefer the level instead of requiring it")
        }
    };
    blocker(Reason::Topology, format!("enough is free, but {wish}")).help(help)
}

fn nodes_text(count: u32) -> String {
    if count == 1 { "1 node".into() } else { format!("{count} nodes") }
}

fn devices_text(count: u32, which: &str) -> String {
    if count == 1 { format!("1 {which}device") } else { format!("{count} {which}devices") }
}

fn are(count: usize, what: &str) -> String {
    if count == 1 { format!("1 is {what}") } else { format!("{count} are {what}") }
}

fn have_it(count: usize) -> String {
    if count == 1 { "1 has that many".into() } else { format!("{count} have that many") }
}
