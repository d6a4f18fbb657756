//! The OpenAPI document, made from the table of routes and the descriptors of the messages: it cannot say anything
//! that the server does not do.

use super::ask::settable;
use super::body::BODY_BYTES_MAX;
use super::route::{Answer, Route, Shape, placeholder};
use super::schema::{Api, field_comment, is_job_ref, is_open_json, message_comment, request_name};
use super::stream::{EVENT_STREAM, JSON_LINES};
use super::table::{GRPC_ONLY, ROUTES};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Where a server offers it.
pub const PATH: &str = "/v1/openapi.json";
/// Raised with the meaning of what is there; what is added raises nothing.
const VERSION: &str = "1.0.0";

/// The whole document, made anew.
pub fn whole() -> Value {
    document(&Api::new())
}

/// The whole document.
pub(super) fn document(api: &Api) -> Value {
    let mut schemas = Schemas::default();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES {
        let operation = operation(api, route, &mut schemas);
        paths.entry(route.path).or_default().insert(route.method.word().to_lowercase(), operation);
    }
    schemas.add("Error", error());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Muster", "version": VERSION,
            "description": "The client API of a Muster scheduler as HTTP and JSON. Every document names its schema; fields \
                            are only ever added. Callers show a certificate of the cluster.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "x-grpc-only": GRPC_ONLY.iter().map(|(call, why)| json!({"call": call, "why": why})).collect::<Vec<_>>(),
        "security": [{"certificate": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"certificate": {"type": "mutualTLS"}},
            "schemas": schemas.by_name,
        },
    })
}

fn operation(api: &Api, route: &Route, schemas: &mut Schemas) -> Value {
    let input = api.input(route.call);
    let fields = settable(route, &input);
    let in_path = route.path.split('/').filter_map(placeholder).map(|name| {
        let field = input.get_field_by_name(name).expect("a test compares the table with the messages");
        parameter(&field, "path")
    });
    let in_query = fields.iter().filter(|_| route.method.reads()).map(|field| parameter(field, "query"));
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": api.comment(route.call),
        "parameters": parameters,
        "responses": {"200": answered(api, route, schemas), "default": problem()},
    });
    if !route.method.reads() {
        let properties: Map<String, Value> = fields.iter().map(|field| (request_name(field), taken(field))).collect();
        let schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
        operation["requestBody"] = json!({
            "description": format!("At most {} KiB.", BODY_BYTES_MAX >> 10),
            "content": {"application/json": {"schema": schema}},
        });
    }
    operation
}

/// `NodeAdmin` by `cordon` is `NodeAdmin_cordon`.
fn operation_id(route: &Route) -> String {
    let ambiguous = ROUTES.iter().filter(|other| other.call == route.call).count() > 1;
    let last = route.path.rsplit('/').find(|segment| placeholder(segment).is_none()).unwrap_or_default();
    if ambiguous {
        format!("{}_{}_{last}", route.call, route.method.word().to_lowercase())
    } else {
        route.call.to_owned()
    }
}

fn answered(api: &Api, route: &Route, schemas: &mut Schemas) -> Value {
    let (name, kinds): (&str, &[&str]) = match &route.answer {
        Answer::Document { schema, .. } => (schema, &["application/json"]),
        Answer::Events => ("muster.event/1", &[EVENT_STREAM, JSON_LINES]),
        Answer::Logs => ("muster.log/1", &[EVENT_STREAM, JSON_LINES]),
    };
    let component = component_name(name);
    let schema = match &route.answer {
        Answer::Document { shape, .. } => shaped(*shape, name, &api.output(route.call), schemas),
        Answer::Events => tagged(name, schemas.properties(&api.output(route.call))),
        Answer::Logs => log_line(name),
    };
    schemas.add(&component, schema);
    let content: Map<String, Value> =
        kinds.iter().map(|kind| ((*kind).to_owned(), json!({"schema": reference(&component)}))).collect();
    json!({"description": format!("`{name}`"), "content": content})
}

/// `muster.node_change/1` is the component `muster.node_change.1`.
fn component_name(schema: &str) -> String {
    schema.replace('/', ".")
}

fn shaped(shape: Shape, name: &str, output: &MessageDescriptor, schemas: &mut Schemas) -> Value {
    let mut properties = Map::new();
    let mut put = |name: &str, schema: Value| drop(properties.insert(name.to_owned(), schema));
    match shape {
        Shape::Whole => properties = schemas.properties(output),
        Shape::Submitted => {
            properties = schemas.properties(output);
            properties.insert("dry_run".to_owned(), json!({"type": "boolean"}));
        }
        Shape::Listed => put("jobs", json!({"type": "array", "items": schemas.of(output)})),
        Shape::Version => {
            put("server", json!({"anyOf": [schemas.of(output), {"type": "null"}]}));
            put("client", json!({"description": "Of the command line; null here."}));
        }
        Shape::Configuration => {
            put("kind", json!({"type": "string"}));
            put("version", json!({"type": "integer", "minimum": 0}));
            put("changed", json!({"type": "boolean"}));
            put("value", json!({"description": "The value in force."}));
        }
        Shape::NodeToken => {
            put("token", json!({"type": "string", "description": "For `muster agent join`; shown once."}));
            put("expires_at_ms", json!({"type": "integer", "minimum": 0}));
            put("expires_at", moment());
        }
    }
    tagged(name, properties)
}

