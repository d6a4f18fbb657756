//! Leases, silence and fencing: one node with one rank, up to two leaders, and time.
//!
//! Time is relative. `left` is the lease still to run on the agent's clock, `wait` the silence a server has counted,
//! `age` the time since a renewal was sent, so the world is finite without a horizon. Messages are facts that stay until
//! they are displaced: each may be delivered late, twice, out of order, or never. Attempt 2 starts elsewhere the moment
//! any server applies an effective fencing entry, which is the worst case.

use super::rules::Rules;
use super::search::World;

/// Ticks of a lease.
pub const LEASE: i8 = 2;
/// Ticks a shim may take to kill: the rank is dead when the agent's clock reads the deadline plus this.
pub const KILL_BOUND: i8 = 1;
/// Ticks the agent's clock may fall behind the servers' in a run.
pub const DRIFT: u8 = 1;
const LATE_TICK: i8 = 2;
const OLD: u8 = LEASE as u8 + 1;

/// Which events a scenario may use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Alphabet {
    /// A second leader may be elected while the first goes on believing.
    pub second_leader: bool,
    /// The agent may restart once, and may crash for good.
    pub agent_faults: bool,
    /// A server's clock may once jump ahead by two ticks.
    pub clock_jump: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Rank {
    Absent,
    Sandbox,
    Running,
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Stage {
    Unseen,
    Arrived,
    Confirmed,
    Acked,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Renewal {
    age: u8,
    session: u8,
    stage: [Stage; 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Entry {
    Prepared,
    Fence { decided_by: u8 },
    FirstOfTermTwo,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Server {
    wait: i8,
    decided: bool,
    applied: u8,
}

/// The world of leases.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LeaseWorld {
    alphabet: Alphabet,
    rank: Rank,
    left: i8,
    drift_left: u8,
    agent_up: bool,
    restart_left: bool,
    jump_left: bool,
    session: u8,
    elected: bool,
    servers: [Server; 2],
    log: [Option<Entry>; 4],
    renewals: [Option<Renewal>; 2],
}

/// What can happen; servers are numbered by the term they lead, 0 the older.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "the fields are read by the debug form, a line of a counterexample")]
pub enum Event {
    Tick,
    TickWhileAgentClockLags,
    ServerClockJumps { server: usize },
    ShimKillsRank,
    AgentRestarts,
    AgentDiesForGood,
    AgentConnectsTo { server: u8 },
    AgentSendsRenewal { displacing: usize },
    RenewalArrives { renewal: usize, server: usize },
    ReadIndexRound { server: usize },
    ServerAcknowledges { renewal: usize, server: usize },
    AgentHearsAcknowledgement { renewal: usize, from: usize },
    AgentPrepares,
    PreparedReportIsLogged { server: usize },
    AgentLearnsStart,
    SecondLeaderIsElected,
    ServerDecidesToFence { server: usize },
    FenceIsLogged { server: usize },
    DeposedLeadersFenceIsLoggedInTermTwo,
    ServerAppliesNext { server: usize },
}

impl LeaseWorld {
    /// The two starts: the rank already runs, or it is placed and the agent has not heard of it yet.
    pub fn starts(alphabet: Alphabet) -> Vec<Self> {
        let server = Server { wait: 0, decided: false, applied: 0 };
        let running = LeaseWorld {
            alphabet,
            rank: Rank::Running,
            left: LEASE,
            drift_left: DRIFT,
            agent_up: true,
            restart_left: alphabet.agent_faults,
            jump_left: alphabet.clock_jump,
            session: 0,
            elected: false,
            servers: [server; 2],
            log: [None; 4],
            renewals: [None; 2],
        };
        let placed = LeaseWorld { rank: Rank::Absent, ..running.clone() };
        vec![running, placed]
    }

    fn fence_wait(rules: &Rules) -> i8 {
        LEASE
            + if rules.fence_waits_kill_bound { KILL_BOUND } else { 0 }
            + if rules.fence_waits_drift { DRIFT as i8 } else { 0 }
    }

    fn is_live(&self) -> bool {
        matches!(self.rank, Rank::Sandbox | Rank::Running)
    }

    fn shim_acts(&self, rules: &Rules) -> bool {
        rules.shim_kills_alone || self.agent_up
    }

    /// Believes it leads. The first leader goes on believing after it is deposed.
    fn acts(&self, server: usize) -> bool {
        server == 0 || self.elected
    }

    /// Would win a ReadIndex round, and can append to the log.
    fn leads(&self, server: usize) -> bool {
        server == usize::from(self.elected)
    }

    fn log_len(&self) -> u8 {
        self.log.iter().flatten().count() as u8
    }

    fn logged(&self, wanted: Entry) -> Option<usize> {
        self.log.iter().position(|entry| *entry == Some(wanted))
    }

    fn push(&mut self, entry: Entry) {
        let end = self.log_len() as usize;
        self.log[end] = Some(entry);
    }

    /// Whether the first `applied` entries start the attempt, and whether they fence the node.
    fn outcome(&self, rules: &Rules, applied: u8) -> (bool, bool) {
        let (mut started, mut fenced, mut term) = (false, false, 0);
        for entry in self.log.iter().flatten().take(usize::from(applied)) {
            match entry {
                Entry::FirstOfTermTwo => term = 1,
                Entry::Prepared => started |= !fenced,
                Entry::Fence { decided_by } => fenced |= !rules.fence_term_is_log_term || *decided_by == term,
            }
        }
        (started, fenced)
    }

    fn sees_fenced(&self, rules: &Rules, server: usize) -> bool {
        self.outcome(rules, self.servers[server].applied).1
    }

    fn is_fenced(&self, rules: &Rules) -> bool {
        (0..2).any(|server| self.sees_fenced(rules, server))
    }

    /// Whether the server listens to the node at all.
    fn listens(&self, rules: &Rules, server: usize) -> bool {
        let quiet = rules.quiet_while_fencing && self.servers[server].decided;
        self.acts(server) && !quiet && !self.sees_fenced(rules, server)
    }

    fn may_acknowledge(&self, rules: &Rules, server: usize) -> bool {
        let first = self.logged(Entry::FirstOfTermTwo).map_or(0, |at| at as u8 + 1);
        let own_term = server == 0 || self.servers[server].applied >= first;
        self.listens(rules, server) && (own_term || !rules.own_term_entry_before_ack)
    }

    fn add_waits(&mut self, rules: &Rules) {
        let most = Self::fence_wait(rules);
        for server in &mut self.servers {
            server.wait = (server.wait + 1).min(most);
        }
    }

    /// A renewal as old as the lease extends nothing while leases count from sending, so it is forgotten: its only
    /// other effect, to restart a wait, makes fencing later and never sooner.
    fn age_renewals(&mut self, rules: &Rules) {
        for slot in &mut self.renewals {
            if let Some(renewal) = slot {
                renewal.age = (renewal.age + 1).min(OLD);
                if rules.lease_from_send && renewal.age >= LEASE as u8 {
                    *slot = None;
                }
            }
        }
        self.renewals.sort_unstable();
    }

    fn time_steps(&self, rules: &Rules, out: &mut Vec<(Event, Self)>) {
        let must_kill = self.is_live() && self.shim_acts(rules) && self.left - 1 <= -KILL_BOUND;
        if !must_kill {
            let mut next = self.clone();
            next.left = (next.left - 1).max(-KILL_BOUND);
            next.age_renewals(rules);
            next.add_waits(rules);
            out.push((Event::Tick, next));
        }
        if self.drift_left > 0 {
            let mut next = self.clone();
            next.drift_left -= 1;
            next.add_waits(rules);
            out.push((Event::TickWhileAgentClockLags, next));
        }
        for server in 0..2 {
            if self.jump_left && self.acts(server) {
                let mut next = self.clone();
                next.jump_left = false;
                let jumped = (self.servers[server].wait + LATE_TICK).min(Self::fence_wait(rules));
                next.servers[server].wait = if rules.late_tick_restarts_waits { 0 } else { jumped };
                out.push((Event::ServerClockJumps { server }, next));
            }
        }
        if self.is_live() && self.left <= 0 && self.shim_acts(rules) {
            out.push((Event::ShimKillsRank, LeaseWorld { rank: Rank::Dead, ..self.clone() }));
        }
    }

    fn agent_steps(&self, rules: &Rules, out: &mut Vec<(Event, Self)>) {
        if !self.agent_up {
            return;
        }
        if self.restart_left {
            let left = if rules.deadline_survives_restart { self.left } else { LEASE };
            out.push((Event::AgentRestarts, LeaseWorld { restart_left: false, left, ..self.clone() }));
        }
        if self.alphabet.agent_faults {
            out.push((Event::AgentDiesForGood, LeaseWorld { agent_up: false, ..self.clone() }));
        }
        if self.elected {
            let server = 1 - self.session;
            out.push((Event::AgentConnectsTo { server }, LeaseWorld { session: server, ..self.clone() }));
        }
        let sent = |renewal: &Renewal| renewal.age == 0 && renewal.session == self.session;
        let may_send = !self.renewals.iter().flatten().any(sent);
        for displacing in (0..2).filter(|_| may_send) {
            let mut next = self.clone();
            next.renewals[displacing] = Some(Renewal { age: 0, session: self.session, stage: [Stage::Unseen; 2] });
            next.renewals.sort_unstable();
            out.push((Event::AgentSendsRenewal { displacing }, next));
        }
        for (at, renewal) in self.renewals.iter().enumerate() {
            for from in 0..2 {
                if renewal.is_some_and(|renewal| renewal.stage[from] == Stage::Acked) {
                    let age = renewal.map_or(0, |renewal| renewal.age as i8);
                    let granted = if rules.lease_from_send { LEASE - age } else { LEASE };
                    let next = LeaseWorld { left: self.left.max(granted), ..self.clone() };
                    out.push((Event::AgentHearsAcknowledgement { renewal: at, from }, next));
                }
            }
        }
        if self.rank == Rank::Absent && (self.left > 0 || !rules.first_deadline_is_the_lease) {
            let left = if rules.first_deadline_is_the_lease { self.left } else { LEASE };
            out.push((Event::AgentPrepares, LeaseWorld { rank: Rank::Sandbox, left, ..self.clone() }));
        }
        let started = (0..2).any(|server| self.outcome(rules, self.servers[server].applied).0);
        if self.rank == Rank::Sandbox && started {
            out.push((Event::AgentLearnsStart, LeaseWorld { rank: Rank::Running, ..self.clone() }));
        }
    }

    fn renewal_steps(&self, rules: &Rules, server: usize, out: &mut Vec<(Event, Self)>) {
        for (at, renewal) in self.renewals.iter().enumerate() {
            let Some(renewal) = renewal else { continue };
            let own = usize::from(renewal.session) == server;
            let taken = self.listens(rules, server) && (own || !rules.only_session_server_acks);
            if taken && renewal.stage[server] == Stage::Unseen {
                let mut next = self.with_stage(at, server, Stage::Arrived);
                if own {
                    // Silence is counted per session; a renewal of another session ends no silence here.
                    next.servers[server].wait = 0;
                }
                out.push((Event::RenewalArrives { renewal: at, server }, next));
            }
            let ready = match renewal.stage[server] {
                Stage::Arrived => !rules.read_index_before_ack,
                Stage::Confirmed => true,
                Stage::Unseen | Stage::Acked => false,
            };
            if ready && self.may_acknowledge(rules, server) {
                let next = self.with_stage(at, server, Stage::Acked);
                out.push((Event::ServerAcknowledges { renewal: at, server }, next));
            }
        }
        if self.leads(server) {
            let mut next = self.clone();
            for renewal in next.renewals.iter_mut().flatten() {
                if renewal.stage[server] == Stage::Arrived {
                    renewal.stage[server] = Stage::Confirmed;
                }
            }
            next.renewals.sort_unstable();
            out.push((Event::ReadIndexRound { server }, next));
        }
    }

    fn with_stage(&self, renewal: usize, server: usize, stage: Stage) -> Self {
        let mut next = self.clone();
        if let Some(renewal) = &mut next.renewals[renewal] {
            renewal.stage[server] = stage;
        }
        next.renewals.sort_unstable();
        next
    }

    fn log_steps(&self, rules: &Rules, server: usize, out: &mut Vec<(Event, Self)>) {
        let now = self.servers[server];
        let prepared_unlogged = self.logged(Entry::Prepared).is_none() && self.prepared_once();
        if prepared_unlogged && self.leads(server) && self.listens(rules, server) {
            let mut next = self.clone();
            next.push(Entry::Prepared);
            out.push((Event::PreparedReportIsLogged { server }, next));
        }
        let waited = now.wait >= Self::fence_wait(rules);
        if self.acts(server) && !now.decided && waited && !self.sees_fenced(rules, server) {
            let mut next = self.clone();
            next.servers[server].decided = true;
            out.push((Event::ServerDecidesToFence { server }, next));
        }
        let fence = Entry::Fence { decided_by: server as u8 };
        if now.decided && self.logged(fence).is_none() {
            let mut next = self.clone();
            next.push(fence);
            if self.leads(server) {
                out.push((Event::FenceIsLogged { server }, next));
            } else {
                out.push((Event::DeposedLeadersFenceIsLoggedInTermTwo, next));
            }
        }
        if now.applied < self.log_len() && self.acts(server) {
            let mut next = self.clone();
            next.servers[server].applied += 1;
            out.push((Event::ServerAppliesNext { server }, next));
        }
    }

    /// The prepared report exists once a sandbox was built; it may be delivered ever after, even when the rank is dead.
    fn prepared_once(&self) -> bool {
        matches!(self.rank, Rank::Sandbox | Rank::Dead)
    }
}

impl World for LeaseWorld {
    type Event = Event;

    fn steps(&self, rules: &Rules, out: &mut Vec<(Event, Self)>) {
        self.time_steps(rules, out);
        self.agent_steps(rules, out);
        for server in 0..2 {
            if self.acts(server) {
                self.renewal_steps(rules, server, out);
                self.log_steps(rules, server, out);
            }
        }
        if self.alphabet.second_leader && !self.elected {
            let mut next = self.clone();
            next.elected = true;
            next.servers[1].wait = 0;
            next.push(Entry::FirstOfTermTwo);
            out.push((Event::SecondLeaderIsElected, next));
        }
    }

    fn breaks(&self, rules: &Rules, invariant: &str) -> bool {
        match invariant {
            "no-attempt-overlap" => self.rank == Rank::Running && self.is_fenced(rules),
            "fenced-holds-no-lease" => self.left > 0 && self.is_fenced(rules),
            "goal: fenced after start" => self.is_fenced(rules) && self.rank == Rank::Dead,
            "goal: runs under the second leader" => {
                self.rank == Rank::Running && self.session == 1 && self.left == LEASE && self.servers[1].wait == 0
            }
            "goal: started through the log" => self.rank == Rank::Running && self.logged(Entry::Prepared).is_some(),
            "goal: fenced without its agent" => self.is_fenced(rules) && !self.agent_up,
            _ => false,
        }
    }
}
