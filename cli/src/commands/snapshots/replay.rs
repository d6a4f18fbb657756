//! Answers about a cluster's past, and about policies tried on it.

use super::*;
use muster_engine::policy::Policy;
use muster_engine::shadow::Kind;
use muster_sim::cluster::ClusterCard;
use muster_sim::replay::Account;
use muster_sim::replay::shadow::{Earlier, KindCount, Other, Shadowed};
use muster_sim::replay::verify::{Different, Verified};
use muster_sim::trace::{Card, Noted};
use std::collections::BTreeMap;

fn account() -> Account {
    Account {
        from_index: Some(88_412),
        to_index: 131_072,
        from_ms: NOW - 7 * 24 * HOUR,
        to_ms: NOW,
        entries: 42_600,
        decisions: 9_120,
        out_of_reach: 3,
        gaps: vec![(90_001, 90_060)],
        gaps_count: 1,
        unreadable: vec!["a State cannot be unpacked".into()],
        unreadable_count: 1,
        states_compared: 6,
        states_differ: vec![],
    }
}

#[test]
fn verify() {
    let different = Different {
        index: 90_100,
        made_at: 90_099,
        now_ms: NOW - HOUR,
        note: None,
        recorded: vec!["place 4711_0 attempt 1 on n033:0,1".into()],
        decided_here: vec!["place 4711_0 attempt 1 on n034:0,1".into(), "book 4720_0".into()],
    };
    let verified = Verified {
        schema: "muster.replay_verify/1",
        mode: "verify",
        says: muster_sim::replay::verify::SAYS,
        engine_version: 3,
        same: 9_106,
        differ: 1,
        cut_short: 2,
        other_engines: BTreeMap::from([(2, 10)]),
        different: vec![different],
        account: account(),
    };
    check("replay_verify", sim::replay::render_verified(&verified), sim::replay::document(&verified));
}

#[test]
fn shadow() {
    let count = |kind: Kind, decisions| KindCount { kind, text: kind.text(), decisions };
    let other = Other {
        index: 90_100,
        now_ms: NOW - HOUR,
        kind: Kind::OtherGangs,
        only_recorded: vec!["4711_0".into()],
        only_shadow: vec!["4655_0".into()],
    };
    let shadowed = Shadowed {
        schema: "muster.replay_shadow/1",
        mode: "shadow",
        says: muster_sim::replay::shadow::SAYS,
        engine_version: 3,
        policy: Policy::default(),
        compared: 9_117,
        agree: 8_900,
        by_kind: vec![count(Kind::Same, 8_900), count(Kind::StartsMore, 17), count(Kind::OtherGangs, 200)],
        states: 40_000,
        truncated: 1,
        starts: 9_500,
        at_once_too: 9_000,
        earlier: 300,
        not_by_then: 200,
        earlier_median_ms: 11 * MINUTE,
        earliest: vec![Earlier { gang: "4655_0".into(), earlier_ms: 3 * HOUR, started_ms: NOW - HOUR }],
        never_started: 4,
        others: vec![other],
        account: Account { gaps: vec![], gaps_count: 0, unreadable: vec![], unreadable_count: 0, ..account() },
    };
    check("replay_shadow", sim::replay::render_shadowed(&shadowed), sim::replay::document(&shadowed));
}

#[test]
fn import_of_a_cluster() {
    let noted = |why, rows| Noted { why, rows, first_line: 12 };
    let trace = Card {
        format: "cluster",
        rows: 412,
        jobs: 410,
        dropped: vec![noted("has not run, and nobody said how long it would", 2)],
        changed: vec![noted("had several attempts: runs as long as the last of them", 5)],
        bad_rows: 0,
        bad: vec![],
        recorded_devices: Some(256),
        unsorted_rows: 0,
        first_submit_s: 1_771_786_800.0,
        last_submit_s: 1_772_391_000.0,
        span_s: 604_200.0,
        device_s: 98_000_000.5,
        mean_devices: 162.2,
        largest_job_devices: 128,
    };
    let card = ClusterCard {
        schema: "muster.sim_cluster/1",
        cluster_id: "prod".into(),
        index: 131_072,
        from_ms: NOW - 7 * 24 * HOUR,
        to_ms: NOW,
        events: 60_001,
        nodes: 32,
        outages: 3,
        cancellations: 21,
        policy_version: 4,
        trace,
        not_modelled: vec!["2 attempts were lost to machines; in a run only the outages are".into()],
    };
    check("sim_cluster", sim::cluster::render(&card), sim::cluster::document(&card));
}
