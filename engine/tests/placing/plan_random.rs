//! Cycles on random clusters: a memo changes nothing, no plan is refused by the state it was made
//! from, and nothing waits that a plain model could place.

use crate::plan_support;
use crate::property;

use muster_common::job::{Count, GroupRequest};
use muster_common::resources::Share;
use muster_common::topology::TopologyMode::{Preferred, Required};
use muster_common::{GangId, JobId, NodeId, Time};
use muster_engine::command::{Cancel, Command, ConfigChange, Entry, MakeWindow, NodeAction, Principal, Which};
use muster_engine::forecast::{CycleEvery, Hooks, InstantOrder, Player, World};
use muster_engine::outcome::{Outcome, Response};
use muster_engine::plan::explain::explain;
use muster_engine::plan::feasible::part_amount;
use muster_engine::plan::never::fits_ever;
use muster_engine::policy::{
    Admission, Backfill, Domains, ElasticPool, Gittins, Las, Multifactor, Order, Policy, Preempt, Replan, Score, Taking,
};
use muster_engine::state::gang::GangState;
use muster_engine::state::node::NodeRecord;
use muster_engine::state::window::{Holders, longest_ms};
use muster_engine::{Cycle, Memo, State};
use plan_support::*;
use property::cases;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// One job: submit time, shape, two sizes, run time, class, and oddities.
type Given = (u64, u8, u32, u32, u64, u8, u8);

/// The oddity of running until somebody stops it.
const ENDLESS: u8 = 7;

struct Watch {
    exact: Exact,
    /// Compare with the plain model: only where the policy starts whatever fits.
    complete: bool,
    /// The moment of the last cycle, and how many there were at it.
    cycles_at: (Time, u32),
    /// Nodes that did not wake once.
    lost: BTreeSet<NodeId>,
}

/// Most cycles at one instant before the policy is said not to settle: far more than there are gangs.
const ROUNDS_MAX: u32 = 500;

impl Hooks for Watch {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        self.exact.run_ms(state, gang)
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        let asks = matches!(entry.command, Command::RequestNodes(_) | Command::SleepNodes { .. });
        if asks && outcome.response != Response::Done {
            return Err(format!("{:?} was answered {:?}", entry.command, outcome.response));
        }
        self.exact.on_entry(state, entry, outcome)
    }

    fn sleep_ms(&mut self, state: &State, node: NodeId) -> Option<u64> {
        (!(state.now().0 / 1000 + node.0).is_multiple_of(5)).then_some(node.0 % 3 * 1000)
    }

    /// Some do not come back the first time.
    fn wake_ms(&mut self, state: &State, node: NodeId) -> Option<u64> {
        let lost = (state.now().0 / 1000 + node.0).is_multiple_of(4) && self.lost.insert(node);
        (!lost).then_some(node.0 % 7 * 1000)
    }

    fn on_cycle(&mut self, state: &State, now: Time, decided: &Cycle) {
        let (at, rounds) = self.cycles_at;
        self.cycles_at = (now, if at == now { rounds + 1 } else { 1 });
        if rounds > ROUNDS_MAX {
            self.exact.wrong = Some(format!("more than {ROUNDS_MAX} cycles at {now}; the last decided {decided:?}"));
            return;
        }
        self.exact.compare_with_fresh(state, now, decided);
        let settled = self.complete && decided.commands.is_empty();
        let waits = if settled { waiting(state, now) } else { Vec::new() };
        if let Some(gang) = waits.into_iter().find(|gang| model_fits(state, *gang)) {
            self.exact.wrong = Some(format!("{gang} waits at {now} although it fits"));
        }
    }
}

/// Gangs that nothing but devices keeps from starting.
fn waiting(state: &State, now: Time) -> Vec<GangId> {
    let mut found = Vec::new();
    for job in state.jobs().values().filter(|job| !job.held && !job.cancelled) {
        if state.scheduling(job).begin_at_ms.is_some_and(|at| at > now.0) {
            continue;
        }
        let array = state.scheduling(job).array.clone();
        if array.and_then(|array| array.at_once).is_some_and(|most| job.gangs_active >= most) {
            continue;
        }
        found.extend(job.unstarted.first().map(|first| GangId::new(job.id, first)));
        let queued = |gang: &&GangId| matches!(state.gang(**gang).map(|gang| &gang.state), Some(GangState::Queued { not_before }) if *not_before <= now);
        found.extend(state.gangs().keys().filter(|gang| gang.job == job.id).filter(queued));
    }
    found
}

