//! The tree of accounts against its definition.

use super::*;
use proptest::prelude::*;

/// Accounts as (parent, nominal, borrow limit, lend limit) in whole devices; the first is 1.
fn tree(owned: i64, accounts: &[(usize, i64, Option<i64>, Option<i64>)]) -> Quotas {
    let mut quotas = Quotas { models: BTreeMap::from([(Name::literal("H100"), 0)]), ..Quotas::default() };
    let node = |name: String, parent| Node {
        name: Name::new(name).unwrap(),
        parent,
        weight: 1,
        by_model: vec![Line::default()],
        firm: vec![Line { lend: Some(0), ..Line::default() }],
    };
    quotas.accounts.push(node("cluster".into(), CLUSTER));
    for (at, (parent, _, borrow, lend)) in accounts.iter().enumerate() {
        quotas.places.insert(Name::new(format!("a{}", at + 1)).unwrap(), at + 1);
        quotas.accounts.push(node(format!("a{}", at + 1), *parent));
        let line = &mut quotas.accounts[at + 1].by_model[0];
        (line.borrow, line.lend) = (borrow.map(|n| n * DEVICE), lend.map(|n| n * DEVICE));
    }
    quotas.own(CLUSTER, 0, owned * DEVICE);
    accounts.iter().enumerate().for_each(|(at, account)| quotas.own(at + 1, 0, account.1 * DEVICE));
    quotas
}

/// T(x) from the definition, with nothing kept up.
fn by_definition(quotas: &Quotas, at: AccountAt) -> Milli {
    let line = quotas.accounts[at].by_model[0];
    let children = (1..quotas.accounts.len()).filter(|child| quotas.accounts[*child].parent == at);
    let lent = children.map(|child| {
        let left = by_definition(quotas, child);
        quotas.accounts[child].by_model[0].lend.map_or(left, |lend| lend.min(left))
    });
    line.nominal - line.held + lent.sum::<Milli>()
}

fn most(quotas: &Quotas, at: AccountAt) -> i64 {
    (0..=1000).take_while(|devices| quotas.admits(at, 0, false, devices * DEVICE).is_ok()).last().unwrap_or(0)
}

#[test]
fn a_borrow_limit_bounds_what_a_queue_takes_beyond_its_own() {
    // Two queues of 9 and 12 in one cohort; the first may borrow 1.
    let quotas = tree(0, &[(0, 9, Some(1), None), (0, 12, None, None)]);
    assert_eq!((most(&quotas, 1), most(&quotas, 2)), (10, 21));
}

#[test]
fn a_lend_limit_keeps_the_rest_for_its_owner() {
    // The second lends 1 of its 12 (9 + 1 = 10 for the first).
    let mut quotas = tree(0, &[(0, 9, None, None), (0, 12, None, Some(1))]);
    assert_eq!((most(&quotas, 1), most(&quotas, 2)), (10, 21));
    quotas.hold(1, 0, false, 10 * DEVICE);
    assert_eq!((most(&quotas, 1), most(&quotas, 2)), (0, 11));
}

#[test]
fn kep_79_a_cohort_borrows_for_those_in_it_and_no_further_than_its_limit() {
    // cluster(0) -> org(10, borrow 5) -> team(5, borrow 20); sibling at the top owns 20.
    let quotas = tree(0, &[(0, 10, Some(5), None), (1, 5, Some(20), None), (0, 20, None, None)]);
    // team: 5 own + 10 of its org + 5 that the org may borrow.
    assert_eq!(most(&quotas, 2), 20);
    // A lend limit in the middle hides what is below it from the rest.
    let quotas = tree(0, &[(0, 10, None, Some(4)), (1, 5, None, Some(2)), (0, 20, None, None)]);
    assert_eq!(most(&quotas, 3), 24);
    assert_eq!(most(&quotas, 2), 35);
}

#[test]
fn what_nobody_owns_is_everybodys() {
    let quotas = tree(8, &[(0, 4, None, None), (0, 4, Some(0), None)]);
    assert_eq!((most(&quotas, 1), most(&quotas, 2), most(&quotas, CLUSTER)), (16, 4, 16));
}

#[test]
fn what_may_not_be_stopped_is_not_lent_what_others_own() {
    let most_firm =
        |quotas: &Quotas, at| (0..=99).take_while(|n| quotas.admits(at, 0, true, n * DEVICE).is_ok()).last();
    let mut quotas = tree(3, &[(0, 8, None, None), (0, 8, None, None)]);
    assert_eq!((most(&quotas, 1), most_firm(&quotas, 1)), (19, Some(11)));
    // What the owner has lent to others can be had back, so it counts as there.
    quotas.hold(2, 0, false, 11 * DEVICE);
    assert_eq!((most(&quotas, 1), most_firm(&quotas, 1)), (8, Some(8)));
    quotas.hold(1, 0, true, 8 * DEVICE);
    assert_eq!(most_firm(&quotas, 1), Some(0));
}

#[test]
fn a_refusal_names_where_and_how_much() {
    let mut quotas = tree(0, &[(0, 8, Some(2), None), (0, 8, None, None)]);
    quotas.hold(1, 0, false, 8 * DEVICE);
    let short = quotas.admits(1, 0, false, 4 * DEVICE).unwrap_err();
    assert_eq!((short.at.unwrap().as_str(), short.missing, short.held), ("a1", 2 * DEVICE, 8 * DEVICE));
    quotas.hold(2, 0, false, 8 * DEVICE);
    let short = quotas.admits(1, 0, false, DEVICE).unwrap_err();
    assert_eq!((short.at, short.missing), (None, DEVICE));
}

#[test]
fn sides_are_right_below_where_two_accounts_part() {
    let quotas = tree(0, &[(0, 0, None, None), (1, 0, None, None), (1, 0, None, None), (0, 0, None, None)]);
    assert_eq!(quotas.sides(2, 3), Some((2, 3)));
    assert_eq!(quotas.sides(2, 4), Some((1, 4)));
    assert_eq!(quotas.sides(1, 2), None);
    assert_eq!(quotas.sides(2, 2), None);
}

proptest! {
    #[test]
    fn what_is_kept_up_is_what_the_definition_says(
        accounts in proptest::collection::vec(
            (any::<prop::sample::Index>(), 0i64..20, proptest::option::of(0i64..20), proptest::option::of(0i64..20)),
            1..12,
        ),
        held in proptest::collection::vec((any::<prop::sample::Index>(), -5i64..20), 0..40),
        owned in 0i64..30,
    ) {
        let accounts: Vec<_> = accounts
            .into_iter()
            .enumerate()
            .map(|(at, (parent, nominal, borrow, lend))| (parent.index(at + 1), nominal, borrow, lend))
            .collect();
        let mut quotas = tree(owned, &accounts);
        for (at, devices) in held {
            let at = at.index(accounts.len()) + 1;
            // Admission is the formula of every account on the way up, after the fact.
            let mut after = quotas.clone();
            after.hold(at, 0, false, devices * DEVICE);
            let holds = quotas.upward(at).chain([CLUSTER]).all(|up| {
                let floor = if up == CLUSTER { Some(0) } else { quotas.accounts[up].by_model[0].borrow.map(|b| -b) };
                floor.is_none_or(|floor| by_definition(&after, up) >= floor)
            });
            prop_assert_eq!(quotas.admits(at, 0, false, devices * DEVICE).is_ok(), holds);
            quotas = after;
            for up in 0..quotas.accounts.len() {
                prop_assert_eq!(quotas.left(up, 0), by_definition(&quotas, up));
            }
        }
    }
}
