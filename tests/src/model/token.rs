//! Tokens, epochs and the agent's durable store: one device, one agent, placements one after another.
//!
//! The log is the server's state itself: every server event is a committed entry. Messages are facts that stay for
//! good, so each may arrive late, twice, out of order, or never. Processes are what is really there, whatever the
//! agent or the server believes.

use super::rules::Rules;
use super::search::World;

/// A token in one byte: generation in the high half, log index in the low half, so bytes order as tokens do.
type Token = u8;
const GENERATION: u8 = 16;
const PLACED_MAX: usize = 6;

/// Which events a scenario may use, and how often.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Alphabet {
    /// Placements on the device.
    pub placements: u8,
    /// Crashes of the agent, each followed by a restart.
    pub crashes: u8,
    /// Registrations of the agent.
    pub registrations: u8,
    /// One of the crashes may lose the store.
    pub store_may_be_lost: bool,
    /// Restores of the servers from the backup taken at the start.
    pub restores: u8,
    /// Times the whole log silently loses its tail (outside the fault model; only for clause 3c).
    pub rollbacks: u8,
    /// A server that lags behind the log may speak to the agent.
    pub lagging_server: bool,
}

/// One allocation: its token, and which history of the log wrote it (its content).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Placed {
    token: Token,
    history: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum View {
    Unknown,
    Free,
    Held(Placed),
    Stopping(Placed),
}

/// What the agent keeps on disk for the device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Store {
    highest: Option<Placed>,
    spent: bool,
}

/// Everything ever said about one allocation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Said {
    placed: Placed,
    stop: bool,
    released: bool,
}

/// The world of tokens.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TokenWorld {
    left: Alphabet,
    generation: u8,
    index: u8,
    history: u8,
    view: View,
    said: [Option<Said>; PLACED_MAX],
    memory: Store,
    disk: Store,
    registered: bool,
    epoch: Token,
    live: [Option<Placed>; 2],
    killed_without_cause: bool,
    claimed_other_content: bool,
}

/// What can happen. Tokens print as generation * 16 + index.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "the fields are read by the debug form, a line of a counterexample")]
pub enum Event {
    ServerPlaces(Placed),
    ServerStops(Placed),
    ServerPlacesNextAttemptOnInheritedDevice(Placed),
    ServersAreRestoredFromBackup,
    LogLosesItsTail,
    AgentHearsRun(Placed),
    AgentHearsStop(Placed),
    AgentCreates(Placed),
    AgentSyncsStore,
    ProcessExits(Placed),
    ServerHearsReleased(Placed),
    AgentCrashesAndRestarts { store_lost: bool },
    AgentRegisters,
    LaggingServerSaysNothingRuns,
    LaggingServerStopsUnknown(Placed),
}

impl TokenWorld {
    /// The single start: an empty device and a registered agent.
    pub fn starts(left: Alphabet) -> Vec<Self> {
        vec![TokenWorld {
            left,
            generation: 0,
            index: 0,
            history: 0,
            view: View::Free,
            said: [None; PLACED_MAX],
            memory: Store::default(),
            disk: Store::default(),
            registered: true,
            epoch: 0,
            live: [None; 2],
            killed_without_cause: false,
            claimed_other_content: false,
        }]
    }

    fn is_live(&self, placed: Placed) -> bool {
        self.live.contains(&Some(placed))
    }

    fn end_process(&mut self, placed: Placed) {
        for slot in &mut self.live {
            if *slot == Some(placed) {
                *slot = None;
            }
        }
        self.live.sort_unstable();
    }

    fn say(&mut self, placed: Placed) -> &mut Said {
        let at = self
            .said
            .iter()
            .position(|said| said.is_none_or(|said| said.placed == placed))
            .expect("bounds of the alphabet keep the list short");
        self.said[at].get_or_insert(Said { placed, stop: false, released: false })
    }

    /// Writes the store; only an accepted token may wait for a later sync, and only without clause 4a.
    fn write_store(&mut self, store: Store) {
        self.memory = store;
        self.disk = store;
    }

    fn mark_spent(&mut self, placed: Placed) {
        if self.memory.highest.is_none_or(|highest| highest.token < placed.token) {
            self.write_store(Store { highest: Some(placed), spent: true });
        } else if self.memory.highest.is_some_and(|highest| highest.token == placed.token) {
            let highest = self.memory.highest;
            self.write_store(Store { highest, spent: true });
        }
    }

