//! Guarantees on random clusters: whatever is lent and taken back, what an account owns is its own at every moment at
//! which it asks for it.

use crate::plan_support;
use crate::property;
use crate::taking_support;

use muster_common::job::Scheduling;
use muster_common::{GangId, Name, Time};
use muster_engine::command::{ConfigChange, Entry, StopFor};
use muster_engine::forecast::{Hooks, Player, World};
use muster_engine::organisation::Organisation;
use muster_engine::outcome::{Event, Outcome};
use muster_engine::policy::{Backfill, Order, Policy};
use muster_engine::state::gang::{Cause, GangState};
use muster_engine::{Cycle, State};
use plan_support::*;
use property::cases;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use taking_support::account;

const NODES: u32 = 6;
const DEVICES: u32 = 4;
const NAMES: [&str; 3] = ["red", "blue", "green"];

/// Moment, account, nodes, run time in seconds, and whether it may not be stopped.
type Given = (u64, usize, u32, u64, bool);

struct Watch {
    exact: Exact,
    owned: BTreeMap<Name, u32>,
}

impl Watch {
    /// Devices that each account holds.
    fn held(state: &State) -> BTreeMap<Name, u32> {
        let mut held: BTreeMap<Name, u32> = BTreeMap::new();
        for gang in state.gangs().values() {
            let Some(job) = state.job(gang.id.job) else { continue };
            let parts = gang.current().map_or(&[][..], |attempt| &attempt.parts);
            let devices = parts.iter().filter(|part| !part.state.is_settled()).map(|part| part.devices.len() as u32);
            *held.entry(state.scheduling(job).account.clone()).or_default() += devices.sum::<u32>();
        }
        held
    }

    fn waiting(state: &State) -> impl Iterator<Item = GangId> + '_ {
        let queued = state.gangs().values().filter(|gang| matches!(gang.state, GangState::Queued { .. }));
        let never = state.jobs().values().filter_map(|job| Some(GangId::new(job.id, job.unstarted.first()?)));
        queued.map(|gang| gang.id).chain(never)
    }

    /// Somebody who waits for what its account owns.
    fn denied(&self, state: &State) -> Option<String> {
        let held = Self::held(state);
        Self::waiting(state).find_map(|gang| {
            let scheduling = state.scheduling(state.job(gang.job)?);
            let (account, asks) = (&scheduling.account, scheduling.devices() as u32);
            let (holds, owns) = (held.get(account).copied().unwrap_or(0), self.owned[account]);
            (holds + asks <= owns)
                .then(|| format!("{gang} of {account} waits for {asks}, holds {holds} and owns {owns}"))
        })
    }
}

impl Hooks for Watch {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        self.exact.run_ms(state, gang)
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        for event in &outcome.events {
            if let Event::GangStopping { gang, cause: Cause::Preempted { why, .. }, .. } = event
                && (*why != StopFor::Reclaim
                    || !state.job(gang.job).is_none_or(|job| state.scheduling(job).preemptible))
            {
                self.exact.wrong = Some(format!("{gang} was stopped for {why:?}"));
            }
        }
        self.exact.on_entry(state, entry, outcome)
    }

    fn on_cycle(&mut self, state: &State, now: Time, decided: &Cycle) {
        self.exact.compare_with_fresh(state, now, decided);
        if decided.commands.is_empty()
            && let Some(denied) = self.denied(state)
        {
            self.exact.wrong = Some(format!("at {now} {denied}"));
        }
    }
}

fn wish((_, which, count, run_s, firm): Given) -> Scheduling {
    let mut wish = exact(nodes(count, DEVICES), run_s);
    wish.account = name(NAMES[which]);
    wish.preemptible = !firm;
    wish
}

/// Plays it to its end.
fn play(policy: Policy, organisation: &Organisation, given: &[Given]) -> Result<String, String> {
    let owned = organisation.accounts.iter().map(|account| {
        let owned = account.quota.values().map(|quota| quota.nominal).sum();
        (account.name.clone(), owned)
    });
    let exact = Exact { check: true, ..Exact::default() };
    let mut watch = Watch { exact, owned: owned.collect() };
    let mut player = Player::new(State::new("test"), World::default());
    let mut commit = |command| player.commit(Time(0), command, &mut watch).map_err(|error| error.to_string());
    commit(configure(ConfigChange::Policy(policy)))?;
    for at in 0..NODES {
        commit(register(&format!("n{at}"), inventory("H100", DEVICES as usize, &[])))?;
    }
    commit(configure(ConfigChange::Organisation(Arc::new(organisation.clone()))))?;
    for (at, given) in given.iter().enumerate() {
        player.at(Time(given.0 * 1000), submit(&format!("job-{at}"), wish(*given)));
    }
    player.run(&mut watch, 50_000).map_err(|error| error.to_string())?;
    match watch.exact.wrong {
        Some(wrong) => Err(wrong),
        None => Ok(player.state.hash().to_string()),
    }
}

