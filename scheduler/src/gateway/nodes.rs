//! Nodes: shown, and what operators do to them.

use super::render::live;
use super::render::node::{expected_end, summary, whole, word};
use super::render::words::{duration, gang_name};
use super::roles::Caller;
use super::submit::unexpected;
use super::{Inner, errors};
use muster_common::{GangId, Name, Time};
use muster_engine::command::NodeAction;
use muster_engine::state::node::{DeviceState, Liveness, NodeRecord};
use muster_engine::{Command, Response, State};
use muster_proto::client as pb;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use std::sync::Arc;

const STATES: &[&str] =
    &["UP", "SILENT", "FENCED", "CORDONED", "DRAINING", "DRAINED", "FALLING_ASLEEP", "ASLEEP", "WAKING"];
const ACTIONS: &str = "cordon, uncordon, drain, undrain, state-released, end-quarantine, remove";
/// A drain lasts at most this long; without a deadline it is for ever.
const DEADLINE_MS_MAX: u64 = 366 * 24 * 3_600_000;
/// Nodes one list may name.
const NAMES_MAX: usize = 1000;
/// Gangs named as affected.
const AFFECTED_MAX: usize = 1000;

fn named<'a>(state: &'a State, name: &str) -> Result<&'a NodeRecord, ErrorInfo> {
    let known = Name::new(name).ok().and_then(|name| state.node_named(&name));
    known.ok_or_else(|| errors::unknown_node(&super::render::words::plain(name)))
}

/// As people count: `n2` before `n10`.
fn by_name(state: &State) -> Vec<&NodeRecord> {
    let mut nodes: Vec<&NodeRecord> = state.nodes().values().collect();
    nodes.sort_by_cached_key(|node| natural(node.name.as_str()));
    nodes
}

/// The name in pieces: text, and numbers by their value.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut pieces: Vec<(String, u64)> = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let digits = rest[text..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |at| text + at);
        pieces.push((rest[..text].to_owned(), rest[text..digits].parse().unwrap_or(u64::MAX)));
        rest = &rest[digits..];
    }
    pieces
}

pub(super) async fn list(
    inner: &Arc<Inner>,
    _caller: &Caller,
    request: pb::ListNodesRequest,
) -> Result<pb::ListNodesReply, ErrorInfo> {
    if let Some(word) = request.states.iter().find(|word| !STATES.contains(&word.as_str())) {
        let hint = format!("there is: {}", STATES.join(", "));
        return Err(errors::usage(format!("`{word}` is no state of a node")).hint(hint));
    }
    if request.names.len() > NAMES_MAX {
        return Err(errors::usage(format!("at most {NAMES_MAX} nodes may be named")).hint("list all and filter"));
    }
    let state = inner.fresh().await?;
    inner.reading(move |_| Ok(pb::ListNodesReply { nodes: summaries(&state, &request)? })).await
}

fn summaries(state: &State, request: &pb::ListNodesRequest) -> Result<Vec<pb::Node>, ErrorInfo> {
    let wanted: Vec<&NodeRecord> = if request.names.is_empty() {
        by_name(state)
    } else {
        request.names.iter().map(|name| named(state, name)).collect::<Result<_, _>>()?
    };
    let states = &request.states;
    let takes = |node: &&NodeRecord| states.is_empty() || states.iter().any(|wanted| wanted == word(node));
    Ok(wanted.into_iter().filter(takes).map(|node| summary(state, node)).collect())
}

pub(super) async fn show(
    inner: &Arc<Inner>,
    _caller: &Caller,
    request: pb::ShowNodeRequest,
) -> Result<pb::Node, ErrorInfo> {
    let state = inner.fresh().await?;
    let record = named(&state, &request.name)?;
    let mut node = whole(&state, record);
    if let Some(seen) = inner.ctx.heartbeats.of(record.id) {
        live::add(&mut node, &seen, inner.ctx.clock.wall_ms());
    }
    Ok(node)
}

pub(super) async fn admin(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::NodeAdminRequest,
) -> Result<pb::NodeAdminReply, ErrorInfo> {
    errors::check_key("request id", &request.request_id)?;
    let action = action(&request)?;
    let state = inner.fresh().await?;
    let node = named(&state, &request.node)?;
    let affected = affected(&state, node, &action, inner.now(&state));
    if request.plan_only || is_done(node, &action)? {
        let changed = false;
        return Ok(pb::NodeAdminReply { node: Some(whole(&state, node)), affected, changed });
    }
    let command = Command::NodeAdmin { node: node.id, action, by: caller.principal() };
    let changed = match inner.commit(command).await {
        Ok(Response::Done) => true,
        Ok(Response::Noop) => false,
        Ok(other) => return Err(unexpected(&other)),
        // The node is not in the state that the action is for.
        Err(error) if error.code == ErrorCode::SpecValue => {
            return Err(ErrorInfo::new(ErrorCode::Conflict, error.message).hint("look at `muster node show NODE`"));
        }
        Err(error) => return Err(error),
    };
    let after = inner.ctx.view();
    let node = after.node(node.id).map_or_else(|| whole(&state, node), |node| whole(&after, node));
    Ok(pb::NodeAdminReply { node: Some(node), affected, changed })
}

