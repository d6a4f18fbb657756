//! Advance reservations: nobody starts into one that is not its own, each ends by itself, and what
//! cannot be is refused with what to do.

use crate::plan_support;

use muster_common::job::Scheduling;
use muster_common::{JobId, NodeId, Time};
use muster_engine::apply::WINDOWS_LEVEL;
use muster_engine::command::{Command, NodeAction, Which};
use muster_engine::outcome::{Crossing, Event, Refusal, Response};
use muster_engine::plan::explain::Reason;
use muster_engine::policy::{Policy, Preempt, Replan, Taking};
use muster_engine::remedy::remedies;
use muster_engine::state::window::Holders;
use muster_engine::{Entry, State, apply};
use plan_support::windows::{
    asked, by, charging, fifo, lasting, limited, maintain, make, named, organisation, organise, refused, why,
};
use plan_support::*;
use std::collections::BTreeSet;

#[test]
fn what_would_run_into_maintenance_waits_and_what_ends_before_runs() {
    for depth in [0, 1, 4] {
        let mut cluster = Cluster::new(fifo(depth));
        cluster.nodes(2, 8);
        let made = maintain(&mut cluster, "firmware", (1000, 5000), Which::All);
        assert!(matches!(&made.events[..], [Event::WindowMade { nodes: 2, by, .. }] if *by == self::by()));
        let long = cluster.submit(lasting(job(nodes(1, 8)), 2000));
        let endless = cluster.submit(job(nodes(1, 8)));
        let short = cluster.submit(lasting(job(nodes(1, 8)), 1000));
        cluster.decide();
        assert_eq!([long, endless, short].map(|gang| cluster.start_s(gang)), [None, None, Some(0)], "depth {depth}");
        let told = why(&cluster.player.state, long);
        assert_eq!(told.blockers[0].reason, Reason::Reserved, "{told:?}");
        assert_eq!(told.blockers[0].until, Some(Time(5_000_000)));
        assert_eq!(
            told.blockers[0].detail,
            "with its time limit of 33m it would run into firmware (nobody, from 16m on, for 1h6m), and without the \
             2 nodes kept there is no room for it"
        );
        let hint = told.blockers[0].hint.as_deref();
        assert_eq!(hint, Some("give a time limit of at most 16m, if it can do with that"));
        assert!(why(&cluster.player.state, endless).blockers[0].detail.starts_with("having no time limit, it would"));
        cluster.run();
        assert_eq!([long, endless].map(|gang| cluster.start_s(gang)), [Some(5000); 2], "depth {depth}");
        assert!(cluster.player.state.windows().is_empty(), "it has ended by itself");
    }
}

#[test]
fn the_limit_counts_and_not_the_run_that_is_expected() {
    for depth in [0, 1, 4] {
        let mut cluster = Cluster::new(fifo(depth));
        let all = cluster.nodes(2, 8);
        maintain(&mut cluster, "firmware", (1000, 5000), named(&["n00"]));
        let mut wish = limited(job(nodes(1, 8)), 100, 3000);
        wish.limits.exact_ms = None;
        wish.limits.expected_ms = Some(100_000);
        let gangs = [wish.clone(), wish].map(|wish| cluster.submit(wish));
        cluster.decide();
        assert_eq!(gangs.map(|gang| cluster.start_s(gang)), [Some(0), None], "depth {depth}");
        assert_eq!(cluster.held(gangs[0])[0].0, all[1], "the node that nobody has put aside");
    }
}

#[test]
fn what_ends_in_time_is_booked_before_a_window_and_what_does_not_behind() {
    let mut cluster = Cluster::new(fifo(8));
    cluster.nodes(1, 8);
    cluster.submit(lasting(job(nodes(1, 8)), 100));
    cluster.decide();
    maintain(&mut cluster, "firmware", (1000, 5000), Which::All);
    let long = cluster.submit(lasting(job(nodes(1, 8)), 2000));
    let short = cluster.submit(lasting(job(nodes(1, 8)), 500));
    cluster.decide();
    let start = |gang| cluster.player.state.reservations().get(&gang).map(|known| known.start.0 / 1000);
    assert_eq!([long, short].map(start), [Some(5000), Some(100)]);
    cluster.run();
    assert_eq!([long, short].map(|gang| cluster.start_s(gang)), [Some(5000), Some(100)]);
}

