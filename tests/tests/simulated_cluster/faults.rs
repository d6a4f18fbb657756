//! What goes wrong in a world: partitions, held messages, crashes, lost power, pauses, wrong clocks. Each for a while.

use crate::play::USERS;
use crate::world::World;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Two servers down leave no majority; more would only be a longer pause.
const SERVERS_DOWN_MAX: usize = 2;
const NODES_DOWN_MAX: usize = 2;
/// A node's clock may be off by this within the drift that the settings allow.
const RATE_OFF_PPM: u32 = 20_000;
const HOUR_MS: i64 = 3_600_000;

#[derive(Debug, Clone, PartialEq)]
enum Fault {
    /// Nothing passes between these hosts.
    Cut(String, Vec<String>),
    /// Nothing passes from the first to the others.
    OneWay(String, Vec<String>),
    /// Messages wait, and come all at once.
    Held(String, Vec<String>),
    ServerDown(u64),
    AgentDown(String),
    PowerLost(String),
    /// A process that stands still: its clock too, and what is sent to it waits.
    Paused(u64, Vec<String>),
    /// An agent that stands still while shims and ranks go on.
    AgentPaused(String, Vec<String>),
    /// Every sync of a server's log takes some hundred milliseconds.
    SlowDisk(u64),
}

impl Fault {
    /// The host that it befalls.
    fn host(&self) -> String {
        match self {
            Fault::Cut(host, _) | Fault::OneWay(host, _) | Fault::Held(host, _) | Fault::AgentPaused(host, _) => {
                host.clone()
            }
            Fault::AgentDown(name) | Fault::PowerLost(name) => name.clone(),
            Fault::ServerDown(id) | Fault::Paused(id, _) | Fault::SlowDisk(id) => format!("server-{id}"),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Fault::Cut(..) => "cut",
            Fault::OneWay(..) => "one-way",
            Fault::Held(..) => "held",
            Fault::ServerDown(_) => "server-down",
            Fault::AgentDown(_) => "agent-down",
            Fault::PowerLost(_) => "power-lost",
            Fault::Paused(..) => "paused",
            Fault::AgentPaused(..) => "agent-paused",
            Fault::SlowDisk(_) => "slow-disk",
        }
    }
}

pub struct Faults {
    rng: SmallRng,
    next_ms: u64,
    /// Faults in force, with when they end.
    active: Vec<(u64, Fault)>,
    /// Hosts that a fault has to itself.
    busy: BTreeSet<String>,
    /// Links that a fault has to itself: turmoil knows one state of a link, not two.
    links: BTreeSet<(String, String)>,
    /// Faults by kind: how many, and how many while ranks ran.
    pub counts: BTreeMap<&'static str, (u64, u64)>,
}

