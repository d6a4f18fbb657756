//! From path, query, headers and body to the fields of a call's message. Pure; nothing unknown is passed over.

use super::refusal::Refusal;
use super::route::{Fixed, Route, decoded};
use super::schema::{is_job_ref, is_open_json, request_name};
use http::StatusCode;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use muster_proto::refs;
use muster_runtime::config::nearest;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Fields that `Idempotency-Key` fills when the body does not.
const KEY_FIELDS: &[&str] = &["request_id", "key"];

/// What came with a request.
pub struct Given<'a> {
    pub captured: &'a BTreeMap<&'static str, String>,
    pub query: &'a str,
    /// Empty = no fields.
    pub body: &'a [u8],
    pub idempotency_key: Option<&'a str>,
}

/// The fields a request may give, beside those its route decides.
pub fn settable(route: &Route, input: &MessageDescriptor) -> Vec<FieldDescriptor> {
    let by_path = |name: &str| route.path.split('/').any(|segment| segment == format!("{{{name}}}"));
    let is_fixed = |name: &str| route.fixed.iter().any(|(field, _)| *field == name);
    input.fields().filter(|field| !by_path(field.name()) && !is_fixed(field.name())).collect()
}

/// The fields of the call's message.
///
/// # Errors
/// What is unknown, of the wrong kind, or not JSON at all, with its place or path.
pub fn fields(route: &Route, input: &MessageDescriptor, given: &Given) -> Result<Map<String, Value>, Refusal> {
    let settable = settable(route, input);
    let mut fields = if route.method.reads() {
        if !given.body.is_empty() {
            return Err(usage(format!("{} {} takes no body", route.method, route.path))
                .hint("give its fields in the query")
                .into());
        }
        from_query(&settable, given.query)?
    } else {
        if !given.query.is_empty() {
            return Err(usage(format!("{} {} takes no query", route.method, route.path))
                .hint("give its fields as JSON in the body")
                .into());
        }
        from_body(&settable, given.body)?
    };
    if let Some(key) = given.idempotency_key
        && let Some(field) = settable.iter().find(|field| KEY_FIELDS.contains(&field.name()))
    {
        fields.entry(field.name().to_owned()).or_insert_with(|| Value::from(key));
    }
    for (name, text) in given.captured {
        let field = input.get_field_by_name(name).expect("a test compares the table with the messages");
        fields.insert((*name).to_owned(), scalar(&field, text)?);
    }
    for (name, value) in route.fixed {
        let value = match value {
            Fixed::Text(text) => json!(text),
            Fixed::Flag(flag) => json!(flag),
        };
        fields.insert((*name).to_owned(), value);
    }
    Ok(fields)
}

fn usage(message: String) -> ErrorInfo {
    ErrorInfo::new(ErrorCode::Usage, message)
}

fn unknown(what: &str, name: &str, known: &[FieldDescriptor]) -> ErrorInfo {
    let names: Vec<String> = known.iter().map(request_name).collect();
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if names.is_empty() => "there is none to give here".to_owned(),
        None => format!("there is: {}", names.join(", ")),
    };
    usage(format!("there is no {what} `{name}`")).hint(hint)
}

fn from_query(known: &[FieldDescriptor], query: &str) -> Result<Map<String, Value>, Refusal> {
    let mut fields = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let plain = |text: &str| decoded(&text.replace('+', " "));
        let (Some(name), Some(text)) = (plain(name), plain(text)) else {
            return Err(usage(format!("`{pair}` in the query is not percent-encoded UTF-8")).into());
        };
        let Some(field) = known.iter().find(|field| request_name(field) == name) else {
            return Err(unknown("query parameter", &name, known).into());
        };
        let value = scalar(field, &text)?;
        let key = field.name().to_owned();
        if field.is_list() {
            match fields.entry(key).or_insert_with(|| json!([])) {
                Value::Array(items) => items.push(value),
                other => unreachable!("a list holds {other}"),
            }
        } else if fields.insert(key, value).is_some() {
            return Err(usage(format!("the query parameter `{name}` is given twice")).into());
        }
    }
    Ok(fields)
}

