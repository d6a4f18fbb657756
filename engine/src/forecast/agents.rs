//! Agents that do at once, or after a given delay, whatever State asks of them.

use super::{Happening, Hooks, PlayError, Player, Unsent};
use crate::command::{Command, Exit, NodeReport, REPORTS_MAX, ReportBody};
use crate::outcome::{Event, Outcome};
use crate::state::gang::{Attempt, GangState, PartState};
use muster_common::{AttemptNo, GangId, Time};

/// Ends rank after arrivals or before them by this fixed place; see `Player::at`.
const ENDS: u8 = 1;

impl Player {
    /// Agents take over what State says is placed, running or stopping already.
    pub fn adopt(&mut self, at: Time, hooks: &mut dyn Hooks) -> Result<(), PlayError> {
        let gangs: Vec<(GangId, AttemptNo, &'static str)> =
            self.state.gangs().values().map(|gang| (gang.id, gang.attempt, gang.state.word())).collect();
        for (gang, attempt, word) in gangs {
            match word {
                "STARTING" => self.report_prepared(gang, attempt, at, hooks)?,
                "RUNNING" => self.schedule_end(gang, at, hooks),
                "STOPPING" => self.report_released(gang, attempt, at, hooks)?,
                _ => {}
            }
        }
        self.adopt_power(at, hooks)
    }

    /// What agents do about the facts of one entry.
    pub(super) fn answer(&mut self, outcome: &Outcome, at: Time, hooks: &mut dyn Hooks) -> Result<(), PlayError> {
        for event in &outcome.events {
            match event {
                Event::GangPlaced { gang, attempt, .. } => match hooks.prepare_ms(&self.state, *gang) {
                    0 => self.report_prepared(*gang, *attempt, at, hooks)?,
                    ms => self.insert(at.plus_ms(ms), ENDS, Happening::Prepare { gang: *gang, attempt: *attempt }),
                },
                Event::GangStarted { gang, .. } => self.schedule_end(*gang, at, hooks),
                // An attempt that ended by itself reports its release with its exits.
                Event::GangStopping { gang, attempt, cause } if *cause != crate::state::gang::Cause::Completed => {
                    match hooks.release_ms(&self.state, *gang) {
                        0 => self.report_released(*gang, *attempt, at, hooks)?,
                        ms => self.insert(at.plus_ms(ms), ENDS, Happening::Release { gang: *gang, attempt: *attempt }),
                    }
                }
                Event::NodesSleeping { nodes } => {
                    for node in nodes {
                        self.put_to_sleep(*node, at, hooks)?;
                    }
                }
                Event::NodesRequested { nodes, .. } => nodes.iter().for_each(|node| self.wake(*node, at, hooks)),
                _ => {}
            }
        }
        Ok(())
    }

    fn schedule_end(&mut self, gang: GangId, at: Time, hooks: &mut dyn Hooks) {
        if let Some(end) = hooks.attempt_end(&self.state, gang) {
            let attempt = self.state.gang(gang).map(|record| record.attempt);
            if let Some(attempt) = attempt.filter(|_| end.at < Time::NEVER) {
                self.insert(end.at.max(at), ENDS, Happening::End { gang, attempt, exit: end.exit });
            }
            return;
        }
        let Some(run_ms) = hooks.run_ms(&self.state, gang) else { return };
        let Some(record) = self.state.gang(gang) else { return };
        let Some(started) = record.current().and_then(|attempt| attempt.started_at) else { return };
        let served_ms = if self.world.kept_work { record.served_ms } else { 0 };
        let end = started.plus_ms(run_ms.saturating_sub(served_ms)).max(at);
        let attempt = record.attempt;
        if end < Time::NEVER {
            self.insert(end, ENDS, Happening::End { gang, attempt, exit: Exit::Code(0) });
        }
    }

    /// The attempt, if it is still the present one.
    fn live(&self, gang: GangId, attempt: AttemptNo) -> Option<&Attempt> {
        self.state.gang(gang)?.current().filter(|current| current.number == attempt)
    }

    pub(super) fn report_prepared(
        &mut self,
        gang: GangId,
        attempt: AttemptNo,
        at: Time,
        hooks: &mut dyn Hooks,
    ) -> Result<(), PlayError> {
        let Some(current) = self.live(gang, attempt) else { return Ok(()) };
        let reports = reports_of(gang, current, |at, reports, report| {
            if current.parts[at].state == PartState::Placed {
                reports.push(report(ReportBody::Prepared));
            }
        });
        self.send(reports, at, hooks)
    }

    /// Every rank exits with 0, and its part is released; or the first one fails.
    pub(super) fn report_end(
        &mut self,
        gang: GangId,
        attempt: AttemptNo,
        exit: Exit,
        at: Time,
        hooks: &mut dyn Hooks,
    ) -> Result<(), PlayError> {
        let Some(current) = self.live(gang, attempt) else { return Ok(()) };
        if !matches!(self.state.gang(gang).map(|record| &record.state), Some(GangState::Running(_))) {
            return Ok(());
        }
        if current.parts.iter().any(|part| self.mute.contains(&part.node)) {
            return Ok(());
        }
        let mut reports = reports_of(gang, current, |at, reports, report| {
            let part = &current.parts[at];
            for rank in part.rank_base..part.rank_base + part.ranks {
                reports.push(report(ReportBody::Exited { rank, exit, why: String::new() }));
            }
        });
        if exit.is_success() {
            reports.extend(released(gang, current));
        } else {
            // What is left of the gang is stopped, and answers for itself.
            reports.truncate(1);
        }
        self.send(reports, at, hooks)
    }

    pub(super) fn report_released(
        &mut self,
        gang: GangId,
        attempt: AttemptNo,
        at: Time,
        hooks: &mut dyn Hooks,
    ) -> Result<(), PlayError> {
        let Some(current) = self.live(gang, attempt) else { return Ok(()) };
        let reports = released(gang, current);
        self.send(reports, at, hooks)
    }

    pub(super) fn send(&mut self, mut reports: Unsent, at: Time, hooks: &mut dyn Hooks) -> Result<(), PlayError> {
        reports.retain(|report| !self.mute.contains(&report.node));
        for report in &mut reports {
            report.number = self.number(report.node);
        }
        for batch in reports.chunks(REPORTS_MAX) {
            self.commit(at, Command::Reports { reports: batch.to_vec() }, hooks)?;
        }
        Ok(())
    }
}

fn released(gang: GangId, attempt: &Attempt) -> Unsent {
    reports_of(gang, attempt, |at, reports, report| {
        if !attempt.parts[at].state.is_settled() {
            reports.push(report(ReportBody::Released { lease_expired: false }));
        }
    })
}

type Write<'a> = dyn Fn(ReportBody) -> NodeReport + 'a;

fn reports_of(gang: GangId, attempt: &Attempt, write: impl Fn(usize, &mut Unsent, &Write)) -> Unsent {
    let mut reports = Unsent::new();
    for (at, part) in attempt.parts.iter().enumerate() {
        let report = |body| NodeReport {
            node: part.node,
            epoch: part.epoch,
            number: 0,
            gang,
            attempt: attempt.number,
            token: attempt.token,
            body,
        };
        write(at, &mut reports, &report);
    }
    reports
}