/// How many parts, or devices of a total, one node could give.
fn model_gives(state: &State, gang: GangId, group: &GroupRequest, model: Option<&str>, node: &NodeRecord) -> u32 {
    let excluded = state.gang(gang).is_some_and(|gang| gang.excluded.contains(&node.id));
    let scheduling = state.scheduling(state.job(gang.job).unwrap());
    let until = state.now().plus_ms(longest_ms(scheduling));
    let kept = state.windows().iter().any(|window| {
        let others = !window.holders.admit(state.accounts(), gang.job, &scheduling.account);
        others && window.has(&node.name) && window.meets(state.now(), until)
    });
    let labelled = group.labels.iter().all(|(key, value)| node.inventory.labels.get(key) == Some(value));
    if !node.is_open()
        || kept
        || excluded
        || !labelled
        || group.exclude.contains(&node.name)
        || node.free_port().is_none()
    {
        return 0;
    }
    let milli = group.share.0;
    let free = node.devices.iter().zip(&node.inventory.devices);
    let free = free.filter(|(state, device)| {
        state.free_milli() >= milli && model.is_none_or(|model| device.model.as_str() == model)
    });
    let free = free.count() as u32;
    let affords = |devices: u32| node.free_amount().covers(&part_amount(group, node, devices));
    match &group.count {
        Count::Nodes { per_node, .. } => u32::from(free >= *per_node && affords(*per_node)),
        Count::Total(_) => (1..=free).rev().find(|devices| affords(*devices)).unwrap_or(0),
    }
}

/// Tries every domain of every required level, one node after the other.
fn model_fits(state: &State, gang: GangId) -> bool {
    let job = state.job(gang.job).unwrap();
    let group = &state.scheduling(job).groups[0];
    let need = match &group.count {
        Count::Nodes { nodes, .. } => *nodes,
        Count::Total(total) => total.devices,
    };
    let any = [None];
    let models: Vec<Option<&str>> = group.models.iter().map(|model| Some(model.as_str())).collect();
    let models = if models.is_empty() { &any[..] } else { &models[..] };
    models.iter().any(|model| {
        let mut by_domain: BTreeMap<Vec<String>, u32> = BTreeMap::new();
        for node in state.nodes().values() {
            let required = group.topology.iter().filter(|request| request.mode == Required);
            let key: Option<Vec<String>> = required
                .map(|request| {
                    if request.level.as_str() == "node" {
                        return Some(node.id.to_string());
                    }
                    let (tree, depth) = state.fabric().find_level(request.level.as_str())?;
                    let path = node.inventory.place.get(&state.fabric().trees[tree].name)?;
                    Some(format!("{:?}", path.get(..depth)?))
                })
                .collect();
            let Some(key) = key else { continue };
            *by_domain.entry(key).or_default() += model_gives(state, gang, group, *model, node);
        }
        by_domain.values().any(|have| *have >= need)
    })
}

fn wish((_, shape, a, b, run_s, class, odd): Given) -> muster_common::job::Scheduling {
    let mut wish = match shape {
        0 => exact(nodes(1 + a % 4, 1 + b % 4), run_s),
        1 => exact(nodes(1 + a % 2, 0), run_s),
        2 => within(exact(nodes(1 + a % 3, 1 + b % 4), run_s), "leaf", Required, 1),
        3 => within(within(exact(nodes(1 + a % 4, 1 + b % 4), run_s), "pod", Required, 1), "leaf", Preferred, 1),
        4 => within(exact(total(1 + a % 8), run_s), "pod", Required, 1),
        5 => array(exact(nodes(1, 1 + b % 4), run_s), 1 + a % 6, (b % 2 == 0).then_some(1 + a % 3)),
        6 => within(exact(total(1 + a % 4), run_s), "node", Required, 1),
        _ => exact(total(1 + a % 16), run_s),
    };
    let group = &mut wish.groups[0];
    match odd {
        0 => group.models = vec![name("A100")],
        1 => group.models = vec![name("H100"), name("A100")],
        2 => _ = group.labels.insert(name("disk"), "nvme".into()),
        3 => group.exclude = vec![name("n1")],
        4 => group.cpu_milli_per_node = Some(20_000 + u64::from(b % 3) * 20_000),
        5 if shape == 0 => group.share = Share(300 + 100 * (b % 4) as u16),
        6 => wish.begin_at_ms = Some(run_s * 700),
        ENDLESS => wish.limits.exact_ms = None,
        8 => wish.limits.wait_ms = Some(run_s * 300),
        _ => {}
    }
    wish.class = name(["low", "normal", "high"][usize::from(class % 3)]);
    wish.account = name(["x", "y", "z"][usize::from(odd % 3)]);
    wish
}