/// One value of a path or a query.
fn scalar(field: &FieldDescriptor, text: &str) -> Result<Value, ErrorInfo> {
    let kind = field.kind();
    if is_job_ref(&kind) {
        let job = refs::parse(text)?;
        return Ok(serde_json::to_value(job).expect("a reference is numbers and text"));
    }
    let wrong = || usage(format!("`{}` must be {}, not `{text}`", request_name(field), words(&kind)));
    match kind {
        Kind::String => Ok(json!(text)),
        Kind::Bool => text.parse::<bool>().map(Value::from).map_err(|_| wrong()),
        Kind::Uint32 => text.parse::<u32>().map(Value::from).map_err(|_| wrong()),
        Kind::Uint64 => text.parse::<u64>().map(Value::from).map_err(|_| wrong()),
        Kind::Int32 => text.parse::<i32>().map(Value::from).map_err(|_| wrong()),
        _ => Err(usage(format!("`{}` cannot be given here", request_name(field)))),
    }
}

fn words(kind: &Kind) -> &'static str {
    match kind {
        Kind::String => "text",
        Kind::Bool => "true or false",
        Kind::Uint32 => "a whole number below 2^32",
        Kind::Uint64 => "a whole number",
        Kind::Int32 => "a whole number between -2^31 and 2^31",
        Kind::Message(_) => "an object",
        _ => "something else",
    }
}

fn from_body(known: &[FieldDescriptor], body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        let info = ErrorInfo::new(ErrorCode::SpecSyntax, format!("line {line}, column {column}: {what}"))
            .hint("the body must be one JSON object");
        Refusal::from(info).at(line, column)
    })?;
    match value {
        Value::Object(map) => Ok(checked(map, known, "")?),
        _ => Err(Refusal::new(StatusCode::BAD_REQUEST, "the body must be one JSON object")),
    }
}

/// The fields by their names in the message, each of its kind.
fn checked(map: Map<String, Value>, known: &[FieldDescriptor], path: &str) -> Result<Map<String, Value>, ErrorInfo> {
    let mut fields = Map::new();
    for (name, value) in map {
        let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let Some(field) = known.iter().find(|field| request_name(field) == name) else {
            return Err(unknown("field", &name, known).path(at));
        };
        if value.is_null() {
            continue;
        }
        let value = if is_open_json(field) {
            json!(value.to_string())
        } else if field.is_map() {
            return Err(usage(format!("`{at}` cannot be given here")).path(at));
        } else if field.is_list() {
            let Value::Array(items) = value else {
                return Err(usage(format!("`{at}` must be a list")).path(at));
            };
            let items = items.into_iter().enumerate();
            Value::Array(items.map(|(n, item)| one(field, item, &format!("{at}[{n}]"))).collect::<Result<_, _>>()?)
        } else {
            one(field, value, &at)?
        };
        fields.insert(field.name().to_owned(), value);
    }
    Ok(fields)
}

fn one(field: &FieldDescriptor, value: Value, at: &str) -> Result<Value, ErrorInfo> {
    let kind = field.kind();
    let fits = match &kind {
        Kind::String => value.is_string(),
        Kind::Bool => value.is_boolean(),
        Kind::Uint32 => value.as_u64().is_some_and(|number| u32::try_from(number).is_ok()),
        Kind::Uint64 => value.is_u64(),
        Kind::Int32 => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        Kind::Message(_) => value.is_object() || value.is_string() && is_job_ref(&kind),
        _ => false,
    };
    match (value, &kind) {
        (Value::Object(map), Kind::Message(message)) => {
            let known: Vec<FieldDescriptor> = message.fields().collect();
            Ok(Value::Object(checked(map, &known, at)?))
        }
        (Value::String(text), Kind::Message(_)) if fits => scalar(field, &text).map_err(|error| error.path(at)),
        (value, _) if fits => Ok(value),
        (value, kind) => Err(usage(format!("`{at}` must be {}, not {}", words(kind), shown(&value))).path(at)),
    }
}

