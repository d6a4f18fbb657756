//! The reasons that no scheduling decides, each as it comes out of `explain`; and of every reason there is, the test that
//! makes it come out.

use crate::support;

use muster_common::GangId;
use muster_engine::command::{Command, PlanStep, ReportBody};
use muster_engine::plan::explain::{Blocker, Reason, explain};
use muster_engine::state::gang::GangState;
use muster_engine::{Memo, command::Exit};
use support::{Cluster, principal, scheduling};

/// What is told of a gang, the reason that decides first.
fn blockers(c: &Cluster, gang: GangId) -> Vec<Blocker> {
    explain(&c.state, &mut Memo::default(), gang, c.state.now()).expect("it lives").blockers
}

fn reasons(c: &Cluster, gang: GangId) -> Vec<Reason> {
    blockers(c, gang).iter().map(|blocker| blocker.reason).collect()
}

fn submitted(c: &mut Cluster, nodes: u32) -> GangId {
    GangId::new(c.submit(scheduling(nodes, 1)), 0)
}

#[test]
fn what_is_placed_waits_for_the_nodes_that_have_not_prepared() {
    let mut c = Cluster::new(2, 1);
    let gang = submitted(&mut c, 2);
    c.place(gang);
    let nodes = c.parts(gang);
    c.report(nodes[0], gang, ReportBody::Prepared);
    let told = blockers(&c, gang);
    assert_eq!((told.len(), told[0].reason, &told[0].nodes[..]), (1, Reason::StartPending, &nodes[1..]));
    assert_eq!(told[0].detail, "placed; 1 of 2 nodes have not prepared yet");
    c.report(nodes[1], gang, ReportBody::Prepared);
    assert_eq!(blockers(&c, gang), [], "it runs");
}

#[test]
fn what_has_just_failed_waits_before_it_is_tried_again() {
    let mut c = Cluster::new(1, 1);
    let mut spec = scheduling(1, 1);
    spec.retry.app = 3;
    let gang = GangId::new(c.submit(spec), 0);
    c.start(gang);
    let node = c.node(0);
    c.exit(gang, node, 0, Exit::Code(1));
    c.release_all(gang);
    let GangState::Queued { not_before } = c.state.gang(gang).unwrap().state else { panic!("{}", c.word(gang)) };
    assert!(not_before > c.state.now());
    let told = blockers(&c, gang);
    assert_eq!((told[0].reason, told[0].until), (Reason::Backoff, Some(not_before)));
    c.pass(not_before.since_ms(c.state.now()));
    assert!(!reasons(&c, gang).contains(&Reason::Backoff));
}

#[test]
fn what_gives_up_at_this_moment_is_not_said_to_wait_for_nodes_only() {
    let mut c = Cluster::new(1, 1);
    let holder = submitted(&mut c, 1);
    c.start(holder);
    let mut spec = scheduling(1, 1);
    spec.limits.wait_ms = Some(600_000);
    let gang = GangId::new(c.submit(spec), 0);
    assert_eq!(reasons(&c, gang), [Reason::Nodes]);
    c.pass(600_000);
    assert_eq!(reasons(&c, gang), [Reason::Cancelled, Reason::Nodes]);
    c.expire();
    assert_eq!(explain(&c.state, &mut Memo::default(), gang, c.state.now()), None, "it has given up");
}

#[test]
fn what_was_refused_twice_is_parked_until_it_is_held_and_released() {
    let mut c = Cluster::new(1, 1);
    let gang = submitted(&mut c, 1);
    let placement = c.naive_placement(gang).unwrap();
    let holder = submitted(&mut c, 1);
    c.start(holder);
    for times in 1..=2 {
        let plan = c.plan(vec![PlanStep::Place(placement.clone())]);
        c.respond(plan);
        assert_eq!(reasons(&c, gang).contains(&Reason::Parked), times == 2);
    }
    let told = blockers(&c, gang).remove(0);
    assert_eq!((told.reason, told.hint.as_deref()), (Reason::Parked, Some("hold and release the job to try again")));
    for hold in [true, false] {
        c.apply(Command::Hold { job: gang.job, hold, by: principal() });
    }
    assert_eq!(reasons(&c, gang), [Reason::Nodes]);
}

#[test]
fn devices_whose_holder_is_not_proven_gone_are_told_apart_from_those_that_are_held() {
    let mut c = Cluster::new(2, 1);
    let lost = submitted(&mut c, 1);
    c.start(lost);
    let (node, term) = (c.parts(lost)[0], c.term);
    let epoch = c.state.node(node).unwrap().epoch;
    c.apply(Command::NodeSilent { node, epoch, term });
    c.apply(Command::NodeFenced { node, epoch, term, waited_ms: 300_000 });
    c.apply(Command::NodeSeen { node, epoch });
    let both = submitted(&mut c, 2);
    let told = blockers(&c, both);
    assert_eq!(told.iter().map(|blocker| blocker.reason).collect::<Vec<_>>(), [Reason::Nodes, Reason::UnknownDevices]);
    assert_eq!(told[1].nodes, [node]);
}

const HERE: &str = include_str!("reasons.rs");
const DEPEND: &str = include_str!("depend.rs");
const EXPLAIN: &str = include_str!("../timing/plan_explain.rs");
const LIMITS: &str = include_str!("../sharing/limits.rs");
const TAKING: &str = include_str!("../sharing/taking.rs");
const WAKES: &str = include_str!("../timing/elastic/wakes.rs");

