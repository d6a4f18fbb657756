use super::*;
use crate::calibration::Calibration;
use crate::estimates::Sample;
use crate::lived::{BEGIN, Lived, SECOND, busy, scheduling};
use crate::metrics::JobResult;
use crate::play::Play;
use crate::run::Going;
use crate::trace::TraceJob;
use crate::world::truth::Truth;
use muster_common::Name;
use muster_common::job::{ArraySpec, Count, Dependencies, GroupRequest, Limits, Scheduling};
use muster_common::resources::Share;
use muster_engine::Command;
use muster_engine::command::{Cancel, Exit, NodeAction, Principal};
use muster_engine::policy::Order;
use muster_engine::state::gang::Cause;
use std::collections::BTreeMap;

fn import(lived: &Lived, from_s: u64) -> Imported {
    let mut gatherer = Gatherer::new(BEGIN.plus_ms(from_s * SECOND));
    for (at, event) in &lived.history.events {
        gatherer.event(*at, event);
    }
    gatherer.finish(&lived.player.state).unwrap()
}

fn results(imported: &Imported, policy: &Policy) -> Vec<JobResult> {
    let truth = Truth::default();
    // As it is read from the file.
    let world = World::parse(&toml::to_string(&imported.world).unwrap()).unwrap();
    let organisation = imported.organisation.as_ref();
    let play = Play {
        world: &world,
        truth: &truth,
        policy,
        organisation,
        throughputs: None,
        seed: 0,
        bounds: Vec::new(),
        watts: Vec::new(),
        estimates: Sample::default(),
        check: true,
    };
    play.run(imported.trace.jobs.clone(), None, &mut |_| Going::On).unwrap().results
}

fn replayed(imported: &Imported) -> Vec<(String, u64)> {
    let start = |result: &JobResult| {
        let name = result.job.name.as_ref().unwrap().to_string();
        Some((name, result.first_start?.0))
    };
    let mut starts: Vec<_> = results(imported, &imported.policy).iter().filter_map(start).collect();
    starts.sort_by_key(|(name, at)| (*at, name.clone()));
    starts
}

fn sorted(mut starts: Vec<(String, u64)>) -> Vec<(String, u64)> {
    starts.sort_by_key(|(name, at)| (*at, name.clone()));
    starts
}

#[test]
fn the_same_policy_in_the_imported_world_starts_every_job_when_it_was_started() {
    let mut lived = busy();
    lived.until(1_000_000);
    let imported = import(&lived, 0);
    assert_eq!(imported.trace.jobs.len(), 40);
    assert_eq!(replayed(&imported), sorted(lived.history.starts.clone()));
    assert_eq!(imported.card.trace.changed, []);
    assert_eq!((imported.card.nodes, imported.card.from_ms), (3, BEGIN.0));
}

/// How far a run is from what was is told by the starts that the import recorded.
#[test]
fn the_policy_in_force_is_calibrated_and_another_one_is_apart() {
    let mut lived = busy();
    lived.until(1_000_000);
    let imported = import(&lived, 0);
    let own = Calibration::of(&results(&imported, &imported.policy)).unwrap();
    assert_eq!((own.jobs, own.not_started, own.same_order), (40, 0, 40));
    assert_eq!((own.difference.abs_p90_s, own.recorded_wait_s), (0.0, own.simulated_wait_s));
    assert!(own.recorded_wait_s.max > 0.0);
    let smallest = Policy { order: Order::Smallest, ..imported.policy.clone() };
    let other = Calibration::of(&results(&imported, &smallest)).unwrap();
    assert!(other.same_order < 40 && other.difference.abs_p90_s > 0.0, "{other:?}");
}

