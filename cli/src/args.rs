//! The command line, as data.

use crate::commands;
use crate::output::Color;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// A gang scheduler for bare-metal GPU clusters.
#[derive(Debug, Parser)]
#[command(name = "muster", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Print one JSON document (one per line for streams) instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Servers as HOST:PORT, joined by commas
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub server: Option<String>,
    /// Folder with the caller's certificate and key
    #[arg(long, global = true, value_name = "DIR")]
    pub identity: Option<String>,
    /// Settings file, in place of the user's
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How long to try, such as 30s; for `wait`, how long to wait
    #[arg(long, global = true, value_name = "DURATION")]
    pub timeout: Option<String>,
    /// Say nothing but the data
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more; twice for much more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    /// Do dangerous things without a question
    #[arg(long, global = true)]
    pub yes: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Submit a job file
    Submit(commands::submit::SubmitArgs),
    /// Tell where jobs would go and when, and whom they would push back
    Plan(commands::plan::PlanArgs),
    /// Submit a command, stream its output, end with its exit code
    Run(commands::run::RunArgs),
    /// List jobs
    #[command(visible_alias = "jobs")]
    Ps(commands::ps::PsArgs),
    /// Show everything about one job
    Show(commands::show::ShowArgs),
    /// Tell why a job does not run, and when it will
    Why(commands::why::WhyArgs),
    /// Print the logs of a job's ranks
    Logs(commands::logs::LogsArgs),
    /// Stop jobs, or take them out of the queue
    Cancel(commands::cancel::CancelArgs),
    /// Wait until jobs have ended
    Wait(commands::wait::WaitArgs),
    /// Submit an ended job again
    Retry(commands::retry::RetryArgs),
    /// Change a job that waits, and what can be changed of one that runs
    Edit(commands::edit::EditArgs),
    /// Keep a waiting job from starting
    Hold(commands::hold::HoldArgs),
    /// Let a held job start
    Release(commands::hold::HoldArgs),
    /// Look at queues, and at the order in which what waits would start
    #[command(subcommand)]
    Queue(commands::queue::QueueCommand),
    /// Look at nodes and take them in and out of service
    #[command(subcommand)]
    Node(commands::node::NodeCommand),
    /// Put nodes aside for a window of time: maintenance, an account, some jobs
    #[command(subcommand, visible_alias = "reservations")]
    Reservation(commands::reservation::ReservationCommand),
    /// Put accounts, queues, policy and reservations in force from a folder of TOML files
    #[command(after_help = commands::apply::NOTES)]
    Apply(commands::apply::ApplyArgs),
    /// Print what happened
    Events(commands::events::EventsArgs),
    /// See the policies a cluster has had, try one beside it, put one in force
    #[command(subcommand)]
    Policy(commands::policy::PolicyCommand),
    /// Make a cluster, look at it, configure it
    #[command(subcommand)]
    Cluster(commands::cluster::ClusterCommand),
    /// Print the versions of this program and of the cluster
    Version(commands::version::VersionArgs),
    /// Start a whole cluster on this machine, with simulated GPUs
    Dev(commands::dev::DevArgs),
    /// Run a scheduler server
    Server(commands::server::ServerArgs),
    /// Run the agent of this node, or join it to a cluster
    Agent(commands::agent::AgentArgs),
    /// Try a scheduling policy on recorded or invented work
    #[command(subcommand)]
    Sim(commands::sim::SimCommand),
    /// Put a load on the cluster and measure it
    #[command(subcommand)]
    Bench(commands::bench::BenchCommand),
    /// Print the completion script of a shell
    #[command(after_help = commands::completion::INSTALL)]
    Completion(commands::completion::CompletionArgs),
    /// Print a manual page, or write all of them into a folder
    Man(commands::man::ManArgs),
    /// Ends what a development cluster leaves when it is killed; started by `dev`
    #[command(hide = true)]
    DevReaper(commands::dev::reaper::ReaperArgs),
    /// Programs for ranks, used by the examples
    #[command(subcommand, hide = true)]
    Rank(commands::rank::RankCommand),
    /// Hold the ranks of one allocation; started by the agent
    #[command(hide = true)]
    Shim(commands::shim::ShimArgs),
}
