//! Queues: how much waits and runs in each, and in which order what waits would start.

use super::render::words::plain;
use super::render::{cluster, spec};
use super::roles::Caller;
use super::{Inner, errors, why};
use muster_common::job::Scheduling;
use muster_common::resources::Share;
use muster_common::{JobId, Name, Time};
use muster_engine::State;
use muster_engine::forecast::Forecast;
use muster_engine::plan::brief::Brief;
use muster_engine::plan::owed::{CellsOf, cells_of};
use muster_engine::state::job::JobRecord;
use muster_proto::client as pb;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const ENTRIES: u32 = 100;
const ENTRIES_MAX: u32 = 1000;

pub(super) async fn list(
    inner: &Arc<Inner>,
    _caller: &Caller,
    _request: pb::ListQueuesRequest,
) -> Result<pb::ListQueuesReply, ErrorInfo> {
    let state = inner.fresh().await?;
    inner
        .reading(move |inner| {
            let cells = owned_cells(&state, |_| true);
            let budgets = budgets(&state, inner.now(&state), |_| true);
            Ok(pb::ListQueuesReply { queues: queues(&state).into_values().collect(), cells, budgets })
        })
        .await
}

pub(super) async fn show(
    inner: &Arc<Inner>,
    _caller: &Caller,
    request: pb::ShowQueueRequest,
) -> Result<pb::ShowQueueReply, ErrorInfo> {
    if request.limit > ENTRIES_MAX {
        return Err(errors::usage(format!("at most {ENTRIES_MAX} entries are shown")).hint("ask for fewer"));
    }
    let limit = if request.limit == 0 { ENTRIES } else { request.limit } as usize;
    let state = inner.fresh().await?;
    inner
        .reading(move |inner| {
            let mut queues = queues(&state);
            let name = Name::new(request.name.as_str()).ok();
            let Some((name, queue)) = name.and_then(|name| queues.remove_entry(&name)) else {
                return Err(unknown(&request.name, &queues));
            };
            let now = inner.now(&state);
            let clock = &*inner.ctx.clock;
            let briefs = inner.looks.get(&state, now, clock);
            let forecast = inner.estimates.for_list(&state, now, clock);
            let of_queue =
                |brief: &&Brief| state.job(brief.gang.job).is_some_and(|job| state.scheduling(job).queue == name);
            let payers = payers(&state, &name);
            let entries: Vec<&Brief> = briefs.order.iter().filter(of_queue).collect();
            Ok(pb::ShowQueueReply {
                queue: Some(queue),
                entries_total: entries.len() as u32,
                entries: entries
                    .into_iter()
                    .take(limit)
                    .filter_map(|brief| entry(&state, brief, forecast.as_deref(), now))
                    .collect(),
                applied_index: state.applied_index(),
                looked_at_ms: now.0,
                policy: cluster::policy(&state),
                cells: owned_cells(&state, |account| payers.contains(account)),
                budgets: budgets(&state, now, |account| payers.contains(account)),
            })
        })
        .await
}

/// Accounts that the live jobs of a queue charge, and those above them.
fn payers(state: &State, queue: &Name) -> BTreeSet<Name> {
    let of_queue = |job: &&JobRecord| state.scheduling(job).queue == *queue;
    let charged = state.jobs().values().filter(of_queue).map(|job| &state.scheduling(job).account);
    let charged: BTreeSet<&Name> = charged.collect();
    charged.into_iter().flat_map(|account| state.accounts().upward(account)).map(|above| above.name.clone()).collect()
}

fn owned_cells(state: &State, wanted: impl Fn(&Name) -> bool) -> Vec<pb::OwnedCells> {
    let within_ms = |account: &Name| state.accounts().get(account).and_then(|account| account.reclaim_within_ms);
    let one = |of: CellsOf| pb::OwnedCells {
        reclaim_within_ms: within_ms(&of.account).unwrap_or(0),
        account: of.account.to_string(),
        model: of.cells.model.to_string(),
        level: of.cells.level.to_string(),
        nodes: of.cells.nodes,
        gpus_per_node: of.cells.gpus,
        owned: of.cells.number,
        in_use: of.used,
        obtainable: of.obtainable,
        lost: of.lost,
    };
    cells_of(state).into_iter().filter(|of| wanted(&of.account)).map(one).collect()
}

fn budgets(state: &State, now: Time, wanted: impl Fn(&Name) -> bool) -> Vec<pb::AccountBudget> {
    let one = |name: &Name| {
        let budget = state.accounts().get(name)?.budget?;
        let spending = state.usage().spendings().of(name, now)?;
        Some(pb::AccountBudget {
            account: name.to_string(),
            budget_micro_usd: budget.usd.0,
            period: budget.per.word().into(),
            spent_micro_usd: spending.spent.0,
            set_aside_micro_usd: spending.set_aside().0,
            since_at_ms: spending.from.0,
            until_at_ms: spending.until.0,
        })
    };
    state.accounts().names().filter(|name| wanted(name)).filter_map(one).collect()
}