fn build(policy: Policy, world: World, watch: &mut Watch) -> Player {
    let mut player = Player::new(State::new("test"), world);
    let mut commit = |command| player.commit(Time(0), command, watch).unwrap();
    commit(configure(ConfigChange::Policy(policy)));
    commit(configure(ConfigChange::Fabric(fabric(&["pod", "leaf"]))));
    for (at, (pod, leaf, model, devices)) in [
        ("p0", "a", "H100", 4),
        ("p0", "a", "H100", 4),
        ("p0", "b", "A100", 4),
        ("p1", "a", "H100", 2),
        ("p1", "c", "A100", 4),
        ("p1", "c", "H100", 0),
    ]
    .into_iter()
    .enumerate()
    {
        let mut machine = inventory(model, devices, &[pod, leaf]);
        if at % 2 == 0 {
            machine.labels.insert(name("disk"), "nvme".into());
        }
        if at == 3 {
            machine.port_count = 1;
        }
        commit(register(&format!("n{at}"), machine));
    }
    player
}

/// What operators and users do meanwhile. Ids of jobs and nodes are log indices, hence guesses.
fn disturb(player: &mut Player, disturbances: &[(u64, u8, u64)]) {
    let by = || Principal("op".into());
    let nodes: Vec<NodeId> = player.state.nodes().keys().copied().collect();
    for &(at_s, kind, which) in disturbances {
        let node = nodes[which as usize % nodes.len()];
        let job = JobId(10 + which);
        let command = match kind {
            0 => Command::NodeAdmin { node, action: NodeAction::Cordon { reason: "test".into() }, by: by() },
            1 => Command::NodeAdmin { node, action: NodeAction::Uncordon, by: by() },
            2 => Command::NodeAdmin {
                node,
                action: NodeAction::Drain { reason: "test".into(), deadline_ms: Some(5000) },
                by: by(),
            },
            3 => Command::Hold { job, hold: which % 3 != 0, by: by() },
            4 => Command::NodeSilent { node, epoch: node.0, term: 1 },
            5 => Command::NodeSeen { node, epoch: node.0 },
            6 => {
                // Of no class that was there before.
                let mut machine = inventory("H100", 4, &["p0", "a"]);
                machine.labels.insert(name("bought"), format!("at-{at_s}"));
                register(&format!("later-{at_s}-{which}"), machine)
            }
            7 => device_lost(node, at_s + 1),
            8 => device_mended(node),
            9 | 10 => window(at_s, kind == 9, which),
            11 => Command::EndWindow { name: name(&format!("w{}", which % 3)), by: by() },
            _ => Command::Cancel(Cancel { job, ordinal: None, reason: "test".into(), by: by() }),
        };
        player.at(Time(at_s * 1000), command);
    }
}

/// Of some nodes, for nobody or for an account, now or later.
fn window(at_s: u64, for_account: bool, which: u64) -> Command {
    let start = Time((at_s + which % 4 * 7) * 1000);
    Command::MakeWindow(Box::new(MakeWindow {
        name: name(&format!("w{}", which % 3)),
        start,
        end: start.plus_ms(1 + which % 5 * 9000),
        nodes: match which % 7 {
            0 => Which::All,
            1 => Which::Domain(vec![name("p1")]),
            2 => Which::Some { nodes: 2, model: Some(name("H100")), level: Some(name("pod")) },
            _ => Which::Nodes((0..1 + which % 3).map(|at| name(&format!("n{}", (which + at) % 6))).collect()),
        },
        holders: if for_account { Holders::Account(name("x")) } else { Holders::Nobody },
        reason: "test".into(),
        by: Principal("op".into()),
        managed: false,
    }))
}

