use super::*;
use crate::meter::Use;
use crate::metrics::Used;
use crate::metrics::usage::Category;
use crate::world::failures::Kind;

pub(super) fn world(text: &str) -> World {
    World::parse(text).unwrap()
}

pub(super) fn job(id: u32, submit_s: u64, run_s: u64, devices: u32) -> TraceJob {
    TraceJob {
        id: id.to_string(),
        submit_ms: submit_s * 1000,
        run_ms: run_s * 1000,
        requested_ms: run_s * 1000,
        devices,
        ..TraceJob::default()
    }
}

fn policy() -> Policy {
    toml::from_str("order = \"fifo\"\nadmission = \"skip\"\n[backfill]\nreserve_depth = 0\n").unwrap()
}

pub(super) fn plain<'a>(world: &'a World, truth: &'a Truth, policy: &'a Policy) -> Play<'a> {
    Play {
        world,
        truth,
        policy,
        organisation: None,
        throughputs: None,
        seed: 0,
        bounds: Vec::new(),
        watts: Vec::new(),
        estimates: Sample::default(),
        check: true,
    }
}

fn played(world: &World, truth: &Truth, seed: u64, jobs: Vec<TraceJob>) -> Played {
    let policy = policy();
    let play = Play { seed, ..plain(world, truth, &policy) };
    let played = play.run(jobs, None, &mut |_| Going::On).unwrap();
    assert_books_balance(&played);
    played
}

/// Every thousandth of a device has one use at each moment, and what ran is what attempts did.
pub(super) fn assert_books_balance(played: &Played) {
    let time = &played.meter.total.device_time;
    assert_eq!(time.iter().sum::<u128>(), played.meter.paid());
    let cells = played.meter.cells.iter().map(|cell| cell.device_time.iter().sum::<u128>()).sum::<u128>();
    assert_eq!(cells, played.meter.paid());
    let job_time = |result: &JobResult| {
        let Used { overhead_ms, kept_ms, lost_ms, stalled_ms } = result.used;
        let milli = u128::from(result.job.milli());
        u128::from(overhead_ms + kept_ms + lost_ms + stalled_ms) * milli
    };
    let ran: u128 = played.results.iter().map(job_time).sum();
    assert_eq!(ran, time[Use::Running as usize]);
}

const TWO_NODES: &str = "[[nodes]]\ncount = 2\ndevices = 8\n";

#[test]
fn delays_are_held_and_not_worked() {
    let text = format!(
        "{TWO_NODES}[delays]\nstart_ms = 2000\nstop_ms = 3000\ncheckpoint_every_ms = 10000\ncheckpoint_ms = 1000\n"
    );
    let played = played(&world(&text), &Truth::default(), 0, vec![job(1, 0, 35, 16), job(2, 0, 5, 8)]);
    let [first, second] = &played.results[..] else { panic!() };
    // 2 s to start, 35 s of work, three checkpoints.
    assert_eq!((first.first_start, first.end), (Some(Time(2_000)), Some(Time(40_000))));
    assert_eq!(second.first_start, Some(Time(42_000)));
    let used = Used { overhead_ms: 3_000, kept_ms: 35_000, lost_ms: 0, stalled_ms: 0 };
    assert_eq!(first.used, used);
    assert_eq!(played.meter.total.device_time[Use::Starting as usize], 2_000 * (16 + 8) * 1000);
}

