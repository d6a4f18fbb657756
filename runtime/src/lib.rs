//! The part of every Muster process that knows nothing of jobs or devices: the actor kit, clocks, settings,
//! small durable files, TLS identities and logging.

pub mod actor;
pub mod aside;
pub mod clock;
pub mod config;
pub mod datagram;
pub mod durable;
pub mod identity;
pub mod process;
pub mod reply;
pub mod shutdown;
pub mod supervisor;
pub mod telemetry;
