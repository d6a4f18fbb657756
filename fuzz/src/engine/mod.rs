//! The engine: mutates inputs, runs a target on them, and keeps those that reach something new.

pub mod corpus;
pub mod coverage;
pub mod mutate;
pub mod random;
pub mod run;
pub mod supervise;
