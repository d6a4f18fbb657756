//! The control plane of Muster: one of the servers that decide, replicated by Raft.

pub mod agents;
pub mod backup;
pub mod booked;
pub mod config;
pub mod consensus;
pub mod context;
pub mod coordinator;
pub mod decisions;
pub mod door;
pub mod elastic;
mod farewell;
mod framed;
#[doc(hidden)]
pub mod fuzz;
pub mod gateway;
pub mod health;
pub mod heartbeats;
pub mod history;
pub mod http;
pub mod instruments;
pub mod leases;
pub mod liveness;
pub mod machine;
pub mod metrics;
mod news;
pub mod proposer;
pub mod records;
mod redirect;
pub mod reports;
pub mod seams;
pub mod server;
pub mod session;
pub mod sessions;
pub mod shadow;
pub mod silence;
pub mod translate;
pub mod watch;
