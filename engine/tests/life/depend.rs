//! Jobs that wait for jobs, for a moment, or no longer than until one. The meanings of the conditions are those of
//! Slurm's `--dependency`.

use crate::support;

use muster_common::job::{ArraySpec, Dependencies, Scheduling};
use muster_common::{GangId, JobId, Name, Time};
use muster_engine::command::{Cancel, Exit, PlanStep};
use muster_engine::outcome::{Rejection, Response};
use muster_engine::plan::brief::briefs;
use muster_engine::plan::explain::{Reason, explain};
use muster_engine::state::gang::End;
use muster_engine::{Command, Cycle, Event, Memo, State, cycle};
use support::*;

/// How the job waited for ends.
#[derive(Clone, Copy, PartialEq)]
enum Ends {
    Well,
    Badly,
    Cancelled,
}

fn after(change: impl FnOnce(&mut Dependencies)) -> Scheduling {
    let mut scheduling = scheduling(1, 1);
    change(&mut scheduling.after);
    scheduling
}

fn finish(c: &mut Cluster, job: JobId, ends: Ends) {
    let gang = GangId::new(job, 0);
    match ends {
        Ends::Cancelled => drop(c.apply(cancel(job))),
        Ends::Well | Ends::Badly => {
            c.start(gang);
            let node = c.parts(gang)[0];
            c.exit(gang, node, 0, if ends == Ends::Well { OK } else { Exit::Code(1) });
            c.release_all(gang);
        }
    }
    assert!(c.state.job(job).is_none(), "it has left State");
}

fn cancel(job: JobId) -> Command {
    Command::Cancel(Cancel { job, ordinal: None, reason: "test".into(), by: principal() })
}

fn decide(state: &State) -> Cycle {
    cycle(state, &mut Memo::default(), state.now())
}

/// Jobs that a cycle would start now.
fn starting(state: &State) -> Vec<JobId> {
    let decided = decide(state);
    let steps = decided.commands.iter().flat_map(|command| match command {
        Command::CommitPlan(plan) => plan.steps.as_slice(),
        _ => &[],
    });
    let placed = steps.filter_map(|step| match step {
        PlanStep::Place(placement) => Some(placement.gang.job),
        _ => None,
    });
    placed.collect()
}

fn reason(state: &State, job: JobId) -> Option<(Reason, String)> {
    let explanation = explain(state, &mut Memo::default(), GangId::new(job, 0), state.now())?;
    explanation.blockers.into_iter().next().map(|blocker| (blocker.reason, blocker.detail))
}

fn refused(response: Response) -> String {
    match response {
        Response::Refused(refusal) => refusal.to_string(),
        other => panic!("answered {other:?}"),
    }
}

fn try_submit(c: &mut Cluster, scheduling: Scheduling) -> Response {
    let key = format!("key-{}", c.state.applied_index());
    c.respond(Command::Submit(Box::new(submit(&key, scheduling))))
}

#[test]
fn each_condition_holds_after_the_ends_that_slurm_says_and_no_other() {
    type Change = fn(&mut Dependencies, JobId);
    let started: Change = |after, job| after.started = vec![job];
    let any: Change = |after, job| after.any = vec![job];
    let ok: Change = |after, job| after.ok = vec![job];
    let not_ok: Change = |after, job| after.not_ok = vec![job];
    let table = [
        (started, [true, true, true]),
        (any, [true, true, true]),
        (ok, [true, false, false]),
        (not_ok, [false, true, true]),
    ];
    for (row, (change, holds)) in table.into_iter().enumerate() {
        for (ends, holds) in [Ends::Well, Ends::Badly, Ends::Cancelled].into_iter().zip(holds) {
            let mut c = Cluster::new(1, 4);
            let first = c.submit(scheduling(1, 1));
            let second = c.submit(after(|after| change(after, first)));
            assert_eq!(starting(&c.state), [first], "row {row}");
            assert_eq!(reason(&c.state, second).unwrap().0, Reason::Dependency);
            finish(&mut c, first, ends);
            assert_eq!(starting(&c.state) == [second], holds, "row {row}");
            if !holds {
                let (reason, detail) = reason(&c.state, second).unwrap();
                assert_eq!(reason, Reason::DependencyNever);
                assert!(detail.contains(&first.to_string()), "{detail}");
            }
        }
    }
}

