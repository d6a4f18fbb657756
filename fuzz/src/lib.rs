//! Fuzzing: one target for each decoder, an engine that follows coverage, and the inputs worth keeping.
//!
//! `cargo xtask fuzz` builds the house's own crates with the compiler's coverage counters and runs the targets.
//! Built without them, as `cargo test` does, the same targets run over the kept inputs only.

pub mod engine;
pub mod targets;
