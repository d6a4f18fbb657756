//! The simulator: plays recorded work on an invented cluster through the engine's own loop.
//!
//! It decides nothing. A trace becomes `Submit` commands, a world file becomes node registrations
//! and the rules by which time passes, and [`muster_engine::forecast::Player`] does the rest.

mod error;
pub mod metrics;
mod play;
mod report;
mod run;
pub mod trace;
pub mod world;

pub use error::SimError;
pub use metrics::{JobResult, JobState, Summary};
pub use report::Manifest;
pub use run::{Progress, RunArgs, RunReport, run};
