//! Consolidation on random clusters: whoever is moved has its new place from the moment on which it is stopped, goes on
//! there, and so does whom it was moved for; and with nothing new submitted, moves end.

use crate::plan_support;
use crate::property;
use crate::taking_support;

use muster_common::job::Scheduling;
use muster_common::topology::TopologyMode::Required;
use muster_common::{GangId, JobId, NodeId, Time};
use muster_engine::command::{Cancel, Command, ConfigChange, Entry, NodeAction, Principal, StopFor};
use muster_engine::forecast::{Hooks, Player, World};
use muster_engine::organisation::Organisation;
use muster_engine::outcome::{Event, Outcome};
use muster_engine::policy::{Backfill, Consolidate, Policy, Preempt, RuntimeSource, Taking};
use muster_engine::state::gang::Cause;
use muster_engine::state::node::DeviceState;
use muster_engine::state::reservation::{Reservation, ReservationKind};
use muster_engine::{Cycle, State};
use plan_support::*;
use property::cases;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use taking_support::{account, charged};

const PER_VICTIM: u32 = 2;

/// Moment, shape, two numbers, run time in seconds, and more.
type Given = (u64, u8, u32, u32, u64, u8);

#[derive(Default)]
struct Watch {
    exact: Exact,
    /// From the order to stop until all is released.
    release_ms: u64,
    /// Who was moved, or moved for, and has not been placed since, with the moment; not kept where things break.
    owed: Option<BTreeMap<GangId, Time>>,
    moves: BTreeMap<GangId, u32>,
}

impl Watch {
    fn see(&mut self, state: &State, at: Time, event: &Event) -> Result<(), String> {
        match event {
            Event::GangStopping { gang, cause: Cause::Preempted { by, why: StopFor::Consolidation }, .. } => {
                let by = by.ok_or("moved for nobody")?;
                let kept = |gang, kind| state.reservations().get(&gang).filter(|known| known.kind == kind);
                let place = kept(*gang, ReservationKind::Moved).ok_or(format!("{gang} has no new place"))?;
                is_free(state, place)?;
                let room = kept(by, ReservationKind::Victims).ok_or(format!("no room is kept for {by}"))?;
                if place.witness.iter().any(|device| room.witness.contains(device)) {
                    return Err(format!("{gang} and {by} are kept the same device"));
                }
                let moves = self.moves.entry(*gang).or_default();
                *moves += 1;
                if *moves > PER_VICTIM {
                    return Err(format!("{gang} is moved round and round"));
                }
                self.owed.iter_mut().for_each(|owed| owed.extend([(*gang, at), (by, at)]));
            }
            Event::GangPlaced { gang, .. } => self.owed.iter_mut().for_each(|owed| _ = owed.remove(gang)),
            _ => {}
        }
        Ok(())
    }
}

fn is_free(state: &State, place: &Reservation) -> Result<(), String> {
    for device in &place.witness {
        let node = state.node(device.node).filter(|node| node.is_open());
        let known = node.and_then(|node| node.devices.get(usize::from(device.slot)));
        if !known.is_some_and(DeviceState::is_free) {
            return Err(format!("the new place of {} is not free: {device:?}", place.gang));
        }
    }
    Ok(())
}

impl Hooks for Watch {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        self.exact.run_ms(state, gang)
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        outcome.events.iter().try_for_each(|event| self.see(state, entry.at, event))?;
        let release_ms = self.release_ms;
        let late = |(_, at): &(&GangId, &Time)| at.plus_ms(release_ms) < entry.at;
        if let Some((gang, at)) = self.owed.iter().flatten().find(late) {
            return Err(format!("{gang} was moved, or moved for, at {at}, and did not start when all had gone"));
        }
        self.exact.on_entry(state, entry, outcome)
    }

    fn on_cycle(&mut self, state: &State, now: Time, decided: &Cycle) {
        self.exact.compare_with_fresh(state, now, decided);
    }

    fn release_ms(&mut self, _state: &State, _gang: GangId) -> u64 {
        self.release_ms
    }
}

/// What differs between plays.
#[derive(Debug, Clone, Copy)]
struct Setting {
    racks: usize,
    /// Are run times known to the policy?
    known: bool,
    depth: u32,
    preempt: bool,
    quota: bool,
    release_s: u64,
}

fn settings() -> impl Strategy<Value = Setting> {
    (1usize..4, any::<bool>(), prop_oneof![Just(0u32), Just(1), Just(4)], any::<bool>(), any::<bool>(), 0u64..20)
        .prop_map(|(racks, known, depth, preempt, quota, release_s)| Setting {
            racks,
            known,
            depth,
            preempt,
            quota,
            release_s,
        })
}

fn wish((_, shape, a, b, run_s, level): Given, quota: bool) -> Scheduling {
    let mut wish = match shape % 6 {
        0 => exact(nodes(1 + a % 3, 4), run_s),
        1 | 2 => exact(nodes(1, 1 + b % 2), run_s),
        3 => within(exact(nodes(1 + a % 3, 4), run_s), "rack", Required, 1),
        4 => exact(total(1 + a % 8), run_s),
        _ => within(exact(nodes(1 + a % 2, 2), run_s), "rack", Required, 1),
    };
    wish.class = name(["low", "normal", "high"][usize::from(level % 3)]);
    wish.preemptible = b % 5 != 0;
    wish.checkpoint.grace_ms = 20_000;
    if quota { charged(wish, ["red", "blue"][usize::from(level / 3 % 2)]) } else { wish }
}

