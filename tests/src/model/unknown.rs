//! What a server may conclude about the device of a fenced node.
//!
//! The lease world proves that a fenced node runs no user code. This one adds what leases cannot exclude: a process
//! stuck in the kernel, which runs nothing and still holds its device. A registration is a fact about one boot.

use super::rules::Rules;
use super::search::World;

const BOOTS_MAX: u8 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Process {
    None,
    Live,
    Stuck,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum View {
    Held,
    Unknown,
    Free,
}

/// The world of evidence.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct UnknownWorld {
    process: Process,
    boot: u8,
    known_boot: u8,
    /// Bit per boot that has sent a registration with nothing to report, so far undelivered or delivered.
    registrations: u8,
    store_names_it: bool,
    store_losses_left: u8,
    cut_off: bool,
    view: View,
    /// Allocation counted from 0, and per allocation whether the agent said it is released.
    allocation: u8,
    released: [bool; 3],
}

/// What can happen.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "the fields are read by the debug form, a line of a counterexample")]
pub enum Event {
    NodeIsCutOff,
    NodeIsBack,
    LeaseEndsAndKillWorks,
    LeaseEndsAndKillSticks,
    StuckProcessEnds,
    ServerFences,
    AgentSendsReleased,
    ReleasedArrives { allocation: u8 },
    AgentRestartsWithLostStore,
    AgentSweepKills,
    AgentSweepSticks,
    MachineReboots,
    AgentSendsRegistration { boot: u8 },
    RegistrationArrives { boot: u8 },
    ServerPlacesAgainAndItRuns,
}

impl UnknownWorld {
    /// The single start: one allocation runs on a reachable node.
    pub fn starts() -> Vec<Self> {
        vec![UnknownWorld {
            process: Process::Live,
            boot: 0,
            known_boot: 0,
            registrations: 0,
            store_names_it: true,
            store_losses_left: 1,
            cut_off: false,
            view: View::Held,
            allocation: 0,
            released: [false; 3],
        }]
    }

    fn node_steps(&self, rules: &Rules, out: &mut Vec<(Event, Self)>) {
        let with = |process| UnknownWorld { process, ..self.clone() };
        if self.cut_off {
            out.push((Event::NodeIsBack, UnknownWorld { cut_off: false, ..self.clone() }));
        } else {
            out.push((Event::NodeIsCutOff, UnknownWorld { cut_off: true, ..self.clone() }));
        }
        if self.cut_off && self.process == Process::Live {
            out.push((Event::LeaseEndsAndKillWorks, with(Process::None)));
            out.push((Event::LeaseEndsAndKillSticks, with(Process::Stuck)));
        }
        if self.process == Process::Stuck {
            out.push((Event::StuckProcessEnds, with(Process::None)));
        }
        if self.store_losses_left > 0 {
            let left = self.store_losses_left - 1;
            let next = UnknownWorld { store_names_it: false, store_losses_left: left, ..self.clone() };
            out.push((Event::AgentRestartsWithLostStore, next));
        }
        if rules.lost_store_is_swept && !self.store_names_it && self.process == Process::Live {
            out.push((Event::AgentSweepKills, with(Process::None)));
            out.push((Event::AgentSweepSticks, with(Process::Stuck)));
        }
        if self.boot + 1 < BOOTS_MAX {
            let next = UnknownWorld { boot: self.boot + 1, process: Process::None, ..self.clone() };
            out.push((Event::MachineReboots, next));
        }
    }

    fn evidence_steps(&self, rules: &Rules, out: &mut Vec<(Event, Self)>) {
        if self.process == Process::None && self.store_names_it {
            let mut next = self.clone();
            next.released[usize::from(self.allocation)] = true;
            out.push((Event::AgentSendsReleased, next));
        }
        if self.may_claim_empty(rules) {
            let mut next = self.clone();
            next.registrations |= 1 << self.boot;
            out.push((Event::AgentSendsRegistration { boot: self.boot }, next));
        }
        if !self.cut_off && self.released[usize::from(self.allocation)] {
            let next = UnknownWorld { view: View::Free, ..self.clone() };
            out.push((Event::ReleasedArrives { allocation: self.allocation }, next));
        }
        for boot in 0..BOOTS_MAX {
            let sent = self.registrations & (1 << boot) != 0;
            let live = boot == self.boot && !self.cut_off && self.may_claim_empty(rules);
            if sent && (live || !rules.registration_is_live) {
                let next = UnknownWorld { view: View::Free, known_boot: boot, ..self.clone() };
                out.push((Event::RegistrationArrives { boot }, next));
            }
        }
    }

    /// A registration claims an empty device when nothing is there, or when nobody looked after the store was lost.
    fn may_claim_empty(&self, rules: &Rules) -> bool {
        let unaware = !self.store_names_it && !rules.lost_store_is_swept;
        self.process == Process::None || unaware
    }

    fn server_steps(&self, rules: &Rules, out: &mut Vec<(Event, Self)>) {
        // The lease world proves the guard: when the fencing wait is over, no rank runs user code.
        if self.cut_off && self.process != Process::Live && self.view == View::Held {
            let view = if rules.fenced_is_unknown { View::Unknown } else { View::Free };
            out.push((Event::ServerFences, UnknownWorld { view, ..self.clone() }));
        }
        let may_place = !self.cut_off && self.view == View::Free && self.process == Process::None;
        if may_place && self.allocation < 2 && self.known_boot == self.boot {
            let mut next = self.clone();
            next.allocation += 1;
            next.view = View::Held;
            next.process = Process::Live;
            next.store_names_it = true;
            out.push((Event::ServerPlacesAgainAndItRuns, next));
        }
    }
}

impl World for UnknownWorld {
    type Event = Event;

    fn steps(&self, rules: &Rules, out: &mut Vec<(Event, Self)>) {
        self.node_steps(rules, out);
        self.evidence_steps(rules, out);
        self.server_steps(rules, out);
    }

    fn breaks(&self, _rules: &Rules, invariant: &str) -> bool {
        match invariant {
            "freed-only-when-empty" => self.view == View::Free && self.process != Process::None,
            "goal: third allocation runs" => self.allocation == 2 && self.process == Process::Live,
            "goal: unknown while stuck" => self.view == View::Unknown && self.process == Process::Stuck,
            _ => false,
        }
    }
}
