//! Messages as documents; the mapping is shared with the servers.

pub use muster_proto::document::{document, plain};
