//! The shim: one process per allocation that holds the ranks' output, reaps them, enforces the
//! lease with a timer of its own and writes down every end, so that ranks and the truth about
//! them survive the agent.
//!
//! `machine` decides, `process` acts, `wire` is what an agent and a shim say to each other.

pub mod machine;
mod process;
pub mod pump;
pub mod socket;
mod spawn;
mod tree;
pub mod wire;

#[cfg(test)]
mod machine_tests;

pub use process::shim_main;
pub use spawn::raise_open_files;
