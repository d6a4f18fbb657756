use super::*;
use crate::estimates::Sample;
use crate::play::{Play, Played};
use crate::run::Going;
use crate::trace::TraceJob;
use crate::world::truth::Truth;
use muster_engine::policy::Policy;

const HOUR_S: u64 = 3_600;

fn job(id: u32, account: &str, submit_s: u64, run_s: u64, devices: u32) -> TraceJob {
    TraceJob {
        id: id.to_string(),
        submit_ms: submit_s * SECOND_MS,
        run_ms: run_s * SECOND_MS,
        requested_ms: run_s * SECOND_MS,
        devices,
        account: Name::new(account).ok(),
        ..TraceJob::default()
    }
}

/// First come, first served; what does not fit is passed by.
fn billed(world: &str, prices: &str, jobs: Vec<TraceJob>) -> (Bill, Played) {
    let policy: Policy =
        toml::from_str("order = \"fifo\"\nadmission = \"skip\"\n[backfill]\nreserve_depth = 0\n").unwrap();
    let (world, truth) = (World::parse(world).unwrap(), Truth::default());
    let prices: Prices = toml::from_str(prices).unwrap();
    prices.check(&world).unwrap();
    let play = Play {
        world: &world,
        truth: &truth,
        policy: &policy,
        organisation: None,
        throughputs: None,
        seed: 0,
        bounds: prices.bounds(),
        watts: prices.watts(&world),
        estimates: Sample::default(),
        check: true,
    };
    let played = play.run(jobs, None, &mut |_| Going::On).unwrap();
    (bill(&prices, &world, &played.results, &played.attempts, &played.meter), played)
}

fn assert_near(is: f64, wanted: f64) {
    assert!((is - wanted).abs() < 1e-6, "{is} instead of {wanted}");
}

const WAITING: &str = "[waiting_usd_per_gpu_hour]\ndefault = 1.0\ncv = 10.0\n";

#[test]
fn waiting_is_worth_what_its_account_says() {
    let jobs = vec![
        job(1, "nlp", 0, HOUR_S, 2),
        job(2, "cv", 0, HOUR_S, 2),
        // From half an hour to two hours, for one GPU.
        job(3, "", HOUR_S / 2, HOUR_S, 1),
    ];
    let (bill, _) = billed("[[nodes]]\ncount = 1\ndevices = 2\n", WAITING, jobs);
    let waiting: Vec<(&str, f64)> = bill.accounts.iter().map(|of| (of.account.as_str(), of.waiting_usd)).collect();
    assert_eq!(waiting, [("cv", 2.0 * 10.0), ("default", 1.5), ("nlp", 0.0)]);
    assert_near(bill.waiting_usd, 21.5);
    assert_eq!((bill.total_usd, bill.unpriced_gpu_h), (0.0, 6.0));
}

/// Else the policy that starves a job would look cheaper than the one that serves it.
#[test]
fn a_job_that_never_ended_waits_until_the_end_of_the_run() {
    let world = "[[nodes]]\ncount = 2\ndevices = 8\n[[drains]]\nnode = \"node-0\"\nat_s = 10\n";
    let jobs =
        vec![job(1, "nlp", 0, 20, 16), job(2, "cv", 60, 5, 16), job(3, "nlp", 70, HOUR_S, 8), job(4, "cv", 80, 5, 99)];
    let (bill, played) = billed(world, WAITING, jobs);
    let states: Vec<_> = played.results.iter().map(|result| result.state).collect();
    assert_eq!(states[1..], [JobState::Unfinished, JobState::Succeeded, JobState::Unplaceable]);
    let end_ms = played.meter.now().0;
    assert!(end_ms >= (70 + HOUR_S) * SECOND_MS, "{end_ms}");
    let [cv, nlp] = &bill.accounts[..] else { panic!("{:?}", bill.accounts) };
    // What can never be placed waits for nothing.
    assert_near(cv.waiting_usd, seconds(end_ms - 60_000) / 3600.0 * 16.0 * 10.0);
    assert_eq!(nlp.waiting_usd, 0.0);
}

#[test]
fn time_that_an_unfinished_job_ran_is_no_waiting() {
    let used = Used { overhead_ms: 1_000, kept_ms: 20_000, lost_ms: 4_000, stalled_ms: 5_000 };
    let result = JobResult { used, ..JobResult::new(job(1, "nlp", 10, 500, 1)) };
    assert_eq!(waited_ms(&result, Time(100_000)), 60_000);
    assert_eq!(waited_ms(&result, Time(5_000)), 0, "it had not come yet");
}

#[test]
fn each_hour_has_the_price_of_its_date() {
    let prices = "[[price]]\ncontract = \"owned\"\nusd_per_gpu_hour = 1.0\n\
        [[price]]\ncontract = \"on_demand\"\nusd_per_gpu_hour = 3.0\nfrom_s = 1800\n";
    let (bill, _) = billed("[[nodes]]\ncount = 1\ndevices = 2\n", prices, vec![job(1, "nlp", 0, HOUR_S, 1)]);
    // Both GPUs are paid for, and the account pays for the one it had.
    assert_near(bill.total_usd, 4.0);
    assert_eq!(bill.contracts, BTreeMap::from([(Contract::Owned, 1.0), (Contract::OnDemand, 3.0)]));
    assert_near(bill.accounts[0].usd, 2.0);
    assert_near(bill.usd_per_kept_gpu_h, 4.0);
}

/// Each device draws what its own model does, and nobody knows what the others draw.
#[test]
fn the_curve_of_several_models_is_that_of_the_bill() {
    let prices = "[[power]]\nmodel = \"big\"\nidle_w = 100\nbusy_w = 700\n[[power]]\nmodel = \"small\"\nidle_w = 10\nbusy_w = 70\n";
    let group = |model: &str, count: u32| {
        format!("[[nodes]]\nname = \"{model}\"\ncount = {count}\ndevices = 8\nmodel = \"{model}\"\n")
    };
    let world = group("big", 1) + &group("small", 2) + &group("other", 9);
    let wish = TraceJob { models: vec![Name::literal("big")], ..job(1, "nlp", 0, HOUR_S, 8) };
    let (bill, played) = billed(&world, prices, vec![wish]);
    assert_near(bill.energy_kwh, 8.0 * 0.7 + 16.0 * 0.01);
    assert_near(bill.peak_kw, 8.0 * 0.7 + 16.0 * 0.01);
    let drawn: u128 = played.meter.cells.iter().map(|cell| cell.drawn).sum();
    assert_near(drawn as f64 / 3.6e12, bill.energy_kwh);
}

#[test]
fn the_peak_is_that_of_the_busiest_moment() {
    let prices = "pue = 1.5\nusd_per_kwh = 0.5\n[[power]]\nidle_w = 100\nbusy_w = 700\n";
    let nodes = "[[nodes]]\ncount = 1\ndevices = 4\n";
    let (half, _) = billed(nodes, prices, vec![job(1, "nlp", 0, HOUR_S, 2)]);
    assert_near(half.peak_kw, 1.5 * (2.0 * 0.7 + 2.0 * 0.1));
    let (full, _) = billed(nodes, prices, vec![job(1, "nlp", 0, HOUR_S, 2), job(2, "nlp", HOUR_S, HOUR_S, 4)]);
    assert_near(full.peak_kw, 1.5 * 4.0 * 0.7);
    assert_near(full.energy_kwh, 1.5 * (1.6 + 2.8));
    assert_near(full.energy_usd, 0.5 * full.energy_kwh);
}