#[test]
fn several_groups_are_booked_before_a_window_that_they_do_not_reach() {
    let mut cluster = Cluster::new(fifo(4));
    cluster.fabric(&["leaf"]);
    for at in 0..4 {
        cluster.node(&format!("n{at}"), inventory("H100", 8, &["a"]));
    }
    cluster.submit(lasting(job(nodes(4, 8)), 100));
    cluster.decide();
    maintain(&mut cluster, "firmware", (100_000, 200_000), Which::All);
    let mut wish = lasting(job(nodes(1, 8)), 300);
    wish.groups.push(wish.groups[0].clone());
    wish.groups[1].name = name("other");
    let gang = cluster.submit(wish);
    cluster.decide();
    assert_eq!(cluster.player.state.reservations()[&gang].start, Time(100_000));
    cluster.run();
    assert_eq!(cluster.start_s(gang), Some(100));
}

#[test]
fn an_accounts_window_is_open_to_its_jobs_and_to_those_below_it() {
    for depth in [0, 1, 4] {
        let mut cluster = Cluster::new(fifo(depth));
        let all = cluster.nodes(2, 8);
        organise(&mut cluster, &[("research", None), ("nlp", Some("research")), ("other", None)]);
        let window = asked("deadline", (100, 5000), named(&["n00", "n01"]), Holders::Account(name("research")));
        make(&mut cluster, window);
        // Of one shape: that the first finds no room says nothing of the others.
        let stranger = cluster.submit(charging(lasting(job(nodes(1, 8)), 500), "other"));
        let own = cluster.submit(charging(lasting(job(nodes(1, 8)), 500), "research"));
        let below = cluster.submit(charging(lasting(job(nodes(1, 8)), 500), "nlp"));
        cluster.decide();
        assert_eq!([stranger, own, below].map(|gang| cluster.start_s(gang)), [None, Some(0), Some(0)]);
        let used: BTreeSet<NodeId> = [own, below].iter().map(|gang| cluster.held(*gang)[0].0).collect();
        assert_eq!(used, all.into_iter().collect(), "depth {depth}");
        let told = why(&cluster.player.state, stranger);
        let reserved = told.blockers.iter().find(|blocker| blocker.reason == Reason::Reserved).unwrap();
        assert!(reserved.detail.contains("deadline (account research, from 1m on, for 1h21m)"), "{}", reserved.detail);
        // Inside, too.
        cluster.submit_at(600, charging(lasting(job(nodes(1, 8)), 5000), "nlp"));
        cluster.run();
        assert_eq!(cluster.start_s(stranger), Some(5000), "depth {depth}");
        let late = cluster.seen.starts.values().flatten().filter(|at| **at == Time(600_000)).count();
        assert_eq!(late, 1, "depth {depth}: a job of the account starts in its window");
    }
}

#[test]
fn named_jobs_have_a_window_of_their_own() {
    let mut cluster = Cluster::new(fifo(1));
    let all = cluster.nodes(1, 8);
    let owner = cluster.submit({
        let mut wish = lasting(job(nodes(1, 8)), 500);
        wish.begin_at_ms = Some(200_000);
        wish
    });
    let jobs = Holders::Jobs(BTreeSet::from([owner.job]));
    make(&mut cluster, asked("demo", (100, 900), named(&["n00"]), jobs));
    let other = cluster.submit(lasting(job(nodes(1, 8)), 150));
    cluster.decide();
    cluster.run();
    assert_eq!([owner, other].map(|gang| cluster.start_s(gang)), [Some(200), Some(900)]);
    assert_eq!(all.len(), 1);
}

