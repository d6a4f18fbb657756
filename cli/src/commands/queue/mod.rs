//! `muster queue`: what waits and runs, by queue.

mod budgets;
mod cells;
pub mod ls;
pub mod show;

use crate::context::Context;
use crate::error::CliError;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// List queues with what runs and waits in each
    #[command(after_help = ls::COLUMNS)]
    Ls(ls::LsArgs),
    /// Show the order in which a queue's gangs would start, and what keeps each
    #[command(after_help = show::COLUMNS)]
    Show(show::ShowArgs),
}

/// GPUs in thousandths; older servers count a share as a whole one.
fn milli(milli: Option<u64>, whole: u64) -> u64 {
    milli.unwrap_or(whole.saturating_mul(1000))
}

pub async fn run(context: &Context, command: QueueCommand) -> Result<u8, CliError> {
    match command {
        QueueCommand::Ls(args) => ls::run(context, args).await,
        QueueCommand::Show(args) => show::run(context, args).await,
    }
}
