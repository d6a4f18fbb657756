//! Storage conformance, and three servers in one process over real loopback gRPC.

mod behind;
mod cluster;
mod elections;
mod identity;
mod refill;
mod snapshots;
mod suite;
mod toy;
