//! A gang's life, rule by rule of the safety protocol, as `apply` sees it.

use crate::support;

use muster_common::node::Inventory;
use muster_common::{GangId, Time};
use muster_engine::command::*;
use muster_engine::desired::{Phase, desired};
use muster_engine::outcome::{Refusal, Rejection};
use muster_engine::state::gang::{Cause, PartState};
use muster_engine::state::node::{DeviceState, Liveness};
use muster_engine::{Command, Event, Response};
use support::*;

fn gang_of(cluster: &mut Cluster, nodes: u32, per_node: u32) -> GangId {
    GangId::new(cluster.submit(scheduling(nodes, per_node)), 0)
}

#[test]
fn a_gang_runs_and_leaves_nothing_behind() {
    let mut c = Cluster::new(2, 4);
    let gang = gang_of(&mut c, 2, 2);
    c.start(gang);
    let nodes = c.parts(gang);
    (0..4).for_each(|rank| c.exit(gang, nodes[rank / 2], rank as u32, OK));
    assert_eq!(c.cause(gang), Some(Cause::Completed));
    c.release_all(gang);
    assert_eq!(c.word(gang), "GONE");
    assert!(c.state.jobs().is_empty() && c.state.gangs().is_empty());
    assert!(c.state.nodes().values().all(|node| node.free_devices() == 4 && node.used == Default::default()));
}

#[test]
fn rule_1_one_key_gives_one_job_and_another_body_is_refused() {
    let mut c = Cluster::new(1, 1);
    let first = c.respond(Command::Submit(Box::new(submit("k", scheduling(1, 1)))));
    let again = c.respond(Command::Submit(Box::new(submit("k", scheduling(1, 1)))));
    let (Response::Submitted { job, existing: false }, Response::Submitted { job: same, existing: true }) =
        (first, again)
    else {
        panic!("a repeated key did not give the same job")
    };
    assert_eq!(job, same);
    let mut other = submit("k", scheduling(1, 1));
    other.body_hash = muster_common::job::Hash([2; 32]);
    assert_eq!(c.respond(Command::Submit(Box::new(other))), Response::Refused(Refusal::KeyReused { job }));
}

#[test]
fn rule_1_a_generated_key_older_than_the_horizon_is_never_taken_as_new() {
    let mut c = Cluster::new(1, 1);
    let made = c.state.now();
    c.pass(25 * 3_600_000);
    let mut old = submit("old", scheduling(1, 1));
    old.key_made_at = Some(made);
    assert!(matches!(c.respond(Command::Submit(Box::new(old))), Response::Refused(Refusal::KeyTooOld { .. })));
}

#[test]
fn rule_2_a_gang_is_placed_whole_or_not_at_all() {
    let mut c = Cluster::new(2, 4);
    let (a, b) = (gang_of(&mut c, 2, 4), gang_of(&mut c, 2, 4));
    let (first, second) = (c.naive_placement(a).unwrap(), c.naive_placement(b).unwrap());
    let plan = c.plan(vec![PlanStep::Place(first), PlanStep::Place(second)]);
    let Response::Plan { accepted: 1, rejected } = c.respond(plan) else { panic!("not one of two was placed") };
    assert!(matches!(rejected[..], [(gang, Rejection::DeviceTaken { .. })] if gang == b));
    assert_eq!((c.word(a), c.word(b)), ("STARTING", "GONE"));
}

#[test]
fn rule_2_a_stale_plan_fails_by_itself() {
    let mut c = Cluster::new(1, 1);
    let gang = gang_of(&mut c, 1, 1);
    let placement = c.naive_placement(gang).unwrap();
    let again = Command::RegisterNode(Box::new(registration("n0", 1)));
    c.apply(again);
    let plan = c.plan(vec![PlanStep::Place(placement)]);
    let Response::Plan { rejected, .. } = c.respond(plan) else { panic!() };
    assert!(matches!(rejected[..], [(_, Rejection::NodeChanged(_))]));
}

#[test]
fn rule_4_the_report_that_completes_the_set_is_the_start() {
    let mut c = Cluster::new(2, 1);
    let gang = gang_of(&mut c, 2, 1);
    c.place(gang);
    let nodes = c.parts(gang);
    c.report(nodes[0], gang, ReportBody::Prepared);
    assert_eq!(desired(&c.state, nodes[0]).parts[0].phase, Phase::Prepare);
    c.report(nodes[1], gang, ReportBody::Prepared);
    assert_eq!(desired(&c.state, nodes[0]).parts[0].phase, Phase::Run);
}

