//! `muster node`: machines, and taking them in and out of service.

pub mod admin;
mod devices;
pub mod ls;
pub mod show;
pub mod token;

use crate::context::Context;
use crate::error::CliError;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes
    Ls(ls::LsArgs),
    /// Show everything about one node
    Show(show::ShowArgs),
    /// Place nothing new, and move what runs when the deadline is over
    Drain(admin::DrainArgs),
    /// Take a drained node back into service
    Undrain(admin::NodeArgs),
    /// Place nothing new
    Cordon(admin::ReasonArgs),
    /// Take a cordoned node back into service
    Uncordon(admin::NodeArgs),
    /// Make a one-time token with which a machine may join
    Token(token::TokenArgs),
    /// State that nothing runs on the node any more; you answer for it
    StateReleased(admin::ReasonArgs),
    /// Take a quarantined GPU back into service
    EndQuarantine(admin::QuarantineArgs),
    /// Forget a node that is gone for good
    Remove(admin::ReasonArgs),
}

pub async fn run(context: &Context, command: NodeCommand) -> Result<u8, CliError> {
    use admin::Change;
    match command {
        NodeCommand::Ls(args) => ls::run(context, args).await,
        NodeCommand::Show(args) => show::run(context, args).await,
        NodeCommand::Token(args) => token::run(context, args).await,
        NodeCommand::Drain(args) => admin::run(context, Change::drain(args)?).await,
        NodeCommand::Undrain(args) => admin::run(context, Change::plain("undrain", args)).await,
        NodeCommand::Cordon(args) => admin::run(context, Change::reasoned("cordon", args)).await,
        NodeCommand::Uncordon(args) => admin::run(context, Change::plain("uncordon", args)).await,
        NodeCommand::StateReleased(args) => {
            admin::run(context, Change::reasoned("state-released", args).dangerous()).await
        }
        NodeCommand::EndQuarantine(args) => admin::run(context, Change::quarantine(args)).await,
        NodeCommand::Remove(args) => admin::run(context, Change::reasoned("remove", args).dangerous()).await,
    }
}
