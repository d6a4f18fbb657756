//! What is at its bounds: a cluster without nodes, arrays of a million elements, limits of ten years, clocks that are
//! wrong by as much. Nothing panics, no invariant breaks, and whatever is asked of such a State has an answer.

use crate::property;
use crate::support;

use muster_common::job::{ArraySpec, Count, DeviceTotal, RanksPerNode, Scheduling};
use muster_common::time::{DAY_MS, HOUR_MS};
use muster_common::{GangId, Time};
use muster_engine::command::Command;
use muster_engine::forecast::forecast_within;
use muster_engine::plan::explain::explain;
use muster_engine::remedy::remedies_within;
use muster_engine::{Memo, cycle, desired};
use property::cases;
use proptest::prelude::*;
use support::steps::{Op, step};
use support::*;

/// The longest time limit of a job file.
const LIMIT_MS_MAX: u64 = 3660 * DAY_MS;
/// A million elements are to be counted, never played.
const ENTRIES_MAX: u64 = 200;
const WORK_MAX: u64 = 4000;
/// Gangs of one State that are asked about.
const ASKED_MAX: usize = 2;

#[derive(Debug, Clone)]
enum Deed {
    Submit(Box<Scheduling>),
    /// Hours, and whether what is due is seen to.
    Clock(i64, bool),
    Decide,
    Other(Op),
}

fn long_ms() -> impl Strategy<Value = Option<u64>> {
    proptest::option::of(prop_oneof![Just(1), Just(30_000), Just(LIMIT_MS_MAX - 1), Just(LIMIT_MS_MAX)])
}

fn count() -> impl Strategy<Value = Count> {
    let total = |devices| Count::Total(DeviceTotal { devices, per_node_min: 1, per_node_max: 0, step: 1 });
    let nodes = (1..=4u32, 0..=3u32).prop_map(|(nodes, per_node)| Count::Nodes { nodes, per_node });
    prop_oneof![4 => nodes, 1 => prop_oneof![1..=7u32, Just(32_768)].prop_map(total)]
}

fn array() -> impl Strategy<Value = Option<ArraySpec>> {
    let elements = prop_oneof![1..=7u32, Just(ArraySpec::COUNT_MAX)];
    let most = || proptest::option::of(prop_oneof![1..=3u32, Just(u32::MAX)]);
    let spec = |(count, at_once, stop_after_failures)| Some(ArraySpec { count, at_once, stop_after_failures });
    prop_oneof![Just(None), (elements, most(), most()).prop_map(spec)]
}

prop_compose! {
    fn wish()(
        count in count(),
        array in array(),
        (time_ms, wait_ms, expected_ms) in (long_ms(), long_ms(), long_ms()),
        (begin_at_ms, deadline_at_ms) in (long_ms(), long_ms()),
        // Few at a time, or most of a case would be the same gang again and again.
        cpu_milli in 16_000..=64_000u64,
    ) -> Box<Scheduling> {
        let mut wish = scheduling(1, 1);
        (wish.groups[0].count, wish.groups[0].cpu_milli_per_node) = (count, Some(cpu_milli));
        wish.groups[0].ranks = RanksPerNode::Fixed(1);
        (wish.limits.time_ms, wish.limits.wait_ms, wish.limits.expected_ms) = (time_ms, wait_ms, expected_ms);
        (wish.array, wish.begin_at_ms, wish.deadline_at_ms) = (array, begin_at_ms, deadline_at_ms);
        Box::new(wish)
    }
}

fn deed() -> impl Strategy<Value = Deed> {
    let years = |years: i64| Just(years * 366 * 24);
    let hours = prop_oneof![Just(1), years(1), years(10), years(300), years(-1), years(-10)];
    prop_oneof![
        4 => wish().prop_map(Deed::Submit),
        2 => (hours, any::<bool>()).prop_map(|(hours, expires)| Deed::Clock(hours, expires)),
        3 => Just(Deed::Decide),
        4 => any::<Op>().prop_map(Deed::Other),
    ]
}

fn submit_now(cluster: &mut Cluster, mut wish: Scheduling) {
    let now = cluster.state.now();
    for moment in [&mut wish.begin_at_ms, &mut wish.deadline_at_ms] {
        *moment = moment.map(|ms| now.plus_ms(ms).0);
    }
    let key = format!("key-{}", cluster.state.applied_index());
    cluster.apply(Command::Submit(Box::new(submit(&key, wish))));
}

fn set_clock(cluster: &mut Cluster, hours: i64, expires: bool) {
    let ms = hours.unsigned_abs() * HOUR_MS;
    let now = cluster.state.now();
    let to = if hours < 0 { Time(now.0.saturating_sub(ms)) } else { now.plus_ms(ms) };
    cluster.apply(Command::AdvanceTime { to });
    cluster.at = cluster.state.now();
    if expires {
        cluster.expire();
    }
}

/// Whoever asks gets an answer, as things stand and long after.
fn ask(cluster: &Cluster, now: Time) {
    let state = &cluster.state;
    cycle(state, &mut Memo::default(), now);
    forecast_within(state, now, ENTRIES_MAX);
    state.nodes().keys().for_each(|node| drop(desired(state, *node)));
    let unstarted = state.jobs().values().filter_map(|job| Some(GangId::new(job.id, job.unstarted.first()?)));
    let begun = state.gangs().keys().copied().take(ASKED_MAX);
    let asked: Vec<GangId> = begun.chain(unstarted.take(ASKED_MAX)).collect();
    for gang in asked {
        assert!(explain(state, &mut Memo::default(), gang, now).is_some(), "{gang} is in State, and nobody knows why");
        remedies_within(state, gang, now, WORK_MAX);
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn what_is_at_its_bounds_breaks_nothing(
        nodes in 0..=3usize,
        devices in 1..=3usize,
        deeds in proptest::collection::vec(deed(), 1..25),
    ) {
        let mut cluster = Cluster::new(nodes, devices);
        for deed in deeds {
            match deed {
                Deed::Submit(wish) => submit_now(&mut cluster, *wish),
                Deed::Clock(hours, expires) => set_clock(&mut cluster, hours, expires),
                Deed::Decide => cluster.decide(),
                Deed::Other(op) => step(&mut cluster, op),
            }
        }
        let now = cluster.state.now();
        ask(&cluster, now);
        ask(&cluster, now.plus_ms(LIMIT_MS_MAX));
        cluster.decide();
    }
}

/// The worst of all at once, whatever is drawn.
#[test]
fn a_million_elements_wait_for_ten_years_where_there_is_no_node() {
    let mut cluster = Cluster::new(0, 1);
    let mut wish = scheduling(1, 1);
    wish.array = Some(ArraySpec { count: ArraySpec::COUNT_MAX, at_once: None, stop_after_failures: None });
    (wish.limits.time_ms, wish.limits.wait_ms) = (Some(LIMIT_MS_MAX), Some(LIMIT_MS_MAX));
    let job = cluster.submit(wish);
    cluster.decide();
    set_clock(&mut cluster, -366 * 24, true);
    assert!(cluster.state.job(job).is_some(), "a clock that goes back ends nothing");
    let now = cluster.state.now();
    ask(&cluster, now);
    set_clock(&mut cluster, (LIMIT_MS_MAX / HOUR_MS) as i64, true);
    assert!(cluster.state.job(job).is_none(), "it has waited for as long as it would");
}