#[test]
fn rule_4_the_first_of_start_and_abort_in_log_order_wins() {
    let mut c = Cluster::new(2, 1);
    let gang = gang_of(&mut c, 2, 1);
    c.place(gang);
    let nodes = c.parts(gang);
    c.report(nodes[0], gang, ReportBody::Prepared);
    c.pass(121_000);
    c.expire();
    assert!(matches!(c.cause(gang), Some(Cause::StartTimeout { node }) if node == nodes[1]));
    c.report(nodes[1], gang, ReportBody::Prepared);
    assert_eq!(c.word(gang), "STOPPING", "a late Prepared started a gang that was aborted");
    c.apply(Command::Cancel(Cancel { job: gang.job, ordinal: None, reason: "late".into(), by: principal() }));
    assert!(matches!(c.cause(gang), Some(Cause::StartTimeout { .. })), "a later cause replaced the first");
}

#[test]
fn rule_4_a_rank_that_fails_stops_its_whole_gang_in_the_same_entry() {
    let mut c = Cluster::new(2, 1);
    let gang = gang_of(&mut c, 2, 1);
    c.start(gang);
    let nodes = c.parts(gang);
    c.exit(gang, nodes[1], 1, Exit::Signal(9));
    assert!(nodes.iter().all(|node| desired(&c.state, *node).parts[0].phase == Phase::Stop));
}

#[test]
fn rule_5_a_job_is_not_terminal_before_every_device_is_accounted_for() {
    let mut c = Cluster::new(2, 1);
    let gang = gang_of(&mut c, 2, 1);
    c.start(gang);
    let nodes = c.parts(gang);
    (0..2).for_each(|rank| c.exit(gang, nodes[rank], rank as u32, OK));
    c.report(nodes[0], gang, ReportBody::Released { lease_expired: false });
    assert_eq!(c.word(gang), "STOPPING");
    c.report(nodes[1], gang, ReportBody::Released { lease_expired: false });
    assert_eq!(c.word(gang), "GONE");
}

#[test]
fn rule_5_a_report_is_applied_once() {
    let mut c = Cluster::new(1, 1);
    let gang = gang_of(&mut c, 1, 1);
    c.start(gang);
    let node = c.node(0);
    let number = c.state.node(node).unwrap().reports_applied;
    let (attempt, token) = c.token(gang);
    let epoch = c.state.node(node).unwrap().epoch;
    let body = ReportBody::Exited { rank: 0, exit: OK, why: String::new() };
    let report = NodeReport { node, epoch, number, gang, attempt, token, body };
    assert_eq!(c.respond(Command::Reports { reports: vec![report] }), Response::Reports { applied: 0 });
    assert_eq!(c.word(gang), "RUNNING");
}

#[test]
fn retry_budgets_of_users_and_of_infrastructure_are_apart() {
    let mut c = Cluster::new(2, 1);
    let mut spec = scheduling(1, 1);
    (spec.retry.app, spec.retry.infra) = (1, 1);
    let gang = GangId::new(c.submit(spec), 0);
    let fail = |c: &mut Cluster, body: ReportBody| {
        c.pass(400_000);
        c.expire();
        c.start(gang);
        let node = c.parts(gang)[0];
        c.report(node, gang, body);
        if c.word(gang) == "STOPPING" {
            c.release_all(gang);
        }
    };
    fail(&mut c, ReportBody::Released { lease_expired: true });
    let record = c.state.gang(gang).unwrap();
    assert_eq!((record.infra_used, record.app_used, record.state.word()), (1, 0, "QUEUED"));
    fail(&mut c, ReportBody::Exited { rank: 0, exit: Exit::Code(3), why: String::new() });
    let record = c.state.gang(gang).unwrap();
    assert_eq!((record.infra_used, record.app_used, record.past.len()), (1, 1, 2));
    fail(&mut c, ReportBody::Exited { rank: 0, exit: Exit::Code(3), why: String::new() });
    assert_eq!(c.word(gang), "GONE");
}