/// The action asked for, with a reason where one must be given.
pub fn action(request: &pb::NodeAdminRequest) -> Result<NodeAction, ErrorInfo> {
    errors::check_reason(&request.reason)?;
    let reason = || {
        if request.reason.trim().is_empty() {
            let message = format!("`{}` needs a reason", request.action);
            return Err(errors::usage(message).hint("say why, for those who find the node so: `--reason TEXT`"));
        }
        Ok(request.reason.clone())
    };
    let only_for = |given: bool, what: &str, action: &str| match given && request.action != action {
        true => Err(errors::usage(format!("{what} is only for `{action}`")).hint("leave it out")),
        false => Ok(()),
    };
    only_for(request.deadline_ms.is_some(), "a deadline", "drain")?;
    only_for(request.slot.is_some(), "a device", "end-quarantine")?;
    Ok(match request.action.as_str() {
        "cordon" => NodeAction::Cordon { reason: reason()? },
        "uncordon" => NodeAction::Uncordon,
        "drain" => {
            if request.deadline_ms.is_some_and(|ms| ms > DEADLINE_MS_MAX) {
                let message = format!("a deadline is at most {} away", duration(DEADLINE_MS_MAX));
                return Err(errors::usage(message).hint("leave it out to let what runs end by itself"));
            }
            NodeAction::Drain { reason: reason()?, deadline_ms: request.deadline_ms }
        }
        "undrain" => NodeAction::Undrain,
        "state-released" => NodeAction::StateReleased { reason: reason()? },
        "end-quarantine" => {
            let missing =
                || errors::usage("`end-quarantine` needs a device").hint("`muster node show NODE` lists its slots");
            let slot = request.slot.ok_or_else(missing)?;
            let slot = u16::try_from(slot).map_err(|_| errors::usage(format!("{slot} is no slot of a device")))?;
            NodeAction::EndQuarantine { slot, reason: reason()? }
        }
        "remove" => NodeAction::Remove { reason: reason()? },
        other => {
            let message = format!("`{}` is nothing one can do to a node", super::render::words::plain(other));
            return Err(errors::usage(message).hint(format!("there is: {ACTIONS}")));
        }
    })
}

/// Is the node so already? A repeated call then changes nothing and says so.
pub fn is_done(node: &NodeRecord, action: &NodeAction) -> Result<bool, ErrorInfo> {
    Ok(match (action, &node.closed) {
        (NodeAction::Cordon { reason }, Some(closed)) => closed.drain.is_none() && closed.reason == *reason,
        (NodeAction::Drain { reason, deadline_ms: None }, Some(closed)) => {
            closed.reason == *reason && closed.drain.is_some_and(|drain| drain.deadline.is_none())
        }
        (NodeAction::Uncordon | NodeAction::Undrain, None) => true,
        (NodeAction::EndQuarantine { slot, .. }, _) => match node.devices.get(usize::from(*slot)) {
            Some(device) => !matches!(device, DeviceState::Quarantined { .. }),
            None => {
                let message = format!("{} has no device {slot}; it has {}", node.name, node.devices.len());
                return Err(errors::usage(message).hint("`muster node show NODE` lists its slots"));
            }
        },
        _ => false,
    })
}

/// The gangs that have a part here, and what would happen to each.
pub fn affected(state: &State, node: &NodeRecord, action: &NodeAction, now: Time) -> Vec<pb::Affected> {
    let one = |gang: &GangId| {
        let end = expected_end(state, *gang);
        affected_by_end(state, *gang, end, fate(node, action, end, now))
    };
    node.gangs.iter().take(AFFECTED_MAX).map(one).collect()
}

/// A gang that holds devices, with its end and what would happen to it.
pub fn affected_by_end(state: &State, gang: GangId, end: Option<Time>, text: String) -> pb::Affected {
    let job = state.job(gang.job);
    let attempt = state.gang(gang).and_then(|gang| gang.current());
    pb::Affected {
        gang: gang_name(state, gang),
        name: job.map(|job| job.name.to_string()).unwrap_or_default(),
        user: job.map(|job| job.principal.0.to_string()).unwrap_or_default(),
        nodes: attempt.map_or(0, |attempt| attempt.parts.len() as u32),
        expected_end_at_ms: end.map(|at| at.0),
        text,
    }
}

fn fate(node: &NodeRecord, action: &NodeAction, end: Option<Time>, now: Time) -> String {
    match action {
        NodeAction::Drain { deadline_ms: Some(ms), .. } => {
            let deadline = now.plus_ms(*ms);
            match end.filter(|end| *end < deadline) {
                Some(end) => format!("should end by itself in {}", duration(end.since_ms(now))),
                None => format!("is stopped and queued again in {}, unless it ends before", duration(*ms)),
            }
        }
        NodeAction::Cordon { .. } | NodeAction::Drain { .. } => "runs on until it ends".into(),
        NodeAction::StateReleased { .. } if node.liveness == Liveness::Up => {
            "keeps the node from being stated released".into()
        }
        NodeAction::StateReleased { .. } => "its attempt ends as `node_lost`".into(),
        NodeAction::Remove { .. } => "keeps the node from being removed".into(),
        NodeAction::Uncordon | NodeAction::Undrain => "is not moved any more".into(),
        NodeAction::EndQuarantine { .. } => "runs on".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_that_a_node_is_shown_in_can_be_asked_for() {
        let proto = include_str!("../../../proto/proto/client.proto");
        let message = proto.split("message Node {").nth(1).and_then(|rest| rest.split("string state =").next());
        let shown: Vec<&str> = message
            .expect("a node has a state")
            .split(|c: char| !c.is_ascii_uppercase() && c != '_')
            .filter(|word| word.len() > 1)
            .collect();
        assert!(shown.contains(&"UP") && shown.contains(&"ASLEEP"), "{shown:?}");
        assert!(shown.iter().all(|word| STATES.contains(word)), "{shown:?}");
    }

    #[test]
    fn names_sort_as_people_count() {
        let mut names = ["n10", "gpu-b-1", "n2", "n1", "gpu-a-12", "gpu-a-3", "login"];
        names.sort_by_cached_key(|name| natural(name));
        assert_eq!(names, ["gpu-a-3", "gpu-a-12", "gpu-b-1", "login", "n1", "n2", "n10"]);
    }
}
