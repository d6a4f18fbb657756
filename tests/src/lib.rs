//! Whole-system tests of Muster, and the small model of its safety protocol.

pub mod binary;
pub mod cluster;
pub mod crash;
pub mod debian_root;
pub mod model;
pub mod page;
pub mod terminal;
pub mod virtual_agent;
