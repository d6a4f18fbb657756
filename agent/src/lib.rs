//! The node daemon: prepares, starts, watches and ends the ranks that the scheduler places here.

pub mod device;
pub mod inventory;
mod procfs;
pub mod shim;

pub use shim::shim_main;
