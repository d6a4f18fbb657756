//! The guarantee of cells under any sequence of submits, ends, lends, reclaims and faults of nodes.

use crate::plan_support;
use crate::property;
use crate::taking_support::account;

use muster_common::job::Scheduling;
use muster_common::topology::TopologyMode::Required;
use muster_common::{GangId, NodeId, Time};
use muster_engine::command::{Command, ConfigChange, Entry, NodeAction, Principal};
use muster_engine::forecast::{Hooks, Player, World};
use muster_engine::organisation::{Account, CellQuota, Organisation};
use muster_engine::outcome::{Outcome, Response};
use muster_engine::plan::owed::{CellsOf, Owed, cells_of, entitled};
use muster_engine::policy::{Policy, Reclaim, Score, Taking};
use muster_engine::state::gang::GangState;
use muster_engine::{Cycle, State};
use plan_support::*;
use property::cases;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const WITHIN_MS: u64 = 120_000;
const GRACE_MS: u64 = 30_000;
/// Nodes of the widest cells that are owned.
const WIDEST: u32 = 3;
/// Owners and everybody else.
const OWNERS: [&str; 2] = ["vision", "nlp"];

#[derive(Default)]
struct Watch {
    exact: Exact,
    lost: u32,
    closed: BTreeSet<NodeId>,
    /// A node has been closed or opened: what was begun before may have gone on elsewhere.
    faults: bool,
    /// Waiting gangs within their shape, and since when.
    since: BTreeMap<GangId, Time>,
}

impl Watch {
    fn running(state: &State) -> Vec<(GangId, Scheduling)> {
        let holds = |gang: &GangId| {
            let runs = state.gang(*gang).is_some_and(|record| record.current().is_some());
            runs || state.reservations().get(gang).is_some_and(|known| known.kind.keeps_devices())
        };
        let jobs = state.jobs().values().filter(|job| holds(&GangId::new(job.id, 0)));
        jobs.map(|job| (GangId::new(job.id, 0), (**state.scheduling(job)).clone())).collect()
    }

    /// Gangs of owners that wait, are within their shape, and have a cell that is obtainable for it.
    fn within(state: &State, now: Time) -> Vec<GangId> {
        let (owed, cells) = (Owed::of(state), cells_of(state));
        let running = Self::running(state);
        let mut found = Vec::new();
        for job in state.jobs().values() {
            let gang = GangId::new(job.id, 0);
            let waits = match state.gang(gang) {
                None => true,
                Some(record) => matches!(record.state, GangState::Queued { not_before } if not_before <= now),
            };
            let scheduling = state.scheduling(job);
            if !waits || !OWNERS.contains(&scheduling.account.as_str()) {
                continue;
            }
            let others = running.iter().filter(|(other, _)| *other != gang).map(|(gang, own)| (*gang, own));
            let document = state.accounts().document();
            let is_entitled = !entitled(&owed, document, state.fabric(), scheduling, others).is_empty();
            let is_within = is_entitled && is_within_number(state, &running, scheduling);
            if is_within && has_obtainable(&cells, scheduling) {
                found.push(gang);
            }
        }
        found
    }

    fn check_promise(&mut self, state: &State, now: Time) {
        let within = Self::within(state, now);
        self.since.retain(|gang, _| within.contains(gang));
        for gang in within {
            let since = *self.since.entry(gang).or_insert(now);
            if now.since_ms(since) > WITHIN_MS && !self.faults {
                let cells = cells_of(state);
                self.exact.wrong =
                    Some(format!("{gang} is within its shape since {since} and waits at {now}: {cells:?}"));
            }
        }
    }
}

/// Does its account own as many devices more? What it borrows it has to give back first.
fn is_within_number(state: &State, running: &[(GangId, Scheduling)], scheduling: &Scheduling) -> bool {
    let leaves = |gang: GangId| {
        let record = state.gang(gang);
        record.is_some_and(|record| matches!(record.state, GangState::Stopping(..)))
    };
    let own = running.iter().filter(|(gang, own)| own.account == scheduling.account && !leaves(*gang));
    let mut accounts = state.accounts().document().accounts.iter();
    let owner = accounts.find(|account| account.name == scheduling.account);
    let nominal = owner.map_or(0, |account| u64::from(account.quota[&name("H100")].nominal));
    own.map(|(_, own)| own.devices()).sum::<u64>() + scheduling.devices() <= nominal
}

