//! Accounts and queues: putting a document in force, going back to an earlier one, and what it says
//! about a job that is submitted or edited.

use super::declare::DECLARE_LEVEL;
use super::guarantees::taken_for_good;
use super::{Applying, Result, cells};
use crate::command::Principal;
use crate::organisation::{Organisation, Queue};
use crate::outcome::Refusal;
use crate::plan::limits;
use crate::state::account::Accounts;
use crate::state::window::Holders;
use muster_common::Name;
use muster_common::job::{DEFAULT_NAME, Scheduling};
use muster_common::text::nearest;
use std::collections::BTreeMap;
use std::sync::Arc;

/// From this feature level on, all servers know accounts and queues.
pub const ORGANISATION_LEVEL: u32 = 3;

/// From this feature level on, all servers know prices and budgets.
pub const MONEY_LEVEL: u32 = 8;

/// Most names that a refusal lists.
const LISTED_MAX: usize = 8;

impl Applying<'_> {
    pub(super) fn organise(&mut self, document: &Arc<Organisation>, by: &Principal) -> Result<()> {
        self.needs_level(ORGANISATION_LEVEL)?;
        let money = !document.prices.is_empty()
            || !document.preemptible_only.is_empty()
            || document.accounts.iter().any(|account| account.budget.is_some());
        if money {
            self.needs_level(MONEY_LEVEL)?;
        }
        document.validate(&self.capacity()).map_err(|error| Refusal::Invalid(error.to_string()))?;
        self.check_window_holders(document)?;
        cells::check_document(self.state, document)?;
        let taken = taken_for_good(self.state);
        let kept = self.state.accounts.clone();
        let now = self.now();
        self.state.accounts.replace(document.clone(), by, now);
        if self.state.cluster.feature_level >= DECLARE_LEVEL
            && let Err(refusal) = self.check_guarantees(&taken, kept.document())
        {
            self.state.accounts = kept;
            return Err(refusal);
        }
        let holdings = self.state.holdings();
        self.state.usage.resum(&self.state.accounts, &holdings, now);
        Ok(())
    }

    /// What is put aside for an account is a promise to it.
    fn check_window_holders(&self, document: &Organisation) -> Result<()> {
        let counts = |account: &Name| !document.accounts.is_empty() || self.state.accounts.get(account).is_some();
        let gone = |account: &Name| counts(account) && !document.accounts.iter().any(|known| known.name == *account);
        for window in self.state.windows.iter() {
            if let Holders::Account(account) = &window.holders
                && gone(account)
            {
                let name = &window.name;
                let why = format!(
                    "account `{account}` is not in it, and reservation `{name}` is kept for that account; end it \
                     first (`muster reservation delete {name}`), or keep the account"
                );
                return Err(Refusal::Invalid(why));
            }
        }
        Ok(())
    }

    /// The document of an earlier version, checked against the cluster as it is now.
    pub(super) fn roll_back_organisation(&mut self, version: u32, by: &Principal) -> Result<()> {
        let accounts = &self.state.accounts;
        let Some(past) = accounts.past().iter().find(|past| past.version == version) else {
            let kept = accounts.past().iter().map(|past| past.version);
            let kept = match (kept.clone().min(), kept.max()) {
                (Some(first), Some(last)) => format!("{first} to {last} are kept"),
                _ => "none was replaced yet".into(),
            };
            let present = accounts.version();
            let why = format!(
                "there is no version {version} of the organisation to go back to; {kept}, {present} is in force"
            );
            return Err(Refusal::Invalid(why));
        };
        let document = past.document.clone();
        self.organise(&document, by)
    }

    /// Devices by model that may be placed on, of every known node.
    fn capacity(&self) -> BTreeMap<Name, u64> {
        let mut capacity: BTreeMap<Name, u64> = BTreeMap::new();
        for (_, device) in self.state.nodes.values().flat_map(|node| node.inventory.usable()) {
            *capacity.entry(device.model.clone()).or_default() += 1;
        }
        capacity
    }

    /// A job's scheduling part with what the organisation fills in: the account and the time limit
    /// that it leaves out. `before`: as it is now, when it is edited; what stays as it is stays valid.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for what the organisation does not know or allow.
    pub(super) fn organised(
        &self,
        asked: &Scheduling,
        user: &Principal,
        before: Option<&Scheduling>,
    ) -> Result<Scheduling> {
        let accounts = &self.state.accounts;
        let mut scheduling = asked.clone();
        if before.is_none_or(|before| before.queue != asked.queue) {
            check_queue(accounts, &asked.queue)?;
        }
        let queue = accounts.queue(&asked.queue);
        if asked.account.as_str() == DEFAULT_NAME
            && accounts.get(&asked.account).is_none()
            && let Some(account) = queue.and_then(|queue| queue.account.clone())
        {
            scheduling.account = account;
        }
        if before.is_none_or(|before| before.account != scheduling.account) {
            check_account(accounts, &scheduling.account)?;
        }
        keep_off(&accounts.document().preemptible_only, &mut scheduling, before);
        let longest_ms = limits::longest_ms(self.state, &scheduling.account, user);
        let default_ms = queue.and_then(|queue| queue.default_time_ms).or(longest_ms);
        let default_ms = default_ms.map(|ms| ms.min(longest_ms.unwrap_or(u64::MAX)));
        scheduling.limits.time_ms = scheduling.limits.time_ms.or(default_ms);
        if before.is_none_or(|before| before.limits.time_ms != scheduling.limits.time_ms) {
            check_time(queue, &scheduling)?;
        }
        self.check_limits(&scheduling, user, before)?;
        Ok(scheduling)
    }

    fn check_limits(&self, scheduling: &Scheduling, user: &Principal, before: Option<&Scheduling>) -> Result<()> {
        let scopes = limits::scopes(self.state, &scheduling.account, user, self.now());
        let new = before.is_none_or(|before| before.account != scheduling.account);
        // What is over a limit as it is may stay so.
        if before.is_some_and(|before| limits::refuses(&scopes, before, new).is_some()) {
            return Ok(());
        }
        match limits::refuses(&scopes, scheduling, new) {
            Some(over) if over.is_for_good() => Err(Refusal::Invalid(format!("{}: {over}", over.part(scheduling)))),
            Some(over) => Err(Refusal::OverLimit(over.to_string())),
            None => Ok(()),
        }
    }
}

