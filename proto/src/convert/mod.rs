//! Conversions between the wire and the house.

pub mod agent;
pub mod error;