#[test]
fn under_refill_nobody_starts_into_a_window_and_the_nodes_serve_until_it_begins() {
    let replan = Replan::Refill { min_run_ms: 0, max_victims_per_cycle: 8 };
    let mut cluster = Cluster::new(Policy { replan, ..fifo(0) });
    cluster.nodes(1, 8);
    maintain(&mut cluster, "firmware", (1000, 5000), Which::All);
    let long = cluster.submit(lasting(job(nodes(1, 8)), 2000));
    let short = cluster.submit(lasting(job(nodes(1, 8)), 900));
    cluster.decide();
    cluster.run();
    assert_eq!([long, short].map(|gang| cluster.start_s(gang)), [Some(5000), Some(0)]);
}

/// On none but one of `n00` to `n03`.
fn only_on(mut wish: Scheduling, on: usize) -> Scheduling {
    wish.groups[0].exclude = (0..4).filter(|at| *at != on).map(|at| name(&format!("n{at:02}"))).collect();
    wish
}

/// Jobs of the lowest class hold two machines; one of the highest comes, which may run for 2000 s.
#[test]
fn room_is_made_where_the_gang_ends_before_a_window_begins() {
    // The windows' beginnings on both machines, and where somebody goes.
    for (begin_s, goes_from) in [
        ([None, None], Some("n00")),
        ([Some(20_000), None], Some("n00")),
        ([Some(1000), None], Some("n01")),
        ([Some(1000), Some(20_000)], Some("n01")),
        ([Some(1000), Some(1500)], None),
    ] {
        let taking = Taking { preempt: Some(Preempt::default()), ..Taking::default() };
        let mut cluster = Cluster::new(Policy { taking, ..fifo(1) });
        let all = cluster.nodes(2, 8);
        let class = |mut wish: Scheduling, class: &str| {
            wish.class = name(class);
            wish
        };
        for at in [0, 1] {
            cluster.submit(class(only_on(job(nodes(1, 8)), at), "low"));
        }
        cluster.decide();
        for (at, begin_s) in begin_s.iter().enumerate() {
            if let Some(begin_s) = begin_s {
                let node = format!("n{at:02}");
                maintain(&mut cluster, &format!("w{at}"), (*begin_s, begin_s + 1000), named(&[&node]));
            }
        }
        let high = cluster.submit(class(lasting(job(nodes(1, 8)), 2000), "high"));
        cluster.decide();
        while cluster.start_s(high).is_none() && cluster.player.step(&mut cluster.seen).unwrap() {}
        match goes_from {
            Some(node) => {
                assert_eq!(cluster.held(high)[0].0, all[usize::from(node == "n01")], "{begin_s:?}");
                assert_eq!(cluster.start_s(high), Some(0), "{begin_s:?}");
            }
            None => assert!(cluster.start_s(high) >= Some(2000), "once the first is over: {begin_s:?}"),
        }
    }
}

/// A gang of three machines is to start in 100 s on the two that are taken and on `n02`; `n03` is free as well. A filler
/// wants `n02`.
#[test]
fn a_booked_gang_gives_way_within_its_own_windows_and_not_into_those_of_others() {
    for (holders, booked_for, filler_of, gives_way) in [
        (None, "team", "team", true),
        (Some(Holders::Nobody), "team", "team", false),
        (Some(Holders::Account(name("team"))), "team", "other", true),
        // What is open to the filler is not therefore open to those that it pushes aside.
        (Some(Holders::Account(name("team"))), "other", "team", false),
    ] {
        for depth in [1, 4] {
            let mut policy = fifo(depth);
            policy.backfill.rematch = true;
            let mut cluster = Cluster::new(policy);
            cluster.nodes(4, 4);
            organise(&mut cluster, &[("team", None), ("other", None)]);
            for at in [0, 1] {
                cluster.submit(charging(only_on(lasting(job(nodes(1, 4)), 100), at), "other"));
            }
            cluster.decide();
            if let Some(holders) = holders.clone() {
                make(&mut cluster, asked("w", (150, 900), named(&["n03"]), holders));
            }
            let gang = cluster.submit(charging(lasting(job(nodes(3, 4)), 100), booked_for));
            cluster.decide();
            let filler = cluster.submit(charging(only_on(lasting(job(nodes(1, 4)), 500), 2), filler_of));
            cluster.decide();
            let about = format!("{booked_for} {filler_of} {depth}");
            assert_eq!(cluster.start_s(filler), gives_way.then_some(0), "{about}");
            cluster.run();
            assert_eq!(cluster.start_s(gang), Some(100), "{about}");
        }
    }
}

