//! The node daemon: prepares, starts, watches and ends the ranks that the scheduler places here.
//!
//! `link` talks to the leader, `core` keeps the store and takes the steps that `reconcile` finds,
//! `runner` minds one allocation, and `shim` is the process that holds its ranks.

pub mod assignment;
pub mod config;
mod core;
mod daemon;
pub mod device;
pub mod env;
#[doc(hidden)]
pub mod fuzz;
mod health;
pub mod heartbeat;
pub mod inventory;
pub mod isolation;
pub mod launcher;
pub mod launches;
mod link;
mod logs;
pub mod paths;
mod procfs;
mod reconcile;
mod runner;
pub mod shim;
pub mod store;

pub use config::Config;
pub use daemon::{AgentError, Ids, Seams, run, run_on};
pub use shim::shim_main;
