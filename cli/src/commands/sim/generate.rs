//! `muster sim gen`: invented work.

use super::failed;
use crate::context::Context;
use crate::error::CliError;
use clap::{Args, ValueEnum};
use muster_proto::convert::error::ErrorCode;
use muster_sim::trace::generate::{Arrivals, GenArgs};
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pattern {
    /// At any time alike
    Uniform,
    /// More by day and on weekdays
    Daily,
    /// Many alike moments at once
    Bursts,
}

#[derive(Debug, Args)]
pub struct SimGenArgs {
    /// GPUs the work is made for
    #[arg(long)]
    pub gpus: u32,
    /// Work offered, over what the GPUs could do in the time
    #[arg(long, default_value_t = 0.9)]
    pub load: f64,
    /// Days over which jobs arrive
    #[arg(long, default_value_t = 7.0)]
    pub days: f64,
    /// Kinds of jobs and their shares of all jobs: philly, helios, pai, seren, kalos, train, finetune, debug
    #[arg(long, value_name = "KIND=SHARE,...", default_value = "philly=1")]
    pub mix: String,
    #[arg(long, value_enum, default_value_t = Pattern::Daily)]
    pub arrivals: Pattern,
    /// Spread of the logarithm of requested over real run time; 0: users know it exactly
    #[arg(long, default_value_t = 0.0)]
    pub estimate_sigma: f64,
    #[arg(long, default_value_t = 50)]
    pub users: u32,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// File to write, `.jsonl`, `.jsonl.gz` or `.parquet`
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

pub fn run(context: &Context, args: &SimGenArgs) -> Result<u8, CliError> {
    let mix = mix(&args.mix).map_err(|why| CliError::new(ErrorCode::Usage, why))?;
    let wanted = GenArgs {
        devices: args.gpus,
        load: args.load,
        days: args.days,
        mix,
        arrivals: match args.arrivals {
            Pattern::Uniform => Arrivals::Uniform,
            Pattern::Daily => Arrivals::Daily,
            Pattern::Bursts => Arrivals::Bursts,
        },
        estimate_sigma: args.estimate_sigma,
        users: args.users,
        seed: args.seed,
    };
    let card = muster_sim::generate(&wanted, &args.output).map_err(failed)?;
    context.printer.answer(|| super::import::document(&card), || format!("{}\n", super::import::render(&card)))?;
    context.printer.say(&format!("written to {}", args.output.display()));
    Ok(0)
}

fn mix(text: &str) -> Result<Vec<(String, f64)>, String> {
    let part = |part: &str| {
        let (kind, share) = part.split_once('=').unwrap_or((part, "1"));
        let share = share.trim().parse().map_err(|_| format!("--mix: `{share}` is not a share of jobs"))?;
        Ok((kind.trim().to_owned(), share))
    };
    text.split(',').map(part).collect()
}
