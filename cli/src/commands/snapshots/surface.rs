//! Answers of the commands about plans, queues and edits.

use super::*;

#[test]
fn plan() {
    let part = |node: &str, rank_base: u32| Part {
        node: node.into(),
        state: "PLANNED".into(),
        devices: (0..8)
            .map(|slot| PartDevice { slot, uuid: format!("GPU-{slot}"), model: "H100".into(), milli: 1000 })
            .collect(),
        cpu_milli: 112_000,
        rank_base,
        ranks: 8,
        ..Part::default()
    };
    let planned = |verdict: &str| PlannedJob {
        job: Some(Job { id: 0, key: String::new(), reason: String::new(), reason_text: String::new(), ..queued() }),
        verdict: verdict.into(),
        placement: vec![part("n033", 0), part("n034", 8)],
        ..PlannedJob::default()
    };
    let starts = PlannedJob { gangs_now: 1, notes: vec!["a note".into()], ..planned("starts") };
    let awaited = Awaited {
        gang: "4655".into(),
        name: "pretrain-b".into(),
        user: "alice".into(),
        expected_end_at_ms: Some(NOW + HOUR),
    };
    let waits = PlannedJob {
        start_estimate_at_ms: Some(NOW + HOUR),
        start_latest_at_ms: Some(NOW + 3 * HOUR),
        waits_for: vec![
            awaited,
            Awaited { gang: "4713_3".into(), name: "sweep".into(), user: "bob".into(), ..Awaited::default() },
        ],
        why: Some(why_reply()),
        cost: Some(PlanCost {
            micro_usd_per_hour: Some(256_000_000),
            expected_micro_usd: Some(5_120_000_000),
            at_most_micro_usd: Some(9_216_000_000),
            text: String::new(),
        }),
        ..planned("waits")
    };
    let unknown = PlannedJob {
        estimate_text: "no start can be foreseen: what is ahead has no known end".into(),
        placement: vec![],
        why: Some(why_reply()),
        ..planned("waits")
    };
    let array =
        PlannedJob { job: Some(Job { id: 0, ..sweep() }), gangs_now: 8, placement: vec![], ..planned("starts") };
    let refusal = PlanRefusal {
        code: "NEVER_FITS".into(),
        message: "the job can never start: asks for 64 devices on one node; the largest node has 8".into(),
        hint: "ask for at most 8 devices per node".into(),
        path: "gang.gpus_per_node".into(),
        exit_code: 6,
    };
    let refused = PlannedJob { job: None, refusal: Some(refusal), placement: vec![], ..planned("refused") };
    let delay = Delay {
        gang: "4690".into(),
        name: "eval".into(),
        user: "bob".into(),
        start_before_at_ms: NOW + HOUR,
        start_after_at_ms: Some(NOW + 3 * HOUR),
    };
    let reply = PlanReply {
        jobs: vec![starts, waits, unknown, array, refused],
        delays: vec![delay.clone(), Delay { gang: "4702".into(), start_after_at_ms: None, ..delay }],
        complete: true,
        applied_index: 88_412,
        looked_at_ms: NOW,
        policy: "default@4".into(),
    };
    let files = ["a.toml", "b.toml", "c.toml", "sweep.toml", "giant.toml"].map(str::to_owned);
    check("plan", plan::render(&reply, &files, &STYLE), plan::document(&reply, &files));
    let waits: Vec<bool> = reply.jobs.iter().map(plan::would_wait).collect();
    assert_eq!(waits, [false, true, true, true, true], "what is refused has a code of its own");
    let alone = PlanReply { jobs: reply.jobs[..1].to_vec(), delays: vec![], complete: true, ..reply.clone() };
    check("plan_alone", plan::render(&alone, &files, &STYLE), plan::document(&alone, &files));
    let far = PlannedJob {
        start_estimate_at_ms: Some(NOW + 120 * HOUR),
        start_estimate_coarse: true,
        placement: vec![],
        ..planned("waits")
    };
    let cut = PlanReply { complete: false, jobs: vec![alone.jobs[0].clone(), far], ..alone };
    check("plan_cut_short", plan::render(&cut, &files, &STYLE), plan::document(&cut, &files));
}