fn silent(c: &mut Cluster, n: usize, waited_ms: u64) {
    let (node, term) = (c.node(n), c.term);
    let epoch = c.state.node(node).unwrap().epoch;
    c.apply(Command::NodeSilent { node, epoch, term });
    c.apply(Command::NodeFenced { node, epoch, term, waited_ms });
}

#[test]
fn rule_7_work_goes_elsewhere_only_after_the_fencing_wait() {
    let mut c = Cluster::new(2, 1);
    let gang = gang_of(&mut c, 1, 1);
    c.start(gang);
    silent(&mut c, 0, 299_999);
    assert_eq!(c.word(gang), "RUNNING");
    silent(&mut c, 0, 300_000);
    assert_eq!(c.word(gang), "QUEUED");
}

#[test]
fn rule_7_silence_proposed_in_an_older_term_says_nothing() {
    let mut c = Cluster::new(1, 1);
    let node = c.node(0);
    let epoch = c.state.node(node).unwrap().epoch;
    c.term = 2;
    let refused = c.respond(Command::NodeSilent { node, epoch, term: 1 });
    assert!(matches!(refused, Response::Refused(Refusal::OldTerm { .. })));
    assert_eq!(c.state.node(node).unwrap().liveness, Liveness::Up);
}

#[test]
fn rule_7_a_lease_is_over_before_the_fencing_wait_kill_and_drift_included() {
    for settings in [Settings::default(), Settings { fence_after_ms: 45_000, ..Settings::default() }] {
        for of_job in [None, Some(1), Some(60_000), Some(10_000_000)] {
            let lease_ms = settings.lease_ms(of_job);
            assert!(lease_ms > settings.suspect_after_ms);
            assert!(lease_ms + settings.kill_bound_ms + settings.drift_ms <= settings.fence_after_ms(of_job));
        }
    }
}

#[test]
fn rule_8_a_fenced_nodes_devices_are_unknown_until_there_is_evidence() {
    let mut c = Cluster::new(2, 1);
    let gang = gang_of(&mut c, 1, 1);
    c.start(gang);
    let node = c.node(0);
    let token = c.token(gang);
    silent(&mut c, 0, 300_000);
    assert!(matches!(c.state.node(node).unwrap().devices[0], DeviceState::Unknown { .. }));
    let epoch = c.state.node(node).unwrap().epoch;
    c.apply(Command::NodeSeen { node, epoch });
    assert!(!c.state.node(node).unwrap().devices[0].is_free(), "coming back is no evidence");
    assert_eq!(desired(&c.state, node).parts[0].phase, Phase::Stop);
    c.report_as(node, gang, token, ReportBody::Released { lease_expired: true });
    assert!(c.state.node(node).unwrap().devices[0].is_free());
}

#[test]
fn rule_8_a_reboot_of_the_same_hardware_is_evidence_once_the_old_boot_is_silent() {
    for (silent_before, hardware, free) in [(true, "hw", true), (false, "hw", false)] {
        let mut c = Cluster::new(2, 1);
        let gang = gang_of(&mut c, 1, 1);
        c.start(gang);
        silent(&mut c, 0, 300_000);
        let mut again = registration("n0", 1);
        let mut inventory = (*again.inventory).clone();
        inventory.boot_id = "boot-2".into();
        inventory.hardware_id = hardware.into();
        again.inventory = inventory.into();
        again.old_boot_silent = silent_before;
        c.apply(Command::RegisterNode(Box::new(again)));
        assert_eq!(c.state.node(c.node(0)).unwrap().devices[0].is_free(), free);
    }
}

#[test]
fn rule_8_the_same_boot_with_a_lost_store_is_no_evidence() {
    let mut c = Cluster::new(2, 1);
    let gang = gang_of(&mut c, 1, 1);
    c.start(gang);
    let mut again = registration("n0", 1);
    (again.store_lost, again.store_id) = (true, "store-new".into());
    c.apply(Command::RegisterNode(Box::new(again)));
    assert!(!c.state.node(c.node(0)).unwrap().devices[0].is_free());
    assert_eq!(desired(&c.state, c.node(0)).parts[0].phase, Phase::Stop);
    assert_eq!(c.word(gang), "STOPPING");
}

