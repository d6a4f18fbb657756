//! Muster's vocabulary: ids, time, resources, topology, the job spec and the node inventory.
//!
//! Data only. Nothing here decides; every crate may depend on it, and it depends on nothing but
//! serde and thiserror.

pub mod calendar;
pub mod cost;
pub mod heartbeat;
pub mod ids;
pub mod job;
pub mod money;
pub mod name;
pub mod node;
pub mod resources;
pub mod text;
pub mod time;
pub mod topology;

pub use ids::{AttemptNo, DeviceId, GangId, JobId, NodeId, Token};
pub use name::Name;
pub use time::Time;
