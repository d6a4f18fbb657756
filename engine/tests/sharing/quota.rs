//! Quota: borrowing, lending, and taking back what was lent.

use crate::plan_support;
use crate::taking_support;

use muster_common::GangId;
use muster_common::topology::TopologyMode::Required;
use muster_engine::command::{Cancel, Command, Principal, StopFor};
use muster_engine::organisation::CellQuota;
use muster_engine::plan::explain::Reason;
use muster_engine::policy::{Policy, Preempt, Reclaim, Taking};
use muster_engine::state::reservation::ReservationKind;
use plan_support::{inventory, name, nodes, total, within};
use taking_support::*;

/// Two accounts of 16 H100 each on four nodes of 8.
fn two(policy: Policy) -> Cluster {
    let mut cluster = Cluster::new(policy);
    cluster.racks(2, 2, 8);
    cluster.organise(vec![account("red", None, (16, None, None)), account("blue", None, (16, None, None))]);
    cluster
}

fn one(account: &str) -> muster_common::job::Scheduling {
    charged(forever(nodes(1, 8)), account)
}

#[test]
fn idle_quota_is_lent_up_to_what_the_borrower_may_and_the_lender_allows() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.racks(2, 2, 8);
    cluster.organise(vec![account("red", None, (16, Some(8), None)), account("blue", None, (16, None, None))]);
    let red: Vec<GangId> = (0..4).map(|_| cluster.submit(one("red"))).collect();
    assert_eq!(red.iter().map(|gang| cluster.runs(*gang)).collect::<Vec<_>>(), [true, true, true, false]);
    let why = cluster.why(red[3]);
    assert_eq!(why.blockers[0].reason, Reason::Quota);
    assert!(
        why.blockers[0].detail.contains("account `red` owns 16 H100 and may borrow 8"),
        "{}",
        why.blockers[0].detail
    );

    let mut cluster = Cluster::new(Policy::default());
    cluster.racks(2, 2, 8);
    cluster.organise(vec![account("red", None, (16, None, None)), account("blue", None, (16, None, Some(8)))]);
    let red: Vec<GangId> = (0..4).map(|_| cluster.submit(one("red"))).collect();
    assert_eq!(red.iter().filter(|gang| cluster.runs(**gang)).count(), 3);
    assert_eq!(cluster.why(red[3]).blockers[0].reason, Reason::Quota);
    let blue = cluster.submit(one("blue"));
    assert!(cluster.runs(blue), "what is not lent is there for its owner at once");
}

#[test]
fn an_owner_takes_back_what_it_lent_from_those_who_lose_least() {
    let mut cluster = two(Policy::default());
    let mut red = Vec::new();
    for _ in 0..4 {
        red.push(cluster.submit(one("red")));
        cluster.pass(100);
    }
    let blue = cluster.submit(one("blue"));
    assert!(cluster.runs(blue));
    assert_eq!(cluster.watch.stops.len(), 1);
    assert_eq!((cluster.watch.stops[0].0, cluster.watch.stops[0].2), (red[3], StopFor::Reclaim));
    let second = cluster.submit(one("blue"));
    assert!(cluster.runs(second));
    // Red is at its own now, and blue beyond it would be borrowing: nobody is stopped for that.
    let third = cluster.submit(one("blue"));
    cluster.pass(10_000);
    assert!(!cluster.runs(third));
    assert_eq!(cluster.stopped(), [red[3], red[2]]);
}

#[test]
fn who_is_furthest_beyond_its_own_gives_first_and_nobody_goes_below_it() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.racks(1, 8, 8);
    cluster.organise(vec![
        account("red", None, (16, None, None)),
        account("blue", None, (16, None, None)),
        account("green", None, (32, None, None)),
    ]);
    // Red borrows one node, blue three. Red's are the younger, hence the cheaper.
    let blue: Vec<GangId> = (0..5).map(|_| cluster.submit(one("blue"))).collect();
    cluster.pass(1000);
    let red: Vec<GangId> = (0..3).map(|_| cluster.submit(one("red"))).collect();
    cluster.pass(10);
    (0..4).for_each(|_| assert!(cluster.submit(one("green")) != red[0]));
    let stopped = cluster.stopped();
    let of = |all: &[GangId]| stopped.iter().filter(|gang| all.contains(gang)).count();
    assert_eq!((of(&blue), of(&red)), (3, 1));
    assert!(blue.contains(&stopped[0]) && blue.contains(&stopped[1]), "{stopped:?}");
}