/// Does its account have a cell for it that its own work has not cut up? As `muster queue ls` tells it.
fn has_obtainable(cells: &[CellsOf], scheduling: &Scheduling) -> bool {
    let needs_rack = !scheduling.groups[0].topology.is_empty();
    let mut own = cells.iter().filter(|of| of.account == scheduling.account && of.obtainable > 0);
    own.any(|of| !needs_rack || of.cells.level.as_str() == "rack")
}

impl Hooks for Watch {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        self.exact.run_ms(state, gang)
    }

    fn on_entry(&mut self, state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        let cells = cells_of(state);
        let fault = matches!(entry.command, Command::NodeAdmin { .. });
        self.faults |= fault;
        if let Command::NodeAdmin { node, .. } = entry.command {
            self.closed.insert(node);
        }
        // A node that is closed costs the widest cell that it can be in at most, sometimes only when the work that was
        // in it has ended. Wider cells come first: what ends elsewhere may make the wide one whole again out of narrow
        // ones, so nodes are counted, not cells.
        let missing: u32 = cells.iter().map(|of| of.lost * of.cells.nodes).sum();
        if missing > WIDEST * self.closed.len() as u32 && state.accounts().version() > 0 {
            return Err(format!("{missing} nodes are missing after {:?}: {cells:?}", entry.command));
        }
        self.lost = cells.iter().map(|of| of.lost).sum();
        self.exact.on_entry(state, entry, outcome)
    }

    fn on_cycle(&mut self, state: &State, now: Time, decided: &Cycle) {
        self.check_promise(state, now);
        self.exact.compare_with_fresh(state, now, decided);
    }

    fn release_ms(&mut self, _state: &State, gang: GangId) -> u64 {
        if gang.job.0.is_multiple_of(2) { GRACE_MS } else { 0 }
    }
}

/// Owns so many GPUs, some of them as cells of nodes of four, and has them back in time.
pub fn owner(text: &str, nominal: u32, cells: &[(&str, u32, u32)]) -> Account {
    let cell = |(level, nodes, number): &(&str, u32, u32)| CellQuota {
        model: name("H100"),
        level: name(level),
        nodes: *nodes,
        gpus: 4,
        number: *number,
    };
    Account {
        cells: cells.iter().map(cell).collect(),
        reclaim_within_ms: (!cells.is_empty()).then_some(WITHIN_MS),
        ..account(text, None, (nominal, None, None))
    }
}

/// Whoever owns cells asks for just such: of its own fragments an owner makes what it likes.
fn wish((who, shape, a, run_s): (u8, u8, u32, u64)) -> Scheduling {
    let owner = OWNERS.get(usize::from(who % 5));
    let mut job = match (owner, shape % 6) {
        (Some(_), 0 | 1) => within(exact(nodes(3, 4), run_s), "rack", Required, 1),
        (Some(_), _) => exact(nodes(1, 4), run_s),
        (None, 0) => exact(nodes(1 + a % 4, 4), run_s),
        (None, 1) => within(exact(nodes(1 + a % 3, 2), run_s), "rack", Required, 1),
        (None, 2) => exact(total(1 + a % 14), run_s),
        (None, _) => exact(nodes(1, 1 + a % 2), run_s),
    };
    job.account = name(owner.unwrap_or(&"rest"));
    job.preemptible = !(shape / 6).is_multiple_of(3);
    if (shape / 18).is_multiple_of(5) {
        job.checkpoint.grace_ms = 600_000;
    }
    job
}

