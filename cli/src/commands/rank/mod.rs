//! Programs for ranks. They ship in the binary because a fresh machine has nothing else.

pub mod allreduce;
mod ring;

use crate::context::Context;
use crate::error::CliError;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum RankCommand {
    /// Sum a vector over all ranks, in a ring over TCP, and check the sum
    Allreduce(allreduce::AllreduceArgs),
}

pub fn run(context: &Context, command: RankCommand) -> Result<u8, CliError> {
    match command {
        RankCommand::Allreduce(args) => allreduce::run(context, args),
    }
}
