//! Revisions of a job: what each edit changed, by the paths of a job file.

use super::words::plain;
use crate::gateway::past::Edited;
use muster_common::job::file::{JobFile, scheduling_file};
use muster_proto::client as pb;
use serde_json::Value;
use std::collections::BTreeMap;

/// Longer values are cut: a script need not be shown twice.
const VALUE_CHARS_MAX: usize = 200;

/// An edit as history tells it.
pub fn render(edited: &Edited) -> pb::Revision {
    let mut changes = diff(&scheduling_file(&edited.before), &scheduling_file(&edited.after));
    if let Some((before, after)) = &edited.renamed {
        changes.insert(0, change("name", before.as_str(), after.as_str()));
    }
    if edited.launch {
        // History keeps no environment of a job that lives.
        changes.push(change("gang.run, env, workdir, logs or elements", "", "changed"));
    }
    pb::Revision { number: edited.revision, at_ms: edited.at.0, by: edited.by.0.to_string(), changes }
}

/// The values that differ, by path.
pub fn diff(before: &JobFile, after: &JobFile) -> Vec<pb::Change> {
    let (before, after) = (values(before), values(after));
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort();
    paths.dedup();
    let of = |values: &BTreeMap<String, String>, path: &String| values.get(path).cloned().unwrap_or_default();
    let differing = paths.into_iter().filter(|path| before.get(*path) != after.get(*path));
    differing.map(|path| change(path, &of(&before, path), &of(&after, path))).collect()
}

fn change(path: &str, before: &str, after: &str) -> pb::Change {
    pb::Change { path: path.to_owned(), before: shown(path, before), after: shown(path, after) }
}

fn shown(path: &str, text: &str) -> String {
    // People put passwords into variables.
    if (path.starts_with("env.") || path.contains(".env.")) && !text.is_empty() {
        return super::spec::HIDDEN.into();
    }
    let text = plain(text);
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Every leaf of the file as text; a list is one value.
fn values(file: &JobFile) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let value = serde_json::to_value(file).unwrap_or(Value::Null);
    collect("", &value, &mut values);
    values
}

fn collect(path: &str, value: &Value, values: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect(&path, value, values);
            }
        }
        // Of tables only: a list of words is one value.
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (number, value) in items.iter().enumerate() {
                collect(&format!("{path}.{number}"), value, values);
            }
        }
        Value::String(text) => drop(values.insert(path.to_owned(), text.clone())),
        other => drop(values.insert(path.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told_and_no_variable_is_shown() {
        let file = |text: &str| serde_json::from_str::<JobFile>(text).unwrap();
        let before = file(r#"{"name":"a","gang":{"nodes":2,"run":"x"},"limits":{"time":"1h"},"env":{"TOKEN":"one"}}"#);
        let after = file(r#"{"name":"a","gang":{"nodes":3,"run":"x"},"queue":"q","env":{"TOKEN":"two"}}"#);
        let told: Vec<(String, String, String)> =
            diff(&before, &after).into_iter().map(|change| (change.path, change.before, change.after)).collect();
        let expected = [
            ("env.TOKEN", "(hidden)", "(hidden)"),
            ("gang.nodes", "2", "3"),
            ("limits.time", "1h", ""),
            ("queue", "", "q"),
        ];
        assert_eq!(told, expected.map(|(path, before, after)| (path.into(), before.into(), after.into())));
    }
}
