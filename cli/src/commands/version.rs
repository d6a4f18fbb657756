//! `muster version`.

use crate::context::Context;
use crate::error::CliError;
use crate::output::table::cell;
use clap::Args;
use muster_proto::client::{VersionReply, VersionRequest};
use serde_json::Value;

/// Of the client protocol this program speaks.
pub const API: u32 = 1;

#[derive(Debug, Args)]
pub struct VersionArgs {
    /// Do not ask the cluster
    #[arg(long)]
    pub client: bool,
}

pub async fn run(context: &Context, args: VersionArgs) -> Result<u8, CliError> {
    let server = if args.client { None } else { ask(context).await };
    context.printer.answer(|| document(server.as_ref()), || render(server.as_ref()))?;
    Ok(0)
}

/// Whoever asks for a version often has no cluster at all: that is not a failure.
async fn ask(context: &Context) -> Option<VersionReply> {
    let client = match context.client() {
        Ok(client) => client,
        Err(error) => {
            if context.verbose > 0 {
                context.printer.say(&error.info().message);
            }
            return None;
        }
    };
    match client.call(async |mut api| api.version(VersionRequest {}).await).await {
        Ok(reply) => Some(reply),
        Err(error) => {
            context.printer.warn(&error.info().message);
            None
        }
    }
}

pub fn render(server: Option<&VersionReply>) -> String {
    let mut text = format!("muster {} (api {API})\n", env!("CARGO_PKG_VERSION"));
    if let Some(server) = server {
        text.push_str(&format!(
            "server {} {} (api {}, feature level {})\n",
            cell(&server.server_name),
            cell(&server.version),
            server.api,
            server.feature_level
        ));
    }
    text
}

pub fn document(server: Option<&VersionReply>) -> Value {
    muster_proto::document::version(Some((env!("CARGO_PKG_VERSION"), API)), server)
}
