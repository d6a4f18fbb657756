//! What stands in logs and snapshots keeps its bytes: a variant's number is its place in its enum, so
//! new ones come at the end.

use crate::support;

use muster_common::calendar::Period;
use muster_common::job::Hash;
use muster_common::money::MicroUsd;
use muster_common::{AttemptNo, DeviceId, GangId, JobId, Name, NodeId, Time};
use muster_engine::Command;
use muster_engine::command::*;
use muster_engine::organisation::{Account, Budget, Caps, CellQuota, Organisation, Price, Quota};
use muster_engine::state::reservation::{Reservation, ReservationKind};
use muster_engine::state::timer::Timer;
use muster_engine::state::window::Holders;
use std::sync::Arc;
use support::{principal, registration, scheduling, submit};

fn commands() -> Vec<Command> {
    let (node, job, by) = (NodeId(1), JobId(2), principal());
    let cancel = Cancel { job, ordinal: None, reason: String::new(), by: by.clone() };
    let plan = CommitPlan { made_at: 1, now: Time(1), policy_version: 1, engine_version: 1, steps: Vec::new() };
    let spec = submit("k", scheduling(1, 1));
    let edit = Edit {
        request_id: "r".into(),
        job,
        from_revision: 1,
        name: spec.name.clone(),
        scheduling: spec.scheduling.clone(),
        launch: Arc::clone(&spec.launch),
        by: by.clone(),
    };
    let window = MakeWindow {
        name: Name::literal("w"),
        start: Time(1),
        end: Time(2),
        nodes: Which::Some { nodes: 3, model: Some(Name::literal("H100")), level: None },
        holders: Holders::Jobs([job].into()),
        reason: "r".into(),
        by: by.clone(),
        managed: false,
    };
    vec![
        Command::Nothing,
        Command::AdvanceTime { to: Time(1) },
        Command::Submit(Box::new(spec)),
        Command::Cancel(cancel),
        Command::Hold { job, hold: true, by: by.clone() },
        Command::RegisterNode(Box::new(registration("n", 1))),
        Command::NodeSeen { node, epoch: 1 },
        Command::Reports { reports: Vec::new() },
        Command::CommitPlan(Box::new(plan)),
        Command::Expire { timers: vec![Timer::Keys] },
        Command::NodeSilent { node, epoch: 1, term: 1 },
        Command::NodeFenced { node, epoch: 1, term: 1, waited_ms: 1 },
        Command::NodeAdmin { node, action: NodeAction::Undrain, by: by.clone() },
        Command::IssueToken { hash: Hash::default(), node: None, expires_at: Time(1), by: by.clone() },
        Command::UseToken { hash: Hash::default(), node: Name::literal("n") },
        Command::Configure { change: Box::new(ConfigChange::RaiseGeneration { above: 1 }), by: by.clone() },
        Command::Edit(Box::new(edit)),
        Command::MakeWindow(Box::new(window)),
        Command::EndWindow { name: Name::literal("w"), by },
        Command::RequestNodes(Box::new(requested(job, node))),
        Command::SleepNodes { nodes: vec![(node, 1)] },
        Command::NodePower { node, epoch: 1, answer: PowerAnswer::NotWoken { why: "w".into() } },
    ]
}

fn requested(job: JobId, node: NodeId) -> RequestNodes {
    RequestNodes { gang: GangId::new(job, 0), nodes: vec![node], witness: vec![DeviceId { node, slot: 3 }] }
}

#[test]
fn a_command_keeps_its_number() {
    for (number, command) in (0u8..).zip(commands()) {
        let bytes = postcard::to_stdvec(&command).unwrap();
        assert_eq!(bytes[0], number, "{command:?}");
        assert_eq!(postcard::from_bytes::<Command>(&bytes).unwrap(), command);
    }
}

#[test]
fn an_edit_keeps_its_bytes() {
    let edits = commands().into_iter().filter_map(|command| match command {
        Command::Edit(edit) => Some(edit),
        _ => None,
    });
    insta::assert_snapshot!(hex(&edits.last().unwrap()));
}

#[test]
fn a_window_keeps_its_bytes() {
    let windows = commands().into_iter().filter_map(|command| match command {
        Command::MakeWindow(window) => Some(window),
        _ => None,
    });
    insta::assert_snapshot!(hex(&windows.last().unwrap()), @"01770102030301044831303000020102017205616c69636500");
}

#[test]
fn what_is_said_of_power_keeps_its_bytes() {
    let all = commands();
    let [.., asked, sleep, answer] = all.as_slice() else { panic!("they come last") };
    let bytes = [asked, sleep, answer].map(hex);
    assert_eq!(bytes, ["1302000101010103", "14010101", "150101020177"]);
}

#[test]
fn a_consolidation_keeps_its_bytes() {
    let place = |gang, kind, slot| Reservation {
        gang: GangId::new(JobId(gang), 0),
        kind,
        start: Time(1),
        end: Time(2),
        domain: None,
        witness: vec![DeviceId { node: NodeId(5), slot }],
    };
    let room = place(3, ReservationKind::Victims, 6);
    let moves = vec![Move { attempt: AttemptNo(1), place: place(4, ReservationKind::Moved, 7) }];
    let step = PlanStep::Consolidate(Consolidation { room, moves });
    assert_eq!(hex(&step), "040300020102000105060101040006010200010507");
    assert_eq!(postcard::from_bytes::<PlanStep>(&postcard::to_stdvec(&step).unwrap()).unwrap(), step);
}

fn hex<T: serde::Serialize>(value: &T) -> String {
    postcard::to_stdvec(value).unwrap().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_document_of_accounts_keeps_its_bytes() {
    let cells = CellQuota { model: Name::literal("H100"), level: Name::literal("leaf"), nodes: 4, gpus: 8, number: 2 };
    let account = Account {
        name: Name::literal("vision"),
        parent: None,
        weight: 1,
        priority: 0,
        quota: [(Name::literal("H100"), Quota { nominal: 64, borrow_limit: None, lend_limit: Some(8) })].into(),
        limits: Caps::default(),
        user_limits: Caps::default(),
        users: Default::default(),
        cells: vec![cells],
        reclaim_within_ms: Some(120_000),
        budget: Some(Budget { usd: MicroUsd(50_000_000_000), per: Period::Month }),
    };
    let price = Price { model: None, usd_per_gpu_hour: MicroUsd(2_500_000) };
    let organisation = Organisation { accounts: vec![account], queues: Vec::new(), prices: vec![price] };
    let change = ConfigChange::Organisation(Arc::new(organisation));
    let command = Command::Configure { change: Box::new(change), by: principal() };
    let bytes = postcard::to_stdvec(&command).unwrap();
    assert_eq!(postcard::from_bytes::<Command>(&bytes).unwrap(), command);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    insta::assert_snapshot!(hex);
}
