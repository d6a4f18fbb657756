//! A world for one story: calls are made one after the other, and time passes only as the story says.

use crate::people::{People, Person, spec};
use crate::planted::Planted;
use crate::play::stand;
use crate::world::{SERVERS, World};
use muster_proto::client::Job;
use muster_runtime::identity::Role;
use std::future::Future;
use std::sync::{Arc, Mutex};

const CALL_MS: u64 = 60_000;
const REST_MS: u64 = 120_000;

pub struct Stage {
    pub world: World,
    pub people: People,
    calls: u64,
}

impl Stage {
    pub fn new(seed: u64, nodes: usize) -> Self {
        Self::with(seed, nodes, Planted::Nothing)
    }

    pub fn with(seed: u64, nodes: usize, planted: Planted) -> Self {
        let mut world = World::with(seed, nodes, planted);
        let people = People::new(seed, world.trace.clone(), world.time.clone());
        stand(&mut world, &people);
        Self { world, people, calls: 0 }
    }

    /// Makes calls as an admin, from a machine of its own, and lets time pass until they are answered.
    pub fn call<T: 'static, F>(&mut self, what: &str, calls: impl FnOnce(Person) -> F + 'static) -> T
    where
        F: Future<Output = T> + 'static,
    {
        self.calls += 1;
        let (people, number) = (self.people.clone(), 100 + self.calls);
        let answer = Arc::new(Mutex::new(None));
        let to = answer.clone();
        self.world.sim.client(format!("caller-{}", self.calls), async move {
            let value = calls(people.person(number, Role::Admin)).await;
            *to.lock().expect("nobody panics with it") = Some(value);
            Ok(())
        });
        self.world.run_until(what, CALL_MS, |_| answer.lock().expect("nobody panics with it").is_some());
        let value = answer.lock().expect("nobody panics with it").take();
        value.expect("just seen")
    }

    /// Submits a job and waits until it is acknowledged.
    pub fn submit(&mut self, name: &str, nodes: u32, gpus: u32, work: &str) -> u64 {
        let (spec, key) = (spec(name, nodes, gpus, work, 0), name.to_owned());
        let calls = |mut person: Person| async move { person.submit(&spec, &key, false, 50).await };
        self.call("a submit is acknowledged", calls).expect("one of many tries")
    }

    pub fn cancel(&mut self, id: u64) {
        self.call("a cancel is acknowledged", move |mut person: Person| async move {
            while !person.cancel(id).await {
                person.pause(50..200).await;
            }
        });
    }

    pub fn job(&mut self, id: u64) -> Job {
        self.call("a job is read", move |mut person: Person| async move {
            for server in (1..=SERVERS).cycle() {
                if let Some(job) = person.show(id, server).await {
                    return job;
                }
                person.pause(50..200).await;
            }
            unreachable!("servers go on for ever")
        })
    }

    /// The server that leads, as it says itself.
    pub fn leader(&mut self) -> u64 {
        self.call("a leader is found", |mut person: Person| async move {
            loop {
                if let Some(leader) = person.leader().await {
                    return leader;
                }
                person.pause(50..200).await;
            }
        })
    }

    pub fn others(&self, leader: u64) -> Vec<String> {
        (1..=SERVERS).filter(|id| *id != leader).map(|id| format!("server-{id}")).collect()
    }

    /// Runs until ranks of this attempt run.
    pub fn await_running(&mut self, job: u64, attempt: u32) {
        let gang = format!("{job}_0");
        self.world.run_until(&format!("attempt {attempt} of {gang} runs"), REST_MS, |world| {
            world.observer.is_running(&gang, attempt)
        });
    }

    /// The nodes on which ranks of this job run now.
    pub fn nodes_of(&self, job: u64) -> Vec<String> {
        self.world.observer.nodes_of(&format!("{job}_0"))
    }

    /// Every job ends, every device is free, and all servers agree.
    pub fn come_to_rest(&mut self) {
        self.world.run_until("everything ends", REST_MS, |world| world.is_at_rest() && world.agree());
    }

    /// How often nodes were declared (silent, fenced) so far.
    pub fn silences(&self) -> (u64, u64) {
        let inner = self.world.checks.lock();
        let count = |word| inner.entries.get(word).copied().unwrap_or(0);
        (count("silent"), count("fenced"))
    }

    pub fn run_for(&mut self, ms: u64) {
        self.world.run_for(ms);
    }
}