fn player(setting: Setting, watch: &mut Watch) -> Player {
    let rules = Consolidate {
        wait_ms: 0,
        min_run_ms: 5_000,
        gain_ms: 5_000,
        loss_max_percent: 1000,
        per_victim: PER_VICTIM,
        ..Consolidate::default()
    };
    let preempt = setting.preempt.then(Preempt::default);
    let taking = Taking { consolidate: Some(rules), preempt, restart_ms: 1_000, ..Taking::default() };
    let runtime = if setting.known { Vec::new() } else { vec![RuntimeSource::Expected, RuntimeSource::Limit] };
    let backfill = Backfill { reserve_depth: setting.depth, ..Backfill::default() };
    let mut player = Player::new(State::new("test"), World::default());
    let policy = Policy { taking, runtime, backfill, ..Policy::default() };
    let mut commit = |command| player.commit(Time(0), command, watch).unwrap();
    commit(configure(ConfigChange::Policy(policy)));
    commit(configure(ConfigChange::Fabric(fabric(&["rack"]))));
    for rack in 0..setting.racks {
        for at in 0..3 {
            commit(register(&format!("r{rack}-{at}"), inventory("H100", 4, &[&format!("r{rack}")])));
        }
    }
    if setting.quota {
        let half = 6 * setting.racks as u32;
        let accounts = ["red", "blue"].map(|text| account(text, None, (half, None, None))).into();
        let organisation = Organisation { accounts, ..Organisation::default() };
        commit(configure(ConfigChange::Organisation(Arc::new(organisation))));
    }
    player
}

fn watch(setting: Setting, strict: bool) -> Watch {
    let exact = Exact { check: true, lenient: !strict, ..Exact::default() };
    let owed = strict.then(BTreeMap::new);
    Watch { exact, release_ms: setting.release_s * 1000, owed, ..Watch::default() }
}

/// Plays to the end; returns how many moves there were.
fn settles(setting: Setting, given: &[Given]) -> Result<u32, String> {
    let mut watch = watch(setting, true);
    let mut player = player(setting, &mut watch);
    for (at, one) in given.iter().enumerate() {
        player.at(Time(one.0 * 1000), submit(&format!("job-{at}"), wish(*one, setting.quota)));
    }
    player.run(&mut watch, 100_000).map_err(|error| error.to_string())?;
    let waiting = player.state.jobs().len();
    // What may not be stopped is lent nothing.
    let has = 12 * setting.racks as u64;
    let own = |wish: &Scheduling| if setting.quota && !wish.preemptible { has / 2 } else { has };
    let never = |given: &&Given| Some(wish(**given, setting.quota)).is_some_and(|wish| wish.devices() > own(&wish));
    match watch.exact.wrong {
        Some(wrong) => Err(wrong),
        None if waiting > given.iter().filter(never).count() => Err(format!("{waiting} jobs never end")),
        None => Ok(watch.moves.values().sum()),
    }
}

/// Something that breaks, or somebody who changes their mind.
fn trouble((kind, a, b): (u8, u32, u32), nodes: &[NodeId], jobs: u64) -> Command {
    let by = Principal("test".into());
    let node = nodes[a as usize % nodes.len()];
    let reason = String::from("test");
    let admin = |action| Command::NodeAdmin { node, action, by: by.clone() };
    match kind % 7 {
        0 => admin(NodeAction::Drain { reason, deadline_ms: Some(u64::from(b % 60) * 1000) }),
        1 | 2 => admin(NodeAction::Undrain),
        3 => admin(NodeAction::Cordon { reason }),
        4 => admin(NodeAction::Uncordon),
        5 => Command::Hold { job: JobId(u64::from(b) % jobs), hold: a % 2 == 0, by },
        _ => Command::Cancel(Cancel { job: JobId(u64::from(b) % jobs), ordinal: None, reason, by }),
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn who_is_moved_goes_on_and_moves_end(
        given in proptest::collection::vec((0u64..600, any::<u8>(), 0u32..100, 0u32..100, 1u64..800, any::<u8>()), 1..50),
        setting in settings(),
    ) {
        prop_assert_eq!(settles(setting, &given).err(), None);
    }

    #[test]
    fn whatever_breaks_meanwhile_no_invariant_does(
        given in proptest::collection::vec((0u64..600, any::<u8>(), 0u32..100, 0u32..100, 1u64..800, any::<u8>()), 1..40),
        troubles in proptest::collection::vec((0u64..900, (any::<u8>(), 0u32..100, 0u32..100)), 1..20),
        setting in settings(),
    ) {
        let mut watch = watch(setting, false);
        let mut player = player(setting, &mut watch);
        let nodes: Vec<NodeId> = player.state.nodes().keys().copied().collect();
        for (at, one) in given.iter().enumerate() {
            player.at(Time(one.0 * 1000), submit(&format!("job-{at}"), wish(*one, setting.quota)));
        }
        for (at_s, what) in troubles {
            player.at(Time(at_s * 1000), trouble(what, &nodes, 20 + given.len() as u64));
        }
        let played = player.run(&mut watch, 100_000).map_err(|error| error.to_string());
        prop_assert_eq!(played.err(), None);
        prop_assert_eq!(watch.exact.wrong, None);
    }
}

#[test]
fn on_clusters_in_pieces_gangs_are_moved_at_all() {
    let mut moves = 0;
    for seed in 0..8u32 {
        let draw =
            |at: u32, most: u32| (at.wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(40_503)) >> 8) % most;
        let one = |at: u32| {
            let seen = |part: u32, most| draw(at * 8 + part, most);
            (u64::from(seen(0, 300)), seen(1, 256) as u8, seen(2, 100), seen(3, 100), 100 + u64::from(seen(4, 700)), 1)
        };
        let given: Vec<Given> = (0..60).map(one).collect();
        let setting = Setting { racks: 2, known: false, depth: 1, preempt: false, quota: false, release_s: 3 };
        moves += settles(setting, &given).unwrap();
    }
    assert!(moves > 10, "{moves} moves");
}
