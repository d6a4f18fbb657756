//! What somebody is owed is there, or can be had: a document is refused with which more of it would be taken for good.

use super::{Applying, Result, cells};
use crate::organisation::Organisation;
use crate::outcome::Refusal;
use crate::plan::quota::Quotas;
use crate::plan::running::Running;
use crate::state::State;
use muster_common::{JobId, Name};
use std::collections::{BTreeMap, BTreeSet};

/// Most jobs that a refusal names.
const NAMED_MAX: usize = 5;

/// Thousandths of devices, by model, on which work runs that may not be stopped though they are owed to others.
pub(super) type Taken = BTreeMap<Name, i64>;

/// By the tree in which nothing is lent, for such work is not lent to either.
fn quotas(state: &State) -> Quotas {
    let mut running = Running::default();
    state.gangs.values().for_each(|gang| running.put(state, gang));
    Quotas::of(state, &running)
}

pub(super) fn taken_for_good(state: &State) -> Taken {
    quotas(state).taken_for_good()
}

/// Can everybody have what they are owed as well as before, in devices and in cells?
pub(super) fn owes_no_more(before: &State, after: &State) -> bool {
    let was = taken_for_good(before);
    let no_more = |(model, milli): (&Name, &i64)| *milli <= was.get(model).copied().unwrap_or(0);
    taken_for_good(after).iter().all(no_more) && cells::check_still_kept(before, after).is_ok()
}

impl Applying<'_> {
    /// State has the document in force by now.
    pub(super) fn check_guarantees(&self, before: &Taken, replaced: &Organisation) -> Result<()> {
        let quotas = quotas(self.state);
        let after = quotas.taken_for_good();
        let worse = after.iter().find(|(model, milli)| **milli > before.get(*model).copied().unwrap_or(0));
        let Some((model, milli)) = worse else { return Ok(()) };
        let document = self.state.accounts.document();
        let debtors = quotas.debtors_for_good(model);
        let debtor = document.accounts.iter().position(|account| debtors.contains(&account.name));
        let nominal = |of: &Organisation, name: &Name| {
            let known = of.accounts.iter().find(|account| account.name == *name);
            known.and_then(|account| account.quota.get(model)).map_or(0, |quota| quota.nominal)
        };
        let raised = || {
            let more = |name: &Name| nominal(document, name) > nominal(replaced, name);
            document.accounts.iter().position(|account| more(&account.name))
        };
        let path = match debtor.or_else(raised) {
            Some(at) if document.accounts[at].quota.contains_key(model) => format!("account[{at}].quota.{model}"),
            Some(at) => format!("account[{at}]"),
            None => "account".to_owned(),
        };
        let whose = debtor.map_or(String::new(), |at| format!(" of `{}`", document.accounts[at].name));
        let jobs: BTreeSet<JobId> = quotas.held_for_good(model, &debtors).map(|gang| gang.job).collect();
        let named: Vec<String> = jobs.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        let more = if jobs.len() > NAMED_MAX { ", ..." } else { "" };
        let devices = milli.unsigned_abs().div_ceil(1000);
        Err(Refusal::Invalid(format!(
            "{path}: {devices} {model} would be owed to others while jobs{whose} are on them that may not be stopped \
             ({}{more}); wait for those jobs, cancel them, or let less be owed",
            named.join(", ")
        )))
    }
}
