//! A parser's complaint in the words of a job file's author.

use super::source::{Fault, Source};
use crate::error::{CliError, Report};
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use muster_runtime::config::nearest;

/// Keys by the table they belong to, for the one trap of TOML: after a table's header, every key
/// belongs to that table.
const HOMES: &[(&str, &[&str])] = &[
    ("", &["name", "queue", "account", "priority", "preemptible", "workdir", "env"]),
    (
        "gang",
        &[
            "run",
            "nodes",
            "gpus",
            "gpus_per_node",
            "gpu",
            "share",
            "cpus_per_node",
            "memory_per_node",
            "ranks_per_node",
            "mixed_gpus",
            "exclusive",
            "topology",
            "segments",
            "spread",
            "labels",
            "prefer",
            "data",
            "communication",
            "exclude",
        ],
    ),
    ("limits", &["time", "expected", "wait"]),
    ("retry", &["infra", "app", "exclude_failed_node"]),
    ("checkpoint", &["signal", "grace"]),
    ("array", &["range", "grid", "lines", "json", "at_once", "stop_after_failures"]),
    ("logs", &["file_size", "files"]),
    ("fence", &["after"]),
];

pub fn reading_error(fault: &Fault, source: &Source) -> CliError {
    let (info, label) = explain(fault, source);
    let place = fault.span.clone().map(|span| source.at(span, &label));
    let info = match (&place, label.is_empty()) {
        (None, false) => ErrorInfo { message: format!("{} ({label})", info.message), ..info },
        _ => info,
    };
    CliError::gather(vec![Report { info, place }]).expect("one report was given")
}

/// What is wrong, and what to write beside the carets.
fn explain(fault: &Fault, source: &Source) -> (ErrorInfo, String) {
    let message = fault.message.as_str();
    if fault.syntax {
        let words = message.lines().collect::<Vec<_>>().join("; ");
        return (ErrorInfo::new(ErrorCode::SpecSyntax, format!("{} cannot be read", source.name())), words);
    }
    if message.starts_with("unknown field") {
        return unknown_key(message);
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return (ErrorInfo::new(ErrorCode::SpecMissing, format!("{key} is missing")), String::new());
    }
    if message.starts_with("duplicate") {
        return (ErrorInfo::new(ErrorCode::SpecSyntax, message), String::new());
    }
    if let Some(rest) = message.strip_prefix("invalid type: ") {
        let (found, expected) = rest.split_once(", expected ").unwrap_or((rest, "something else"));
        let info = ErrorInfo::new(ErrorCode::SpecType, format!("wrong type: {found}"));
        return (info, format!("expected {}", plain(expected)));
    }
    if let Some(rest) = message.strip_prefix("invalid value: ") {
        let (found, expected) = rest.split_once(", expected ").unwrap_or((rest, "something else"));
        let info = ErrorInfo::new(ErrorCode::SpecValue, format!("impossible value: {found}"));
        return (info, format!("expected {}", plain(expected)));
    }
    (ErrorInfo::new(ErrorCode::SpecValue, message), String::new())
}

/// What serde expects, without the words of this program's source.
fn plain(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not negative",
        "a map" => "a table",
        _ if expected.starts_with("struct ") => "a table",
        other => other,
    }
}

/// Serde says "unknown field `x`, expected one of `a`, `b`".
fn unknown_key(message: &str) -> (ErrorInfo, String) {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let wrong = quoted.next().unwrap_or_default();
    let known: Vec<&str> = quoted.collect();
    let mut info = ErrorInfo::new(ErrorCode::SpecUnknownKey, format!("unknown key `{wrong}`"));
    info.hint =
        nearest(wrong, known.iter().copied()).map(|meant| format!("did you mean `{meant}`?")).or_else(|| home(wrong));
    (info, format!("possible here: {}", known.join(", ")))
}

fn home(key: &str) -> Option<String> {
    let (table, _) = HOMES.iter().find(|(_, keys)| keys.contains(&key))?;
    Some(match *table {
        "" => format!("`{key}` belongs at the top of the file, before the first table"),
        table => format!("`{key}` belongs in the table `[{table}]`"),
    })
}