#[test]
fn a_lost_node_costs_the_fencing_wait_and_the_work_since_the_checkpoint() {
    let text = format!(
        "{TWO_NODES}[delays]\ncheckpoint_every_ms = 60000\nrestart_ms = 5000\n\
         [jobs]\nretry_infra = 1000\n[failures]\nnode = {{ per_1000_days = 400.0, repair_mean_s = 86400 }}\n"
    );
    let played = played(&world(&text), &Truth::default(), 3, vec![job(1, 0, 20 * 86_400, 8)]);
    let lost: Vec<&AttemptResult> = played.attempts.iter().filter(|attempt| attempt.cause == "NODE_LOST").collect();
    assert!(!lost.is_empty(), "seed 3 makes no failure");
    for attempt in &lost {
        // Either the wait was sat out, or the node was back with another boot before.
        assert!(attempt.stalled_ms <= 300_000 && attempt.lost_ms < 60_000, "{attempt:?}");
    }
    assert!(lost.iter().any(|attempt| attempt.stalled_ms == 300_000));
    assert_eq!(played.results[0].state, JobState::Succeeded);
    assert_eq!(played.results[0].used.kept_ms, 20 * 86_400_000);
    let again: u64 = played.attempts[1..].iter().map(|attempt| attempt.overhead_ms).sum();
    assert_eq!(again, 5_000 * (played.attempts.len() as u64 - 1));
}

/// What is drained keeps its work; what is lost with a machine has what its last checkpoint has.
#[test]
fn a_planned_outage_loses_work_that_a_drain_keeps() {
    let with = |what: &str| {
        let text = format!("[[nodes]]\ncount = 1\ndevices = 8\n[delays]\ncheckpoint_every_ms = 60000\n{what}");
        played(&world(&text), &Truth::default(), 0, vec![job(1, 0, 400, 8)])
    };
    let lost = with("[[outages]]\nnode = \"node-0\"\nat_s = 150\nfor_s = 1000\n");
    assert_eq!((lost.attempts[0].cause, lost.faults.counts[Kind::Node as usize]), ("NODE_LOST", 1));
    let used = Used { overhead_ms: 0, kept_ms: 400_000, lost_ms: 30_000, stalled_ms: 300_000 };
    // Back at 1,150 s with the 280 s that no checkpoint held.
    assert_eq!((lost.results[0].used, lost.results[0].end), (used, Some(Time(1_430_000))));
    assert_eq!(lost.faults.machines[0].down_ms, 1_000_000);
    let kept = with("[[drains]]\nnode = \"node-0\"\nat_s = 150\ndeadline_s = 0\nuntil_s = 1150\n");
    assert_eq!((kept.results[0].used.lost_ms, kept.results[0].end), (0, Some(Time(1_400_000))));
}

#[test]
fn outages_that_touch_are_one() {
    let outage = |at_s: u64| format!("[[outages]]\nnode = \"node-0\"\nat_s = {at_s}\nfor_s = 500\n");
    let text = format!("[[nodes]]\ncount = 1\ndevices = 8\n{}{}", outage(650), outage(150));
    let played = played(&world(&text), &Truth::default(), 0, vec![job(1, 0, 400, 8)]);
    assert_eq!((played.attempts.len(), played.results[0].end), (2, Some(Time(1_550_000))));
    let machine = &played.faults.machines[0];
    assert_eq!((machine.down_ms, machine.failures[Kind::Node as usize]), (1_000_000, 1));
}

/// As with a trace in Unix time, or a window of one.
#[test]
fn of_outages_from_before_the_first_submit_only_what_is_left_counts() {
    let outage = |at_s: u64, for_s: u64| format!("[[outages]]\nnode = \"node-0\"\nat_s = {at_s}\nfor_s = {for_s}\n");
    let with = |outages: String| {
        let text = format!("[[nodes]]\ncount = 1\ndevices = 8\n{outages}");
        let mut played = played(&world(&text), &Truth::default(), 0, vec![job(1, 1_000, 50, 8)]);
        let machine = &played.faults.machines[0];
        let told = (machine.failures[Kind::Node as usize], machine.down_ms);
        (told, played.results.remove(0).end)
    };
    assert_eq!(with(outage(100, 200) + &outage(400, 600)), ((0, 0), Some(Time(1_050_000))));
    let (told, end) = with(outage(100, 200) + &outage(900, 700));
    assert_eq!(told, (1, 600_000));
    assert!(end.is_some_and(|end| end >= Time(1_600_000)), "{end:?}");
}

