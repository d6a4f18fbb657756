//! Whether a document is what a schema says. It knows only what the OpenAPI document uses, and nothing is passed over: a
//! word it does not know, or a field the schema does not name, is a failure.

use serde_json::{Map, Value};

/// # Errors
/// Where the document differs.
pub fn check(whole: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Value::Object(words) = schema else { return Err(format!("{at}: the schema is {schema}")) };
    for (word, wanted) in words {
        match word.as_str() {
            "description" | "examples" | "format" | "required" | "properties" | "additionalProperties" => {}
            "$ref" => check(whole, target(whole, wanted), value, at)?,
            "const" => ok(value == wanted, at, wanted, value)?,
            "enum" => ok(wanted.as_array().is_some_and(|all| all.contains(value)), at, wanted, value)?,
            "minimum" => {
                ok(value.is_null() || value.as_i64().is_none_or(|n| Some(n) >= wanted.as_i64()), at, wanted, value)?
            }
            "type" => ok(is_type(wanted, value), at, wanted, value)?,
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(whole, wanted, item, &format!("{at}[{n}]"))?;
                }
            }
            "anyOf" => {
                let all = wanted.as_array().into_iter().flatten();
                let tried: Vec<String> = all.filter_map(|schema| check(whole, schema, value, at).err()).collect();
                let count = wanted.as_array().map_or(0, Vec::len);
                if tried.len() == count {
                    return Err(tried.join(" and "));
                }
            }
            other => return Err(format!("{at}: the schema has the word `{other}`")),
        }
    }
    match value {
        Value::Object(fields) if words.contains_key("type") => object(whole, words, fields, at),
        _ => Ok(()),
    }
}

fn object(whole: &Value, words: &Map<String, Value>, fields: &Map<String, Value>, at: &str) -> Result<(), String> {
    let known = words.get("properties").and_then(Value::as_object);
    for (name, value) in fields {
        let schema = known.and_then(|known| known.get(name)).or_else(|| words.get("additionalProperties"));
        let schema = schema.filter(|schema| schema.is_object());
        let schema = schema.ok_or_else(|| format!("{at}.{name} is not in the schema"))?;
        check(whole, schema, value, &format!("{at}.{name}"))?;
    }
    let required = words.get("required").and_then(Value::as_array).into_iter().flatten();
    match required.filter_map(Value::as_str).find(|name| !fields.contains_key(*name)) {
        Some(missing) => Err(format!("{at}.{missing} is missing")),
        None => Ok(()),
    }
}

fn ok(holds: bool, at: &str, wanted: &Value, value: &Value) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{at}: {value} is not {wanted}")) }
}

fn target<'a>(whole: &'a Value, reference: &Value) -> &'a Value {
    let path = reference.as_str().and_then(|text| text.strip_prefix('#')).expect("a reference inside");
    whole.pointer(path).unwrap_or_else(|| panic!("{path} is nowhere"))
}

fn is_type(wanted: &Value, value: &Value) -> bool {
    match wanted {
        Value::Array(all) => all.iter().any(|one| is_type(one, value)),
        Value::String(word) => match word.as_str() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            "integer" => value.is_u64() || value.is_i64(),
            other => panic!("a type `{other}`"),
        },
        other => panic!("a type {other}"),
    }
}

#[test]
fn a_document_that_differs_anywhere_is_found() {
    let schema = serde_json::json!({
        "type": "object", "required": ["a"],
        "properties": {"a": {"type": "integer", "minimum": 0}, "b": {"type": "array", "items": {"const": "x"}}},
    });
    let found = |text: &str| check(&schema, &schema, &serde_json::from_str(text).unwrap(), "it").err();
    assert_eq!(found(r#"{"a": 1, "b": ["x"]}"#), None);
    for wrong in ["[]", "{}", r#"{"a": -1}"#, r#"{"a": 1.5}"#, r#"{"a": 1, "b": ["y"]}"#, r#"{"a": 1, "c": 2}"#] {
        assert!(found(wrong).is_some(), "{wrong}");
    }
}
