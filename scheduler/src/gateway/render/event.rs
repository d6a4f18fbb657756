//! Events: one line for people, the whole for programs, and what they are about for filters.

use super::spec::without_secrets;
use super::words::{cause_text, exit_text, gang_name, node_name, plain};
use crate::records::{Recorded, job_of};
use muster_common::{AttemptNo, GangId, NodeId};
use muster_engine::command::NodeAction;
use muster_engine::outcome::Evidence;
use muster_engine::{Event, State};
use muster_proto::client as pb;
use std::sync::Arc;

/// One table for both, so that every word that is told can be asked for.
macro_rules! kinds {
    ($($event:pat => $word:literal,)*) => {
        /// From the closed set of kinds.
        pub const fn kind(event: &Event) -> &'static str {
            match event {
                $($event => $word,)*
            }
        }

        /// Every word [`kind`] may give, for checking filters.
        pub const KINDS: &[&str] = &[$($word),*];
    };
}

kinds! {
    Event::JobSubmitted { .. } => "job_submitted",
    Event::JobHeld { hold: true, .. } => "job_held",
    Event::JobHeld { hold: false, .. } => "job_released",
    Event::JobCancelled { .. } => "job_cancelled",
    Event::GangPlaced { .. } => "gang_placed",
    Event::GangStarted { .. } => "gang_started",
    Event::RankExited { .. } => "rank_exited",
    Event::GangStopping { .. } => "gang_stopping",
    Event::AttemptEnded { .. } => "attempt_ended",
    Event::GangQueued { .. } => "gang_queued",
    Event::GangEnded { .. } => "gang_ended",
    Event::JobEnded { .. } => "job_ended",
    Event::Reserved { .. } => "reserved",
    Event::Unreserved { .. } => "unreserved",
    Event::NodeRegistered { .. } => "node_registered",
    Event::NodeSeen { .. } => "node_seen",
    Event::NodeSilent { .. } => "node_silent",
    Event::NodeFenced { .. } => "node_fenced",
    Event::NodeAdmin { .. } => "node_admin",
    Event::DevicesUnknown { .. } => "devices_unknown",
    Event::DevicesFree { .. } => "devices_free",
    Event::DeviceQuarantined { .. } => "device_quarantined",
    Event::DeviceFault { .. } => "device_fault",
    Event::Configured { .. } => "configured",
    Event::TokenIssued { .. } => "token_issued",
    Event::TokenUsed { .. } => "token_used",
    Event::TokenExpired => "token_expired",
    Event::DependencyBroken { .. } => "dependency_broken",
    Event::JobEdited { .. } => "job_edited",
    Event::WindowMade { .. } => "reservation_made",
    Event::WindowEnded { .. } => "reservation_ended",
    Event::NodesRequested { .. } => "nodes_requested",
    Event::NodesSleeping { .. } => "nodes_sleeping",
    Event::NodeAsleep { .. } => "node_asleep",
    Event::NodeAwake { .. } => "node_awake",
    Event::NodePowerFailed { .. } => "node_power_failed",
}

/// The nodes an event is about.
pub fn nodes_of(event: &Event) -> Vec<NodeId> {
    match event {
        Event::GangPlaced { nodes, .. } | Event::NodesRequested { nodes, .. } | Event::NodesSleeping { nodes } => {
            nodes.clone()
        }
        Event::AttemptEnded { record, .. } => record.attempt.parts.iter().map(|part| part.node).collect(),
        Event::GangStopping { cause, .. } => cause.node().into_iter().collect(),
        Event::RankExited { node, .. }
        | Event::NodeRegistered { node, .. }
        | Event::NodeSeen { node }
        | Event::NodeSilent { node }
        | Event::NodeFenced { node }
        | Event::NodeAsleep { node }
        | Event::NodeAwake { node }
        | Event::NodePowerFailed { node, .. }
        | Event::NodeAdmin { node, .. }
        | Event::DevicesUnknown { node, .. }
        | Event::DevicesFree { node, .. }
        | Event::DeviceQuarantined { node, .. }
        | Event::DeviceFault { node, .. } => vec![*node],
        _ => Vec::new(),
    }
}

