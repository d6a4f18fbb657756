//! The leader's observer of silence (rule 7). Proposes; only `apply` decides.

use crate::consensus::{ConsensusHandle, Leadership, ProposeError};
use crate::liveness::Liveness;
use crate::machine::EngineMachine;
use crate::proposer::Proposer;
use futures::StreamExt;
use muster_common::NodeId;
use muster_engine::command::Settings;
use muster_engine::state::node;
use muster_engine::{Command, State};
use muster_runtime::clock::Clock;
use muster_runtime::shutdown::Shutdown;
use std::sync::Arc;

const TICK_MS: u64 = 500;
/// A tick that comes later than this was not watching: every wait starts again.
const LATE_MS: u64 = 2_000;
/// When more than one node in so many falls silent at once, the fault is more likely here.
const MASS_SILENCE_DIVISOR: usize = 5;
/// In small clusters so many may fall silent at once.
const MASS_SILENCE_FLOOR: usize = 1;

/// Proposals of one tick in flight: they share the log's syncs.
const PROPOSALS_MAX: usize = 256;

pub struct SilenceObserver {
    consensus: ConsensusHandle<EngineMachine>,
    proposer: Proposer,
    clock: Arc<dyn Clock>,
    liveness: Liveness,
}

/// What a tick would propose for one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    Silent,
    Fenced,
}

impl SilenceObserver {
    pub fn new(
        consensus: ConsensusHandle<EngineMachine>,
        proposer: Proposer,
        clock: Arc<dyn Clock>,
        liveness: Liveness,
    ) -> Self {
        Self { consensus, proposer, clock, liveness }
    }

    pub async fn run(self, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
        let mut watched: Option<(u64, u64)> = None;
        while shutdown.unless(self.clock.sleep_ms(TICK_MS)).await.is_some() {
            let now_ms = self.clock.boottime_ms();
            let leadership = self.consensus.leadership().borrow().clone();
            if !leadership.first_index_of_term_applied {
                self.consensus.instruments().fencing_held(false);
                watched = None;
                continue;
            }
            match watched {
                Some((term, last_ms)) if term == leadership.term && now_ms - last_ms <= LATE_MS => {
                    self.tick(&leadership, now_ms).await;
                }
                _ => self.liveness.restart_waits(now_ms),
            }
            watched = Some((leadership.term, now_ms));
        }
        Ok(())
    }

    async fn tick(&self, leadership: &Leadership, now_ms: u64) {
        let state = self.consensus.view();
        self.liveness.forget(|node| state.node(node).is_some());
        let findings: Vec<(NodeId, u64, Finding, u64)> = state
            .nodes()
            .values()
            .filter_map(|record| {
                let silent_ms = self.liveness.silent_ms(record.id, now_ms);
                let (finding, after_ms) = finding(&state, record, silent_ms)?;
                Some((record.id, record.epoch, finding, after_ms))
            })
            .collect();
        let held = is_mass_silence(&state, findings.iter().filter(|finding| finding.2 == Finding::Silent).count());
        self.consensus.instruments().fencing_held(held && !findings.is_empty());
        if held && !findings.is_empty() {
            tracing::error!("more than a fifth of the nodes are silent; fencing is held, is the network up?");
        }
        let due = findings.into_iter().filter(|(_, _, finding, _)| !(held && *finding == Finding::Fenced));
        all_at_once(due, |(id, epoch, finding, after_ms)| self.propose(leadership.term, id, epoch, finding, after_ms))
            .await;
    }

    async fn propose(&self, term: u64, id: NodeId, epoch: u64, finding: Finding, after_ms: u64) {
        let Some(waited_ms) = self.liveness.decide(id, self.clock.boottime_ms(), after_ms) else { return };
        let command = match finding {
            Finding::Silent => Command::NodeSilent { node: id, epoch, term },
            Finding::Fenced => Command::NodeFenced { node: id, epoch, term, waited_ms },
        };
        tracing::warn!(node = %id, ?finding, waited_ms, "a node is silent");
        if let Err(error) = self.proposer.propose_in_term(term, command).await {
            tracing::info!(%error, node = %id, "silence was not committed");
            if may_be_applied_yet(&error) {
                self.overtake(term).await;
            }
        }
        self.liveness.decided(id);
    }

    /// Waits until what this leader has proposed so far in its term is applied or never will be: what it commits now
    /// stands behind that in the log, and after another term's beginning it acknowledges nothing before it has
    /// applied all that came before.
    async fn overtake(&self, term: u64) {
        loop {
            let error = match self.proposer.propose_in_term(term, Command::Nothing).await {
                Ok(_) => return,
                Err(error) => error,
            };
            let leadership = self.consensus.leadership().borrow().clone();
            if leadership.term != term || !leadership.is_leader || matches!(error, ProposeError::ShuttingDown) {
                return;
            }
            self.clock.sleep_ms(TICK_MS).await;
        }
    }
}

