//! Attacks on a real server: its whole port, over TLS, on loopback. What a caller must not get is refused, and whoever
//! keeps the rules is served meanwhile.

mod calls;
mod flood;
mod raw;
mod rogue;
mod server;
