//! Every recorded decision made again, from the State it was made from.

use super::{Account, Decision, Judge};
use muster_engine::command::{CommitPlan, Entry, PlanStep};
use muster_engine::outcome::Outcome;
use muster_engine::{Command, ENGINE_VERSION, Memo, State, cycle};
use serde::Serialize;
use std::collections::BTreeMap;

/// Differences named one by one; all are counted.
const NAMED_MAX: usize = 50;
/// Steps of a plan that are put into words.
const STEPS_NAMED_MAX: usize = 16;

/// A decision that comes out otherwise here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Different {
    /// Of the entry that committed it, and of the State it was made from.
    pub index: u64,
    pub made_at: u64,
    pub now_ms: u64,
    /// What differs, where it is not the steps.
    pub note: Option<&'static str>,
    pub recorded: Vec<String>,
    pub decided_here: Vec<String>,
}

/// What came of verifying a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    pub schema: &'static str,
    pub mode: &'static str,
    /// What this says, and what it does not.
    pub says: &'static str,
    pub engine_version: u32,
    pub same: u64,
    pub differ: u64,
    /// Of those that are the same: the leader committed only the first part of its plan.
    pub cut_short: u64,
    /// Made by other engine versions and not compared, by version.
    pub other_engines: BTreeMap<u32, u64>,
    pub different: Vec<Different>,
    pub account: Account,
}

impl Verified {
    /// The log is whole, as far as it goes back, and nothing in it came out otherwise here.
    pub fn is_clean(&self) -> bool {
        self.differ == 0 && self.account.states_differ.is_empty() && self.account.unreadable_count == 0
    }
}

#[derive(Debug, Default)]
pub struct Verifier {
    memo: Memo,
    same: u64,
    differ: u64,
    cut_short: u64,
    other_engines: BTreeMap<u32, u64>,
    different: Vec<Different>,
}

pub const SAYS: &str = "every plan that was committed is made again from the State it was made from, and compared \
                        with it bit for bit; cycles that decided nothing left no entry and are not compared, nor are \
                        expiries";

impl Verifier {
    pub fn report(self, account: Account) -> Verified {
        Verified {
            schema: "muster.replay_verify/1",
            mode: "verify",
            says: SAYS,
            engine_version: ENGINE_VERSION,
            same: self.same,
            differ: self.differ,
            cut_short: self.cut_short,
            other_engines: self.other_engines,
            different: self.different,
            account,
        }
    }

    fn made_again(&mut self, state: &State, decision: &Decision) -> Vec<CommitPlan> {
        let made = plans(cycle(state, &mut self.memo, decision.now()).commands);
        if made.starts_with(&decision.plans) {
            return made;
        }
        // A memo never changes a decision; if it did, the difference would be here and not in the log.
        self.memo = Memo::default();
        plans(cycle(state, &mut self.memo, decision.now()).commands)
    }
}

fn plans(commands: Vec<Command>) -> Vec<CommitPlan> {
    let plan = |command| match command {
        Command::CommitPlan(plan) => Some(*plan),
        _ => None,
    };
    commands.into_iter().filter_map(plan).collect()
}

impl Judge for Verifier {
    fn decision(&mut self, state: &State, decision: &Decision) {
        let engine_version = decision.engine_version();
        if engine_version != ENGINE_VERSION {
            *self.other_engines.entry(engine_version).or_default() += 1;
            return;
        }
        let made = self.made_again(state, decision);
        if made.starts_with(&decision.plans) {
            self.same += 1;
            self.cut_short += u64::from(made.len() > decision.plans.len());
            return;
        }
        self.differ += 1;
        if self.different.len() < NAMED_MAX {
            let steps = |plans: &[CommitPlan]| words(state, plans.iter().flat_map(|plan| &plan.steps));
            let (recorded, here) = (&decision.plans[0], made.first());
            let version = here.is_some_and(|here| here.policy_version != recorded.policy_version);
            self.different.push(Different {
                index: decision.index,
                made_at: recorded.made_at,
                now_ms: recorded.now.0,
                note: version.then_some("it names another version of the policy than the State it was made from"),
                recorded: steps(&decision.plans),
                decided_here: steps(&made),
            });
        }
    }

    fn applied(&mut self, _state: &State, _entry: &Entry, _outcome: &Outcome) {}

    fn interrupted(&mut self) {
        self.memo = Memo::default();
    }
}

/// Steps as a person reads them; nodes by their names.
fn words<'a>(state: &State, steps: impl Iterator<Item = &'a PlanStep>) -> Vec<String> {
    let mut told = Vec::new();
    let mut more = 0_u64;
    for step in steps {
        if told.len() < STEPS_NAMED_MAX { told.push(word(state, step)) } else { more += 1 }
    }
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    told
}

fn word(state: &State, step: &PlanStep) -> String {
    match step {
        PlanStep::Place(placed) => {
            let part = |part: &muster_engine::command::PlacedPart| {
                let name = state.node(part.node).map_or_else(|| part.node.to_string(), |node| node.name.to_string());
                let slots: Vec<String> = part.devices.iter().map(|(slot, _)| slot.to_string()).collect();
                format!("{name}:{}", slots.join(","))
            };
            let parts: Vec<String> = placed.parts.iter().map(part).collect();
            format!("place {} attempt {} on {}", placed.gang, placed.attempt, parts.join(" "))
        }
        PlanStep::Stop { gang, attempt, why, .. } => format!("stop {gang} attempt {attempt} for {why:?}"),
        PlanStep::Reserve(reservation) => format!("book {}", reservation.gang),
        PlanStep::Unreserve { gang } => format!("drop the booking of {gang}"),
        PlanStep::Consolidate(wanted) => {
            let moves: Vec<String> = wanted.moves.iter().map(|moved| moved.place.gang.to_string()).collect();
            format!("move {} for {}", moves.join(", "), wanted.room.gang)
        }
    }
}
