//! Configuration as code: all of a declaration comes in force or none of it, what would break a guarantee
//! is refused, and one can go back.

use crate::plan_support;

use muster_common::{GangId, Time};
use muster_engine::apply::DECLARE_LEVEL;
use muster_engine::command::{Command, ConfigChange, Declaration, MakeWindow, Principal, Which};
use muster_engine::organisation::{Account, Organisation, Quota};
use muster_engine::outcome::{Outcome, Refusal, Response};
use muster_engine::policy::{Backfill, Order, Policy};
use muster_engine::state::window::Holders;
use muster_engine::{Entry, State, apply};
use plan_support::*;
use std::sync::Arc;

fn by() -> Principal {
    Principal("op".into())
}

fn account(called: &str, parent: Option<&str>, nominal: u32) -> Account {
    let quota = Quota { nominal, borrow_limit: None, lend_limit: None };
    Account {
        name: name(called),
        parent: parent.map(name),
        weight: 1,
        priority: 0,
        quota: [(name("H100"), quota)].into(),
        limits: Default::default(),
        user_limits: Default::default(),
        users: Default::default(),
        cells: Vec::new(),
        budget: None,
        reclaim_within_ms: None,
    }
}

fn organisation(accounts: &[(&str, u32)]) -> Organisation {
    let accounts = accounts.iter().map(|(called, nominal)| account(called, None, *nominal)).collect();
    Organisation { accounts, ..Organisation::default() }
}

fn window(called: &str, node: &str, (from_s, until_s): (u64, u64)) -> MakeWindow {
    MakeWindow {
        name: name(called),
        start: Time(from_s * 1000),
        end: Time(until_s * 1000),
        nodes: Which::Nodes(vec![name(node)]),
        holders: Holders::Nobody,
        reason: "firmware".into(),
        by: Principal("".into()),
        managed: true,
    }
}

fn nothing() -> Declaration {
    Declaration {
        source: "cluster/".into(),
        made_from: None,
        organisation: None,
        policy: None,
        windows: None,
        whole: true,
    }
}

fn declare(cluster: &mut Cluster, declaration: Declaration) -> Outcome {
    cluster.seen.lenient = true;
    cluster.commit(configure(ConfigChange::Declare(Box::new(declaration))))
}

#[track_caller]
fn done(outcome: Outcome) {
    assert_eq!(outcome.response, Response::Done);
}

