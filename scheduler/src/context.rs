//! What every service of a server shares.

use crate::config::ElasticConfig;
use crate::consensus::ConsensusHandle;
use crate::decisions::DecisionLog;
use crate::heartbeats::Heartbeats;
use crate::history::HistoryStore;
use crate::machine::EngineMachine;
use crate::proposer::Proposer;
use crate::sessions::SessionsHandle;
use crate::shadow::ShadowHandle;
use crate::watch::WatchHandle;
use muster_engine::State;
use muster_runtime::clock::Clock;
use muster_runtime::identity::{Credentials, Network};
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct Context {
    pub consensus: ConsensusHandle<EngineMachine>,
    pub proposer: Proposer,
    pub history: Arc<HistoryStore>,
    /// None when the settings or the disk have none.
    pub decisions: Option<DecisionLog>,
    pub watch: WatchHandle,
    /// Of the policy that is only tried; the leader's says something.
    pub shadow: ShadowHandle,
    pub sessions: SessionsHandle,
    /// By which way agents renew, and how their devices are doing: of agents connected to this server.
    pub heartbeats: Heartbeats,
    pub clock: Arc<dyn Clock>,
    /// How the other servers are reached.
    pub network: Arc<dyn Network>,
    pub credentials: Credentials,
    pub server: ServerName,
    /// Every server of the cluster as configured, by id.
    pub members: BTreeMap<u64, MemberInfo>,
    /// How machines are switched while this server leads; None = not at all.
    pub elastic: Option<ElasticConfig>,
    pub version: &'static str,
}

/// This server.
#[derive(Debug, Clone)]
pub struct ServerName {
    pub id: u64,
    pub name: String,
    pub address: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberInfo {
    pub name: String,
    pub address: String,
}

impl Context {
    /// The state as applied here; may be behind the leader's.
    pub fn view(&self) -> Arc<State> {
        self.consensus.view()
    }

    pub fn leads(&self) -> bool {
        self.consensus.leadership().borrow().is_leader
    }

    /// The leader's id and address, when known.
    pub fn leader(&self) -> Option<(u64, String)> {
        let leadership = self.consensus.leadership().borrow().clone();
        Some((leadership.leader?, leadership.leader_addr?))
    }
}