fn gang_of(event: &Event) -> (Option<GangId>, Option<AttemptNo>) {
    match event {
        Event::GangPlaced { gang, attempt, .. }
        | Event::GangStarted { gang, attempt }
        | Event::RankExited { gang, attempt, .. }
        | Event::GangStopping { gang, attempt, .. } => (Some(*gang), Some(*attempt)),
        Event::AttemptEnded { gang, record } => (Some(*gang), Some(record.attempt.number)),
        Event::GangQueued { gang, .. }
        | Event::GangEnded { gang, .. }
        | Event::Reserved { gang, .. }
        | Event::NodesRequested { gang, .. }
        | Event::Unreserved { gang } => (Some(*gang), None),
        Event::JobCancelled { job, ordinal: Some(ordinal), .. } => (Some(GangId::new(*job, *ordinal)), None),
        _ => (None, None),
    }
}

/// `array`: is the job an array? Asked of those who know more than State, which forgets what has ended.
pub fn render(state: &State, recorded: &Recorded, array: bool) -> pb::Event {
    let event = &recorded.event;
    let (gang, attempt) = gang_of(event);
    let nodes = nodes_of(event);
    let node = match (event, nodes.as_slice()) {
        (Event::NodeRegistered { name, .. }, _) => name.to_string(),
        (_, [node]) => node_name(state, *node),
        _ => String::new(),
    };
    pb::Event {
        index: recorded.index,
        ordinal: recorded.ordinal,
        at_ms: recorded.at.0,
        kind: kind(event).into(),
        job: job_of(event).map(|job| job.0),
        gang: gang.map(|gang| gang.ordinal),
        attempt: attempt.map(|attempt| attempt.0),
        node,
        text: plain(&text(state, event, array)),
        json: json(event),
    }
}

/// The event for programs. The environment of a job is nobody else's business.
fn json(event: &Event) -> String {
    let mut event = event.clone();
    if let Event::JobEnded { launch, .. } = &mut event {
        *launch = Arc::new(without_secrets(launch));
    }
    serde_json::to_string(&event).unwrap_or_default()
}

fn text(state: &State, event: &Event, array: bool) -> String {
    let gang_of = |gang: &GangId| if array { gang.to_string() } else { gang_name(state, *gang) };
    let named = |gang: GangId, attempt: u32| format!("{}@{attempt}", gang_of(&gang));
    match event {
        Event::JobSubmitted { job, name, principal, gangs: 1 } => format!("{job} {name} submitted by {}", principal.0),
        Event::JobSubmitted { job, name, principal, gangs } => {
            format!("{job} {name} submitted by {}, {gangs} elements", principal.0)
        }
        Event::JobHeld { job, hold, by } => {
            format!("{job} {} by {}", if *hold { "held" } else { "released" }, by.0)
        }
        Event::JobCancelled { job, ordinal, by, reason } => {
            let what = ordinal.map_or_else(|| job.to_string(), |ordinal| GangId::new(*job, ordinal).to_string());
            format!("{what} cancelled by {}{}", by.0, because(reason))
        }
        Event::GangPlaced { gang, attempt, nodes, devices, .. } => {
            let names: Vec<String> = nodes.iter().take(8).map(|node| node_name(state, *node)).collect();
            let more = if nodes.len() > 8 { ", ..." } else { "" };
            format!("{} placed on {}{more}: {devices} devices", named(*gang, attempt.0), names.join(", "))
        }
        Event::GangStarted { gang, attempt } => format!("{} started", named(*gang, attempt.0)),
        Event::RankExited { gang, attempt, rank, node, exit } => {
            let gang = named(*gang, attempt.0);
            format!("{gang} rank {rank} on {} {}", node_name(state, *node), exit_text(*exit))
        }
        Event::GangStopping { gang, attempt, cause } => {
            format!("{} stops: {}", named(*gang, attempt.0), cause_text(state, cause))
        }
        Event::AttemptEnded { gang, record } => {
            let gang = named(*gang, record.attempt.number.0);
            format!("{gang} ended: {}", cause_text(state, &record.cause))
        }
        Event::GangQueued { gang, next, .. } => format!("{} waits again, for attempt {}", gang_of(gang), next.0),
        Event::GangEnded { gang, end } => format!("{} {}", gang_of(gang), end.word()),
        Event::JobEnded { record, end, .. } => format!("{} {} {}", record.id, record.name, end.word()),
        Event::Reserved { gang, start } if start.0 == u64::MAX => {
            format!("{} is at the head of the queue", gang_of(gang))
        }
        Event::Reserved { gang, .. } => format!("{} has a start booked", gang_of(gang)),
        Event::Unreserved { gang } => format!("{} lost its reservation", gang_of(gang)),
        Event::TokenIssued { node, by, .. } => {
            let node = node.as_ref().map_or("any node".to_owned(), ToString::to_string);
            format!("join token for {node} issued by {}", by.0)
        }
        Event::TokenUsed { node } => format!("join token used by {node}"),
        Event::TokenExpired => "join token ran out unused".into(),
        Event::Configured { what, by, version } => format!("{what} changed by {}; configuration {version}", by.0),
        Event::DependencyBroken { job, kind, on, end } => {
            format!("{job} was to start after {on} ({}), which ended {}", kind.word(), end.word())
        }
        Event::JobEdited { job, revision, by, .. } => format!("{job} edited by {}: revision {revision}", by.0),
        Event::WindowMade { name, start, end, nodes, by } => {
            let lasts = super::words::duration(end.since_ms(*start));
            let nodes = if *nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
            format!("reservation {name} of {nodes} for {lasts} made by {}", by.0)
        }
        Event::WindowEnded { name, by: Some(by) } => format!("reservation {name} ended by {}", by.0),
        Event::WindowEnded { name, by: None } => format!("reservation {name} is over"),
        other => node_text(state, other),
    }
}