/// Blue is two nodes beyond its own and red one. Of three times the weight, blue is less far beyond it than red.
#[test]
fn how_far_an_account_is_beyond_its_own_is_against_its_weight() {
    for (weight, gives_first) in [(1, "blue"), (3, "red")] {
        let mut cluster = Cluster::new(Policy::default());
        cluster.racks(1, 7, 8);
        let mut blue = account("blue", None, (16, None, None));
        blue.weight = weight;
        let owners =
            ["red", "green"].map(|owner| account(owner, None, (if owner == "red" { 16 } else { 24 }, None, None)));
        cluster.organise(owners.into_iter().chain([blue]).collect());
        let of: Vec<(&str, GangId)> = ["blue", "blue", "blue", "blue", "red", "red", "red"]
            .map(|owner| (owner, cluster.submit(one(owner))))
            .into();
        assert!(of.iter().all(|(_, gang)| cluster.runs(*gang)));
        let green = cluster.submit(one("green"));
        assert!(cluster.runs(green));
        let gave: Vec<&str> = of.iter().filter(|(_, gang)| !cluster.runs(*gang)).map(|(owner, _)| *owner).collect();
        assert_eq!(gave, [gives_first], "weight {weight}");
    }
}

/// One job has been stopped for a higher class, which is all that may be in an hour, and in that job's life.
#[test]
fn what_priority_has_used_up_limits_neither_quota_nor_cells() {
    for (shaped, why) in [(false, StopFor::Reclaim), (true, StopFor::Guarantee)] {
        let mut cluster =
            Cluster::new(with(Preempt { per_hour: 1, per_victim: 1, settle_ms: 0, ..Preempt::default() }));
        cluster.racks(1, 3, 8);
        let mut red = account("red", None, (24, None, None));
        if shaped {
            red.reclaim_within_ms = Some(120_000);
            red.cells = vec![CellQuota { model: name("H100"), level: name("node"), nodes: 1, gpus: 8, number: 3 }];
        }
        cluster.organise(vec![red, account("blue", None, (0, None, None))]);
        let blue: Vec<GangId> = (0..3).map(|_| cluster.submit(class(one("blue"), "low"))).collect();
        let [high, other] = [0, 1].map(|_| cluster.submit(class(one("blue"), "high")));
        assert!(cluster.runs(high) && !cluster.runs(other), "one in an hour");
        for gang in [high, other] {
            let by = Principal("op".into());
            cluster.commit(Command::Cancel(Cancel { job: gang.job, ordinal: None, reason: String::new(), by }));
        }
        cluster.pass(10);
        assert!(blue.iter().all(|gang| cluster.runs(*gang)), "all three again");
        let red: Vec<GangId> = (0..3).map(|_| cluster.submit(one("red"))).collect();
        assert!(red.iter().all(|gang| cluster.runs(*gang)), "{why:?}");
        let whys: Vec<StopFor> = cluster.watch.stops.iter().map(|stop| stop.2).collect();
        assert_eq!(whys, [StopFor::Priority, why, why, why]);
        assert!(cluster.stopped()[1..].contains(&cluster.stopped()[0]), "the same once more");
    }
}

#[test]
fn quota_is_given_back_inside_one_domain_if_that_is_what_its_owner_needs() {
    let mut cluster = two(Policy::default());
    (0..4).for_each(|_| assert!(cluster.submit(one("red")).job.0 > 0));
    cluster.pass(10);
    let blue = cluster.submit(within(charged(forever(nodes(2, 8)), "blue"), "rack", Required, 1));
    assert!(cluster.runs(blue));
    assert_eq!(cluster.stopped().len(), 2);
}

