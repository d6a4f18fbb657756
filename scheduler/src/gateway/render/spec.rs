//! A job's spec as the cluster understood it.

use crate::gateway::subject::Subject;
use muster_common::job::file::decompile;
use muster_common::job::{GroupRequest, Launch, Scheduling};
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
    launch.env.values_mut().for_each(|value| *value = HIDDEN.into());
    launch
}

fn value<T: serde::Serialize>(part: &T) -> Value {
    serde_json::to_value(part).unwrap_or(Value::Null)
}

/// The one group a gang has so far.
pub fn group(scheduling: &Scheduling) -> Option<&GroupRequest> {
    scheduling.groups.first()
}