fn node_text(state: &State, event: &Event) -> String {
    let name = |node: &NodeId| node_name(state, *node);
    match event {
        Event::NodeRegistered { name, devices, rebooted, .. } => {
            format!("{name} registered with {devices} devices{}", if *rebooted { " after a reboot" } else { "" })
        }
        Event::NodeSeen { node } => format!("{} is heard again", name(node)),
        Event::NodeSilent { node } => format!("{} is silent", name(node)),
        Event::NodeFenced { node } => format!("{} is fenced; its work may go elsewhere", name(node)),
        Event::NodeAdmin { node, action, by } => format!("{} {} by {}", name(node), action_text(action), by.0),
        Event::NodesRequested { nodes, .. } => format!("{} to be woken", count(nodes.len())),
        Event::NodesSleeping { nodes } => format!("{} to be put to sleep", count(nodes.len())),
        Event::NodeAsleep { node } => format!("{} is asleep", name(node)),
        Event::NodeAwake { node } => format!("{} is awake", name(node)),
        Event::NodePowerFailed { node, waking, why, .. } => {
            let what = if *waking { "woken" } else { "put to sleep" };
            format!("{} could not be {what}{}", name(node), because(why))
        }
        Event::DevicesUnknown { node, slots } => {
            format!("{} devices {}: not proven free", name(node), list(slots))
        }
        Event::DevicesFree { node, slots, evidence } => {
            let why = match evidence {
                Evidence::Released => "released",
                Evidence::Reboot => "the machine was restarted",
                Evidence::NeverHeld => "the agent never held them",
                Evidence::Operator => "by an operator's word",
            };
            format!("{} devices {} free: {why}", name(node), list(slots))
        }
        Event::DeviceQuarantined { node, slot, why } => format!("{} device {slot} quarantined: {why}", name(node)),
        Event::DeviceFault { node, slot, xid, why } => {
            format!("{} device {slot} reports XID {xid}{}", name(node), because(why))
        }
        _ => kind(event).replace('_', " "),
    }
}

fn count(nodes: usize) -> String {
    if nodes == 1 { "1 node is".to_owned() } else { format!("{nodes} nodes are") }
}

fn action_text(action: &NodeAction) -> String {
    match action {
        NodeAction::Cordon { reason } => format!("cordoned{}", because(reason)),
        NodeAction::Uncordon => "opened".into(),
        NodeAction::Drain { reason, deadline_ms: Some(ms) } => {
            format!("drained within {}{}", super::words::duration(*ms), because(reason))
        }
        NodeAction::Drain { reason, deadline_ms: None } => format!("drained{}", because(reason)),
        NodeAction::Undrain => "opened again".into(),
        NodeAction::StateReleased { reason } => format!("stated to run nothing any more{}", because(reason)),
        NodeAction::EndQuarantine { slot, reason } => {
            format!("device {slot} taken out of quarantine{}", because(reason))
        }
        NodeAction::Remove { reason } => format!("removed{}", because(reason)),
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

fn list(slots: &[u16]) -> String {
    slots.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
