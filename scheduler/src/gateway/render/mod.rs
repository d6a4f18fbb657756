//! State and history as the messages of the client protocol. Pure: nothing here asks a clock, a
//! disk or another server.

pub mod attempt;
pub mod cluster;
pub mod event;
pub mod exit;
pub mod gang;
pub mod job;
pub mod live;
pub mod node;
pub mod revision;
pub mod spec;
pub mod words;
