//! The leader's loop that has nodes switched: what the cycle asked for goes to the hook, and what came of it to the log.

mod hook;
mod orders;

#[cfg(test)]
mod tests;

pub use hook::problem;

use crate::config::ElasticConfig;
use crate::consensus::{ConsensusHandle, Leadership};
use crate::machine::EngineMachine;
use crate::proposer::Proposer;
use crate::sessions::SessionsHandle;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hook::HookError;
use muster_common::{Name, NodeId};
use muster_engine::apply::GOING_MS;
use muster_engine::command::PowerAnswer;
use muster_engine::state::node::Power;
use muster_engine::{Command, Response, State};
use muster_runtime::clock::Clock;
use muster_runtime::shutdown::Shutdown;
use orders::{Ask, Call, Orders};
use std::sync::Arc;

/// Processes of the hook at a time.
const CALLS_MAX: usize = 4;
/// Entries that come sooner after each other are looked at together.
const LOOK_MS: u64 = 50;
/// Between two tries after something could not be committed.
const RETRY_MS: u64 = 500;
/// While the hook runs, a majority confirms so often that this server still leads, and within this long.
const CONFIRM_MS: u64 = 2_000;
/// Between two looks at agents that are heard of machines that should be off.
const HEARD_MS: u64 = 10_000;
/// Answers of one call on their way into the log.
const ANSWERS_MAX: usize = 64;

/// What a hook is told to do with its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    Sleep,
    Wake,
}

impl Order {
    pub const fn word(self) -> &'static str {
        match self {
            Order::Sleep => "sleep",
            Order::Wake => "wake",
        }
    }

    fn failed(self, why: String) -> PowerAnswer {
        match self {
            Order::Sleep => PowerAnswer::NotAsleep { why },
            Order::Wake => PowerAnswer::NotWoken { why },
        }
    }
}

pub struct Switcher {
    pub consensus: ConsensusHandle<EngineMachine>,
    pub proposer: Proposer,
    pub sessions: SessionsHandle,
    pub clock: Arc<dyn Clock>,
    pub cluster: String,
    /// None when this server's settings have no hook.
    pub config: Option<ElasticConfig>,
}

/// How a call ended.
enum Ended {
    Answered,
    /// It failed with several nodes.
    Together,
    /// No majority said any more that this server leads.
    Unconfirmed,
}

impl Switcher {
    pub async fn run(self, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
        let mut leadership = self.consensus.leadership();
        loop {
            let led = shutdown.unless(leadership.wait_for(|now| now.first_index_of_term_applied)).await;
            let Some(Ok(now)) = led.map(|led| led.map(|now| now.clone())) else { return Ok(()) };
            let mut lost = leadership.clone();
            // What still runs is killed by being dropped.
            tokio::select! {
                biased;
                () = shutdown.triggered() => return Ok(()),
                _ = lost.wait_for(|seen| !seen.is_leader || seen.term != now.term) => {}
                () = self.lead(&now) => {}
            }
        }
    }

    /// Runs until dropped, or until the views end.
    async fn lead(&self, leadership: &Leadership) {
        tokio::join!(self.switch(leadership.term), self.notice_heard());
    }

