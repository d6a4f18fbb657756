//! Requests that this cluster can never meet, refused with the part of the job file that is to blame.

use muster_common::job::{Count, GroupRequest, Scheduling};
use muster_engine::State;
use muster_engine::plan::empty::Empty;
use muster_engine::plan::feasible::check_request;
use muster_engine::plan::ledger::Ledger;
use muster_engine::plan::never::{NeverFits, fits_on};
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The cluster as it would be if nothing ran, kept from one job to the next.
#[derive(Debug, Default)]
pub struct Emptied(Mutex<Option<Empty>>);

impl Emptied {
    fn of(&self, state: &State) -> Arc<Ledger> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.as_mut().is_some_and(|empty| empty.is_of(state)) {
            *kept = None;
        }
        kept.get_or_insert_with(|| Empty::of(state)).ledger().clone()
    }
}

/// # Errors
/// [`ErrorCode::PriorityUnknown`], [`ErrorCode::TopologyUnknown`], [`ErrorCode::ModelUnknown`],
/// [`ErrorCode::SpecValue`] or [`ErrorCode::NeverFits`], with path and hint.
pub fn check(state: &State, emptied: &Emptied, scheduling: &Scheduling) -> Result<(), ErrorInfo> {
    check_class(state, scheduling)?;
    for (number, group) in scheduling.groups.iter().enumerate() {
        let at = table(scheduling, number);
        check_levels(state, group, &at)?;
        check_models(state, group, &at)?;
    }
    check_request(scheduling, state.fabric())
        .map_err(|why| ErrorInfo::new(ErrorCode::SpecValue, why).path("gang").hint("correct `[gang]`"))?;
    // A cluster that is being set up has no nodes yet; jobs may wait for them.
    if state.nodes().is_empty() {
        return Ok(());
    }
    let empty = emptied.of(state);
    fits_on(state, scheduling, &empty).map_err(|never| {
        let NeverFits { what, have, hint } = &never;
        let message = format!("the job can never start: asks for {what}; {have}");
        ErrorInfo::new(ErrorCode::NeverFits, message).path(culprit(state, &empty, scheduling)).hint(hint.clone())
    })
}

fn check_class(state: &State, scheduling: &Scheduling) -> Result<(), ErrorInfo> {
    let policy = state.policy();
    if policy.class_rank(&scheduling.class).is_some() {
        return Ok(());
    }
    let configured = policy.classes.keys().map(|name| name.as_str());
    let known: BTreeSet<&str> = configured.chain(["low", "normal", "high"]).collect();
    let message = format!("there is no priority class `{}`", scheduling.class);
    let hint = format!("there is: {}", known.into_iter().collect::<Vec<_>>().join(", "));
    Err(ErrorInfo::new(ErrorCode::PriorityUnknown, message).path("priority").hint(hint))
}

/// The table of the job file that a group stands in.
fn table(scheduling: &Scheduling, number: usize) -> String {
    if scheduling.groups.len() > 1 { format!("group.{number}") } else { "gang".to_owned() }
}

fn check_levels(state: &State, group: &GroupRequest, at: &str) -> Result<(), ErrorInfo> {
    let fabric = state.fabric();
    let topology = group.topology.iter().map(|request| ("topology.within", &request.level));
    let segment = group.segment.iter().map(|segment| ("segments.within", &segment.level));
    let spread = group.spread.iter().map(|spread| ("spread.over", &spread.level));
    let unknown = topology
        .chain(segment)
        .chain(spread)
        .find(|(_, level)| level.as_str() != "node" && fabric.find_level(level.as_str()).is_none());
    let Some((key, level)) = unknown else { return Ok(()) };
    let message = format!("there is no topology level `{level}`");
    let hint = format!("there is: {}", fabric.level_names().join(", "));
    Err(ErrorInfo::new(ErrorCode::TopologyUnknown, message).path(format!("{at}.{key}")).hint(hint))
}

fn check_models(state: &State, group: &GroupRequest, at: &str) -> Result<(), ErrorInfo> {
    let models = || state.nodes().values().flat_map(|node| &node.inventory.devices).map(|device| device.model.as_str());
    let wanted: Vec<&str> = group.models.iter().map(|model| model.as_str()).collect();
    if wanted.is_empty() || state.nodes().is_empty() || models().any(|model| wanted.contains(&model)) {
        return Ok(());
    }
    let known: BTreeSet<&str> = models().collect();
    let message = format!("no node has a device of model {}", wanted.join(" or "));
    let hint = match known.is_empty() {
        true => "the cluster has no devices; ask for CPUs only".to_owned(),
        false => format!("there is: {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    };
    Err(ErrorInfo::new(ErrorCode::ModelUnknown, message).path(format!("{at}.gpu")).hint(hint))
}

type Relax = fn(&mut GroupRequest);

/// The first part of the request without which it would fit; what is left is its size.
fn culprit(state: &State, empty: &Ledger, scheduling: &Scheduling) -> String {
    let alone = |number: usize| Scheduling {
        groups: vec![scheduling.groups[number].clone()],
        together: Vec::new(),
        ..scheduling.clone()
    };
    match (0..scheduling.groups.len()).find(|number| fits_on(state, &alone(*number), empty).is_err()) {
        Some(number) => format!("{}.{}", table(scheduling, number), key_to_blame(state, empty, &alone(number))),
        // Each fits alone.
        None if !scheduling.together.is_empty() => "gang.topology".to_owned(),
        None => "group".to_owned(),
    }
}

/// Of a gang of one group.
fn key_to_blame(state: &State, empty: &Ledger, scheduling: &Scheduling) -> &'static str {
    const PARTS: &[(&str, Relax)] = &[
        ("exclusive", |group| group.exclusive = false),
        ("cpus_per_node", |group| group.cpu_milli_per_node = Some(0)),
        ("memory_per_node", |group| group.memory_bytes_per_node = None),
        ("segments", |group| group.segment = None),
        ("spread", |group| group.spread = None),
        ("topology", |group| group.topology.clear()),
        ("labels", |group| group.labels.clear()),
        ("avoid", |group| group.avoid.clear()),
        ("exclude", |group| group.exclude.clear()),
    ];
    for (path, relax) in PARTS {
        let mut relaxed = scheduling.clone();
        relaxed.groups.iter_mut().for_each(relax);
        if relaxed != *scheduling && fits_on(state, &relaxed, empty).is_ok() {
            return path;
        }
    }
    let Some(group) = scheduling.groups.first() else { return "nodes" };
    match group.count {
        Count::Total(_) => "gpus",
        Count::Nodes { per_node, .. } => {
            let mut alone = scheduling.clone();
            alone.groups.iter_mut().for_each(|group| group.count = Count::Nodes { nodes: 1, per_node });
            if fits_on(state, &alone, empty).is_ok() { "nodes" } else { "gpus_per_node" }
        }
    }
}
