//! Policy, fabric, cluster-wide times, organisation, generation and feature level.

use super::{Applying, MONEY_LEVEL, MOVE_LEVEL, POWER_LEVEL, Result, cells};
use crate::command::{ConfigChange, Principal, Settings};
use crate::outcome::{Event, Refusal, Response};
use crate::policy::{ModelChoice, Policy};
use crate::state::State;
use crate::state::change::Key;
use crate::state::decay::HALF_LIFE_MS_MAX;
use crate::state::node::Liveness;
use crate::state::policies::{Evidence, PolicyRecord, Promotion, ShadowPolicy};
use crate::state::timer::Timer;
use muster_common::time::HOUR_MS;
use muster_common::topology::FabricSpec;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The newest feature level this version can compute.
/// 2: jobs can be edited. 3: accounts and queues, usage that decays, run times that are learned.
/// 4: policies before are kept, and one may be run in the shadow. 5: advance reservations.
/// 6: configuration declared as a whole, and accounts that own cells. 7: nodes that sleep.
/// 8: gangs that are moved for others, prices and budgets, and nodes that are to fall asleep by a time.
pub const FEATURE_LEVEL: u32 = 8;

impl Applying<'_> {
    pub(super) fn configure(&mut self, change: &ConfigChange, by: &Principal) -> Result {
        let what = match change {
            ConfigChange::Policy(policy) => {
                self.put_in_force(policy, None, by)?;
                "policy"
            }
            ConfigChange::Fabric(fabric) => {
                check_fabric(fabric)?;
                self.check_cells(|state| state.fabric = Arc::new(fabric.clone()))?;
                self.state.fabric = Arc::new(fabric.clone());
                "fabric"
            }
            ConfigChange::Settings(settings) => {
                check_settings(settings)?;
                self.check_running_leases(settings)?;
                self.check_cells(|state| state.settings = *settings)?;
                let (now, holdings) = (self.now(), self.state.holdings());
                self.state.usage.set_half_life(settings.usage_half_life_ms, now, &holdings);
                self.state.settings = *settings;
                "settings"
            }
            ConfigChange::Cluster { id } => {
                if !self.found(id) {
                    return Ok(Response::Noop);
                }
                "cluster"
            }
            ConfigChange::Restore => {
                self.raise_generation(0)?;
                self.forget_what_a_backup_cannot_know();
                "restore"
            }
            ConfigChange::RaiseGeneration { above } => {
                if self.state.cluster.generation > *above {
                    return Ok(Response::Noop);
                }
                self.raise_generation(*above)?;
                "generation"
            }
            ConfigChange::FeatureLevel(level) => {
                self.raise_feature_level(*level)?;
                "feature level"
            }
            ConfigChange::Organisation(document) => {
                self.organise(document, by)?;
                "organisation"
            }
            ConfigChange::RollBackOrganisation { version } => {
                self.roll_back_organisation(*version, by)?;
                "organisation"
            }
            ConfigChange::Shadow(policy) => {
                self.shadow(policy.as_deref(), by)?;
                "shadow policy"
            }
            ConfigChange::Promote(promotion) => {
                self.promote(promotion, by)?;
                "policy"
            }
            ConfigChange::Declare(declaration) => {
                self.declare(declaration, by)?;
                "declaration"
            }
            ConfigChange::RollBack { version, made_from } => {
                self.roll_back(*version, *made_from, by)?;
                "declaration"
            }
        };
        Ok(self.configured(what, by))
    }

    /// False where there is a cluster already.
    fn found(&mut self, id: &str) -> bool {
        let cluster = &mut self.state.cluster;
        if !cluster.id.is_empty() {
            return false;
        }
        (cluster.id, cluster.generation, cluster.feature_level) = (id.into(), 1, FEATURE_LEVEL);
        true
    }

    fn configured(&mut self, what: &str, by: &Principal) -> Response {
        self.state.config_version += 1;
        self.state.touch(Key::Config);
        let version = self.state.config_version;
        self.event(Event::Configured { what: what.into(), by: by.clone(), version });
        Response::Done
    }
}

/// From this feature level on, all servers keep the policies before, and run one in the shadow.
pub const POLICIES_LEVEL: u32 = 4;