/// Whatever the machine is down for already, it is not back before the later of both is over.
#[test]
fn an_outage_of_a_machine_that_is_down_is_not_lost() {
    let rate = "{ per_1000_days = 1000000.0, repair_mean_s = 86400 }";
    let broken = [format!("node = {rate}\n"), format!("leaf_level = \"leaf\"\nleaf = {rate}\n")];
    for (failures, seed) in broken.iter().flat_map(|failures| (0..4).map(move |seed| (failures, seed))) {
        let after = |for_s: &str| {
            let text = format!(
                "[[nodes]]\ncount = 1\ndevices = 8\nplace_every = {{ network = [1] }}\n\
                 [fabric]\ntrees = [{{ name = \"network\", levels = [\"leaf\"] }}]\n[jobs]\nretry_infra = 1000\n\
                 [failures]\n{failures}[[outages]]\nnode = \"node-0\"\nat_s = 1800\n{for_s}"
            );
            let mut played = played(&world(&text), &Truth::default(), seed, vec![job(1, 0, 1, 8), job(2, 1801, 1, 8)]);
            played.results.pop().unwrap()
        };
        assert_eq!((after("").first_start, after("").state), (None, JobState::Unfinished), "{failures}{seed}");
        let back = after("for_s = 1000000\n").first_start;
        assert!(back.is_some_and(|at| at >= Time(1_001_800_000)), "{failures}{seed}: {back:?}");
    }
}

#[test]
fn what_waits_for_ever_for_a_machine_that_is_gone_ends_the_run() {
    let text = "[[nodes]]\ncount = 1\ndevices = 8\n[failures]\nsoftware = { per_1000_days = 1000.0 }\n\
         [[outages]]\nnode = \"node-0\"\nat_s = 10\n";
    let played = played(&world(text), &Truth::default(), 0, vec![job(1, 0, 100, 8)]);
    assert_eq!((played.results[0].state, played.results[0].used.lost_ms), (JobState::Unfinished, 10_000));
}

#[test]
fn a_broken_device_is_out_until_it_is_repaired() {
    let text = "[[nodes]]\ncount = 1\ndevices = 1\n[jobs]\nretry_infra = 1000\n\
         [failures]\ngpu = { per_1000_days = 1000.0, repair_mean_s = 3600 }\n";
    let played = played(&world(text), &Truth::default(), 1, vec![job(1, 0, 86_400, 1)]);
    let failed = played.attempts.iter().filter(|attempt| attempt.cause == "DEVICE_FAILED").count() as u64;
    assert!(failed > 0 && failed <= played.faults.counts[Kind::Gpu as usize]);
    assert!(played.meter.total.device_time[Use::Down as usize] > 0);
    assert_eq!(played.results[0].state, JobState::Succeeded);
}

#[test]
fn software_failures_are_charged_to_the_job() {
    let text = "[[nodes]]\ncount = 4\ndevices = 8\n[jobs]\nretry_app = 1\n\
         [failures]\nsoftware = { per_1000_days = 5000.0 }\n";
    let played = played(&world(text), &Truth::default(), 1, vec![job(1, 0, 86_400, 32)]);
    assert_eq!((played.results[0].state, played.results[0].attempts), (JobState::Failed, 2));
    assert!(played.attempts.iter().all(|attempt| attempt.cause == "RANK_FAILED"));
}

#[test]
fn a_leaf_takes_all_its_nodes_and_gives_them_back() {
    let text = "[[nodes]]\ncount = 8\ndevices = 1\nplace_every = { network = [4] }\n\
         [fabric]\ntrees = [{ name = \"network\", levels = [\"leaf\"] }]\n[jobs]\nretry_infra = 1000\n\
         [failures]\nleaf_level = \"leaf\"\nleaf = { per_1000_days = 1000.0, repair_mean_s = 1800 }\n";
    let jobs = (0..8).map(|id| job(id, 0, 3 * 86_400, 1)).collect();
    let played = played(&world(text), &Truth::default(), 5, jobs);
    let outages = played.faults.counts[Kind::Leaf as usize];
    assert!(outages > 0);
    let touched: u64 = played.faults.machines.iter().map(|machine| machine.failures[Kind::Leaf as usize]).sum();
    assert_eq!(touched, 4 * outages);
    assert!(played.results.iter().all(|result| result.state == JobState::Succeeded));
    assert!(played.attempts.len() > 8);
}