#[test]
fn an_intact_store_without_the_token_proves_that_it_was_never_held() {
    let mut c = Cluster::new(2, 1);
    let gang = gang_of(&mut c, 1, 1);
    c.place(gang);
    c.apply(Command::RegisterNode(Box::new(registration("n0", 1))));
    assert_eq!(c.word(gang), "QUEUED");
    assert!(c.state.node(c.node(0)).unwrap().devices[0].is_free());
}

#[test]
fn a_restarted_agent_that_still_holds_the_token_keeps_its_ranks() {
    let mut c = Cluster::new(1, 1);
    let gang = gang_of(&mut c, 1, 1);
    c.start(gang);
    let (attempt, token) = c.token(gang);
    let mut again = registration("n0", 1);
    again.instance = "two".into();
    again.held = vec![HeldToken { gang, attempt, token, live: None }];
    c.apply(Command::RegisterNode(Box::new(again)));
    assert_eq!((c.word(gang), desired(&c.state, c.node(0)).parts[0].phase), ("RUNNING", Phase::Run));
}

#[test]
fn a_node_that_comes_back_smaller_has_nothing_free_until_what_it_runs_has_ended() {
    let mut c = Cluster::new(1, 2);
    let mut wish = scheduling(1, 1);
    wish.groups[0].cpu_milli_per_node = Some(20_000);
    let gang = GangId::new(c.submit(wish), 0);
    c.start(gang);
    let (attempt, token) = c.token(gang);
    let held = vec![HeldToken { gang, attempt, token, live: None }];
    let mut smaller = registration("n0", 2);
    let inventory = Inventory { cpu_milli: 1000, memory_bytes: 1 << 30, ..(*smaller.inventory).clone() };
    (smaller.inventory, smaller.held) = (inventory.into(), held);
    c.apply(Command::RegisterNode(Box::new(smaller.clone())));
    assert_eq!(c.word(gang), "RUNNING");
    let node = c.state.node(c.node(0)).unwrap();
    assert_eq!(node.used.cpu_milli, 20_000);
    assert_eq!(node.free_amount().cpu_milli, 0);
    c.exit(gang, c.node(0), 0, Exit::Code(0));
    c.release_all(gang);
    smaller.held.clear();
    c.apply(Command::RegisterNode(Box::new(smaller)));
    assert_eq!(c.state.node(c.node(0)).unwrap().inventory.cpu_milli, 1000);
}

#[test]
fn rule_12_what_cannot_be_ended_quarantines_its_devices_and_drains_the_node() {
    let mut c = Cluster::new(2, 1);
    let mut spec = scheduling(1, 1);
    spec.retry.infra = 1;
    let gang = GangId::new(c.submit(spec), 0);
    c.start(gang);
    let node = c.node(0);
    let token = c.token(gang);
    c.report(node, gang, ReportBody::Quarantined { slots: vec![0], why: "rank 0 does not die".into() });
    let record = c.state.node(node).unwrap();
    assert!(matches!(record.devices[0], DeviceState::Quarantined { .. }) && record.closed.is_some());
    assert_eq!(c.word(gang), "QUEUED");
    c.report_as(node, gang, token, ReportBody::Released { lease_expired: false });
    assert!(matches!(c.state.node(node).unwrap().devices[0], DeviceState::Quarantined { .. }), "no timer ends it");
    let action = NodeAction::EndQuarantine { slot: 0, reason: "tested".into() };
    c.apply(Command::NodeAdmin { node, action, by: principal() });
    assert!(c.state.node(node).unwrap().devices[0].is_free());
}

#[test]
fn rule_14_one_wrong_clock_moves_state_time_by_a_minute_at_most() {
    let mut c = Cluster::new(0, 0);
    let before = c.state.now();
    c.at = Time(before.0 + 10 * 365 * 86_400_000);
    c.apply(Command::Nothing);
    assert_eq!(c.state.now(), before.plus_ms(60_000));
    c.at = Time(before.0 / 2);
    c.apply(Command::Nothing);
    assert_eq!(c.state.now(), before.plus_ms(60_000), "time never runs back");
}