#[track_caller]
fn refused(outcome: Outcome) -> String {
    match outcome.response {
        Response::Refused(refusal) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

fn names(state: &State) -> Vec<String> {
    state.windows().iter().map(|window| window.name.to_string()).collect()
}

#[test]
fn all_of_a_declaration_comes_in_force_or_none_of_it() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.nodes(2, 8);
    let whole = Declaration {
        organisation: Some(Arc::new(organisation(&[("a", 8), ("b", 8)]))),
        policy: Some(Box::new(Policy { order: Order::Fifo, ..Policy::default() })),
        windows: Some(vec![window("w", "n00", (100, 200))]),
        ..nothing()
    };
    for (broken, text) in [
        (
            Declaration {
                windows: Some(vec![window("w", "n00", (100, 200)), window("v", "n00", (150, 250))]),
                ..whole.clone()
            },
            "reservation[1].nodes: node n00 is in reservation `w` then; take another time or other nodes",
        ),
        (
            Declaration {
                windows: Some(vec![window("w", "n00", (100, 200)), window("w", "n01", (100, 200))]),
                ..whole.clone()
            },
            "reservation[1].name: there are two reservations `w`; rename one",
        ),
        (
            Declaration { windows: Some(vec![window("w", "nOO", (100, 200))]), ..whole.clone() },
            "reservation[0].nodes: there is no node `nOO`; there is: n00, n01",
        ),
        (
            Declaration { organisation: Some(Arc::new(organisation(&[("a", 8), ("b", 9)]))), ..whole.clone() },
            "account[1].quota.H100: with this, 17 H100 are owed and the cluster has 16; lower a `nominal`, or join the nodes first",
        ),
        (
            Declaration {
                policy: Some(Box::new(Policy {
                    backfill: Backfill { reserve_depth: 999, ..Backfill::default() },
                    ..Policy::default()
                })),
                ..whole.clone()
            },
            "policy.backfill.reserve_depth is 999; it must be between 0 and 128",
        ),
    ] {
        let before = cluster.player.state.clone();
        assert_eq!(refused(declare(&mut cluster, broken)), text);
        let after = &cluster.player.state;
        assert_eq!(
            (after.policy(), names(after).len(), after.config_version()),
            (before.policy(), 0, before.config_version())
        );
        assert_eq!(after.accounts().version(), 0, "{text}");
        assert_eq!(after.events_hash(), before.events_hash(), "nothing has happened");
    }
    done(declare(&mut cluster, whole.clone()));
    let state = &cluster.player.state;
    assert_eq!(
        (state.policy().order.clone(), names(state), state.accounts().version()),
        (Order::Fifo, vec!["w".into()], 1)
    );
    let declared = &state.declarations().past()[0];
    assert_eq!((declared.version, declared.source.as_str()), (state.config_version(), "cluster/"));
    // The same again changes no document.
    done(declare(&mut cluster, whole));
    let state = &cluster.player.state;
    assert_eq!((state.accounts().version(), state.windows().get(1).is_some()), (1, true));
}

#[test]
fn reservations_follow_what_is_declared_and_those_made_by_hand_stay() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.nodes(3, 8);
    let by_hand = MakeWindow { managed: false, by: by(), ..window("hand", "n02", (100, 200)) };
    cluster.commit(Command::MakeWindow(Box::new(by_hand)));
    let with = |windows: Vec<MakeWindow>| Declaration { windows: Some(windows), ..nothing() };
    let (a, b) = (window("a", "n00", (100, 200)), window("b", "n01", (100, 200)));
    done(declare(&mut cluster, with(vec![a.clone(), b.clone()])));
    assert_eq!(names(&cluster.player.state), ["hand", "a", "b"]);
    // They change places, and one that is over is passed over.
    let swapped = [window("a", "n01", (100, 200)), window("b", "n00", (100, 200))];
    done(declare(&mut cluster, with([&swapped[..], &[window("over", "n00", (0, 0))]].concat())));
    let state = &cluster.player.state;
    assert_eq!(state.windows().named(&name("a")).unwrap().nodes, [name("n01")]);
    done(declare(&mut cluster, with(vec![swapped[1].clone()])));
    assert_eq!(names(&cluster.player.state), ["hand", "b"]);
    done(declare(&mut cluster, nothing()));
    assert_eq!(names(&cluster.player.state), ["hand", "b"], "a declaration that does not speak of them");
    let text = refused(declare(&mut cluster, with(vec![window("hand", "n01", (100, 200))])));
    assert_eq!(
        text,
        "reservation[0].name: there is a reservation `hand` already, and it is another, made by hand; rename this \
         one, or end that one first"
    );
    done(declare(&mut cluster, with(Vec::new())));
    assert_eq!(names(&cluster.player.state), ["hand"]);
}

#[test]
fn a_declaration_made_from_an_older_configuration_is_refused() {
    let mut cluster = Cluster::new(Policy::default());
    let version = cluster.player.state.config_version();
    done(declare(&mut cluster, Declaration { made_from: Some(version), ..nothing() }));
    let text = refused(cluster.commit(configure(ConfigChange::RollBack { version, made_from: Some(version) })));
    assert!(text.contains("look at what differs again"), "{text}");
    let text = refused(declare(&mut cluster, Declaration { made_from: Some(version), ..nothing() }));
    assert_eq!(text, format!("the configuration is at version {} by now; look at what differs again", version + 1));
}

