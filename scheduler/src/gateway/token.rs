//! One-time secrets with which nodes join.

use super::roles::Caller;
use super::{Inner, errors};
use muster_common::Name;
use muster_common::job::Hash;
use muster_common::time::{DAY_MS, HOUR_MS};
use muster_engine::Command;
use muster_proto::client as pb;
use muster_proto::convert::error::ErrorInfo;
use sha2::{Digest, Sha256};
use std::sync::Arc;

const TTL_MS_MAX: u64 = 7 * DAY_MS;

pub(super) async fn issue(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::NodeTokenRequest,
) -> Result<pb::NodeTokenReply, ErrorInfo> {
    errors::check_key("request id", &request.request_id)?;
    let (node, ttl_ms) = wish(&request)?;
    let state = inner.fresh().await?;
    let ctx = &inner.ctx;
    let identity = ctx.credentials.current();
    let secret = secret(identity.key_pem(), caller, &request);
    // The same request again is answered with the same token: `apply` knows its hash.
    let known = state.tokens().get(&hash(&secret)).map(|token| token.expires_at);
    let expires_at = known.unwrap_or_else(|| inner.now(&state).plus_ms(ttl_ms));
    let command = Command::IssueToken { hash: hash(&secret), node, expires_at, by: caller.principal() };
    inner.commit(command).await?;
    Ok(pb::NodeTokenReply {
        secret,
        expires_at_ms: expires_at.0,
        ca_fingerprint: identity.ca_fingerprint().to_string(),
        servers: ctx.members.values().map(|member| member.address.clone()).collect(),
        cluster_id: state.cluster().id.clone(),
    })
}

/// From this server's own key and the request, so that a repeated request makes no second token, and
/// nobody without the key can make one at all. After a change of leader, or of its key, a repeat does make
/// another; the first was shown to nobody, and runs out.
fn secret(key: &str, caller: &Caller, request: &pb::NodeTokenRequest) -> String {
    let of = |parts: &[&str]| {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize()
    };
    let ttl = request.ttl_ms.to_string();
    let own = of(&["muster join token", key]);
    let asked = of(&[&caller.name, &request.request_id, &request.node, &ttl]);
    // Hashed once more: a hash of secret and text could be continued by those who know the text.
    let mut outer = Sha256::new();
    outer.update(own);
    outer.update(asked);
    let once: [u8; 32] = outer.finalize().into();
    Hash(Sha256::digest(once).into()).to_string()
}

/// What State keeps of a secret, and what an agent's token is compared by.
pub fn hash(secret: &str) -> Hash {
    Hash(Sha256::digest(secret.as_bytes()).into())
}

/// The node the token is for, and for how long.
pub fn wish(request: &pb::NodeTokenRequest) -> Result<(Option<Name>, u64), ErrorInfo> {
    let node = match request.node.as_str() {
        "" => None,
        text => Some(Name::new(text).map_err(|error| {
            errors::usage(format!("that cannot be a node's name: {error}")).hint("use the machine's host name")
        })?),
    };
    if request.ttl_ms > TTL_MS_MAX {
        return Err(errors::usage("a join token is good for at most 7 days").hint("make another when it is needed"));
    }
    Ok((node, if request.ttl_ms == 0 { HOUR_MS } else { request.ttl_ms }))
}