fn policies() -> impl Strategy<Value = (Policy, bool)> {
    let orders = prop_oneof![
        Just(Order::Fifo),
        Just(Order::Default),
        Just(Order::Sjf),
        Just(Order::Srtf),
        Just(Order::F1),
        Just(Order::Formula("-wait * devices".into())),
        Just(Order::Fair),
        (any::<bool>(), 1u64..60).prop_map(|(favor_small, age_s)| Order::Multifactor(Multifactor {
            class: 10,
            age: 50,
            fair: 20,
            size: 5,
            account: 0,
            max_age_ms: age_s * 1000,
            full_size: 8,
            favor_small,
        })),
        (proptest::option::of(1u32..4))
            .prop_map(|promote_after| Order::Las(Las { limits: vec![20, 60], promote_after })),
        Just(Order::Gittins(Gittins { quantum: 10, services: vec![10, 20, 80, 300] })),
        Just(Order::Wfp3),
    ];
    let domains = prop_oneof![Just(Domains::LowestFit), Just(Domains::Anywhere), Just(Domains::NodeThenLevel)];
    let booking = (prop_oneof![0u32..2, 2u32..6], any::<bool>());
    let elastic = proptest::option::of((1u64..30, 0u64..20, 0u32..3, 1u32..4));
    (orders, domains, 0u8..4, any::<bool>(), booking, any::<bool>(), elastic).prop_map(
        |(order, domains, kind, sticky, (depth, rematch), spread, elastic)| {
            let mut policy = Policy {
                order,
                domains,
                backfill: Backfill { reserve_depth: depth, rematch, ..Backfill::default() },
                ..Policy::default()
            };
            policy.score = if spread { Score::Spread } else { Score::BestFit };
            match kind {
                0 => policy.admission = Admission::HeadOfLine { sticky },
                1 => policy.replan = Replan::Refill { min_run_ms: u64::from(sticky) * 3000, max_victims_per_cycle: 3 },
                2 => {
                    let preempt = Preempt { settle_ms: 20_000, min_run_ms: 2000, ..Preempt::default() };
                    policy.taking = Taking { preempt: Some(preempt), ..Taking::default() };
                }
                _ => {}
            }
            let elastic = elastic.filter(|_| policy.replan == Replan::Keep);
            policy.elastic = elastic.map(|numbers| (name("all"), pool(numbers))).into_iter().collect();
            let complete = policy.elastic.is_empty() && kind > 2 && depth == 0 && domains != Domains::NodeThenLevel;
            // What a wounded gang keeps, nobody else gets.
            policy.taking.wounded_ms = if complete { 0 } else { 20_000 };
            (policy, complete)
        },
    )
}

fn pool((idle_s, wake_after_s, keep_awake, nodes_at_once): (u64, u64, u32, u32)) -> ElasticPool {
    ElasticPool {
        idle_ms: idle_s * 1000,
        wake_after_ms: wake_after_s * 1000,
        wake_ms: 3000,
        wake_timeout_ms: 10_000,
        retry_ms: 4000,
        keep_awake,
        nodes_at_once,
        ..ElasticPool::default()
    }
}

fn play(
    policy: Policy,
    complete: bool,
    world: World,
    given: &[Given],
    disturbances: &[(u64, u8, u64)],
) -> Result<(), String> {
    let exact = Exact { check: true, lenient: true, ..Exact::default() };
    let mut watch = Watch { exact, complete, cycles_at: (Time::ZERO, 0), lost: BTreeSet::new() };
    // Work without an end takes turns for ever under such an order.
    let takes_turns = matches!(policy.order, Order::Las(Las { promote_after: Some(_), .. }))
        && matches!(policy.replan, Replan::Refill { .. });
    let mut player = build(policy, world, &mut watch);
    disturb(&mut player, disturbances);
    for (at, mut given) in given.iter().copied().enumerate() {
        if takes_turns && given.6 == ENDLESS {
            given.6 = 15;
        }
        player.at(Time(given.0 * 1000), submit(&format!("job-{at}"), wish(given)));
    }
    player.run(&mut watch, 50_000).map_err(|error| error.to_string())?;
    if let Some(wrong) = watch.exact.wrong {
        return Err(wrong);
    }
    // What is left is held, can never run, waits for closed nodes or behind what never ends.
    let closed = player.state.nodes().values().any(|node| !node.is_in_service());
    let endless = player.state.gangs().values().any(|gang| gang.current().is_some());
    let mut waits = player.state.jobs().values().filter(|job| !job.held);
    match waits.find(|job| fits_ever(&player.state, player.state.scheduling(job)).is_ok()) {
        Some(job) if !closed && !endless => {
            let nodes: Vec<_> = player.state.nodes().values().map(|node| (node.name.to_string(), node.power)).collect();
            let known = player.state.reservations();
            let why = explain(&player.state, &mut Memo::default(), GangId::new(job.id, 0), player.state.now());
            Err(format!("{job:?} is forgotten at {}; {nodes:?}, {known:?}, {why:?}", player.state.now()))
        }
        _ => Ok(()),
    }
}

