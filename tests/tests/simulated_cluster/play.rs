//! One seed: a time of faults, in which nothing may break, and a time without, in which everything must end.

use crate::faults::Faults;
use crate::people::People;
use crate::planted::Planted;
use crate::world::World;
use muster_runtime::identity::Role;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// The machine that callers work on.
pub const USERS: &str = "users";
const PEOPLE: u64 = 3;
/// A cluster must stand by then.
const STAND_MS: u64 = 20_000;
const FAULTS_MS: u64 = 15_000;
/// After the last fault everything must have ended within this: the longest fencing wait, start and run times, retries.
const REST_MS: u64 = 180_000;
const READS_MS: u64 = 20_000;

/// Plays a seed and prints what that was like.
///
/// # Panics
/// When a promise is broken.
pub fn play(seed: u64, planted: Planted) {
    let began = std::time::Instant::now();
    let nodes = SmallRng::seed_from_u64(seed).random_range(4..=8);
    let mut world = World::with(seed, nodes, planted);
    let people = People::new(seed, world.trace.clone(), world.time.clone());
    stand(&mut world, &people);
    let everybody = people.clone();
    // Few machines: each costs every other one time.
    world.sim.client(USERS, async move {
        let lives = (1..=PEOPLE).map(|number| everybody.person(number, Role::Admin).live());
        futures::future::join_all(lives).await;
        Ok(())
    });
    let mut faults = Faults::new(seed);
    let until_ms = world.time.now_ms() + FAULTS_MS;
    while world.time.now_ms() < until_ms {
        faults.step(&mut world);
        step(&mut world, &people);
    }
    faults.heal(&mut world);
    people.oracle().draining = true;
    world.run_until("every job ends and every device is free", REST_MS, |world| {
        check(&people);
        see_holds(world, &people);
        world.is_at_rest() && people.oracle().jobs.values().all(|known| !known.held) && world.agree()
    });
    read_back(&mut world, &people);
    let (lines, hash) = world.trace.sum();
    let (all, met) = faults.sum();
    let oracle = people.oracle();
    println!(
        "seed {seed}: {nodes} nodes, {} jobs, {} parts ran, {all} faults, {met} met running ranks, {:?}; \
         {} ms, {lines} lines, trace {hash}, took {} ms",
        oracle.jobs.len(),
        world.observer.started,
        world.checks.lock().entries,
        world.time.now_ms(),
        began.elapsed().as_millis(),
    );
    drop(oracle);
    // A run that proves nothing is no proof.
    assert!(met >= 2, "seed {seed}: {met} of {all} faults met running ranks");
    assert!(people.count("submit", "ok") >= 5, "seed {seed}: hardly a submit was acknowledged");
    assert!(world.observer.started >= 5, "seed {seed}: hardly a rank ran");
}

/// Waits for a leader, its settings, and all nodes.
pub fn stand(world: &mut World, people: &People) {
    let operator = people.clone();
    world.sim.client("operator", async move {
        operator.person(0, Role::Admin).configure().await;
        Ok(())
    });
    world.run_until("the cluster stands", STAND_MS, |world| {
        let nodes = world.nodes.len();
        world.state().is_some_and(|state| *state.settings() == crate::world::settings() && state.nodes().len() == nodes)
    });
}

pub fn step(world: &mut World, people: &People) {
    world.step();
    check(people);
}

/// A hold nobody was told of, or one that came late, keeps a job from ending: somebody has to release it.
fn see_holds(world: &World, people: &People) {
    let Some(state) = world.state() else { return };
    let mut oracle = people.oracle();
    for job in state.jobs().values().filter(|job| job.held) {
        if let Some(known) = oracle.jobs.get_mut(&job.id.0) {
            known.held = true;
        } else {
            // Submitted with a hold by a call whose outcome nobody knows.
            let known = crate::people::Known { key: String::new(), ended: None, held: true };
            oracle.unclaimed.insert(job.id.0, known);
        }
    }
}

fn check(people: &People) {
    if let Some(what) = people.oracle().broken.clone() {
        panic!("at {} ms a caller was lied to: {what}", people.time.now_ms());
    }
}

/// After the storm: every server tells of every acknowledged job, and each has ended.
fn read_back(world: &mut World, people: &People) {
    let (reader, done) = (people.clone(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let finished = done.clone();
    world.sim.client("reader", async move {
        let mut person = reader.person(99, Role::Admin);
        let jobs: Vec<u64> = reader.oracle().jobs.keys().copied().collect();
        for server in 1..=crate::world::SERVERS {
            while !person.list(server).await {
                person.pause(50..100).await;
            }
            for id in &jobs {
                while person.show(*id, server).await.is_none() {
                    person.pause(50..100).await;
                }
            }
        }
        finished.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    });
    // Counted here: a lock taken in the call's arguments would be held all through it.
    let jobs = people.oracle().jobs.len() as u64;
    world.run_until("every server tells of every job", READS_MS + 100 * jobs, |_| {
        check(people);
        done.load(std::sync::atomic::Ordering::Relaxed)
    });
    let oracle = people.oracle();
    let inner = world.checks.lock();
    for (id, known) in &oracle.jobs {
        assert!(known.ended.is_some(), "job {id} ({}) did not end", known.key);
        assert_eq!(inner.keys.get(&known.key).map(|job| job.0), Some(*id), "key {} stands for another job", known.key);
    }
    for (key, _) in oracle.failed.iter().filter(|(_, failed)| **failed) {
        assert!(!inner.keys.contains_key(key), "every submit of {key} certainly failed, and there is a job");
    }
}
