//! The wall clocks of the other servers, for rule 14: one wrong clock must not set the time.

use std::time::Duration;

use futures::future::join_all;
use muster_proto::peer as pb;
use openraft::async_runtime::WatchReceiver;
use tokio::time::timeout;

use super::handle::{ConsensusHandle, Core};
use super::machine::Machine;
use super::network::Lane;

const ANSWER_MS: u64 = 1_000;

impl<M: Machine> ConsensusHandle<M> {
    /// `own_ms` and what the other voters' clocks say, in Unix milliseconds; nothing when fewer than a majority answer.
    pub async fn wall_clocks(&self, own_ms: u64) -> Vec<u64> {
        let voters: Vec<(u64, String)> = {
            let metrics = self.core.raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            let addr = |id| membership.get_node(&id).map(|member| (id, self.core.net.addr(id, member).to_owned()));
            membership.voter_ids().filter_map(addr).collect()
        };
        let own_id = self.core.net.server_id;
        let others = voters.iter().filter(|(id, _)| *id != own_id);
        let answers = join_all(others.map(|(id, addr)| self.core.wall_clock(*id, addr))).await;
        let mut clocks = vec![own_ms];
        clocks.extend(answers.into_iter().flatten());
        if clocks.len() * 2 > voters.len() { clocks } else { Vec::new() }
    }
}

impl Core {
    async fn wall_clock(&self, id: u64, addr: &str) -> Option<u64> {
        let mut client = self.net.client(id, addr, Lane::Heartbeat);
        let request = pb::IdentifyRequest { cluster_id: self.net.cluster_id.clone(), source_id: self.net.server_id };
        let reply = timeout(Duration::from_millis(ANSWER_MS), client.identify(request)).await.ok()?.ok()?;
        Some(reply.into_inner().wall_ms).filter(|ms| *ms > 0)
    }
}
