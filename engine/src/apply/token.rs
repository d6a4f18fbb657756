//! One-time tokens with which a node gets its first certificate. State keeps only their hashes.

use super::{Applying, Result};
use crate::command::Principal;
use crate::outcome::{Event, Refusal, Response};
use crate::state::timer::Timer;
use crate::state::{JoinToken, TOKENS_MAX};
use muster_common::job::Hash;
use muster_common::{Name, Time};

impl Applying<'_> {
    pub(super) fn issue_token(&mut self, hash: Hash, node: Option<Name>, expires_at: Time, by: &Principal) -> Result {
        if self.state.tokens.len() as u64 >= TOKENS_MAX {
            return Err(Refusal::Full { what: "join tokens".into(), limit: TOKENS_MAX });
        }
        if self.state.tokens.contains_key(&hash) {
            return Ok(Response::Noop);
        }
        self.set_timer(expires_at, Timer::JoinToken { hash });
        self.state.tokens.insert(hash, JoinToken { node: node.clone(), expires_at });
        self.event(Event::TokenIssued { node, expires_at, by: by.clone() });
        Ok(Response::Done)
    }

    pub(super) fn use_token(&mut self, hash: Hash, node: &Name) -> Result {
        let token = self.state.tokens.get(&hash).ok_or(Refusal::Token)?;
        if token.expires_at <= self.now() {
            return Err(Refusal::Token);
        }
        if let Some(wanted) = token.node.clone().filter(|wanted| wanted != node) {
            return Err(Refusal::TokenNode(wanted));
        }
        let expires_at = token.expires_at;
        self.state.tokens.remove(&hash);
        self.drop_timer(expires_at, Timer::JoinToken { hash });
        self.event(Event::TokenUsed { node: node.clone() });
        Ok(Response::Done)
    }
}
