//! `muster cluster`: make a cluster, look at it, configure it, change its servers.

pub mod backup;
pub mod configure;
pub mod doctor;
pub mod init;
pub mod issue;
pub mod members;
pub mod restore;
pub mod status;
pub mod transfer;
pub mod upgrade;

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
    /// List the servers, add, remove or replace one
    Members(members::MembersArgs),
    /// Issue or renew the identity of a person, a server or a node; needs no server
    Issue(issue::IssueArgs),
    /// Let the cluster do what all its servers can since they were upgraded: raise its feature level
    Upgrade(upgrade::UpgradeArgs),
    /// Hand leadership to another server
    Transfer(transfer::TransferArgs),
    /// Look for what is wrong, or soon will be, and tell what to do about it
    Doctor(doctor::DoctorArgs),
    /// Write the whole cluster into one file
    Backup(backup::BackupArgs),
    /// Make the data folders of new servers from a backup; needs no server
    Restore(restore::RestoreArgs),
}

pub async fn run(context: &Context, command: ClusterCommand) -> Result<u8, CliError> {
    match command {
        ClusterCommand::Init(args) => init::run(context, args),
        ClusterCommand::Status(args) => status::run(context, args).await,
        ClusterCommand::Set(args) => configure::run(context, args).await,
        ClusterCommand::Upgrade(args) => upgrade::run(context, args).await,
        ClusterCommand::Members(args) => members::run(context, args).await,
        ClusterCommand::Issue(args) => issue::run(context, &args),
        ClusterCommand::Doctor(args) => doctor::run(context, args).await,
        ClusterCommand::Backup(args) => backup::run(context, args).await,
        ClusterCommand::Restore(args) => restore::run(context, &args),
        ClusterCommand::Transfer(args) => transfer::run(context, args).await,
    }
}
