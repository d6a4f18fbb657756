//! Accounts and queues as one replicated document: what is refused and where, versions, going back,
//! and what the document says about jobs.

use crate::support;

use muster_common::calendar::Period;
use muster_common::job::Scheduling;
use muster_common::money::MicroUsd;
use muster_common::{Name, Time};
use muster_engine::command::*;
use muster_engine::organisation::{Account, Budget, Caps, CellQuota, Organisation, Price, Queue, Quota, RULES, User};
use muster_engine::outcome::Refusal;
use muster_engine::{Command, Entry, Response, State, apply};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn account(text: &str, parent: Option<&str>) -> Account {
    Account {
        name: name(text),
        parent: parent.map(name),
        weight: 1,
        priority: 0,
        quota: BTreeMap::new(),
        limits: Caps::default(),
        user_limits: Caps::default(),
        users: BTreeMap::new(),
        cells: Vec::new(),
        budget: None,
        reclaim_within_ms: None,
    }
}

fn queue(text: &str, of: Option<&str>) -> Queue {
    Queue { name: name(text), account: of.map(name), default_time_ms: Some(60_000), max_time_ms: Some(120_000) }
}

fn research() -> Organisation {
    Organisation {
        accounts: vec![account("research", None), account("nlp", Some("research")), account("product", None)],
        queues: vec![queue("batch", Some("nlp")), queue("debug", None)],
        ..Organisation::default()
    }
}

/// `research` may spend so many dollars, and an hour of a GPU costs so many.
fn paying(budget: u64, prices: &[(Option<&str>, u64)]) -> Organisation {
    let usd = |dollars: u64| MicroUsd(dollars * 1_000_000);
    let mut document = research();
    document.accounts[0].budget = Some(Budget { usd: usd(budget), per: Period::Month });
    let price =
        |(model, dollars): &(Option<&str>, u64)| Price { model: model.map(name), usd_per_gpu_hour: usd(*dollars) };
    document.prices = prices.iter().map(price).collect();
    document
}

fn organise(cluster: &mut Cluster, document: Organisation) -> Response {
    let change = Box::new(ConfigChange::Organisation(Arc::new(document)));
    cluster.respond(Command::Configure { change, by: principal() })
}

fn roll_back(cluster: &mut Cluster, version: u32) -> Response {
    let change = Box::new(ConfigChange::RollBackOrganisation { version });
    cluster.respond(Command::Configure { change, by: principal() })
}

fn charged_to(queue: &str, account: &str) -> Scheduling {
    let mut spec = scheduling(1, 1);
    (spec.queue, spec.account) = (name(queue), name(account));
    spec
}

fn try_submit(cluster: &mut Cluster, spec: Scheduling) -> Response {
    let key = format!("key-{}", cluster.state.applied_index());
    cluster.respond(Command::Submit(Box::new(submit(&key, spec))))
}

#[track_caller]
fn refused(response: Response, text: &str) {
    match response {
        Response::Refused(Refusal::Invalid(why)) => assert_eq!(why, text),
        other => panic!("{other:?}"),
    }
}

/// `research` owns four GPUs, as cells by level, nodes, GPUs and number.
fn owning(reclaim_within_ms: Option<u64>, cells: &[(&str, u32, u32, u32)]) -> Organisation {
    let mut document = research();
    let owner = &mut document.accounts[0];
    owner.quota.insert(name("H100"), Quota { nominal: 4, borrow_limit: None, lend_limit: None });
    owner.reclaim_within_ms = reclaim_within_ms;
    let cell = |(level, nodes, gpus, number): &(&str, u32, u32, u32)| CellQuota {
        model: name("H100"),
        level: name(level),
        nodes: *nodes,
        gpus: *gpus,
        number: *number,
    };
    owner.cells = cells.iter().map(cell).collect();
    document
}

