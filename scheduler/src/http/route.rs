//! What a route is, and which one a request means.

use crate::gateway::Gateway;
use futures::future::BoxFuture;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use muster_runtime::config::nearest;
use muster_runtime::identity::ConnectInfo;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use tonic::{Request, Status};

/// The methods in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    Get,
    Post,
    Put,
}

impl Method {
    pub const fn word(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
        }
    }

    /// Whether fields come in the query, not in a body.
    pub const fn reads(self) -> bool {
        matches!(self, Method::Get)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A field of the call's message that the route itself decides.
#[derive(Debug, Clone, Copy)]
pub enum Fixed {
    Text(&'static str),
    Flag(bool),
}

/// One row of the table.
pub struct Route {
    pub method: Method,
    /// `{field}` stands for a field of the call's message.
    pub path: &'static str,
    /// The gRPC call it is.
    pub call: &'static str,
    pub fixed: &'static [(&'static str, Fixed)],
    pub answer: Answer,
}

/// How a route answers.
pub enum Answer {
    Document {
        schema: &'static str,
        shape: Shape,
        run: Run,
    },
    /// The stream of events.
    Events,
    /// The stream of lines that ranks write.
    Logs,
}

/// How the reply's message becomes the document, as its schema says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The message's fields.
    Whole,
    /// The message as the one item of `jobs`: the command line's calls take several jobs.
    Listed,
    /// As `Whole`, with `dry_run`.
    Submitted,
    /// The message under `server`.
    Version,
    Configuration,
    NodeToken,
}

pub type Run = fn(Gateway, Asked) -> BoxFuture<'static, Result<Value, Status>>;

/// A request after all checks of its form.
pub struct Asked {
    /// Fields of the call's message, by their names in it.
    pub fields: Map<String, Value>,
    pub info: ConnectInfo,
}

impl Asked {
    /// The same as a gRPC request, from the same caller.
    ///
    /// # Errors
    /// A value that the message cannot hold.
    pub fn request<T: DeserializeOwned>(self) -> Result<Request<T>, Status> {
        let message = serde_json::from_value(Value::Object(self.fields))
            .map_err(|error| ErrorInfo::new(ErrorCode::Usage, format!("the request cannot be read: {error}")))?;
        let mut request = Request::new(message);
        request.extensions_mut().insert(self.info);
        Ok(request)
    }

    pub fn flag(&self, field: &str) -> bool {
        self.fields.get(field).and_then(Value::as_bool).unwrap_or(false)
    }

    pub fn text(&self, field: &str) -> String {
        self.fields.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

/// What a path and a method lead to.
pub enum Found<'a> {
    Route(&'a Route, BTreeMap<&'static str, String>),
    /// The path is there, with these methods.
    OtherMethods(Vec<Method>),
    /// No such path; the nearest one.
    Nothing(Option<String>),
}

/// Finds the route of a request. Segments are compared as they are; captured ones are percent-decoded.
pub fn find<'a>(table: &'a [Route], method: &str, path: &str) -> Found<'a> {
    let matching: Vec<(&Route, BTreeMap<&'static str, String>)> =
        table.iter().filter_map(|route| Some((route, captures(route.path, path)?))).collect();
    if matching.is_empty() {
        return Found::Nothing(nearest_path(table, path));
    }
    let methods = matching.iter().map(|(route, _)| route.method).collect();
    match matching.into_iter().find(|(route, _)| route.method.word() == method) {
        Some((route, captured)) => Found::Route(route, captured),
        None => Found::OtherMethods(methods),
    }
}

/// The name between the braces of a template's segment.
pub fn placeholder(segment: &'static str) -> Option<&'static str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

fn captures(template: &'static str, path: &str) -> Option<BTreeMap<&'static str, String>> {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    let mut captured = BTreeMap::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(captured),
            (Some(wanted), Some(given)) => match placeholder(wanted) {
                Some(field) if !given.is_empty() => drop(captured.insert(field, decoded(given)?)),
                None if wanted == given => {}
                _ => return None,
            },
            _ => return None,
        }
    }
}

/// The path with the placeholders filled as they were given, for a hint.
fn nearest_path(table: &[Route], path: &str) -> Option<String> {
    let given: Vec<&str> = path.split('/').collect();
    let filled: Vec<String> = table
        .iter()
        .map(|route| {
            let segment = |(at, wanted): (usize, &'static str)| match (placeholder(wanted), given.get(at)) {
                (Some(_), Some(given)) if !given.is_empty() => (*given).to_owned(),
                _ => wanted.to_owned(),
            };
            route.path.split('/').enumerate().map(segment).collect::<Vec<_>>().join("/")
        })
        .collect();
    nearest(path, filled.iter().map(String::as_str)).map(str::to_owned)
}

/// Percent-decoded text; `None` when it is not well formed or not UTF-8.
pub fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
        bytes.push(u8::try_from(digit(0)? * 16 + digit(1)?).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::table::ROUTES;
    use super::*;

    fn route(method: &str, path: &str) -> String {
        match find(ROUTES, method, path) {
            Found::Route(route, captured) => format!("{} {captured:?}", route.call),
            Found::OtherMethods(methods) => format!("other methods {methods:?}"),
            Found::Nothing(near) => format!("nothing, near {near:?}"),
        }
    }

    #[test]
    fn a_path_finds_its_call_and_a_near_miss_is_told() {
        assert_eq!(route("GET", "/v1/jobs"), "ListJobs {}");
        assert_eq!(route("GET", "/v1/jobs/47%31_3/why"), "Why {\"job\": \"471_3\"}");
        assert_eq!(route("PUT", "/v1/jobs"), "other methods [Get, Post]");
        assert_eq!(route("GET", "/v1/job"), "nothing, near Some(\"/v1/jobs\")");
        assert_eq!(route("GET", "/v1/jobs/7/wyh"), "nothing, near Some(\"/v1/jobs/7/why\")");
        for odd in ["/v1/jobs/", "/v1/jobs//why", "/v1/jobs/%zz", "/v1/jobs/%ff", "", "/v1/jobs/7/why/"] {
            assert!(route("GET", odd).starts_with("nothing"), "{odd:?}: {}", route("GET", odd));
        }
    }

    #[test]
    fn no_two_routes_are_the_same() {
        let mut seen: Vec<(&str, Method)> = ROUTES.iter().map(|route| (route.path, route.method)).collect();
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }
}