impl Faults {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed ^ 0x00fa_0175),
            next_ms: 0,
            active: Vec::new(),
            busy: BTreeSet::new(),
            links: BTreeSet::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Faults in all, and those that met running ranks.
    pub fn sum(&self) -> (u64, u64) {
        self.counts.values().fold((0, 0), |(all, met), count| (all + count.0, met + count.1))
    }

    /// Begins and ends what is due.
    pub fn step(&mut self, world: &mut World) {
        let now_ms = world.time.now_ms();
        let (over, active) = self.active.drain(..).partition(|(until_ms, _)| *until_ms <= now_ms);
        self.active = active;
        self.end(world, over);
        if now_ms < self.next_ms {
            return;
        }
        self.next_ms = now_ms + self.rng.random_range(200..2_500);
        if let Some((fault, for_ms)) = self.choose(world) {
            self.begin(world, fault, now_ms + for_ms);
        }
    }

    /// Ends everything.
    pub fn heal(&mut self, world: &mut World) {
        let all = std::mem::take(&mut self.active);
        self.end(world, all);
        world.sim.set_max_message_latency(Duration::from_millis(20));
    }

    fn pick(&mut self, hosts: &[String]) -> Option<String> {
        let free: Vec<&String> = hosts.iter().filter(|host| !self.busy.contains(*host)).collect();
        (!free.is_empty()).then(|| free[self.rng.random_range(0..free.len())].clone())
    }

    fn choose(&mut self, world: &World) -> Option<(Fault, u64)> {
        let servers = world.server_names();
        let nodes: Vec<String> = world.nodes.iter().map(|node| node.name.clone()).collect();
        // Some are longer than a lease and the wait before a node is fenced.
        let long = self.rng.random_range(200..14_000);
        let short = self.rng.random_range(100..4_000);
        let down = |wanted: fn(&Fault) -> bool| self.active.iter().filter(|(_, fault)| wanted(fault)).count();
        let servers_down = down(|fault| matches!(fault, Fault::ServerDown(_) | Fault::Paused(..)));
        let nodes_down = down(|fault| matches!(fault, Fault::AgentDown(_) | Fault::PowerLost(_)));
        let dice = self.rng.random_range(0..100);
        let fault = match dice {
            0..8 => self.of_links(world, true, Fault::Cut)?,
            8..13 => self.of_links(world, true, Fault::OneWay)?,
            13..19 => self.of_links(world, true, Fault::Held)?,
            19..31 => self.of_links(world, false, Fault::Cut)?,
            31..39 => self.of_links(world, false, Fault::OneWay)?,
            39..48 => self.of_links(world, false, Fault::Held)?,
            48..53 if servers_down < SERVERS_DOWN_MAX => {
                self.of_all_links(world, &servers, |host, others| Fault::Paused(id_of(&host), others))?
            }
            53..58 => self.of_links(world, false, Fault::AgentPaused)?,
            58..73 if servers_down < SERVERS_DOWN_MAX => Fault::ServerDown(id_of(&self.pick(&servers)?)),
            73..83 if nodes_down < NODES_DOWN_MAX => Fault::AgentDown(self.pick(&nodes)?),
            83..89 if nodes_down < NODES_DOWN_MAX => Fault::PowerLost(self.pick(&nodes)?),
            89..94 => Fault::SlowDisk(id_of(&self.pick(&servers)?)),
            _ => {
                self.misset_clocks(world);
                return None;
            }
        };
        let of_server = matches!(fault.host().as_str(), host if host.starts_with("server"));
        Some((fault, if of_server { short } else { long }))
    }

    /// A fault of the links between a host and the servers, as far as those links have no other.
    fn of_links(
        &mut self,
        world: &World,
        of_server: bool,
        fault: impl FnOnce(String, Vec<String>) -> Fault,
    ) -> Option<Fault> {
        let servers = world.server_names();
        let nodes: Vec<String> = world.nodes.iter().map(|node| node.name.clone()).collect();
        let host = self.pick(if of_server { &servers } else { &nodes })?;
        self.between(host, servers, fault)
    }

    /// The same with everybody who talks to one of these hosts.
    fn of_all_links(
        &mut self,
        world: &World,
        hosts: &[String],
        fault: impl FnOnce(String, Vec<String>) -> Fault,
    ) -> Option<Fault> {
        let host = self.pick(hosts)?;
        let others = world.hosts().into_iter().chain([USERS.to_owned()]).collect();
        self.between(host, others, fault)
    }

    fn between(
        &self,
        host: String,
        mut others: Vec<String>,
        fault: impl FnOnce(String, Vec<String>) -> Fault,
    ) -> Option<Fault> {
        others.retain(|other| *other != host && !self.links.contains(&link(&host, other)));
        (!others.is_empty()).then(|| fault(host, others))
    }

    fn misset_clocks(&mut self, world: &World) {
        let node = self.rng.random_range(0..world.nodes.len());
        let mut rate_ppm = || 1_000_000 - RATE_OFF_PPM + self.rng.random_range(0..2 * RATE_OFF_PPM);
        world.misset_rate(node, rate_ppm());
        let of_server = rate_ppm();
        let server = &world.servers[self.rng.random_range(0..world.servers.len())];
        server.clock.set_rate_ppm(of_server);
        server.clock.set_offset_ms(self.rng.random_range(-HOUR_MS..HOUR_MS));
        let latency_ms = [20, 20, 60, 150][self.rng.random_range(0..4)];
        world.sim.set_max_message_latency(Duration::from_millis(latency_ms));
        world.trace.note("faults", format_args!("clocks and a latency of {latency_ms} ms"));
    }

    fn begin(&mut self, world: &mut World, fault: Fault, until_ms: u64) {
        world.trace.note("faults", format_args!("until {until_ms}: {fault:?}"));
        let count = self.counts.entry(fault.word()).or_default();
        count.0 += 1;
        count.1 += u64::from(world.observer.running() > 0);
        match &fault {
            Fault::Cut(host, others) => {
                others.iter().for_each(|other| world.sim.partition(host.as_str(), other.as_str()));
                self.take(host, others);
            }
            Fault::OneWay(host, others) => {
                others.iter().for_each(|other| world.sim.partition_oneway(host.as_str(), other.as_str()));
                self.take(host, others);
            }
            Fault::Held(host, others) => {
                others.iter().for_each(|other| world.sim.hold(host.as_str(), other.as_str()));
                self.take(host, others);
            }
            Fault::ServerDown(id) => {
                world.crash_server_somehow(*id);
                self.busy.insert(format!("server-{id}"));
            }
            Fault::AgentDown(name) => {
                world.crash_agent(name);
                self.busy.insert(name.clone());
            }
            Fault::PowerLost(name) => {
                world.lose_power(name);
                self.busy.insert(name.clone());
            }
            Fault::Paused(id, others) => {
                let server = world.server(*id).clone();
                server.clock.freeze(true);
                others.iter().for_each(|other| world.sim.hold(server.name.as_str(), other.as_str()));
                self.take(&server.name, others);
            }
            Fault::AgentPaused(name, others) => {
                world.node(name).agent_clock.freeze(true);
                others.iter().for_each(|other| world.sim.hold(name.as_str(), other.as_str()));
                self.take(name, others);
            }
            Fault::SlowDisk(id) => {
                world.server(*id).slow_disk.store(true, Ordering::Relaxed);
                self.busy.insert(format!("server-{id}"));
            }
        }
        self.active.push((until_ms, fault));
    }

    fn take(&mut self, host: &str, others: &[String]) {
        self.busy.insert(host.to_owned());
        self.links.extend(others.iter().map(|other| link(host, other)));
    }

    fn end(&mut self, world: &mut World, over: Vec<(u64, Fault)>) {
        for (_, fault) in over {
            world.trace.note("faults", format_args!("over: {fault:?}"));
            let (host, others) = match fault {
                Fault::Cut(host, others) | Fault::OneWay(host, others) => {
                    others.iter().for_each(|other| world.sim.repair(host.as_str(), other.as_str()));
                    (host, others)
                }
                Fault::Held(host, others) => {
                    others.iter().for_each(|other| world.sim.release(host.as_str(), other.as_str()));
                    (host, others)
                }
                Fault::Paused(id, others) => {
                    let server = world.server(id).clone();
                    server.clock.freeze(false);
                    others.iter().for_each(|other| world.sim.release(server.name.as_str(), other.as_str()));
                    (server.name.clone(), others)
                }
                Fault::AgentPaused(name, others) => {
                    world.node(&name).agent_clock.freeze(false);
                    others.iter().for_each(|other| world.sim.release(name.as_str(), other.as_str()));
                    (name, others)
                }
                Fault::SlowDisk(id) => {
                    world.server(id).slow_disk.store(false, Ordering::Relaxed);
                    (format!("server-{id}"), Vec::new())
                }
                Fault::ServerDown(id) => {
                    let name = format!("server-{id}");
                    world.start(&name);
                    (name, Vec::new())
                }
                Fault::AgentDown(name) | Fault::PowerLost(name) => {
                    world.start(&name);
                    (name, Vec::new())
                }
            };
            self.links.retain(|pair| !others.iter().any(|other| *pair == link(&host, other)));
            self.busy.remove(&host);
        }
    }
}

fn link(one: &str, other: &str) -> (String, String) {
    if one < other { (one.to_owned(), other.to_owned()) } else { (other.to_owned(), one.to_owned()) }
}

fn id_of(server: &str) -> u64 {
    server.rsplit('-').next().and_then(|id| id.parse().ok()).expect("server-<id>")
}
