//! `muster cluster set`: policy, fabric, settings and organisation, from a TOML file.

use crate::commands::policy;
use crate::context::{Context, request_id};
use crate::error::CliError;
use crate::output::table::cell;
use clap::{Args, ValueEnum};
use muster_common::topology::FabricSpec;
use muster_engine::command::Settings;
use muster_engine::organisation::Organisation;
use muster_proto::client::{ConfigureReply, ConfigureRequest};
use muster_proto::convert::error::ErrorCode;
use muster_runtime::config::load_file;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Policy,
    Fabric,
    Settings,
    Organisation,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Kind::Policy => "policy",
            Kind::Fabric => "fabric",
            Kind::Settings => "settings",
            Kind::Organisation => "organisation",
        }
    }
}

#[derive(Debug, Args)]
pub struct SetArgs {
    pub kind: Kind,
    /// TOML file with the new value; without it, the value in force is shown
    pub file: Option<PathBuf>,
}

pub async fn run(context: &Context, args: SetArgs) -> Result<u8, CliError> {
    let json = match &args.file {
        Some(file) => read(args.kind, file)?,
        None => String::new(),
    };
    let request = ConfigureRequest {
        request_id: request_id(),
        kind: args.kind.word().into(),
        json,
        plan_only: args.file.is_none(),
    };
    let client = context.client()?;
    let reply = client.call(async |mut api| api.configure(request.clone()).await).await?;
    context.printer.answer(|| document(args.kind, &reply), || render(args.kind, &reply, args.file.is_some()))?;
    Ok(0)
}

/// Read as what it will be, so that mistakes have lines.
fn read(kind: Kind, file: &Path) -> Result<String, CliError> {
    match kind {
        Kind::Policy => Ok(to_json(&policy::read(file)?)),
        Kind::Fabric => as_json::<FabricSpec>(file),
        Kind::Settings => as_json::<Settings>(file),
        Kind::Organisation => {
            let document: Organisation = load_file(file)?;
            // Whether what is owed is there is for the server to say.
            document
                .validate(&BTreeMap::new())
                .map_err(|error| CliError::new(ErrorCode::ConfigInvalid, format!("{}: {error}", file.display())))?;
            Ok(to_json(&document))
        }
    }
}

fn as_json<T: DeserializeOwned + Serialize>(file: &Path) -> Result<String, CliError> {
    Ok(to_json(&load_file::<T>(file)?))
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("configuration has string keys and no floats")
}

fn value(reply: &ConfigureReply) -> Value {
    serde_json::from_str(&reply.json).unwrap_or_default()
}

/// TOML has no null; what is not there is left out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

pub fn render(kind: Kind, reply: &ConfigureReply, set: bool) -> String {
    if set {
        let what = if reply.changed { "changed" } else { "as before" };
        return format!("{} {what}; configuration {}\n", kind.word(), reply.version);
    }
    match toml::to_string_pretty(&without_nulls(value(reply))) {
        Ok(text) => format!("# {}, configuration {}\n{text}", kind.word(), reply.version),
        Err(_) => cell(&reply.json) + "\n",
    }
}

pub fn document(kind: Kind, reply: &ConfigureReply) -> Value {
    muster_proto::document::configuration(kind.word(), reply)
}
