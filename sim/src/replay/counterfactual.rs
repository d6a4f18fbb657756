//! A cluster's own past under another policy: what such a comparison says, and what it leaves out.

use crate::cluster::ClusterCard;
use serde::Serialize;

/// What it says of itself.
pub const SAYS: &str = "counterfactual: the same work is played in a simulated copy of the cluster, under the policy \
                        in force and under the given one; waits, use and cost are the simulator's, and differ from \
                        what was by all that the data card lists";

/// Whose past a comparison plays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Past {
    /// Of the three replays.
    pub mode: &'static str,
    pub says: &'static str,
    /// As the data card has them: what happened and is not played, and what had to be assumed of jobs.
    pub not_modelled: Vec<String>,
    pub assumed: Vec<String>,
}

impl Past {
    pub fn of(card: &ClusterCard) -> Self {
        let noted = |noted: &crate::trace::Noted| format!("{} jobs: {}", noted.rows, noted.why);
        let dropped = card.trace.dropped.iter().map(|noted| format!("{} jobs left out: {}", noted.rows, noted.why));
        Self {
            mode: "counterfactual",
            says: SAYS,
            not_modelled: card.not_modelled.clone(),
            assumed: card.trace.changed.iter().map(noted).chain(dropped).collect(),
        }
    }

    /// One line each.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let missing = self.not_modelled.iter().map(|what| format!("Not played: {what}."));
        let assumed = self.assumed.iter().map(|what| format!("Assumed of {what}."));
        std::iter::once(format!("This is a {}.", self.says)).chain(missing).chain(assumed)
    }
}
