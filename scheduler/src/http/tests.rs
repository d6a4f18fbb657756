//! Requests to the routes of one real server, as they come off the wire after TLS.

mod calls;
mod client;
mod document;
mod streams;
mod validate;
