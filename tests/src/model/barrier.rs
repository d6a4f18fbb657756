//! One gang of two ranks: the barrier, the order of the log, ends and reports.
//!
//! Attempt 2 starts on spare nodes the moment attempt 1 is ended for retry, which is the worst case. What the log has
//! said stays sayable: a start or a stop may reach an agent late, twice, out of order, or never.

use super::rules::Rules;
use super::search::World;

const PREPARED: u8 = 1;
const EXIT_OK: u8 = 2;
const EXIT_FAILED: u8 = 4;
const RELEASED: u8 = 8;
const EXITED: u8 = EXIT_OK | EXIT_FAILED;
const ENDED: u8 = EXITED | RELEASED;

const STARTED: u8 = 1;
const ABORTED: u8 = 2;
const SUCCEEDED: u8 = 4;
const FAILED: u8 = 8;
const CANCELLED: u8 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Rank {
    Absent,
    Sandbox,
    Running,
    Exited,
    Stopped,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Cause {
    Abort,
    Failure,
    Cancel,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
    Starting,
    Running,
    Stopping(Cause),
    Ended,
}

/// The world of the barrier.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BarrierWorld {
    ranks: [Rank; 2],
    prepared: [bool; 2],
    exited: [bool; 2],
    held: [u8; 2],
    leader_buffer: [u8; 2],
    applied: [u8; 2],
    phase: Phase,
    acknowledged: u8,
    start_said: bool,
    stop_said: bool,
    retried: bool,
    leader_crashes_left: u8,
    cancel_left: bool,
    ran_before_set_prepared: bool,
    stopped_without_cause: bool,
}

/// What can happen; `rank` is 0 or 1.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "the fields are read by the debug form, a line of a counterexample")]
pub enum Event {
    AgentPrepares { rank: usize },
    AgentStartsRank { rank: usize },
    RankExits { rank: usize, failed: bool },
    AgentStopsRank { rank: usize },
    AgentSendsReports { rank: usize },
    LeaderLogsReports { rank: usize },
    AgentLearnsAppliedIndex { rank: usize },
    LeaderCrashesAndLosesItsBuffer,
    StartDeadlinePassesAbortIsLogged,
    CancelIsLogged,
    LeaderStopsFailedGang,
}

impl BarrierWorld {
    /// The single start: placed on two nodes, nothing prepared.
    pub fn starts() -> Vec<Self> {
        vec![BarrierWorld {
            ranks: [Rank::Absent; 2],
            prepared: [false; 2],
            exited: [false; 2],
            held: [0; 2],
            leader_buffer: [0; 2],
            applied: [0; 2],
            phase: Phase::Starting,
            acknowledged: 0,
            start_said: false,
            stop_said: false,
            retried: false,
            leader_crashes_left: 1,
            cancel_left: true,
            ran_before_set_prepared: false,
            stopped_without_cause: false,
        }]
    }

    fn rank_steps(&self, rules: &Rules, rank: usize, out: &mut Vec<(Event, Self)>) {
        let mut next = self.clone();
        match self.ranks[rank] {
            Rank::Absent => {
                next.ranks[rank] = Rank::Sandbox;
                next.prepared[rank] = true;
                next.held[rank] |= PREPARED;
                out.push((Event::AgentPrepares { rank }, next));
            }
            Rank::Sandbox if self.start_said || !rules.barrier => {
                next.ranks[rank] = Rank::Running;
                next.ran_before_set_prepared |= self.prepared.contains(&false);
                out.push((Event::AgentStartsRank { rank }, next));
            }
            Rank::Running => {
                for (failed, report) in [(false, EXIT_OK), (true, EXIT_FAILED)] {
                    let mut next = self.clone();
                    next.ranks[rank] = Rank::Exited;
                    next.exited[rank] = true;
                    next.held[rank] |= report;
                    out.push((Event::RankExits { rank, failed }, next));
                }
            }
            _ => {}
        }
        let may_stop = matches!(self.ranks[rank], Rank::Absent | Rank::Sandbox | Rank::Running);
        if self.stop_said && may_stop {
            let mut next = self.clone();
            // Stopping what was never prepared spends its token, so a late placement is refused.
            next.ranks[rank] = Rank::Stopped;
            next.held[rank] |= RELEASED;
            next.stopped_without_cause |= self.phase == Phase::Running;
            out.push((Event::AgentStopsRank { rank }, next));
        }
    }

    fn report_steps(&self, rules: &Rules, rank: usize, out: &mut Vec<(Event, Self)>) {
        if self.held[rank] & !self.leader_buffer[rank] != 0 {
            let mut next = self.clone();
            next.leader_buffer[rank] |= self.held[rank];
            if !rules.keep_report_until_applied {
                next.held[rank] = 0;
            }
            out.push((Event::AgentSendsReports { rank }, next));
        }
        if self.leader_buffer[rank] != 0 {
            let mut next = self.clone();
            next.leader_buffer[rank] = 0;
            next.apply_reports(rules, rank, self.leader_buffer[rank]);
            out.push((Event::LeaderLogsReports { rank }, next));
        }
        if self.held[rank] & self.applied[rank] != 0 {
            let mut next = self.clone();
            next.held[rank] &= !self.applied[rank];
            out.push((Event::AgentLearnsAppliedIndex { rank }, next));
        }
    }

