//! Messages as documents: a schema tag, and each moment also as RFC 3339.

use super::human::rfc3339;
use serde::Serialize;
use serde_json::{Map, Value};

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

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::client::{Event, Job};

    #[test]
    fn moments_are_numbers_and_rfc_3339() {
        let job = Job { id: 7, submitted_at_ms: 1_700_000_000_000, spec_json: r#"{"a":1}"#.into(), ..Job::default() };
        let value = document("muster.job/1", &job);
        assert_eq!(value["schema"], "muster.job/1");
        assert_eq!(value["submitted_at"], "2023-11-14T22:13:20Z");
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