#[test]
fn what_may_not_be_stopped_does_not_borrow() {
    let mut cluster = two(Policy::default());
    let mut firm = charged(forever(nodes(1, 8)), "red");
    firm.preemptible = false;
    let red: Vec<GangId> = (0..3).map(|_| cluster.submit(firm.clone())).collect();
    assert_eq!(red.iter().filter(|gang| cluster.runs(**gang)).count(), 2);
    let why = cluster.why(red[2]);
    assert_eq!(why.blockers[0].reason, Reason::Quota);
    assert!(why.blockers[0].detail.contains("may not be stopped"), "{}", why.blockers[0].detail);
    // So its owner has all of it whenever it wants.
    let blue = cluster.submit(charged(forever(nodes(2, 8)), "blue"));
    assert!(cluster.runs(blue));
}

#[test]
fn a_model_without_quota_left_is_passed_over_for_another() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.racks(1, 1, 8);
    cluster.node("a", inventory("A100", 8, &["r0"]));
    cluster.organise(vec![account("red", None, (0, Some(0), None)), account("blue", None, (8, None, None))]);
    let mut either = charged(forever(nodes(1, 8)), "red");
    either.groups[0].models = vec![plan_support::name("H100"), plan_support::name("A100")];
    let red = cluster.submit(either);
    assert!(cluster.runs(red), "its account may have A100, which nobody owns");
    let any = cluster.submit(charged(forever(total(4)), "red"));
    assert!(!cluster.runs(any));
    assert_eq!(cluster.why(any).blockers[0].reason, Reason::Quota);
}

#[test]
fn a_higher_class_stops_nobody_of_another_account_that_is_within_its_own() {
    let mut cluster = two(with(Preempt::default()));
    (0..2).for_each(|_| assert!(cluster.submit(class(one("blue"), "low")).job.0 > 0));
    (0..2).for_each(|_| assert!(cluster.submit(class(one("red"), "low")).job.0 > 0));
    let high = cluster.submit(class(one("red"), "high"));
    assert!(cluster.runs(high));
    let high = cluster.submit(class(charged(forever(nodes(3, 8)), "red"), "high"));
    assert!(!cluster.runs(high));
    assert_eq!(cluster.stopped().len(), 1);
}

#[test]
fn reclaim_can_be_turned_off_and_spares_the_young() {
    let reclaim = Reclaim { on: false, ..Reclaim::default() };
    let mut cluster = two(Policy { taking: Taking { reclaim, ..Taking::default() }, ..Policy::default() });
    (0..4).for_each(|_| assert!(cluster.submit(one("red")).job.0 > 0));
    let blue = cluster.submit(one("blue"));
    assert!(!cluster.runs(blue));

    let reclaim = Reclaim { min_run_ms: 60_000, ..Reclaim::default() };
    let mut cluster = two(Policy { taking: Taking { reclaim, ..Taking::default() }, ..Policy::default() });
    (0..4).for_each(|_| assert!(cluster.submit(one("red")).job.0 > 0));
    let blue = cluster.submit(one("blue"));
    assert!(!cluster.runs(blue));
    cluster.pass(61);
    assert!(cluster.runs(blue));
}

#[test]
fn quota_is_free_only_when_what_held_it_is_proven_gone_and_goes_to_who_took_it_back() {
    let mut cluster = two(Policy::default());
    cluster.watch.release_ms = 30_000;
    let red: Vec<GangId> = (0..4).map(|_| cluster.submit(one("red"))).collect();
    cluster.pass(10);
    let blue = cluster.submit(charged(forever(nodes(2, 8)), "blue"));
    assert!(cluster.kept(blue, ReservationKind::Victims).is_some());
    assert_eq!(cluster.stopped().len(), 2);
    // Others of red would fit its own by name, but what leaves still counts until it is gone.
    let more = cluster.submit(one("red"));
    cluster.pass(20);
    assert!(!cluster.runs(more) && !cluster.runs(blue));
    cluster.pass(15);
    assert!(cluster.runs(blue) && !cluster.runs(more));
    assert_eq!(red.iter().filter(|gang| cluster.runs(**gang)).count(), 2);
}