#[test]
fn started_holds_as_soon_as_a_gang_runs_even_of_a_job_that_started_before() {
    let mut c = Cluster::new(1, 4);
    let first = c.submit(scheduling(1, 1));
    let second = c.submit(after(|after| after.started = vec![first]));
    c.start(GangId::new(first, 0));
    assert_eq!(starting(&c.state), [second]);
    let third = c.submit(after(|after| after.started = vec![first]));
    assert_eq!(starting(&c.state), [second, third]);
}

#[test]
fn all_conditions_must_hold() {
    let mut c = Cluster::new(1, 4);
    let jobs = [0; 3].map(|_| c.submit(scheduling(1, 1)));
    let last = c.submit(after(|after| (after.ok, after.any) = (jobs[..2].to_vec(), vec![jobs[2]])));
    for job in jobs {
        assert!(!starting(&c.state).contains(&last));
        finish(&mut c, job, Ends::Well);
    }
    assert_eq!(starting(&c.state), [last]);
}

#[test]
fn a_broken_condition_cancels_the_job_if_it_says_so_and_those_behind_it_in_a_chain_of_any_length() {
    let mut c = Cluster::new(1, 1);
    let first = c.submit(scheduling(1, 1));
    let mut last = first;
    for _ in 0..300 {
        last = c.submit(after(|after| (after.ok, after.or_cancel) = (vec![last], true)));
    }
    let outcome = c.apply(cancel(first));
    let ended = outcome.events.iter().filter(|event| matches!(event, Event::JobEnded { end: End::Cancelled, .. }));
    assert_eq!(ended.count(), 301);
    assert!(c.state.jobs().is_empty());
}

#[test]
fn what_can_never_hold_is_refused_at_submit_with_the_reason() {
    let mut c = Cluster::new(1, 1);
    let failed = c.submit(scheduling(1, 1));
    finish(&mut c, failed, Ends::Badly);
    let broken = refused(try_submit(&mut c, after(|after| after.ok = vec![failed])));
    assert_eq!(broken, format!("after.ok: job {failed} has ended already, FAILED; the condition can never hold"));
    assert!(matches!(try_submit(&mut c, after(|after| after.not_ok = vec![failed])), Response::Submitted { .. }));
    let unknown = refused(try_submit(&mut c, after(|after| after.any = vec![JobId(99_999)])));
    assert_eq!(unknown, "after.any: job 99999 is not known; it never was, or ended more than 24 h ago");
    let many = refused(try_submit(&mut c, after(|after| after.any = vec![failed; Dependencies::COUNT_MAX + 1])));
    assert!(many.contains("at most 256"), "{many}");
}

#[test]
fn ended_jobs_are_remembered_for_the_horizon_of_keys() {
    let mut c = Cluster::new(1, 1);
    let [first, second] = [0; 2].map(|_| c.submit(scheduling(1, 1)));
    finish(&mut c, first, Ends::Well);
    c.pass(c.state.settings().key_horizon_ms + 1);
    finish(&mut c, second, Ends::Well);
    assert!(c.state.tombstone(first).is_none() && c.state.tombstone(second).is_some());
}

