//! A job's spec as the cluster understood it.

use crate::gateway::subject::Subject;
use muster_common::job::file::decompile;
use muster_common::job::{Count, GroupRequest, Launch, Scheduling};
use serde_json::{Value, json};

/// What stands in place of a value that is not for everybody.
pub const HIDDEN: &str = "(hidden)";

/// `{"scheduling": ..., "launch": ...}`; environment values only for those who may see them.
pub fn render(subject: &Subject, secrets: bool) -> String {
    let launch = if secrets { (*subject.launch).clone() } else { without_secrets(&subject.launch) };
    json!({ "scheduling": value(&*subject.scheduling), "launch": value(&launch) }).to_string()
}

/// The job file that makes this job, as JSON.
pub fn file(subject: &Subject, secrets: bool) -> String {
    let mut launch = if secrets { (*subject.launch).clone() } else { without_secrets(&subject.launch) };
    launch.name = subject.record.name.clone();
    value(&decompile(&subject.scheduling, &launch)).to_string()
}

/// The launch part without what people put passwords in.
pub fn without_secrets(launch: &Launch) -> Launch {
    let mut launch = launch.clone();
    let groups = launch.groups.iter_mut().flat_map(|group| group.env.values_mut());
    launch.env.values_mut().chain(groups).for_each(|value| *value = HIDDEN.into());
    launch
}

fn value<T: serde::Serialize>(part: &T) -> Value {
    serde_json::to_value(part).unwrap_or(Value::Null)
}

/// Nodes of a gang; 0 where only a number of devices is asked for.
pub fn nodes(scheduling: &Scheduling) -> u32 {
    let of = |group: &GroupRequest| match group.count {
        Count::Nodes { nodes, .. } => Some(nodes),
        Count::Total(_) => None,
    };
    scheduling.groups.iter().map(of).try_fold(0, |sum: u32, nodes| sum.checked_add(nodes?)).unwrap_or(0)
}

/// Devices on each node; 0 where it is not the same on all of them.
pub fn devices_per_node(scheduling: &Scheduling) -> u32 {
    let of = |group: &GroupRequest| match group.count {
        Count::Nodes { per_node, .. } => per_node,
        Count::Total(_) => 0,
    };
    let first = scheduling.groups.first().map_or(0, of);
    if scheduling.groups.iter().all(|group| of(group) == first) { first } else { 0 }
}

/// Every model that some group takes.
pub fn models(scheduling: &Scheduling) -> Vec<String> {
    let mut models: Vec<String> = Vec::new();
    for model in scheduling.groups.iter().flat_map(|group| &group.models).map(ToString::to_string) {
        if !models.contains(&model) {
            models.push(model);
        }
    }
    models
}