/// What may not be stopped keeps off nodes that are for the rest; once it may be, it no longer does.
fn keep_off(labels: &BTreeMap<Name, String>, scheduling: &mut Scheduling, before: Option<&Scheduling>) {
    let may_now = scheduling.preemptible && before.is_some_and(|before| !before.preemptible);
    for group in scheduling.groups.iter_mut().filter(|group| group.devices() > 0) {
        for (key, value) in labels {
            if !scheduling.preemptible {
                group.avoid.entry(key.clone()).or_insert_with(|| value.clone());
            } else if may_now && group.avoid.get(key) == Some(value) {
                group.avoid.remove(key);
            }
        }
    }
}

fn check_time(queue: Option<&Queue>, scheduling: &Scheduling) -> Result<()> {
    let Some((queue, max_ms)) = queue.and_then(|queue| Some((queue, queue.max_time_ms?))) else { return Ok(()) };
    match scheduling.limits.time_ms {
        Some(limit_ms) if limit_ms > max_ms => {
            let (limit_s, max_s) = (limit_ms / 1000, max_ms / 1000);
            let name = &queue.name;
            let why = format!(
                "limits.time: queue `{name}` takes jobs of at most {max_s} s; this one has a time limit of {limit_s} s"
            );
            Err(Refusal::Invalid(why))
        }
        _ => Ok(()),
    }
}

fn check_queue(accounts: &Accounts, name: &Name) -> Result<()> {
    if accounts.document().queues.is_empty() || accounts.queue(name).is_some() {
        return Ok(());
    }
    Err(unknown("queue", name, accounts.queue_names()))
}

fn check_account(accounts: &Accounts, name: &Name) -> Result<()> {
    if !accounts.are_configured() || accounts.get(name).is_some() {
        return Ok(());
    }
    Err(unknown("account", name, accounts.names()))
}

/// `what`: the key of a job file that names it.
fn unknown<'a>(what: &str, name: &Name, known: impl Iterator<Item = &'a Name>) -> Refusal {
    let known: Vec<&str> = known.map(|name| name.as_str()).collect();
    let help = match nearest(name.as_str(), known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known.len() > LISTED_MAX => {
            format!("there are {}, {} among them", known.len(), known[..LISTED_MAX].join(", "))
        }
        None => format!("there is: {}", known.join(", ")),
    };
    Refusal::Invalid(format!("{what}: there is no {what} `{name}`; {help}"))
}
