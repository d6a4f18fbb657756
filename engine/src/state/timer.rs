//! Deadlines in State. The cycle proposes those that have passed; `apply` checks them again.

use muster_common::job::Hash;
use muster_common::{AttemptNo, GangId, JobId, NodeId};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Timer {
    /// Every part must have prepared.
    StartDeadline {
        gang: GangId,
        attempt: AttemptNo,
    },
    TimeLimit {
        gang: GangId,
        attempt: AttemptNo,
    },
    /// Give up queueing.
    WaitLimit {
        job: JobId,
    },
    /// Nothing of the job that starts from now on could end by its deadline.
    Deadline {
        job: JobId,
    },
    /// The back-off before another attempt is over, or `begin_at` has come. Only wakes the cycle.
    NotBefore {
        gang: GangId,
    },
    DrainDeadline {
        node: NodeId,
    },
    JoinToken {
        hash: Hash,
    },
    /// A reservation's end.
    Reservation {
        gang: GangId,
    },
    /// The oldest idempotency keys may go.
    Keys,
    /// An advance reservation's end.
    Window {
        number: u32,
    },
    /// The node must have come back.
    Wake {
        node: NodeId,
    },
    /// Somebody must have said that the node is off.
    FallAsleep {
        node: NodeId,
    },
}
