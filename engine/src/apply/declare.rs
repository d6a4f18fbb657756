//! Configuration as a whole: organisation, policy and reservations put in force by one entry, or none of
//! them; and going back to how an earlier declaration left the first two.

use super::{Applying, Result};
use crate::command::{Declaration, MakeWindow, Principal, Which};
use crate::outcome::Refusal;
use crate::state::State;
use crate::state::declarations::{Declared, SOURCE_BYTES_MAX};
use crate::state::window::WINDOWS_MAX;
use muster_common::Name;
use std::collections::BTreeSet;
use std::sync::Arc;

/// From this feature level on, all servers know declarations, and what would break a guarantee is refused.
pub const DECLARE_LEVEL: u32 = 6;

impl Applying<'_> {
    pub(super) fn declare(&mut self, declaration: &Declaration, by: &Principal) -> Result<()> {
        self.or_nothing(|applying| applying.declare_each(declaration, by))
    }

    /// Whatever is refused has changed nothing.
    fn or_nothing(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let (state, events) = (self.state.clone(), self.events.len());
        let done = work(self);
        if done.is_err() {
            *self.state = state;
            self.events.truncate(events);
        }
        done
    }

    fn declare_each(&mut self, declaration: &Declaration, by: &Principal) -> Result<()> {
        self.needs_level(DECLARE_LEVEL)?;
        self.is_made_from(declaration.made_from)?;
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
        if let Some(windows) = &declaration.windows {
            self.end_declared(windows, declaration.whole, by)?;
        }
        if let Some(document) = &declaration.organisation
            && document != self.state.accounts.document()
        {
            self.organise(document, by)?;
        }
        if let Some(windows) = &declaration.windows {
            self.make_declared(windows, by)?;
        }
        self.record_declaration(declaration.source.clone(), by);
        Ok(())
    }

    fn is_made_from(&self, made_from: Option<u32>) -> Result<()> {
        let version = self.state.config_version;
        if made_from.is_some_and(|made_from| made_from != version) {
            return Err(Refusal::OldConfiguration { version });
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

    /// What was declared before and is to be another ends, and so does, if the declaration is a `whole` one, what is no
    /// longer in it. What people have made by hand stays.
    fn end_declared(&mut self, windows: &[MakeWindow], whole: bool, by: &Principal) -> Result<()> {
        if windows.len() > WINDOWS_MAX {
            return Err(Refusal::Full { what: "reservations".into(), limit: WINDOWS_MAX as u64 });
        }
        let mut seen: BTreeSet<&Name> = BTreeSet::new();
        for (at, window) in windows.iter().enumerate() {
            if !seen.insert(&window.name) {
                let why = format!("reservation[{at}].name: there are two reservations `{}`; rename one", window.name);
                return Err(Refusal::Invalid(why));
            }
        }
        let now = self.now();
        let known: Vec<Arc<_>> = self.state.windows.iter().filter(|window| window.managed).cloned().collect();
        for window in known {
            let asked = windows.iter().find(|asked| asked.name == window.name);
            let stays = match asked.filter(|asked| asked.end > now) {
                Some(asked) => self.is_as_asked(&window, asked),
                None => !whole && asked.is_none(),
            };
            if !stays {
                self.end_window(&window.name, by)?;
            }
        }
        Ok(())
    }

    /// What is over is passed over. Nodes that somebody names go before nodes that are chosen.
    fn make_declared(&mut self, windows: &[MakeWindow], by: &Principal) -> Result<()> {
        let now = self.now();
        let mut ahead: Vec<(usize, &MakeWindow)> =
            windows.iter().enumerate().filter(|(_, asked)| asked.end > now).collect();
        ahead.sort_by_key(|(_, asked)| matches!(asked.nodes, Which::Some { .. }));
        for (at, asked) in ahead {
            let asked = MakeWindow { by: by.clone(), managed: true, ..asked.clone() };
            self.make_window(&asked).map_err(|refusal| in_window(at, refusal))?;
        }
        Ok(())
    }

    /// Policy and organisation as an earlier declaration left them. Reservations are of their time and stay.
    pub(super) fn roll_back(&mut self, version: u32, made_from: Option<u32>, by: &Principal) -> Result<()> {
        self.needs_level(DECLARE_LEVEL)?;
        self.is_made_from(made_from)?;
        let past = self.state.declarations.past();
        let Some(to) = past.iter().find(|declared| declared.version == version).cloned() else {
            let known: Vec<String> = past.iter().map(|declared| declared.version.to_string()).collect();
            let known = if known.is_empty() { "none was made yet".into() } else { known.join(", ") };
            let why = format!("version: no declaration {version} is kept to go back to; there is: {known}");
            return Err(Refusal::Invalid(why));
        };
        self.or_nothing(|applying| applying.roll_back_to(&to, by))
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
