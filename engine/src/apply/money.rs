//! What is set aside for gangs that run, when a job's time limit becomes another.

use super::edit::runs_alike;
use super::{Applying, Result};
use crate::outcome::Refusal;
use crate::plan::limits::{Of, Over, Who, until_limit};
use crate::state::gang::{Attempt, GangRecord, GangState};
use crate::state::job::JobRecord;
use crate::state::usage::Holding;
use muster_common::GangId;
use muster_common::job::Scheduling;

impl Applying<'_> {
    /// A longer time limit of what runs has to be left of the budgets, as a start has.
    pub(super) fn check_budgets(&self, job: &JobRecord, after: &Scheduling) -> Result<()> {
        let going_on = self.going_on(job, after);
        for account in self.state.accounts.upward(&after.account) {
            let spending = self.state.usage.spendings().of(&account.name, self.now());
            let (Some(budget), Some(spending)) = (account.budget, spending) else { continue };
            let mut more: u64 = 0;
            for holding in going_on.iter().filter(|holding| spending.counts(holding)) {
                let cost = after.limits.time_ms.map(|_| until_limit(holding.hourly, after).0);
                let extra = cost.map(|cost| cost.saturating_sub(holding.set_aside.0));
                more = more.saturating_add(extra.unwrap_or(u64::MAX));
            }
            let used = spending.used().0;
            if more > 0 && used.saturating_add(more) > budget.usd.0 {
                let micro_usd = after.limits.time_ms.map(|_| more);
                let of = Of::Money { micro_usd, used, per: budget.per, until: spending.until };
                let over = Over { who: Who::Account(account.name.clone()), of, most: budget.usd.0 };
                return Err(Refusal::OverLimit(over.to_string()));
            }
        }
        Ok(())
    }

    /// What is held by attempts that would go on under the new revision, and costs something.
    fn going_on(&self, job: &JobRecord, after: &Scheduling) -> Vec<Holding> {
        let goes_on = |gang: &GangId| runs_alike(&self.scheduling_of(*gang), after);
        let gangs = self.gangs_of(job.id).into_iter().filter(goes_on);
        let held = gangs.filter_map(|gang| match &self.state.gangs.get(&gang)?.state {
            GangState::Starting(attempt) | GangState::Running(attempt) => Some(attempt.holding()),
            GangState::Queued { .. } | GangState::Stopping(..) => None,
        });
        held.filter(|holding| holding.hourly.0 > 0).collect()
    }

    pub(super) fn set_aside_anew(&mut self, gang: GangId, after: &Scheduling) {
        let Some(holding) = self.state.gangs.get(&gang).and_then(GangRecord::current).map(Attempt::holding) else {
            return;
        };
        let cost = until_limit(holding.hourly, after);
        if cost == holding.set_aside {
            return;
        }
        let (payer, now) = (self.payer_of(gang), self.now());
        self.state.usage.set_aside_anew(&self.state.accounts, &payer, holding, now, cost);
        if let Some(attempt) = self.gang_mut(gang).current_mut() {
            attempt.set_aside = cost;
        }
    }
}
