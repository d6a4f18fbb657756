//! The simulator: plays recorded work on an invented cluster through the engine's own loop.
//!
//! It decides nothing. A trace becomes `Submit` commands, a world file becomes node registrations
//! and the rules by which time passes, and [`muster_engine::forecast::Player`] does the rest.

mod batch;
pub mod calibration;
pub mod cluster;
mod columnar;
pub mod compare;
pub mod draw;
mod error;
pub mod estimates;
pub mod evidence;
pub mod explain;
mod faults;
pub mod figures;
#[cfg(test)]
mod given;
mod import;
#[cfg(test)]
mod lived;
pub mod meter;
pub mod metrics;
mod output;
mod play;
mod power;
pub mod prices;
mod progress;
mod recorder;
pub mod replay;
pub mod report;
mod run;
mod sleepers;
pub mod stopwatch;
pub mod sweep;
pub mod trace;
pub mod tune;
mod variant;
pub mod world;

pub use error::SimError;
pub use import::{ImportArgs, generate, import};
pub use metrics::{JobResult, JobState, Summary};
pub use output::Manifest;
pub use run::{Going, Progress, RunArgs, RunReport, Scene, SceneArgs, run};