#[test]
fn a_plan_tells_no_cause_that_the_server_did_not() {
    let waits = |text: &str| PlannedJob {
        job: Some(queued()),
        verdict: "waits".into(),
        start_estimate_at_ms: Some(NOW + HOUR),
        start_latest_text: text.into(),
        why: Some(WhyReply { start_estimate_at_ms: None, estimate_text: "it is held".into(), ..why_reply() }),
        ..PlannedJob::default()
    };
    let told = |text: &str| {
        let reply = PlanReply { jobs: vec![waits(text)], ..PlanReply::default() };
        plan::render(&reply, &["a.toml".to_owned()], &STYLE)
    };
    let cut = told("too much is ahead to play to the limits");
    assert!(cut.contains("\n         no later bound: too much is ahead to play to the limits\n"), "{cut}");
    assert!(!cut.contains("it is held"), "{cut}");
    let silent = told("");
    assert!(silent.contains("\n         no later bound is known\n"), "{silent}");
}

#[test]
fn an_array_that_runs_in_part_says_why_the_rest_waits() {
    let blocker = Blocker {
        reason: "array-limit".into(),
        text: "2 of the array run already; at most 2 may at once".into(),
        who: Vec::new(),
    };
    let job = Job { state: "RUNNING".into(), array: true, counts: Some(counts(8, 2, 0, 0)), ..queued() };
    let reply = WhyReply { job: Some(job), blockers: vec![blocker], ..why_reply() };
    let told = why::render(&reply, &STYLE);
    assert!(
        told.starts_with("4711 llama-sft is RUNNING; 8 of 10 elements wait, the first for 1h 12m · position 3 of 41"),
        "{told}"
    );
    assert!(told.contains("array-limit") && told.contains("\nStarts  ") && told.contains("\nWould help\n"), "{told}");
    assert!(!told.contains("nothing keeps it"), "{told}");
    let starting = Job { state: "STARTING".into(), ..queued() };
    let blocker = Blocker { reason: "start-pending".into(), ..Blocker::default() };
    let starting = WhyReply { job: Some(starting), blockers: vec![blocker], ..WhyReply::default() };
    let told = why::render(&starting, &STYLE);
    assert!(told.starts_with("4711 llama-sft is STARTING\nBlocked by\n"), "{told}");
}

#[test]
fn an_unknown_start_and_an_unknown_reason_are_said_to_be_so() {
    let reply = WhyReply {
        blockers: Vec::new(),
        start_estimate_at_ms: None,
        estimate_text: "too much is ahead of it to play forward".into(),
        ..why_reply()
    };
    let told = why::render(&reply, &STYLE);
    assert!(told.contains("\nNothing was seen in its way; ask again in a moment\n"), "{told}");
    assert!(told.contains("\nStart unknown: too much is ahead of it to play forward\n"), "{told}");
    let told = why::render(&WhyReply { starts_now: true, ..reply }, &STYLE);
    assert!(told.contains("\nNothing blocks it: it starts in the next cycle\n"), "{told}");
}