#[test]
fn an_array_has_succeeded_only_when_every_element_has() {
    let mut c = Cluster::new(1, 4);
    let mut array = scheduling(1, 1);
    array.array = Some(ArraySpec { count: 2, at_once: None, stop_after_failures: None });
    let array = c.submit(array);
    let next = c.submit(after(|after| after.ok = vec![array]));
    for (ordinal, exit) in [(0, OK), (1, Exit::Code(1))] {
        assert!(!starting(&c.state).contains(&next));
        let gang = GangId::new(array, ordinal);
        c.start(gang);
        let node = c.parts(gang)[0];
        c.exit(gang, node, 0, exit);
        c.release_all(gang);
    }
    assert_eq!(reason(&c.state, next).unwrap().0, Reason::DependencyNever);
}

#[test]
fn a_singleton_runs_after_every_job_of_its_user_and_name_before_it() {
    let mut c = Cluster::new(1, 4);
    let plain = c.submit(scheduling(1, 1));
    let [one, two] = [0; 2].map(|_| c.submit(after(|after| after.singleton = true)));
    assert_eq!(starting(&c.state), [plain], "it does not wait itself");
    assert!(reason(&c.state, two).unwrap().1.contains(&format!("job {plain} of that name")));
    let command = c.edit_of(one, "r1", |edit| edit.name = Name::literal("other"));
    c.apply(command);
    assert_eq!(starting(&c.state), [plain, one], "it is the first of its new name");
    let mut memo = Memo::default();
    cycle(&c.state, &mut memo, c.state.now());
    finish(&mut c, plain, Ends::Well);
    assert_eq!(cycle(&c.state, &mut memo, c.state.now()), decide(&c.state), "a kept memo learns that it may start");
    assert_eq!(starting(&c.state), [one, two]);
}

#[test]
fn an_edit_may_change_what_a_waiting_job_waits_for_but_never_into_a_circle() {
    let mut c = Cluster::new(1, 4);
    let first = c.submit(scheduling(1, 1));
    let second = c.submit(after(|after| after.ok = vec![first]));
    let third = c.submit(after(|after| after.ok = vec![second]));
    let circle = c.edit_of(first, "r1", |edit| edit.scheduling.after.any = vec![third]);
    let why = refused(c.respond(circle));
    assert_eq!(why, format!("after.any: job {third} itself waits for job {first}; neither would ever start"));
    let freed = c.edit_of(third, "r2", |edit| edit.scheduling.after.ok.clear());
    c.apply(freed);
    assert_eq!(starting(&c.state), [first, third]);
    c.start(GangId::new(first, 0));
    let late = c.edit_of(first, "r3", |edit| edit.scheduling.after.any = vec![third]);
    assert!(refused(c.respond(late)).contains("has been started"));
}

#[test]
fn a_plan_made_before_the_condition_is_refused() {
    let mut c = Cluster::new(1, 4);
    let first = c.submit(scheduling(1, 1));
    let second = c.submit(scheduling(1, 1));
    let gang = GangId::new(second, 0);
    let plan = c.plan(vec![PlanStep::Place(c.naive_placement(gang).unwrap())]);
    let edit = c.edit_of(second, "r1", |edit| edit.scheduling.after.ok = vec![first]);
    c.apply(edit);
    let response = c.respond(plan);
    assert!(matches!(&response, Response::Plan { accepted: 0, rejected } if rejected.len() == 1), "{response:?}");
    let edit = c.edit_of(second, "r2", |edit| edit.scheduling.after.ok.clear());
    c.apply(edit);
    let waits = c.submit(after(|after| after.ok = vec![first]));
    let plan = c.plan(vec![PlanStep::Place(c.naive_placement(GangId::new(waits, 0)).unwrap())]);
    let response = c.respond(plan);
    assert!(matches!(&response, Response::Plan { rejected, .. } if rejected[0].1 == Rejection::Waits), "{response:?}");
}

#[test]
fn lists_name_the_reason_of_jobs_that_no_cycle_looks_at() {
    let mut c = Cluster::new(1, 4);
    let first = c.submit(scheduling(1, 1));
    let waits = c.submit(after(|after| after.ok = vec![first]));
    let held = c.submit(scheduling(1, 1));
    c.apply(Command::Hold { job: held, hold: true, by: principal() });
    let briefs = briefs(&c.state, &mut Memo::default(), c.state.now());
    let told: Vec<_> = briefs.apart.iter().map(|(job, (blocker, gangs))| (*job, blocker.reason, *gangs)).collect();
    assert_eq!(told, [(waits, Reason::Dependency, 1), (held, Reason::Hold, 1)]);
}

