//! What agents report, each once, in the order of the agent's own count.

use super::Applying;
use crate::command::{Exit, NodeReport, ReportBody};
use crate::outcome::{Event, Evidence, Response};
use crate::state::gang::{Cause, GangState, PartState};
use crate::state::node::{Closed, Drain, Liveness};
use crate::state::timer::Timer;
use muster_common::{GangId, NodeId};

impl Applying<'_> {
    pub(super) fn reports(&mut self, reports: &[NodeReport]) -> Response {
        let mut applied = 0;
        for report in reports {
            let current = self.state.nodes.get(&report.node);
            if !current.is_some_and(|node| node.epoch == report.epoch && node.reports_applied < report.number) {
                continue;
            }
            self.node_mut(report.node).reports_applied = report.number;
            self.report(report);
            applied += 1;
        }
        Response::Reports { applied }
    }

    fn report(&mut self, report: &NodeReport) {
        if let ReportBody::DeviceFault { slot, xid, why, fatal } = &report.body {
            return self.device_fault(report.node, *slot, *xid, why, *fatal);
        }
        let Some(at) = self.part_of(report) else {
            return self.report_of_orphan(report);
        };
        let gang = report.gang;
        match &report.body {
            ReportBody::Prepared => self.prepared(gang, at),
            ReportBody::Checkpointed => self.checkpointed(gang),
            ReportBody::PrepareFailed { infra, why } => {
                let cause = Cause::PrepareFailed { node: report.node, infra: *infra, why: why.clone() };
                self.stop(gang, cause);
            }
            ReportBody::Exited { rank, exit, .. } => self.exited(gang, at, *rank, *exit, report.node),
            ReportBody::Released { lease_expired } => self.released(gang, at, *lease_expired, report.node),
            ReportBody::Quarantined { slots, why } => {
                self.stop(gang, Cause::DeviceFailed { node: report.node, slot: slots.first().copied().unwrap_or(0) });
                self.quarantine_part(gang, at, slots, why);
                self.close_node(report.node, why);
            }
            ReportBody::DeviceFault { .. } | ReportBody::Informational => {}
        }
        self.finish_if_settled(gang);
    }

    /// The unsettled part the report speaks of, when it speaks of the attempt now.
    fn part_of(&self, report: &NodeReport) -> Option<usize> {
        let attempt = self.state.gangs.get(&report.gang)?.current()?;
        let at = attempt.part_on(report.node)?;
        let same = attempt.number == report.attempt && attempt.token == report.token;
        (same && !attempt.parts[at].state.is_settled()).then_some(at)
    }

    fn report_of_orphan(&mut self, report: &NodeReport) {
        match &report.body {
            ReportBody::Released { .. } => {
                self.release_orphan(report.node, report.gang, report.token, Evidence::Released);
            }
            ReportBody::Quarantined { slots, why }
                if self.quarantine_orphan(report.node, report.gang, report.token, slots, why) =>
            {
                self.close_node(report.node, why);
            }
            _ => {}
        }
    }

    /// The entry that completes the set is the start (rule 4).
    fn prepared(&mut self, gang: GangId, at: usize) {
        let now = self.now();
        let limit_ms = self.scheduling_of(gang).limits.time_ms;
        let start_within_ms = self.state.settings.start_within_ms;
        let record = self.gang_mut(gang);
        let GangState::Starting(attempt) = &mut record.state else {
            return;
        };
        attempt.parts[at].state = PartState::Prepared;
        if !attempt.parts.iter().all(|part| part.state == PartState::Prepared) {
            return;
        }
        attempt.started_at = Some(now);
        let (number, placed_at) = (attempt.number, attempt.placed_at);
        record.state = GangState::Running(attempt.clone());
        self.drop_timer(placed_at.plus_ms(start_within_ms), Timer::StartDeadline { gang, attempt: number });
        if let Some(limit_ms) = limit_ms {
            self.set_timer(now.plus_ms(limit_ms), Timer::TimeLimit { gang, attempt: number });
        }
        self.event(Event::GangStarted { gang, attempt: number });
        self.job_started(gang.job);
    }

    fn checkpointed(&mut self, gang: GangId) {
        let now = self.now();
        if let GangState::Running(attempt) = &mut self.gang_mut(gang).state {
            attempt.checkpoint_at = Some(now);
        }
    }

    fn exited(&mut self, gang: GangId, at: usize, rank: u32, exit: Exit, node: NodeId) {
        let attempt = self.gang_mut(gang).current_mut().expect("the report's part is live");
        let number = attempt.number;
        let part = &mut attempt.parts[at];
        let Some(slot) = rank.checked_sub(part.rank_base).and_then(|local| part.exits.get_mut(local as usize)) else {
            return;
        };
        if slot.is_some() {
            return;
        }
        *slot = Some(exit);
        let all_done =
            attempt.parts.iter().all(|part| part.exits.iter().all(|exit| exit.is_some_and(Exit::is_success)));
        self.event(Event::RankExited { gang, attempt: number, rank, node, exit });
        if !exit.is_success() {
            let failure = match self.silent_neighbour(gang) {
                Some(node) => Cause::NodeLost { node },
                None => Cause::RankFailed { rank, node, exit },
            };
            self.stop(gang, failure);
        } else if all_done {
            self.stop(gang, Cause::Completed);
        }
    }

    /// A node of the gang that nobody hears: ranks elsewhere fail because of it, and not by the job's fault.
    fn silent_neighbour(&self, gang: GangId) -> Option<NodeId> {
        let attempt = self.state.gangs.get(&gang)?.current()?;
        let silent = |node: &NodeId| self.state.nodes.get(node).is_some_and(|record| record.liveness != Liveness::Up);
        attempt.parts.iter().map(|part| part.node).find(silent)
    }

    fn released(&mut self, gang: GangId, at: usize, lease_expired: bool, node: NodeId) {
        let cause = if lease_expired { Cause::LeaseLost { node } } else { Cause::Vanished { node } };
        self.stop(gang, cause);
        self.release_part(gang, at, Evidence::Released);
    }

    fn device_fault(&mut self, node: NodeId, slot: u16, xid: u32, why: &str, fatal: bool) {
        self.event(Event::DeviceFault { node, slot, xid, why: why.into() });
        if !fatal {
            return;
        }
        let holders: Vec<GangId> =
            match self.state.nodes.get(&node).and_then(|record| record.devices.get(usize::from(slot))) {
                Some(device) => device.holders().iter().map(|holder| holder.gang).collect(),
                None => return,
            };
        for gang in holders {
            self.stop(gang, Cause::DeviceFailed { node, slot });
        }
        self.quarantine_device(node, slot, why);
    }

    fn close_node(&mut self, node: NodeId, why: &str) {
        let at = self.now();
        let record = self.node_mut(node);
        if record.closed.is_none() {
            let by = crate::command::Principal("agent".into());
            record.closed = Some(Closed { reason: why.into(), by, at, drain: Some(Drain { deadline: None }) });
        }
    }
}
