//! Machines that sleep for want of work, and come when somebody has waited long enough.

use super::*;
use crate::meter::Use;
use crate::play::tests::{assert_books_balance, job, plain, world};
use crate::prices::Prices;

const POOL: &str = "idle_ms = 600000\nwake_ms = 120000\nwake_timeout_ms = 900000\n";

fn policy(pools: &str) -> Policy {
    let policy: Policy = toml::from_str(&format!("order = \"fifo\"\n{pools}")).unwrap();
    policy.validate().unwrap();
    policy
}

fn played(world: &World, policy: &Policy, jobs: Vec<TraceJob>) -> Played {
    let truth = Truth::default();
    let play = Play { seed: 1, ..plain(world, &truth, policy) };
    let played = play.run(jobs, None, &mut |_| Going::On).unwrap();
    assert_books_balance(&played);
    let summary = crate::Summary::of(&played, Sample::default());
    let percent: f64 = summary.usage.parts.iter().map(|part| part.percent).sum();
    assert!((percent - 100.0).abs() < 1e-9, "{percent}");
    played
}

fn bill(world: &World, played: &Played, prices: &str) -> crate::prices::Bill {
    let prices: Prices = toml::from_str(prices).unwrap();
    crate::prices::bill(&prices, world, &played.results, &played.attempts, &played.meter)
}

fn starts(played: &Played) -> Vec<Time> {
    played.results.iter().map(|result| result.first_start.unwrap()).collect()
}

/// A job for half the machines every two hours, for half an hour.
fn now_and_then() -> Vec<TraceJob> {
    (0..12).map(|at| job(at, u64::from(at) * 7200, 1800, 16)).collect()
}

#[test]
fn machines_that_sleep_draw_less_and_change_nothing_but_the_time_they_take_to_wake() {
    let text = |wake_s| {
        let nodes = "[[nodes]]\nname = \"own\"\ncount = 4\ndevices = 8\n";
        format!("{nodes}[[elastic]]\nnodes = \"own\"\nwake_s = {wake_s}\nsleep_s = 60\n")
    };
    let prices = "[[power]]\nidle_w = 100\nbusy_w = 700\nasleep_w = 10\n[[price]]\ncontract = \"owned\"\nusd_per_gpu_hour = 2.0\n";
    let sleeps = policy(&format!("[elastic.own]\n{POOL}"));
    let slow = world(&text(120));
    let awake = played(&slow, &policy(""), now_and_then());
    let base = bill(&slow, &awake, prices);
    for (world, late_ms) in [(world(&text(0)), 0), (world(&text(120)), 120_000)] {
        let asleep = played(&world, &sleeps, now_and_then());
        // The first job comes while all are still awake.
        let late: Vec<u64> = starts(&asleep).iter().zip(starts(&awake)).map(|(a, b)| a.since_ms(b)).collect();
        assert_eq!(late, std::iter::once(0).chain([late_ms; 11]).collect::<Vec<_>>());
        assert!(asleep.results.iter().all(|result| result.state == JobState::Succeeded));
        let time = &asleep.meter.total.device_time;
        assert!(time[Use::Asleep as usize] > 0 && time[Use::Switching as usize] > 0);
        // Owned machines are paid for all the same, and draw about half.
        let bill = bill(&world, &asleep, prices);
        assert!(bill.energy_kwh < base.energy_kwh * 0.65, "{} of {} kWh", bill.energy_kwh, base.energy_kwh);
        assert_eq!(asleep.meter.whole(), asleep.meter.paid());
        let wakes = asleep.sleepers.counts;
        assert_eq!((wakes.wakes, wakes.failed_wakes), (22, 0));
    }
}

/// Else policies would be compared on unlike failures.
#[test]
fn machines_that_slept_fail_later_as_those_that_did_not() {
    let world = world(
        "[[nodes]]\nname = \"own\"\ncount = 1\ndevices = 1\n[[elastic]]\nnodes = \"own\"\nwake_s = 60\n\
         [delays]\ncheckpoint_every_ms = 60000\n[jobs]\nretry_infra = 4000000000\n\
         [failures]\ngpu = { per_1000_days = 1000.0, repair_mean_s = 60 }\n",
    );
    let failed = |pools: &str| -> Vec<Time> {
        let played = played(&world, &policy(pools), vec![job(0, 0, 60, 1), job(1, 10 * 86_400, 20 * 86_400, 1)]);
        let lost = played.attempts.iter().filter(|attempt| attempt.job == 1 && attempt.cause == "DEVICE_FAILED");
        lost.filter_map(|attempt| attempt.stopping).take(5).collect()
    };
    let awake = failed("");
    assert_eq!(awake.len(), 5);
    assert_eq!(failed(&format!("[elastic.own]\n{POOL}")), awake);
}

