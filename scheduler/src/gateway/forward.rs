//! A follower passes what only the leader can do on to it, once, under its own identity and in the
//! caller's name.

use super::errors;
use super::roles::{Caller, ON_BEHALF_OF};
use crate::context::Context;
use muster_proto::client::muster_client::MusterClient;
use muster_proto::convert::error::{ErrorCode, ErrorInfo, decode};
use muster_runtime::identity::{Expect, explain_transport};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// How long a follower waits for somebody to lead before it says that nobody does.
const LEADER_WAIT_MS: u64 = 3_000;
/// Longer than a leader takes to answer or to say that it cannot.
const CALL_MS: u64 = 20_000;
/// The same limit as the service's own.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Where a call is to be answered.
pub enum Where {
    Here,
    There(Box<MusterClient<Channel>>),
}

/// Channels to other servers; each connects when it is used.
#[derive(Default)]
pub struct Peers {
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl Peers {
    /// A client of the server at an address, which must prove to be server `name`, when that is known.
    ///
    /// # Errors
    /// An address that is not `host:port`.
    pub fn client(&self, ctx: &Context, address: &str, name: Option<&str>) -> Result<MusterClient<Channel>, ErrorInfo> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match channels.get(address) {
            Some(channel) => channel.clone(),
            None => {
                let expect = match name {
                    Some(name) => Expect::server().named(name),
                    None => Expect::server(),
                };
                let channel = ctx.network.channel(address, &ctx.credentials, expect).map_err(|error| {
                    ErrorInfo::new(ErrorCode::Internal, format!("the leader's address cannot be used: {error}"))
                        .hint("check the servers' addresses in their configuration")
                })?;
                channels.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        Ok(MusterClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }
}

/// Decides where a call that needs the leader is answered. Waits a little while nobody leads.
///
/// # Errors
/// [`ErrorCode::NoLeader`]; [`ErrorCode::NotLeader`] when the call was passed on once already.
pub async fn to_leader(ctx: &Context, peers: &Peers, caller: &Caller) -> Result<Where, ErrorInfo> {
    let mut leadership = ctx.consensus.leadership();
    let known = async {
        leadership
            .wait_for(|now| now.is_leader || (now.leader.is_some() && now.leader_addr.is_some()))
            .await
            .map(|now| now.clone())
    };
    let now = tokio::select! {
        now = known => now.map_err(|_| shutting_down())?,
        () = ctx.clock.sleep_ms(LEADER_WAIT_MS) => return Err(nobody_leads()),
    };
    if now.is_leader {
        return Ok(Where::Here);
    }
    let (Some(id), Some(address)) = (now.leader, now.leader_addr) else { return Err(nobody_leads()) };
    if id == ctx.server.id {
        // Elected a moment ago; its own watch follows at once.
        return Ok(Where::Here);
    }
    if caller.forwarded {
        return Err(ErrorInfo::not_leader(Some(address)).hint("repeat the call"));
    }
    let name = ctx.members.get(&id).map(|member| member.name.as_str());
    Ok(Where::There(Box::new(peers.client(ctx, &address, name)?)))
}

fn nobody_leads() -> ErrorInfo {
    errors::no_leader("the cluster has no leader at the moment".into())
}

fn shutting_down() -> ErrorInfo {
    ErrorInfo::new(ErrorCode::Unavailable, "this server is shutting down").hint("try another server")
}

/// A message to pass on in the caller's name. A stream has no time limit.
pub fn on_behalf<T>(message: T, caller: &Caller, stream: bool) -> Request<T> {
    let mut request = Request::new(message);
    if let Ok(claim) = caller.on_behalf_of().parse() {
        request.metadata_mut().insert(ON_BEHALF_OF, claim);
    }
    if !stream {
        request.set_timeout(Duration::from_millis(CALL_MS));
    }
    request
}

/// What another server answered instead: its own words, or why it was not reached.
pub fn answered(status: &Status) -> ErrorInfo {
    if let Some(info) = decode(status) {
        return info;
    }
    let why = explain_transport(status).unwrap_or_else(|| status.message().to_owned());
    ErrorInfo::new(ErrorCode::Unavailable, format!("the leader was not reached: {why}"))
        .hint("repeat the call with the same key; nothing is done twice")
}

/// A leader's stream, passed on message by message; its ticket lives as long as it does.
pub fn relay<T: Send + 'static>(stream: tonic::Streaming<T>, ticket: super::limits::Ticket) -> super::Streamed<T> {
    use futures::StreamExt;
    Box::pin(stream.map(move |item| {
        let _open = &ticket;
        item.map_err(|status| answered(&status).into())
    }))
}