fn cluster(watch: &mut Watch, spread: bool, min_run_ms: u64) -> (Player, Vec<NodeId>) {
    let score = if spread { Score::Spread } else { Score::BestFit };
    let reclaim = Reclaim { min_run_ms, ..Reclaim::default() };
    let policy = Policy { score, taking: Taking { reclaim, ..Taking::default() }, ..Policy::default() };
    let mut player = Player::new(State::new("test"), World::default());
    let zero = Time(0);
    player.commit(zero, configure(ConfigChange::Policy(policy)), watch).unwrap();
    player.commit(zero, configure(ConfigChange::Fabric(fabric(&["rack"]))), watch).unwrap();
    let mut all = Vec::new();
    for at in 0..12 {
        let machine = inventory("H100", 4, &[&format!("r{}", at / 3)]);
        match player.commit(zero, register(&format!("n{at:02}"), machine), watch).unwrap().response {
            Response::Registered { node, .. } => all.push(node),
            other => panic!("{other:?}"),
        }
    }
    let accounts = vec![
        owner("vision", 20, &[("rack", WIDEST, 1), ("node", 1, 2)]),
        owner("nlp", 16, &[("rack", WIDEST, 1), ("node", 1, 1)]),
        owner("rest", 12, &[]),
    ];
    let document = Arc::new(Organisation { accounts, ..Organisation::default() });
    let outcome = player.commit(zero, configure(ConfigChange::Organisation(document)), watch).unwrap();
    assert_eq!(outcome.response, Response::Done);
    (player, all)
}

type Given = (u64, u8, u8, u32, u64);
/// When, which node, and whether it is closed or opened.
type Fault = (u64, usize, bool);

fn play(given: &[Given], faults: &[Fault], spread: bool, min_run_ms: u64) -> Result<Watch, String> {
    let mut watch = Watch { exact: Exact { check: true, lenient: true, ..Exact::default() }, ..Watch::default() };
    let (mut player, all) = cluster(&mut watch, spread, min_run_ms);
    for (at, (at_s, who, shape, a, run_s)) in given.iter().enumerate() {
        player.at(Time(at_s * 1000), submit(&format!("job-{at}"), wish((*who, *shape, *a, *run_s))));
    }
    for (at_s, node, close) in faults {
        let action = match close {
            true => NodeAction::Cordon { reason: "broken".into() },
            false => NodeAction::Uncordon,
        };
        let command = Command::NodeAdmin { node: all[*node], action, by: Principal("test".into()) };
        player.at(Time(at_s * 1000), command);
    }
    player.run(&mut watch, 100_000).map_err(|error| error.to_string())?;
    let end = player.state.now().plus_ms(2 * WITHIN_MS);
    player.commit(end, Command::Nothing, &mut watch).map_err(|error| error.to_string())?;
    player.decide(end, &mut watch).map_err(|error| error.to_string())?;
    watch.check_promise(&player.state, end);
    match watch.exact.wrong.take() {
        Some(wrong) => Err(wrong),
        None => Ok(watch),
    }
}

#[test]
fn small_jobs_that_begin_a_wider_cell_do_not_keep_out_what_is_within_its_shape() {
    let given = [
        (2, 75, 14, 0, 359),
        (712, 2, 182, 0, 280),
        (0, 0, 0, 0, 1),
        (0, 0, 0, 0, 1),
        (0, 0, 138, 0, 713),
        (135, 115, 2, 0, 749),
        (712, 145, 236, 0, 1),
        (834, 0, 0, 0, 1),
        (2, 22, 37, 10, 832),
        (361, 75, 146, 0, 473),
    ];
    assert_eq!(play(&given, &[], true, 0).map(|watch| watch.lost), Ok(0));
}

/// Of three small jobs two end, and the third is in the wide cell, though a small one is free for it now.
#[test]
fn a_wide_cell_is_in_use_until_the_small_job_in_it_ends_and_nothing_is_lost() {
    let given = [
        (0, 0, 0, 0, 1),
        (179, 0, 0, 0, 1),
        (0, 0, 0, 0, 1),
        (114, 0, 2, 0, 800),
        (315, 0, 20, 0, 1),
        (558, 0, 2, 0, 356),
        (623, 42, 237, 0, 640),
        (712, 95, 6, 0, 1),
        (638, 32, 78, 21, 276),
        (624, 75, 194, 32, 557),
        (913, 124, 239, 92, 832),
    ];
    assert_eq!(play(&given, &[], true, 60_000).map(|watch| watch.lost), Ok(0));
}