/// What three accounts own, in nodes, with limits; all in one cohort that owns nothing itself, or at the top.
fn organisations() -> impl Strategy<Value = Organisation> {
    let limit = || proptest::option::of(0u32..4);
    let owned = proptest::collection::vec((0u32..4, limit(), limit()), 3);
    (owned, any::<bool>(), limit()).prop_map(|(owned, cohort, borrow)| {
        let mut left = NODES;
        let devices = |nodes: Option<u32>| nodes.map(|nodes| nodes * DEVICES);
        let parent = cohort.then_some("org");
        let mut accounts = Vec::new();
        if cohort {
            accounts.push(account("org", None, (0, devices(borrow), None)));
        }
        for (name, (nodes, borrow, lend)) in NAMES.into_iter().zip(owned) {
            let nominal = nodes.min(left);
            left -= nominal;
            accounts.push(account(
                name,
                parent,
                (nominal * DEVICES, devices(borrow), devices(lend.map(|lend| lend.min(nominal)))),
            ));
        }
        Organisation { accounts, ..Organisation::default() }
    })
}

/// First come first served, with nobody told a start; nominal quota, borrow limit and lend limit in devices.
fn plays(owned: [(u32, Option<u32>, Option<u32>); 3], given: &[Given]) {
    let accounts = NAMES.into_iter().zip(owned).map(|(name, owned)| account(name, None, owned)).collect();
    let backfill = Backfill { reserve_depth: 0, ..Backfill::default() };
    let policy = Policy { order: Order::Fifo, backfill, ..Policy::default() };
    play(policy, &Organisation { accounts, ..Organisation::default() }, given).unwrap();
}

/// Each is within its account's own as long as the other waits.
#[test]
fn two_gangs_of_one_account_do_not_both_take_back_what_only_one_may_have() {
    let owned = [(8, Some(0), None), (4, None, Some(0)), (8, None, None)];
    let red = [(0, 0, 1, 93, false), (0, 0, 2, 80, false), (0, 0, 1, 1, false), (37, 0, 1, 185, false)];
    let red_later = [(37, 0, 1, 155, false), (37, 0, 1, 82, false)];
    let blue = [(64, 1, 1, 21, false), (57, 1, 1, 17, false), (57, 1, 2, 124, false), (64, 1, 1, 108, false)];
    let blue_later = [(57, 1, 2, 121, false), (236, 1, 1, 136, false)];
    let green = [(239, 2, 1, 57, false), (69, 2, 2, 1, false), (235, 2, 1, 148, false), (69, 2, 2, 1, false)];
    let green_later = [(58, 2, 2, 27, false), (58, 2, 2, 164, false)];
    plays(owned, &[&red[..], &red_later, &blue, &blue_later, &green, &green_later].concat());
}

/// Charged for what was kept and for what it takes of that, its account looked as if it held too much.
#[test]
fn who_gets_what_was_kept_for_it_is_charged_once() {
    let owned = [(4, None, None), (8, None, None), (12, None, None)];
    let blue = [(0, 1, 3, 154, false), (1, 1, 1, 101, false), (55, 1, 1, 47, false)];
    let others = [(0, 2, 1, 154, false), (22, 0, 1, 132, false), (32, 2, 1, 31, false), (62, 2, 1, 92, false)];
    plays(owned, &[&blue[..], &others].concat());
}

proptest! {
    #![proptest_config(cases(300))]

    /// Whole machines, so that nothing but quota is in the way; agents stop what they are told to at once.
    #[test]
    fn what_an_account_owns_it_has_whenever_it_asks(
        organisation in organisations(),
        given in proptest::collection::vec((0u64..300, 0usize..3, 1u32..4, 1u64..200, proptest::bool::weighted(0.2)), 1..40),
        reserve_depth in prop_oneof![Just(0u32), Just(1), 2u32..6],
        fair in any::<bool>(),
        rematch in any::<bool>(),
    ) {
        let order = if fair { Order::Fair } else { Order::Fifo };
        let backfill = Backfill { reserve_depth, rematch, ..Backfill::default() };
        let policy = Policy { order, backfill, ..Policy::default() };
        let played = play(policy.clone(), &organisation, &given);
        prop_assert!(played.is_ok(), "{}", played.unwrap_err());
        prop_assert_eq!(play(policy, &organisation, &given), played, "played again");
    }
}
