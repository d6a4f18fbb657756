use super::shadow::Shadow;
use super::verify::{Verified, Verifier};
use super::*;
use crate::lived::{BEGIN, Lived, busy};
use muster_engine::command::PlanStep;
use muster_engine::policy::{Order, Policy};
use muster_engine::shadow::Kind;

fn lived() -> Lived {
    let mut lived = busy();
    lived.until(1_000_000);
    lived
}

/// The log from an index on, with the State before it.
fn replay<J: Judge>(entries: &[Entry], from: usize, judge: J) -> (J, Account) {
    let mut replay = Replay::new(judge);
    let mut state = State::new("lived");
    for entry in &entries[..from] {
        apply(&mut state, entry);
    }
    replay.begin(state);
    entries[from..].iter().for_each(|entry| replay.entry(entry.clone()));
    replay.finish()
}

fn verified(entries: &[Entry], from: usize) -> Verified {
    let (verifier, account) = replay(entries, from, Verifier::default());
    verifier.report(account)
}

fn plans(entries: &[Entry]) -> Vec<usize> {
    let is_plan = |entry: &Entry| matches!(entry.command, Command::CommitPlan(_));
    entries.iter().enumerate().filter(|(_, entry)| is_plan(entry)).map(|(at, _)| at).collect()
}

#[test]
fn every_decision_of_a_log_comes_out_the_same() {
    let entries = lived().history.entries;
    let report = verified(&entries, 0);
    assert!(report.is_clean() && report.different.is_empty(), "{report:#?}");
    assert_eq!(report.same as usize, plans(&entries).len());
    assert!(report.same > 20, "{report:#?}");
    assert_eq!((report.account.entries as usize, report.account.out_of_reach), (entries.len(), 0));
    assert_eq!(report.account.to_index, entries.last().unwrap().index);
}

#[test]
fn a_tampered_decision_is_found_and_named() {
    let mut entries = lived().history.entries;
    let at = plans(&entries)[3];
    let Command::CommitPlan(plan) = &mut entries[at].command else { panic!() };
    let Some(PlanStep::Place(placed)) = plan.steps.iter_mut().find(|step| matches!(step, PlanStep::Place(_))) else {
        panic!("{plan:?}")
    };
    let gang = placed.gang;
    placed.parts[0].devices.reverse();
    placed.parts[0].devices[0].0 ^= 7;
    let index = entries[at].index;
    let report = verified(&entries[..=at], 0);
    assert_eq!((report.differ, report.same as usize), (1, 3));
    let different = &report.different[0];
    assert_eq!((different.index, different.made_at), (index, index - 1));
    assert!(different.recorded[0].contains(&gang.to_string()), "{different:?}");
    assert_ne!(different.recorded, different.decided_here);
}

#[test]
fn a_decision_of_another_engine_is_said_and_not_compared() {
    let mut entries = lived().history.entries;
    let at = plans(&entries)[0];
    let Command::CommitPlan(plan) = &mut entries[at].command else { panic!() };
    plan.engine_version += 1;
    let other = plan.engine_version;
    let report = verified(&entries, 0);
    assert_eq!((report.other_engines.get(&other), report.differ), (Some(&1), 0));
    assert_eq!(report.same as usize, plans(&entries).len() - 1);
}

/// A log that was cut, has a gap and a second beginning: what cannot be rebuilt is counted, and nothing else is lost.
#[test]
fn what_cannot_be_rebuilt_is_counted() {
    let entries = lived().history.entries;
    let all = plans(&entries);
    let report = verified(&entries, all[2] + 1);
    assert_eq!(report.account.from_index, Some(entries[all[2]].index));
    assert_eq!(report.same as usize, all.len() - 3);

    // No State at all before the middle; then a State, a gap, and another State.
    let state_at = |upto: usize| {
        let mut state = State::new("lived");
        entries[..upto].iter().for_each(|entry| drop(apply(&mut state, entry)));
        state
    };
    let (first, gap, second) = (all[5], all[10], all[15]);
    let mut replay = Replay::new(Verifier::default());
    entries[..first].iter().for_each(|entry| replay.entry(entry.clone()));
    replay.begin(state_at(first));
    entries[first..gap].iter().for_each(|entry| replay.entry(entry.clone()));
    entries[gap + 1..second].iter().for_each(|entry| replay.entry(entry.clone()));
    replay.begin(state_at(second));
    entries[second..].iter().for_each(|entry| replay.entry(entry.clone()));
    // Applied again after a restart.
    replay.begin(state_at(second));
    entries[second..].iter().for_each(|entry| replay.entry(entry.clone()));
    let (verifier, account) = replay.finish();
    let report = verifier.report(account);
    let unseen = report.account.decisions - report.account.out_of_reach;
    assert_eq!((report.same, report.differ), (unseen, 0));
    // The decision that lies in the gap itself left nothing to count.
    assert_eq!(report.account.decisions as usize, all.len() - 1);
    assert_eq!(report.account.out_of_reach, 5 + 4, "{:?}", report.account);
    assert_eq!(report.account.gaps, [(entries[gap].index, entries[second].index - 1)]);
}

#[test]
fn a_state_in_the_middle_is_compared_with_the_one_that_entries_lead_to() {
    let entries = lived().history.entries;
    let middle = entries.len() / 2;
    let judged = |other: bool| {
        let mut state = State::new("lived");
        let mut replay = Replay::new(Verifier::default());
        replay.begin(state.clone());
        for entry in &entries[..middle] {
            apply(&mut state, entry);
            replay.entry(entry.clone());
        }
        let mut elsewhere = State::new(if other { "another" } else { "lived" });
        entries[..middle].iter().for_each(|entry| drop(apply(&mut elsewhere, entry)));
        replay.begin(elsewhere);
        entries[middle..].iter().for_each(|entry| replay.entry(entry.clone()));
        replay.finish().1
    };
    assert_eq!((judged(false).states_compared, judged(false).states_differ), (1, vec![]));
    assert_eq!(judged(true).states_differ, [entries[middle - 1].index]);
}

#[test]
fn the_policy_in_force_as_its_own_shadow_agrees_in_all() {
    let lived = lived();
    let (shadow, account) = replay(&lived.history.entries, 0, Shadow::new((**lived.player.state.policy()).clone()));
    let report = shadow.report(account);
    assert_eq!((report.agree, report.earlier, report.not_by_then), (report.compared, 0, 0), "{report:#?}");
    assert_eq!((report.starts, report.never_started), (report.at_once_too, 0));
    assert_eq!(report.by_kind.len(), 1);
}

#[test]
fn another_policy_is_said_to_start_whom_it_would_start_and_no_more() {
    let lived = lived();
    let policy = Policy { order: Order::Smallest, ..Policy::default() };
    let (shadow, account) = replay(&lived.history.entries, 0, Shadow::new(policy));
    let report = shadow.report(account);
    assert!(report.agree < report.compared && report.earlier > 0, "{report:#?}");
    assert_eq!(report.starts, report.at_once_too + report.earlier + report.not_by_then);
    assert_eq!(report.starts as usize, lived.history.starts.len());
    assert!(report.others.iter().any(|other| other.kind == Kind::OtherGangs && !other.only_shadow.is_empty()));
    let first = &report.earliest[0];
    assert!(first.earlier_ms >= report.earlier_median_ms && first.started_ms > BEGIN.0, "{first:?}");
    assert!(report.says.contains("nothing here tells what would have followed"));
}