/// In a run they do neither, so their starts are not held against it.
#[test]
fn what_was_held_or_waited_for_others_has_no_recorded_start() {
    let mut lived = Lived::new(1);
    lived.submit(0, "first", 100, scheduling(1, 8));
    lived.submit(1, "held", 50, scheduling(1, 8));
    lived.until(1);
    let id = |name: &str| lived.player.state.jobs().values().find(|job| job.name.as_str() == name).unwrap().id;
    let (first, held) = (id("first"), id("held"));
    let hold = |hold| Command::Hold { job: held, hold, by: Principal("ann".into()) };
    lived.at(2, hold(true));
    lived.at(500, hold(false));
    let after = Dependencies { any: vec![first], ..Dependencies::default() };
    lived.submit(3, "after", 50, Scheduling { after, ..scheduling(1, 8) });
    lived.submit(4, "plain", 50, scheduling(1, 8));
    lived.until(1_000_000);
    assert_eq!(lived.history.starts.len(), 4);
    let imported = import(&lived, 0);
    let recorded = |job: &TraceJob| Some((job.name.as_ref()?.to_string(), job.recorded_start_ms?));
    let kept = lived.history.starts.iter().filter(|(name, _)| name == "first" || name == "plain").cloned();
    assert_eq!(sorted(imported.trace.jobs.iter().filter_map(recorded).collect()), sorted(kept.collect()));
}

#[test]
fn a_job_is_imported_with_all_it_asked_for_and_its_real_run_time() {
    let mut lived = Lived::new(2);
    lived.submit(10, "one", 77, scheduling(2, 3));
    lived.until(1_000_000);
    let TraceJob { submit_ms, run_ms, requested_ms, devices, user, scheduling: asked, .. } =
        import(&lived, 0).trace.jobs.remove(0);
    assert_eq!((submit_ms, run_ms, requested_ms, devices), (BEGIN.0 + 10 * SECOND, 77 * SECOND, 300 * SECOND, 6));
    assert_eq!((user.as_deref(), asked.as_deref()), (Some("ann"), Some(&scheduling(2, 3))));
}

/// What a run will not show is counted under its reason.
#[test]
fn what_has_not_ended_or_never_ran_is_said() {
    let mut lived = Lived::new(1);
    lived.submit(0, "runs", 5_000, scheduling(1, 8));
    lived.submit(1, "waits", 60, scheduling(1, 8));
    lived.submit(2, "given-up", 60, scheduling(1, 8));
    let silent = Scheduling { limits: Limits::default(), ..scheduling(1, 8) };
    lived.submit(3, "unknown", 60, silent);
    lived.until(100);
    let given_up = lived.player.state.jobs().values().find(|job| job.name.as_str() == "given-up").unwrap().id;
    let cancel = Cancel { job: given_up, ordinal: None, reason: String::new(), by: Principal("ann".into()) };
    lived.at(100, Command::Cancel(cancel));
    lived.until(1_000);
    lived.commit(1_000, Command::Nothing);
    let imported = import(&lived, 0);
    let jobs: BTreeMap<_, _> =
        imported.trace.jobs.iter().map(|job| (job.name.clone().unwrap().to_string(), job)).collect();
    assert_eq!(jobs.keys().collect::<Vec<_>>(), ["given-up", "runs", "waits"]);
    assert_eq!(jobs["runs"].run_ms, 1_000 * SECOND, "longer than its user expected already");
    assert_eq!(jobs["waits"].run_ms, 300 * SECOND);
    assert_eq!(jobs["given-up"].run_ms, 98 * SECOND);
    let said: Vec<_> = imported.card.trace.changed.iter().map(|noted| (noted.why, noted.rows)).collect();
    assert!(said.iter().any(|(why, rows)| why.contains("had not ended") && *rows == 2), "{said:?}");
    assert!(said.iter().any(|(why, rows)| why.contains("cancelled before it ran") && *rows == 1), "{said:?}");
    assert_eq!(imported.card.trace.dropped[0].rows, 1);
    let cancelled = &imported.world.cancellations;
    assert_eq!(cancelled.len(), 1);
    assert_eq!((cancelled[0].job.as_str(), cancelled[0].at_s), (jobs["given-up"].id.as_str(), BEGIN.0 / 1_000 + 100));
}