#[test]
fn planned_things_happen_at_their_times() {
    let text = format!(
        "{TWO_NODES}[[drains]]\nnode = \"node-0\"\nat_s = 10\ndeadline_s = 5\nuntil_s = 100\n\
         [[cancellations]]\njob = \"2\"\nat_s = 30\n\
         [[user_failures]]\njob = \"3\"\nafter_s = 4\nexit = 3\n"
    );
    let jobs = vec![job(1, 0, 50, 8), job(2, 0, 100, 8), job(3, 31, 20, 8)];
    let played = played(&world(&text), &Truth::default(), 0, jobs);
    let [moved, cancelled, failed] = &played.results[..] else { panic!() };
    assert_eq!((moved.attempts, moved.state), (2, JobState::Succeeded));
    // Moved at 15 s with its work, to the node that the cancelled job leaves at 30 s.
    assert_eq!((moved.used.kept_ms, moved.end), (50_000, Some(Time(65_000))));
    assert_eq!((cancelled.state, cancelled.end), (JobState::Cancelled, Some(Time(30_000))));
    assert_eq!(
        (failed.state, failed.first_start, failed.end),
        (JobState::Failed, Some(Time(65_000)), Some(Time(69_000)))
    );
}

/// Lost is what had to be done again, and after the last attempt nobody does it.
#[test]
fn work_of_a_failed_job_is_unsuccessful_and_only_what_was_tried_again_is_lost() {
    let text = "[[nodes]]\ncount = 1\ndevices = 8\n[jobs]\nretry_app = 1\n\
                [[user_failures]]\njob = \"1\"\nafter_s = 40\nattempts = 2\n";
    let played = played(&world(text), &Truth::default(), 0, vec![job(1, 0, 100, 8)]);
    assert_eq!((played.results[0].state, played.results[0].attempts), (JobState::Failed, 2));
    let used = Used { overhead_ms: 0, kept_ms: 40_000, lost_ms: 40_000, stalled_ms: 0 };
    assert_eq!(played.results[0].used, used);
    let parts = crate::Summary::of(&played, Sample::default()).usage.parts;
    let part = |category: Category| parts.iter().find(|part| part.category == category).unwrap().gpu_h;
    assert_eq!(part(Category::Unsuccessful), part(Category::Lost));
    assert!(part(Category::Lost) > 0.0 && part(Category::Kept) == 0.0);
}

#[test]
fn what_waits_for_ever_does_not_hang_the_run() {
    let text = format!("{TWO_NODES}[[drains]]\nnode = \"node-0\"\nat_s = 10\n");
    let jobs = vec![job(1, 0, 50, 17), job(2, 0, 20, 16), job(3, 60, 5, 16)];
    let played = played(&world(&text), &Truth::default(), 0, jobs);
    let states: Vec<JobState> = played.results.iter().map(|result| result.state).collect();
    assert_eq!(states, [JobState::Unplaceable, JobState::Succeeded, JobState::Unfinished]);
}

/// Whoever waits for ever may be given up, and then those behind it have their turn.
#[test]
fn a_run_goes_on_to_a_cancellation_that_lets_others_start() {
    let text =
        format!("{TWO_NODES}[[drains]]\nnode = \"node-0\"\nat_s = 10\n[[cancellations]]\njob = \"2\"\nat_s = 1000\n");
    let strict = "order = \"fifo\"\nadmission = { head_of_line = { sticky = false } }\n[backfill]\nreserve_depth = 0\n";
    let strict: Policy = toml::from_str(strict).unwrap();
    let (world, truth) = (world(&text), Truth::default());
    let jobs = vec![job(1, 0, 15, 8), job(2, 20, 20, 16), job(3, 30, 5, 8)];
    let played = plain(&world, &truth, &strict).run(jobs, None, &mut |_| Going::On).unwrap();
    let told: Vec<_> = played.results.iter().map(|result| (result.state, result.end)).collect();
    let at = |s: u64| Some(Time(s * 1000));
    assert_eq!(
        told,
        [(JobState::Succeeded, at(15)), (JobState::Cancelled, at(1_000)), (JobState::Succeeded, at(1_005))]
    );
}

