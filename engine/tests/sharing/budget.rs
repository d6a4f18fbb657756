//! Budgets in money: what is set aside when a gang starts, what is spent when it ends, and what keeps waiting.

use crate::plan_support;
use crate::taking_support::{account, charged};

use muster_common::calendar::Period;
use muster_common::job::Scheduling;
use muster_common::money::MicroUsd;
use muster_common::time::DAY_MS;
use muster_common::{GangId, Name, Time};
use muster_engine::apply::apply;
use muster_engine::command::{Command, ConfigChange, Edit, Entry, Principal};
use muster_engine::organisation::{Account, Budget, Organisation, Price};
use muster_engine::outcome::{Refusal, Response};
use muster_engine::plan::explain::{Reason, explain};
use muster_engine::policy::{ModelChoice, Policy};
use muster_engine::{Memo, cycle};
use plan_support::*;
use std::sync::Arc;

const HOUR_S: u64 = 3600;

fn usd(dollars: u64) -> MicroUsd {
    MicroUsd(dollars * 1_000_000)
}

fn price(model: Option<&str>, dollars: u64) -> Price {
    Price { model: model.map(name), usd_per_gpu_hour: usd(dollars) }
}

fn owner(called: &str, parent: Option<&str>, budget: Option<(u64, Period)>) -> Account {
    let budget = budget.map(|(dollars, per)| Budget { usd: usd(dollars), per });
    Account { parent: parent.map(name), budget, quota: Default::default(), ..account(called, None, (0, None, None)) }
}

fn organised(accounts: Vec<Account>) -> Command {
    let prices = vec![price(None, 2), price(Some("H200"), 5), price(Some("A100"), 1)];
    configure(ConfigChange::Organisation(Arc::new(Organisation { accounts, prices, ..Organisation::default() })))
}

/// `lab` may spend $100, `nlp` below it $60; an hour of an H100 costs $2.
fn lab(per: Period) -> Cluster {
    let mut cluster = Cluster::new(Policy::default());
    cluster.commit(organised(accounts(100, per)));
    cluster.nodes(2, 8);
    cluster
}

fn accounts(lab: u64, per: Period) -> Vec<Account> {
    vec![owner("lab", None, Some((lab, per))), owner("nlp", Some("lab"), Some((60, per))), owner("free", None, None)]
}

/// So many devices for hours, which it says it needs and may take.
fn of(called: &str, devices: u32, run_h: u64, limit_h: u64) -> Scheduling {
    let mut wish = charged(exact(nodes(1, devices), run_h * HOUR_S), called);
    wish.limits.time_ms = Some(limit_h * HOUR_S * 1000);
    wish.groups[0].models = vec![name("H100")];
    wish
}

#[track_caller]
fn why(cluster: &Cluster, gang: GangId) -> (Reason, String, Option<Time>) {
    let found = explain(&cluster.player.state, &mut Memo::default(), gang, cluster.now()).unwrap();
    let first = found.blockers.into_iter().next().expect("something is in the way");
    (first.reason, first.detail, first.until)
}

/// Dollars spent and set aside.
fn spending(cluster: &Cluster, called: &str) -> (u64, u64) {
    let spendings = cluster.player.state.usage().spendings();
    let of = spendings.of(&name(called), cluster.now()).expect("it has a budget");
    (of.spent.0 / 1_000_000, of.set_aside().0 / 1_000_000)
}

#[test]
fn what_a_gang_may_cost_is_set_aside_and_what_it_did_not_use_comes_back() {
    let mut cluster = lab(Period::Year);
    // $40 until its limit, $8 in the end.
    let first = cluster.submit(of("nlp", 2, 2, 10));
    let second = cluster.submit(of("nlp", 2, 2, 10));
    cluster.decide();
    assert_eq!((spending(&cluster, "nlp"), spending(&cluster, "lab")), ((0, 40), (0, 40)));
    let text = "account `nlp` may spend $60.00 in a year; $40.00 are spent or set aside and this takes up to $40.00";
    assert_eq!(why(&cluster, second), (Reason::Budget, text.into(), Some(Time(365 * DAY_MS))));
    cluster.run();
    assert_eq!((cluster.start_s(first), cluster.start_s(second)), (Some(0), Some(2 * HOUR_S)));
    assert_eq!((spending(&cluster, "nlp"), spending(&cluster, "lab")), ((16, 0), (16, 0)));
}