#[test]
fn a_filler_that_may_overrun_into_a_window_gets_no_booked_devices_there() {
    let mut policy = fifo(4);
    policy.backfill.rematch = true;
    let mut cluster = Cluster::new(policy);
    cluster.nodes(4, 4);
    for at in [0, 1] {
        cluster.submit(only_on(lasting(job(nodes(1, 4)), 100), at));
    }
    cluster.submit(lasting(job(nodes(3, 4)), 100));
    cluster.decide();
    maintain(&mut cluster, "firmware", (1000, 2000), named(&["n02"]));
    let filler = |limit_s: u64| {
        let mut wish = limited(only_on(job(nodes(1, 4)), 2), 200, limit_s);
        wish.limits.exact_ms = None;
        wish.limits.expected_ms = Some(200_000);
        wish
    };
    let [long, short] = [3000, 900].map(|limit_s| cluster.submit(filler(limit_s)));
    cluster.decide();
    assert_eq!([long, short].map(|gang| cluster.start_s(gang)), [None, Some(0)]);
}

/// The model that the gang likes better is put aside.
#[test]
fn under_upgrade_a_better_model_in_a_window_is_nothing_to_wait_for() {
    let replan = Replan::Refill { min_run_ms: 0, max_victims_per_cycle: 8 };
    let taking = Taking { upgrade: true, ..Taking::default() };
    let mut cluster = Cluster::new(Policy { replan, taking, ..fifo(0) });
    cluster.node("good", inventory("H100", 8, &[]));
    let plain = cluster.node("plain", inventory("A100", 8, &[]));
    maintain(&mut cluster, "firmware", (1000, 5000), named(&["good"]));
    let mut wish = lasting(job(nodes(1, 8)), 2000);
    wish.groups[0].models = ["H100", "A100"].map(name).into();
    let gang = cluster.submit(wish);
    cluster.decide();
    assert_eq!(cluster.held(gang)[0].0, plain, "it starts at once, on what it may have");
    cluster.run();
    assert_eq!(cluster.seen.starts[&gang], [Time(0)], "and is not stopped for what it may not have");
}

