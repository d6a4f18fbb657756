//! The evidence of a fault test: what ran, and what no server had acknowledged, when it struck.

use super::TestCluster;
use super::ranks::Rank;
use super::wait::until_within;
use muster_agent::store::{ReportBody, Store};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// The state of the cluster right before a kill.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Highest log index that a server which still answered had applied.
    pub log_index: u64,
    pub ranks: Vec<Rank>,
    /// Node and report.
    pub unacknowledged: Vec<(String, String)>,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log index {}", self.log_index)?;
        for rank in &self.ranks {
            writeln!(
                f,
                "live rank {} of job {} attempt {} on {}: pid {}",
                rank.rank, rank.job, rank.attempt, rank.node, rank.pid
            )?;
        }
        for (node, report) in &self.unacknowledged {
            writeln!(f, "unacknowledged at {node}: {report}")?;
        }
        Ok(())
    }
}

impl Moment {
    /// Prints it. A run in which nothing ran, or nothing was unacknowledged, does not count.
    ///
    /// # Panics
    /// When the run does not count.
    pub fn stands_for(&self, kill: &str) {
        println!("at the moment of: {kill}\n{self}");
        assert!(!self.ranks.is_empty(), "no rank ran at the moment of: {kill}");
        assert!(!self.unacknowledged.is_empty(), "every report was acknowledged at the moment of: {kill}");
    }
}

impl TestCluster {
    /// Freezes the leader, lets `cause` make a rank end, and returns as soon as an agent holds the
    /// report of that end, which no server can have acknowledged. The leader stays frozen: kill it
    /// or thaw it. Returns its position and the moment.
    pub async fn freeze_with_report_pending(&self, cause: impl FnOnce()) -> (usize, Moment) {
        let leader = self.leader().await;
        self.servers[leader].freeze();
        cause();
        let pending = async || Some(self.pending_reports()).filter(|pending| pending.iter().any(|(_, _, exit)| *exit));
        until_within(Duration::from_secs(5), "an exit that is reported and not acknowledged", pending).await;
        let moment = self.moment().await;
        (leader, moment)
    }

    /// What runs and what is unacknowledged now.
    pub async fn moment(&self) -> Moment {
        let mut log_index = 0;
        for address in &self.addresses {
            let asked = tokio::time::timeout(Duration::from_millis(300), self.admin.status_of(address)).await;
            log_index = log_index.max(asked.ok().flatten().map_or(0, |status| status.applied_index));
        }
        let unacknowledged = self.pending_reports().into_iter().map(|(node, report, _)| (node, report)).collect();
        Moment { log_index, ranks: self.ranks(), unacknowledged }
    }

    /// Node, report, and whether it tells of a rank's end.
    fn pending_reports(&self) -> Vec<(String, String, bool)> {
        let reports = |node: &super::AgentPlace| {
            let reports = reports_in(&node.state_dir).into_iter();
            reports.map(|(text, exit)| (node.name.clone(), text, exit)).collect::<Vec<_>>()
        };
        self.places.iter().flat_map(reports).collect()
    }
}

/// Reads a copy of an agent's store, because opening one that cannot be read moves it aside.
fn reports_in(state_dir: &Path) -> Vec<(String, bool)> {
    let copy = tempfile::tempdir().expect("a temp folder");
    if std::fs::copy(state_dir.join("store"), copy.path().join("store")).is_err() {
        return Vec::new();
    }
    let store = Store::open(copy.path(), || "a copy".to_owned()).expect("a folder of ours");
    let reports = store.reports().iter();
    reports
        .map(|(number, report)| {
            (format!("#{number} {:?} {:?}", report.key, report.body), matches!(report.body, ReportBody::Exited(_)))
        })
        .collect()
}
