//! All of Muster's decisions, as pure functions of replicated state.
//!
//! Four verbs: [`apply`] changes state, [`cycle`] decides, [`desired`] says what a node must run,
//! [`forecast`] plays the present forward. No clock, randomness, files, environment or threads.

pub mod apply;
pub mod command;
pub mod cycle;
pub mod desired;
pub mod digest;
pub mod forecast;
mod mix;
pub mod organisation;
pub mod outcome;
pub mod plan;
pub mod policy;
pub mod remedy;
pub mod shadow;
pub mod state;
pub mod table;

pub use apply::apply;
pub use command::{Command, Entry};
pub use cycle::{Cycle, Memo, cycle};
pub use desired::{Desired, desired};
pub use outcome::{Event, Outcome, Response};
pub use state::State;

/// Changes whenever `cycle` may decide differently on an equal state and policy.
pub const ENGINE_VERSION: u32 = 15;
