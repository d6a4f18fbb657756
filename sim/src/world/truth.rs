//! How the world really is, as against what users and the engine believe: a file of its own, so
//! that a policy is never judged by the very figures it decided on.

use crate::SimError;
use crate::draw::Draw;
use crate::progress::NORMAL;
use muster_common::topology::FabricSpec;
use muster_common::{GangId, Name};
use muster_engine::State;
use muster_engine::state::gang::Allocation;
use muster_engine::state::node::DeviceState;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Everything is as recorded unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Truth {
    /// What spreading costs, by the level of which a gang has more than one domain.
    pub spread: Vec<Spread>,
    /// Run time on a device model in percent of the recorded one.
    pub models: BTreeMap<Name, u32>,
    /// Each job's run time is the recorded one times a draw with median 1; this is the standard
    /// deviation of its logarithm, in percent.
    pub run_time_sigma_percent: u32,
    /// Run time of a gang on a share of a device that another gang has a share of when its attempt
    /// starts, in percent of that alone.
    pub shared_percent: u32,
}

impl Default for Truth {
    fn default() -> Self {
        Self { spread: Vec::new(), models: BTreeMap::new(), run_time_sigma_percent: 0, shared_percent: 100 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// A level of the fabric, or `node`.
    pub level: Name,
    /// Run time in percent of that in one domain of the level. Of several levels the largest counts.
    pub percent: u32,
}

const PERCENT: u64 = NORMAL / 100;

impl Truth {
    pub fn read(path: &Path) -> Result<(Self, String), SimError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| SimError::Read { path: path.to_path_buf(), source })?;
        let truth: Truth = toml::from_str(&text)
            .map_err(|error| SimError::World { path: path.to_path_buf(), why: error.to_string() })?;
        Ok((truth, text))
    }

    pub(crate) fn check(&self, fabric: &FabricSpec) -> Result<(), String> {
        for spread in &self.spread {
            if spread.level.as_str() != "node" && fabric.find_level(spread.level.as_str()).is_none() {
                return Err(format!(
                    "spread: the fabric has no level `{}`; it has {}",
                    spread.level,
                    fabric.level_names().join(", ")
                ));
            }
            check_percent("spread", spread.percent)?;
        }
        self.models.iter().try_for_each(|(model, &percent)| check_percent(model.as_str(), percent))?;
        check_percent("shared_percent", self.shared_percent)?;
        if self.run_time_sigma_percent > 500 {
            return Err("run_time_sigma_percent must be at most 500".into());
        }
        Ok(())
    }

    /// Of a gang on these parts, in parts of [`NORMAL`]; the slowest model sets the pace.
    pub(crate) fn slowdown(&self, state: &State, gang: GangId, parts: &[Allocation]) -> u64 {
        let as_recorded = self.shared_percent == 100;
        if self.spread.is_empty() && self.models.is_empty() && as_recorded {
            return NORMAL;
        }
        let shared = if as_recorded || !shares(state, gang, parts) { 100 } else { u64::from(self.shared_percent) };
        let spread = self.spread.iter().filter(|spread| domains(state, parts, spread.level.as_str()) > 1);
        let percent = spread.map(|spread| u64::from(spread.percent)).max().unwrap_or(100);
        let of_model = |model: &Name| u64::from(self.models.get(model).copied().unwrap_or(100));
        let slowest = models(state, parts).into_iter().map(of_model).max().unwrap_or(100);
        percent * slowest * shared * PERCENT / 10_000
    }

    /// A job's real run time.
    pub(crate) fn run_ms(&self, recorded_ms: u64, seed: u64, job: u64) -> u64 {
        if self.run_time_sigma_percent == 0 {
            return recorded_ms;
        }
        let sigma = f64::from(self.run_time_sigma_percent) / 100.0;
        ((recorded_ms as f64 * Draw::of(seed, "run time", job).lognormal(sigma)) as u64).max(1)
    }
}

fn check_percent(what: &str, percent: u32) -> Result<(), String> {
    if !(1..=10_000).contains(&percent) {
        return Err(format!("{what}: {percent} percent; it must be from 1 to 10000"));
    }
    Ok(())
}

/// Distinct domains of a level over the parts.
fn domains(state: &State, parts: &[Allocation], level: &str) -> usize {
    if level == "node" || parts.len() < 2 {
        return parts.len();
    }
    let Some((tree, depth)) = state.fabric().find_level(level) else { return 1 };
    let tree = &state.fabric().trees[tree].name;
    let domain = |part: &Allocation| {
        let place = state.node(part.node)?.inventory.place.get(tree)?;
        Some(place[..depth.min(place.len())].to_vec())
    };
    parts.iter().map(domain).collect::<BTreeSet<_>>().len()
}

/// Has another gang a share of one of these devices?
fn shares(state: &State, gang: GangId, parts: &[Allocation]) -> bool {
    parts.iter().any(|part| {
        let Some(node) = state.node(part.node) else { return false };
        let devices = part.devices.iter().filter_map(|(slot, _)| node.devices.get(usize::from(*slot)));
        devices.flat_map(DeviceState::holders).any(|holder| holder.gang != gang)
    })
}

/// Device models in use.
pub(crate) fn models<'a>(state: &'a State, parts: &'a [Allocation]) -> BTreeSet<&'a Name> {
    let devices = parts.iter().flat_map(|part| part.devices.iter().map(|(slot, _)| (part.node, *slot)));
    let model = |(node, slot)| Some(&state.node(node)?.inventory.devices.get(usize::from(slot))?.model);
    devices.filter_map(model).collect()
}