/// The reason after it, and the test that makes it come out of `explain`: where that is, and its name. A new reason does
/// not compile until its test is named.
fn shown_by(reason: Reason) -> (Option<Reason>, &'static str, &'static str) {
    use Reason::*;
    const ALONE: &str = "each_blocker_is_named_alone";
    match reason {
        Hold => (Some(Dependency), EXPLAIN, "what_the_job_itself_says_comes_before_what_the_cluster_lacks"),
        Dependency => (Some(DependencyNever), DEPEND, "lists_name_the_reason_of_jobs_that_no_cycle_looks_at"),
        DependencyNever => (Some(BeginTime), DEPEND, "an_array_has_succeeded_only_when_every_element_has"),
        BeginTime => (Some(Backoff), EXPLAIN, "what_the_job_itself_says_comes_before_what_the_cluster_lacks"),
        Backoff => (Some(ArrayLimit), HERE, "what_has_just_failed_waits_before_it_is_tried_again"),
        ArrayLimit => (Some(UserLimit), EXPLAIN, "what_the_job_itself_says_comes_before_what_the_cluster_lacks"),
        UserLimit => (Some(AccountLimit), LIMITS, "a_users_limit_counts_only_that_user"),
        AccountLimit => (Some(Budget), LIMITS, "an_accounts_limit_counts_all_below_it_and_says_how_much_is_used"),
        Budget => {
            let test = "what_a_gang_may_cost_is_set_aside_and_what_it_did_not_use_comes_back";
            (Some(Cancelled), include_str!("../sharing/budget.rs"), test)
        }
        Cancelled => (Some(Parked), HERE, "what_gives_up_at_this_moment_is_not_said_to_wait_for_nodes_only"),
        Parked => (Some(Quota), HERE, "what_was_refused_twice_is_parked_until_it_is_held_and_released"),
        Quota => (Some(OwedCells), include_str!("../sharing/quota.rs"), "what_may_not_be_stopped_does_not_borrow"),
        OwedCells => {
            let test = "what_would_cost_somebody_a_cell_waits_and_why_says_whose";
            (Some(Victims), include_str!("../sharing/hived.rs"), test)
        }
        Victims => (Some(Moved), TAKING, "what_victims_leave_is_kept_for_the_preemptor_and_why_says_who_leaves"),
        Moved => {
            let test = "a_node_is_opened_for_a_gang_of_eight_by_moving_two_gangs_of_one";
            (Some(Wounded), include_str!("../sharing/consolidate.rs"), test)
        }
        Wounded => {
            let test = "a_gang_that_lost_a_node_keeps_the_others_and_has_the_first_claim_on_a_replacement";
            (Some(Waking), TAKING, test)
        }
        Waking => {
            let test = "a_gang_that_has_waited_long_enough_wakes_what_it_needs_and_starts_when_all_is_back";
            (Some(NeverFits), WAKES, test)
        }
        NeverFits => (Some(Reserved), EXPLAIN, ALONE),
        Reserved => {
            let test = "what_would_run_into_maintenance_waits_and_what_ends_before_runs";
            (Some(Nodes), include_str!("../timing/windows.rs"), test)
        }
        Nodes => (Some(Topology), EXPLAIN, ALONE),
        Topology => (Some(GpuModel), EXPLAIN, ALONE),
        GpuModel => (Some(CpuMemory), EXPLAIN, ALONE),
        CpuMemory => (Some(Label), EXPLAIN, ALONE),
        Label => (Some(Excluded), EXPLAIN, ALONE),
        Excluded => (Some(Asleep), EXPLAIN, ALONE),
        Asleep => (Some(ClosedNodes), WAKES, "the_pool_is_named_that_wakes_what_is_missing"),
        ClosedNodes => (Some(UnknownDevices), EXPLAIN, ALONE),
        UnknownDevices => {
            let test = "devices_whose_holder_is_not_proven_gone_are_told_apart_from_those_that_are_held";
            (Some(Priority), HERE, test)
        }
        Priority => (Some(Backfill), EXPLAIN, "who_goes_first_is_named_where_it_takes_what_another_needs"),
        Backfill => (Some(BeyondDepth), EXPLAIN, "a_filler_hears_of_the_booking_it_would_delay_and_of_no_other"),
        BeyondDepth => (Some(StartPending), EXPLAIN, "beyond_the_depth_of_the_policy_is_a_reason_of_its_own"),
        StartPending => (None, HERE, "what_is_placed_waits_for_the_nodes_that_have_not_prepared"),
    }
}

#[test]
fn every_reason_has_a_test_and_a_line_in_the_reference() {
    let reference = include_str!("../../../docs/reference/why.md");
    let mut next = Some(Reason::Hold);
    while let Some(reason) = next {
        let (after, tests, test) = shown_by(reason);
        let body = tests.split(&format!("fn {test}(")).nth(1).unwrap_or_else(|| panic!("{reason:?}: no `{test}`"));
        let body = body.split("\n}\n").next().unwrap();
        assert!(body.contains(&format!("Reason::{reason:?}")), "{reason:?} is not looked for in `{test}`");
        assert!(reference.contains(&format!("`{}`", reason.word())), "{reason:?} is not in the reference");
        assert!(after.is_none_or(|after| after > reason), "{reason:?} is before {after:?}");
        next = after;
    }
}