#[test]
fn work_from_before_is_there_at_the_beginning_with_what_is_left_of_it() {
    let mut lived = busy();
    lived.until(1_000_000);
    let imported = import(&lived, 505);
    let from = BEGIN.plus_ms(505 * SECOND);
    let (before, later): (Vec<_>, Vec<_>) = imported.trace.jobs.iter().partition(|job| job.submit_ms == from.0);
    assert!(before.len() > 1 && later.iter().all(|job| job.submit_ms > from.0));
    // Those that ran then come first, and get back what they had.
    let starts: BTreeMap<_, _> = lived.history.starts.iter().cloned().collect();
    let ran: Vec<bool> = before.iter().map(|job| starts[job.name.as_ref().unwrap().as_str()] < from.0).collect();
    assert!(ran[0] && ran.is_sorted_by_key(|ran| !ran), "{ran:?}");
    // A start from before the stretch says nothing of one in it.
    let recorded = |job: &&TraceJob| job.recorded_start_ms.is_some();
    assert_eq!(before.iter().map(recorded).collect::<Vec<_>>(), ran.iter().map(|ran| !ran).collect::<Vec<_>>());
    let again: BTreeMap<_, _> = replayed(&imported).into_iter().collect();
    for job in before.iter().zip(ran).filter(|(_, ran)| *ran).map(|(job, _)| job) {
        let name = job.name.as_ref().unwrap().as_str();
        let ends = starts[name] + lived.history.run_ms[name];
        assert_eq!((again[name], again[name] + job.run_ms), (from.0, ends), "{name}");
    }
    let said = imported.card.trace.changed.iter().find(|noted| noted.why.contains("before the time")).unwrap();
    assert_eq!(said.rows as usize, before.len());
}

#[test]
fn elements_failures_and_drains_are_imported() {
    let mut lived = Lived::new(2);
    let array = ArraySpec { count: 5, at_once: None, stop_after_failures: None };
    lived.submit(0, "sweep", 50, Scheduling { array: Some(array), ..scheduling(1, 8) });
    lived.submit(1, "fails", 30, scheduling(1, 1));
    let drained = lived.nodes[1];
    let admin = |action| Command::NodeAdmin { node: drained, action, by: Principal("ann".into()) };
    lived.at(60, admin(NodeAction::Cordon { reason: "fan".into() }));
    lived.at(200, admin(NodeAction::Uncordon));
    lived.until(1_000_000);
    let imported = import(&lived, 0);
    let ids: Vec<&str> = imported.trace.jobs.iter().map(|job| job.id.as_str()).collect();
    assert_eq!(ids.iter().filter(|id| id.contains('_')).count(), 5, "{ids:?}");
    let fails = imported.trace.jobs.iter().find(|job| job.name.as_ref().unwrap().as_str() == "fails").unwrap();
    assert_eq!((fails.recorded_end, fails.run_ms), (crate::trace::RecordedEnd::Failed, 30 * SECOND));
    let [drain] = imported.world.drains.as_slice() else { panic!("{:?}", imported.world.drains) };
    let begin_s = BEGIN.0 / SECOND;
    assert_eq!((drain.node.as_str(), drain.at_s, drain.until_s), ("n-1", begin_s + 60, Some(begin_s + 200)));
    assert_eq!(replayed(&imported), sorted(lived.history.starts.clone()));
}

/// Moments of a cluster are no whole seconds, and the end of the one must not open what the other closed.
#[test]
fn a_node_that_was_cordoned_and_then_drained_stays_out() {
    let mut lived = Lived::new(2);
    lived.submit(0, "long", 500, scheduling(1, 8));
    lived.submit(150, "other", 50, scheduling(1, 8));
    let node = lived.nodes[1];
    let admin = |action| Command::NodeAdmin { node, action, by: Principal("ann".into()) };
    lived.at(60, admin(NodeAction::Cordon { reason: "fan".into() }));
    let drain = NodeAction::Drain { reason: "fan".into(), deadline_ms: None };
    lived.player.at(BEGIN.plus_ms(100_500), admin(drain));
    lived.at(400, admin(NodeAction::Undrain));
    lived.until(1_000_000);
    let imported = import(&lived, 0);
    let told = |drain: &crate::world::planned::PlannedDrain| {
        (drain.at_s - BEGIN.0 / SECOND, drain.until_s.map(|until_s| until_s - BEGIN.0 / SECOND))
    };
    let drains: Vec<_> = imported.world.drains.iter().map(told).collect();
    assert_eq!(drains, [(60, Some(100)), (100, Some(400))]);
    assert_eq!(replayed(&imported), sorted(lived.history.starts.clone()));
}