/// There are exactly the nodes that are owed; the last small cell has work in it that its owner may stop.
#[test]
fn a_job_that_stays_has_the_small_cell_that_its_owners_other_work_could_leave() {
    let given = [
        (0, 12, 48, 19, 122),
        (0, 200, 164, 0, 724),
        (392, 71, 56, 0, 1),
        (0, 2, 75, 0, 513),
        (1, 62, 37, 25, 512),
        (1, 55, 38, 0, 512),
        (122, 91, 65, 93, 767),
    ];
    assert_eq!(play(&given, &[], true, 60_000).map(|watch| watch.lost), Ok(0));
}

/// Others' work that stays is given a node of an owner's slow work: as if it were taken of what is free.
#[test]
fn a_node_that_changes_hands_is_no_cell_any_more() {
    let given = [
        (183, 0, 0, 0, 1),
        (183, 2, 54, 44, 1),
        (0, 25, 96, 0, 244),
        (0, 12, 187, 2, 274),
        (244, 0, 0, 0, 1),
        (0, 5, 30, 0, 184),
        (0, 155, 0, 0, 1),
        (0, 0, 0, 0, 1),
        (0, 190, 0, 0, 1),
    ];
    assert_eq!(play(&given, &[], false, 0).map(|watch| watch.lost), Ok(0));
}

/// With a node broken there is one rack too few, and both owners' work may be stopped: that of one of them only.
#[test]
fn owners_do_not_stop_each_other_in_turn_for_what_hardware_took() {
    let given = [
        (497, 166, 240, 5, 810),
        (558, 35, 175, 49, 614),
        (23, 252, 156, 57, 218),
        (47, 143, 237, 34, 686),
        (208, 132, 15, 65, 513),
        (187, 247, 83, 55, 606),
        (581, 66, 239, 28, 599),
    ];
    let faults = [(1885, 2, false), (1561, 5, true), (646, 11, false), (328, 10, true)];
    assert_eq!(play(&given, &faults, false, 0).map(|_| ()), Ok(()));
}

/// What the account borrows for work that may be stopped counts: nothing is promised beyond its number.
#[test]
fn a_small_job_beyond_its_accounts_number_has_to_wait() {
    let given = [
        (17, 231, 2, 0, 410),
        (0, 77, 0, 84, 217),
        (101, 71, 56, 0, 668),
        (262, 196, 132, 0, 480),
        (238, 107, 57, 0, 115),
        (364, 75, 2, 0, 33),
        (156, 2, 26, 14, 265),
        (555, 86, 92, 0, 1),
        (17, 10, 6, 0, 1),
        (101, 12, 159, 0, 1),
        (1, 196, 158, 0, 741),
        (217, 0, 44, 0, 1),
        (262, 1, 0, 0, 1),
        (218, 27, 78, 12, 458),
        (509, 1, 0, 0, 1),
        (0, 2, 13, 2, 459),
        (427, 0, 26, 0, 249),
    ];
    assert_eq!(play(&given, &[], false, 0).map(|watch| watch.lost), Ok(0));
}

/// A rack is lost while small jobs are in the only other one. Nobody has its other nodes meanwhile.
#[test]
fn what_is_left_of_a_broken_rack_is_owed_still() {
    let given = [
        (173, 0, 2, 0, 235),
        (0, 7, 181, 0, 448),
        (57, 87, 18, 92, 40),
        (0, 67, 75, 0, 448),
        (57, 215, 8, 0, 351),
        (281, 71, 74, 0, 127),
        (0, 37, 91, 9, 409),
    ];
    let faults = [(368, 6, true)];
    assert_eq!(play(&given, &faults, true, 0).map(|_| ()), Ok(()));
}

/// A rack is kept for a gang that finds another one free: it has one of them, not two.
#[test]
fn who_starts_elsewhere_than_on_what_is_kept_counts_once() {
    let given = [
        (58, 40, 14, 0, 251),
        (377, 7, 97, 28, 550),
        (896, 35, 126, 0, 1),
        (179, 0, 2, 0, 492),
        (249, 37, 87, 0, 128),
        (0, 2, 1, 0, 179),
        (378, 190, 0, 0, 102),
        (420, 11, 246, 0, 417),
        (420, 86, 146, 0, 1),
        (86, 131, 2, 0, 841),
        (309, 2, 9, 0, 304),
        (507, 2, 73, 3, 420),
        (49, 2, 68, 18, 140),
        (287, 46, 42, 0, 610),
    ];
    assert_eq!(play(&given, &[], false, 0).map(|watch| watch.lost), Ok(0));
}