#[test]
fn spreading_and_models_slow_work_down() {
    let text = "[[nodes]]\nname = \"a\"\ncount = 1\ndevices = 4\nmodel = \"fast\"\n\
         [[nodes]]\nname = \"b\"\ncount = 1\ndevices = 4\nmodel = \"slow\"\n";
    let truth: Truth =
        toml::from_str("spread = [{ level = \"node\", percent = 150 }]\nmodels = { slow = 200 }\n").unwrap();
    let played = played(&world(text), &truth, 0, vec![job(1, 0, 10, 8), job(2, 31, 10, 4), job(3, 31, 10, 4)]);
    let ends: Vec<u64> = played.results.iter().map(|result| result.end.unwrap().0 / 1000).collect();
    assert_eq!(ends, [30, 41, 51]);
}

#[test]
fn one_seed_is_one_run() {
    let text = "[[nodes]]\ncount = 8\ndevices = 8\n[failures]\nprofile = \"meta-rsc1\"\n";
    let truth = Truth { run_time_sigma_percent: 30, ..Truth::default() };
    let run = |seed| {
        let jobs = (0..40).map(|id| job(id, u64::from(id) * 1000, 30 * 86_400, 1 + id % 16)).collect();
        played(&world(text), &truth, seed, jobs).state.hash()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// Counts within four standard deviations of a Poisson count.
fn assert_count(what: &str, got: u64, expected: f64) {
    let sigma = expected.sqrt();
    assert!((got as f64 - expected).abs() < 4.0 * sigma, "{what}: {got}, expected {expected:.0} +- {sigma:.0}");
}

/// Proof: failures per node-day are those of the profile, for each kind.
#[test]
fn failures_per_node_day_are_the_given_rates() {
    let text = "[[nodes]]\ncount = 1000\ndevices = 1\n[failures]\nprofile = \"meta-rsc1\"\n\
        gpu = { per_1000_days = 4.2 }\n[jobs]\nretry_infra = 4000000000\nretry_app = 4000000000\n\
        [delays]\ncheckpoint_every_ms = 60000\n";
    let world = world(text);
    let policy = policy();
    let truth = Truth::default();
    let play = Play { seed: 11, check: false, ..plain(&world, &truth, &policy) };
    let days = 400;
    let played = play.run(vec![job(1, 0, days * 86_400, 1)], None, &mut |_| Going::On).unwrap();
    let end_ms = played.state.now().0;
    let down_ms: u64 = played.faults.machines.iter().map(|machine| machine.down_ms).sum();
    let node_days = (end_ms * 1000 - down_ms) as f64 / 86_400_000.0;
    assert!(node_days > 390_000.0);
    let rates = world.failures.rates().unwrap();
    for kind in [Kind::Gpu, Kind::Node, Kind::Software] {
        let expected = node_days * rates.of(kind).unwrap().per_1000_days / 1000.0;
        assert_count(kind.word(), played.faults.counts[kind as usize], expected);
    }
}

/// Proof: the mean time to failure of a job on N nodes is 1 / (N r) (Kokolis et al., HPCA 2025).
#[test]
fn mean_time_to_failure_falls_with_the_number_of_nodes() {
    for nodes in [1u64, 4, 16, 64] {
        let text = format!(
            "[[nodes]]\ncount = {nodes}\ndevices = 8\n[jobs]\nretry_infra = 4000000000\nretry_app = 4000000000\n\
             [delays]\ncheckpoint_every_ms = 60000\n\
             [failures]\ngpu = {{ per_1000_days = 20.0 }}\nnode = {{ per_1000_days = 10.0 }}\n\
             software = {{ per_1000_days = 10.0 }}\n"
        );
        let world = world(&text);
        let policy = policy();
        let truth = Truth::default();
        let play = Play { seed: nodes, check: false, ..plain(&world, &truth, &policy) };
        let days = 40_000 / nodes;
        let played = play.run(vec![job(1, 0, days * 86_400, nodes as u32 * 8)], None, &mut |_| Going::On).unwrap();
        let failures = played.attempts.iter().filter(|attempt| attempt.cause != "COMPLETED").count() as u64;
        let running_days = played.results[0].served_ms as f64 / 86_400_000.0;
        assert_count(&format!("{nodes} nodes"), failures, running_days * nodes as f64 * 0.040);
    }
}

#[test]
fn a_node_holds_more_gangs_than_devices() {
    let share = |id| TraceJob { share_milli: 250, cpu_milli: Some(1000), ..job(id, 0, 10, 1) };
    let played =
        played(&world("[[nodes]]\ncount = 1\ndevices = 1\n"), &Truth::default(), 0, (0..4).map(share).collect());
    assert!(played.results.iter().all(|result| result.first_start == Some(Time::ZERO)));
}

#[test]
fn sharing_a_device_slows_down_who_comes_to_it() {
    let truth: Truth = toml::from_str("shared_percent = 200\n").unwrap();
    let ends = |truth: &Truth, devices: u32, jobs: Vec<TraceJob>| -> Vec<u64> {
        let world = world(&format!("[[nodes]]\ncount = 1\ndevices = {devices}\n"));
        played(&world, truth, 0, jobs).results.iter().map(|result| result.end.unwrap().0 / 1000).collect()
    };
    let share =
        |id, submit_s, run_s| TraceJob { share_milli: 250, cpu_milli: Some(1000), ..job(id, submit_s, run_s, 1) };
    // One is there first, one comes to it, and one has the device to itself again.
    let jobs = || vec![share(1, 0, 100), share(2, 10, 10), share(3, 200, 10)];
    assert_eq!(ends(&truth, 1, jobs()), [100, 30, 210]);
    assert_eq!(ends(&Truth::default(), 1, jobs()), [100, 20, 210]);
    assert_eq!(ends(&truth, 1, vec![share(1, 0, 10), share(2, 0, 10)]), [10, 20]);
    // Whole devices beside each other are not shared.
    assert_eq!(ends(&truth, 2, vec![job(1, 0, 10, 1), job(2, 0, 10, 1)]), [10, 10]);
    for (percent, sound) in [(0, false), (1, true), (10_000, true), (10_001, false)] {
        let truth = Truth { shared_percent: percent, ..Truth::default() };
        assert_eq!(truth.check(&Default::default()).is_ok(), sound, "{percent}");
    }
}

#[test]
fn pods_stay_on_one_node_and_those_that_find_no_room_are_given_up() {
    let text = format!("{TWO_NODES}[jobs]\nrequest = \"one_node\"\nwait_limit_ms = 2000\n");
    let jobs = vec![job(1, 0, 100, 6), job(2, 0, 100, 6), job(3, 1, 10, 4)];
    let played = played(&world(&text), &Truth::default(), 0, jobs);
    let last = &played.results[2];
    assert_eq!((last.state, last.first_start, last.end), (JobState::TimedOut, None, Some(Time(3_000))));
    assert!(played.attempts.iter().all(|attempt| attempt.nodes.len() == 1));
}

#[test]
fn decisions_keep_their_distance_and_none_is_lost() {
    let text = "[[nodes]]\ncount = 1\ndevices = 8\n[events]\ncycle_gap_ms = 60000\n";
    let jobs = vec![job(1, 0, 10, 8), job(2, 5, 30, 8), job(3, 200, 5, 8)];
    let played = played(&world(text), &Truth::default(), 0, jobs);
    let starts: Vec<_> = played.results.iter().map(|result| result.first_start).collect();
    // Free from 10 s on and decided at 60 s; the end at 90 s is decided on at 120 s, so that 200 s is late enough.
    assert_eq!(starts, [0, 60, 200].map(|s| Some(Time(s * 1000))));
}

/// In the order of their submits, nothing passes a gang that waits, and all are asked about.
fn estimated(runtime: &str, jobs: Vec<TraceJob>) -> crate::estimates::StartEstimates {
    let text = format!(
        "order = \"fifo\"\nadmission = {{ head_of_line = {{ sticky = false }} }}\nruntime = [\"{runtime}\"]\n\
         [backfill]\nreserve_depth = 0\n"
    );
    let (world, truth, policy) = (world(TWO_NODES), Truth::default(), toml::from_str(&text).unwrap());
    let estimates = Sample { every: 1 };
    let play = Play { estimates, ..plain(&world, &truth, &policy) };
    let played = play.run(jobs, None, &mut |_| Going::On).unwrap();
    crate::estimates::StartEstimates::of(&played.results, estimates).unwrap()
}

fn crowd(requested_per_run: u64) -> Vec<TraceJob> {
    let job = |at: u32| {
        let job = job(at, u64::from(at) * 20, 100 + u64::from(at) * 37 % 400, 1 + at * 7 % 16);
        TraceJob { requested_ms: job.run_ms * requested_per_run, ..job }
    };
    (0..40).map(job).collect()
}

#[test]
fn where_nothing_is_overtaken_and_run_times_are_known_every_start_is_as_it_was_told() {
    let told = estimated("exact", crowd(3));
    assert_eq!((told.asked, told.not_told, told.never_started), (40, 0, 0));
    assert_eq!(told.at_once + told.all.jobs, 40);
    assert!(told.all.jobs > 30, "{told:?}");
    assert_eq!((told.all.abs_p90_s, told.all.bias_s, told.all.late_percent), (0.0, 0.0, 0.0));
    assert_eq!(told.by_size.iter().map(|size| size.errors.jobs).sum::<u64>(), told.all.jobs);
}

#[test]
fn who_asks_for_more_time_than_needed_makes_others_start_before_they_were_told() {
    let told = estimated("expected", crowd(3));
    assert!(told.all.bias_s < -100.0 && told.all.late_percent == 0.0, "{told:?}");
    assert!(told.all.abs_median_s <= told.all.abs_p90_s);
}

/// One machine that is never taken away, and one that its owner takes every two hours.
fn spot(more: &str, jobs: Vec<TraceJob>) -> Played {
    let text = format!(
        "[[nodes]]\nname = \"own\"\ncount = 1\ndevices = 8\n[[nodes]]\nname = \"rented\"\ncount = 1\ndevices = 8\n\
         [jobs]\nretry_infra = 1000\n[[spot]]\nnodes = \"rented\"\nevictions_per_1000_days = 12000.0\n\
         away_mean_s = 1800\n{more}"
    );
    played(&world(&text), &Truth::default(), 1, jobs)
}

fn stopped<'a>(played: &'a Played, cause: &str) -> Vec<&'a AttemptResult> {
    played.attempts.iter().filter(|attempt| attempt.cause == cause).collect()
}

