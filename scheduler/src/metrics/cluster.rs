//! What the leader tells about the cluster.

use super::sheet::Sheet;
use crate::context::Context;
use crate::gateway::render::cluster;
use muster_common::GangId;
use muster_engine::plan::explain::explain;
use muster_engine::state::gang::GangState;
use muster_engine::{Memo, State};
use muster_runtime::clock::Clock;
use std::collections::BTreeMap;

/// Time one scrape may spend on explaining what waits.
const EXPLAIN_MS: u64 = 50;
/// What the time did not suffice for.
const UNEXPLAINED: &str = "unexplained";

pub fn look(sheet: &mut Sheet, context: &Context, memo: &mut Memo) {
    let state = context.view();
    let jobs = cluster::jobs(&state);
    let by_state =
        [("queued", jobs.queued), ("starting", jobs.starting), ("running", jobs.running), ("stopping", jobs.stopping)];
    sheet.gauges("jobs", "Live jobs by state", "state", by_state);
    sheet.gauge("jobs_held", "Live jobs that are held", jobs.held);
    let nodes = cluster::nodes(&state);
    let by_state = [("up", nodes.up), ("silent", nodes.silent), ("fenced", nodes.fenced)];
    sheet.gauges("nodes", "Nodes by liveness", "state", by_state.map(|(state, count)| (state, u64::from(count))));
    sheet.gauge("nodes_closed", "Nodes that take no new work", u64::from(nodes.closed));
    let devices = cluster::devices(&state);
    let by_state = [
        ("free", devices.free),
        ("held", devices.held),
        ("unknown", devices.unknown),
        ("quarantined", devices.quarantined),
    ];
    let by_state = by_state.map(|(state, count)| (state, u64::from(count)));
    sheet.gauges("devices", "Devices by state", "state", by_state);
    let reasons = reasons(&state, memo, &*context.clock, context.proposer.now().max(state.now()));
    sheet.gauges("queue_gangs", "Gangs that wait, by the reason that decides", "reason", reasons);
}

/// Gangs that wait, by reason. Elements of an array that never started are alike: one is explained.
fn reasons(state: &State, memo: &mut Memo, clock: &dyn Clock, now: muster_common::Time) -> BTreeMap<&'static str, u64> {
    let again = state.gangs().values().filter(|gang| matches!(gang.state, GangState::Queued { .. }));
    let lanes = state.jobs().values().filter_map(|job| {
        let first = job.unstarted.first()?;
        Some((GangId::new(job.id, first), u64::from(job.unstarted.len())))
    });
    let until_ms = clock.boottime_ms() + EXPLAIN_MS;
    let mut counts = BTreeMap::from([(UNEXPLAINED, 0)]);
    for (gang, count) in again.map(|gang| (gang.id, 1)).chain(lanes) {
        let in_time = clock.boottime_ms() < until_ms;
        let explained = in_time.then(|| explain(state, memo, gang, now)).flatten();
        let reason = match explained {
            Some(explanation) if explanation.starts_now => "starts-now",
            Some(explanation) => explanation.blockers.first().map_or(UNEXPLAINED, |first| first.reason.word()),
            None => UNEXPLAINED,
        };
        *counts.entry(reason).or_default() += count;
    }
    counts
}