#[test]
fn one_can_go_back_to_how_a_declaration_left_it() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.nodes(2, 8);
    let with = |nominal: u32, order: Order| Declaration {
        organisation: Some(Arc::new(organisation(&[("a", nominal)]))),
        policy: Some(Box::new(Policy { order, ..Policy::default() })),
        ..nothing()
    };
    done(declare(&mut cluster, with(8, Order::Fifo)));
    let first = cluster.player.state.config_version();
    done(declare(&mut cluster, with(4, Order::Sjf)));
    done(declare(&mut cluster, with(2, Order::Sjf)));
    done(cluster.commit(configure(ConfigChange::RollBack { version: first, made_from: None })));
    let state = &cluster.player.state;
    assert_eq!(
        (state.policy().order.clone(), &**state.accounts().document()),
        (Order::Fifo, &organisation(&[("a", 8)]))
    );
    let sources: Vec<&str> = state.declarations().past().iter().map(|known| known.source.as_str()).collect();
    assert_eq!(sources[3], format!("back to {first}"));
    let text = refused(cluster.commit(configure(ConfigChange::RollBack { version: 1, made_from: None })));
    assert!(text.starts_with("version: no declaration 1 is kept to go back to; there is: "), "{text}");
}

/// Jobs of `a` hold 8 devices and may not be stopped.
fn firm() -> (Cluster, GangId) {
    let mut cluster = Cluster::new(Policy { order: Order::Fifo, ..Policy::default() });
    cluster.nodes(2, 8);
    done(declare(
        &mut cluster,
        Declaration { organisation: Some(Arc::new(organisation(&[("a", 8), ("b", 8)]))), ..nothing() },
    ));
    let mut wish = exact(nodes(1, 8), 1000);
    (wish.preemptible, wish.account) = (false, name("a"));
    let gang = cluster.submit(wish);
    cluster.decide();
    assert_eq!(cluster.start_s(gang), Some(0));
    (cluster, gang)
}

#[test]
fn quota_on_which_a_job_runs_that_may_not_be_stopped_is_not_given_to_others() {
    let (mut cluster, gang) = firm();
    let lowered = |document: Organisation| Declaration { organisation: Some(Arc::new(document)), ..nothing() };
    let text = refused(declare(&mut cluster, lowered(organisation(&[("b", 12), ("a", 4)]))));
    assert_eq!(
        text,
        format!(
            "account[1].quota.H100: 4 H100 would be owed to others while jobs of `a` are on them that may not be \
             stopped ({}); wait for those jobs, cancel them, or let less be owed",
            gang.job
        )
    );
    let text = refused(declare(&mut cluster, lowered(organisation(&[("b", 16)]))));
    assert!(text.starts_with("account[0].quota.H100: 8 H100 would be owed"), "an account that is left out: {text}");
    // By the account alone, too.
    let one = ConfigChange::Organisation(Arc::new(organisation(&[("a", 4), ("b", 12)])));
    assert!(refused(cluster.commit(configure(one))).contains("may not be stopped"));
    // What nobody is owed is enough for it, and so is what it finds in an account above.
    done(declare(&mut cluster, lowered(organisation(&[("a", 4), ("b", 8)]))));
    let tree = |top, parent| Organisation {
        accounts: vec![account("top", None, top), account("a", parent, 8 - top), account("b", None, 8)],
        queues: Vec::new(),
        prices: Vec::new(),
    };
    for document in [tree(0, Some("top")), tree(8, Some("top")), tree(0, Some("top")), tree(0, None)] {
        done(declare(&mut cluster, lowered(document)));
    }
    // From under the account that owned it.
    done(declare(&mut cluster, lowered(tree(8, Some("top")))));
    let text = refused(declare(&mut cluster, lowered(tree(8, None))));
    assert!(text.starts_with("account[1].quota.H100: 8 H100 would be owed"), "{text}");
}

