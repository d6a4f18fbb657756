//! `muster reservation`: nodes put aside for a window of time.

pub mod create;
pub mod delete;
pub mod ls;
mod nodes;
pub mod show;

use crate::context::Context;
use crate::error::CliError;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum ReservationCommand {
    /// Put nodes aside for a window of time: for maintenance, an account or some jobs
    #[command(visible_alias = "make", after_help = create::EXAMPLES)]
    Create(Box<create::CreateArgs>),
    /// List reservations that are not over
    #[command(after_help = ls::COLUMNS)]
    Ls(ls::LsArgs),
    /// Show one reservation with its nodes, and who may run on into it
    Show(show::ShowArgs),
    /// End a reservation before its time
    #[command(visible_alias = "end")]
    Delete(delete::DeleteArgs),
}

pub async fn run(context: &Context, command: ReservationCommand) -> Result<u8, CliError> {
    match command {
        ReservationCommand::Create(args) => create::run(context, *args).await,
        ReservationCommand::Ls(args) => ls::run(context, args).await,
        ReservationCommand::Show(args) => show::run(context, args).await,
        ReservationCommand::Delete(args) => delete::run(context, args).await,
    }
}
