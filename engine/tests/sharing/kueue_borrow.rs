//! Kueue's borrowing and lending, on the numbers of its own documents (peers: kubernetes-sigs/kueue,
//! concepts/cluster_queue.md, "Borrowing example", "BorrowingLimit", "LendingLimit"; KEP-79, stories 1 and 2). Their CPUs
//! are GPUs here. The formula itself is tried against its definition where it is written, in `plan::quota`.

use crate::plan_support;
use crate::taking_support;

use muster_engine::organisation::Account;
use muster_engine::policy::{Policy, Reclaim, Taking};
use plan_support::nodes;
use taking_support::*;

/// How many single GPUs an account gets for itself, of three machines, while nobody else asks.
fn most(accounts: &[Account], devices: usize, asks: &str) -> usize {
    let reclaim = Reclaim { on: false, ..Reclaim::default() };
    let mut cluster = Cluster::new(Policy { taking: Taking { reclaim, ..Taking::default() }, ..Policy::default() });
    cluster.racks(1, 3, devices);
    cluster.organise(accounts.to_vec());
    let one = || charged(forever(nodes(1, 1)), asks);
    let gangs: Vec<_> = (0..=3 * devices).map(|_| cluster.only_submit(one())).collect();
    cluster.decide();
    gangs.into_iter().filter(|gang| cluster.runs(*gang)).count()
}

/// `team-a` owns 9 and `team-b` 12.
fn teams(borrow_a: Option<u32>, lend_b: Option<u32>) -> (usize, usize) {
    let both = [account("team-a", None, (9, borrow_a, None)), account("team-b", None, (12, None, lend_b))];
    (most(&both, 7, "team-a"), most(&both, 7, "team-b"))
}

#[test]
fn kueue_a_queue_borrows_all_that_its_cohort_does_not_use() {
    assert_eq!(teams(None, None), (12 + 9, 12 + 9));
}

#[test]
fn kueue_a_borrowing_limit_of_one_is_nine_and_one() {
    assert_eq!(teams(Some(1), None), (9 + 1, 12 + 9));
    assert_eq!(teams(Some(0), None), (9, 12 + 9));
}

#[test]
fn kueue_a_lending_limit_of_one_is_nine_and_one_too() {
    assert_eq!(teams(None, Some(1)), (9 + 1, 12 + 9));
    assert_eq!(teams(None, Some(0)), (9, 12 + 9));
}

/// Research may not borrow from production, which may borrow from research.
#[test]
fn kep_79_story_1_one_organisation_borrows_from_the_other_and_not_the_other_way_round() {
    let all = [
        account("research", None, (0, Some(0), None)),
        account("vision", Some("research"), (8, None, None)),
        account("nlp", Some("research"), (8, None, None)),
        account("production", None, (0, None, None)),
        account("search", Some("production"), (8, None, None)),
    ];
    assert_eq!((most(&all, 8, "vision"), most(&all, 8, "search")), (16, 24));
    // Or production lends nothing, which comes to the same.
    let mut lends_nothing = all;
    lends_nothing[0] = account("research", None, (0, None, None));
    lends_nothing[3] = account("production", None, (0, None, Some(0)));
    assert_eq!((most(&lends_nothing, 8, "vision"), most(&lends_nothing, 8, "search")), (16, 24));
}

/// No organisation borrows; a queue without anything of its own takes what any of them leaves.
#[test]
fn kep_79_story_2_a_special_queue_has_what_nobody_uses() {
    let all = [
        account("org-a", None, (0, Some(0), None)),
        account("a", Some("org-a"), (12, None, None)),
        account("org-b", None, (0, Some(0), None)),
        account("b", Some("org-b"), (12, None, None)),
        account("special", None, (0, None, None)),
    ];
    assert_eq!(["a", "b", "special"].map(|asks| most(&all, 8, asks)), [12, 12, 24]);
}
