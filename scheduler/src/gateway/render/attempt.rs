//! Attempts and their parts.

use super::words::{cause_text, cause_word, node_name, plain};
use muster_common::Time;
use muster_engine::State;
use muster_engine::command::Exit;
use muster_engine::state::gang::{Allocation, Attempt, AttemptRecord, Cause, GangState, PartState};
use muster_proto::client as pb;

/// An attempt that has not ended.
pub fn current(state: &State, gang: &GangState, now: Time) -> Option<pb::Attempt> {
    let (attempt, word, cause) = match gang {
        GangState::Queued { .. } => return None,
        GangState::Starting(attempt) => (attempt, "STARTING", None),
        GangState::Running(attempt) => (attempt, "RUNNING", None),
        GangState::Stopping(attempt, cause) => (attempt, "STOPPING", Some(&**cause)),
    };
    Some(pb::Attempt { device_ms: held_ms(attempt, now), ..render(state, attempt, word, cause) })
}

/// Device-milliseconds of an attempt that has not ended: what it would be charged if it ended now.
pub fn held_ms(attempt: &Attempt, now: Time) -> u64 {
    let holding = attempt.holding();
    now.since_ms(holding.placed_at).saturating_mul(holding.milli) / 1000
}

pub fn ended(state: &State, record: &AttemptRecord) -> pb::Attempt {
    pb::Attempt {
        ended_at_ms: Some(record.ended_at.0),
        device_ms: record.device_ms,
        ..render(state, &record.attempt, "ENDED", Some(&record.cause))
    }
}

fn render(state: &State, attempt: &Attempt, word: &str, cause: Option<&Cause>) -> pb::Attempt {
    pb::Attempt {
        number: attempt.number.0,
        state: word.into(),
        cause: cause.map(cause_word).unwrap_or_default().into(),
        cause_text: cause.map(|cause| plain(&cause_text(state, cause))).unwrap_or_default(),
        placed_at_ms: attempt.placed_at.0,
        started_at_ms: attempt.started_at.map(|at| at.0),
        stopping_at_ms: attempt.stopping_at.map(|at| at.0),
        ended_at_ms: None,
        token: attempt.token.to_string(),
        world_size: attempt.world_size,
        master_port: attempt.master_port.into(),
        device_ms: 0,
        parts: attempt.parts.iter().map(|allocation| part(state, allocation)).collect(),
    }
}

pub fn part(state: &State, part: &Allocation) -> pb::Part {
    let inventory = state.node(part.node).map(|node| &node.inventory);
    let device = |(slot, milli): &(u16, u16)| {
        let device = inventory.and_then(|inventory| inventory.devices.get(usize::from(*slot)));
        pb::PartDevice {
            slot: (*slot).into(),
            uuid: device.map(|device| plain(&device.uuid)).unwrap_or_default(),
            model: device.map(|device| device.model.to_string()).unwrap_or_default(),
            milli: (*milli).into(),
        }
    };
    pb::Part {
        node: node_name(state, part.node),
        state: part_word(part.state).into(),
        devices: part.devices.iter().map(device).collect(),
        cpu_milli: part.amount.cpu_milli,
        memory_bytes: part.amount.memory_bytes,
        rank_base: part.rank_base,
        ranks: part.ranks,
        exits: (part.rank_base..).zip(&part.exits).filter_map(|(rank, exit)| Some(rank_exit(rank, (*exit)?))).collect(),
    }
}

const fn part_word(state: PartState) -> &'static str {
    match state {
        PartState::Placed => "PLACED",
        PartState::Prepared => "PREPARED",
        PartState::Released => "RELEASED",
        PartState::Fenced => "FENCED",
        PartState::Quarantined => "QUARANTINED",
    }
}

const fn rank_exit(rank: u32, exit: Exit) -> pb::RankExit {
    let (code, signal) = match exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (None, Some(signal)),
        Exit::Unknown => (None, None),
    };
    pb::RankExit { rank, code, signal }
}

/// Names of an attempt's nodes in rank order.
pub fn nodes(state: &State, attempt: &Attempt) -> Vec<String> {
    attempt.parts.iter().map(|part| node_name(state, part.node)).collect()
}
