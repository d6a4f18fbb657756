//! One-time secrets with which nodes join.

use super::roles::Caller;
use super::{Inner, errors};
use muster_common::Name;
use muster_common::job::Hash;
use muster_common::time::{DAY_MS, HOUR_MS};
use muster_engine::Command;
use muster_proto::client as pb;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use muster_runtime::identity::random_secret;
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
    // Counted from before the cluster has its time, the token would be past its end at once.
    inner.has_time().await?;
    let state = inner.fresh().await?;
    let secret = random_secret()
        .map_err(|error| ErrorInfo::new(ErrorCode::Internal, error.to_string()).hint("see the server's log"))?;
    let expires_at = inner.now(&state).plus_ms(ttl_ms);
    let command = Command::IssueToken { hash: hash(&secret), node, expires_at, by: caller.principal() };
    inner.commit(command).await?;
    let ctx = &inner.ctx;
    Ok(pb::NodeTokenReply {
        secret,
        expires_at_ms: expires_at.0,
        ca_fingerprint: ctx.ca_fingerprint.to_string(),
        servers: ctx.members.values().map(|member| member.address.clone()).collect(),
        cluster_id: state.cluster().id.clone(),
    })
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
