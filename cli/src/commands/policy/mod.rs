//! `muster policy`: the policies a cluster has had, one that is tried beside it, and putting one in force on the word of a
//! simulation.

pub mod history;
pub mod promote;
pub mod shadow;

use crate::context::Context;
use crate::error::CliError;
use clap::Subcommand;
use muster_engine::policy::Policy;
use muster_proto::client::{ShowPolicyReply, ShowPolicyRequest};
use muster_proto::convert::error::ErrorCode;
use muster_runtime::config::load_file;
use std::path::Path;

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// List the policies that were in force, by whom, when, and on what evidence
    History(history::HistoryArgs),
    /// Put the policy of a simulation in force, and keep what the simulation found
    Promote(promote::PromoteArgs),
    /// Try a policy on the live cluster, without any effect
    #[command(subcommand)]
    Shadow(shadow::ShadowCommand),
}

pub async fn run(context: &Context, command: PolicyCommand) -> Result<u8, CliError> {
    match command {
        PolicyCommand::History(args) => history::run(context, args).await,
        PolicyCommand::Promote(args) => promote::run(context, args).await,
        PolicyCommand::Shadow(command) => shadow::run(context, command).await,
    }
}

/// Reads a policy as what it will be, so that mistakes have lines.
///
/// # Errors
/// A file that cannot be read, or that is no sound policy.
pub fn read(file: &Path) -> Result<Policy, CliError> {
    let policy: Policy = load_file(file)?;
    policy
        .validate()
        .map_err(|error| CliError::new(ErrorCode::ConfigInvalid, format!("{}: {error}", file.display())))?;
    Ok(policy)
}

async fn show(context: &Context) -> Result<ShowPolicyReply, CliError> {
    let client = context.client()?;
    client.call(async |mut api| api.show_policy(ShowPolicyRequest {}).await).await
}
