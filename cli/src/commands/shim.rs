//! `muster shim`: holds the ranks of one allocation. Started by the agent. It must begin before any
//! thread exists, so `main` calls it first, and its exit code is its own.

use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct ShimArgs {
    /// The allocation's folder
    #[arg(long)]
    pub dir: PathBuf,
}

pub fn main(args: &ShimArgs) -> ExitCode {
    muster_agent::shim_main(&args.dir)
}
