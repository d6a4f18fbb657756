//! The control plane of Muster: one of the servers that decide, replicated by Raft.

pub mod consensus;