    fn apply_reports(&mut self, rules: &Rules, rank: usize, reports: u8) {
        let fresh = reports & !self.applied[rank];
        self.applied[rank] |= reports;
        let set_prepared = self.applied.iter().all(|applied| applied & PREPARED != 0);
        let may_start = self.phase == Phase::Starting || !rules.first_in_log_wins;
        if fresh & PREPARED != 0 && set_prepared && may_start {
            self.phase = Phase::Running;
            self.start_said = true;
            self.acknowledged |= STARTED;
        }
        if fresh & EXIT_FAILED != 0 && self.phase == Phase::Running && rules.failed_rank_stops_gang {
            self.stop(Cause::Failure);
        }
        self.settle(rules);
    }

    fn stop(&mut self, cause: Cause) {
        self.phase = Phase::Stopping(cause);
        self.stop_said = true;
    }

    /// Ends the attempt once its devices allow it.
    fn settle(&mut self, rules: &Rules) {
        if self.phase == Phase::Running && self.applied.iter().all(|applied| applied & EXIT_OK != 0) {
            self.phase = Phase::Ended;
            self.acknowledged |= SUCCEEDED;
        }
        let settled = self.applied.iter().all(|applied| applied & ENDED != 0);
        let Phase::Stopping(cause) = self.phase else {
            return;
        };
        if settled || !rules.end_after_devices_settled {
            self.phase = Phase::Ended;
            self.retried |= cause != Cause::Cancel;
            self.acknowledged |= match cause {
                Cause::Abort => ABORTED,
                Cause::Failure => FAILED,
                Cause::Cancel => CANCELLED,
            };
        }
    }

    fn log_steps(&self, rules: &Rules, out: &mut Vec<(Event, Self)>) {
        if self.leader_crashes_left > 0 {
            let mut next = self.clone();
            next.leader_crashes_left -= 1;
            next.leader_buffer = [0; 2];
            out.push((Event::LeaderCrashesAndLosesItsBuffer, next));
        }
        let mut aborted = self.clone();
        if self.phase == Phase::Starting || !rules.first_in_log_wins {
            aborted.stop(Cause::Abort);
            aborted.settle(rules);
        }
        out.push((Event::StartDeadlinePassesAbortIsLogged, aborted));
        if self.cancel_left {
            let mut next = self.clone();
            next.cancel_left = false;
            let first = matches!(self.phase, Phase::Starting | Phase::Running);
            if first || !rules.first_in_log_wins {
                next.stop(Cause::Cancel);
                next.settle(rules);
            }
            out.push((Event::CancelIsLogged, next));
        }
        if self.has_half_gang() {
            let mut next = self.clone();
            next.stop(Cause::Failure);
            next.settle(rules);
            out.push((Event::LeaderStopsFailedGang, next));
        }
    }

    fn has_half_gang(&self) -> bool {
        self.phase == Phase::Running && self.applied.iter().any(|applied| applied & EXIT_FAILED != 0)
    }

    fn is_lost(&self, rank: usize) -> bool {
        let known = self.held[rank] | self.leader_buffer[rank] | self.applied[rank];
        self.exited[rank] && known & EXITED == 0
    }
}

impl World for BarrierWorld {
    type Event = Event;

    fn steps(&self, rules: &Rules, out: &mut Vec<(Event, Self)>) {
        for rank in 0..2 {
            self.rank_steps(rules, rank, out);
            self.report_steps(rules, rank, out);
        }
        self.log_steps(rules, out);
    }

    fn breaks(&self, _rules: &Rules, invariant: &str) -> bool {
        let ends = self.acknowledged & (SUCCEEDED | FAILED | CANCELLED | ABORTED);
        match invariant {
            "start-after-all-prepared" => self.ran_before_set_prepared,
            "no-attempt-overlap" => self.retried && self.ranks.contains(&Rank::Running),
            "no-half-gang" => self.has_half_gang(),
            "exit-not-lost" => (0..2).any(|rank| self.is_lost(rank)),
            "no-causeless-stop" => self.stopped_without_cause,
            "one-outcome" => ends.count_ones() > 1 || self.acknowledged & (STARTED | ABORTED) == STARTED | ABORTED,
            "goal: succeeded" => self.acknowledged == STARTED | SUCCEEDED,
            "goal: retried after failure" => self.retried && self.acknowledged == STARTED | FAILED,
            "goal: aborted" => self.acknowledged == ABORTED,
            "goal: cancelled" => self.acknowledged == STARTED | CANCELLED,
            _ => false,
        }
    }
}
