//! Edits: another revision of a job's spec, taken by what waits and, where it can be, by what runs.

use crate::support;

use muster_common::job::{ArraySpec, Count, Scheduling};
use muster_common::{GangId, JobId, Name, Time};
use muster_engine::command::Edit;
use muster_engine::outcome::Refusal;
use muster_engine::state::timer::Timer;
use muster_engine::{Command, Entry, Event, Response, State, apply};
use support::*;

fn edit(c: &mut Cluster, job: JobId, request: &str, change: impl FnOnce(&mut Edit)) -> Response {
    let command = c.edit_of(job, request, change);
    c.respond(command)
}

fn edited(revision: u32) -> Response {
    Response::Edited { revision, existing: false }
}

fn refusal(response: Response) -> String {
    match response {
        Response::Refused(refusal) => refusal.to_string(),
        other => panic!("answered {other:?}"),
    }
}

fn time_limits(state: &State, gang: GangId) -> Vec<u64> {
    let of = |timer: &Timer| matches!(timer, Timer::TimeLimit { gang: limited, .. } if *limited == gang);
    state.timers().filter(|(_, timer)| of(timer)).map(|(at, _)| at.0).collect()
}

fn limited(ms: u64) -> Scheduling {
    let mut scheduling = scheduling(1, 1);
    scheduling.limits.time_ms = Some(ms);
    scheduling
}

#[test]
fn a_waiting_job_takes_every_change_and_counts_its_revisions() {
    let mut c = Cluster::new(2, 4);
    let job = c.submit(scheduling(1, 1));
    let response = edit(&mut c, job, "r1", |edit| {
        edit.name = Name::literal("other");
        edit.scheduling.queue = Name::literal("research");
        edit.scheduling.groups = scheduling(2, 3).groups;
    });
    assert_eq!(response, edited(2));
    let record = c.state.job(job).unwrap();
    assert_eq!((record.name.as_str(), record.revisions.len()), ("other", 1), "nothing runs the first any more");
    c.start(GangId::new(job, 0));
    assert_eq!(c.parts(GangId::new(job, 0)).len(), 2);
}

#[test]
fn the_event_tells_who_changed_what_from_what_to_what() {
    let mut c = Cluster::new(1, 1);
    let job = c.submit(limited(60_000));
    let command = c.edit_of(job, "r1", |edit| edit.scheduling.limits.time_ms = Some(120_000));
    let events = c.apply(command).events;
    let Some(Event::JobEdited { revision: 2, by, before, after, launch: false, .. }) = events.last() else {
        panic!("{events:?}");
    };
    assert_eq!((by, before.limits.time_ms, after.limits.time_ms), (&principal(), Some(60_000), Some(120_000)));
}

#[test]
fn an_edit_of_an_old_revision_is_refused() {
    let mut c = Cluster::new(1, 1);
    let job = c.submit(scheduling(1, 1));
    let stale = c.edit_of(job, "r2", |edit| edit.scheduling.preemptible = false);
    assert_eq!(edit(&mut c, job, "r1", |edit| edit.scheduling.limits.time_ms = Some(1000)), edited(2));
    assert_eq!(c.respond(stale), Response::Refused(Refusal::OldRevision { job, revision: 2 }));
}

#[test]
fn a_repeated_request_is_answered_as_it_was_and_another_body_is_refused() {
    let mut c = Cluster::new(1, 1);
    let job = c.submit(scheduling(1, 1));
    let request = c.edit_of(job, "r1", |edit| edit.scheduling.preemptible = false);
    assert_eq!(c.respond(request.clone()), edited(2));
    assert_eq!(edit(&mut c, job, "r2", |edit| edit.scheduling.limits.time_ms = Some(1000)), edited(3));
    let events = c.apply(request.clone());
    assert_eq!((events.response, events.events.len()), (Response::Edited { revision: 2, existing: true }, 0));
    let Command::Edit(mut other) = request else { panic!("an edit") };
    other.scheduling.preemptible = true;
    assert_eq!(c.respond(Command::Edit(other)), Response::Refused(Refusal::KeyReused { job }));
}