#[test]
fn who_may_hold_a_node_beyond_the_start_is_told_and_not_stopped() {
    let mut cluster = Cluster::new(fifo(1));
    cluster.nodes(4, 8);
    let [long, short, endless, own] = [
        lasting(job(nodes(1, 8)), 2000),
        lasting(job(nodes(1, 8)), 900),
        job(nodes(1, 8)),
        charging(lasting(job(nodes(1, 8)), 2000), "team"),
    ]
    .map(|wish| cluster.submit(wish));
    cluster.decide();
    let window = asked("team", (1000, 5000), Which::All, Holders::Account(name("team")));
    let Response::WindowMade { crossing, crossing_total, nodes: 4, existing: false, .. } =
        make(&mut cluster, window.clone()).response
    else {
        panic!("it is made")
    };
    let told = [Crossing { gang: long, ends: Some(Time(2_000_000)) }, Crossing { gang: endless, ends: None }];
    assert_eq!((crossing.as_slice(), crossing_total), (told.as_slice(), 2));
    assert!([long, short, endless, own].iter().all(|gang| !cluster.held(*gang).is_empty()), "nobody is stopped");
    assert!(matches!(make(&mut cluster, window).response, Response::WindowMade { existing: true, .. }));
    assert_eq!(cluster.player.state.windows().len(), 1);
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let mut cluster = Cluster::new(fifo(1));
    cluster.fabric(&["pod", "leaf"]);
    for (at, (pod, leaf)) in [("p0", "a"), ("p0", "b"), ("p1", "a")].iter().enumerate() {
        cluster.node(&format!("n0{at}"), inventory("H100", 8, &[pod, leaf]));
    }
    organise(&mut cluster, &[("research", None)]);
    maintain(&mut cluster, "firmware", (1000, 5000), named(&["n01"]));
    let nobody = Holders::Nobody;
    let n00 = || named(&["n00"]);
    let domain = |path: &[&str]| Which::Domain(path.iter().map(|part| name(part)).collect());
    let some = |nodes, level: &str| Which::Some { nodes, model: Some(name("H100")), level: Some(name(level)) };
    let account = Holders::Account(name("reserch"));
    let jobs = Holders::Jobs([JobId(4711)].into());
    for (window, text) in [
        (asked("w", (10, 20), named(&["n0l"]), nobody.clone()), "nodes: there is no node `n0l`; did you mean `n00`?"),
        (
            asked("w", (20, 10), n00(), nobody.clone()),
            "end: the reservation would end before it starts; give a later end, or a duration",
        ),
        (
            asked("w", (0, 400 * 86_400), n00(), nobody.clone()),
            "end: a reservation lasts at most 366 days; make several, one after the other",
        ),
        (
            asked("w", (2000 * 86_400, 2001 * 86_400), n00(), nobody.clone()),
            "start: a reservation begins at most 1830 days ahead",
        ),
        (
            asked("w", (4999, 5001), named(&["n00", "n01"]), nobody.clone()),
            "node n01 is in reservation `firmware` then",
        ),
        (
            asked("firmware", (7000, 8000), n00(), nobody.clone()),
            "there is a reservation `firmware` already, and it is another",
        ),
        (asked("w", (10, 20), named(&[]), nobody.clone()), "nodes: a reservation needs at least one"),
        (asked("w", (10, 20), n00(), account), "account: there is no account `reserch`; did you mean `research`?"),
        (asked("w", (10, 20), n00(), jobs), "job 4711 is not known; it never existed or has ended"),
        (asked("w", (10, 20), n00(), Holders::Jobs(BTreeSet::new())), "jobs: name at least one"),
        (asked("w", (10, 20), domain(&["x"]), nobody.clone()), "domain: no node is in a domain `x`; did you mean `a`?"),
        (
            asked("w", (10, 20), domain(&["a"]), nobody.clone()),
            "domain: `a` may be `p0/a` of network or `p1/a` of network; give more of the path",
        ),
        (
            asked("w", (10, 20), some(2, "laef"), nobody.clone()),
            "within: there is no level `laef`; did you mean `leaf`?",
        ),
        (
            asked("w", (10, 20), some(2, "leaf"), nobody.clone()),
            "nodes: 2 open nodes with H100 in one domain of level `leaf` are not to be had then; there are at most 1",
        ),
    ] {
        assert_eq!(refused(&mut cluster, window), text);
    }
    // One after the other they stand.
    maintain(&mut cluster, "later", (5000, 6000), domain(&["p0", "b"]));
    maintain(&mut cluster, "pod", (10, 20), domain(&["p0"]));
    let nodes = |called: &str| cluster.player.state.windows().named(&name(called)).unwrap().nodes.clone();
    assert_eq!((nodes("later"), nodes("pod")), (vec![name("n01")], vec![name("n00"), name("n01")]));
}

#[test]
fn so_many_of_a_model_are_chosen_where_they_disturb_least() {
    let mut cluster = Cluster::new(fifo(1));
    cluster.fabric(&["leaf"]);
    for (at, (leaf, model)) in
        [("a", "H100"), ("a", "H100"), ("b", "H100"), ("b", "A100"), ("c", "H100"), ("c", "H100")].iter().enumerate()
    {
        cluster.node(&format!("n0{at}"), inventory(model, 8, &[leaf]));
    }
    let mut wish = lasting(job(nodes(1, 8)), 2000);
    wish.groups[0].exclude = ["n00", "n02", "n03", "n04", "n05"].map(name).into();
    cluster.submit(wish);
    cluster.decide();
    let some = Which::Some { nodes: 2, model: Some(name("H100")), level: Some(name("leaf")) };
    maintain(&mut cluster, "two", (1000, 5000), some);
    let chosen = &cluster.player.state.windows().named(&name("two")).unwrap().nodes;
    assert_eq!(*chosen, [name("n04"), name("n05")], "not where a job runs on, nor where there are too few");
}

