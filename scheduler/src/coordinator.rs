//! The leader's loop: wake, `cycle`, propose. Decides nothing itself.

use crate::booked::FirstBooked;
use crate::consensus::ConsensusHandle;
use crate::machine::EngineMachine;
use crate::proposer::Proposer;
use crate::shadow::ShadowHandle;
use muster_common::{Time, time::MINUTE_MS};
use muster_engine::command::{ConfigChange, Principal};
use muster_engine::{Command, Cycle, Memo, Response, State, cycle};
use muster_runtime::clock::Clock;
use muster_runtime::shutdown::Shutdown;
use std::sync::Arc;
use std::time::Duration;

/// State time is compared with the wall clocks this often.
const CLOCK_CHECK_MS: u64 = 30_000;
/// State time behind the wall by more than this is brought forward by `AdvanceTime`.
const CLOCK_SLACK_MS: u64 = 1_000;
/// State time behind its leader's count by more than this is brought forward too: an entry takes it at most a minute
/// on, so that what came after a longer silence would be dated into the past, its deadlines over when they are set.
const BEHIND_MS: u64 = 20_000;
/// Between two tries after something could not be committed.
const RETRY_MS: u64 = 100;

/// The wall clocks of a majority of servers, in Unix milliseconds; empty when no majority answers.
pub type WallClocks = Arc<dyn Fn() -> futures::future::BoxFuture<'static, Vec<u64>> + Send + Sync>;

pub struct Coordinator {
    consensus: ConsensusHandle<EngineMachine>,
    proposer: Proposer,
    clock: Arc<dyn Clock>,
    wall_clocks: WallClocks,
    cluster_id: String,
    shadow: ShadowHandle,
}

impl Coordinator {
    pub fn new(
        consensus: ConsensusHandle<EngineMachine>,
        proposer: Proposer,
        clock: Arc<dyn Clock>,
        wall_clocks: WallClocks,
        cluster_id: String,
        shadow: ShadowHandle,
    ) -> Self {
        Self { consensus, proposer, clock, wall_clocks, cluster_id, shadow }
    }

    pub async fn run(self, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
        let mut leadership = self.consensus.leadership();
        loop {
            let led = shutdown.unless(leadership.wait_for(|now| now.first_index_of_term_applied)).await;
            let Some(Ok(now)) = led.map(|led| led.map(|now| now.clone())) else { return Ok(()) };
            tracing::info!(term = now.term, "this server leads");
            let mut lost = leadership.clone();
            tokio::select! {
                biased;
                () = shutdown.triggered() => return Ok(()),
                _ = lost.wait_for(|seen| !seen.is_leader || seen.term != now.term) => {
                    tracing::info!(term = now.term, "this server no longer leads");
                }
                () = self.lead() => {}
            }
            self.shadow.restart();
        }
    }

    /// Runs until dropped.
    async fn lead(&self) {
        self.found_cluster().await;
        let mut views = self.consensus.views();
        let mut memo = Some(Memo::default());
        let mut booked = FirstBooked::default();
        let mut check_clocks_at_ms = 0;
        loop {
            if self.clock.boottime_ms() >= check_clocks_at_ms {
                self.advance_time().await;
                check_clocks_at_ms = self.clock.boottime_ms() + CLOCK_CHECK_MS;
            }
            let state = views.borrow_and_update().view.clone();
            booked.look(&state).into_iter().for_each(|start| self.consensus.instruments().started(start));
            let now = self.proposer.now();
            let (decided, used) = self.decide(state.clone(), memo.take().unwrap_or_default(), now).await;
            memo = Some(used);
            self.shadow.offer(&state, now, &decided.commands);
            drop(state);
            if decided.commands.is_empty() {
                self.wait(&mut views, decided.wake_at, check_clocks_at_ms).await;
                continue;
            }
            for command in decided.commands {
                let Some(index) = self.commit(command).await else {
                    self.clock.sleep_ms(RETRY_MS).await;
                    break;
                };
                // The next cycle must see what this one did.
                if views.wait_for(|seen| seen.view.applied_index() >= index).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn decide(&self, state: Arc<State>, mut memo: Memo, now: Time) -> (Cycle, Memo) {
        let (clock, instruments) = (self.clock.clone(), self.consensus.instruments().clone());
        let run = muster_runtime::aside::run(move || {
            let begun_us = clock.boottime_us();
            let decided = cycle(&state, &mut memo, now);
            let took = Duration::from_micros(clock.boottime_us().saturating_sub(begun_us));
            instruments.cycled(took, decided.spent, decided.truncated);
            (decided, memo)
        });
        match run.await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// The index of the entry; `None` when it was not committed.
    async fn commit(&self, command: Command) -> Option<u64> {
        match self.proposer.propose(command).await {
            Ok(committed) => {
                if let Response::Plan { rejected, .. } = &committed.response {
                    for (gang, why) in rejected {
                        tracing::info!(%gang, %why, index = committed.index, "a placement was refused");
                    }
                }
                Some(committed.index)
            }
            Err(error) => {
                tracing::info!(%error, "a decision was not committed");
                None
            }
        }
    }

    /// Until something changed, or the next deadline.
    async fn wait(
        &self,
        views: &mut tokio::sync::watch::Receiver<crate::consensus::Viewed<Arc<State>>>,
        wake_at: Option<Time>,
        check_clocks_at_ms: u64,
    ) {
        let until_check_ms = check_clocks_at_ms.saturating_sub(self.clock.boottime_ms());
        let until_wake_ms = wake_at.map_or(MINUTE_MS, |at| at.since_ms(self.proposer.now()));
        tokio::select! {
            biased;
            _ = views.changed() => {}
            () = self.clock.sleep_ms(until_wake_ms.clamp(1, until_check_ms.max(1))) => {}
        }
    }

    /// The first leader of a cluster writes down which cluster it is.
    async fn found_cluster(&self) {
        if !self.consensus.view().cluster().id.is_empty() {
            return;
        }
        let by = Principal("server".into());
        let cluster = ConfigChange::Cluster { id: self.cluster_id.clone() };
        let fabric = ConfigChange::Fabric(crate::config::default_fabric());
        // The id comes last: a leader that finds it has nothing left to write.
        for change in [fabric, cluster] {
            let command = Command::Configure { change: Box::new(change), by: by.clone() };
            while self.commit(command.clone()).await.is_none() {
                self.clock.sleep_ms(RETRY_MS).await;
            }
        }
    }

    /// Rule 14: larger steps of state time only by the median of a majority's wall clocks.
    async fn advance_time(&self) {
        let mut clocks = (self.wall_clocks)().await;
        if clocks.is_empty() {
            return;
        }
        clocks.sort_unstable();
        let median = Time(clocks[(clocks.len() - 1) / 2]);
        let (state, counted) = (self.consensus.view().now(), self.proposer.now());
        let is_behind = counted.since_ms(state) > BEHIND_MS;
        if median.since_ms(counted) > CLOCK_SLACK_MS || is_behind && median.since_ms(state) > BEHIND_MS {
            self.commit(Command::AdvanceTime { to: median }).await;
        } else if is_behind {
            // The wall clocks are behind as well: as far as an entry goes.
            self.commit(Command::Nothing).await;
        }
    }
}
