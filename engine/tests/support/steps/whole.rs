//! Random steps of the cluster as a whole: clocks that jump, join tokens, and configuration right and wrong.

use super::*;
use muster_common::time::{DAY_MS, HOUR_MS};
use muster_engine::policy::{Backfill, Consolidate, Order, Preempt, Replan, Taking};
use muster_engine::state::policies::{Evidence, FIGURES_MAX, Promotion};

/// Wall clocks that are wrong by up to twenty years, ahead or behind, agreed upon or of one server alone.
pub(super) fn leap(cluster: &mut Cluster, a: u32, b: u32) {
    let ms = u64::from(a % 20) * 365 * DAY_MS + u64::from(a % 100_000);
    let usual = cluster.at;
    let back = Time(cluster.state.now().0.saturating_sub(ms));
    match b % 4 {
        0 => {
            let to = cluster.state.now().plus_ms(ms);
            cluster.apply(Command::AdvanceTime { to });
            cluster.at = cluster.state.now();
        }
        1 => drop(cluster.apply(Command::AdvanceTime { to: back })),
        2 => {
            cluster.at = back;
            cluster.apply(Command::Nothing);
            cluster.at = usual;
        }
        _ => {
            cluster.at = cluster.state.now().plus_ms(ms);
            cluster.apply(Command::Nothing);
            // Whatever that server says, an entry brings time no further than its step.
            cluster.at = cluster.state.now();
        }
    }
    if b.is_multiple_of(3) {
        cluster.expire();
    }
}

/// Join tokens for a node or any, some of them over already; used once, twice, by others, or never issued.
pub(super) fn invite(cluster: &mut Cluster, a: u32, b: u32, c: u32) {
    let hash = Hash([(a % 4) as u8; 32]);
    let node = Name::literal(["n0", "n7"][b as usize % 2]);
    cluster.apply(match c % 5 {
        0 | 1 => Command::UseToken { hash, node },
        2 => Command::IssueToken { hash, node: None, expires_at: Time::NEVER, by: principal() },
        _ => {
            let expires_at = Time(cluster.state.now().0.saturating_add(u64::from(b)).saturating_sub(20_000));
            Command::IssueToken { hash, node: Some(node), expires_at, by: principal() }
        }
    });
}

/// What everybody goes by.
pub(super) fn set(cluster: &mut Cluster, a: u32, b: u32, c: u32) {
    let change = match a % 6 {
        0 => ConfigChange::Fabric(fabric(b)),
        1 | 2 => ConfigChange::Settings(settings(b, c)),
        3 => ConfigChange::FeatureLevel(b % 12),
        4 => ConfigChange::RaiseGeneration { above: if b.is_multiple_of(50) { u32::MAX } else { b % 20 } },
        _ => ConfigChange::Cluster { id: "another".into() },
    };
    configure(cluster, change);
}

/// Policies put in force, tried, promoted and taken back.
pub(super) fn steer(cluster: &mut Cluster, a: u32, b: u32, c: u32) {
    let policy = policy(b, c);
    let change = match a % 5 {
        0 => ConfigChange::Shadow(None),
        1 => ConfigChange::Shadow(Some(Box::new(policy))),
        2 => {
            let figures = vec![("wait".into(), "1 s".into()); (b % 3) as usize * FIGURES_MAX];
            let evidence = Evidence { run: "run".into(), manifest: Hash([1; 32]), engine_version: 1, figures };
            ConfigChange::Promote(Box::new(Promotion { policy, evidence }))
        }
        _ => ConfigChange::Policy(policy),
    };
    configure(cluster, change);
}

/// Several documents at once, and back to how an earlier declaration left them.
pub(super) fn declare(cluster: &mut Cluster, jobs: &[JobId], (a, b, c, d): (u32, u32, u32, u32)) {
    let version = cluster.state.config_version();
    let made_from = (!d.is_multiple_of(3)).then_some(version - u32::from(d.is_multiple_of(7) && version > 0));
    let past = cluster.state.declarations().past();
    let change = if a.is_multiple_of(4) {
        let known = pick(past, b).map_or(b % 8, |declared| declared.version);
        ConfigChange::RollBack { version: known, made_from }
    } else {
        let windows = (0..b % 4).map(|at| window(cluster, jobs, (a.wrapping_add(at), b, c.wrapping_add(at)))).collect();
        ConfigChange::Declare(Box::new(Declaration {
            source: "test".into(),
            made_from,
            organisation: (!a.is_multiple_of(3)).then(|| Arc::new(organisation(a, b, c))),
            policy: (!b.is_multiple_of(3)).then(|| Box::new(policy(c, d))),
            windows: (!c.is_multiple_of(3)).then_some(windows),
            whole: d.is_multiple_of(2),
        }))
    };
    configure(cluster, change);
}

fn configure(cluster: &mut Cluster, change: ConfigChange) {
    cluster.apply(Command::Configure { change: Box::new(change), by: principal() });
}

/// Sometimes without the tree in which nodes say they are, sometimes one that is refused.
fn fabric(b: u32) -> FabricSpec {
    let tree = |name: &str, levels: &[&str]| TreeSpec {
        name: Name::new(name).unwrap(),
        levels: levels.iter().map(|level| Name::new(*level).unwrap()).collect(),
    };
    let trees = match b % 5 {
        0 => Vec::new(),
        1 => vec![tree("network", &["leaf", "leaf"])],
        2 => vec![tree("network", &["spine", "leaf"]), tree("power", &["row"])],
        3 => vec![tree("power", &["row"])],
        _ => vec![tree("network", &["leaf"])],
    };
    FabricSpec { trees }
}

/// Some of them are refused, and some only while gangs run.
fn settings(b: u32, c: u32) -> Settings {
    Settings {
        suspect_after_ms: u64::from(b % 4) * 10_000,
        fence_after_ms: 60_000 * (1 + u64::from(c % 8)),
        start_within_ms: if b.is_multiple_of(5) { 60_000 } else { 120_000 },
        backoff_ms: u64::from(c % 3) * 1000,
        key_horizon_ms: HOUR_MS * (1 + u64::from(b % 48)),
        usage_half_life_ms: [0, HOUR_MS, 7 * DAY_MS, 1][c as usize % 4],
        ..Settings::default()
    }
}

/// Some of them are refused.
fn policy(b: u32, c: u32) -> Policy {
    let orders = [Order::Default, Order::Fifo, Order::Fair, Order::Srtf, Order::Wfp3, Order::Deadline];
    let consolidate = Consolidate { wait_ms: 0, min_run_ms: 0, gain_ms: 0, ..Consolidate::default() };
    Policy {
        order: orders[b as usize % orders.len()].clone(),
        backfill: Backfill { reserve_depth: [0, 1, 4, 1000][c as usize % 4], ..Backfill::default() },
        replan: match b % 7 {
            0 => Replan::Refill { min_run_ms: 0, max_victims_per_cycle: 1 + c % 3 },
            _ => Replan::Keep,
        },
        taking: Taking {
            preempt: b.is_multiple_of(2).then(Preempt::default),
            consolidate: c.is_multiple_of(3).then_some(consolidate),
            ..Taking::default()
        },
        ..Policy::default()
    }
}
