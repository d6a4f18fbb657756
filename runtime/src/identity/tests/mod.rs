//! The identity kit over real loopback connections and real folders.

mod attacks;
mod files;
mod handshake;

use std::time::Duration;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::shutdown::Shutdown;

const CLUSTER: &str = "c1";
const DEADLINE: Duration = Duration::from_secs(20);

fn now_ms() -> u64 {
    SystemClock.wall_ms()
}

fn authority() -> Authority {
    Authority::create(CLUSTER, now_ms()).expect("a CA")
}

fn name(role: Role, name: &str) -> Name {
    Name::new(CLUSTER, role, name).expect("a valid name")
}

fn issue(authority: &Authority, role: Role, who: &str) -> Identity {
    authority.issue(&name(role, who), &Sans::default(), now_ms(), LEAF_VALID_MS).expect("issued")
}

/// Good for a day, which was over a day ago.
fn issue_expired(authority: &Authority, role: Role, who: &str) -> Identity {
    authority.issue(&name(role, who), &Sans::default(), now_ms() - 2 * DAY_MS, DAY_MS).expect("issued")
}