#[test]
fn a_machine_taken_without_notice_loses_the_work_since_the_checkpoint_and_is_not_paid_while_away() {
    let day = vec![job(1, 0, 86_400, 8), job(2, 0, 86_400, 8)];
    let played = spot("[delays]\ncheckpoint_every_ms = 600000\n", day);
    let lost = stopped(&played, "NODE_LOST");
    assert!(lost.len() > 5, "seed 1 takes too few away");
    for attempt in &lost {
        assert_eq!((attempt.nodes.as_slice(), attempt.stalled_ms), ([(1, 8)].as_slice(), 0), "{attempt:?}");
        assert!(attempt.lost_ms < 600_000 && attempt.kept_ms % 600_000 == 0, "{attempt:?}");
    }
    assert!(lost.iter().any(|attempt| attempt.lost_ms > 0));
    let rented = played.faults.machines[1].spot.as_ref().unwrap();
    assert!(rented.evictions >= lost.len() as u64 && played.faults.machines[0].spot.is_none());
    assert_eq!(played.meter.whole() - played.meter.paid(), u128::from(rented.away_ms) * 8_000);
    assert!(rented.away_ms > 0 && played.results.iter().all(|result| result.state == JobState::Succeeded));
    assert_eq!(played.meter.total.device_time[Use::Down as usize], 0);
    let summary = crate::Summary::of(&played, Sample::default());
    let percent: f64 = summary.usage.parts.iter().map(|part| part.percent).sum();
    assert!((percent - 100.0).abs() < 1e-9 && summary.usage.away_gpu_h > 0.0, "{percent}");
    assert_eq!(summary.failures.evictions, rented.evictions);
}

