use std::collections::BTreeSet;

use super::*;

/// The scenarios to search and the rules in force: all, or all but the clause named by the environment, whose own
/// scenario then suffices. This is the hook of the chore that removes each clause in turn.
fn this_run() -> (Vec<&'static Scenario>, Rules) {
    let Ok(id) = std::env::var(WITHOUT_VARIABLE) else {
        return (scenarios().iter().collect(), Rules::all());
    };
    let Some(clause) = CLAUSES.iter().find(|clause| clause.id == id) else {
        panic!("{WITHOUT_VARIABLE}={id}: no clause has that id; the table CLAUSES lists them");
    };
    let rules = Rules::without(&id).expect("clause in the table");
    (vec![scenario(clause.scenario).expect("scenario in the table")], rules)
}

#[test]
fn all_rules_hold() {
    let (searched, rules) = this_run();
    let mut broken = Vec::new();
    for scenario in searched {
        match check(scenario, &rules) {
            Ok(stats) => println!(
                "scenario {}: {} states, {} transitions, depth {}",
                scenario.name, stats.states, stats.transitions, stats.depth
            ),
            Err(counterexample) => broken.push(counterexample.to_string()),
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// Removing the clause must break the invariant the table names, in the scenario the table names.
fn assert_missed(id: &str) {
    let clause = CLAUSES.iter().find(|clause| clause.id == id).expect("clause in the table");
    let rules = Rules::without(id).expect("clause in the table");
    let scenario = scenario(clause.scenario).expect("scenario in the table");
    assert!(scenario.invariants.contains(&clause.breaks), "{} is checked in {}", clause.breaks, clause.scenario);
    match check_only(scenario, &rules, clause.breaks) {
        Err(broken @ Counterexample::Broken { .. }) => println!("without {id} ({}):\n{broken}", clause.text),
        Err(other) => panic!("clause {id}: {other}"),
        Ok(stats) => panic!("clause {id} is not missed in {} ({} states)", clause.scenario, stats.states),
    }
}

macro_rules! clause_tests {
    ($($name:ident: $id:literal,)*) => {
        $(#[test] fn $name() { assert_missed($id); })*
        const TESTED: &[&str] = &[$($id),*];
    };
}

clause_tests! {
    rule_3a_agent_refuses_lower_token: "3a",
    rule_3b_agent_refuses_spent_token: "3b",
    rule_3c_agent_refuses_equal_token_with_other_content: "3c",
    rule_3d_registering_agent_refuses_tokens_below_epoch: "3d",
    rule_3e_restore_raises_generation: "3e",
    rule_3f_restores_generation_was_never_used: "3f",
    rule_4a_token_is_synced_before_create: "4a",
    rule_4b_previous_allocation_is_proven_gone_before_prepare: "4b",
    rule_4c_no_rank_starts_before_the_set_has_prepared: "4c",
    rule_4d_first_in_log_order_wins: "4d",
    rule_4e_failed_rank_stops_gang_in_same_apply: "4e",
    rule_5a_end_waits_for_settled_devices: "5a",
    rule_5b_report_is_kept_until_applied: "5b",
    rule_6a_lease_counts_from_send: "6a",
    rule_6b_acknowledge_only_after_read_index: "6b",
    rule_6c_new_leader_first_applies_its_own_entry: "6c",
    rule_6d_only_the_sessions_server_acknowledges: "6d",
    rule_6e_preparing_grants_no_time: "6e",
    rule_7a_fencing_waits_for_kill_bound: "7a",
    rule_7b_nothing_is_acknowledged_while_fencing: "7b",
    rule_7c_fence_counts_only_in_its_term: "7c",
    rule_7d_late_tick_restarts_waits: "7d",
    rule_7e_fencing_waits_for_drift: "7e",
    rule_8a_fenced_device_is_unknown_not_free: "8a",
    rule_8b_lost_store_is_not_evidence: "8b",
    rule_8c_late_registration_is_not_evidence: "8c",
    rule_8d_release_means_empty_device: "8d",
    rule_9a_shim_kills_without_agent: "9a",
    rule_9b_restart_does_not_extend_deadline: "9b",
    rule_10a_absence_never_kills: "10a",
    rule_10b_stop_needs_a_server_that_covers_the_token: "10b",
}

#[test]
fn every_clause_has_a_test() {
    let known: BTreeSet<_> = CLAUSES.iter().map(|clause| clause.id).collect();
    let tested: BTreeSet<_> = TESTED.iter().copied().collect();
    assert_eq!(known, tested);
    assert_eq!(known.len(), CLAUSES.len(), "ids are unique");
}

#[test]
fn every_clause_changes_the_rules() {
    for clause in CLAUSES {
        assert_ne!(Rules::without(clause.id), Some(Rules::all()), "{}", clause.id);
    }
    assert_eq!(Rules::without("99z"), None);
}

/// A world in which nothing good can happen would keep every invariant too.
#[test]
fn every_scenario_reaches_its_goals() {
    for scenario in scenarios() {
        for goal in scenario.goals {
            match check_only(scenario, &Rules::all(), goal) {
                Err(Counterexample::Broken { .. }) => {}
                Err(other) => panic!("{other}"),
                Ok(stats) => panic!("{}: goal {goal} is out of reach ({} states)", scenario.name, stats.states),
            }
        }
    }
}

#[test]
fn a_search_is_the_same_twice() {
    let scenario = scenario("cut-off").expect("scenario in the table");
    let rules = Rules::without("9b").expect("clause in the table");
    assert_eq!(check(scenario, &Rules::all()), check(scenario, &Rules::all()));
    assert_eq!(check(scenario, &rules), check(scenario, &rules));
}