    async fn switch(&self, term: u64) {
        let mut views = self.consensus.views();
        let (mut orders, mut running, mut warned) = (Orders::default(), FuturesUnordered::new(), false);
        loop {
            let state = views.borrow_and_update().view.clone();
            match &self.config {
                Some(config) => {
                    let calls = orders.next_calls(&state, CALLS_MAX.saturating_sub(running.len()));
                    running.extend(calls.into_iter().map(|call| self.call(term, config, call)));
                }
                None => self.warn_once(&state, &mut warned),
            }
            drop(state);
            tokio::select! {
                Some((call, ended)) = running.next(), if !running.is_empty() => match ended {
                    Ended::Answered => orders.answered(&call),
                    Ended::Together => orders.one_by_one(&call),
                    Ended::Unconfirmed => orders.forget(&call),
                },
                changed = views.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.clock.sleep_ms(LOOK_MS).await;
                }
            }
        }
    }

    /// Nodes that are on their way come back as in vain when their time is up.
    fn warn_once(&self, state: &State, warned: &mut bool) {
        if !*warned && state.nodes().values().any(|record| record.power.is_changing()) {
            *warned = true;
            tracing::error!(
                "nodes are to be switched, and this leader has no hook: name one as `hook` under [elastic] in server.toml"
            );
        }
    }

    /// The call comes back whole, with what is wanted no more by then: whoever keeps account of it has to hear of each node.
    async fn call(&self, term: u64, config: &ElasticConfig, call: Call) -> (Call, Ended) {
        if self.consensus.leader_read_barrier().await.is_err() {
            self.clock.sleep_ms(RETRY_MS).await;
            return (call, Ended::Unconfirmed);
        }
        let state = self.consensus.view();
        let mut asked = call.clone();
        asked.nodes.retain(|(node, _, ask)| ask.stands(&state, *node));
        drop(state);
        let names: Vec<&Name> = asked.nodes.iter().map(|(_, name, _)| name).collect();
        if names.is_empty() {
            return (call, Ended::Answered);
        }
        let (order, count) = (call.order.word(), names.len());
        tracing::info!(order, count, first = %names[0], "asking the hook for nodes");
        let ran = tokio::select! {
            ran = hook::run(config, &self.cluster, call.order, &names, &*self.clock) => ran,
            () = self.doubted() => {
                tracing::warn!(order, count, "this server may not lead any more; its hook was killed");
                return (call, Ended::Unconfirmed);
            }
        };
        let ended = self.say(term, &asked, ran).await;
        (call, ended)
    }

    /// Ends when no majority confirms that this server leads: another may have asked for the opposite by now.
    async fn doubted(&self) {
        loop {
            self.clock.sleep_ms(CONFIRM_MS).await;
            tokio::select! {
                confirmed = self.consensus.leader_read_barrier() => {
                    if confirmed.is_err() {
                        return;
                    }
                }
                () = self.clock.sleep_ms(CONFIRM_MS) => return,
            }
        }
    }

    /// Has written down what came of a call.
    async fn say(&self, term: u64, call: &Call, ran: Result<(), HookError>) -> Ended {
        let (order, count) = (call.order.word(), call.nodes.len());
        let answer = match ran {
            // A node that wakes is back when its agent says so, and not before.
            Ok(()) if call.order == Order::Wake => return Ended::Answered,
            Ok(()) => PowerAnswer::Asleep,
            Err(error) => {
                tracing::warn!(order, count, first = %call.nodes[0].1, %error, "the hook asked in vain");
                if count > 1 && matches!(error, HookError::Failed { .. }) {
                    return Ended::Together;
                }
                call.order.failed(error.to_string())
            }
        };
        let answers = futures::stream::iter(&call.nodes);
        answers.for_each_concurrent(ANSWERS_MAX, |(node, _, ask)| self.answer(term, *node, *ask, &answer)).await;
        Ended::Answered
    }

    /// Until it is in the log, or is wanted no more.
    async fn answer(&self, term: u64, node: NodeId, ask: Ask, answer: &PowerAnswer) {
        loop {
            let state = self.consensus.view();
            let Some(epoch) = state.node(node).filter(|_| ask.stands(&state, node)).map(|record| record.epoch) else {
                return;
            };
            drop(state);
            let command = Command::NodePower { node, epoch, answer: answer.clone() };
            match self.proposer.propose_in_term(term, command).await.map(|committed| committed.response) {
                // Its agent has registered anew meanwhile, or the next look finds that nothing is left to say.
                Ok(Response::Refused(why)) => tracing::info!(%node, %why, "an answer of the hook was refused"),
                Ok(_) => return,
                Err(error) => tracing::info!(%node, %error, "an answer of the hook was not committed"),
            }
            self.clock.sleep_ms(RETRY_MS).await;
        }
    }

    /// An agent whose machine should be off for long, or should have come back from there, and that was connected all
    /// the time, is to say again that it is there: nothing went off.
    async fn notice_heard(&self) {
        loop {
            self.clock.sleep_ms(HEARD_MS).await;
            let (state, now) = (self.consensus.view(), self.proposer.now());
            for record in state.nodes().values().filter(|record| is_overdue(record.power, now)) {
                self.sessions.end(record.id, "the machine should be off, and is heard");
            }
        }
    }
}

/// Heard of now, it is there for certain.
pub fn is_overdue(power: Power, now: muster_common::Time) -> bool {
    match power {
        Power::Asleep { since, .. } | Power::Waking { since, .. } => since.plus_ms(GOING_MS) <= now,
        Power::Awake { .. } | Power::FallingAsleep { .. } => false,
    }
}