/// Whether an entry without an answer may still be committed.
fn may_be_applied_yet(error: &ProposeError) -> bool {
    matches!(error, ProposeError::Unknown { .. })
}

/// One after the other, each behind its own sync, hundreds of silent nodes would make the next tick late.
async fn all_at_once<T, F: Future<Output = ()>>(items: impl Iterator<Item = T>, propose: impl FnMut(T) -> F) {
    futures::stream::iter(items).map(propose).buffer_unordered(PROPOSALS_MAX).collect::<()>().await;
}

/// So many silent nodes look like a fault of the network or of this server: their work is not moved
/// before they come back or an operator states that it is gone.
fn is_mass_silence(state: &State, newly_silent: usize) -> bool {
    let awake = || state.nodes().values().filter(|node| node.power.is_awake());
    let count = |wanted: fn(&node::Liveness) -> bool| awake().filter(|node| wanted(&node.liveness)).count();
    let silent = count(|liveness| matches!(liveness, node::Liveness::Silent { .. })) + newly_silent;
    let known = count(|liveness| !matches!(liveness, node::Liveness::Fenced { .. }));
    silent > (known / MASS_SILENCE_DIVISOR).max(MASS_SILENCE_FLOOR)
}

/// What is due for a node that has been silent so long.
fn finding(state: &State, record: &node::NodeRecord, silent_ms: u64) -> Option<(Finding, u64)> {
    let settings: &Settings = state.settings();
    if !record.power.is_awake() {
        return None;
    }
    if record.liveness == node::Liveness::Up {
        return (silent_ms >= settings.suspect_after_ms).then_some((Finding::Silent, settings.suspect_after_ms));
    }
    // By what each runs with, as `apply` decides.
    let own = record.gangs.iter().filter_map(|gang| state.scheduling_of(*gang));
    let of_gangs = own.map(|scheduling| settings.fence_after_ms(scheduling.fence_after_ms));
    let of_node = matches!(record.liveness, node::Liveness::Silent { .. }).then(|| settings.fence_after_ms(None));
    let after_ms = of_gangs.chain(of_node).min()?;
    (silent_ms >= after_ms).then_some((Finding::Fenced, after_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::fixture::{Cluster, principal};
    use muster_common::GangId;
    use muster_engine::command::Edit;
    use std::time::Duration;
    use tokio::sync::Barrier;

    /// A barrier that opens for this many: proposals that wait for each other never pass it.
    #[tokio::test]
    async fn hundreds_of_silent_nodes_are_proposed_together() {
        let together = Barrier::new(PROPOSALS_MAX);
        let proposed = all_at_once(0..4 * PROPOSALS_MAX, async |_| {
            together.wait().await;
        });
        tokio::time::timeout(Duration::from_secs(20), proposed).await.expect("they wait for each other");
    }

    /// Only the elements that wait take another wait until they are fenced.
    #[test]
    fn what_runs_is_fenced_by_the_revision_that_it_runs() {
        let mut cluster = Cluster::new(1, 1);
        let gang = r#""gang":{"nodes":1,"gpus_per_node":1,"run":"x"}"#;
        let wish = format!(r#"{{{gang},"array":{{"range":"0-1"}},"fence":{{"after":"1h"}}}}"#);
        let job = cluster.submit("alice", &wish);
        cluster.start(GangId::new(job, 0));
        let record = cluster.state.job(job).unwrap();
        let mut scheduling = (**cluster.state.scheduling(record)).clone();
        scheduling.fence_after_ms = Some(120_000);
        let edit = Edit {
            request_id: "r1".into(),
            job,
            from_revision: record.revision().number,
            name: record.name.clone(),
            scheduling,
            launch: cluster.state.launch(&record.revision().launch).unwrap().clone(),
            by: principal("alice"),
        };
        cluster.apply(Command::Edit(Box::new(edit)));
        let newest = cluster.state.scheduling(cluster.state.job(job).unwrap());
        assert_eq!(newest.fence_after_ms, Some(120_000), "the edit was taken");
        let node = cluster.nodes_of(GangId::new(job, 0))[0];
        let epoch = cluster.state.node(node).unwrap().epoch;
        cluster.apply(Command::NodeSilent { node, epoch, term: 1 });
        cluster.apply(Command::NodeFenced { node, epoch, term: 1, waited_ms: 300_000 });
        let record = cluster.state.node(node).unwrap();
        assert!(matches!(record.liveness, node::Liveness::Fenced { .. }), "{:?}", record.liveness);
        assert_eq!(finding(&cluster.state, record, 3_599_999), None);
        assert_eq!(finding(&cluster.state, record, 3_600_000), Some((Finding::Fenced, 3_600_000)));
    }
}