#[test]
fn nobody_is_promised_what_jobs_hold_that_may_not_be_stopped() {
    let mut cluster = Cluster::new(Policy { order: Order::Fifo, ..Policy::default() });
    cluster.nodes(2, 8);
    let with = |owed: &[(&str, u32)]| Declaration { organisation: Some(Arc::new(organisation(owed))), ..nothing() };
    done(declare(&mut cluster, with(&[("a", 4), ("b", 4)])));
    for _ in 0..3 {
        let mut wish = exact(nodes(1, 4), 1000);
        (wish.preemptible, wish.account) = (false, name("a"));
        cluster.submit(wish);
    }
    cluster.decide();
    // Of the sixteen `a` holds four of its own and eight of nobody's.
    let text = refused(declare(&mut cluster, with(&[("a", 4), ("b", 12)])));
    assert!(text.starts_with("account[0].quota.H100: 8 H100 would be owed to others while jobs of `a`"), "{text}");
    done(declare(&mut cluster, with(&[("a", 12), ("b", 4)])));
    cluster.run();
    done(declare(&mut cluster, with(&[("a", 4), ("b", 12)])));
}

#[test]
fn an_account_goes_together_with_what_was_declared_for_it() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.nodes(2, 8);
    let of = |owed: &[(&str, u32)], windows| Declaration {
        organisation: Some(Arc::new(organisation(owed))),
        windows: Some(windows),
        ..nothing()
    };
    let kept = MakeWindow { holders: Holders::Account(name("a")), ..window("w", "n00", (100, 200)) };
    done(declare(&mut cluster, of(&[("a", 4), ("b", 4)], vec![kept.clone()])));
    let other = MakeWindow { holders: Holders::Account(name("b")), ..kept };
    done(declare(&mut cluster, of(&[("b", 4)], vec![other])));
    done(declare(&mut cluster, of(&[("c", 4)], Vec::new())));
    assert!(cluster.player.state.windows().is_empty());
}

#[test]
fn a_part_ends_no_reservation_and_nodes_that_are_named_go_first() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.nodes(2, 8);
    let with = |windows, whole| Declaration { windows: Some(windows), whole, ..nothing() };
    let counted = MakeWindow {
        nodes: Which::Some { nodes: 1, model: None, level: None },
        ..window("counted", "n00", (100, 200))
    };
    done(declare(&mut cluster, with(vec![counted, window("named", "n00", (100, 200))], true)));
    let nodes = |cluster: &Cluster, called| cluster.player.state.windows().named(&name(called)).unwrap().nodes.clone();
    assert_eq!((nodes(&cluster, "counted"), nodes(&cluster, "named")), (vec![name("n01")], vec![name("n00")]));
    done(declare(&mut cluster, with(vec![window("named", "n00", (100, 300))], false)));
    let state = &cluster.player.state;
    assert_eq!(state.windows().named(&name("named")).unwrap().end, Time(300_000));
    assert!(state.windows().named(&name("counted")).is_some(), "another part may have it");
}

#[test]
fn what_may_be_stopped_is_in_nobodys_way() {
    let mut cluster = Cluster::new(Policy { order: Order::Fifo, ..Policy::default() });
    cluster.nodes(2, 8);
    let with = |document| Declaration { organisation: Some(Arc::new(document)), ..nothing() };
    done(declare(&mut cluster, with(organisation(&[("a", 8), ("b", 8)]))));
    let mut wish = exact(nodes(1, 8), 1000);
    wish.account = name("a");
    cluster.submit(wish);
    cluster.decide();
    done(declare(&mut cluster, with(organisation(&[("a", 4), ("b", 12)]))));
}

#[test]
fn below_the_feature_level_nothing_is_declared() {
    for change in [ConfigChange::Declare(Box::new(nothing())), ConfigChange::RollBack { version: 1, made_from: None }] {
        // A state that has not been told its cluster yet is at no level at all.
        let entry = Entry { index: 1, term: 1, at: Time(1), command: configure(change) };
        let response = apply(&mut State::default(), &entry).response;
        assert_eq!(response, Response::Refused(Refusal::FeatureLevel { level: 0, needed: DECLARE_LEVEL }));
    }
}
