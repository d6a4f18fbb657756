//! `muster sim`: policies on recorded work, through the engine that also runs clusters.

pub mod cluster;
pub mod compare;
pub mod explain;
pub mod generate;
pub mod import;
pub mod replay;
pub mod report;
pub mod run;
pub mod snapshot;
pub mod sweep;
pub mod tune;

use crate::context::Context;
use crate::error::CliError;
use crate::output::human;
use clap::{Args, Subcommand, ValueEnum};
use muster_proto::convert::error::ErrorCode;
use muster_sim::trace::{BadRows, Card, Format};
use muster_sim::{Going, Progress, SceneArgs, SimError};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug, Subcommand)]
pub enum SimCommand {
    /// Read recorded work of any known format, say what is in it, and write it in ours
    Import(import::SimImportArgs),
    /// Invent work with the sizes, run times and arrivals of published clusters
    Gen(generate::SimGenArgs),
    /// Run one policy on one trace
    Run(run::SimRunArgs),
    /// Run policies on the same work and the same failures, and say which is better
    Compare(compare::SimCompareArgs),
    /// Run one policy with parameters over declared values, every combination
    Sweep(sweep::SimSweepArgs),
    /// Search ranges of a policy's parameters for the best setting, under limits
    Tune(tune::SimTuneArgs),
    /// Take what runs and waits on a cluster now as the beginning of a simulation
    Snapshot(snapshot::SimSnapshotArgs),
    /// Play a cluster's own log once more: check its decisions, or try another policy on them
    Replay(replay::SimReplayArgs),
    /// Say why a job of a run waited, and for how long for what
    Explain(explain::SimExplainArgs),
    /// Make the page about a run anew, from its folder
    Report(report::SimReportArgs),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnBadRows {
    Refuse,
    Skip,
}

impl From<OnBadRows> for BadRows {
    fn from(on_bad_rows: OnBadRows) -> Self {
        match on_bad_rows {
            OnBadRows::Refuse => BadRows::Refuse,
            OnBadRows::Skip => BadRows::Skip,
        }
    }
}

/// What is played, whatever the policy.
#[derive(Debug, Args)]
pub struct SimSceneArgs {
    /// TOML file with the world: nodes, delays, failures, the rules of time
    #[arg(long, value_name = "FILE")]
    pub world: PathBuf,
    /// The recorded work
    #[arg(long, value_name = "FILE")]
    pub trace: PathBuf,
    /// How the trace is written; told by its name and header unless given
    #[arg(long, value_parser = format_named)]
    pub format: Option<Format>,
    /// TOML file with how the world really is, where that differs from the trace
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
    /// JSON table of steps a second by device model and kind of work
    #[arg(long, value_name = "FILE")]
    pub throughputs: Option<PathBuf>,
    /// TOML file with prices and power
    #[arg(long, value_name = "FILE")]
    pub prices: Option<PathBuf>,
    /// TOML file with accounts and queues; without it, every name of a trace is taken
    #[arg(long, value_name = "FILE")]
    pub organisation: Option<PathBuf>,
    /// First job of a window, counted from 0
    #[arg(long, default_value_t = 0)]
    pub start_job: usize,
    /// Jobs of the window; to the end of the trace unless given
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Check every invariant after every step; slow
    #[arg(long)]
    pub check: bool,
    /// What to do with rows that cannot be read
    #[arg(long, value_enum, default_value_t = OnBadRows::Refuse)]
    pub bad_rows: OnBadRows,
}

impl SimSceneArgs {
    pub fn scene(self) -> SceneArgs {
        SceneArgs {
            world: self.world,
            trace: self.trace,
            format: self.format,
            truth: self.truth,
            throughputs: self.throughputs,
            prices: self.prices,
            organisation: self.organisation,
            start_job: self.start_job,
            jobs: self.jobs,
            check: self.check,
            bad_rows: self.bad_rows.into(),
        }
    }
}

pub fn format_named(text: &str) -> Result<Format, String> {
    let known = Format::ALL.into_iter().find(|format| format.word() == text);
    known.ok_or_else(|| format!("there are {}", Format::ALL.map(Format::word).join(", ")))
}

pub fn run(context: &Context, command: SimCommand) -> Result<u8, CliError> {
    match command {
        SimCommand::Import(args) => import::run(context, &args),
        SimCommand::Gen(args) => generate::run(context, &args),
        SimCommand::Run(args) => run::run(context, args),
        SimCommand::Compare(args) => compare::run(context, args),
        SimCommand::Sweep(args) => sweep::run(context, args),
        SimCommand::Tune(args) => tune::run(context, args),
        SimCommand::Snapshot(args) => snapshot::run(context, &args),
        SimCommand::Replay(args) => replay::run(context, args),
        SimCommand::Explain(args) => explain::run(context, args),
        SimCommand::Report(args) => report::run(context, &args),
    }
}

/// The exit code of what was stopped with Ctrl-C, and kept what it had done.
pub const INTERRUPTED: u8 = 130;

/// Becomes true with the first Ctrl-C; a second one ends the program.
pub fn interrupts() -> Result<Arc<AtomicBool>, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    std::thread::spawn(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                seen.store(true, Ordering::Relaxed);
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(i32::from(INTERRUPTED));
            }
        });
    });
    Ok(stop)
}

