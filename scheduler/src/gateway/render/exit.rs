//! The exit code of a program that stands in for a job.

use muster_engine::command::Exit;
use muster_engine::state::gang::{Attempt, AttemptRecord, Cause, End};

/// What a gang that has ended would exit with: 0 only when it succeeded, else the code of the rank
/// that failed first. `None` when no rank is known to have failed.
pub fn of_gang(end: End, last: Option<&AttemptRecord>) -> Option<i32> {
    if end == End::Succeeded {
        return Some(0);
    }
    let last = last?;
    match &last.cause {
        Cause::RankFailed { exit, .. } => code(*exit).or_else(|| first_failed(&last.attempt)),
        _ => first_failed(&last.attempt),
    }
}

fn first_failed(attempt: &Attempt) -> Option<i32> {
    let exits = attempt.parts.iter().flat_map(|part| &part.exits);
    exits.flatten().filter(|exit| !exit.is_success()).find_map(|exit| code(*exit))
}

/// As a shell would tell it: 128 + the signal.
fn code(exit: Exit) -> Option<i32> {
    match exit {
        Exit::Code(code) => Some(code),
        Exit::Signal(signal) => i32::try_from(signal).ok().map(|signal| 128 + signal),
        Exit::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::resources::Amount;
    use muster_common::{AttemptNo, NodeId, Time, Token};
    use muster_engine::state::gang::{Allocation, PartState};

    fn ended(cause: Cause, exits: &[Option<Exit>]) -> AttemptRecord {
        let part = Allocation {
            group: 0,
            node: NodeId(1),
            epoch: 1,
            devices: Vec::new(),
            amount: Amount::default(),
            rank_base: 0,
            ranks: exits.len() as u32,
            state: PartState::Released,
            exits: exits.to_vec(),
        };
        let attempt = Attempt {
            number: AttemptNo(1),
            token: Token::default(),
            placed_at: Time(0),
            started_at: None,
            stopping_at: None,
            checkpoint_at: None,
            hourly: Default::default(),
            set_aside: Default::default(),
            master_port: 1,
            world_size: exits.len() as u32,
            parts: vec![part],
        };
        AttemptRecord { attempt, cause, ended_at: Time(1), device_ms: 0 }
    }

    #[test]
    fn the_rank_that_failed_first_decides() {
        let failed = |exit| Cause::RankFailed { rank: 1, node: NodeId(1), exit };
        let killed = Some(Exit::Signal(15));
        let table = [
            (End::Succeeded, Cause::Completed, vec![Some(Exit::Code(0))], Some(0)),
            (End::Failed, failed(Exit::Code(3)), vec![killed, Some(Exit::Code(3))], Some(3)),
            (End::Failed, failed(Exit::Signal(9)), vec![killed, Some(Exit::Signal(9))], Some(137)),
            (End::Failed, failed(Exit::Unknown), vec![killed, Some(Exit::Unknown)], Some(143)),
            (End::Failed, failed(Exit::Unknown), vec![None, Some(Exit::Unknown)], None),
            (End::TimedOut, Cause::TimeLimit, vec![None, killed], Some(143)),
            (End::Failed, Cause::NodeLost { node: NodeId(1) }, vec![None, None], None),
        ];
        for (end, cause, exits, expected) in table {
            assert_eq!(of_gang(end, Some(&ended(cause.clone(), &exits))), expected, "{end:?} {cause:?} {exits:?}");
        }
    }

    #[test]
    fn what_did_not_succeed_never_exits_with_0() {
        let polite = ended(Cause::Cancelled { reason: String::new() }, &[Some(Exit::Code(0))]);
        assert_eq!(of_gang(End::Cancelled, Some(&polite)), None);
        assert_eq!(of_gang(End::Cancelled, None), None);
    }
}