#[test]
fn ended_by_hand_it_keeps_nobody_out() {
    let mut cluster = Cluster::new(fifo(1));
    cluster.nodes(1, 8);
    maintain(&mut cluster, "firmware", (1000, 5000), Which::All);
    let long = cluster.submit(lasting(job(nodes(1, 8)), 2000));
    cluster.decide();
    assert_eq!(cluster.start_s(long), None);
    cluster.seen.lenient = true;
    let wrong = cluster.commit(Command::EndWindow { name: name("firmwear"), by: by() });
    let Response::Refused(refusal @ Refusal::UnknownWindow { .. }) = wrong.response else { panic!("no such one") };
    assert_eq!(refusal.to_string(), "there is no reservation `firmwear`; did you mean `firmware`?");
    let ended = cluster.commit(Command::EndWindow { name: name("firmware"), by: by() });
    assert_eq!(ended.events, [Event::WindowEnded { name: name("firmware"), by: Some(by()) }]);
    assert!(cluster.player.state.timers().all(|(at, _)| at != Time(5_000_000)), "its timer is gone");
    cluster.decide();
    assert_eq!(cluster.start_s(long), Some(0));
}

#[test]
fn a_machine_that_joins_again_is_still_put_aside() {
    let mut cluster = Cluster::new(fifo(1));
    let all = cluster.nodes(1, 8);
    maintain(&mut cluster, "firmware", (0, 5000), Which::All);
    let action = NodeAction::Remove { reason: "broken".into() };
    cluster.commit(Command::NodeAdmin { node: all[0], action, by: by() });
    cluster.decide();
    cluster.node("n00", inventory("H100", 4, &[]));
    let gang = cluster.submit(lasting(job(nodes(1, 4)), 10));
    cluster.run();
    assert_eq!(cluster.start_s(gang), Some(5000));
}

#[test]
fn a_shorter_limit_is_among_what_would_help() {
    let mut cluster = Cluster::new(fifo(1));
    cluster.nodes(1, 8);
    maintain(&mut cluster, "firmware", (7200, 90_000), Which::All);
    let mut wish = job(nodes(1, 8));
    wish.limits.time_ms = Some(4 * 3_600_000);
    let gang = cluster.submit(wish);
    cluster.decide();
    let state = &cluster.player.state;
    let helped = remedies(state, gang, state.now()).unwrap();
    let texts: Vec<&str> = helped.found.iter().map(|remedy| remedy.change.text.as_str()).collect();
    assert!(texts.contains(&"a time limit of 1h59m instead of 4h"), "{texts:?}");
}

#[test]
fn an_account_with_a_window_stays_in_the_organisation() {
    let mut cluster = Cluster::new(fifo(1));
    cluster.nodes(1, 8);
    organise(&mut cluster, &[("research", None), ("other", None)]);
    make(&mut cluster, asked("deadline", (100, 500), Which::All, Holders::Account(name("research"))));
    cluster.seen.lenient = true;
    let outcome = cluster.commit(organisation(&[("other", None)]));
    let Response::Refused(refusal) = outcome.response else { panic!("a promise is broken") };
    assert_eq!(
        refusal.to_string(),
        "account `research` is not in it, and reservation `deadline` is kept for that account; end it first (`muster \
         reservation delete deadline`), or keep the account"
    );
}

#[test]
fn below_the_feature_level_nothing_is_put_aside() {
    let command = Command::MakeWindow(Box::new(asked("w", (1, 2), Which::All, Holders::Nobody)));
    // A state that has not been told its cluster yet is at no level at all.
    let entry = Entry { index: 1, term: 1, at: Time(1), command };
    let response = apply(&mut State::default(), &entry).response;
    assert_eq!(response, Response::Refused(Refusal::FeatureLevel { level: 0, needed: WINDOWS_LEVEL }));
}
