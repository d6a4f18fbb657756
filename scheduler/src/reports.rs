//! Gathers agents' reports into few log entries: a job costs one Submit plus shares of batches.

use crate::proposer::Proposer;
use crate::session::Outgoing;
use muster_engine::Command;
use muster_engine::command::{NodeReport, REPORTS_MAX, ReportBody};
use muster_runtime::actor::{Depth, Inbox, Mailbox, mailbox};
use muster_runtime::clock::Clock;
use muster_runtime::shutdown::Shutdown;
use std::sync::Arc;

const WAITING_MAX: usize = 4096;
/// How long the first report of a batch waits for company.
const LINGER_MS: u64 = 2;
/// Texts of one entry, so that it stays below the log's 64 KiB.
const TEXT_BYTES_MAX: usize = 32 * 1024;

/// One encoded slot.
const SLOT_BYTES_MAX: usize = 3;

pub struct Arrived {
    pub report: NodeReport,
    /// Of the session it came on; ended when the report could not be committed, so that the agent
    /// sends it again.
    pub session: Outgoing,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct ReportsHandle {
    mailbox: Mailbox<Arrived>,
}

impl ReportsHandle {
    /// Reports that wait to be committed.
    pub fn depth(&self) -> Depth {
        self.mailbox.depth()
    }

    /// Waits for room; false when the server is stopping.
    pub async fn report(&self, arrived: Arrived) -> bool {
        self.mailbox.send(arrived).await.is_ok()
    }
}

pub struct Reports {
    proposer: Proposer,
    clock: Arc<dyn Clock>,
    inbox: Inbox<Arrived>,
}

impl Reports {
    pub fn new(proposer: Proposer, clock: Arc<dyn Clock>) -> (ReportsHandle, Self) {
        let (mailbox, inbox) = mailbox("reports", WAITING_MAX);
        (ReportsHandle { mailbox }, Self { proposer, clock, inbox })
    }

    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
        let mut waiting = Vec::new();
        while let Some(count) = shutdown.unless(self.inbox.recv_many(&mut waiting, REPORTS_MAX)).await {
            if count == 0 {
                break;
            }
            if waiting.len() < REPORTS_MAX {
                self.clock.sleep_ms(LINGER_MS).await;
                while waiting.len() < REPORTS_MAX
                    && let Some(more) = self.inbox.try_recv()
                {
                    waiting.push(more);
                }
            }
            for batch in in_entries(std::mem::take(&mut waiting)) {
                self.commit(batch).await;
            }
        }
        Ok(())
    }

    async fn commit(&self, batch: Vec<Arrived>) {
        let batch = of_live_sessions(batch);
        if batch.is_empty() {
            return;
        }
        let reports = batch.iter().map(|arrived| arrived.report.clone()).collect();
        if let Err(error) = self.proposer.propose(Command::Reports { reports }).await {
            tracing::info!(%error, reports = batch.len(), "reports were not committed; their agents send them again");
            for arrived in batch {
                arrived.session.end("a report could not be committed");
            }
        }
    }
}

/// After a report that was not committed, a later one of its session would count for both: the
/// agent would be told that both are applied, and drop both.
fn of_live_sessions(mut batch: Vec<Arrived>) -> Vec<Arrived> {
    batch.retain(|arrived| !arrived.session.is_ended());
    batch
}

fn text_bytes(body: &ReportBody) -> usize {
    match body {
        ReportBody::PrepareFailed { why, .. }
        | ReportBody::Exited { why, .. }
        | ReportBody::DeviceFault { why, .. } => why.len(),
        ReportBody::Quarantined { slots, why } => why.len() + slots.len() * SLOT_BYTES_MAX,
        ReportBody::Prepared | ReportBody::Checkpointed | ReportBody::Released { .. } | ReportBody::Informational => 0,
    }
}

fn in_entries(waiting: Vec<Arrived>) -> Vec<Vec<Arrived>> {
    let mut entries: Vec<Vec<Arrived>> = Vec::new();
    let mut bytes = 0;
    for arrived in waiting {
        let more = text_bytes(&arrived.report.body);
        match entries.last_mut() {
            Some(entry) if entry.len() < REPORTS_MAX && bytes + more <= TEXT_BYTES_MAX => {
                bytes += more;
                entry.push(arrived);
            }
            _ => {
                bytes = more;
                entries.push(vec![arrived]);
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_common::{AttemptNo, GangId, NodeId, Token};

    fn arrived(session: &Outgoing, number: u64) -> Arrived {
        let report = NodeReport {
            node: NodeId(1),
            epoch: 1,
            number,
            gang: GangId::default(),
            attempt: AttemptNo(1),
            token: Token::default(),
            body: ReportBody::Prepared,
        };
        Arrived { report, session: session.clone() }
    }

    #[test]
    fn rule_5_after_a_report_that_was_not_committed_no_later_one_of_its_session_is() {
        let (failed, _messages, _ending) = Outgoing::new();
        let (live, _other_messages, _other_ending) = Outgoing::new();
        failed.end("a report could not be committed");
        let left = of_live_sessions(vec![arrived(&failed, 6), arrived(&live, 1), arrived(&failed, 7)]);
        assert_eq!(left.iter().map(|arrived| arrived.report.number).collect::<Vec<_>>(), [1]);
    }
}