#[test]
fn queues() {
    let research = Queue {
        name: "research".into(),
        jobs: 12,
        users: 3,
        gangs_waiting: 41,
        gangs_held: 2,
        gangs_active: 8,
        gpus_waiting: 328,
        gpus_active: 64,
        oldest_wait_since_at_ms: Some(NOW - 72 * MINUTE),
        gpus_waiting_milli: Some(328_250),
        gpus_active_milli: Some(64_500),
    };
    // Of an older server.
    let idle = Queue { name: "default".into(), jobs: 1, users: 1, gangs_active: 1, gpus_active: 8, ..Queue::default() };
    let reply = ListQueuesReply { queues: vec![idle.clone(), research.clone()], ..ListQueuesReply::default() };
    check("queue_ls", queue::ls::render(&reply, &STYLE), queue::ls::document(&reply));
    let racks = OwnedCells {
        account: "vision".into(),
        model: "H100".into(),
        level: "rack".into(),
        nodes: 4,
        gpus_per_node: 8,
        owned: 3,
        in_use: 1,
        obtainable: 1,
        lost: 1,
        reclaim_within_ms: 2 * MINUTE,
    };
    let node = OwnedCells { level: "node".into(), nodes: 1, owned: 8, obtainable: 7, lost: 0, ..racks.clone() };
    let cells = vec![racks, node];
    let monthly = AccountBudget {
        account: "vision".into(),
        budget_micro_usd: 50_000_000_000,
        period: "month".into(),
        spent_micro_usd: 31_204_500_000,
        set_aside_micro_usd: 8_960_000_000,
        since_at_ms: NOW - 12 * 24 * 60 * MINUTE,
        until_at_ms: NOW + 19 * 24 * 60 * MINUTE,
    };
    let budgets = vec![monthly];
    let owned = ListQueuesReply { cells: cells.clone(), budgets: budgets.clone(), ..reply };
    check("queue_ls_cells", queue::ls::render(&owned, &STYLE), queue::ls::document(&owned));
    let none = ListQueuesReply::default();
    check("queue_ls_empty", queue::ls::render(&none, &STYLE), queue::ls::document(&none));
    let first = QueueEntry {
        position: 1,
        job: 4711,
        gangs: 1,
        name: "llama-sft".into(),
        user: "me".into(),
        priority: "high".into(),
        nodes: 16,
        gpus: 128,
        queued_at_ms: NOW - 72 * MINUTE,
        reason: "nodes".into(),
        reason_text: "needs 16 nodes with 8 free devices; 9 have that many".into(),
        start_estimate_at_ms: Some(NOW + 95 * MINUTE),
        ..QueueEntry::default()
    };
    let lane = QueueEntry { position: 3, job: 4713, gangs: 50, array: true, name: "sweep".into(), ..first.clone() };
    let unseen = QueueEntry { position: 5, reason: String::new(), reason_text: String::new(), ..first.clone() };
    let now = QueueEntry { position: 4, start_estimate_at_ms: Some(NOW), ..unseen.clone() };
    let unknown = QueueEntry { position: 6, start_estimate_at_ms: None, ..unseen.clone() };
    let again = QueueEntry { position: 7, ordinal: 3, gangs: 1, start_estimate_at_ms: None, ..lane.clone() };
    let at_ms = Some(NOW + 120 * HOUR);
    let far = QueueEntry { position: 41, start_estimate_at_ms: at_ms, start_estimate_coarse: true, ..lane.clone() };
    let reply = ShowQueueReply {
        queue: Some(research),
        entries: vec![first, lane, now, unseen, unknown, again, far],
        entries_total: 41,
        applied_index: 88_412,
        looked_at_ms: NOW,
        policy: "default@4".into(),
        cells,
        budgets,
    };
    check("queue_show", queue::show::render(&reply, &STYLE), queue::show::document(&reply));
    let idle = ShowQueueReply { queue: Some(idle), ..ShowQueueReply::default() };
    check("queue_show_idle", queue::show::render(&idle, &STYLE), queue::show::document(&idle));
}

#[test]
fn applied() {
    use apply::diff::Change;
    use apply::{Applied, document, history, history_document, render};
    let change = |path: &str, before: Option<&str>, after: Option<&str>| Change {
        path: path.into(),
        before: before.map(str::to_owned),
        after: after.map(str::to_owned),
    };
    let changes = vec![
        change("account.nlp.parent", None, Some("\"research\"")),
        change("account.vision.weight", Some("2"), None),
        change("policy.backfill.reserve_depth", Some("1"), Some("8")),
    ];
    let wished = Applied { source: "cluster/".into(), changes, version: 41, done: false };
    check("apply_dry_run", render(&wished, true), document(&wished, true));
    let done = Applied { version: 42, done: true, ..wished };
    check("apply", render(&done, false), document(&done, false));
    let same = Applied { source: "cluster/".into(), changes: vec![], version: 42, done: false };
    check("apply_same", render(&same, false), document(&same, false));
    let row = |version: u32, source: &str| serde_json::json!({"version": version, "at_ms": NOW - HOUR, "by": "root", "source": source});
    let shown = serde_json::json!({"version": 43, "history": [row(43, "back to 41"), row(41, "cluster/")]});
    check("apply_history", history(&shown, &STYLE), history_document(&shown));
    let none = serde_json::json!({"version": 1, "history": []});
    check("apply_history_empty", history(&none, &STYLE), history_document(&none));
}

