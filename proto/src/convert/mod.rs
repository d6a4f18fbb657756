//! Conversions between the wire and the house.

pub mod error;
