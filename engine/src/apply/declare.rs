//! Configuration as a whole: organisation, policy and reservations put in force by one entry, or none of
//! them; and going back to how an earlier declaration left the first two.

use super::{Applying, Result};
use crate::command::{Declaration, MakeWindow, Principal};
use crate::outcome::Refusal;
use crate::state::State;
use crate::state::declarations::{Declared, SOURCE_BYTES_MAX};
use crate::state::window::WINDOWS_MAX;
use muster_common::{GangId, Name};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// From this feature level on, all servers know declarations, and what would break a guarantee is refused.
pub const DECLARE_LEVEL: u32 = 6;

/// Most gangs that a refusal names.
const NAMED_MAX: usize = 5;

impl Applying<'_> {
    /// All of it, or nothing.
    pub(super) fn declare(&mut self, declaration: &Declaration, by: &Principal) -> Result<()> {
        let before = (self.state.clone(), self.events.len());
        let declared = self.declare_each(declaration, by);
        if declared.is_err() {
            let (state, events) = before;
            *self.state = state;
            self.events.truncate(events);
        }
        declared
    }

    fn declare_each(&mut self, declaration: &Declaration, by: &Principal) -> Result<()> {
        self.needs_declare_level()?;
        let version = self.state.config_version;
        if declaration.made_from.is_some_and(|made_from| made_from != version) {
            let why = format!("the configuration is at version {version} by now; look at what differs again");
            return Err(Refusal::NotNow(why));
        }
        if declaration.source.len() > SOURCE_BYTES_MAX {
            return Err(Refusal::Invalid(format!("source: it has at most {SOURCE_BYTES_MAX} bytes")));
        }
        if let Some(policy) = &declaration.policy {
            let policy_error = |refusal| match refusal {
                Refusal::Invalid(why) => Refusal::Invalid(format!("policy.{why}")),
                other => other,
            };
            if **policy != *self.state.policy {
                self.put_in_force(policy, None, by).map_err(policy_error)?;
            }
        }
        if let Some(document) = &declaration.organisation
            && document != self.state.accounts.document()
        {
            self.organise(document, by)?;
        }
        if let Some(windows) = &declaration.windows {
            self.declare_windows(windows, by)?;
        }
        self.record_declaration(declaration.source.clone(), by);
        Ok(())
    }

    fn needs_declare_level(&self) -> Result<()> {
        let level = self.state.cluster.feature_level;
        if level < DECLARE_LEVEL {
            return Err(Refusal::FeatureLevel { level, needed: DECLARE_LEVEL });
        }
        Ok(())
    }

    fn record_declaration(&mut self, source: String, by: &Principal) {
        let (version, at) = (self.state.config_version + 1, self.now());
        let organisation = self.state.accounts.version();
        let policy = policy_version(self.state);
        let declared = Declared { version, at, by: by.clone(), source, organisation, policy };
        Arc::make_mut(&mut self.state.declarations).record(declared);
    }

    /// What was declared before and is no more ends; what is new or another is made. What is over is passed
    /// over, and what people have made by hand stays.
    fn declare_windows(&mut self, windows: &[MakeWindow], by: &Principal) -> Result<()> {
        if windows.len() > WINDOWS_MAX {
            return Err(Refusal::Full { what: "reservations".into(), limit: WINDOWS_MAX as u64 });
        }
        let now = self.now();
        let mut seen: BTreeSet<&Name> = BTreeSet::new();
        for (at, window) in windows.iter().enumerate() {
            if !seen.insert(&window.name) {
                let why = format!("reservation[{at}].name: there are two reservations `{}`; rename one", window.name);
                return Err(Refusal::Invalid(why));
            }
        }
        let asked = |name: &Name| windows.iter().find(|window| window.name == *name && window.end > now);
        let known: Vec<Arc<_>> = self.state.windows.iter().filter(|window| window.managed).cloned().collect();
        for window in known {
            let stays = asked(&window.name).is_some_and(|asked| self.is_as_asked(&window, asked));
            if !stays {
                self.end_window(&window.name, by)?;
            }
        }
        for (at, asked) in windows.iter().enumerate().filter(|(_, asked)| asked.end > now) {
            let asked = MakeWindow { by: by.clone(), managed: true, ..asked.clone() };
            self.make_window(&asked).map_err(|refusal| in_window(at, refusal))?;
        }
        Ok(())
    }

    /// Policy and organisation as an earlier declaration left them. Reservations are of their time and stay.
    pub(super) fn roll_back(&mut self, version: u32, by: &Principal) -> Result<()> {
        self.needs_declare_level()?;
        let past = self.state.declarations.past();
        let Some(to) = past.iter().find(|declared| declared.version == version).cloned() else {
            let known: Vec<String> = past.iter().map(|declared| declared.version.to_string()).collect();
            let known = if known.is_empty() { "none was made yet".into() } else { known.join(", ") };
            let why = format!("version: no declaration {version} is kept to go back to; there is: {known}");
            return Err(Refusal::Invalid(why));
        };
        let before = (self.state.clone(), self.events.len());
        let rolled = self.roll_back_to(&to, by);
        if rolled.is_err() {
            let (state, events) = before;
            *self.state = state;
            self.events.truncate(events);
        }
        rolled
    }

    fn roll_back_to(&mut self, to: &Declared, by: &Principal) -> Result<()> {
        let gone = |what: &str| Refusal::Invalid(format!("version: its {what} is too old to be kept any more"));
        if to.policy != policy_version(self.state) {
            let past = self.state.policies.past();
            let record = past.iter().find(|record| record.version == to.policy);
            let policy = match (to.policy, record) {
                // A cluster begins with this one.
                (0, _) => Arc::default(),
                (_, Some(record)) => record.policy.clone(),
                (_, None) => return Err(gone("policy")),
            };
            self.put_in_force(&policy, None, by)?;
        }
        if to.organisation != self.state.accounts.version() {
            let past = self.state.accounts.past();
            let known = past.iter().find(|past| past.version == to.organisation);
            let document = known.ok_or_else(|| gone("organisation"))?.document.clone();
            self.organise(&document, by)?;
        }
        self.record_declaration(format!("back to {}", to.version), by);
        Ok(())
    }

    /// What an account is guaranteed in force covers what runs on it and may not be stopped: that must not come
    /// to sit on what is owed to others.
    pub(super) fn check_guarantees(&self, after: &crate::organisation::Organisation) -> Result<()> {
        if self.state.cluster.feature_level < DECLARE_LEVEL {
            return Ok(());
        }
        let accounts = &self.state.accounts;
        let (owed, owed_after) = (owed(accounts.document()), owed(after));
        let lowered: Vec<_> = owed
            .iter()
            .map(|(key, before)| (key, *before, owed_after.get(key).copied().unwrap_or(0)))
            .filter(|(_, before, after)| after < before)
            .collect();
        if lowered.is_empty() {
            return Ok(());
        }
        let firm = firm(self.state);
        for ((account, model), before, after_) in lowered {
            let Some((milli, gangs)) = firm.get(&(account, model)) else { continue };
            let held = milli.div_ceil(1000);
            if held.min(before) <= after_ {
                continue;
            }
            let at = after.accounts.iter().position(|known| known.name == **account);
            let path = at.map_or("account".to_owned(), |at| format!("account[{at}].quota.{model}"));
            let names: Vec<String> = gangs.iter().take(NAMED_MAX).map(|gang| gang.job.to_string()).collect();
            let more = if gangs.len() > NAMED_MAX { ", ..." } else { "" };
            let why = format!(
                "{path}: `{account}` holds {held} {model} for jobs that may not be stopped, within the {before} that \
                 it is guaranteed; with {after_} they would sit on what is owed to others; wait for jobs {}{more} or \
                 cancel them, or leave `nominal` at {held}",
                names.join(", ")
            );
            return Err(Refusal::Invalid(why));
        }
        Ok(())
    }
}