impl Applying<'_> {
    pub(super) fn put_in_force(&mut self, policy: &Policy, evidence: Option<&Evidence>, by: &Principal) -> Result<()> {
        policy.validate().map_err(|error| Refusal::Invalid(error.to_string()))?;
        if !policy.elastic.is_empty() {
            self.needs_level(POWER_LEVEL)?;
        }
        if policy.taking.consolidate.is_some() {
            self.needs_level(MOVE_LEVEL)?;
        }
        if policy.models != ModelChoice::AsPreferred {
            self.needs_level(MONEY_LEVEL)?;
        }
        let policy = Arc::new(policy.clone());
        self.check_cells(|state| state.policy = policy.clone())?;
        self.state.policy = policy.clone();
        if self.state.cluster.feature_level >= POLICIES_LEVEL {
            let (version, at) = (self.state.config_version + 1, self.now());
            let evidence = evidence.cloned();
            Arc::make_mut(&mut self.state.policies).record(PolicyRecord {
                version,
                at,
                by: by.clone(),
                policy,
                evidence,
            });
        }
        Ok(())
    }

    /// Would everybody still have the cells they own?
    fn check_cells(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        let document = self.state.accounts.document();
        if !document.has_cells() && document.reclaim_within_ms().is_none() {
            return Ok(());
        }
        let mut after = self.state.clone();
        change(&mut after);
        cells::check_still_kept(self.state, &after)
    }

    fn promote(&mut self, promotion: &Promotion, by: &Principal) -> Result<()> {
        self.needs_level(POLICIES_LEVEL)?;
        if let Some(why) = promotion.evidence.wrong() {
            return Err(Refusal::Invalid(why));
        }
        self.put_in_force(&promotion.policy, Some(&promotion.evidence), by)
    }

    fn shadow(&mut self, policy: Option<&Policy>, by: &Principal) -> Result<()> {
        self.needs_level(POLICIES_LEVEL)?;
        policy.map_or(Ok(()), Policy::validate).map_err(|error| Refusal::Invalid(error.to_string()))?;
        let (version, at) = (self.state.config_version + 1, self.now());
        let set = |policy: &Policy| ShadowPolicy { version, at, by: by.clone(), policy: Arc::new(policy.clone()) };
        Arc::make_mut(&mut self.state.policies).set_shadow(policy.map(set));
        Ok(())
    }

    /// Gangs that run hold leases of the times in force.
    fn check_running_leases(&self, settings: &Settings) -> Result<()> {
        let now = &self.state.settings;
        // The floor is the wait of jobs that ask for a shorter one.
        let same_timers = settings.start_within_ms == now.start_within_ms
            && settings.fence_after_ms >= now.fence_after_ms
            && settings.fence_floor_ms() >= now.fence_floor_ms();
        if same_timers || !self.state.gangs.values().any(|gang| gang.current().is_some()) {
            return Ok(());
        }
        let why = "start_within_ms may not change, nor fence_after_ms or kill_bound_ms + drift_ms + 2 * \
                   suspect_after_ms shrink, while gangs run: their leases were given under the old times";
        Err(Refusal::Invalid(why.into()))
    }

    fn raise_feature_level(&mut self, level: u32) -> Result<()> {
        let now = self.state.cluster.feature_level;
        if level < now || level > FEATURE_LEVEL {
            let why = format!("feature level {level} is not between the present {now} and {FEATURE_LEVEL}");
            return Err(Refusal::Invalid(why));
        }
        self.state.cluster.feature_level = level;
        Ok(())
    }

    fn raise_generation(&mut self, above: u32) -> Result<()> {
        let next = self.state.cluster.generation.max(above).checked_add(1);
        self.state.cluster.generation = next.ok_or_else(|| Refusal::Invalid("there is no higher generation".into()))?;
        Ok(())
    }

    /// What nodes run and which join tokens were used may have changed since.
    fn forget_what_a_backup_cannot_know(&mut self) {
        let since = self.now();
        for node in self.state.nodes.keys().copied().collect::<Vec<_>>() {
            let record = self.node_mut(node);
            record.from_backup = true;
            if record.liveness == Liveness::Up && record.power.is_awake() {
                record.liveness = Liveness::Silent { since };
            }
        }
        for (hash, token) in std::mem::take(&mut self.state.tokens) {
            self.drop_timer(token.expires_at, Timer::JoinToken { hash });
        }
    }
}

fn check_fabric(fabric: &FabricSpec) -> Result<()> {
    let mut trees = BTreeSet::new();
    let mut levels = BTreeSet::new();
    for tree in &fabric.trees {
        if !trees.insert(&tree.name) {
            return Err(Refusal::Invalid(format!("there are two fabric trees called `{}`", tree.name)));
        }
        for level in &tree.levels {
            if level.as_str() == "node" || !levels.insert(level) {
                return Err(Refusal::Invalid(format!("the level name `{level}` is used twice; `node` is implied")));
            }
        }
    }
    Ok(())
}

fn check_settings(settings: &Settings) -> Result<()> {
    if settings.suspect_after_ms == 0 || settings.start_within_ms == 0 || settings.key_horizon_ms == 0 {
        return Err(Refusal::Invalid("suspect_after_ms, start_within_ms and key_horizon_ms must be above 0".into()));
    }
    let half_life_ms = settings.usage_half_life_ms;
    if half_life_ms != 0 && !(HOUR_MS..=HALF_LIFE_MS_MAX).contains(&half_life_ms) {
        let why = format!(
            "usage_half_life_ms is {half_life_ms}; it is 0 for use that never fades, or between {HOUR_MS} and {HALF_LIFE_MS_MAX}"
        );
        return Err(Refusal::Invalid(why));
    }
    let floor_ms = settings.fence_floor_ms();
    if settings.fence_after_ms < floor_ms {
        return Err(Refusal::Invalid(format!(
            "fence_after_ms is {}; with these suspect_after_ms, kill_bound_ms and drift_ms it must be at least {floor_ms}",
            settings.fence_after_ms
        )));
    }
    Ok(())
}
