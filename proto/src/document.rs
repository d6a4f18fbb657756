//! Messages as documents: a schema tag, and each moment also as RFC 3339. The one mapping to JSON, for the command
//! line's `--json` and for HTTP.

use crate::client as pb;
use crate::convert::error::ErrorInfo;
use crate::join_token::JoinToken;
use serde::Serialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// One document. `schema` is such as `muster.job/1`; fields are only added within a major.
pub fn document<T: Serialize>(schema: &str, message: &T) -> Value {
    let mut value = plain(message);
    if let Value::Object(map) = &mut value {
        map.insert("schema".to_owned(), Value::from(schema));
    }
    value
}

/// Without a tag, for parts of a document.
pub fn plain<T: Serialize>(message: &T) -> Value {
    let mut value =
        serde_json::to_value(message).expect("messages have string keys and no floats that are not numbers");
    enrich(&mut value);
    value
}

/// Adds `x_at` beside `x_at_ms`, and opens JSON that travels as text.
fn enrich(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(enrich),
        Value::Object(map) => {
            map.values_mut().for_each(enrich);
            add_moments(map);
            open_text(map, "spec_json", "spec");
            open_text(map, "file_json", "file");
            open_text(map, "json", "data");
        }
        _ => {}
    }
}

fn add_moments(map: &mut Map<String, Value>) {
    let moments: Vec<(String, Value)> = map
        .iter()
        .filter_map(|(key, value)| {
            let stem = if key == "at_ms" || key == "now_ms" {
                key.strip_suffix("_ms")?
            } else {
                key.strip_suffix("_ms").filter(|stem| stem.ends_with("_at"))?
            };
            let text = value.as_u64().and_then(rfc3339);
            Some((stem.to_owned(), text.map_or(Value::Null, Value::from)))
        })
        .collect();
    map.extend(moments);
}

fn open_text(map: &mut Map<String, Value>, key: &str, opened: &str) {
    let Some(text) = map.get(key).and_then(Value::as_str) else { return };
    let inside = serde_json::from_str(text).unwrap_or(Value::Null);
    map.remove(key);
    map.insert(opened.to_owned(), inside);
}

/// RFC 3339 in UTC, to the millisecond. `None` beyond year 9999.
pub fn rfc3339(at_ms: u64) -> Option<String> {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000).ok()?;
    moment.format(&Rfc3339).ok()
}

/// What became of a submit, a dry run or a retry.
pub fn submitted(reply: &pb::SubmitReply, dry_run: bool) -> Value {
    let mut document = document("muster.submitted/1", reply);
    document["dry_run"] = Value::from(dry_run);
    document
}

/// Jobs told to stop.
pub fn cancelled(replies: &[pb::CancelReply]) -> Value {
    json!({"schema": "muster.cancelled/1", "jobs": plain(&replies)})
}

/// Jobs held or released.
pub fn held(replies: &[pb::HoldReply]) -> Value {
    json!({"schema": "muster.held/1", "jobs": plain(&replies)})
}

/// `client` is the asking program's own version and API, when it is one of ours.
pub fn version(client: Option<(&str, u32)>, server: Option<&pb::VersionReply>) -> Value {
    json!({
        "schema": "muster.version/1",
        "client": client.map(|(version, api)| json!({"version": version, "api": api})),
        "server": server.map(plain),
    })
}

/// Replicated configuration of one kind.
pub fn configuration(kind: &str, reply: &pb::ConfigureReply) -> Value {
    let value = serde_json::from_str(&reply.json).unwrap_or(Value::Null);
    json!({
        "schema": "muster.configuration/1", "kind": kind, "version": reply.version,
        "changed": reply.changed, "value": value,
    })
}

/// A join token in the form that `muster agent join` takes.
pub fn node_token(reply: &pb::NodeTokenReply) -> Value {
    json!({
        "schema": "muster.node_token/1", "token": JoinToken::of(reply).encode(),
        "expires_at_ms": reply.expires_at_ms, "expires_at": rfc3339(reply.expires_at_ms),
    })
}

/// One whole line that a rank wrote.
pub fn log_line(rank: u32, attempt: u32, stream: &str, line: &[u8]) -> Value {
    let text = String::from_utf8_lossy(line);
    json!({
        "schema": "muster.log/1", "rank": rank, "attempt": attempt, "stream": stream,
        "line": text.trim_end_matches('\n'),
    })
}

/// What went wrong, without the place in a file that only a client knows.
pub fn error(info: &ErrorInfo) -> Value {
    json!({
        "code": info.code.name(), "number": info.code.to_string(), "message": info.message,
        "hint": info.hint, "retryable": info.retryable, "path": info.path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Event, Job};

    #[test]
    fn moments_are_numbers_and_rfc_3339() {
        let job = Job { id: 7, submitted_at_ms: 1_700_000_000_000, spec_json: r#"{"a":1}"#.into(), ..Job::default() };
        let value = document("muster.job/1", &job);
        assert_eq!(value["schema"], "muster.job/1");
        assert_eq!(value["submitted_at"], "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339(1_700_000_000_123).as_deref(), Some("2023-11-14T22:13:20.123Z"));
        assert_eq!(rfc3339(u64::MAX), None);
        assert_eq!(value["submitted_at_ms"], 1_700_000_000_000u64);
        assert_eq!(value["ended_at"], Value::Null);
        assert_eq!(value["gangs"], Value::Array(vec![]));
        assert_eq!((&value["spec"]["a"], value.get("spec_json")), (&Value::from(1), None));
    }

    #[test]
    fn durations_are_left_alone() {
        let value = plain(&Event { at_ms: 0, json: "not json".into(), ..Event::default() });
        assert_eq!((&value["at"], &value["data"]), (&Value::from("1970-01-01T00:00:00Z"), &Value::Null));
    }
}