#[test]
fn a_drain_with_a_deadline_moves_what_still_runs() {
    let mut c = Cluster::new(2, 1);
    let gang = gang_of(&mut c, 1, 1);
    c.start(gang);
    let node = c.node(0);
    let action = NodeAction::Drain { reason: "xid 79".into(), deadline_ms: Some(60_000) };
    c.apply(Command::NodeAdmin { node, action, by: principal() });
    assert_eq!(c.word(gang), "RUNNING");
    c.pass(60_000);
    c.expire();
    assert_eq!(c.cause(gang), Some(Cause::Drained { node }));
    c.release_all(gang);
    c.start(gang);
    assert_ne!(c.parts(gang)[0], node);
}

#[test]
fn an_array_keeps_its_elements_as_ranges_and_runs_so_many_at_once() {
    let mut c = Cluster::new(1, 4);
    let mut spec = scheduling(1, 1);
    spec.array = Some(muster_common::job::ArraySpec { count: 1000, at_once: Some(2), stop_after_failures: Some(1) });
    spec.retry.app = 0;
    let job = c.submit(spec);
    let gangs: Vec<GangId> = (0..3).map(|ordinal| GangId::new(job, ordinal)).collect();
    c.start(gangs[0]);
    c.start(gangs[1]);
    let Response::Plan { rejected, .. } = c.place(gangs[2]) else { panic!() };
    assert!(matches!(rejected[..], [(_, Rejection::AtOnce)]));
    let node = c.node(0);
    c.exit(gangs[0], node, 0, Exit::Code(1));
    c.release_all(gangs[0]);
    let record = c.state.job(job).unwrap();
    assert_eq!((record.unstarted.len(), record.tally.cancelled, record.tally.failed), (0, 998, 1));
}

#[test]
fn a_join_token_works_once_in_time_and_for_its_node() {
    let mut c = Cluster::new(0, 0);
    let hash = muster_common::job::Hash([7; 32]);
    let name = muster_common::Name::literal("n7");
    let expires_at = c.state.now().plus_ms(60_000);
    c.apply(Command::IssueToken { hash, node: Some(name.clone()), expires_at, by: principal() });
    let other = muster_common::Name::literal("n8");
    assert_eq!(c.respond(Command::UseToken { hash, node: other }), Response::Refused(Refusal::TokenNode(name.clone())));
    assert_eq!(c.respond(Command::UseToken { hash, node: name.clone() }), Response::Done);
    assert_eq!(c.respond(Command::UseToken { hash, node: name }), Response::Refused(Refusal::Token));
}

#[test]
fn device_time_is_charged_once_and_never_for_devices_nobody_can_reach() {
    let mut c = Cluster::new(2, 2);
    let gang = gang_of(&mut c, 2, 2);
    c.start(gang);
    c.pass(10_000);
    silent(&mut c, 0, 300_000);
    let node = c.node(1);
    let outcome = c.respond(Command::Nothing);
    assert_eq!(outcome, Response::Done);
    c.report(node, gang, ReportBody::Released { lease_expired: false });
    let past = &c.state.gang(gang).unwrap().past;
    assert_eq!((past.len(), past[0].device_ms), (1, 4 * 10_000));
    assert!(past[0].attempt.parts.iter().any(|part| part.state == PartState::Fenced));
    let charged: u64 = c.state.usage().payers().values().map(|row| row.device_ms).sum();
    assert_eq!(charged, 40_000);
}

#[test]
fn events_tell_the_whole_story_in_order() {
    let mut c = Cluster::new(1, 1);
    let gang = gang_of(&mut c, 1, 1);
    c.start(gang);
    let node = c.node(0);
    c.exit(gang, node, 0, OK);
    let token = c.token(gang);
    let epoch = c.state.node(node).unwrap().epoch;
    let number = c.state.node(node).unwrap().reports_applied + 1;
    let body = ReportBody::Released { lease_expired: false };
    let report = NodeReport { node, epoch, number, gang, attempt: token.0, token: token.1, body };
    let events = c.apply(Command::Reports { reports: vec![report] }).events;
    let kinds: Vec<bool> = events
        .iter()
        .zip(0..)
        .map(|(event, at)| match at {
            0 => matches!(event, Event::DevicesFree { .. }),
            1 => matches!(event, Event::AttemptEnded { .. }),
            2 => matches!(event, Event::GangEnded { .. }),
            _ => matches!(event, Event::JobEnded { .. }),
        })
        .collect();
    assert_eq!(kinds, [true; 4], "{events:?}");
}