fn unknown(name: &str, queues: &BTreeMap<Name, pb::Queue>) -> ErrorInfo {
    let message = format!("no live job is in a queue `{}`", plain(name));
    let known: Vec<&str> = queues.keys().map(|name| name.as_str()).collect();
    let hint = match known.is_empty() {
        true => "there are no live jobs; a queue is there as soon as a job names it".to_owned(),
        false => format!("there is: {}", known.join(", ")),
    };
    ErrorInfo::new(ErrorCode::QueueUnknown, message).hint(hint)
}

/// Every queue that a live job names.
pub fn queues(state: &State) -> BTreeMap<Name, pb::Queue> {
    let mut queues: BTreeMap<Name, pb::Queue> = BTreeMap::new();
    let mut users: BTreeSet<(Name, &str)> = BTreeSet::new();
    let mut again: BTreeMap<JobId, Vec<u64>> = BTreeMap::new();
    for gang in state.gangs().values().filter(|gang| gang.current().is_none()) {
        again.entry(gang.id.job).or_default().push(gang.queued_at.0);
    }
    for job in state.jobs().values() {
        let scheduling = state.scheduling(job);
        let queue = queues.entry(scheduling.queue.clone()).or_insert_with(|| pb::Queue {
            name: scheduling.queue.to_string(),
            gpus_waiting_milli: Some(0),
            gpus_active_milli: Some(0),
            ..pb::Queue::default()
        });
        queue.jobs += 1;
        queue.users += u32::from(users.insert((scheduling.queue.clone(), &job.principal.0)));
        count(queue, job, scheduling, again.get(&job.id).map_or(&[][..], Vec::as_slice));
    }
    queues
}

fn count(queue: &mut pb::Queue, job: &JobRecord, scheduling: &Scheduling, again_since: &[u64]) {
    let (devices, milli) = (scheduling.devices(), milli(scheduling));
    let unstarted = u64::from(job.unstarted.len());
    let waiting = unstarted + again_since.len() as u64;
    let active = u64::from(job.gangs_active);
    queue.gangs_active += active;
    queue.gpus_active += active * devices;
    *queue.gpus_active_milli.get_or_insert(0) += active * milli;
    if job.held {
        queue.gangs_held += waiting;
        return;
    }
    queue.gangs_waiting += waiting;
    queue.gpus_waiting += waiting * devices;
    *queue.gpus_waiting_milli.get_or_insert(0) += waiting * milli;
    let first = (unstarted > 0).then_some(job.submitted_at.0);
    let oldest = again_since.iter().copied().chain(first).chain(queue.oldest_wait_since_at_ms).min();
    queue.oldest_wait_since_at_ms = oldest;
}

/// What one gang asks for, in thousandths of a device.
fn milli(scheduling: &Scheduling) -> u64 {
    scheduling.groups.iter().map(|group| group.devices() * u64::from(group.share.0.min(Share::WHOLE.0))).sum()
}

fn entry(state: &State, brief: &Brief, forecast: Option<&Forecast>, now: Time) -> Option<pb::QueueEntry> {
    let job = state.job(brief.gang.job)?;
    let scheduling = state.scheduling(job);
    let nodes = spec::nodes(scheduling);
    let queued_at = state.gang(brief.gang).map_or(job.submitted_at, |gang| gang.queued_at);
    let (reason, text) = match &brief.reason {
        Some((reason, detail)) => (reason.word().to_owned(), plain(detail)),
        None => Default::default(),
    };
    let start = why::start(brief.gang, brief.starts_now, brief.booked, forecast, now);
    Some(pb::QueueEntry {
        position: brief.position,
        job: job.id.0,
        ordinal: brief.gang.ordinal,
        gangs: brief.gangs,
        name: job.name.to_string(),
        user: job.principal.0.to_string(),
        priority: scheduling.class.to_string(),
        nodes,
        gpus: u32::try_from(scheduling.devices()).unwrap_or(u32::MAX),
        queued_at_ms: queued_at.0,
        reason,
        reason_text: text,
        start_estimate_at_ms: start.map(|start| start.at.0),
        start_estimate_coarse: start.is_some_and(|start| start.coarse),
        array: scheduling.array.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::fixture::Cluster;

    #[test]
    fn shares_of_a_gpu_are_summed_as_what_they_are() {
        let mut cluster = Cluster::new(1, 1);
        for _ in 0..5 {
            cluster.submit("alice", r#"{"gang":{"nodes":1,"gpus_per_node":1,"share":0.25,"run":"x"}}"#);
        }
        cluster.submit("alice", r#"{"queue":"other","gang":{"nodes":2,"gpus_per_node":8,"run":"x"}}"#);
        cluster.decide();
        let queues = queues(&cluster.state);
        let [default, other] = queues.values().collect::<Vec<_>>()[..] else { panic!("{queues:?}") };
        let told = |queue: &pb::Queue| {
            let (active, waiting) = (queue.gpus_active_milli.unwrap(), queue.gpus_waiting_milli.unwrap());
            (queue.gangs_active, active, queue.gangs_waiting, waiting)
        };
        assert_eq!(told(default), (4, 1000, 1, 250));
        assert_eq!(told(other), (0, 0, 1, 16_000));
        assert_eq!((default.gpus_active, default.gpus_waiting), (4, 1), "as those read who know no shares");
    }
}