/// One document for each rule, and what is said of it.
fn broken() -> Vec<(Organisation, &'static str)> {
    let change = |change: fn(&mut Organisation)| {
        let mut document = research();
        change(&mut document);
        document
    };
    let h100 = || name("H100");
    let quota = |nominal, lend_limit| Quota { nominal, borrow_limit: None, lend_limit };
    let mut owes = research();
    owes.accounts[0].quota.insert(h100(), quota(4, None));
    owes.accounts[1].quota.insert(h100(), quota(3, None));
    let mut lends = research();
    lends.accounts[2].quota.insert(h100(), quota(4, Some(5)));
    let mut deep = Organisation { accounts: vec![account("a0", None)], ..Organisation::default() };
    for n in 1..17 {
        deep.accounts.push(account(&format!("a{n}"), Some(&format!("a{}", n - 1))));
    }
    vec![
        (
            change(|document| document.accounts[2].name = Name::literal("nlp")),
            "account[2].name: account[1] is called `nlp` too; rename one of the two",
        ),
        (
            change(|document| document.accounts[1].parent = Some(Name::literal("reserch"))),
            "account[1].parent: there is no account `reserch`; did you mean `research`? An account at the top has no `parent`",
        ),
        (
            change(|document| document.accounts[0].parent = Some(Name::literal("nlp"))),
            "account[0].parent: `research` is above itself: research -> nlp -> research; give one of them another parent, or none",
        ),
        (deep, "account[16].parent: `a16` is more than 16 levels deep; make the tree flatter"),
        (
            change(|document| document.accounts[0].weight = -1),
            "account[0].weight: a weight of -1; it is between 0 and 1000000",
        ),
        (lends, "account[2].quota.H100.lend_limit: 5 cannot be lent of 4; leave it out to lend all"),
        (
            owes,
            "account[1].quota.H100: with this, 7 H100 are owed and the cluster has 6; lower a `nominal`, or join the nodes first",
        ),
        (
            change(|document| document.accounts[0].user_limits.running = Some(0)),
            "account[0].user_limits.running: a limit of 0; leave it out for no limit",
        ),
        (
            change(|document| document.queues[1].name = Name::literal("batch")),
            "queue[1].name: there are two queues `batch`; rename one",
        ),
        (
            change(|document| document.queues[0].default_time_ms = None),
            "queue[0].default_time_ms: queue `batch` has no default time limit, so nothing could be backfilled around its jobs; give one; jobs may still ask for more or less",
        ),
        (
            change(|document| document.queues[0].account = Some(Name::literal("npl"))),
            "queue[0].account: there is no account `npl`; did you mean `nlp`?",
        ),
        (
            change(|document| document.queues[0].max_time_ms = Some(1)),
            "queue[0].default_time_ms: 60000 is above the queue's max_time_ms, 1; lower the one or raise the other",
        ),
        (
            owning(None, &[("node", 1, 1, 1)]),
            "account[0].reclaim_within_ms: `research` owns cells, and not within which time it has them back; give one, such as 120000 for two minutes",
        ),
        (
            owning(Some(1), &[("node", 1, 2, 3)]),
            "account[0].cells[0]: with these, cells of 6 H100 are owned and `quota.H100.nominal` is 4; cells are the shape of a part of `nominal`: raise it, or own fewer",
        ),
        (
            owning(Some(1), &[("node", 1, 1, 1), ("node", 1, 2, 1)]),
            "account[0].cells[1].gpus: cells of 2 GPUs a node, and of 1 in account[0].cells[0]; cells of one model are of nodes of one size",
        ),
        (
            {
                let mut document = owning(Some(1), &[("rack", 2, 1, 1), ("rack", 3, 1, 1)]);
                document.accounts[0].quota.insert(name("H100"), quota(5, None));
                document
            },
            "account[0].cells[1].nodes: 3 nodes cannot be cut into cells of 2, which are owned at this level too; choose sizes that divide each other, as 2, 4 and 8 do",
        ),
        (
            owning(Some(1), &[("node", 2, 1, 1)]),
            "account[0].cells[0].nodes: 2 nodes cannot be in one node; leave `nodes` out and raise `number`, or name a wider level",
        ),
        (
            paying(1, &[(None, 1), (Some("H100"), 2), (Some("H100"), 3)]),
            "price[2].model: there are two prices for `H100`; keep one of them",
        ),
        (
            paying(1, &[(None, 1_000_001)]),
            "price[0].usd_per_gpu_hour: $1000001.00 for an hour of one GPU; at most $1000000.00 is taken",
        ),
        (
            paying(0, &[(None, 1)]),
            "account[0].budget.usd: a budget of $0.00; it is above 0 and at most $1000000000000.00; leave it out for none",
        ),
        (
            {
                let mut document = research();
                let label = |number: u32| (name(&format!("l{number}")), "x".to_owned());
                document.preemptible_only = (0..17).map(label).collect();
                document
            },
            "preemptible_only: there are 17 labels; at most 16 are taken",
        ),
        (
            change(|document| {
                let labels = [("contract", "spot"), ("site", "a\n")];
                document.preemptible_only = labels.map(|(key, value)| (name(key), value.to_owned())).into();
            }),
            "preemptible_only.site: this is no label's value; it has at most 256 printable bytes",
        ),
        (
            paying(1, &[(Some("H100"), 1)]),
            "account[0].budget: what a GPU without a price of its own costs is not known, so no budget could be kept; add a `[[price]]` without `model`",
        ),
    ]
}

#[test]
fn each_rule_refuses_a_document_that_breaks_it_and_says_where() {
    let broken = broken();
    assert_eq!(broken.len(), RULES.len());
    for (document, text) in broken {
        let mut cluster = Cluster::new(2, 3);
        refused(organise(&mut cluster, document), text);
        assert_eq!(cluster.state.accounts().version(), 0);
    }
}

#[test]
fn a_model_nobody_has_is_refused_with_the_nearest_and_taken_before_any_node_has_joined() {
    let mut document = research();
    let quota = Quota { nominal: 1, borrow_limit: None, lend_limit: None };
    document.accounts[0].quota.insert(name("H10O"), quota);
    let text = "account[0].quota.H10O: no node has a GPU of model `H10O`; did you mean `H100`?";
    refused(organise(&mut Cluster::new(1, 3), document.clone()), text);
    assert_eq!(organise(&mut Cluster::new(0, 0), document), Response::Done);
}

