//! Tests of the gateway: pure parts on states made with engine commands, calls on one real server.

mod calls;
pub(crate) mod fixture;
mod render;
mod reservations;
pub(crate) mod roles;
pub(crate) mod server;
mod submit;
mod surface;
mod used;