fn log_line(name: &str) -> Value {
    let count = json!({"type": "integer", "minimum": 0});
    let stream = json!({"enum": ["stdout", "stderr"]});
    let properties =
        [("rank", count.clone()), ("attempt", count), ("stream", stream), ("line", json!({"type": "string"}))];
    tagged(name, properties.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect())
}

/// An object with all of these properties and its name.
fn tagged(name: &str, mut properties: Map<String, Value>) -> Value {
    properties.insert("schema".to_owned(), json!({"const": name}));
    object(properties, "")
}

fn object(properties: Map<String, Value>, description: &str) -> Value {
    let required: Vec<&String> = properties.keys().collect();
    let mut object = json!({"type": "object", "required": required, "properties": properties});
    if !description.is_empty() {
        object["description"] = json!(description);
    }
    object
}

fn reference(component: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{component}")})
}

fn moment() -> Value {
    json!({"type": ["string", "null"], "format": "date-time"})
}

fn problem() -> Value {
    json!({"description": "Why not.", "content": {"application/json": {"schema": reference("Error")}}})
}

fn error() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let maybe = |description: &str| json!({"type": ["string", "null"], "description": description});
    let place = json!({"type": "integer", "minimum": 1});
    let error = json!({
        "type": "object",
        "required": ["code", "number", "message", "hint", "retryable", "path"],
        "properties": {
            "code": text("Never changes its meaning."), "number": text("Such as E020."), "message": text("What happened."),
            "hint": maybe("What to do next."), "retryable": {"type": "boolean"},
            "path": maybe("The field that is wrong."), "line": place, "column": place,
        },
    });
    json!({
        "type": "object",
        "required": ["schema", "error", "exit_code"],
        "properties": {
            "schema": {"const": "muster.error/1"}, "error": error,
            "exit_code": {"type": "integer", "description": "What the command line would end with."},
        },
    })
}

fn parameter(field: &FieldDescriptor, place: &str) -> Value {
    json!({
        "name": request_name(field), "in": place, "required": place == "path",
        "description": field_comment(field), "schema": taken(field),
    })
}

/// What a request may give for a field.
fn taken(field: &FieldDescriptor) -> Value {
    let kind = field.kind();
    let mut schema = match &kind {
        _ if is_open_json(field) => json!({}),
        kind if is_job_ref(kind) => json!({"type": "string", "examples": ["4711", "4711_3", "4711@2", "llama-sft"]}),
        Kind::Message(_) => json!({"type": "object"}),
        kind => scalar(kind),
    };
    if field.is_list() {
        schema = json!({"type": "array", "items": schema});
    }
    described(schema, field)
}

fn described(mut schema: Value, field: &FieldDescriptor) -> Value {
    let comment = field_comment(field);
    if !comment.is_empty() {
        schema["description"] = json!(comment);
    }
    schema
}

fn scalar(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Uint32 | Kind::Uint64 => json!({"type": "integer", "minimum": 0}),
        Kind::Int32 | Kind::Int64 => json!({"type": "integer"}),
        Kind::String => json!({"type": "string"}),
        other => unreachable!("the rules of client.proto have no {other:?}"),
    }
}

/// The messages that replies are made of, a component each.
#[derive(Default)]
struct Schemas {
    by_name: BTreeMap<String, Value>,
}

impl Schemas {
    fn add(&mut self, name: &str, schema: Value) {
        self.by_name.insert(name.to_owned(), schema);
    }

    fn of(&mut self, message: &MessageDescriptor) -> Value {
        let name = message.name();
        if !self.by_name.contains_key(name) {
            // Known before its fields are: a message may hold itself.
            self.add(name, Value::Null);
            let schema = object(self.properties(message), &message_comment(message));
            self.add(name, schema);
        }
        reference(name)
    }

    /// As `muster_proto::document` shows them.
    fn properties(&mut self, message: &MessageDescriptor) -> Map<String, Value> {
        let mut properties = Map::new();
        for field in message.fields() {
            let name = field.name();
            match (name, field.kind()) {
                ("spec_json", _) => drop(properties.insert("spec".to_owned(), described(json!({}), &field))),
                ("file_json", _) => drop(properties.insert("file".to_owned(), described(json!({}), &field))),
                ("json", _) => drop(properties.insert("data".to_owned(), described(json!({}), &field))),
                (_, Kind::Bytes) => {}
                (_, kind) => {
                    let schema = self.shown(&field, &kind);
                    properties.insert(name.to_owned(), described(schema, &field));
                }
            }
            let stem = name.strip_suffix("_ms").filter(|stem| matches!(*stem, "at" | "now") || stem.ends_with("_at"));
            if let Some(stem) = stem {
                properties.insert(stem.to_owned(), moment());
            }
        }
        properties
    }

    fn shown(&mut self, field: &FieldDescriptor, kind: &Kind) -> Value {
        if field.is_map() {
            return json!({"type": "object", "additionalProperties": {"type": "string"}});
        }
        let schema = match kind {
            Kind::Message(message) => self.of(message),
            kind => scalar(kind),
        };
        if field.is_list() {
            return json!({"type": "array", "items": schema});
        }
        match kind {
            Kind::Message(_) => json!({"anyOf": [schema, {"type": "null"}]}),
            _ if field.supports_presence() => {
                let mut schema = schema;
                schema["type"] = json!([schema["type"], "null"]);
                schema
            }
            _ => schema,
        }
    }
}