#[test]
fn rule_8_a_lost_store_proves_nothing_after_another_restart_either() {
    let mut c = Cluster::new(2, 1);
    let gang = gang_of(&mut c, 1, 1);
    c.start(gang);
    let mut lost = registration("n0", 1);
    (lost.store_lost, lost.store_id, lost.instance) = (true, "store-new".into(), "two".into());
    c.apply(Command::RegisterNode(Box::new(lost.clone())));
    (lost.store_lost, lost.instance) = (false, "three".into());
    c.apply(Command::RegisterNode(Box::new(lost)));
    let node = c.node(0);
    assert!(!c.state.node(node).unwrap().devices[0].is_free(), "the new store never knew of this gang");
    assert_eq!((c.word(gang), desired(&c.state, node).parts[0].phase), ("STOPPING", Phase::Stop));
    c.report(node, gang, ReportBody::Released { lease_expired: false });
    assert!(c.state.node(node).unwrap().devices[0].is_free());
}

#[test]
fn rule_8_the_first_store_of_a_node_knows_what_was_placed_since() {
    let mut c = Cluster::new(1, 2);
    let (kept, never_held) = (gang_of(&mut c, 1, 1), gang_of(&mut c, 1, 1));
    c.start(kept);
    c.place(never_held);
    let (attempt, token) = c.token(kept);
    let mut again = registration("n0", 2);
    again.store_lost = true;
    again.held = vec![HeldToken { gang: kept, attempt, token, live: None }];
    c.apply(Command::RegisterNode(Box::new(again)));
    assert_eq!((c.word(kept), c.word(never_held)), ("RUNNING", "QUEUED"));
}

#[test]
fn rule_12_a_device_stays_in_quarantine_when_the_node_comes_back_with_other_devices() {
    let mut c = Cluster::new(1, 3);
    let node = c.node(0);
    let fault = ReportBody::DeviceFault { slot: 2, xid: 79, why: "fell off the bus".into(), fatal: true };
    c.report_as(node, GangId::default(), Default::default(), fault);
    let mut again = registration("n0", 3);
    let mut inventory = (*again.inventory).clone();
    inventory.devices.remove(0);
    inventory.links = vec![vec![muster_common::node::Link::Same; 2]; 2];
    again.inventory = inventory.into();
    c.apply(Command::RegisterNode(Box::new(again)));
    let devices = &c.state.node(node).unwrap().devices;
    assert!(devices[0].is_free() && matches!(devices[1], DeviceState::Quarantined { .. }), "{devices:?}");
}

#[test]
fn rule_12_what_cannot_be_ended_after_its_attempt_is_quarantined_too() {
    let mut c = Cluster::new(2, 1);
    let gang = gang_of(&mut c, 1, 1);
    c.start(gang);
    let (node, token) = (c.node(0), c.token(gang));
    silent(&mut c, 0, 300_000);
    let epoch = c.state.node(node).unwrap().epoch;
    c.apply(Command::NodeSeen { node, epoch });
    c.report_as(node, gang, token, ReportBody::Quarantined { slots: vec![0], why: "rank 0 does not die".into() });
    let record = c.state.node(node).unwrap();
    assert!(matches!(record.devices[0], DeviceState::Quarantined { .. }) && record.closed.is_some());
    let action = NodeAction::EndQuarantine { slot: 0, reason: "tested".into() };
    c.apply(Command::NodeAdmin { node, action, by: principal() });
    assert!(!c.state.node(node).unwrap().devices[0].is_free(), "the process is still not proven gone");
    c.report_as(node, gang, token, ReportBody::Released { lease_expired: false });
    assert!(c.state.node(node).unwrap().devices[0].is_free());
}

#[test]
fn rule_7_the_shortest_fencing_wait_never_shrinks_under_running_gangs() {
    let mut c = Cluster::new(1, 1);
    let gang = gang_of(&mut c, 1, 1);
    c.start(gang);
    let change = |settings| Command::Configure { change: Box::new(ConfigChange::Settings(settings)), by: principal() };
    let shorter = Settings { suspect_after_ms: 5_000, ..Settings::default() };
    assert!(matches!(c.respond(change(shorter)), Response::Refused(Refusal::Invalid(_))));
    let absurd = Settings { kill_bound_ms: u64::MAX, ..Settings::default() };
    assert!(matches!(c.respond(change(absurd)), Response::Refused(Refusal::Invalid(_))));
}