#[test]
fn reservations() {
    use reservation::{create, delete, ls, show};
    let crossing = |gang: &str, end: Option<u64>, text: &str| Affected {
        gang: gang.into(),
        name: "llama-sft".into(),
        user: "alice".into(),
        nodes: 2,
        expected_end_at_ms: end,
        text: text.into(),
    };
    let upcoming = Reservation {
        name: "firmware".into(),
        start_at_ms: NOW + 2 * HOUR,
        end_at_ms: NOW + 6 * HOUR,
        state: "UPCOMING".into(),
        holders: "nobody".into(),
        nodes_total: 4,
        nodes: (1..=4).map(|number| format!("n{number:03}")).collect(),
        gpus: 32,
        reason: "new firmware of the switches".into(),
        by: "root".into(),
        made_at_ms: NOW - HOUR,
        crossing: vec![
            crossing("4711", Some(NOW + 3 * HOUR), "may run 1h into it"),
            crossing("4713_3", None, "has no time limit; it may run on for as long as it likes"),
        ],
        crossing_total: 3,
        ..Reservation::default()
    };
    let team = Reservation {
        name: "nips".into(),
        start_at_ms: NOW - HOUR,
        state: "ACTIVE".into(),
        holders: "account".into(),
        account: "nlp".into(),
        crossing: vec![],
        crossing_total: 0,
        reason: String::new(),
        ..upcoming.clone()
    };
    let jobs = Reservation { name: "demo".into(), holders: "jobs".into(), jobs: vec![4711, 4712], ..team.clone() };
    let short =
        |known: &Reservation| Reservation { nodes: vec![], crossing: vec![], crossing_total: 0, ..known.clone() };
    let reply = ListReservationsReply { reservations: [&team, &jobs, &upcoming].map(short).into() };
    check("reservation_ls", ls::render(&reply, &STYLE), ls::document(&reply));
    let none = ListReservationsReply::default();
    check("reservation_ls_empty", ls::render(&none, &STYLE), ls::document(&none));
    check("reservation_show", show::render(&upcoming, &STYLE), show::document(&upcoming));
    check("reservation_show_jobs", show::render(&jobs, &STYLE), show::document(&jobs));
    let made = MakeReservationReply { reservation: Some(upcoming), changed: true };
    check("reservation_create", create::render(&made, false, &STYLE), create::document(&made, false));
    check("reservation_create_dry_run", create::render(&made, true, &STYLE), create::document(&made, true));
    let same = MakeReservationReply { reservation: Some(team.clone()), changed: false };
    check("reservation_create_again", create::render(&same, false, &STYLE), create::document(&same, false));
    let ended = EndReservationReply { reservation: Some(team) };
    check("reservation_delete", delete::render(&ended, &STYLE), delete::document(&ended));
}

fn revisions() -> Vec<Revision> {
    let change = |path: &str, before: &str, after: &str| Change {
        path: path.into(),
        before: before.into(),
        after: after.into(),
    };
    let second = Revision {
        number: 2,
        at_ms: NOW - HOUR,
        by: "alice".into(),
        changes: vec![change("limits.time", "36h", "48h"), change("queue", "", "research")],
    };
    let third = Revision {
        number: 3,
        at_ms: NOW - MINUTE,
        by: "root".into(),
        changes: vec![change("gang.run", "", "changed")],
    };
    vec![second, third]
}

#[test]
fn edit() {
    let job = Job { revision: 2, ..queued() };
    let reply = EditJobReply {
        job: Some(job),
        changes: revisions()[0].changes.clone(),
        unchanged: false,
        notes: vec!["a note".into()],
    };
    check("edit", edit::render(&reply, false, &STYLE), edit::document(&reply, false));
    check("edit_dry_run", edit::render(&reply, true, &STYLE), edit::document(&reply, true));
    let same = EditJobReply { changes: vec![], unchanged: true, ..reply };
    check("edit_unchanged", edit::render(&same, false, &STYLE), edit::document(&same, false));
    let shown = Job { revision: 3, revisions: revisions(), file_json: r#"{"name": "llama-sft"}"#.into(), ..queued() };
    check("show_edited", show::render(&shown, &STYLE), show::document(&shown));
}
