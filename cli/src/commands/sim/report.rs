//! `muster sim report`: a page about a run, made anew from its folder.

use super::failed;
use crate::context::Context;
use crate::error::CliError;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct SimReportArgs {
    /// The folder of a run
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

pub fn run(context: &Context, args: &SimReportArgs) -> Result<u8, CliError> {
    let path = muster_sim::report::report(&args.folder).map_err(failed)?;
    let name = path.display().to_string();
    context.printer.answer(|| json!({"schema": "muster.sim_report/1", "file": name}), || format!("{name}\n"))?;
    Ok(0)
}
