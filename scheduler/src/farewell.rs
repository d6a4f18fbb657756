//! What a server does before it stops: a leader hands over first, so that the others need not find
//! out by its silence.

use crate::consensus::{ConsensusHandle, Status};
use crate::machine::EngineMachine;
use muster_runtime::clock::Clock;

/// A successor that does not take over within this is not waited for; the others elect one anyway.
const HAND_OVER_MS: u64 = 1_000;

/// If this server leads and another one can, waits until that one does.
pub async fn hand_over(consensus: &ConsensusHandle<EngineMachine>, clock: &dyn Clock) {
    let status = consensus.status();
    if status.leader != Some(status.server_id) {
        return;
    }
    let Some(to) = successor_of(&status) else { return };
    let outcome = tokio::select! {
        outcome = consensus.transfer_leader(to) => outcome.map_err(|error| error.to_string()),
        () = clock.sleep_ms(HAND_OVER_MS) => Err(format!("server {to} did not take over within {HAND_OVER_MS} ms")),
    };
    match outcome {
        Ok(()) => tracing::info!(to, "handed leadership over before stopping"),
        Err(why) => tracing::warn!(to, why, "stopping without a successor; the other servers elect one"),
    }
}

/// The server to hand over to, as the leader sees the others.
pub fn successor_of(status: &Status) -> Option<u64> {
    let known = status.members.iter().map(|member| Known { id: member.id, voter: member.voter, lag: member.lag });
    successor(status.server_id, known)
}

/// Of a leader: the other voter that has most of its log.
fn successor(own: u64, members: impl Iterator<Item = Known>) -> Option<u64> {
    let others = members.filter(|member| member.voter && member.id != own);
    others.filter_map(|member| Some((member.lag?, member.id))).min().map(|(_, id)| id)
}

/// What a leader knows of a member.
struct Known {
    id: u64,
    voter: bool,
    lag: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_hands_over_to_the_voter_that_has_most_of_the_log() {
        let of = |members: &[(u64, bool, Option<u64>)]| {
            successor(1, members.iter().map(|(id, voter, lag)| Known { id: *id, voter: *voter, lag: *lag }))
        };
        let own = (1, true, Some(0));
        assert_eq!(of(&[own, (2, true, Some(7)), (3, true, Some(2)), (4, true, None)]), Some(3));
        assert_eq!(of(&[own]), None, "nobody else is there");
        assert_eq!(of(&[own, (2, false, Some(0))]), None, "a learner cannot lead");
        assert_eq!(of(&[own, (2, true, None)]), None, "it was never heard");
    }
}