#[test]
fn nothing_changes_when_nothing_differs() {
    let mut c = Cluster::new(1, 1);
    let job = c.submit(scheduling(1, 1));
    assert_eq!(edit(&mut c, job, "r1", |_| ()), Response::Noop);
    assert_eq!(c.state.job(job).unwrap().revision().number, 1);
}

#[test]
fn a_running_job_takes_a_new_time_limit_and_ends_by_it() {
    let mut c = Cluster::new(1, 1);
    let job = c.submit(limited(60_000));
    let gang = GangId::new(job, 0);
    c.start(gang);
    let started = c.state.gang(gang).unwrap().current().unwrap().started_at.unwrap().0;
    assert_eq!(edit(&mut c, job, "r1", |edit| edit.scheduling.limits.time_ms = Some(200_000)), edited(2));
    assert_eq!(time_limits(&c.state, gang), [started + 200_000]);
    c.pass(100_000);
    c.expire();
    assert_eq!(c.word(gang), "RUNNING", "the first limit is void");
    let passed = edit(&mut c, job, "r2", |edit| edit.scheduling.limits.time_ms = Some(50_000));
    assert!(refusal(passed).contains("has run for 100 s"));
    assert_eq!(edit(&mut c, job, "r3", |edit| edit.scheduling.limits.time_ms = None), edited(3));
    assert_eq!(time_limits(&c.state, gang), [0; 0]);
    assert_eq!(edit(&mut c, job, "r4", |edit| edit.scheduling.limits.time_ms = Some(150_000)), edited(4));
    c.pass(60_000);
    c.expire();
    assert_eq!(c.word(gang), "STOPPING");
    c.release_all(gang);
    assert!(c.state.job(job).is_none());
}

#[test]
fn what_a_running_gang_was_placed_by_cannot_change_under_it() {
    let mut c = Cluster::new(1, 2);
    let job = c.submit(scheduling(1, 1));
    c.start(GangId::new(job, 0));
    let why = refusal(edit(&mut c, job, "r1", |edit| edit.scheduling.groups = scheduling(1, 2).groups));
    assert!(why.contains("it waits again"), "{why}");
    let why = refusal(edit(&mut c, job, "r2", |edit| edit.scheduling.account = Name::literal("other")));
    assert!(why.contains("it waits again"), "{why}");
    assert_eq!(edit(&mut c, job, "r3", |edit| edit.name = Name::literal("renamed")), edited(2));
}

#[test]
fn elements_that_run_stay_at_the_revision_they_were_placed_by() {
    let mut c = Cluster::new(2, 4);
    let mut spec = scheduling(1, 1);
    spec.array = Some(ArraySpec { count: 3, at_once: None, stop_after_failures: None });
    let job = c.submit(spec);
    let (first, second) = (GangId::new(job, 0), GangId::new(job, 1));
    c.start(first);
    assert_eq!(edit(&mut c, job, "r1", |edit| edit.scheduling.groups = scheduling(1, 2).groups), edited(2));
    c.start(second);
    let revision = |gang| c.state.gang(gang).unwrap().revision;
    assert_eq!((revision(first), revision(second)), (1, 2));
    assert_eq!(c.state.job(job).unwrap().revisions.len(), 2);
    assert_eq!(c.state.gang(second).unwrap().current().unwrap().devices(), 2);
    c.report(c.node(0), first, muster_engine::command::ReportBody::Exited { rank: 0, exit: OK, why: String::new() });
    c.release_all(first);
    assert_eq!(edit(&mut c, job, "r2", |edit| edit.scheduling.preemptible = false), edited(3));
    assert_eq!(c.state.gang(second).unwrap().revision, 3, "what it was placed by is the same");
    assert_eq!(c.state.job(job).unwrap().revisions.len(), 1);
}

