//! Which servers there are, and which of them leads. Run on the leader.

use super::roles::Caller;
use super::{Inner, errors, render};
use crate::consensus::{Member, MemberStatus, MembershipError, Status};
use crate::farewell;
use muster_proto::client as pb;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use muster_runtime::identity::check_word;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Entries a server may lack and still be given a vote.
const PROMOTE_LAG_MAX: u64 = 1_000;
/// A server that the leader has not heard for so long does not count for a majority.
const HEARD_WITHIN_MS: u64 = 3_000;
/// How long a new leader is given to hear the others.
const HEAR_MS: u64 = 2_000;
const LOOK_AGAIN_MS: u64 = 50;
/// The longest `host:port`.
const ADDRESS_BYTES_MAX: usize = 261;

pub(super) async fn change(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::ChangeMembersRequest,
) -> Result<pb::ChangeMembersReply, ErrorInfo> {
    errors::check_key("request id", &request.request_id)?;
    check_word("server", &request.server).map_err(|error| errors::usage(error.to_string()))?;
    let changed = match request.action.as_str() {
        "add" => add(inner, &request).await?,
        "promote" => promote(inner, &request).await?,
        "remove" => remove(inner, &request.server).await?,
        other => {
            let message = format!("`{}` is no change of the servers", render::words::plain(other));
            return Err(errors::usage(message).hint("there is: add, promote, remove"));
        }
    };
    if changed {
        let (by, action, server) = (&caller.name, &request.action, &request.server);
        tracing::info!(by, action, server, replaces = request.replaces, "the set of servers was changed");
    }
    let status = inner.ctx.consensus.status();
    let members = status.members.iter().map(|member| shown(inner, member)).collect();
    Ok(pb::ChangeMembersReply { members, changed })
}

async fn add(inner: &Inner, request: &pb::ChangeMembersRequest) -> Result<bool, ErrorInfo> {
    let ctx = &inner.ctx;
    let (name, address) = (&request.server, &request.address);
    check_address(address)?;
    let status = ctx.consensus.status();
    if let Some(known) = status.members.iter().find(|member| shown(inner, member).name == *name) {
        if shown(inner, known).address == *address {
            return Ok(false);
        }
        let message = format!("there is a server `{name}` already, at {}", shown(inner, known).address);
        return Err(ErrorInfo::new(ErrorCode::Conflict, message).hint("give the new server a name of its own"));
    }
    if let Some(known) = status.members.iter().find(|member| shown(inner, member).address == *address) {
        let message = format!("server `{}` has the address {address} already", shown(inner, known).name);
        return Err(ErrorInfo::new(ErrorCode::Conflict, message).hint("`muster cluster members` lists the servers"));
    }
    let id = ctx.consensus.newcomer_at(address).await.map_err(refused)?;
    let member = Member { name: name.clone(), addr: address.clone() };
    ctx.consensus.add_learner(id, member, false).await.map_err(refused)?;
    Ok(true)
}

async fn promote(inner: &Inner, request: &pb::ChangeMembersRequest) -> Result<bool, ErrorInfo> {
    let status = heard(inner).await;
    let newcomer = find(inner, &status, &request.server)?;
    let leaves = match request.replaces.as_str() {
        "" => None,
        // Gone by an earlier try of the same call.
        name if newcomer.voter && find(inner, &status, name).is_err() => None,
        name => Some(find(inner, &status, name)?),
    };
    if newcomer.voter && leaves.is_none() {
        return Ok(false);
    }
    if leaves.is_some_and(|leaves| leaves.id == status.server_id) {
        return Err(leads(&request.replaces));
    }
    if !newcomer.voter && newcomer.lag.is_none_or(|lag| lag > PROMOTE_LAG_MAX) {
        let behind = newcomer.lag.map_or("has not been heard yet".to_owned(), |lag| format!("lacks {lag} entries"));
        let message = format!("server `{}` {behind}; it gets a vote once it has nearly the whole log", request.server);
        return Err(ErrorInfo::new(ErrorCode::Conflict, message).hint("`muster cluster members` shows how far it is"));
    }
    let mut voters: BTreeSet<u64> = voters(&status);
    voters.insert(newcomer.id);
    if let Some(leaves) = leaves {
        voters.remove(&leaves.id);
    }
    set_voters(inner, &status, voters).await?;
    Ok(true)
}

async fn remove(inner: &Inner, name: &str) -> Result<bool, ErrorInfo> {
    let ctx = &inner.ctx;
    let status = heard(inner).await;
    let Ok(member) = find(inner, &status, name) else { return Ok(false) };
    if member.id == status.server_id {
        return Err(leads(name));
    }
    if !member.voter {
        ctx.consensus.remove_learner(member.id).await.map_err(refused)?;
        return Ok(true);
    }
    let mut voters = voters(&status);
    voters.remove(&member.id);
    set_voters(inner, &status, voters).await?;
    Ok(true)
}

/// A change after which no majority could be heard would be the last one.
async fn set_voters(inner: &Inner, status: &Status, voters: BTreeSet<u64>) -> Result<(), ErrorInfo> {
    let heard = |member: &&MemberStatus| {
        voters.contains(&member.id) && member.silent_ms.is_some_and(|silent_ms| silent_ms <= HEARD_WITHIN_MS)
    };
    let heard = status.members.iter().filter(heard).count();
    if heard * 2 <= voters.len() {
        let message = format!(
            "of the {} servers that would have a vote the leader hears {heard}, which is no majority: nothing could be \
             decided any more",
            voters.len()
        );
        return Err(ErrorInfo::new(ErrorCode::Conflict, message)
            .hint("bring the others back first; `muster cluster members` shows who answers"));
    }
    inner.ctx.consensus.change_membership(voters).await.map_err(refused)
}