fn shown(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "such a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::super::route::{Found, find};
    use super::super::schema::Api;
    use super::super::table::ROUTES;
    use super::*;

    fn ask(method: &str, target: &str, body: &str) -> Result<Map<String, Value>, Refusal> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Found::Route(route, captured) = find(ROUTES, method, path) else { panic!("no route {method} {path}") };
        let given = Given { captured: &captured, query, body: body.as_bytes(), idempotency_key: Some("k") };
        fields(route, &Api::new().input(route.call), &given)
    }

    fn refused(method: &str, target: &str, body: &str) -> (String, Option<String>, Option<String>) {
        let refusal = ask(method, target, body).expect_err("refused");
        (refusal.info.message, refusal.info.hint, refusal.info.path)
    }

    #[test]
    fn path_query_body_and_key_become_the_fields_of_the_message() {
        let list = ask("GET", "/v1/jobs?states=QUEUED&states=RUNNING&limit=5&all_users=true&jobs=7_1&user=a%2Bb", "");
        let job = json!({"id": 7, "name": "", "ordinal": 1, "attempt": null});
        let expected =
            json!({"states": ["QUEUED", "RUNNING"], "limit": 5, "all_users": true, "jobs": [job], "user": "a+b"});
        assert_eq!(Value::Object(list.expect("good")), expected);
        let hold = ask("POST", "/v1/jobs/train/release", "").expect("good");
        let job = json!({"id": 0, "name": "train", "ordinal": null, "attempt": null});
        assert_eq!(Value::Object(hold), json!({"request_id": "k", "job": job, "hold": false}));
        let submit = ask("POST", "/v1/jobs", r#"{"spec": {"name": "x"}, "key": "mine", "retry_of": null}"#);
        assert_eq!(Value::Object(submit.expect("good")), json!({"spec_json": "{\"name\":\"x\"}", "key": "mine"}));
        let set = ask("PUT", "/v1/configuration/policy", r#"{"value": {"a": 1}}"#).expect("good");
        assert_eq!(Value::Object(set), json!({"json": "{\"a\":1}", "kind": "policy", "request_id": "k"}));
    }

    #[test]
    fn what_is_unknown_is_told_with_the_nearest_name() {
        let of = |message: &str, hint: &str| (message.to_owned(), Some(hint.to_owned()), None::<String>);
        assert_eq!(
            refused("GET", "/v1/jobs?stats=X", ""),
            of("there is no query parameter `stats`", "did you mean `states`?")
        );
        let (message, hint, path) = refused("POST", "/v1/jobs", r#"{"spce": {}}"#);
        assert_eq!((message.as_str(), path.as_deref()), ("there is no field `spce`", Some("spce")));
        assert_eq!(hint.as_deref(), Some("did you mean `spec`?"));
        let (message, hint, _) = refused("POST", "/v1/jobs/7/hold", r#"{"hold": false}"#);
        assert_eq!((message.as_str(), hint.as_deref()), ("there is no field `hold`", Some("there is: request_id")));
        let (_, hint, _) = refused("GET", "/v1/version?x=1", "");
        assert_eq!(hint.as_deref(), Some("there is none to give here"));
    }

    #[test]
    fn what_is_malformed_is_told_with_its_place() {
        let refusal = ask("POST", "/v1/jobs", "{\n  \"spec\": {\n,").expect_err("no JSON");
        assert_eq!((refusal.place, refusal.info.code), (Some((3, 1)), ErrorCode::SpecSyntax));
        for (body, message) in [
            (r#"{"hold": 1}"#, "`hold` must be true or false, not such a number"),
            (r#"{"key": 7}"#, "`key` must be text, not such a number"),
            (r#"{"retry_of": -1}"#, "`retry_of` must be a whole number, not such a number"),
            (r#"{"retry_of": 1.5}"#, "`retry_of` must be a whole number, not such a number"),
            ("[]", "the body must be one JSON object"),
        ] {
            assert_eq!(ask("POST", "/v1/jobs", body).expect_err(body).info.message, message);
        }
        for target in ["/v1/jobs?limit=x", "/v1/jobs?limit=1&limit=2", "/v1/jobs?user=%ff", "/v1/jobs/a%20b"] {
            assert_eq!(ask("GET", target, "").expect_err(target).status, StatusCode::BAD_REQUEST);
        }
        assert!(ask("GET", "/v1/jobs", "{}").is_err() && ask("POST", "/v1/jobs/7/hold?hold=true", "").is_err());
    }
}
