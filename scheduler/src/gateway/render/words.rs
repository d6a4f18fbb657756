//! Causes, names and amounts in words.

use muster_common::text::is_steering;
use muster_common::{GangId, NodeId, Time};
use muster_engine::State;
use muster_engine::command::{Exit, StopFor};
use muster_engine::state::gang::Cause;
use muster_proto::client as pb;

/// A node's name; its number when it is no longer known.
pub fn node_name(state: &State, node: NodeId) -> String {
    state.node(node).map_or_else(|| format!("node {node}"), |record| record.name.to_string())
}

/// `4711`, or `4713_3` for an element of an array.
pub fn gang_name(state: &State, gang: GangId) -> String {
    let array = state.job(gang.job).is_some_and(|job| state.scheduling(job).array.is_some());
    if array || gang.ordinal > 0 { gang.to_string() } else { gang.job.to_string() }
}

/// A gang's job: its name, and whose it is.
pub fn owner(state: &State, gang: GangId) -> (String, String) {
    let job = state.job(gang.job);
    let name = job.map(|job| job.name.to_string()).unwrap_or_default();
    (name, job.map(|job| plain(&job.principal.0)).unwrap_or_default())
}

/// A gang that would start later than before.
pub fn delay(state: &State, (gang, before, after): (GangId, Time, Time)) -> pb::Delay {
    let (name, user) = owner(state, gang);
    let (start_before_at_ms, start_after_at_ms) = (before.0, at_ms(after));
    pb::Delay { gang: gang_name(state, gang), name, user, start_before_at_ms, start_after_at_ms }
}

/// A moment in a field that is absent when it is not known.
pub fn at_ms(time: Time) -> Option<u64> {
    (time < Time::NEVER).then_some(time.0)
}

/// `1h 12m`, `36s`: the two largest parts.
pub fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let parts = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let Some(first) = parts.iter().position(|(count, _)| *count > 0) else { return format!("{ms}ms") };
    let shown = parts[first..].iter().take(2).filter(|(count, _)| *count > 0);
    shown.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

/// From the closed set of causes.
pub const fn cause_word(cause: &Cause) -> &'static str {
    match cause {
        Cause::Completed => "completed",
        Cause::RankFailed { .. } => "rank_failed",
        Cause::Cancelled { .. } => "cancelled",
        Cause::TimeLimit => "time_limit",
        Cause::Preempted { .. } => "preempted",
        Cause::Drained { .. } => "drained",
        Cause::NodeLost { .. } => "node_lost",
        Cause::LeaseLost { .. } => "lease_lost",
        Cause::DeviceFailed { .. } => "device_failed",
        Cause::PrepareFailed { .. } => "prepare_failed",
        Cause::StartTimeout { .. } => "start_timeout",
        Cause::Vanished { .. } => "vanished",
    }
}

/// The same as a sentence without its full stop.
pub fn cause_text(state: &State, cause: &Cause) -> String {
    let on = |node: &NodeId| node_name(state, *node);
    match cause {
        Cause::Completed => "every rank ended with 0".into(),
        Cause::RankFailed { rank, node, exit } => format!("rank {rank} on {} {}", on(node), exit_text(*exit)),
        Cause::Cancelled { reason } if reason.is_empty() => "cancelled".into(),
        Cause::Cancelled { reason } => format!("cancelled: {}", plain(reason)),
        Cause::TimeLimit => "it ran until its time limit".into(),
        Cause::Preempted { by, why } => {
            let by = by.as_ref().map_or_else(|| "others".into(), |by| gang_name(state, *by));
            match why {
                StopFor::Order => format!("stopped in favour of {by}"),
                StopFor::Priority => format!("stopped in favour of {by}, of a higher priority class"),
                StopFor::Reclaim => format!("it ran on borrowed quota, which {by} took back"),
                StopFor::Guarantee => format!("it ran on devices guaranteed to the account of {by}"),
                StopFor::Consolidation => format!("moved to make room for {by}"),
            }
        }
        Cause::Drained { node } => format!("{} is being drained", on(node)),
        Cause::NodeLost { node } => format!("{} was silent for the whole fencing wait", on(node)),
        Cause::LeaseLost { node } => format!("{} could not renew its lease and stopped its ranks", on(node)),
        Cause::DeviceFailed { node, slot } => format!("device {slot} of {} failed", on(node)),
        Cause::PrepareFailed { node, why, .. } => format!("{} could not prepare it: {}", on(node), plain(why)),
        Cause::StartTimeout { node } => format!("{} did not prepare it in time", on(node)),
        Cause::Vanished { node } => format!("{} came back without it", on(node)),
    }
}

pub fn exit_text(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited with code {code}"),
        Exit::Signal(signal) => match signal_name(signal) {
            Some(name) => format!("was killed by signal {signal} ({name})"),
            None => format!("was killed by signal {signal}"),
        },
        Exit::Unknown => "is gone, and it is not known how it ended".into(),
    }
}

const fn signal_name(signal: u32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}

/// What an agent or a person wrote, without control characters: it is printed on terminals.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if is_steering(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_their_two_largest_parts() {
        for (ms, text) in
            [(12, "12ms"), (36_000, "36s"), (4_320_000, "1h 12m"), (3_600_000, "1h"), (90_061_000, "1d 1h")]
        {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn control_characters_never_reach_a_terminal() {
        let cause = Cause::Cancelled { reason: "a\x1b[31m\nb".into() };
        assert_eq!(cause_text(&State::new("c"), &cause), "cancelled: a [31m b");
    }
}
