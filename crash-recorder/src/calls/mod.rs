//! The C library's calls. Each makes the system call itself, under the lock, and records what came of it.
//!
//! `open` and `fcntl` take a variable number of arguments in C; on the machines we build for, a call with a fixed one passes
//! them the same way.

mod mark;
mod names;
mod open;
mod refused;
mod sync;
mod write;
