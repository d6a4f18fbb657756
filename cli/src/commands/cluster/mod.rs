//! `muster cluster`: make a cluster, look at it, configure it.

pub mod configure;
pub mod init;
pub mod status;

use crate::context::Context;
use crate::error::CliError;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a certificate authority, identities and settings for a new cluster
    Init(init::InitArgs),
    /// Show servers, leader and totals
    Status(status::StatusArgs),
    /// Show or change the policy, the fabric, the settings or the organisation of the cluster
    Set(configure::SetArgs),
}

pub async fn run(context: &Context, command: ClusterCommand) -> Result<u8, CliError> {
    match command {
        ClusterCommand::Init(args) => init::run(context, args),
        ClusterCommand::Status(args) => status::run(context, args).await,
        ClusterCommand::Set(args) => configure::run(context, args).await,
    }
}
