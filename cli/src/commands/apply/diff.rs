//! What differs between two configurations, path by path.

use crate::output::table::cell;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Parts that are compared; the rest of what a server shows is about the configuration, not of it.
const PARTS: &[&str] = &["account", "queue", "price", "policy", "reservation"];

/// One value that differs; `None` = it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub path: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let values = |shown: &Value| {
        let mut values = BTreeMap::new();
        PARTS.iter().for_each(|part| flat(&shown[*part], part, &mut values));
        values
    };
    let (before, after) = (values(before), values(after));
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let change = |path: &String| Change {
        path: path.clone(),
        before: before.get(path).cloned(),
        after: after.get(path).cloned(),
    };
    paths.into_iter().map(change).filter(|change| change.before != change.after).collect()
}

/// Values by path. What is null, or a table without anything in it, is not there.
fn flat(value: &Value, path: &str, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => fields.iter().for_each(|(key, value)| flat(value, &format!("{path}.{key}"), into)),
        other => drop(into.insert(path.to_owned(), other.to_string())),
    }
}

/// One line each: `+` what is new, `-` what goes, `~` what becomes another.
pub fn render(changes: &[Change]) -> String {
    let mut text = String::new();
    for Change { path, before, after } in changes {
        let path = cell(path);
        let _ = match (before, after) {
            (None, Some(after)) => writeln!(text, "+ {path} = {}", cell(after)),
            (Some(before), None) => writeln!(text, "- {path} = {}", cell(before)),
            (before, after) => {
                let shown = |value: &Option<String>| cell(value.as_deref().unwrap_or_default());
                writeln!(text, "~ {path} = {} -> {}", shown(before), shown(after))
            }
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_new_goes_or_becomes_another_is_told_by_its_path() {
        let before = json!({"version": 3, "account": {"a": {"weight": 1, "parent": null}, "b": {"weight": 2}}, "policy": {"order": "fair"}});
        let after = json!({"version": 4, "account": {"a": {"weight": 1, "parent": "c"}}, "policy": {"order": "fifo"}});
        assert_eq!(
            render(&changes(&before, &after)),
            "+ account.a.parent = \"c\"\n- account.b.weight = 2\n~ policy.order = \"fair\" -> \"fifo\"\n"
        );
        assert_eq!(changes(&after, &after), []);
    }
}