#[test]
fn a_notice_saves_the_work_if_a_checkpoint_fits_into_it() {
    let day = || vec![job(1, 0, 86_400, 8), job(2, 0, 86_400, 8)];
    for (checkpoint_ms, saved) in [(20_000, true), (29_000, false)] {
        let text = format!("notice_s = 25\n[delays]\ncheckpoint_every_ms = 600000\ncheckpoint_ms = {checkpoint_ms}\n");
        let played = spot(&text, day());
        let drained = stopped(&played, "DRAINED");
        assert!(drained.len() > 3 && stopped(&played, "NODE_LOST").is_empty());
        assert_eq!(drained.iter().all(|attempt| attempt.lost_ms == 0), saved, "{checkpoint_ms}");
        assert!(played.results.iter().all(|result| result.state == JobState::Succeeded));
        // From the notice to the end it is paid for, and nobody may have it.
        let down = played.meter.total.device_time[Use::Down as usize];
        assert_eq!(down, u128::from(played.faults.evictions()) * 25_000 * 8_000);
    }
}

/// Ranks that take longer to stop than the owner waits go with the machine.
#[test]
fn what_still_stops_when_the_machine_goes_is_over_with_it() {
    let text = "notice_s = 30\n[delays]\nstop_ms = 90000\n";
    let played = spot(text, vec![job(1, 0, 86_400, 16)]);
    let drained = stopped(&played, "DRAINED");
    assert!(drained.len() > 3);
    for attempt in drained {
        let stopping = attempt.stopping.unwrap();
        assert_eq!(attempt.ended.since_ms(stopping), 90_000, "the other machine needs its time");
    }
    assert_eq!(played.results[0].state, JobState::Succeeded);
}