#[test]
fn what_runs_on_at_an_older_revision_is_stopped_as_that_one_says() {
    let mut c = Cluster::new(1, 4);
    let mut wish = limited(60_000);
    wish.array = Some(ArraySpec { count: 2, at_once: None, stop_after_failures: None });
    let job = c.submit(wish);
    c.start(GangId::new(job, 0));
    let grace_ms = |c: &Cluster| muster_engine::desired(&c.state, c.node(0)).parts[0].stop.grace_ms;
    let before = grace_ms(&c);
    let response = edit(&mut c, job, "r1", |edit| {
        edit.scheduling.groups[0].cpu_milli_per_node = Some(2000);
        edit.scheduling.checkpoint.grace_ms = before + 7000;
    });
    assert_eq!((response, grace_ms(&c)), (edited(2), before));
}

#[test]
fn another_name_costs_a_job_nothing_that_is_kept_for_it() {
    let mut c = Cluster::new(1, 4);
    let runs = c.submit(limited(60_000));
    c.start(GangId::new(runs, 0));
    let mut wish = limited(60_000);
    wish.groups[0].count = Count::Nodes { nodes: 1, per_node: 4 };
    let waits = GangId::new(c.submit(wish), 0);
    c.decide();
    let booked = c.state.reservations().get(&waits).cloned();
    assert!(booked.is_some(), "its start is booked");
    edit(&mut c, waits.job, "r1", |edit| edit.name = Name::literal("another"));
    assert_eq!(c.state.reservations().get(&waits).cloned(), booked);
}

#[test]
fn an_array_keeps_its_elements_and_never_runs_more_than_its_limit() {
    let mut c = Cluster::new(2, 4);
    let mut spec = scheduling(1, 1);
    spec.array = Some(ArraySpec { count: 4, at_once: Some(2), stop_after_failures: None });
    let job = c.submit(spec);
    c.start(GangId::new(job, 0));
    c.start(GangId::new(job, 1));
    let array = |edit: &mut Edit, change: fn(&mut ArraySpec)| change(edit.scheduling.array.as_mut().unwrap());
    let fewer = edit(&mut c, job, "r1", |edit| array(edit, |array| array.at_once = Some(1)));
    assert!(refusal(fewer).contains("2 elements"));
    let other = edit(&mut c, job, "r2", |edit| array(edit, |array| array.count = 9));
    assert!(refusal(other).contains("fixed when it is submitted"));
    assert_eq!(edit(&mut c, job, "r3", |edit| array(edit, |array| array.at_once = Some(3))), edited(2));
    c.start(GangId::new(job, 2));
}

#[test]
fn a_wait_limit_moves_and_one_that_has_passed_is_refused() {
    let mut c = Cluster::new(1, 1);
    let job = c.submit(scheduling(1, 1));
    c.pass(10_000);
    let passed = edit(&mut c, job, "r1", |edit| edit.scheduling.limits.wait_ms = Some(5_000));
    assert!(refusal(passed).contains("waited for longer"));
    assert_eq!(edit(&mut c, job, "r2", |edit| edit.scheduling.limits.wait_ms = Some(20_000)), edited(2));
    c.pass(15_000);
    c.expire();
    assert!(c.state.job(job).is_none(), "it gave up");
}

#[test]
fn below_the_feature_level_nothing_is_edited() {
    let mut c = Cluster::new(1, 1);
    let job = c.submit(scheduling(1, 1));
    let command = c.edit_of(job, "r1", |edit| edit.scheduling.preemptible = false);
    // A state that has not been told its cluster yet is at no level at all.
    let entry = Entry { index: 1, term: 1, at: Time(1), command };
    let response = apply(&mut State::default(), &entry).response;
    assert_eq!(response, Response::Refused(Refusal::FeatureLevel { level: 0, needed: 2 }));
}
