//! `muster sim report`: a page about a run, made anew from its folder.

use super::failed;
use crate::context::Context;
use crate::error::CliError;
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct SimReportArgs {
    /// The folder of a run
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

pub fn run(context: &Context, args: &SimReportArgs) -> Result<u8, CliError> {
    let path = muster_sim::report::report(&args.folder).map_err(failed)?;
    context.printer.answer(|| document(&path), || render(&path))?;
    Ok(0)
}

pub fn render(page: &Path) -> String {
    format!("{}\n", page.display())
}

pub fn document(page: &Path) -> Value {
    json!({"schema": "muster.sim_report/1", "file": page.display().to_string()})
}
