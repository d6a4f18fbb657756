//! The policies that were in force, with what spoke for them, and the one that is only tried.

use crate::command::Principal;
use crate::policy::Policy;
use muster_common::Time;
use muster_common::job::Hash;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Changes of policy that are kept, the one in force included.
pub const PAST_MAX: usize = 32;
/// Most figures of one promotion, and most bytes of each text.
pub const FIGURES_MAX: usize = 24;
pub const TEXT_BYTES_MAX: usize = 200;

/// What a simulation found for a policy before it was put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The run, as whoever promoted it calls it.
    pub run: String,
    /// SHA-256 of the run's manifest.
    pub manifest: Hash,
    pub engine_version: u32,
    /// Headline figures, by name.
    pub figures: Vec<(String, String)>,
}

impl Evidence {
    /// What is wrong with it.
    pub(crate) fn wrong(&self) -> Option<String> {
        let texts = self.figures.iter().flat_map(|(name, value)| [name, value]).chain([&self.run]);
        if self.figures.len() > FIGURES_MAX {
            return Some(format!("evidence has {} figures; at most {FIGURES_MAX} are kept", self.figures.len()));
        }
        let long = texts.into_iter().find(|text| text.len() > TEXT_BYTES_MAX)?;
        Some(format!("evidence has a text of {} bytes; at most {TEXT_BYTES_MAX} are kept", long.len()))
    }
}

/// A policy, put in force on the word of a simulation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promotion {
    pub policy: Policy,
    pub evidence: Evidence,
}

/// One change of policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// Of all of the configuration, as plans name it.
    pub version: u32,
    pub at: Time,
    pub by: Principal,
    pub policy: Arc<Policy>,
    pub evidence: Option<Evidence>,
}

/// A policy that the leader runs beside the one in force, without any effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowPolicy {
    pub version: u32,
    pub at: Time,
    pub by: Principal,
    pub policy: Arc<Policy>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Policies {
    /// The newest last.
    past: Vec<PolicyRecord>,
    shadow: Option<ShadowPolicy>,
}

impl Policies {
    /// Changes of policy, the newest last.
    pub fn past(&self) -> &[PolicyRecord] {
        &self.past
    }

    pub fn shadow(&self) -> Option<&ShadowPolicy> {
        self.shadow.as_ref()
    }

    pub(crate) fn record(&mut self, record: PolicyRecord) {
        if self.past.len() == PAST_MAX {
            self.past.remove(0);
        }
        self.past.push(record);
    }

    pub(crate) fn set_shadow(&mut self, shadow: Option<ShadowPolicy>) {
        self.shadow = shadow;
    }

    /// The first broken invariant.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.past.len() > PAST_MAX || !self.past.is_sorted_by(|a, b| a.version < b.version) {
            return Err("the policies before are not in order".into());
        }
        Ok(())
    }
}