#[test]
fn without_accounts_any_name_is_taken_and_with_them_only_theirs() {
    let mut cluster = Cluster::new(1, 3);
    cluster.submit(charged_to("anything", "anyone"));
    organise(&mut cluster, research());
    refused(
        try_submit(&mut cluster, charged_to("batch", "reserch")),
        "account: there is no account `reserch`; did you mean `research`?",
    );
    refused(
        try_submit(&mut cluster, charged_to("bacth", "nlp")),
        "queue: there is no queue `bacth`; did you mean `batch`?",
    );
    refused(
        try_submit(&mut cluster, charged_to("batch", "finance")),
        "account: there is no account `finance`; there is: nlp, product, research",
    );
    assert!(matches!(try_submit(&mut cluster, charged_to("batch", "product")), Response::Submitted { .. }));
}

#[test]
fn a_queue_gives_the_account_and_the_time_limit_that_a_job_leaves_out() {
    let mut cluster = Cluster::new(1, 3);
    organise(&mut cluster, research());
    let mut spec = charged_to("batch", "default");
    spec.limits.time_ms = None;
    let job = cluster.submit(spec.clone());
    let got = cluster.state.scheduling(cluster.state.job(job).unwrap()).clone();
    assert_eq!((got.account.as_str(), got.limits.time_ms), ("nlp", Some(60_000)));
    spec.limits.time_ms = Some(121_000);
    refused(
        try_submit(&mut cluster, spec),
        "limits.time: queue `batch` takes jobs of at most 120 s; this one has a time limit of 121 s",
    );
    refused(
        try_submit(&mut cluster, charged_to("debug", "default")),
        "account: there is no account `default`; there is: nlp, product, research",
    );
}

#[test]
fn a_job_of_a_name_that_went_away_lives_on_and_can_be_edited() {
    let mut cluster = Cluster::new(1, 3);
    let job = cluster.submit(charged_to("old", "gone"));
    organise(&mut cluster, research());
    let change = cluster.edit_of(job, "r1", |edit| edit.scheduling.limits.wait_ms = Some(1_000_000));
    assert!(matches!(cluster.respond(change), Response::Edited { .. }));
    let change = cluster.edit_of(job, "r2", |edit| edit.scheduling.account = name("reserch"));
    refused(cluster.respond(change), "account: there is no account `reserch`; did you mean `research`?");
    let change = cluster.edit_of(job, "r3", |edit| edit.scheduling.account = name("research"));
    assert!(matches!(cluster.respond(change), Response::Edited { .. }));
}

#[test]
fn a_document_that_was_replaced_can_be_put_in_force_again() {
    let mut cluster = Cluster::new(1, 3);
    refused(
        roll_back(&mut cluster, 1),
        "there is no version 1 of the organisation to go back to; none was replaced yet, 0 is in force",
    );
    organise(&mut cluster, research());
    let other = Organisation { accounts: vec![account("all", None)], ..Organisation::default() };
    organise(&mut cluster, other.clone());
    assert_eq!(roll_back(&mut cluster, 1), Response::Done);
    assert_eq!((cluster.state.accounts().version(), &**cluster.state.accounts().document()), (3, &research()));
    assert_eq!(roll_back(&mut cluster, 2), Response::Done);
    assert_eq!(**cluster.state.accounts().document(), other);
    for _ in 0..20 {
        organise(&mut cluster, research());
    }
    refused(
        roll_back(&mut cluster, 2),
        "there is no version 2 of the organisation to go back to; 8 to 23 are kept, 24 is in force",
    );
}

#[test]
fn a_snapshot_keeps_the_tree_and_the_past() {
    let mut cluster = Cluster::new(1, 3);
    organise(&mut cluster, research());
    organise(&mut cluster, research());
    let restored = State::decode(&cluster.state.encode()).unwrap();
    restored.check().unwrap();
    let accounts = restored.accounts();
    let above: Vec<&str> = accounts.upward(&name("nlp")).map(|account| account.name.as_str()).collect();
    let below: Vec<&str> = accounts.children(Some(&name("research"))).map(|account| account.name.as_str()).collect();
    assert_eq!((above, below, accounts.past().len()), (vec!["nlp", "research"], vec!["nlp"], 2));
}

#[test]
fn a_user_with_a_name_of_nothing_is_refused() {
    let mut document = research();
    document.accounts[0].users.insert(String::new(), User { weight: 1, limits: None });
    let text = "account[0].users.: this is no user's name; it has 1 to 256 characters";
    refused(organise(&mut Cluster::new(1, 3), document), text);
}

#[test]
fn below_the_feature_level_there_are_no_accounts() {
    let change = Box::new(ConfigChange::Organisation(Arc::new(research())));
    let command = Command::Configure { change, by: principal() };
    // A state that has not been told its cluster yet is at no level at all.
    let entry = Entry { index: 1, term: 1, at: Time(1), command };
    let response = apply(&mut State::default(), &entry).response;
    assert_eq!(response, Response::Refused(Refusal::FeatureLevel { level: 0, needed: 3 }));
}
