//! Preemption on random clusters: whoever others are stopped for starts, nobody is stopped in turn,
//! and what was stopped stops nobody when it comes again at once.

use crate::plan_support;
use crate::property;

use muster_common::job::Hash;
use muster_common::topology::TopologyMode::Required;
use muster_common::{GangId, Time};
use muster_engine::command::{ConfigChange, Entry, StopFor};
use muster_engine::forecast::{Hooks, Player, World};
use muster_engine::outcome::{Event, Outcome};
use muster_engine::policy::{Policy, Preempt, Taking};
use muster_engine::state::gang::Cause;
use muster_engine::{Cycle, State};
use plan_support::*;
use property::cases;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const SETTLE_MS: u64 = 60_000;

#[derive(Default)]
struct Watch {
    exact: Exact,
    /// For whom others were stopped and who has not been placed since, with the moment.
    owed: BTreeMap<GangId, Time>,
    pairs: BTreeSet<(GangId, GangId)>,
    stopped: Vec<(Time, Hash)>,
    /// Jobs to be submitted again as soon as they are stopped.
    again: Vec<GangId>,
}

impl Watch {
    fn see(&mut self, state: &State, at: Time, event: &Event) {
        match event {
            Event::GangStopping { gang, cause: Cause::Preempted { by: Some(by), why: StopFor::Priority }, .. } => {
                let shape = |gang: &GangId| state.job(gang.job).map(|job| job.revision().scheduling);
                let rank = |gang: &GangId| {
                    let job = state.job(gang.job)?;
                    state.policy().class_rank(&state.scheduling(job).class)
                };
                if rank(by) <= rank(gang) {
                    self.exact.wrong = Some(format!("{gang} was stopped for {by}, which is of no higher class"));
                }
                let lately = |(then, known): &(Time, Hash)| {
                    Some(*known) == shape(by) && *then < at && at.since_ms(*then) < SETTLE_MS
                };
                if self.stopped.iter().any(lately) {
                    self.exact.wrong = Some(format!("{by} was stopped a moment ago and others are stopped for it"));
                }
                if self.pairs.contains(&(*by, *gang)) {
                    self.exact.wrong = Some(format!("{by} and {gang} stop each other in turn"));
                }
                self.pairs.insert((*gang, *by));
                self.owed.insert(*by, at);
                self.stopped.extend(shape(gang).map(|shape| (at, shape)));
                self.again.push(*gang);
            }
            Event::GangPlaced { gang, .. } => drop(self.owed.remove(gang)),
            _ => {}
        }
    }
}

impl Hooks for Watch {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        self.exact.run_ms(state, gang)
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        outcome.events.iter().for_each(|event| self.see(state, entry.at, event));
        if let Some((gang, at)) = self.owed.iter().find(|(_, at)| **at < entry.at) {
            return Err(format!("others were stopped for {gang} at {at}, and it did not start then"));
        }
        self.exact.on_entry(state, entry, outcome)
    }

    fn on_cycle(&mut self, state: &State, now: Time, decided: &Cycle) {
        self.exact.compare_with_fresh(state, now, decided);
    }
}

fn wish((shape, a, b, run_s, level): (u8, u32, u32, u64, u8)) -> muster_common::job::Scheduling {
    let mut wish = match shape % 5 {
        0 => exact(nodes(1 + a % 4, 4), run_s),
        1 => exact(nodes(1 + a % 3, 1 + b % 4), run_s),
        2 => within(exact(nodes(1 + a % 3, 4), run_s), "rack", Required, 1),
        3 => exact(total(1 + a % 12), run_s),
        _ => within(exact(total(1 + a % 8), run_s), "rack", Required, 1),
    };
    wish.class = name(["low", "normal", "high"][usize::from(level % 3)]);
    wish.preemptible = b % 5 != 0;
    wish
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn preemption_helps_whom_it_is_for_and_settles(
        given in proptest::collection::vec((0u64..600, any::<u8>(), 0u32..100, 0u32..100, 1u64..400, any::<u8>()), 1..40),
        racks in 1usize..4,
        resubmit in any::<bool>(),
    ) {
        let preempt = Preempt { settle_ms: SETTLE_MS, ..Preempt::default() };
        let policy = Policy { taking: Taking { preempt: Some(preempt), ..Taking::default() }, ..Policy::default() };
        let mut watch = Watch { exact: Exact { check: true, ..Exact::default() }, ..Watch::default() };
        let mut player = Player::new(State::new("test"), World::default());
        player.commit(Time(0), configure(ConfigChange::Policy(policy)), &mut watch).unwrap();
        player.commit(Time(0), configure(ConfigChange::Fabric(fabric(&["rack"]))), &mut watch).unwrap();
        for rack in 0..racks {
            for at in 0..3 {
                let machine = inventory("H100", 4, &[&format!("r{rack}")]);
                player.commit(Time(0), register(&format!("r{rack}-{at}"), machine), &mut watch).unwrap();
            }
        }
        for (at, (at_s, shape, a, b, run_s, level)) in given.iter().enumerate() {
            let command = submit(&format!("job-{at}"), wish((*shape, *a, *b, *run_s, *level)));
            player.at(Time(at_s * 1000), command);
        }
        let mut resubmitted = 0;
        while player.step(&mut watch).map_err(|error| TestCaseError::fail(error.to_string()))? {
            for gang in std::mem::take(&mut watch.again) {
                let Some(job) = player.state.job(gang.job).filter(|_| resubmit && resubmitted < 50) else { continue };
                let same = (**player.state.scheduling(job)).clone();
                resubmitted += 1;
                let now = player.state.now();
                player.at(now, submit(&format!("again-{resubmitted}"), same));
            }
        }
        prop_assert_eq!(watch.exact.wrong, None);
    }
}
