//! The JSON Schemas of the documents that `--json` prints, in `docs/reference/schemas`: made from what the
//! program prints, never typed, and only ever added to.

use muster_scheduler::http::openapi;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
const SHARED: &str = "#/components/schemas/";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/schemas")
}

/// Documents of all snapshots, with the file's name.
fn documents() -> Vec<(String, Value)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let folders = ["commands/snapshots", "snapshots"].map(|folder| here.join(folder));
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("a folder of snapshots").flatten());
    let mut found = Vec::new();
    for file in files.map(|entry| entry.path()) {
        let name = file.display().to_string();
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let Some(body) = text.splitn(3, "---\n").nth(2) else { continue };
        if let Ok(document) = serde_json::from_str::<Value>(body)
            && document["schema"].is_string()
        {
            found.push((name, document));
        }
    }
    assert!(found.len() > 30, "only {} documents were found", found.len());
    found
}

fn schema_of(document: &Value) -> String {
    document["schema"].as_str().expect("a tag").to_owned()
}

/// Every schema: of what servers answer, the one they publish; of what only the command line prints, what its
/// documents are made of.
fn made() -> BTreeMap<String, Value> {
    let whole = openapi::whole();
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    for (_, document) in documents() {
        let name = schema_of(&document);
        let published = &whole["components"]["schemas"][name.replace('/', ".")];
        let schema = match published {
            Value::Null => merged(schemas.remove(&name), inferred(&document)),
            published => with_definitions(&extended(published, &document), &whole),
        };
        schemas.insert(name, schema);
    }
    for (name, schema) in &mut schemas {
        schema["$schema"] = json!(DIALECT);
        schema["title"] = json!(name);
        schema["properties"]["schema"] = json!({"const": name});
    }
    schemas
}

/// With the fields that the command line adds to what the server answered.
fn extended(published: &Value, document: &Value) -> Value {
    let mut schema = published.clone();
    let known: BTreeSet<String> =
        schema["properties"].as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
    for (key, value) in document.as_object().into_iter().flatten().filter(|(key, _)| !known.contains(*key)) {
        schema["properties"][key] = inferred(value);
    }
    schema
}

/// The parts it names, moved into it.
fn with_definitions(schema: &Value, whole: &Value) -> Value {
    let mut text = schema.to_string();
    let mut definitions = Map::new();
    loop {
        let missing = names_in(&text).into_iter().find(|name| !definitions.contains_key(name));
        let Some(name) = missing else { break };
        let part = whole["components"]["schemas"][&name].clone();
        text.push_str(&part.to_string());
        definitions.insert(name, part);
    }
    let mut schema = schema.clone();
    if !definitions.is_empty() {
        schema["$defs"] = Value::Object(definitions);
    }
    serde_json::from_str(&schema.to_string().replace(SHARED, "#/$defs/")).expect("still JSON")
}

fn names_in(text: &str) -> BTreeSet<String> {
    let parts = text.split(SHARED).skip(1);
    parts.filter_map(|part| part.split('"').next()).map(str::to_owned).collect()
}

/// The shape of one value.
fn inferred(value: &Value) -> Value {
    match value {
        Value::Null => json!({"type": "null"}),
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::Number(number) if number.is_f64() => json!({"type": "number"}),
        Value::Number(_) => json!({"type": "integer"}),
        Value::String(_) => json!({"type": "string"}),
        Value::Array(items) => {
            let items = items.iter().map(inferred).fold(None, |all, one| Some(merged(all, one)));
            json!({"type": "array", "items": items.unwrap_or(json!({}))})
        }
        Value::Object(fields) => {
            let properties: Map<String, Value> =
                fields.iter().map(|(key, value)| (key.clone(), inferred(value))).collect();
            let required: Vec<&String> = properties.keys().collect();
            json!({"type": "object", "required": required, "properties": properties})
        }
    }
}

/// What both are: a field that only one has need not be there.
fn merged(one: Option<Value>, other: Value) -> Value {
    let Some(one) = one else { return other };
    match (&one, &other) {
        (first, second) if first == second => one,
        (first, Value::Object(second)) if second.is_empty() => first.clone(),
        (Value::Object(first), second) if first.is_empty() => second.clone(),
        _ if one["type"] == "object" && other["type"] == "object" => {
            let mut all = one.clone();
            for (key, schema) in other["properties"].as_object().into_iter().flatten() {
                let known = one["properties"].get(key).cloned();
                all["properties"][key] = merged(known, schema.clone());
            }
            let has = |schema: &Value, key: &Value| schema["required"].as_array().is_some_and(|all| all.contains(key));
            let required = one["required"].as_array().into_iter().flatten().filter(|key| has(&other, key));
            all["required"] = required.cloned().collect();
            all
        }
        _ if one["type"] == "array" && other["type"] == "array" => {
            json!({"type": "array", "items": merged(Some(one["items"].clone()), other["items"].clone())})
        }
        _ => {
            let words: BTreeSet<&str> = types(&one["type"]).chain(types(&other["type"])).collect();
            // Beside null, what the other says of its parts holds on.
            let mut all = if one["type"] == "null" { other.clone() } else { one.clone() };
            all["type"] = json!(words);
            all
        }
    }
}

