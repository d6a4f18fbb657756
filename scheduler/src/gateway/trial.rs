//! A command tried on a copy of State: what would come of it.

use super::errors;
use muster_common::Time;
use muster_engine::{Command, Entry, Response, State, apply};
use muster_proto::convert::error::ErrorInfo;

/// State after it, and the answer.
///
/// # Errors
/// What `apply` refuses it for.
pub fn tried(state: &State, command: Command, now: Time) -> Result<(State, Response), ErrorInfo> {
    let mut copy = state.clone();
    let entry = Entry { index: copy.applied_index() + 1, term: copy.applied_term(), at: now, command };
    match apply(&mut copy, &entry).response {
        Response::Refused(refusal) => Err(errors::refused(refusal)),
        response => Ok((copy, response)),
    }
}