#[test]
fn a_budget_above_counts_all_below_it_and_others_pay_nothing() {
    let mut cluster = lab(Period::Year);
    let all = [of("nlp", 3, 10, 10), of("lab", 2, 10, 10), of("lab", 1, 2, 2), of("free", 8, 40, 40)];
    let [nlp, lab, small, free] = all.map(|wish| cluster.submit(wish));
    cluster.decide();
    assert_eq!(spending(&cluster, "lab"), (0, 100));
    assert!(!cluster.held(nlp).is_empty() && !cluster.held(lab).is_empty() && !cluster.held(free).is_empty());
    let text = "account `lab` may spend $100.00 in a year; $100.00 are spent or set aside and this takes up to $4.00";
    assert_eq!(why(&cluster, small), (Reason::Budget, text.into(), Some(Time(365 * DAY_MS))));
}

#[test]
fn a_new_period_begins_with_nothing_spent_and_what_waits_for_it_starts_then() {
    let mut cluster = lab(Period::Day);
    let first = cluster.submit(of("nlp", 2, 10, 15));
    // It takes what is left of its day after `first`, and runs past midnight.
    let late = cluster.submit(of("nlp", 1, 10, 10));
    cluster.submit_at(20 * HOUR_S, of("nlp", 1, 8, 8));
    let second = cluster.submit(of("nlp", 8, 3, 3));
    cluster.decide();
    cluster.run();
    assert_eq!((cluster.start_s(first), cluster.start_s(late)), (Some(0), Some(10 * HOUR_S)));
    // $48 are not left before midnight; the $16 of what began the day before are not of this day.
    assert_eq!(cluster.start_s(second), Some(24 * HOUR_S));
}

/// After a quiet spell the moment of a cycle is ahead of what entries have brought State to.
#[test]
fn a_plan_for_a_period_that_state_has_not_come_to_parks_nobody() {
    let mut cluster = lab(Period::Day);
    cluster.submit(of("nlp", 3, 10, 10));
    let waits = cluster.submit(of("nlp", 1, 1, 1));
    cluster.decide();
    let mut state = cluster.player.state.clone();
    for _ in 0..3 {
        let decided = cycle(&state, &mut Memo::default(), Time(DAY_MS));
        let plan = decided.commands.into_iter().find(|command| matches!(command, Command::CommitPlan(_)));
        let (index, term, at) = (state.applied_index() + 1, state.applied_term(), state.now());
        let command = plan.expect("the new day has money for it");
        let response = apply(&mut state, &Entry { index, term, at, command }).response;
        assert!(matches!(response, Response::Plan { accepted: 0, .. }), "{response:?}");
        assert!(state.parked(waits).is_none());
    }
    cluster.run();
    assert_eq!(cluster.start_s(waits), Some(24 * HOUR_S));
}