#[test]
fn accounts_below_one_share_what_it_owns_before_they_borrow() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.racks(2, 2, 8);
    cluster.organise(vec![
        account("org", None, (16, Some(0), None)),
        account("nlp", Some("org"), (8, None, None)),
        account("vision", Some("org"), (0, None, None)),
        account("other", None, (8, None, None)),
    ]);
    let vision: Vec<GangId> = (0..4).map(|_| cluster.submit(one("vision"))).collect();
    assert_eq!(
        vision.iter().filter(|gang| cluster.runs(**gang)).count(),
        3,
        "no more than the whole organisation owns"
    );
    let nlp = cluster.submit(one("nlp"));
    assert!(cluster.runs(nlp));
    assert_eq!(cluster.stopped().len(), 1, "devices were free; the quota for them was not");
    let second = cluster.submit(one("nlp"));
    assert!(!cluster.runs(second), "beyond its own it would borrow from its organisation, which has no more");
}

/// Machines are free, but what is lent of them is only had back by stopping somebody on others.
#[test]
fn an_owner_gets_its_quota_back_though_it_takes_none_of_the_machines() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.racks(1, 6, 8);
    cluster.organise(vec![
        account("red", None, (16, None, Some(0))),
        account("blue", None, (24, None, None)),
        account("green", None, (8, None, None)),
    ]);
    let green = cluster.submit(charged(forever(nodes(2, 8)), "green"));
    let blue = cluster.submit(charged(forever(nodes(3, 8)), "blue"));
    assert!(cluster.runs(blue));
    assert_eq!(cluster.stopped(), [green]);
}

/// They wait for one machine whose work may not be stopped, and each looks in vain for somebody to stop.
#[test]
fn many_for_whom_nobody_can_be_stopped_do_not_keep_an_owner_from_its_own() {
    let mut cluster = two(Policy::default());
    let mut firm = one("red");
    firm.preemptible = false;
    let firm = cluster.submit(firm);
    let only = cluster.nodes_of(firm)[0];
    let others = cluster.player.state.nodes().values().filter(|node| node.id != only);
    let others: Vec<_> = others.map(|node| node.name.clone()).collect();
    (0..3).for_each(|_| _ = cluster.submit(one("red")));
    let picky = |at: u64| {
        let mut wish = one("blue");
        wish.groups[0].exclude = others.clone();
        // Each asks for something else: of those that ask for the same only the first is looked at.
        wish.groups[0].memory_bytes_per_node = Some(at);
        wish
    };
    (0..12).for_each(|at| _ = cluster.submit(picky(at)));
    let easy = cluster.submit(one("blue"));
    assert!(cluster.runs(easy));
}

/// Its account's cancelled job takes ten minutes to leave, and until then it is beyond what it may have: those who could go
/// at once would leave what it cannot use, begin there again, and be stopped again.
#[test]
fn nobody_is_stopped_for_who_has_to_wait_for_its_own_account_s_work_to_leave() {
    let mut cluster = Cluster::new(Policy::default());
    cluster.racks(4, 1, 8);
    let accounts = [("red", 16, Some(0)), ("blue", 8, None), ("other", 8, None)];
    cluster.organise(accounts.map(|(name, nominal, borrow)| account(name, None, (nominal, borrow, None))).into());
    let leaves = cluster.submit(one("red"));
    let blue: Vec<GangId> = (0..3).map(|_| cluster.submit(one("blue"))).collect();
    assert!(blue.iter().all(|gang| cluster.runs(*gang)), "two of them on what is lent");
    cluster.watch.release_ms = 600_000;
    let by = Principal("test".into());
    cluster.commit(Command::Cancel(Cancel { job: leaves.job, ordinal: None, reason: "test".into(), by }));
    cluster.watch.release_ms = 0;
    let (first, second) = (cluster.submit(one("red")), cluster.submit(one("red")));
    assert_eq!((cluster.stopped().len(), cluster.runs(first), cluster.runs(second)), (1, true, false));
    let why: Vec<Reason> = cluster.why(second).blockers.iter().map(|known| known.reason).collect();
    assert_eq!(why[0], Reason::Quota);
    cluster.pass(590);
    assert_eq!(cluster.stopped().len(), 1);
    cluster.pass(11);
    assert_eq!((cluster.stopped().len(), cluster.runs(first), cluster.runs(second)), (1, true, true));
}