fn voters(status: &Status) -> BTreeSet<u64> {
    status.members.iter().filter(|member| member.voter).map(|member| member.id).collect()
}

pub(super) async fn transfer(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::TransferLeaderRequest,
) -> Result<pb::TransferLeaderReply, ErrorInfo> {
    errors::check_key("request id", &request.request_id)?;
    let ctx = &inner.ctx;
    let status = heard(inner).await;
    let to = if request.to.is_empty() {
        let nobody = || {
            ErrorInfo::new(ErrorCode::Conflict, "no other server could lead: none with a vote has been heard")
                .hint("`muster cluster members` shows who answers")
        };
        let id = farewell::successor_of(&status).ok_or_else(nobody)?;
        status.members.iter().find(|member| member.id == id).ok_or_else(nobody)?
    } else {
        find(inner, &status, &request.to)?
    };
    let shown = shown(inner, to);
    let reply = pb::TransferLeaderReply {
        leader_id: to.id,
        leader_name: shown.name.clone(),
        leader_address: shown.address,
        changed: to.id != status.server_id,
    };
    if !reply.changed {
        return Ok(reply);
    }
    if !to.voter {
        let message = format!("server `{}` has no vote and cannot lead", shown.name);
        return Err(ErrorInfo::new(ErrorCode::Conflict, message).hint("promote it first, or name another one"));
    }
    if to.silent_ms.is_none_or(|silent_ms| silent_ms > HEARD_WITHIN_MS) {
        let message = format!("the leader does not hear server `{}`", shown.name);
        return Err(ErrorInfo::new(ErrorCode::Conflict, message).hint("name another one, or bring it back first"));
    }
    ctx.consensus.transfer_leader(to.id).await.map_err(not_moved)?;
    tracing::info!(by = caller.name, to = reply.leader_name, "leadership was handed over");
    Ok(reply)
}

/// The leader's status. One that leads only now has heard nobody yet, which says nothing about them.
async fn heard(inner: &Inner) -> Status {
    let clock = &inner.ctx.clock;
    let give_up_ms = clock.boottime_ms() + HEAR_MS;
    loop {
        let status = inner.ctx.consensus.status();
        let all = status.members.iter().all(|member| member.silent_ms.is_some());
        if all || clock.boottime_ms() >= give_up_ms {
            return status;
        }
        clock.sleep_ms(LOOK_AGAIN_MS).await;
    }
}

fn shown(inner: &Inner, member: &MemberStatus) -> pb::Member {
    render::cluster::member(member, inner.ctx.members.get(&member.id))
}

fn find<'s>(inner: &Inner, status: &'s Status, name: &str) -> Result<&'s MemberStatus, ErrorInfo> {
    let found = status.members.iter().find(|member| shown(inner, member).name == name);
    found.ok_or_else(|| {
        let names: Vec<String> = status.members.iter().map(|member| shown(inner, member).name).collect();
        let message = format!("there is no server `{}`", render::words::plain(name));
        ErrorInfo::new(ErrorCode::ServerNotFound, message).hint(format!("there is: {}", names.join(", ")))
    })
}

fn leads(name: &str) -> ErrorInfo {
    ErrorInfo::new(ErrorCode::Conflict, format!("server `{name}` leads and cannot take itself out"))
        .hint("hand leadership over first: muster cluster transfer")
}

fn check_address(address: &str) -> Result<(), ErrorInfo> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    let plain = address.bytes().all(|byte| byte.is_ascii_graphic() && !b"/@?#,".contains(&byte));
    if matches!(port, Some(Ok(1..))) && plain && address.len() <= ADDRESS_BYTES_MAX {
        return Ok(());
    }
    let message = format!("`{}` is not HOST:PORT", render::words::plain(address));
    Err(errors::usage(message).hint("write for example 10.0.0.4:7070"))
}

/// A successor that did not take over in time may have lost an election meanwhile; the call is repeated as it is.
fn not_moved(error: MembershipError) -> ErrorInfo {
    match error {
        MembershipError::Refused { why } => {
            ErrorInfo::new(ErrorCode::Unavailable, format!("leadership has not moved: {why}"))
                .hint("repeat the call; `muster cluster members` shows who leads")
        }
        other => refused(other),
    }
}

fn refused(error: MembershipError) -> ErrorInfo {
    let message = error.to_string();
    match error {
        MembershipError::NotLeader { leader: Some((_, address)) } => ErrorInfo::not_leader(Some(address)),
        MembershipError::NotLeader { leader: None } => errors::no_leader(message),
        MembershipError::ShuttingDown => {
            ErrorInfo::new(ErrorCode::Unavailable, message).hint("try another server")
        }
        MembershipError::Unfit { .. } => ErrorInfo::new(ErrorCode::Conflict, message)
            .hint("start the new server with its own id and an empty folder, then repeat; `muster cluster members prepare` makes one"),
        MembershipError::AlreadyInitialised | MembershipError::Refused { .. } => {
            ErrorInfo::new(ErrorCode::Conflict, message).hint("look with `muster cluster members`, then repeat")
        }
    }
}
