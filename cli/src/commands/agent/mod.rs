//! `muster agent`: the daemon of a node, and joining it to a cluster.

pub mod join;

use super::server::{settings_file, start_daemon};
use crate::context::Context;
use crate::error::CliError;
use crate::layout::beside;
use clap::{Args, Subcommand};
use muster_agent::config::Config;
use muster_agent::device::DeviceSource;
use muster_proto::convert::error::ErrorCode;
use muster_runtime::config::load_file;

#[derive(Debug, Args)]
pub struct AgentArgs {
    #[command(subcommand)]
    pub command: Option<AgentCommand>,
    /// In place of the file's: auto, none, nvml, nvml:PATH or simulated:FIXTURE
    #[arg(long)]
    pub devices: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Trade a one-time token for this node's own identity
    Join(join::JoinArgs),
}

/// Refuses a `--devices` that no agent could start with.
pub fn check_devices(text: &str) -> Result<(), CliError> {
    text.parse::<DeviceSource>().map(drop).map_err(|error| {
        let text = error.to_string();
        let (message, help) = text.split_once("\n  help: ").unwrap_or((&text, "see `muster agent --help`"));
        CliError::new(ErrorCode::Usage, format!("--devices: {message}")).hint(help)
    })
}

pub async fn run(context: &Context, args: AgentArgs) -> Result<u8, CliError> {
    if let Some(AgentCommand::Join(joining)) = args.command {
        if args.devices.is_some() {
            return Err(CliError::new(ErrorCode::Usage, "--devices in front of `join` says nothing to it")
                .hint("write it behind: muster agent join --devices ..."));
        }
        return join::run(context, joining).await;
    }
    let file = settings_file(context, "agent.toml")?;
    let mut config: Config = load_file(&file)?;
    config.state_dir = beside(&file, &config.state_dir)?;
    let others = [&mut config.runtime_dir, &mut config.identity_dir, &mut config.log_root, &mut config.output_root];
    for path in others.into_iter().flatten() {
        *path = beside(&file, path)?;
    }
    if let Some(devices) = args.devices {
        config.devices = devices;
    }
    config
        .validate()
        .map_err(|error| CliError::new(ErrorCode::ConfigInvalid, format!("{}: {error}", file.display())))?;
    let shutdown = start_daemon(context)?;
    muster_agent::run(config, shutdown).await.map_err(|error| CliError::new(ErrorCode::Internal, error.to_string()))?;
    Ok(0)
}