fn due(deadline_ms: u64, limit_ms: Option<u64>) -> Scheduling {
    let mut scheduling = scheduling(1, 1);
    (scheduling.deadline_at_ms, scheduling.limits.time_ms) = (Some(deadline_ms), limit_ms);
    scheduling
}

#[test]
fn what_can_no_longer_end_by_its_deadline_is_given_up() {
    let mut c = Cluster::new(1, 1);
    let now = c.state.now().0;
    let runs = GangId::new(c.submit(due(now + 100_000, Some(60_000))), 0);
    let waits = c.submit(due(now + 100_000, Some(60_000)));
    c.start(runs);
    c.pass(39_999);
    c.expire();
    assert!(c.state.job(waits).is_some());
    c.pass(1);
    assert!(starting(&c.state).is_empty(), "one more start would end too late");
    c.expire();
    assert_eq!(c.state.tombstone(waits).unwrap().end, End::TimedOut);
    assert_eq!(c.word(runs), "RUNNING", "it has its time limit");
}

#[test]
fn without_a_time_limit_a_job_is_stopped_at_its_deadline_and_not_tried_again() {
    let mut c = Cluster::new(1, 1);
    let now = c.state.now().0;
    let mut spec = due(now + 50_000, None);
    spec.retry.app = 3;
    let gang = GangId::new(c.submit(spec), 0);
    c.start(gang);
    c.pass(50_000);
    c.expire();
    assert_eq!(c.word(gang), "STOPPING");
    c.release_all(gang);
    assert_eq!(c.state.tombstone(gang.job).unwrap().end, End::TimedOut);
}

#[test]
fn a_failed_attempt_is_not_tried_again_when_it_would_end_too_late() {
    let mut c = Cluster::new(1, 1);
    let now = c.state.now().0;
    let mut spec = due(now + 100_000, Some(60_000));
    spec.retry.app = 3;
    let gang = GangId::new(c.submit(spec), 0);
    c.start(gang);
    c.pass(45_000);
    c.expire();
    let node = c.parts(gang)[0];
    c.exit(gang, node, 0, Exit::Code(1));
    c.release_all(gang);
    assert_eq!(c.state.tombstone(gang.job).unwrap().end, End::TimedOut);
}

#[test]
fn a_deadline_that_cannot_be_met_is_refused_at_submit_and_by_an_edit() {
    let mut c = Cluster::new(1, 1);
    let now = c.state.now().0;
    assert!(refused(try_submit(&mut c, due(now + 60_000, Some(60_000)))).starts_with("deadline: "));
    let job = c.submit(due(now + 60_001, Some(60_000)));
    let edit = c.edit_of(job, "r1", |edit| edit.scheduling.limits.time_ms = Some(60_001));
    assert!(refused(c.respond(edit)).contains("could not end by that deadline"));
    let edit = c.edit_of(job, "r2", |edit| edit.scheduling.deadline_at_ms = None);
    c.apply(edit);
    c.pass(1_000_000);
    c.expire();
    assert!(c.state.job(job).is_some());
}

#[test]
fn a_job_begins_no_earlier_than_it_asks() {
    let mut c = Cluster::new(1, 1);
    let mut later = scheduling(1, 1);
    later.begin_at_ms = Some(c.state.now().0 + 5_000);
    let job = c.submit(later);
    assert!(starting(&c.state).is_empty());
    assert_eq!(decide(&c.state).wake_at, Some(Time(c.state.now().0 + 5_000)));
    c.pass(5_000);
    c.expire();
    assert_eq!(starting(&c.state), [job]);
}