#[test]
fn what_no_period_could_pay_is_refused_and_so_is_what_has_no_limit() {
    let mut cluster = lab(Period::Year);
    cluster.seen.lenient = true;
    let text = "limits.time: account `nlp` may spend $60.00 in a year; $0.00 are spent or set aside and this takes up to $80.00";
    let refused = |cluster: &mut Cluster, wish: Scheduling| match cluster.commit(submit("refused", wish)).response {
        Response::Refused(Refusal::Invalid(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&mut cluster, of("nlp", 4, 1, 10)), text);
    let mut endless = of("nlp", 1, 1, 1);
    endless.limits.time_ms = None;
    let text = "limits.time: account `nlp` may spend $60.00 in a year; this has no time limit, so what it will cost is not known";
    assert_eq!(refused(&mut cluster, endless), text);
}

#[test]
fn until_it_is_placed_a_gang_counts_at_the_dearest_model_it_may_get_and_then_at_what_it_got() {
    let mut cluster = lab(Period::Year);
    let either = |mut wish: Scheduling| {
        wish.groups[0].models = vec![name("H100"), name("H200")];
        wish
    };
    cluster.seen.lenient = true;
    // $100 with H200.
    assert!(matches!(cluster.commit(submit("a", either(of("nlp", 2, 1, 10)))).response, Response::Refused(_)));
    cluster.submit(either(of("nlp", 1, 1, 10)));
    cluster.decide();
    assert_eq!(spending(&cluster, "nlp"), (0, 20));
}

#[test]
fn the_cheapest_model_that_fits_is_taken_where_the_policy_says_so() {
    for (models, expected) in [(ModelChoice::AsPreferred, "H200"), (ModelChoice::Cheapest, "A100")] {
        let mut cluster = Cluster::new(Policy { models, ..Policy::default() });
        cluster.commit(organised(accounts(100, Period::Year)));
        for (node, model) in [("n0", "H200"), ("n1", "H100"), ("n2", "A100")] {
            cluster.node(node, inventory(model, 8, &[]));
        }
        let mut wish = of("free", 8, 1, 1);
        wish.groups[0].models = [name("H200"), name("A100"), name("H100")].into();
        let got = |cluster: &Cluster, gang: GangId| -> Name {
            let held = cluster.held(gang);
            let node = cluster.player.state.node(held[0].0).unwrap();
            node.inventory.devices[usize::from(held[0].1[0])].model.clone()
        };
        let gangs = [wish.clone(), wish.clone(), wish].map(|wish| cluster.submit(wish));
        cluster.decide();
        assert_eq!(got(&cluster, gangs[0]), name(expected), "{models:?}");
        let all: std::collections::BTreeSet<Name> = gangs.iter().map(|gang| got(&cluster, *gang)).collect();
        assert_eq!(all.len(), 3, "what is left is taken all the same");
    }
}

#[test]
fn whoever_names_no_model_has_the_cheapest_of_all() {
    let mut cluster = Cluster::new(Policy { models: ModelChoice::Cheapest, ..Policy::default() });
    cluster.commit(organised(accounts(100, Period::Year)));
    let all = [("n0", "H200"), ("n1", "A100"), ("n2", "H100")]
        .map(|(node, model)| cluster.node(node, inventory(model, 8, &[])));
    let mut wish = of("free", 4, 1, 1);
    wish.groups[0].models = Vec::new();
    let gangs = [(); 5].map(|()| cluster.submit(wish.clone()));
    cluster.decide();
    let nodes = gangs.map(|gang| cluster.held(gang)[0].0);
    assert_eq!(nodes, [all[1], all[1], all[2], all[2], all[0]]);
}

fn longer(cluster: &mut Cluster, gang: GangId, limit_h: u64) -> Response {
    let state = &cluster.player.state;
    let job = state.job(gang.job).unwrap();
    let mut scheduling = (**state.scheduling(job)).clone();
    scheduling.limits.time_ms = Some(limit_h * HOUR_S * 1000);
    let launch = state.launch(&job.revision().launch).unwrap().clone();
    let edit = Edit {
        job: gang.job,
        request_id: format!("edit-{limit_h}"),
        from_revision: job.revision().number,
        name: job.name.clone(),
        scheduling,
        launch,
        by: Principal("test".into()),
    };
    cluster.commit(Command::Edit(Box::new(edit))).response
}

#[test]
fn a_longer_limit_of_what_runs_is_set_aside_too_or_refused() {
    let mut cluster = lab(Period::Year);
    let gang = cluster.submit(of("nlp", 2, 2, 10));
    cluster.decide();
    assert!(matches!(longer(&mut cluster, gang, 12), Response::Edited { .. }));
    assert_eq!(spending(&cluster, "nlp"), (0, 48));
    cluster.submit(of("nlp", 1, 5, 5));
    cluster.decide();
    cluster.seen.lenient = true;
    let text = "account `nlp` may spend $60.00 in a year; $58.00 are spent or set aside and this takes up to $8.00";
    assert_eq!(longer(&mut cluster, gang, 14), Response::Refused(Refusal::OverLimit(text.into())));
    assert!(matches!(longer(&mut cluster, gang, 5), Response::Edited { .. }));
    assert_eq!(spending(&cluster, "nlp"), (0, 30));
}

#[test]
fn another_amount_keeps_what_is_spent_and_another_period_begins_anew() {
    let mut cluster = lab(Period::Year);
    cluster.submit(of("lab", 2, 10, 10));
    cluster.decide();
    cluster.run();
    assert_eq!(spending(&cluster, "lab"), (40, 0));
    cluster.submit(of("nlp", 1, 1, 10));
    cluster.decide();
    cluster.commit(organised(accounts(50, Period::Year)));
    assert_eq!(spending(&cluster, "lab"), (40, 20), "what runs on is not stopped");
    let mut monthly = accounts(500, Period::Year);
    monthly[0].budget = Some(Budget { usd: usd(500), per: Period::Month });
    let later = cluster.now().plus_ms(60_000);
    cluster.player.at(later, organised(monthly));
    cluster.run();
    assert_eq!(spending(&cluster, "lab"), (0, 0), "it counts what is placed from then on");
    assert_eq!(spending(&cluster, "nlp"), (2, 0));
}
