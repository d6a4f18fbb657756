//! Another policy on each recorded State, without feedback: whom it would have started there, and when for the first
//! time. What would have followed is not known, because the next State is again the recorded one.

use super::{Account, Decision, Judge};
use muster_common::{AttemptNo, GangId, Time};
use muster_engine::command::Entry;
use muster_engine::outcome::{Event, Outcome};
use muster_engine::policy::Policy;
use muster_engine::shadow::{Decided, Kind, under};
use muster_engine::{ENGINE_VERSION, Memo, State, cycle};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a leader may take to look at a State; no policy is slower or faster for that.
const REACTION_MS: u64 = 1_000;
/// Gangs named one by one; all are counted.
const NAMED_MAX: usize = 20;
/// Differences named one by one.
const DIFFERENCES_NAMED_MAX: usize = 50;

pub const SAYS: &str = "at each recorded State, whom the policy would have started then and there; each State is the \
                        recorded one, so nothing here tells what would have followed: neither waits, nor use, nor cost";

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KindCount {
    pub kind: Kind,
    pub text: &'static str,
    pub decisions: u64,
}

/// One decision that the policy would have taken otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Other {
    pub index: u64,
    pub now_ms: u64,
    pub kind: Kind,
    /// Gangs started here only by the one, and only by the other.
    pub only_recorded: Vec<String>,
    pub only_shadow: Vec<String>,
}

/// A gang that the policy would have started before it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Earlier {
    pub gang: String,
    pub earlier_ms: u64,
    pub started_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shadowed {
    pub schema: &'static str,
    pub mode: &'static str,
    pub says: &'static str,
    pub engine_version: u32,
    pub policy: Policy,
    /// Recorded decisions that were taken again under the policy.
    pub compared: u64,
    pub agree: u64,
    pub by_kind: Vec<KindCount>,
    /// Recorded States on which the policy was run.
    pub states: u64,
    /// Cycles in which it came to the end of its budget.
    pub truncated: u64,
    /// Recorded starts, and what the policy had wanted by then.
    pub starts: u64,
    pub at_once_too: u64,
    pub earlier: u64,
    pub not_by_then: u64,
    pub earlier_median_ms: u64,
    pub earliest: Vec<Earlier>,
    /// Gangs that it would have started and that never were, as far as the log goes.
    pub never_started: u64,
    pub others: Vec<Other>,
    pub account: Account,
}

type Start = (GangId, AttemptNo);

/// When the policy first wanted to start a gang, and by which recorded decision it could have been.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    at: Time,
    turn: u64,
}

#[derive(Debug)]
pub struct Shadow {
    policy: Arc<Policy>,
    memo: Memo,
    /// The State now, on which the policy is run once its moment is over: within one, a leader may not have looked.
    pending: Option<State>,
    states: u64,
    truncated: u64,
    kinds: BTreeMap<Kind, u64>,
    /// When the policy first wanted to start what still waits.
    wanted: BTreeMap<Start, Wanted>,
    /// Recorded decisions so far.
    made: u64,
    starts: u64,
    at_once_too: u64,
    not_by_then: u64,
    earlier: Vec<(u64, Time, GangId)>,
    others: Vec<Other>,
}

impl Shadow {
    pub fn new(policy: Policy) -> Self {
        Self {
            policy: Arc::new(policy),
            memo: Memo::default(),
            pending: None,
            states: 0,
            truncated: 0,
            kinds: BTreeMap::new(),
            wanted: BTreeMap::new(),
            made: 0,
            starts: 0,
            at_once_too: 0,
            not_by_then: 0,
            earlier: Vec::new(),
            others: Vec::new(),
        }
    }

    pub fn report(mut self, account: Account) -> Shadowed {
        self.earlier.sort_unstable_by(|a, b| b.cmp(a));
        let earliest = self.earlier.iter().take(NAMED_MAX).map(|(earlier_ms, at, gang)| Earlier {
            gang: gang.to_string(),
            earlier_ms: *earlier_ms,
            started_ms: at.0,
        });
        let by_kind = Kind::ALL
            .into_iter()
            .filter_map(|kind| Some(KindCount { kind, text: kind.text(), decisions: self.kinds.get(&kind).copied()? }));
        Shadowed {
            schema: "muster.replay_shadow/1",
            mode: "shadow",
            says: SAYS,
            engine_version: ENGINE_VERSION,
            compared: self.kinds.values().sum(),
            agree: self.kinds.get(&Kind::Same).copied().unwrap_or(0),
            by_kind: by_kind.collect(),
            states: self.states,
            truncated: self.truncated,
            starts: self.starts,
            at_once_too: self.at_once_too,
            earlier: self.earlier.len() as u64,
            not_by_then: self.not_by_then,
            earlier_median_ms: self.earlier.get(self.earlier.len() / 2).map_or(0, |gang| gang.0),
            earliest: earliest.collect(),
            never_started: self.wanted.len() as u64,
            others: self.others,
            policy: (*self.policy).clone(),
            account,
        }
    }

    fn decide(&mut self, state: &State, now: Time, turn: u64) -> Decided {
        self.states += 1;
        let decided = cycle(&under(state, &self.policy), &mut self.memo, now);
        self.truncated += u64::from(decided.truncated > 0);
        let decided = Decided::of(&decided.commands);
        for start in decided.starts.keys() {
            self.wanted.entry(*start).or_insert(Wanted { at: now, turn });
        }
        decided
    }

    fn started(&mut self, start: Start, at: Time) {
        self.starts += 1;
        match self.wanted.remove(&start) {
            None => self.not_by_then += 1,
            Some(Wanted { at: wanted, turn }) => {
                let earlier_ms = at.since_ms(wanted);
                if self.made > turn || earlier_ms > REACTION_MS {
                    self.earlier.push((earlier_ms, at, start.0));
                } else {
                    self.at_once_too += 1;
                }
            }
        }
    }
}

fn names(gangs: &[GangId]) -> Vec<String> {
    gangs.iter().take(NAMED_MAX).map(GangId::to_string).collect()
}

impl Judge for Shadow {
    fn decision(&mut self, state: &State, decision: &Decision) {
        let recorded = Decided::of_steps(decision.plans.iter().flat_map(|plan| &plan.steps));
        self.pending = None;
        self.made += 1;
        let own = self.decide(state, decision.now(), self.made);
        let difference = recorded.against(&own);
        *self.kinds.entry(difference.kind).or_default() += 1;
        if difference.kind > Kind::OtherBookings && self.others.len() < DIFFERENCES_NAMED_MAX {
            self.others.push(Other {
                index: decision.index,
                now_ms: decision.now().0,
                kind: difference.kind,
                only_recorded: names(&difference.only_real),
                only_shadow: names(&difference.only_other),
            });
        }
    }

    fn applied(&mut self, state: &State, entry: &Entry, outcome: &Outcome) {
        let over = self.pending.take().filter(|pending| entry.at > pending.now());
        if let Some(pending) = over {
            self.decide(&pending, pending.now(), self.made + 1);
        }
        for event in &outcome.events {
            match event {
                Event::GangPlaced { gang, attempt, .. } => self.started((*gang, *attempt), state.now()),
                Event::JobEnded { record, .. } => self.wanted.retain(|(gang, _), _| gang.job != record.id),
                _ => {}
            }
        }
        self.pending = Some(state.clone());
    }

    fn interrupted(&mut self) {
        self.memo = Memo::default();
        self.pending = None;
        self.wanted.clear();
    }
}