    fn place(&self) -> (Placed, Self) {
        let mut next = self.clone();
        next.left.placements -= 1;
        next.index += 1;
        let placed = Placed { token: next.generation * GENERATION + next.index, history: next.history };
        next.view = View::Held(placed);
        next.say(placed);
        (placed, next)
    }

    fn server_steps(&self, rules: &Rules, out: &mut Vec<(Event, Self)>) {
        if self.left.placements > 0 && self.view == View::Free {
            let (placed, next) = self.place();
            out.push((Event::ServerPlaces(placed), next));
        }
        if let View::Held(placed) = self.view {
            let mut next = self.clone();
            next.view = View::Stopping(placed);
            next.say(placed).stop = true;
            out.push((Event::ServerStops(placed), next));
        }
        if self.left.placements > 0 && matches!(self.view, View::Stopping(_)) {
            let (placed, next) = self.place();
            out.push((Event::ServerPlacesNextAttemptOnInheritedDevice(placed), next));
        }
        if self.left.restores > 0 {
            let mut next = self.clone();
            next.left.restores -= 1;
            next.generation = match (rules.restore_raises_generation, rules.generation_is_new) {
                (false, _) => 0,
                (true, false) => 1,
                (true, true) => self.generation + 1,
            };
            next.index = 0;
            next.history += 1;
            next.view = View::Unknown;
            out.push((Event::ServersAreRestoredFromBackup, next));
        }
        if self.left.rollbacks > 0 {
            let mut next = self.clone();
            next.left.rollbacks -= 1;
            next.index = 0;
            next.history += 1;
            next.view = View::Free;
            out.push((Event::LogLosesItsTail, next));
        }
    }

    fn message_steps(&self, rules: &Rules, out: &mut Vec<(Event, Self)>) {
        for said in self.said.iter().flatten() {
            if self.registered {
                let mut next = self.clone();
                next.hear_run(rules, said.placed);
                out.push((Event::AgentHearsRun(said.placed), next));
            }
            if self.registered && said.stop {
                let mut next = self.clone();
                next.hear_stop(rules, said.placed);
                out.push((Event::AgentHearsStop(said.placed), next));
            }
            let awaited = matches!(self.view, View::Held(held) | View::Stopping(held) if held == said.placed);
            if said.released && awaited {
                let next = TokenWorld { view: View::Free, ..self.clone() };
                out.push((Event::ServerHearsReleased(said.placed), next));
            }
        }
    }

    fn hear_run(&mut self, rules: &Rules, asked: Placed) {
        let store = self.memory;
        let named = store.highest.is_some_and(|highest| highest.token == asked.token);
        if rules.refuse_below_epoch && asked.token < self.epoch && !named {
            return;
        }
        if let Some(highest) = store.highest {
            let lower = asked.token < highest.token;
            let other = named && highest.history != asked.history;
            let refused = (lower && rules.refuse_lower_token)
                || (named && store.spent && rules.refuse_spent_token)
                || (other && rules.refuse_other_content);
            if refused {
                return;
            }
            if named && !store.spent {
                // Known and not ended: the agent answers that what was asked is there.
                self.claimed_other_content |= other;
                return;
            }
        }
        let accepted = Store { highest: Some(asked), spent: false };
        if rules.sync_before_create {
            self.write_store(accepted);
        } else {
            self.memory = accepted;
        }
    }

    fn hear_stop(&mut self, rules: &Rules, stopped: Placed) {
        self.end_process(stopped);
        self.release(rules, stopped);
    }

    /// The agent marks an ended token spent and says so. On an inherited device an older attempt may still be there,
    /// so a release speaks for the whole device: it waits until the last process is gone.
    fn release(&mut self, rules: &Rules, ended: Placed) {
        self.mark_spent(ended);
        let is_empty = self.live.iter().all(Option::is_none);
        if is_empty || !rules.release_means_empty_device {
            self.say(ended).released = true;
        }
        let highest = self.memory.highest.filter(|_| self.memory.spent && is_empty);
        if let Some(highest) = highest {
            self.say(highest).released = true;
        }
    }

