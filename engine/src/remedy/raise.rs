//! Limits and quota raised by just as much as the gang lacks.

use super::ground::Ground;
use super::{Change, Kind};
use crate::apply::apply;
use crate::command::{Command, ConfigChange, Entry};
use crate::organisation::{Account, Caps, Organisation, User};
use crate::outcome::Response;
use crate::plan::limits::{self, Of, Over, Who};
use crate::plan::quota::{self, Quotas, Short};
use crate::plan::running::Running;
use crate::state::State;
use muster_common::Name;
use muster_common::money::MicroUsd;
use std::sync::Arc;

/// Limits in the way one behind the other, at most so many.
const RAISES_MAX: usize = 4;

/// The organisation with room for the gang; `None` when no limit or quota is in its way, or no
/// document would help.
pub(super) fn raised(ground: &Ground) -> Option<Change> {
    let mut view = ground.decided.clone();
    let mut document = (**view.accounts().document()).clone();
    let mut told: Vec<String> = Vec::new();
    while let Some(lack) = lack(ground, &view) {
        if told.len() == RAISES_MAX {
            return None;
        }
        told.push(match lack {
            Lack::Limit(over) => raise_limit(&mut document, &over)?,
            Lack::Quota(short) => raise_quota(&mut document, &short, &ground.scheduling.account)?,
        });
        let entry = Entry {
            index: view.applied_index() + 1,
            term: view.applied_term(),
            at: ground.now,
            command: put(ground, &document),
        };
        if matches!(apply(&mut view, &entry).response, Response::Refused(_)) {
            return None;
        }
    }
    let command = "muster cluster set organisation FILE".to_owned();
    (!told.is_empty()).then(|| {
        let entries = vec![put(ground, &document)];
        Change { kind: Kind::Raise, text: told.join("; "), command, entries }
    })
}

fn put(ground: &Ground, document: &Organisation) -> Command {
    let change = Box::new(ConfigChange::Organisation(Arc::new(document.clone())));
    Command::Configure { change, by: ground.operator() }
}

enum Lack {
    Limit(Over),
    Quota(Short),
}

fn lack(ground: &Ground, view: &State) -> Option<Lack> {
    let scheduling = &ground.scheduling;
    let scopes = limits::scopes(view, &scheduling.account, &ground.job.principal, ground.now);
    if let Some(over) = limits::over(&scopes, scheduling) {
        return Some(Lack::Limit(over));
    }
    let mut running = Running::default();
    view.gangs().values().for_each(|gang| running.put(view, gang));
    let short = quota::allowed(&Quotas::of(view, &running), scheduling).err()?;
    short.into_iter().min_by_key(|short| short.missing).map(Lack::Quota)
}

fn account<'d>(document: &'d mut Organisation, name: &Name) -> Option<&'d mut Account> {
    document.accounts.iter_mut().find(|account| account.name == *name)
}

fn raise_limit(document: &mut Organisation, over: &Over) -> Option<String> {
    if let Of::Money { .. } = over.of {
        return raise_budget(document, over);
    }
    let (caps, whose) = match &over.who {
        Who::Account(name) => (&mut account(document, name)?.limits, format!("account `{name}`")),
        Who::User(user, name) => {
            let users = &mut account(document, name)?.users;
            let entry = users.entry(user.0.to_string()).or_insert(User { weight: 1, limits: None });
            (entry.limits.get_or_insert_with(Caps::default), format!("{} in account `{name}`", user.0))
        }
    };
    let most = over.most;
    match over.of {
        Of::Gpus { milli, held } => {
            let wanted = u32::try_from(held.saturating_add(milli).div_ceil(1000)).ok()?;
            caps.gpus = Some(wanted);
            Some(format!("{whose} may hold {wanted} GPUs at a time instead of {most}"))
        }
        Of::Running { held } => {
            caps.running = Some(held.checked_add(1)?);
            Some(format!("{whose} may run {} gangs at a time instead of {most}", held + 1))
        }
        // A job that is over one of these was never taken.
        Of::Jobs { .. } | Of::Array { .. } | Of::Time { .. } | Of::Money { .. } => None,
    }
}

fn raise_budget(document: &mut Organisation, over: &Over) -> Option<String> {
    let (Of::Money { micro_usd: Some(micro_usd), used, per, .. }, Who::Account(name)) = (over.of, &over.who) else {
        return None;
    };
    let wanted = MicroUsd(used.checked_add(micro_usd)?);
    account(document, name)?.budget.as_mut()?.usd = wanted;
    Some(format!("account `{name}` may spend ${wanted} in a {per} instead of ${}", MicroUsd(over.most)))
}

/// More to borrow where that is what ends, else more to own.
fn raise_quota(document: &mut Organisation, short: &Short, payer: &Name) -> Option<String> {
    let missing = u32::try_from(short.missing.max(1).unsigned_abs().div_ceil(1000)).ok()?;
    let name = short.at.as_ref().unwrap_or(payer);
    let model = &short.model;
    let quota = account(document, name)?.quota.get_mut(model);
    match (quota, &short.at, short.firm) {
        (Some(quota), Some(_), false) if quota.borrow_limit.is_some() => {
            let wanted = quota.borrow_limit?.checked_add(missing)?;
            quota.borrow_limit = Some(wanted);
            Some(format!("account `{name}` may borrow {wanted} {model} instead of {}", wanted - missing))
        }
        (Some(quota), ..) => {
            quota.nominal = quota.nominal.checked_add(missing)?;
            Some(format!("account `{name}` owns {} {model} instead of {}", quota.nominal, quota.nominal - missing))
        }
        (None, ..) => None,
    }
}
