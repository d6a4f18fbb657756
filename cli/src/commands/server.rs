//! `muster server`: one of the servers that decide.

use crate::context::Context;
use crate::error::CliError;
use crate::layout::beside;
use clap::Args;
use muster_proto::convert::error::ErrorCode;
use muster_runtime::config::load_file;
use muster_runtime::shutdown::Shutdown;
use muster_runtime::telemetry::{self, Format};
use muster_scheduler::config::ServerConfig;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct ServerArgs {}

pub async fn run(context: &Context, _args: ServerArgs) -> Result<u8, CliError> {
    let file = settings_file(context, "server.toml")?;
    let mut config: ServerConfig = load_file(&file)?;
    config.dir = beside(&file, &config.dir)?;
    config.identity = beside(&file, &config.identity)?;
    config
        .validate()
        .map_err(|error| CliError::new(ErrorCode::ConfigInvalid, format!("{}: {error}", file.display())))?;
    let shutdown = start_daemon(context)?;
    muster_scheduler::server::run(config, shutdown)
        .await
        .map_err(|error| CliError::new(ErrorCode::Internal, error.to_string()))?;
    Ok(0)
}

/// A daemon has no settings but its file's.
pub fn settings_file(context: &Context, name: &str) -> Result<PathBuf, CliError> {
    context.flags.config.clone().ok_or_else(|| {
        CliError::new(ErrorCode::ConfigMissing, "a daemon needs its settings file")
            .hint(format!("give --config /etc/muster/{name}"))
    })
}

/// Logging to stderr, and the end by SIGTERM or SIGINT.
pub fn start_daemon(context: &Context) -> Result<Shutdown, CliError> {
    let format = if context.printer.json { Format::Json } else { Format::Text };
    let filter = match (context.printer.quiet, context.verbose) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "info,muster=debug,muster_scheduler=debug,muster_agent=debug",
        (false, _) => "debug",
    };
    telemetry::init(format, filter).map_err(|error| CliError::new(ErrorCode::ConfigInvalid, error.to_string()))?;
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    Ok(shutdown)
}
