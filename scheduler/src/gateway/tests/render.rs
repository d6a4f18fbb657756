use super::fixture::{Cluster, principal};
use crate::gateway::render::{cluster, event, gang, job, node};
use crate::gateway::{helped, waiting, why};
use crate::records::Recorded;
use muster_common::job::DependencyKind;
use muster_common::{GangId, JobId};
use muster_engine::command::{Cancel, Exit, NodeAction, ReportBody};
use muster_engine::forecast::{forecast, forecast_within};
use muster_engine::plan::brief::briefs;
use muster_engine::state::gang::End;
use muster_engine::{Command, Event, Memo};
use muster_proto::client as pb;
use muster_runtime::clock::{Clock, ManualTime, Sleep};
use serde::Serialize;
use std::sync::Arc;

const TWO_NODES: &str = r#"{"name":"train","gang":{"nodes":2,"gpus_per_node":2,"ranks_per_node":"gpu","run":"x"},
    "env":{"TOKEN":"secret"},"limits":{"time":"1h","expected":"30m"},"retry":{"app":1}}"#;

fn pretty<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

fn gang0(job: JobId) -> GangId {
    GangId::new(job, 0)
}

fn cancel(cluster: &mut Cluster, job: JobId, ordinal: Option<u32>) {
    let by = principal("alice");
    cluster.apply(Command::Cancel(Cancel { job, ordinal, reason: "not needed".into(), by }));
}

/// A rank fails, the second attempt succeeds.
fn retried() -> (Cluster, JobId) {
    let mut cluster = Cluster::new(2, 2);
    let job = cluster.submit("alice", TWO_NODES);
    let gang = gang0(job);
    cluster.start(gang);
    cluster.pass(5_000);
    let nodes = cluster.nodes_of(gang);
    cluster.report(nodes[1], gang, ReportBody::Exited { rank: 3, exit: Exit::Signal(9), why: String::new() });
    cluster.release(gang);
    cluster.pass(2_000);
    cluster.start(gang);
    cluster.pass(10_000);
    for node in nodes {
        cluster.exit(node, gang, Exit::Code(0));
    }
    cluster.release(gang);
    (cluster, job)
}

#[test]
fn a_job_that_ended_on_its_second_attempt_is_shown_whole() {
    let (cluster, job) = retried();
    let subject = cluster.subject(job);
    insta::assert_snapshot!("ended_job", pretty(&job::whole(&subject, None, None, true)));
}

#[test]
fn a_job_that_runs_names_its_nodes_and_devices() {
    let mut cluster = Cluster::new(2, 2);
    let job = cluster.submit("alice", TWO_NODES);
    cluster.start(gang0(job));
    insta::assert_snapshot!("running_job", pretty(&job::whole(&cluster.subject(job), None, None, true)));
}

#[test]
fn environment_values_are_shown_to_those_who_may_see_them_only() {
    let (cluster, job) = retried();
    let subject = cluster.subject(job);
    assert!(job::whole(&subject, None, None, true).spec_json.contains("secret"));
    let hidden = job::whole(&subject, None, None, false).spec_json;
    assert!(!hidden.contains("secret") && hidden.contains("TOKEN"), "{hidden}");
    for recorded in &cluster.events {
        assert!(!event::render(&cluster.state, recorded, false).json.contains("secret"));
    }
}

#[test]
fn a_gang_is_picked_by_attempt() {
    let (cluster, job) = retried();
    let gang = gang::render(&cluster.subject(job), 0, Some(1));
    let [attempt] = gang.attempts.as_slice() else { panic!("{gang:?}") };
    assert_eq!((attempt.number, attempt.cause.as_str()), (1, "rank_failed"));
}