#[test]
fn what_is_submitted_at_the_beginning_of_time_grows_old_too() {
    let factors =
        Multifactor { class: 10, age: 50, fair: 20, size: 5, max_age_ms: 3000, full_size: 8, ..Multifactor::default() };
    let policy = Policy {
        order: Order::Multifactor(factors),
        admission: Admission::HeadOfLine { sticky: false },
        backfill: Backfill { reserve_depth: 0, ..Backfill::default() },
        ..Policy::default()
    };
    let world = World { at_one_instant: InstantOrder::EndsFirst, cycle_every: CycleEvery::Event, kept_work: true };
    let given = [(0, 6, 0, 0, 1, 0, 7), (0, 0, 42, 8, 1, 0, 1), (1, 0, 0, 0, 1, 1, 0)];
    play(policy, false, world, &given, &[]).unwrap();
}

#[test]
fn a_device_kept_for_a_share_is_kept_whole() {
    let preempt = Preempt { settle_ms: 20_000, min_run_ms: 2000, ..Preempt::default() };
    let policy = Policy {
        order: Order::Gittins(Gittins { quantum: 10, services: vec![10, 20, 80, 300] }),
        taking: Taking { preempt: Some(preempt), ..Taking::default() },
        ..Policy::default()
    };
    let world = World { at_one_instant: InstantOrder::ArrivalsFirst, cycle_every: CycleEvery::Event, kept_work: true };
    let given = [
        (33, 0, 6, 0, 1, 1, 5),
        (11, 0, 37, 17, 21, 0, 5),
        (20, 2, 9, 2, 28, 0, 0),
        (33, 5, 1, 19, 3, 0, 9),
        (32, 4, 20, 0, 22, 1, 4),
    ];
    play(policy, false, world, &given, &[(0, 2, 3), (0, 2, 0)]).unwrap();
}

#[test]
fn at_one_instant_nothing_that_is_placed_changes_the_ranks() {
    let factors =
        Multifactor { class: 10, age: 50, fair: 20, size: 5, max_age_ms: 1000, full_size: 8, ..Multifactor::default() };
    let mut policy = Policy {
        order: Order::Multifactor(factors),
        backfill: Backfill { reserve_depth: 0, ..Backfill::default() },
        replan: Replan::Refill { min_run_ms: 0, max_victims_per_cycle: 3 },
        ..Policy::default()
    };
    policy.taking.wounded_ms = 20_000;
    let world = World { at_one_instant: InstantOrder::EndsFirst, cycle_every: CycleEvery::Instant, kept_work: true };
    let given = [
        (13, 0, 37, 94, 20, 0, 3),
        (15, 6, 11, 0, 13, 0, 3),
        (12, 6, 69, 0, 16, 1, 3),
        (0, 6, 20, 0, 8, 0, 6),
        (0, 1, 11, 0, 1, 1, 7),
        (12, 6, 38, 0, 22, 0, 1),
        (41, 5, 0, 57, 3, 0, 10),
        (41, 6, 74, 0, 1, 0, 10),
        (39, 4, 90, 0, 1, 0, 7),
        (29, 5, 43, 21, 3, 0, 2),
        (28, 6, 13, 0, 22, 0, 5),
        (23, 7, 84, 0, 11, 0, 15),
        (29, 5, 57, 44, 9, 0, 11),
    ];
    play(policy, false, world, &given, &[(0, 2, 44), (35, 0, 45), (30, 0, 4)]).unwrap();
}

proptest! {
    #![proptest_config(cases(500))]
    #[test]
    fn cycles_are_pure_sound_and_complete(
        (policy, complete) in policies(),
        given in proptest::collection::vec((0u64..60, 0u8..8, 0u32..100, 0u32..100, 1u64..40, 0u8..3, 0u8..16), 1..30),
        disturbances in proptest::collection::vec((0u64..80, 0u8..13, 0u64..60), 0..12),
        arrivals_first in any::<bool>(),
        every_event in any::<bool>(),
    ) {
        let world = World {
            at_one_instant: if arrivals_first { InstantOrder::ArrivalsFirst } else { InstantOrder::EndsFirst },
            cycle_every: if every_event { CycleEvery::Event } else { CycleEvery::Instant },
            kept_work: true,
        };
        let played = play(policy, complete, world, &given, &disturbances);
        prop_assert!(played.is_ok(), "{}", played.unwrap_err());
    }
}