fn file_of(name: &str) -> String {
    format!("{}.json", name.replace('/', "."))
}

/// `UPDATE=1` writes the files anew, but never drops a field.
#[test]
fn the_schemas_in_the_reference_are_those_of_what_is_printed_and_no_field_was_dropped() {
    let made = made();
    for (name, schema) in &made {
        let file = folder().join(file_of(name));
        let text = serde_json::to_string_pretty(schema).expect("JSON") + "\n";
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        if let Ok(kept) = serde_json::from_str::<Value>(&kept) {
            let lost = lost(&kept, schema, name);
            assert!(lost.is_empty(), "fields of documents are only ever added; gone or changed: {}", lost.join(", "));
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(folder()).expect("a folder");
            std::fs::write(&file, &text).expect("written");
        } else {
            assert!(kept == text, "{name}: run `UPDATE=1 cargo test -p muster-cli schemas`, and look at what changes");
        }
    }
    for entry in std::fs::read_dir(folder()).expect("the folder").flatten() {
        let name = entry.file_name().into_string().expect("a name");
        assert!(
            made.keys().any(|known| file_of(known) == name),
            "{name}: no document of that schema is printed any more"
        );
    }
}

/// Properties that are gone, or have another type.
fn lost(kept: &Value, made: &Value, at: &str) -> Vec<String> {
    let mut lost = Vec::new();
    for part in ["properties", "$defs"] {
        for (key, schema) in kept[part].as_object().into_iter().flatten() {
            let at = format!("{at}.{key}");
            match made[part].get(key) {
                None => lost.push(at),
                Some(now) if !schema["type"].is_null() && schema["type"] != now["type"] => lost.push(at),
                Some(now) => lost.extend(self::lost(schema, now, &at)),
            }
        }
    }
    if kept["items"].is_object() {
        lost.extend(self::lost(&kept["items"], &made["items"], &format!("{at}[]")));
    }
    lost
}

#[test]
fn a_field_that_is_dropped_or_changed_is_noticed() {
    let kept =
        json!({"properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"properties": {"c": {}}}}}});
    assert_eq!(lost(&kept, &kept, "x"), [""; 0]);
    let changed =
        json!({"properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {"properties": {}}}, "d": {}}});
    assert_eq!(lost(&kept, &changed, "x"), ["x.a", "x.b[].c"]);
}

#[test]
fn every_document_that_is_printed_is_what_its_schema_says() {
    let made = made();
    for (file, document) in documents() {
        let schema = &made[&schema_of(&document)];
        if let Err(wrong) = check(schema, schema, &document, &schema_of(&document)) {
            panic!("{file}: {wrong}");
        }
    }
}

/// Knows the words that the schemas use, and no other.
fn check(whole: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    for (word, wanted) in schema.as_object().ok_or("a schema is an object")? {
        match word.as_str() {
            "$schema"
            | "$defs"
            | "title"
            | "description"
            | "examples"
            | "format"
            | "properties"
            | "additionalProperties" => {}
            "$ref" => {
                let name = wanted.as_str().and_then(|name| name.strip_prefix("#/$defs/")).ok_or("a reference")?;
                check(whole, &whole["$defs"][name], value, at)?;
            }
            "const" => same(wanted == value, wanted, value, at)?,
            "enum" => same(wanted.as_array().is_some_and(|all| all.contains(value)), wanted, value, at)?,
            "minimum" => same(value.is_null() || value.as_f64() >= wanted.as_f64(), wanted, value, at)?,
            "type" => same(types(wanted).any(|word| is(word, value)), wanted, value, at)?,
            "required" => {
                // Of objects only; whether it must be one, the type says.
                let has = |key: &Value| value.get(key.as_str().unwrap_or("")).is_some();
                let all = value.as_object().is_none() || wanted.as_array().into_iter().flatten().all(has);
                same(all, wanted, value, at)?;
            }
            "items" => {
                let items = value.as_array().into_iter().flatten();
                items.enumerate().try_for_each(|(n, item)| check(whole, wanted, item, &format!("{at}[{n}]")))?;
            }
            "anyOf" => {
                let mut all = wanted.as_array().into_iter().flatten();
                same(all.any(|schema| check(whole, schema, value, at).is_ok()), wanted, value, at)?;
            }
            other => return Err(format!("{at}: the schema has the word `{other}`")),
        }
    }
    let Some(known) = schema["properties"].as_object() else { return Ok(()) };
    value.as_object().into_iter().flatten().try_for_each(|(key, value)| match known.get(key) {
        Some(schema) => check(whole, schema, value, &format!("{at}.{key}")),
        None => Err(format!("{at}.{key} is not in the schema")),
    })
}

fn same(holds: bool, wanted: &Value, value: &Value, at: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{at}: {value} is not {wanted}")) }
}

fn types(wanted: &Value) -> impl Iterator<Item = &str> {
    wanted.as_array().map_or_else(|| vec![wanted], |all| all.iter().collect()).into_iter().filter_map(Value::as_str)
}

fn is(word: &str, value: &Value) -> bool {
    match word {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}