#[test]
fn the_state_exit_code_and_cause_follow_how_it_ended() {
    let (cluster, job) = retried();
    let done = job::summary(&cluster.subject(job), None);
    assert_eq!((done.state.as_str(), done.exit_code, done.attempt), ("SUCCEEDED", Some(0), 2));

    let mut cluster = Cluster::new(2, 2);
    let waiting = cluster.submit("alice", TWO_NODES);
    cancel(&mut cluster, waiting, None);
    let never_ran = job::summary(&cluster.subject(waiting), None);
    assert_eq!((never_ran.state.as_str(), never_ran.exit_code), ("CANCELLED", None));
    assert_eq!(
        (never_ran.cause.as_str(), never_ran.cause_text.as_str()),
        ("cancelled", "cancelled by alice: not needed")
    );

    let failing = cluster.submit("alice", &TWO_NODES.replace(r#""app":1"#, r#""app":0"#));
    cluster.start(gang0(failing));
    let nodes = cluster.nodes_of(gang0(failing));
    cluster.report(nodes[0], gang0(failing), ReportBody::Exited { rank: 1, exit: Exit::Code(3), why: String::new() });
    let stopping = job::summary(&cluster.subject(failing), None);
    assert_eq!(
        (stopping.state.as_str(), stopping.cause.as_str(), stopping.exit_code),
        ("STOPPING", "rank_failed", None)
    );
    cluster.release(gang0(failing));
    let failed = job::summary(&cluster.subject(failing), None);
    assert_eq!((failed.state.as_str(), failed.exit_code), ("FAILED", Some(3)));
    assert_eq!(failed.cause_text, "rank 1 on n1 exited with code 3");
}

#[test]
fn a_job_that_waited_too_long_says_so() {
    let mut cluster = Cluster::new(1, 1);
    let job = cluster.submit("alice", r#"{"gang":{"nodes":1,"gpus_per_node":1,"run":"x"},"limits":{"wait":"5s"}}"#);
    cluster.apply(Command::Hold { job, hold: true, by: principal("alice") });
    assert!(job::summary(&cluster.subject(job), None).held);
    cluster.pass(6_000);
    cluster.decide();
    let ended = job::summary(&cluster.subject(job), None);
    assert_eq!((ended.state.as_str(), ended.cause.as_str(), ended.held), ("TIMED_OUT", "wait_limit", false));
}

#[test]
fn an_array_counts_its_gangs_and_each_element_has_its_own_state() {
    let mut cluster = Cluster::new(1, 2);
    let job = cluster.submit("alice", r#"{"gang":{"nodes":1,"gpus_per_node":1,"run":"x"},"array":{"range":"0-3"}}"#);
    cluster.decide();
    for ordinal in [0, 1] {
        let gang = GangId::new(job, ordinal);
        let node = cluster.nodes_of(gang)[0];
        cluster.report(node, gang, ReportBody::Prepared);
    }
    let first = GangId::new(job, 0);
    let node = cluster.nodes_of(first)[0];
    cluster.exit(node, first, Exit::Code(7));
    cluster.release(first);
    cancel(&mut cluster, job, Some(3));

    let subject = cluster.subject(job);
    let whole = job::summary(&subject, None);
    let counts = whole.counts.unwrap();
    assert_eq!((counts.total, counts.failed, counts.running, counts.queued, counts.cancelled), (4, 1, 1, 1, 1));
    assert_eq!((whole.state.as_str(), whole.node_names.as_slice()), ("RUNNING", &["n1".to_owned()][..]));
    let states: Vec<(String, Option<i32>)> =
        (0..4).map(|ordinal| job::summary(&subject, Some(ordinal))).map(|job| (job.state, job.exit_code)).collect();
    let word = |word: &str| word.to_owned();
    assert_eq!(
        states,
        [(word("FAILED"), Some(7)), (word("RUNNING"), None), (word("QUEUED"), None), (word("CANCELLED"), None)]
    );
    assert!(subject.check_ordinal(4).is_err());

    cancel(&mut cluster, job, None);
    cluster.release(GangId::new(job, 1));
    let ended = job::summary(&cluster.subject(job), None);
    assert_eq!((ended.state.as_str(), ended.exit_code), ("FAILED", Some(7)));
    assert_eq!(ended.cause_text, "element 0: rank 0 on n1 exited with code 7");
    let last = job::summary(&cluster.subject(job), Some(2));
    assert_eq!(last.state, "CANCELLED");
}

#[test]
fn why_names_what_is_in_the_way_and_when_it_ends() {
    let mut cluster = Cluster::new(2, 2);
    let first = cluster.submit("bob", TWO_NODES);
    cluster.start(gang0(first));
    let second = cluster.submit("alice", TWO_NODES);
    cluster.pass(60_000);
    let subject = cluster.subject(second);
    let foreseen = forecast(&subject.state, subject.now);
    let answer = why::answer(&subject, None, Some(&foreseen));
    insta::assert_snapshot!("why", pretty(&pb::WhyReply { job: None, ..answer }));
}

#[test]
fn why_is_the_same_whatever_was_looked_at_before() {
    let mut cluster = Cluster::new(2, 2);
    let looks = why::Looks::default();
    let jobs: Vec<_> = (0..4).map(|_| cluster.submit("alice", TWO_NODES)).collect();
    let mut subjects = vec![cluster.subject(jobs[3])];
    cluster.start(gang0(jobs[0]));
    subjects.push(cluster.subject(jobs[3]));
    cluster.pass(60_000);
    cluster.apply(Command::Hold { job: jobs[1], hold: true, by: principal("alice") });
    subjects.push(cluster.subject(jobs[3]));
    // An older one last: it must not see what came later.
    let mut positions = Vec::new();
    for at in [0, 1, 2, 2, 0] {
        let subject = &subjects[at];
        let known = why::answer_until(&looks, subject, None, None, 0);
        assert_eq!(known, why::answer(subject, None, None), "state {at}");
        positions.extend(known.position);
    }
    assert_eq!((positions[0], positions[1], positions[4]), (4, 3, 4));
}

#[test]
fn a_start_too_far_ahead_to_play_is_told_as_coarse() {
    let mut cluster = Cluster::new(2, 2);
    let jobs: Vec<_> = (0..40).map(|_| cluster.submit("alice", TWO_NODES)).collect();
    let last = cluster.subject(jobs[39]);
    let foreseen = forecast_within(&last.state, last.now, 40);
    assert!(!foreseen.complete);
    let answer = why::answer(&last, None, Some(&foreseen));
    assert!(answer.start_estimate_coarse && answer.estimate_text.starts_with("coarse: "), "{}", answer.estimate_text);
    let job = answer.job.unwrap();
    assert!(job.start_estimate_coarse);
    assert_eq!(job.start_estimate_at_ms, answer.start_estimate_at_ms);
    let second = why::answer(&cluster.subject(jobs[1]), None, Some(&foreseen));
    assert!(!second.start_estimate_coarse && second.start_estimate_at_ms < answer.start_estimate_at_ms);
}

#[test]
fn what_would_help_was_tried_and_says_when_it_starts_and_whom_it_pushes_back() {
    let mut cluster = Cluster::new(2, 2);
    let one = r#"{"name":"one","gang":{"nodes":1,"gpus_per_node":2,"run":"x"},"limits":{"time":"1h"}}"#;
    let runs = cluster.submit("bob", one);
    cluster.start(gang0(runs));
    let waits = cluster.submit("alice", TWO_NODES);
    let subject = cluster.subject(waits);
    let mut answer = why::answer(&subject, None, Some(&forecast(&subject.state, subject.now)));
    helped::add(&mut answer, &subject, gang0(waits));
    let [smaller] = answer.would_help.as_slice() else { panic!("{:?}", answer.would_help) };
    assert_eq!(smaller.change, "1 node instead of 2");
    assert_eq!(smaller.command, format!("muster edit {waits} --set gang.nodes=1"));
    assert_eq!((smaller.kind.as_str(), smaller.effect.as_str()), ("size", "starts now"));
    assert_eq!((smaller.start_at_ms, smaller.delayed, smaller.admins_only), (Some(subject.now.0), Some(0), false));
    assert_eq!(answer.range_text, "no range: too few earlier jobs of the same users and names are known");
    let held = cluster.submit("alice", one);
    cluster.apply(Command::Hold { job: held, hold: true, by: principal("alice") });
    let state = &cluster.state;
    let all = waiting::answer(state, &briefs(state, &mut Memo::default(), subject.now), subject.now);
    let told: Vec<(&str, u64)> = all.groups.iter().map(|group| (group.reason.as_str(), group.gpus)).collect();
    assert_eq!((told.as_slice(), all.gangs, all.gpus), ([("nodes", 4), ("hold", 2)].as_slice(), 2, 6));
}

#[test]
fn a_held_job_says_hold_first() {
    let mut cluster = Cluster::new(1, 1);
    let job = cluster.submit("alice", r#"{"gang":{"nodes":1,"gpus_per_node":1,"run":"x"}}"#);
    cluster.apply(Command::Hold { job, hold: true, by: principal("alice") });
    let answer = why::answer(&cluster.subject(job), None, None);
    assert_eq!(answer.blockers[0].reason, "hold");
    assert_eq!(answer.would_help[0].change, format!("muster release {job}"));
    let subject = cluster.subject(job);
    let played = why::answer(&subject, None, Some(&forecast(&subject.state, subject.now)));
    assert_eq!((played.start_estimate_at_ms, played.estimate_text.as_str()), (None, "it is held"));
}

#[test]
fn a_job_that_came_after_the_last_play_is_played_for_once() {
    let mut cluster = Cluster::new(2, 2);
    let first = cluster.submit("bob", TWO_NODES);
    cluster.start(gang0(first));
    let before = cluster.subject(first);
    let time = ManualTime::new(0);
    let (estimates, clock) = (why::Estimates::default(), time.clock());
    let kept = estimates.get(&before.state, before.now, &clock);
    let fresh = cluster.submit("alice", TWO_NODES);
    let subject = cluster.subject(fresh);
    let stale = why::answer(&subject, None, Some(&kept));
    assert_eq!(stale.start_estimate_at_ms, None);
    assert_eq!(stale.estimate_text, "it came after the look ahead was made; ask again in a moment");
    time.advance(10);
    let anew = estimates.get_for(gang0(fresh), &subject.state, subject.now, &clock).forecast;
    let answer = why::answer(&subject, None, Some(&anew));
    assert!(answer.start_estimate_at_ms.is_some() && answer.estimate_text.starts_with("if what runs ends"));
    cluster.pass(1_000);
    let later = cluster.subject(fresh);
    time.advance(1_000);
    let again = estimates.get_for(gang0(fresh), &later.state, later.now, &clock).forecast;
    assert!(Arc::ptr_eq(&anew, &again), "the play that knows the job is kept for a while");
    cluster.decide();
    let booked = why::answer(&cluster.subject(fresh), None, Some(&kept));
    assert!(booked.start_estimate_at_ms.is_some());
    assert_eq!(booked.estimate_text, "the start that is booked for it");
}

#[test]
fn a_play_is_used_for_a_while_however_many_new_jobs_are_asked_about() {
    let mut cluster = Cluster::new(2, 2);
    let first = cluster.submit("bob", TWO_NODES);
    cluster.start(gang0(first));
    let time = ManualTime::new(0);
    let (estimates, clock) = (why::Estimates::default(), time.clock());
    let before = cluster.subject(first);
    let mut last = estimates.get(&before.state, before.now, &clock);
    let mut plays = 1;
    for _ in 0..20 {
        let fresh = cluster.submit("alice", TWO_NODES);
        let subject = cluster.subject(fresh);
        let ahead = estimates.get_for(gang0(fresh), &subject.state, subject.now, &clock);
        if !Arc::ptr_eq(&last, &ahead.forecast) {
            plays += 1;
        }
        last = ahead.forecast;
        let answer = why::answer_until(&why::Looks::default(), &subject, None, Some(&last), ahead.again_in_ms);
        assert_eq!(answer.estimate_text, "it came after the look ahead was made; ask again in 1s");
    }
    assert_eq!(plays, 1, "no time has passed");
}

#[test]
fn a_play_that_took_long_is_used_for_ten_times_as_long_by_new_jobs_too() {
    let mut cluster = Cluster::new(2, 2);
    let first = cluster.submit("bob", TWO_NODES);
    cluster.start(gang0(first));
    let time = ManualTime::new(0);
    let clock = Slow { time: time.clone(), reading_ms: 700 };
    let estimates = why::Estimates::default();
    let before = cluster.subject(first);
    // Read twice: it took 700 ms.
    let kept = estimates.get(&before.state, before.now, &clock);
    let fresh = cluster.submit("alice", TWO_NODES);
    let subject = cluster.subject(fresh);
    let quick = time.clock();
    let soon = estimates.get_for(gang0(fresh), &subject.state, subject.now, &quick);
    assert!(Arc::ptr_eq(&kept, &soon.forecast), "it would keep everybody else out");
    assert_eq!(soon.again_in_ms, 7_000);
    time.advance(6_999);
    let soon = estimates.get_for(gang0(fresh), &subject.state, subject.now, &quick);
    assert!(Arc::ptr_eq(&kept, &soon.forecast));
    time.advance(1);
    let anew = estimates.get_for(gang0(fresh), &subject.state, subject.now, &quick);
    assert!(!Arc::ptr_eq(&kept, &anew.forecast) && anew.forecast.start(gang0(fresh)).is_some());
}

/// Moves on with each reading, as if what is measured took so long.
#[derive(Debug)]
struct Slow {
    time: ManualTime,
    reading_ms: u64,
}

impl Clock for Slow {
    fn boottime_ms(&self) -> u64 {
        self.time.advance(self.reading_ms);
        self.time.now_ms()
    }

    fn wall_ms(&self) -> u64 {
        self.time.now_ms()
    }

    fn sleep_until_ms(&self, _boottime_ms: u64) -> Sleep {
        Box::pin(std::future::pending())
    }
}

#[test]
fn only_what_the_next_cycle_starts_is_said_to_start_now() {
    let mut cluster = Cluster::new(2, 2);
    let first = cluster.submit("bob", TWO_NODES);
    let now = why::answer(&cluster.subject(first), None, None);
    assert!(now.starts_now && now.blockers.is_empty(), "{now:?}");
    cluster.start(gang0(first));
    let second = cluster.submit("alice", TWO_NODES);
    assert!(!why::answer(&cluster.subject(second), None, None).starts_now);
}

#[test]
fn nodes_show_devices_holders_and_drains() {
    let mut cluster = Cluster::new(2, 2);
    let job = cluster.submit("alice", TWO_NODES);
    cluster.start(gang0(job));
    let id = cluster.nodes_of(gang0(job))[0];
    let action = NodeAction::Drain { reason: "xid 79".into(), deadline_ms: Some(7_200_000) };
    cluster.apply(Command::NodeAdmin { node: id, action, by: principal("root") });
    let record = cluster.state.node(id).unwrap();
    insta::assert_snapshot!("draining_node", pretty(&node::whole(&cluster.state, record)));
    assert_eq!(cluster::nodes(&cluster.state).closed, 1);
    assert_eq!(cluster::devices(&cluster.state).held, 4);
    assert_eq!(cluster::jobs(&cluster.state).running, 1);
}

#[test]
fn a_node_tells_how_many_gangs_it_has_beyond_those_it_names() {
    let cluster = Cluster::new(1, 1);
    let mut record = cluster.state.nodes().values().next().unwrap().clone();
    record.gangs = (0..70).map(|ordinal| GangId::new(JobId(7), ordinal)).collect();
    let told = node::summary(&cluster.state, &record);
    assert_eq!((told.gangs.len(), told.gangs_total), (64, 70));
}

#[test]
fn every_event_has_one_line_for_people() {
    let (mut cluster, _) = retried();
    let id = *cluster.state.nodes().keys().next().unwrap();
    let epoch = cluster.state.node(id).unwrap().epoch;
    cluster.apply(Command::NodeSilent { node: id, epoch, term: 1 });
    cluster.apply(Command::NodeFenced { node: id, epoch, term: 1, waited_ms: 10_000_000 });
    let lines: Vec<String> = cluster
        .events
        .iter()
        .map(|recorded| event::render(&cluster.state, recorded, false))
        .map(|event| format!("{:>3}.{} {:<16} {}", event.index, event.ordinal, event.kind, event.text))
        .collect();
    insta::assert_snapshot!("events", lines.join("\n"));
}

/// By the events there are, so that one that comes later is seen here too.
#[test]
fn every_kind_of_event_can_be_asked_for() {
    let source = include_str!("../../../../engine/src/outcome.rs");
    let body = source.split("pub enum Event {").nth(1).and_then(|rest| rest.split("\n}").next()).expect("the events");
    let names = body.lines().filter(|line| line.starts_with("    ") && line[4..].starts_with(char::is_uppercase));
    let mut expected: Vec<String> = Vec::new();
    for name in names.map(|line| line.trim().trim_end_matches([',', '{', ' '])) {
        match name {
            "JobHeld" => expected.extend(["job_held", "job_released"].map(String::from)),
            "WindowMade" => expected.push("reservation_made".into()),
            "WindowEnded" => expected.push("reservation_ended".into()),
            name => {
                let lower = |c: char| if c.is_uppercase() { format!("_{}", c.to_lowercase()) } else { c.to_string() };
                expected.push(name.chars().map(lower).collect::<String>().trim_start_matches('_').to_owned());
            }
        }
    }
    assert!(expected.len() > 30, "{expected:?}");
    expected.sort();
    let mut kinds: Vec<String> = event::KINDS.iter().map(|kind| (*kind).to_owned()).collect();
    kinds.sort();
    assert_eq!(kinds, expected);
    let broken = Event::DependencyBroken { job: JobId(7), kind: DependencyKind::Ok, on: JobId(6), end: End::Failed };
    assert!(event::KINDS.contains(&event::kind(&broken)));
}

#[test]
fn an_event_that_is_about_a_gang_names_its_job() {
    let cluster = Cluster::new(1, 1);
    let node = *cluster.state.nodes().keys().next().unwrap();
    let asked = Event::NodesRequested { gang: GangId::new(JobId(7), 3), nodes: vec![node] };
    let recorded = Recorded { index: 9, ordinal: 0, at: cluster.at, event: asked };
    let told = event::render(&cluster.state, &recorded, true);
    assert_eq!((told.job, told.gang, told.text.as_str()), (Some(7), Some(3), "1 node is to be woken"));
}
