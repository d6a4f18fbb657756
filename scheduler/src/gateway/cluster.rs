//! The cluster and its servers.

use super::forward::on_behalf;
use super::render::{cluster, live};
use super::roles::Caller;
use super::{Inner, condition};
use muster_engine::apply::FEATURE_LEVEL;
use muster_proto::client as pb;
use muster_proto::client::muster_client::MusterClient;
use muster_proto::convert::error::ErrorInfo;
use std::sync::Arc;
use std::time::Duration;
use tonic::Request;
use tonic::transport::Channel;

/// Raised when a client must know.
pub const API: u32 = 1;
/// What another server may take to say that it is there.
const PROBE_MS: u64 = 1_500;

pub(super) async fn version(
    inner: &Arc<Inner>,
    _caller: &Caller,
    _request: pb::VersionRequest,
) -> Result<pb::VersionReply, ErrorInfo> {
    let ctx = &inner.ctx;
    Ok(pb::VersionReply {
        version: ctx.version.into(),
        api: API,
        feature_level: ctx.view().cluster().feature_level,
        server_name: ctx.server.name.clone(),
    })
}

pub(super) async fn status(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::ClusterStatusRequest,
) -> Result<pb::ClusterStatusReply, ErrorInfo> {
    let state = if request.local { inner.ctx.view() } else { inner.fresh().await? };
    let mut reply = inner
        .blocking(move |inner| {
            let ctx = &inner.ctx;
            let now = inner.now(&state);
            let mut reply = cluster::status(&state, &ctx.consensus.status(), &ctx.members);
            reply.now_ms = now.0;
            reply.condition = if request.local { Some(condition::of(inner)?) } else { None };
            reply.next_server_id = ctx.consensus.next_server_id();
            // Agents are connected to the leader.
            reply.heartbeats = ctx.leads().then(|| live::counts(ctx.heartbeats.counts()));
            Ok(reply)
        })
        .await?;
    let (own, version) = (inner.ctx.server.id, inner.ctx.version);
    for member in reply.members.iter_mut().filter(|member| member.id == own) {
        member.version = version.into();
    }
    if request.local || caller.forwarded {
        return Ok(reply);
    }
    ask_others(inner, caller, &mut reply).await;
    Ok(reply)
}

/// Who is reached, of which version, and, from the leader, how far each has the log.
async fn ask_others(inner: &Arc<Inner>, caller: &Caller, reply: &mut pb::ClusterStatusReply) {
    let own = inner.ctx.server.id;
    let others: Vec<pb::Member> = reply.members.iter().filter(|member| member.id != own).cloned().collect();
    let leader = others.iter().find(|member| member.id == reply.leader_id);
    let versions = futures::future::join_all(others.iter().map(|member| ask_version(inner, caller, member)));
    let progress = async {
        match leader {
            Some(leader) => ask_leader(inner, caller, leader).await,
            None => None,
        }
    };
    let (versions, progress) = futures::join!(versions, progress);
    for (member, version) in others.iter().zip(versions) {
        let Some(shown) = reply.members.iter_mut().find(|shown| shown.id == member.id) else { continue };
        match version {
            Some(version) => shown.version = version,
            None => "unreachable".clone_into(&mut shown.state),
        }
    }
    let Some(progress) = progress else { return };
    reply.heartbeats = progress.heartbeats;
    for told in progress.members {
        if let Some(shown) = reply.members.iter_mut().find(|shown| shown.id == told.id) {
            (shown.matched_index, shown.lag) = (told.matched_index, told.lag);
        }
    }
}

/// The highest feature level that each server can compute, by its name; none of one that does not answer.
pub(super) async fn feature_levels(inner: &Inner, caller: &Caller) -> Vec<(String, Option<u32>)> {
    let (own, members) = (inner.ctx.server.id, inner.ctx.consensus.status().members);
    let asked = members.iter().map(|member| async move {
        let known = cluster::member(member, inner.ctx.members.get(&member.id));
        let most = match member.id == own {
            true => Some(FEATURE_LEVEL),
            false => ask_feature_level(inner, caller, &known).await,
        };
        (known.name, most)
    });
    futures::future::join_all(asked).await
}

async fn ask_feature_level(inner: &Inner, caller: &Caller, member: &pb::Member) -> Option<u32> {
    let mut client = client(inner, member)?;
    let answer = client.cluster_status(probe(pb::ClusterStatusRequest { local: true }, caller)).await.ok()?;
    Some(answer.into_inner().condition?.feature_level_max)
}

async fn ask_version(inner: &Inner, caller: &Caller, member: &pb::Member) -> Option<String> {
    let mut client = client(inner, member)?;
    let answer = client.version(probe(pb::VersionRequest {}, caller)).await.ok()?;
    Some(answer.into_inner().version)
}

/// Only the leader knows how far each server is, and how agents reach it.
async fn ask_leader(inner: &Inner, caller: &Caller, leader: &pb::Member) -> Option<pb::ClusterStatusReply> {
    let mut client = client(inner, leader)?;
    let request = probe(pb::ClusterStatusRequest { local: true }, caller);
    client.cluster_status(request).await.ok().map(|answer| answer.into_inner())
}

fn client(inner: &Inner, member: &pb::Member) -> Option<MusterClient<Channel>> {
    let name = Some(member.name.as_str()).filter(|name| !name.is_empty());
    inner.peers.client(&inner.ctx, &member.address, name).ok()
}

fn probe<T>(message: T, caller: &Caller) -> Request<T> {
    let mut request = on_behalf(message, caller, false);
    request.set_timeout(Duration::from_millis(PROBE_MS));
    request
}