/// The examples of a policy, a world and an organisation that belong together; then the same at other prices.
#[test]
fn the_cheapest_model_of_the_examples_is_taken_first() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let example = |name: &str| std::fs::read_to_string(examples.join(name)).unwrap();
    let policy: Policy = toml::from_str(&example("policies/cheapest.toml")).unwrap();
    let (world, truth) = (world(&example("worlds/h100-and-a100.toml")), Truth::default());
    let text = example("organisations/priced.toml");
    for (text, model) in [(text.clone(), "A100"), (text.replace("1.30", "3.30"), "H100")] {
        let organisation: Organisation = toml::from_str(&text).unwrap();
        let play = Play { organisation: Some(&organisation), ..plain(&world, &truth, &policy) };
        let wish = TraceJob { account: Some(Name::literal("train")), ..job(1, 0, 60, 8) };
        let played = play.run(vec![wish], None, &mut |_| Going::On).unwrap();
        let [attempt] = &played.attempts[..] else { panic!("{} attempts", played.attempts.len()) };
        let of_each_node = world.nodes.iter().flat_map(|group| (0..group.count).map(|_| &group.model));
        let models: Vec<&Name> = of_each_node.collect();
        assert_eq!(models[attempt.nodes[0].0 as usize].as_str(), model);
    }
}