fn in_window(at: usize, refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Invalid(why) => Refusal::Invalid(format!("reservation[{at}].{why}")),
        Refusal::Overlaps { .. } => {
            Refusal::Invalid(format!("reservation[{at}].nodes: {refusal}; take another time or other nodes"))
        }
        Refusal::NameTaken(_) => Refusal::Invalid(format!(
            "reservation[{at}].name: {refusal}, made by hand; rename this one, or end that one first"
        )),
        Refusal::UnknownJob(_) => Refusal::Invalid(format!("reservation[{at}].jobs: {refusal}; leave it out")),
        other => other,
    }
}

/// The configuration version at which the policy in force was set; 0 = it is the first.
fn policy_version(state: &State) -> u32 {
    state.policies.past().last().map_or(0, |record| record.version)
}

/// Guaranteed devices by account and model, those below an account included.
fn owed(document: &crate::organisation::Organisation) -> BTreeMap<(&Name, &Name), u64> {
    let mut owed: BTreeMap<(&Name, &Name), u64> = BTreeMap::new();
    let parents: BTreeMap<&Name, Option<&Name>> =
        document.accounts.iter().map(|account| (&account.name, account.parent.as_ref())).collect();
    for account in &document.accounts {
        let above = std::iter::successors(Some(&account.name), |name| parents.get(name).copied().flatten());
        let above: Vec<&Name> = above.collect();
        for (model, quota) in &account.quota {
            for name in &above {
                *owed.entry((name, model)).or_default() += u64::from(quota.nominal);
            }
        }
    }
    owed
}

/// What gangs that may not be stopped hold, by account and model, in thousandths, and which they are.
fn firm(state: &State) -> BTreeMap<(&Name, &Name), (u64, BTreeSet<GangId>)> {
    let mut firm: BTreeMap<(&Name, &Name), (u64, BTreeSet<GangId>)> = BTreeMap::new();
    for gang in state.gangs.values() {
        let (Some(attempt), Some(job)) = (gang.current(), state.jobs.get(&gang.id.job)) else { continue };
        let scheduling = state.scheduling(job);
        if scheduling.preemptible {
            continue;
        }
        for part in attempt.parts.iter().filter(|part| !part.state.is_settled()) {
            let Some(node) = state.nodes.get(&part.node) else { continue };
            for (slot, milli) in &part.devices {
                let Some(device) = node.inventory.devices.get(usize::from(*slot)) else { continue };
                for account in state.accounts.upward(&scheduling.account) {
                    let (sum, gangs) = firm.entry((&account.name, &device.model)).or_default();
                    *sum += u64::from(*milli);
                    gangs.insert(gang.id);
                }
            }
        }
    }
    firm
}