/// Two of another owner's small jobs have begun its rack: where they could lie better keeps nobody from what is its own.
#[test]
fn where_others_small_jobs_lie_keeps_no_owner_waiting() {
    let given = [
        (899, 5, 74, 0, 1),
        (0, 0, 0, 0, 1),
        (697, 0, 42, 0, 1),
        (154, 2, 18, 34, 474),
        (481, 71, 92, 0, 340),
        (153, 87, 0, 12, 393),
        (381, 5, 146, 0, 470),
        (697, 156, 92, 0, 170),
        (481, 0, 24, 0, 1),
        (82, 136, 18, 0, 768),
        (481, 196, 38, 0, 30),
        (400, 136, 98, 0, 451),
    ];
    assert_eq!(play(&given, &[], false, 0).map(|watch| watch.lost), Ok(0));
}

/// A rack is kept for a gang that starts on another one before all have left it: what else is placed meanwhile leaves
/// everybody's cells without it too.
#[test]
fn what_is_kept_and_not_free_yet_lets_nobody_else_have_a_cell() {
    let given = [
        (0, 162, 90, 93, 336),
        (100, 235, 50, 0, 75),
        (48, 0, 8, 0, 36),
        (56, 115, 146, 0, 252),
        (36, 77, 66, 89, 272),
        (114, 32, 99, 0, 194),
        (279, 110, 72, 0, 1),
        (114, 12, 98, 42, 195),
    ];
    assert_eq!(play(&given, &[], false, 0).map(|watch| watch.lost), Ok(0));
}

/// An owner's job is to be stopped for its number, leaves slowly, and keeps another of the same account over quota meanwhile.
#[test]
fn who_waits_for_its_own_account_s_work_to_leave_has_nobody_stopped_in_turn() {
    let given = [
        (294, 126, 54, 0, 1),
        (12, 0, 26, 0, 158),
        (196, 57, 225, 0, 137),
        (294, 6, 78, 0, 1),
        (343, 115, 56, 0, 186),
        (428, 236, 2, 0, 101),
        (2, 12, 92, 81, 342),
        (399, 200, 26, 0, 1),
        (60, 12, 114, 45, 310),
        (24, 246, 165, 78, 404),
        (170, 180, 129, 21, 732),
        (412, 233, 219, 29, 145),
        (293, 206, 8, 50, 120),
        (369, 185, 204, 72, 868),
        (195, 49, 114, 23, 851),
        (345, 183, 224, 22, 320),
    ];
    assert_eq!(play(&given, &[], true, 0).map(|watch| watch.lost), Ok(0));
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn hived_invariant_holds_under_any_sequence_and_who_is_within_its_shape_starts_in_time(
        given in prop::collection::vec((0u64..1500, any::<u8>(), any::<u8>(), 0u32..100, 1u64..900), 1..60),
        spread in any::<bool>(),
        min_run_ms in prop_oneof![Just(0u64), Just(60_000)],
    ) {
        let watch = play(&given, &[], spread, min_run_ms).map_err(TestCaseError::fail)?;
        prop_assert_eq!(watch.lost, 0);
    }

    #[test]
    fn faults_cost_cells_and_nothing_else_does(
        given in prop::collection::vec((0u64..1500, any::<u8>(), any::<u8>(), 0u32..100, 1u64..900), 1..50),
        faults in prop::collection::vec((0u64..2000, any::<prop::sample::Index>(), any::<bool>()), 1..8),
        spread in any::<bool>(),
    ) {
        let faults: Vec<Fault> = faults.into_iter().map(|(at_s, node, close)| (at_s, node.index(12), close)).collect();
        play(&given, &faults, spread, 0).map_err(TestCaseError::fail)?;
    }
}
