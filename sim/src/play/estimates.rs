//! Start estimates against what then happens: a public trace, all of it submitted at once, run times exact,
//! agents ideal, nothing fails.

use super::tests::plain;
use super::*;
use crate::trace::{self, Reading};
use muster_common::{GangId, JobId};
use muster_engine::command::Entry;
use muster_engine::forecast::{Forecast, forecast};
use muster_engine::outcome::{Event, Outcome};
use muster_engine::policy::RuntimeSource;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Philly's window A, every job of it submitted at the start.
fn window_a() -> Vec<TraceJob> {
    let mut files = std::fs::read_dir(repository("tests/data/golden")).unwrap().map(|file| file.unwrap().path());
    let path = files.find(|path| path.to_string_lossy().ends_with("_window_A.csv.gz")).unwrap();
    let mut jobs = trace::read(&path, Reading::default()).unwrap().jobs;
    jobs.iter_mut().for_each(|job| job.submit_ms = 0);
    jobs
}

fn policy(name: &str) -> Policy {
    let text = std::fs::read_to_string(repository(&format!("examples/policies/{name}.toml"))).unwrap();
    Policy { runtime: vec![RuntimeSource::Exact], ..toml::from_str(&text).unwrap() }
}

/// What the engine's own loop does, for as long as run times are what the jobs say.
#[derive(Default)]
struct Ideal {
    starts: Vec<(GangId, Time)>,
    ended: usize,
}

impl Ideal {
    /// The first start of each gang behind so many starts.
    fn first_starts(&self, after: usize) -> BTreeMap<GangId, Time> {
        self.starts[after..].iter().rev().copied().collect()
    }
}

impl Hooks for Ideal {
    fn run_ms(&mut self, state: &State, gang: GangId) -> Option<u64> {
        state.scheduling(state.job(gang.job)?).limits.exact_ms
    }

    fn on_entry(&mut self, _state: &State, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        for event in &outcome.events {
            match event {
                Event::GangStarted { gang, .. } => self.starts.push((*gang, entry.at)),
                Event::GangEnded { .. } => self.ended += 1,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Every start that a forecast tells against those that came; all differences counted, ten shown.
fn assert_came_true(what: &str, told: &Forecast, came: &BTreeMap<GangId, Time>) {
    assert!(told.complete, "{what}: the forecast was cut short");
    let gangs: BTreeSet<&GangId> = told.starts.keys().chain(came.keys()).collect();
    let differs = |gang: &&GangId| {
        let (told, came) = (told.starts.get(gang).copied().flatten(), came.get(gang).copied());
        (told != came).then(|| format!("{gang}: told {told:?}, came {came:?}"))
    };
    let wrong: Vec<String> = gangs.iter().filter_map(differs).collect();
    let shown = wrong.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{what}: {} of {} starts differ\n{shown}", wrong.len(), gangs.len());
}

/// Forecasts are made once everything is submitted, and again when so many jobs have ended.
fn come_true(name: &str, policy: &Policy, again_after: &[usize]) {
    let (world, _) = World::read(&repository("examples/worlds/32x8.toml")).unwrap();
    let jobs = window_a();
    let truth = Truth::default();
    let play = Play { check: false, ..plain(&world, &truth, policy) };
    let mut player = Player::new(State::new("simulated"), clockwork(&world));
    let mut ideal = Ideal::default();
    play.set_up(&mut player, Time::ZERO).unwrap();
    let launch = Arc::new(launch());
    let submitted: Vec<JobId> = jobs
        .iter()
        .map(|job| {
            let command = submit_of(job, world.scheduling(job), &launch);
            match player.commit(Time::ZERO, command, &mut ideal).unwrap().response {
                Response::Submitted { job, .. } => job,
                other => panic!("{name}: job {}: {other:?}", job.id),
            }
        })
        .collect();
    let first = forecast(&player.state, Time::ZERO);
    assert_eq!(first.starts.len(), 1692, "{name}");

    // The simulator's world, by its own way in.
    let played = play.run(jobs, None, &mut |_| Going::On).unwrap();
    let starts = submitted.iter().zip(&played.results);
    let starts = starts.filter_map(|(job, result)| Some((GangId::new(*job, 0), result.first_start?))).collect();
    assert_came_true(&format!("{name}, in the simulator"), &first, &starts);

    // The engine's loop, stopped now and then for another look ahead.
    let mut later = Vec::new();
    player.decide(Time::ZERO, &mut ideal).unwrap();
    for after in again_after {
        while ideal.ended < *after && player.step(&mut ideal).unwrap() {}
        later.push((*after, ideal.starts.len(), forecast(&player.state, player.state.now())));
    }
    player.run(&mut ideal, ENTRIES_MAX).unwrap();
    assert_came_true(&format!("{name}, in the engine"), &first, &ideal.first_starts(0));
    for (after, started, told) in later {
        assert!(told.starts.len() < 1692);
        assert_came_true(&format!("{name}, told after {after} ends"), &told, &ideal.first_starts(started));
    }
}

#[test]
fn estimates_come_true_first_come_first_served() {
    come_true("fifo", &policy("fifo"), &[500, 1000]);
}

#[test]
fn estimates_come_true_with_one_start_booked() {
    come_true("production", &policy("production"), &[500, 1000]);
}

#[test]
fn estimates_come_true_with_many_starts_booked() {
    let mut deep = policy("production");
    deep.backfill.reserve_depth = 32;
    come_true("32 starts booked", &deep, &[1000]);
}

#[test]
fn estimates_come_true_for_gangs_kept_together() {
    come_true("sjf-consolidated", &policy("sjf-consolidated"), &[500, 1000]);
}

#[test]
fn estimates_come_true_where_what_runs_is_stopped_for_what_waits() {
    come_true("srtf-refill", &policy("srtf-refill"), &[500, 1000]);
}