/// Books balance by what was held, and what was written can be read.
#[test]
fn shares_of_many_devices_are_imported_as_what_they_hold() {
    let group = |name: &str, nodes: u32, per_node: u32, share: u16| GroupRequest {
        name: Name::new(name).unwrap(),
        share: Share(share),
        ..GroupRequest::of(Count::Nodes { nodes, per_node })
    };
    let mut lived = Lived::new(3);
    let halves = Scheduling { groups: vec![group("main", 2, 4, 500)], ..scheduling(1, 1) };
    let mixed = Scheduling { groups: vec![group("head", 1, 1, 500), group("rest", 2, 4, 1000)], ..scheduling(1, 1) };
    lived.submit(0, "halves", 100, halves);
    lived.submit(1_000, "mixed", 100, mixed);
    lived.until(1_000_000);
    let imported = import(&lived, 0);
    let results = results(&imported, &imported.policy);
    assert_eq!(results.iter().map(JobResult::gpus).collect::<Vec<_>>(), [4.0, 8.5]);
    let kept = crate::metrics::usage::running_parts(&results)[0];
    assert_eq!(kept, u128::from(100 * SECOND) * (4_000 + 8_500));
    let folder = tempfile::tempdir().unwrap();
    imported.write(folder.path()).unwrap();
    let read = crate::trace::read(&folder.path().join(TRACE_FILE), Default::default()).unwrap();
    assert_eq!(read.jobs, imported.trace.jobs);
}

/// With losses of nodes that did not happen there.
fn with_losses(lived: &Lived, lost: &[(u64, Event)], from_s: u64) -> Imported {
    let mut gatherer = Gatherer::new(BEGIN.plus_ms(from_s * SECOND));
    let lost = lost.iter().map(|(at_s, event)| (BEGIN.plus_ms(at_s * SECOND), event.clone()));
    let mut events: Vec<_> = lived.history.events.iter().cloned().chain(lost).collect();
    events.sort_by_key(|(at, _)| *at);
    events.iter().for_each(|(at, event)| gatherer.event(*at, event));
    gatherer.finish(&lived.player.state).unwrap()
}

/// On one node; with the seconds after which a silent one is suspected, and fenced.
fn one_long_job() -> (Lived, u64, u64) {
    let mut lived = Lived::new(1);
    lived.submit(0, "long", 1_000, scheduling(1, 8));
    lived.until(1_000_000);
    let settings = *lived.player.state.settings();
    (lived, settings.suspect_after_ms / SECOND, settings.fence_after_ms(None) / SECOND)
}

/// A node that was lost takes its work with it in a run too; a drain would keep it.
#[test]
fn a_lost_node_is_imported_as_an_outage_that_loses_work() {
    let (lived, suspect_s, fence_s) = one_long_job();
    let node = lived.nodes[0];
    let lost = [
        (400 + suspect_s, Event::NodeSilent { node }),
        (400 + fence_s, Event::NodeFenced { node }),
        (900, Event::NodeSeen { node }),
    ];
    let import_of = |from_s: u64| with_losses(&lived, &lost, from_s);
    let imported = import_of(0);
    let [outage] = imported.world.outages.as_slice() else { panic!("{:?}", imported.world) };
    assert_eq!((outage.node.as_str(), outage.at_s, outage.for_s), ("n-0", BEGIN.0 / SECOND + 400, Some(500)));
    assert_eq!((imported.world.drains.len(), imported.card.outages), (0, 1));
    let [played] = &results(&imported, &imported.policy)[..] else { panic!() };
    assert_eq!((played.used.lost_ms, played.used.kept_ms), (400 * SECOND, 1_000 * SECOND));
    // One that was fenced before the stretch holds nothing any more, and is only not there yet.
    let later = import_of(400 + fence_s + 1);
    assert_eq!((later.world.outages.len(), later.world.drains.len()), (0, 1));
}

/// It is there with what was left of its last attempt, and that did not fail.
#[test]
fn a_failure_from_before_the_stretch_is_not_played_again() {
    let (lived, ..) = one_long_job();
    let ended = lived.history.events.iter().find_map(|(_, event)| match event {
        Event::AttemptEnded { gang, record } => Some((*gang, (**record).clone())),
        _ => None,
    });
    let (gang, mut record) = ended.unwrap();
    record.cause = Cause::RankFailed { rank: 0, node: lived.nodes[0], exit: Exit::Code(3) };
    record.ended_at = BEGIN.plus_ms(100 * SECOND);
    record.attempt.started_at = Some(BEGIN);
    record.attempt.stopping_at = Some(record.ended_at);
    let failed = [(100, Event::AttemptEnded { gang, record: record.into() })];
    let failures = |from_s: u64| -> Vec<(u64, u32)> {
        let known = with_losses(&lived, &failed, from_s).world.user_failures;
        known.iter().map(|failure| (failure.after_s, failure.attempts)).collect()
    };
    assert_eq!(failures(0), [(100, 1)]);
    assert_eq!(failures(40), [(60, 1)]);
    assert_eq!(failures(200), []);
}