/// All CPUs, unless told otherwise.
pub fn threads(wanted: Option<usize>) -> usize {
    wanted.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

/// Between two remarks on a long run.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Remarks on a long run now and then, with a guess of how long it will still take.
pub struct Teller<'a> {
    context: &'a Context,
    begun: Instant,
    told: Instant,
}

impl<'a> Teller<'a> {
    pub fn new(context: &'a Context) -> Self {
        Self { context, begun: Instant::now(), told: Instant::now() }
    }

    pub fn tell(&mut self, done: u64, all: u64, what: &str) {
        if self.told.elapsed() < TELL_EVERY {
            return;
        }
        self.told = Instant::now();
        let left = match done {
            0 => String::new(),
            _ => {
                let per_one = self.begun.elapsed().as_secs_f64() / done as f64;
                let left_ms = per_one * all.saturating_sub(done) as f64 * 1000.0;
                format!("; about {} to go", human::duration(left_ms as u64))
            }
        };
        self.context.printer.say(&format!("{done} of {all} {what}{left}"));
    }

    pub fn ended(&mut self, progress: Progress, stop: &AtomicBool) -> Going {
        self.tell(progress.ended, progress.jobs, "jobs ended");
        if stop.load(Ordering::Relaxed) { Going::Stop } else { Going::On }
    }
}

pub fn failed(error: SimError) -> CliError {
    let code = match &error {
        SimError::Read { source, .. } | SimError::Write { source, .. } => match source.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::FileNotFound,
            std::io::ErrorKind::PermissionDenied => ErrorCode::FileDenied,
            _ => ErrorCode::FileUnusable,
        },
        SimError::OutputNotEmpty { .. } => ErrorCode::Conflict,
        _ if error.is_input() => ErrorCode::ConfigInvalid,
        _ => ErrorCode::Internal,
    };
    CliError::new(code, error.to_string())
}

/// What was read, so that nobody takes a cut trace for a whole one.
pub fn said(card: &Card) -> String {
    let left_out = card.dropped.iter().map(|noted| noted.rows).sum::<u64>() + card.bad_rows;
    let mut text = format!(
        "read {} of {}, {left_out} left out; {} jobs taken, over {}",
        human::count(card.rows, "row"),
        card.format,
        card.jobs,
        human::duration((card.span_s * 1000.0) as u64)
    );
    for noted in card.dropped.iter().chain(&card.changed) {
        let rows = human::count(noted.rows, "row");
        text.push_str(&format!("\n  {rows} from line {} on: {}", noted.first_line, noted.why));
    }
    if card.unsorted_rows > 0 {
        let rows = human::count(card.unsorted_rows, "row");
        text.push_str(&format!("\n  {rows} out of order; jobs are played by submit time"));
    }
    for row in &card.bad {
        text.push_str(&format!("\n  bad row on line {}: {}", row.line, row.why));
    }
    text
}
