//! `muster sim snapshot`: the present of a cluster as the beginning of a simulation.

use super::cluster::{self, Source, Stretch};
use crate::context::Context;
use crate::error::CliError;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct SimSnapshotArgs {
    /// `live`, to ask the servers, or a file of `muster cluster backup`
    #[arg(value_name = "live|FILE", value_parser = parsed)]
    pub source: Source,
    /// Folder for trace, world, policy and organisation; empty, or not there yet
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

fn parsed(text: &str) -> Result<Source, String> {
    Ok(cluster::source(text))
}

/// An import of the last 0 ms: only what runs and what waits is left of the past.
pub fn run(context: &Context, args: &SimSnapshotArgs) -> Result<u8, CliError> {
    let stretch = Stretch { source: args.source.clone(), last_ms: Some(0) };
    cluster::run(context, &stretch, Some(&args.output))
}