    fn agent_steps(&self, rules: &Rules, out: &mut Vec<(Event, Self)>) {
        if let Some(accepted) = self.memory.highest {
            let others = self.live.iter().flatten().any(|live| live.token != accepted.token);
            let free_slot = self.live.contains(&None);
            let ready = !self.memory.spent && !self.is_live(accepted) && self.registered && free_slot;
            if ready && !(others && rules.previous_proven_gone) {
                let mut next = self.clone();
                next.live[0] = Some(accepted);
                next.live.sort_unstable();
                out.push((Event::AgentCreates(accepted), next));
            }
        }
        if self.memory != self.disk {
            out.push((Event::AgentSyncsStore, TokenWorld { disk: self.memory, ..self.clone() }));
        }
        for placed in self.live.iter().flatten() {
            let mut next = self.clone();
            next.end_process(*placed);
            next.release(rules, *placed);
            out.push((Event::ProcessExits(*placed), next));
        }
        if self.left.crashes > 0 {
            out.push((Event::AgentCrashesAndRestarts { store_lost: false }, self.restarted(rules, false)));
            if self.left.store_may_be_lost {
                out.push((Event::AgentCrashesAndRestarts { store_lost: true }, self.restarted(rules, true)));
            }
        }
        self.registration_step(out);
    }

    /// The agent after a crash and its start-up sweep: what it cannot name it kills, what it named and misses has ended.
    fn restarted(&self, rules: &Rules, store_lost: bool) -> Self {
        let mut next = self.clone();
        next.left.crashes -= 1;
        next.registered = false;
        if store_lost {
            next.left.store_may_be_lost = false;
            next.disk = Store::default();
            next.epoch = 0;
        }
        next.memory = next.disk;
        for live in self.live.iter().flatten() {
            let is_named = next.memory.highest.is_some_and(|highest| highest.token >= live.token);
            if !is_named && rules.lost_store_is_swept {
                next.end_process(*live);
                next.killed_without_cause |= !store_lost;
            }
        }
        if let Some(highest) = next.memory.highest
            && !next.memory.spent
            && !next.is_live(highest)
        {
            next.release(rules, highest);
        }
        next
    }

    /// Registration is one exchange: the entry's index is the new epoch, the inventory settles the server's view.
    fn registration_step(&self, out: &mut Vec<(Event, Self)>) {
        let is_due = !self.registered || self.view == View::Unknown;
        if !is_due || self.left.registrations == 0 {
            return;
        }
        let mut next = self.clone();
        next.left.registrations -= 1;
        next.registered = true;
        next.index += 1;
        next.epoch = next.generation * GENERATION + next.index;
        let store = self.memory;
        let named = store.highest.filter(|_| !store.spent);
        let empty = named.is_none() && self.live.iter().flatten().all(|live| !self.can_name(*live));
        next.view = match self.view {
            _ if empty => View::Free,
            View::Free => View::Unknown,
            view => view,
        };
        out.push((Event::AgentRegisters, next));
    }

    fn can_name(&self, live: Placed) -> bool {
        self.memory.highest.is_some_and(|highest| highest.token >= live.token)
    }

    fn lagging_steps(&self, rules: &Rules, out: &mut Vec<(Event, Self)>) {
        if !self.left.lagging_server || !self.registered {
            return;
        }
        for placed in self.live.iter().flatten() {
            let mut killed = self.clone();
            killed.left.lagging_server = false;
            killed.end_process(*placed);
            killed.release(rules, *placed);
            killed.killed_without_cause |= self.view == View::Held(*placed);
            if !rules.absence_never_kills {
                out.push((Event::LaggingServerSaysNothingRuns, killed.clone()));
            }
            if !rules.stop_needs_coverage {
                out.push((Event::LaggingServerStopsUnknown(*placed), killed));
            }
        }
        if rules.absence_never_kills {
            let mut next = self.clone();
            next.left.lagging_server = false;
            out.push((Event::LaggingServerSaysNothingRuns, next));
        }
    }
}

impl World for TokenWorld {
    type Event = Event;

    fn steps(&self, rules: &Rules, out: &mut Vec<(Event, Self)>) {
        self.server_steps(rules, out);
        self.message_steps(rules, out);
        self.agent_steps(rules, out);
        self.lagging_steps(rules, out);
    }

    fn breaks(&self, _rules: &Rules, invariant: &str) -> bool {
        let live = self.live.iter().flatten().count();
        match invariant {
            "one-live-per-device" => live > 1,
            "freed-only-when-empty" => self.view == View::Free && live > 0,
            "no-causeless-stop" => self.killed_without_cause,
            "runs-what-it-says" => self.claimed_other_content,
            "goal: second placement runs" => self.live.iter().flatten().any(|live| live.token % GENERATION >= 2),
            "goal: restored servers run a job" => {
                self.live.iter().flatten().any(|live| self.view == View::Held(*live) && live.history == 2)
            }
            "goal: freed after a crash" => self.view == View::Free && self.index > 1 && self.left.crashes == 0,
            _ => false,
        }
    }
}