fn burst(more: &str) -> World {
    world(&format!(
        "[[nodes]]\nname = \"own\"\ncount = 2\ndevices = 8\n\
         [[nodes]]\nname = \"rented\"\ncount = 4\ndevices = 8\nlabels = {{ pool = \"burst\" }}\n\
         [[elastic]]\nnodes = \"rented\"\nwake_s = 300\nstarts_asleep = true\npaid_asleep = false\n{more}"
    ))
}

/// Twelve jobs of a machine and two hours each, at once.
fn rush() -> Vec<TraceJob> {
    (0..12).map(|at| job(at, 0, 7200, 8)).collect()
}

const PRICES: &str = "[[price]]\nnodes = \"own\"\ncontract = \"owned\"\nusd_per_gpu_hour = 1.0\n\
                      [[price]]\nnodes = \"rented\"\ncontract = \"on_demand\"\nusd_per_gpu_hour = 3.0\n";

#[test]
fn rented_machines_come_for_who_has_waited_too_long_and_are_paid_for_while_they_are_there() {
    let world = burst("");
    let burst = policy(&format!("[elastic.rented]\nlabels = {{ pool = \"burst\" }}\nwake_after_ms = 1800000\n{POOL}"));
    let alone = played(&world, &policy(""), rush());
    let helped = played(&world, &burst, rush());
    let longest = |played: &Played| played.results.iter().filter_map(JobResult::wait_ms).max().unwrap();
    assert_eq!(longest(&alone), 5 * 7_200_000);
    // Four of those that wait are served after half an hour and the time machines take; the others follow on six.
    assert_eq!(longest(&helped), 1_800_000 + 300_000 + 7_200_000);
    assert_eq!(helped.sleepers.counts.wakes, 4);
    let (alone_bill, bill) = (bill(&world, &alone, PRICES), bill(&world, &helped, PRICES));
    assert_eq!(alone_bill.contracts.get(&crate::prices::Contract::OnDemand), Some(&0.0));
    let rented = bill.contracts[&crate::prices::Contract::OnDemand];
    // At least the work of the jobs there, and at most that they were there to the end.
    assert!(rented > 4.0 * 8.0 * 2.0 * 3.0 && rented < 4.0 * 8.0 * 5.0 * 3.0, "{rented}");
    let parts: f64 = bill.categories.iter().map(|part| part.usd).sum();
    assert!((parts - bill.total_usd).abs() < 1e-3, "{parts} of {}", bill.total_usd);
    assert!(helped.meter.whole() > helped.meter.paid());
}

#[test]
fn machines_that_do_not_come_delay_nobody_who_has_a_place_without_them() {
    let world = burst("fail_percent = 100.0\n");
    let burst = policy(&format!("[elastic.rented]\nlabels = {{ pool = \"burst\" }}\n{POOL}"));
    let helped = played(&world, &burst, rush());
    assert!(helped.sleepers.counts.failed_wakes >= 4);
    assert_eq!(starts(&helped), starts(&played(&world, &policy(""), rush())));
}

#[test]
fn a_machine_that_nobody_can_switch_stays_awake() {
    let own = world("[[nodes]]\nname = \"own\"\ncount = 4\ndevices = 8\n");
    let sleeps = played(&own, &policy(&format!("[elastic.own]\n{POOL}")), now_and_then());
    assert_eq!(sleeps.meter.total.device_time[Use::Asleep as usize], 0);
    assert_eq!(starts(&sleeps), starts(&played(&own, &policy(""), now_and_then())));
}

#[test]
fn a_play_ends_though_machines_are_switched_in_vain_for_ever_and_a_job_can_never_start() {
    // Nobody can switch the one, the other never comes, and the job needs both.
    let lost = world(
        "[[nodes]]\nname = \"own\"\ncount = 1\ndevices = 8\n\
         [[nodes]]\nname = \"lost\"\ncount = 1\ndevices = 8\n\
         [[elastic]]\nnodes = \"lost\"\nwake_s = 60\nfail_percent = 100.0\nstarts_asleep = true\n",
    );
    let sleeps = policy(&format!("[elastic.all]\n{POOL}"));
    let truth = Truth::default();
    let played = plain(&lost, &truth, &sleeps).run(vec![job(0, 0, 60, 16)], None, &mut |_| Going::On).unwrap();
    assert_eq!(played.results[0].first_start, None);
    assert!(played.sleepers.counts.failed_wakes > 10, "it had its chances");
    assert!(played.stats.entries < 10_000, "{:?}", played.stats);
}
