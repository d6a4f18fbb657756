//! Work, world and rules of a live cluster, out of its own history and State: what a run needs to play the
//! same weeks again.
//!
//! Times stay those of the cluster, in Unix milliseconds. What a history does not tell, or a world cannot
//! hold, is counted and said.

mod jobs;
mod nodes;
#[cfg(test)]
mod tests;

use crate::SimError;
use crate::output;
use crate::trace::{Card, Trace};
use crate::world::World;
use jobs::Jobs;
use muster_common::Time;
use muster_engine::State;
use muster_engine::organisation::Organisation;
use muster_engine::outcome::Event;
use muster_engine::policy::Policy;
use nodes::Nodes;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The names of what is written.
pub const TRACE_FILE: &str = "trace.jsonl";
pub const WORLD_FILE: &str = "world.toml";
pub const POLICY_FILE: &str = "policy.toml";
pub const ORGANISATION_FILE: &str = "organisation.toml";
pub const CARD_FILE: &str = "card.json";

/// Reads a history in order, event by event.
#[derive(Debug)]
pub struct Gatherer {
    from: Time,
    jobs: Jobs,
    nodes: Nodes,
    events: u64,
}

/// A stretch of a cluster's life.
#[derive(Debug)]
pub struct Imported {
    pub trace: Trace,
    pub world: World,
    pub policy: Policy,
    pub organisation: Option<Organisation>,
    pub card: ClusterCard,
}

/// What was read of a cluster, and what of it a run will not show.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterCard {
    pub schema: &'static str,
    pub cluster_id: String,
    /// The last entry of the log whose effects are inside.
    pub index: u64,
    /// Unix milliseconds.
    pub from_ms: u64,
    pub to_ms: u64,
    pub events: u64,
    pub nodes: u32,
    /// Nodes taken out of service, or lost, and for how long.
    pub outages: usize,
    pub cancellations: usize,
    /// Under which the work ran at last.
    pub policy_version: u32,
    pub trace: Card,
    /// Each names something that happened and will not happen in a run.
    pub not_modelled: Vec<String>,
}

impl Gatherer {
    /// Of work and outages from a moment on.
    pub fn new(from: Time) -> Self {
        Self { from, jobs: Jobs::new(from), nodes: Nodes::new(from), events: 0 }
    }

    /// One event, with the State time of its entry.
    pub fn event(&mut self, at: Time, event: &Event) {
        self.events += 1;
        self.jobs.event(at, event);
        self.nodes.event(at, event);
    }

    /// With the State that the history led to.
    ///
    /// # Errors
    /// A cluster without work or without nodes in that time.
    pub fn finish(self, state: &State) -> Result<Imported, SimError> {
        let Self { from, mut jobs, nodes, events } = self;
        jobs.still_there(state);
        let refused = SimError::Arguments;
        let gathered = jobs.finish().map_err(refused)?;
        // With all that is kept asked for, it begins with the first job.
        let from = from.max(Time(gathered.trace.jobs.first().map_or(0, |job| job.submit_ms)));
        let mut played = nodes.world(state, from).map_err(refused)?;
        if gathered.trace.jobs.is_empty() {
            if from >= state.now() {
                return Err(refused(
                    "nothing runs and nothing waits there now; import some of its past instead".into(),
                ));
            }
            let hours = state.now().since_ms(from) / muster_common::time::HOUR_MS;
            return Err(refused(format!("no work is known of the last {hours} h; ask for a longer time")));
        }
        let world = &mut played.world;
        world.delays.start_ms = gathered.start_ms;
        world.delays.stop_ms = gathered.stop_ms;
        world.jobs.recorded_ends = true;
        world.cancellations = gathered.cancellations;
        world.user_failures = gathered.failures;
        let mut trace = gathered.trace;
        trace.card.recorded_devices = u32::try_from(world.devices()).ok();
        let document = &**state.accounts().document();
        let known = !document.accounts.is_empty() || !document.queues.is_empty();
        let mut not_modelled = played.not_modelled;
        not_modelled.extend(gathered.not_modelled);
        not_modelled.extend(always_missing(known));
        let card = ClusterCard {
            schema: "muster.sim_cluster/1",
            cluster_id: state.cluster().id.clone(),
            index: state.applied_index(),
            from_ms: from.0,
            to_ms: state.now().0,
            events,
            nodes: world.nodes.iter().map(|group| group.count).sum(),
            outages: world.drains.len() + world.outages.len(),
            cancellations: world.cancellations.len(),
            policy_version: state.config_version(),
            trace: trace.card.clone(),
            not_modelled,
        };
        let organisation = known.then(|| document.clone());
        Ok(Imported { trace, world: played.world, policy: (**state.policy()).clone(), organisation, card })
    }
}

/// What no history of ours holds.
fn always_missing(organised: bool) -> Vec<String> {
    let mut known = vec![
        "the policy and the organisation are those in force at the end; earlier ones are not played".to_owned(),
        "run times are those of the recorded placements; another placement may be faster or slower".to_owned(),
    ];
    if organised {
        known.push("use before the beginning counts for nobody: fair shares start even".to_owned());
    }
    known
}

impl Imported {
    /// Writes trace, world, policy, organisation and card into a folder that is empty or not there yet.
    ///
    /// # Errors
    /// A folder in use, or a disk that fails.
    pub fn write(&self, folder: &Path) -> Result<(), SimError> {
        output::check_output(folder)?;
        output::create(folder)?;
        let text = |path: &str, text: Result<String, toml::ser::Error>| {
            let path = folder.join(path);
            let text = text.map_err(|error| SimError::World { path: path.clone(), why: error.to_string() })?;
            output::write_file(path, text.as_bytes())
        };
        crate::import::write(&folder.join(TRACE_FILE), &self.trace)?;
        text(WORLD_FILE, toml::to_string(&self.world))?;
        text(POLICY_FILE, toml::to_string(&self.policy))?;
        if let Some(organisation) = &self.organisation {
            text(ORGANISATION_FILE, toml::to_string(organisation))?;
        }
        output::write_file(folder.join(CARD_FILE), &output::json(&self.card))
    }
}

/// The organisation of a folder that [`Imported::write`] made, if the cluster had one.
pub fn organisation_in(folder: &Path) -> Option<PathBuf> {
    Some(folder.join(ORGANISATION_FILE)).filter(|path| path.exists())
}