/// Its second outage begins, as far as anybody heard, before the first is over.
#[test]
fn a_node_that_was_heard_for_a_moment_only_has_one_outage() {
    let (lived, suspect_s, fence_s) = one_long_job();
    let node = lived.nodes[0];
    let mut lost = vec![
        (400 + suspect_s, Event::NodeSilent { node }),
        (400 + fence_s, Event::NodeFenced { node }),
        (900, Event::NodeSeen { node }),
        (901, Event::NodeSilent { node }),
        (901 + fence_s, Event::NodeFenced { node }),
        (2_000, Event::NodeSeen { node }),
    ];
    let outages = |lost: &[(u64, Event)]| {
        let world = with_losses(&lived, lost, 0).world;
        let read = World::parse(&toml::to_string(&world).unwrap()).unwrap();
        read.outages.into_iter().map(|outage| (outage.at_s - BEGIN.0 / SECOND, outage.for_s)).collect::<Vec<_>>()
    };
    assert_eq!(outages(&lost), [(400, Some(1_600))]);
    lost.pop();
    assert_eq!(outages(&lost), [(400, None)], "not heard of since");
}

#[test]
fn a_time_without_work_is_refused_with_what_to_do() {
    let mut lived = busy();
    lived.until(1_000_000);
    let ended = lived.player.state.now();
    lived.commit((ended.0 - BEGIN.0) / SECOND + 3_600, Command::Nothing);
    let refused = |from: Time| {
        let mut gatherer = Gatherer::new(from);
        lived.history.events.iter().for_each(|(at, event)| gatherer.event(*at, event));
        gatherer.finish(&lived.player.state).unwrap_err().to_string()
    };
    let past = refused(ended.plus_ms(SECOND));
    assert!(past.contains("ask for a longer time"), "{past}");
    let now = refused(lived.player.state.now());
    assert!(now.contains("nothing runs and nothing waits"), "{now}");
}

/// The present as the beginning of a run: each job that runs has what its user expected less what it had, what waits
/// waits, and what is over is not there.
#[test]
fn of_the_present_there_is_what_runs_with_what_is_left_and_what_waits() {
    let mut lived = Lived::new(1);
    lived.submit(0, "over", 50, scheduling(1, 8));
    lived.submit(1, "long", 5_000, scheduling(1, 4));
    lived.submit(2, "runs", 5_000, scheduling(1, 4));
    lived.submit(300, "waits", 60, scheduling(1, 8));
    lived.until(310);
    lived.commit(310, Command::Nothing);
    let imported = import(&lived, 310);
    let jobs: Vec<_> =
        imported.trace.jobs.iter().map(|job| (job.name.clone().unwrap().to_string(), job.run_ms / SECOND)).collect();
    // They began at 50 s, when the first one was over.
    assert_eq!(jobs, [("long".into(), 40), ("runs".into(), 40), ("waits".into(), 300)]);
    lived.commit(400, Command::Nothing);
    let later = import(&lived, 400);
    assert_eq!(later.trace.jobs[0].run_ms, 350 * SECOND, "longer than expected: as long again");
    let said = later.card.trace.changed.iter().find(|noted| noted.why.contains("as long again")).unwrap();
    assert_eq!(said.rows, 2);
    assert_eq!(replayed(&later)[0].1, BEGIN.plus_ms(400 * SECOND).0);
}

#[test]
fn a_stretch_without_work_is_named_and_nothing_is_said_of_generating() {
    let mut lived = busy();
    lived.until(1_000_000);
    lived.commit(1_000_000, Command::Nothing);
    let later = BEGIN.plus_ms(999_000 * SECOND);
    let why = Gatherer::new(later).finish(&lived.player.state).map(|_| ()).unwrap_err().to_string();
    assert!(why.starts_with("no work is known of the last"), "{why}");
}
